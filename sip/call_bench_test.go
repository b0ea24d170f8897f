package sip

import (
	"fmt"
	"testing"
)

// BenchmarkCall is a whole call with a scripted peer on TCP: INVITE, 180, 200, ACK, ten digits,
// BYE. The peer's own work is in it, the same every time.
func BenchmarkCall(b *testing.B) {
	p := newPeer(b, "tcp")
	ua := newTrunk(b, p, func(o *AttachmentOptions) { o.CPS, o.PeerRate, o.MaxCalls = -1, 1e9, -1 })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		call, ev := place(b, ua)
		inv := p.expect("INVITE")
		tag := fmt.Sprint("tag", i)
		inv.write(answer(inv, 180, "Ringing", tag, p.contact()))
		next[Ringing](ev)
		inv.write(answer(inv, 200, "OK", tag, p.contact(), "\n"+answerSDP))
		next[Answer](ev)
		next[Connected](ev)
		p.expect("ACK")
		for n := range 10 {
			inv.write(p.inDialog(inv, tag, "INFO", 1+n, "Content-Type: application/dtmf-relay", "\nSignal=5\r\n"))
			next[Info](ev)
			p.expect("200")
		}
		call.Hangup("hung_up", "")
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		next[Ended](ev)
	}
}
