package media

import (
	"errors"
	"math"
	"math/rand/v2"

	"sparkle/media/codec/amr"
)

// silence is what a leg of one kind is sent while nobody is to be heard, for each of the steps
// of room.hiss. It is made once, for all legs, and read only from then on: silence costs no
// encoding.
type silence struct {
	// With DTX: comfort noise, at once and every kind.sidEvery frames. It is never the SID_FIRST
	// that a pause begins with: that one has no level of its own and stands for what was
	// said in the hangover before it, and here there was none.
	sid [hissSteps]encoded
	// Without: a frame a tick, of each mode; of no noise. G.722 has none: see route.
	frames []encoded
	// And with noise, where the codec has no modes: a second, to go round.
	noise [hissSteps][]encoded
}

// comfortDBov is the level, negative and as RFC 3389 §3 writes it, of the noise behind comfort
// noise where nobody told one: a quiet line is not to be taken for a dead one. Each step of
// hiss is hissStep louder, up to -50 dBov: more is no comfort.
const (
	comfortDBov = 71
	hissStep    = 3
	hissSteps   = 8
)

// hissOf is the step of a level that somebody told of his silence: at most 1 dB louder.
func hissOf(dbov float32) int {
	return int(min(max((dbov+comfortDBov+1)/hissStep, 0), hissSteps-1))
}

// hissTable is a second of noise of hissRMS, at 16 kHz, duller than white, as rooms are.
var hissTable = func() (out [50][frameLen]int16) {
	r := rand.New(rand.NewPCG(1, 2))
	const dull = 0.7
	y := 0.0
	for f := range out {
		for i := range out[f] {
			y = dull*y + r.NormFloat64()*math.Sqrt(1-dull*dull)
			out[f][i] = int16(math.Round(y * hissRMS))
		}
	}
	return out
}()

const hissRMS = 2048

// hiss writes tick n of the noise of a step into out.
func hiss(out *[frameLen]int16, step int, n uint64) {
	gain := float32(32768/hissRMS*math.Pow(10, -comfortDBov/20.0)) * hissGains[step]
	for i, v := range &hissTable[n%uint64(len(hissTable))] {
		out[i] = int16(math.Round(float64(float32(v) * gain)))
	}
}

var hissGains = func() (out [hissSteps]float32) {
	for i := range out {
		out[i] = float32(math.Pow(10, hissStep*float64(i)/20))
	}
	return out
}()

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
	case !k.dtx && k.amr(): // no peer asks for that
		return s, nil
	case !k.dtx:
		s.encodeHiss(c)
		return s, nil
	case k.law():
		for i := range s.sid {
			s.sid[i].keep(k, ftComfort, []byte{byte(comfortDBov - hissStep*i)})
		}
		return s, nil
	case k.isOpus(): // a header without a frame (RFC 6716 §3.4): it tells no level
		for i := range s.sid {
			s.sid[i].keep(k, ftComfort, c.out.bits[:1])
		}
		return s, nil
	}
	return s, s.describeHiss(c)
}

// encodeHiss makes the noise of each step.
func (s *silence) encodeHiss(c *coder) {
	var pcm [frameLen]int16
	for step := 1; step < hissSteps; step++ {
		s.noise[step] = make([]encoded, len(hissTable)/2)
		for n := range s.noise[step] {
			hiss(&pcm, step, uint64(n))
			c.encode(0, &pcm)
			s.noise[step][n].keep(c.kind, c.out.ft, c.out.bits)
		}
	}
}

// describeHiss makes a description of each step's noise, AMR's SID_UPDATE.
func (s *silence) describeHiss(c *coder) error {
	var pcm [frameLen]int16
	n, frames := uint64(0), 60
	for step := range s.sid {
		for range frames { // a few descriptions, until the last is of this level
			hiss(&pcm, step, n)
			n++
			if c.encode(0, &pcm); c.out.ft == c.kind.sidType() {
				s.sid[step].keep(c.kind, c.out.ft, c.out.bits)
			}
		}
		frames = 24
		if s.sid[step].bits == nil {
			return errors.New("the encoder makes no comfort noise of silence")
		}
	}
	return nil
}

// sendSilence sends what is due while the leg hears nobody: the noise of whoever was heard last.
func (l *leg) sendSilence(n uint64) {
	step := l.room.hiss
	if l == l.room.host || l.deaf || l.held || !l.present {
		step = 0
	}
	s := l.st.silence
	noise := s.noise[step]
	switch {
	case len(noise) > 0:
		l.send(&noise[n%uint64(len(noise))], n)
	case !l.kind.dtx:
		l.send(&s.frames[l.mode], n)
	case l.spurt || n >= l.sidAt:
		l.send(&s.sid[step], n)
	}
}
