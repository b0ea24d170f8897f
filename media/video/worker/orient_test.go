package worker

import (
	"fmt"
	"testing"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// corners is a picture whose corners differ: a b above c d.
func corners(w, h int) *yuv.Image {
	m := yuv.New(w, h)
	m.Fill(30, 128, 128)
	for i, luma := range []byte{60, 110, 160, 210} {
		c := m.Sub(i%2*w/2, i/2*h/2, w/2, h/2)
		c.Fill(luma, 128, 128)
	}
	return m
}

// seen are the corners of a picture in words: "ab/cd" is upright.
func seen(m *yuv.Image) string {
	out := ""
	for i := range 4 {
		y := m.Y[(m.Height/4+i/2*m.Height/2)*m.YStride+m.Width/4+i%2*m.Width/2]
		if i == 2 {
			out += "/"
		}
		out += string("abcd"[max(0, min(3, (int(y)-35)/50))])
	}
	return out
}

// said are the sizes that the worker told of since the last call.
func (w *worker) said() (sizes []string) {
	for {
		select {
		case b := <-w.out:
			var s wire.Source
			if wire.Type(b[4]) == wire.TypeSource && wire.ParseJSON(b[5:], &s) == nil && !s.NeedKey {
				sizes = append(sizes, fmt.Sprintf("%dx%d", s.Width, s.Height))
			}
		default:
			return sizes
		}
	}
}

// What a phone says of its camera is undone: the turn clockwise, after the mirror (CVO, 3GPP
// TS 26.114 §7.4.5). And a phone that is turned may change the size of its stream instead: its
// next key frame has another sequence parameter set (IMS.md §5.2).
func TestPicturesAreShownUpright(t *testing.T) {
	r, w := roomOf(t)
	start, seq, ts := time.Unix(1000, 0), uint16(0), uint32(0)
	var depay rtp264.Depacketizer
	pack := rtp264.Packetizer{Mode: 1}
	var enc *h264.Encoder
	size := [2]int{}
	defer func() { enc.Close() }()
	for _, tt := range []struct {
		w, h   int
		rotate uint8
		mirror bool
		want   string
		told   string // the new size
	}{
		{240, 320, 0, false, "240x320 ab/cd", "[240x320]"},
		{240, 320, 1, false, "320x240 ca/db", "[320x240]"},
		{240, 320, 2, false, "240x320 dc/ba", "[240x320]"},
		{240, 320, 3, false, "320x240 bd/ac", "[320x240]"},
		{240, 320, 3, true, "320x240 ac/bd", "[]"},
		{240, 320, 1, true, "320x240 db/ca", "[]"},
		{240, 320, 0, true, "240x320 ba/dc", "[240x320]"},
		{320, 240, 0, false, "320x240 ab/cd", "[320x240]"},
		{176, 144, 0, false, "176x144 ab/cd", "[176x144]"},
		{640, 480, 0, false, "640x480 ab/cd", "[640x480]"},
		{240, 320, 0, false, "240x320 ab/cd", "[240x320]"},
	} {
		name := fmt.Sprintf("%dx%d turned by %d, mirrored %v", tt.w, tt.h, tt.rotate, tt.mirror)
		if size != [2]int{tt.w, tt.h} {
			if enc != nil {
				enc.Close()
			}
			var err error
			if enc, err = h264.NewEncoder(h264.Params{Width: tt.w, Height: tt.h, FPS: 15, BitrateBps: 500_000}); err != nil {
				t.Fatal(err)
			}
			size = [2]int{tt.w, tt.h}
		}
		m := corners(tt.w, tt.h)
		for range 3 {
			ts += 6000
			start = start.Add(time.Second / 15)
			au, _, err := enc.Encode(m, start.UnixMilli())
			if err != nil {
				t.Fatal(err)
			}
			_ = pack.Packetize(au, func(pl []byte, last bool) error {
				depay.Push(pl, seq, ts, last, func(au rtp264.AccessUnit) {
					r.arrive(&wire.Unit{ID: 1, Key: au.Key, Damaged: au.Damaged, Rotate: tt.rotate, Mirror: tt.mirror, Data: au.Data}, start)
				})
				seq++
				return nil
			})
		}
		r.gather(start)
		got := r.tiles[0].Picture
		if got == nil {
			t.Fatalf("%s: nothing is shown", name)
		}
		if s := fmt.Sprintf("%dx%d %s", got.Width, got.Height, seen(got)); s != tt.want {
			t.Errorf("%s: %s, want %s", name, s, tt.want)
		}
		if told := fmt.Sprint(w.said()); told != tt.told {
			t.Errorf("%s: told of %s, want %s", name, told, tt.told)
		}
	}
}
