// Package g711 is PCMU and PCMA (ITU-T G.711), one octet a sample at 8 kHz, by tables.
package g711

import "math"

// Law is one of the two companding laws.
type Law uint8

// The laws of RFC 3551: payload types 0 and 8.
const (
	PCMU Law = iota
	PCMA
)

var (
	decode [2][256]int16
	encode [2][8192]byte // by sample >> 3: both laws resolve 13 or 14 bits at most
	power  [2][256]int64 // of a sample, squared
)

func init() {
	for i := range 256 {
		decode[PCMU][i] = expandU(byte(i))
		decode[PCMA][i] = expandA(byte(i))
		for law := range power {
			v := int64(decode[law][i])
			power[law][i] = v * v
		}
	}
	for i := range 8192 {
		s := int(int16(i << 3))
		encode[PCMU][i] = compressU(s)
		encode[PCMA][i] = compressA(s)
	}
}

// Decode expands octets into pcm and returns how many samples that made: the shorter
// of both lengths.
func (l Law) Decode(octets []byte, pcm []int16) int {
	t := &decode[l]
	n := min(len(octets), len(pcm))
	for i, b := range octets[:n] {
		pcm[i] = t[b]
	}
	return n
}

// Level is how loud octets are, in dBov, without expanding them; -127 for silence.
func (l Law) Level(octets []byte) float32 {
	t := &power[l]
	var sum int64
	for _, b := range octets {
		sum += t[b]
	}
	if sum == 0 || len(octets) == 0 {
		return -127
	}
	return float32(max(10*math.Log10(float64(sum)/float64(len(octets))/(1<<30)), -127))
}

// Encode compresses pcm into octets and returns how many that made.
func (l Law) Encode(pcm []int16, octets []byte) int {
	t := &encode[l]
	n := min(len(octets), len(pcm))
	for i, s := range pcm[:n] {
		octets[i] = t[uint16(s)>>3]
	}
	return n
}

func expandU(b byte) int16 {
	b = ^b
	v := (int(b&0x0f)<<3 + 0x84) << (b >> 4 & 7)
	if b&0x80 != 0 {
		return int16(0x84 - v)
	}
	return int16(v - 0x84)
}

func expandA(b byte) int16 {
	b ^= 0x55
	v := int(b&0x0f)<<4 + 8
	if e := b >> 4 & 7; e > 0 {
		v = (v + 0x100) << (e - 1)
	}
	if b&0x80 != 0 {
		return int16(v)
	}
	return int16(-v)
}

func compressU(s int) byte {
	sign := byte(0)
	if s < 0 {
		s, sign = -s, 0x80
	}
	s = min(s, 32635) + 0x84
	e := byte(7)
	for m := 0x4000; s&m == 0 && e > 0; m >>= 1 {
		e--
	}
	return ^(sign | e<<4 | byte(s>>(e+3)&0x0f))
}

func compressA(s int) byte {
	sign := byte(0x80)
	if s < 0 {
		s, sign = -s-1, 0
	}
	s = min(s, 32767)
	if s < 256 {
		return (sign | byte(s>>4)) ^ 0x55
	}
	e := byte(7)
	for m := 0x4000; s&m == 0 && e > 1; m >>= 1 {
		e--
	}
	return (sign | e<<4 | byte(s>>(e+3)&0x0f)) ^ 0x55
}
