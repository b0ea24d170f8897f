package media

import (
	"encoding/binary"
	"time"
)

// rtpHeader is what the engine needs of a packet's header (RFC 3550 §5.1).
type rtpHeader struct {
	marker bool
	pt     uint8
	seq    uint16
	ts     uint32
	ssrc   uint32
}

// parseRTP splits a packet, checking CSRCs, extension and padding against its length.
func parseRTP(b []byte) (h rtpHeader, body []byte, ok bool) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return h, nil, false
	}
	h = rtpHeader{
		marker: b[1]&0x80 != 0, pt: b[1] & 0x7f, seq: binary.BigEndian.Uint16(b[2:]),
		ts: binary.BigEndian.Uint32(b[4:]), ssrc: binary.BigEndian.Uint32(b[8:]),
	}
	n := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return h, nil, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	end := len(b)
	if b[0]&0x20 != 0 {
		pad := int(b[end-1])
		if pad == 0 {
			return h, nil, false
		}
		end -= pad
	}
	if n > end {
		return h, nil, false
	}
	return h, b[n:end], true
}

// lossWindow is how far back recentLoss looks.
const lossWindow = 5 * time.Second

// receiver keeps the statistics of what one leg sends (RFC 3550 A.1, A.3, A.8).
type receiver struct {
	have      bool
	ssrc      uint32
	rate      int
	maxSeq    uint16
	cycles    uint32
	base      uint32
	got       uint64 // of this source, duplicates included
	total     uint64 // of all sources
	lostOld   uint64 // of earlier sources
	bad       uint16 // the sequence number a restarted source would use next
	badSet    bool
	transit   int64
	jitter    float64 // RTP clock ticks
	prevExp   uint64
	prevGot   uint64
	windowAt  time.Duration
	winExp    uint64
	winGot    uint64
	winLoss   float32
	hasWindow bool
}

func (r *receiver) reset(rate int) {
	r.lostOld = r.lostNow()
	*r = receiver{rate: rate, total: r.total, lostOld: r.lostOld}
}

func (r *receiver) start(ssrc uint32, seq uint16, at time.Duration) {
	r.lostOld = r.lostNow()
	*r = receiver{rate: r.rate, total: r.total, lostOld: r.lostOld, have: true, ssrc: ssrc,
		maxSeq: seq, base: uint32(seq), windowAt: at, transit: -1}
}

// packet accounts for one; it says whether a new source has begun, whose timestamps
// have nothing to do with the old ones.
func (r *receiver) packet(h rtpHeader, at time.Duration) (fresh bool) {
	r.total++
	if !r.have || r.ssrc != h.ssrc {
		fresh = r.have
		r.start(h.ssrc, h.seq, at)
	}
	switch d := h.seq - r.maxSeq; {
	case d < 3000:
		if h.seq < r.maxSeq {
			r.cycles += 1 << 16
		}
		r.maxSeq, r.badSet = h.seq, false
	case d <= 65535-100:
		// A jump: believed when the next packet follows it (RFC 3550 A.1).
		if !r.badSet || h.seq != r.bad {
			r.bad, r.badSet = h.seq+1, true
			return fresh
		}
		r.start(h.ssrc, h.seq, at)
	}
	r.got++
	arrival := int64(at) * int64(r.rate) / int64(time.Second)
	transit := arrival - int64(h.ts)
	if r.transit != -1 {
		d := int64(int32(transit - r.transit))
		if d < 0 {
			d = -d
		}
		r.jitter += (float64(d) - r.jitter) / 16
	}
	r.transit = transit
	if at-r.windowAt >= lossWindow {
		exp := r.expected()
		r.winLoss = lossOf(exp-r.winExp, r.got-r.winGot)
		r.winExp, r.winGot, r.windowAt, r.hasWindow = exp, r.got, at, true
	}
	return fresh
}

func lossOf(expected, got uint64) float32 {
	if expected == 0 || got >= expected {
		return 0
	}
	return float32(expected-got) / float32(expected)
}

func (r *receiver) highest() uint32 { return r.cycles + uint32(r.maxSeq) }

func (r *receiver) expected() uint64 {
	if !r.have {
		return 0
	}
	return uint64(r.highest()-r.base) + 1
}

func (r *receiver) lostNow() uint64 {
	if exp := r.expected(); exp > r.got {
		return r.lostOld + exp - r.got
	}
	return r.lostOld
}

// recentLoss is that of the last full window, or of the first one so far.
func (r *receiver) recentLoss() float32 {
	if r.hasWindow {
		return r.winLoss
	}
	return lossOf(r.expected(), r.got)
}

func (r *receiver) jitterTime() time.Duration {
	if r.rate == 0 {
		return 0
	}
	return time.Duration(r.jitter / float64(r.rate) * float64(time.Second))
}

// report gives the fields of a report block: fraction lost since the last report, and
// cumulative, 24 bits signed.
func (r *receiver) report() (fraction uint8, lost int32) {
	exp := r.expected()
	dExp, dGot := exp-r.prevExp, r.got-r.prevGot
	r.prevExp, r.prevGot = exp, r.got
	if dExp > 0 && dGot < dExp {
		fraction = uint8(min((dExp-dGot)<<8/dExp, 255))
	}
	return fraction, int32(min(max(int64(exp)-int64(r.got), -1<<23), 1<<23-1))
}
