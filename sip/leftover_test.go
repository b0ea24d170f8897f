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

// gone waits until nothing is in a function any more.
func gone(t *testing.T, function string) {
	t.Helper()
	for deadline := time.Now().Add(patience); running(function) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are still in %s", running(function), function)
		}
	}
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
