package notifier

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

// say is an action in a few words.
func say(as []Action) string {
	var out []string
	for _, a := range as {
		switch a := a.(type) {
		case Respond:
			s := fmt.Sprintf("%v<-%d", a.Tx, a.Status)
			if a.Expires >= 0 {
				s += fmt.Sprintf(" %v", a.Expires)
			}
			out = append(out, s)
		case Send:
			out = append(out, fmt.Sprintf("NOTIFY#%d %s %q", a.ID, a.State, a.Body))
		case Refreshed:
			out = append(out, fmt.Sprintf("refreshed %v", a.Expires))
		case Gone:
			out = append(out, "gone "+a.Why)
		}
	}
	return strings.Join(out, ", ")
}

func doc(s string) Notify { return Notify{"t/x", []byte(s)} }

// One row is one subscription: what comes in, when (seconds from its beginning), and all
// that is done about it.
func TestNotifier(t *testing.T) {
	type in struct {
		at   float64
		what Input
		want string
	}
	hour := Options{Tx: "S", Asked: time.Hour}
	ok := func(id uint64) Answered { return Answered{ID: id, Status: 200} }
	for _, tt := range []struct {
		name string
		o    Options
		in   []in
		done bool
	}{
		{"ordinary", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, doc("b"), ""}, // one is out
			{2, doc("c"), ""},
			{2, ok(1), `NOTIFY#2 active;expires=3598 "b"`},
			{3, ok(2), `NOTIFY#3 active;expires=3597 "c"`},
			{3, ok(2), ""}, // an answer twice
			{3, ok(3), ""},
			{10, Terminate{"noresource", "", doc("z")}, `gone terminated, NOTIFY#4 terminated;reason=noresource "z"`},
			{11, doc("late"), ""},
			{11, ok(4), ""},
		}, true},
		{"grants no more than asked for", Options{Tx: "S", Asked: time.Minute}, []in{{0, Accept{time.Hour}, "S<-200 1m0s"}}, false},
		{"grants less", hour, []in{{0, Accept{time.Minute}, "S<-200 1m0s"}}, false},
		{"no Expires", Options{Tx: "S", Asked: -1}, []in{{0, Accept{2 * time.Hour}, "S<-200 1h0m0s"}}, false},
		{"refused", hour, []in{{0, Reject{403}, "S<-403, gone rejected"}, {1, Accept{time.Hour}, ""}, {1, doc("a"), ""}}, true},
		{"refused with nonsense", hour, []in{{0, Reject{200}, "S<-480, gone rejected"}}, true},
		{"nobody answers", hour, []in{{1.9, Tick{}, ""}, {2, Tick{}, "S<-480, gone rejected"}}, true},
		{"fetch", Options{Tx: "S"}, []in{
			{0, Accept{time.Hour}, "S<-200 0s"},
			{0, doc("a"), `gone expired, NOTIFY#1 terminated;reason=timeout "a"`},
			{1, ok(1), ""},
		}, true},
		{"nothing to say", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{2, Tick{}, `NOTIFY#1 active;expires=3598 ""`},
		}, false},
		{"refresh", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`}, {0, ok(1), ""},
			{3000, Subscribe{"R", time.Hour}, "R<-200 1h0m0s, refreshed 1h0m0s"},
			{3000, doc("b"), `NOTIFY#2 active;expires=3600 "b"`}, {3000, ok(2), ""},
			{3600, Tick{}, ""},
			{6600, Tick{}, `gone expired, NOTIFY#3 terminated;reason=timeout ""`},
			{6601, Subscribe{"L", time.Hour}, "L<-481"},
			{6601, ok(3), ""},
		}, true},
		{"unsubscribed", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Subscribe{"U", 0}, "U<-200 0s, gone unsubscribed"},
			{1, ok(1), `NOTIFY#2 terminated;reason=timeout ""`},
			{2, ok(2), ""},
		}, true},
		{"481", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`}, {0, doc("b"), ""},
			{1, Answered{1, 481, time.Minute}, "gone notify_failed"},
		}, true},
		{"nobody answers a NOTIFY", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{32, Answered{ID: 1}, "gone notify_failed"},
		}, true},
		{"not even that it failed", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{40, Tick{}, "gone notify_failed"},
		}, true},
		{"503 with Retry-After", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Answered{1, 503, 10 * time.Second}, ""},
			{2, doc("b"), ""},
			{11, Tick{}, `NOTIFY#2 active;expires=3589 "a"`},
			{11, ok(2), `NOTIFY#3 active;expires=3589 "b"`},
		}, false},
		{"503 with a Retry-After beyond the end", Options{Tx: "S", Asked: time.Minute}, []in{
			{0, Accept{time.Hour}, "S<-200 1m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=60 "a"`},
			{1, Answered{1, 503, 24 * time.Hour}, ""},
			{60, Tick{}, `gone expired, NOTIFY#2 terminated;reason=timeout ""`},
			{61, Answered{2, 503, 24 * time.Hour}, ""}, // that was the last try
		}, true},
		{"terminated while a Retry-After runs", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Answered{1, 503, 24 * time.Hour}, ""},
			{2, Terminate{"noresource", "", doc("z")}, `gone terminated, NOTIFY#2 terminated;reason=noresource "z"`},
			{2, Answered{2, 503, 24 * time.Hour}, ""},
		}, true},
		{"unsubscribed while a Retry-After runs", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Answered{1, 503, time.Hour}, ""},
			{2, Subscribe{"U", 0}, `U<-200 0s, gone unsubscribed, NOTIFY#2 terminated;reason=timeout ""`},
		}, false},
		{"refreshed while a Retry-After runs", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Answered{1, 503, 24 * time.Hour}, ""},
			{3000, Subscribe{"R", time.Hour}, "R<-200 1h0m0s, refreshed 1h0m0s"},
			{3000, doc("b"), ""},
			{3600, Tick{}, `NOTIFY#2 active;expires=3000 "a"`}, // when it would have ended
		}, false},
		{"503 without", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Answered{ID: 1, Status: 503}, "gone notify_failed"},
		}, true},
		{"a document that cannot leave", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`}, {0, doc("b"), ""},
			{0, Unsent{1}, `gone notify_failed, NOTIFY#2 terminated;reason=probation ""`},
			{0, Unsent{1}, ""}, {1, ok(2), ""},
		}, true},
		{"a last document that cannot leave", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{0, Terminate{"noresource", "", doc("z")}, `gone terminated, NOTIFY#1 terminated;reason=noresource "z"`},
			{0, Unsent{1}, `NOTIFY#2 terminated;reason=noresource ""`}, {1, ok(2), ""},
		}, true},
		{"its dialog ends", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"}, {0, doc("a"), `NOTIFY#1 active;expires=3600 "a"`},
			{1, Shutdown{"shutdown"}, "gone shutdown"},
		}, true},
		{"REFER", Options{Tx: "R", Implicit: true, Asked: -1}, []in{
			{0, Accept{5 * time.Minute}, "R<-202"},
			{0, doc("100"), `NOTIFY#1 active;expires=300 "100"`},
			{1, doc("180"), ""},
			{1, Terminate{"noresource", "", doc("200")}, "gone terminated"},
			{2, ok(1), `NOTIFY#2 active;expires=298 "180"`},
			{2, ok(2), `NOTIFY#3 terminated;reason=noresource "200"`},
			{2, ok(3), ""},
		}, true},
		{"silent REFER", Options{Tx: "R", Implicit: true, Silent: true, Asked: -1}, []in{
			{0, Accept{5 * time.Minute}, "R<-200, gone terminated"}, {0, doc("100"), ""},
		}, true},
		{"ended by us", hour, []in{
			{0, Accept{time.Hour}, "S<-200 1h0m0s"},
			{0, Terminate{Reason: "deactivated", Why: "shutdown"}, `gone shutdown, NOTIFY#1 terminated;reason=deactivated ""`},
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := New(start, tt.o)
			for i, step := range tt.in {
				now := start.Add(time.Duration(step.at * float64(time.Second)))
				if got := say(n.Step(now, step.what)); got != step.want {
					t.Fatalf("step %d, %T at %vs: %s, want %s", i, step.what, step.at, got, step.want)
				}
			}
			if n.Done() != tt.done || tt.done && !n.Next().IsZero() {
				t.Errorf("done %v, next %v", n.Done(), n.Next())
			}
		})
	}
}

