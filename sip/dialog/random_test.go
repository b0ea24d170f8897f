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
//
// No description is like another and each phone knows what both said last, in 18x, UPDATE
// and 2xx, to the INVITE and to re-INVITEs: whoever is told of another one notices.
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

	b         *bench         // makes the phones' requests
	sdps      map[any]string // what the peers' requests offer
	open      map[any]int    // the peers' requests by transaction, and what they were answered
	re        *sip.Request   // our re-INVITE that has no final answer yet
	asking    bool           // nor has its offer
	theirs    any            // the peer's offer that has none
	offer     uint64         // the peer's of which the owner does not know yet what became; 0: none
	taken     map[any]bool   // the peers' INVITEs that a CANCEL was faster to than we
	connected bool
	tries     int  // INVITEs that the proxy wanted otherwise
	excuse    bool // somebody has done what ends a call

	cancelled, finalSent bool
	listen               time.Time // until when a 2xx may still come: 64·T1 after the first, or after CANCEL
	ended                int
}

// phone is one fork's far end. What must not be at the end: answered, its answer
// heard, and nobody said BYE.
type phone struct {
	tag                   string
	answered, acked, byed bool
	heard                 bool // a copy of its 2xx reached us while we have to listen
	refused, sentBye      bool

	seq     int    // its own CSeq
	ourSeq  uint32 // highest of ours that reached it
	rseq    int    // of the last reliable 18x it sent, 0: none
	pracked int    // highest acknowledged
	reAcked map[uint32]bool

	talk   pair      // what was said by the INVITE
	re     *again    // our re-INVITE, as long as it is open
	said   int       // descriptions of its own so far
	moves  int       // of its Contact
	sentTo int       // the newest Contact that we have used
	busy   int       // requests of its own that wait
	free   time.Time // when what it has said has arrived
	rings  bool      // unreliably
	early  string    // a description that did not bind

	session string // header of its 2xx; "" it knows no session timers
}

// pair is what two sides said last.
type pair struct {
	ours, theirs string // theirs "": our offer waits
	waits        bool   // for our half of the preconditions
}

// again is a re-INVITE of ours at a phone.
type again struct {
	pair
	req           *sip.Request
	rseq, pracked int
	heard         bool // a reliable answer to it reached us
	done          bool // it has its final answer
}

const firstOffer = "m=audio 2 RTP\r\nm=video 4 RTP\r\n"

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

// arrives is a response that may come again, late.
func (w *world) arrives(res *sip.Response) {
	w.feed(Response{res})
	if w.rng.IntN(4) == 0 {
		w.after(w.within(6), func() { w.feed(Response{res}) })
	}
}

func (w *world) response(status int, req *sip.Request, tag, sdp string, words ...string) *sip.Response {
	res := sip.NewResponse(status, "phrase")
	res.AppendHeader(sip.HeaderClone(req.Via()))
	res.AppendHeader(sip.HeaderClone(req.From()))
	to := sip.HeaderClone(req.To()).(*sip.ToHeader)
	if tag != "" {
		to.Params.Remove("tag")
		to.Params.Add("tag", tag)
	}
	res.AppendHeader(to)
	res.AppendHeader(sip.HeaderClone(req.CSeq()))
	decorate(res, words)
	if sdp != "" {
		setSDP(res, []byte(sdp))
	}
	return res
}

// answer sends a response that its transaction repeats.
func (w *world) answer(status int, req *sip.Request, tag, sdp string, words ...string) {
	w.after(w.delay(), func() { w.feed(Response{w.response(status, req, tag, sdp, words...)}) })
}

// at is the Contact of a phone as it is now.
func (p *phone) at() string { return fmt.Sprintf("Contact=<sip:%s.%d@198.51.100.7>", p.tag, p.moves) }

// describe is a description that nobody has heard yet, with video or with its place.
func (w *world) describe(p *phone) string {
	p.said++
	return fmt.Sprintf("m=audio 4 RTP\r\na=n:%s.%d\r\nm=video %d RTP\r\n", p.tag, p.said, 6*w.rng.IntN(2))
}

