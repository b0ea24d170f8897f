package rtp

import "time"

// Source keeps the statistics of one incoming stream (RFC 3550 A.1, A.3, A.8). It has no
// clock: the reader passes the arrival in, counted from any fixed point. The zero value
// with Clock set is ready. It is not safe for concurrent use.
type Source struct {
	Clock int // RTP clock, Hz

	valid    bool
	SSRC     uint32
	maxSeq   uint16
	cycles   uint32
	baseSeq  uint32
	badSeq   uint32
	Received uint64 // packets of this SSRC

	jitter  float64 // in clock ticks
	transit uint32
	haveT   bool

	expectedPrior, receivedPrior uint64 // of the last report
	window                       [5]struct{ expected, received uint64 }
	windowAt                     time.Duration
	windowN                      int

	lastSR   uint32 // middle 32 bits of the NTP time of the last SR
	lastSRAt time.Duration
	haveSR   bool
	srNTP    uint64
	srTime   uint32
	lostBase uint64 // losses of SSRCs before this one

	rival    uint32 // another SSRC that sent the last packet, and what it would send next
	rivalSeq uint16
	hasRival bool
}

// RFC 3550 A.1.
const (
	maxDropout  = 3000
	maxMisorder = 100
	seqMod      = 1 << 16
)

// Verdict of Add.
type Verdict uint8

const (
	OK        Verdict = iota
	Restarted         // a new SSRC or a new sequence: what was buffered is of another stream
	Rejected          // a wild jump or a foreign SSRC, once: wait whether it goes on like that
)

// Add accounts for a packet.
func (s *Source) Add(p *Packet, at time.Duration) Verdict {
	v := s.count(p)
	if v != Rejected {
		s.Received++
		s.observe(p.Timestamp, at)
		s.roll(at)
	}
	return v
}

// AddEvent accounts for a packet of the stream whose timestamp stands still, a
// telephone-event's: it has a sequence number but says nothing of jitter.
func (s *Source) AddEvent(p *Packet, at time.Duration) Verdict {
	v := s.count(p)
	if v != Rejected {
		s.Received++
		s.roll(at)
	}
	return v
}

func (s *Source) count(p *Packet) Verdict {
	v := OK
	if !s.valid {
		s.restart(p.SSRC, p.Seq)
	} else if p.SSRC != s.SSRC {
		// A new source has to send two packets in a row, as RFC 3550 A.1 asks of any: of
		// two that send at once, one goes on being heard and not neither.
		if !s.hasRival || s.rival != p.SSRC || s.rivalSeq != p.Seq {
			s.rival, s.rivalSeq, s.hasRival = p.SSRC, p.Seq+1, true
			return Rejected
		}
		v = Restarted
		s.lostBase += s.lost()
		s.restart(p.SSRC, p.Seq)
	} else {
		s.hasRival = false
		delta := p.Seq - s.maxSeq
		switch {
		case delta < maxDropout:
			if p.Seq < s.maxSeq {
				s.cycles += seqMod
			}
			s.maxSeq = p.Seq
		case int(delta) <= seqMod-maxMisorder:
			if uint32(p.Seq) != s.badSeq {
				s.badSeq = (uint32(p.Seq) + 1) & (seqMod - 1)
				return Rejected
			}
			s.lostBase += s.lost()
			s.restart(p.SSRC, p.Seq) // two in a row: the sender restarted
			v = Restarted
		}
	}
	return v
}

func (s *Source) restart(ssrc uint32, seq uint16) {
	s.valid, s.SSRC, s.maxSeq, s.cycles, s.baseSeq, s.badSeq = true, ssrc, seq, 0, uint32(seq), seqMod+1
	s.Received, s.expectedPrior, s.receivedPrior = 0, 0, 0
	s.haveT, s.haveSR, s.windowN, s.hasRival = false, false, 0, false
}

func (s *Source) observe(ts uint32, at time.Duration) {
	arrival := uint32(int64(at) * int64(s.Clock) / int64(time.Second))
	transit := arrival - ts
	if s.haveT {
		d := int32(transit - s.transit)
		if d < 0 {
			d = -d
		}
		if int(d) < 10*s.Clock { // a jump of the timestamp is no jitter
			s.jitter += (float64(d) - s.jitter) / 16
		}
	}
	s.transit, s.haveT = transit, true
}

func (s *Source) expected() uint64 {
	if !s.valid {
		return 0
	}
	return uint64(s.cycles+uint32(s.maxSeq)-s.baseSeq) + 1
}

func (s *Source) lost() uint64 {
	if e := s.expected(); e > s.Received {
		return e - s.Received
	}
	return 0 // duplicates
}

// Lost is how many packets never came, over all SSRCs.
func (s *Source) Lost() uint64 { return s.lostBase + s.lost() }

// Jitter is the interarrival jitter.
func (s *Source) Jitter() time.Duration {
	if s.Clock == 0 {
		return 0
	}
	return time.Duration(s.jitter / float64(s.Clock) * float64(time.Second))
}

// roll keeps one count a second for the last five.
func (s *Source) roll(at time.Duration) {
	if s.windowN == 0 {
		for i := range s.window {
			s.window[i].expected, s.window[i].received = s.expected(), s.Received
		}
		s.windowN, s.windowAt = 1, at
		return
	}
	for n := 0; at-s.windowAt >= time.Second; n++ {
		if n == len(s.window) {
			s.windowAt = at
			return
		}
		copy(s.window[1:], s.window[:len(s.window)-1])
		s.window[0].expected, s.window[0].received = s.expected(), s.Received
		s.windowAt += time.Second
	}
}

// Recent is how many packets the last 5 s should have brought, and how many of them did
// not come.
func (s *Source) Recent() (lost, expected uint64) {
	old := s.window[len(s.window)-1]
	expected, received := s.expected()-old.expected, s.Received-old.received
	if received >= expected || expected > 1<<40 {
		return 0, expected
	}
	return expected - received, expected
}

// Loss is the share of packets lost in the last 5 s, 0..1.
func (s *Source) Loss() float64 {
	old := s.window[len(s.window)-1]
	return share(s.expected()-old.expected, s.Received-old.received)
}

func share(expected, received uint64) float64 {
	if expected == 0 || received >= expected || expected > 1<<40 {
		return 0
	}
	return float64(expected-received) / float64(expected)
}

// OnSR notes a sender report: for LSR and DLSR, and which instant of the peer's wall clock is
// the RTP time ts.
func (s *Source) OnSR(ssrc uint32, ntp uint64, ts uint32, at time.Duration) {
	if s.valid && ssrc == s.SSRC {
		s.lastSR, s.lastSRAt, s.haveSR = uint32(ntp>>16), at, true
		s.srNTP, s.srTime = ntp, ts
	}
}

// Reported is what the stream's last sender report said: a wall-clock time of the peer and the
// RTP time of the same instant. False: there was none, or its sender has no wall clock (0, RFC
// 3550 §6.4.1).
func (s *Source) Reported() (ntp uint64, ts uint32, ok bool) {
	return s.srNTP, s.srTime, s.haveSR && s.srNTP != 0
}
