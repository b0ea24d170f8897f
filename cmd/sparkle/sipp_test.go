package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
)

// phone is a SIPp process that plays a scenario of testdata/sipp.
type sippPhone struct {
	t         *testing.T
	transport string // tcp or udp
	port      int
	dir       string
	cmd       *exec.Cmd
	done      chan struct{}
}

// startSIPp starts SIPp and returns when its port is open.
func startSIPp(t *testing.T, scenario, transport string) *sippPhone {
	t.Helper()
	bin, err := exec.LookPath("sipp")
	if err != nil {
		t.Skip("NOT RUN: sipp is not installed (Debian package sip-tester); the real binary then has no second opinion")
	}
	file, err := filepath.Abs(filepath.Join("..", "..", "testdata", "sipp", scenario))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s := &sippPhone{t: t, transport: transport, port: spare(t), dir: t.TempDir(), done: make(chan struct{})}
		s.cmd = exec.Command(bin, "-sf", file, "-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", fmt.Sprint(s.port),
			"-t", map[string]string{"tcp": "t1", "udp": "u1"}[transport], "-nostdin", "-timeout", "60",
			"-trace_err", "-error_file", "errors")
		s.cmd.Dir = s.dir
		s.cmd.Env = append(os.Environ(), "TERM=dumb")
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { defer close(s.done); _ = s.cmd.Wait() }()
		if s.listens() {
			t.Cleanup(s.end)
			return s
		}
		s.end()
	}
	t.Fatal("SIPp does not start: no free port, or a scenario it cannot read")
	return nil
}

// listens waits until the kernel lists the port as open; false: SIPp has ended.
func (s *sippPhone) listens() bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	want := fmt.Sprintf(": 0100007F:%04X ", s.port)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		b, _ := os.ReadFile("/proc/net/" + s.transport)
		if strings.Contains(string(b), want) {
			return true
		}
		select {
		case <-s.done:
			return false
		case <-tick.C:
		}
	}
	return false
}

// end is for a SIPp that the test did not finish.
func (s *sippPhone) end() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// finish asks SIPp to end when the call under way has, and wants it content: exit code 0
// is every call (and every OPTIONS, which is one for SIPp) as the scenario has it.
func (s *sippPhone) finish() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGUSR1) // SIPp's own word for a soft end
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Error("SIPp waits for something that never came")
		s.end()
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		said, _ := os.ReadFile(filepath.Join(s.dir, "errors"))
		s.t.Errorf("SIPp ended with %v\n%s", s.cmd.ProcessState, said)
	}
}

// trunk is the daemon's attachment towards it.
func (s *sippPhone) trunk() string {
	return fmt.Sprintf(`
attachments:
  - name: sipp
    mode: trunk
    transport: %s
    local_addr: 127.0.0.1
    targets: ["127.0.0.1:%d"]
    domain: sipp.example
    impu: "sip:+15550100100@sipp.example"
`, s.transport, s.port)
}

// dialled is a daemon with one member whose phone SIPp plays, being called.
type dialled struct {
	*daemon
	sipp               *sippPhone
	conference, member string
}

func dialSIPp(t *testing.T, scenario, transport string, r bridge.CallRequest) dialled {
	t.Helper()
	s := startSIPp(t, scenario, transport)
	d := startDaemon(t, s.trunk())
	d.ready()
	x := dialled{daemon: d, sipp: s, conference: d.conference(bridge.VideoConference)}
	x.member = d.invite(x.conference, "+8613800138001", "SIPp")
	if r.Targets == "" {
		r.Targets = "all"
	}
	d.call(x.conference, r)
	return x
}

// hangUp hangs the member up and waits for the outcome.
func (x dialled) hangUp(want bridge.Outcome) bridge.LastOutcome {
	x.t.Helper()
	if err := x.api.Hangup(x.t.Context(), x.conference, x.member); err != nil {
		x.t.Fatal(err)
	}
	return x.ended(x.conference, x.member, want)
}

