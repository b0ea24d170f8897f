// Package rtp264 takes H.264 out of RTP and puts it in (RFC 6184): a depayloader
// that turns packets into access units, a packetiser for packetization-mode 0 and
// 1, a small reordering buffer, and a reader for the sequence parameter set, so
// that no decoder ever sees a size that we did not check.
//
// Everything here works on octets that a stranger may have sent: memory is bounded
// by the Max constants, and nothing panics. It is pure Go and has no goroutines.
package rtp264

import "bytes"

// NAL unit types (H.264 table 7-1, RFC 6184 table 1).
const (
	TypeSlice = 1
	TypeIDR   = 5
	TypeSEI   = 6
	TypeSPS   = 7
	TypePPS   = 8
	TypeAUD   = 9

	typeSTAPA = 24
	typeFUA   = 28
)

var startCode = []byte{0, 0, 0, 1}

// Split calls f for every NAL unit of an Annex B stream, without its start code
// and trailing zeros, until f returns false.
func Split(annexB []byte, f func(nal []byte) bool) {
	i := next(annexB, 0)
	for i >= 0 {
		begin := i + 3
		end := len(annexB)
		i = next(annexB, begin)
		if i >= 0 {
			end = i
		}
		nal := bytes.TrimRight(annexB[begin:end], "\x00")
		if len(nal) > 0 && !f(nal) {
			return
		}
	}
}

// next is the index of the next 00 00 01 at or after from, -1 if there is none.
func next(b []byte, from int) int {
	if i := bytes.Index(b[from:], startCode[1:]); i >= 0 {
		return from + i
	}
	return -1
}

// IsKey says whether an access unit (Annex B) has an IDR slice.
func IsKey(annexB []byte) bool {
	key := false
	Split(annexB, func(nal []byte) bool {
		key = nal[0]&0x1f == TypeIDR
		return !key
	})
	return key
}
