package sip

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fields is a pacer with targets that are up, in virtual time.
type fields struct {
	p   pacer
	now time.Time
	t   testing.TB
}

func newFields(t testing.TB, cps float64, max int, ts ...*target) *fields {
	for i, x := range ts {
		x.health, x.rank = health{state: "up"}, i
		x.hop = fmt.Sprintf("udp/192.0.2.%d:5060", i+1)
		x.meter = meterOf(x.conf.CPS)
	}
	return &fields{pacer{total: meterOf(cps), max: max, targets: ts, chance: func() float64 { return 0.5 }}, time.Unix(1000, 0), t}
}

func (f *fields) add(n int) (ws []*waiter) {
	for range n {
		w := &waiter{patience: time.Minute}
		f.p.add(f.now, w)
		ws = append(ws, w)
	}
	return ws
}

// run steps the pacer until d is over, each time late by delay, and returns what it
// granted with the times since now.
func (f *fields) run(d, delay time.Duration) (out []grant, at []time.Duration) {
	start := f.now
	for f.now.Sub(start) <= d {
		gs, wake := f.p.step(f.now)
		for _, g := range gs {
			out, at = append(out, g), append(at, f.now.Sub(start))
		}
		if wake.IsZero() {
			break
		}
		if !wake.After(f.now) {
			f.t.Fatalf("step at %v wants to be called at %v", f.now, wake)
		}
		f.now = wake.Add(delay)
	}
	return out, at
}

// 200 calls asked for at once leave at the limit, to the tick where the clock is exact and
// to 5 % where every timer is late.
func TestPacerIsExact(t *testing.T) {
	for _, tt := range []struct {
		cps   float64
		delay time.Duration
	}{{20, 0}, {20, 3 * time.Millisecond}, {50, 15 * time.Millisecond}, {100, 2 * time.Millisecond}, {0.5, time.Second / 100}} {
		f := newFields(t, tt.cps, 0, &target{})
		f.add(200)
		out, at := f.run(time.Hour, tt.delay)
		if len(out) != 200 || at[0] != 0 {
			t.Fatalf("%v cps: %d left, the first after %v", tt.cps, len(out), at[0])
		}
		want := 199 / tt.cps
		if got := at[199].Seconds(); math.Abs(got-want) > 0.05*want || tt.delay == 0 && math.Abs(got-want) > 1e-6 {
			t.Errorf("%v cps, timers late by %v: the last left after %.3f s, want %.3f", tt.cps, tt.delay, got, want)
		}
		perSecond := max(1, int(tt.cps))
		for i := perSecond + 1; i < len(at); i++ { // no second has more than the limit and what lateness allows
			if window := at[i] - at[i-perSecond-1]; window.Seconds() < float64(perSecond)/tt.cps-lateness.Seconds() {
				t.Fatalf("%v cps: calls %d to %d within %v", tt.cps, i-perSecond-1, i, window)
			}
		}
	}
}

// After a pause there is no burst to make up for it.
func TestPacerHoldsOneToken(t *testing.T) {
	f := newFields(t, 10, 0, &target{})
	f.add(1)
	f.run(time.Second, 0)
	for _, pause := range []time.Duration{time.Minute, 250 * time.Millisecond, 101 * time.Millisecond} {
		f.now = f.now.Add(pause)
		f.add(3)
		if _, at := f.run(time.Second, 0); !slices.Equal(at, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}) {
			t.Errorf("after %v: %v", pause, at)
		}
	}
}

// A lone overlong delay of ours is not made up for in a burst.
func TestPacerAfterAStall(t *testing.T) {
	f := newFields(t, 10, 0, &target{})
	f.add(100)
	f.p.step(f.now)
	f.now = f.now.Add(3 * time.Second)
	if out, _ := f.p.step(f.now); len(out) > 2 {
		t.Errorf("%d calls left at once after a stall", len(out))
	}
}

// The attachment's limit is one of INVITEs, not of calls: one that a peer turned away takes
// another share of it at the next, and so does one that is repeated with credentials.
func TestPacerCountsEveryINVITE(t *testing.T) {
	const cps = 20
	f := newFields(t, cps, 0, &target{}, &target{})
	f.add(200)
	type refusal struct {
		at time.Time
		by *target
	}
	var refusals []refusal
	var sent []time.Time
	for len(sent) < 400 {
		if len(refusals) > 0 && !refusals[0].at.After(f.now) {
			r := refusals[0]
			refusals = refusals[1:]
			var at time.Time
			if len(sent)%2 == 0 {
				var next *target
				if next, at = f.p.next(r.at, r.by, []*target{r.by}, failoverPatience); next == nil {
					t.Fatal("nowhere to go")
				}
			} else {
				at = f.p.again(r.at, r.by)
			}
			sent = append(sent, at)
			continue
		}
		gs, wake := f.p.step(f.now)
		for _, g := range gs {
			sent = append(sent, f.now)
			refusals = append(refusals, refusal{f.now.Add(30 * time.Millisecond), g.target})
		}
		if len(refusals) > 0 && (wake.IsZero() || refusals[0].at.Before(wake)) {
			wake = refusals[0].at
		}
		f.now = wake
	}
	slices.SortFunc(sent, time.Time.Compare)
	for i := cps; i < len(sent); i++ {
		if window := sent[i].Sub(sent[i-cps]); window < time.Second {
			t.Fatalf("INVITEs %d to %d within %v", i-cps, i, window)
		}
	}
}

