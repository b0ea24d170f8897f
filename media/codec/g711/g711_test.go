package g711

import (
	"math"
	"testing"
)

// Every code word decodes to a sample that encodes to it again (PCMU has two zeros), and
// the error is below half a step of that segment.
func TestRoundTrip(t *testing.T) {
	for _, l := range []Law{PCMU, PCMA} {
		var pcm [1]int16
		var out [1]byte
		for b := range 256 {
			l.Decode([]byte{byte(b)}, pcm[:])
			l.Encode(pcm[:], out[:])
			if out[0] != byte(b) && !(l == PCMU && b == 0x7f && out[0] == 0xff) {
				t.Errorf("law %d: %#x decodes to %d, which encodes to %#x", l, b, pcm[0], out[0])
			}
		}
		for s := -32768; s <= 32767; s++ {
			l.Encode([]int16{int16(s)}, out[:])
			l.Decode(out[:], pcm[:])
			if e := abs(int(pcm[0]) - s); e > 8+abs(s)/16 && abs(s) < 32000 {
				t.Fatalf("law %d: %d comes back as %d", l, s, pcm[0])
			}
		}
	}
}

func abs(v int) int { return max(v, -v) }

// Fixed points of G.711's tables 1a and 2a.
func TestKnownValues(t *testing.T) {
	for _, tt := range []struct {
		law  Law
		code byte
		want int16
	}{{PCMU, 0xff, 0}, {PCMU, 0x80, 32124}, {PCMU, 0x00, -32124}, {PCMA, 0xd5, 8}, {PCMA, 0xaa, 32256}, {PCMA, 0x2a, -32256}} {
		var pcm [1]int16
		tt.law.Decode([]byte{tt.code}, pcm[:])
		if pcm[0] != tt.want {
			t.Errorf("law %d code %#x: %d, want %d", tt.law, tt.code, pcm[0], tt.want)
		}
	}
}

func BenchmarkEncode20ms(b *testing.B) {
	pcm, out := make([]int16, 160), make([]byte, 160)
	b.ReportAllocs()
	for b.Loop() {
		PCMA.Encode(pcm, out)
	}
}

// Buffers of different lengths are no reason to panic; the shorter one counts.
func TestLengths(t *testing.T) {
	if n := PCMA.Encode(make([]int16, 160), make([]byte, 80)); n != 80 {
		t.Errorf("encoded %d", n)
	}
	if n := PCMU.Decode(make([]byte, 200), make([]int16, 160)); n != 160 {
		t.Errorf("decoded %d", n)
	}
	if n := PCMU.Decode(nil, make([]int16, 160)); n != 0 {
		t.Errorf("decoded %d of nothing", n)
	}
}

func TestZeroAllocations(t *testing.T) {
	pcm, out := make([]int16, 160), make([]byte, 160)
	if n := testing.AllocsPerRun(100, func() { PCMU.Encode(pcm, out); PCMA.Decode(out, pcm) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode20ms(b *testing.B) {
	pcm, in := make([]int16, 160), make([]byte, 160)
	b.ReportAllocs()
	for b.Loop() {
		PCMA.Decode(in, pcm)
	}
}

// The level is that of the samples the octets stand for.
func TestLevel(t *testing.T) {
	for _, l := range []Law{PCMU, PCMA} {
		for _, peak := range []float64{30000, 3000, 100} {
			pcm, octets := make([]int16, 160), make([]byte, 160)
			for i := range pcm {
				pcm[i] = int16(peak * math.Sin(float64(i)/3))
			}
			l.Encode(pcm, octets)
			l.Decode(octets, pcm)
			var sum float64
			for _, v := range pcm {
				sum += float64(v) * float64(v)
			}
			want := 10 * math.Log10(sum/160/(1<<30))
			if got := float64(l.Level(octets)); math.Abs(got-want) > 0.01 {
				t.Errorf("law %d, peak %.0f: %.2f dBov, want %.2f", l, peak, got, want)
			}
		}
	}
	if v := PCMU.Level([]byte{0xff, 0x7f}); v != -127 {
		t.Errorf("silence: %v dBov", v)
	}
	if v := PCMA.Level(nil); v != -127 {
		t.Errorf("nothing: %v dBov", v)
	}
	octets := make([]byte, 160)
	if n := testing.AllocsPerRun(100, func() { PCMA.Level(octets) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLevel20ms(b *testing.B) {
	octets := make([]byte, 160)
	b.ReportAllocs()
	for b.Loop() {
		PCMA.Level(octets)
	}
}
