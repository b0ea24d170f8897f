package dialog

import (
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// The INVITE of a call that goes out, until it is over.
func TestInvite(t *testing.T) {
	play(t, []script{
		// The initial INVITE, RFC 3261 13.2.2 and 17.1.1.
		{"answered", up},
		{"100 alone is no progress", `
			start -> INVITE 1
			< 100 - ->
			wait 60s -> CANCEL 1
			< 487 a -> ended by timeout setup_timeout 487`},
		{"busy", `
			start -> INVITE 1
			< 486 a -> ended by remote 486`},
		{"2xx without tag", `
			start -> INVITE 1
			< 200 - answer -> ACK 1; final answer answer; connected`},
		{"unreliable 18x is a preview, the 2xx binds", `
			start -> INVITE 1
			< 183 a one -> early answer one
			< 183 a one ->
			< 200 a two -> ACK 1 to a; final answer two; connected`},
		{"reliable 18x binds, the 2xx is ignored", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 200 a two -> ACK 1 to a; final answer one; connected`},
		{"RSeq: repetition and gap are ignored, the next is taken", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 183 a one rel=5 ->
			< 180 a rel=7 ->
			< 180 a rel=6 -> PRACK 3 to a RAck=6 1 INVITE; ringing`},
		{"each fork has its own RSeq and CSeq", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 183 b two rel=900 -> PRACK 2 to b RAck=900 1 INVITE; early answer two
			< 200 b -> ACK 1 to b; final answer two; connected
			< 200 a -> ACK 1 to a; BYE 3 to a
			< 200 a -> ACK 1 to a
			< 200 b -> ACK 1 to b`},
		{"PRACK refused with 481: that early dialog ends, the others live on", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 183 b two rel=7 -> PRACK 2 to b RAck=7 1 INVITE; early answer two
			< 481 a prack ->
			< 180 a ->
			< 183 a one rel=6 ->
			> UPDATE a 1 more -> UPDATE1=481
			< 180 b rel=8 -> PRACK 3 to b RAck=8 1 INVITE; ringing
			< 200 b -> ACK 1 to b; final answer two; connected`},
		{"PRACK refused with 481, and there is no other: another may come", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 481 a prack ->
			wait 30s ->
			< 183 b two -> early answer two
			wait 31s -> CANCEL 1
			< 487 b -> ended by timeout ring_timeout 487`},
		{"PRACK refused with 481, and there is no other: the final answer comes", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 481 a prack ->
			< 480 a -> ended by remote 480`},
		{"PRACK refused with 481: its bearer is not waited for", `
			start -> INVITE 1
			< 183 a NOTREADY rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer NOTREADY
			< 481 a prack ->
			wait 20s ->
			< 183 b two -> early answer two`},
		{"PRACK refused with 481: that of another is", `
			start -> INVITE 1
			< 183 a NOTREADY rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer NOTREADY
			< 183 b NOTREADY rel=5 -> PRACK 2 to b RAck=5 1 INVITE; early answer NOTREADY
			< 481 a prack ->
			wait 15s -> CANCEL 1`},
		{"PRACK refused with 481 and answered all the same: somebody is there", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 481 a prack ->
			< 200 a -> ACK 1 to a; final answer one; connected
			> UPDATE a 1 -> UPDATE1=200
			hangup -> BYE 3 to a; ended by local hung_up connected`},
		{"PRACK refused with 481 after the answer: the dialog has been made", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 200 a -> ACK 1 to a; final answer one; connected
			< 481 a prack ->
			> INFO a 1 -> INFO1=200`},
		{"PRACK without an answer: the same", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			timeout PRACK ->
			< 200 a -> ACK 1 to a; final answer one; connected`},
		{"199 ends a fork", `
			start -> INVITE 1
			< 183 a one -> early answer one
			< 180 b -> ringing
			< 199 a ->
			< 183 a other ->
			< 200 b two -> ACK 1 to b; final answer two; connected`},
		{"199 that wants to be acknowledged", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 199 a rel=6 -> PRACK 3 to a RAck=6 1 INVITE
			< 199 a rel=6 ->
			< 200 a prack ->`},
		{"199 of a fork that nobody knew", `
			start -> INVITE 1
			< 199 z ->
			< 183 a one -> early answer one`},
		{"199 ends the only fork: the final answer comes", `
			start -> INVITE 1
			< 180 a -> ringing
			< 199 a ->
			< 486 a -> ended by remote 486`},
		{"a description in an unreliable 18x only: it was meant", `
			start -> INVITE 1
			< 183 a one -> early answer one
			< 183 a two -> early answer two
			< 200 a -> ACK 1 to a; final answer two; connected`},
		{"no description by the 2xx", `
			start -> INVITE 1
			< 200 a -> ACK 1 to a; BYE 2 to a; ended by remote no_sdp`},
		{"a late copy of the 2xx does not move the target back", up + `
			> INVITE a 5 hold Contact=<sip:moved@h> -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			> ACK a 5 ->
			< 200 a answer -> ACK 1 to a
			hangup -> BYE 2 to a at moved; ended by local hung_up connected`},
		{"nor does a copy of a reliable 18x", `
			start -> INVITE 1
			< 183 a one rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer one
			> UPDATE a 1 ready Contact=<sip:moved@h> -> early offer 1 ready
			reply 1 ready-too -> UPDATE1=200; replied 1
			< 183 a one rel=1 ->
			< 180 a rel=2 Contact=<sip:moved@h> -> PRACK 3 to a at moved RAck=2 1 INVITE; ringing`},
		{"180 after 200 is nothing", up + `
			< 180 a ->`},

		// CANCEL, RFC 3261 9.1.
		{"CANCEL waits for the first 1xx", `
			start -> INVITE 1
			hangup ->
			< 100 - -> CANCEL 1
			< 487 a -> ended by local hung_up 487`},
		{"CANCEL and 200 cross", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up
			< 200 a answer -> ACK 1 to a
			< 200 b answer -> ACK 1 to b; BYE 2 to b`},
		{"nobody confirms the CANCEL; a 200 comes late", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			wait 6s -> ended by local hung_up
			wait 20s ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a`},
		{"200 before any 1xx, hung up already", `
			start -> INVITE 1
			hangup ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up`},
		{"hung up before the start", `
			hangup -> ended by local hung_up
			start ->`},
		{"ring timeout", `
			start -> INVITE 1
			< 180 a -> ringing
			wait 61s -> CANCEL 1
			< 487 a -> ended by timeout ring_timeout 487`},
		{"early media only rings too", `
			start -> INVITE 1
			< 183 a one -> early answer one
			wait 61s -> CANCEL 1
			< 487 a -> ended by timeout ring_timeout 487`},
		{"second hang-up is nothing", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			hangup ->
			< 487 a -> ended by local hung_up 487
			hangup ->`},

		{"CANCEL answered 481: the INVITE's own answer decides", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			< 481 a cancel ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up`},
		{"a 200 after 64·T1 of the CANCEL is a stray", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			wait 6s -> ended by local hung_up
			wait 40s ->`},

		// The INVITE again, each way once.
		{"401 once", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 401 a -> ended by remote 401`},
		{"407 we cannot answer", `
			start -> INVITE 1
			< 407 a phrase=bad_realm -> ended by remote 407`},
		{"422 once, credentials stay", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 422 a Min-SE=3600 -> INVITE 3 Authorization=Digest proof Session-Expires=3600
			< 422 a Min-SE=7200 -> ended by remote 422`},
		{"420 once", `
			start -> INVITE 1
			< 420 a Unsupported=precondition -> INVITE 2 Session-Expires=1800
			< 420 a Unsupported=timer -> ended by remote 420`},
		{"420 for what we did not ask", `
			start -> INVITE 1
			< 420 a Unsupported=foo -> ended by remote 420`},
		{"421: what it needs and we know", `
			start -> INVITE 1
			< 420 a Unsupported=100rel -> INVITE 2 Session-Expires=1800
			< 421 a Require=100rel -> INVITE 3 Session-Expires=1800
			< 421 a Require=100rel -> ended by remote 421`},
		{"421: what we do not know", `
			start -> INVITE 1
			< 421 a Require=sec-agree -> ended by remote 421`},
		{"redirected: the target is told", `
			start -> INVITE 1
			< 302 a -> ended by remote 302 to sip:a@198.51.100.7:5070`},
		{"redirected, and followed", `
			start -> INVITE 1
			< 302 a Contact=<sip:next@h> -> INVITE 2 for sip:next@h Session-Expires=1800
			< 180 b -> ringing
			< 200 b answer -> ACK 2 to b; final answer answer; connected`},
		{"redirected: the best that may be followed", `
			start -> INVITE 1
			< 300 a Contact=<sip:next-c@h>;q=0.1,<sip:else@h>,<sip:next-b@h>;q=0.5 -> INVITE 2 for sip:next-b@h Session-Expires=1800
			< 486 b -> ended by remote 486`},
		{"redirected in circles", `
			start -> INVITE 1
			< 302 a Contact=<sip:next@h> -> INVITE 2 for sip:next@h Session-Expires=1800
			< 302 a Contact=<tel:+15550123> -> ended by remote 302 to tel:+15550123`},
		{"redirected to himself", `
			start -> INVITE 1
			< 302 a Contact=<sip:next@h> -> INVITE 2 for sip:next@h Session-Expires=1800
			< 301 a Contact=<sip:NEXT@H;transport=tcp> -> ended by remote 301 to sip:NEXT@H;transport=tcp`},
		{"redirected for ever", `
			start -> INVITE 1
			< 302 a Contact=<sip:next1@h> -> INVITE 2 for sip:next1@h Session-Expires=1800
			< 302 a Contact=<sip:next2@h> -> INVITE 3 for sip:next2@h Session-Expires=1800
			< 302 a Contact=<sip:next3@h> -> INVITE 4 for sip:next3@h Session-Expires=1800
			< 302 a Contact=<sip:next4@h> -> ended by remote 302 to sip:next4@h`},
		{"use proxy and alternative service are not followed", `
			start -> INVITE 1
			< 305 a Contact=<sip:next@h> -> ended by remote 305 to sip:next@h`},
		{"redirected nowhere", `
			start -> INVITE 1
			< 302 - -> ended by remote 302`},
		{"redirected when nobody wants the call any more", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			< 302 a Contact=<sip:next@h> -> ended by local hung_up 302 to sip:next@h`},
		{"redirected, it asks for credentials", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 302 a Contact=<sip:next@h> -> INVITE 3 for sip:next@h Session-Expires=1800
			< 401 a -> INVITE 4 for sip:next@h Authorization=Digest proof Session-Expires=1800
			< 401 a -> ended by remote 401`},
		{"580: the bridge decides", `
			start -> INVITE 1
			< 580 a -> ended by remote 580`},
		{"an answer to the refused INVITE comes late", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 180 b -> ringing
			< 200 b answer -> ACK 2 to b; final answer answer; connected`},

		// Transactions that break.
		{"no response", `
			start -> INVITE 1
			timeout INVITE -> ended by network no_response`},
		{"a transaction's timeout while the phone rings is not the call's end", `
			start -> INVITE 1
			< 180 a -> ringing
			timeout INVITE ->
			< 200 a one -> ACK 1 to a; final answer one; connected`},
		{"no transport", `
			start -> INVITE 1
			fail INVITE -> ended by network transport`},
		{"connection lost while it rings: the answer finds another", `
			start -> INVITE 1
			< 180 a -> ringing
			fail INVITE ->
			< 200 a answer -> ACK 1 to a; final answer answer; connected`},

		// The end.
		{"we hang up", up + `
			hangup -> BYE 2 to a; ended by local hung_up connected
			> BYE a 1 -> BYE1=200`},
		{"the peer hangs up", up + `
			> BYE a 1 -> BYE1=200; ended by remote connected
			> INFO a 2 -> INFO2=481`},
		{"BYE overtakes the 200", `
			start -> INVITE 1
			< 180 a -> ringing
			> BYE a 1 -> BYE1=200
			< 200 a answer -> ACK 1 to a; ended by remote`},
	})
}

// A lost dialog needs nothing any more; one that may still hear a 2xx lingers 64·T1.
func TestDone(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		lingers      bool
	}{
		{"refused", "start -> INVITE 1\n< 486 a -> ended by remote 486", false},
		{"hung up early in the call", up + "hangup -> BYE 2 to a; ended by local hung_up connected\n< 200 a bye ->", true},
		{"hung up late", up + "wait 33s ->\nhangup -> BYE 2 to a; ended by local hung_up connected\n< 200 a bye ->", false},
		{"BYE unanswered", up + "wait 33s ->\nhangup -> BYE 2 to a; ended by local hung_up connected\ntimeout BYE ->", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, options())
			b.run(tt.script)
			if b.c.Done() == tt.lingers {
				t.Errorf("Done is %v", b.c.Done())
			}
			b.wait(33 * time.Second)
			if !b.c.Done() || !b.c.Next().IsZero() {
				t.Errorf("after 64·T1: done %v, next %v", b.c.Done(), b.c.Next())
			}
		})
	}
}

