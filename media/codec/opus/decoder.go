package opus

import "sparkle/media/mix"

// longest is the longest frame of a packet that Framer leaves whole, in samples: 60 ms.
const longest = 3 * FrameSamples

// Decoder has the state of one incoming stream. It is not safe for concurrent use.
type Decoder struct {
	c    decoder
	buf  [longest]int16
	rest []int16 // of buf: what a frame longer than 20 ms has left
	toc  byte    // of the last packet, without its number of frames
	odd  int     // how often that changed of late

	ceiling mix.Ceiling
}

// NewDecoder makes a decoder.
func NewDecoder() (*Decoder, error) {
	d := &Decoder{}
	if err := d.c.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// Decode writes the first 20 ms of a packet into out; where it lasts 40 or 60, More has the
// others. A packet that is none is concealed.
func (d *Decoder) Decode(packet []byte, out *[FrameSamples]int16) {
	d.rest = nil
	if len(packet) == 0 {
		d.Conceal(out)
		return
	}
	d.doubt(packet[0])
	n := d.c.run(packet, d.buf[:], false)
	if n < FrameSamples {
		d.Conceal(out)
		return
	}
	for i := 0; i+FrameSamples <= n; i += FrameSamples {
		d.limit(d.buf[i : i+FrameSamples])
	}
	copy(out[:], d.buf[:FrameSamples])
	d.rest = d.buf[FrameSamples:n]
}

// More writes the next 20 ms of the packet decoded last; where there are none left, they
// are concealed.
func (d *Decoder) More(out *[FrameSamples]int16) {
	if len(d.rest) < FrameSamples {
		d.Conceal(out)
		return
	}
	copy(out[:], d.rest)
	d.rest = d.rest[FrameSamples:]
}

// Conceal writes 20 ms in place of a lost packet: the decoder goes on with what it had and
// fades. After a pause of the sender it is his noise.
func (d *Decoder) Conceal(out *[FrameSamples]int16) {
	d.rest = nil
	if d.c.run(nil, out[:], false) != FrameSamples {
		clear(out[:])
		return
	}
	d.limit(out[:])
}

// Recover writes 20 ms in place of a lost packet, from the one after it if that has FEC; else
// it is Conceal.
func (d *Decoder) Recover(next []byte, out *[FrameSamples]int16) {
	d.rest = nil
	if len(next) == 0 || d.c.run(next, out[:], true) != FrameSamples {
		d.Conceal(out)
		return
	}
	d.limit(out[:])
}

// Close frees the decoder; it may be called twice.
func (d *Decoder) Close() { d.c.close() }

// A stream that has another mode, bandwidth or frame length with nearly every packet is no
// voice: who sends one changes them when the line changes.
const (
	oddChange = 8  // a change counts for so many packets
	oddLimit  = 20 // above it nothing is believed: three changes in a row, or one in five
	oddGain   = 0.1
)

func (d *Decoder) doubt(toc byte) {
	if toc &^= 3; toc != d.toc {
		d.toc = toc
		d.odd = min(d.odd+oddChange, oddLimit+oddChange)
	}
	d.odd = max(d.odd-1, 0)
}

// limit holds 20 ms to the ceiling: any octets decode to something.
func (d *Decoder) limit(pcm []int16) {
	gain := float32(1)
	if d.odd > oddLimit {
		gain = oddGain
	}
	d.ceiling.Hold(pcm, gain)
}
