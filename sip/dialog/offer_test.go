package dialog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// Offers of ours.
func TestOffers(t *testing.T) {
	play(t, []script{
		{"our re-INVITE", up + `
			propose more -> INVITE 2 to a
			< 180 a re ->
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			< 200 a re yes -> ACK 2 to a`},
		{"our re-INVITE answered in a reliable 18x", up + `
			propose more -> INVITE 2 to a
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			< 183 a re yes rel=1 ->
			< 200 a prack ->
			< 180 a re rel=2 -> PRACK 4 to a RAck=2 2 INVITE
			< 200 a re -> ACK 2 to a; reoffered 200 yes
			propose again -> INVITE 5 to a
			< 183 a re aye rel=9 -> PRACK 6 to a RAck=9 5 INVITE
			< 200 a re other -> ACK 5 to a; reoffered 200 aye`},
		{"our re-INVITE answered in an unreliable 18x only", up + `
			propose more -> INVITE 2 to a
			< 183 a re yes ->
			< 200 a re -> ACK 2 to a; reoffered 200 yes`},
		{"our re-INVITE, and their bearer comes before the answer", up + `
			propose more -> INVITE 2 to a
			> UPDATE a 5 early -> UPDATE5=491
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			> INVITE a 6 hold -> INVITE6=491
			> UPDATE a 7 ready -> early offer 1 ready
			reply 1 ready-too -> UPDATE7=200; replied 1
			< 200 a re -> ACK 2 to a; reoffered 200 ready answered ready-too`},
		{"our re-INVITE, and they wait for our half of the preconditions", up + `
			propose more -> INVITE 2 to a
			< 183 a re a=curr:qos_remote_none rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			< 200 a prack -> UPDATE 4 to a
			> UPDATE a 5 theirs -> UPDATE5=491
			< 491 a upd ->
			wait 4s -> UPDATE 5 to a
			< 200 a upd final ->
			> UPDATE a 6 ready -> early offer 1 ready after more
			reply 1 488 -> UPDATE6=488
			< 200 a re -> ACK 2 to a; reoffered 200 final after more`},
		{"our re-INVITE refused after all that: nothing of it stands", up + `
			propose more -> INVITE 2 to a
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			> UPDATE a 7 ready -> early offer 1 ready
			reply 1 ready-too -> UPDATE7=200; replied 1
			< 603 a re -> reoffered 603
			> UPDATE a 8 hold -> offer 2 hold`},
		{"our re-INVITE is put off while their UPDATE waits: it may come again", up + `
			propose more -> INVITE 2 to a
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			> UPDATE a 7 ready -> early offer 1 ready
			< 491 a re -> UPDATE7=500 Retry-After=2; no reply to 1
			reply 1 ready-too ->
			wait 4s -> INVITE 4 to a
			> UPDATE a 8 ready -> UPDATE8=491`},
		{"PRACK of our re-INVITE refused: its answer decides", up + `
			propose more -> INVITE 2 to a
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			< 481 a prack ->
			< 200 a re -> ACK 2 to a; reoffered 200 yes`},
		{"a re-INVITE that refreshes has nothing to change before it is through", `
			start -> INVITE 1
			< 200 a answer Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac
			< 183 a re yes rel=1 -> PRACK 3 to a RAck=1 2 INVITE
			> UPDATE a 1 hold -> UPDATE1=491
			< 200 a re -> ACK 2 to a; refreshed yes after offer`},
		{"our re-INVITE refused: the call goes on", up + `
			propose more -> INVITE 2 to a
			< 603 a re -> reoffered 603
			hangup -> BYE 3 to a; ended by local hung_up connected`},
		{"glare: both offer", up + `
			propose more -> INVITE 2 to a
			> INVITE a 5 hold -> INVITE5=491
			< 491 a re ->
			wait 2s ->
			wait 2s -> INVITE 3 to a
			< 200 a re yes -> ACK 3 to a; reoffered 200 yes`},
		{"the peer's offer wins the wait after glare", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1; reoffered 491
			> ACK a 5 ->
			wait 4s ->
			propose again -> INVITE 3 to a`},
		{"an offer of the peer that is refused leaves ours standing", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 nonsense -> offer 1 nonsense
			reply 1 488 -> INVITE5=488
			wait 4s -> INVITE 3 to a`},
		{"our offers queue, the newest wins", up + `
			propose one -> INVITE 2 to a
			propose two ->
			propose three ->
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes; INVITE 3 to a
			< 200 a re aye -> ACK 3 to a; reoffered 200 aye`},
		{"500 with Retry-After: again, three times", up + `
			propose more -> INVITE 2 to a
			< 500 a re Retry-After=2 ->
			wait 2s -> INVITE 3 to a
			< 500 a re Retry-After=0 ->
			wait 500ms -> INVITE 4 to a
			< 500 a re Retry-After=99 ->
			wait 10s -> INVITE 5 to a
			< 500 a re Retry-After=1 -> reoffered 500`},
		{"500 without: refused", up + `
			propose more -> INVITE 2 to a
			< 500 a re -> reoffered 500`},
		{"a 200 crosses the CANCEL of our re-INVITE", up + `
			propose more -> INVITE 2 to a
			wait 71s -> CANCEL 2 to a
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			< 200 a cancel ->`},
		{"the target moves with re-INVITE and UPDATE", up + `
			> INVITE a 5 hold Contact=<sip:moved@h> -> offer 1 hold
			reply 1 held -> INVITE5=200; replied 1
			> ACK a 5 ->
			propose more -> INVITE 2 to a at moved
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			> UPDATE a 6 Contact=<sip:again@h> -> UPDATE6=200
			hangup -> BYE 3 to a at again; ended by local hung_up connected`},
		{"481 to our re-INVITE: the dialog is gone", up + `
			propose more -> INVITE 2 to a
			< 481 a re -> BYE 3 to a; ended by network dialog_lost connected`},
		{"408 to our re-INVITE: the same", up + `
			propose more -> INVITE 2 to a
			< 408 a re -> BYE 3 to a; ended by network dialog_lost connected`},
		{"422 to our re-INVITE: again with more", timed + `
			propose more -> INVITE 2 to a Session-Expires=600;refresher=uac
			< 422 a re Min-SE=900 -> INVITE 3 to a Session-Expires=900;refresher=uac
			< 200 a re yes Session-Expires=900;refresher=uac -> ACK 3 to a; reoffered 200 yes
			wait 450s -> UPDATE 4 to a Session-Expires=900;refresher=uac`},
		{"422 to our re-INVITE that asks for no more than it has", timed + `
			propose more -> INVITE 2 to a Session-Expires=600;refresher=uac
			< 422 a re Min-SE=600 -> reoffered 422
			propose less -> INVITE 3 to a Session-Expires=600;refresher=uac
			< 422 a re -> reoffered 422`},
		{"the target moves with the 2xx to our re-INVITE", up + `
			propose more -> INVITE 2 to a
			< 200 a re yes Contact=<sip:moved@h> -> ACK 2 to a at moved; reoffered 200 yes
			propose again -> INVITE 3 to a at moved
			< 488 a re Contact=<sip:again@h> -> reoffered 488
			hangup -> BYE 4 to a at moved; ended by local hung_up connected`},
		{"nobody answers our re-INVITE", up + `
			propose more -> INVITE 2 to a
			timeout re -> BYE 3 to a; ended by network dialog_lost connected`},
		{"our re-INVITE that rings outlives its transaction's timer", up + `
			propose more -> INVITE 2 to a
			< 180 a re ->
			wait 32s ->
			timeout re ->
			wait 18s ->
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes`},
		{"our re-INVITE that rings outlives its connection", up + `
			propose more -> INVITE 2 to a
			< 100 a re ->
			fail re ->
			wait 70s -> CANCEL 2 to a
			wait 32s -> reoffered 408
			propose more -> INVITE 3 to a
			timeout re -> BYE 4 to a; ended by network dialog_lost connected`},
		{"no transport for our re-INVITE: the call goes on", up + `
			propose more -> INVITE 2 to a
			fail re -> reoffered 503`},
		{"our re-INVITE rings for ever", up + `
			propose more -> INVITE 2 to a
			< 180 a re ->
			wait 71s -> CANCEL 2 to a
			< 487 a re -> reoffered 487`},
	})
}

