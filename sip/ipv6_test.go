package sip

import (
	"net"
	"strings"
	"testing"
)

// A call over IPv6, out and in: addresses stand in brackets wherever the grammar wants
// them (RFC 3261 25.1, RFC 5118).
func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 loopback:", err)
	} else {
		l.Close()
	}
	both(t, func(t *testing.T, network string) {
		p := newPeerAt(t, network, "[::1]:0")
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.LocalAddr = "::1" })
		call, ev := place(t, ua)
		inv := p.expect("INVITE")
		if v, c := inv.get("Via"), inv.get("Contact"); !strings.Contains(v, " [::1]:") || !strings.Contains(c, "@[::1]:") {
			t.Errorf("Via %q, Contact %q", v, c)
		}
		inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		next[Answer](ev)
		next[Connected](ev)
		call.Hangup("", "")
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		next[Ended](ev)

		k := take(t, ua)
		a := newAsker(t, p, ua, "sip:room@[::1]")
		go func() {
			_, in := k.next()
			in.Reject(486, 0)
		}()
		if res := a.ask("INVITE", a.contact(), "\n"+offerSDP); res.status() != "486" {
			t.Error(res.start)
		}
	})
}
