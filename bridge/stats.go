package bridge

import (
	"strings"
	"sync"
	"time"

	"sparkle/bridge/fault"
	"sparkle/media/mediapb"
	"sparkle/sip"
)

// Stats is everything that metrics say of the bridge at one moment.
type Stats struct {
	Conferences   map[ConferenceType]int
	Members       map[MemberState]int
	Legs          map[LegKey]int
	Outcomes      map[Outcome]uint64
	VideoFallback map[string]uint64 // by why_no_video
	Setup         Histogram         // call to first ringing or answer
	RTP           map[StreamKey]RTPCounts
	VideoUp       uint64 // times a video process came up
	VideoDown     uint64 // times one went down
	SlowReaders   uint64 // subscriptions closed because their reader was too slow
	Faults        uint64 // panics of ours elsewhere than in SIP handling
	MediaUp       bool
	Media         *mediapb.SnapshotReply // newest, nil before the first
	Attachments   []sip.AttachmentState
}

// LegKey counts live legs. Media is "audio" or "video" as negotiated, "none" before.
type LegKey struct {
	State LegState
	Media string
}

// StreamKey is "audio" or "video".
type StreamKey string

// RTPCounts are packets of all legs, ended ones too.
type RTPCounts struct{ Received, Sent, Lost, Strangers uint64 }

// Histogram counts durations: Counts[i] were at most SetupBounds[i] and more than the
// one before.
type Histogram struct {
	Counts []uint64
	Count  uint64
	Sum    time.Duration
}

// SetupBounds are the upper bounds of Stats.Setup.
var SetupBounds = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
	3 * time.Second, 5 * time.Second, 8 * time.Second, 13 * time.Second, 20 * time.Second, 60 * time.Second}

// Stats reads the last views and counters; it waits for nobody.
func (b *Bridge) Stats() Stats {
	s := b.counts.copy()
	s.Conferences, s.Members, s.Legs = map[ConferenceType]int{}, map[MemberState]int{}, map[LegKey]int{}
	for _, r := range b.all() {
		v := r.view.Load()
		s.Conferences[v.Conference.Type]++
		for _, m := range v.Members {
			s.Members[m.State]++
		}
		for _, l := range v.legs {
			k := LegKey{State: l.State, Media: "none"}
			if l.Media.Video != nil {
				k.Media = "video"
			} else if l.Media.Audio != nil {
				k.Media = "audio"
			}
			s.Legs[k]++
		}
	}
	s.RTP = b.totals.sum()
	s.Faults = fault.Count()
	s.MediaUp = !b.mediaDown.Load()
	s.Media = b.stats.Load()
	s.Attachments = b.caller.Attachments()
	b.hub.mu.Lock()
	s.SlowReaders = b.hub.slow
	b.hub.mu.Unlock()
	return s
}

// counts are plain counters that rooms add to.
type counts struct {
	mu        sync.Mutex
	outcomes  map[Outcome]uint64
	fallbacks map[string]uint64
	hist      Histogram
	up, down  uint64
}

func newCounts() *counts {
	return &counts{outcomes: map[Outcome]uint64{}, fallbacks: map[string]uint64{}, hist: Histogram{Counts: make([]uint64, len(SetupBounds))}}
}

func (c *counts) outcome(o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[o]++
}

// fallback counts a leg that was to have video and has none. The words are few:
// package sdp's, and rejected_ with a SIP status.
func (c *counts) fallback(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fallbacks[strings.ToLower(why)]++
}

func (c *counts) setup(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hist.Count++
	c.hist.Sum += d
	for i, bound := range SetupBounds {
		if d <= bound {
			c.hist.Counts[i]++
			return
		}
	}
}

func (c *counts) videoProcess(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case "up":
		c.up++
	case "down":
		c.down++
	}
}

func (c *counts) copy() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Outcomes: map[Outcome]uint64{}, VideoFallback: map[string]uint64{}, VideoUp: c.up, VideoDown: c.down, Setup: c.hist}
	s.Setup.Counts = append([]uint64(nil), c.hist.Counts...)
	for k, v := range c.outcomes {
		s.Outcomes[k] = v
	}
	for k, v := range c.fallbacks {
		s.VideoFallback[k] = v
	}
	return s
}

// totals keeps packet counters that never fall although legs come and go: those of
// live legs by the newest snapshot, and the sum of the ended ones.
type totals struct {
	mu    sync.Mutex
	live  map[string]map[StreamKey]RTPCounts
	ended map[StreamKey]RTPCounts
}

func newTotals() *totals {
	return &totals{live: map[string]map[StreamKey]RTPCounts{}, ended: map[StreamKey]RTPCounts{}}
}

func (t *totals) open(leg string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live[leg] = map[StreamKey]RTPCounts{}
}

func (t *totals) update(legs []*mediapb.LegStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range legs {
		if _, ok := t.live[l.Id]; ok { // not of one that a snapshot from before its end still has
			t.live[l.Id] = streams(l)
		}
	}
}

// close moves a leg to the ended; last may be nil or empty, then what was known counts.
func (t *totals) close(leg string, last *mediapb.LegStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.live[leg]
	if !ok {
		return
	}
	delete(t.live, leg)
	if last.GetAudio() != nil {
		known = streams(last)
	}
	for k, c := range known {
		t.ended[k] = t.ended[k].plus(c)
	}
}

func (t *totals) sum() map[StreamKey]RTPCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[StreamKey]RTPCounts{"audio": t.ended["audio"], "video": t.ended["video"]}
	for _, l := range t.live {
		for k, c := range l {
			out[k] = out[k].plus(c)
		}
	}
	return out
}

func (c RTPCounts) plus(d RTPCounts) RTPCounts {
	return RTPCounts{c.Received + d.Received, c.Sent + d.Sent, c.Lost + d.Lost, c.Strangers + d.Strangers}
}

func streams(l *mediapb.LegStats) map[StreamKey]RTPCounts {
	of := func(s *mediapb.StreamStats) RTPCounts {
		return RTPCounts{s.GetRxPackets(), s.GetTxPackets(), s.GetRxLost(), s.GetRxStranger()}
	}
	return map[StreamKey]RTPCounts{"audio": of(l.Audio), "video": of(l.Video)}
}
