package phone

import (
	"cmp"
	"image"
	"image/color"
	"math"
	"slices"
	"sync"

	"sparkle/media/video/mosaic"
)

// fonts are those of the machine: a name has no look without one.
var fonts = sync.OnceValue(func() *mosaic.Fonts { return mosaic.LoadFonts(nil, nil) })

// stencil is a name as it may look: light text on dark, with a margin, so that a name
// inside a longer one does not match.
type stencil struct {
	name string
	w, h int
	dots []dot // every pixel, less the mean, scaled to a sum of squares of 1
	few  int   // so many come first that are spread over all of it
	lit  float64
	ink  []dot // some of the brightest, apart from each other: none may be dark
}

type dot struct {
	x, y int
	v    float64
}

const (
	minText, maxText = 11, 26
	margin           = 3
	likeness         = 0.80 // correlation from which a text counts as read
)

func newStencil(name string, px int) stencil {
	f := fonts()
	w, h := f.Width(name, px)+2*margin, px+2*margin
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	f.Draw(m, name, px, margin, margin+px*7/8, w, color.White)
	s := stencil{name: name, w: w, h: h}
	var sum float64
	for y := range h {
		for x := range w {
			sum += float64(m.Pix[m.PixOffset(x, y)])
		}
	}
	mean := sum / float64(w*h)
	var square float64
	for y := range h {
		for x := range w {
			v := float64(m.Pix[m.PixOffset(x, y)]) - mean
			s.dots = append(s.dots, dot{x, y, v})
			square += v * v
		}
	}
	if square == 0 {
		return stencil{} // a blank name is nowhere
	}
	for i := range s.dots {
		s.dots[i].v /= math.Sqrt(square)
	}
	s.lit = mean / 255
	const every = 7
	spread := make([]dot, 0, len(s.dots))
	for first := range every {
		for i := first; i < len(s.dots); i += every {
			spread = append(spread, s.dots[i])
		}
		if first == 0 {
			s.few = len(spread)
		}
	}
	s.dots = spread
	s.ink = ink(spread)
	return s
}

// ink picks up to four of the brightest dots, at least three pixels apart.
func ink(dots []dot) (picked []dot) {
	byLight := slices.SortedFunc(slices.Values(dots), func(a, b dot) int { return cmp.Compare(b.v, a.v) })
	for _, d := range byLight {
		near := func(o dot) bool { return abs(o.x-d.x) < 3 && abs(o.y-d.y) < 3 }
		if d.v > byLight[0].v*0.9 && len(picked) < 4 && !slices.ContainsFunc(picked, near) {
			picked = append(picked, d)
		}
	}
	return picked
}

func abs(v int) int { return max(v, -v) }

// reading is a place where a text was recognised.
type reading struct {
	name       string
	like       float64
	x, y, w, h int
}

// readNames is which of the names can be read in at least one of the pictures. Where two
// look alike at one place, the better one is what is written there; that is why all are
// sought even if one was found before.
func readNames(kept []look, names []string) []string {
	found := map[string]bool{}
	var stencils []stencil
	for _, name := range names {
		for px := minText; px <= maxText && name != ""; px++ {
			stencils = append(stencils, newStencil(name, px))
		}
	}
	for _, l := range kept {
		var all []reading
		tables := newTables(l)
		for _, s := range stencils {
			if r, ok := tables.find(s); ok {
				all = append(all, r)
			}
		}
		slices.SortStableFunc(all, func(a, b reading) int { return cmp.Compare(b.like, a.like) })
		for i, r := range all {
			if !slices.ContainsFunc(all[:i], func(o reading) bool { return o.name != r.name && o.overlaps(r) }) {
				found[r.name] = true
			}
		}
	}
	var out []string
	for _, n := range names {
		if found[n] && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (a reading) overlaps(b reading) bool {
	return a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h
}

// tables have sums and sums of squares of a picture.
type tables struct {
	l       look
	sum, sq []float64
}

func newTables(l look) *tables {
	t := &tables{l: l, sum: make([]float64, (l.w+1)*(l.h+1)), sq: make([]float64, (l.w+1)*(l.h+1))}
	for y := range l.h {
		var a, b float64
		for x := range l.w {
			v := float64(l.y[y*l.w+x])
			a, b = a+v, b+v*v
			i := (y+1)*(l.w+1) + x + 1
			t.sum[i], t.sq[i] = t.sum[i-l.w-1]+a, t.sq[i-l.w-1]+b
		}
	}
	return t
}

func (t *tables) box(s []float64, x, y, w, h int) float64 {
	k := t.l.w + 1
	return s[(y+h)*k+x+w] - s[y*k+x+w] - s[(y+h)*k+x] + s[y*k+x]
}

// lay sums what the dots, laid at x, y, have in common with the picture.
func (t *tables) lay(dots []dot, x, y int, mean float64) (c float64) {
	at := t.l.y[y*t.l.w+x:]
	for _, d := range dots {
		c += d.v * (float64(at[d.y*t.l.w+d.x]) - mean)
	}
	return c
}

// find looks for the place most like the stencil. Only where light is on dark, in the
// right amount, is it laid on.
func (t *tables) find(s stencil) (best reading, ok bool) {
	if len(s.dots) == 0 {
		return best, false
	}
	n := float64(s.w * s.h)
	for y := 0; y+s.h <= t.l.h; y++ {
	place:
		for x := 0; x+s.w <= t.l.w; x++ {
			at := t.l.y[y*t.l.w+x:]
			for _, d := range s.ink {
				if at[d.y*t.l.w+d.x] < 90 {
					continue place
				}
			}
			mean := t.box(t.sum, x, y, s.w, s.h) / n
			if mean > 40+220*s.lit || mean < 20 {
				continue
			}
			dev := t.box(t.sq, x, y, s.w, s.h)/n - mean*mean
			if dev < 25*25 {
				continue
			}
			// The margin is plate: dark all around.
			if t.box(t.sum, x, y, 2, s.h)/float64(2*s.h) > 60 || t.box(t.sum, x+s.w-2, y, 2, s.h)/float64(2*s.h) > 60 {
				continue
			}
			if t.box(t.sum, x, y, s.w, 2)/float64(2*s.w) > 75 { // but not below: some glyphs go deep
				continue
			}
			norm := math.Sqrt(dev * n)
			c := t.lay(s.dots[:s.few], x, y, mean)
			if c*float64(len(s.dots)) < 0.4*norm*float64(s.few) {
				continue // far off already
			}
			c += t.lay(s.dots[s.few:], x, y, mean)
			if c /= norm; c > best.like {
				best = reading{s.name, c, x, y, s.w, s.h}
			}
		}
	}
	return best, best.like >= likeness
}
