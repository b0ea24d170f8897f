package sip

import (
	"math"
	"slices"
	"time"
)

// pacer decides which waiting call sends its INVITE when, and to which target: no more
// than so many a second and so many at once, for the attachment and for each target
// (IMS.md §7.2). It is a pure step: the owner brings the time, posts the grants and
// calls step again at the time it names, or when a call ended or a target's health
// changed.
//
//	wait ─turn, line and target free→ grant
//	  │└─ no line or no target for the call's patience → refuse
//	  └── hung up → drop, without a trace on the wire
type pacer struct {
	total   meter
	max     int // calls at once; 0: no limit
	busy    int // calls that have left the queue and not ended
	targets []*target
	// fixed names the one target of a ue, nil while calls cannot be placed, whose health is its
	// owner's to judge; a nil func leaves the choice to targets.
	fixed  func() *target
	chance func() float64
	queue  []*waiter

	stall   time.Duration // how long the queue has stood for want of a line or target, in all
	stalled time.Time     // since when it stands; zero: it does not
}

// waiter is a call in the queue.
type waiter struct {
	call     *call
	at       time.Time // queued
	base     time.Duration
	patience time.Duration // how long it may stand for want of a line
	judged   []*target     // targets whose overload it was measured against
	shed     []*target     // those of them that are spared it
	granted  bool          // it has a line
}

// grant is a call's turn; refused says why it will not come.
type grant struct {
	w       *waiter
	target  *target
	refused string // "" | no_line | attachment_down | overload
}

// maxQueue bounds the queue of one attachment.
const maxQueue = 10000

// add queues a call behind all others.
func (p *pacer) add(now time.Time, w *waiter) {
	w.at, w.base = now, p.stallAt(now)
	p.queue = append(p.queue, w)
}

// addFirst queues a call that had its turn, and for no fault of its own needs another.
func (p *pacer) addFirst(now time.Time, w *waiter) {
	w.at, w.base = now, p.stallAt(now)
	p.queue = slices.Insert(p.queue, 0, w)
}

// drop takes a call out that does not want its turn any more.
func (p *pacer) drop(w *waiter) {
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
}

// step grants what is due. wake is when to call again at the latest; zero: no need to.
func (p *pacer) step(now time.Time) (out []grant, wake time.Time) {
	p.stall = p.stallAt(now)
	p.stalled = time.Time{}
	why := ""
	for len(p.queue) > 0 && why == "" && wake.IsZero() {
		w := p.queue[0]
		if p.max > 0 && p.busy >= p.max {
			why = "no_line"
			break
		}
		t, at, no := p.choose(now, w)
		switch {
		case no == "overload":
			out = append(out, grant{w: w, refused: no})
			p.queue = p.queue[1:]
			continue
		case no != "":
			why = no
			continue
		case p.total.due().After(now) || at.After(now):
			wake = later(p.total.due(), at)
			continue
		}
		p.total.take(now, w.at)
		if t != nil {
			t.meter.take(now, w.at)
			t.calls++
		}
		p.busy++
		w.granted = true
		p.queue = p.queue[1:]
		out = append(out, grant{w: w, target: t})
	}
	if why == "" {
		return out, wake
	}
	p.stalled = now
	p.queue = slices.DeleteFunc(p.queue, func(w *waiter) bool {
		left := w.patience - (p.stall - w.base)
		if left <= 0 {
			out = append(out, grant{w: w, refused: why})
			return true
		}
		if at := now.Add(left); wake.IsZero() || at.Before(wake) {
			wake = at
		}
		return false
	})
	return out, wake
}

// choose is the best target for a call and when its rate allows, or why there is none.
func (p *pacer) choose(now time.Time, w *waiter) (t *target, at time.Time, no string) {
	list := p.targets
	if p.fixed != nil {
		one := p.fixed()
		if one == nil {
			return nil, at, "attachment_down"
		}
		list = []*target{one}
	}
	full, shed := false, false
	for _, c := range inOrder(list, p.chance) {
		if p.fixed == nil && !c.health.up() {
			continue
		}
		if !slices.Contains(w.judged, c) { // once: asking again would shed more than was asked for
			w.judged = append(w.judged, c)
			if c.oc.sheds(now, p.chance) {
				w.shed = append(w.shed, c)
			}
		}
		switch {
		case slices.Contains(w.shed, c):
			shed = true
			continue
		case c.full():
			full = true
			continue
		}
		due := c.meter.due()
		if !due.After(now) {
			return c, now, ""
		}
		if t == nil || due.Before(at) {
			t, at = c, due
		}
	}
	switch {
	case t != nil:
		return t, at, ""
	case full:
		return nil, at, "no_line"
	case shed:
		return nil, at, "overload"
	}
	return nil, at, "attachment_down"
}

