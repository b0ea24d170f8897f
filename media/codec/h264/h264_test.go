//go:build cgo

package h264_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/rtp264"
)

// waves is a cosine in 1024 steps: scene is called often, also under the race
// detector.
var waves = func() (w [1024]int) {
	for i := range w {
		w[i] = int(90 * math.Cos(float64(i)*2*math.Pi/1024))
	}
	return w
}()

// scene is a moving picture with soft shapes and a little noise, as a camera has.
func scene(w, h, n int) *yuv.Image {
	m := yuv.New(w, h)
	noise := uint32(n)*2654435761 + 1
	cx, cy := w/2+int(float64(w)/4*math.Sin(float64(n)/9)), h/2+int(float64(h)/4*math.Cos(float64(n)/11))
	for y := range h {
		row := m.Y[y*m.YStride : y*m.YStride+w]
		for x := range row {
			noise = noise*1664525 + 1013904223
			d := (x-cx)*(x-cx) + (y-cy)*(y-cy)
			row[x] = byte(120 + waves[d/8%1024] + int(noise>>29))
		}
	}
	for y := range h / 2 {
		for x := range w / 2 {
			m.U[y*m.CStride+x] = byte(100 + 60*x/(w/2))
			m.V[y*m.CStride+x] = byte(100 + 60*y/(h/2))
		}
	}
	return m
}

func encoder(t testing.TB, p h264.Params) *h264.Encoder {
	e, err := h264.NewEncoder(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func decoder(t testing.TB) *h264.Decoder {
	d, err := h264.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestProbeNamesTheLibrary(t *testing.T) {
	v, err := h264.Probe()
	if err != nil || v == "" {
		t.Fatalf("%q, %v", v, err)
	}
	t.Log(v)
}

// Every picture goes encode, packetise, depacketise, decode in both modes and must
// come back looking the same, without delay, at about the rate asked for.
func TestRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name      string
		p         h264.Params
		mode      int
		wantLevel byte
	}{
		{"handset mode 0", h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 384_000, ProfileLevelID: "42C00C", MaxSlice: 1200}, 0, 12},
		{"handset mode 1", h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 384_000, ProfileLevelID: "42e00c"}, 1, 12},
		{"vga", h264.Params{Width: 640, Height: 480, FPS: 15, BitrateBps: 800_000, ProfileLevelID: "42c01f"}, 1, 31},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enc, dec := encoder(t, tt.p), decoder(t)
			p := rtp264.Packetizer{Mode: tt.mode}
			var depay rtp264.Depacketizer
			seq, octets, sum, keys := uint16(0), 0, 0.0, 0
			const frames = 45
			for n := range frames {
				src := scene(tt.p.Width, tt.p.Height, n)
				if n == 30 {
					enc.ForceKeyFrame()
				}
				au, key, err := enc.Encode(src, int64(n*1000/15))
				if err != nil || len(au) == 0 {
					t.Fatalf("picture %d: %d octets, %v", n, len(au), err)
				}
				octets += len(au)
				if key {
					keys++
					if rtp264.Sprop(au) == "" {
						t.Errorf("key frame %d has no parameter sets", n)
					}
				}
				if key != (n == 0 || n == 30) || key != rtp264.IsKey(au) {
					t.Errorf("picture %d: key %v", n, key)
				}
				err = p.Packetize(au, func(pl []byte, last bool) error {
					if tt.mode == 0 && len(pl) > 1200 {
						t.Errorf("slice of %d octets", len(pl))
					}
					depay.Push(pl, seq, uint32(n*6000), last, func(u rtp264.AccessUnit) {
						m, err := dec.Decode(u.Data)
						if err != nil || m == nil {
							t.Fatalf("picture %d: %v, %v", n, m, err)
						}
						if dec.Damaged() {
							t.Errorf("picture %d is damaged", n)
						}
						psnr := yuv.PSNR(src, m)
						sum += psnr
						if psnr < 27 {
							t.Errorf("picture %d: %.1f dB", n, psnr)
						}
					})
					seq++
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			s := depay.SPS
			if s.Width != tt.p.Width || s.Height != tt.p.Height || s.Profile != 66 || s.Constraints&0x40 == 0 || s.Level != tt.wantLevel {
				t.Errorf("SPS %+v, want Constrained Baseline level %d", s, tt.wantLevel)
			}
			kbps := float64(octets*8) / (frames / 15.0) / 1000
			t.Logf("%.1f dB mean, %.0f kbit/s of %d", sum/frames, kbps, tt.p.BitrateBps/1000)
			if kbps > float64(tt.p.BitrateBps)/1000*1.25 {
				t.Errorf("%.0f kbit/s, asked for %d", kbps, tt.p.BitrateBps/1000)
			}
		})
	}
}

