package sip

import (
	"log/slog"
	"net/netip"
	"testing"

	sipgo "github.com/emiago/sipgo/sip"
)

// A request goes to its first Route, or to a strict router, which has put itself into the
// Request-URI (RFC 3261 8.1.2); who is no peer of ours is reached by one.
func TestNextHop(t *testing.T) {
	ua := newTrunk(t, newPeer(t, "tcp"), func(o *AttachmentOptions) { o.TrustPeers = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")} })
	for _, tt := range []struct{ uri, route, want string }{
		{"sip:a@192.0.2.1", "", "tcp/192.0.2.1:5060"},
		{"sip:a@198.51.100.7", "", "fallback"},
		{"sip:a@192.0.2.1", "<sip:192.0.2.2:5070;lr>, <sip:192.0.2.3;lr>", "tcp/192.0.2.2:5070"},
		{"sip:a@192.0.2.1", "<sip:198.51.100.7;lr>", "fallback"},
		{"sip:192.0.2.2;transport=tcp", "<sip:a@192.0.2.1>", "tcp/192.0.2.2:5060"}, // strict
		{"sip:192.0.2.2", "<sip:192.0.2.3>, <sip:a@198.51.100.7>", "tcp/192.0.2.2:5060"},
		{"sip:a@192.0.2.1", "<", "tcp/192.0.2.1:5060"},
	} {
		var uri sipgo.Uri
		if err := sipgo.ParseUri(tt.uri, &uri); err != nil {
			t.Fatal(err)
		}
		req := sipgo.NewRequest(sipgo.BYE, uri)
		if tt.route != "" {
			req.AppendHeader(sipgo.NewHeader("Route", tt.route))
		}
		if got := ua.atts[0].nextHop(req, "fallback"); got != tt.want {
			t.Errorf("%s by %s goes to %s, want %s", tt.uri, tt.route, got, tt.want)
		}
	}
}

// What a P-CSCF writes into a route does not lead out of TLS, where the agreement began without.
func TestNextHopStaysInTLS(t *testing.T) {
	o := AttachmentOptions{Name: "ue", Mode: ModeUE, Transport: "tls", SecurityAgreement: AgreeTLS, Clear: "tcp", LocalAddr: "127.0.0.1", Domain: realm, IMPI: impi,
		IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}, Targets: []string{"127.0.0.1:5061"}}
	a := bareAttachment(&UA{log: slog.New(slog.DiscardHandler), traces: newTraces()}, o.withDefaults())
	t.Cleanup(a.cancel)
	if err := a.locate(); err != nil {
		t.Fatal(err)
	}
	a.sockets["tls"], a.sockets["tcp"] = socket{port: 5061}, socket{port: 5060}
	for route, want := range map[string]string{
		"<sip:127.0.0.1:5061;transport=tls;lr>": "tls/127.0.0.1:5061",
		"<sip:127.0.0.1:5061;lr>":               "tls/127.0.0.1:5061",
		"<sip:127.0.0.1;transport=tls;lr>":      "tls/127.0.0.1:5061",
		"<sip:127.0.0.1:5060;transport=tcp;lr>": "fallback",
		"<sip:127.0.0.1:5060;transport=TCP;lr>": "fallback",
	} {
		req := sipgo.NewRequest(sipgo.BYE, sipgo.Uri{Scheme: "sip", Host: "127.0.0.1"})
		req.AppendHeader(sipgo.NewHeader("Route", route))
		if got := a.nextHop(req, "fallback"); got != want {
			t.Errorf("%s leads to %s, want %s", route, got, want)
		}
	}
}
