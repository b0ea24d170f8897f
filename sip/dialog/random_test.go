package dialog

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// world is a network in virtual time with one Call and a forking proxy before some
// phones. Messages are delayed, and those without a transaction to repeat them (ACK,
// and each copy of a 2xx) are lost at random.
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
	w.log = append(w.log, fmt.Sprintf("%v %T", w.now.Sub(time.Unix(0, 0)), in))
	for _, a := range w.c.Step(w.now, in) {
		switch a := a.(type) {
		case Send:
			w.log = append(w.log, "   "+describe(a.Req))
			if a.Req.Method == sip.CANCEL {
				w.listen = w.now.Add(32 * time.Second)
			}
			w.send(a.Req)
		case Ack:
			tag := toTag(a.Req)
			if !w.lost() {
				w.after(w.delay(), func() { w.phone[tag].acked = true })
			}
		case Emit:
			s := told(a.Event)
			w.log = append(w.log, "   "+s)
			if w.ended > 0 {
				w.fail("%s came after Ended", s)
			}
			if _, ok := a.Event.(Ended); ok {
				w.ended++
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

func (w *world) fail(format string, args ...any) {
	w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log, "\n"))...)
}

// send is what the network does with a request of ours.
func (w *world) send(req *sip.Request) {
	switch req.Method {
	case sip.INVITE:
		w.inv = req
		if w.rng.IntN(20) == 0 {
			w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
			return
		}
		w.after(w.delay(), func() { w.feed(Response{w.response(100, req, "")}) })
		for i := range w.rng.IntN(4) + 1 {
			p := &phone{tag: fmt.Sprint("t", i)}
			w.phone[p.tag] = p
			w.ring(p)
		}
	case sip.PRACK:
		tag := toTag(req)
		w.after(w.delay(), func() { w.feed(Response{w.response(200, req, tag)}) })
	case sip.CANCEL:
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
		words := []string{"early"}
		if reliable {
			words = append(words, fmt.Sprint("rel=", 1+w.rng.IntN(100)))
		}
		w.after(w.delay(), func() { w.feed(Response{w.response(183, w.inv, p.tag, words...)}) })
	})
	w.after(w.within(5), func() { w.after(w.delay(), func() { w.feed(Response{w.response(180, w.inv, p.tag)}) }) })
	switch w.rng.IntN(4) {
	case 0, 1:
		w.after(w.within(20), func() {
			if p.refused || w.finalSent {
				return
			}
			p.answered = true
			w.repeat200(p, 500*time.Millisecond, w.now.Add(32*time.Second))
			if w.rng.IntN(2) == 0 {
				w.after(w.within(40), func() { w.peerBye(p) })
			}
		})
	case 2:
		w.after(w.within(20), func() {
			if !p.answered {
				p.refused = true
				w.final(486)
			}
		})
	}
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
	b := &bench{t: w.t}
	w.after(w.delay(), func() { w.feed(b.request([]string{"BYE", p.tag, "1"})) })
}

// Forks, loss, a CANCEL at any moment: whatever the order, Ended comes once and last,
// and no phone that answered stays connected to a call that is over.
func TestRandomInterleavings(t *testing.T) {
	runs := 20000
	if testing.Short() {
		runs = 2000
	}
	for seed := range uint64(runs) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(0, 0), phone: map[string]*phone{}}
		w.log = []string{fmt.Sprint("seed ", seed)}
		o := options()
		o.SessionExpires = 0
		w.c = New(o)
		w.after(0, func() { w.feed(Start{}) })
		hangup := func() { w.feed(Hangup{Why: "hung_up"}) }
		w.after(w.within(1+w.rng.IntN(25)), hangup)
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