// answers makes a description the phone's in x.
func (w *world) answers(p *phone, x *pair) string {
	x.theirs = w.describe(p)
	if x.waits = w.rng.IntN(3) == 0; x.waits {
		x.theirs += "a=curr:qos remote none\r\n"
	}
	return x.theirs
}

// withoutQoS is a description of ours as its owner gave it.
func withoutQoS(sdp []byte) string {
	var out strings.Builder
	for line := range strings.Lines(string(sdp)) {
		if !strings.HasPrefix(line, "a=curr:") && !strings.HasPrefix(line, "a=des:") {
			out.WriteString(line)
		}
	}
	return out.String()
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
		if w.re != nil && in.Res.CSeq().MethodName == sip.INVITE && in.Res.CSeq().SeqNo == w.re.CSeq().SeqNo {
			w.asking = w.asking && (in.Res.StatusCode < 200 && (SDP(in.Res) == nil || value(in.Res, "RSeq") == ""))
			if in.Res.StatusCode >= 200 {
				w.re = nil
			}
		}
	case Failed:
		if in.Req == w.re && w.c.reoffer != nil && !w.c.reoffer.proceeding {
			w.re, w.asking = nil, false
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
					if seq == w.inv.CSeq().SeqNo && !p.acked {
						p.acked = true
						if w.rng.IntN(3) == 0 { // as soon as it may
							w.midCall(p)
						}
					}
					p.reAcked[seq] = true
					if p.re != nil && p.re.done && p.re.req.CSeq().SeqNo == seq {
						p.re = nil
					}
				})
			}
		case Respond:
			w.log = append(w.log, fmt.Sprintf("   %v=%d", a.Tx, a.Res.StatusCode))
			if w.taken[a.Tx] {
				continue
			}
			w.respond(a)
			if a.Then != nil {
				w.told(a.Then)
			}
		case Emit:
			w.told(a.Event)
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

// told is what the owner hears.
func (w *world) told(e Event) {
	s := told(e)
	w.log = append(w.log, "   "+s)
	if w.ended > 0 {
		w.fail("%s came after Ended", s)
	}
	switch e := e.(type) {
	case Ended:
		w.ended++
		if e.Connected != w.connected {
			w.fail("Ended says connected %v", e.Connected)
		}
		if (e.Why == "dialog_lost" || e.Why == "session_expired" || e.Why == "no_sdp") && !w.excuse {
			w.fail("it ended for no reason")
		}
	case Connected:
		w.connected = true
	case Answer:
		if e.Final {
			w.compare(w.phone[w.c.winner.tag].talk, firstOffer, e.SDP, e.Local)
		}
	case Reoffered:
		if e.Status < 300 && e.Offer == 0 {
			p := w.phone[w.c.winner.tag]
			w.compare(p.re.pair, withoutQoS(p.re.req.Body()), e.SDP, e.Local)
		}
	case Refreshed:
		p := w.phone[w.c.winner.tag]
		w.compare(p.re.pair, withoutQoS(p.re.req.Body()), e.SDP, []byte(withoutQoS(e.Local)))
	case Replied:
		if e.Offer != w.offer {
			w.fail("it is told what became of %d, and %d is out", e.Offer, w.offer)
		}
		w.offer = 0
	case Offer:
		if w.offer != 0 {
			w.fail("nobody was told what became of %d", w.offer)
		}
		w.offer = e.ID
		w.theirs = w.c.peer.tx
		n := w.n
		w.after(w.within(3), func() { // sometimes too late
			w.feed(Reply{ID: e.ID, SDP: fmt.Appendf(nil, "m=audio 2 RTP\r\na=r:%d\r\nm=video 4 RTP\r\n", n), Status: 200})
		})
	}
}

