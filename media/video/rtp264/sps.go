package rtp264

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Limits on the pictures that we let a decoder see.
const (
	MaxWidth  = 1920
	MaxHeight = 1088
)

// ErrSPS says that a sequence parameter set is broken or beyond our limits.
var ErrSPS = errors.New("rtp264: sequence parameter set")

// SPS is what we want to know of a sequence parameter set (H.264 §7.3.2.1.1).
type SPS struct {
	Profile, Constraints, Level byte
	ID                          int
	Width, Height               int // after cropping
	RefFrames                   int
}

// bits reads a NAL unit's payload, skipping emulation prevention octets (H.264
// §7.4.1). Reading past the end sets bad and gives zeros.
type bits struct {
	b     []byte
	pos   int // in bits
	zeros int
	bad   bool
}

func (r *bits) bit() uint {
	i := r.pos >> 3
	if r.pos&7 == 0 && i < len(r.b) {
		if r.zeros >= 2 && r.b[i] == 3 {
			r.pos += 8
			i++
			r.zeros = 0
		}
		if i < len(r.b) {
			if r.b[i] == 0 {
				r.zeros++
			} else {
				r.zeros = 0
			}
		}
	}
	if i >= len(r.b) {
		r.bad = true
		return 0
	}
	v := r.b[i] >> (7 - r.pos&7) & 1
	r.pos++
	return uint(v)
}

func (r *bits) u(n int) uint {
	v := uint(0)
	for range n {
		v = v<<1 | r.bit()
	}
	return v
}

// ue is an unsigned Exp-Golomb number; one of more than 32 bits is bad.
func (r *bits) ue() uint {
	n := 0
	for r.bit() == 0 {
		if n++; n > 31 || r.bad {
			r.bad = true
			return 0
		}
	}
	return 1<<n - 1 + r.u(n)
}

func (r *bits) se() { r.ue() }

// ParseSPS reads a sequence parameter set (the NAL unit with its header octet) and
// checks it: at most 1920x1088 and 16 reference frames, 4:2:0, 8 bits, known chroma
// and order types. Errors wrap ErrSPS.
func ParseSPS(nal []byte) (SPS, error) {
	if len(nal) < 5 || nal[0]&0x9f != TypeSPS {
		return SPS{}, fmt.Errorf("%w: not one", ErrSPS)
	}
	r := &bits{b: nal[1:min(len(nal), 512)]}
	s := SPS{Profile: byte(r.u(8)), Constraints: byte(r.u(8)), Level: byte(r.u(8)), ID: int(r.ue())}
	if s.ID > 31 {
		return s, fmt.Errorf("%w: id %d", ErrSPS, s.ID)
	}
	switch s.Profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		if err := highFields(r); err != nil {
			return s, err
		}
	}
	r.ue() // log2_max_frame_num_minus4
	switch order := r.ue(); order {
	case 0:
		r.ue()
	case 1:
		r.bit()
		r.se()
		r.se()
		n := r.ue()
		if n > 255 {
			return s, fmt.Errorf("%w: %d frames in an order cycle", ErrSPS, n)
		}
		for range n {
			r.se()
		}
	case 2:
	default:
		return s, fmt.Errorf("%w: picture order type %d", ErrSPS, order)
	}
	refs := r.ue()
	r.bit() // gaps_in_frame_num_value_allowed_flag
	w, h := r.ue()+1, r.ue()+1
	frameOnly := r.bit()
	if frameOnly == 0 {
		h *= 2
		r.bit()
	}
	r.bit() // direct_8x8_inference_flag
	var left, right, top, bottom uint
	if r.bit() == 1 {
		left, right, top, bottom = r.ue(), r.ue(), r.ue(), r.ue()
	}
	if r.bad {
		return s, fmt.Errorf("%w: ends too early", ErrSPS)
	}
	if refs > 16 {
		return s, fmt.Errorf("%w: %d reference frames", ErrSPS, refs)
	}
	if w > MaxWidth/16 || h > MaxHeight/16 {
		return s, fmt.Errorf("%w: %dx%d macroblocks, at most %dx%d samples", ErrSPS, w, h, MaxWidth, MaxHeight)
	}
	cropX, cropY := 2*(left+right), 2*(2-frameOnly)*(top+bottom)
	if left > 1000 || right > 1000 || top > 1000 || bottom > 1000 || cropX >= w*16 || cropY >= h*16 {
		return s, fmt.Errorf("%w: cropped to nothing", ErrSPS)
	}
	s.RefFrames = int(refs)
	s.Width, s.Height = int(w*16-cropX), int(h*16-cropY)
	return s, nil
}

// highFields reads what the High profiles have before the frame numbers.
func highFields(r *bits) error {
	if chroma := r.ue(); chroma != 1 {
		return fmt.Errorf("%w: chroma format %d is not 4:2:0", ErrSPS, chroma)
	}
	if l, c := r.ue(), r.ue(); l != 0 || c != 0 {
		return fmt.Errorf("%w: more than 8 bits a sample", ErrSPS)
	}
	r.bit()
	if r.bit() == 0 {
		return nil
	}
	for i := range 8 { // scaling lists, H.264 §7.3.2.1.1.1
		if r.bit() == 0 {
			continue
		}
		size := 16
		if i >= 6 {
			size = 64
		}
		last, nextScale := 8, 8
		for range size {
			if nextScale != 0 {
				nextScale = (last + r.signed() + 256) & 255
			}
			if nextScale != 0 {
				last = nextScale
			}
			if r.bad {
				return fmt.Errorf("%w: scaling list ends too early", ErrSPS)
			}
		}
	}
	return nil
}

// signed is a signed Exp-Golomb number.
func (r *bits) signed() int {
	v := int(r.ue())
	if v&1 == 1 {
		return (v + 1) / 2
	}
	return -v / 2
}

// Sprop writes the parameter sets of an access unit (Annex B) as SDP wants them
// (sprop-parameter-sets, RFC 6184 §8.1), "" if it has none.
func Sprop(annexB []byte) string {
	var sets []string
	Split(annexB, func(nal []byte) bool {
		if t := nal[0] & 0x1f; t == TypeSPS || t == TypePPS {
			sets = append(sets, base64.StdEncoding.EncodeToString(nal))
		}
		return true
	})
	return strings.Join(sets, ",")
}

// maxSets bounds the parameter sets of an sprop, maxSet the octets of one.
const maxSets, maxSet = 8, 512

// ParseSprop reads sprop-parameter-sets into an Annex B stream of the sets that are usable,
// nil if none is: the first 8, of 512 octets at most. Broken base64 (padding may be left
// out), other units and SPS beyond our limits are passed over: the sets of the stream itself
// count in the end.
func ParseSprop(sprop string) (out []byte) {
	n := 0
	for p := range strings.SplitSeq(sprop, ",") {
		nal, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(p), "="))
		if err != nil || len(nal) < 2 || len(nal) > maxSet || !usableSet(nal) {
			continue
		}
		if n++; n > maxSets {
			break
		}
		out = append(append(out, startCode...), nal...)
	}
	return out
}

func usableSet(nal []byte) bool {
	switch nal[0] & 0x9f {
	case TypeSPS:
		_, err := ParseSPS(nal)
		return err == nil && !hidden(nal)
	case TypePPS:
		return !hidden(nal)
	}
	return false
}
