package video

import (
	"math"
	"time"
)

// meter counts one RTP stream as RFC 3550 A.1, A.3 and A.8 have it. Its owner passes
// the time in. The zero value is ready.
type meter struct {
	received uint64
	jitter   float64 // in RTP ticks
	gone     uint64  // lost in streams before reset

	started       bool
	base, max     uint16
	cycles        uint32
	seen          uint64 // since base
	transit       float64
	first         time.Time
	priorExpected uint64
	priorSeen     uint64
	window        [6]sample // one a second, for the loss of the last 5 s
}

type sample struct {
	second         int64
	expected, seen uint64
}

// add takes a packet that arrived at now. Late and repeated ones count as received
// (RFC 3550 A.3).
func (m *meter) add(seq uint16, ts uint32, now time.Time) {
	m.received++
	m.seen++
	if !m.started {
		m.started, m.base, m.max, m.first = true, seq, seq, now
		m.transit = -float64(ts)
		m.sample(now)
		return
	}
	if d := seq - m.max; d < 0x8000 && d != 0 {
		if seq < m.max {
			m.cycles += 1 << 16
		}
		m.max = seq
	}
	// Arrival in ticks minus timestamp; the difference of two of these is small, also
	// when the timestamp wraps.
	transit := now.Sub(m.first).Seconds()*videoClock - float64(ts)
	d := math.Remainder(transit-m.transit, 1<<32)
	m.transit = transit
	m.jitter += (math.Abs(d) - m.jitter) / 16
	m.sample(now)
}

func (m *meter) expected() uint64 {
	if !m.started {
		return 0
	}
	return uint64(m.cycles) + uint64(m.max) - uint64(m.base) + 1
}

// sample keeps where we were at the beginning of each second.
func (m *meter) sample(now time.Time) {
	second := now.Unix()
	s := &m.window[second%int64(len(m.window))]
	if s.second != second {
		*s = sample{second, m.expected(), m.seen}
	}
}

// lost is all packets that never came, never negative.
func (m *meter) lost() uint64 {
	if e := m.expected(); e > m.seen {
		return m.gone + e - m.seen
	}
	return m.gone
}

// highest is the extended highest sequence number.
func (m *meter) highest() uint32 { return m.cycles + uint32(m.max) }

// fraction is the loss since the last call, of 256 (RFC 3550 A.3).
func (m *meter) fraction() uint8 {
	e, s := m.expected(), m.seen
	de, ds := e-m.priorExpected, s-m.priorSeen
	m.priorExpected, m.priorSeen = e, s
	if de == 0 || ds >= de {
		return 0
	}
	return uint8(min((de-ds)<<8/de, 255))
}

// recent is the share of packets lost in the last 5 s, 0 to 1.
func (m *meter) recent(now time.Time) float32 {
	oldest := sample{second: -1}
	for _, s := range m.window {
		if s.second > now.Unix()-6 && s.second != 0 && (oldest.second < 0 || s.second < oldest.second) {
			oldest = s
		}
	}
	if oldest.second < 0 {
		return 0
	}
	de, ds := m.expected()-oldest.expected, m.seen-oldest.seen
	if de == 0 || ds >= de {
		return 0
	}
	return float32(de-ds) / float32(de)
}

// reset begins another stream; what was counted stays counted.
func (m *meter) reset() {
	*m = meter{received: m.received, gone: m.lost()}
}
