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

// street is a network in virtual time with one Call that comes in, the phone that calls,
// and an owner who rings, accepts, refuses and hangs up when he likes. Messages are
// delayed, so they overtake each other; those no transaction repeats are lost at random:
// 18x, each copy of a 2xx, ACK. The rest of the transaction layer is as sipgo has it.
type street struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	queue events
	n     int
	b     *bench // makes the phone's requests
	c     *Call
	log   []string

	// the owner
	told      []string
	ended     int
	connected bool

	// the INVITE's server transaction
	final     int  // the status it has sent, 0: none
	cancelled bool // by CANCEL: what we respond goes nowhere
	knows     bool // the machine has been told

	// the phone
	seq                 int
	gone                bool // switched off: neither hears nor says anything any more
	mute                bool // none of its ACKs arrives
	offered             bool // its INVITE had an offer
	forgets             bool // it forgets to answer ours
	heard2xx, over, bye bool // it believes to be connected; it believes it is over; it said so
	failed              int  // the final failure it heard
	byesHeard           int
	ackSeen             bool // an ACK reached us
	accepted            time.Time
	impatient           bool // somebody gives up, or does not care

	offer       uint64      // of the phone, of which the owner does not know yet what became; 0: none
	open        map[any]int // the phone's requests by transaction, and what they were answered
	outstanding uint64      // RSeq whose PRACK has not reached us; 0 none
}

func (s *street) after(d time.Duration, f func()) {
	s.n++
	heap.Push(&s.queue, occurrence{s.now.Add(d), s.n, f})
}

func (s *street) delay() time.Duration { return time.Duration(s.rng.IntN(400)) * time.Millisecond }
func (s *street) within(sec int) time.Duration {
	return time.Duration(s.rng.IntN(sec*1000)) * time.Millisecond
}
func (s *street) chance(one int) bool { return s.rng.IntN(one) == 0 }

func (s *street) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf(format+"\n%s", append(args, strings.Join(s.log, "\n"))...)
}

func (s *street) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%8v ", s.now.Sub(time.Unix(0, 0)).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// feed gives the machine an input, unless it has been forgotten.
func (s *street) feed(in Input) {
	if s.c.Done() {
		return
	}
	if r, ok := in.(Request); ok {
		if r.Req.Method != sip.ACK {
			s.open[r.Tx] = 0
		}
		s.note("> %s %d", r.Req.Method, r.Req.CSeq().SeqNo)
	} else {
		s.note("%T", in)
	}
	for _, a := range s.c.Step(s.now, in) {
		s.act(a)
	}
	if next := s.c.Next(); !next.IsZero() {
		s.after(max(next.Sub(s.now), 0), func() {
			if at := s.c.Next(); !at.IsZero() && !at.After(s.now) {
				s.feed(Tick{})
			}
		})
	}
}

func (s *street) act(a Action) {
	switch a := a.(type) {
	case Respond:
		s.note("   %v=%d %s", a.Tx, a.Res.StatusCode, value(a.Res, "RSeq"))
		s.respond(a)
		if a.Then != nil {
			s.tell(a.Then)
		}
	case Send:
		s.note("   %s", describe(a.Req))
		s.send(a.Req)
	case Ack:
		s.note("   ACK")
	case Emit:
		s.tell(a.Event)
	}
}

// tell is what the owner hears.
func (s *street) tell(e Event) {
	words := told(e)
	s.note("   %s", words)
	if s.ended > 0 {
		s.fail("%s came after Ended", words)
	}
	switch e := e.(type) {
	case Ended:
		s.ended++
		if e.Connected != s.connected {
			s.fail("Ended says connected %v", e.Connected)
		}
	case Connected:
		s.connected = true
	case Replied:
		if e.Offer != s.offer {
			s.fail("it is told what became of %d, and %d is out", e.Offer, s.offer)
		}
		s.offer = 0
	case Offer:
		if s.offer != 0 {
			s.fail("nobody was told what became of %d", s.offer)
		}
		s.offer = e.ID
		s.after(s.within(3), func() { // sometimes too late
			if s.chance(5) {
				if s.offer == e.ID {
					s.offer = 0
				}
				s.feed(Reply{ID: e.ID, Status: 488})
			} else {
				s.feed(Reply{ID: e.ID, SDP: []byte("ours"), Status: 200})
			}
		})
	}
	s.told = append(s.told, words)
}

