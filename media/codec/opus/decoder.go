package opus

import "math"

// longest is the longest frame of a packet that Framer leaves whole, in samples: 60 ms.
const longest = 3 * FrameSamples

// Decoder has the state of one incoming stream. It is not safe for concurrent use.
type Decoder struct {
	c    decoder
	buf  [longest]int16
	rest []int16 // of buf: what a frame longer than 20 ms has left
	gain float32 // of the guard; see limit
	toc  byte    // of the last packet, without its number of frames
	odd  int     // how often that changed of late
}

// NewDecoder makes a decoder.
func NewDecoder() (*Decoder, error) {
	d := &Decoder{gain: 1}
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

// ceiling is the highest RMS that comes out, 9 dB below full scale: a voice is at -26, a
// shout into the phone at -12. Any octets decode to something, and without it noise could
// come out at full scale.
const ceiling = 32768 * 0.35

// limit holds 20 ms to the ceiling. Its gain falls at once, with a short ramp, and comes
// back by 3 dB a frame.
func (d *Decoder) limit(pcm []int16) {
	var sum float64
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	want := float32(1)
	if rms := math.Sqrt(sum / float64(len(pcm))); rms > ceiling {
		want = float32(ceiling / rms)
	}
	if d.odd > oddLimit {
		want *= oddGain
	}
	want = min(want, d.gain*1.41)
	if d.gain == 1 && want == 1 {
		return
	}
	const ramp = 8 // samples, half a millisecond
	step := (want - d.gain) / ramp
	for i := range pcm {
		g := want
		if i < ramp {
			g = d.gain + step*float32(i+1)
		}
		pcm[i] = int16(float32(pcm[i]) * g)
	}
	d.gain = want
}
