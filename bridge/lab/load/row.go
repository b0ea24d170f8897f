package load

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"time"
)

// Row is one measured case, and one line of `sparkle bench --json`. What a case does not
// measure is absent. Times are in milliseconds, shares in per cent.
type Row struct {
	Case    string  `json:"case"`
	About   string  `json:"about,omitempty"`
	Legs    int     `json:"legs"`
	Codec   string  `json:"codec,omitempty"`
	Talkers int     `json:"talkers,omitempty"`
	Size    string  `json:"size,omitempty"` // of every video
	Seconds float64 `json:"seconds,omitempty"`

	// Of the media process: CPU time per second, all and by leg.
	CPU       float64  `json:"cpu_ms_per_s,omitempty"`
	CPUPerLeg *float64 `json:"cpu_ms_per_s_per_leg,omitempty"`
	// What its coded frames and packets cost on this machine with nothing else done: the
	// figure to compare machines by.
	FloorPerLeg *float64 `json:"floor_ms_per_s_per_leg,omitempty"`

	Missing *float64 `json:"missing_pct,omitempty"`
	Late    *float64 `json:"late_pct,omitempty"`
	Frames  uint64   `json:"frames,omitempty"` // that came

	// From the first packet of speech after silence, sent to the engine, to the first
	// speech frame at a listener.
	DelayP50 *float64 `json:"delay_p50_ms,omitempty"`
	DelayP99 *float64 `json:"delay_p99_ms,omitempty"`
	DelayMax *float64 `json:"delay_max_ms,omitempty"`
	Delays   uint64   `json:"delays,omitempty"` // how many were timed
	Unheard  uint64   `json:"unheard,omitempty"`

	// The engine's ticks: lateness since it started, counters of the window.
	TickP50   *float64 `json:"tick_late_p50_ms,omitempty"`
	TickP99   *float64 `json:"tick_late_p99_ms,omitempty"`
	TickMax   *float64 `json:"tick_late_max_ms,omitempty"`
	Ticks     uint64   `json:"ticks,omitempty"`
	LateTicks uint64   `json:"late_ticks"`
	Skipped   uint64   `json:"skipped_ticks"`
	Realtime  *bool    `json:"realtime,omitempty"`
	// How much later than its leg's best a frame arrived: the same seen from outside.
	SpreadP99 *float64 `json:"arrival_p99_ms,omitempty"`
	SpreadMax *float64 `json:"arrival_max_ms,omitempty"`

	EncodesPerTick float64 `json:"encodes_per_tick,omitempty"`
	DecodesPerTick float64 `json:"decodes_per_tick,omitempty"`

	RSSPerLegKiB *float64 `json:"rss_kib_per_leg,omitempty"`
	RSSMiB       float64  `json:"rss_mib,omitempty"` // of the process measured

	// The generator's own account.
	GenLateP99  *float64 `json:"generator_late_p99_ms,omitempty"`
	GenLateMax  *float64 `json:"generator_late_max_ms,omitempty"`
	GenCPU      float64  `json:"generator_cpu_ms_per_s,omitempty"`
	GenOverflow uint64   `json:"generator_overflow,omitempty"`
	GenRefused  uint64   `json:"generator_refused,omitempty"`
	GenRealtime *bool    `json:"generator_realtime,omitempty"`

	// The video process.
	VideoCPU         float64 `json:"video_cpu_ms_per_s,omitempty"`
	VideoCPUPerFrame float64 `json:"video_cpu_ms_per_frame,omitempty"`
	ComposedFPS      float64 `json:"composed_fps,omitempty"`
	ReceivedFPS      float64 `json:"received_fps,omitempty"` // at the leg with the fewest
	VideoMissing     uint64  `json:"video_packets_missing,omitempty"`
	DecodeErrors     uint64  `json:"decode_errors,omitempty"`

	APICalls  uint64 `json:"api_calls,omitempty"`
	APIFailed uint64 `json:"api_failed,omitempty"`
	// OPTIONS that a SIP user agent beside it was sent, and its 200s.
	OptionsSent  uint64 `json:"options_sent,omitempty"`
	OptionsHeard uint64 `json:"options_answered,omitempty"`

	// Overload: more was asked of the machine than it could do; CPU figures are then a
	// lower bound.
	Overload bool   `json:"overload,omitempty"`
	Error    string `json:"error,omitempty"`
}