// compare holds what the owner is told against what the phone knows.
func (w *world) compare(x pair, offer string, theirs, local []byte) {
	ours := string(local)
	if local == nil {
		ours = offer
	}
	if string(theirs) != x.theirs || ours != x.ours {
		w.fail("the owner is told\n%q of theirs and\n%q of ours; it is\n%q and\n%q", theirs, ours, x.theirs, x.ours)
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
	status, seq, p := a.Res.StatusCode, a.Res.CSeq(), w.phone[fromTag(a.Res)]
	if status < 200 {
		return
	}
	was := w.open[a.Tx]
	if was != 0 && (was != status || seq.MethodName != sip.INVITE) {
		w.fail("%v was answered %d and %d", a.Tx, was, status)
	}
	if status < 300 && a.Tx == w.theirs && was == 0 && (w.asking || w.re != nil && seq.MethodName == sip.INVITE) {
		w.fail("%v was accepted while our own offer is out", a.Tx)
	}
	w.open[a.Tx] = status
	if a.Tx == w.theirs {
		w.theirs = nil
	}
	if was == 0 {
		w.after(w.delay(), func() {
			p.busy--
			if offer := w.sdps[a.Tx]; offer != "" && status < 300 && seq.MethodName == sip.UPDATE {
				x := p.current()
				x.ours, x.theirs = withoutQoS(a.Res.Body()), offer
			}
		})
	}
	if seq.MethodName == sip.INVITE && status < 300 && !w.lost() {
		w.after(w.delay(), func() {
			if !w.lost() {
				w.after(w.delay(), func() { w.feed(w.b.request([]string{"ACK", p.tag, fmt.Sprint(seq.SeqNo)})) })
			}
		})
	}
}

// say is a request of a phone, with a description or without.
func (w *world) say(p *phone, method, sdp string, words ...string) {
	p.seq++
	p.busy++
	in := w.b.request(append([]string{method, p.tag, fmt.Sprint(p.seq)}, words...))
	in.Tx = p.tag + in.Tx.(string)
	if sdp != "" {
		setSDP(in.Req, []byte(sdp))
		w.sdps[in.Tx] = sdp
	}
	w.after(w.delay(), func() { w.feed(in) })
	if method == "INVITE" && w.rng.IntN(3) == 0 {
		w.after(w.within(3), func() { w.takeBack(p, in) })
	}
}

// takeBack is the CANCEL of a phone's re-INVITE, which its transaction answers 487 unless we have
// answered. What we say meanwhile goes nowhere.
func (w *world) takeBack(p *phone, in Request) {
	if was, came := w.open[in.Tx]; !came || was != 0 || w.taken[in.Tx] || w.c.Done() {
		return
	}
	w.taken[in.Tx], w.open[in.Tx] = true, 487
	if w.theirs == in.Tx {
		w.theirs = nil
	}
	w.after(w.delay(), func() { p.busy-- })
	w.after(w.within(1), func() { w.feed(Cancelled{Tx: in.Tx}) })
}

func (w *world) fail(format string, args ...any) {
	w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log, "\n"))...)
}

// send is what the network does with a request of ours.
func (w *world) send(req *sip.Request) {
	p := w.phone[toTag(req)]
	if p != nil && req.Method != sip.CANCEL {
		if seq := req.CSeq().SeqNo; seq <= p.ourSeq {
			w.fail("%s has the number of another", describe(req))
		} else {
			p.ourSeq = seq
		}
		_, n, _ := strings.Cut(req.Recipient.User, ".")
		if to, err := strconv.Atoi(n); err != nil || to < p.sentTo {
			w.fail("%s goes to %s after %d", describe(req), req.Recipient.User, p.sentTo)
		} else {
			p.sentTo = to
		}
	}
	if p != nil && req.Method != sip.CANCEL && value(req, "Authorization") == "" && w.c.realm == "trunk" && w.rng.IntN(8) == 0 {
		if req.Method == sip.INVITE {
			w.re, w.asking = req, true
		}
		w.answer(407, req, p.tag, "", "Realm=trunk") // and nobody but a proxy has seen it
		return
	}
	switch req.Method {
	case sip.INVITE:
		if p != nil {
			w.reinvited(p, req)
			return
		}
		w.invited(req)
	case sip.PRACK:
		w.pracked(p, req)
	case sip.UPDATE:
		w.after(w.delay(), func() { w.updated(p, req) })
	case sip.CANCEL:
		if p != nil {
			w.after(w.delay(), func() {
				if r := p.re; r != nil && !r.done && r.req.CSeq().SeqNo == req.CSeq().SeqNo {
					r.done = true
					w.feed(Response{w.response(487, r.req, p.tag, "")})
				}
			})
			return
		}
		w.after(w.delay(), func() {
			w.cancelled = true
			w.feed(Response{w.response(200, req, "", "")})
			for _, p := range w.phone {
				if !p.answered && w.rng.IntN(3) > 0 { // the others answer in spite of it
					p.refused = true
				}
			}
			w.final(487)
		})
	case sip.BYE:
		w.after(w.delay(), func() {
			p.byed = true
			if w.rng.IntN(10) == 0 {
				w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
				return
			}
			w.feed(Response{w.response(200, req, p.tag, "")})
		})
	}
}

