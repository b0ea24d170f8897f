package churn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sparkle/bridge"
	"sparkle/bridge/lab/load"
)

// Soak is `sparkle soak`: calls without end, and what the processes hold meanwhile.
//
//	idle ─ sample ─ calls, a sample every so often ─ all over, timers too ─ sample
//
// What is held under load goes up and down with the calls, so it is judged by its slope;
// what is held after the last of them must be what was held before the first.
type Soak struct {
	Program string        // the sparkle binary
	Dir     string        // for what the processes write; must exist
	Rate    int           // calls a second; 0: 10
	For     time.Duration // 0: 1 h
	Every   time.Duration // between samples; 0: a sixtieth of For, at least a second
	// Settle is how long after the last call the last sample is taken: a call is watched for
	// late answers for 64·T1 (RFC 3261 13.2.2.4). 0: 40 s.
	Settle time.Duration
}

// Held is what one process holds.
type Held struct {
	Process    string  `json:"process"` // control, media, video
	PID        int     `json:"pid"`
	RSSMiB     float64 `json:"rss_mib"`
	FDs        int     `json:"fds"`
	Goroutines int     `json:"goroutines,omitempty"` // of control
}

// Sample is one moment of a soak.
type Sample struct {
	Phase   string  `json:"phase"` // before, load, after
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"` // that have ended
	Failed  int     `json:"failed"`
	Held    []Held  `json:"held"`
}

// Slope is how what a process holds grew under load, by least squares over the samples
// without the first fifth, in which pools and caches fill.
type Slope struct {
	Process        string  `json:"process"`
	Samples        int     `json:"samples"`
	RSSMiBPerH     float64 `json:"rss_mib_per_h"`
	FDsPerH        float64 `json:"fds_per_h"`
	GoroutinesPerH float64 `json:"goroutines_per_h"`
	LeftFDs        int     `json:"left_fds"` // after, less before
	LeftGoroutines int     `json:"left_goroutines"`
	LeftRSSMiB     float64 `json:"left_rss_mib"`
	Restarted      bool    `json:"restarted,omitempty"` // another process than before: it died
}

// leftover is how many descriptors or goroutines more than before may be there after: an
// idle HTTP connection, a pooled database one.
const leftover = 10

// Validate reports every fault.
func (s *Soak) Validate() error {
	return (&Suite{Program: s.Program, Dir: s.Dir, Rate: s.Rate, For: s.For}).Validate()
}

