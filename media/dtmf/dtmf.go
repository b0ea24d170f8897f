// Package dtmf reads and writes telephone-events (RFC 4733): the keys of a phone in RTP.
package dtmf

import "errors"

// Errors of a payload that is no key.
var (
	ErrShort = errors.New("dtmf: payload is shorter than four octets")
	ErrEvent = errors.New("dtmf: event is no key")
)

// Size of a payload.
const Size = 4

const keys = "0123456789*#ABCD"

// Event is one payload.
type Event struct {
	Digit    byte // one of 0-9 * # A-D
	End      bool
	Volume   uint8  // -dBm0, 0..63
	Duration uint16 // in RTP clock ticks since its timestamp
}

// Parse reads a payload. Events above 15 (tones, flash) are refused.
func Parse(p []byte) (Event, error) {
	if len(p) < Size {
		return Event{}, ErrShort
	}
	if int(p[0]) >= len(keys) {
		return Event{}, ErrEvent
	}
	return Event{Digit: keys[p[0]], End: p[1]&0x80 != 0, Volume: p[1] & 0x3f, Duration: uint16(p[2])<<8 | uint16(p[3])}, nil
}

// Put writes e into dst (at least Size) and returns the length, 0 for a digit that is none.
func Put(dst []byte, e Event) int {
	for i := range len(keys) {
		if keys[i] == e.Digit {
			dst[0], dst[1] = byte(i), e.Volume&0x3f
			if e.End {
				dst[1] |= 0x80
			}
			dst[2], dst[3] = byte(e.Duration>>8), byte(e.Duration)
			return Size
		}
	}
	return 0
}

// Receiver makes one digit of the many packets that a key press is. It holds the
// timestamps of the last presses, so that a late repeat is none. It is not safe for
// concurrent use.
type Receiver struct {
	seen [4]press
	n    int // presses so far, at most 2·len(seen)
}

type press struct {
	ts   uint32
	last Event // the longest so far
}

// segment is a duration after which a key that is still held goes on under a new
// timestamp (RFC 4733 §2.5.1.3): 16 bits are full. At 16 kHz that is after 4 s.
const segment = 0xff00

// Take gives the digit of a packet stamped ts, if this is the first packet of its press:
// the start or, if those were lost, any repeat or the end. A repeat gives false, and its
// Event the longest duration so far.
func (r *Receiver) Take(ts uint32, p []byte) (Event, bool, error) {
	e, err := Parse(p)
	if err != nil {
		return e, false, err
	}
	for i := range min(r.n, len(r.seen)) {
		old := &r.seen[i]
		if old.ts == ts {
			if e.Duration > old.last.Duration {
				old.last.Duration = e.Duration
			}
			old.last.End = old.last.End || e.End
			e.Duration = old.last.Duration
			return e, false, nil
		}
		if old.last.Duration >= segment && !old.last.End && e.Digit == old.last.Digit && ts-old.ts-uint32(old.last.Duration) < 0x10000-segment {
			old.ts, old.last = ts, e // the same finger is still on the key
			return e, false, nil
		}
	}
	r.seen[r.n%len(r.seen)] = press{ts, e}
	if r.n++; r.n == 2*len(r.seen) {
		r.n = len(r.seen)
	}
	return e, true, nil
}

// Press sends one key: Next makes a packet every 20 ms, all stamped with the moment the
// key went down (RFC 4733 §2.5.1.2 and §2.5.1.4: the end three times).
type Press struct {
	Digit  byte   // 0-9 * # A-D
	Volume uint8  // -dBm0, 0..63; 10 is usual
	Step   uint16 // RTP clock ticks of 20 ms: 160 or 320
	Hold   uint16 // ticks the key is held, at least Step

	at   uint16
	ends int
}

// endRepeats is how often the last packet is sent: it carries the duration.
const endRepeats = 3

// Next writes the next payload into dst (at least Size) and returns its length: 0 when the
// press is over, or the digit is none. marker is for the RTP header of the first one.
func (p *Press) Next(dst []byte) (n int, marker bool) {
	if p.ends == endRepeats {
		return 0, false
	}
	marker = p.at == 0 && p.ends == 0
	if p.at < p.Hold {
		p.at += min(max(p.Step, 1), p.Hold-p.at)
	}
	end := p.at >= p.Hold
	if end {
		p.ends++
	}
	return Put(dst, Event{Digit: p.Digit, End: end, Volume: p.Volume, Duration: p.at}), marker
}
