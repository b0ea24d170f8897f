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
// timestamps of the last presses, so that a late repeat is none.
type Receiver struct {
	seen [4]uint32
	n    int
}

// Take gives the digit of a packet stamped ts, if this is the first packet of its press:
// the start or, if those were lost, any repeat or the end.
func (r *Receiver) Take(ts uint32, p []byte) (Event, bool, error) {
	e, err := Parse(p)
	if err != nil {
		return e, false, err
	}
	for i := range min(r.n, len(r.seen)) {
		if r.seen[i] == ts {
			return e, false, nil
		}
	}
	r.seen[r.n%len(r.seen)] = ts
	r.n++
	if r.n == 1<<30 {
		r.n = len(r.seen)
	}
	return e, true, nil
}
