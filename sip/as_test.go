package sip

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func newAS(t *testing.T, p *peer, edit ...func(*AttachmentOptions)) *UA {
	return newTrunk(t, p, append([]func(*AttachmentOptions){func(o *AttachmentOptions) {
		o.Mode, o.OptionsInterval, o.IMPU = ModeAS, -1, "sip:conf@carrier.example"
	}}, edit...)...)
}

// toUs is a request of the core to the attachment, outside any dialog.
func (p *peer) toUs(ua *UA, method, uri, callID string, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK-%s;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:scscf.carrier.example>;tag=c\r\nTo: <sip:+15550100@carrier.example>\r\nCall-ID: %s\r\nCSeq: 1 %s\r\n",
		method, uri, strings.ToUpper(p.net), p.addr, callID, callID, method)
	return finish(&b, extra)
}

// Third-party registration is answered 200 with its time, and counted; Expires 0 ends it.
func TestThirdPartyRegister(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newAS(t, p)
		k := knock(t, network, ua.Attachments()[0].LocalAddr)
		for i, tt := range []struct {
			expires string
			status  string
			count   int
		}{{"600", "200", 1}, {"600", "200", 1}, {"x", "400", 1}, {"0", "200", 0}} {
			k.send([]byte(p.toUs(ua, "REGISTER", "sip:as@"+ua.Attachments()[0].LocalAddr, fmt.Sprintf("reg%d", i), "Contact: <sip:scscf.carrier.example>", "Expires: "+tt.expires,
				"Content-Type: message/sip", "\nREGISTER sip:carrier.example SIP/2.0\r\n\r\n")))
			res := k.receive()
			if !strings.HasPrefix(res.start, "SIP/2.0 "+tt.status) || tt.status == "200" && res.get("Expires") != tt.expires {
				t.Errorf("REGISTER with %s: %q", tt.expires, res.order)
			}
			if n := ua.Attachments()[0].Presence; n != tt.count {
				t.Errorf("after Expires %s: %d present, want %d", tt.expires, n, tt.count)
			}
		}
	})
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	k := knock(t, "tcp", ua.Attachments()[0].LocalAddr)
	k.send([]byte(p.toUs(ua, "REGISTER", "sip:x@y", "reg")))
	if res := k.receive(); !strings.HasPrefix(res.start, "SIP/2.0 405") {
		t.Errorf("a trunk answers REGISTER with %q", res.start)
	}
}

// The real header of a Kamailio S-CSCF (IMS.md §1c), and tokens that a parser might touch.
func TestISCRouteTokenIsKept(t *testing.T) {
	for i, token := range []string{
		"<sip:iscmark@127.0.0.1:6060;lr;s=1;h=0;d=0;a=7369703a2b3135353530313030>",
		`<sip:%74oken;x=y@scscf.carrier.example:6060;lr;Odd=%3Cq%3E;UPPER=Case;empty>`,
		"<sip:a@[2001:db8::1]:5060;lr;transport=tcp;maddr=192.0.2.1>",
		"<sip:token@carrier.example;lr>", // in its own domain, which is ours too
	} {
		p := newPeer(t, "tcp")
		ua := newAS(t, p)
		got := make(chan Incoming, 1)
		ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
			got <- in
			c.Reject(486, 0)
			return func(Event) {}
		})
		us := ua.Attachments()[0].LocalAddr
		k := knock(t, "tcp", us)
		if i%2 == 1 {
			us = "as1.elsewhere.example:5080" // how the core's profile calls us
		}
		k.send([]byte(p.toUs(ua, "INVITE", "sip:conf@carrier.example", "isc", "Route: <sip:"+us+";lr>, "+token, "Contact: <sip:x@"+p.addr+">",
			"P-Served-User: <tel:+15550100>;sescase=orig;regstate=reg", "P-Asserted-Identity: <tel:+15550100>", "P-Charging-Vector: icid-value=\"i1\";orig-ioi=carrier.example",
			"P-Charging-Function-Addresses: ccf=192.0.2.7", "\n"+offerSDP)))
		in := <-got
		if in.ServedUser != "tel:+15550100" || in.SesCase != "orig" || in.RegState != "reg" || !in.Caller.Trusted || in.ICID != "i1" {
			t.Errorf("incoming %+v", in)
		}
		if !slices.Equal(in.Routes, []string{token}) {
			t.Errorf("Route behind ours\n got %q\nwant %q", in.Routes, token)
		}
		place(t, ua, func(i *Invite) { i.Routes = in.Routes })
		inv := p.expect("INVITE")
		if inv.get("Route") != token || inv.get("P-Charging-Function-Addresses") != "ccf=192.0.2.7" {
			t.Errorf("onward: %q", inv.order)
		}
		inv.write(answer(inv, 486, "Busy Here", "x"))
		p.expect("ACK")
	}
}

