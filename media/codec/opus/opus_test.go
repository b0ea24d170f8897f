//go:build cgo

package opus

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"sparkle/media/mix"
)

func voice(t testing.TB) []int16 {
	t.Helper()
	file, err := os.ReadFile("../../../bridge/lab/phone/speech/1.wav")
	if err != nil {
		t.Fatal(err)
	}
	raw := file[44:]
	pcm := make([]int16, min(len(raw)/2, 4*16000)/FrameSamples*FrameSamples)
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

func encoder(t testing.TB, p Params) *Encoder {
	t.Helper()
	e, err := NewEncoder(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); e.Close() })
	return e
}

func newDecoder(t testing.TB) *Decoder {
	t.Helper()
	d, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); d.Close() })
	return d
}

// packets are pcm encoded.
func packets(t testing.TB, p Params, pcm []int16) (out [][]byte) {
	e := encoder(t, p)
	var buf [MaxBytes]byte
	for i := 0; i+FrameSamples <= len(pcm); i += FrameSamples {
		n := e.Encode(pcm[i:i+FrameSamples], buf[:])
		if n == 0 {
			t.Fatalf("frame %d was not encoded", i/FrameSamples)
		}
		out = append(out, bytes.Clone(buf[:n]))
	}
	return out
}

func decodeAll(d *Decoder, packets [][]byte) []int16 {
	var out []int16
	var pcm [FrameSamples]int16
	for _, p := range packets {
		d.Decode(p, &pcm)
		out = append(out, pcm[:]...)
		for range Long(p) - 1 {
			d.More(&pcm)
			out = append(out, pcm[:]...)
		}
	}
	return out
}

func TestSpeechComesBackAtItsLevelAndBitrate(t *testing.T) {
	pcm := voice(t)
	for _, tt := range []struct {
		p   Params
		max int // bit/s
	}{
		{Params{}, 26000},
		{Params{FEC: true, DTX: true}, 28000},
		{Params{BitrateBps: 12000, Band: Narrow}, 14000},
		{Params{BitrateBps: 8000, Band: Medium}, 10000},
	} {
		ps := packets(t, tt.p, pcm)
		octets := 0
		for _, p := range ps {
			octets += len(p)
			if Long(p) != 1 {
				t.Errorf("%+v: a packet of %d × 20 ms", tt.p, Long(p))
			}
		}
		if bps := octets * 8 * 50 / len(ps); bps > tt.max || bps < 4000 {
			t.Errorf("%+v: %d bit/s, want at most %d", tt.p, bps, tt.max)
		}
		if db := dB(rms(decodeAll(newDecoder(t), ps)) / rms(pcm)); math.Abs(db) > 1.5 {
			t.Errorf("%+v: comes back at %+.1f dB", tt.p, db)
		}
	}
	if _, err := NewEncoder(Params{BitrateBps: 500}); err == nil {
		t.Error("500 bit/s was taken")
	}
}

func TestDTXSaysSoAndSpeechIsActive(t *testing.T) {
	pcm := append(voice(t), make([]int16, 100*FrameSamples)...)
	speech := len(voice(t)) / FrameSamples
	quiet, active := 0, 0
	for i, p := range packets(t, Params{DTX: true}, pcm) {
		loud := i < speech && rms(pcm[i*FrameSamples:(i+1)*FrameSamples]) > 1000
		switch {
		case loud && Active(p):
			active++
		case loud:
			active--
		case i > speech+20 && len(p) <= QuietBytes:
			quiet++
		case i > speech+20 && Active(p):
			t.Errorf("frame %d of silence is called active", i)
		}
	}
	if active < 50 {
		t.Errorf("loud frames called active less others: %d", active)
	}
	if quiet < 70 {
		t.Errorf("%d of 79 frames of silence are DTX", quiet)
	}
}

// A lost packet whose successor has FEC comes back better than concealed.
func TestRecoverUsesFEC(t *testing.T) {
	pcm := voice(t)
	ps := packets(t, Params{FEC: true}, pcm)
	clean := decodeAll(newDecoder(t), ps)
	run := func(recover bool) (snr float64, had int) {
		d := newDecoder(t)
		var out [FrameSamples]int16
		n := 0
		for i, p := range ps[:len(ps)-1] {
			lost := i%7 == 3
			switch {
			case !lost:
				d.Decode(p, &out)
				continue
			case recover:
				d.Recover(ps[i+1], &out)
			default:
				d.Conceal(&out)
			}
			want := clean[i*FrameSamples : (i+1)*FrameSamples]
			if rms(want) < 500 {
				continue
			}
			var e float64
			for k := range want {
				e += math.Pow(float64(want[k])-float64(out[k]), 2)
			}
			snr += max(min(dB(rms(want)/math.Sqrt(e/FrameSamples)), 30), -10)
			n++
			if HasFEC(ps[i+1]) {
				had++
			}
		}
		return snr / float64(n), had
	}
	concealed, had := run(false)
	recovered, _ := run(true)
	t.Logf("lost frames: %.1f dB concealed, %.1f with FEC; %d had it", concealed, recovered, had)
	if had == 0 || recovered < concealed+3 {
		t.Errorf("lost frames come back at %.1f dB with FEC, %.1f without; %d had it", recovered, concealed, had)
	}
}