// Lines: as many at once as there may be; one more when one ends. Without a line the
// wait ends with the call's patience.
func TestPacerLines(t *testing.T) {
	f := newFields(t, 100, 2, &target{})
	f.add(4)
	out, _ := f.run(time.Second, 0)
	if len(out) != 2 || f.p.busy != 2 || len(f.p.queue) != 2 {
		t.Fatalf("%d left, %d busy, %d wait", len(out), f.p.busy, len(f.p.queue))
	}
	if at := f.p.forecast(f.now, 1); !at.IsZero() {
		t.Errorf("forecast %v for a call that waits for another's end", at)
	}
	f.now = out[0].w.at.Add(30 * time.Second)
	f.p.release(out[0].target)
	more, _ := f.run(20*time.Second, 0)
	if len(more) != 1 || more[0].refused != "" {
		t.Fatalf("after a call ended: %+v", more)
	}
	f.p.drop(more[0].w) // it has left: nothing to drop
	rest, at := f.run(time.Hour, 0)
	if len(rest) != 1 || rest[0].refused != "no_line" || len(f.p.queue) != 0 || f.p.busy != 2 {
		t.Fatalf("at the end of patience: %+v, %d busy", rest, f.p.busy)
	}
	if since := f.now.Sub(rest[0].w.at); since < 59*time.Second || since > 61*time.Second {
		t.Errorf("refused %v after it was queued (%v)", since, at)
	}
}

// A queue that moves is no reason to refuse, however long it is: only standing counts.
func TestPacerQueueThatMoves(t *testing.T) {
	f := newFields(t, 1, 0, &target{})
	f.add(300)
	if out, _ := f.run(time.Hour, 0); len(out) != 300 || out[299].refused != "" {
		t.Errorf("%d left; the last %+v", len(out), out[len(out)-1])
	}
}

func TestPacerTargets(t *testing.T) {
	first, second := &target{conf: Target{CPS: 10, MaxCalls: 3}}, &target{conf: Target{CPS: 5}}
	f := newFields(t, 100, 0, first, second)
	ws := f.add(10)
	out, at := f.run(time.Hour, 0)
	if len(out) != 10 || first.calls != 3 || second.calls != 7 {
		t.Fatalf("%d left, %d and %d", len(out), first.calls, second.calls)
	}
	if last := at[9]; last < 1100*time.Millisecond || last > 1300*time.Millisecond { // 2 calls while both had a token
		t.Errorf("the last left after %v", last)
	}
	for _, w := range ws {
		if !w.granted {
			t.Error("a waiter is not marked as gone")
		}
	}
	// failover: not where it has been, and within the peer's rate
	second.health = health{state: "down"}
	if got, _ := f.p.next(f.now, first, []*target{first}, time.Second); got != nil {
		t.Errorf("failover to %s, which is down", got.hop)
	}
	second.health = health{state: "up"}
	f.now = f.now.Add(time.Minute)
	for i := range 4 {
		got, due := f.p.next(f.now, first, []*target{first}, 500*time.Millisecond)
		if want := time.Duration(i) * 200 * time.Millisecond; i < 3 && (got != second || due.Sub(f.now) != want) {
			t.Errorf("failover %d: %v after %v, want %v", i, got, due.Sub(f.now), want)
		}
		if i == 3 && got != nil {
			t.Error("failover waits longer than its patience")
		}
	}
	if first.calls != 0 || second.calls != 10 {
		t.Errorf("calls are counted at %d and %d", first.calls, second.calls)
	}
}

// Nobody up: calls wait, and go when a target comes back.
func TestPacerNobodyUp(t *testing.T) {
	f := newFields(t, 100, 0, &target{})
	f.p.targets[0].health = health{state: "down"}
	f.add(2)
	if out, wake := f.p.step(f.now); len(out) != 0 || wake != f.now.Add(time.Minute) {
		t.Fatalf("%+v, wake %v", out, wake)
	}
	f.now = f.now.Add(59 * time.Second)
	f.p.targets[0].health = health{state: "up"}
	if out, _ := f.run(time.Second, 0); len(out) != 2 || out[1].refused != "" {
		t.Errorf("%+v", out)
	}
	f.p.targets[0].health = health{}
	f.add(1)
	if out, _ := f.run(time.Hour, 0); len(out) != 1 || out[0].refused != "attachment_down" {
		t.Errorf("%+v", out)
	}
}

func TestInOrder(t *testing.T) {
	a, b, c := &target{rank: 1, load: 3}, &target{rank: 1, load: 1}, &target{rank: 0, load: 1}
	first := map[*target]int{}
	for i := range 100 {
		got := inOrder([]*target{a, b, c}, func() float64 { return float64(i) / 100 })
		if len(got) != 3 || got[0] != c {
			t.Fatalf("the lowest priority is not first: %v", got)
		}
		first[got[1]]++
	}
	if first[a] != 75 || first[b] != 25 {
		t.Errorf("weights 3 and 1 gave %d and %d", first[a], first[b])
	}
}

