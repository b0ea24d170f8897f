package media

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"sparkle/media/mediapb"
	"sparkle/media/mix"
)

// voice is recorded speech, five seconds of speaker n at 26 dB below full scale.
func voice(t testing.TB, n int) []int16 {
	t.Helper()
	file, err := os.ReadFile(fmt.Sprintf("../bridge/lab/phone/speech/%d.wav", n))
	if err != nil {
		t.Fatal(err)
	}
	raw := file[44:]
	pcm := make([]int16, min(len(raw)/2, 5*16000))
	for i := range pcm {
		pcm[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	gain := math.Pow(10, -26.0/20) * 32768 / rms(floats(pcm))
	for i, v := range pcm {
		pcm[i] = int16(max(min(float64(v)*gain, 32767), -32768))
	}
	return pcm
}

func floats(pcm []int16) []float64 {
	out := make([]float64, len(pcm))
	for i, v := range pcm {
		out[i] = float64(v)
	}
	return out
}

func rms(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum / float64(max(len(x), 1)))
}

// deviation is rms without what does not move: G.722 may rest a little off zero.
func deviation(x []float64) float64 {
	var mean float64
	for _, v := range x {
		mean += v / float64(len(x))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v - mean
	}
	return rms(y)
}

func decibels(ratio float64) float64 { return 20 * math.Log10(max(ratio, 1e-6)) }

// sum is the mix as it should be: every voice at its level, nothing else.
func sum(voices ...[]int16) []float64 {
	out := make([]float64, 5*16000)
	for _, v := range voices {
		for i, x := range v {
			out[i] += float64(x)
		}
	}
	return out
}

// align shifts what was heard from sample from on to where it fits ref best, at most 400 ms
// later, and returns it as long as ref, with the lag.
func align(heard, ref []float64) (out []float64, lag int) {
	// Roughly at a quarter of the rate, then to the sample.
	quarter := func(x []float64) []float64 {
		out := make([]float64, len(x)/4)
		for i := range out {
			out[i] = x[4*i] + x[4*i+1] + x[4*i+2] + x[4*i+3]
		}
		return out
	}
	best := func(heard, ref []float64, from, to, stride int) (lag int) {
		top := math.Inf(-1)
		n := min(2*16000, len(ref))
		for d := max(from, 0); d < to && d+n <= len(heard); d++ {
			var c float64
			for i := 0; i < n; i += stride {
				c += heard[d+i] * ref[i]
			}
			if c > top {
				top, lag = c, d
			}
		}
		return lag
	}
	n := min(2*16000, len(ref))
	rough := 4 * best(quarter(heard[:min(len(heard), n+6400)]), quarter(ref[:n]), 0, 1600, 2)
	lag = best(heard, ref, rough-6, rough+7, 3)
	out = make([]float64, len(ref))
	copy(out, heard[lag:])
	return out, lag
}

// segSNR is the mean over 20 ms segments of speech of the signal to error ratio, each held
// to -10..35 dB, dB; segments for which skip is true are left out.
func segSNR(got, ref []float64, skip func(at int) bool) float64 {
	var total float64
	n := 0
	for i := 0; i+frameLen <= len(ref); i += frameLen {
		r := ref[i : i+frameLen]
		if rms(r) < 150 || skip != nil && skip(i) {
			continue
		}
		e := make([]float64, frameLen)
		for k := range e {
			e[k] = got[i+k] - r[k]
		}
		total += min(max(decibels(rms(r)/max(rms(e), 1e-3)), -10), 35)
		n++
	}
	return total / float64(max(n, 1))
}

// intelligibility is the mean correlation of short-time envelopes in third-octave bands, the
// idea of STOI (Taal et al. 2011): 1 is unchanged, above 0.75 nearly every word is
// understood, below 0.5 few are. Bands: 15 from 150 Hz, frames of 32 ms, segments of 400 ms.
func intelligibility(got, ref []float64) float64 {
	const frame, hop, segment = 512, 512, 13
	var hann [frame]float64
	for k := range hann {
		hann[k] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(k)/frame)
	}
	envelopes := func(x []float64) (out [15][]float64) {
		for i := 0; i+frame <= len(x); i += hop {
			for b := range out {
				lo := 150 * math.Pow(2, float64(b)/3-1.0/6)
				var e float64
				for _, f := range []float64{1.06, 1.19} { // two lines of a band
					w := 2 * math.Pi * lo * f / 16000
					c := 2 * math.Cos(w)
					var s1, s2 float64
					for k, v := range x[i : i+frame] {
						v *= hann[k]
						s1, s2 = v+c*s1-s2, s1
					}
					e += max(s1*s1+s2*s2-c*s1*s2, 0)
				}
				out[b] = append(out[b], math.Sqrt(e))
			}
		}
		return out
	}
	g, r := envelopes(got), envelopes(ref)
	var loud [15]float64
	for b := range r {
		loud[b] = slices.Max(r[b])
	}
	var total float64
	segments := 0
	for i := 0; i+segment <= len(r[0]); i += segment / 2 {
		best := math.Inf(-1)
		for d := -2; d <= 2; d++ { // adaptive playout moves, which no ear minds
			if i+d < 0 || i+d+segment > len(g[0]) {
				continue
			}
			var sum float64
			n := 0
			for b := range r {
				x, y := r[b][i:i+segment], g[b][i+d:i+d+segment]
				if slices.Max(x) > loud[b]/30 {
					sum += correlation(x, y)
					n++
				}
			}
			if n > 0 {
				best = max(best, sum/float64(n))
			}
		}
		if !math.IsInf(best, -1) {
			total += best
			segments++
		}
	}
	return total / float64(max(segments, 1))
}

