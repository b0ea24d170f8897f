package resample

import (
	"math"
	"testing"
)

func tone(n int, rate, f float64) []int16 {
	x := make([]int16, n)
	for i := range x {
		x[i] = int16(10000 * math.Sin(2*math.Pi*f*float64(i)/rate))
	}
	return x
}

// level of frequency f in x, dB against a tone of tone's amplitude.
func level(x []int16, rate, f float64) float64 {
	var re, im float64
	for i, v := range x {
		p := 2 * math.Pi * f * float64(i) / rate
		re += float64(v) * math.Cos(p)
		im += float64(v) * math.Sin(p)
	}
	return 20 * math.Log10(2*math.Hypot(re, im)/float64(len(x))/10000+1e-9)
}

func up(x []int16) []int16 {
	var u Up
	out := make([]int16, 2*len(x))
	for i := 0; i+narrow <= len(x); i += narrow {
		u.Frame(x[i:], out[2*i:])
	}
	return out
}

func down(x []int16) []int16 {
	var d Down
	out := make([]int16, len(x)/2)
	for i := 0; i+wide <= len(x); i += wide {
		d.Frame(x[i:], out[i/2:])
	}
	return out
}

func TestTonesPassAndImagesDoNot(t *testing.T) {
	const n = 8000
	for _, f := range []float64{100, 300, 1000, 2000, 3000, 3300, 3400} {
		u := up(tone(n, 8000, f))[1600:]
		if l := level(u, 16000, f); math.Abs(l) > 0.1 {
			t.Errorf("up: %v Hz at %.2f dB", f, l)
		}
		if l := level(u, 16000, 8000-f); l > -55 {
			t.Errorf("up: %v Hz has an image at %.1f dB", f, l)
		}
		if l := level(down(tone(2*n, 16000, f))[800:], 8000, f); math.Abs(l) > 0.1 {
			t.Errorf("down: %v Hz at %.2f dB", f, l)
		}
	}
	for _, f := range []float64{4600, 4700, 5000, 6000, 7500} {
		if l := level(down(tone(2*n, 16000, f))[800:], 8000, 8000-f); l > -55 {
			t.Errorf("down: %v Hz folds to %v at %.1f dB", f, 8000-f, l)
		}
	}
}

// Full scale in must not wrap around on its way out.
func TestFullScaleDoesNotWrap(t *testing.T) {
	square := make([]int16, 1600)
	for i := range square {
		square[i] = 32767
		if i/20%2 == 1 {
			square[i] = -32768
		}
	}
	for name, tt := range map[string]struct {
		out []int16
		src func(i int) int
	}{"up": {up(square), func(i int) int { return (i - 31) / 2 }}, "down": {down(square), func(i int) int { return 2*i - 31 }}} {
		for i := 100; i < len(tt.out)-100; i++ {
			// In the middle of each half wave the sign is the input's.
			src := tt.src(i)
			if p := src % 20; p > 6 && p < 14 && (tt.out[i] > 0) != (square[src] > 0) {
				t.Fatalf("%s: sample %d is %d where the input was %d", name, i, tt.out[i], square[src])
			}
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	var u Up
	var d Down
	a, b := make([]int16, narrow), make([]int16, wide)
	if n := testing.AllocsPerRun(100, func() { u.Frame(a, b); d.Frame(b, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUpDown(b *testing.B) {
	var u Up
	var d Down
	x, y := make([]int16, narrow), make([]int16, wide)
	b.ReportAllocs()
	for b.Loop() {
		u.Frame(x, y)
		d.Frame(y, x)
	}
}
