package media

import (
	"errors"
	"math/rand/v2"

	"sparkle/media/codec/amr"
)

// sidEvery is how many frames lie between two updates of comfort noise (TS 26.093,
// TS 26.193 §5.1).
const sidEvery = 8

// silence is what a leg of one kind is sent while nobody is to be heard. It is made once,
// for all legs, and read only from then on: silence costs no encoding.
type silence struct {
	// With DTX: comfort noise, at once and every sidEvery frames. It is never the SID_FIRST
	// that a pause begins with: that one has no level of its own and stands for what was
	// said in the hangover before it, and here there was none.
	sid encoded
	// Without: a frame a tick, of each mode.
	frames []encoded
}

// comfortLevel is the peak of the noise behind comfort noise: some 70 dB below full
// scale, so that a quiet line is not taken for a dead one.
const comfortLevel = 16

func newSilence(k coderKind) (*silence, error) {
	s := &silence{}
	c, err := newCoder(k)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if !k.dtx {
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
		return s, nil
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var noise [frameLen]int16
	for range 100 {
		for i := range noise {
			noise[i] = int16(rng.IntN(2*comfortLevel+1) - comfortLevel)
		}
		c.encode(0, &noise)
		if c.out.ft == c.sidType() {
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
	case s.frames != nil:
		l.send(&s.frames[l.mode], n)
	case l.spurt || n >= l.sidAt:
		l.send(&s.sid, n)
	}
}
