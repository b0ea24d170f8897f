package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"sparkle/media"
	"sparkle/media/codec/h264"
	"sparkle/media/mediapb"
	"sparkle/media/video"
)

// inProcess is an engine of this process in place of a child.
type inProcess struct{ *media.Engine }

func (p inProcess) PID() int { return 0 }

func (p inProcess) Close() error {
	p.Engine.Close()
	return nil
}

// plane is the video side in this process; cmd does the same with a process.
type plane struct{ *video.Plane }

func (p plane) OpenLeg(conference, leg string, rtp, rtcp *net.UDPConn) error {
	return p.Plane.OpenLeg(conference, leg, video.Sockets{RTP: rtp, RTCP: rtcp})
}

func (p plane) OpenVideo(leg string, rtp, rtcp *net.UDPConn) error {
	return p.Plane.OpenVideo(leg, video.Sockets{RTP: rtp, RTCP: rtcp})
}

func start(_ context.Context, pictures bool) (Process, error) {
	o := media.Options{}
	if pictures {
		o.Pictures = func(d media.PictureDeps) (media.Pictures, error) {
			p, err := video.New(video.Options{InProcess: true, Emit: d.Emit, Log: d.Log})
			return plane{p}, err
		}
	}
	e, err := media.New(o)
	return inProcess{e}, err
}