// invited: the proxy forks the INVITE, or wants it otherwise first.
func (w *world) invited(req *sip.Request) {
	w.inv, w.finalSent = req, false
	if w.rng.IntN(20) == 0 {
		w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
		return
	}
	w.after(w.delay(), func() { w.feed(Response{w.response(100, req, "", "")}) })
	if w.tries < 2 && w.rng.IntN(5) == 0 {
		w.tries++
		w.finalSent = true
		switch w.rng.IntN(3) {
		case 0:
			w.answer(401, req, "p", "", "Realm=trunk")
		case 1:
			w.answer(422, req, "p", "", fmt.Sprint("Min-SE=", 40+10*w.tries))
		case 2:
			w.answer(302, req, "p", "", fmt.Sprintf("Contact=<sip:next%d@h>", w.tries))
		}
		return
	}
	for i := range w.rng.IntN(4) + 1 {
		p := &phone{tag: fmt.Sprint("t", i), reAcked: map[uint32]bool{}, ourSeq: req.CSeq().SeqNo, talk: pair{ours: firstOffer}}
		w.phone[p.tag] = p
		w.ring(p)
	}
}

func (w *world) pracked(p *phone, req *sip.Request) {
	var n int
	var seq uint32
	_, err := fmt.Sscanf(value(req, "RAck"), "%d %d INVITE", &n, &seq)
	wrong := func(sent, before int) {
		if err != nil || n > sent || n != before+1 && before != 0 {
			w.fail("PRACK %q of what was not sent, or out of order: %d sent, %d acknowledged", value(req, "RAck"), sent, before)
		}
	}
	if r := p.re; r != nil && seq == r.req.CSeq().SeqNo {
		wrong(r.rseq, r.pracked)
		w.after(w.delay(), func() {
			r.pracked = n
			w.feed(Response{w.response(200, req, p.tag, "")})
			w.owed(p, &r.pair)
		})
		return
	}
	wrong(p.rseq, p.pracked)
	if w.rng.IntN(30) == 0 { // it has forgotten the dialog
		w.after(w.delay(), func() {
			p.refused = true
			w.feed(Response{w.response(481, req, p.tag, "")})
			w.final(480)
		})
		return
	}
	w.after(w.delay(), func() {
		p.pracked = n
		w.feed(Response{w.response(200, req, p.tag, "")})
		w.owed(p, &p.talk)
	})
}

// owed: a phone that waits for our half of the preconditions hears of it at once.
func (w *world) owed(p *phone, x *pair) {
	f := w.c.forks[p.tag]
	if f == nil || f.over || f.gone || w.c.hang != nil || w.c.ended {
		return
	}
	if e := w.c.unsettled(f); x.waits && e != nil && e.theirs != nil && e.qosSeq == 0 && w.c.at[timerQoSAgain].IsZero() {
		w.fail("phone %s does not hear that we are ready", p.tag)
	}
}

// updated is an UPDATE of ours at a phone.
func (w *world) updated(p *phone, req *sip.Request) {
	if len(req.Body()) == 0 {
		switch w.rng.IntN(12) {
		case 0:
			w.excuse = true
			w.answer(481, req, p.tag, "")
		case 1:
			w.excuse = true
			w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
		case 2:
			w.answer(405, req, p.tag, "")
		case 3:
			w.excuse = true
			w.answer(500, req, p.tag, "")
		default:
			w.answer(200, req, p.tag, "", p.sessionWords()...)
		}
		return
	}
	x := p.current()
	if p.busy > 0 {
		w.answer(491, req, p.tag, "")
		return
	}
	w.mayOffer(x, req)
	switch {
	case w.rng.IntN(6) == 0:
		w.answer(500, req, p.tag, "", "Retry-After=1")
	default:
		x.ours, x.theirs, x.waits = withoutQoS(req.Body()), w.describe(p), false
		p.free = w.now.Add(time.Second) // its answer arrives before what it says next
		w.answer(200, req, p.tag, x.theirs)
	}
}

