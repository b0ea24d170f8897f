package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/ims"
	"sparkle/bridge/lab/phone"
)

// startIMS is a real core: Kamailio, and the lab's HSS.
func startIMS(t *testing.T) *ims.Core {
	t.Helper()
	if missing := ims.Missing(); len(missing) > 0 {
		t.Skipf("NOT RUN: %s not installed (make test installs them); the real binary then meets no real IMS core", strings.Join(missing, ", "))
	}
	c, err := ims.Start(t.Context(), ims.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const (
	imsNumber = "+15550100100"
	imsK      = "465b5ce8b199b49faa5f0a2ee238a6bc" // TS 35.208 set 1
	imsOPc    = "cd63cb71954a9f4e48a5994e37a02baf"
)

// imsAttachment provisions the daemon's identity and is its configuration.
func imsAttachment(t *testing.T, c *ims.Core) string {
	t.Helper()
	impi, impu := lab.IMPI(imsNumber, c.Domain()), lab.IMPU(imsNumber, c.Domain())
	s, err := lab.ParseSubscriber(strings.Join([]string{impi, impu, "akav1-md5", imsK, imsOPc}, ","))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddSubscriber(s); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
attachments:
  - name: ims
    mode: ue
    transport: tcp
    local_addr: 127.0.0.1
    targets: [%q]
    domain: %q
    impi: %q
    impu: %q
    auth: {algorithms: [AKAv1-MD5], k: %q, opc: %q}
    reg_event: required
`, c.PCSCF(), c.Domain(), impi, impu, imsK, imsOPc)
}

// The whole way: the daemon registers by AKA with a real core, calls two phones that are
// registered there by their numbers, and each hears and sees the other; then one is hung up
// and the other hangs up.
func TestConferenceThroughKamailio(t *testing.T) {
	t.Parallel()
	c := startIMS(t)
	roster := []lab.HandsetOptions{
		{Number: "+15550100001", Name: "Alice", Profile: lab.VolteVideo, Transport: "tcp"},
		{Number: "+15550100002", Name: "Bob", Profile: lab.Preconditions},
	}
	factory := demo.Phones(roster, phone.Options{})
	var hs []*lab.Handset
	for _, o := range roster {
		o.Media = factory
		h, err := c.AddHandset(o)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	d := startDaemon(t, imsAttachment(t, c)+fewPictures)
	d.ready()
	room := d.conference(bridge.VideoConference)
	alice, bob := d.invite(room, hs[0].Number(), "Alice"), d.invite(room, hs[1].Number(), "Bob")
	d.call(room, bridge.CallRequest{Targets: "all"})
	for _, m := range []string{alice, bob} {
		d.await(room, m, "the conference", in)
	}
	began := time.Now()
	for i, h := range hs {
		p := h.Media().(*phone.Phone)
		other := hs[1-i].Name()
		eventually(t, h.Name()+" hearing and seeing "+other, func() error {
			heard, seen := p.Heard(began), p.Seen(began, []string{other})
			for _, x := range heard {
				if x.Who == h.Name() {
					t.Fatalf("%s hears himself: %+v", h.Name(), heard)
				}
			}
			if len(heard) == 1 && heard[0].Who == other && len(seen.Named) == 1 {
				return nil
			}
			return fmt.Errorf("heard %+v, seen %+v; %+v", heard, seen, p.Stats())
		})
	}
	if err := d.api.Hangup(t.Context(), room, alice); err != nil {
		t.Fatal(err)
	}
	d.ended(room, alice, bridge.HungUp)
	if err := hs[1].HangUp(); err != nil {
		t.Fatal(err)
	}
	d.ended(room, bob, bridge.Left)
	for i, want := range []string{lab.ByCaller, lab.ByHandset} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if k, err := hs[i].WaitState(ctx, lab.Ended); err != nil || k.By != want {
			t.Errorf("%s's call ended by %q, %v", hs[i].Name(), k.By, err)
		}
		cancel()
	}
}

// The lab with a real core prints what a daemon needs: a daemon with just that registers and
// calls a phone.
func TestLabWithKamailio(t *testing.T) {
	t.Parallel()
	if missing := ims.Missing(); len(missing) > 0 {
		t.Skipf("NOT RUN: %s not installed (make test installs them)", strings.Join(missing, ", "))
	}
	l := startLab(t, "reg_event", "--kamailio", "--handset", "+15550100001,volte-voice,Alice")
	l.callsAlice(l.config)
	l.stop()
}

// So does the lab with its own core: for a daemon that registers, and for a trunk and an
// application server, which the lab must be told of.
func TestLabPrintsWhatADaemonNeeds(t *testing.T) {
	t.Parallel()
	const domain = "ims.mnc001.mcc001.3gppnetwork.org"
	l := startLab(t, "trunk", "--handset", "+15550100001,volte-voice,Alice", "--trunk", "127.0.0.1", "--subscriber", "100@"+domain+",sip:100@"+domain+",sha-256,secret")
	head, trunk, ok := strings.Cut(l.config, "  - name: trunk\n")
	if !ok {
		t.Fatal(l.config)
	}
	heading, _, _ := strings.Cut(head, "  - ")
	trunk = heading + "  - name: trunk\n" + trunk
	for mode, config := range map[string]string{"ue": head, "trunk": trunk, "as": strings.Replace(trunk, "mode: trunk", "mode: as", 1)} {
		if !strings.Contains(config, "mode: "+mode) {
			t.Errorf("no mode %s in\n%s", mode, config)
			continue
		}
		l.callsAlice(config)
	}
	l.stop()
}

// labProcess is a `sparkle lab`.
type labProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	said   bytes.Buffer // to standard error
	config string       // printed
}

// startLab runs a lab until it has printed the last attachment: the one in which a line has a word.
func startLab(t *testing.T, last string, args ...string) *labProcess {
	t.Helper()
	l := &labProcess{t: t, cmd: exec.Command(program, append([]string{"lab"}, args...)...)}
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	l.cmd.Stderr = &l.said
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l.cmd.ProcessState == nil {
			_ = l.cmd.Process.Kill()
			_ = l.cmd.Wait()
		}
	})
	seen := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		l.config += lines.Text() + "\n"
		seen = seen || strings.Contains(lines.Text(), last)
		if seen && strings.Contains(lines.Text(), "offer_g711") { // the last line of each
			return l
		}
	}
	_ = l.cmd.Wait()
	t.Fatalf("the lab prints %q\n%s", l.config, l.said.String())
	return nil
}

// callsAlice starts a daemon with a configuration, and stops it when it has called a phone.
func (l *labProcess) callsAlice(config string) {
	t := l.t
	t.Helper()
	d := startDaemon(t, noPictures+config)
	d.ready()
	room := d.conference(bridge.AudioConference)
	alice := d.invite(room, "+15550100001", "Alice")
	d.call(room, bridge.CallRequest{Targets: "all"})
	d.await(room, alice, "the conference", in)
	if err := d.api.Hangup(t.Context(), room, alice); err != nil {
		t.Fatal(err)
	}
	d.ended(room, alice, bridge.HungUp)
	d.stop()
}

// stop ends it as one does who has seen enough.
func (l *labProcess) stop() {
	l.t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		l.t.Fatal(err)
	}
	if err := l.cmd.Wait(); err != nil {
		l.t.Errorf("the lab ended with %v\n%s", err, l.said.String())
	}
}