// overloadPct of frames missing or ticks skipped is no longer an accident.
const overloadPct = 1

func ms(d time.Duration) *float64 { return number(float64(d)/1e6, 3) }

// number rounds to so many places.
func number(v float64, places int) *float64 {
	p := math.Pow(10, float64(places))
	v = math.Round(v*p) / p
	return &v
}

func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func (w *Row) audio(r *Result, p prices) {
	sec := r.Window.Seconds()
	w.Seconds = *number(sec, 2)
	w.CPU = *number(float64(r.CPU)/1e6/sec, 2)
	w.CPUPerLeg = number(float64(r.CPU)/1e6/sec/float64(w.Legs), 4)
	w.FloorPerLeg = number(float64(r.floor(p))/1e6/sec/float64(w.Legs), 4)
	w.Frames = r.Frames
	w.Missing = number(share(r.Missing, r.Frames+r.Missing), 4)
	w.Late = number(share(r.Late, r.Frames), 4)
	if n := r.Delay.Count(); n > 0 || r.Unheard > 0 {
		w.DelayP50, w.DelayP99, w.DelayMax = ms(r.Delay.Quantile(0.5)), ms(r.Delay.Quantile(0.99)), ms(r.Delay.Max())
		w.Delays, w.Unheard = n, r.Unheard
	}
	w.ticks(r.Engine)
	w.SpreadP99, w.SpreadMax = ms(r.Spread.Quantile(0.99)), ms(r.Spread.Max())
	w.RSSPerLegKiB = number(float64(r.RSSAfter-r.RSSBase)/1024/float64(w.Legs), 1)
	w.RSSMiB = *number(float64(r.RSSAfter)/(1<<20), 1)
	w.GenLateP99, w.GenLateMax = ms(r.GenLate.Quantile(0.99)), ms(r.GenLate.Max())
	w.GenCPU = *number(float64(r.GenCPU)/1e6/sec, 2)
	w.GenOverflow, w.GenRefused, w.GenRealtime = r.GenOverflow, r.GenRefused, &r.GenRealtime
	w.Overload = *w.Missing > overloadPct || share(w.Skipped, w.Ticks+w.Skipped) > overloadPct
}

func (w *Row) ticks(e EngineDelta) {
	w.TickP50, w.TickP99, w.TickMax = number(e.LateP50ms, 3), number(e.LateP99ms, 3), number(e.LateMaxms, 3)
	w.Ticks, w.LateTicks, w.Skipped, w.Realtime = e.Ticks, e.LateTicks, e.SkippedTicks, &e.Realtime
	if e.Ticks > 0 {
		w.EncodesPerTick = *number(float64(e.Encodes)/float64(e.Ticks), 2)
		w.DecodesPerTick = *number(float64(e.Decodes)/float64(e.Ticks), 2)
	}
}

func (w *Row) video(r *VideoResult) {
	sec := r.Window.Seconds()
	w.Seconds = *number(sec, 2)
	w.CPU = *number(float64(r.MediaCPU)/1e6/sec, 2)
	w.VideoCPU = *number(float64(r.CPU)/1e6/sec, 1)
	if r.Composed > 0 {
		w.VideoCPUPerFrame = *number(float64(r.CPU)/1e6/float64(r.Composed), 2)
	}
	w.ComposedFPS = *number(float64(r.Composed)/sec, 1)
	w.ReceivedFPS = *number(float64(r.Received)/sec, 1)
	w.VideoMissing, w.DecodeErrors = r.Missing, r.DecodeErrors
	w.RSSMiB = *number(float64(r.RSS)/(1<<20), 1)
}

// Table prints rows for people, each as it comes.
type Table struct {
	W    io.Writer
	last string // the kind of the row before, whose header stands
}

