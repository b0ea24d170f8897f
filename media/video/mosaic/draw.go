package mosaic

import (
	"hash/fnv"
	"image"
	"image/color"
	"image/draw"
	"math"

	"golang.org/x/image/vector"

	"sparkle/media/codec/yuv"
)

// The colours: a dark calm room, so that faces are the brightest thing in it.
var (
	colRoom  = color.RGBA{15, 18, 25, 255}    // between the tiles
	colTile  = color.RGBA{33, 39, 51, 255}    // behind an avatar and beside a picture
	colPlate = color.RGBA{20, 24, 33, 255}    // behind a name
	colText  = color.RGBA{244, 246, 250, 255} // a name
	colTalk  = color.RGBA{52, 211, 140, 255}  // around who talks
	colMuted = color.RGBA{222, 70, 72, 255}   // the muted badge
	colWhite = color.RGBA{255, 255, 255, 255}
	palette  = []color.RGBA{ // avatars: alike in brightness, apart in hue
		{72, 118, 214, 255}, {38, 142, 148, 255}, {132, 98, 206, 255}, {190, 98, 62, 255},
		{66, 140, 82, 255}, {186, 78, 128, 255}, {92, 122, 152, 255}, {164, 124, 48, 255},
	}
	yuvRoom, yuvTile, yuvTalk = toYUV(colRoom), toYUV(colTile), toYUV(colTalk)
)

// toYUV is one colour in BT.601 limited range.
func toYUV(c color.RGBA) [3]byte {
	px, m := image.NewRGBA(image.Rect(0, 0, 2, 2)), yuv.New(2, 2)
	draw.Draw(px, px.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	_ = yuv.FromRGBA(m, px) // same size: cannot fail
	return [3]byte{m.Y[0], m.U[0], m.V[0]}
}

// textPx is the size of names on tiles of height h, in pixels: never below 14, at
// which Latin capitals and Chinese characters survive 240x320 at 200 kbit/s.
func textPx(h int) int { return min(max(14, h*11/100), 26) }

// plateHeight is the height of the strip that carries the name.
func plateHeight(h int) int { return (textPx(h)*3/2 + 1) &^ 1 }

// frameWidth is the border around who talks.
func frameWidth(h int) int {
	if h < 200 {
		return 2
	}
	return 4
}

// plate renders the name strip of a tile of w x h.
func (f *Fonts) plate(name string, muted bool, w, h int) *yuv.Image {
	ph, px := plateHeight(h), textPx(h)
	m := image.NewRGBA(image.Rect(0, 0, w, ph))
	draw.Draw(m, m.Rect, image.NewUniform(colPlate), image.Point{}, draw.Src)
	pad := frameWidth(h) + 4
	room := w - 2*pad
	if muted {
		d := ph - 2*frameWidth(h)
		badge(m, float32(w-frameWidth(h)-2)-float32(d)/2, float32(ph)/2, float32(d)/2)
		room -= d
	}
	f.Draw(m, name, px, pad, (ph+px*3/4)/2, room, colText)
	return convert(m)
}

// avatar renders a whole tile for a member without a picture, but for its plate.
func (f *Fonts) avatar(name string, w, h int) *yuv.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(m, m.Rect, image.NewUniform(colTile), image.Point{}, draw.Src)
	free := h - plateHeight(h)
	cx, cy, r := float32(w)/2, float32(free)/2, float32(min(w, free))*0.36
	sum := fnv.New32a()
	sum.Write([]byte(name))
	disc(m, cx, cy, r, palette[sum.Sum32()%uint32(len(palette))])
	px := max(10, int(r*1.1))
	text := initial(name)
	tw := f.Width(text, px)
	f.Draw(m, text, px, int(cx)-tw/2, int(cy)+px*37/100, w, colWhite)
	return convert(m)
}

func convert(m *image.RGBA) *yuv.Image {
	out := yuv.New(m.Rect.Dx(), m.Rect.Dy())
	_ = yuv.FromRGBA(out, m) // same size: cannot fail
	return out
}

// shape fills a path, with soft edges.
func shape(m *image.RGBA, c color.Color, path func(*vector.Rasterizer)) {
	r := vector.NewRasterizer(m.Rect.Dx(), m.Rect.Dy())
	path(r)
	r.Draw(m, m.Rect, image.NewUniform(c), image.Point{})
}

func disc(m *image.RGBA, cx, cy, radius float32, c color.Color) {
	shape(m, c, func(r *vector.Rasterizer) {
		const n = 64
		for i := range n {
			s, co := math.Sincos(2 * math.Pi * float64(i) / n)
			x, y := cx+radius*float32(co), cy+radius*float32(s)
			if i == 0 {
				r.MoveTo(x, y)
			} else {
				r.LineTo(x, y)
			}
		}
		r.ClosePath()
	})
}

func bar(m *image.RGBA, x0, y0, x1, y1, half float32, c color.Color) {
	dx, dy := x1-x0, y1-y0
	l := float32(math.Hypot(float64(dx), float64(dy)))
	nx, ny := -dy/l*half, dx/l*half
	shape(m, c, func(r *vector.Rasterizer) {
		r.MoveTo(x0+nx, y0+ny)
		r.LineTo(x1+nx, y1+ny)
		r.LineTo(x1-nx, y1-ny)
		r.LineTo(x0-nx, y0-ny)
		r.ClosePath()
	})
}

// badge is a crossed-out microphone on a red disc.
func badge(m *image.RGBA, cx, cy, r float32) {
	disc(m, cx, cy, r, colMuted)
	bar(m, cx, cy-r*0.42, cx, cy+r*0.05, r*0.2, colWhite)
	disc(m, cx, cy-r*0.42, r*0.2, colWhite)
	disc(m, cx, cy+r*0.05, r*0.2, colWhite)
	bar(m, cx, cy+r*0.3, cx, cy+r*0.6, r*0.08, colWhite)
	bar(m, cx-r*0.3, cy+r*0.58, cx+r*0.3, cy+r*0.58, r*0.08, colWhite)
	bar(m, cx-r*0.62, cy-r*0.55, cx+r*0.55, cy+r*0.62, r*0.12, colWhite)
}

// frame draws the border of who talks inside the tile.
func frame(tile *yuv.Image, width int) {
	w, h := tile.Width, tile.Height
	for _, r := range [4][4]int{{0, 0, w, width}, {0, h - width, w, width}, {0, 0, width, h}, {w - width, 0, width, h}} {
		edge := tile.Sub(r[0], r[1], r[2], r[3])
		edge.Fill(yuvTalk[0], yuvTalk[1], yuvTalk[2])
	}
}
