// Package g722 is G.722 (ITU-T G.722) at 64 kbit/s, its one rate in RTP (RFC 3551 §4.5.2),
// with Debian's libspandsp: 16 kHz mono, one octet for two samples. The RTP clock says
// 8000 all the same, by an old mistake that stays.
//
// It is two ADPCM coders, for the bands below and above 4 kHz: each octet moves their state
// on, which forgets, so that a decoder that begins anywhere is right after some 20 ms.
package g722

import "sparkle/media/conceal"

const (
	// FrameSamples are 20 ms at 16 kHz.
	FrameSamples = 320
	// FrameBytes are 20 ms encoded.
	FrameBytes = 160
	rateHz     = 16000
)

// Decoder has the state of one incoming stream. It is not safe for concurrent use.
type Decoder struct {
	c    decoder
	hide conceal.Concealer
}

// NewDecoder makes a decoder.
func NewDecoder() (*Decoder, error) {
	d := &Decoder{}
	if err := d.c.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// Decode writes a frame of FrameBytes octets into out. Octets of another number are
// concealed.
func (d *Decoder) Decode(octets []byte, out *[FrameSamples]int16) {
	if len(octets) != FrameBytes || !d.c.run(octets, out[:]) {
		d.Conceal(out)
		return
	}
	d.hide.Came(out[:], rateHz)
}

// Conceal writes 20 ms in place of a lost frame.
func (d *Decoder) Conceal(out *[FrameSamples]int16) { d.hide.Lost(out[:], rateHz) }

// Close frees the decoder; it may be called twice.
func (d *Decoder) Close() { d.c.close() }
