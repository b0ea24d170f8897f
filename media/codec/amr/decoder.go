package amr

import "sparkle/media/mix"

// Decoder has the state of one incoming stream. It is not safe for concurrent use.
//
// Lost frames: opencore-amr mutes hard on the first one (measured: 15 dB down, and the
// next good frame too), so the first two losses in a row repeat the bits of the last
// speech frame, which keeps the level, and fade; only then the codec's own concealment
// takes over and goes to silence.
type Decoder struct {
	wide bool
	c    decoder
	in   [64]byte
	last struct {
		have bool
		ft   uint8
		bits [MaxBytes]byte
	}
	lost    int // frames in a row
	ceiling mix.Ceiling
}

// NewDecoder makes a decoder.
func NewDecoder(wide bool) (*Decoder, error) {
	d := &Decoder{wide: wide}
	if err := d.c.open(wide); err != nil {
		return nil, err
	}
	return d, nil
}

// repeats is how many lost frames in a row are covered by the last good one.
const repeats = 2

// Decode writes one frame into pcm, FrameSamples long. A frame that is bad, reserved,
// short, SpeechLost or NoData is concealed: after speech that is a lost frame, after SID it is
// more comfort noise.
func (d *Decoder) Decode(f Frame, pcm []int16) {
	pcm = pcm[:FrameSamples(d.wide)]
	d.decode(f, pcm)
	d.ceiling.Hold(pcm, 1) // any bits are speech to the codec, and may be as loud as can be
}

func (d *Decoder) decode(f Frame, pcm []int16) {
	size := Bytes(d.wide, f.Type)
	if f.Bad || size <= 0 || len(f.Bits) < size {
		d.conceal(f.Type, pcm)
		return
	}
	d.lost = 0
	d.set(f.Type, f.Bits[:size])
	d.c.run(d.wide, &d.in, pcm, false)
	d.last.have = f.Speech(d.wide)
	d.last.ft = f.Type
	copy(d.last.bits[:], f.Bits[:size])
}

func (d *Decoder) conceal(ft uint8, pcm []int16) {
	if d.last.have && d.lost < repeats {
		d.lost++
		d.set(d.last.ft, d.last.bits[:Bytes(d.wide, d.last.ft)])
		d.c.run(d.wide, &d.in, pcm, false)
		for i, v := range pcm { // 3 dB down a frame: a drone is worse than a dip
			pcm[i] = int16(int32(v) * int32(10-3*d.lost) / 10)
		}
		return
	}
	d.lost++
	d.set(NoData, nil)
	d.c.run(d.wide, &d.in, pcm, d.last.have) // after SID this is comfort noise, not a loss
}

// set fills the input with a whole, zero-padded frame.
func (d *Decoder) set(ft uint8, bits []byte) {
	clear(d.in[:])
	d.in[0] = ft<<3 | 1<<2
	copy(d.in[1:], bits)
}

// Restart makes the decoder as it was when new: for frames that do not follow those it heard. It
// costs a microsecond; the C library's own memory is given back and taken.
func (d *Decoder) Restart() {
	d.c.close(d.wide)
	_ = d.c.open(d.wide) // without it, it is as a closed one: silence
	d.last.have, d.lost, d.ceiling = false, 0, mix.Ceiling{}
}

// Close frees the decoder; it may be called twice.
func (d *Decoder) Close() { d.c.close(d.wide) }
