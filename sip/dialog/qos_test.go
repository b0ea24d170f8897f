package dialog

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// owed is a phone that waits for our half of the preconditions, which it has just been told.
const owed = `
start -> INVITE 1
< 183 a a=curr:qos_remote_none rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote none
< 200 a prack -> UPDATE 3 to a
`

// Preconditions of a call that goes out, RFC 3312.
func TestPreconditions(t *testing.T) {
	play(t, []script{
		{"preconditions, passive: UPDATE before the answer", `
			start -> INVITE 1
			< 183 a one rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer one
			> UPDATE a 1 ready -> early offer 1 ready
			reply 1 ready-too -> UPDATE1=200; replied 1
			< 180 a -> ringing
			< 200 a -> ACK 1 to a; final answer ready answered ready-too; connected`},
		{"UPDATE before the answer in one of two: each has what was agreed with it", `
			start -> INVITE 1
			< 183 a one rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer one
			< 183 b two rel=1 -> PRACK 2 to b RAck=1 1 INVITE; early answer two
			> UPDATE a 1 less -> early offer 1 less
			reply 1 less-too -> UPDATE1=200; replied 1
			> UPDATE a 2 more -> early offer 2 more after less-too
			reply 2 488 -> UPDATE2=488
			< 200 b -> ACK 1 to b; final answer two; connected
			< 200 a -> ACK 1 to a; BYE 3 to a`},
		{"UPDATE before the answer, and ours behind it", `
			start -> INVITE 1
			< 183 a NEITHER rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NEITHER
			> UPDATE a 1 NEITHER -> early offer 1 NEITHER
			reply 1 ready-too -> UPDATE1=200; replied 1
			< 200 a prack -> UPDATE 3 to a
			< 200 a upd final ->
			< 200 a -> ACK 1 to a; final answer final after ready-too; connected`},
		{"UPDATE before the answer waits for its reply: ours comes behind it", owed + `
			< 500 a upd Retry-After=1 ->
			> UPDATE a 1 less -> early offer 1 less
			wait 1s ->
			reply 1 less-too -> UPDATE1=200; replied 1
			wait 500ms -> UPDATE 4 to a
			< 200 a upd final ->
			< 200 a -> ACK 1 to a; final answer final after less-too; connected`},
		{"UPDATE before the answer that is overtaken by it: it may come again", `
			start -> INVITE 1
			< 183 a one rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer one
			> UPDATE a 1 ready -> early offer 1 ready
			< 200 a -> ACK 1 to a; UPDATE1=500 Retry-After=2; no reply to 1; final answer one; connected
			reply 1 ready-too ->
			> UPDATE a 2 ready -> offer 2 ready
			reply 2 ready-too -> UPDATE2=200; replied 2`},
		{"preconditions, passive: the phone waits for our half", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_none rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote none
			< 200 a prack -> UPDATE 3 to a
			< 200 a upd final ->
			< 180 a rel=2 -> PRACK 4 to a RAck=2 1 INVITE; ringing
			< 200 a prack ->
			< 200 a -> ACK 1 to a; final answer final after offer; connected`},
		{"preconditions: it knows that we are ready", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_sendrecv rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote sendrecv
			< 200 a prack ->`},
		{"preconditions: their bearer does not come", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			< 200 a prack ->
			wait 14s ->
			wait 1s -> CANCEL 1
			< 487 a -> ended by timeout precondition_timeout 487`},
		{"preconditions: their bearer comes, and the phone takes its time to ring", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			> UPDATE a 1 NOTREADY -> early offer 1 NOTREADY
			reply 1 ready-too -> UPDATE1=200; replied 1
			wait 10s ->
			> UPDATE a 2 a=curr:qos_local_sendrecv -> early offer 2 a=curr:qos local sendrecv after ready-too
			reply 2 ready-too -> UPDATE2=200; replied 2
			wait 20s ->
			< 180 a -> ringing`},
		{"preconditions: one bearer comes, that of another fork does not", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			< 183 b NOTREADY rel=1 -> PRACK 2 to b RAck=1 1 INVITE; early answer NOTREADY
			> UPDATE a 1 a=curr:qos_local_sendrecv -> early offer 1 a=curr:qos local sendrecv
			reply 1 ready-too -> UPDATE1=200; replied 1
			wait 15s -> CANCEL 1`},
		{"preconditions: the answer to our UPDATE says that their bearer is there", `
			start -> INVITE 1
			< 183 a NEITHER rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NEITHER
			< 200 a prack -> UPDATE 3 to a
			< 200 a upd a=curr:qos_local_sendrecv ->
			wait 20s ->`},
		{"preconditions: it rings whatever it said", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			< 180 a -> ringing
			wait 20s ->
			< 200 a -> ACK 1 to a; final answer NOTREADY; connected`},
		{"preconditions: UPDATE crosses UPDATE", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_none rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote none
			< 200 a prack -> UPDATE 3 to a
			> UPDATE a 1 theirs -> UPDATE1=491
			< 491 a upd ->
			wait 2s ->
			> UPDATE a 2 theirs -> early offer 1 theirs
			reply 1 ours -> UPDATE2=200; replied 1
			wait 2s -> UPDATE 4 to a
			< 200 a upd final ->
			< 200 a -> ACK 1 to a; final answer final after ours; connected`},
		{"UPDATE for them refused with 500: again when it says", owed + `
			< 500 a upd Retry-After=3 ->
			> UPDATE a 1 theirs -> early offer 1 theirs
			reply 1 ours -> UPDATE1=200; replied 1
			wait 2s ->
			wait 1s -> UPDATE 4 to a
			< 200 a upd final ->
			< 200 a -> ACK 1 to a; final answer final after ours; connected`},
		{"UPDATE for them refused with 500 for ever: three times", owed + `
			< 500 a upd Retry-After=0 ->
			wait 500ms -> UPDATE 4 to a
			< 500 a upd Retry-After=1 ->
			wait 1s -> UPDATE 5 to a
			< 500 a upd Retry-After=99 ->
			wait 10s -> UPDATE 6 to a
			< 500 a upd Retry-After=0 ->
			wait 10s ->`},
		{"UPDATE for them refused with 500 and no more: nothing waits for it", owed + `
			< 500 a upd ->
			wait 10s ->
			< 180 a -> ringing`},
		{"UPDATE for them answered 481: that early dialog ends", owed + `
			< 481 a upd ->
			< 180 a ->
			> UPDATE a 1 theirs -> UPDATE1=481
			< 180 b -> ringing`},
		{"nobody answers the UPDATE for them: it is not waited for", owed + `
			timeout UPDATE ->
			< 200 a -> ACK 1 to a; final answer a=curr:qos remote none; connected
			> INVITE a 1 theirs -> offer 1 theirs`},
		{"no transport for the UPDATE for them: the same", owed + `
			fail UPDATE ->
			< 200 a -> ACK 1 to a; final answer a=curr:qos remote none; connected
			> INVITE a 1 theirs -> offer 1 theirs`},
		{"UPDATE before our offer has its answer", `
			start -> INVITE 1
			< 183 a one -> early answer one
			> UPDATE a 1 theirs -> UPDATE1=491
			< 200 a two -> ACK 1 to a; final answer two; connected`},
	})
}

// What the phone has refused is not offered again, neither with our half of the
// preconditions nor to keep the session alive (RFC 3264 6, 8.2).
func TestRefusedStaysRefused(t *testing.T) {
	const audio, video = "m=audio 4 RTP/AVP 97\r\na=x\r\n", "m=video 6 RTP/AVP 98\r\na=y\r\n"
	const noVideo = "m=video 0 RTP/AVP 98\r\n"
	o := options()
	o.Offer = []byte(audio + video)
	b := newBench(t, o)
	b.names["VOICE"] = "m=audio 8 RTP/AVP 97\r\na=curr:qos remote none\r\n" + noVideo
	b.run(`
		start -> INVITE 1
		< 183 a VOICE rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer VOICE
		< 200 a prack -> UPDATE 3 to a`)
	if s := string(b.sent["UPDATE"].Body()); !strings.Contains(s, "mandatory local") || !strings.HasSuffix(s, noVideo) {
		t.Errorf("UPDATE offers\n%s", s)
	}
	b = newBench(t, o)
	b.names["SHORT"] = "m=audio 8 RTP/AVP 97\r\n"
	b.run(`
		start -> INVITE 1
		< 200 a SHORT Session-Expires=600;refresher=uac -> ACK 1 to a; final answer SHORT; connected
		wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac`)
	if s := string(b.sent["re"].Body()); s != audio+noVideo {
		t.Errorf("the refresh offers\n%s", s)
	}
	again := func(name string, b *bench, script string) {
		t.Run(name, func(t *testing.T) {
			b.t, b.names = t, map[string]string{"OURS": audio + video, "VOICE": "m=audio 8 RTP/AVP 97\r\n" + noVideo}
			b.run(script)
			if s := string(b.sent["re"].Body()); s != audio+noVideo {
				t.Errorf("the refresh offers\n%s", s)
			}
		})
	}
	again("in the ACK to our answer", newIncomingBench(t, options(), noOffer), `
		start -> INV=100
		accept OURS -> INV=200 Session-Expires=1800;refresher=uas m=audio 4 RTP/AVP 97|a=x|m=video 6 RTP/AVP 98|a=y
		> ACK a 1 VOICE -> final answer VOICE; connected
		wait 900s -> INVITE 1 to a Session-Expires=1800;refresher=uac`)
	again("in the PRACK of our 180", newIncomingBench(t, options(), noOfrReq), `
		start -> INV=100
		ring ->
		accept OURS -> INV=180 RSeq=1 m=audio 4 RTP/AVP 97|a=x|m=video 6 RTP/AVP 98|a=y
		> PRACK a 3 VOICE RAck=1_1_INVITE -> PRACK3=200; final answer VOICE; INV=200 Session-Expires=1800;refresher=uas
		> ACK a 1 -> connected
		wait 900s -> INVITE 1 to a Session-Expires=1800;refresher=uac`)
	again("in the ACK of a re-INVITE that asked for our offer", newBench(t, options()), `
		start -> INVITE 1
		< 200 a answer Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
		> INVITE a 1 Supported=timer -> offer 1
		reply 1 OURS -> INVITE1=200 Session-Expires=600;refresher=uas
		> ACK a 1 VOICE -> reoffered 200 VOICE to offer 1
		wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac`)
	for _, tt := range []struct{ theirs, want string }{
		{"", audio + video}, {"nonsense", audio + video}, {audio, audio + noVideo}, {audio + video, audio + video},
		{"m=audio 0 x\r\nm=video 4 x\r\n", "m=audio 0 RTP/AVP 97\r\n" + video},
	} {
		if got := string(withoutRefused([]byte(audio+video), []byte(tt.theirs))); got != tt.want {
			t.Errorf("%q: %q", tt.theirs, got)
		}
	}
}

func TestOfferQoS(t *testing.T) {
	got := string(offerQoS([]byte("v=0\r\no=- 7 8 IN IP4 h\r\nm=audio 4 RTP/AVP 97\r\na=x\r\nm=video 0 RTP/AVP 98\r\n"), "mandatory"))
	want := "v=0\r\no=- 7 8 IN IP4 h\r\nm=audio 4 RTP/AVP 97\r\na=x\r\n" +
		"a=curr:qos local sendrecv\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=des:qos mandatory remote sendrecv\r\n" +
		"m=video 0 RTP/AVP 98\r\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := string(offerQoS([]byte(got), "optional")); again != got {
		t.Errorf("lines are there twice:\n%s", again)
	}
	if again := string(answerQoS([]byte(got), []byte(got))); again != got {
		t.Errorf("lines are there twice:\n%s", again)
	}
}

// Who needs preconditions says so in Require (RFC 3312 11), and leaves them out where the
// other side cannot.
func TestRequirePreconditions(t *testing.T) {
	o := options()
	o.Offer, o.Preconditions, o.RequirePreconditions = []byte("m=audio 4 RTP/AVP 97\r\n"), true, true
	b := newBench(t, o)
	b.run("start -> INVITE 1")
	if inv := b.sent["INVITE"]; value(inv, "Require") != "precondition" || !strings.Contains(string(inv.Body()), "a=des:qos mandatory local") {
		t.Errorf("%s", inv)
	}
	b.run("< 420 a Unsupported=precondition -> INVITE 2 Session-Expires=1800")
	if inv := b.sent["INVITE"]; value(inv, "Require") != "" || lists(inv, "Supported", "precondition") || strings.Contains(string(inv.Body()), "qos") {
		t.Errorf("%s", inv)
	}

	o = options()
	o.Supported = []string{"100rel", "timer"}
	b = newBench(t, o)
	b.run("start -> INVITE 1\n< 421 a Require=precondition -> INVITE 2 Session-Expires=1800")
	if inv := b.sent["INVITE"]; !lists(inv, "Supported", "precondition") {
		t.Errorf("421 for it: %s", inv)
	}

	b = newBench(t, options())
	b.run(owed)
	if upd := b.sent["UPDATE"]; value(upd, "Require") != "precondition" {
		t.Errorf("%s", upd)
	}

	// The other way: the caller requires them, and our 183 requires them too.
	b = newIncomingBench(t, options(), "Require=100rel,precondition", "Allow=UPDATE", "a=x")
	b.c.in.offer = []byte("m=audio 4 RTP/AVP 0\r\na=curr:qos local none\r\na=des:qos mandatory local sendrecv\r\n")
	b.c.in.waits = true
	b.run("start -> INV=100")
	var res *sip.Response
	for _, a := range b.c.Step(b.now, Accept{SDP: []byte("m=audio 6 RTP/AVP 0\r\n")}) {
		res = a.(Respond).Res
	}
	if res.StatusCode != 183 || !lists(res, "Require", "precondition") || !lists(res, "Require", "100rel") {
		t.Errorf("%s", res)
	}
}

// UPDATE and its 2xx refresh the target of an early dialog too (RFC 3311 5.1).
func TestUpdateMovesTheTarget(t *testing.T) {
	b := newBench(t, options())
	b.run(owed + "< 200 a upd final Contact=<sip:moved@h> ->")
	if f := b.c.forks["a"]; f.target != "sip:moved@h" {
		t.Errorf("target is %s", f.target)
	}
}
