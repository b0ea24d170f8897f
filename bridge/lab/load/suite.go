package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"sparkle/media"
)

// Process is an engine in a process of its own; *media.Child is one.
type Process interface {
	media.API
	PID() int
	Close() error
}

// Suite is `sparkle bench`: a fresh media process for each case, one row for each.
type Suite struct {
	// Start starts a media process, with or without a video side.
	Start func(ctx context.Context, video bool) (Process, error)
	// Window is how long each case is counted; 0: 5 s.
	Window   time.Duration
	Realtime bool // for the generator's thread
	// Busy keeps the API of a process, a SIP user agent and all cores busy until stop, which
	// says what was done: from a process of its own, or its garbage collector would stop the
	// generator too. Nil: StartBusy, in this process.
	Busy func(context.Context, Process) (stop func() (BusyCount, error), err error)
	// Only are the names of the cases to run; none: those that fit into five minutes, or with
	// All every one.
	Only []string
	All  bool
	// Limits has the cases that have a goal run with more and more legs, the media process
	// on a core of its own, until frames go missing or come late; the row is the last that
	// was good. The other cases are left out.
	Limits bool
}

// benchCase is a line of the table. Several may have the same name.
type benchCase struct {
	name  string
	about string
	run   func(context.Context, *Suite) (Row, error)
	takes func(*Suite) time.Duration
	goal  *conference // the case is a line of the goals: what to find the limit of
	more  bool        // only with All, Limits, or by name
}

// conference is the audio part of a case.
type conference struct {
	legs, talkers int
	room          int // legs of a conference, 0: all
	always        bool
	codec         Codec
	onsets        int
	window        time.Duration // 0: the suite's
	joining       int           // so many of legs come while it is counted
	busy          bool          // beside a busy API, a flood of OPTIONS and busyMosaics mosaics
	pinned        bool          // the media process to core 0, the generator to core 1
}

func cases() []benchCase {
	const top, half = 8, 2
	audio := func(name, about string, c conference) benchCase {
		return benchCase{name: name, about: about, takes: c.takes, run: func(ctx context.Context, s *Suite) (Row, error) { return s.audio(ctx, c) }}
	}
	goal := func(name, about string, c conference) benchCase {
		b := audio(name, about, c)
		b.goal = &c
		return b
	}
	all := []benchCase{{name: "idle", about: "no conference", takes: func(s *Suite) time.Duration { return startUp + time.Second + s.window(0)/2 },
		run: func(ctx context.Context, s *Suite) (Row, error) { return s.idle(ctx) }}}
	// The names of 12.65 are those of the goals; what else is measured has others.
	for _, mode := range []int{half, top} {
		c := func(name, about string, legs, room, talkers int, always bool) {
			b := goal(name, about, conference{legs: legs, room: room, talkers: talkers, always: always, codec: AMRWB(mode), onsets: 6})
			if mode == top {
				b.name, b.more = name+"-23.85", true
			}
			all = append(all, b)
		}
		c("conf-dtx", "one conference, 3 talk, the rest in DTX", 500, 0, 3, false)
		c("conf-speech", "one conference, all send speech frames, 3 talk", 300, 0, 3, true)
		c("rooms10-1", "conferences of 10, 1 talks, DTX", 200, 10, 1, false)
		c("rooms10-3", "conferences of 10, 3 talk, DTX", 100, 10, 3, false)
		// As the daemon comes, the 8 loudest are mixed (media.max_talkers).
		c("rooms10-all", "conferences of 10, all talk, the 8 loudest are heard", 50, 10, 10, false)
		c("pairs", "two-party calls of one codec, both talk", 400, 2, 2, false)
	}
	all = append(all,
		goal("conf-pcmu", "one conference, 3 talk, the rest send silence", conference{legs: 500, talkers: 3, codec: PCMU(), onsets: 6}),
		audio("tick-quiet", "nothing else runs", conference{legs: 50, talkers: 3, codec: AMRWB(top), onsets: 10}),
		audio("tick-busy", "100 API calls/s, 5,000 OPTIONS/s, 4 video encodes, all cores taken", conference{legs: 50, talkers: 3, codec: AMRWB(top), onsets: 10, busy: true}),
		audio("delay", "20 onsets of speech", conference{legs: 8, talkers: 1, codec: AMRWB(top), onsets: 20, window: time.Second}),
		audio("joining", "10 are in and judged, 490 more join", conference{legs: 500, joining: 490, talkers: 3, codec: AMRWB(top)}),
		audio("memory", "0 to 200 legs", conference{legs: 200, talkers: 3, codec: AMRWB(top), window: 2 * time.Second}),
	)
	for _, size := range [][2]int{{320, 240}, {640, 480}} {
		for _, n := range []int{4, 9} {
			all = append(all, benchCase{name: "mosaic", about: "all send and receive this size", more: size[1] > 240,
				takes: func(s *Suite) time.Duration { return startUp + mosaicWarm + s.window(0) }, run: func(ctx context.Context, s *Suite) (Row, error) {
					return s.mosaic(ctx, n, size[0], size[1])
				}})
		}
	}
	return all
}

// startUp is what a case takes beside what it measures: a process, and legs that come and go.
const startUp = time.Second

// takes is how long the case takes.
func (c conference) takes(s *Suite) time.Duration {
	d := startUp + Options{}.withDefaults().Warm + s.window(c.window)
	if c.onsets > 0 {
		d += time.Duration(onsetQuiet+c.onsets*onsetEvery) * frameTime
	}
	if c.busy {
		d += busyMosaics * startUp
	}
	return d
}

// Takes is how long Run takes, without Limits.
func (s *Suite) Takes() (sum time.Duration) {
	for _, c := range cases() {
		if s.wants(c) {
			sum += c.takes(s)
		}
	}
	return sum
}

