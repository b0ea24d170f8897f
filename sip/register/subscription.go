package register

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// SubState is what a subscription to the registration's own state (RFC 3680) is in.
type SubState string

// The states of a Subscription.
const (
	SubNone    SubState = "none"
	SubPending SubState = "pending"
	SubActive  SubState = "active"
	SubRefused SubState = "refused" // by the network; asked again at the next registration only
)

// Subscription is the subscriber of RFC 6665 §4.1 for the reg package, as a pure step:
//
//	none ─registered→ pending ─2xx→ active ⟲ refresh by half, or 600 s before the end
//	       ▲             │ 403, 405, 489, 501 … → refused
//	       │             │ silence, 5xx         → none, again after a back-off
//	       └─ 481, NOTIFY terminated ──────────────┘
//
// It is a value; the zero value is none. Fresh says that a SUBSCRIBE begins a dialog.
type Subscription struct {
	State   SubState
	Expires time.Time
	Err     string

	wakeAt     time.Time
	registered bool
	waiting    bool
	asks       time.Duration
	failures   int
	Chance     func() float64 // [0,1)
}

// Ask is a SUBSCRIBE to be sent.
type Ask struct {
	Expires time.Duration
	Fresh   bool
}

// SubAnswer is the final answer to a SUBSCRIBE; Status 0: none came.
type SubAnswer struct {
	Status                          int
	Expires, MinExpires, RetryAfter time.Duration
}

// subscribeFor is how long is asked for: as long as for the registration (TS 24.229
// §5.1.1.3).
const subscribeFor = 600000 * time.Second

// passing are the refusals that say nothing of the subscription. 494 is about the security
// agreement, which is made anew then (Client.Disagree).
var passing = []int{408, 480, 481, 494}

// Next is when to call Wake; zero: not.
func (s Subscription) Next() time.Time { return s.wakeAt }

// Registered says that a registration stands, or that it has ended.
func (s Subscription) Registered(now time.Time, yes bool) (Subscription, *Ask) {
	switch {
	case yes == s.registered:
		return s, nil
	case !yes: // the network has forgotten us, the subscription with us
		return Subscription{State: SubNone, Chance: s.Chance}, nil
	}
	s = Subscription{State: SubNone, Chance: s.Chance, registered: true, asks: subscribeFor}
	return s.ask(true)
}

func (s Subscription) ask(fresh bool) (Subscription, *Ask) {
	if s.waiting || !s.registered {
		return s, nil
	}
	s.waiting, s.wakeAt = true, time.Time{}
	if fresh {
		s.State = SubPending
	}
	return s, &Ask{s.asks, fresh}
}

// Refresh asks for the full state again: a version was lost.
func (s Subscription) Refresh() (Subscription, *Ask) {
	if s.State != SubActive {
		return s, nil
	}
	return s.ask(false)
}

// Wake is for the time of Next.
func (s Subscription) Wake(now time.Time) (Subscription, *Ask) {
	if s.wakeAt.IsZero() || now.Before(s.wakeAt) {
		return s, nil
	}
	return s.ask(s.State != SubActive || !now.Before(s.Expires))
}

// Answered takes the answer to the SUBSCRIBE under way.
func (s Subscription) Answered(now time.Time, a SubAnswer) (Subscription, *Ask) {
	if !s.waiting {
		return s, nil
	}
	s.waiting = false
	switch {
	case a.Status >= 200 && a.Status < 300 && a.Expires > 0:
		s.State, s.Err, s.failures = SubActive, "", 0
		s.Expires = now.Add(a.Expires)
		s.wakeAt = now.Add(refreshAfter(a.Expires, s.Chance()))
		return s, nil
	case a.Status == 423 && a.MinExpires > s.asks:
		s.asks = a.MinExpires
		return s.ask(s.State != SubActive)
	case a.Status == 481 && s.State == SubActive: // that dialog is gone, a new one may do
		s.State = SubNone
		return s.ask(true)
	case a.Status >= 300 && a.Status < 500 && !slices.Contains(passing, a.Status) || a.Status >= 600:
		s.State, s.Err = SubRefused, fmt.Sprintf("SUBSCRIBE to reg was answered %d", a.Status)
		return s, nil
	}
	s.Err = fmt.Sprintf("SUBSCRIBE to reg was answered %d", a.Status)
	if a.Status == 0 {
		s.Err = "SUBSCRIBE to reg was not answered"
	}
	return s.later(now, a.RetryAfter), nil
}

// Terminated takes a NOTIFY that ends the subscription (RFC 6665 §4.1.3).
func (s Subscription) Terminated(now time.Time, reason string, retryAfter time.Duration) (Subscription, *Ask) {
	s.waiting, s.State = false, SubNone
	switch reason {
	case "deactivated", "timeout":
		return s.ask(true)
	case "rejected", "noresource", "invariant":
		s.State, s.Err, s.wakeAt = SubRefused, "the network ended the reg subscription: "+reason, time.Time{}
		return s, nil
	}
	return s.later(now, retryAfter), nil // probation, giveup, nothing said
}

func (s Subscription) later(now time.Time, wait time.Duration) Subscription {
	if s.State != SubActive || !now.Before(s.Expires) {
		s.State = SubNone
	}
	if wait <= 0 {
		w := min(float64(backoffMax), float64(backoffBase)*math.Pow(2, float64(min(s.failures, 16))))
		wait = time.Duration(w * (0.5 + 0.5*s.Chance()))
	}
	s.failures++
	wait = min(wait, longestRetry)
	s.wakeAt = now.Add(wait)
	return s
}
