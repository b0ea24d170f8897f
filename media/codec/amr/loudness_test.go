//go:build cgo

package amr

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// speech is what speaker n says, 16 kHz, gain dB louder than it was recorded.
func speech(t testing.TB, n int, gain float64) []int16 {
	t.Helper()
	file, err := os.ReadFile(fmt.Sprintf("../../../bridge/lab/phone/speech/%d.wav", n))
	if err != nil {
		t.Fatal(err)
	}
	pcm := make([]int16, (len(file)-44)/2)
	for i := range pcm {
		v := float64(int16(binary.LittleEndian.Uint16(file[44+2*i:])))
		pcm[i] = int16(max(min(v*math.Pow(10, gain/20), 32767), -32768))
	}
	return pcm
}

// dBov is how loud decoded samples are.
func dBov(pcm []int16) float32 {
	return float32(max(20*math.Log10(rms(pcm)/32768+1e-9), Silent))
}

// estimates are what Step says of every frame of pcm, and what it is when decoded.
func estimates(t testing.TB, mode int, pcm []int16) (guessed, decoded []float64) {
	e, d := pair(t, true, false)
	out := make([]int16, 320)
	var l Loudness
	var dst [64]byte
	for ; len(pcm) >= 320; pcm = pcm[320:] {
		f := e.Encode(mode, pcm[:320], dst[:])
		guessed = append(guessed, float64(l.Step(f.Type, f.Bits)))
		d.Decode(f, out)
		decoded = append(decoded, float64(dBov(out)))
	}
	return guessed, decoded
}

// smoothed is a level over syllables: up at once, down slowly.
func smoothed(level []float64) []float64 {
	now, out := -60.0, make([]float64, len(level))
	for i, v := range level {
		if v > now {
			now += (v - now) * 0.6
		} else {
			now += (v - now) * 0.1
		}
		out[i] = now
	}
	return out
}

// off is the mean and the spread of x against ref, dB, where ref is above floor.
func off(x, ref []float64, floor float64) (mean, sd float64) {
	var d []float64
	for i := range x {
		if ref[i] > floor {
			d = append(d, x[i]-ref[i])
		}
	}
	for _, v := range d {
		mean += v / float64(len(d))
	}
	for _, v := range d {
		sd += (v - mean) * (v - mean) / float64(len(d))
	}
	return mean, math.Sqrt(sd)
}

func TestLoudnessOfSpeech(t *testing.T) {
	for _, mode := range []int{0, 1, 2, 8} {
		for _, at := range []struct{ gain, mean float64 }{{0, 5}, {-20, 10}} {
			var guessed, decoded []float64
			for n := range 4 {
				g, d := estimates(t, mode, speech(t, n, at.gain))
				guessed, decoded = append(guessed, smoothed(g)...), append(decoded, smoothed(d)...)
			}
			mean, sd := off(guessed, decoded, -60)
			t.Logf("mode %d, %+.0f dB: off by %+.1f dB, spread %.1f dB", mode, at.gain, mean, sd)
			if math.Abs(mean) > at.mean || sd > 7 {
				t.Errorf("mode %d, %+.0f dB: off by %+.1f dB, spread %.1f dB", mode, at.gain, mean, sd)
			}
		}
	}
}

// Noise of a room: neither white nor a voice. It must not be taken for talk.
func TestLoudnessOfNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, mode := range []int{0, 2, 8} {
		for _, level := range []float64{-65, -55, -45} {
			pcm, low := make([]int16, 100*320), 0.0
			for i := range pcm {
				white := rng.NormFloat64()
				low = 0.95*low + white
				pcm[i] = int16((low + white) / 4 * math.Pow(10, level/20) * 32768)
			}
			guessed, decoded := estimates(t, mode, pcm)
			mean, sd := off(guessed[10:], decoded[10:], Silent)
			t.Logf("mode %d, %.0f dBov: off by %+.1f dB, spread %.1f dB", mode, level, mean, sd)
			if math.Abs(mean) > 8 || sd > 3 {
				t.Errorf("mode %d, %.0f dBov: off by %+.1f dB, spread %.1f dB", mode, level, mean, sd)
			}
		}
	}
}

// A pure tone is nearly all filter, which the estimate does not look at: decoded frames
// put it right.
func TestLoudnessLearnsFromDecodedFrames(t *testing.T) {
	tone := make([]int16, 100*320)
	for i := range tone {
		tone[i] = int16(8000 * math.Sin(2*math.Pi*440*float64(i)/16000))
	}
	guessed, decoded := estimates(t, 2, tone)
	if naive, _ := off(guessed[20:], decoded[20:], Silent); naive > -12 {
		t.Errorf("a tone is estimated %+.1f dB off without being calibrated: is there still a need to?", naive)
	}
	var l Loudness
	e, d := pair(t, true, false)
	out := make([]int16, 320)
	var dst [64]byte
	for i := range 100 {
		f := e.Encode(2, tone[i*320:(i+1)*320], dst[:])
		guess := l.Step(f.Type, f.Bits)
		d.Decode(f, out)
		level := dBov(out)
		if d := guess - level; i >= 50 && (d < -tolerance-4 || d > tolerance+4) {
			t.Fatalf("frame %d: %+.1f dB off after it was calibrated %d times", i, d, i/10)
		}
		if i%10 == 9 {
			l.Calibrate(level, guess)
		}
	}
}

func TestLoudnessOfGarbageIsALevel(t *testing.T) {
	var l Loudness
	bits := make([]byte, MaxBytes)
	for i := range 10_000 {
		for j := range bits {
			bits[j] = byte(i*31 + j*j*17)
		}
		if i > 5000 {
			bits = slices.Repeat([]byte{0xff}, MaxBytes) // the highest gains, over and over
		}
		if v := l.Step(uint8(i%9), bits); !(v >= Silent && v < 60) {
			t.Fatalf("frame %d: %v dBov", i, v)
		}
	}
}

func TestLoudnessDoesNotAllocate(t *testing.T) {
	var l Loudness
	bits := make([]byte, MaxBytes)
	if n := testing.AllocsPerRun(100, func() { l.Calibrate(-20, l.Step(2, bits)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// To be compared with BenchmarkWideDecode2385: what it saves.
func BenchmarkLoudness(b *testing.B) {
	e, _ := pair(b, true, false)
	var dst [64]byte
	f := e.Encode(8, voice(320, 16000, 200), dst[:])
	var l Loudness
	b.ReportAllocs()
	for b.Loop() {
		l.Step(f.Type, f.Bits)
	}
}