// A subscriber that never answers does not make us keep documents for it for ever.
func TestQueueIsBounded(t *testing.T) {
	n := New(start, Options{Asked: time.Hour})
	n.Step(start, Accept{time.Hour})
	var all []string
	for range 1000 {
		if s := say(n.Step(start, doc("x"))); s != "" {
			all = append(all, s)
		}
	}
	if got := strings.Join(all, "|"); got != `NOTIFY#1 active;expires=3600 "x"|gone notify_failed` || len(n.queue) != 2 {
		t.Errorf("%s, %d kept", got, len(n.queue))
	}
	if got := say(n.Step(start, Answered{1, 200, 0})); got != `NOTIFY#2 terminated;reason=deactivated ""` {
		t.Error(got)
	}
}

// Whatever comes in whatever order: one NOTIFY out at a time, one answer for each
// request, Gone once and before the end, nothing after a terminated NOTIFY, and with time
// alone it ends.
func TestRandom(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := start
		n := New(now, Options{Tx: 0, Asked: time.Duration(r.IntN(5)-1) * time.Minute, Implicit: r.IntN(2) == 0})
		asks, answers, gone, out, last := 1, 0, 0, uint64(0), false
		check := func(as []Action) {
			for _, a := range as {
				switch a := a.(type) {
				case Respond:
					answers++
				case Gone:
					gone++
				case Send:
					if out != 0 || last {
						t.Fatalf("seed %d: NOTIFY %d while %d is out, after the last: %v", seed, a.ID, out, last)
					}
					out, last = a.ID, strings.HasPrefix(a.State, "terminated")
				}
			}
		}
		for range 40 {
			now = now.Add(time.Duration(r.IntN(5000)) * time.Millisecond)
			switch r.IntN(10) {
			case 9:
				if out != 0 && !last && r.IntN(5) == 0 {
					id := out
					out = 0
					check(n.Step(now, Unsent{id}))
				}
			case 0:
				check(n.Step(now, Accept{time.Duration(r.IntN(4)) * time.Minute}))
			case 1:
				if r.IntN(10) == 0 {
					check(n.Step(now, Reject{r.IntN(800)}))
				}
			case 2, 3:
				check(n.Step(now, doc("d")))
			case 4:
				if r.IntN(5) == 0 {
					check(n.Step(now, Terminate{"noresource", "", doc("z")}))
				}
			case 5:
				asks++
				check(n.Step(now, Subscribe{asks, time.Duration(r.IntN(4)-1) * time.Minute}))
			case 6, 7:
				id := out
				if out = 0; id == 0 {
					continue
				}
				a := Answered{ID: id, Status: []int{200, 200, 200, 503, 481, 0}[r.IntN(6)]}
				if a.Status == 503 && !last {
					a.RetryAfter = []time.Duration{0, time.Second, 24 * time.Hour}[r.IntN(3)]
				}
				check(n.Step(now, a))
			case 8:
				check(n.Step(now, Tick{}))
			}
		}
		for range 400 {
			if n.Done() {
				break
			}
			next := n.Next()
			if next.IsZero() {
				t.Fatalf("seed %d: waits for nothing", seed)
			}
			if next.After(now) {
				now = next
			}
			if out != 0 && r.IntN(2) == 0 {
				id := out
				out = 0
				check(n.Step(now, Answered{ID: id, Status: 200}))
				continue
			}
			if !n.at[timerGiveUp].After(now) {
				out = 0 // given up, as nobody answered
			}
			check(n.Step(now, Tick{}))
		}
		if !n.Done() || gone != 1 || asks != answers {
			t.Fatalf("seed %d: done %v, gone %d times, %d of %d answered", seed, n.Done(), gone, answers, asks)
		}
	}
}

