package dialog

import (
	"testing"

	"github.com/emiago/sipgo/sip"
)

// asked is a connected call whose INVITE was let through with a proof for the realm trunk.
const asked = `
start -> INVITE 1
< 401 a Realm=trunk -> INVITE 2 Authorization=Digest proof Session-Expires=1800
< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uac -> ACK 2 to a; final answer answer; connected
`

// A trunk may want a proof with what is said in the call, too. It gets one for each request, for
// the realm that the INVITE was proven to and no other: whoever was called can ask as well.
func TestProofInDialog(t *testing.T) {
	const gone = "hangup -> BYE 3 to a; ended by local hung_up connected\n"
	for _, row := range []struct{ name, realm, text string }{
		{"BYE", "", asked + gone + `
			< 407 a bye Realm=trunk -> BYE 4 to a Authorization=Digest proof
			< 200 a bye ->`},
		{"BYE, and another realm", "", asked + gone + `
			< 407 a bye Realm=evil -> BYE refused 407
			< 407 a bye Realm=trunk ->`},
		{"BYE, and no proof is good enough", "", asked + gone + `
			< 401 a bye Realm=trunk -> BYE 4 to a Authorization=Digest proof
			< 401 a bye Realm=trunk -> BYE refused 401`},
		{"BYE, and the nonce is too old, for ever", "", asked + gone + `
			< 407 a bye Realm=trunk -> BYE 4 to a Authorization=Digest proof
			< 407 a bye Realm=trunk Stale=true -> BYE 5 to a Authorization=Digest proof
			< 407 a bye Realm=trunk Stale=true -> BYE refused 407`},
		{"BYE refused otherwise", "", asked + gone + `
			< 403 a bye -> BYE refused 403`},
		{"BYE to who knows of no call", "", asked + gone + `
			< 481 a bye ->`},
		{"BYE without an answer after the proof", "", asked + gone + `
			< 407 a bye Realm=trunk -> BYE 4 to a Authorization=Digest proof
			timeout BYE ->`},
		{"BYE of an unwanted fork", "", asked + `
			< 200 b answer -> ACK 2 to b; BYE 3 to b
			< 407 b bye Realm=trunk -> BYE 4 to b Authorization=Digest proof
			< 200 b bye ->`},
		{"re-INVITE", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 100 a re ->
			< 407 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			> INVITE a 1 theirs -> INVITE1=491
			< 183 a re yes rel=7 -> PRACK 5 to a RAck=7 4 INVITE
			< 407 a prack Realm=trunk -> PRACK 6 to a RAck=7 4 INVITE Authorization=Digest proof
			< 200 a prack ->
			< 200 a re -> ACK 4 to a; reoffered 200 yes`},
		{"re-INVITE, and no proof is good enough", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 407 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			< 407 a re Realm=trunk -> reoffered 407`},
		{"re-INVITE, each time", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 407 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			< 491 a re ->
			wait 4s -> INVITE 5 to a Session-Expires=600;refresher=uac
			< 407 a re Realm=trunk -> INVITE 6 to a Authorization=Digest proof Session-Expires=600;refresher=uac`},
		{"re-INVITE: what came before is of another", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 180 a re rel=70 -> PRACK 4 to a RAck=70 3 INVITE
			< 200 a prack ->
			< 407 a re Realm=trunk -> INVITE 5 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			< 183 a re yes rel=7 -> PRACK 6 to a RAck=7 5 INVITE`},
		{"re-INVITE: nobody answers it then", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 100 a re ->
			< 407 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			timeout re -> BYE 5 to a; ended by network dialog_lost connected`},
		{"re-INVITE, and another realm", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 401 a re Realm=evil -> reoffered 401`},
		{"re-INVITE that has been given up", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 180 a re ->
			wait 71s -> CANCEL 3 to a
			< 407 a re Realm=trunk -> reoffered 407`},
		{"re-INVITE of a call that is over", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			hangup -> BYE 4 to a; ended by local hung_up connected
			< 407 a re Realm=trunk ->
			< 407 a bye Realm=trunk -> BYE 5 to a Authorization=Digest proof`},
		{"re-INVITE, after what was agreed in it", "", asked + `
			propose more -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 183 a re yes rel=7 -> PRACK 4 to a RAck=7 3 INVITE
			< 407 a re Realm=trunk -> reoffered 407`},
		{"the refresh, by UPDATE", "", asked + `
			wait 300s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			< 407 a upd Realm=trunk -> UPDATE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			< 200 a upd Session-Expires=600;refresher=uac ->
			wait 300s -> UPDATE 5 to a Session-Expires=600;refresher=uac
			< 407 a upd Realm=evil ->
			wait 10s -> UPDATE 6 to a Session-Expires=600;refresher=uac`},
		{"the refresh, by re-INVITE", "", `
			start -> INVITE 1
			< 401 a Realm=trunk -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 200 a answer Session-Expires=600;refresher=uac -> ACK 2 to a; final answer answer; connected
			wait 300s -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 401 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac
			< 200 a re answer Session-Expires=600;refresher=uac -> ACK 4 to a
			wait 299s ->`},
		{"early: PRACK, and the UPDATE for preconditions", "", `
			start -> INVITE 1
			< 401 a Realm=trunk -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 183 a NEITHER rel=5 -> PRACK 3 to a RAck=5 2 INVITE; early answer NEITHER
			< 407 a prack Realm=trunk -> PRACK 4 to a RAck=5 2 INVITE Authorization=Digest proof
			< 200 a prack -> UPDATE 5 to a
			< 407 a upd Realm=trunk -> UPDATE 6 to a Authorization=Digest proof
			> UPDATE a 1 theirs -> UPDATE1=491
			< 200 a upd final ->
			< 200 a -> ACK 2 to a; final answer final after offer; connected`},
		{"early, and given up meanwhile", "", `
			start -> INVITE 1
			< 401 a Realm=trunk -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 183 a NEITHER rel=5 -> PRACK 3 to a RAck=5 2 INVITE; early answer NEITHER
			< 200 a prack -> UPDATE 4 to a
			< 183 b one rel=5 -> PRACK 3 to b RAck=5 2 INVITE; early answer one
			hangup -> CANCEL 2
			< 407 a upd Realm=trunk ->
			< 407 b prack Realm=trunk ->
			< 487 a -> ended by local hung_up 487`},
		{"another usage", "", asked + `
			ask 7 NOTIFY -> NOTIFY 3 to a
			< 407 a notify Realm=trunk -> NOTIFY 4 to a Authorization=Digest proof
			< 200 a notify -> asked 7 200
			ask 8 NOTIFY -> NOTIFY 5 to a
			< 407 a notify Realm=evil -> asked 8 407`},
		{"the INVITE was not asked for one", "", up + `
			hangup -> BYE 2 to a; ended by local hung_up connected
			< 407 a bye Realm=trunk -> BYE refused 407`},
		{"the INVITE was not asked for one, and a realm is ours", "home", up + `
			propose more -> INVITE 2 to a
			< 401 a re Realm=evil -> reoffered 401
			hangup -> BYE 3 to a; ended by local hung_up connected
			< 407 a bye Realm=home -> BYE 4 to a Authorization=Digest proof
			< 200 a bye ->`},
		{"the INVITE was asked by another than ours", "home", asked + gone + `
			< 407 a bye Realm=home -> BYE refused 407`},
		{"who sent us elsewhere is not who answers", "", `
			start -> INVITE 1
			< 401 a Realm=trunk -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 302 a Contact=<sip:next@h> -> INVITE 3 for sip:next@h Session-Expires=1800
			< 200 b answer -> ACK 3 to b; final answer answer; connected
			hangup -> BYE 4 to b; ended by local hung_up connected
			< 407 b bye Realm=trunk -> BYE refused 407`},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := options()
			o.Realm = row.realm
			b := newBench(t, o)
			b.run(row.text)
			b.settle()
		})
	}
	t.Run("they called: no realm is ours", func(t *testing.T) {
		o := options()
		o.Realm = "home"
		b := newIncomingBench(t, o, plain)
		b.run(`
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			hangup -> BYE 1 to a; ended by local hung_up connected
			< 407 a bye Realm=home -> BYE refused 407`)
		b.settle()
	})
}

