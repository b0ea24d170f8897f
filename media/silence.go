package media

import (
	"errors"
	"math/rand/v2"

	"sparkle/media/codec/amr"
)

// silence is what a leg of one kind is sent while nobody is to be heard. It is made once,
// for all legs, and read only from then on: silence costs no encoding.
type silence struct {
	// With DTX: comfort noise, at once and every kind.sidEvery frames. It is never the SID_FIRST
	// that a pause begins with: that one has no level of its own and stands for what was
	// said in the hangover before it, and here there was none.
	sid encoded
	// Without: a frame a tick, of each mode. G.722 has none: see route.
	frames []encoded
}

// comfortLevel is the peak of the noise behind comfort noise: some 70 dB below full
// scale, so that a quiet line is not taken for a dead one. comfortDBov is the same as
// RFC 3389 §3 writes it.
const (
	comfortLevel = 16
	comfortDBov  = 71
)

func newSilence(k coderKind) (*silence, error) {
	s := &silence{}
	if k.isG722() {
		return s, nil
	}
	c, err := newCoder(k)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if !k.dtx || !k.amr() {
		modes := 1
		if k.amr() {
			modes = amr.TopMode(k.wide()) + 1
		}
		s.frames = make([]encoded, modes)
		for mode := range s.frames {
			for range 12 { // until nothing is left of the codec's start
				c.encode(mode, &silent)
			}
			s.frames[mode].keep(k, c.out.ft, c.out.bits)
		}
	}
	switch {
	case !k.dtx:
		return s, nil
	case k.law():
		s.sid.keep(k, ftComfort, []byte{comfortDBov})
		return s, nil
	case k.isOpus(): // a header without a frame (RFC 6716 §3.4)
		s.sid.keep(k, ftComfort, c.out.bits[:1])
		return s, nil
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var noise [frameLen]int16
	for range 100 {
		for i := range noise {
			noise[i] = int16(rng.IntN(2*comfortLevel+1) - comfortLevel)
		}
		c.encode(0, &noise)
		if c.out.ft == k.sidType() {
			s.sid.keep(k, c.out.ft, c.out.bits)
		}
	}
	if s.sid.bits == nil {
		return nil, errors.New("the encoder makes no comfort noise of silence")
	}
	return s, nil
}

// sendSilence sends what is due while the leg hears nobody.
func (l *leg) sendSilence(n uint64) {
	s := l.st.silence
	switch {
	case !l.kind.dtx:
		l.send(&s.frames[l.mode], n)
	case l.spurt || n >= l.sidAt:
		l.send(&s.sid, n)
	}
}
