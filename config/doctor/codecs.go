package doctor

import (
	"bytes"
	"fmt"
	"math"

	"sparkle/config"
	"sparkle/media/codec/amr"
	"sparkle/media/codec/g722"
	"sparkle/media/codec/h264"
	"sparkle/media/codec/opus"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/mosaic"
)

const install = "install what the README lists, with cgo: `make deps`, then `make build`"

// codecs sends a tone and a picture through each library, there and back.
func (r *report) codecs(cfg config.File) {
	for _, c := range []struct {
		name string
		open func() (*line, error)
	}{
		{"AMR-WB", func() (*line, error) { return amrLine(true) }},
		{"AMR", func() (*line, error) { return amrLine(false) }},
		{"Opus", opusLine},
		{"G.722", g722Line},
	} {
		if err := tone(c.open); err != nil {
			r.fail("codec "+c.name, install, "%v", err)
		} else {
			r.ok("codec "+c.name, "encodes and decodes")
		}
	}
	if !cfg.Video.Enabled {
		r.ok("codec H.264", "not wanted: video.enabled is false")
		return
	}
	if err := picture(); err != nil {
		r.fail("codec H.264", install, "%v", err)
	} else {
		r.ok("codec H.264", "encodes and decodes")
	}
	if f := mosaic.LoadFonts(nil, nil); f.CJK == "" {
		r.warn("font", "install fonts-wqy-microhei or fonts-noto-cjk", "no Chinese characters: name plates show Latin only")
	} else {
		r.ok("font", "%s", f.CJK)
	}
}

// line is an encoder and a decoder with their ends together.
type line struct {
	rateHz int
	pass   func(in, out []int16) // 20 ms
	close  func()
}

func amrLine(wide bool) (*line, error) {
	enc, err := amr.NewEncoder(wide, false)
	if err != nil {
		return nil, err
	}
	dec, err := amr.NewDecoder(wide)
	if err != nil {
		enc.Close()
		return nil, err
	}
	buf := make([]byte, 64)
	return &line{amr.SampleRate(wide), func(in, out []int16) { dec.Decode(enc.Encode(amr.TopMode(wide), in, buf), out) },
		func() { enc.Close(); dec.Close() }}, nil
}

func opusLine() (*line, error) {
	enc, err := opus.NewEncoder(opus.Params{})
	if err != nil {
		return nil, err
	}
	dec, err := opus.NewDecoder()
	if err != nil {
		enc.Close()
		return nil, err
	}
	buf := make([]byte, opus.MaxBytes)
	return &line{16000, func(in, out []int16) { dec.Decode(buf[:enc.Encode(in, buf)], (*[opus.FrameSamples]int16)(out)) },
		func() { enc.Close(); dec.Close() }}, nil
}

func g722Line() (*line, error) {
	enc, err := g722.NewEncoder()
	if err != nil {
		return nil, err
	}
	dec, err := g722.NewDecoder()
	if err != nil {
		enc.Close()
		return nil, err
	}
	buf := make([]byte, g722.FrameBytes)
	return &line{16000, func(in, out []int16) { dec.Decode(buf[:enc.Encode(in, buf)], (*[g722.FrameSamples]int16)(out)) },
		func() { enc.Close(); dec.Close() }}, nil
}

// tone encodes half a second of a tone and asks whether what comes out is as loud.
func tone(open func() (*line, error)) error {
	l, err := open()
	if err != nil {
		return err
	}
	defer l.close()
	n, rate := l.rateHz/50, float64(l.rateHz)
	in, out := make([]int16, n), make([]int16, n)
	const amplitude = 8000
	energy := 0.0
	for frame := range 25 {
		for i := range in {
			in[i] = int16(amplitude * math.Sin(2*math.Pi*440*float64(frame*n+i)/rate))
		}
		l.pass(in, out)
		if frame < 5 {
			continue // it takes a moment to settle
		}
		for _, s := range out {
			energy += float64(s) * float64(s)
		}
	}
	if rms := math.Sqrt(energy / float64(20*n)); rms < amplitude/math.Sqrt2/2 || rms > amplitude*math.Sqrt2 {
		return fmt.Errorf("a tone of amplitude %d comes out with an RMS of %.0f: the library is broken", amplitude, rms)
	}
	return nil
}

// picture encodes a grey picture and asks whether it comes out grey.
func picture() error {
	if _, err := h264.Probe(); err != nil {
		return err
	}
	const w, h, grey = 320, 240, 120
	enc, err := h264.NewEncoder(h264.Params{Width: w, Height: h, FPS: 15, BitrateBps: 300_000, ProfileLevelID: "42c00d"})
	if err != nil {
		return err
	}
	defer enc.Close()
	dec, err := h264.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	img := yuv.New(w, h)
	copy(img.Y, bytes.Repeat([]byte{grey}, len(img.Y)))
	for i := range 5 {
		au, _, err := enc.Encode(img, int64(i)*66)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		got, err := dec.Decode(au)
		if err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		if got == nil {
			continue // a decoder may hold a picture back
		}
		if v := int(got.Y[got.YStride*h/2+w/2]); got.Width != w || got.Height != h || v < grey-8 || v > grey+8 {
			return fmt.Errorf("a grey picture of %dx%d comes out as %dx%d with %d for %d: the library is broken", w, h, got.Width, got.Height, v, grey)
		}
		return nil
	}
	return fmt.Errorf("five pictures were encoded and none came out of the decoder")
}
