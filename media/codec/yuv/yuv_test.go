package yuv

import (
	"errors"
	"image"
	"image/color"
	"testing"
)

// ramp is a picture whose every sample tells where it was.
func ramp(w, h int) *Image {
	m := New(w, h)
	for y := range h {
		for x := range w {
			m.Y[y*m.YStride+x] = byte(x*7 + y*13)
		}
	}
	for i := range m.U {
		m.U[i], m.V[i] = byte(i*3), byte(255-i*5)
	}
	return m
}

func at(m *Image, x, y int) byte { return m.Y[y*m.YStride+x] }

func TestRotateTurnsClockwise(t *testing.T) {
	src := ramp(6, 4)
	for _, tt := range []struct {
		deg  int
		w, h int
		x, y int // where the top left sample went
	}{{0, 6, 4, 0, 0}, {90, 4, 6, 3, 0}, {180, 6, 4, 5, 3}, {270, 4, 6, 0, 5}} {
		dst := New(tt.w, tt.h)
		if err := Rotate(dst, src, tt.deg); err != nil {
			t.Fatal(err)
		}
		if got := at(dst, tt.x, tt.y); got != at(src, 0, 0) {
			t.Errorf("%d degrees: sample at %d,%d is %d, want the top left one, %d", tt.deg, tt.x, tt.y, got, at(src, 0, 0))
		}
		back := New(6, 4)
		if err := Rotate(back, dst, (360-tt.deg)%360); err != nil {
			t.Fatal(err)
		}
		if string(back.Y) != string(src.Y) || string(back.U) != string(src.U) || string(back.V) != string(src.V) {
			t.Errorf("%d degrees and back is another picture", tt.deg)
		}
	}
	if err := Rotate(New(6, 4), src, 45); err == nil {
		t.Error("45 degrees: no error")
	}
	if err := Rotate(New(6, 4), src, 90); !errors.Is(err, ErrSize) {
		t.Errorf("wrong destination: %v, want ErrSize", err)
	}
}

func TestMirror(t *testing.T) {
	src, dst := ramp(6, 4), New(6, 4)
	if err := Mirror(dst, src); err != nil {
		t.Fatal(err)
	}
	for y := range 4 {
		for x := range 6 {
			if at(dst, x, y) != at(src, 5-x, y) {
				t.Fatalf("sample %d,%d is %d, want %d", x, y, at(dst, x, y), at(src, 5-x, y))
			}
		}
	}
}

func TestScaleKeepsColoursAndPlaces(t *testing.T) {
	src := New(320, 240)
	left := src.Sub(0, 0, 160, 240)
	left.Fill(200, 90, 40)
	canvas := New(100, 100)
	win := canvas.Sub(20, 20, 60, 40)
	if err := Scale(&win, src); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		x, y int
		want byte
	}{{30, 40, 200}, {70, 40, 16}, {10, 40, 16}, {30, 70, 16}, {21, 21, 200}} {
		if got := at(canvas, tt.x, tt.y); got > tt.want || got+1 < tt.want { // libyuv rounds down
			t.Errorf("%d,%d: luma %d, want %d", tt.x, tt.y, got, tt.want)
		}
	}
	if u := canvas.U[20*canvas.CStride+15]; u != 90 && u != 89 {
		t.Errorf("U %d, want 90", u)
	}
}

func TestBadPicturesAreRefused(t *testing.T) {
	good := New(16, 16)
	short := *good
	short.Y = short.Y[:100]
	narrow := *good
	narrow.CStride = 4
	for name, m := range map[string]*Image{"nil": nil, "empty": {}, "short plane": &short, "stride below width": &narrow} {
		if err := Scale(good, m); !errors.Is(err, ErrSize) {
			t.Errorf("scale from %s: %v, want ErrSize", name, err)
		}
		if err := Scale(m, good); !errors.Is(err, ErrSize) {
			t.Errorf("scale to %s: %v, want ErrSize", name, err)
		}
	}
	if s := good.Sub(14, 14, 100, 100); s.Width != 2 || s.Height != 2 {
		t.Errorf("window is %dx%d, want it clipped to 2x2", s.Width, s.Height)
	}
	if s := good.Sub(40, 0, 4, 4); s.valid() {
		t.Error("a window outside of the picture is valid")
	}
}

func TestColoursSurviveConversion(t *testing.T) {
	for _, c := range []color.RGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {20, 30, 200, 255}, {255, 255, 255, 255}, {0, 0, 0, 255}} {
		src := image.NewRGBA(image.Rect(0, 0, 4, 4))
		for i := range 16 {
			src.SetRGBA(i%4, i/4, c)
		}
		m := New(4, 4)
		if err := FromRGBA(m, src); err != nil {
			t.Fatal(err)
		}
		r, g, b, _ := m.Full().At(1, 1).RGBA()
		for i, d := range []int{int(r>>8) - int(c.R), int(g>>8) - int(c.G), int(b>>8) - int(c.B)} {
			if d < -6 || d > 6 {
				t.Errorf("%v: channel %d is off by %d", c, i, d)
			}
		}
	}
}

func TestScaleDoesNotAllocate(t *testing.T) {
	src, dst := ramp(320, 240), New(120, 90)
	if n := testing.AllocsPerRun(50, func() { _ = Scale(dst, src) }); n != 0 {
		t.Errorf("Scale allocates %v times, want 0", n)
	}
}

func BenchmarkScale(b *testing.B) {
	src := ramp(640, 480)
	for name, dst := range map[string]*Image{"2to1": New(320, 240), "odd": New(214, 160)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = Scale(dst, src)
			}
		})
	}
}
