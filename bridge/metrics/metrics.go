// Package metrics shows the bridge to Prometheus. It reads one snapshot a scrape; the
// bridge owns plain counters and knows nothing of Prometheus. No label ever holds a
// number, a name or an id.
package metrics

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"sparkle/bridge"
	"sparkle/sip"
)

// Source is what is shown; *bridge.Bridge has it.
type Source interface{ Stats() bridge.Stats }

// New is a collector of src for a registry.
func New(src Source) prometheus.Collector { return collector{src} }

type collector struct{ src Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sparkle_"+name, help, labels, nil)
}

var (
	build         = desc("build_info", "Always 1; the labels say what runs.", "version", "go")
	conferences   = desc("conferences", "Conferences by type.", "type")
	members       = desc("members", "Members of all rosters by state.", "state")
	legs          = desc("legs", "Live legs by state and negotiated media.", "state", "media")
	outcomes      = desc("leg_outcomes_total", "Ended legs by outcome.", "outcome")
	setup         = desc("leg_setup_seconds", "From the call to the first ringing or answer.")
	fallback      = desc("video_fallback_total", "Legs that were to have video and were answered by voice, by reason.", "why")
	rtpPackets    = desc("rtp_packets_total", "RTP packets of all legs.", "dir", "kind")
	rtpLost       = desc("rtp_lost_packets_total", "RTP packets of phones that never came.", "kind")
	rtpStrangers  = desc("rtp_stranger_packets_total", "Packets from addresses that signalling did not name.", "kind")
	mediaUp       = desc("media_up", "1 while the media engine runs.")
	ticks         = desc("mixer_ticks_total", "Mixer ticks since the engine started.")
	tickLate      = desc("mixer_tick_late_total", "Ticks that began more than 5 ms after their deadline.")
	tickSkipped   = desc("mixer_tick_skipped_total", "Ticks that were skipped.")
	tickLateness  = desc("mixer_tick_lateness_seconds", "How late ticks began in the last minute, as p50, p99 and max.", "stat")
	encodes       = desc("audio_encodes_total", "Audio frames encoded.")
	encodesSaved  = desc("audio_encodes_saved_total", "Audio frames that another leg's encoding served.")
	decodes       = desc("audio_decodes_total", "Audio frames decoded.")
	composed      = desc("video_frames_composed", "Frames composed by the running video processes.")
	encoded       = desc("video_frames_encoded", "Frames encoded by the running video processes.")
	reduced       = desc("video_reduced_conferences", "Conferences whose video gives way to CPU pressure: its rate, its size too, and off for some too.", "how")
	videoRestarts = desc("video_process_starts_total", "Times a video process came up.")
	videoDeaths   = desc("video_process_deaths_total", "Times a video process went down.")
	portsFree     = desc("media_ports_free", "Media ports that can still be reserved.")
	attachments   = desc("attachments", "Attachments by mode and state.", "mode", "state")
	attachmentsUp = desc("attachments_up", "Attachments over which calls can be placed.")
	sipDropped    = desc("sip_dropped_total", "SIP messages and connections that were not taken in, by reason.", "reason")
	sipRefused    = desc("sip_refused_total", "SIP requests answered before a transaction: 400, 405, 503 ...")
	sipHeld       = desc("sip_held_total", "Reads of SIP connections made to wait for their peer's rate.")
	sipPassed     = desc("sip_passed_total", "SIP requests over ISC that were for nobody here, sent on to the core.")
	sipFaults     = desc("sip_faults_total", "Faults of ours in SIP handling, each the end of one message, call or subscription.")
	faults        = desc("faults_total", "Faults of ours elsewhere than in SIP handling, each the end of one job, leg or request.")
	slowReaders   = desc("event_slow_readers_total", "Event streams closed because their reader was too slow.")
)

var all = []*prometheus.Desc{build, conferences, members, legs, outcomes, setup, fallback, rtpPackets, rtpLost, rtpStrangers,
	mediaUp, ticks, tickLate, tickSkipped, tickLateness, encodes, encodesSaved, decodes, composed, encoded, reduced, videoRestarts,
	videoDeaths, portsFree, attachments, attachmentsUp, sipDropped, sipRefused, sipHeld, sipPassed, sipFaults, faults, slowReaders}

