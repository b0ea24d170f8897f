package phone

import (
	"fmt"
	"image"
	"math"
	"math/bits"
)

// The picture of a camera: portrait, a ball that moves before a soft background above,
// and the mark in the lower half. The mark is a grid of black and white cells so coarse
// that it survives being scaled down to a tile 40 pixels wide and H.264 on top:
//
//	W . . . . B     outer columns: fixed, to find it by
//	B . . . . W     16 cells between: speaker (4 bits), counter (4 bits),
//	W . . . . B     checksum of both (8 bits), row by row
//	B . . . . W
//
// The counter runs on with every countFrames pictures: a picture that stands still has a
// mark, but it does not move.
const (
	camWidth    = 240
	camHeight   = 320
	camFPS      = 15
	markCols    = 6
	markRows    = 4
	cellPx      = camWidth / markCols
	markTop     = camHeight - markRows*cellPx
	countFrames = 5 // pictures a count: 3 a second
	counts      = 16
	black       = 24
	white       = 226
)

// markWord is the 16 bits of a mark.
func markWord(speaker, count int) uint16 {
	v := uint8(speaker<<4 | count&15)
	return uint16(v)<<8 | uint16(check(v))
}

// check is a checksum that differs in at least three bits between neighbours.
func check(v uint8) uint8 {
	c := uint8(0x5a)
	for i := range 8 {
		if v>>i&1 != 0 {
			c ^= bits.RotateLeft8(0x1d, i) ^ 0x80>>i
		}
	}
	return c
}

// markCell says whether a cell is white.
func markCell(word uint16, row, col int) bool {
	switch col {
	case 0:
		return row%2 == 0
	case markCols - 1:
		return row%2 == 1
	}
	return word>>(15-row*4-(col-1))&1 != 0
}

// draw paints picture number n of a speaker's camera.
func draw(m *image.YCbCr, speaker int, n int64) {
	word := markWord(speaker, int(n/countFrames)%counts)
	for row := range markRows {
		for col := range markCols {
			v := byte(black)
			if markCell(word, row, col) {
				v = white
			}
			for y := markTop + row*cellPx; y < markTop+(row+1)*cellPx; y++ {
				line := m.Y[y*m.YStride+col*cellPx:][:cellPx]
				for x := range line {
					line[x] = v
				}
			}
		}
	}
	// The scene: a gradient, and a ball on a slow figure of eight.
	phase := float64(n) / camFPS * 2 * math.Pi / 4
	cx, cy := camWidth/2+int(70*math.Sin(phase)), markTop/2+int(40*math.Sin(2*phase))
	for y := range markTop {
		line := m.Y[y*m.YStride:][:camWidth]
		for x := range line {
			v := 90 + y/4
			if dx, dy := x-cx, y-cy; dx*dx+dy*dy < 34*34 {
				v = 190 - (dx*dx+dy*dy)/24
			}
			line[x] = byte(v)
		}
	}
	// A colour for everybody.
	angle := 2 * math.Pi * float64(speaker) / Speakers
	cb, cr := byte(128+50*math.Cos(angle)), byte(128+50*math.Sin(angle))
	for y := range camHeight / 2 {
		for x := range camWidth / 2 {
			i := y*m.CStride + x
			if y < markTop/2 {
				m.Cb[i], m.Cr[i] = cb, cr
			} else {
				m.Cb[i], m.Cr[i] = 128, 128
			}
		}
	}
}

// luma is a decoded picture's brightness, as a summed-area table: any rectangle's mean
// costs four look-ups.
type luma struct {
	w, h int
	y    []byte // w*h
	sum  []uint32
}

func newLuma(y []byte, w, h int) *luma {
	l := &luma{w: w, h: h, y: y, sum: make([]uint32, (w+1)*(h+1))}
	for r := range h {
		var line uint32
		for c := range w {
			line += uint32(y[r*w+c])
			l.sum[(r+1)*(w+1)+c+1] = l.sum[r*(w+1)+c+1] + line
		}
	}
	return l
}

