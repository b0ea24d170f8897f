package layout

import (
	"fmt"
	"testing"
)

func TestGrid(t *testing.T) {
	for _, tt := range []struct{ n, w, h, cols, rows int }{
		{0, 240, 320, 0, 0}, {1, 240, 320, 1, 1},
		{2, 240, 320, 1, 2}, {2, 320, 240, 2, 1}, {2, 640, 480, 2, 1},
		{3, 240, 320, 2, 2}, {4, 320, 240, 2, 2},
		{5, 240, 320, 2, 3}, {6, 240, 320, 2, 3}, {6, 320, 240, 3, 2}, {6, 1280, 720, 3, 2},
		{7, 240, 320, 3, 3}, {9, 640, 480, 3, 3},
		{10, 640, 480, 4, 3}, {13, 640, 480, 4, 4}, {16, 240, 320, 4, 4}, {40, 640, 480, 4, 4},
		{4, 1600, 200, 4, 1}, {2, 0, 5, 0, 0},
	} {
		if c, r := Grid(tt.n, tt.w, tt.h); c != tt.cols || r != tt.rows {
			t.Errorf("Grid(%d, %d, %d) = %d x %d, want %d x %d", tt.n, tt.w, tt.h, c, r, tt.cols, tt.rows)
		}
	}
}

// On every canvas tiles are even, inside, apart from each other, alike in size and
// cover most of it.
func TestTilesInvariants(t *testing.T) {
	for _, size := range [][2]int{{240, 320}, {320, 240}, {640, 480}, {480, 640}, {176, 144}, {1280, 720}, {352, 288}, {242, 322}} {
		for n := 1; n <= MaxTiles; n++ {
			t.Run(fmt.Sprintf("%dx%d/%d", size[0], size[1], n), func(t *testing.T) {
				tiles := Tiles(nil, n, size[0], size[1])
				if len(tiles) != n {
					t.Fatalf("%d tiles", len(tiles))
				}
				area := 0
				for i, r := range tiles {
					area += r.W * r.H
					if r.X%2+r.Y%2+r.W%2+r.H%2 != 0 {
						t.Errorf("tile %d is odd: %v", i, r)
					}
					if r.X < 0 || r.Y < 0 || r.X+r.W > size[0] || r.Y+r.H > size[1] || r.W < 16 || r.H < 16 {
						t.Errorf("tile %d is outside: %v", i, r)
					}
					if d := r.W - tiles[0].W; d < -2 || d > 2 {
						t.Errorf("tile %d is %v, the first %v", i, r, tiles[0])
					}
					for j, o := range tiles[:i] {
						if r.X < o.X+o.W && o.X < r.X+r.W && r.Y < o.Y+o.H && o.Y < r.Y+r.H {
							t.Errorf("tiles %d and %d overlap: %v %v", j, i, o, r)
						}
					}
				}
				if area*2 < size[0]*size[1] {
					t.Errorf("tiles cover %d of %d", area, size[0]*size[1])
				}
			})
		}
	}
}

func TestLastRowIsCentred(t *testing.T) {
	tiles := Tiles(nil, 3, 320, 240)
	if mid := tiles[2].X + tiles[2].W/2; mid < 156 || mid > 164 {
		t.Errorf("the third tile is at %v, want it in the middle", tiles[2])
	}
}

func TestFitKeepsShape(t *testing.T) {
	for _, tt := range []struct {
		r    Rect
		w, h int
		want Rect
	}{
		{Rect{0, 0, 120, 106}, 240, 320, Rect{20, 0, 78, 106}},
		{Rect{10, 10, 120, 106}, 320, 240, Rect{10, 18, 120, 90}},
		{Rect{0, 0, 320, 240}, 320, 240, Rect{0, 0, 320, 240}},
		{Rect{0, 0, 100, 100}, 1920, 2, Rect{0, 48, 100, 2}},
		{Rect{0, 0, 100, 100}, 0, 2, Rect{}},
	} {
		if got := Fit(tt.r, tt.w, tt.h); got != tt.want {
			t.Errorf("Fit(%v, %d, %d) = %v, want %v", tt.r, tt.w, tt.h, got, tt.want)
		}
	}
}
