// Package resample moves 20 ms frames between 8 kHz (AMR, G.711) and the mix's 16 kHz with
// one half-band low-pass: flat to 3.4 kHz, images and folds of what is above 4.6 kHz more than
// 55 dB down. Delay is 31 samples at 16 kHz, 1.9 ms. It allocates nothing.
package resample

import "math"

// taps of the half-band filter: every other one is zero but the middle, so one branch is
// a delay and the other has half of them.
const (
	taps = 63
	half = (taps + 1) / 2 // non-zero side taps: those at even distance from the ends
)

// side holds the taps at 0, 2, 4, … ; the middle tap is 0.5.
var side [half]float32

func init() {
	mid := float64(taps-1) / 2
	var sum float64
	var h [half]float64
	for i := range h {
		x := float64(2*i) - mid // odd distance from the middle
		// A Kaiser window, beta 6: stop band near 60 dB.
		w := bessel(6*math.Sqrt(1-math.Pow(x/(mid+1), 2))) / bessel(6)
		h[i] = math.Sin(math.Pi*x/2) / (math.Pi * x) * w
		sum += h[i]
	}
	for i := range h {
		side[i] = float32(h[i] * 0.5 / sum)
	}
}

func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for k := 1.0; k < 30; k++ {
		term *= (x / 2 / k) * (x / 2 / k)
		sum += term
	}
	return sum
}

// Frames in samples.
const (
	narrow = 160
	wide   = 320
)

// Up doubles the rate of one stream.
type Up struct{ past [half - 1 + narrow]float32 }

// Frame makes 320 samples at 16 kHz of 160 at 8 kHz.
func (u *Up) Frame(in, out []int16) {
	in, out = in[:narrow], out[:wide]
	x := u.past[:]
	copy(x, x[narrow:])
	for i, v := range in {
		x[half-1+i] = float32(v)
	}
	for i := range narrow {
		w := (*[half]float32)(x[i:])
		out[2*i] = clip(2 * fold(w))
		out[2*i+1] = int16(w[half/2]) // the middle tap: a delay
	}
}

// Down halves the rate of one stream.
type Down struct {
	even [half - 1 + narrow]float32
	odd  [half - 1 + narrow]float32
}

// Frame makes 160 samples at 8 kHz of 320 at 16 kHz.
func (d *Down) Frame(in, out []int16) {
	in, out = in[:wide], out[:narrow]
	e, o := d.even[:], d.odd[:]
	copy(e, e[narrow:])
	copy(o, o[narrow:])
	for i := range narrow {
		e[half-1+i] = float32(in[2*i])
		o[half-1+i] = float32(in[2*i+1])
	}
	for i := range narrow {
		w := (*[half]float32)(e[i:])
		out[i] = clip(fold(w) + 0.5*o[i+half-1-half/2])
	}
}

// fold is the side branch over its window. The taps are symmetric, so each serves two
// samples, and two sums keep the additions from waiting for each other.
func fold(w *[half]float32) float32 {
	var a, b float32
	for k := 0; k < half/2; k += 2 {
		a += side[k] * (w[k] + w[half-1-k])
		b += side[k+1] * (w[k+1] + w[half-2-k])
	}
	return a + b
}

func clip(v float32) int16 {
	switch {
	case v > 32767:
		return 32767
	case v < -32768:
		return -32768
	case v < 0:
		return int16(v - 0.5)
	}
	return int16(v + 0.5)
}