// Octets that are no Opus never panic, and never come out loud.
func TestGarbageIsNotLoud(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	d := newDecoder(t)
	var f Framer
	var out [FrameSamples]int16
	var loudest float64
	var all []int16
	taken := 0
	for range 40_000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		err := f.Each(b, 0, func(fr Frame) {
			taken++
			d.Decode(fr.Packet, &out)
			loudest = max(loudest, rms(out[:]))
			all = append(all, out[:]...)
			for range Long(fr.Packet) - 1 {
				d.More(&out)
				loudest = max(loudest, rms(out[:]))
			}
		})
		if err == nil && len(b) == 0 {
			t.Fatal("nothing is a packet")
		}
		if r.IntN(10) == 0 {
			d.Recover(b, &out)
			loudest = max(loudest, rms(out[:]))
		}
	}
	t.Logf("loudest of garbage: %.1f dBov, on average %.1f", dB(loudest/32768), dB(rms(all)/32768))
	if taken < 5_000 {
		t.Errorf("only %d of 40,000 were taken for packets", taken)
	}
	if loudest > mix.MaxRMS*1.2 || dB(rms(all)/32768) > -25 {
		t.Errorf("garbage comes out at %.1f dBov, on average %.1f", dB(loudest/32768), dB(rms(all)/32768))
	}
}

func TestLimitLetsAVoicePass(t *testing.T) {
	d := &Decoder{}
	pcm := voice(t)
	keep := append([]int16(nil), pcm...)
	for i := 0; i < len(pcm); i += FrameSamples {
		d.limit(pcm[i : i+FrameSamples])
	}
	for i := range pcm {
		if pcm[i] != keep[i] {
			t.Fatal("a voice was limited")
		}
	}
}