// respond is the server transaction and the way to the phone.
func (s *street) respond(a Respond) {
	status := a.Res.StatusCode
	if a.Tx != "INV" {
		if was := s.open[a.Tx]; was != 0 && (was != status || a.Res.CSeq().MethodName != sip.INVITE) {
			s.fail("%v was answered %d and %d", a.Tx, was, status)
		}
		s.open[a.Tx] = status
		if a.Res.CSeq().MethodName == sip.INVITE && status < 300 {
			s.after(s.delay(), func() {
				if !s.gone && !s.chance(4) && !s.over {
					s.say("ACK", int(a.Res.CSeq().SeqNo))
				}
			})
		}
		return // its own transaction carries it
	}
	if s.knows {
		s.fail("%d after CANCEL", status)
	}
	if s.cancelled {
		return
	}
	rseq, _ := seconds(value(a.Res, "RSeq"))
	switch n := uint64(rseq / time.Second); {
	case s.final >= 300:
		s.fail("%d after %d", status, s.final)
	case s.final >= 200 && (status < 200 || status >= 300):
		s.fail("%d after %d", status, s.final)
	case status < 200 && n != 0 && s.outstanding != 0 && s.outstanding != n:
		s.fail("RSeq %d while PRACK of %d is owed", n, s.outstanding)
	case status/100 == 2 && s.outstanding != 0:
		s.fail("2xx while PRACK of %d is owed", s.outstanding)
	case status < 200 && n != 0:
		s.outstanding = n
	}
	if status >= 200 {
		if s.final == 0 {
			s.accepted = s.now
		}
		s.final = status
	}
	if status < 300 && s.chance(4) {
		return // lost
	}
	s.after(s.delay(), func() { s.hear(a.Res) })
}

// hear is the phone's INVITE client transaction and its user.
func (s *street) hear(res *sip.Response) {
	if s.gone {
		return
	}
	switch status := res.StatusCode; {
	case status >= 300:
		s.failed, s.over = status, true
		if s.heard2xx {
			s.fail("the phone heard 2xx and %d", status)
		}
	case status >= 200:
		if s.failed != 0 {
			s.fail("the phone heard %d and 2xx", s.failed)
		}
		first := !s.heard2xx
		s.heard2xx = true
		if !s.chance(4) && !s.mute {
			s.say("ACK", 1, s.reply(res)...)
		}
		if first && s.over { // its CANCEL came too late: it hangs up
			s.hangUp()
		}
	case value(res, "RSeq") != "":
		if s.over || s.heard2xx {
			return
		}
		rack := "RAck=" + value(res, "RSeq") + "_1_INVITE"
		if s.chance(8) { // one nobody can know
			rack = "RAck=77_1_INVITE"
		}
		s.say("PRACK", 0, append([]string{rack}, s.reply(res)...)...)
	}
}

// reply is the phone's answer, where it left the offer to us. One in ten forgets it.
func (s *street) reply(res *sip.Response) []string {
	if s.offered || len(res.Body()) == 0 || s.forgets {
		return nil
	}
	return []string{"theirs"}
}

// say sends a request of the phone; seq 0 is the next number.
func (s *street) say(method string, seq int, words ...string) {
	if seq == 0 {
		s.seq++
		seq = s.seq
	}
	in := s.b.request(append([]string{method, "a", fmt.Sprint(seq)}, words...))
	s.after(s.delay(), func() {
		if method == "ACK" && seq == 1 || method == "INVITE" { // which nobody says before his ACK
			s.ackSeen = true
		}
		if method == "PRACK" && strings.HasPrefix(words[0], fmt.Sprintf("RAck=%d_", s.outstanding)) && seq > int(s.remoteSeq()) {
			s.outstanding = 0
		}
		s.feed(in)
		if method == "BYE" && !s.c.Done() && s.ended == 0 && seq >= int(s.remoteSeq()) {
			s.fail("BYE came and the call goes on")
		}
	})
}

func (s *street) remoteSeq() uint32 { return s.c.in.f.remoteSeq }

// hangUp is the phone's BYE. A phone that gets 500 for it, as its number was overtaken, says it again.
func (s *street) hangUp() {
	if s.bye || s.gone {
		return
	}
	s.bye, s.over = true, true
	s.say("BYE", 0)
}

