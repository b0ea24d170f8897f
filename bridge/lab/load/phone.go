package load

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sparkle/media/codec/amr"
	"sparkle/media/rtp"
)

// phone is one leg's other end. The generator's thread owns it.
type phone struct {
	to   unix.RawSockaddrInet4 // the engine's port
	on   atomic.Bool           // in a call; live only
	live uint8                 // agreed payload type, 0: the codec's
	ssrc uint32
	seq  uint16
	at   int // which frame of the material comes next: of speech, or of the current silence

	talking bool
	head    [rtp.HeaderSize]byte
	rx      receiver
}

// pt is the payload type that the phone and its peer use.
func (p *phone) pt(c *Codec) uint8 {
	if p.live != 0 {
		return p.live
	}
	return c.pt
}

// next makes the header of frame n and returns the payload; nil: nothing is sent now. Who
// begins to talk does so with frame from of the speech.
func (p *phone) next(c *Codec, m *material, n uint32, talk bool, from int) []byte {
	first := talk != p.talking
	if first {
		p.talking = talk
		p.at = 0
		if talk {
			p.at = from
		}
	}
	var body []byte
	if talk {
		body = m.speech[p.at%len(m.speech)]
	} else {
		body = m.quiet(p.at)
	}
	p.at++
	if body == nil {
		return nil
	}
	p.seq++
	rtp.PutHeader(p.head[:], first && talk, p.pt(c), p.seq, n*c.step, p.ssrc)
	return body
}

// receiver judges what one leg is sent.
type receiver struct {
	seen   bool
	speech bool // the last frame was
	loud   bool // and loud
	gains  amr.Loudness
	seq    uint16
	ts     uint32
	time   int64 // ts, unwrapped, in ns since the first packet
	base   int64 // earliest arrival - time
	last   int64 // arrival
	armed  bool  // waits for the first speech after an onset

	frames, missing, lost, late, reordered uint64 // in the window
	gaps                                   uint64 // runs of missing frames
	modes                                  uint16 // of AMR-WB, a bit each
	delays                                 int    // onsets that were timed
	delaySum, delayMax                     int64  // ns
}

// verdict on one packet.
type verdict struct {
	spread int64 // ns after the leg's schedule; -1: none, as it is late itself or the first
	speech bool
	loud   bool
	ok     bool
}

// loudLevel tells the talkers' speech from the others' noise, dBov.
const loudLevel = -45

// lateLimit is when a frame comes too late: another should be playing.
const lateLimit = int64(frameTime)

// take judges a packet that arrived at an instant (ns); count says whether it is in the
// window.
func (r *receiver) take(c *Codec, pt uint8, b []byte, at int64, count bool) verdict {
	if len(b) < rtp.HeaderSize || b[0] != 0x80 || b[1]&0x7f != pt {
		return verdict{}
	}
	seq, ts := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:])
	v := verdict{speech: c.speech(b[rtp.HeaderSize:]), ok: true, spread: -1}
	v.loud = v.speech && c.level(&r.gains, b[rtp.HeaderSize:]) > loudLevel
	if !r.seen {
		r.seen, r.base = true, at
	} else {
		step := int16(seq - r.seq)
		if step <= 0 {
			if count {
				r.reordered++
			}
			return v
		}
		gap := int64(int32(ts-r.ts)) / int64(c.step)
		if count && step > 1 {
			r.lost += uint64(step - 1)
		}
		switch {
		case !count:
		case r.speech && gap > 1: // comfort noise would have said that silence begins
			r.missing += uint64(gap - 1)
			r.gaps++
		case step > 1:
			r.missing += uint64(step - 1)
			r.gaps++
		}
		r.time += int64(int32(ts-r.ts)) * 1e9 / int64(c.rate)
		spread := at - r.time - r.base
		if spread < 0 {
			r.base, spread = at-r.time, 0
		}
		v.spread = spread
		if count && spread > lateLimit {
			r.late++
		}
	}
	if count {
		r.frames++
		if ft, ok := frameType(b[rtp.HeaderSize:]); ok && c.amr() && v.speech {
			r.modes |= 1 << ft
		}
	}
	r.seq, r.ts, r.speech, r.loud, r.last = seq, ts, v.speech, v.loud, at
	return v
}

// finish ends the window of n frames at an instant: what should have come and did not.
func (r *receiver) finish(n int, at int64) {
	if !r.seen || r.frames == 0 {
		r.missing += uint64(n)
		r.gaps++
		return
	}
	if gap := (at - r.last) / int64(frameTime); r.speech && gap > 3 {
		r.missing += uint64(gap - 2)
		r.gaps++
	}
}
