package dialog

import (
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// newIncomingBench is the bench of a call that comes in: its INVITE, CSeq 1 of tag a, is
// made of the words given, its transaction is INV.
func newIncomingBench(t *testing.T, o Options, words ...string) *bench {
	b := &bench{t: t, now: time.Unix(1000, 0), start: time.Unix(1000, 0), sent: map[string]*sip.Request{}}
	in := b.request(append([]string{"INVITE", "a", "1", "Contact=<sip:a@198.51.100.7:5070>"}, words...))
	in.Req.To().Params.Remove("tag")
	n := 0.0
	o.Rand = func() float64 { n++; return 0 }
	b.c = NewIncoming(o, in.Req, "INV")
	return b
}

// An INVITE of a phone that does all we do, one that does nothing, and so on.
const (
	plain    = "theirs"
	rel      = "theirs Supported=100rel,timer,precondition Allow=INVITE,UPDATE,PRACK"
	relReq   = "theirs Require=100rel Supported=timer"
	noOffer  = "Supported=timer"
	noOfrRel = "Supported=100rel"
	noOfrReq = "Require=100rel"
)

// The answering side, a table for each figure: RFC 3261 13.3 and fig. 7 as the TU sees
// it, RFC 3262 3 and 5, RFC 3311 5, RFC 4028 9.
func TestIncoming(t *testing.T) {
	for _, tt := range []struct{ name, invite, script string }{
		{"answered", plain, `
			start -> INV=100
			start ->
			ring -> INV=180
			ring ->
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			accept again ->
			> ACK a 1 -> connected
			> ACK a 1 ->
			> BYE a 2 -> BYE2=200; ended by remote connected`},
		{"answered without ringing", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			hangup -> BYE 1 to a; ended by local hung_up connected
			< 200 a bye ->`},
		{"rejected", plain, `
			start -> INV=100
			ring -> INV=180
			reject 486 -> INV=486; ended by local rejected 486
			accept ours ->
			> ACK a 1 ->`},
		{"rejected with nonsense", plain, `
			start -> INV=100
			reject 200 -> INV=480; ended by local rejected 480`},
		{"hung up before the answer", plain, `
			start -> INV=100
			hangup -> INV=480; ended by local hung_up 480`},
		{"nobody answers", plain, `
			start -> INV=100
			ring -> INV=180
			wait 61s -> INV=480; ended by timeout ring_timeout 480`},
		{"accepted without a description", plain, `
			start -> INV=100
			accept -> INV=488; ended by local no_sdp 488`},

		// The 2xx, RFC 3261 13.3.1.4.
		{"ACK lost: the 2xx again, T1 doubling to T2", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			wait 499ms ->
			wait 1ms -> INV=200 Session-Expires=1800;refresher=uas ours
			wait 1s -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			wait 40s ->`},
		{"ACK of another number is none", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 2 ->
			> ACK b 1 ->
			> ACK a 1 -> connected`},
		{"BYE before ACK", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> BYE a 2 -> BYE2=200; ended by remote
			> ACK a 1 ->
			wait 40s ->`},
		{"hung up before the ACK: BYE waits for it", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			hangup ->
			> ACK a 1 -> BYE 1 to a; ended by local hung_up`},
		{"hung up before the ACK, the owner is told in time", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			hangup ->
			wait 499ms ->
			wait 4501ms -> INV=200 Session-Expires=1800;refresher=uas ours; INV=200 Session-Expires=1800;refresher=uas ours; INV=200 Session-Expires=1800;refresher=uas ours; ended by local hung_up
			> ACK a 1 -> BYE 1 to a
			< 200 a bye ->`},
		{"an INVITE tells that the 2xx arrived", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> INVITE a 2 hold -> connected; offer 1 hold
			> ACK a 1 ->
			reply 1 held -> INVITE2=200; replied 1
			> ACK a 2 ->`},
		{"an INVITE tells so, and BYE has waited for it", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			hangup ->
			> INVITE a 2 hold -> BYE 1 to a; ended by local hung_up; INVITE2=481`},
		{"UPDATE that crosses the 2xx comes again", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> UPDATE a 2 more -> UPDATE2=500 Retry-After=2
			> ACK a 1 -> connected`},
		{"our offer waits for the ACK", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			propose more ->
			> ACK a 1 -> connected; INVITE 1 to a Session-Expires=1800;refresher=uac`},

		// The early dialog.
		{"CANCEL", plain, `
			start -> INV=100
			ring -> INV=180
			cancelled INV -> ended by remote cancelled 487
			accept ours ->
			> ACK a 1 ->`},
		{"CANCEL was faster than our 2xx", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			cancelled INV -> ended by remote cancelled 487
			> ACK a 1 ->
			wait 40s ->`},
		{"CANCEL after our refusal", plain, `
			start -> INV=100
			reject 603 -> INV=603; ended by local rejected 603
			cancelled INV ->`},
		{"BYE in the early dialog", plain, `
			start -> INV=100
			ring -> INV=180
			> BYE a 2 -> BYE2=200; INV=487; ended by remote 487
			> ACK a 1 ->`},
		{"another INVITE before the answer", plain, `
			start -> INV=100
			> INVITE a 2 more -> INVITE2=500 Retry-After=2
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours`},
		{"UPDATE with an offer before our answer", rel, `
			start -> INV=100
			> UPDATE a 2 more -> UPDATE2=500 Retry-After=2
			> UPDATE a 3 -> UPDATE3=200`},

		// Offers of ours.
		{"no offer: ours in the 200, the answer in the ACK", noOffer, `
			start -> INV=100
			ring -> INV=180
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> UPDATE a 2 more -> UPDATE2=491
			> ACK a 1 theirs -> final answer theirs; connected`},
		{"no offer, and no answer in the ACK", noOffer, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> BYE 1 to a; ended by remote no_sdp`},
		{"no offer, 100rel: 180 before there is an offer is not reliable", noOfrRel, `
			start -> INV=100
			ring -> INV=180
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 theirs -> final answer theirs; connected`},
		{"no offer, 100rel required: our offer in the 180, the answer in the PRACK", noOfrReq, `
			start -> INV=100
			ring ->
			accept ours -> INV=180 RSeq=1 ours
			> UPDATE a 2 more -> UPDATE2=491
			> PRACK a 3 theirs RAck=1_1_INVITE -> PRACK3=200; final answer theirs; INV=200 Session-Expires=1800;refresher=uas
			> ACK a 1 -> connected`},
		{"no answer in the PRACK", noOfrReq, `
			start -> INV=100
			ring ->
			accept ours -> INV=180 RSeq=1 ours
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200; INV=400; ended by remote no_sdp 400`},

		// Reliable provisional responses, RFC 3262.
		{"180 is reliable, the 2xx waits for its PRACK", rel, `
			start -> INV=100
			ring -> INV=180 RSeq=1
			accept ours ->
			wait 500ms -> INV=180 RSeq=1
			wait 1s -> INV=180 RSeq=1
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200; INV=200 Session-Expires=1800;refresher=uas ours
			> PRACK a 3 RAck=1_1_INVITE -> PRACK3=481
			> ACK a 1 -> connected`},
		{"PRACK of something else", relReq, `
			start -> INV=100
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=481
			ring -> INV=180 RSeq=1
			> PRACK a 3 RAck=2_1_INVITE -> PRACK3=481
			> PRACK a 4 RAck=1_7_INVITE -> PRACK4=481
			> PRACK a 5 RAck=1_1_UPDATE -> PRACK5=481
			> PRACK a 6 RAck=one -> PRACK6=481
			> PRACK a 7 -> PRACK7=481
			> PRACK a 8 RAck=1_1_INVITE -> PRACK8=200`},
		{"no PRACK for 64·T1", relReq, `
			start -> INV=100
			ring -> INV=180 RSeq=1
			wait 31s -> INV=180 RSeq=1; INV=180 RSeq=1; INV=180 RSeq=1; INV=180 RSeq=1; INV=180 RSeq=1
			wait 1s -> INV=180 RSeq=1; INV=504; ended by network no_prack 504`},
		{"a refusal does not wait for PRACK", relReq, `
			start -> INV=100
			ring -> INV=180 RSeq=1
			reject 486 -> INV=486; ended by local rejected 486
			wait 40s ->`},
		{"CANCEL while PRACK is owed", relReq, `
			start -> INV=100
			ring -> INV=180 RSeq=1
			cancelled INV -> ended by remote cancelled 487
			wait 40s ->`},

		// Session timers, RFC 4028 9: the table of refreshers.
		{"the caller asks and leaves the choice", "theirs Supported=timer Session-Expires=600", `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=600;refresher=uac ours
			> ACK a 1 -> connected
			wait 567s ->
			wait 1s -> BYE 1 to a; ended by timeout session_expired connected`},
		{"the caller wants us to refresh", "theirs Supported=timer Session-Expires=600;refresher=uas Allow=UPDATE", `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=600;refresher=uas ours
			> ACK a 1 -> connected
			wait 300s -> UPDATE 1 to a Session-Expires=600;refresher=uac
			< 200 a upd Session-Expires=600;refresher=uac ->`},
		{"a proxy asks for a caller without timers", "theirs Session-Expires=600", `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=600;refresher=uas ours`},
		{"nobody asks, but no less than this", "theirs Min-SE=3600", `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=3600;refresher=uas ours`},
		{"an UPDATE before our answer settles nothing", "theirs Allow=UPDATE", `
			start -> INV=100
			> UPDATE a 2 -> UPDATE2=200
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			wait 900s -> UPDATE 1 to a Session-Expires=1800;refresher=uac`},

		// Other usages, RFC 5057.
		{"REFER, and its NOTIFY after the BYE", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			> REFER a 2 -> other 1 REFER
			tell 1 202 -> REFER2=202
			use 1 ->
			ask 7 NOTIFY -> NOTIFY 1 to a
			< 200 a notify -> asked 7 200
			> BYE a 3 -> BYE3=200; ended by remote connected
			> INFO a 4 -> INFO4=481
			> SUBSCRIBE a 5 -> other 2 SUBSCRIBE
			tell 2 200 -> SUBSCRIBE5=200
			ask 8 NOTIFY -> NOTIFY 2 to a
			use 0 ->
			timeout NOTIFY -> asked 8 0
			ask 9 NOTIFY -> asked 9 0
			> SUBSCRIBE a 6 -> SUBSCRIBE6=481`},
		{"nobody tells what to answer to REFER", plain, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			> REFER a 2 -> other 1 REFER
			wait 1s ->
			> SUBSCRIBE a 3 -> other 2 SUBSCRIBE
			wait 1s -> REFER2=480
			tell 1 202 ->
			tell 2 489 -> SUBSCRIBE3=489`},
		{"our Contact is the conference's", plain, `
			start -> INV=100
			accept ours <sip:conf@h>;isfocus -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			propose more -> INVITE 1 to a Session-Expires=1800;refresher=uac`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newIncomingBench(t, options(), strings.Fields(tt.invite)...)
			b.run(tt.script)
			b.settle()
		})
	}
}

