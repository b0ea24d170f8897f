package sip

import (
	"net/netip"
	"strings"
	"testing"
)

// Whom a 3xx may name, in the same trust realm and nowhere else.
func TestRedirect(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) {
		o.FollowRedirect = true
		o.TrustPeers = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}
		o.Peers = []Target{{Host: "localhost:" + strings.TrimPrefix(p.addr, "127.0.0.1:"), Priority: 9}}
	})
	a := ua.atts[0]
	const number = "sip:+15550199@carrier.example;user=phone"
	for _, tt := range []struct{ uri, want string }{
		{"tel:+1-555-0199", number},
		{"tel:+15550199;npdi;rn=+1555", number},
		{"sip:+15550199@carrier.example;user=phone", number},
		{"sip:+15550199@CARRIER.example", number},
		{"sip:+15550199@192.0.2.7", number},
		{"sip:bob@carrier.example;method=MESSAGE?Route=x", "sip:bob@carrier.example"},
		{"sip:bob@192.0.2.7:5070;transport=tcp", "sip:bob@192.0.2.7:5070;transport=tcp"},
		{"sip:bob@localhost", "sip:bob@localhost"},
		{"sip:+15550199@" + p.addr, "sip:+15550199@" + p.addr}, // a target of ours: it is asked itself

		{"tel:0199", ""},
		{"sip:+15550199@elsewhere.example;user=phone", ""},
		{"sip:bob@203.0.113.1", ""},
		{"sip:bob@192.0.2.99", ""},
		{"sip:bob@carrier.example.elsewhere.example", ""},
		{"sips:bob@carrier.example", ""},
		{"https://carrier.example/", ""},
		{"mailto:bob@carrier.example", ""},
		{"sip:112@carrier.example", ""},
		{"tel:112", ""},
		{"tel:+86110", ""},
		{"tel:911;phone-context=+1", ""},
		{"urn:service:sos", ""},
		{"sip:+15550666@carrier.example", ""}, // the owner says no
		{"sip:" + strings.Repeat("b", 300) + "@carrier.example", ""},
		{"", ""},
		{"sip:", ""},
	} {
		got, ok := a.redirect(Invite{MayCall: func(_, number string) bool { return number != "+15550666" }}, tt.uri)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q leads to %q, %v; want %q", tt.uri, got, ok, tt.want)
		}
	}
}

// A 302 to a number is followed over the peer that said it, one to another target goes there;
// it is the same call, and it can be cancelled, answered and hung up there.
func TestRedirectedCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		a, b := newPeer(t, network), newPeer(t, network)
		ua := newTrunk(t, a, func(o *AttachmentOptions) {
			o.OptionsInterval, o.FollowRedirect = -1, true
			o.Targets = []string{a.addr, b.addr}
		})
		call, ev := place(t, ua)
		first := a.expect("INVITE")
		first.write(answer(first, 302, "Moved Temporarily", "x", "Contact: <tel:+15550199>"))
		a.expect("ACK")
		second := a.expect("INVITE")
		if !strings.HasPrefix(second.start, "INVITE sip:+15550199@carrier.example;user=phone ") || second.get("Call-Id") != first.get("Call-Id") ||
			second.get("Cseq") != "2 INVITE" || second.get("To") != first.get("To") || second.body != first.body {
			t.Errorf("%s %q", second.start, second.order)
		}
		second.write(answer(second, 302, "Moved Temporarily", "y", "Contact: <sip:box@"+b.addr+">"))
		a.expect("ACK")
		third := b.expect("INVITE")
		if !strings.HasPrefix(third.start, "INVITE sip:box@"+b.addr+" ") || third.get("Cseq") != "3 INVITE" {
			t.Errorf("%s %q", third.start, third.order)
		}
		third.write(answer(third, 200, "OK", "z", b.contact(), "\n"+answerSDP))
		b.expect("ACK")
		next[Answer](ev)
		next[Connected](ev)
		call.Hangup("hung_up", "")
		bye := b.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		if e := next[Ended](ev); !e.Connected || e.Target != "" {
			t.Errorf("ended %+v", e)
		}
	})
}

// By default a 3xx is the end, and says where it points.
func TestRedirectIsToldNotFollowed(t *testing.T) {
	p := newPeer(t, "tcp")
	_, ev := place(t, newTrunk(t, p))
	inv := p.expect("INVITE")
	inv.write(answer(inv, 302, "Moved Temporarily", "x", "Contact: <tel:+15550199>"))
	p.expect("ACK")
	if e := next[Ended](ev); e.Status != 302 || e.Target != "tel:+15550199" {
		t.Errorf("ended %+v", e)
	}
}