// An answer may change addresses, ports and directions (RFC 3264 6), that to a re-INVITE which
// only refreshes too. The owner hears of it where it is another than what was known of the peer,
// whoever said that last.
func TestRefreshAnsweredAnew(t *testing.T) {
	const sdp = "v=0\r\no=- 1 %d IN IP4 h\r\nc=IN IP4 192.0.2.%d\r\nm=audio 4 RTP/AVP 97\r\n"
	names := map[string]string{"HERE": fmt.Sprintf(sdp, 1, 1), "HERE2": fmt.Sprintf(sdp, 2, 1), "THERE": fmt.Sprintf(sdp, 3, 2)}
	const (
		refreshed = " to a Session-Expires=600;refresher=uac"
		granted   = " Session-Expires=600;refresher=uac"
		begin     = `
			start -> INVITE 1
			< 200 a HERE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer HERE; connected
			wait 300s -> INVITE 2` + refreshed
	)
	for _, row := range []script{
		{"the same, and the same again", begin + `
			< 200 a re HERE` + granted + ` -> ACK 2 to a
			wait 300s -> INVITE 3` + refreshed + `
			< 200 a re HERE2` + granted + ` -> ACK 3 to a`},
		{"moved, once", begin + `
			< 200 a re THERE` + granted + ` -> ACK 2 to a; refreshed THERE after offer
			wait 300s -> INVITE 3` + refreshed + `
			< 200 a re THERE` + granted + ` -> ACK 3 to a
			wait 300s -> INVITE 4` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 4 to a; refreshed HERE after offer`},
		{"no description: as it was", begin + `
			< 200 a re` + granted + ` -> ACK 2 to a
			wait 300s -> INVITE 3` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 3 to a`},
		{"refused: as it was", begin + `
			< 488 a re THERE ->`},
		{"an offer of ours waits for it", begin + `
			propose more ->
			< 200 a re THERE` + granted + ` -> ACK 2 to a; refreshed THERE after offer; INVITE 3` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 3 to a; reoffered 200 HERE
			wait 300s -> INVITE 4` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 4 to a`},
		{"known by an offer of theirs", begin + `
			< 200 a re HERE` + granted + ` -> ACK 2 to a
			> INVITE a 1 THERE Supported=timer -> offer 1 THERE
			reply 1 ours -> INVITE1=200 Session-Expires=600;refresher=uas; replied 1
			> ACK a 1 ->
			wait 300s -> INVITE 3` + refreshed + `
			< 200 a re THERE` + granted + ` -> ACK 3 to a
			> INVITE a 2 Supported=timer -> offer 2
			reply 2 ours -> INVITE2=200 Session-Expires=600;refresher=uas
			> ACK a 2 HERE -> reoffered 200 HERE to offer 2
			wait 300s -> INVITE 4` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 4 to a
			> INVITE a 3 THERE Supported=timer -> offer 3 THERE
			reply 3 488 -> INVITE3=488
			wait 300s -> INVITE 5` + refreshed + `
			< 200 a re HERE` + granted + ` -> ACK 5 to a`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, options())
			b.names = names
			b.run(row.text)
			b.settle()
		})
	}
	for _, row := range []struct{ name, invite, script string }{
		{"known by their INVITE", "HERE", `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 -> connected
			wait 900s -> INVITE 1 to a Session-Expires=1800;refresher=uac
			< 200 a re HERE -> ACK 1 to a
			wait 900s -> INVITE 2 to a
			< 200 a re THERE -> ACK 2 to a; refreshed THERE after ours`},
		{"known by the ACK to our answer", noOffer, `
			start -> INV=100
			accept ours -> INV=200 Session-Expires=1800;refresher=uas ours
			> ACK a 1 HERE -> final answer HERE; connected
			wait 900s -> INVITE 1 to a Session-Expires=1800;refresher=uac
			< 200 a re HERE -> ACK 1 to a
			wait 900s -> INVITE 2 to a
			< 200 a re THERE -> ACK 2 to a; refreshed THERE after ours`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newIncomingBench(t, options())
			b.names = names
			in := b.request(append([]string{"INVITE", "a", "1", "Contact=<sip:a@198.51.100.7>"}, strings.Fields(row.invite)...))
			in.Req.To().Params.Remove("tag")
			b.c = NewIncoming(b.c.o, in.Req, "INV")
			b.run(row.script)
			b.settle()
		})
	}
}

// The version of a description rises by one with each that differs, whoever changed it.
func TestVersion(t *testing.T) {
	c := New(options())
	for _, step := range []struct{ in, want string }{
		{"o=- 7 8 IN IP4 h\r\na\r\n", "o=- 7 8 IN IP4 h\r\na\r\n"},
		{"o=- 7 8 IN IP4 h\r\nb\r\n", "o=- 7 9 IN IP4 h\r\nb\r\n"},
		{"o=- 7 9 IN IP4 h\r\nb\r\n", "o=- 7 9 IN IP4 h\r\nb\r\n"},
		{"o=- 7 9 IN IP4 h\r\nc", "o=- 7 10 IN IP4 h\r\nc"},
		{"o=- x y", "o=- x y"},
		{"nothing", "nothing"},
	} {
		if got := string(c.version([]byte(step.in))); got != step.want {
			t.Errorf("%q became %q, want %q", step.in, got, step.want)
		}
	}
}

// A session description is found wherever RFC 5621 lets it stand, and no other is taken for it.
func TestSDP(t *testing.T) {
	part := func(headers, body string) string { return "--b\r\n" + headers + "\r\n\r\n" + body + "\r\n" }
	const sdp, xml = "Content-Type: application/sdp", "Content-Type: application/3gpp-ims+xml"
	for _, tt := range []struct{ kind, body, want string }{
		{"application/sdp", "v=0", "v=0"},
		{"Application/SDP; charset=utf-8", "v=0", "v=0"},
		{"text/plain", "v=0", ""},
		{"", "v=0", ""},
		{"application/sdp", "", ""},
		{"multipart/mixed;boundary=b", part(xml, "<x/>") + part(sdp, "v=0") + "--b--", "v=0"},
		{"multipart/mixed;boundary=b", part(sdp+"\r\nContent-Disposition: early-session", "v=1") + part(sdp+"\r\nContent-Disposition: session", "v=0") + "--b--", "v=0"},
		{"multipart/mixed;boundary=b", part(sdp+"\r\nContent-Transfer-Encoding: base64", "dj0w") + "--b--", "v=0"},
		{"multipart/mixed;boundary=b", part("Content-Type: multipart/alternative;boundary=c", "--c\r\n"+sdp+"\r\n\r\nv=0\r\n--c--") + "--b--", "v=0"},
		{"multipart/mixed;boundary=b", part(sdp, "v=0"), ""}, // cut off
		{"multipart/mixed", part(sdp, "v=0") + "--b--", ""},
	} {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "h"})
		add(req, "Content-Type", tt.kind)
		req.SetBody([]byte(tt.body))
		if got := string(SDP(req)); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.kind, tt.body, got, tt.want)
		}
	}
}