// current is what an UPDATE is about.
func (p *phone) current() *pair {
	if p.re != nil {
		return &p.re.pair
	}
	return &p.talk
}

// mayOffer: what a phone has refused is not offered again by what asks for nothing new.
func (w *world) mayOffer(x *pair, req *sip.Request) {
	if strings.Contains(x.theirs, "m=video 0") && !strings.Contains(string(req.Body()), "m=video 0") {
		w.fail("%s offers refused video again", describe(req))
	}
}

func (p *phone) sessionWords() []string {
	if p.session == "" {
		return nil
	}
	return []string{p.session}
}

// ready: nothing that a phone has said, or has been told, is under way.
func (w *world) ready(p *phone) bool { return p.busy == 0 && !w.now.Before(p.free) }

// ring lets a phone ring, and answer, refuse or do nothing.
func (w *world) ring(p *phone) {
	reliable := w.rng.IntN(2) == 0
	over := func() bool { return p.answered || p.refused || w.finalSent }
	w.after(w.within(3), func() {
		switch {
		case over():
		case reliable:
			p.rseq = 1 + w.rng.IntN(100)
			w.repeat18x(p, 183, p.rseq, 500*time.Millisecond, w.answers(p, &p.talk), p.at())
		default:
			p.early, p.rings = w.describe(p), true
			p.free = w.now.Add(time.Second)
			w.answer(183, w.inv, p.tag, p.early, p.at())
		}
	})
	if reliable && w.rng.IntN(2) == 0 { // its bearer is there, or not the one for its picture
		w.after(time.Second+w.within(5), func() {
			if !over() && p.rseq != 0 && p.rseq == p.pracked && w.ready(p) {
				if !p.rings {
					p.moves += w.rng.IntN(2)
				}
				w.say(p, "UPDATE", w.describe(p), p.at())
			}
		})
	}
	w.after(3*time.Second+w.within(5), func() {
		switch {
		case over():
		case p.rseq != 0 && p.pracked == p.rseq && !p.talk.waits: // one at a time
			p.rseq++
			w.repeat18x(p, 180, p.rseq, 500*time.Millisecond, "", p.at())
		default:
			p.rings = true
			w.answer(180, w.inv, p.tag, "", p.at())
		}
	})
	switch w.rng.IntN(4) {
	case 0, 1:
		w.after(w.within(20), func() { w.pickUp(p, 20) })
	case 2:
		w.after(w.within(20), func() {
			if !p.answered {
				p.refused = true
				if w.rng.IntN(2) == 0 { // the proxy says which fork is over (RFC 6228)
					w.after(w.delay(), func() { w.feed(Response{w.response(199, w.inv, p.tag, "")}) })
				}
				w.final(486)
			}
		})
	}
}

// pickUp answers once what precedes the 2xx has been settled.
func (w *world) pickUp(p *phone, tries int) {
	if p.refused || w.finalSent {
		return
	}
	if p.rseq != p.pracked || p.talk.waits || !w.ready(p) {
		if tries > 0 {
			w.after(time.Second, func() { w.pickUp(p, tries-1) })
		}
		return
	}
	p.answered = true
	sdp := ""
	switch bare := w.rng.IntN(2) == 0; {
	case p.talk.theirs != "" && !bare:
		sdp = "m=audio 9 RTP\r\na=ignored\r\n"
	case p.talk.theirs != "":
	case p.early != "" && bare:
		p.talk.theirs = p.early
	default:
		p.talk.theirs = w.describe(p)
		sdp = p.talk.theirs
	}
	words := []string{p.at(), [3]string{"Allow=INVITE", "Allow=INVITE,UPDATE", "Allow=INVITE,UPDATE"}[w.rng.IntN(3)]}
	switch w.rng.IntN(3) {
	case 0:
		p.session = "Session-Expires=60;refresher=uac"
	case 1:
		p.session = "Session-Expires=60;refresher=uas"
		w.after(25*time.Second, func() { w.refreshes(p) })
	}
	words = append(words, p.sessionWords()...)
	for range w.rng.IntN(3) {
		w.after(w.within(60), func() { w.midCall(p) })
	}
	w.repeat200(p, w.response(200, w.inv, p.tag, sdp, words...), 500*time.Millisecond, w.now.Add(32*time.Second))
	if w.rng.IntN(2) == 0 {
		w.after(w.within(40), func() { w.peerBye(p) })
	}
}

