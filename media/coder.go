package media

import (
	"math/bits"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/g711"
	"sparkle/media/codec/g722"
	"sparkle/media/codec/opus"
	"sparkle/media/conceal"
	"sparkle/media/mediapb"
	"sparkle/media/payload"
	"sparkle/media/resample"
)

const (
	frameLen  = 320 // samples of 20 ms at 16 kHz, the mix's rate
	narrowLen = 160
	// octetsOf20ms are a frame of G.711 and of G.722, and more than any of AMR.
	octetsOf20ms = 160
	// frameMax is the largest encoded frame: Opus at its highest rate.
	frameMax = opus.MaxBytes
)

// coder turns mixed frames into one codec's. It has state: who listens to it must
// have listened before, or it must be primed.
type coder struct {
	kind   coderKind
	amr    *amr.Encoder
	opus   *opus.Encoder
	g722   *g722.Encoder
	down   resample.Down
	narrow [narrowLen]int16

	out encoded // the last frame it made, in buf
	buf [frameMax]byte
}

// encoded is one frame as it is sent to any number of legs: packed once for each format
// that somebody wants.
type encoded struct {
	ft     uint8
	bad    bool
	lost   bool // to be sent though there is nothing in it
	bits   []byte
	have   [2]bool // packed: bandwidth-efficient, octet-aligned
	size   [2]int
	packed [2][payload.MaxPacked]byte
}

// set makes e another frame; bits must stay as they are until it has been sent.
func (e *encoded) set(ft uint8, bits []byte) {
	e.ft, e.bits, e.bad, e.lost, e.have = ft, bits, false, false, [2]bool{}
}

// keep makes e a frame for ever, ready to be sent from any thread.
func (e *encoded) keep(k coderKind, ft uint8, bits []byte) {
	e.set(ft, append([]byte(nil), bits...))
	if k.amr() {
		e.payload(k.wide(), false)
		e.payload(k.wide(), true)
	}
}

// payload is the frame as RTP payload (RFC 4867) with a mode request of 0.
func (e *encoded) payload(wide, octetAligned bool) []byte {
	i := 0
	if octetAligned {
		i = 1
	}
	if !e.have[i] {
		e.have[i] = true
		f := payload.Format{Wide: wide, OctetAligned: octetAligned}
		e.size[i] = f.Pack(e.packed[i][:], 0, amr.Frame{Type: e.ft, Bad: e.bad, Bits: e.bits})
	}
	return e.packed[i][:e.size[i]]
}

// Frame types of the codecs that have none: G.711, G.722, Opus. amr.NoData is "send nothing"
// and "was lost" for them too.
const (
	ftSpeech  = 0
	ftMore    = 1 // Opus: the next 20 ms of the longer frame before; has no octets of its own
	ftAhead   = 2 // Opus: was lost, and the octets are the next frame, which knows of it (FEC)
	ftComfort = 9 // G.711: comfort noise (RFC 3389); Opus: a header, no sound (DTX)
)

