package phone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sparkle/media/codec/amr"
	"sparkle/media/video/rtp264"
)

// recorder keeps what came, as it came, for DumpTo. Its owner guards it.
type recorder struct {
	wide   bool
	frames []byte // RFC 4867 §5.3: table-of-contents octet and bits of each frame
	units  []byte // Annex B, from a key frame on
}

const (
	maxFrames = 256 << 10 // octets: over a minute of the highest mode
	maxUnits  = 16 << 20
)

// frame adds a received AMR frame. When the store is full it begins anew.
func (r *recorder) frame(wide bool, f amr.Frame) {
	if wide != r.wide || len(r.frames) > maxFrames {
		r.wide, r.frames = wide, r.frames[:0]
	}
	toc := f.Type << 3
	if !f.Bad {
		toc |= 4
	}
	r.frames = append(append(r.frames, toc), f.Bits...)
}

// unit adds a received access unit; the stream begins, and begins anew when the store is
// full, with a key frame.
func (r *recorder) unit(u rtp264.AccessUnit) {
	if u.Key && (len(r.units) > maxUnits/2) {
		r.units = r.units[:0]
	}
	if len(r.units)+len(u.Data) > maxUnits || len(r.units) == 0 && !u.Key {
		return
	}
	r.units = append(r.units, u.Data...)
}

// DumpTo writes into dir, which is made, what was received: heard.wav (the last minute, as
// played), heard.awb or heard.amr (AMR frames as they came, RFC 4867 §5), seen.h264 (Annex
// B) and seen.png (the newest picture). What did not come has no file.
func (p *Phone) DumpTo(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	var errs []error
	write := func(name string, data []byte) {
		if len(data) > 0 {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name), data, 0o644))
		}
	}
	write("heard.wav", wav(p.listener.PCM(time.Time{})))
	p.audio.mu.Lock()
	wide, frames := p.audio.store.wide, slices.Clone(p.audio.store.frames)
	p.audio.mu.Unlock()
	if len(frames) > 0 {
		if wide {
			write("heard.awb", append([]byte("#!AMR-WB\n"), frames...))
		} else {
			write("heard.amr", append([]byte("#!AMR\n"), frames...))
		}
	}
	p.video.mu.Lock()
	units := slices.Clone(p.video.store.units)
	p.video.mu.Unlock()
	write("seen.h264", units)
	p.watcher.mu.Lock()
	var picture bytes.Buffer
	if m := p.watcher.latest; m != nil {
		errs = append(errs, png.Encode(&picture, m.Full()))
	}
	p.watcher.mu.Unlock()
	write("seen.png", picture.Bytes())
	return errors.Join(errs...)
}

// wav is a 16 kHz mono s16 RIFF file, nil for no samples.
func wav(pcm []int16) []byte {
	if len(pcm) == 0 {
		return nil
	}
	b := make([]byte, 44, 44+2*len(pcm))
	copy(b, "RIFF....WAVEfmt ")
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(36+2*len(pcm)))
	le.PutUint32(b[16:], 16)
	le.PutUint16(b[20:], 1)
	le.PutUint16(b[22:], 1)
	le.PutUint32(b[24:], rateHz)
	le.PutUint32(b[28:], 2*rateHz)
	le.PutUint16(b[32:], 2)
	le.PutUint16(b[34:], 16)
	copy(b[36:], "data")
	le.PutUint32(b[40:], uint32(2*len(pcm)))
	for _, v := range pcm {
		b = le.AppendUint16(b, uint16(v))
	}
	return b
}