// ffmpeg's packets of every length come out as frames of 20 ms, whole and in time.
func TestFramesOfEveryLength(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	pcm := voice(t)
	raw := make([]byte, 2*len(pcm))
	for i, v := range pcm {
		binary.LittleEndian.PutUint16(raw[2*i:], uint16(v))
	}
	for _, tt := range []struct{ ms, rate string }{{"2.5", "64k"}, {"5", "64k"}, {"10", "24k"}, {"20", "24k"}, {"40", "16k"}, {"60", "16k"}} {
		t.Run(tt.ms+" ms", func(t *testing.T) {
			cmd := exec.Command("ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-",
				"-c:a", "libopus", "-application", "voip", "-b:a", tt.rate, "-frame_duration", tt.ms, "-f", "ogg", "-")
			cmd.Stdin = bytes.NewReader(raw)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			ogg, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			d := newDecoder(t)
			var f Framer
			var out []int16
			var frame [FrameSamples]int16
			ts, next := uint32(0), uint32(0)
			for _, p := range oggPackets(t, ogg)[2:] { // OpusHead, OpusTags
				err := f.Each(p, ts, func(fr Frame) {
					if fr.Timestamp != next {
						t.Fatalf("a frame stamped %d, want %d", fr.Timestamp, next)
					}
					next += uint32(Long(fr.Packet) * FrameTicks)
					d.Decode(fr.Packet, &frame)
					out = append(out, frame[:]...)
					for range Long(fr.Packet) - 1 {
						d.More(&frame)
						out = append(out, frame[:]...)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				ts += uint32(ticksOf(p[0]))
			}
			if len(out) < len(pcm) {
				t.Errorf("%d samples of %d", len(out), len(pcm))
			}
			if db := dB(rms(out) / rms(pcm)); math.Abs(db) > 1 {
				t.Errorf("comes out at %+.1f dB", db)
			}
		})
	}
}

// oggPackets takes the packets out of an Ogg stream (RFC 3533 §6).
func oggPackets(t testing.TB, b []byte) (out [][]byte) {
	var packet []byte
	for len(b) >= 27 && string(b[:4]) == "OggS" {
		n := int(b[26])
		lacing, body := b[27:27+n], b[27+n:]
		for _, size := range lacing {
			packet = append(packet, body[:size]...)
			body = body[size:]
			if size < 255 {
				out, packet = append(out, packet), nil
			}
		}
		b = body
	}
	if len(out) < 3 {
		t.Fatalf("%d packets in the file", len(out))
	}
	return out
}

// Several frames in a packet, in each of the ways there are, are the frames they were.
func TestFramerTakesPacketsApart(t *testing.T) {
	ps := packets(t, Params{}, voice(t)[:6*FrameSamples*8])
	a, b, c := ps[20], ps[21], ps[22]
	size := func(p []byte) []byte {
		if n := len(p) - 1; n >= 252 {
			return []byte{byte(252 + n&3), byte((n - 252 - n&3) / 4)}
		}
		return []byte{byte(len(p) - 1)}
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := func(code byte) []byte { return []byte{a[0] | code} }
	for _, tt := range []struct {
		name   string
		packet []byte
		want   [][]byte
	}{
		{"one", a, [][]byte{a}},
		{"two of a size", join(head(1), a[1:], a[1:]), [][]byte{a, a}},
		{"two", join(head(2), size(a), a[1:], b[1:]), [][]byte{a, b}},
		{"three of a size", join(head(3), []byte{3}, a[1:], a[1:], a[1:]), [][]byte{a, a, a}},
		{"three", join(head(3), []byte{0x83}, size(a), size(b), a[1:], b[1:], c[1:]), [][]byte{a, b, c}},
		{"padded", join(head(3), []byte{0xc2, 255, 3}, size(a), a[1:], b[1:], make([]byte, 257)), [][]byte{a, b}},
	} {
		var f Framer
		i := 0
		err := f.Each(tt.packet, 5000, func(fr Frame) {
			if i < len(tt.want) && !bytes.Equal(fr.Packet, tt.want[i]) || fr.Timestamp != 5000+uint32(i*FrameTicks) {
				t.Errorf("%s: frame %d is another, stamped %d", tt.name, i, fr.Timestamp)
			}
			i++
		})
		if err != nil || i != len(tt.want) {
			t.Errorf("%s: %d frames, %v; want %d", tt.name, i, err, len(tt.want))
		}
		for cut := range tt.packet {
			_ = f.Each(tt.packet[:cut], 0, func(Frame) {})
		}
	}
}

func FuzzFramer(f *testing.F) {
	f.Add([]byte{0x48, 1, 2, 3}, []byte{0x43, 0xc2, 1, 5})
	f.Add([]byte{0xfb, 0x85, 252, 1, 3}, []byte{})
	d, err := NewDecoder()
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var fr Framer
		var out [FrameSamples]int16
		for i, p := range [][]byte{a, b, a} {
			total := 0
			err := fr.Each(p, uint32(i*480), func(f Frame) {
				if len(f.Packet) == 0 || len(f.Packet) > MaxBytes {
					t.Errorf("a packet of %d octets", len(f.Packet))
				}
				total += Long(f.Packet)
				Active(f.Packet)
				HasFEC(f.Packet)
				d.Decode(f.Packet, &out)
			})
			if err == nil && len(p) == 0 || total > 6 {
				t.Errorf("%d frames of %d octets, %v", total, len(p), err)
			}
		}
	})
}

func BenchmarkOpus(b *testing.B) {
	pcm := voice(b)
	for _, p := range []struct {
		name string
		Params
	}{{"plain", Params{}}, {"fec", Params{FEC: true}}} {
		ps := packets(b, p.Params, pcm)
		b.Run("encode/"+p.name, func(b *testing.B) {
			e := encoder(b, p.Params)
			var buf [MaxBytes]byte
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				e.Encode(pcm[i:i+FrameSamples], buf[:])
				i = (i + FrameSamples) % len(pcm)
			}
		})
		b.Run("decode/"+p.name, func(b *testing.B) {
			d := newDecoder(b)
			var out [FrameSamples]int16
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				d.Decode(ps[i], &out)
				i = (i + 1) % len(ps)
			}
		})
	}
}

func TestNothingAllocates(t *testing.T) {
	pcm := voice(t)
	ps := packets(t, Params{FEC: true}, pcm)
	e, d := encoder(t, Params{FEC: true, DTX: true}), newDecoder(t)
	var f Framer
	var buf [MaxBytes]byte
	var out [FrameSamples]int16
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		i = (i + 1) % (len(ps) - 1)
		e.Encode(pcm[i*FrameSamples:(i+1)*FrameSamples], buf[:])
		_ = f.Each(ps[i], 0, func(fr Frame) { d.Decode(fr.Packet, &out) })
		d.Conceal(&out)
		d.Recover(ps[i+1], &out)
	}); n != 0 {
		t.Errorf("a frame allocates %v times", n)
	}
}