// cancel is the phone's user giving up while it rings.
func (s *street) cancel() {
	if s.gone || s.heard2xx || s.over {
		return
	}
	s.over = true
	if s.chance(6) {
		s.hangUp() // some end an early dialog so
		return
	}
	s.after(s.delay(), func() {
		if s.final != 0 || s.cancelled {
			return // too late
		}
		s.cancelled = true
		s.after(s.delay(), func() { s.failed = 487 })
		// What the owner says meanwhile is in the mailbox before it.
		s.after(time.Duration(s.rng.IntN(1000))*time.Millisecond, func() {
			s.knows = true
			s.feed(Cancelled{Tx: "INV"})
		})
	})
}

// send is a request of ours on its way.
func (s *street) send(req *sip.Request) {
	if req.Method == sip.BYE && !s.ackSeen && s.now.Sub(s.accepted) < 32*time.Second {
		s.fail("BYE before the ACK")
	}
	method := req.Method
	s.after(s.delay(), func() {
		if s.gone || req.Method == sip.BYE && s.chance(12) {
			s.after(32*time.Second, func() { s.feed(Failed{Req: req, Timeout: true}) })
			s.byesHeard++ // a phone that does not answer has lost its network
			return
		}
		status := 200
		switch {
		case method == sip.BYE:
			s.byesHeard++
			s.over = true
		case method == sip.INVITE && s.chance(3):
			status = []int{491, 488, 500}[s.rng.IntN(3)]
		}
		res := sip.NewResponse(status, "phrase")
		for _, name := range []string{"Via", "From", "To", "CSeq"} {
			res.AppendHeader(sip.HeaderClone(req.GetHeader(name)))
		}
		if method == sip.INVITE {
			setSDP(res, []byte("theirs"))
		}
		s.after(s.delay(), func() { s.feed(Response{res}) })
	})
}

// play is one call, from the INVITE to the last message.
func (s *street) play() {
	words := []string{"Contact=<sip:a@198.51.100.7>", "Allow=INVITE,UPDATE"}
	if s.offered = !s.chance(4); s.offered {
		words = append(words, "theirs")
	}
	s.forgets = s.chance(10)
	s.impatient = s.forgets
	switch s.rng.IntN(3) {
	case 0:
		words = append(words, "Supported=100rel,precondition")
	case 1:
		words = append(words, "Require=100rel")
	}
	in := s.b.request(append([]string{"INVITE", "a", "1"}, words...))
	in.Req.To().Params.Remove("tag")
	if SDP(in.Req) != nil && s.chance(3) {
		in.Req.SetBody([]byte("m=audio 4 RTP/AVP 0\r\na=curr:qos local none\r\na=des:qos mandatory local sendrecv\r\n"))
	}
	o := options()
	o.SessionExpires = 0
	o.Rand = func() float64 { return 0 }
	s.c = NewIncoming(o, in.Req, "INV")
	s.seq = 1

	s.after(0, func() { s.feed(Start{}) })
	if !s.chance(3) {
		s.after(s.within(3), func() { s.feed(Ring{}) })
	}
	switch s.rng.IntN(8) {
	case 0:
		s.impatient = true
		s.after(s.within(10), func() { s.feed(Reject{Status: 486}) })
		s.after(s.within(10), func() { s.feed(Accept{SDP: []byte("ours")}) }) // he cannot make up his mind
	case 1:
		s.impatient = true
		s.after(s.within(10), func() { s.feed(Hangup{Why: "hung_up"}) })
	case 2: // nobody cares
		s.impatient = true
	default:
		s.after(s.within(10), func() { s.feed(Accept{SDP: []byte("ours")}) })
		if s.chance(2) {
			s.impatient = true
			s.after(s.within(30), func() { s.feed(Hangup{Why: "hung_up"}) })
		}
	}
	for range s.rng.IntN(3) {
		s.after(s.within(40), func() { s.feed(Propose{SDP: []byte("more")}) })
	}
	switch s.rng.IntN(6) {
	case 0:
		s.impatient = true
		s.after(s.within(15), s.cancel)
	case 1:
		s.after(s.within(40), s.hangUpIfUp)
	case 2:
		s.impatient = true
		s.after(s.within(40), func() { s.gone = true })
	case 3:
		s.mute, s.impatient = true, true
	}
	for range s.rng.IntN(3) {
		s.after(s.within(20), func() { // preconditions met, hold, anything
			if !s.over && !s.gone {
				s.say("UPDATE", 0, "a=curr:qos_local_sendrecv")
			}
		})
	}
	if s.chance(3) {
		s.after(s.within(40), func() {
			if s.heard2xx && !s.over && !s.gone {
				s.say("INVITE", 0, "hold")
			}
		})
	}
	s.after(5*time.Minute, func() { s.feed(Hangup{Why: "hung_up"}) }) // at the latest
}

