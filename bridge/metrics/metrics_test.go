package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"sparkle/bridge"
	"sparkle/bridge/metrics"
	"sparkle/media/mediapb"
	"sparkle/sip"
)

type source bridge.Stats

func (s source) Stats() bridge.Stats { return bridge.Stats(s) }

func full() source {
	hist := bridge.Histogram{Counts: make([]uint64, len(bridge.SetupBounds)), Count: 3, Sum: 63 * time.Second}
	hist.Counts[2], hist.Counts[3] = 1, 1 // the third took longer than any bound
	return source{
		Conferences: map[bridge.ConferenceType]int{bridge.VideoConference: 2},
		Members:     map[bridge.MemberState]int{bridge.Idle: 5, bridge.InConference: 3},
		Legs:        map[bridge.LegKey]int{{State: bridge.Connected, Media: "video"}: 3},
		Outcomes:    map[bridge.Outcome]uint64{bridge.Busy: 4}, VideoFallback: map[string]uint64{"rejected_488": 2},
		Setup: hist, RTP: map[bridge.StreamKey]bridge.RTPCounts{"audio": {Received: 10, Sent: 20, Lost: 1, Strangers: 7}},
		VideoUp: 2, VideoDown: 1, SlowReaders: 1, MediaUp: true,
		Media: &mediapb.SnapshotReply{Engine: &mediapb.EngineStats{Ticks: 100, LateTicks: 3, LateP99Ms: 2.5, Encodes: 55, PortsFree: 900},
			Conferences: []*mediapb.ConferenceStats{{Video: &mediapb.VideoRoomStats{FramesEncoded: 8, Reduced: "size"}}, {}}},
		Attachments: []sip.AttachmentState{{Mode: "ue", State: "registered", Up: true, Ingress: sip.IngressStats{Strangers: 5, Shed: 2, Refused: 3}}, {Mode: "ue", State: "registering"}},
	}
}

func TestValues(t *testing.T) {
	want := `
# HELP sparkle_attachments_up Attachments over which calls can be placed.
# TYPE sparkle_attachments_up gauge
sparkle_attachments_up 1
# HELP sparkle_conferences Conferences by type.
# TYPE sparkle_conferences gauge
sparkle_conferences{type="audio"} 0
sparkle_conferences{type="video"} 2
# HELP sparkle_leg_setup_seconds From the call to the first ringing or answer.
# TYPE sparkle_leg_setup_seconds histogram
sparkle_leg_setup_seconds_bucket{le="0.25"} 0
sparkle_leg_setup_seconds_bucket{le="0.5"} 0
sparkle_leg_setup_seconds_bucket{le="1"} 1
sparkle_leg_setup_seconds_bucket{le="2"} 2
sparkle_leg_setup_seconds_bucket{le="3"} 2
sparkle_leg_setup_seconds_bucket{le="5"} 2
sparkle_leg_setup_seconds_bucket{le="8"} 2
sparkle_leg_setup_seconds_bucket{le="13"} 2
sparkle_leg_setup_seconds_bucket{le="20"} 2
sparkle_leg_setup_seconds_bucket{le="60"} 2
sparkle_leg_setup_seconds_bucket{le="+Inf"} 3
sparkle_leg_setup_seconds_sum 63
sparkle_leg_setup_seconds_count 3
# HELP sparkle_members Members of all rosters by state.
# TYPE sparkle_members gauge
sparkle_members{state="idle"} 5
sparkle_members{state="in_conference"} 3
sparkle_members{state="ringing"} 0
# HELP sparkle_mixer_tick_late_total Ticks that began more than 5 ms after their deadline.
# TYPE sparkle_mixer_tick_late_total counter
sparkle_mixer_tick_late_total 3
# HELP sparkle_mixer_tick_lateness_seconds How late ticks began in the last minute, as p50, p99 and max.
# TYPE sparkle_mixer_tick_lateness_seconds gauge
sparkle_mixer_tick_lateness_seconds{stat="p50"} 0
sparkle_mixer_tick_lateness_seconds{stat="p99"} 0.0025
sparkle_mixer_tick_lateness_seconds{stat="max"} 0
# HELP sparkle_rtp_packets_total RTP packets of all legs.
# TYPE sparkle_rtp_packets_total counter
sparkle_rtp_packets_total{dir="rx",kind="audio"} 10
sparkle_rtp_packets_total{dir="tx",kind="audio"} 20
# HELP sparkle_sip_dropped_total SIP messages and connections that were not taken in, by reason.
# TYPE sparkle_sip_dropped_total counter
sparkle_sip_dropped_total{reason="malformed"} 0
sparkle_sip_dropped_total{reason="misled"} 0
sparkle_sip_dropped_total{reason="overload"} 2
sparkle_sip_dropped_total{reason="stranger"} 5
sparkle_sip_dropped_total{reason="throttled"} 0
# HELP sparkle_sip_refused_total SIP requests answered before a transaction: 400, 405, 503 ...
# TYPE sparkle_sip_refused_total counter
sparkle_sip_refused_total 3
# HELP sparkle_video_fallback_total Legs that were to have video and were answered by voice, by reason.
# TYPE sparkle_video_fallback_total counter
sparkle_video_fallback_total{why="rejected_488"} 2
# HELP sparkle_video_reduced_conferences Conferences whose video gives way to CPU pressure: its rate, its size too, and off for some too.
# TYPE sparkle_video_reduced_conferences gauge
sparkle_video_reduced_conferences{how="off"} 0
sparkle_video_reduced_conferences{how="rate"} 0
sparkle_video_reduced_conferences{how="size"} 1
# HELP sparkle_video_process_starts_total Times a video process came up.
# TYPE sparkle_video_process_starts_total counter
sparkle_video_process_starts_total 2
`
	got := text(t, full())
	for line := range strings.SplitSeq(strings.TrimSpace(want), "\n") {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// text is what a scrape gets. The pedantic registry compares what was described with
// what was collected.
func text(t *testing.T, src source) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(metrics.New(src))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func TestNamesAndLabels(t *testing.T) {
	for _, src := range []source{full(), {Setup: bridge.Histogram{Counts: make([]uint64, len(bridge.SetupBounds))}}} {
		scrape := text(t, src)
		problems, err := promlint.New(strings.NewReader(scrape)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		if n := strings.Count(scrape, "\nsparkle_leg_outcomes_total{"); n != len(bridge.Outcomes()) {
			t.Errorf("%d outcomes are shown, want all %d", n, len(bridge.Outcomes()))
		}
	}
}
