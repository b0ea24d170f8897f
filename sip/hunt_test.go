package sip

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// newTrunks is a UA with one trunk attachment to several peers, best first.
func newTrunks(t *testing.T, ps ...*peer) *UA {
	t.Helper()
	return newTrunk(t, ps[0], func(o *AttachmentOptions) {
		o.OptionsInterval = -1 // all are up; nobody is asked
		o.Targets = nil
		for _, p := range ps {
			o.Targets = append(o.Targets, p.addr)
		}
	})
}

func branchOf(m message) string {
	_, b, _ := strings.Cut(m.get("Via"), "branch=")
	b, _, _ = strings.Cut(b, ";")
	return b
}

// The first peer says nothing: the second gets the same INVITE under another branch,
// and takes the call. What the first says afterwards is cancelled, acknowledged, ended.
func TestSilentPeerIsLeft(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		slow, quick := newPeer(t, network), newPeer(t, network)
		ua := newTrunks(t, slow, quick)
		call, ev := place(t, ua)
		first := slow.expect("INVITE")
		second := quick.expect("INVITE")
		for _, name := range []string{"Call-Id", "From", "To", "Cseq", "Contact"} {
			if first.get(name) != second.get(name) {
				t.Errorf("%s: %q became %q", name, first.get(name), second.get(name))
			}
		}
		if branchOf(first) == branchOf(second) || first.body != second.body {
			t.Errorf("branches %s and %s", branchOf(first), branchOf(second))
		}
		first.write(answer(first, 180, "Ringing", "late", slow.contact()))
		cancel := slow.expect("CANCEL")
		if branchOf(cancel) != branchOf(first) || cancel.get("Cseq") != "1 CANCEL" {
			t.Errorf("CANCEL %q is not of the first try", cancel.order)
		}
		cancel.write(answer(cancel, 200, "OK", "late"))
		first.write(answer(first, 200, "OK", "late", slow.contact(), "\n"+answerSDP)) // they crossed
		ack := slow.expect("ACK")
		bye := slow.expect("BYE")
		for _, m := range []message{ack, bye} {
			if !strings.Contains(m.get("To"), "tag=late") {
				t.Errorf("%s of another dialog: %q", m.method(), m.order)
			}
		}
		bye.write(answer(bye, 200, "OK", ""))
		second.write(answer(second, 200, "OK", "b", quick.contact(), "\n"+answerSDP))
		quick.expect("ACK")
		next[Answer](ev)
		next[Connected](ev)
		call.Hangup("hung_up", "")
		bye = quick.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		if e := next[Ended](ev); e.By != ByLocal || !e.Connected {
			t.Errorf("ended %+v", e)
		}
	})
}

// 503 sends the call on; with Retry-After the peer is left alone for that long.
func TestOverloadedPeerIsSuspended(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua := newTrunks(t, a, b)
	_, ev := place(t, ua)
	inv := a.expect("INVITE")
	inv.write(answer(inv, 100, "Trying", ""))
	inv.write(answer(inv, 503, "Service Unavailable", "x", "Retry-After: 60"))
	a.expect("ACK")
	inv = b.expect("INVITE")
	inv.write(answer(inv, 486, "Busy Here", "y"))
	b.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
	s := ua.Attachments()[0]
	if !s.Up || !strings.Contains(s.LastError, a.addr) || !strings.Contains(s.LastError, "503") {
		t.Errorf("attachment %+v", s)
	}
	_, ev = place(t, ua)
	inv = b.expect("INVITE") // at once
	inv.write(answer(inv, 503, "Service Unavailable", "y", "Retry-After: 60"))
	b.expect("ACK")
	if e := next[Ended](ev); e.Status != 503 || e.RetryAfter != time.Minute {
		t.Errorf("ended %+v", e)
	}
	if s = ua.Attachments()[0]; s.Up || s.State != "suspended" {
		t.Errorf("attachment %+v", s)
	}
	if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
		t.Errorf("Invite: %v, want ErrAttachmentDown", err)
	}
	select {
	case m := <-a.in:
		t.Errorf("the suspended peer got %q", m.start)
	default:
	}
}

// A suspension ends by itself.
func TestSuspensionEnds(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunks(t, p)
	up := make(chan AttachmentState, 16)
	ua.OnAttachment(func(s AttachmentState) { up <- s })
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 503, "Service Unavailable", "x", "Retry-After: 1"))
	next[Ended](ev)
	for _, want := range []string{"suspended", "up"} {
		select {
		case s := <-up:
			if s.State != want {
				t.Fatalf("state %s (%s), want %s", s.State, s.LastError, want)
			}
		case <-time.After(patience):
			t.Fatalf("never %s", want)
		}
	}
	_, ev = place(t, ua)
	inv = p.expectNew("INVITE", inv)
	inv.write(answer(inv, 486, "Busy Here", "y"))
	next[Ended](ev)
}

// expectNew waits for a message of another call than m's.
func (p *peer) expectNew(want string, m message) message {
	p.t.Helper()
	for {
		if got := p.expect(want); got.get("Call-Id") != m.get("Call-Id") {
			return got
		}
	}
}

