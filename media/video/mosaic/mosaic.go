// Package mosaic draws the conference: one tile per member with his picture or an
// avatar, a name plate, a frame around who talks and a badge on who is muted. A
// picture is never distorted, cropped or covered: it is fitted into its tile above
// the name plate.
//
// A Canvas remembers what it drew and redraws only the tiles that changed.
package mosaic

import (
	"sparkle/media/codec/yuv"
	"sparkle/media/layout"
)

// Tile is what one member looks like now.
type Tile struct {
	Leg     string // identity: a tile that moves is redrawn
	Name    string
	Talking bool
	Muted   bool
	Picture *yuv.Image // upright; nil: avatar
	Gen     uint64     // changes with every new Picture
}

// drawn is a Tile as it is on the canvas.
type drawn struct {
	leg, name      string
	talking, muted bool
	picture        bool
	gen            uint64
	rect           layout.Rect
}

// Canvas is one picture of the conference of one size. It is not safe for
// concurrent use; several canvases may share their Fonts.
type Canvas struct {
	// Redrawn counts the tiles that were painted.
	Redrawn uint64

	img     *yuv.Image
	fonts   *Fonts
	slots   []drawn
	rects   []layout.Rect
	plates  map[plateKey]*yuv.Image
	avatars map[plateKey]*yuv.Image
}

type plateKey struct {
	name  string
	muted bool
	w, h  int
}

// maxCached bounds each cache of rendered plates and avatars: two sizes of
// everybody, before it is thrown away and filled anew.
const maxCached = 64

// NewCanvas makes an empty canvas of width x height, both even and at least 32.
func NewCanvas(width, height int, fonts *Fonts) *Canvas {
	c := &Canvas{img: yuv.New(width, height), fonts: fonts,
		plates: map[plateKey]*yuv.Image{}, avatars: map[plateKey]*yuv.Image{}}
	c.img.Fill(yuvRoom[0], yuvRoom[1], yuvRoom[2])
	return c
}

// Compose draws the tiles in their order, the first layout.MaxTiles of them, and
// returns the canvas: it is the Canvas's and valid until the next Compose.
func (c *Canvas) Compose(tiles []Tile) *yuv.Image {
	tiles = tiles[:min(len(tiles), layout.MaxTiles)]
	if len(tiles) != len(c.slots) {
		c.rects = layout.Tiles(c.rects[:0], len(tiles), c.img.Width, c.img.Height)
		c.slots = append(c.slots[:0], make([]drawn, len(tiles))...)
		c.img.Fill(yuvRoom[0], yuvRoom[1], yuvRoom[2])
	}
	for i := range c.rects {
		t, r := &tiles[i], c.rects[i]
		now := drawn{leg: t.Leg, name: t.Name, talking: t.Talking, muted: t.Muted, picture: t.Picture != nil, gen: t.Gen, rect: r}
		if !now.picture {
			now.gen = 0
		}
		if c.slots[i] != now {
			c.slots[i] = now
			c.draw(t, r)
			c.Redrawn++
		}
	}
	return c.img
}

// Size is the canvas's.
func (c *Canvas) Size() (width, height int) { return c.img.Width, c.img.Height }

func (c *Canvas) draw(t *Tile, r layout.Rect) {
	win := c.img.Sub(r.X, r.Y, r.W, r.H)
	plate := c.plate(t.Name, t.Muted, r.W, r.H)
	free := layout.Rect{W: r.W, H: r.H - plate.Height}
	if t.Picture == nil || !c.picture(&win, t.Picture, free) {
		_ = c.avatar(t.Name, r.W, r.H).CopyTo(&win) // rendered for this size
	}
	strip := win.Sub(0, free.H, r.W, plate.Height)
	_ = plate.CopyTo(&strip) // rendered for this size
	if t.Talking {
		frame(&win, frameWidth(r.H))
	}
}

// picture fits m into the free part of a tile. False when it cannot be drawn.
func (c *Canvas) picture(win, m *yuv.Image, free layout.Rect) bool {
	fit := layout.Fit(free, m.Width, m.Height)
	if fit.W < 2 || fit.H < 2 {
		return false
	}
	for _, bar := range [4]layout.Rect{
		{X: 0, Y: 0, W: fit.X, H: free.H},
		{X: fit.X + fit.W, Y: 0, W: free.W - fit.X - fit.W, H: free.H},
		{X: 0, Y: 0, W: free.W, H: fit.Y},
		{X: 0, Y: fit.Y + fit.H, W: free.W, H: free.H - fit.Y - fit.H},
	} {
		if s := win.Sub(bar.X, bar.Y, bar.W, bar.H); s.Width > 0 {
			s.Fill(yuvTile[0], yuvTile[1], yuvTile[2])
		}
	}
	dst := win.Sub(fit.X, fit.Y, fit.W, fit.H)
	return yuv.Scale(&dst, m) == nil
}

func (c *Canvas) plate(name string, muted bool, w, h int) *yuv.Image {
	return cached(c.plates, plateKey{name, muted, w, h}, func(k plateKey) *yuv.Image {
		return c.fonts.plate(clean(k.name), k.muted, k.w, k.h)
	})
}

func (c *Canvas) avatar(name string, w, h int) *yuv.Image {
	return cached(c.avatars, plateKey{name, false, w, h}, func(k plateKey) *yuv.Image {
		return c.fonts.avatar(clean(k.name), k.w, k.h)
	})
}

func cached(m map[plateKey]*yuv.Image, k plateKey, render func(plateKey) *yuv.Image) *yuv.Image {
	img, ok := m[k]
	if !ok {
		if len(m) >= maxCached {
			clear(m)
		}
		img = render(k)
		m[k] = img
	}
	return img
}
