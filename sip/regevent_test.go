package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// newSubscriber is a ue that has registered with p and subscribed; sub is its SUBSCRIBE.
func newSubscriber(t *testing.T, p *peer, mode string) (ua *UA, sub message) {
	t.Helper()
	got := make(chan message, 1)
	go func() {
		reg := p.expect("REGISTER")
		reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600", "Service-Route: <sip:orig@"+p.addr+";lr>",
			"P-Associated-URI: <sip:+15550100@ims.example>, <tel:+15550100>"))
		s := p.expect("SUBSCRIBE")
		s.write(answer(s, 200, "OK", "n", "Expires: 600", "Contact: <sip:scscf@"+p.addr+";transport="+p.net+">"))
		got <- s
	}()
	ua = newUA(t, Options{T1: 50 * time.Millisecond, Attachments: []AttachmentOptions{{Name: "ue", Mode: ModeUE, Transport: p.net, LocalAddr: "127.0.0.1",
		Domain: realm, IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}, Targets: []string{p.addr}, RegEvent: mode}}})
	return ua, <-got
}

// notify sends a NOTIFY in the dialog of sub and returns the status it was answered with.
func (p *peer) notify(sub message, tag string, seq, version int, state, contact string) string {
	p.t.Helper()
	return p.notifyOf(sub, tag, seq, version, state, "full", contact)
}

// notifyOf is notify with a document that is full or partial.
func (p *peer) notifyOf(sub message, tag string, seq, version int, state, kind, contact string) string {
	p.t.Helper()
	uri := strings.Trim(strings.Split(sub.get("Contact"), ";+")[0], "<>")
	body := fmt.Sprintf(`<?xml version="1.0"?><reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="%d" state="%s">`+
		`<registration aor="sip:+15550100@ims.example" id="a" state="active"><contact id="1" %s><uri>%s</uri></contact></registration></reginfo>`, version, kind, contact, uri)
	sub.write(p.inDialog(sub, tag, "NOTIFY", seq, "Event: reg", "Subscription-State: "+state, "Content-Type: application/reginfo+xml", "\n"+body))
	timeout := time.After(patience)
	for {
		select {
		case m := <-p.in:
			if rest, ok := strings.CutPrefix(m.start, "SIP/2.0 "); ok && strings.HasSuffix(m.get("Cseq"), fmt.Sprintf("%d NOTIFY", seq)) {
				return rest[:3]
			}
			go func() { p.in <- m }() // somebody else's
		case <-timeout:
			p.t.Fatal("the NOTIFY was not answered")
		}
	}
}

func awaitState(t *testing.T, ua *UA, what string, ok func(AttachmentState) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if s := ua.Attachments()[0]; ok(s) {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v %+v", what, s, s.Reg)
		}
	}
}

// The network ends the registration for good: calls end, and nothing is tried again.
func TestNetworkRejects(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua, sub := newSubscriber(t, p, RegEventRequired)
		if sub.get("Event") != "reg" || !strings.Contains(sub.get("Route"), p.addr) || !strings.Contains(sub.start, "sip:+15550100@ims.example") ||
			len(sub.head["Route"]) != 2 || sub.get("Accept") != "application/reginfo+xml" {
			t.Errorf("SUBSCRIBE %q", sub.order)
		}
		awaitState(t, ua, "subscribed", func(s AttachmentState) bool {
			return s.Up && s.Reg.RegEvent == "active" && s.Reg.ServiceRoutes == 1 && len(s.Reg.Identities) == 2 && s.Reg.PCSCF == p.addr && s.Targets[0].State == "in_use"
		})
		if got := p.notify(sub, "n", 1, 0, "active;expires=600", `state="active" event="registered" expires="600"`); got != "200" {
			t.Errorf("NOTIFY answered %s", got)
		}
		if got := p.notify(sub, "other", 2, 1, "active;expires=600", `state="terminated" event="rejected"`); got != "481" {
			t.Errorf("NOTIFY of a fork answered %s", got)
		}
		stranger := sub
		stranger.head = map[string][]string{}
		for k, v := range sub.head {
			stranger.head[k] = v
		}
		stranger.head["Call-Id"] = []string{"nobody@nowhere"}
		if got := p.notify(stranger, "n", 3, 1, "active;expires=600", `state="terminated" event="rejected"`); got != "481" {
			t.Errorf("NOTIFY without a subscription answered %s", got)
		}
		_, ev := place(t, ua)
		inv := p.expect("INVITE")
		inv.write(answer(inv, 200, "OK", "x", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		next[Answer](ev)
		next[Connected](ev)
		if got := p.notify(sub, "n", 4, 1, "active;expires=600", `state="terminated" event="rejected"`); got != "200" {
			t.Errorf("NOTIFY answered %s", got)
		}
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		if e := next[Ended](ev); !e.Connected {
			t.Errorf("ended %+v", e)
		}
		awaitState(t, ua, "rejected", func(s AttachmentState) bool { return s.State == "rejected" && !s.Up && s.LastError != "" })
	})
}

// A version that is missing has something in it that we do not know: the full state is asked for
// again, in the dialog that there is.
func TestNetworkLosesAVersion(t *testing.T) {
	p := newPeer(t, "tcp")
	ua, sub := newSubscriber(t, p, RegEventTry)
	awaitState(t, ua, "subscribed", func(s AttachmentState) bool { return s.Reg != nil && s.Reg.RegEvent == "active" })
	const active = `state="active" event="registered" expires="600"`
	p.notify(sub, "n", 1, 0, "active;expires=600", active)
	p.notifyOf(sub, "n", 2, 1, "active;expires=600", "partial", active) // the next
	p.notifyOf(sub, "n", 3, 3, "active;expires=600", "partial", active) // the one after the next
	again := p.expect("SUBSCRIBE")
	if again.get("Call-Id") != sub.get("Call-Id") || again.get("Cseq") != "2 SUBSCRIBE" || !strings.HasSuffix(again.get("To"), ";tag=n") {
		t.Errorf("SUBSCRIBE %q", again.order)
	}
	again.write(answer(again, 200, "OK", "n", "Expires: 600"))
	if got := p.notify(sub, "n", 4, 4, "active;expires=600", active); got != "200" {
		t.Errorf("NOTIFY answered %s", got)
	}
}

// Deactivated: a new registration at once, and a new subscription with it.
func TestNetworkDeactivates(t *testing.T) {
	p := newPeer(t, "tcp")
	ua, sub := newSubscriber(t, p, RegEventTry)
	awaitState(t, ua, "subscribed", func(s AttachmentState) bool { return s.Reg != nil && s.Reg.RegEvent == "active" })
	if got := p.notify(sub, "n", 1, 0, "active;expires=600", `state="terminated" event="deactivated"`); got != "200" {
		t.Fatalf("NOTIFY answered %s", got)
	}
	reg := p.expect("REGISTER")
	reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
	again := p.expect("SUBSCRIBE")
	if again.get("Call-Id") == sub.get("Call-Id") {
		t.Error("the new subscription has the old dialog's Call-ID")
	}
	again.write(answer(again, 489, "Bad Event", "n"))
	awaitState(t, ua, "refused", func(s AttachmentState) bool { return s.Up && s.Reg.RegEvent == "refused" && s.Reg.ServiceRoutes == 0 })
}