func correlation(x, y []float64) float64 {
	var mx, my float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	var xy, xx, yy float64
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
		yy += (y[i] - my) * (y[i] - my)
	}
	return xy / math.Sqrt(max(xx*yy, 1e-9))
}

// says starts a clip at once.
func (p *phone) says(clip []int16) { p.say, p.said = clip, 0 }

// Alone and together, every talker arrives as loud as in a mix made by hand; nobody hears
// himself.
func TestLevelsAgainstAReferenceMix(t *testing.T) {
	type codecs []mediapb.AudioStream_Codec // of three talkers and a listener
	for _, c := range []codecs{{wb, wb, wb, wb}, {pcmu, pcmu, pcmu, pcmu}, {opu, opu, opu, opu}, {g7, g7, g7, g7},
		{opu, wb, pcmu, opu}, {opu, g7, wb, wb}, {nb, nb, nb, nb}, {pcma, nb, wb, pcma}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			a := newAir(t, Options{})
			a.set(confC())
			var talkers []*phone
			clips := [][]int16{voice(t, 0), voice(t, 2), voice(t, 4)}
			for i := range clips {
				talkers = append(talkers, a.join("c", fmt.Sprint("t", i), c[i], 0))
			}
			l := a.join("c", "l", c[3], 0)
			a.run(time.Second)
			judge := func(p *phone, what string, from int, others ...[]int16) {
				t.Helper()
				ref := sum(others...)
				got, _ := align(p.heard[from:], ref)
				if db := decibels(rms(got) / rms(ref)); abs(db) > 1 {
					t.Errorf("%s hears %s at %.2f dB, want 0 ± 1", p.leg.Id, what, db)
				}
			}
			for i, p := range talkers {
				from := len(l.heard)
				p.says(clips[i])
				a.run(5500 * time.Millisecond)
				judge(l, p.leg.Id, from, clips[i])
				if db := decibels(deviation(p.heard[from:]) / rms(floats(clips[i]))); db > -40 {
					t.Errorf("%s hears himself at %.1f dB", p.leg.Id, db)
				}
			}
			from := len(l.heard)
			for i, p := range talkers {
				p.says(clips[i])
			}
			a.run(5500 * time.Millisecond)
			judge(l, "all three", from, clips...)
			for i, p := range talkers {
				judge(p, "both others", from, slices.Delete(slices.Clone(clips), i, i+1)...)
			}
		})
	}
}

// Nobody hears his own tone while he and others talk.
func TestNobodyHearsHimself(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, pcma, opu, g7} {
		a := newAir(t, Options{})
		a.set(confC())
		x, y, z := a.join("c", "x", codec, 440), a.join("c", "y", codec, 1100), a.join("c", "z", codec, 700)
		z.toneHz = 0
		for _, p := range []*phone{x, y} {
			p.noDTX = codec == opu // to its detector a tone is no voice
			p.codecs()
		}
		a.run(2 * time.Second)
		for _, p := range []*phone{x, y} {
			if db := p.level(p.toneHz, time.Second); db > -40 {
				t.Errorf("%v: %s hears himself at %.1f dB", codec, p.leg.Id, db)
			}
		}
		z.hears(x, y)
	}
}