// Row prints one.
func (t *Table) Row(r Row) {
	kind := "audio"
	if r.Size != "" {
		kind = "video"
	}
	if kind != t.last {
		t.last = kind
		if kind == "audio" {
			fmt.Fprintf(t.W, "\n%-13s %4s %-9s | %8s %7s %7s | %7s %6s | %-20s | %-20s | %7s | %s\n", "audio", "legs", "codec",
				"CPU ms/s", "floor", "CPU", "missing", "late", "in → out, ms", "tick late, ms", "memory", "generator late, ms")
			fmt.Fprintf(t.W, "%-13s %4s %-9s | %8s %7s %7s | %7s %6s | %6s %6s %6s | %6s %6s %6s | %7s | %6s %6s\n", "", "", "",
				"per leg", "", "% core", "%", "%", "p50", "p99", "max", "p50", "p99", "max", "KiB/leg", "p99", "max")
		} else {
			fmt.Fprintf(t.W, "\n%-13s %4s %-9s | %8s %8s %7s | %9s %9s | %7s | %9s\n", "video", "legs", "size",
				"ms/frame", "CPU ms/s", "% core", "fps made", "fps got", "RSS MiB", "media ms/s")
		}
	}
	switch {
	case r.Error != "":
		fmt.Fprintf(t.W, "%-13s %4d %-9s | failed: %s\n", r.Case, r.Legs, cmp.Or(r.Size, r.Codec), r.Error)
	case kind == "video":
		fmt.Fprintf(t.W, "%-13s %4d %-9s | %8.2f %8.1f %7.1f | %9.1f %9.1f | %7.0f | %9.1f\n", r.Case, r.Legs, r.Size,
			r.VideoCPUPerFrame, r.VideoCPU, r.VideoCPU/10, r.ComposedFPS, r.ReceivedFPS, r.RSSMiB, r.CPU)
	default:
		fmt.Fprintf(t.W, "%-13s %4d %-9s | %8s %7s %7.2f | %7s %6s | %6s %6s %6s | %6s %6s %6s | %7s | %6s %6s  %s\n", r.Case, r.Legs, r.Codec,
			cell(r.CPUPerLeg, 3), cell(r.FloorPerLeg, 3), r.CPU/10, cell(r.Missing, 3), cell(r.Late, 2),
			cell(r.DelayP50, 1), cell(r.DelayP99, 1), cell(r.DelayMax, 1),
			cell(r.TickP50, 2), cell(r.TickP99, 2), cell(r.TickMax, 2), cell(r.RSSPerLegKiB, 0),
			cell(r.GenLateP99, 2), cell(r.GenLateMax, 2), r.About)
	}
	for _, n := range r.notes() {
		fmt.Fprintf(t.W, "%-13s      ! %s\n", "", n)
	}
}

// notes are what a reader must know before he believes the figures.
func (w *Row) notes() []string {
	var out []string
	note := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if w.Overload {
		note("overload: %d of %d ticks skipped; the CPU figure is what was left", w.Skipped, w.Ticks+w.Skipped)
	}
	if w.Realtime != nil && !*w.Realtime {
		note("no real-time priority for the engine")
	}
	if w.GenOverflow+w.GenRefused > 0 {
		note("the generator lost %d packets on receipt and %d on sending: they are not the engine's", w.GenOverflow, w.GenRefused)
	}
	if w.Unheard > 0 {
		note("%d of %d listeners did not hear an onset before the next", w.Unheard, w.Unheard+w.Delays)
	}
	if w.Case == "joining" && w.Missing != nil && *w.Missing > 0 {
		note("frames of those already in went missing while others joined: the goal is none")
	}
	if w.APIFailed > 0 {
		note("%d of %d API calls failed", w.APIFailed, w.APICalls)
	}
	if w.OptionsHeard < w.OptionsSent {
		note("%d of %d OPTIONS were not answered", w.OptionsSent-w.OptionsHeard, w.OptionsSent)
	}
	if w.DecodeErrors+w.VideoMissing > 0 {
		note("%d pictures could not be decoded, %d packets of the mosaic are missing", w.DecodeErrors, w.VideoMissing)
	}
	return out
}

// References are other people's figures, measured elsewhere on a machine of this kind:
// one conference, 3 talkers, the rest in DTX.
const References = `For orientation, measured elsewhere on such a machine (one AMR-WB conference, 3 talkers, the rest in DTX),
CPU ms per second and leg: FreeSWITCH about 11, Asterisk about 2.5, the limit about 0.24.
`

func cell(v *float64, places int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", places, *v)
}
