package media

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sparkle/media/mediapb"
)

// at is a clip by so many dB louder, with noise of a level in dBov behind it; noise 0: none.
func at(clip []int16, db, noise float64) []int16 {
	r := rand.New(rand.NewPCG(6, 6))
	out := make([]int16, len(clip))
	for i, v := range clip {
		x := float64(v) * math.Pow(10, db/20)
		if noise != 0 {
			x += r.NormFloat64() * 32768 * math.Pow(10, noise/20)
		}
		out[i] = int16(max(min(x, 32767), -32768))
	}
	return out
}

// With automatic gain a faint voice and a loud one are heard alike, by each codec; without,
// they are heard as they are.
func TestAGCBringsVoicesTogether(t *testing.T) {
	clip := voice(t, 1) // 26 dB below full scale
	level := func(agc bool, codec mediapb.AudioStream_Codec, db float64) float64 {
		a := newAir(t, Options{AGC: agc})
		a.set(confC())
		x, l := a.join("c", "x", codec, 0), a.join("c", "l", pcmu, 0)
		a.join("c", "other", pcmu, 0).off = true // keeps it from being a pair
		a.run(300 * time.Millisecond)
		turns := 1
		if agc { // it is slow
			turns = 3
		}
		for range turns {
			x.says(at(clip, db, 0))
			a.run(5 * time.Second)
		}
		return decibels(rms(l.heard[len(l.heard)-4*16000:]) / rms(floats(clip[:4*16000])))
	}
	for _, codec := range []mediapb.AudioStream_Codec{wb, opu, pcmu} {
		plain := level(false, codec, 0)
		for _, db := range []float64{-12, 0, 12} {
			if got := level(false, codec, db) - plain; abs(got-db) > 1.5 {
				t.Errorf("%v: without, a voice at %+.0f dB is heard at %+.1f", codec, db, got)
			}
			got := level(true, codec, db) - plain
			t.Logf("%v: a voice at %+.0f dB is heard at %+.1f", codec, db, got)
			if abs(got) > 3 {
				t.Errorf("%v: a voice at %+.0f dB is heard at %+.1f, want 0 ± 3", codec, db, got)
			}
		}
	}
}

// Noise between a faint voice's words is not raised, and neither is that of a noisy room.
func TestAGCDoesNotRaiseNoise(t *testing.T) {
	clip := append(slices.Clone(voice(t, 1)[:2*16000]), make([]int16, 16000)...)
	heard := func(agc bool, noise float64) (pause, speech float64) {
		a := newAir(t, Options{AGC: agc})
		a.set(confC())
		x, l := a.join("c", "x", pcmu, 0), a.join("c", "l", pcmu, 0)
		other := a.join("c", "other", pcmu, 0) // keeps it from being a pair in both cases
		other.off = true
		a.run(300 * time.Millisecond)
		for range 5 {
			x.says(at(clip, -14, noise))
			a.run(3 * time.Second)
		}
		y := l.heard[len(l.heard)-3*16000:]
		return decibels(rms(y[2*16000+4000:]) / 32768), decibels(rms(y[:2*16000]) / 32768)
	}
	for _, noise := range []float64{-70, -55} {
		pause, speech := heard(true, noise)
		before, faint := heard(false, noise)
		t.Logf("noise of %.0f dBov: in pauses %.1f, without %.1f; speech %.1f, without %.1f", noise, pause, before, speech, faint)
		if pause > before+1 {
			t.Errorf("noise of %.0f dBov: in pauses %.1f dBov with automatic gain, %.1f without", noise, pause, before)
		}
		if noise == -70 && speech < faint+6 || noise == -55 && speech > faint+5 {
			t.Errorf("noise of %.0f dBov: speech %.1f dBov with automatic gain, %.1f without", noise, speech, faint)
		}
	}
}

// A voice that needs no gain is passed on as ever.
func TestAGCLeavesAGoodVoiceAlone(t *testing.T) {
	a := newAir(t, Options{AGC: true})
	a.set(confC())
	x := a.join("c", "x", wb, 0)
	a.join("c", "l", wb, 0)
	a.join("c", "m", wb, 0)
	a.run(300 * time.Millisecond)
	clip := at(voice(t, 1), 1, 0)
	x.says(clip)
	a.run(5 * time.Second)
	before := a.engine()
	x.says(clip)
	a.run(5 * time.Second)
	if n := a.engine().Encodes - before.Encodes; n != 0 {
		t.Errorf("%d encodes of a voice that could be passed on", n)
	}
}
