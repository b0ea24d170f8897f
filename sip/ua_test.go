package sip

import (
	"strings"
	"testing"
)

// both runs a test over TCP and UDP.
func both(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) { f(t, network) })
	}
}

// The figure of IMS.md 2.3: reliable 183 with the answer, reliable 180, 200 without
// description; ACK has the INVITE's CSeq, each PRACK its own.
func TestCallWithPRACK(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		call, ev := place(t, ua)
		inv := p.expect("INVITE")
		rr := "Record-Route: <sip:" + p.addr + ";lr;ftag=1>, <sip:inner@10.9.9.9;lr>"
		inv.write(answer(inv, 100, "Trying", ""))
		inv.write(answer(inv, 183, "Session Progress", "a", p.contact(), rr, "Require: 100rel", "RSeq: 7", "Allow: UPDATE, INFO", "\n"+answerSDP))
		prack := p.expect("PRACK")
		if got := prack.get("Rack"); got != "7 1 INVITE" {
			t.Errorf("RAck %q", got)
		}
		if got := prack.head["Route"]; len(got) != 2 || got[0] != "<sip:inner@10.9.9.9;lr>" {
			t.Errorf("Route %q is not the reversed Record-Route", got)
		}
		prack.write(answer(prack, 200, "OK", ""))
		if a := next[Answer](ev); a.Final || string(a.SDP) != answerSDP {
			t.Errorf("early answer %+v", a)
		}
		inv.write(answer(inv, 180, "Ringing", "a", p.contact(), rr, "Require: 100rel", "RSeq: 8"))
		prack = p.expect("PRACK")
		if got := prack.get("Rack") + " | " + prack.get("Cseq"); got != "8 1 INVITE | 3 PRACK" {
			t.Errorf("second PRACK: %s", got)
		}
		prack.write(answer(prack, 200, "OK", ""))
		next[Ringing](ev)
		inv.write(answer(inv, 200, "OK", "a", p.contact(), rr))
		ack := p.expect("ACK")
		if got := ack.get("Cseq"); got != "1 ACK" {
			t.Errorf("ACK has CSeq %s", got)
		}
		if a := next[Answer](ev); !a.Final || string(a.SDP) != answerSDP {
			t.Errorf("final answer %+v", a)
		}
		next[Connected](ev)
		call.Hangup("hung_up", `SIP;cause=200;text="room closed"`)
		bye := p.expect("BYE")
		if got := bye.get("Cseq") + " | " + bye.get("Reason"); got != `4 BYE | SIP;cause=200;text="room closed"` {
			t.Errorf("BYE: %s", got)
		}
		bye.write(answer(bye, 200, "OK", ""))
		if e := next[Ended](ev); e.By != ByLocal || e.Why != "hung_up" || !e.Connected || !e.WasRinging {
			t.Errorf("ended %+v", e)
		}
	})
}

// connect brings a call to connected and returns the INVITE.
func connect(t *testing.T, p *peer, ev *events, extra ...string) message {
	t.Helper()
	inv := p.expect("INVITE")
	inv.write(answer(inv, 180, "Ringing", "a", p.contact()))
	next[Ringing](ev)
	inv.write(answer(inv, 200, "OK", "a", append([]string{p.contact(), "\n" + answerSDP}, extra...)...))
	p.expect("ACK")
	next[Answer](ev)
	next[Connected](ev)
	return inv
}

func TestPeerHangsUp(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		_, ev := place(t, ua)
		inv := connect(t, p, ev)
		inv.write(p.inDialog(inv, "a", "BYE", 1, `Reason: Q.850;cause=16;text="bye", RELEASE_CAUSE;cause=1`))
		p.expect("200")
		if e := next[Ended](ev); e.By != ByRemote || e.Q850 != 16 || e.ReleaseCause != 1 || e.ReasonText != "bye" || !e.Connected {
			t.Errorf("ended %+v", e)
		}
	})
}

// The 200 crosses our CANCEL: it is acknowledged and its dialog ended.
func TestCancelMeets200(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		call, ev := place(t, ua)
		inv := p.expect("INVITE")
		inv.write(answer(inv, 180, "Ringing", "a", p.contact()))
		next[Ringing](ev)
		call.Hangup("cancelled", `SIP;cause=487;text="cancelled"`)
		cancel := p.expect("CANCEL")
		if cancel.get("Via") != inv.get("Via") || cancel.get("Cseq") != "1 CANCEL" || strings.Contains(cancel.get("To"), "tag=") {
			t.Errorf("CANCEL is not of the INVITE: %q", cancel.order)
		}
		inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
		cancel.write(answer(cancel, 200, "OK", "a"))
		ack := p.expect("ACK")
		bye := p.expect("BYE")
		if ack.get("Cseq") != "1 ACK" || !strings.Contains(bye.get("To"), "tag=a") {
			t.Errorf("ACK %q, BYE %q", ack.order, bye.order)
		}
		bye.write(answer(bye, 200, "OK", ""))
		if e := next[Ended](ev); e.By != ByLocal || e.Why != "cancelled" || e.Connected || !e.WasRinging {
			t.Errorf("ended %+v", e)
		}
	})
}

// Two forks answer: the second is acknowledged in its own dialog and ended; the first
// goes on, and its repeated 200 gets its ACK again.
func TestForkedAnswers(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		call, ev := place(t, ua)
		inv := connect(t, p, ev)
		inv.write(answer(inv, 200, "OK", "b", "Contact: <sip:other@"+p.addr+">", "\n"+answerSDP))
		ack := p.expect("ACK")
		bye := p.expect("BYE")
		for _, m := range []message{ack, bye} {
			if !strings.Contains(m.get("To"), "tag=b") || !strings.Contains(m.start, "sip:other@") {
				t.Errorf("%s is not for fork b", m.start)
			}
		}
		bye.write(answer(bye, 200, "OK", ""))
		inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
		if ack := p.expect("ACK"); !strings.Contains(ack.get("To"), "tag=a") {
			t.Errorf("ACK for %s", ack.get("To"))
		}
		call.Hangup("hung_up", "")
		bye = p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		next[Ended](ev)
	})
}

// Where SIP is spoken over UDP no media may go; where it is over TCP only, that number is anybody's.
func TestUDPAddr(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		a := newTrunk(t, newPeer(t, network)).Attachments()[0]
		if want := map[string]string{"udp": a.LocalAddr, "tcp": ""}[network]; a.UDPAddr != want {
			t.Errorf("UDP at %q, SIP at %q", a.UDPAddr, a.LocalAddr)
		}
	})
}