func TestPackage(t *testing.T) {
	for _, tt := range [][3]string{{"conference", "conference", ""}, {" Refer ; x=y; id = 93809823", "refer", "93809823"}, {"", "", ""}} {
		if name, id := Package(tt[0]); name != tt[1] || id != tt[2] {
			t.Errorf("%q: %q %q", tt[0], name, id)
		}
	}
}

func TestFrag(t *testing.T) {
	for _, tt := range []struct {
		in     string
		status int
		phrase string
	}{
		{"SIP/2.0 200 OK\r\n", 200, "OK"},
		{"SIP/2.0 100 Trying", 100, "Trying"},
		{"SIP/2.0 603 \nX: y", 603, ""},
		{"sip/2.0 183 a b\r\n", 183, "a b"},
		{"SIP/2.0 20 OK", 0, ""}, {"SIP/2.0 1000 x", 0, ""}, {"", 0, ""}, {"200 OK", 0, ""}, {"SIP/2.0 +12 x", 0, ""},
	} {
		s, p, err := ParseFrag([]byte(tt.in))
		if s != tt.status || p != tt.phrase || (err != nil) != (tt.status == 0) {
			t.Errorf("%q: %d %q %v", tt.in, s, p, err)
		}
	}
}

func FuzzFrag(f *testing.F) {
	f.Add([]byte("SIP/2.0 200 OK\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, p, err := ParseFrag(b)
		if err != nil {
			return
		}
		if s2, p2, err := ParseFrag(Frag(s, p)); err != nil || s2 != s || !strings.Contains(p, "\r") && strings.TrimSpace(p2) != p2 {
			t.Fatalf("%d %q comes back as %d %q, %v", s, p, s2, p2, err)
		}
	})
}
