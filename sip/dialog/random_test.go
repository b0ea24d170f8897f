package dialog

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// world is a network in virtual time with one Call and a forking proxy before some
// phones. Messages are delayed, so they overtake each other, and those without a
// transaction to repeat them (18x, ACK, and each copy of a 2xx) are lost at random.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	queue events
	n     int
	c     *Call
	inv   *sip.Request
	phone map[string]*phone
	log   []string

	b         *bench       // makes the phones' requests
	open      map[any]int  // the peers' requests by transaction, and what they were answered
	offering  *sip.Request // our re-INVITE that has no final answer yet
	theirs    any          // the peer's offer that has none
	connected bool

	cancelled, finalSent bool
	listen               time.Time // until when a 2xx may still come: 64·T1 after the first, or after CANCEL
	told                 []string
	ended                int
}

// phone is one fork's far end. What must not be at the end: answered, its answer
// heard, and nobody said BYE.
type phone struct {
	tag                   string
	answered, acked, byed bool
	heard                 bool // a copy of its 2xx reached us while we have to listen
	refused, sentBye      bool

	seq       int    // its own CSeq
	ourSeq    uint32 // highest of ours that reached it
	rseq      int    // of the last reliable 18x it sent, 0: none
	pracked   int    // highest acknowledged
	reAcked   map[uint32]bool
	reoffered map[uint32]bool // re-INVITEs of ours it has answered with 2xx
}

type occurrence struct {
	at time.Time
	n  int
	f  func()
}
type events []occurrence

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(occurrence)) }
func (e *events) Pop() any     { o := *e; x := o[len(o)-1]; *e = o[:len(o)-1]; return x }

func (w *world) after(d time.Duration, f func()) {
	w.n++
	heap.Push(&w.queue, occurrence{w.now.Add(d), w.n, f})
}

func (w *world) delay() time.Duration { return time.Duration(w.rng.IntN(400)) * time.Millisecond }
func (w *world) within(s int) time.Duration {
	return time.Duration(w.rng.IntN(s*1000)) * time.Millisecond
}
func (w *world) lost() bool { return w.rng.IntN(4) == 0 }

func (w *world) response(status int, req *sip.Request, tag string, words ...string) *sip.Response {
	res := sip.NewResponse(status, "phrase")
	res.AppendHeader(sip.HeaderClone(req.Via()))
	res.AppendHeader(sip.HeaderClone(req.From()))
	to := sip.HeaderClone(req.To()).(*sip.ToHeader)
	if tag != "" {
		to.Params.Remove("tag")
		to.Params.Add("tag", tag)
		add(res, "Contact", "<sip:"+tag+"@198.51.100.7>")
	}
	res.AppendHeader(to)
	res.AppendHeader(sip.HeaderClone(req.CSeq()))
	decorate(res, words)
	return res
}

