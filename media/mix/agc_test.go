package mix

import (
	"math"
	"math/rand/v2"
	"testing"
)

const frameLen = 320

func sine(phase *float64, amplitude float64) []int16 {
	pcm := make([]int16, frameLen)
	for i := range pcm {
		pcm[i] = int16(amplitude * math.Sin(*phase))
		*phase += 2 * math.Pi * 300 / 16000
	}
	return pcm
}

// However speech and pauses follow each other, the gain keeps its limits and no sample
// jumps further than the tone itself does.
func TestAGCHasNoClicks(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	for _, level := range []float32{-50, -40, -20, -8} {
		var a AGC
		var phase float64
		last := int16(0)
		amplitude := 32768 * math.Pow(10, float64(level)/20) * math.Sqrt2
		steep := 2 * math.Pi * 300 / 16000 * amplitude
		voice := true
		for n := range 2000 {
			if r.IntN(12) == 0 {
				voice = !voice
			}
			if voice {
				a.Step(level, true)
			} else {
				a.Step(-80, false)
			}
			if a.now > agcMax || a.now < -agcMax || !voice && a.now > max(a.used-agcPause, 0)+0.01 {
				t.Fatalf("frame %d: gain %.1f dB after %.1f, voice %v", n, a.now, a.used, voice)
			}
			pcm := sine(&phase, amplitude)
			a.Apply(pcm)
			for i, v := range pcm {
				// The tone at the highest gain, and what the fastest ramp adds to it.
				if d := math.Abs(float64(v) - float64(last)); d > 4*steep*1.05+4*amplitude/agcRamp+2 && (n > 0 || i > 0) {
					t.Fatalf("level %v, frame %d: a jump of %.0f", level, n, d)
				}
				last = v
			}
		}
		out := float64(level + a.want)
		want := math.Max(math.Min(agcTarget, float64(level)+agcMax), float64(level)-agcMax)
		if math.Abs(out-want) > 0.5 {
			t.Errorf("a tone at %v dBov is brought to %.1f, want %.1f", level, out, want)
		}
	}
}

func TestAGCIsSlow(t *testing.T) {
	var a AGC
	a.Step(-80, false)
	for n := range 140 {
		before := a.want
		a.Step(-40, true)
		if d := a.want - before; d > agcUp+0.001 || d < 0 {
			t.Fatalf("frame %d: %.2f dB", n, d)
		}
		if n == 99 && a.want > 3.1 {
			t.Errorf("%.1f dB after two seconds of speech", a.want)
		}
	}
}

// What ten talkers at once lose by the limiter: the ratio of the sum, scaled as it fits best,
// to what is left over. Cutting the sum off at full scale loses more.
func TestDistortionOfTenTalkers(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 10))
	const n = 10 * 16000
	sum := make([]int32, n)
	for range 10 {
		// Speech has a Laplacian amplitude; 26 dB below full scale, with syllables.
		f := 2 + 3*r.Float64()
		ph := r.Float64() * 6
		for i := range sum {
			x := r.ExpFloat64() * 32768 * math.Pow(10, -26.0/20) / math.Sqrt2
			if r.IntN(2) == 0 {
				x = -x
			}
			x *= math.Sqrt(2) * math.Abs(math.Sin(f*float64(i)/16000+ph))
			sum[i] += int32(x)
		}
	}
	sdr := func(out func(v int32) int16) float64 {
		var xy, xx, yy float64
		for _, v := range sum {
			y := float64(out(v))
			xy += float64(v) * y
			xx += float64(v) * float64(v)
			yy += y * y
		}
		return 10 * math.Log10(xy*xy/xx/(yy-xy*xy/xx))
	}
	bent := sdr(Limit)
	cut := sdr(func(v int32) int16 { return int16(min(max(v, -16384), 16384)) })
	t.Logf("ten talkers of -26 dBov: signal to distortion %.1f dB limited, %.1f dB cut at the knee", bent, cut)
	if bent < 25 {
		t.Errorf("signal to distortion %.1f dB, want 25", bent)
	}
}

func BenchmarkAGC(b *testing.B) {
	var a AGC
	var phase float64
	pcm := sine(&phase, 1000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		a.Step(-40-40*float32(n&1), n&1 == 0)
		a.Apply(pcm)
	}
}