func TestSIPpTakesTheVideoCall(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} { // an INVITE of 3 kB over both
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			x := dialSIPp(t, "uas-video.xml", transport, bridge.CallRequest{})
			m := x.await(x.conference, x.member, "the conference", in)
			if a := m.Leg.Media.Audio; a == nil || a.Codec != "AMR-WB" {
				t.Errorf("audio is %+v", a)
			}
			if v := m.Leg.Media.Video; v == nil || v.Codec != "H264" || !strings.EqualFold(v.Profile, "42c00c") {
				t.Errorf("video is %+v, want H264 42c00c; why not: %v", v, m.Leg.Media.WhyNoVideo)
			}
			x.hangUp(bridge.HungUp)
			x.sipp.finish()
		})
	}
}

func TestSIPpTakesVoiceOnly(t *testing.T) {
	t.Parallel()
	x := dialSIPp(t, "uas-voice.xml", "tcp", bridge.CallRequest{})
	m := x.await(x.conference, x.member, "the conference", in)
	media := m.Leg.Media
	if media.Audio == nil || media.Audio.Codec != "AMR-WB" || media.Video != nil || media.WhyNoVideo == nil || *media.WhyNoVideo != "refused" {
		t.Errorf("media is %+v (%v), want voice, video refused", media, media.WhyNoVideo)
	}
	x.hangUp(bridge.HungUp)
	x.sipp.finish()
}

// An offer with video is refused as a whole; the same phone takes the voice retry
// (IMS.md §3 row 9).
func TestSIPpTakesTheVoiceRetry(t *testing.T) {
	t.Parallel()
	x := dialSIPp(t, "uas-488.xml", "tcp", bridge.CallRequest{})
	m := x.await(x.conference, x.member, "the conference", in)
	media := m.Leg.Media
	if media.Audio == nil || media.Video != nil || media.WhyNoVideo == nil || *media.WhyNoVideo != "rejected_488" {
		t.Errorf("media is %+v (%v), want voice after a 488", media, media.WhyNoVideo)
	}
	legs, err := x.api.Legs(t.Context(), x.conference, x.member)
	if err != nil || len(legs) != 1 {
		t.Errorf("%d legs, %v: one call is one leg, however many INVITEs it took", len(legs), err)
	}
	x.hangUp(bridge.HungUp)
	x.sipp.finish()
}

// The answer comes in a reliable 183; the 200 has none.
func TestSIPpAnswersReliably(t *testing.T) {
	t.Parallel()
	x := dialSIPp(t, "uas-prack.xml", "tcp", bridge.CallRequest{})
	m := x.await(x.conference, x.member, "the conference", in)
	if a, v := m.Leg.Media.Audio, m.Leg.Media.Video; a == nil || a.Codec != "AMR-WB" || v == nil || v.Codec != "H264" {
		t.Errorf("media is %+v", m.Leg.Media)
	}
	x.hangUp(bridge.HungUp)
	x.sipp.finish()
}

func TestSIPpRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, scenario string
		want           bridge.Outcome
		status, q850   int
	}{
		{"busy", "uas-busy.xml", bridge.Busy, 486, 17},
		{"declined", "uas-declines.xml", bridge.Declined, 603, 0},
		{"no such number", "uas-unknown.xml", bridge.NotFound, 404, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := dialSIPp(t, tt.scenario, "tcp", bridge.CallRequest{})
			o := x.ended(x.conference, x.member, tt.want)
			if o.SIP == nil || o.SIP.Status != tt.status || o.SIP.Q850 != tt.q850 {
				t.Errorf("SIP %+v, want %d and Q.850 %d", o.SIP, tt.status, tt.q850)
			}
			x.sipp.finish()
		})
	}
}

// The organiser gives up while it rings: CANCEL, 487.
func TestSIPpIsCancelled(t *testing.T) {
	t.Parallel()
	x := dialSIPp(t, "uas-cancel.xml", "tcp", bridge.CallRequest{})
	x.await(x.conference, x.member, "ringing", ringing)
	x.hangUp(bridge.Cancelled)
	x.sipp.finish()
}

// Nobody answers in the time the organiser gave.
func TestSIPpIsNotAnswered(t *testing.T) {
	t.Parallel()
	x := dialSIPp(t, "uas-cancel.xml", "tcp", bridge.CallRequest{RingTimeout: time.Second})
	x.ended(x.conference, x.member, bridge.NoAnswer)
	x.sipp.finish()
}

// spare is a port for SIPp, which cannot tell which one it took.
func spare(t *testing.T) int {
	t.Helper()
	port, err := lab.SparePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