func (w *world) feed(in Input) {
	if w.c.Done() {
		return // forgotten: the owner has dropped it
	}
	w.log = append(w.log, fmt.Sprintf("%v %T %s", w.now.Sub(time.Unix(0, 0)), in, what(in)))
	switch in := in.(type) {
	case Request:
		if in.Req.Method != sip.ACK {
			w.open[in.Tx] = 0
		}
	case Response:
		if w.offering != nil && in.Res.StatusCode >= 200 && in.Res.CSeq().SeqNo == w.offering.CSeq().SeqNo && in.Res.CSeq().MethodName == sip.INVITE {
			w.offering = nil
		}
	case Failed:
		if in.Req == w.offering {
			w.offering = nil
		}
	}
	for _, a := range w.c.Step(w.now, in) {
		switch a := a.(type) {
		case Send:
			w.log = append(w.log, "   "+describe(a.Req))
			if a.Req.Method == sip.CANCEL {
				w.listen = w.now.Add(32 * time.Second)
			}
			w.send(a.Req)
		case Ack:
			w.log = append(w.log, "   "+describe(a.Req))
			p, seq := w.phone[toTag(a.Req)], a.Req.CSeq().SeqNo
			if !w.lost() {
				w.after(w.delay(), func() {
					if seq == 1 {
						p.acked = true
					}
					p.reAcked[seq] = true
				})
			}
		case Respond:
			w.log = append(w.log, fmt.Sprintf("   %v=%d", a.Tx, a.Res.StatusCode))
			w.respond(a)
		case Emit:
			s := told(a.Event)
			w.log = append(w.log, "   "+s)
			if w.ended > 0 {
				w.fail("%s came after Ended", s)
			}
			switch e := a.Event.(type) {
			case Ended:
				w.ended++
				if e.Connected != w.connected {
					w.fail("Ended says connected %v", e.Connected)
				}
			case Connected:
				w.connected = true
			case Offer:
				w.theirs = w.c.peer.tx
				w.after(w.within(3), func() { // sometimes too late
					w.feed(Reply{ID: e.ID, SDP: []byte("ours"), Status: 200})
				})
			}
			w.told = append(w.told, s)
		}
	}
	if next := w.c.Next(); !next.IsZero() {
		w.after(max(next.Sub(w.now), 0), func() {
			if at := w.c.Next(); !at.IsZero() && !at.After(w.now) {
				w.feed(Tick{})
			}
		})
	}
}

// what says which message an input is.
func what(in Input) string {
	switch in := in.(type) {
	case Response:
		return fmt.Sprint(in.Res.StatusCode, " ", in.Res.CSeq().Value(), " ", toTag(in.Res))
	case Request:
		return fmt.Sprint(in.Req.CSeq().Value(), " ", fromTag(in.Req))
	}
	return ""
}

// respond is what becomes of our answer to a request of a phone.
func (w *world) respond(a Respond) {
	status := a.Res.StatusCode
	if status < 200 {
		return
	}
	if was := w.open[a.Tx]; was != 0 && (was != status || a.Res.CSeq().MethodName != sip.INVITE) {
		w.fail("%v was answered %d and %d", a.Tx, was, status)
	}
	if status < 300 && a.Tx == w.theirs && w.offering != nil && w.open[a.Tx] == 0 {
		w.fail("%v was accepted while our own offer is out", a.Tx)
	}
	w.open[a.Tx] = status
	if a.Tx == w.theirs {
		w.theirs = nil
	}
	if seq := a.Res.CSeq(); seq.MethodName == sip.INVITE && status < 300 && !w.lost() {
		tag := fromTag(a.Res)
		w.after(w.delay(), func() {
			if !w.lost() {
				w.after(w.delay(), func() { w.feed(w.b.request([]string{"ACK", tag, fmt.Sprint(seq.SeqNo)})) })
			}
		})
	}
}

// say is a request of a phone.
func (w *world) say(p *phone, method string, words ...string) {
	p.seq++
	in := w.b.request(append([]string{method, p.tag, fmt.Sprint(p.seq)}, words...))
	in.Tx = p.tag + in.Tx.(string)
	w.after(w.delay(), func() { w.feed(in) })
}

func (w *world) fail(format string, args ...any) {
	w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log, "\n"))...)
}

