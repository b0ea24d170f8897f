package churn

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// every is n arrivals that far apart.
func every(n int, d time.Duration) (at []time.Duration) {
	for i := range n {
		at = append(at, time.Duration(i)*d)
	}
	return at
}

func TestPaceOf(t *testing.T) {
	const gap = 50 * time.Millisecond
	late := every(100, gap)
	for i := 60; i < len(late); i++ {
		late[i] += 20 * time.Millisecond // it stood still once
	}
	burst := append(make([]time.Duration, 20), every(80, gap)...) // a bucket of 20
	for _, tt := range []struct {
		name        string
		at          []time.Duration
		rate, worst float64
	}{
		{"exact", every(100, gap), 20, 0},
		{"a pause", late, 19.92, 2},
		{"a burst first", burst, 25.06, -100},
		{"too fast", every(100, 40*time.Millisecond), 25, -20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := paceOf(tt.at, 20)
			if err != nil || math.Abs(p.Rate-tt.rate) > 0.01 || math.Abs(p.WorstPct-tt.worst) > 0.01 {
				t.Errorf("%+v (%v), want %v a second, worst %v%%", p, err, tt.rate, tt.worst)
			}
		})
	}
	for name, at := range map[string][]time.Duration{"few": every(20, gap), "backwards": {3, 2, 1}, "none": nil} {
		if p, err := paceOf(at, 2); err == nil && name != "few" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if _, err := paceOf(every(20, gap), 20); err == nil {
		t.Error("a second's worth says nothing of a second")
	}
}

// A train that is off by 6 %, or one second of it, fails its row.
func TestPaceIsJudged(t *testing.T) {
	const gap = 50 * time.Millisecond
	slow := every(200, gap)
	for i := 100; i < len(slow); i++ {
		slow[i] += 60 * time.Millisecond // one second of 1.06 s; the whole is 0.6 % off
	}
	for _, tt := range []struct {
		name string
		at   []time.Duration
		well bool
	}{
		{"exact", every(200, gap), true},
		{"4 % slow", every(200, gap*104/100), true},
		{"6 % slow", every(200, gap*106/100), false},
		{"6 % fast", every(200, gap*94/100), false},
		{"one second 6 % long", slow, false},
	} {
		p, err := paceOf(tt.at, 20)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.judge(20); (err == nil) != tt.well || err != nil && !errors.Is(err, ErrPace) {
			t.Errorf("%s: %v, %+v", tt.name, err, p)
		}
	}
}

func TestReadArrivals(t *testing.T) {
	at, err := readArrivals(strings.NewReader("started\nINVITE 2026-11-25\t18:24:43.390135\t1795631083.390135\nINVITE 1795631083.5\n"))
	if err != nil || len(at) != 2 || at[1]-at[0] != 109865*time.Microsecond {
		t.Errorf("%v, %v", at, err)
	}
	for _, bad := range []string{"INVITE ", "INVITE soon"} {
		if at, err := readArrivals(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, at)
		}
	}
}

func TestParent(t *testing.T) {
	if got := parent("/proc/self"); got != os.Getppid() {
		t.Errorf("parent is %d, want %d", got, os.Getppid())
	}
	if got := parent("/proc/none"); got != -1 {
		t.Errorf("of nobody: %d", got)
	}
}

func TestSuiteNamesEveryFault(t *testing.T) {
	err := (&Suite{Rate: -1, For: time.Millisecond, Only: []string{"nope"}}).Validate()
	for _, want := range []string{"program", "-1", "1ms", "nope", "calls-out"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestSlopesOf(t *testing.T) {
	at := func(seconds, rss float64, fds, pid int, phase string) Sample {
		return Sample{Phase: phase, Seconds: seconds, Held: []Held{{Process: "control", PID: pid, RSSMiB: rss, FDs: fds, Goroutines: 2 * fds}}}
	}
	all := []Sample{at(0, 50, 20, 7, "before")}
	for i := range 10 { // it fills up once, then grows by 3.6 MiB an hour
		rss := 80 + 3.6*float64(i)/60
		if i < 2 {
			rss = 60
		}
		all = append(all, at(float64(60*i), rss, 30, 7, "load"))
	}
	all = append(all, at(700, 70, 45, 7, "after"))
	got := slopesOf(all)
	if len(got) != 1 || got[0].Samples != 8 || math.Abs(got[0].RSSMiBPerH-3.6) > 0.01 || got[0].FDsPerH != 0 ||
		got[0].LeftFDs != 25 || got[0].LeftGoroutines != 50 || got[0].LeftRSSMiB != 20 {
		t.Errorf("%+v", got)
	}
	if err := leaks(got); err == nil || !strings.Contains(err.Error(), "25 descriptors") {
		t.Errorf("25 descriptors are left: %v", err)
	}
	all[len(all)-1].Held[0].PID = 8
	if err := leaks(slopesOf(all)); err == nil || !strings.Contains(err.Error(), "died") {
		t.Errorf("another process: %v", err)
	}
	if s := slope([]float64{1}, []float64{1}); s != 0 {
		t.Errorf("a point has slope %v", s)
	}
	if s := slopesOf(nil); s != nil {
		t.Errorf("nothing has slopes %v", s)
	}
}