// RFC 7339: so many per cent of the new calls are left out, until it runs out.
func TestPacerSheds(t *testing.T) {
	x := &target{oc: shedding{loss: 30, until: time.Unix(1002, 0)}}
	f := newFields(t, 0, 0, x)
	n := 0.0
	f.p.chance = func() float64 { n += 0.0101; return n - math.Floor(n) }
	f.add(1000)
	out, _ := f.run(time.Second, 0)
	shed := 0
	for _, g := range out {
		if g.refused == "overload" {
			shed++
		}
	}
	if len(out) != 1000 || shed < 250 || shed > 350 {
		t.Errorf("%d of %d shed, want about 300", shed, len(out))
	}
	f.now = time.Unix(1003, 0)
	f.add(100)
	if out, _ = f.run(time.Second, 0); slices.ContainsFunc(out, func(g grant) bool { return g.refused != "" }) {
		t.Error("shed after its validity")
	}
}

// On a real socket: 200 calls asked for at once reach the peer at the attachment's rate
// to 5 %, the queue is told, and a call that is hung up in it leaves no trace.
func TestCallAllIsPaced(t *testing.T) {
	const cps, calls = 40, 200
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var arrivals []time.Time
	seen := map[string]bool{}
	go func() { // a peer that is busy; it keeps up where the test's peer would not
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			at := time.Now()
			text := string(buf[:n])
			if !strings.HasPrefix(text, "INVITE ") {
				continue
			}
			m := parseMessage(text)
			mu.Lock()
			if id := m.get("Call-Id"); !seen[id] {
				seen[id] = true
				arrivals = append(arrivals, at)
			}
			mu.Unlock()
			_, _ = c.WriteTo([]byte(answer(m, 486, "Busy Here", "x")), from)
		}
	}()
	ua := newUA(t, Options{T1: 50 * time.Millisecond, Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: "udp",
		LocalAddr: "127.0.0.1", Domain: "x.example", Targets: []string{c.LocalAddr().String()}, OptionsInterval: -1, CPS: cps}}})
	t.Cleanup(func() { c.Close() })
	var ended sync.WaitGroup
	var queued []Queued
	var placed []Call
	for range calls + 10 {
		ended.Add(1)
		call, err := ua.Invite(Invite{Number: "+15550123", Offer: []byte(offerSDP), OnEvent: func(e Event) {
			switch e := e.(type) {
			case Queued:
				mu.Lock()
				queued = append(queued, e)
				mu.Unlock()
			case Ended:
				ended.Done()
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		placed = append(placed, call)
	}
	if s := ua.Attachments()[0]; s.Queued < calls/2 || s.Calls < s.Queued || s.CPS != cps {
		t.Errorf("attachment says %d queued of %d calls at %v a second", s.Queued, s.Calls, s.CPS)
	}
	for _, c := range placed[100:110] {
		c.Hangup("cancelled", "")
	}
	ended.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(arrivals) != calls {
		t.Fatalf("%d INVITEs came, want %d: one that was hung up in the queue leaves no trace", len(arrivals), calls)
	}
	took, want := arrivals[calls-1].Sub(arrivals[0]).Seconds(), float64(calls-1)/cps
	t.Logf("%d calls in %.3f s, want %.3f (%+.2f %%)", calls, took, want, 100*(took/want-1))
	if took < 0.95*want { // how late they are is the machine's affair, and make bench's to judge
		t.Errorf("%d calls took %.3f s, want %.3f", calls, took, want)
	}
	last := queued[len(queued)-1]
	if wait := last.Until.Sub(last.At).Seconds(); len(queued) < calls || last.Ahead < calls/2 || math.Abs(wait-float64(last.Ahead)/cps) > 0.1 {
		t.Errorf("%d were queued; the last %d behind, for %.3f s", len(queued), last.Ahead, wait)
	}
	if s := ua.Attachments()[0]; s.Queued != 0 || s.Calls != 0 || s.Targets[0].Calls != 0 {
		t.Errorf("at the end: %+v", s)
	}
}

// All lines taken: a call waits for one, and goes when another ends.
func TestCallWaitsForALine(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.MaxCalls = 1; o.OptionsInterval = -1 })
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	_, second := place(t, ua)
	if q := next[Queued](second); q.Ahead != 0 || !q.Until.IsZero() {
		t.Errorf("queued %+v", q)
	}
	_, third := place(t, ua, func(i *Invite) { i.SetupTimeout = 100 * time.Millisecond })
	next[Queued](third)
	if e := next[Ended](third); e.Why != "no_line" || e.By != ByNetwork {
		t.Errorf("ended %+v", e)
	}
	inv.write(answer(inv, 486, "Busy Here", "a"))
	next[Ended](ev)
	inv = p.expectNew("INVITE", inv)
	inv.write(answer(inv, 486, "Busy Here", "b"))
	if e := next[Ended](second); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
}