// Run runs it and calls sample for each moment. An error is a call that failed, a process
// that died, or something that was left over.
func (s *Soak) Run(ctx context.Context, sample func(Sample)) (slopes []Slope, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	rate, total := s.Rate, s.For
	if rate == 0 {
		rate = 10
	}
	if total == 0 {
		total = time.Hour
	}
	every := s.Every
	if every == 0 {
		every = max(total/60, time.Second)
	}
	settle := s.Settle
	if settle == 0 {
		settle = 40 * time.Second
	}
	sipp, err := phones(s.Dir, "uas.xml", total+settle+2*time.Minute)
	if err != nil {
		return nil, err
	}
	defer sipp.Kill()
	d, err := (&Suite{Program: s.Program}).startDaemon(ctx, s.Dir, sipp.Addr, "cps: 1000\n")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	c, err := newCaller(ctx, d.api, rate*int(callDuration/time.Second), conferenceSize, bridge.Left)
	if err != nil {
		cancel()
		return nil, err
	}
	defer c.wg.Wait()
	defer cancel()
	if err := c.listen(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	var all []Sample
	take := func(phase string) error {
		held, err := d.held(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		x := Sample{Phase: phase, Seconds: round(time.Since(began).Seconds(), 1), Calls: c.ended, Failed: c.failed, Held: held}
		c.mu.Unlock()
		all = append(all, x)
		sample(x)
		return nil
	}
	if err := wait(ctx, 2*time.Second); err != nil { // start-up is over
		return nil, err
	}
	if err := take("before"); err != nil {
		return nil, err
	}
	placed := make(chan int, 1)
	c.wg.Go(func() { placed <- c.place(ctx, rate, total) })
	var calls int
	for tick := time.NewTicker(every); calls == 0; {
		select {
		case <-tick.C:
			if err := take("load"); err != nil {
				return nil, err
			}
		case calls = <-placed:
			tick.Stop()
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	late := c.await(ctx, calls, time.Minute)
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	if err := take("after"); err != nil {
		return nil, err
	}
	slopes = slopesOf(all)
	c.mu.Lock()
	failed := failures(Row{Calls: calls, Failed: c.failed, Why: c.why})
	c.mu.Unlock()
	return slopes, errors.Join(late, failed, leaks(slopes), sipp.Finish(30*time.Second))
}

// leaks is an error if something was left over.
func leaks(slopes []Slope) error {
	var errs []error
	for _, s := range slopes {
		switch {
		case s.Restarted:
			errs = append(errs, fmt.Errorf("churn: the %s process died under load", s.Process))
		case s.LeftFDs > leftover || s.LeftGoroutines > leftover:
			errs = append(errs, fmt.Errorf("churn: %s has %d descriptors and %d goroutines more than before the first call", s.Process, s.LeftFDs, s.LeftGoroutines))
		}
	}
	return errors.Join(errs...)
}

// slopesOf needs a sample before, some under load and one after.
func slopesOf(all []Sample) []Slope {
	if len(all) < 2 {
		return nil
	}
	before, after := all[0], all[len(all)-1]
	middle := all[1 : len(all)-1]
	middle = middle[len(middle)/5:]
	var out []Slope
	for _, b := range before.Held {
		s := Slope{Process: b.Process, Samples: len(middle)}
		var at, rss, fds, goroutines []float64
		for _, x := range middle {
			if h, ok := heldBy(x, b.Process); ok {
				at = append(at, x.Seconds/3600)
				rss, fds, goroutines = append(rss, h.RSSMiB), append(fds, float64(h.FDs)), append(goroutines, float64(h.Goroutines))
			}
		}
		s.RSSMiBPerH, s.FDsPerH, s.GoroutinesPerH = round(slope(at, rss), 2), round(slope(at, fds), 1), round(slope(at, goroutines), 1)
		if a, ok := heldBy(after, b.Process); ok {
			s.LeftFDs, s.LeftGoroutines, s.LeftRSSMiB = a.FDs-b.FDs, a.Goroutines-b.Goroutines, round(a.RSSMiB-b.RSSMiB, 1)
			s.Restarted = a.PID != b.PID
		} else {
			s.Restarted = true
		}
		out = append(out, s)
	}
	return out
}

func heldBy(x Sample, process string) (Held, bool) {
	for _, h := range x.Held {
		if h.Process == process {
			return h, true
		}
	}
	return Held{}, false
}

// slope is that of the line of least squares; 0 for fewer than two points.
func slope(x, y []float64) float64 {
	n := float64(len(x))
	if n < 2 {
		return 0
	}
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, sxy = sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

// held is what the daemon's processes hold now.
func (d *daemon) held(ctx context.Context) ([]Held, error) {
	var out []Held
	for _, p := range d.processes() {
		rss, err := load.RSS(p.pid)
		if err != nil {
			return nil, err
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
		if err != nil {
			return nil, fmt.Errorf("churn: %w", err)
		}
		h := Held{Process: p.name, PID: p.pid, RSSMiB: round(float64(rss)/(1<<20), 1), FDs: len(fds)}
		if p.name == "control" {
			if h.Goroutines, err = d.goroutines(ctx); err != nil {
				return nil, err
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// goroutines asks the metrics page.
func (d *daemon) goroutines(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("churn: %w", err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, fmt.Errorf("churn: metrics: %w", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(page)))
	if err != nil {
		return 0, fmt.Errorf("churn: metrics: %w", err)
	}
	f := families["go_goroutines"]
	if len(f.GetMetric()) != 1 {
		return 0, errors.New("churn: no go_goroutines in the metrics")
	}
	return int(f.GetMetric()[0].GetGauge().GetValue()), nil
}

func wait(ctx context.Context, d time.Duration) error {
	clock := time.NewTimer(d)
	defer clock.Stop()
	select {
	case <-clock.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
