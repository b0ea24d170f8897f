// Package notifier is the notifier's side of a subscription (RFC 6665 4.2), the one that
// SUBSCRIBE makes and the one that REFER implies (RFC 3515 2.4.4): a machine that sends
// nothing, arms nothing and reads no clock.
//
//	Step(now, input) → actions      Next() → when to call Step(now, Tick{}) again
//
//	asked ─Accept→ active ─Terminate, Expires: 0, time over→ ending ─last NOTIFY answered→ done
//	  │               │ NOTIFY failed                                                       ▲
//	  └ Reject, 2 s ──┴─────────────────────────────────────────────────────────────────────┘
//
// The RFC's pending is not used: who may subscribe is decided before the 200. A Machine
// belongs to one goroutine.
package notifier

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options say what is subscribed to. Zero durations take the defaults named.
type Options struct {
	Tx       any           // of the SUBSCRIBE or REFER, for the first Respond
	Implicit bool          // made by REFER: 202 without Expires
	Silent   bool          // a REFER that wants no NOTIFY (RFC 4488): 200, and nothing follows
	Asked    time.Duration // Expires of the request; negative: it had none
	Default  time.Duration // for a request without Expires; 1 h
	Reply    time.Duration // the owner's time to answer, and to notify after an answer; 2 s
	GiveUp   time.Duration // how long an answer to a NOTIFY can take; 40 s, above timer F
}

// maxQueue bounds the documents that wait for a subscriber that is slow to answer. One
// with so many behind is given up: its next subscription begins with the whole state.
const maxQueue = 64

// maxExpires is the longest a subscription lasts without being refreshed.
const maxExpires = time.Hour

// Input is what can happen to a subscription.
type Input interface{ isInput() }

type (
	// Accept grants a time, at most what was asked for. 0, or when 0 was asked for: the next
	// document is the only one (a fetch, RFC 6665 4.4.3).
	Accept struct{ Expires time.Duration }
	// Reject refuses it.
	Reject struct{ Status int }
	// Notify sends a document as soon as the one before it was answered.
	Notify struct {
		Type string
		Body []byte
	}
	// Terminate sends the last NOTIFY, behind those that wait.
	Terminate struct {
		Reason string
		Why    string // of Gone; "": terminated
		Notify
	}
	// Subscribe is a refresh; Expires negative is not said, 0 ends it.
	Subscribe struct {
		Tx      any
		Expires time.Duration
	}
	// Answered is what became of a Send: 0 when nobody answered.
	Answered struct {
		ID         uint64
		Status     int
		RetryAfter time.Duration
	}
	// Unsent says that the document of a Send is none that can leave. The subscriber hears that
	// it is told nothing more.
	Unsent struct{ ID uint64 }
	// Shutdown says that the dialog is gone: nothing can be sent any more.
	Shutdown struct{ Why string }
	// Tick says that the time of Next has come.
	Tick struct{}
)

func (Accept) isInput()    {}
func (Reject) isInput()    {}
func (Notify) isInput()    {}
func (Terminate) isInput() {}
func (Subscribe) isInput() {}
func (Answered) isInput()  {}
func (Unsent) isInput()    {}
func (Shutdown) isInput()  {}
func (Tick) isInput()      {}

// Action is what the caller is to do, in order.
type Action interface{ isAction() }

type (
	// Respond answers a SUBSCRIBE or REFER. Expires is for a 2xx to SUBSCRIBE, else negative.
	Respond struct {
		Tx      any
		Status  int
		Expires time.Duration
	}
	// Send sends a NOTIFY; State is the value of Subscription-State. It is to be answered
	// with Answered of the same ID.
	Send struct {
		ID    uint64
		State string
		Notify
	}
	// Refreshed tells the owner that the whole state must be notified again.
	Refreshed struct{ Expires time.Duration }
	// Gone tells the owner, once, that nothing more will be notified: unsubscribed, expired,
	// notify_failed, terminated, rejected or what Shutdown says.
	Gone struct{ Why string }
)

func (Respond) isAction()   {}
func (Send) isAction()      {}
func (Refreshed) isAction() {}
func (Gone) isAction()      {}

type state int

const (
	asked state = iota
	active
	ending // Gone was told; the last NOTIFY waits or is out
	done
)

type timer int

const (
	timerReply  timer = iota // the owner's answer
	timerFirst               // the document that must follow an answer
	timerExpire              // the subscription's end
	timerRetry               // Retry-After of a NOTIFY
	timerGiveUp              // no answer to a NOTIFY
	timerCount
)

