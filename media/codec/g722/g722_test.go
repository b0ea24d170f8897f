//go:build cgo

package g722

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

func voice(t testing.TB) []int16 {
	t.Helper()
	file, err := os.ReadFile("../../../bridge/lab/phone/speech/2.wav")
	if err != nil {
		t.Fatal(err)
	}
	raw := file[44:]
	pcm := make([]int16, min(len(raw)/2, 3*16000)/FrameSamples*FrameSamples)
	for i := range pcm {
		pcm[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	return pcm
}

func rms(x []int16) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(max(len(x), 1)))
}

func dB(ratio float64) float64 { return 20 * math.Log10(max(ratio, 1e-6)) }

func encode(t testing.TB, pcm []int16) []byte {
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); e.Close() })
	out := make([]byte, 0, len(pcm)/2)
	var buf [FrameBytes]byte
	for i := 0; i+FrameSamples <= len(pcm); i += FrameSamples {
		if n := e.Encode(pcm[i:i+FrameSamples], buf[:]); n != FrameBytes {
			t.Fatalf("%d octets", n)
		}
		out = append(out, buf[:]...)
	}
	return out
}

func decoding(t testing.TB) *Decoder {
	d, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); d.Close() })
	return d
}

func decode(t testing.TB, octets []byte) []int16 {
	d := decoding(t)
	var out []int16
	var pcm [FrameSamples]int16
	for i := 0; i+FrameBytes <= len(octets); i += FrameBytes {
		d.Decode(octets[i:i+FrameBytes], &pcm)
		out = append(out, pcm[:]...)
	}
	return out
}

func ffmpeg(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, &stderr)
	}
	return out
}

func samples(raw []byte) []int16 {
	out := make([]int16, len(raw)/2)
	for i := range out {
		out[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	return out
}

func raw(pcm []int16) []byte {
	out := make([]byte, 2*len(pcm))
	for i, v := range pcm {
		binary.LittleEndian.PutUint16(out[2*i:], uint16(v))
	}
	return out
}

// snr is how far b is from a, at the lag at which it is nearest.
func snr(a, b []int16) (best float64, at int) {
	best = -100
	for lag := range 64 {
		var e float64
		n := min(len(a), len(b)-lag)
		for i := range n {
			e += math.Pow(float64(a[i])-float64(b[i+lag]), 2)
		}
		if v := dB(rms(a[:n]) / math.Sqrt(e/float64(n)+1e-9)); v > best {
			best, at = v, lag
		}
	}
	return best, at
}

// What we encode, another implementation decodes as we do, and the other way round.
func TestFfmpegAgrees(t *testing.T) {
	pcm := voice(t)
	ours := encode(t, pcm)
	theirs := ffmpeg(t, raw(pcm), "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-", "-c:a", "g722", "-f", "g722", "-")
	if len(theirs) < len(ours) {
		t.Fatalf("%d octets from ffmpeg, %d from us", len(theirs), len(ours))
	}
	theirs = theirs[:len(ours)]
	for _, tt := range []struct {
		name   string
		octets []byte
	}{{"ours", ours}, {"theirs", theirs}} {
		us := decode(t, tt.octets)
		them := samples(ffmpeg(t, tt.octets, "-f", "g722", "-i", "-", "-f", "s16le", "-"))
		if db, _ := snr(us, them); db < 40 {
			t.Errorf("%s octets: the two decoders differ, %.1f dB", tt.name, db)
		}
		db, lag := snr(pcm, us)
		if db < 15 {
			t.Errorf("%s octets come back at %.1f dB (lag %d)", tt.name, db, lag)
		}
		if level := dB(rms(us) / rms(pcm)); math.Abs(level) > 0.5 {
			t.Errorf("%s octets come back %+.2f dB loud", tt.name, level)
		}
		t.Logf("%s: SNR %.1f dB, lag %d samples", tt.name, db, lag)
	}
}

// A decoder that begins in the middle is right within 100 ms.
func TestADecoderMayBeginAnywhere(t *testing.T) {
	octets := encode(t, voice(t))
	whole := decode(t, octets)
	const from = 50
	part := decode(t, octets[from*FrameBytes:])
	if db, _ := snr(whole[(from+5)*FrameSamples:], part[5*FrameSamples:]); db < 25 {
		t.Errorf("%.1f dB from what it would be", db)
	}
}

func TestLossFadesWithoutClicks(t *testing.T) {
	d := decoding(t)
	octets := encode(t, voice(t))
	var pcm [FrameSamples]int16
	for i := range 40 {
		d.Decode(octets[i*FrameBytes:(i+1)*FrameBytes], &pcm)
	}
	before, end := rms(pcm[:]), pcm[FrameSamples-1]
	steep := 0.0
	for i := 1; i < len(pcm); i++ {
		steep = max(steep, math.Abs(float64(pcm[i])-float64(pcm[i-1])))
	}
	for n := range 6 {
		d.Conceal(&pcm)
		if jump := math.Abs(float64(pcm[0]) - float64(end)); jump > steep {
			t.Errorf("lost frame %d begins with a jump of %.0f, in speech they are at most %.0f", n, jump, steep)
		}
		end = pcm[FrameSamples-1]
	}
	if db := dB(rms(pcm[:]) / before); db > -25 {
		t.Errorf("after 120 ms of loss %.1f dB", db)
	}
}

func TestGarbage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	d := decoding(t)
	var pcm [FrameSamples]int16
	for range 20_000 {
		b := make([]byte, r.IntN(2*FrameBytes))
		if r.IntN(2) == 0 {
			b = make([]byte, FrameBytes)
		}
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		d.Decode(b, &pcm)
	}
	if n := (&Encoder{}).Encode(pcm[:7], nil); n != 0 {
		t.Errorf("%d octets of 7 samples", n)
	}
}

func TestNothingAllocates(t *testing.T) {
	pcm := voice(t)
	e, _ := NewEncoder()
	defer e.Close()
	d := decoding(t)
	var buf [FrameBytes]byte
	var out [FrameSamples]int16
	if n := testing.AllocsPerRun(100, func() {
		e.Encode(pcm[:FrameSamples], buf[:])
		d.Decode(buf[:], &out)
		d.Conceal(&out)
	}); n != 0 {
		t.Errorf("a frame allocates %v times", n)
	}
}

func BenchmarkG722(b *testing.B) {
	pcm := voice(b)
	octets := encode(b, pcm)
	b.Run("encode", func(b *testing.B) {
		e, _ := NewEncoder()
		defer e.Close()
		var buf [FrameBytes]byte
		b.ReportAllocs()
		for b.Loop() {
			e.Encode(pcm[:FrameSamples], buf[:])
		}
	})
	b.Run("decode", func(b *testing.B) {
		d := decoding(b)
		var out [FrameSamples]int16
		b.ReportAllocs()
		for b.Loop() {
			d.Decode(octets[:FrameBytes], &out)
		}
	})
}