func (s *Suite) wants(c benchCase) bool {
	if len(s.Only) > 0 {
		return slices.Contains(s.Only, c.name)
	}
	return !c.more || s.All || s.Limits
}

// Cases are the names that Only takes.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

// Validate reports every fault.
func (s *Suite) Validate() error {
	var errs []error
	if s.Start == nil {
		errs = append(errs, errors.New("load: nothing starts a media process"))
	}
	if s.Window != 0 && (s.Window < time.Second || s.Window > time.Minute) {
		errs = append(errs, fmt.Errorf("load: window %v, want 1s..1m", s.Window))
	}
	for _, n := range s.Only {
		if !slices.Contains(Cases(), n) {
			errs = append(errs, fmt.Errorf("load: no case %q; there are %s", n, strings.Join(Cases(), ", ")))
		}
	}
	return errors.Join(errs...)
}

// Run runs the cases in order and calls row after each. A case that fails has its error
// in the row and in Run's, and the next one is run; only the end of ctx ends Run early.
func (s *Suite) Run(ctx context.Context, row func(Row)) error {
	if err := s.Validate(); err != nil {
		return err
	}
	var errs []error
	for _, c := range cases() {
		if !s.wants(c) {
			continue
		}
		run := c.run
		if s.Limits {
			if c.goal == nil {
				continue
			}
			run = func(ctx context.Context, s *Suite) (Row, error) { return s.limit(ctx, *c.goal) }
		}
		r, err := run(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Case, r.About = c.name, c.about
		if err != nil {
			r.Error = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		row(r)
	}
	return errors.Join(errs...)
}

func (s *Suite) window(d time.Duration) time.Duration {
	switch {
	case d != 0:
		return d
	case s.Window != 0:
		return s.Window
	}
	return 5 * time.Second
}

// idle is what the process costs before anybody calls: its beat, and Go's own threads.
func (s *Suite) idle(ctx context.Context) (row Row, err error) {
	p, err := s.Start(ctx, false)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := wait(ctx, time.Second); err != nil { // start-up is over
		return row, err
	}
	from, started := time.Duration(0), time.Now()
	if from, err = CPU(p.PID()); err != nil {
		return row, err
	}
	if err := wait(ctx, s.window(0)/2); err != nil {
		return row, err
	}
	to, err := CPU(p.PID())
	if err != nil {
		return row, err
	}
	sec := time.Since(started).Seconds()
	row.Seconds, row.CPU = *number(sec, 2), *number(float64(to-from)/1e6/sec, 2)
	snap, err := p.Snapshot(ctx)
	if err != nil {
		return row, err
	}
	row.ticks(delta(nil, snap))
	rss, err := RSS(p.PID())
	row.RSSMiB = *number(float64(rss)/(1<<20), 1)
	return row, err
}

func (s *Suite) audio(ctx context.Context, c conference) (row Row, err error) {
	row = Row{Legs: c.legs, Codec: c.codec.Name, Talkers: c.talkers}
	price, err := pricesOf(c.codec)
	if err != nil {
		return row, err
	}
	p, err := s.Start(ctx, c.busy)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if c.pinned {
		c.window = limitWindow
		if err := pin(p.PID(), 0); err != nil {
			return row, err
		}
	}
	o := Options{API: p, PID: p.PID(), Pinned: c.pinned, Core: 1, Legs: c.legs, Joining: c.joining, Room: c.room, Talkers: c.talkers, Always: c.always, Codec: c.codec,
		Window: s.window(c.window), Onsets: c.onsets, Realtime: s.Realtime}
	if c.busy {
		for i := range busyMosaics {
			video, videoErr := StartVideo(ctx, VideoOptions{API: p, PID: p.PID(), Members: 2, Width: 640, Height: 480, Conference: fmt.Sprint("video_", i)})
			if videoErr != nil {
				return row, videoErr
			}
			defer video.Close()
		}
		stop, busyErr := s.busy(ctx, p)
		if busyErr != nil {
			return row, busyErr
		}
		defer func() {
			n, stopErr := stop()
			row.APICalls, row.APIFailed, row.OptionsSent, row.OptionsHeard = n.Calls, n.Failed, n.OptionsSent, n.OptionsHeard
			err = errors.Join(err, stopErr)
		}()
	}
	r, err := Run(ctx, o)
	if err != nil {
		return row, err
	}
	if p.PID() != o.PID {
		return row, fmt.Errorf("load: the media process %d ended while it was measured", o.PID)
	}
	row.audio(r, price)
	if c.busy {
		row.CPUPerLeg, row.FloorPerLeg, row.RSSPerLegKiB = nil, nil, nil // it served the mosaic as well
	}
	return row, nil
}

// busyMosaics run beside the busy case, each with a mosaic to encode.
const busyMosaics = 4

func (s *Suite) busy(ctx context.Context, p Process) (stop func() (BusyCount, error), err error) {
	if s.Busy != nil {
		return s.Busy(ctx, p)
	}
	b, err := StartBusy(ctx, p, runtime.NumCPU())
	if err != nil {
		return nil, err
	}
	return func() (BusyCount, error) {
		b.Close()
		return b.Count(), nil
	}, nil
}

func (s *Suite) mosaic(ctx context.Context, members, w, h int) (row Row, err error) {
	row = Row{Legs: members, Codec: "H264", Size: fmt.Sprintf("%dx%d", w, h)}
	p, err := s.Start(ctx, true)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	v, err := StartVideo(ctx, VideoOptions{API: p, PID: p.PID(), Members: members, Width: w, Height: h, Window: s.window(0)})
	if err != nil {
		return row, err
	}
	defer v.Close()
	r, err := v.Measure(ctx)
	if err != nil {
		return row, err
	}
	row.video(r)
	return row, nil
}
