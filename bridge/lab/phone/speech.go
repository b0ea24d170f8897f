package phone

import (
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/driver"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"
)

//go:embed speech/*.wav
var speechFiles embed.FS

// clips are the samples of all speakers, read once.
var clips = sync.OnceValues(func() (all [Speakers][]int16, err error) {
	for s := range all {
		file, err := speechFiles.ReadFile(fmt.Sprintf("speech/%d.wav", s))
		if err != nil {
			return all, err
		}
		if all[s], err = parseWAV(file); err != nil {
			return all, fmt.Errorf("speech of speaker %d: %w", s, err)
		}
	}
	return all, nil
})

var errWAV = errors.New("not a 16 kHz mono s16 WAV file")

// parseWAV returns the samples of a 16 kHz mono s16 RIFF file.
func parseWAV(file []byte) ([]int16, error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WAVE" {
		return nil, errWAV
	}
	good := false
	for rest := file[12:]; len(rest) >= 8; {
		id, size := string(rest[:4]), int(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		size = min(size, len(rest))
		switch body := rest[:size]; id {
		case "fmt ":
			good = size >= 16 && binary.LittleEndian.Uint16(body) == 1 && binary.LittleEndian.Uint16(body[2:]) == 1 &&
				binary.LittleEndian.Uint32(body[4:]) == rateHz && binary.LittleEndian.Uint16(body[14:]) == 16
		case "data":
			if !good || size < 2 {
				return nil, errWAV
			}
			pcm := make([]int16, size/2)
			for i := range pcm {
				pcm[i] = int16(binary.LittleEndian.Uint16(body[2*i:]))
			}
			return pcm, nil
		}
		rest = rest[min(len(rest), size+size&1):]
	}
	return nil, errWAV
}

// microphone is a mediadevices driver: one speaker who talks when it is his turn. Each
// Read is 20 ms at the instant of the call; whoever reads keeps the time.
type microphone struct {
	speaker int
	now     func() time.Time
	clip    []int16
	pos     int   // in clip: speech goes on where the last turn ended
	n       int64 // samples since the beginning
	pcm     [frame]int16
}

var _ interface {
	driver.Adapter
	driver.AudioRecorder
} = (*microphone)(nil)

// Open implements driver.Adapter.
func (m *microphone) Open() error {
	all, err := clips()
	if err != nil {
		return err
	}
	m.clip = all[m.speaker]
	return nil
}

// Close implements driver.Adapter.
func (m *microphone) Close() error { return nil }

// Properties implements driver.Adapter.
func (m *microphone) Properties() []prop.Media {
	return []prop.Media{{Audio: prop.Audio{SampleRate: rateHz, Latency: 20 * time.Millisecond, ChannelCount: 1}}}
}

// AudioRecord implements driver.AudioRecorder. Chunks are the microphone's, valid until
// the next Read.
func (m *microphone) AudioRecord(prop.Media) (audio.Reader, error) {
	if m.clip == nil {
		return nil, io.ErrClosedPipe
	}
	chunk := &wave.Int16Interleaved{Data: m.pcm[:], Size: wave.ChunkInfo{Len: frame, Channels: 1, SamplingRate: rateHz}}
	return audio.ReaderFunc(func() (wave.Audio, func(), error) {
		m.record(m.now())
		return chunk, func() {}, nil
	}), nil
}

func (m *microphone) record(now time.Time) {
	clear(m.pcm[:])
	if talking, chime := talks(m.speaker, now); talking {
		for i := range m.pcm {
			m.pcm[i] = m.clip[m.pos]
			if m.pos++; m.pos == len(m.clip) {
				m.pos = 0
			}
		}
		tones(m.speaker, m.n, m.pcm[:], chime)
	}
	m.n += frame
}