// With one slice in twenty lost a picture still comes for nearly every access unit.
func TestLossIsConcealed(t *testing.T) {
	enc := encoder(t, h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 384_000, ProfileLevelID: "42c00c", MaxSlice: 1200})
	dec := decoder(t)
	p := rtp264.Packetizer{}
	var depay rtp264.Depacketizer
	rng := rand.New(rand.NewPCG(5, 5))
	seq, pictures, sum := uint16(0), 0, 0.0
	for n := range 60 {
		src := scene(240, 320, n)
		au, _, err := enc.Encode(src, int64(n*66))
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Packetize(au, func(pl []byte, last bool) error {
			seq++
			if n > 0 && rng.IntN(20) == 0 {
				return nil
			}
			depay.Push(pl, seq, uint32(n*6000), last, func(u rtp264.AccessUnit) {
				if m, err := dec.Decode(u.Data); err == nil && m != nil {
					pictures++
					sum += yuv.PSNR(src, m)
				}
			})
			return nil
		})
	}
	if depay.Stats.Lost == 0 {
		t.Fatal("nothing was lost: the test is idle")
	}
	if pictures < 50 || sum/float64(pictures) < 18 {
		t.Errorf("%d pictures at %.1f dB, want at least 50 at 18", pictures, sum/float64(pictures))
	}
}