// send is what the network does with a request of ours.
func (w *world) send(req *sip.Request) {
	if p := w.phone[toTag(req)]; p != nil && req.Method != sip.CANCEL {
		if seq := req.CSeq().SeqNo; seq <= p.ourSeq {
			w.fail("%s has the number of another", describe(req))
		} else {
			p.ourSeq = seq
		}
	}
	switch req.Method {
	case sip.INVITE:
		if toTag(req) != "" {
			w.reinvited(req)
			return
		}
		w.inv = req
		if w.rng.IntN(20) == 0 {
			w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
			return
		}
		w.after(w.delay(), func() { w.feed(Response{w.response(100, req, "")}) })
		for i := range w.rng.IntN(4) + 1 {
			p := &phone{tag: fmt.Sprint("t", i), reAcked: map[uint32]bool{}, reoffered: map[uint32]bool{}, ourSeq: req.CSeq().SeqNo}
			w.phone[p.tag] = p
			w.ring(p)
		}
	case sip.PRACK:
		p := w.phone[toTag(req)]
		var n int
		if _, err := fmt.Sscanf(value(req, "RAck"), "%d 1 INVITE", &n); err != nil || n > p.rseq || n != p.pracked+1 && p.pracked != 0 {
			w.fail("PRACK %q of what was not sent, or out of order: %d sent, %d acknowledged", value(req, "RAck"), p.rseq, p.pracked)
		}
		if w.rng.IntN(30) == 0 { // it has forgotten the dialog
			w.after(w.delay(), func() {
				p.refused = true
				w.feed(Response{w.response(481, req, p.tag)})
				w.final(480)
			})
			return
		}
		w.after(w.delay(), func() {
			p.pracked = n
			w.feed(Response{w.response(200, req, p.tag)})
		})
	case sip.CANCEL:
		if w.offering != nil && req.CSeq().SeqNo == w.offering.CSeq().SeqNo {
			inv := w.offering
			w.after(w.delay(), func() { w.feed(Response{w.response(487, inv, toTag(inv))}) })
			return
		}
		w.after(w.delay(), func() {
			w.cancelled = true
			w.feed(Response{w.response(200, req, "")})
			for _, p := range w.phone {
				if !p.answered && w.rng.IntN(3) > 0 { // the others answer in spite of it
					p.refused = true
				}
			}
			w.final(487)
		})
	case sip.BYE:
		p := w.phone[toTag(req)]
		w.after(w.delay(), func() {
			p.byed = true
			if w.rng.IntN(10) == 0 {
				w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
				return
			}
			w.feed(Response{w.response(200, req, p.tag)})
		})
	}
}

// ring lets a phone ring, and answer, refuse or do nothing.
func (w *world) ring(p *phone) {
	reliable := w.rng.IntN(2) == 0
	w.after(w.within(3), func() {
		if reliable {
			p.rseq = 1 + w.rng.IntN(100)
			w.repeat18x(p, 183, p.rseq, 500*time.Millisecond, "early")
			return
		}
		w.after(w.delay(), func() { w.feed(Response{w.response(183, w.inv, p.tag, "early")}) })
	})
	w.after(3*time.Second+w.within(5), func() {
		if p.rseq != 0 && p.pracked == p.rseq { // one at a time
			p.rseq++
			w.repeat18x(p, 180, p.rseq, 500*time.Millisecond)
			return
		}
		w.after(w.delay(), func() { w.feed(Response{w.response(180, w.inv, p.tag)}) })
	})
	switch w.rng.IntN(4) {
	case 0, 1:
		w.after(w.within(20), func() {
			if p.refused || w.finalSent || p.rseq != p.pracked { // a 2xx waits for PRACK
				return
			}
			p.answered = true
			for range w.rng.IntN(3) {
				w.after(w.within(60), func() { w.midCall(p) })
			}
			w.repeat200(p, 500*time.Millisecond, w.now.Add(32*time.Second))
			if w.rng.IntN(2) == 0 {
				w.after(w.within(40), func() { w.peerBye(p) })
			}
		})
	case 2:
		w.after(w.within(20), func() {
			if !p.answered {
				p.refused = true
				if w.rng.IntN(2) == 0 { // the proxy says which fork is over (RFC 6228)
					w.after(w.delay(), func() { w.feed(Response{w.response(199, w.inv, p.tag)}) })
				}
				w.final(486)
			}
		})
	}
}