// Machine is one subscription.
type Machine struct {
	o     Options
	state state
	max   time.Duration // what the owner granted: refreshes get no more
	once  bool          // a fetch
	until time.Time     // when it ends without a refresh
	queue []Notify
	last  string // reason of the NOTIFY that ends it, "" none waits
	out   uint64 // ID of the NOTIFY that is out, 0 none
	ids   uint64
	at    [timerCount]time.Time
	now   time.Time
	do    []Action
}

// New is a subscription that waits for Accept or Reject. now starts that wait.
func New(now time.Time, o Options) *Machine {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Default, time.Hour)
	def(&o.Reply, 2*time.Second)
	def(&o.GiveUp, 40*time.Second)
	n := &Machine{o: o, now: now}
	n.arm(timerReply, o.Reply)
	return n
}

// Done says that nothing of it is left.
func (n *Machine) Done() bool { return n.state == done }

// Waits says that a NOTIFY is out that has not been answered.
func (n *Machine) Waits() bool { return n.out != 0 }

// Next is the earliest deadline; zero if there is none.
func (n *Machine) Next() time.Time {
	var next time.Time
	for _, at := range n.at {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// Step takes one input and returns what is to be done, in order. What the state does not
// expect changes nothing, but a SUBSCRIBE is always answered.
func (n *Machine) Step(now time.Time, in Input) []Action {
	n.now, n.do = now, nil
	switch in := in.(type) {
	case Accept:
		n.accept(in.Expires)
	case Reject:
		if n.state == asked {
			n.refuse(in.Status)
		}
	case Notify:
		if n.state == active {
			n.notify(in)
		}
	case Terminate:
		if n.state == active {
			n.queue = append(n.queue, in.Notify)
			n.end(cmp.Or(in.Why, "terminated"), in.Reason)
		}
	case Subscribe:
		n.refresh(in)
	case Answered:
		if in.ID == n.out && n.out != 0 {
			n.answered(in)
		}
	case Unsent:
		if in.ID == n.out && n.out != 0 {
			n.unsent()
		}
	case Shutdown:
		n.gone(in.Why)
		n.finish()
	case Tick:
		n.tick()
	}
	return n.do
}

func (n *Machine) accept(expires time.Duration) {
	if n.state != asked {
		return
	}
	if n.o.Silent {
		n.act(Respond{Tx: n.o.Tx, Status: 200, Expires: -1})
		n.gone("terminated")
		n.finish()
		return
	}
	n.max = min(max(expires, 0), maxExpires)
	granted := n.granted(n.o.Asked)
	n.state, n.once = active, granted == 0
	n.stop(timerReply)
	res := Respond{Tx: n.o.Tx, Status: 200, Expires: granted}
	if n.o.Implicit {
		res.Status, res.Expires = 202, -1
	}
	n.act(res)
	n.until = n.now.Add(granted)
	n.arm(timerExpire, max(granted, n.o.Reply))
	n.arm(timerFirst, n.o.Reply)
}

// granted is what a SUBSCRIBE gets: never more than it asks for (RFC 6665 4.2.1.1).
func (n *Machine) granted(asked time.Duration) time.Duration {
	if n.o.Implicit && asked < 0 {
		return n.max
	}
	if asked < 0 {
		asked = n.o.Default
	}
	return min(asked, n.max)
}

// refuse answers with a failure; without a sound status it is 480.
func (n *Machine) refuse(status int) {
	if status < 300 || status > 699 {
		status = 480
	}
	n.act(Respond{Tx: n.o.Tx, Status: status, Expires: -1})
	n.gone("rejected")
	n.finish()
}

func (n *Machine) notify(doc Notify) {
	n.stop(timerFirst)
	if n.once {
		n.queue = append(n.queue, doc)
		n.end("expired", "timeout")
		return
	}
	if len(n.queue) >= maxQueue {
		n.queue = []Notify{n.queue[0], {}} // the first is out, or waits to be sent again
		n.end("notify_failed", "deactivated")
		return
	}
	n.queue = append(n.queue, doc)
	n.pump()
}

// end puts a last NOTIFY behind what waits: the queue's last entry. Where the subscriber has
// asked us to wait it is tried at once, alone and once: nobody is kept for the sake of it.
func (n *Machine) end(why, reason string) {
	n.gone(why)
	n.state, n.last = ending, reason
	if n.last == "" {
		n.last = "deactivated"
	}
	if !n.at[timerRetry].IsZero() {
		n.queue = n.queue[len(n.queue)-1:]
	}
	n.stop(timerReply, timerFirst, timerExpire, timerRetry)
	n.pump()
}

// refresh answers a SUBSCRIBE inside the dialog.
func (n *Machine) refresh(in Subscribe) {
	if n.state != active {
		n.act(Respond{Tx: in.Tx, Status: 481, Expires: -1})
		return
	}
	if in.Expires < 0 {
		in.Expires = n.o.Default
	}
	granted := min(in.Expires, n.max)
	n.act(Respond{Tx: in.Tx, Status: 200, Expires: granted})
	if granted == 0 {
		n.queue = append(n.queue, Notify{})
		n.end("unsubscribed", "timeout")
		return
	}
	n.until = n.now.Add(granted)
	n.arm(timerExpire, granted)
	n.arm(timerFirst, n.o.Reply)
	n.act(Refreshed{granted})
}

// pump sends the next NOTIFY if none is out.
func (n *Machine) pump() {
	if n.out != 0 || !n.at[timerRetry].IsZero() || len(n.queue) == 0 {
		return
	}
	st := fmt.Sprintf("active;expires=%d", max(n.until.Sub(n.now).Round(time.Second), 0)/time.Second)
	if len(n.queue) == 1 && n.last != "" {
		st = "terminated;reason=" + n.last
	}
	n.ids++
	n.out = n.ids
	n.arm(timerGiveUp, n.o.GiveUp)
	n.act(Send{ID: n.out, State: st, Notify: n.queue[0]})
}

// answered takes the result of the NOTIFY that is out. A failure ends the subscription
// (RFC 6665 4.2.2) unless it says when to try again; 481 and 408 are no such failures.
func (n *Machine) answered(in Answered) {
	n.out = 0
	n.stop(timerGiveUp)
	ok := in.Status >= 200 && in.Status < 300
	if !ok && n.state == active && in.RetryAfter > 0 && in.Status != 481 && in.Status != 408 && in.Status != 0 {
		n.arm(timerRetry, min(in.RetryAfter, n.at[timerExpire].Sub(n.now))) // longer is as good as never
		return
	}
	n.queue = slices.Delete(n.queue, 0, 1)
	switch {
	case !ok:
		n.gone("notify_failed")
		n.finish()
	case n.state == ending && len(n.queue) == 0:
		n.finish()
	default:
		n.pump()
	}
}

// unsent leaves out what cannot be sent: without a document that is missing the others are worth
// nothing. RFC 6665's probation is the reason that lets the subscriber ask again, but not at once.
func (n *Machine) unsent() {
	n.out, n.queue = 0, []Notify{{}}
	n.stop(timerGiveUp)
	if n.state == active {
		n.end("notify_failed", "probation")
	} else {
		n.pump()
	}
}

func (n *Machine) tick() {
	for t := timer(0); t < timerCount; t++ {
		at := n.at[t]
		if at.IsZero() || at.After(n.now) {
			continue
		}
		n.stop(t)
		switch t {
		case timerReply:
			n.refuse(480)
		case timerFirst:
			if n.out == 0 {
				n.notify(Notify{}) // the owner has nothing to say: the subscriber hears that
			}
		case timerExpire:
			n.queue = append(n.queue, Notify{})
			n.end("expired", "timeout")
		case timerRetry:
			n.pump()
		case timerGiveUp:
			n.answered(Answered{ID: n.out})
		}
	}
}

// gone tells the owner, once.
func (n *Machine) gone(why string) {
	if n.state == asked || n.state == active {
		n.state = ending
		n.act(Gone{why})
	}
}

func (n *Machine) finish() {
	n.state, n.queue, n.out = done, nil, 0
	n.at = [timerCount]time.Time{}
}

func (n *Machine) act(a Action)                 { n.do = append(n.do, a) }
func (n *Machine) arm(t timer, d time.Duration) { n.at[t] = n.now.Add(d) }
func (n *Machine) stop(ts ...timer) {
	for _, t := range ts {
		n.at[t] = time.Time{}
	}
}

// Package splits the value of an Event header (RFC 6665 8.2.1): the package in lower
// case, and its id, "" none.
func Package(v string) (name, id string) {
	name, rest, _ := strings.Cut(v, ";")
	for p := range strings.SplitSeq(rest, ";") {
		if k, val, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(k), "id") {
			id = strings.TrimSpace(val)
		}
	}
	return strings.ToLower(strings.TrimSpace(name)), id
}