// The ACK and BYE of an answer to nothing we know go where its dialog is.
func TestStray(t *testing.T) {
	b := newBench(t, options())
	b.run("start -> INVITE 1")
	res := b.response([]string{"200", "x", "answer", "Record-Route=<sip:p1;lr>,<sip:p2;lr>"})
	id := sip.CallIDHeader("old@192.0.2.10")
	res.AppendHeader(&id)
	ack, bye := Stray(options(), res)
	if ack == nil || bye == nil {
		t.Fatal("no ACK or no BYE")
	}
	for _, m := range []*sip.Request{ack, bye} {
		if string(*m.CallID()) != "old@192.0.2.10" || toTag(m) != "x" || fromTag(m) != "us" || value(m, "Route") != "<sip:p2;lr>" || m.Recipient.User != "x" {
			t.Errorf("%s", m)
		}
	}
	if ack.CSeq().SeqNo != 1 || bye.CSeq().SeqNo != 2 {
		t.Errorf("CSeq %d and %d", ack.CSeq().SeqNo, bye.CSeq().SeqNo)
	}
}

// Of the dialogs that a peer makes up we keep 32: the next gets no memory and no PRACK, and
// may answer all the same. What has answered is never forgotten for one that only rings.
func TestForkLimit(t *testing.T) {
	b := newBench(t, options())
	b.run("start -> INVITE 1")
	for i := range maxForks {
		b.run(fmt.Sprintf("< 183 t%d sdp%d -> early answer sdp%d", i, i, i))
	}
	b.run(`
		< 183 more sdp ->
		< 180 more rel=1 -> ringing
		> UPDATE more 1 -> UPDATE1=481
		< 200 more answer -> ACK 1 to more; final answer answer; connected
		< 200 more answer -> ACK 1 to more`)
	for i := range 2 * maxForks {
		b.run(fmt.Sprintf("< 200 late%d x -> ACK 1 to late%d; BYE 2 to late%d\n< 200 late%d bye ->", i, i, i, i))
	}
	if len(b.c.forks) > maxForks {
		t.Errorf("%d dialogs are kept, want at most %d", len(b.c.forks), maxForks)
	}
	b.run("< 200 more answer -> ACK 1 to more\nhangup -> BYE 2 to more; ended by local hung_up connected")
}