func TestAMosaicIsMeasured(t *testing.T) {
	if _, err := h264.Probe(); err != nil {
		t.Skip(err)
	}
	p, err := start(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	v, err := StartVideo(t.Context(), VideoOptions{API: p, Members: 2, Width: 160, Height: 120, Warm: 2500 * time.Millisecond, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	r, err := v.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Tiles != 2 || r.Composed == 0 || r.Encoded == 0 || r.Received == 0 || r.DecodeErrors != 0 || r.CPU <= 0 {
		t.Errorf("%+v", r)
	}
	if r.Composed > 40 {
		t.Errorf("%d pictures composed in %v at 15 per second", r.Composed, r.Window)
	}
}

func TestBusyCallsAndEnds(t *testing.T) {
	e := engine(t)
	b, err := StartBusy(t.Context(), e, 1)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := b.Count(); n.Calls < 105 || n.OptionsHeard < 1000; n = b.Count() { // somebody has joined and left by then
		if time.Now().After(deadline) {
			t.Fatalf("%+v in ten seconds", n)
		}
		<-tick.C
	}
	b.Close()
	if n := b.Count(); n.Failed != 0 || n.OptionsHeard > n.OptionsSent {
		t.Errorf("%+v", n)
	}
	s, err := e.Snapshot(t.Context())
	if err != nil || len(s.Conferences) != 0 || len(s.Legs) != 0 {
		t.Errorf("left behind: %v, %v", s, err)
	}
}

func TestARowAsJSON(t *testing.T) {
	engine(t) // skips without the codec
	s := &Suite{Start: start}
	row, err := s.audio(t.Context(), conference{legs: 4, talkers: 2, codec: AMRWB(8), onsets: 1, window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	row.Case = "conf-dtx"
	text, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"legs", "cpu_ms_per_s_per_leg", "floor_ms_per_s_per_leg", "missing_pct", "late_pct", "delay_p50_ms", "delay_p99_ms", "delay_max_ms",
		"tick_late_p50_ms", "tick_late_p99_ms", "tick_late_max_ms", "rss_kib_per_leg", "generator_late_p99_ms"} {
		if _, ok := got[key].(float64); !ok {
			t.Errorf("%s is %v in %s", key, got[key], text)
		}
	}
	if got["case"] != "conf-dtx" || got["legs"] != 4.0 {
		t.Errorf("%s", text)
	}
	if floor := got["floor_ms_per_s_per_leg"].(float64); floor <= 0 { // how near the engine is to it a busy machine cannot say
		t.Errorf("floor %v", floor)
	}
	if cpu, leg := got["cpu_ms_per_s"].(float64), got["cpu_ms_per_s_per_leg"].(float64); cpu <= 0 || cpu/4-leg > 0.01 || leg-cpu/4 > 0.01 {
		t.Errorf("%v ms/s is not 4 times %v", cpu, leg)
	}
	var b bytes.Buffer
	table := Table{W: &b}
	table.Row(row)
	table.Row(Row{Case: "mosaic", Legs: 9, Size: "640x480", ComposedFPS: 15, VideoMissing: 3})
	table.Row(Row{Case: "conf-pcmu", Legs: 200, Error: "broken"})
	for _, want := range []string{"conf-dtx         4 AMR-WB/8", "mosaic           9 640x480", "3 packets of the mosaic are missing", "failed: broken"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestRowArithmetic(t *testing.T) {
	r := &Result{Window: 2 * time.Second, Frames: 990, Missing: 10, Late: 99, CPU: 400 * time.Millisecond,
		RSSBase: 1 << 20, RSSAfter: 1<<20 + 10<<10, Engine: EngineDelta{Ticks: 100, SkippedTicks: 1, Encodes: 400, Decodes: 300}}
	w := Row{Legs: 10}
	w.audio(r, prices{})
	if w.CPU != 200 || *w.CPUPerLeg != 20 || *w.Missing != 1 || *w.Late != 10 || *w.RSSPerLegKiB != 1 ||
		w.EncodesPerTick != 4 || w.DecodesPerTick != 3 || w.Overload || w.DelayP50 != nil {
		t.Errorf("%+v", w)
	}
	r.Missing = 20
	w.audio(r, prices{})
	if !w.Overload {
		t.Error("two per cent missing is no overload")
	}
	var v Row
	v.video(&VideoResult{Window: 2 * time.Second, Composed: 30, Received: 28, CPU: 300 * time.Millisecond, MediaCPU: 20 * time.Millisecond, RSS: 1 << 20})
	if v.VideoCPU != 150 || v.VideoCPUPerFrame != 10 || v.ComposedFPS != 15 || v.ReceivedFPS != 14 || v.CPU != 10 || v.RSSMiB != 1 {
		t.Errorf("%+v", v)
	}
	if share(1, 0) != 0 {
		t.Error("a share of nothing")
	}
}

func TestSuiteGoesOnAfterAFailure(t *testing.T) {
	broken := errors.New("no engine today")
	s := &Suite{All: true, Start: func(context.Context, bool) (Process, error) { return nil, broken }}
	rows := 0
	err := s.Run(t.Context(), func(r Row) {
		rows++
		if r.Error == "" || r.Case == "" {
			t.Errorf("%+v", r)
		}
	})
	if !errors.Is(err, broken) || rows != len(cases()) {
		t.Errorf("%d rows of %d, %v", rows, len(cases()), err)
	}
	if err := (&Suite{Only: []string{"nope"}, Window: 1}).Validate(); err == nil || !strings.Contains(err.Error(), `"nope"`) ||
		!strings.Contains(err.Error(), "conf-dtx") || !strings.Contains(err.Error(), "window") || !strings.Contains(err.Error(), "starts") {
		t.Errorf("Validate said %v", err)
	}
	s = &Suite{Start: start, Only: []string{"idle"}, Window: time.Second}
	rows = 0
	if err := s.Run(t.Context(), func(r Row) {
		rows++
		if r.Case != "idle" || r.CPU <= 0 || r.Ticks == 0 {
			t.Errorf("%+v", r)
		}
	}); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestRunSaysWhatTheEngineRefused(t *testing.T) {
	if _, err := Run(t.Context(), Options{API: refuses{}, Legs: 2, Codec: PCMU()}); err == nil || !strings.Contains(err.Error(), "full today") {
		t.Errorf("Run said %v", err)
	}
	if _, err := StartVideo(t.Context(), VideoOptions{API: refuses{}, Members: 1, Width: 64, Height: 64}); err == nil {
		t.Error("StartVideo said nothing")
	}
	if _, err := StartBusy(t.Context(), refuses{}, 1); err == nil {
		t.Error("StartBusy said nothing")
	}
}

// refuses is an engine that opens no leg.
type refuses struct{}

var errFull = errors.New("full today")

func (refuses) SetConference(context.Context, *mediapb.Conference) error { return nil }
func (refuses) CloseConference(context.Context, string) error            { return nil }
func (refuses) OpenLeg(context.Context, *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	return nil, errFull
}
func (refuses) SetLeg(context.Context, *mediapb.Leg) error { return errFull }
func (refuses) OpenVideo(context.Context, string) (*mediapb.OpenLegReply, error) {
	return nil, errFull
}
func (refuses) CloseVideo(context.Context, string) error { return errFull }
func (refuses) CloseLeg(context.Context, string) (*mediapb.LegStats, error) {
	return nil, errFull
}
func (refuses) Capture(context.Context, *mediapb.CaptureRequest, func(*mediapb.Captured)) error {
	return errFull
}
func (refuses) Play(context.Context, *mediapb.PlayRequest) error { return errFull }
func (refuses) Preview(context.Context, string, int) (*mediapb.PreviewReply, error) {
	return nil, errFull
}
func (refuses) Snapshot(context.Context) (*mediapb.SnapshotReply, error) {
	return &mediapb.SnapshotReply{}, nil
}
func (refuses) Events(context.Context, func(*mediapb.Event)) error { return errFull }

// The table of a run without flags has a row for each case that has a goal, once and by its name.
func TestTheCasesWithGoals(t *testing.T) {
	s := &Suite{Start: start}
	rows := map[string]int{}
	for _, c := range cases() {
		if s.wants(c) {
			rows[c.name]++
		}
		if c.goal != nil && s.wants(c) != !strings.HasSuffix(c.name, "-23.85") {
			t.Errorf("%s is run: %v", c.name, s.wants(c))
		}
	}
	for _, name := range []string{"conf-dtx", "conf-speech", "rooms10-1", "rooms10-3", "rooms10-all", "pairs", "conf-pcmu"} {
		if rows[name] != 1 {
			t.Errorf("%d rows of %s, want 1", rows[name], name)
		}
	}
	only := &Suite{Only: []string{"pairs-23.85"}}
	if all := (&Suite{All: true}); only.Takes() == 0 || all.Takes() < s.Takes()+6*only.Takes() {
		t.Errorf("%v, with --all %v, one more row %v", s.Takes(), all.Takes(), only.Takes())
	}
}