// refreshes keeps a session alive that the phone has taken upon itself.
func (w *world) refreshes(p *phone) {
	if !p.byed && !p.sentBye && w.ended == 0 {
		w.say(p, "UPDATE", "", "Session-Expires=60;refresher=uac", "Supported=timer")
		w.after(25*time.Second, func() { w.refreshes(p) })
	}
}

// repeat18x is RFC 3262 3 at the phone: a reliable 18x again until its PRACK comes.
func (w *world) repeat18x(p *phone, status, rseq int, interval time.Duration, sdp string, words ...string) {
	if p.pracked >= rseq || interval > 16*time.Second || p.refused || w.finalSent {
		return
	}
	if !w.lost() {
		res := w.response(status, w.inv, p.tag, sdp, append(words, fmt.Sprint("rel=", rseq))...)
		w.after(w.delay(), func() { w.arrives(res) })
	}
	w.after(interval, func() { w.repeat18x(p, status, rseq, 2*interval, sdp, words...) })
}

// midCall is something a phone says while it talks.
func (w *world) midCall(p *phone) {
	if !p.acked || p.byed || p.sentBye {
		return
	}
	offers := p.re == nil || !p.re.done && p.re.theirs != "" && p.re.rseq != 0 && p.re.pracked == p.re.rseq
	switch what := w.rng.IntN(5); {
	case what == 4:
		w.say(p, "INFO", "", "body=application/dtmf-relay")
	case what == 3:
		p.moves++
		w.say(p, "UPDATE", "", p.at())
	case p.busy > 0 || !offers:
	case what == 2 || p.re != nil:
		p.moves++
		w.say(p, "UPDATE", w.describe(p), p.at())
	default:
		p.moves++
		w.say(p, "INVITE", w.describe(p), p.at())
	}
}

// reinvited is what a phone does with a re-INVITE of ours.
func (w *world) reinvited(p *phone, req *sip.Request) {
	if w.theirs != nil {
		w.fail("%s while the peer's offer waits", describe(req))
	}
	if !strings.Contains(string(req.Body()), "a=p:") && !strings.Contains(string(req.Body()), "a=r:") {
		w.mayOffer(&p.talk, req)
	}
	w.re, w.asking = req, true
	w.after(w.delay(), func() {
		if !w.ready(p) {
			w.answer(491, req, p.tag, "")
			return
		}
		r := &again{req: req, pair: pair{ours: withoutQoS(req.Body())}}
		p.re = r
		what := w.rng.IntN(11)
		w.excuse = w.excuse || what < 4 && w.c.reoffer != nil && w.c.reoffer.refresh // it does not let us refresh
		switch what {
		case 0:
			p.re = nil
			w.answer(491, req, p.tag, "")
		case 1:
			p.re = nil
			w.answer(500, req, p.tag, "", "Retry-After=1")
		case 2:
			p.re = nil
			w.answer(603, req, p.tag, "")
		case 3: // its user thinks, for ever
			w.answer(180, req, p.tag, "")
		case 4:
			w.excuse = true
			w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
		case 5: // he thinks for longer than timer B, which sipgo may leave armed
			w.answer(180, req, p.tag, "")
			w.after(32*time.Second, func() { w.feed(Failed{Req: req, Timeout: true}) })
			w.after(50*time.Second, func() { w.agrees(p, r, 0) })
		case 6, 7, 8: // as to an INVITE
			r.rseq = 1 + w.rng.IntN(100)
			w.repeatRe18x(p, r, 500*time.Millisecond, w.answers(p, &r.pair))
			w.after(time.Second+w.within(10), func() { w.agrees(p, r, 20) })
		default:
			w.agrees(p, r, 0)
		}
	})
}

