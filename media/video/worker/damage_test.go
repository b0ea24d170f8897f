package worker

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// roomOf is a conference that nobody drives but the test, and what it says.
func roomOf(t *testing.T) (*room, *worker) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{opt: options(), out: make(chan []byte, 1024), ctx: ctx}
	r := newRoom(w, "c")
	t.Cleanup(func() {
		r.release()
		cancel()
	})
	r.set(wire.Conference{ID: "c", Tiles: []wire.Tile{{Leg: "a", Name: "A", Source: 1}}})
	return r, w
}

// scene is a camera that pans, encoded in slices that fit one packet, with a key frame at
// each of keys, and the pictures as a decoder without loss shows them.
func scene(t *testing.T, frames int, keys ...int) (units [][]byte, good []*yuv.Image) {
	enc, err := h264.NewEncoder(h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 2_000_000, ProfileLevelID: "42c01f", MaxSlice: 600})
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	dec, err := h264.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	m := yuv.New(240, 320)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range frames {
		for y := 0; y < 320; y += 16 { // every second block is another one each time
			for x := 16 * (i % 2); x < 240; x += 32 {
				b := m.Sub(x, y, 16, 16)
				b.Fill(byte(60+rng.IntN(120)), 128, 128)
			}
		}
		for _, k := range keys {
			if i == k {
				enc.ForceKeyFrame()
			}
		}
		au, _, err := enc.Encode(m, int64(i*66))
		if err != nil || len(au) == 0 {
			t.Fatal("picture skipped", err)
		}
		units = append(units, bytes.Clone(au))
		img, err := dec.Decode(au)
		if err != nil || img == nil {
			t.Fatal("good picture", i, err)
		}
		keep := yuv.New(img.Width, img.Height)
		_ = img.CopyTo(keep)
		good = append(good, keep)
	}
	return units, good
}

// A picture that lacks something is not shown, nor what is predicted from it: the tile keeps
// the last good one until a key frame comes, turns into the avatar when none does, and takes
// what there is when none ever will (MEDIA.md, Recommendation per codec; DESIGN.md §6).
func TestBrokenPicturesAreNotShown(t *testing.T) {
	const avatar = -1
	for _, tt := range []struct {
		name   string
		turned uint8
		keys   []int
		frames int
		lose   [2]int // picture, packet of it; -1: the whole picture
		shown  func(i int) int
	}{
		{"a packet", 0, []int{20}, 30, [2]int{10, 1}, func(i int) int {
			if i >= 10 && i < 20 {
				return 9
			}
			return i
		}},
		{"a packet of a phone held sideways", 1, []int{20}, 30, [2]int{10, 1}, func(i int) int {
			if i >= 10 && i < 20 {
				return 9
			}
			return i
		}},
		{"a picture", 0, []int{20}, 30, [2]int{10, -1}, func(i int) int {
			if i >= 10 && i < 20 {
				return 9
			}
			return i
		}},
		{"a packet of the key frame", 0, []int{10, 20}, 30, [2]int{10, 3}, func(i int) int {
			if i >= 10 && i < 20 {
				return 9
			}
			return i
		}},
		{"the picture before a key frame", 0, []int{11}, 20, [2]int{10, -1}, func(i int) int {
			if i == 10 {
				return 9
			}
			return i
		}},
		{"a packet, and no key frame comes", 0, nil, 100, [2]int{10, 1}, func(i int) int {
			switch {
			case i < 10:
				return i
			case i < 39: // 2 s after picture 9
				return 9
			case i < 85: // 5 s after picture 10
				return avatar
			}
			return i
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := roomOf(t)
			units, good := scene(t, tt.frames, tt.keys...)
			start, seq := time.Unix(1000, 0), uint16(0)
			var depay rtp264.Depacketizer
			pack := rtp264.Packetizer{Mode: 1, MaxPayload: 600}
			for i, au := range units {
				now := start.Add(time.Duration(i) * time.Second / 15)
				n := 0
				_ = pack.Packetize(au, func(pl []byte, last bool) error {
					if i != tt.lose[0] || n != tt.lose[1] && tt.lose[1] >= 0 {
						depay.Push(pl, seq, uint32(i)*6000, last, func(au rtp264.AccessUnit) {
							r.arrive(&wire.Unit{ID: 1, Key: au.Key, Damaged: au.Damaged, Rotate: tt.turned, Data: au.Data}, now)
						})
					}
					seq++
					n++
					return nil
				})
				if n < 3 {
					t.Fatalf("picture %d is in %d packets", i, n)
				}
				r.gather(now)
				shown, want := r.tiles[0].Picture, tt.shown(i)
				switch {
				case want == avatar && shown != nil:
					t.Fatalf("picture %d: a picture where the avatar belongs", i)
				case want == avatar:
				case shown == nil:
					t.Fatalf("picture %d: the avatar where picture %d belongs", i, want)
				case want == i && tt.keys == nil && i > 10: // whatever there is
				default:
					ref := good[want]
					if tt.turned != 0 {
						ref = yuv.New(320, 240)
						_ = yuv.Rotate(ref, good[want], 90)
					}
					if !bytes.Equal(shown.Y, ref.Y) {
						t.Fatalf("picture %d: the tile does not show picture %d", i, want)
					}
				}
			}
		})
	}
}
