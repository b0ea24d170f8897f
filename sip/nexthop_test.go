package sip

import (
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
