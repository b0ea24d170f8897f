package sip

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab"
)

// connectedEvents waits for the answer. SIPp sends 180 and 200 in one breath: the 200
// may overtake the 180, as datagrams do, and nothing rings then.
func connectedEvents(ev *events) {
	ev.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-ev.ch:
			switch e := e.(type) {
			case Connected:
				return
			case Ended:
				ev.t.Fatalf("ended %+v", e)
			}
		case <-timeout:
			ev.t.Fatal("not connected")
		}
	}
}

// SIPp's own UAS answers our calls: a stack that shares nothing with ours.
func TestSIPpAnswers(t *testing.T) {
	sipp, err := exec.LookPath("sipp")
	if err != nil {
		t.Skip("SKIPPED: sipp is not installed (Debian: sip-tester)")
	}
	port, err := lab.SparePort() // SIPp cannot tell which port it took
	if err != nil {
		t.Fatal(err)
	}
	addr := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	const calls = 5
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, sipp, "-sn", "uas", "-i", "127.0.0.1", "-p", strconv.Itoa(addr.Port),
		"-m", strconv.Itoa(calls), "-nostdin", "-timeout", "25s")
	cmd.Dir = t.TempDir()
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	ua := newUA(t, Options{Attachments: []AttachmentOptions{{Name: "sipp", Mode: ModeTrunk, Transport: "udp",
		LocalAddr: "127.0.0.1", Domain: "sipp.example", Targets: []string{addr.String()}, OptionsInterval: -1}}})
	for range calls { // the INVITE is repeated until SIPp listens
		call, ev := place(t, ua)
		connectedEvents(ev)
		call.Hangup("hung_up", "")
		if e := next[Ended](ev); e.By != ByLocal || !e.Connected {
			t.Errorf("ended %+v", e)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("SIPp is not content: %v", err)
	}
}

// SIPp's own client calls us, with 100rel and PRACK, with and without preconditions, and is
// hung up on by nobody but itself.
func TestSIPpCalls(t *testing.T) {
	sipp, err := exec.LookPath("sipp")
	if err != nil {
		t.Skip("SKIPPED: sipp is not installed (Debian: sip-tester)")
	}
	for _, run := range []string{"uac-prack/udp", "uac-prack/tcp", "uac-precondition/udp", "uac-precondition/tcp"} {
		t.Run(run, func(t *testing.T) {
			name, transport, _ := strings.Cut(run, "/")
			scenario, err := filepath.Abs("../testdata/sipp/" + name + ".xml")
			if err != nil {
				t.Fatal(err)
			}
			port, err := lab.SparePort()
			if err != nil {
				t.Fatal(err)
			}
			ua := newUA(t, Options{Attachments: []AttachmentOptions{{Name: "sipp", Mode: ModeTrunk, Transport: transport,
				LocalAddr: "127.0.0.1", Domain: "sipp.example", Targets: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, OptionsInterval: -1}}})
			const calls = 20
			ended := make(chan Ended, calls)
			ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
				c.Ring()
				c.Accept(Acceptance{SDP: []byte(answerSDP)})
				return func(e Event) {
					switch e := e.(type) {
					case Offer:
						c.Reply(e.ID, []byte(answerSDP), 200)
					case Ended:
						ended <- e
					}
				}
			})
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, sipp, ua.Attachments()[0].LocalAddr, "-sf", scenario, "-i", "127.0.0.1",
				"-p", strconv.Itoa(port), "-t", map[string]string{"udp": "u1", "tcp": "t1"}[transport],
				"-m", strconv.Itoa(calls), "-r", "50", "-nostdin", "-timeout", "25s", "-timeout_error", "-trace_err", "-error_file", "errors.log")
			cmd.Dir = t.TempDir()
			if out, err := cmd.CombinedOutput(); err != nil {
				log, _ := os.ReadFile(filepath.Join(cmd.Dir, "errors.log"))
				t.Errorf("SIPp is not content: %v\n%s\n%s", err, log, out)
			}
			for range calls {
				select {
				case e := <-ended:
					if e.By != ByRemote || !e.Connected {
						t.Errorf("ended %+v", e)
					}
				case <-time.After(patience):
					t.Fatal("a call did not end")
				}
			}
		})
	}
}
