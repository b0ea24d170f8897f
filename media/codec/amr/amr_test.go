//go:build cgo

package amr

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sparkle/media/mix"
)

func voice(n, rate int, f float64) []int16 {
	x := make([]int16, n)
	for i := range x { // a voiced sound: a few harmonics
		p := 2 * math.Pi * f * float64(i) / float64(rate)
		x[i] = int16(6000*math.Sin(p) + 3000*math.Sin(2*p) + 1500*math.Sin(3*p))
	}
	return x
}

func rms(x []int16) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(x)))
}

func pair(t testing.TB, wide, dtx bool) (*Encoder, *Decoder) {
	t.Helper()
	e, err := NewEncoder(wide, dtx)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(wide)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); e.Close(); d.Close(); d.Close() })
	return e, d
}

func TestEveryModeComesBackAtItsLevel(t *testing.T) {
	for _, wide := range []bool{false, true} {
		for mode := range TopMode(wide) + 1 {
			e, d := pair(t, wide, false)
			n := FrameSamples(wide)
			in := voice(50*n, SampleRate(wide), 220)
			out := make([]int16, len(in))
			keep := append([]int16(nil), in...)
			var dst [64]byte
			for i := 0; i < len(in); i += n {
				f := e.Encode(mode, in[i:i+n], dst[:])
				if int(f.Type) != mode || len(f.Bits) != Bytes(wide, f.Type) {
					t.Fatalf("wide %v mode %d: frame type %d with %d octets", wide, mode, f.Type, len(f.Bits))
				}
				d.Decode(f, out[i:i+n])
			}
			for i := range in {
				if in[i] != keep[i] {
					t.Fatalf("wide %v: the encoder changed its input", wide)
				}
			}
			if db := 20 * math.Log10(rms(out[10*n:])/rms(in)); math.Abs(db) > 2 {
				t.Errorf("wide %v mode %d: %.1f dB", wide, mode, db)
			}
		}
	}
}

func TestDTXGoesQuiet(t *testing.T) {
	for _, wide := range []bool{false, true} {
		e, _ := pair(t, wide, true)
		n := FrameSamples(wide)
		var dst [64]byte
		kinds := map[bool]int{}
		silent := make([]int16, n)
		for range 100 {
			f := e.Encode(TopMode(wide), silent, dst[:])
			kinds[f.Speech(wide)]++
		}
		if kinds[true] > 40 {
			t.Errorf("wide %v: %d of 100 silent frames were sent as speech", wide, kinds[true])
		}
	}
}

// One lost frame must not be a hole, and a long loss must end in silence.
func TestConcealment(t *testing.T) {
	for _, wide := range []bool{false, true} {
		e, d := pair(t, wide, false)
		n := FrameSamples(wide)
		in := voice(60*n, SampleRate(wide), 200)
		var dst [64]byte
		out := make([]int16, n)
		for i := range 30 {
			d.Decode(e.Encode(TopMode(wide), in[i*n:(i+1)*n], dst[:]), out)
		}
		before := rms(out)
		d.Decode(Frame{Type: NoData}, out)
		if db := 20 * math.Log10(rms(out)/before); db < -8 {
			t.Errorf("wide %v: the first lost frame is %.1f dB down", wide, db)
		}
		for range 20 {
			d.Decode(Frame{Type: NoData}, out)
		}
		if db := 20 * math.Log10((rms(out)+1e-3)/before); db > -25 {
			t.Errorf("wide %v: still at %.1f dB after 20 lost frames", wide, db)
		}
	}
}

// Whatever a packet holds, the C code sees whole frames only.
func TestGarbageDoesNotCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, wide := range []bool{false, true} {
		_, d := pair(t, wide, false)
		out := make([]int16, FrameSamples(wide))
		for range 3000 {
			bits := make([]byte, rng.IntN(64))
			for i := range bits {
				bits[i] = byte(rng.Uint32())
			}
			d.Decode(Frame{Type: uint8(rng.IntN(18)), Bad: rng.IntN(8) == 0, Bits: bits}, out)
		}
	}
}

func TestEncodeRefusesNonsense(t *testing.T) {
	e, _ := pair(t, true, false)
	var dst [64]byte
	for _, f := range []Frame{e.Encode(9, make([]int16, 320), dst[:]), e.Encode(-1, make([]int16, 320), dst[:]),
		e.Encode(8, make([]int16, 160), dst[:]), e.Encode(8, make([]int16, 320), dst[:10])} {
		if f.Type != NoData {
			t.Errorf("got frame type %d", f.Type)
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	e, d := pair(t, true, true)
	in, out := voice(320, 16000, 200), make([]int16, 320)
	var dst [64]byte
	if n := testing.AllocsPerRun(50, func() { d.Decode(e.Encode(8, in, dst[:]), out) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWideEncode2385(b *testing.B)  { benchEncode(b, true, 8) }
func BenchmarkWideEncode1265(b *testing.B)  { benchEncode(b, true, 2) }
func BenchmarkNarrowEncode122(b *testing.B) { benchEncode(b, false, 7) }

func benchEncode(b *testing.B, wide bool, mode int) {
	e, _ := pair(b, wide, false)
	in := voice(FrameSamples(wide), SampleRate(wide), 200)
	var dst [64]byte
	b.ReportAllocs()
	for b.Loop() {
		e.Encode(mode, in, dst[:])
	}
}

func BenchmarkWideDecode2385(b *testing.B) {
	e, d := pair(b, true, false)
	in, out := voice(320, 16000, 200), make([]int16, 320)
	var dst [64]byte
	f := e.Encode(8, in, dst[:])
	b.ReportAllocs()
	for b.Loop() {
		d.Decode(f, out)
	}
}

// Random bits in frames of every valid type are never heard as loud as they come out of the
// codec, and a voice at -12 dBov is not touched.
func TestGarbageIsNotLoud(t *testing.T) {
	for _, wide := range []bool{true, false} {
		_, d := pair(t, wide, false)
		r := rand.New(rand.NewPCG(3, 1))
		pcm := make([]int16, FrameSamples(wide))
		loudest := 0.0
		for range 4000 {
			f := Frame{Type: uint8(r.IntN(TopMode(wide) + 2))} // and SID
			f.Bits = make([]byte, Bytes(wide, f.Type))
			for i := range f.Bits {
				f.Bits[i] = byte(r.Uint32())
			}
			d.Decode(f, pcm)
			loudest = max(loudest, rms(pcm))
		}
		if db := 20 * math.Log10(loudest/32768); db > -8.5 {
			t.Errorf("wide %v: garbage is heard at %.1f dBov", wide, db)
		}
		shout := make([]int16, len(pcm))
		for i := range shout {
			shout[i] = int16(r.NormFloat64() * 32768 * 0.25)
		}
		var c mix.Ceiling
		was := slices.Clone(shout)
		if c.Hold(shout, 1); !slices.Equal(shout, was) {
			t.Errorf("wide %v: a shout was limited", wide)
		}
	}
}
