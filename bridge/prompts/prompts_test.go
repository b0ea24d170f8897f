package prompts

import (
	"encoding/binary"
	"testing"
	"time"
)

// A prompt is short, can be heard, and does not hurt.
func TestPrompts(t *testing.T) {
	for _, n := range All() {
		for _, l := range []Language{Chinese, English, Both} {
			b := PCM(n, l)
			if d := Length(b); d < 800*time.Millisecond || d > 9*time.Second {
				t.Errorf("%s %s lasts %v", n, l, d)
			}
			peak, loud := 0, 0
			for i := 0; i+1 < len(b); i += 2 {
				v := int(int16(binary.LittleEndian.Uint16(b[i:])))
				if peak = max(peak, v, -v); v > 500 || v < -500 {
					loud++
				}
			}
			if peak < 6000 || peak > 30000 || loud < len(b)/10 {
				t.Errorf("%s %s: peak %d, %d of %d samples to be heard", n, l, peak, loud, len(b)/2)
			}
		}
	}
}

func FuzzWAV(f *testing.F) {
	b, err := files.ReadFile("enter-en.wav")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:60])
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = pcm(b) })
}