func TestBadParamsAreRefused(t *testing.T) {
	for _, p := range []h264.Params{
		{Width: 0, Height: 240, FPS: 15, BitrateBps: 1},
		{Width: 641, Height: 480, FPS: 15, BitrateBps: 1},
		{Width: 640, Height: 480, FPS: 15, BitrateBps: 1, ProfileLevelID: "42c00c"}, // too large for level 1.2
		{Width: 320, Height: 240, FPS: 15, BitrateBps: 1, ProfileLevelID: "42"},
		{Width: 320, Height: 240, FPS: 15, BitrateBps: 1, ProfileLevelID: "42c0ff"},
		{Width: 320, Height: 240, FPS: 15, BitrateBps: 1, ProfileLevelID: "zzzzzz"},
	} {
		if e, err := h264.NewEncoder(p); err == nil {
			e.Close()
			t.Errorf("%+v: no error", p)
		}
	}
	enc := encoder(t, h264.Params{Width: 320, Height: 240, FPS: 15, BitrateBps: 200_000})
	if _, _, err := enc.Encode(yuv.New(240, 320), 0); err == nil {
		t.Error("a picture of another size: no error")
	}
	enc.Close()
	if _, _, err := enc.Encode(yuv.New(320, 240), 0); !errors.Is(err, h264.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
}

func TestFitObeysLevels(t *testing.T) {
	p, err := h264.Fit(h264.Params{Width: 240, Height: 320, FPS: 30, BitrateBps: 2_000_000, ProfileLevelID: "42c00c"})
	if err != nil || p.FPS != 20 || p.BitrateBps != 384_000 {
		t.Errorf("level 1.2: %+v, %v, want 20 fps and 384 kbit/s", p, err)
	}
	if l, _ := h264.ParseLevel("42f00b"); l != 9 {
		t.Errorf("42f00b is level %d, want 1b", l)
	}
}

func TestSetBitrate(t *testing.T) {
	enc := encoder(t, h264.Params{Width: 320, Height: 240, FPS: 15, BitrateBps: 600_000})
	rate := func(from int) (octets int) {
		for n := from; n < from+45; n++ {
			au, _, err := enc.Encode(scene(320, 240, n), int64(n*66))
			if err != nil {
				t.Fatal(err)
			}
			octets += len(au)
		}
		return octets
	}
	high := rate(0)
	if err := enc.SetBitrate(150_000); err != nil {
		t.Fatal(err)
	}
	rate(45)
	if low := rate(90); low*2 > high {
		t.Errorf("%d octets at 600 kbit/s, %d at 150", high, low)
	}
}

// The decoder must live through anything: the malformed corpus past the
// depacketiser, and streams with flipped bits, cut and shuffled.
func TestDecoderSurvivesGarbage(t *testing.T) {
	files, _ := filepath.Glob("../../video/rtp264/testdata/malformed/*.bin")
	if len(files) < 20 {
		t.Fatalf("corpus has %d files", len(files))
	}
	dec := decoder(t)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var d rtp264.Depacketizer
		for seq := uint16(0); len(b) >= 2; seq++ {
			n := int(binary.BigEndian.Uint16(b))
			d.Push(b[2+12:2+n], seq, uint32(b[2+4])<<24|uint32(b[2+5])<<16|uint32(b[2+6])<<8|uint32(b[2+7]), b[3]&0x80 != 0,
				func(u rtp264.AccessUnit) { _, _ = dec.Decode(u.Data) })
			b = b[2+n:]
		}
	}
	enc := encoder(t, h264.Params{Width: 320, Height: 240, FPS: 15, BitrateBps: 300_000})
	rng := rand.New(rand.NewPCG(9, 9))
	for n := range 120 {
		au, _, err := enc.Encode(scene(320, 240, n), int64(n*66))
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(au)
		for range 1 + len(bad)/200 {
			bad[rng.IntN(len(bad))] ^= byte(1 << rng.IntN(8))
		}
		_, _ = dec.Decode(bad[:1+rng.IntN(len(bad))])
	}
	for _, bad := range [][]byte{nil, {}, {0}, {0, 0, 0, 1}, make([]byte, 5<<20)} {
		if m, err := dec.Decode(bad); m != nil {
			t.Errorf("%d octets gave a picture, %v", len(bad), err)
		}
	}
	// and a key frame heals it
	enc.ForceKeyFrame()
	src := scene(320, 240, 7)
	au, _, err := enc.Encode(src, 99999)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := dec.Decode(au); err != nil || m == nil || yuv.PSNR(src, m) < 25 {
		t.Errorf("after garbage a key frame gives %v, %v, %.1f dB", m != nil, err, yuv.PSNR(src, m))
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	enc := encoder(t, h264.Params{Width: 320, Height: 240, FPS: 15, BitrateBps: 300_000})
	dec := decoder(t)
	pics := []*yuv.Image{scene(320, 240, 0), scene(320, 240, 1)}
	n := 0
	one := func() {
		au, _, _ := enc.Encode(pics[n%2], int64(n*66))
		_, _ = dec.Decode(au)
		n++
	}
	one()
	if a := testing.AllocsPerRun(50, one); a > 0 {
		t.Errorf("encode and decode allocate %v times, want 0", a)
	}
}

func BenchmarkEncodeDecode(b *testing.B) {
	for _, size := range [][2]int{{320, 240}, {640, 480}} {
		var pics []*yuv.Image
		for n := range 15 {
			pics = append(pics, scene(size[0], size[1], n))
		}
		b.Run(map[int]string{320: "320x240", 640: "640x480"}[size[0]], func(b *testing.B) {
			enc := encoder(b, h264.Params{Width: size[0], Height: size[1], FPS: 15, BitrateBps: size[0] * 1200})
			dec := decoder(b)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				au, _, err := enc.Encode(pics[n%15], int64(n*66))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := dec.Decode(au); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}
