package dialog

import (
	"strings"
	"testing"
)

// The figures of RFC 3261 17 as the transaction user sees them, an arrow a row: what comes
// up to it in which state, and what it does. The transactions themselves are sipgo's.
func TestFigures(t *testing.T) {
	const (
		calling    = "start -> INVITE 1\n"
		proceeding = calling + "< 180 a -> ringing\n"
		accepted   = up
		cancelled  = proceeding + "hangup -> CANCEL 1\n"
		byeSent    = up + "hangup -> BYE 2 to a; ended by local hung_up connected\n"
		pracked    = calling + "< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one\n"
	)
	for _, row := range []struct{ figure, state, event, script string }{
		{"5", "Calling", "1xx", calling + "< 100 - ->"},
		{"5", "Calling", "2xx", calling + "< 200 a answer -> ACK 1 to a; final answer answer; connected"},
		{"5", "Calling", "300-699", calling + "< 404 a -> ended by remote 404"},
		{"5", "Calling", "timer B", calling + "timeout INVITE -> ended by network no_response"},
		{"5", "Calling", "transport error", calling + "fail INVITE -> ended by network transport"},
		{"5", "Proceeding", "1xx", proceeding + "< 183 a one -> early answer one"},
		{"5", "Proceeding", "2xx", proceeding + "< 200 a answer -> ACK 1 to a; final answer answer; connected"},
		{"5", "Proceeding", "300-699", proceeding + "< 486 a -> ended by remote 486"},
		{"5", "Proceeding", "timer B has no place here", proceeding + "timeout INVITE ->"},
		{"5", "Proceeding", "transport error", proceeding + "fail INVITE ->"},
		{"5", "Accepted", "2xx again", accepted + "< 200 a answer -> ACK 1 to a"},
		{"5", "Accepted", "2xx of another fork", accepted + "< 200 b answer -> ACK 1 to b; BYE 2 to b\n< 200 b bye ->"},
		{"5", "Accepted", "300-699 of another fork", accepted + "< 486 b ->"},
		{"5", "Accepted", "1xx", accepted + "< 180 b ->"},
		{"5", "Accepted", "timer M", accepted + "wait 32s ->"},

		{"6", "Trying", "1xx to CANCEL", cancelled + "< 100 - cancel ->"},
		{"6", "Trying", "200 to CANCEL", cancelled + "< 200 - cancel ->"},
		{"6", "Trying", "481 to CANCEL", cancelled + "< 481 - cancel ->"},
		{"6", "Trying", "timer F of CANCEL", cancelled + "timeout CANCEL ->"},
		{"6", "Trying", "200 to BYE", byeSent + "< 200 a bye ->"},
		{"6", "Trying", "481 to BYE", byeSent + "< 481 a bye ->"},
		{"6", "Trying", "timer F of BYE", byeSent + "timeout BYE ->"},
		{"6", "Trying", "transport error of BYE", byeSent + "fail BYE ->"},
		{"6", "Trying", "200 to PRACK", pracked + "< 200 a prack ->"},
		{"6", "Trying", "481 to PRACK", pracked + "< 481 a prack ->"},
		{"6", "Trying", "timer F of PRACK", pracked + "timeout PRACK ->"},

		{"8", "Trying", "BYE", accepted + "> BYE a 5 -> BYE5=200; ended by remote connected"},
		{"8", "Trying", "INFO", accepted + "> INFO a 5 -> INFO5=200"},
		{"8", "Trying", "OPTIONS", accepted + "> OPTIONS a 5 -> OPTIONS5=200"},
		{"8", "Trying", "PRACK of nothing", accepted + "> PRACK a 5 RAck=1_1_INVITE -> PRACK5=481"},
		{"8", "Trying", "unknown method", accepted + "> PUBLISH a 5 -> PUBLISH5=405"},
		{"8", "Trying", "UPDATE, answered by the owner", accepted + "> UPDATE a 5 more -> offer 1 more\nreply 1 ours -> UPDATE5=200; replied 1"},
		{"8", "Trying", "UPDATE, nobody answers", accepted + "> UPDATE a 5 more -> offer 1 more\nwait 2s -> no reply to 1; UPDATE5=488"},
	} {
		t.Run("figure "+row.figure+" "+row.state+" "+row.event, func(t *testing.T) {
			b := newBench(t, options())
			b.run(row.script)
			b.settle()
		})
	}

	const (
		trying  = "start -> INV=100\n"
		ringing = trying + "ring -> INV=180\n"
		two     = "INV=200 ours"
		said    = trying + "accept ours -> " + two + "\n"
		refused = trying + "reject 486 -> INV=486; ended by local rejected 486\n"
	)
	for _, row := range []struct{ figure, state, event, script string }{
		{"7", "Proceeding", "101-199 from TU", ringing},
		{"7", "Proceeding", "2xx from TU", ringing + "accept ours -> " + two},
		{"7", "Proceeding", "300-699 from TU", ringing + "reject 603 -> INV=603; ended by local rejected 603"},
		{"7", "Proceeding", "CANCEL (9.2)", ringing + "cancelled INV -> ended by remote cancelled 487"},
		{"7", "Accepted", "2xx from TU, T1 later", said + "wait 500ms -> " + two},
		{"7", "Accepted", "ACK", said + "> ACK a 1 -> connected"},
		{"7", "Accepted", "ACK again", said + "> ACK a 1 -> connected\n> ACK a 1 ->"},
		{"7", "Accepted", "timer L", said + "wait 32s -> " + strings.Repeat(two+"; ", 10) + "BYE 1 to a; ended by timeout no_ack"},
		{"7", "Completed", "ACK", refused + "> ACK a 1 ->"},
		{"7", "Completed", "2xx from TU", refused + "accept ours ->"},
		{"7", "Completed", "CANCEL", refused + "cancelled INV ->"},
	} {
		t.Run("figure "+row.figure+" "+row.state+" "+row.event, func(t *testing.T) {
			o := options()
			o.SessionExpires = 0
			b := newIncomingBench(t, o, "theirs")
			b.run(row.script)
			b.settle()
		})
	}
}

