package sip

import (
	"testing"

	"sparkle/sip/digest"
)

// A trunk that is told whose challenges to answer gives nobody else a proof.
func TestTrunkAnswersItsRealm(t *testing.T) {
	for realm, want := range map[string]bool{"carrier": true, "": true, "*": true, "another": false} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.Auth = Auth{Password: "secret", Realm: realm} })
		_, ev := place(t, ua)
		inv := p.expect("INVITE")
		inv.write(answer(inv, 407, "Proxy Authentication Required", "x", "Proxy-Authenticate: "+digest.Challenge{Realm: "carrier", Nonce: "n", Algorithm: digest.MD5}.String()))
		p.expect("ACK")
		if want {
			inv = p.expect("INVITE")
			if inv.get("Proxy-Authorization") == "" {
				t.Errorf("realm %q: no proof in %q", realm, inv.order)
			}
			inv.write(answer(inv, 486, "Busy Here", "x"))
			p.expect("ACK")
		}
		if e := next[Ended](ev); e.Status != 407 && !want || e.Status != 486 && want {
			t.Errorf("realm %q: ended with %d", realm, e.Status)
		}
	}
}
