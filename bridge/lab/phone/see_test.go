package phone

import (
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/mosaic"
)

// shots are a speaker's camera pictures as the server gets them: through the handset's
// encoder and a decoder.
func shots(t testing.TB, speaker, n int) []*yuv.Image {
	t.Helper()
	c := &camera{speaker: speaker}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	enc, err := newEncoder(c, 160_000, 0)
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	defer enc.Close()
	dec, err := h264.NewDecoder()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	defer dec.Close()
	var out []*yuv.Image
	octets := 0
	for range n {
		au, release, err := enc.Read()
		if err != nil {
			t.Fatal(err)
		}
		octets += len(au)
		img, err := dec.Decode(au)
		if err != nil || img == nil {
			t.Fatalf("picture %d: %v", len(out), err)
		}
		m := yuv.New(img.Width, img.Height)
		if err := img.CopyTo(m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
		release()
	}
	t.Logf("speaker %d: %d kbit/s", speaker, octets*8*camFPS/n/1000)
	return out
}

// show composes the tiles as the server does, encodes at bps, decodes, and feeds a
// watcher at 15 pictures a second.
func show(t testing.TB, width, height, bps, n int, tiles func(i int) []mosaic.Tile) *watcher {
	t.Helper()
	enc, err := h264.NewEncoder(h264.Params{Width: width, Height: height, FPS: camFPS, BitrateBps: bps})
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	defer enc.Close()
	dec, err := h264.NewDecoder()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	defer dec.Close()
	canvas := mosaic.NewCanvas(width, height, fonts())
	w := newWatcher()
	for i := range n {
		au, _, err := enc.Encode(canvas.Compose(tiles(i)), int64(i)*1000/camFPS)
		if err != nil {
			t.Fatal(err)
		}
		if len(au) == 0 {
			continue
		}
		img, err := dec.Decode(au)
		if err != nil {
			t.Fatal(err)
		}
		if img != nil {
			w.feed(img, time.Unix(1000, 0).Add(time.Duration(i)*time.Second/camFPS))
		}
	}
	return w
}

var roster = []string{"陈晨", "Alice", "李雷", "Bob", "韩梅梅", "Carol"}
var decoys = []string{"王芳", "David", "陈", "Alicia", "Rob", "李明", "Carl", "Anna", "韩梅", "Al"}

func TestTilesAndNamesInTheServersPicture(t *testing.T) {
	const n = 60
	var cams [3][]*yuv.Image
	for s := range cams {
		cams[s] = shots(t, s, n)
	}
	for _, tt := range []struct {
		name               string
		width, height, bps int
	}{{"QVGA portrait", 240, 320, 150_000}, {"QVGA", 320, 240, 150_000}, {"VGA", 480, 640, 500_000}} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.height > 320 {
				t.Skip("SKIPPED: -short")
			}
			w := show(t, tt.width, tt.height, tt.bps, n, func(i int) []mosaic.Tile {
				var tiles []mosaic.Tile
				for k, name := range roster {
					tile := mosaic.Tile{Leg: name, Name: name, Talking: k == i/20, Muted: k == 3}
					if k < len(cams) {
						tile.Picture, tile.Gen = cams[k][i], uint64(i)
						if k == 2 {
							tile.Picture, tile.Gen = cams[k][0], 1 // stands still
						}
					}
					tiles = append(tiles, tile)
				}
				return tiles
			})
			begin := time.Now()
			s := w.seen(time.Time{}, roster, slices.Concat(roster, decoys))
			t.Logf("%+v in %v", s, time.Since(begin))
			if dir := os.Getenv("PHONE_PICTURES"); dir != "" {
				f, err := os.Create(filepath.Join(dir, tt.name+".png"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := png.Encode(f, w.latest.Full()); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(s.Moving, []string{"陈晨", "Alice"}) {
				t.Errorf("moving: %v", s.Moving)
			}
			if !slices.Equal(s.Named, roster) {
				t.Errorf("named: %v", s.Named)
			}
			if s.Width != tt.width || s.Height != tt.height || s.Frames < n/2 {
				t.Errorf("%dx%d, %d pictures", s.Width, s.Height, s.Frames)
			}
		})
	}
}
