package dialog

import (
	"strings"
	"testing"
)

// Requests of the peer, RFC 3261 12.2.2.
func TestPeerRequests(t *testing.T) {
	play(t, []script{
		{"unknown dialog", up + `
			> BYE zz 1 -> BYE1=481`},
		{"CSeq order", up + `
			> OPTIONS a 10 -> OPTIONS10=200
			> OPTIONS a 9 -> OPTIONS9=500
			> OPTIONS a 10 -> OPTIONS10=482
			> OPTIONS a 12 -> OPTIONS12=200`},
		{"methods", up + `
			> PRACK a 1 -> PRACK1=481
			> MESSAGE a 2 -> MESSAGE2=405
			> REFER a 3 -> other 1 REFER
			> INFO a 4 body=application/dtmf-relay -> INFO4=200; digit 7
			> INFO a 5 body=text/plain -> INFO5=415
			> INFO a 6 -> INFO6=200
			> UPDATE a 7 -> UPDATE7=200
			> INVITE a 8 body=text/plain -> INVITE8=415`},
		{"re-INVITE, answered, ACK lost twice", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			wait 1600ms -> INVITE5=200; INVITE5=200
			> ACK a 5 ->
			wait 30s ->`},
		{"re-INVITE, refused", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 606 -> INVITE5=606`},
		{"re-INVITE, nobody replies", up + `
			> INVITE a 5 hold -> offer 1 hold
			wait 2s -> no reply to 1; INVITE5=488
			reply 1 held ->`},
		{"re-INVITE, nobody acknowledges", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			wait 32s -> INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; BYE 2 to a; ended by timeout no_ack connected`},
		{"re-INVITE without description: ours is the offer", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> ACK a 5 theirs -> reoffered 200 theirs to offer 1`},
		{"re-INVITE without description, none in its ACK", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> ACK a 5 -> reoffered 488 to offer 1`},
		{"re-INVITE without description, cancelled as we reply", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			cancelled INVITE5 -> reoffered 487 to offer 1
			> INVITE a 6 -> offer 2
			cancelled INVITE6 -> reoffered 487 to offer 2
			reply 2 ours ->`},
		{"re-INVITE without description, the reply comes too late", up + `
			> INVITE a 5 -> offer 1
			wait 2s -> reoffered 488 to offer 1; INVITE5=488
			reply 1 ours ->`},
		{"re-INVITE without description while ours waits after glare", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200; reoffered 491
			propose again ->
			> ACK a 5 yes -> reoffered 200 yes to offer 1; INVITE 3 to a
			< 200 a re aye -> ACK 3 to a; reoffered 200 aye`},
		{"ACK of another INVITE does not count", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			> ACK a 4 ->
			wait 500ms -> INVITE5=200
			> ACK a 5 ->`},
		{"re-INVITE cancelled", up + `
			> INVITE a 5 hold -> offer 1 hold
			cancelled INVITE5 -> no reply to 1
			reply 1 held ->`},
		{"re-INVITE cancelled as we reply", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			cancelled INVITE5 -> no reply to 1
			wait 40s ->
			> INVITE a 6 hold -> offer 2 hold
			reply 2 held -> INVITE6=200; replied 2
			> ACK a 6 ->
			cancelled INVITE6 ->`},
		{"UPDATE is not to be cancelled", up + `
			> UPDATE a 5 hold -> offer 1 hold
			wait 1999ms ->
			reply 1 held -> UPDATE5=200; replied 1
			cancelled UPDATE5 ->
			> UPDATE a 6 more -> offer 2 more
			wait 2s -> no reply to 2; UPDATE6=488
			reply 2 ok ->`},
		{"our offer waits behind one that is cancelled as we reply", up + `
			> INVITE a 5 hold -> offer 1 hold
			propose more ->
			reply 1 held -> INVITE5=200; replied 1; reoffered 491
			propose more ->
			cancelled INVITE5 -> no reply to 1; INVITE 2 to a`},
		{"two offers at once", up + `
			> INVITE a 5 hold -> offer 1 hold
			> UPDATE a 6 more -> UPDATE6=500 Retry-After=2
			reply 1 held -> INVITE5=200; replied 1
			> ACK a 5 ->
			> UPDATE a 7 more -> offer 2 more
			reply 2 ok -> UPDATE7=200; replied 2`},
		{"hung up with an offer open", up + `
			> INVITE a 5 hold -> offer 1 hold
			hangup -> BYE 2 to a; INVITE5=487; ended by local hung_up connected`},
	})
}

// What refreshes the session, and when, and by whom, is what stands: not what was said of an offer
// that was taken back as we answered it.
func TestRefreshAfterACancelledOffer(t *testing.T) {
	for _, tt := range []struct{ who, then, later, interval, want, theirs string }{
		{"uas", "> ACK a 5 ->", "151s", "900", "held", "hold"},
		{"uas", "cancelled INVITE5 -> no reply to 1", "1s", "600", "offer", "answer"},
		{"uac", "cancelled INVITE5 -> no reply to 1", "1s", "600", "offer", "answer"}, // that he would refresh is no more either
	} {
		b := newBench(t, options())
		b.run(`
			start -> INVITE 1
			< 200 a answer Allow=INVITE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			> INVITE a 5 hold Session-Expires=900;refresher=` + tt.who + ` Supported=timer -> offer 1 hold
			reply 1 held -> INVITE5=200 Session-Expires=900;refresher=` + tt.who + `; replied 1
			` + tt.then + `
			wait 299s ->
			wait ` + tt.later + ` -> INVITE 2 to a Session-Expires=` + tt.interval + `;refresher=uac
			< 200 a re ` + tt.theirs + ` Session-Expires=600;refresher=uac -> ACK 2 to a`)
		if got := strings.TrimSpace(string(b.sent["re"].Body())); got != tt.want {
			t.Errorf("%s: the refresh offers %q, want %q", tt.then, got, tt.want)
		}
	}
}