// repeat18x is RFC 3262 3 at the phone: a reliable 18x again until its PRACK comes.
func (w *world) repeat18x(p *phone, status, rseq int, interval time.Duration, words ...string) {
	if p.pracked >= rseq || interval > 16*time.Second || p.refused || w.finalSent {
		return
	}
	if !w.lost() {
		w.after(w.delay(), func() {
			w.feed(Response{w.response(status, w.inv, p.tag, append(words, fmt.Sprint("rel=", rseq))...)})
		})
	}
	w.after(interval, func() { w.repeat18x(p, status, rseq, 2*interval, words...) })
}

// midCall is something a phone says while it talks.
func (w *world) midCall(p *phone) {
	if !p.acked || p.byed || p.sentBye {
		return
	}
	switch w.rng.IntN(5) {
	case 0, 1:
		w.say(p, "INVITE", "hold")
	case 2:
		w.say(p, "UPDATE", "more")
	case 3:
		w.say(p, "UPDATE")
	case 4:
		w.say(p, "INFO", "body=application/dtmf-relay")
	}
}

// reinvited is what a phone does with a re-INVITE of ours.
func (w *world) reinvited(req *sip.Request) {
	if w.theirs != nil {
		w.fail("%s while the peer's offer waits", describe(req))
	}
	w.offering = req
	p := w.phone[toTag(req)]
	answer := func(status int, words ...string) {
		w.after(w.delay(), func() { w.feed(Response{w.response(status, req, p.tag, words...)}) })
	}
	switch w.rng.IntN(8) {
	case 0:
		answer(491)
	case 1:
		answer(500, "Retry-After=1")
	case 2:
		answer(603)
	case 3: // its user thinks, for ever
		answer(180)
	case 4:
		w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
	default:
		w.after(w.delay(), func() { w.repeatRe200(p, req, 500*time.Millisecond) })
	}
}

func (w *world) repeatRe200(p *phone, req *sip.Request, interval time.Duration) {
	seq := req.CSeq().SeqNo
	if p.reAcked[seq] || interval > 16*time.Second {
		return
	}
	p.reoffered[seq] = true
	if !w.lost() {
		w.after(w.delay(), func() { w.feed(Response{w.response(200, req, p.tag, "yes")}) })
	}
	w.after(interval, func() { w.repeatRe200(p, req, 2*interval) })
}

// repeat200 is RFC 3261 13.3.1.4 at the phone: the 2xx again until its ACK comes.
func (w *world) repeat200(p *phone, interval time.Duration, until time.Time) {
	if p.acked || w.now.After(until) {
		return
	}
	if !w.lost() {
		w.after(w.delay(), func() {
			if w.listen.IsZero() && w.ended == 0 {
				w.listen = w.now.Add(32 * time.Second)
			}
			p.heard = p.heard || w.now.Before(w.listen)
			w.feed(Response{w.response(200, w.inv, p.tag, "answer")})
		})
	}
	w.after(interval, func() { w.repeat200(p, min(2*interval, 4*time.Second), until) })
}

// final is the proxy: one failure to us once every phone has refused, none after a 2xx.
func (w *world) final(status int) {
	for _, p := range w.phone {
		if p.answered || !p.refused {
			return
		}
	}
	if w.finalSent {
		return
	}
	w.finalSent = true
	w.after(w.delay(), func() { w.feed(Response{w.response(status, w.inv, "t0")}) })
}

func (w *world) peerBye(p *phone) {
	if !p.acked || p.byed || p.sentBye {
		return
	}
	p.sentBye = true
	w.say(p, "BYE")
}

// seeds is how many random calls a model plays: 8000, or what SPARKLE_SEEDS says.
func seeds(t *testing.T) uint64 {
	if v := os.Getenv("SPARKLE_SEEDS"); v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			t.Fatalf("SPARKLE_SEEDS: %v", err)
		}
		return n
	}
	if testing.Short() {
		return 2000
	}
	return 8000
}

