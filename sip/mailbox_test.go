package sip

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

func infoRequest(n int) *sipgo.Request {
	req := sipgo.NewRequest(sipgo.INFO, sipgo.Uri{Scheme: "sip", Host: "h"})
	via := &sipgo.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: "TCP", Host: "h", Params: sipgo.NewParams()}
	via.Params.Add("branch", fmt.Sprint("z9hG4bK", n))
	req.AppendHeader(via)
	req.AppendHeader(&sipgo.CSeqHeader{SeqNo: uint32(n), MethodName: sipgo.INFO})
	return req
}

// Requests and responses arrive in an order, sipgo hands the requests over in any, a few never,
// some twice, and the call's goroutine looks when it likes. It reads everything, once, in order
// as far as sipgo was not late, and nothing waits for longer than that.
func TestMailboxRandom(t *testing.T) {
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m, now := newMailbox(), time.Unix(0, 0)
		type pending struct {
			n   int
			at  time.Time
			req *sipgo.Request
		}
		var inHand []pending
		put := map[int]time.Time{}         // when it was posted
		tardy, lost, read := 0, 0, []int{} // tardy: handed over when nobody waited for it any more
		isTardy := map[int]bool{}
		var until time.Time
		take := func() {
			var letters []letter
			letters, until = m.take(now)
			for _, l := range letters {
				switch in := l.in.(type) {
				case dialog.Request:
					read = append(read, int(in.Req.CSeq().SeqNo))
				case dialog.Response:
					read = append(read, int(in.Res.CSeq().SeqNo))
				}
			}
			for n, at := range put {
				for _, r := range read {
					if r == n {
						delete(put, n)
					}
				}
				if _, waits := put[n]; waits && now.Sub(at) > late {
					t.Fatalf("seed %d: %d has waited %v", seed, n, now.Sub(at))
				}
			}
		}
		arrivals := 0
		for range 60 {
			switch rng.IntN(6) {
			case 0, 1: // a request
				arrivals++
				req := infoRequest(arrivals)
				m.expect(now, req)
				if rng.IntN(10) == 0 {
					m.expect(now, req) // again: sipgo keeps it
				}
				if rng.IntN(12) == 0 {
					lost++
				} else {
					inHand = append(inHand, pending{arrivals, now, req})
				}
			case 2: // a response
				arrivals++
				res := sipgo.NewResponse(180, "x")
				res.AppendHeader(&sipgo.CSeqHeader{SeqNo: uint32(arrivals), MethodName: sipgo.INVITE})
				m.put(dialog.Response{Res: res})
				put[arrivals] = now
			case 3, 4: // sipgo hands one over
				if len(inHand) > 0 {
					i := rng.IntN(len(inHand))
					p := inHand[i]
					inHand = append(inHand[:i], inHand[i+1:]...)
					if now.Sub(p.at) >= late {
						tardy++
						isTardy[p.n] = true
					}
					m.put(dialog.Request{Req: p.req})
					put[p.n] = now
				}
			case 5:
				now = now.Add(time.Duration(rng.IntN(150)) * time.Millisecond)
				if !until.IsZero() && now.After(until) {
					now = until // the call's timer
				}
				take()
			}
		}
		for _, p := range inHand {
			m.put(dialog.Request{Req: p.req})
			put[p.n] = now
			if now.Sub(p.at) >= late {
				isTardy[p.n] = true
			}
		}
		for range 100 {
			if take(); until.IsZero() {
				break
			}
			now = until
		}
		if len(read) != arrivals-lost || len(put) != 0 {
			t.Fatalf("seed %d: %d of %d were read, %d wait", seed, len(read), arrivals-lost, len(put))
		}
		last := 0
		for _, n := range read {
			if n < last && !isTardy[n] {
				t.Fatalf("seed %d: %d after %d: %v", seed, n, last, read)
			}
			if !isTardy[n] {
				last = n
			}
		}
	}
}

// What the owner says waits for nobody, an expectation that sipgo disappoints is given up, and
// what a peer can make us remember is bounded.
func TestMailbox(t *testing.T) {
	m, now := newMailbox(), time.Unix(0, 0)
	first, second := infoRequest(1), infoRequest(2)
	m.expect(now, first)
	m.expect(now, second)
	m.put(dialog.Request{Req: second})
	m.put(dialog.Hangup{Why: "x"})
	ready, until := m.take(now)
	if len(ready) != 1 || ready[0].in != (dialog.Hangup{Why: "x"}) || until != now.Add(late) {
		t.Fatalf("%v, until %v", ready, until)
	}
	m.skip(first)
	if ready, until = m.take(now); len(ready) != 1 || !until.IsZero() {
		t.Fatalf("%v, until %v", ready, until)
	}
	for i := range 10_000 {
		m.expect(now, infoRequest(10+i))
	}
	if len(m.due) != maxDue || cap(m.due) > 2*maxDue {
		t.Errorf("%d requests are expected, capacity %d", len(m.due), cap(m.due))
	}
	if m.close(); m.put(dialog.Hangup{}) || m.has(func(any) bool { return true }) {
		t.Error("a closed mailbox takes mail")
	}
	m.expect(now, first)
	if len(m.due) != 0 {
		t.Error("a closed mailbox expects mail")
	}
}

// BenchmarkMailbox is what order costs a request: announced, handed over, read.
func BenchmarkMailbox(b *testing.B) {
	m, now := newMailbox(), time.Unix(0, 0)
	reqs := make([]*sipgo.Request, 64)
	for i := range reqs {
		reqs[i] = infoRequest(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		req := reqs[i%len(reqs)]
		m.expect(now, req)
		m.put(dialog.Request{Req: req})
		m.take(now)
	}
}

// A refusal of our INVITE is read when sipgo hands it over, which it does behind its ACK, and
// what came later is read later; everything else that answers is read at once.
func TestRefusalIsReadBehindItsACK(t *testing.T) {
	c := &call{box: newMailbox()}
	a := &attachment{calls: map[string]*call{callKey("id", "ours"): c}}
	read := func() (statuses []int) {
		letters, _ := c.box.take(time.Now())
		for _, l := range letters {
			statuses = append(statuses, l.in.(dialog.Response).Res.StatusCode)
		}
		return statuses
	}
	respond := func(status int) *sipgo.Response {
		m, err := sipgo.ParseMessage(fmt.Appendf(nil, "SIP/2.0 %d X\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=ours\r\n"+
			"To: <sip:b@h>;tag=b\r\nCall-ID: id\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n", status))
		if err != nil {
			t.Fatal(err)
		}
		return m.(*sipgo.Response)
	}
	refusal := respond(486)
	for _, res := range []*sipgo.Response{refusal, respond(180)} {
		a.arrive(sipgo.TransportReadProps{RemoteAddr: &net.TCPAddr{}}, res)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("%v was read before the ACK", got)
	}
	c.post(dialog.Response{Res: refusal})
	if got := read(); !slices.Equal(got, []int{486, 180}) {
		t.Errorf("%v was read, want 486 and 180", got)
	}
}
