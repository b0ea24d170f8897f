package yuv

import (
	"image"
	"math"
)

// FromRGBA converts src (alpha is ignored: it is taken as opaque) into dst of the
// same size, BT.601 limited range. For plates and avatars, not for the hot path.
func FromRGBA(dst *Image, src *image.RGBA) error {
	if !dst.valid() || src.Rect.Dx() != dst.Width || src.Rect.Dy() != dst.Height {
		return ErrSize
	}
	for y := range dst.Height {
		for x := range dst.Width {
			r, g, b := rgb(src, x, y)
			dst.Y[y*dst.YStride+x] = byte((66*r+129*g+25*b+128)>>8 + 16)
		}
	}
	for y := 0; y < dst.Height; y += 2 {
		for x := 0; x < dst.Width; x += 2 {
			var r, g, b, n int
			for dy := 0; dy < 2 && y+dy < dst.Height; dy++ {
				for dx := 0; dx < 2 && x+dx < dst.Width; dx++ {
					r1, g1, b1 := rgb(src, x+dx, y+dy)
					r, g, b, n = r+r1, g+g1, b+b1, n+1
				}
			}
			r, g, b = r/n, g/n, b/n
			i := y/2*dst.CStride + x/2
			dst.U[i] = byte((-38*r-74*g+112*b+128)>>8 + 128)
			dst.V[i] = byte((112*r-94*g-18*b+128)>>8 + 128)
		}
	}
	return nil
}

func rgb(m *image.RGBA, x, y int) (r, g, b int) {
	i := m.PixOffset(m.Rect.Min.X+x, m.Rect.Min.Y+y)
	return int(m.Pix[i]), int(m.Pix[i+1]), int(m.Pix[i+2])
}

// full maps limited-range samples to full range: luma 16..235 and chroma 16..240
// to 0..255, as JFIF wants them.
var fullY, fullC = func() (y, c [256]byte) {
	for i := range 256 {
		y[i] = clip((float64(i) - 16) * 255 / 219)
		c[i] = clip((float64(i)-128)*255/224 + 128)
	}
	return y, c
}()

func clip(v float64) byte { return byte(math.Round(min(max(v, 0), 255))) }

// Full returns a copy of m in full range (JFIF), for image/jpeg and image/png. It
// allocates.
func (m *Image) Full() *image.YCbCr {
	out := image.NewYCbCr(image.Rect(0, 0, m.Width, m.Height), image.YCbCrSubsampleRatio420)
	for y := range m.Height {
		for x, v := range m.Y[y*m.YStride : y*m.YStride+m.Width] {
			out.Y[y*out.YStride+x] = fullY[v]
		}
	}
	cw, ch := (m.Width+1)/2, (m.Height+1)/2
	for y := range ch {
		for x := range cw {
			out.Cb[y*out.CStride+x] = fullC[m.U[y*m.CStride+x]]
			out.Cr[y*out.CStride+x] = fullC[m.V[y*m.CStride+x]]
		}
	}
	return out
}

// PSNR is the peak signal-to-noise ratio of two pictures' luma in dB, +Inf when
// they are equal, 0 when their sizes differ.
func PSNR(a, b *Image) float64 {
	if !a.valid() || !b.valid() || a.Width != b.Width || a.Height != b.Height {
		return 0
	}
	sum := 0.0
	for y := range a.Height {
		for x := range a.Width {
			d := float64(a.Y[y*a.YStride+x]) - float64(b.Y[y*b.YStride+x])
			sum += d * d
		}
	}
	return 10 * math.Log10(255*255*float64(a.Width*a.Height)/sum)
}
