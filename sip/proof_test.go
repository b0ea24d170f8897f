package sip

import (
	"fmt"
	"strings"
	"testing"
)

// challengeOf is a challenge of a realm.
func challengeOf(realm string) string {
	return "Proxy-Authenticate: " + strings.Replace(challenge, "ims.example", realm, 1)
}

// talk answers the INVITE, the first or, asked for a proof of realm before, its repetition.
func talk(t *testing.T, p *peer, ev *events, realm string) {
	t.Helper()
	inv := p.expect("INVITE")
	if realm != "" {
		inv.write(answer(inv, 407, "Proxy Authentication Required", "a", challengeOf(realm)))
		p.expect("ACK")
		inv = p.expectOther("INVITE", inv)
	}
	inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
	p.expect("ACK")
	next[Answer](ev)
	next[Connected](ev)
}

// A trunk that wants a proof with a re-INVITE and a BYE too gets one, new for each; otherwise it
// would let the call go on.
func TestTrunkChallengesWithinTheCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.IMPI, o.Auth = impi, Auth{Password: secret} })
		call, ev := place(t, ua)
		talk(t, p, ev, realm)
		call.Offer([]byte(offerSDP+"a=x\r\n"), "")
		re := p.expect("INVITE")
		re.write(answer(re, 407, "Proxy Authentication Required", "", challengeOf(realm)))
		p.expect("ACK")
		again := p.expectOther("INVITE", re)
		if !proves("INVITE", again.get("Proxy-Authorization")) || again.body != re.body || again.get("Cseq") != "4 INVITE" {
			t.Errorf("again %q after %q", again.order, re.order)
		}
		again.write(answer(again, 200, "OK", "", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		next[Reoffered](ev)
		call.Hangup("hung_up", "")
		bye := p.expect("BYE")
		next[Ended](ev)
		if v := bye.get("Proxy-Authorization"); v != "" {
			t.Errorf("nobody has asked: %s", v)
		}
		bye.write(answer(bye, 401, "Unauthorized", "", "WWW-Authenticate: "+challenge))
		again = p.expectOther("BYE", bye)
		proof := again.get("Authorization")
		if uri := strings.Fields(again.start)[1]; !proves("BYE", proof) || digestParams(proof)["uri"] != uri {
			t.Errorf("BYE for %s with %q", uri, proof)
		}
		again.write(answer(again, 200, "OK", ""))
	})
}

// A registered ue whose INVITE nobody has challenged proves itself to its own core.
func TestCoreChallengesWithinTheCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newUE(t, p)
		p.registers(func(reg message) { reg.write(answer(reg, 200, "OK", "r")) })
		call, ev := place(t, ua)
		talk(t, p, ev, "")
		call.Hangup("hung_up", "")
		bye := p.expect("BYE")
		bye.write(answer(bye, 407, "Proxy Authentication Required", "", challengeOf(realm)))
		again := p.expectOther("BYE", bye)
		if !proves("BYE", again.get("Proxy-Authorization")) {
			t.Errorf("BYE %q", again.order)
		}
		again.write(answer(again, 200, "OK", ""))
		next[Ended](ev)
	})
}

// Who was called may ask as well, to see what our password makes of his nonce. He hears nothing
// more: the BYE counts as done, and the log says that it was refused.
func TestNoProofForWhoWasCalled(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for _, tt := range []struct{ name, before, then string }{
			{"another realm", realm, "evil.example"},
			{"a realm like it", realm, strings.ToUpper(realm)},
			{"the INVITE was not challenged", "", realm},
		} {
			t.Run(tt.name, func(t *testing.T) {
				p := newPeer(t, network)
				var lines logLines
				ua := newUALogging(t, Options{Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: network, LocalAddr: "127.0.0.1", Domain: realm,
					IMPI: impi, Auth: Auth{Password: secret}, IMPU: "sip:+15550100@ims.example", Targets: []string{p.addr}}}}, &lines)
				call, ev := place(t, ua)
				talk(t, p, ev, tt.before)
				call.Hangup("hung_up", "")
				next[Ended](ev)
				bye := p.expect("BYE")
				bye.write(answer(bye, 407, "Proxy Authentication Required", "", challengeOf(tt.then)))
				if err := ua.Close(t.Context()); err != nil { // it waits for the call
					t.Error(err)
				}
				for len(p.in) > 0 {
					if m := <-p.in; m.get("Cseq") != bye.get("Cseq") {
						t.Errorf("then came %s %q", m.start, m.order)
					}
				}
				if n := strings.Count(lines.String(), "BYE refused"); n != 1 || !strings.Contains(lines.String(), fmt.Sprintf("call_id=%s status=407", bye.get("Call-Id"))) {
					t.Errorf("%d lines of it in\n%s", n, &lines)
				}
			})
		}
	})
}
