// Package yuv holds pictures as phones' codecs want them (I420: a luma plane and
// two chroma planes of half the size, 8 bits, BT.601 limited range) and moves
// them: scale, rotate, mirror, copy. With cgo the work is done by libyuv's SIMD;
// without it by plain Go loops that give nearly the same picture, slower.
//
// No function allocates except New and those that say so.
package yuv

import (
	"errors"
	"fmt"
)

// MaxSide bounds either side of a picture. It keeps products of sides and strides
// far inside an int32, which is what the C code below counts in.
const MaxSide = 4096

// ErrSize says that pictures do not fit together or are not usable at all.
var ErrSize = errors.New("yuv: picture size")

// Image is an I420 picture. Y is Width x Height; U and V are (Width+1)/2 x
// (Height+1)/2. Strides are octets from one row to the next. An Image may be a
// window on a larger one (Sub): then planes are shared.
type Image struct {
	Width, Height    int
	Y, U, V          []byte
	YStride, CStride int
}

// New returns a black picture. It panics for a size outside 1..MaxSide: sizes that
// come from a peer are checked before a picture is made.
func New(width, height int) *Image {
	if width < 1 || height < 1 || width > MaxSide || height > MaxSide {
		panic(fmt.Sprintf("yuv.New: %dx%d is outside 1..%d", width, height, MaxSide))
	}
	cw, ch := (width+1)/2, (height+1)/2
	buf := make([]byte, width*height+2*cw*ch)
	y, c := width*height, cw*ch
	m := &Image{Width: width, Height: height, YStride: width, CStride: cw,
		Y: buf[:y:y], U: buf[y : y+c : y+c], V: buf[y+c:]}
	m.Fill(16, 128, 128)
	return m
}

// Resized returns m when it is a whole picture of this size already, else a new
// one: the usual way to keep a scratch picture across frames.
func Resized(m *Image, width, height int) *Image {
	if m != nil && m.Width == width && m.Height == height {
		return m
	}
	return New(width, height)
}

// Sub is the window of m at x, y (both even) of width x height, clipped to m.
// The planes are m's own.
func (m *Image) Sub(x, y, width, height int) Image {
	x, y = min(max(x, 0), m.Width)&^1, min(max(y, 0), m.Height)&^1
	width, height = min(max(width, 0), m.Width-x), min(max(height, 0), m.Height-y)
	if width == 0 || height == 0 {
		return Image{}
	}
	c := y/2*m.CStride + x/2
	return Image{Width: width, Height: height, YStride: m.YStride, CStride: m.CStride,
		Y: m.Y[y*m.YStride+x:], U: m.U[c:], V: m.V[c:]}
}

// Fill paints the whole picture in one colour.
func (m *Image) Fill(y, u, v byte) {
	fillPlane(m.Y, m.YStride, m.Width, m.Height, y)
	cw, ch := (m.Width+1)/2, (m.Height+1)/2
	fillPlane(m.U, m.CStride, cw, ch, u)
	fillPlane(m.V, m.CStride, cw, ch, v)
}

func fillPlane(p []byte, stride, w, h int, v byte) {
	for r := range h {
		row := p[r*stride : r*stride+w]
		for i := range row {
			row[i] = v
		}
	}
}

// CopyTo copies m into dst, which has the same size.
func (m *Image) CopyTo(dst *Image) error {
	if err := check(m, dst); err != nil {
		return err
	}
	if m.Width != dst.Width || m.Height != dst.Height {
		return fmt.Errorf("%w: copy %dx%d to %dx%d", ErrSize, m.Width, m.Height, dst.Width, dst.Height)
	}
	cw, ch := (m.Width+1)/2, (m.Height+1)/2
	copyPlane(dst.Y, dst.YStride, m.Y, m.YStride, m.Width, m.Height)
	copyPlane(dst.U, dst.CStride, m.U, m.CStride, cw, ch)
	copyPlane(dst.V, dst.CStride, m.V, m.CStride, cw, ch)
	return nil
}

func copyPlane(dst []byte, ds int, src []byte, ss, w, h int) {
	for r := range h {
		copy(dst[r*ds:r*ds+w], src[r*ss:r*ss+w])
	}
}

// Whole says whether the planes hold every row that the size and the strides
// promise: what C code relies on.
func (m *Image) Whole() bool { return m.valid() }

// valid says whether every row that Width, Height and the strides promise is in
// the planes: what the C code relies on.
func (m *Image) valid() bool {
	if m == nil || m.Width < 1 || m.Height < 1 || m.Width > MaxSide || m.Height > MaxSide {
		return false
	}
	cw, ch := (m.Width+1)/2, (m.Height+1)/2
	if m.YStride < m.Width || m.CStride < cw || m.YStride > 1<<20 || m.CStride > 1<<20 {
		return false
	}
	c := (ch-1)*m.CStride + cw
	return len(m.Y) >= (m.Height-1)*m.YStride+m.Width && len(m.U) >= c && len(m.V) >= c
}

func check(src, dst *Image) error {
	if !src.valid() {
		return fmt.Errorf("%w: source is not a whole picture", ErrSize)
	}
	if !dst.valid() {
		return fmt.Errorf("%w: destination is not a whole picture", ErrSize)
	}
	return nil
}

// Scale fills dst with src, scaled by each axis on its own: who wants no
// distortion picks dst accordingly. Down-scaling averages (box), up-scaling is
// bilinear.
func Scale(dst, src *Image) error {
	if err := check(src, dst); err != nil {
		return err
	}
	return scale(dst, src)
}

// Rotate fills dst with src turned clockwise by degrees: 0, 90, 180 or 270. For 90
// and 270 dst is src.Height x src.Width.
func Rotate(dst, src *Image, degrees int) error {
	if err := check(src, dst); err != nil {
		return err
	}
	w, h := src.Width, src.Height
	switch degrees {
	case 0, 180:
	case 90, 270:
		w, h = h, w
	default:
		return fmt.Errorf("yuv: cannot rotate by %d degrees", degrees)
	}
	if dst.Width != w || dst.Height != h {
		return fmt.Errorf("%w: rotating %dx%d by %d gives %dx%d, not %dx%d",
			ErrSize, src.Width, src.Height, degrees, w, h, dst.Width, dst.Height)
	}
	return rotate(dst, src, degrees)
}

// Mirror fills dst, of src's size, with src flipped left to right.
func Mirror(dst, src *Image) error {
	if err := check(src, dst); err != nil {
		return err
	}
	if dst.Width != src.Width || dst.Height != src.Height {
		return fmt.Errorf("%w: mirror %dx%d to %dx%d", ErrSize, src.Width, src.Height, dst.Width, dst.Height)
	}
	return mirror(dst, src)
}