// The first 60 ms of a word are heard: after comfort noise and after noise sent as speech,
// alone and among others.
func TestTheStartOfAWordIsHeard(t *testing.T) {
	clip := voice(t, 1)
	onset := 0
	for i := 0; rms(floats(clip[i:i+80])) < 400; i += 80 {
		onset = i + 80
	}
	clip = clip[onset:]
	noise := func(n int) []int16 {
		r := rand.New(rand.NewPCG(3, 4))
		out := make([]int16, n)
		for i := range out {
			out[i] = int16(r.NormFloat64() * 20)
		}
		return out
	}
	for _, c := range [][2]mediapb.AudioStream_Codec{{wb, wb}, {nb, nb}, {pcmu, pcmu}, {opu, opu}, {g7, g7},
		{opu, wb}, {wb, opu}, {opu, pcmu}, {pcmu, opu}, {wb, g7}} {
		codec, hearing := c[0], c[1]
		for _, dtx := range []bool{true, false} {
			for _, others := range []int{0, 1} {
				t.Run(fmt.Sprintf("%v to %v dtx=%v others=%d", codec, hearing, dtx, others), func(t *testing.T) {
					a := newAir(t, Options{})
					a.set(confC())
					x, l := a.join("c", "x", codec, 0), a.join("c", "l", hearing, 0)
					a.join("c", "third", codec, 0)
					x.noDTX = !dtx
					x.codecs()
					if others > 0 {
						a.join("c", "o", codec, 3300).toneHz = 3300 // above what is measured
					}
					background := noise(3 * 16000)
					if dtx {
						clear(background)
					}
					x.says(background)
					a.run(2500 * time.Millisecond)
					x.says(append(slices.Clone(background[:320]), clip...))
					from := len(l.heard)
					a.run(2 * time.Second)
					ref := lowpass(floats(clip[:12000]))
					got, lag := align(lowpass(l.heard[from:from+16000]), ref)
					ms := func(from, to int) float64 {
						return decibels(rms(got[from*16:to*16]) / rms(ref[from*16:to*16]))
					}
					if early, later := ms(10, 60), ms(200, 700); early < later-4 {
						t.Errorf("first 60 ms at %.1f dB, the rest at %.1f (lag %d ms)", early, later, lag/16)
					}
				})
			}
		}
	}
}

// lowpass leaves what is below some 2 kHz.
func lowpass(x []float64) []float64 {
	out := make([]float64, len(x))
	const taps = 33
	var h [taps]float64
	for k := range h {
		d := float64(k - taps/2)
		h[k] = 0.25
		if d != 0 {
			h[k] = math.Sin(math.Pi*d/4) / (math.Pi * d)
		}
		h[k] *= 0.54 + 0.46*math.Cos(2*math.Pi*d/taps)
	}
	for i := range x {
		for k := max(0, taps/2-i); k < min(taps, len(x)-i+taps/2); k++ {
			out[i] += x[i+k-taps/2] * h[k]
		}
	}
	return out
}

// Who goes to and fro between the shared encoder and his own hears the others as well as
// who always has his own.
func TestSwitchingEncodersIsNotHeard(t *testing.T) {
	clips := [][]int16{voice(t, 0), voice(t, 5)}
	ref := sum(clips...)
	listen := func(y func(a *air, y *phone)) float64 {
		a := newAir(t, Options{})
		a.set(confC())
		x, z := a.join("c", "x", wb, 0), a.join("c", "z", wb, 0)
		l := a.join("c", "y", wb, 0)
		a.join("c", "other", wb, 0)
		a.run(time.Second)
		from := len(l.heard)
		x.says(clips[0])
		z.says(clips[1])
		y(a, l)
		got, _ := align(l.heard[from:], ref)
		return segSNR(got, ref, nil)
	}
	own := listen(func(a *air, y *phone) {
		y.toneHz = 3000 // talks all the time
		a.run(5500 * time.Millisecond)
	})
	switching := listen(func(a *air, y *phone) {
		for range 11 { // with his hangover he is a talker for 350 of 500 ms
			y.toneHz = 3000
			a.run(60 * time.Millisecond)
			y.toneHz = 0
			a.run(440 * time.Millisecond)
		}
	})
	shared := listen(func(a *air, y *phone) { a.run(5500 * time.Millisecond) })
	t.Logf("segmental SNR: own encoder %.1f dB, switching %.1f, shared %.1f", own, switching, shared)
	if switching < min(own, shared)-1 {
		t.Errorf("segmental SNR %.1f dB when switching; own encoder %.1f, shared %.1f", switching, own, shared)
	}
}

// Ten talkers at once are limited, not cut, whether all of them are mixed or, as the daemon comes,
// the 8 loudest.
func TestTenTalkersAreLimitedWithoutDistortion(t *testing.T) {
	for talkers, like := range map[int]float64{10: 0.97, 0: 0.9} {
		t.Run(fmt.Sprint("talkers=", talkers), func(t *testing.T) { tenTalkers(t, Options{MaxTalkers: talkers}, like) })
	}
}