// next is where a call goes that its target does not take: not where it has been, and
// not where it would wait longer than patience. Its share of the rates is taken for the time
// at. nil: nowhere.
func (p *pacer) next(now time.Time, from *target, tried []*target, patience time.Duration) (t *target, at time.Time) {
	for _, c := range inOrder(p.targets, p.chance) {
		if slices.Contains(tried, c) || !c.health.up() || c.full() || c.oc.sheds(now, p.chance) {
			continue
		}
		if due := p.due(now, c); due.Sub(now) <= patience && (t == nil || due.Before(at)) {
			t, at = c, due
		}
	}
	if t == nil {
		return nil, at
	}
	p.reserve(at, t)
	p.move(from, t)
	return t, at
}

// again is when the INVITE of a call may be repeated at its target: with credentials, another
// extension or another Request-URI it is one more for whoever counts them.
func (p *pacer) again(now time.Time, t *target) time.Time {
	at := p.due(now, t)
	p.reserve(at, t)
	return at
}

// due is when the rates of the attachment and of a target allow one more.
func (p *pacer) due(now time.Time, t *target) time.Time {
	at := later(p.total.due(), now)
	if t != nil {
		at = later(t.meter.due(), at)
	}
	return at
}

// reserve takes the shares of both rates for the time at.
func (p *pacer) reserve(at time.Time, t *target) {
	p.total.take(at, at)
	if t != nil {
		t.meter.take(at, at)
	}
}

// move counts a call at another target.
func (p *pacer) move(from, to *target) {
	if from != nil {
		from.calls--
	}
	if to != nil {
		to.calls++
	}
}

// release ends what a grant took.
func (p *pacer) release(t *target) {
	p.busy--
	p.move(t, nil)
}

// forecast is when the call behind ahead others leaves; zero where that hangs on calls
// that end.
func (p *pacer) forecast(now time.Time, ahead int) time.Time {
	if !p.stalled.IsZero() || p.max > 0 && p.busy+ahead >= p.max {
		return time.Time{}
	}
	every, sum := p.total.every, 0.0
	for _, t := range p.targets {
		if t.health.up() {
			if t.meter.every == 0 {
				sum = math.Inf(1)
			} else {
				sum += 1 / t.meter.every.Seconds()
			}
		}
	}
	if p.fixed == nil && sum > 0 {
		every = max(every, time.Duration(float64(time.Second)/sum))
	}
	return later(p.total.due(), now).Add(time.Duration(ahead) * every)
}

func (p *pacer) stallAt(now time.Time) time.Duration {
	if p.stalled.IsZero() {
		return p.stall
	}
	return p.stall + now.Sub(p.stalled)
}

// meter is a rate: a token bucket that holds one token. Its instants are fixed, so that a
// timer that goes off late delays one call and not all after it.
type meter struct {
	every time.Duration // 0: no limit
	next  time.Time     // when the next token is there
}

// lateness is how much of a delay of our own is made up for; more would be a burst.
const lateness = 150 * time.Millisecond

func meterOf(cps float64) meter {
	if cps <= 0 {
		return meter{}
	}
	return meter{every: time.Duration(float64(time.Second) / cps)}
}

// due is when a token is there; in the past or zero: now.
func (m *meter) due() time.Time {
	if m.every == 0 {
		return time.Time{}
	}
	return m.next
}

// take takes a token at now for a call that waits since queued. One that had to wait was
// due at next: that is where the next one counts from.
func (m *meter) take(now, queued time.Time) {
	if m.every == 0 {
		return
	}
	from := now
	if queued.Before(m.next) && now.Sub(m.next) < lateness {
		from = m.next
	}
	m.next = from.Add(m.every)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
