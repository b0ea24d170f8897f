// Package payload packs and unpacks the RTP payloads of AMR and AMR-WB (RFC 4867),
// bandwidth-efficient (§4.3) and octet-aligned (§4.4, without CRC, sorting and
// interleaving). It allocates nothing and trusts no length.
package payload

import (
	"errors"

	"sparkle/media/codec/amr"
)

// Why a payload is refused. Refused means whole: no frame of it is used.
var (
	ErrShort    = errors.New("payload: shorter than its table of contents says")
	ErrLong     = errors.New("payload: longer than its table of contents says")
	ErrFrames   = errors.New("payload: no frame, or too many")
	ErrReserved = errors.New("payload: reserved frame type")
)

// MaxFrames in one packet: maxptime 240 ms.
const MaxFrames = 12

// maxPadding is one octet less than the smallest frame, SID, has.
const maxPadding = 4

// NoRequest is the CMR of somebody who takes any mode.
const NoRequest = 15

// MaxPacked is room enough for one packed frame with its header.
const MaxPacked = amr.MaxBytes + 2

// Format is what a payload type number stands for.
type Format struct {
	Wide         bool // AMR-WB
	OctetAligned bool
}

// Pack writes one frame with its header into dst (at least MaxPacked) and returns the
// length. cmr is the mode we ask the peer for, or NoRequest.
func (f Format) Pack(dst []byte, cmr uint8, fr amr.Frame) int {
	bits := max(amr.Bits(f.Wide, fr.Type), 0)
	size := (bits + 7) / 8
	toc := fr.Type << 3 & 0x78
	if !fr.Bad {
		toc |= 4
	}
	if f.OctetAligned {
		dst[0] = cmr << 4
		dst[1] = toc
		return 2 + copy(dst[2:], fr.Bits[:size])
	}
	// CMR (4), F FT Q (6), then speech bits at once: they are shifted by 10 bits.
	dst[0] = cmr<<4 | toc>>4
	n := (10 + bits + 7) / 8
	dst[1] = toc << 4 & 0xc0
	for i, b := range fr.Bits[:size] {
		dst[1+i] |= b >> 2
		if 2+i < n {
			dst[2+i] = b << 6
		}
	}
	return n
}

// Unpack reads a payload: the peer's mode request, and its frames, oldest first, into
// frames, whose Bits it fills in place (each needs capacity amr.MaxBytes). It returns how
// many there are. A CMR is as the peer wrote it: one outside the mode set is to be ignored.
func (f Format) Unpack(p []byte, frames *[MaxFrames]amr.Frame) (cmr uint8, n int, err error) {
	r := reader{p: p}
	cmr = r.take(4)
	if f.OctetAligned {
		r.take(4)
	}
	for more := true; more; n++ {
		if n == MaxFrames {
			return 0, 0, ErrFrames
		}
		more = r.take(1) == 1
		fr := &frames[n]
		fr.Type = r.take(4)
		fr.Bad = r.take(1) == 0
		if f.OctetAligned {
			r.take(2)
		}
		if amr.Bits(f.Wide, fr.Type) < 0 {
			return 0, 0, ErrReserved
		}
		if r.over {
			return 0, 0, ErrShort
		}
	}
	for i := range n {
		fr := &frames[i]
		bits := amr.Bits(f.Wide, fr.Type)
		fr.Bits = fr.Bits[:(bits+7)/8]
		r.copy(fr.Bits, bits)
		if f.OctetAligned {
			r.align()
		}
	}
	if r.over {
		return 0, 0, ErrShort
	}
	// Octets left over are the mark of the other format (RFC 4867 §4.1), and what is in
	// them was read as speech. Fewer than a frame can have are forgiven: padding.
	if len(p)-(r.bit+7)/8 > maxPadding {
		return 0, 0, ErrLong
	}
	return cmr, n, nil
}

// reader takes bits, most significant first; past the end it gives zeros and says so.
type reader struct {
	p    []byte
	bit  int
	over bool
}

func (r *reader) take(n int) uint8 {
	var v uint8
	for range n {
		i := r.bit >> 3
		if i >= len(r.p) {
			r.over = true
			return 0
		}
		v = v<<1 | r.p[i]>>(7-r.bit&7)&1
		r.bit++
	}
	return v
}

func (r *reader) align() { r.bit = (r.bit + 7) &^ 7 }

func (r *reader) copy(dst []byte, bits int) {
	if r.bit+bits > 8*len(r.p) {
		r.over = true
		return
	}
	from, shift := r.bit>>3, r.bit&7
	for i := range dst {
		b := r.p[from+i] << shift
		if shift > 0 && from+i+1 < len(r.p) {
			b |= r.p[from+i+1] >> (8 - shift)
		}
		dst[i] = b
	}
	if tail := bits & 7; tail > 0 {
		dst[len(dst)-1] &= 0xff << (8 - tail)
	}
	r.bit += bits
}