// What is repeated with a proof is the same request, in a transaction of its own.
func TestProvenIsTheSame(t *testing.T) {
	b := newBench(t, options())
	b.run(asked + "propose more -> INVITE 3 to a Session-Expires=600;refresher=uac")
	first := b.sent["re"]
	b.run("< 407 a re Realm=trunk -> INVITE 4 to a Authorization=Digest proof Session-Expires=600;refresher=uac")
	again := b.sent["re"]
	if branch(again) == branch(first) || len(again.GetHeaders("Via")) != 1 {
		t.Errorf("Via %s after %s", again.Via(), first.Via())
	}
	same := func(name string) bool { return value(again, name) == value(first, name) }
	for _, name := range []string{"From", "To", "Call-ID", "Contact", "Route", "Content-Type"} {
		if !same(name) {
			t.Errorf("%s %q after %q", name, value(again, name), value(first, name))
		}
	}
	if string(again.Body()) != "more" || first.CSeq().SeqNo != 3 || len(first.GetHeaders("Authorization")) > 0 {
		t.Errorf("%s after\n%s", again, first)
	}
	b.run("timeout re -> BYE 5 to a; ended by network dialog_lost connected")
	if n := len(b.c.unanswered); n != 1 {
		t.Errorf("%d requests are kept, want the BYE", n)
	}
	if cancel := Cancel(again, "", ""); branch(cancel) != branch(again) || cancel.Method != sip.CANCEL {
		t.Errorf("%s", cancel)
	}
}
