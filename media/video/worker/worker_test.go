package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/mosaic"
	"sparkle/media/video/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() Options {
	return Options{FPS: 30, Fonts: mosaic.LoadFonts(nil, nil), Log: slog.New(slog.DiscardHandler)}
}

// started runs a worker and returns our end of its connection.
func started(t *testing.T) net.Conn {
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(context.Background(), theirs, options()) }()
	t.Cleanup(func() {
		ours.Close()
		<-done
	})
	return ours
}

// until reads messages until one satisfies ok, at most 10 s.
func until(t *testing.T, c net.Conn, what string, ok func(wire.Type, []byte) bool) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := wire.Reader{R: c}
	for {
		typ, body, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if ok(typ, body) {
			return
		}
	}
}

func write(t *testing.T, c io.Writer, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestGarbageNeitherStopsNorHangsIt(t *testing.T) {
	c := started(t)
	until(t, c, "hello", func(typ wire.Type, _ []byte) bool { return typ == wire.TypeHello })
	write(t, c, wire.AppendJSON(nil, wire.TypeConference, wire.Conference{ID: "c", Tiles: []wire.Tile{{Leg: "a", Name: "A", Source: 1}}}))
	enc, err := h264.NewEncoder(h264.Params{Width: 320, Height: 240, FPS: 15, BitrateBps: 200_000})
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	rng := rand.New(rand.NewPCG(2, 3))
	img := yuv.New(320, 240)
	go func() { // the worker tells of its troubles while we write
		for n := range 60 {
			img.Fill(byte(n*4), 128, 128)
			au, _, _ := enc.Encode(img, int64(n*66))
			bad := bytes.Clone(au)
			for range 4 {
				bad[rng.IntN(len(bad))] ^= 0x55
			}
			if _, err := c.Write(wire.AppendUnit(nil, wire.TypeUnit, &wire.Unit{ID: 1, Key: n == 0, Rotate: uint8(n), Mirror: n%2 == 0, Data: bad})); err != nil {
				return
			}
		}
		_, _ = c.Write(wire.AppendUnit(nil, wire.TypeUnit, &wire.Unit{ID: 99, Data: []byte("of nobody")}))
		_, _ = c.Write(wire.AppendID(nil, wire.TypeKeyFrame, 77, nil))
		_, _ = c.Write(wire.AppendID(nil, wire.TypePing, 5, nil))
	}()
	until(t, c, "pong after garbage", func(typ wire.Type, body []byte) bool {
		var p wire.Pong
		return typ == wire.TypePong && wire.ParseJSON(body, &p) == nil && p.ID == 5
	})
	go func() { _, _ = c.Write(wire.AppendJSON(nil, wire.TypePreview, wire.Preview{ID: 8, Conference: "c"})) }()
	until(t, c, "preview", func(typ wire.Type, body []byte) bool {
		id, jpeg, _ := wire.ParseID(body)
		return typ == wire.TypeJPEG && id == 8 && len(jpeg) > 1000
	})
}

func TestBrokenProtocolEndsTheConnection(t *testing.T) {
	for name, b := range map[string][]byte{
		"type":   {0, 0, 0, 1, 200},
		"length": {255, 255, 255, 255, 1},
		"json":   wire.AppendID(nil, wire.TypeConference, 1, nil),
		"unit":   {0, 0, 0, 2, byte(wire.TypeUnit), 1},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			done := make(chan error, 1)
			go func() { done <- Run(context.Background(), theirs, options()) }()
			until(t, ours, "hello", func(typ wire.Type, _ []byte) bool { return typ == wire.TypeHello })
			write(t, ours, b)
			if err := <-done; err == nil {
				t.Error("no error")
			}
		})
	}
}

// BenchmarkMosaic is one picture of a conference: n sources decoded, composed and
// encoded once, as a room does 15 times a second.
func BenchmarkMosaic(b *testing.B) {
	for _, size := range [][2]int{{320, 240}, {640, 480}} {
		for _, n := range []int{4, 9} {
			b.Run(fmt.Sprintf("%dx%d/tiles=%d", size[0], size[1], n), func(b *testing.B) {
				const frames = 30
				enc, err := h264.NewEncoder(h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 200_000, ProfileLevelID: "42c00c"})
				if err != nil {
					b.Fatal(err)
				}
				defer enc.Close()
				var units [][]byte
				for i := range frames {
					m := yuv.New(240, 320)
					for y := range 320 {
						for x := range 240 {
							m.Y[y*240+x] = byte(40 + (x+i*3)%97 + (y+i)%61)
						}
					}
					au, _, err := enc.Encode(m, int64(i*66))
					if err != nil {
						b.Fatal(err)
					}
					units = append(units, bytes.Clone(au))
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				opt := options()
				opt.FPS = 15
				w := &worker{opt: opt, out: make(chan []byte, 64), ctx: ctx}
				go func() {
					for range w.out {
					}
				}()
				r := newRoom(w, "bench")
				defer r.release()
				defer close(w.out)
				c := wire.Conference{ID: "bench", Tiers: []wire.Tier{{ID: 1, Width: size[0], Height: size[1], FPS: 15, BitrateBps: size[0] * 1200, Profile: "42c01f"}}}
				for i := range n {
					c.Tiles = append(c.Tiles, wire.Tile{Leg: fmt.Sprint(i), Name: fmt.Sprint("Member ", i), Source: uint32(i + 1)})
				}
				r.set(c)
				now, i := time.Now(), 0
				b.ReportAllocs()
				for b.Loop() {
					for s := range n {
						r.arrive(&wire.Unit{ID: uint32(s + 1), Data: units[i%frames]}, now)
					}
					r.tick(now)
					now = now.Add(time.Second / 15)
					i++
				}
				b.ReportMetric(float64(r.count.Encoded)/float64(i), "encodes/op")
			})
		}
	}
}
