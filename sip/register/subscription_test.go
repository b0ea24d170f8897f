package register

import (
	"fmt"
	"testing"
	"time"
)

// One row an arrow of the figure at Subscription.
func TestSubscription(t *testing.T) {
	type step func(Subscription, time.Time) (Subscription, *Ask)
	registered := func(yes bool) step {
		return func(s Subscription, now time.Time) (Subscription, *Ask) { return s.Registered(now, yes) }
	}
	answer := func(a SubAnswer) step {
		return func(s Subscription, now time.Time) (Subscription, *Ask) { return s.Answered(now, a) }
	}
	ends := func(reason string, retry time.Duration) step {
		return func(s Subscription, now time.Time) (Subscription, *Ask) { return s.Terminated(now, reason, retry) }
	}
	var wakes step = func(s Subscription, now time.Time) (Subscription, *Ask) { return s.Wake(now) }
	var refresh step = func(s Subscription, _ time.Time) (Subscription, *Ask) { return s.Refresh() }
	hour, minute := SubAnswer{Status: 200, Expires: time.Hour}, SubAnswer{Status: 200, Expires: time.Minute}
	const fresh, again = "fresh for 600000s", "again for 600000s"
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"subscribed", []step{registered(true), answer(hour)}, []string{"pending, " + fresh, "active, in 50m0s"}},
		{"refreshed", []step{registered(true), answer(minute), wakes, answer(minute)}, []string{"pending, " + fresh, "active, in 30s", "active, " + again, "active, in 30s"}},
		{"told twice is once", []step{registered(true), registered(true)}, []string{"pending, " + fresh, "pending"}},
		{"403", []step{registered(true), answer(SubAnswer{Status: 403})}, []string{"pending, " + fresh, "refused"}},
		{"489", []step{registered(true), answer(SubAnswer{Status: 489})}, []string{"pending, " + fresh, "refused"}},
		{"refused until the next registration", []step{registered(true), answer(SubAnswer{Status: 403}), registered(false), registered(true)},
			[]string{"pending, " + fresh, "refused", "none", "pending, " + fresh}},
		{"423", []step{registered(true), answer(SubAnswer{Status: 423, MinExpires: 700000 * time.Second}), answer(hour)},
			[]string{"pending, " + fresh, "pending, fresh for 700000s", "active, in 50m0s"}},
		{"503 with a time", []step{registered(true), answer(SubAnswer{Status: 503, RetryAfter: 9 * time.Second}), wakes},
			[]string{"pending, " + fresh, "none, in 9s", "pending, " + fresh}},
		{"494: the agreement is made again, and then it is asked again", []step{registered(true), answer(SubAnswer{Status: 494}), wakes},
			[]string{"pending, " + fresh, "none, in 15s", "pending, " + fresh}},
		{"silence", []step{registered(true), answer(SubAnswer{}), wakes, answer(SubAnswer{})},
			[]string{"pending, " + fresh, "none, in 15s", "pending, " + fresh, "none, in 30s"}},
		{"481 to a refresh", []step{registered(true), answer(minute), wakes, answer(SubAnswer{Status: 481}), answer(hour)},
			[]string{"pending, " + fresh, "active, in 30s", "active, " + again, "pending, " + fresh, "active, in 50m0s"}},
		{"a version was lost", []step{registered(true), answer(hour), refresh, refresh}, []string{"pending, " + fresh, "active, in 50m0s", "active, " + again, "active"}},
		{"a refresh that fails leaves it standing", []step{registered(true), answer(minute), wakes, answer(SubAnswer{Status: 500})},
			[]string{"pending, " + fresh, "active, in 30s", "active, " + again, "active, in 15s"}},
		{"ended: deactivated", []step{registered(true), answer(hour), ends("deactivated", 0)}, []string{"pending, " + fresh, "active, in 50m0s", "pending, " + fresh}},
		{"ended: probation", []step{registered(true), answer(hour), ends("probation", 7*time.Second), wakes},
			[]string{"pending, " + fresh, "active, in 50m0s", "none, in 7s", "pending, " + fresh}},
		{"ended: rejected", []step{registered(true), answer(hour), ends("rejected", 0)}, []string{"pending, " + fresh, "active, in 50m0s", "refused"}},
		{"an answer that nobody waits for", []step{answer(hour)}, []string{"none"}},
		{"nothing for no time", []step{registered(true), answer(SubAnswer{Status: 200})}, []string{"pending, " + fresh, "none, in 15s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := epoch
			s := Subscription{State: SubNone, Chance: func() float64 { return 0 }}
			for i, f := range tt.steps {
				if fmt.Sprintf("%p", f) == fmt.Sprintf("%p", wakes) {
					now = s.Next()
				}
				var ask *Ask
				s, ask = f(s, now)
				got := string(s.State)
				if ask != nil {
					got += fmt.Sprintf(", %s for %.0fs", map[bool]string{true: "fresh", false: "again"}[ask.Fresh], ask.Expires.Seconds())
				}
				if at := s.Next(); !at.IsZero() {
					got += fmt.Sprintf(", in %v", at.Sub(now))
				}
				if got != tt.want[i] {
					t.Fatalf("step %d: %s, want %s", i+1, got, tt.want[i])
				}
			}
		})
	}
}