// UPDATE and re-INVITE that cross, RFC 3311 5.2 and RFC 3261 14.2, for whoever called: the
// second offer waits, or is told to come again.
func TestGlare(t *testing.T) {
	const (
		in    = "start -> INV=100\naccept ours -> INV=200 ours\n> ACK a 1 -> connected\n"
		lines = `
			{our INVITE is out, theirs comes}
			propose more -> INVITE {2} to a
			> INVITE a 5 theirs -> INVITE5=491
			{our INVITE is out, their UPDATE comes}
			propose more -> INVITE {2} to a
			> UPDATE a 5 theirs -> UPDATE5=491
			{our INVITE is out, an UPDATE without offer comes}
			propose more -> INVITE {2} to a
			> UPDATE a 5 -> UPDATE5=200
			{their INVITE waits, their UPDATE comes}
			> INVITE a 5 theirs -> offer 1 theirs
			> UPDATE a 6 more -> UPDATE6=500 Retry-After=2
			{their UPDATE waits, their INVITE comes}
			> UPDATE a 5 theirs -> offer 1 theirs
			> INVITE a 6 more -> INVITE6=500 Retry-After=2
			{theirs waits, we want to offer}
			> INVITE a 5 theirs -> offer 1 theirs
			propose stale ->
			reply 1 ours -> INVITE5=200; replied 1; reoffered 491
			propose more ->
			> ACK a 5 -> INVITE {2} to a
			{our offer to their empty INVITE is out, their UPDATE comes}
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> UPDATE a 6 more -> UPDATE6=491
			> ACK a 5 yes -> reoffered 200 yes to offer 1
			{491 to ours}
			propose more -> INVITE {2} to a
			< 491 a re ->
			wait {early} ->
			wait {rest} -> INVITE {3} to a`
	)
	for _, role := range []struct {
		name  string
		words *strings.Replacer
		bench func(o Options) *bench
		up    string
	}{
		// The owner of the Call-ID waits 2.1 to 4 s, the other 0 to 2 s: 3.05 and 1 s with a Rand of 0.5.
		{"we called", strings.NewReplacer("{2}", "2", "{3}", "3", "{early}", "3s", "{rest}", "50ms"),
			func(o Options) *bench { return newBench(t, o) }, up},
		{"they called", strings.NewReplacer("{2}", "1", "{3}", "2", "{early}", "999ms", "{rest}", "1ms"),
			func(o Options) *bench {
				b := newIncomingBench(t, o, "theirs")
				b.c.o.Rand = func() float64 { return 0.5 }
				return b
			}, in},
	} {
		text := role.words.Replace(lines)
		for _, part := range strings.Split(text, "{")[1:] {
			name, script, _ := strings.Cut(part, "}")
			t.Run(role.name+", "+name, func(t *testing.T) {
				o := options()
				o.SessionExpires = 0
				b := role.bench(o)
				b.t = t
				b.run(role.up + script)
				b.settle()
			})
		}
	}
}
