// Package amr encodes and decodes AMR (TS 26.071) and AMR-WB (TS 26.171) speech, 20 ms
// a frame, with Debian's opencore-amr and vo-amrwbenc. Frames have the octet-aligned
// storage order of RFC 4867 §5.3, without their table-of-contents octet.
//
// The C decoders read as many octets as a frame's type promises, whatever they are
// given, so nothing reaches them that was not measured and copied first.
package amr

// Frame types (FT) with the same meaning in both codecs. Below them are speech modes:
// 0-7 in AMR, 0-8 in AMR-WB.
const (
	SIDNarrow  = 8  // AMR: comfort noise
	SIDWide    = 9  // AMR-WB: comfort noise
	SpeechLost = 14 // AMR-WB only
	NoData     = 15
)

// MaxBytes is the size of the largest frame of either codec: AMR-WB 23.85.
const MaxBytes = 60

var (
	wideBits   = [16]int{132, 177, 253, 285, 317, 365, 397, 461, 477, 40, -1, -1, -1, -1, 0, 0}
	narrowBits = [16]int{95, 103, 118, 134, 148, 159, 204, 244, 39, -1, -1, -1, -1, -1, -1, 0}
)

// Bits is the number of speech bits of a frame type (RFC 4867 §4.3.1, TS 26.201), -1 for
// a reserved one.
func Bits(wide bool, ft uint8) int {
	switch {
	case ft > 15:
		return -1
	case wide:
		return wideBits[ft]
	}
	return narrowBits[ft]
}

// Bytes is Bits in whole octets, -1 for a reserved frame type.
func Bytes(wide bool, ft uint8) int {
	if n := Bits(wide, ft); n >= 0 {
		return (n + 7) / 8
	}
	return -1
}

// Frame is 20 ms of encoded speech.
type Frame struct {
	Type uint8  // FT
	Bad  bool   // Q bit 0: damaged on the way
	Bits []byte // Bytes(wide, Type) octets, the last one padded with zeros
}

// Speech says whether the frame carries speech, not comfort noise or nothing.
func (f Frame) Speech(wide bool) bool {
	if wide {
		return f.Type <= 8
	}
	return f.Type <= 7
}

// SampleRate in Hz.
func SampleRate(wide bool) int {
	if wide {
		return 16000
	}
	return 8000
}

// NoiseLevel is the level that a SID frame tells of its sender's silence, dBov, some 2 dB off,
// more for noise that is all low; not ok for SID_FIRST, which has none. It is the energy, in
// log2 steps, of what the predictor leaves in AMR-WB (TS 26.192 §5.2), of the signal in AMR
// (TS 26.092 §5.2), as measured on this library's noise.
func NoiseLevel(wide bool, bits []byte) (dbov float32, ok bool) {
	if len(bits) < 5 || bits[4]>>4&1 == 0 { // STI: the bit after the 35 of the description
		return 0, false
	}
	if wide {
		index := bits[3]&0xf<<2 | bits[4]>>6
		return float32(index)*(3.0103/2.625) - 91.5, true
	}
	index := bits[3]&0x7<<3 | bits[4]>>5
	return float32(index)*(3.0103/2) - 97.5, true
}

// FrameSamples in 20 ms.
func FrameSamples(wide bool) int { return SampleRate(wide) / 50 }

// TopMode is the mode with the highest bit rate.
func TopMode(wide bool) int {
	if wide {
		return 8 // 23.85 kbit/s
	}
	return 7 // 12.2 kbit/s
}