func tenTalkers(t *testing.T, opt Options, like float64) {
	a := newAir(t, opt)
	a.set(confC())
	var clips [][]int16
	var talkers []*phone
	for i := range 10 {
		clip := slices.Clone(voice(t, i%8))
		clip = append(clip[i*2000:], clip[:i*2000]...)
		clips = append(clips, clip)
		talkers = append(talkers, a.join("c", fmt.Sprint("t", i), pcmu, 0))
	}
	l := a.join("c", "l", pcmu, 0)
	a.run(time.Second)
	from := len(l.heard)
	for i, p := range talkers {
		p.says(clips[i])
	}
	a.run(5500 * time.Millisecond)
	ref := sum(clips...)
	got, _ := align(l.heard[from:], ref)
	// Over the band that G.711 carries.
	g, r := lowpass(got), lowpass(ref)
	c := correlation(g, r)
	t.Logf("correlation with the sum %.3f", c)
	if c < like {
		t.Errorf("correlation with the sum %.3f, want %.2f: it is distorted", c, like)
	}
	// By itself the limiter takes this from the sum: what is left over once it is scaled as it
	// fits best.
	var xy, xx, yy float64
	for _, v := range ref {
		y := float64(mix.Limit(int32(v)))
		xy, xx, yy = xy+v*y, xx+v*v, yy+y*y
	}
	sdr := 10 * math.Log10(xy*xy/xx/max(yy-xy*xy/xx, 1e-3))
	t.Logf("ten talkers: signal to distortion of the limiter %.1f dB", sdr)
	if sdr < 25 {
		t.Errorf("signal to distortion of the limiter %.1f dB, want 25", sdr)
	}
	peak := 0.0
	for _, v := range got {
		peak = max(peak, abs(v))
	}
	if peak > 32000 {
		t.Errorf("peak %.0f: it was cut off", peak)
	}
}

// What loss and jitter on the way in leave of speech, for the README's table as well.
func TestLossAndJitterTable(t *testing.T) {
	clip := voice(t, 3)
	ref := floats(clip)
	type link struct {
		from, to mediapb.AudioStream_Codec
		loss     float64
		jitter   time.Duration
		// at least, and at most
		understood, concealed float64
		delay                 time.Duration
		late                  uint64
	}
	links := []link{
		{wb, pcma, 0, 0, 0.93, 0.01, 40 * time.Millisecond, 0},
		{wb, pcma, 0.01, 0, 0.90, 0.03, 40 * time.Millisecond, 0},
		{wb, pcma, 0.03, 0, 0.83, 0.05, 40 * time.Millisecond, 0},
		{wb, pcma, 0.05, 0, 0.83, 0.07, 60 * time.Millisecond, 0},
		{wb, pcma, 0.10, 0, 0.79, 0.12, 60 * time.Millisecond, 0},
		{wb, pcma, 0, 20 * time.Millisecond, 0.90, 0.03, 70 * time.Millisecond, 2},
		{wb, pcma, 0, 60 * time.Millisecond, 0.85, 0.05, 120 * time.Millisecond, 10},
		{wb, pcma, 0, 100 * time.Millisecond, 0.89, 0.08, 170 * time.Millisecond, 15},
		{wb, pcma, 0.10, 60 * time.Millisecond, 0.80, 0.16, 130 * time.Millisecond, 10},
	}
	for _, c := range [][2]mediapb.AudioStream_Codec{{nb, wb}, {pcma, wb}, {g7, pcmu}, {opu, pcma}} {
		links = append(links, link{c[0], c[1], 0.05, 20 * time.Millisecond, 0.80, 0.09, 80 * time.Millisecond, 4})
	}
	for _, tt := range links {
		for _, seed := range []uint64{11, 12} {
			if seed > 11 && tt.loss < 0.03 {
				continue // which frames were lost makes a difference, which came later makes none
			}
			t.Run(fmt.Sprintf("%v to %v loss=%.0f%% jitter=%v seed=%d", tt.from, tt.to, 100*tt.loss, tt.jitter, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, uint64(tt.jitter)))
				a := newAir(t, Options{})
				a.set(confC())
				x, o := a.join("c", "x", tt.from, 0), a.join("c", "o", tt.to, 0) // who has to have it decoded
				x.drop = func(int) bool { return r.Float64() < tt.loss }
				x.delay = func(int) time.Duration { return time.Duration(r.Float64() * float64(tt.jitter)) }
				x.says(clip)
				a.run(5500 * time.Millisecond) // the buffer learns
				before := a.stats("x").Audio
				x.says(clip)
				from := len(o.heard)
				a.run(5500 * time.Millisecond)
				s := a.stats("x").Audio
				got, lag := align(o.heard[from:], ref)
				share := float64(s.Concealed-before.Concealed) / 250
				late := s.RxLate - before.RxLate
				understood := intelligibility(got, ref)
				level := decibels(rms(got) / rms(ref))
				t.Logf("lost %3.0f of 250, concealed %4.1f %%, late %d, playout %3.0f ms, in to out %3d ms, level %+.1f dB, intelligibility %.2f",
					float64(s.RxLost-before.RxLost), 100*share, late, s.PlayoutMs, lag/16, level, understood)
				if understood < tt.understood {
					t.Errorf("intelligibility %.2f, want %.2f", understood, tt.understood)
				}
				if share > tt.concealed {
					t.Errorf("%.1f %% concealed, want at most %.0f", 100*share, 100*tt.concealed)
				}
				if d := time.Duration(lag) * time.Second / 16000; d > tt.delay {
					t.Errorf("%v from in to out, want at most %v", d, tt.delay)
				}
				if abs(level) > 1.5 {
					t.Errorf("level %+.1f dB, want 0 ± 1.5", level)
				}
				if late > tt.late {
					t.Errorf("%d of 250 frames came too late, want at most %d", late, tt.late)
				}
			})
		}
	}
}

