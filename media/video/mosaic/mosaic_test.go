package mosaic

import (
	"encoding/binary"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/font/gofont/goregular"

	"sparkle/media/codec/yuv"
	"sparkle/media/layout"
)

func flat(w, h int, y, u, v byte) *yuv.Image {
	m := yuv.New(w, h)
	m.Fill(y, u, v)
	return m
}

// person is a picture that looks a little like one, for eyes.
func person(w, h, n int) *yuv.Image {
	m := flat(w, h, byte(90+n*17%80), byte(110+n*23%40), byte(120+n*11%30))
	for y := range h {
		for x := range w {
			dx, dy := float64(x-w/2)/float64(w), float64(y-h*2/5)/float64(w)
			if dx*dx+dy*dy*0.7 < 0.05 {
				m.Y[y*m.YStride+x] = byte(170 - y/4)
				m.U[y/2*m.CStride+x/2], m.V[y/2*m.CStride+x/2] = 110, 150
			} else if b := float64(y) - float64(h)*0.68; b > 0 && dx*dx < 0.09 {
				m.Y[y*m.YStride+x] = 60
			}
		}
	}
	return m
}

func fonts() *Fonts { return LoadFonts(nil, nil) }

func save(t *testing.T, m *yuv.Image, name string) {
	dir := os.Getenv("SPARKLE_PNG_DIR")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, name+".png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m.Full()); err != nil {
		t.Fatal(err)
	}
}