// A strict router of RFC 2543 in the route set wants its own address in the Request-URI, and
// what was there last in Route (RFC 3261 12.2.1.1), whoever called.
func TestStrictRoute(t *testing.T) {
	out := newBench(t, options())
	out.run("start -> INVITE 1\n< 200 a answer Record-Route=<sip:near;lr>,<sip:strict;transport=tcp;method=INVITE?Subject=x> -> ACK 1 to a; final answer answer; connected")
	out.run("hangup -> BYE 2 to a; ended by local hung_up connected")
	in := newIncomingBench(t, options(), "theirs", "Record-Route=<sip:strict;transport=tcp;method=INVITE?Subject=x>,<sip:near;lr>")
	in.run("start -> INV=100\naccept ours -> INV=200 Session-Expires=1800;refresher=uas ours\n> ACK a 1 -> connected")
	in.run("hangup -> BYE 1 to a; ended by local hung_up connected")
	for _, bye := range []*sip.Request{out.sent["BYE"], in.sent["BYE"]} {
		if uri, routes := bye.Recipient.String(), Values(bye, "Route"); uri != "sip:strict;transport=tcp" || len(routes) != 2 || routes[0] != "<sip:near;lr>" || routes[1] != "<sip:a@198.51.100.7:5070>" {
			t.Errorf("%s, Route %q", uri, routes)
		}
	}
}