// Between the words of a talker in a noisy room, whose phone falls silent and says how noisy it
// is, the others hear noise of that level, whatever their codec: no dead line, and not more.
func TestComfortNoiseIsAsLoudAsItWasTold(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, pcmu} {
		a := newAir(t, Options{})
		a.set(confC())
		x, second := a.join("c", "x", codec, 0), a.join("c", "second", wb, 0)
		listeners := map[string]*phone{
			"PCMA":  a.join("c", "pcma", pcma, 0),
			"PCMU":  a.join("c", "pcmu", pcmu, 0),
			"G.722": a.join("c", "g", g7, 0),
			"Opus":  a.join("c", "o", opu, 0, func(l *mediapb.Leg) { l.Audio.Dtx = false }),
		}
		told := map[string]*phone{
			"AMR": a.join("c", "nb", nb, 0), "AMR-WB": a.join("c", "wb", wb, 0),
			"PCMU": a.join("c", "cn", pcmu, 0, func(l *mediapb.Leg) { l.Audio.ComfortNoise = true }),
		}
		deaf := a.join("c", "deaf", pcma, 0, func(l *mediapb.Leg) { l.Deaf = true })
		r := rand.New(rand.NewPCG(5, 6))
		clip := append(slices.Clone(voice(t, 1)[:16000]), make([]int16, 3*16000)...)
		for i := range clip {
			clip[i] += int16(math.Round(r.NormFloat64() * 32768 * math.Pow(10, -55.0/20)))
		}
		second.says(voice(t, 2)[:8000]) // it is a mix
		x.says(clip)
		a.run(2 * time.Second)
		if x.off = codec == pcmu; x.off { // its pauses are RFC 3389's
			a.run(40 * time.Millisecond)
			x.sends(ptCN, 0, []byte{55})
		}
		a.run(time.Second)
		before := a.engine().Encodes
		a.run(900 * time.Millisecond)
		for name, l := range listeners {
			level := decibels(deviation(l.heard[len(l.heard)-12000:]) / 32768)
			if level < -61 || level > -53 {
				t.Errorf("%v: %s hears silence at %.1f dBov, told was -55", codec, name, level)
			}
		}
		for name, l := range told {
			if l.told < -61 || l.told > -53 {
				t.Errorf("%v: %s is told of silence at %.1f dBov, told was -55", codec, name, l.told)
			}
		}
		if level := decibels(rms(deaf.heard[len(deaf.heard)-12000:]) / 32768); level > -72 {
			t.Errorf("%v: who is deaf hears %.1f dBov", codec, level)
		}
		if n := a.engine().Encodes - before; n > 45 {
			t.Errorf("%v: %d encodes in 45 ticks of silence, want those of G.722", codec, n)
		}
		second.off = true
		if _, err := a.e.CloseLeg(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		x.off = true
		a.run(time.Second)
		if level := decibels(rms(listeners["PCMA"].heard[len(listeners["PCMA"].heard)-8000:]) / 32768); level > -70 {
			t.Errorf("%v: when he has gone his noise is heard at %.1f dBov", codec, level)
		}
	}
}
