package sip

import (
	"fmt"
	"strings"
	"testing"
)

// sipgo takes each message in a goroutine of its own. Whatever the scheduler does with them,
// a call hears of them in the order they came over the wire: a ring before the answer, every
// digit, a re-INVITE before the BYE behind it.
func TestOrderOfArrival(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.CPS, o.PeerRate = 1000, 1e6 })
		burst := func(m message, texts ...string) {
			if network == "tcp" {
				m.write(strings.Join(texts, ""))
				return
			}
			for _, s := range texts {
				m.write(s)
			}
		}
		for round := range 20 {
			_, ev := place(t, ua)
			inv := p.expect("INVITE")
			tag := fmt.Sprint("tag", round)
			burst(inv, answer(inv, 180, "Ringing", tag, p.contact()), answer(inv, 200, "OK", tag, p.contact(), "\n"+answerSDP))
			next[Ringing](ev)
			next[Answer](ev)
			next[Connected](ev)
			p.expect("ACK")
			const digits = "0123456789*#0123456789*#"
			texts := make([]string, 0, len(digits)+2)
			for i, d := range digits {
				texts = append(texts, p.inDialog(inv, tag, "INFO", 1+i, "Content-Type: application/dtmf-relay", fmt.Sprintf("\nSignal=%c\r\nDuration=160\r\n", d)))
			}
			texts = append(texts,
				p.inDialog(inv, tag, "INVITE", 101, p.contact(), "\n"+answerSDP),
				p.inDialog(inv, tag, "BYE", 102))
			burst(inv, texts...)
			for _, d := range digits {
				if e := next[Info](ev); e.Digit != d {
					t.Fatalf("round %d: digit %c, want %c", round, e.Digit, d)
				}
			}
			next[Offer](ev)
			next[Ended](ev)
			for range texts { // 200 to each INFO and to BYE, 487 to the INVITE; 100 may come between
				for {
					m := <-p.in
					if m.method() == "INVITE" || m.status() == "100" {
						continue
					}
					want := "200"
					if strings.HasSuffix(m.get("Cseq"), "INVITE") {
						want = "487"
					}
					if m.status() != want {
						t.Fatalf("round %d: %s to %s", round, m.start, m.get("Cseq"))
					}
					break
				}
			}
		}
	})
}

// A peer may answer our BYE and close its connection in one breath: the connection has died
// after the answer, and the BYE is not sent to anybody else. The next INVITE, which may go into
// the connection before its end is noticed, is sent again.
func TestConnectionClosedBehindTheAnswer(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.CPS, o.PeerRate = 1000, 1e6 })
	for range 50 {
		c, ev := place(t, ua)
		inv := p.expect("INVITE") // nothing of the last call
		inv.write(answer(inv, 200, "OK", "tag", p.contact(), "\n"+answerSDP))
		next[Answer](ev)
		next[Connected](ev)
		p.expect("ACK")
		c.Hangup("hung_up", "")
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		p.drop()
		next[Ended](ev)
	}
}
