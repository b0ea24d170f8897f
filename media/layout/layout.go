// Package layout says who is drawn where: it divides a canvas into tiles. It is
// pure arithmetic; every rectangle has even coordinates, as 4:2:0 chroma wants.
package layout

import "math"

// MaxTiles is how many members one canvas shows.
const MaxTiles = 16

// Rect is a tile: all four numbers are even.
type Rect struct{ X, Y, W, H int }

// gap is the space between tiles and around them.
const gap = 2

// capacities are the grids that exist: one more member does not always move
// everybody.
var capacities = []int{1, 2, 4, 6, 9, 16}

// Grid is the columns and rows for n members on a canvas of w x h samples. Of the
// grids that hold the next capacity (1, 2, 4, 6, 9, 16) it is the one whose cells
// are nearest to square, since phones send both portrait and landscape; rows that
// would stay empty are left out. n is clipped to 0..MaxTiles; for 0 both are 0.
func Grid(n, w, h int) (cols, rows int) {
	n = min(n, MaxTiles)
	if n <= 0 || w <= 0 || h <= 0 {
		return 0, 0
	}
	capacity := 1
	for _, c := range capacities {
		if capacity = c; c >= n {
			break
		}
	}
	best := math.Inf(1)
	for c := 1; c <= capacity; c++ {
		if capacity%c != 0 {
			continue
		}
		r := capacity / c
		aspect := float64(w) * float64(r) / (float64(h) * float64(c))
		if d := math.Abs(math.Log(aspect)); d < best-1e-9 {
			best, cols, rows = d, c, r
		}
	}
	return cols, (n + cols - 1) / cols
}

// Tiles appends to dst the rectangles of n members, row by row in their order. A
// last row that is not full is centred. Nothing is appended when the canvas is too
// small for tiles of 16x16.
func Tiles(dst []Rect, n, w, h int) []Rect {
	cols, rows := Grid(n, w, h)
	n = min(n, MaxTiles)
	if cols == 0 || w/cols < 16+gap || h/rows < 16+gap {
		return dst
	}
	for i := range n {
		row := i / cols
		inRow := min(cols, n-row*cols)
		// Columns are spread over the canvas without their rounding adding up.
		left, right := edge(w, cols, i%cols), edge(w, cols, i%cols+1)
		shift := (w - edge(w, cols, inRow)) / 2 &^ 1
		top, bottom := edge(h, rows, row), edge(h, rows, row+1)
		dst = append(dst, Rect{X: left + shift + gap, Y: top + gap, W: right - left - gap, H: bottom - top - gap})
	}
	return dst
}

// edge is where cell i of n begins; the canvas loses a gap on its far side.
func edge(size, n, i int) int { return (size - gap) * i / n &^ 1 }

// Fit is the largest rectangle inside r that has the shape w x h: a picture in it
// is neither distorted nor cropped. It is centred in r.
func Fit(r Rect, w, h int) Rect {
	if w <= 0 || h <= 0 || r.W <= 0 || r.H <= 0 {
		return Rect{}
	}
	fw, fh := r.W, r.W*h/w
	if fh > r.H {
		fw, fh = r.H*w/h, r.H
	}
	fw, fh = max(2, fw&^1), max(2, fh&^1)
	return Rect{X: r.X + (r.W-fw)/2&^1, Y: r.Y + (r.H-fh)/2&^1, W: fw, H: fh}
}
