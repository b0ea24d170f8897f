//go:build cgo

package amr

import (
	"math"
	"math/rand/v2"
	"testing"
)

// talk is speech-like: a gliding voice in syllables of 200 ms with some breath.
func talk(frames int, wide bool) []int16 {
	rng := rand.New(rand.NewPCG(3, 4))
	rate := float64(SampleRate(wide))
	x := make([]int16, frames*FrameSamples(wide))
	phase := 0.0
	for i := range x {
		t := float64(i) / rate
		phase += 2 * math.Pi * (150 + 40*math.Sin(2*math.Pi*0.7*t)) / rate
		v := 0.0
		for h := 1.0; h <= 12; h++ {
			v += math.Sin(h*phase) / h
		}
		envelope := 0.15 + 0.85*math.Pow(math.Sin(math.Pi*2.5*t), 2)
		x[i] = int16(envelope * (4000*v + 300*rng.NormFloat64()))
	}
	return x
}

// With 5 % of the frames lost, the level of the lost ones and of those that follow stays
// nearer to what was said than with the codec's own concealment, which mutes.
func TestConcealmentKeepsTheLevel(t *testing.T) {
	for _, wide := range []bool{false, true} {
		const frames = 1500
		rng := rand.New(rand.NewPCG(5, 6))
		n := FrameSamples(wide)
		e, clean := pair(t, wide, false)
		_, ours := pair(t, wide, false)
		_, plain := pair(t, wide, false)
		in := talk(frames, wide)
		var dst [64]byte
		a, b, c := make([]int16, n), make([]int16, n), make([]int16, n)
		var errOurs, errPlain, count float64
		after := 0
		for i := range frames {
			f := e.Encode(TopMode(wide), in[i*n:(i+1)*n], dst[:])
			clean.Decode(f, a)
			if i > 5 && rng.Float64() < 0.05 {
				ours.Decode(Frame{Type: NoData}, b)
				plain.set(NoData, nil)
				plain.c.run(wide, &plain.in, c, true)
				after = 2
			} else {
				ours.Decode(f, b)
				plain.Decode(f, c)
			}
			if after > 0 {
				after--
				want := 20 * math.Log10(rms(a)+30)
				errOurs += math.Abs(20*math.Log10(rms(b)+30) - want)
				errPlain += math.Abs(20*math.Log10(rms(c)+30) - want)
				count++
			}
		}
		errOurs, errPlain = errOurs/count, errPlain/count
		t.Logf("wide %v: level error at and after a loss %.1f dB, with the codec's concealment %.1f dB", wide, errOurs, errPlain)
		if count < 50 || errOurs > 5 || errOurs > errPlain {
			t.Errorf("wide %v: level error %.1f dB, with the codec's own concealment %.1f dB", wide, errOurs, errPlain)
		}
	}
}

// A frame marked damaged is concealed, not played: its bits may be anything.
func TestDamagedFrameIsConcealed(t *testing.T) {
	for _, wide := range []bool{false, true} {
		e, d := pair(t, wide, false)
		n := FrameSamples(wide)
		in := voice(40*n, SampleRate(wide), 200)
		var dst [64]byte
		out := make([]int16, n)
		for i := range 40 {
			d.Decode(e.Encode(TopMode(wide), in[i*n:(i+1)*n], dst[:]), out)
		}
		before := rms(out)
		noise := make([]byte, Bytes(wide, uint8(TopMode(wide))))
		for i := range noise {
			noise[i] = byte(i*73 + 11)
		}
		d.Decode(Frame{Type: uint8(TopMode(wide)), Bad: true, Bits: noise}, out)
		if got := rms(out); got > 1.3*before || got < before/4 {
			t.Errorf("wide %v: level %.0f after a damaged frame, was %.0f", wide, got, before)
		}
	}
}

// Comfort noise goes on between SID frames; it is neither speech nor a hole.
func TestComfortNoiseGoesOn(t *testing.T) {
	for _, wide := range []bool{false, true} {
		e, d := pair(t, wide, true)
		n := FrameSamples(wide)
		rng := rand.New(rand.NewPCG(7, 8))
		in, out := make([]int16, n), make([]int16, n)
		var dst [64]byte
		sids, quietest := 0, math.MaxFloat64
		for i := range 300 {
			for k := range in {
				in[k] = int16(60 * rng.NormFloat64())
			}
			f := e.Encode(TopMode(wide), in, dst[:])
			if f.Type == SIDNarrow && !wide || f.Type == SIDWide && wide {
				sids++
			}
			d.Decode(f, out)
			if i > 200 {
				quietest = min(quietest, rms(out))
			}
		}
		// One SID in eight frames; the very first ones are speech.
		if sids < 15 || sids > 45 {
			t.Errorf("wide %v: %d SID frames of 300", wide, sids)
		}
		if quietest < 1 {
			t.Errorf("wide %v: a hole in the comfort noise", wide)
		}
	}
}

func BenchmarkNarrowDecode122(b *testing.B) {
	e, d := pair(b, false, false)
	in, out := voice(160, 8000, 200), make([]int16, 160)
	var dst [64]byte
	f := e.Encode(7, in, dst[:])
	b.ReportAllocs()
	for b.Loop() {
		d.Decode(f, out)
	}
}

func BenchmarkWideEncodeSilenceDTX(b *testing.B) {
	e, _ := pair(b, true, true)
	in := make([]int16, 320)
	var dst [64]byte
	b.ReportAllocs()
	for b.Loop() {
		e.Encode(8, in, dst[:])
	}
}