// What is not a reason to try another peer.
func TestNoFailover(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ring   bool
		status int
	}{
		{"busy", false, 486}, {"not found", false, 404}, {"declined", false, 603}, {"server error", false, 500},
		{"503 of a phone that rang", true, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
			ua := newTrunks(t, a, b)
			_, ev := place(t, ua)
			inv := a.expect("INVITE")
			if tt.ring {
				inv.write(answer(inv, 180, "Ringing", "x", a.contact()))
				next[Ringing](ev)
			}
			inv.write(answer(inv, tt.status, "No", "x"))
			a.expect("ACK")
			if e := next[Ended](ev); e.Status != tt.status || e.Progressed != tt.ring {
				t.Errorf("ended %+v", e)
			}
			select {
			case m := <-b.in:
				t.Errorf("the second peer got %q", m.start)
			default:
			}
		})
	}
}

// A peer that cannot be connected to costs no call.
func TestUnreachablePeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := &peer{addr: l.Addr().String(), net: "tcp"}
	l.Close()
	b := newPeer(t, "tcp")
	ua := newTrunks(t, gone, b)
	_, ev := place(t, ua)
	inv := b.expect("INVITE")
	inv.write(answer(inv, 486, "Busy Here", "y"))
	b.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
}

// Hung up after the call moved on: the new peer has said nothing yet, so its CANCEL
// waits for its first response (RFC 3261 9.1), though the old peer had said 100.
func TestHangUpWhileHunting(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua := newTrunks(t, a, b)
	call, ev := place(t, ua)
	inv := a.expect("INVITE")
	inv.write(answer(inv, 100, "Trying", ""))
	inv.write(answer(inv, 503, "Service Unavailable", "x"))
	a.expect("ACK")
	inv = b.expect("INVITE")
	call.Hangup("cancelled", "")
	inv.write(answer(inv, 100, "Trying", ""))
	cancel := b.expect("CANCEL")
	if branchOf(cancel) != branchOf(inv) {
		t.Errorf("CANCEL %q is not of this INVITE", cancel.order)
	}
	cancel.write(answer(cancel, 200, "OK", "y"))
	inv.write(answer(inv, 487, "Request Terminated", "y"))
	b.expect("ACK")
	if e := next[Ended](ev); e.Why != "cancelled" || e.Status != 487 {
		t.Errorf("ended %+v", e)
	}
}

// A trunk peer may challenge, as server (401) or proxy (407); once.
func TestTrunkIsChallenged(t *testing.T) {
	for _, tt := range []struct {
		status                int
		phrase, ask, response string
	}{
		{401, "Unauthorized", "WWW-Authenticate", "Authorization"},
		{407, "Proxy Authentication Required", "Proxy-Authenticate", "Proxy-Authorization"},
	} {
		t.Run(tt.ask, func(t *testing.T) {
			p := newPeer(t, "tcp")
			ua := newTrunk(t, p, func(o *AttachmentOptions) { o.IMPI, o.Auth = impi, Auth{Password: secret} })
			_, ev := place(t, ua)
			inv := p.expect("INVITE")
			inv.write(answer(inv, tt.status, tt.phrase, "c", tt.ask+": "+challenge))
			p.expect("ACK")
			again := p.expectOther("INVITE", inv)
			if !proves("INVITE", again.get(tt.response)) {
				t.Errorf("%s: %q", tt.response, again.get(tt.response))
			}
			again.write(answer(again, 486, "Busy Here", "d"))
			p.expect("ACK")
			if e := next[Ended](ev); e.Status != 486 {
				t.Errorf("ended %+v", e)
			}
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		_, ev := place(t, ua)
		inv := p.expect("INVITE")
		inv.write(answer(inv, 401, "Unauthorized", "c", "WWW-Authenticate: "+challenge))
		p.expect("ACK")
		if e := next[Ended](ev); e.Status != 401 {
			t.Errorf("ended %+v", e)
		}
	})
}

// A connection that dies under the INVITE costs no call: it comes again over a new one.
func TestConnectionDiesUnderInvite(t *testing.T) {
	for name, ua := range map[string]func(*testing.T, *peer) *UA{
		"trunk": func(t *testing.T, p *peer) *UA { return newTrunk(t, p) }, "ue": newUE,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, "tcp")
			ua := ua(t, p)
			p.registers(func(reg message) { // a ue has lost its flow, too
				reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
			})
			_, ev := place(t, ua)
			first := p.expect("INVITE")
			p.drop()
			again := p.expect("INVITE")
			if again.get("Call-Id") != first.get("Call-Id") || again.from == first.from {
				t.Errorf("second INVITE %q from %s", again.order, again.from)
			}
			p.drop() // once is enough
			if e := next[Ended](ev); e.By != ByNetwork || e.Why != "transport" {
				t.Errorf("ended %+v", e)
			}
		})
	}
}

// Peers that say nothing do not keep those from being found who are there.
func TestMutePeersDoNotHoldUpProbes(t *testing.T) {
	good := newPeer(t, "udp")
	newTrunk(t, good, func(o *AttachmentOptions) { // it waits until that is up
		o.OptionsInterval = time.Hour // and for an answer for 20 minutes
		o.Targets = nil
		for range 3 {
			mute, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mute.Close() })
			o.Targets = append(o.Targets, mute.LocalAddr().String())
		}
		o.Targets = append(o.Targets, good.addr)
	})
}