// Calls of our own, on behalf of a service: the S-CSCF is told who and that they originate.
func TestOriginateOnBehalf(t *testing.T) {
	for form, route := range map[string]string{"param": "<sip:%s;transport=tcp;lr;orig>", "user": "<sip:orig@%s;transport=tcp;lr>"} {
		down, p := newPeer(t, "tcp"), newPeer(t, "tcp")
		ua := newAS(t, p, func(o *AttachmentOptions) { o.OrigRoute = form; o.Targets = []string{down.addr, p.addr} })
		_, ev := place(t, ua)
		first := down.expect("INVITE")
		if want := fmt.Sprintf(route, down.addr); first.get("Route") != want {
			t.Errorf("Route %q, want %q", first.get("Route"), want)
		}
		first.write(answer(first, 503, "Service Unavailable", "x"))
		down.expect("ACK")
		inv := p.expect("INVITE")
		for name, want := range map[string]string{"Route": fmt.Sprintf(route, p.addr), "P-Served-User": "<sip:conf@carrier.example>;sescase=orig;regstate=unreg",
			"P-Asserted-Identity": "<sip:conf@carrier.example>"} {
			if inv.get(name) != want || len(inv.head["Route"]) != 1 {
				t.Errorf("%s: %q, want %q", name, inv.get(name), want)
			}
		}
		if v := inv.get("P-Charging-Vector"); !strings.Contains(v, "orig-ioi=carrier.example") || !strings.Contains(v, "icid-value=") {
			t.Errorf("P-Charging-Vector %q", v)
		}
		inv.write(answer(inv, 486, "Busy Here", "x"))
		next[Ended](ev)
	}
}

// Outside the trust domain nothing asserted is believed, and nothing is told.
func TestUntrusted(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) {
		o.Untrusted, o.HideCaller, o.PANI, o.OptionsInterval = true, true, "IEEE-802.3", -1
	})
	got := make(chan Incoming, 1)
	ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
		got <- in
		c.Reject(486, 0)
		return func(Event) {}
	})
	k := knock(t, "tcp", ua.Attachments()[0].LocalAddr)
	k.send([]byte(strings.Replace(p.toUs(ua, "INVITE", "sip:conf@carrier.example", "u1", "Contact: <sip:x@"+p.addr+">", "P-Asserted-Identity: <tel:+15550199>",
		"P-Served-User: <tel:+15550100>;sescase=orig", "P-Charging-Vector: icid-value=theirs", "\n"+offerSDP),
		"From: <sip:scscf.carrier.example>", "From: <tel:+15550188;verstat=TN-Validation-Passed>", 1)))
	select {
	case in := <-got:
		if in.Caller.Trusted || in.Caller.Number == "+15550199" || in.ServedUser != "" || in.ICID == "theirs" || in.Caller.Verstat != "" {
			t.Errorf("believed: %+v", in)
		}
	case <-time.After(patience):
		t.Fatal("no call came in")
	}
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	for _, name := range []string{"P-Asserted-Identity", "P-Charging-Vector", "P-Access-Network-Info", "P-Preferred-Identity"} {
		if v := inv.get(name); v != "" {
			t.Errorf("%s: %q is told", name, v)
		}
	}
	if inv.get("Privacy") != "id" || !strings.Contains(inv.get("From"), "anonymous.invalid") {
		t.Errorf("caller is not hidden: %q", inv.order)
	}
	inv.write(answer(inv, 486, "Busy Here", "x"))
	next[Ended](ev)
}
