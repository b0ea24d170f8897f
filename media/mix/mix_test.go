package mix

import (
	"math"
	"testing"
)

func TestLimitIsMonotonicAndTransparentBelowTheKnee(t *testing.T) {
	last := int16(math.MinInt16)
	for v := int32(-700000); v <= 700000; v += 7 {
		y := Limit(v)
		if y < last {
			t.Fatalf("Limit(%d) = %d after %d", v, y, last)
		}
		if last = y; v >= -knee && v <= knee && int32(y) != v {
			t.Fatalf("Limit(%d) = %d below the knee", v, y)
		}
	}
	if Limit(math.MaxInt32) <= 32000 || Limit(math.MinInt32+1) >= -32000 {
		t.Error("a huge sum is not loud")
	}
}

func tone(f, amp float64) []int16 {
	x := make([]int16, 320)
	for i := range x {
		x[i] = int16(amp * math.Sin(2*math.Pi*f*float64(i)/16000))
	}
	return x
}

// Ten talkers at a normal level: the limiter's distortion stays below what is heard.
func TestTenTalkersStayClean(t *testing.T) {
	sum := make([]int32, 320)
	for k := range 10 {
		Add(sum, tone(150+100*float64(k), 2600))
	}
	out := make([]int16, 320)
	Out(out, sum)
	var signal, errs float64
	// The best gain is taken out first: being a little softer is not distortion.
	var xy, xx float64
	for i, v := range sum {
		xy += float64(v) * float64(out[i])
		xx += float64(v) * float64(v)
	}
	g := xy / xx
	for i, v := range sum {
		e := float64(out[i]) - g*float64(v)
		signal += float64(out[i]) * float64(out[i])
		errs += e * e
	}
	if snr := 10 * math.Log10(signal/errs); snr < 20 {
		t.Errorf("signal to distortion %.1f dB", snr)
	}
}

func TestLevel(t *testing.T) {
	if l := Level(make([]int16, 320)); l != Silent {
		t.Errorf("silence is %v", l)
	}
	if l := Level(tone(1000, 32767)); math.Abs(float64(l)+3.01) > 0.1 {
		t.Errorf("a full-scale sine is %v dBov, want -3", l)
	}
}

func TestDetector(t *testing.T) {
	var d Detector
	for range 200 { // a fan
		d.Step(-50)
	}
	if d.Step(-50) {
		t.Error("a steady noise is a talker")
	}
	if !d.Step(-25) || !d.Step(-50) {
		t.Error("speech is not heard, or cut at once")
	}
	talking := true
	for range 40 {
		talking = d.Step(-50)
	}
	if talking {
		t.Error("still talking long after")
	}
}

func TestZeroAllocations(t *testing.T) {
	sum, x, out := make([]int32, 320), tone(300, 9000), make([]int16, 320)
	if n := testing.AllocsPerRun(100, func() { Add(sum, x); Out(out, sum); Level(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLevel(b *testing.B) {
	x := tone(300, 9000)
	b.ReportAllocs()
	for b.Loop() {
		Level(x)
	}
}

func BenchmarkAddOut(b *testing.B) {
	sum, x, out := make([]int32, 320), tone(300, 9000), make([]int16, 320)
	b.ReportAllocs()
	for b.Loop() {
		clear(sum)
		Add(sum, x)
		Out(out, sum)
	}
}