func (s *street) hangUpIfUp() {
	if s.heard2xx && !s.over {
		s.hangUp()
	}
}

// Whatever is lost, overtakes or comes again, and whoever gives up: Ended comes once and
// last, the machine is done, nobody hears two outcomes, and no phone that heard our 2xx
// is left off the hook.
func TestRandomIncoming(t *testing.T) {
	runs := seeds(t)
	outcomes, patient, up := map[string]int{}, 0, 0
	for seed := range runs {
		s := &street{t: t, rng: rand.New(rand.NewPCG(seed, 11)), now: time.Unix(0, 0), b: &bench{t: t}, open: map[any]int{}}
		s.log = []string{fmt.Sprint("seed ", seed)}
		s.play()
		for s.queue.Len() > 0 {
			o := heap.Pop(&s.queue).(occurrence)
			s.now = o.at
			o.f()
		}
		if s.ended != 1 {
			s.fail("Ended came %d times", s.ended)
		}
		if !s.c.Done() || !s.c.Next().IsZero() {
			s.fail("the call is not done: next %v", s.c.Next())
		}
		if s.heard2xx && !s.gone && !s.bye && s.byesHeard == 0 {
			s.fail("the phone heard 2xx and was left off the hook")
		}
		if !s.heard2xx && !s.gone && !s.over && s.failed == 0 && s.byesHeard == 0 {
			s.fail("the phone rings for ever")
		}
		for tx, status := range s.open {
			if status == 0 {
				s.fail("%v was never answered", tx)
			}
		}
		outcome := s.told[len(s.told)-1]
		outcomes[outcome]++
		if !s.impatient && outcome != "ended by timeout precondition_timeout 580" {
			patient++
			if s.connected {
				up++
			}
		}
	}
	// Loss alone ends no call: what is lost is said again. (A wrong RAck may, for 32 s.)
	if up*100 < patient*97 {
		t.Errorf("of %d calls that nobody gave up, %d were connected", patient, up)
	}
	// A model that never gets anywhere finds nothing.
	for _, want := range []string{"ended by local hung_up connected", "ended by remote connected", "ended by remote cancelled 487",
		"ended by local rejected 486", "ended by timeout ring_timeout 480", "ended by timeout precondition_timeout 580",
		"ended by network no_prack 504", "ended by timeout no_ack", "ended by remote no_sdp", "ended by remote no_sdp 400"} {
		if outcomes[want] < int(runs/2000) {
			t.Errorf("%q came %d times in %d runs: %v", want, outcomes[want], runs, outcomes)
		}
	}
}

