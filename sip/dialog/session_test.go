package dialog

import (
	"strings"
	"testing"
	"time"
)

// timed is a connected call with a session timer that we refresh.
const timed = `
start -> INVITE 1
< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
`

// Session timers, RFC 4028.
func TestSessionTimer(t *testing.T) {
	play(t, []script{
		{"we refresh with UPDATE", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 200 a upd Session-Expires=600;refresher=uac ->
			wait 300s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			timeout UPDATE -> BYE 4 to a; ended by network dialog_lost connected`},
		{"we refresh with re-INVITE where UPDATE is not allowed", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,BYE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac
			< 200 a re answer Session-Expires=600;refresher=uac -> ACK 2 to a
			wait 299s ->`},
		{"481 to our UPDATE: the dialog is gone", timed + `
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 481 a upd -> BYE 3 to a; ended by network dialog_lost connected`},
		{"408 to our UPDATE: the same", timed + `
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 408 a upd -> BYE 3 to a; ended by network dialog_lost connected`},
		{"500 with Retry-After to our UPDATE: again", timed + `
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 500 a upd Retry-After=3 ->
			wait 9s ->
			wait 1s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			< 200 a upd ->`},
		{"the target moves with the 2xx to our UPDATE", timed + `
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 200 a upd Contact=<sip:moved@h> ->
			hangup -> BYE 3 to a at moved; ended by local hung_up connected`},
		{"UPDATE refused with 405: re-INVITE", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 405 a upd -> INVITE 3 to a Session-Expires=600;refresher=uac`},
		{"UPDATE refused with 422: again with more", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 422 a upd Min-SE=900 -> UPDATE 3 to a Session-Expires=900;refresher=uac`},
		{"no connection for the refresh: again, until the end", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			fail UPDATE ->
			wait 10s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			< 200 a upd ->`},
		{"the peer was to refresh and did not", `
			start -> INVITE 1
			< 200 a answer Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			wait 567s ->
			wait 1s -> BYE 2 to a; ended by timeout session_expired connected`},
		{"the peer refreshes", `
			start -> INVITE 1
			< 200 a answer Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			wait 300s ->
			> UPDATE a 1 Session-Expires=600;refresher=uac Supported=timer -> UPDATE1=200 Session-Expires=600;refresher=uac
			wait 500s ->
			> INVITE a 2 same Session-Expires=600;refresher=uas -> offer 1 same
			reply 1 same -> INVITE2=200 Session-Expires=600;refresher=uas; replied 1
			> ACK a 2 ->
			wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac`},
		{"our re-INVITE rings: UPDATE refreshes beside it", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=90;refresher=uac -> ACK 1 to a; final answer answer; connected
			propose more -> INVITE 2 to a Session-Expires=90;refresher=uac
			< 180 a re ->
			wait 45s -> UPDATE 3 to a Session-Expires=90;refresher=uac
			< 200 a upd Session-Expires=90;refresher=uac ->
			wait 24s ->
			< 200 a re yes Session-Expires=90;refresher=uac -> ACK 2 to a; reoffered 200 yes`},
		{"our re-INVITE rings, and there is no UPDATE: it is waited for", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE Session-Expires=90;refresher=uac -> ACK 1 to a; final answer answer; connected
			propose more -> INVITE 2 to a Session-Expires=90;refresher=uac
			< 180 a re ->
			wait 69s ->
			< 603 a re -> reoffered 603
			wait 9s -> INVITE 3 to a Session-Expires=90;refresher=uac
			< 200 a re answer Session-Expires=90;refresher=uac -> ACK 3 to a
			propose more -> INVITE 4 to a Session-Expires=90;refresher=uac
			wait 60s -> BYE 5 to a; ended by timeout session_expired connected`},
		{"the peer wants too short a session", up + `
			> UPDATE a 1 Session-Expires=30 Supported=timer -> UPDATE1=422 Min-SE=90
			> UPDATE a 2 Session-Expires=30 -> UPDATE2=200`},
		{"the peer knows no session timer: we look alone whether it is there", up + `
			wait 900s -> UPDATE 2 to a
			< 200 a upd ->
			wait 900s -> UPDATE 3 to a
			< 481 a upd -> BYE 4 to a; ended by network dialog_lost connected`},
		{"the peer knows neither session timer nor UPDATE: who refuses is there", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE -> ACK 1 to a; final answer answer; connected
			wait 900s -> UPDATE 2 to a
			< 501 a upd ->
			wait 900s -> INVITE 3 to a
			< 488 a re ->
			wait 900s -> INVITE 4 to a
			timeout re -> BYE 5 to a; ended by network dialog_lost connected`},
		{"the peer learns session timers", up + `
			wait 900s -> UPDATE 2 to a
			< 200 a upd Session-Expires=600;refresher=uas ->
			wait 567s ->
			wait 1s -> BYE 3 to a; ended by timeout session_expired connected`},
		{"the peer was to refresh, and its answer to our re-INVITE turns the timer off", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			propose more -> INVITE 2 to a Session-Expires=600;refresher=uas
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			wait 300s -> UPDATE 3 to a
			< 403 a upd ->
			wait 300s -> UPDATE 4 to a
			< 200 a upd ->
			wait 300s -> UPDATE 5 to a
			< 481 a upd -> BYE 6 to a; ended by network dialog_lost connected`},
		{"we refresh, and the answer turns the timer off", timed + `
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 200 a upd ->
			wait 300s -> UPDATE 3 to a
			< 403 a upd ->
			wait 299s ->
			wait 1s -> UPDATE 4 to a
			< 200 a upd Session-Expires=600;refresher=uas ->
			wait 568s -> BYE 5 to a; ended by timeout session_expired connected`},
		{"the peer was to refresh, asks for no timer and knows of it: we refresh", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			> INVITE a 1 hold Supported=timer -> offer 1 hold
			reply 1 held -> INVITE1=200 Session-Expires=600;refresher=uas; replied 1
			> ACK a 1 ->
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 200 a upd Session-Expires=600;refresher=uac ->
			> UPDATE a 2 Supported=timer Min-SE=900 -> UPDATE2=200 Session-Expires=900;refresher=uas
			wait 450s -> UPDATE 3 to a Session-Expires=900;refresher=uac
			timeout UPDATE -> BYE 4 to a; ended by network dialog_lost connected`},
		{"the peer was to refresh, asks for no timer and does not know of it: we look alone", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			wait 100s ->
			> INVITE a 1 hold -> offer 1 hold
			reply 1 held -> INVITE1=200; replied 1
			> ACK a 1 ->
			wait 300s -> UPDATE 2 to a
			< 403 a upd ->
			wait 100s ->
			> UPDATE a 2 Supported=timer -> UPDATE2=200
			wait 300s -> UPDATE 3 to a
			< 408 a upd -> BYE 4 to a; ended by network dialog_lost connected`},
		{"no session timer is wanted: none runs", `
			start -> INVITE 1
			< 420 a Unsupported=timer -> INVITE 2
			< 200 a answer -> ACK 2 to a; final answer answer; connected
			wait 100h ->`},
	})
}

// No call lasts longer than it may, whoever keeps refreshing its session.
func TestLongestCall(t *testing.T) {
	o := options()
	o.MaxDuration = 20 * time.Minute
	b := newBench(t, o)
	b.run(`
		start -> INVITE 1
		< 180 a -> ringing
		wait 50s ->
		< 200 a answer Session-Expires=1000;refresher=uas -> ACK 1 to a; final answer answer; connected
		wait 900s ->
		> UPDATE a 1 Session-Expires=1000;refresher=uac Supported=timer -> UPDATE1=200 Session-Expires=1000;refresher=uac
		wait 299s ->
		wait 1s -> BYE 2 to a; ended by timeout max_duration connected`)
	if reason := value(b.sent["BYE"], "Reason"); !strings.Contains(reason, "maximum duration") {
		t.Errorf("Reason %s", reason)
	}
	b.settle()

	o.SessionExpires = 0
	b = newIncomingBench(t, o, plain)
	b.run(`
		start -> INV=100
		wait 30s ->
		accept ours -> INV=200 ours
		> ACK a 1 -> connected
		wait 1199s ->
		wait 1s -> BYE 1 to a; ended by timeout max_duration connected`)
	b.settle()
}