// settle ends what is left of a call as a user would, and wants it to be done then.
func (b *bench) settle() {
	b.t.Helper()
	b.feed(Use{0})
	b.feed(Hangup{Why: "hung_up"})
	b.wait(2 * time.Minute)
	if req := b.sent["BYE"]; req != nil && !b.c.Done() {
		b.feed(Failed{Req: req, Timeout: true})
	}
	for _, req := range b.sent { // what nobody answered has timed out
		if !b.c.Done() && req.Method != sip.BYE {
			b.feed(Failed{Req: req, Timeout: true})
		}
	}
	if !b.c.Done() || !b.c.Next().IsZero() {
		b.t.Errorf("not done: ended %v, byes %d, next %v", b.c.ended, len(b.c.byes), b.c.Next())
	}
}

// Preconditions of the caller, RFC 3312 and 4032: what he has to have before we ring.
func TestIncomingPreconditions(t *testing.T) {
	const (
		head   = "v=0\r\no=- 1 1 IN IP4 h\r\n"
		audio  = "m=audio 4000 RTP/AVP 97\r\n"
		video  = "m=video 4002 RTP/AVP 98\r\n"
		no     = "a=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=des:qos none remote sendrecv\r\n"
		yes    = "a=curr:qos local sendrecv\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=des:qos none remote sendrecv\r\n"
		nice   = "a=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos optional local sendrecv\r\na=des:qos none remote sendrecv\r\n"
		ours   = head + "m=audio 5000 RTP/AVP 97\r\n"
		ours2  = "v=0\r\no=- 1 2 IN IP4 h\r\nm=audio 5000 RTP/AVP 97\r\n"
		mine   = "v=0|o=- 1 1 IN IP4 h|m=audio 5000 RTP/AVP 97|a=curr:qos local sendrecv|"
		wanted = "a=des:qos mandatory local sendrecv|a=des:qos mandatory remote sendrecv"
	)
	both := []string{"Supported=100rel,precondition", "Allow=UPDATE"}
	for _, tt := range []struct {
		name   string
		offer  string
		words  []string
		script string
	}{
		{"not ready: 183, PRACK, UPDATE, 180, PRACK, 200", head + audio + no, both, `
			start -> INV=100
			ring ->
			accept OURS -> INV=183 RSeq=1 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200
			> UPDATE a 3 READY Supported=precondition -> offer 1 READY
			reply 1 OURS2 -> UPDATE3=200; replied 1; INV=180 RSeq=2
			> PRACK a 4 RAck=2_1_INVITE -> PRACK4=200; INV=200
			> ACK a 1 -> connected`},
		{"ready in the PRACK's offer", head + audio + no, both, `
			start -> INV=100
			accept OURS -> INV=183 RSeq=1 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv
			> PRACK a 2 READY RAck=1_1_INVITE -> offer 1 READY
			reply 1 OURS2 -> PRACK2=200; replied 1; INV=200`},
		{"ready at once: nothing to wait for", head + audio + yes, both, `
			start -> INV=100
			ring -> INV=180 RSeq=1
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200
			accept OURS -> INV=200 ` + mine + `a=curr:qos remote sendrecv|` + wanted},
		{"wished for only: nothing to wait for", head + audio + nice, both, `
			start -> INV=100
			accept OURS -> INV=200 ` + mine + `a=curr:qos remote none|` + wanted},
		{"a medium that is off does not count", head + audio + yes + "m=video 0 RTP/AVP 98\r\n" + no, both, `
			start -> INV=100
			accept OURS -> INV=200 ` + mine + `a=curr:qos remote sendrecv|` + wanted},
		{"one medium is not ready", head + audio + yes + video + no, both, `
			start -> INV=100
			ring ->
			wait 1s ->
			hangup -> INV=480; ended by local hung_up 480`},
		{"the caller cannot do 100rel: be liberal", head + audio + no, []string{"Supported=precondition", "Allow=UPDATE"}, `
			start -> INV=100
			accept OURS -> INV=200 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv`},
		{"lines without the extension mean nothing", head + audio + no, []string{"Supported=100rel"}, `
			start -> INV=100
			ring -> INV=180 RSeq=1`},
		{"UPDATE says not yet, then never: 580", head + audio + no, both, `
			start -> INV=100
			accept OURS -> INV=183 RSeq=1 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200
			> UPDATE a 3 NOT -> offer 1 NOT
			reply 1 OURS2 -> UPDATE3=200; replied 1
			wait 14s ->
			wait 1s -> INV=580; ended by timeout precondition_timeout 580`},
		{"nobody replies to the UPDATE: it is refused, the wait goes on", head + audio + no, both, `
			start -> INV=100
			accept OURS -> INV=183 RSeq=1 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200
			> UPDATE a 3 READY -> offer 1 READY
			wait 2s -> no reply to 1; UPDATE3=488
			> UPDATE a 4 READY -> offer 2 READY
			reply 2 OURS2 -> UPDATE4=200; replied 2; INV=200`},
		{"hung up while we wait", head + audio + no, both, `
			start -> INV=100
			accept OURS -> INV=183 RSeq=1 ` + mine + `a=curr:qos remote none|` + wanted + `|a=conf:qos remote sendrecv
			> PRACK a 2 RAck=1_1_INVITE -> PRACK2=200
			> UPDATE a 3 READY -> offer 1 READY
			> BYE a 4 -> BYE4=200; INV=487; UPDATE3=487; ended by remote 487`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			o.SessionExpires = 0
			b := newIncomingBench(t, o, append(tt.words, "body=application/sdp")...)
			b.names = map[string]string{"READY": head + audio + yes, "NOT": head + audio + no, "OURS": ours, "OURS2": ours2}
			b.c.in.req.SetBody([]byte(tt.offer))
			b.c = NewIncoming(b.c.o, b.c.in.req, "INV")
			b.run(tt.script)
			b.settle()
		})
	}
}

func TestRefusal(t *testing.T) {
	for _, tt := range []struct {
		name, words string
		status      int
		header      Header
	}{
		{"nothing", "theirs Contact=<sip:a@h>", 0, Header{}},
		{"no Contact", "theirs", 400, Header{}},
		{"session too short", "Contact=<sip:a@h> Session-Expires=60 Supported=timer", 422, Header{"Min-SE", "90"}},
		{"session too short, and who knows nothing of it", "Contact=<sip:a@h> Session-Expires=60", 0, Header{}},
		{"session long enough", "Contact=<sip:a@h> Session-Expires=90 Supported=timer", 0, Header{}},
		{"what we do", "Contact=<sip:a@h> Require=100rel,timer", 0, Header{}},
		{"what we have off", "Contact=<sip:a@h> Require=100rel,Precondition", 420, Header{"Unsupported", "precondition"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			if tt.status == 420 {
				o.Supported = []string{"100rel", "timer"}
			}
			in := (&bench{t: t}).request(append([]string{"INVITE", "a", "1"}, strings.Fields(tt.words)...))
			if status, h := Refusal(o, in.Req); status != tt.status || h != tt.header {
				t.Errorf("got %d %v, want %d %v", status, h, tt.status, tt.header)
			}
		})
	}
}