func (w *world) repeatRe18x(p *phone, r *again, interval time.Duration, sdp string) {
	if r.pracked == r.rseq || r.done || w.re != r.req {
		return
	}
	if interval > 16*time.Second {
		if r.heard && w.c.hang == nil && w.ended == 0 {
			w.fail("a reliable answer to our re-INVITE is not acknowledged")
		}
		return
	}
	if interval > time.Second || !w.lost() {
		r.heard = true
		res := w.response(183, r.req, p.tag, sdp, fmt.Sprint("rel=", r.rseq))
		w.after(w.delay(), func() { w.arrives(res) })
	}
	w.after(interval, func() { w.repeatRe18x(p, r, 2*interval, sdp) })
}

// agrees is the phone's 2xx, once what precedes it has been settled.
func (w *world) agrees(p *phone, r *again, tries int) {
	if r.done || p.re != r {
		return
	}
	if r.rseq != r.pracked || r.waits || !w.ready(p) {
		w.after(time.Second, func() {
			if tries > 0 {
				w.agrees(p, r, tries-1)
			}
		})
		return
	}
	r.done = true
	sdp := ""
	if r.theirs == "" {
		r.theirs = w.describe(p)
		sdp = r.theirs
	} else if w.rng.IntN(2) == 0 {
		sdp = "m=audio 9 RTP\r\na=ignored\r\n"
	}
	w.repeatRe200(p, w.response(200, r.req, p.tag, sdp), 500*time.Millisecond)
}

func (w *world) repeatRe200(p *phone, res *sip.Response, interval time.Duration) {
	if p.reAcked[res.CSeq().SeqNo] || interval > 16*time.Second {
		return
	}
	if interval > time.Second || !w.lost() { // not so many that a session ends by it
		w.after(w.delay(), func() { w.feed(Response{res}) })
	}
	w.after(interval, func() { w.repeatRe200(p, res, 2*interval) })
}

// repeat200 is RFC 3261 13.3.1.4 at the phone: the 2xx again until its ACK comes.
func (w *world) repeat200(p *phone, res *sip.Response, interval time.Duration, until time.Time) {
	if p.acked || w.now.After(until) {
		return
	}
	if !w.lost() {
		w.after(w.delay(), func() {
			if w.listen.IsZero() && w.ended == 0 {
				w.listen = w.now.Add(32 * time.Second)
			}
			p.heard = p.heard || w.now.Before(w.listen)
			w.arrives(res)
		})
	}
	w.after(interval, func() { w.repeat200(p, res, min(2*interval, 4*time.Second), until) })
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
	w.answer(status, w.inv, "t0", "")
}

func (w *world) peerBye(p *phone) {
	if !p.acked || p.byed || p.sentBye {
		return
	}
	p.sentBye, w.excuse = true, true
	w.say(p, "BYE", "")
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
// no phone that answered stays connected to a call that is over, and the owner is told what
// the phone knows.
func TestRandomInterleavings(t *testing.T) {
	runs := seeds(t)
	for seed := range runs {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(0, 0), phone: map[string]*phone{},
			b: &bench{t: t}, open: map[any]int{}, sdps: map[any]string{}, taken: map[any]bool{}}
		w.log = []string{fmt.Sprint("seed ", seed)}
		o := options()
		o.Offer, o.SessionExpires, o.MinSE = []byte(firstOffer), 60*time.Second, 40*time.Second
		if seed%2 == 0 { // of a core that asks within the dialog only
			o.Realm = "trunk"
		}
		w.c = New(o)
		w.after(0, func() { w.feed(Start{}) })
		hangup := func() { w.feed(Hangup{Why: "hung_up"}) }
		w.after(w.within(1+w.rng.IntN(100)), hangup)
		for i := range w.rng.IntN(3) {
			w.after(w.within(60), func() {
				w.feed(Propose{SDP: fmt.Appendf(nil, "m=audio 2 RTP\r\na=p:%d\r\nm=video 4 RTP\r\n", i)})
			})
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