// Everything on one canvas: every tile shows its own colour, its own plate, and
// avatars stand for who has no picture. Set SPARKLE_PNG_DIR to look at them.
func TestComposePlacesEverybody(t *testing.T) {
	names := []string{"Alice", "王小明", "Bob Marley-Featherstonehaugh", "李雷", "+86 138 0013 8000", "Zoë", "陈静怡", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Mallory", "Niaj"}
	for _, size := range [][2]int{{240, 320}, {320, 240}, {640, 480}, {480, 640}} {
		for _, n := range []int{1, 2, 3, 4, 6, 9, 16} {
			t.Run(fmt.Sprintf("%dx%d/%d", size[0], size[1], n), func(t *testing.T) {
				c := NewCanvas(size[0], size[1], fonts())
				var tiles []Tile
				for i := range n {
					tile := Tile{Leg: fmt.Sprint(i), Name: names[i], Talking: i == 1, Muted: i == 2, Gen: 1}
					if i%3 != 2 {
						tile.Picture = flat(240, 320, byte(60+i*10), byte(80+i*4), byte(170-i*4))
					}
					tiles = append(tiles, tile)
				}
				img := c.Compose(tiles)
				for i, r := range layout.Tiles(nil, n, size[0], size[1]) {
					free := r.H - plateHeight(r.H)
					x, y := r.X+r.W/2, r.Y+free/2
					if p := tiles[i].Picture; p != nil {
						if got := img.Y[y*img.YStride+x]; absDiff(got, p.Y[0]) > 2 {
							t.Errorf("tile %d: luma %d in its middle, want %d", i, got, p.Y[0])
						}
						if got := img.U[y/2*img.CStride+x/2]; absDiff(got, p.U[0]) > 2 {
							t.Errorf("tile %d: U %d, want %d", i, got, p.U[0])
						}
					} else if spread(img, r.X, r.Y, r.W, free) < 40 {
						t.Errorf("tile %d: no avatar to be seen", i)
					}
					if spread(img, r.X, r.Y+free, r.W, r.H-free) < 120 {
						t.Errorf("tile %d: no name to be seen", i)
					}
					if got := img.V[r.Y/2*img.CStride+(r.X+r.W/2)/2]; (got == yuvTalk[2]) != tiles[i].Talking {
						t.Errorf("tile %d: talk frame %v, want %v", i, !tiles[i].Talking, tiles[i].Talking)
					}
				}
				for i := range tiles {
					if tiles[i].Picture != nil {
						tiles[i].Picture, tiles[i].Gen = person(240, 320, i), 2
						if i%2 == 1 {
							tiles[i].Picture = person(320, 240, i)
						}
					}
				}
				save(t, c.Compose(tiles), fmt.Sprintf("%dx%d-%d", size[0], size[1], n))
			})
		}
	}
}

func absDiff(a, b byte) int { return max(int(a)-int(b), int(b)-int(a)) }

// spread is the difference between the brightest and the darkest luma in a window.
func spread(m *yuv.Image, x, y, w, h int) int {
	lo, hi := byte(255), byte(0)
	for r := y; r < y+h; r++ {
		for _, v := range m.Y[r*m.YStride+x : r*m.YStride+x+w] {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	return int(hi) - int(lo)
}

// A plate on the canvas is the rendering of its own name and of no other.
func TestPlatesCarryTheirNames(t *testing.T) {
	f := fonts()
	c := NewCanvas(240, 320, f)
	names := []string{"Alice", "Alica", "王小明", "王小朋", "Bob", "B0b"}
	if f.CJK == "" {
		names = []string{"Alice", "Alica", "Bob", "B0b", "Carol", "Caro1"}
		t.Log("no CJK font here: Latin names only")
	}
	var tiles []Tile
	for i, n := range names {
		tiles = append(tiles, Tile{Leg: fmt.Sprint(i), Name: n})
	}
	img := c.Compose(tiles)
	for i, r := range layout.Tiles(nil, len(names), 240, 320) {
		ph := plateHeight(r.H)
		got := img.Sub(r.X, r.Y+r.H-ph, r.W, ph)
		for j, n := range names {
			same := yuv.PSNR(&got, f.plate(n, false, r.W, r.H)) > 60
			if same != (i == j) {
				t.Errorf("plate %d (%s) looks like %s: %v", i, names[i], n, same)
			}
		}
	}
}

func TestTextIsLargeEnoughAndCut(t *testing.T) {
	f := fonts()
	for _, h := range []int{60, 106, 160, 320, 480} {
		p := f.plate("Agj国", false, 200, h)
		top, bottom := p.Height, 0
		for y := range p.Height {
			for x := range p.Width {
				if p.Y[y*p.YStride+x] > 120 {
					top, bottom = min(top, y), max(bottom, y)
				}
			}
		}
		if bottom-top+1 < 11 {
			t.Errorf("tile height %d: text is %d pixels high, want at least 11", h, bottom-top+1)
		}
		if fw := frameWidth(h); top < fw || bottom >= p.Height-fw {
			t.Errorf("tile height %d: text from %d to %d of %d is under the talk frame", h, top, bottom, p.Height)
		}
	}
	long := "An extraordinarily long name that cannot fit"
	for _, w := range []int{60, 118} {
		if got := f.Width(long, 14); got < w {
			t.Fatalf("%d wide: the test is idle", got)
		}
		p := f.plate(long, true, w, 106)
		q := f.plate(long[:30], true, w, 106)
		if yuv.PSNR(p, q) < 60 {
			t.Error("a name cut by us is not the same as one that is a little shorter")
		}
	}
}

func TestNamesAreCleaned(t *testing.T) {
	for in, want := range map[string]string{"a\x00b": "ab", " a \n b\t": "a b", "\u202eevil": "evil", "": ""} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"alice": "A", "王小明": "王", "+86": "8", "": "?", "  -": "?"} {
		if got := initial(in); got != want {
			t.Errorf("initial(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseFont(f *testing.F) {
	f.Add(goregular.TTF[:2000])
	f.Add([]byte("ttcf\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00cmap\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseFont(b) })
}

// The built-in font, shifted to an odd offset as a careless tool would write it.
func TestFontWithOddOffsetsIsRead(t *testing.T) {
	odd := append([]byte(nil), goregular.TTF...)
	n := int(binary.BigEndian.Uint16(odd[4:]))
	head := 12 + 16*n
	odd = append(odd[:head:head], append([]byte{0}, goregular.TTF[head:]...)...)
	for i := range n {
		at := odd[12+16*i+8:]
		binary.BigEndian.PutUint32(at, binary.BigEndian.Uint32(at)+1)
	}
	if _, err := ParseFont(odd); err != nil {
		t.Error(err)
	}
	if _, err := ParseFont([]byte("not a font at all")); err == nil {
		t.Error("no error for what is no font")
	}
}

func TestOnlyChangesAreDrawn(t *testing.T) {
	c := NewCanvas(240, 320, fonts())
	tiles := []Tile{{Leg: "a", Name: "A", Gen: 1, Picture: flat(240, 320, 100, 90, 90)}, {Leg: "b", Name: "B"}}
	c.Compose(tiles)
	for _, tt := range []struct {
		name   string
		change func()
		want   uint64
	}{
		{"nothing", func() {}, 0},
		{"a picture", func() { tiles[0].Gen++ }, 1},
		{"who talks", func() { tiles[1].Talking = true }, 1},
		{"swapped", func() { tiles[0], tiles[1] = tiles[1], tiles[0] }, 2},
		{"one more", func() { tiles = append(tiles, Tile{Leg: "c", Name: "C"}) }, 3},
		{"none left", func() { tiles = nil }, 0},
	} {
		before := c.Redrawn
		tt.change()
		c.Compose(tiles)
		if got := c.Redrawn - before; got != tt.want {
			t.Errorf("%s: %d tiles redrawn, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNoFontIsLatinOnly(t *testing.T) {
	f := LoadFonts([]string{"testdata/nothing.ttf"}, nil)
	if f.CJK != "" || f.Width("Alice", 14) < 20 {
		t.Errorf("CJK %q, width %d", f.CJK, f.Width("Alice", 14))
	}
	if p := f.plate("Alice", false, 118, 106); spread(p, 0, 0, p.Width, p.Height) < 120 {
		t.Error("the built-in font draws nothing")
	}
}

func TestComposeDoesNotAllocate(t *testing.T) {
	c := NewCanvas(240, 320, fonts())
	tiles := make([]Tile, 6)
	for i := range tiles {
		tiles[i] = Tile{Leg: fmt.Sprint(i), Name: fmt.Sprint("N", i), Picture: person(240, 320, i)}
	}
	c.Compose(tiles)
	if n := testing.AllocsPerRun(50, func() {
		for i := range tiles {
			tiles[i].Gen++
		}
		c.Compose(tiles)
	}); n != 0 {
		t.Errorf("Compose allocates %v times, want 0", n)
	}
}

func BenchmarkCompose(b *testing.B) {
	for _, n := range []int{4, 9} {
		b.Run(fmt.Sprintf("tiles=%d", n), func(b *testing.B) {
			c := NewCanvas(640, 480, fonts())
			tiles := make([]Tile, n)
			for i := range tiles {
				tiles[i] = Tile{Leg: fmt.Sprint(i), Name: fmt.Sprint("N", i), Picture: person(240, 320, i)}
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range tiles {
					tiles[i].Gen++
				}
				c.Compose(tiles)
			}
		})
	}
}
