//go:build !cgo

package yuv

// The twins of libyuv's functions for builds without cgo.

type plane struct {
	p            []byte
	stride, w, h int
}

func planes(m *Image) [3]plane {
	cw, ch := (m.Width+1)/2, (m.Height+1)/2
	return [3]plane{{m.Y, m.YStride, m.Width, m.Height}, {m.U, m.CStride, cw, ch}, {m.V, m.CStride, cw, ch}}
}

func each(d, s *Image, f func(d, s plane)) error {
	dp, sp := planes(d), planes(s)
	for i := range dp {
		f(dp[i], sp[i])
	}
	return nil
}

// scale averages the source box of each destination sample; where the box is
// smaller than a sample it takes the nearest one.
func scale(d, s *Image) error {
	return each(d, s, func(d, s plane) {
		for y := range d.h {
			y0 := y * s.h / d.h
			y1 := max(y0+1, (y+1)*s.h/d.h)
			for x := range d.w {
				x0 := x * s.w / d.w
				x1 := max(x0+1, (x+1)*s.w/d.w)
				sum := 0
				for r := y0; r < y1; r++ {
					for _, v := range s.p[r*s.stride+x0 : r*s.stride+x1] {
						sum += int(v)
					}
				}
				n := (y1 - y0) * (x1 - x0)
				d.p[y*d.stride+x] = byte((sum + n/2) / n)
			}
		}
	})
}

func rotate(d, s *Image, degrees int) error {
	return each(d, s, func(d, s plane) {
		for y := range s.h {
			for x := range s.w {
				dx, dy := x, y
				switch degrees {
				case 90:
					dx, dy = s.h-1-y, x
				case 180:
					dx, dy = s.w-1-x, s.h-1-y
				case 270:
					dx, dy = y, s.w-1-x
				}
				d.p[dy*d.stride+dx] = s.p[y*s.stride+x]
			}
		}
	})
}

func mirror(d, s *Image) error {
	return each(d, s, func(d, s plane) {
		for y := range s.h {
			for x := range s.w {
				d.p[y*d.stride+s.w-1-x] = s.p[y*s.stride+x]
			}
		}
	})
}
