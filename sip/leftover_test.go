package sip

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// running counts the goroutines that are in a function.
func running(function string) (n int) {
	b := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if strings.Contains(g, function+"(") {
			n++
		}
	}
	return n
}

// eventually waits for what nobody tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// gone waits until nothing is in a function any more.
func gone(t *testing.T, function string) {
	t.Helper()
	eventually(t, "the end of "+function, func() bool { return running(function) == 0 })
}

// A phone that answers the CANCEL and never the INVITE leaves nothing behind (RFC 3261 9.1: after
// 64*T1 the INVITE is given up). Over TCP: of UDP sipgo keeps every transaction half a minute.
func TestCancelledWithoutFinalAnswer(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	c, ev := place(t, ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 180, "Ringing", "callee"))
	next[Ringing](ev)
	c.Hangup("cancelled", "")
	cancel := p.expect("CANCEL")
	cancel.write(answer(cancel, 200, "OK", "callee"))
	next[Ended](ev)
	gone(t, "sparkle/sip.(*call).follow")
}
