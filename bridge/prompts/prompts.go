// Package prompts are the sentences that a caller hears: 16 kHz mono PCM, in Chinese and
// English. They are spoken by espeak-ng and made by make.go, which has their texts; who
// wants a human voice replaces the WAV files and builds again.
package prompts

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

//go:generate go run make.go
//go:embed *.wav
var files embed.FS

// Name of a prompt.
type Name string

// The prompts.
const (
	Enter   Name = "enter"   // enter the PIN
	Wrong   Name = "wrong"   // it is not right, try again
	Tries   Name = "tries"   // too many tries, goodbye
	Joined  Name = "joined"  // you are in the conference
	Full    Name = "full"    // the conference is full, goodbye
	Refused Name = "refused" // you cannot join, goodbye
	Confirm Name = "confirm" // you are called into a conference: press 1 to join
)

// All are all prompts.
func All() []Name { return []Name{Enter, Wrong, Tries, Joined, Full, Refused, Confirm} }

// Language of a prompt.
type Language string

// Languages; Both is Chinese, then English.
const (
	Chinese Language = "zh"
	English Language = "en"
	Both    Language = "zh+en"
)

// RateHz is the sample rate.
const RateHz = 16000

// pause separates two languages.
const pause = RateHz * 2 * 4 / 10 // bytes: 400 ms

var sounds = load()

// load reads every file once; one that is not as make.go makes it is our bug.
func load() map[string][]byte {
	out := map[string][]byte{}
	for _, n := range All() {
		for _, l := range []Language{Chinese, English} {
			name := string(n) + "-" + string(l)
			b, err := files.ReadFile(name + ".wav")
			if err == nil {
				b, err = pcm(b)
			}
			if err != nil {
				panic("prompts: " + name + ": " + err.Error())
			}
			out[name] = b
		}
	}
	return out
}

// PCM is a prompt as the engine plays it: signed 16 bit little endian. It is shared: do
// not change it.
func PCM(n Name, l Language) []byte {
	if l == Both {
		return bytes.Join([][]byte{PCM(n, Chinese), PCM(n, English)}, make([]byte, pause))
	}
	return sounds[string(n)+"-"+string(l)]
}

// Length is how long samples last.
func Length(pcm []byte) time.Duration {
	return time.Duration(len(pcm)/2) * time.Second / RateHz
}

// pcm takes the samples out of a WAV file: 16 kHz, mono, 16 bit.
func pcm(b []byte) ([]byte, error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return nil, errors.New("not a WAV file")
	}
	known := false
	for b = b[12:]; len(b) >= 8; {
		id, n := string(b[:4]), int(binary.LittleEndian.Uint32(b[4:8]))
		b = b[8:]
		if n < 0 || n > len(b) {
			return nil, fmt.Errorf("chunk %q is cut off", id)
		}
		switch {
		case id == "fmt " && n >= 16:
			format, channels := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
			rate, bits := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint16(b[14:])
			if format != 1 || channels != 1 || rate != RateHz || bits != 16 {
				return nil, fmt.Errorf("format %d, %d channels, %d Hz, %d bit", format, channels, rate, bits)
			}
			known = true
		case id == "data" && known:
			return b[:n&^1], nil
		}
		b = b[min(n+n&1, len(b)):]
	}
	return nil, errors.New("no samples")
}