func (l *luma) mean(x0, y0, x1, y1 int) int {
	s := l.w + 1
	return int(l.sum[y1*s+x1]-l.sum[y0*s+x1]-l.sum[y1*s+x0]+l.sum[y0*s+x0]) / ((x1 - x0) * (y1 - y0))
}

// sighting is a mark found in a picture.
type sighting struct {
	speaker, count int
	x, y, w        int // of the grid; its height is two thirds of w
}

func (s sighting) String() string {
	return fmt.Sprintf("%d.%d@%d,%d+%d", s.speaker, s.count, s.x, s.y, s.w)
}

const (
	minMark     = 26 // pixels: cells of four
	minContrast = 70 // between the darkest white and the brightest black cell
)

// again finds those of the marks that are still where they were.
func (l *luma) again(known []sighting) (found []sighting) {
	for _, k := range known {
		if k.x+k.w > l.w || k.y+k.w*markRows/markCols > l.h {
			continue // of a picture of another size
		}
		if s, ok := l.markAt(k.x, k.y, k.w); ok {
			found = append(found, s)
		}
	}
	return found
}

// marks finds every mark in the picture, at any place and size.
func (l *luma) marks() []sighting {
	var found []sighting
	for w := min(l.w, l.h*markCols/markRows); w >= minMark; w -= max(1, w/24) {
		step := max(1, w/markCols/4)
		h := w * markRows / markCols
		for y := 0; y+h <= l.h; y += step {
		place:
			for x := 0; x+w <= l.w; x += step {
				for _, f := range found { // inside one already found: its own cells again
					if x < f.x+f.w/2 && x+w > f.x+f.w/2 && y < f.y+f.w/3 && y+h > f.y+f.w/3 {
						continue place
					}
				}
				if s, ok := l.markAt(x, y, w); ok {
					found = append(found, s)
				}
			}
		}
	}
	return found
}

// markAt reads the mark whose grid has its corner at x, y and is w wide.
func (l *luma) markAt(x, y, w int) (s sighting, ok bool) {
	// Two pixels tell most places from a mark: the middles of the first two cells on the left.
	half := w / (2 * markCols)
	if at := (y+half)*l.w + x + half; int(l.y[at])-int(l.y[at+w/markCols*l.w]) < minContrast/2 {
		return s, false
	}
	cell := func(row, col int) int { // the middle of it
		x0, x1 := x+(4*col+1)*w/(4*markCols), x+(4*col+3)*w/(4*markCols)
		y0, y1 := y+(4*row+1)*w/(4*markCols), y+(4*row+3)*w/(4*markCols)
		return l.mean(x0, y0, max(x1, x0+1), max(y1, y0+1))
	}
	lowWhite, highBlack := 255, 0
	see := func(row, col int, isWhite bool) bool {
		v := cell(row, col)
		if isWhite {
			lowWhite = min(lowWhite, v)
		} else {
			highBlack = max(highBlack, v)
		}
		return lowWhite-highBlack >= minContrast
	}
	if !see(0, 0, true) { // against black nothing: too dark for white
		return s, false
	}
	for row := range markRows {
		if !see(row, 0, row%2 == 0) || !see(row, markCols-1, row%2 == 1) {
			return s, false
		}
	}
	middle := (lowWhite + highBlack) / 2
	var word uint16
	for row := range markRows {
		for col := 1; col < markCols-1; col++ {
			isWhite := cell(row, col) > middle
			if !see(row, col, isWhite) {
				return s, false
			}
			word <<= 1
			if isWhite {
				word |= 1
			}
		}
	}
	s = sighting{speaker: int(word >> 12), count: int(word >> 8 & 15), x: x, y: y, w: w}
	return s, s.speaker < Speakers && markWord(s.speaker, s.count) == word
}
