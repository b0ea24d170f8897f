package phone

import (
	"bytes"
	"testing"
	"time"
)

// What is written for another phone is recognised by the same ears and eyes.
func TestFiles(t *testing.T) {
	for speaker := range Speakers {
		wav, err := SpeechWAV(speaker, 4*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		heard, err := HeardInWAV(wav, nil)
		if err != nil || len(heard) != 1 || heard[0].Speaker != speaker {
			t.Errorf("speaker %d is heard as %+v, %v", speaker, heard, err)
		}
		y4m, err := CameraY4M(speaker)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := bytes.Cut(y4m, []byte("FRAME\n"))
		if want := "YUV4MPEG2 W240 H320 F15:1 Ip A1:1 C420jpeg\n"; string(head) != want {
			t.Errorf("header %q, want %q", head, want)
		}
		w := newWatcher()
		for n := 0; n < 16; n++ {
			const size = camWidth * camHeight * 3 / 2
			w.ring[n] = look{at: time.Now(), w: camWidth, h: camHeight, y: rest[n*5*(size+len("FRAME\n")):][:camWidth*camHeight]}
		}
		if s := w.seen(time.Time{}, nil, nil); len(s.Speakers) != 1 || s.Speakers[0] != speaker {
			t.Errorf("speaker %d is seen as %+v", speaker, s)
		}
	}
	if _, err := SpeechWAV(Speakers, time.Second); err == nil {
		t.Error("a speaker who does not exist speaks")
	}
	if _, err := CameraY4M(-1); err == nil {
		t.Error("a speaker who does not exist is seen")
	}
}
