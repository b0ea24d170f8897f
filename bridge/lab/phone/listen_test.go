package phone

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/g711"
	"sparkle/media/resample"
)

// air is one direction of a call through a real codec.
type air struct {
	name string
	wide bool
	mode int // -1: A-law
	loss float64
	rnd  *rand.Rand
	enc  *amr.Encoder
	dec  *amr.Decoder
	down resample.Down
	up   resample.Up
}

func newAir(t testing.TB, wide bool, mode int, loss float64, rnd *rand.Rand) *air {
	a := &air{name: fmt.Sprintf("wide=%v mode=%d", wide, mode), wide: wide, mode: mode, loss: loss, rnd: rnd}
	if mode >= 0 {
		if !amr.Available {
			t.Skip("this build has no AMR")
		}
		var err error
		if a.enc, err = amr.NewEncoder(wide, true); err != nil {
			t.Fatal(err)
		}
		if a.dec, err = amr.NewDecoder(wide); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.enc.Close(); a.dec.Close() })
	}
	return a
}

// pass sends one 16 kHz frame through the air, in place.
func (a *air) pass(pcm []int16) {
	var narrow [160]int16
	x := pcm
	if !a.wide {
		a.down.Frame(pcm, narrow[:])
		x = narrow[:]
	}
	lost := a.rnd.Float64() < a.loss
	if a.mode < 0 {
		var b [160]byte
		g711.PCMA.Encode(x, b[:])
		g711.PCMA.Decode(b[:], x)
		if lost {
			clear(x)
		}
	} else {
		var b [amr.MaxBytes]byte
		f := a.enc.Encode(a.mode, x, b[:])
		if lost {
			f = amr.Frame{Type: amr.NoData}
		}
		a.dec.Decode(f, x)
	}
	if !a.wide {
		a.up.Frame(x, pcm)
	}
}

// conference mixes the members with everybody's own codec, up and down, and returns what
// each hears: the others.
func conference(t testing.TB, members []int, muted []int, codecs []func() *air, seconds int, rnd *rand.Rand) map[int]*Listener {
	start := time.Unix(int64(rnd.IntN(1000)), int64(rnd.IntN(1e9)))
	type member struct {
		mic      *microphone
		up, down *air
		gain     float64
		in, out  [frame]int16
	}
	ms := make([]*member, len(members))
	heard := map[int]*Listener{}
	for i, s := range members {
		ms[i] = &member{mic: &microphone{speaker: s}, up: codecs[i](), down: codecs[i](), gain: math.Pow(10, (rnd.Float64()*12-6)/20)}
		if err := ms[i].mic.Open(); err != nil {
			t.Fatal(err)
		}
		heard[s] = NewListener()
	}
	for n := range seconds * 50 {
		now := start.Add(time.Duration(n) * 20 * time.Millisecond)
		var sum [frame]int32
		for i, m := range ms {
			m.mic.record(now)
			for k, v := range m.mic.pcm {
				m.in[k] = int16(min(max(float64(v)*m.gain, math.MinInt16), math.MaxInt16))
			}
			m.up.pass(m.in[:])
			if slices.Contains(muted, members[i]) {
				clear(m.in[:])
			}
			for k, v := range m.in {
				sum[k] += int32(v)
			}
		}
		for i, m := range ms {
			for k := range m.out {
				m.out[k] = int16(min(max(sum[k]-int32(m.in[k]), math.MinInt16), math.MaxInt16))
			}
			m.down.pass(m.out[:])
			heard[members[i]].Feed(m.out[:], now)
		}
	}
	return heard
}

func speakers(hs []Heard) []int {
	out := []int{}
	for _, h := range hs {
		out = append(out, h.Speaker)
	}
	return out
}

// Six members, each with another codec, gains of ±6 dB and 3 % loss: everybody hears
// exactly those others who are not muted.
func TestSixMembersAreToldApart(t *testing.T) {
	runs := 4
	if testing.Short() {
		runs = 1
	}
	var wrong, missed, pairs int
	for run := range runs {
		rnd := rand.New(rand.NewPCG(uint64(run), 7))
		members := rnd.Perm(Speakers)[:6]
		slices.Sort(members)
		muted := members[:run%3]
		var codecs []func() *air
		for _, c := range []struct {
			wide bool
			mode int
		}{{true, 2}, {true, 8}, {true, 0}, {false, 7}, {false, 0}, {false, -1}} {
			codecs = append(codecs, func() *air { return newAir(t, c.wide, c.mode, 0.03, rnd) })
		}
		rnd.Shuffle(len(codecs), func(i, j int) { codecs[i], codecs[j] = codecs[j], codecs[i] })
		for self, l := range conference(t, members, muted, codecs, 14, rnd) {
			var want []int
			for _, s := range members {
				if s != self && !slices.Contains(muted, s) {
					want = append(want, s)
				}
			}
			hs := l.Heard(time.Time{}, nil)
			got := speakers(hs)
			for s := range Speakers {
				pairs++
				switch is, must := slices.Contains(got, s), slices.Contains(want, s); {
				case is && !must:
					wrong++
				case must && !is:
					missed++
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("run %d: speaker %d hears %v, want %v: %+v", run, self, got, want, hs)
			}
		}
	}
	t.Logf("%d decisions: %d false, %d missed", pairs, wrong, missed)
}