// Describe names every metric.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect reads one snapshot. States that nobody is in are shown as 0, so that a graph
// has no holes.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.src.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(build, 1, version(), runtime.Version())
	for _, t := range []bridge.ConferenceType{bridge.VideoConference, bridge.AudioConference} {
		gauge(conferences, float64(s.Conferences[t]), string(t))
	}
	for _, m := range []bridge.MemberState{bridge.Idle, bridge.MemberRings, bridge.InConference} {
		gauge(members, float64(s.Members[m]), string(m))
	}
	for _, state := range []bridge.LegState{bridge.Dialing, bridge.Ringing, bridge.EarlyMedia, bridge.Connected, bridge.Held} {
		for _, media := range []string{"none", "audio", "video"} {
			gauge(legs, float64(s.Legs[bridge.LegKey{State: state, Media: media}]), string(state), media)
		}
	}
	for _, o := range bridge.Outcomes() {
		count(outcomes, s.Outcomes[o], string(o))
	}
	for why, n := range s.VideoFallback {
		count(fallback, n, why)
	}
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range bridge.SetupBounds {
		sum += s.Setup.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	ch <- prometheus.MustNewConstHistogram(setup, s.Setup.Count, s.Setup.Sum.Seconds(), buckets)
	for kind, n := range s.RTP {
		count(rtpPackets, n.Received, "rx", string(kind))
		count(rtpPackets, n.Sent, "tx", string(kind))
		count(rtpLost, n.Lost, string(kind))
		count(rtpStrangers, n.Strangers, string(kind))
	}
	up := 0.0
	if s.MediaUp {
		up = 1
	}
	gauge(mediaUp, up)
	count(videoRestarts, s.VideoUp)
	count(videoDeaths, s.VideoDown)
	count(slowReaders, s.SlowReaders)
	c.engine(s, gauge, count)
	states, ups := map[[2]string]int{}, 0
	var in sip.IngressStats
	for _, a := range s.Attachments {
		states[[2]string{a.Mode, a.State}]++
		in = in.Add(a.Ingress)
		if a.Up {
			ups++
		}
	}
	for k, n := range states {
		gauge(attachments, float64(n), k[0], k[1])
	}
	gauge(attachmentsUp, float64(ups))
	for reason, n := range map[string]uint64{"stranger": in.Strangers, "throttled": in.Throttled, "malformed": in.Malformed,
		"overload": in.Shed, "misled": in.Misled} {
		count(sipDropped, n, reason)
	}
	count(sipRefused, in.Refused)
	count(sipHeld, in.Held)
	count(sipPassed, in.Passed)
	count(sipFaults, in.Faults)
	count(faults, s.Faults)
}

// engine shows the engine's newest snapshot, if there was one.
func (c collector) engine(s bridge.Stats, gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	if e := s.Media.GetEngine(); e != nil {
		count(ticks, e.Ticks)
		count(tickLate, e.LateTicks)
		count(tickSkipped, e.SkippedTicks)
		gauge(tickLateness, float64(e.LateP50Ms)/1000, "p50")
		gauge(tickLateness, float64(e.LateP99Ms)/1000, "p99")
		gauge(tickLateness, float64(e.LateMaxMs)/1000, "max")
		count(encodes, e.Encodes)
		count(encodesSaved, e.SharedEncodesSaved)
		count(decodes, e.Decodes)
		gauge(portsFree, float64(e.PortsFree))
	}
	var nComposed, nEncoded uint64
	how := map[string]int{"rate": 0, "size": 0, "off": 0}
	for _, conf := range s.Media.GetConferences() {
		nComposed += conf.GetVideo().GetFramesComposed()
		nEncoded += conf.GetVideo().GetFramesEncoded()
		if r := conf.GetVideo().GetReduced(); r != "" {
			how[r]++
		}
	}
	for r, n := range how {
		gauge(reduced, float64(n), r)
	}
	gauge(composed, float64(nComposed))
	gauge(encoded, float64(nEncoded))
}

// version is the module's version or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, kv := range info.Settings {
		if kv.Key == "vcs.revision" && len(kv.Value) >= 12 {
			return kv.Value[:12]
		}
	}
	return info.Main.Version
}