// FuzzIncoming: whatever a caller sends, and whatever the owner does meanwhile, a call
// that comes in neither panics nor tells Ended twice, and says one final response.
func FuzzIncoming(f *testing.F) {
	const head = "From: <sip:a@b>;tag=a\r\nTo: <sip:c@d>;tag=us\r\nCall-ID: 1\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nContact: <sip:a@h>\r\n"
	body := func(sdp string) string {
		return fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", len(sdp), sdp)
	}
	const qos = "m=audio 1 x\r\na=curr:qos local none\r\na=des:qos mandatory local sendrecv\r\n"
	for _, s := range []struct{ invite, then, script string }{
		{"INVITE sip:c@d SIP/2.0\r\nCSeq: 1 INVITE\r\nSupported: 100rel, precondition\r\nAllow: UPDATE\r\n" + head + body(qos),
			"PRACK sip:c@d SIP/2.0\r\nCSeq: 2 PRACK\r\nRAck: 1 1 INVITE\r\n" + head + body(qos), "ramRAm"},
		{"INVITE sip:c@d SIP/2.0\r\nCSeq: 1 INVITE\r\nRequire: 100rel\r\n" + head + body(""),
			"ACK sip:c@d SIP/2.0\r\nCSeq: 1 ACK\r\n" + head + body("v=0"), "armthp"},
		{"INVITE sip:c@d SIP/2.0\r\nCSeq: 1 INVITE\r\nSession-Expires: 4000000000;refresher=uas\r\n" + head + body("v=0"),
			"INVITE sip:c@d SIP/2.0\r\nCSeq: 2 INVITE\r\n" + head + body("v=0"), "aARtmtptcx"},
		{"INVITE sip:c@d SIP/2.0\r\nCSeq: 1 INVITE\r\nRecord-Route: <sip:p>\r\n" + head + body("v=0"),
			"REFER sip:c@d SIP/2.0\r\nCSeq: 9 REFER\r\nRefer-To: <sip:x@y>\r\n" + head + body(""), "aAmTuqth"},
	} {
		f.Add(s.invite, s.then, s.script)
	}
	parser := sip.NewParser()
	parse := func(s string) *sip.Request {
		m, err := parser.ParseSIP([]byte(s))
		if err != nil {
			return nil
		}
		req, ok := m.(*sip.Request)
		if !ok || req.From() == nil || req.To() == nil || req.CallID() == nil || req.Via() == nil || req.CSeq() == nil || req.CSeq().MethodName != req.Method {
			return nil // the front door lets none of these in
		}
		return req
	}
	f.Fuzz(func(t *testing.T, invite, then, script string) {
		req, next := parse(invite), parse(then)
		if req == nil || !req.IsInvite() || len(script) > 200 {
			return
		}
		o := options()
		o.Rand = func() float64 { return 0 }
		if status, _ := Refusal(o, req); status != 0 {
			return
		}
		c, now := NewIncoming(o, req, "INV"), time.Unix(0, 0)
		ended, final, seq := 0, 0, uint32(1)
		step := func(in Input) {
			for _, a := range c.Step(now, in) {
				switch a := a.(type) {
				case Emit:
					if _, ok := a.Event.(Ended); ok {
						ended++
					}
				case Send:
					_ = a.Req.String()
				case Ack:
					_ = a.Req.String()
				case Respond:
					_ = a.Res.String()
					if code := a.Res.StatusCode; a.Tx == "INV" && code >= 200 {
						if final != 0 && (final != code || final >= 300) {
							t.Errorf("%d after %d", code, final)
						}
						final = code
					}
				}
			}
		}
		tick := func() {
			if at := c.Next(); !at.IsZero() {
				now = at
				step(Tick{})
			}
		}
		step(Start{})
		for _, word := range script {
			switch word {
			case 'r':
				step(Ring{})
			case 'a':
				step(Accept{SDP: []byte("v=0\r\no=- 1 1 x\r\nm=audio 1 x\r\n")})
			case 'x':
				step(Reject{Status: 486})
			case 'h':
				step(Hangup{Why: "hung_up"})
			case 'c':
				step(Cancelled{Tx: "INV"})
			case 'p':
				step(Propose{SDP: []byte("v=0")})
			case 'R':
				step(Reply{ID: c.offerID, SDP: []byte("m=audio 1 x\r\n"), Status: 200})
			case 'T':
				step(Tell{ID: c.otherID, Status: 202})
			case 'u':
				step(Use{1})
			case 'q':
				step(Ask{ID: 1, Method: sip.NOTIFY})
			case 't':
				tick()
			case 'A': // the ACK that is waited for
				ack := sip.NewRequest(sip.ACK, req.Recipient)
				ack.AppendHeader(sip.HeaderClone(req.From()))
				ack.AppendHeader(sip.HeaderClone(req.To()))
				ack.AppendHeader(&sip.CSeqHeader{SeqNo: req.CSeq().SeqNo, MethodName: sip.ACK})
				step(Request{Req: ack})
			case 'm':
				if next == nil {
					continue
				}
				m := next.Clone()
				if seq++; m.Method != sip.ACK {
					m.CSeq().SeqNo += seq
				}
				step(Request{Req: m, Tx: seq})
			}
		}
		step(Use{0})
		step(Hangup{Why: "x"})
		for range 200 {
			tick()
		}
		if ended != 1 {
			t.Errorf("Ended came %d times", ended)
		}
		if at := c.Next(); !at.IsZero() {
			t.Errorf("a timer is left: %v", at)
		}
	})
}
