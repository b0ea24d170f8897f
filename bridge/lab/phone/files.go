package phone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"time"
)

// A phone that is not ours can say and show what a handset does, from files, and what it
// recorded can be judged as what a handset hears and sees.

// SpeechWAV is a speaker's speech with his mark, without a pause, as a WAV file of 16 kHz
// mono s16.
func SpeechWAV(speaker int, length time.Duration) ([]byte, error) {
	if speaker < 0 || speaker >= Speakers {
		return nil, fmt.Errorf("phone: speaker %d is not one of 0 to %d", speaker, Speakers-1)
	}
	all, err := clips()
	if err != nil {
		return nil, err
	}
	clip, pcm := all[speaker], make([]int16, int(length.Seconds()*rateHz)/frame*frame)
	for i := range pcm {
		pcm[i] = clip[i%len(clip)]
	}
	for i := 0; i < len(pcm); i += frame {
		at := time.Duration(i) * time.Second / rateHz % turn
		tones(speaker, int64(i), pcm[i:i+frame], at >= chimeFrom && at < chimeTo)
	}
	var b bytes.Buffer
	head := struct {
		RIFF   [4]byte
		Size   uint32
		WAVE   [8]byte
		Format uint32 // length of what follows
		Tag    uint16 // 1: PCM
		Chans  uint16
		Rate   uint32
		Bytes  uint32 // a second
		Align  uint16
		Bits   uint16
		Data   [4]byte
		Length uint32
	}{[4]byte([]byte("RIFF")), uint32(36 + 2*len(pcm)), [8]byte([]byte("WAVEfmt ")), 16, 1, 1, rateHz, 2 * rateHz, 2, 16,
		[4]byte([]byte("data")), uint32(2 * len(pcm))}
	_ = binary.Write(&b, binary.LittleEndian, head) // a Buffer takes all
	_ = binary.Write(&b, binary.LittleEndian, pcm)
	return b.Bytes(), nil
}

// HeardInWAV is who speaks in a recording of 16 kHz mono s16.
func HeardInWAV(file []byte, names []string) ([]Heard, error) {
	pcm, err := parseWAV(file)
	if err != nil {
		return nil, err
	}
	return recognise(pcm, names), nil
}

// CameraY4M is a speaker's camera, 240×320 at 15 pictures a second, as a YUV4MPEG2 file. It
// can be shown in a loop: the mark's counter has gone round once.
func CameraY4M(speaker int) ([]byte, error) {
	if speaker < 0 || speaker >= Speakers {
		return nil, fmt.Errorf("phone: speaker %d is not one of 0 to %d", speaker, Speakers-1)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg\n", camWidth, camHeight, camFPS)
	m := image.NewYCbCr(image.Rect(0, 0, camWidth, camHeight), image.YCbCrSubsampleRatio420)
	for n := range int64(counts * countFrames) {
		draw(m, speaker, n)
		b.WriteString("FRAME\n")
		for _, plane := range [][]byte{m.Y, m.Cb, m.Cr} {
			b.Write(plane)
		}
	}
	return b.Bytes(), nil
}

// NamesIn is which of the names can be read in a picture, as on its name plates.
func NamesIn(m image.Image, names []string) []string {
	r := m.Bounds()
	l := look{w: r.Dx(), h: r.Dy(), y: make([]byte, 0, r.Dx()*r.Dy())}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			l.y = append(l.y, color.GrayModel.Convert(m.At(x, y)).(color.Gray).Y)
		}
	}
	return readNames([]look{l}, names)
}
