package sip

import (
	"context"
	"net"
	"os/exec"
	"strconv"
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