// Forks, loss, a CANCEL at any moment: whatever the order, Ended comes once and last,
// and no phone that answered stays connected to a call that is over.
func TestRandomInterleavings(t *testing.T) {
	runs := seeds(t)
	for seed := range runs {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(0, 0), phone: map[string]*phone{},
			b: &bench{t: t}, open: map[any]int{}}
		w.log = []string{fmt.Sprint("seed ", seed)}
		o := options()
		o.SessionExpires = 0
		w.c = New(o)
		w.after(0, func() { w.feed(Start{}) })
		hangup := func() { w.feed(Hangup{Why: "hung_up"}) }
		w.after(w.within(1+w.rng.IntN(60)), hangup)
		for range w.rng.IntN(3) {
			w.after(w.within(60), func() { w.feed(Propose{SDP: []byte("more")}) })
		}
		w.after(5*time.Minute, hangup) // at the latest
		for w.queue.Len() > 0 {
			o := heap.Pop(&w.queue).(occurrence)
			w.now = o.at
			o.f()
		}
		if w.ended != 1 {
			w.fail("Ended came %d times", w.ended)
		}
		if !w.c.Done() || !w.c.Next().IsZero() {
			w.fail("the call is not done: next %v", w.c.Next())
		}
		for _, p := range w.phone {
			if p.answered && p.heard && !p.byed && !p.sentBye {
				w.fail("phone %s answered and was left connected", p.tag)
			}
		}
		for tx, status := range w.open {
			if status == 0 {
				w.fail("%v was never answered", tx)
			}
		}
	}
}

// FuzzResponse: whatever the peer answers, the call neither panics nor tells twice.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"SIP/2.0 183 x\r\nTo: <sip:a@b>;tag=1\r\nFrom: <sip:c@d>;tag=us\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nRequire: 100rel\r\nRSeq: 1\r\nContact: <sip:x@y>\r\nContent-Length: 0\r\n\r\n",
		"SIP/2.0 200 x\r\nTo: <sip:a@b>;tag=1\r\nFrom: <sip:c@d>;tag=us\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nRecord-Route: <sip:a;lr>,\"x,y\" <sip:b>\r\nContact: \"<\" <sip:x@y>;q=1\r\nSession-Expires: 90;refresher=uas\r\nContent-Type: multipart/mixed;boundary=b\r\nContent-Length: 61\r\n\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--b--\r\n\r\n\r\n\r\n\r\n\r\n",
		"SIP/2.0 486 x\r\nTo: <sip:a@b>;tag=1\r\nFrom: <sip:c@d>;tag=us\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nReason: Q.850;cause=17;text=\"a\\\"b\", SIP;cause=x\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n",
		"SIP/2.0 422 x\r\nTo: <sip:a@b>\r\nFrom: <sip:c@d>;tag=us\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMin-SE: 4000000000\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add(s, s)
	}
	parser := sip.NewParser()
	f.Fuzz(func(t *testing.T, first, second string) {
		c := New(options())
		now := time.Unix(0, 0)
		c.Step(now, Start{})
		ended := 0
		count := func(as []Action) {
			for _, a := range as {
				switch a := a.(type) {
				case Emit:
					if _, ok := a.Event.(Ended); ok {
						ended++
					}
				case Send:
					_ = a.Req.String()
				case Ack:
					_ = a.Req.String()
				}
			}
		}
		for _, s := range []string{first, second} {
			msg, err := parser.ParseSIP([]byte(s))
			if err != nil {
				continue
			}
			switch m := msg.(type) {
			case *sip.Response:
				if m.CSeq() != nil {
					count(c.Step(now, Response{m}))
				}
			case *sip.Request:
				if m.CSeq() != nil && m.From() != nil && m.To() != nil {
					count(c.Step(now, Request{Req: m, Tx: 1}))
				}
			}
		}
		count(c.Step(now, Hangup{Why: "x"}))
		for range 100 {
			next := c.Next()
			if next.IsZero() {
				break
			}
			count(c.Step(next, Tick{}))
		}
		if ended != 1 {
			t.Errorf("Ended came %d times", ended)
		}
	})
}
