// Package g722 is G.722 (ITU-T G.722) at 64 kbit/s, its one rate in RTP (RFC 3551 §4.5.2),
// with Debian's libspandsp: 16 kHz mono, one octet for two samples. The RTP clock says
// 8000 all the same, by an old mistake that stays.
//
// It is two ADPCM coders, for the bands below and above 4 kHz: each octet moves their state
// on, which forgets, so that a decoder that begins anywhere is right after some 20 ms.
package g722

const (
	// FrameSamples are 20 ms at 16 kHz.
	FrameSamples = 320
	// FrameBytes are 20 ms encoded.
	FrameBytes = 160
)

// Decoder has the state of one incoming stream. It is not safe for concurrent use.
type Decoder struct {
	c    decoder
	last [FrameSamples]int16 // what a lost frame repeats
	lost int                 // frames in a row
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
	d.lost = 0
	d.last = *out
}

// Conceal writes 20 ms in place of a lost frame: the last one again, half as loud each time,
// forwards and backwards in turn, so that there is no jump where they meet.
func (d *Decoder) Conceal(out *[FrameSamples]int16) {
	d.lost++
	shift := min(d.lost, 15)
	for i := range out {
		from := i
		if d.lost&1 == 1 {
			from = FrameSamples - 1 - i
		}
		// From what the frame before this was faded to, down to what the next begins with.
		v := int32(d.last[from])
		out[i] = int16((v * int32(2*FrameSamples-i) / FrameSamples) >> shift)
	}
}

// Close frees the decoder; it may be called twice.
func (d *Decoder) Close() { d.c.close() }
