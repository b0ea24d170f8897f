package phone

import (
	"math"
	"math/cmplx"
	"slices"
	"sync"
	"time"
)

// Speakers is how many speakers can be told apart.
const Speakers = 8

// The schedule: everybody's turn comes once in a cycle, one second after his
// predecessor's, and lasts longer than that: one or two talk at once (three when links
// differ in delay), each is silent most of the time (DTX has work), and two cycles fit
// into 16 s. It follows the wall clock, so handsets in different processes keep to it.
//
// In the middle of his turn, when he is likely alone, a speaker lowers his voice and his
// mark rises: AMR's lowest modes spend their few bits on whatever is loudest.
const (
	Cycle     = 8 * time.Second
	turn      = 1600 * time.Millisecond
	chimeFrom = 600 * time.Millisecond
	chimeTo   = 1000 * time.Millisecond
)

// talks says whether the speaker's turn is at t, and whether its chime.
func talks(speaker int, t time.Time) (talks, chimes bool) {
	at := time.Duration(t.UnixNano())%Cycle - time.Duration(speaker)*time.Second
	if at < 0 {
		at += Cycle
	}
	return at < turn, at >= chimeFrom && at < chimeTo
}

// The mark of a speaker is two tones that only he has, sounding under his speech during
// his turn. They lie in what AMR and G.711 carry, on bins of the analysis, and no tone is
// a harmonic of another, since codecs and limiters make those. A speaker is heard in a
// moment when both his tones stand out of their neighbourhood, both by about the same.
const (
	rateHz  = 16000
	frame   = 320  // samples in 20 ms
	window  = 2048 // samples of one look: 128 ms, bins of 7.8 Hz
	hop     = 640  // 40 ms
	markAmp = 1600 // of each tone; speech has a level near 2000
)

func lowBin(s int) int  { return 80 + 11*s }               // 625 to 1227 Hz
func highBin(s int) int { return 171 + 22*(3*s%Speakers) } // 1336 to 2539 Hz

// tones adds the mark to pcm; n counts samples since the stream began.
func tones(speaker int, n int64, pcm []int16, chime bool) {
	voice, amp := 1.0, float64(markAmp)
	if chime {
		voice, amp = 0.3, 2*markAmp
	}
	lo := 2 * math.Pi * float64(lowBin(speaker)) / window
	hi := 2 * math.Pi * float64(highBin(speaker)) / window
	for i := range pcm {
		t := float64((n + int64(i)) % window) // both repeat after a window
		v := voice*float64(pcm[i]) + amp*(math.Sin(lo*t)+math.Sin(hi*t))
		pcm[i] = int16(min(max(v, math.MinInt16), math.MaxInt16))
	}
}

// spectrum is a real-input FFT of window samples with a Hann window: powers of the bins
// below the middle. Tables are made once.
type spectrum struct {
	buf   []complex128
	power [window / 2]float64
}

var fftTables = sync.OnceValues(func() (hann [window]float64, twiddle [window / 2]complex128) {
	for i := range hann {
		hann[i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/window)
	}
	for i := range twiddle {
		twiddle[i] = cmplx.Rect(1, -2*math.Pi*float64(i)/window)
	}
	return
})

func (s *spectrum) run(pcm []int16) {
	hann, tw := fftTables()
	if s.buf == nil {
		s.buf = make([]complex128, window)
	}
	x := s.buf
	for i := range x {
		x[i] = complex(float64(pcm[i])*hann[i], 0)
	}
	for i, j := 1, 0; i < window; i++ { // bit reversal
		bit := window >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		if j ^= bit; i < j {
			x[i], x[j] = x[j], x[i]
		}
	}
	for size := 2; size <= window; size <<= 1 {
		half, step := size/2, window/size
		for i := 0; i < window; i += size {
			for k := range half {
				a, b := x[i+k], x[i+k+half]*tw[k*step]
				x[i+k], x[i+k+half] = a+b, a-b
			}
		}
	}
	for i := range s.power {
		s.power[i] = real(x[i])*real(x[i]) + imag(x[i])*imag(x[i])
	}
}

// standing is by how many dB the bin rises above its surroundings: the upper quartile of
// the bins around it, without its own skirt and without other marks.
func (s *spectrum) standing(bin int) float64 {
	var near [32]float64
	n := 0
	for d := 3; d <= 10; d++ {
		for _, b := range [2]int{bin - d, bin + d} {
			if !marked(b) {
				near[n] = s.power[b]
				n++
			}
		}
	}
	slices.Sort(near[:n])
	return 10 * math.Log10((s.power[bin]+1)/(near[n*3/4]+1e4))
}

// markBins is for every bin whether it, or a neighbour, is some speaker's tone.
var markBins = func() (m [window / 2]bool) {
	for s := range Speakers {
		for _, b := range [2]int{lowBin(s), highBin(s)} {
			for d := -2; d <= 2; d++ {
				m[b+d] = true
			}
		}
	}
	return
}()

func marked(bin int) bool { return markBins[bin] }

// present is how clearly a speaker is in this window, in dB, of the weaker tone; and
// whether that is enough.
func (s *spectrum) present(speaker int) (snr float64, ok bool) {
	lo, hi := s.standing(lowBin(speaker)), s.standing(highBin(speaker))
	for _, b := range [2]int{lowBin(speaker), highBin(speaker)} {
		// A tone is a peak on its bin; a harmonic that glides past is not.
		if s.power[b] < s.power[b-2]*2 || s.power[b] < s.power[b+2]*2 {
			return min(lo, hi), false
		}
	}
	return min(lo, hi), lo > clear1 && hi > clear1 && lo+hi > clear2
}

const (
	clear1 = 5.5 // dB, each tone
	clear2 = 17  // dB, both together
)
