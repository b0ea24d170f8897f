package rtp264

// Caps on what a peer can make us keep (RELIABILITY §2 row 19).
const (
	MaxNAL        = 2 << 20 // octets of one NAL unit
	MaxAccessUnit = 4 << 20 // octets of one access unit
	maxNALs       = 1024    // NAL units of one access unit
)

// AccessUnit is one picture as it came out of RTP.
type AccessUnit struct {
	// Data is the picture in Annex B form. It is the Depacketizer's and valid until
	// the next Push or Flush.
	Data      []byte
	Timestamp uint32 // RTP, 90 kHz
	Key       bool   // has an IDR slice
	// Damaged: packets were lost or refused inside or right before this unit, so it,
	// and what is predicted from it, may be wrong until the next key frame.
	Damaged bool
}

// Stats counts what a Depacketizer did.
type Stats struct {
	Units   uint64 // access units put out
	Lost    uint64 // packets missing by sequence number
	Refused uint64 // packets or units inside them that RFC 6184 or our limits forbid
}

// Depacketizer turns RTP payloads, in sequence order, into access units. Single NAL
// unit packets, STAP-A and FU-A are read; STAP-B, MTAP and FU-B belong to
// packetization-mode 2 and are refused. A unit ends at the marker bit or, since
// some phones never set it, where the timestamp changes. The zero value is ready.
// It is not safe for concurrent use and keeps its buffers across units.
type Depacketizer struct {
	Stats Stats
	// SPS is the last good sequence parameter set seen.
	SPS SPS

	au      []byte // the unit being built
	out     []byte // the unit put out last
	nals    int
	key     bool
	damaged bool
	ts      uint32
	seq     uint16
	started bool

	fu     []byte // the fragmented NAL unit being built, with header
	inFU   bool
	fuType byte
}

// Push takes the payload of one packet and calls emit for every access unit that
// it completes: none, one, or two (when the timestamp changes and the marker is
// set). The unit is valid inside the call only. A packet that repeats the last
// sequence number or goes back is refused: reorder before (Reorder).
func (d *Depacketizer) Push(payload []byte, seq uint16, ts uint32, marker bool, emit func(AccessUnit)) {
	if d.started {
		switch gap := seq - d.seq; {
		case gap == 0 || gap >= 0x8000:
			d.Stats.Refused++
			return
		case gap > 1:
			d.Stats.Lost += uint64(gap - 1)
			d.dropFragment()
			if ts != d.ts && d.nals > 0 {
				// The end of the old unit is gone: what we have of it may still be shown.
				d.damaged = true
				d.flush(emit)
			}
			d.damaged = true
		}
	}
	if d.started && ts != d.ts {
		d.flush(emit)
	}
	d.started, d.seq, d.ts = true, seq, ts
	d.take(payload)
	if marker {
		d.flush(emit)
	}
}

// Flush puts out what has been gathered, as when a stream ends.
func (d *Depacketizer) Flush(emit func(AccessUnit)) { d.flush(emit) }

// Reset forgets everything but the counters: another source begins.
func (d *Depacketizer) Reset() {
	*d = Depacketizer{Stats: d.Stats, au: d.au[:0], out: d.out[:0], fu: d.fu[:0]}
}

func (d *Depacketizer) flush(emit func(AccessUnit)) {
	if d.inFU { // a fragment without its end
		d.dropFragment()
		d.damaged = true
	}
	if d.nals > 0 {
		d.Stats.Units++
		d.au, d.out = d.out[:0], d.au
		damaged := d.damaged
		d.damaged = false
		key := d.key
		d.nals, d.key = 0, false
		emit(AccessUnit{Data: d.out, Timestamp: d.ts, Key: key, Damaged: damaged})
		return
	}
	d.au, d.nals, d.key = d.au[:0], 0, false
}

// take reads one payload; the packet has to be looked at by its type (RFC 6184 §5.2).
func (d *Depacketizer) take(p []byte) {
	if len(p) < 2 || p[0]&0x80 != 0 { // a NAL unit has a header and something; F is never set
		d.refuse()
		return
	}
	t := p[0] & 0x1f
	if d.inFU && t != typeFUA {
		d.dropFragment()
		d.damaged = true
	}
	switch {
	case t >= 1 && t <= 23:
		d.add(p)
	case t == typeSTAPA:
		d.stapA(p[1:])
	case t == typeFUA:
		d.fuA(p)
	default:
		d.refuse()
	}
}

func (d *Depacketizer) refuse() {
	d.Stats.Refused++
	d.damaged = true
	d.dropFragment()
}

func (d *Depacketizer) dropFragment() { d.fu, d.inFU = d.fu[:0], false }

// stapA reads an aggregation packet (RFC 6184 §5.7.1). It is taken whole or, from
// the first fault on, not at all: what follows a wrong length is noise.
func (d *Depacketizer) stapA(p []byte) {
	for len(p) > 0 {
		if len(p) < 2 {
			d.refuse()
			return
		}
		n := int(p[0])<<8 | int(p[1])
		p = p[2:]
		if n == 0 || n > len(p) || p[0]&0x80 != 0 || p[0]&0x1f == 0 || p[0]&0x1f > 23 {
			d.refuse()
			return
		}
		d.add(p[:n])
		p = p[n:]
	}
}

// fuA reads a fragment (RFC 6184 §5.8).
func (d *Depacketizer) fuA(p []byte) {
	if len(p) < 3 {
		d.refuse()
		return
	}
	start, end, t := p[1]&0x80 != 0, p[1]&0x40 != 0, p[1]&0x1f
	if start && end || t == 0 || t > 23 {
		d.refuse()
		return
	}
	switch {
	case start:
		if d.inFU { // the one before never ended
			d.Stats.Refused++
			d.damaged = true
		}
		d.fu = append(d.fu[:0], p[0]&0xe0|t)
		d.inFU, d.fuType = true, t
	case !d.inFU: // its start was lost: counted there
		d.Stats.Refused++
		d.damaged = true
		return
	case t != d.fuType:
		d.refuse()
		return
	}
	if len(d.fu)+len(p)-2 > MaxNAL {
		d.refuse()
		return
	}
	d.fu = append(d.fu, p[2:]...)
	if end {
		d.add(d.fu)
		d.dropFragment()
	}
}

// add takes one whole NAL unit into the access unit.
func (d *Depacketizer) add(nal []byte) {
	if len(nal) > MaxNAL || len(d.au)+len(nal)+len(startCode) > MaxAccessUnit || d.nals >= maxNALs {
		d.refuse()
		return
	}
	switch nal[0] & 0x1f {
	case TypeSlice, 2, 3, 4, TypePPS:
	case TypeIDR:
		d.key = true
	case TypeSPS:
		s, err := ParseSPS(nal)
		if err != nil {
			d.refuse()
			return
		}
		d.SPS = s
	default: // SEI, AUD, end of sequence, auxiliary pictures: no decoder of ours needs them
		return
	}
	// A start code inside a unit (a sender that forgot to strip them) would smuggle
	// in units that nobody looked at.
	if hidden(nal) {
		d.refuse()
		return
	}
	d.au = append(append(d.au, startCode...), nal...)
	d.nals++
}

// hidden says whether a NAL unit has a start code in it, which emulation
// prevention (H.264 §7.4.1) rules out.
func hidden(nal []byte) bool { return next(nal, 0) >= 0 }