func newCoder(k coderKind) (*coder, error) {
	c := &coder{kind: k}
	var err error
	switch {
	case k.amr():
		c.amr, err = amr.NewEncoder(k.wide(), k.dtx)
	case k.isOpus():
		c.opus, err = opus.NewEncoder(k.opus)
	case k.isG722():
		c.g722, err = g722.NewEncoder()
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *coder) close() {
	switch {
	case c == nil:
	case c.amr != nil:
		c.amr.Close()
	case c.opus != nil:
		c.opus.Close()
	case c.g722 != nil:
		c.g722.Close()
	}
}

// encode makes c.out of 20 ms.
func (c *coder) encode(mode int, pcm *[frameLen]int16) {
	in := pcm[:]
	if c.kind.narrow() {
		c.down.Frame(pcm[:], c.narrow[:])
		in = c.narrow[:]
	}
	switch c.kind.codec {
	case mediapb.AudioStream_PCMU:
		c.out.set(ftSpeech, c.buf[:g711.PCMU.Encode(in, c.buf[:])])
		return
	case mediapb.AudioStream_PCMA:
		c.out.set(ftSpeech, c.buf[:g711.PCMA.Encode(in, c.buf[:])])
		return
	case mediapb.AudioStream_G722:
		c.out.set(ftSpeech, c.buf[:c.g722.Encode(in, c.buf[:])])
		return
	case mediapb.AudioStream_OPUS:
		ft, n := uint8(ftSpeech), c.opus.Encode(in, c.buf[:])
		if n == 0 || c.kind.opus.DTX && n <= opus.QuietBytes {
			ft = amr.NoData
		}
		c.out.set(ft, c.buf[:n])
		return
	}
	f := c.amr.Encode(mode, in, c.buf[:])
	c.out.set(f.Type, f.Bits)
}

func (s *stream) format() payload.Format {
	return payload.Format{Wide: s.kind.wide(), OctetAligned: s.octetAlign}
}

// initialMode is where IMS.md §5.1 starts: one mode: it; two or three: the lowest;
// more, or no set: the second lowest. The rest comes when it gets through (stepMode).
func (s *stream) initialMode() int {
	switch n := bits.OnesCount16(s.modes); {
	case !s.kind.amr():
		return 0
	case n <= 3:
		return bits.TrailingZeros16(s.modes)
	}
	return bits.TrailingZeros16(s.modes & (s.modes - 1))
}

// topMode is the highest mode of the set.
func (s *stream) topMode() int { return max(bits.Len16(s.modes)-1, 0) }

// stepMode moves one mode of the set from mode towards limit (mode-change-neighbor).
func (s *stream) stepMode(mode, limit int) int {
	switch {
	case mode < limit:
		if up := s.modes >> (mode + 1) << (mode + 1); up != 0 && bits.TrailingZeros16(up) <= limit {
			return bits.TrailingZeros16(up)
		}
	case mode > limit:
		if down := s.modes & (1<<mode - 1); down != 0 {
			return bits.Len16(down) - 1
		}
	}
	return mode
}

// decoder turns one codec's frames into 16 kHz.
type decoder struct {
	kind   coderKind
	amr    *amr.Decoder
	opus   *opus.Decoder
	framer *opus.Framer // of Opus
	g722   *g722.Decoder
	up     resample.Up
	narrow [narrowLen]int16
	hide   conceal.Concealer // G.711
}

func newDecoder(k coderKind) (*decoder, error) {
	d := &decoder{kind: k}
	var err error
	switch {
	case k.amr():
		d.amr, err = amr.NewDecoder(k.wide())
	case k.isOpus():
		d.framer = new(opus.Framer)
		d.opus, err = opus.NewDecoder()
	case k.isG722():
		d.g722, err = g722.NewDecoder()
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *decoder) close() {
	switch {
	case d == nil:
	case d.amr != nil:
		d.amr.Close()
	case d.opus != nil:
		d.opus.Close()
	case d.g722 != nil:
		d.g722.Close()
	}
}

// restart makes d as it was when new, where what a codec remembers would do harm.
func (d *decoder) restart() {
	if d.kind.amr() {
		d.amr.Restart()
	}
}

// decode writes 20 ms into out. A frame of type amr.NoData is lost and concealed.
func (d *decoder) decode(ft uint8, bad bool, frame []byte, out *[frameLen]int16) {
	switch {
	case d.kind.wide():
		d.amr.Decode(amr.Frame{Type: ft, Bad: bad, Bits: frame}, out[:])
		return
	case d.opus != nil:
		d.decodeOpus(ft, frame, out)
		return
	case d.g722 != nil && ft == amr.NoData:
		d.g722.Conceal(out)
		return
	case d.g722 != nil:
		d.g722.Decode(frame, out)
		return
	}
	switch {
	case d.kind.amr():
		d.amr.Decode(amr.Frame{Type: ft, Bad: bad, Bits: frame}, d.narrow[:])
	case ft == amr.NoData:
		d.hide.Lost(d.narrow[:], 8000)
	default:
		law := g711.PCMU
		if d.kind.codec == mediapb.AudioStream_PCMA {
			law = g711.PCMA
		}
		clear(d.narrow[law.Decode(frame, d.narrow[:]):])
		d.hide.Came(d.narrow[:], 8000)
	}
	d.up.Frame(d.narrow[:], out[:])
}

func (d *decoder) decodeOpus(ft uint8, frame []byte, out *[frameLen]int16) {
	switch ft {
	case amr.NoData:
		d.opus.Conceal(out)
	case ftMore:
		d.opus.More(out)
	case ftAhead:
		d.opus.Recover(frame, out)
	default:
		d.opus.Decode(frame, out)
	}
}
