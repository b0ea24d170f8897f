// Package rtp is the part of RTP and RTCP (RFC 3550) that runs per packet: a strict
// header parser, receiver statistics, and reports, without allocations. Rarer feedback
// is pion/rtcp's.
package rtp

import (
	"encoding/binary"
	"errors"
)

// Why a packet is dropped.
var (
	ErrShort   = errors.New("rtp: shorter than its header says")
	ErrVersion = errors.New("rtp: not version 2")
	ErrPadding = errors.New("rtp: padding is longer than the packet")
	ErrRTCP    = errors.New("rtp: RTCP on the RTP port")
)

// HeaderSize without CSRCs and extension.
const HeaderSize = 12

// Packet is a parsed packet; its slices are of the datagram.
type Packet struct {
	Marker     bool
	Type       uint8
	Seq        uint16
	Timestamp  uint32
	SSRC       uint32
	ExtProfile uint16 // 0xBEDE: one-byte header extensions (RFC 8285)
	Extension  []byte
	Payload    []byte
}

// Parse reads a datagram (RFC 3550 §5.1). Every length is checked before it is used.
func (p *Packet) Parse(b []byte) error {
	if len(b) < HeaderSize {
		return ErrShort
	}
	if b[0]>>6 != 2 {
		return ErrVersion
	}
	if b[1] >= 192 && b[1] <= 223 { // RFC 5761 §4
		return ErrRTCP
	}
	p.Marker, p.Type = b[1]&0x80 != 0, b[1]&0x7f
	p.Seq = binary.BigEndian.Uint16(b[2:])
	p.Timestamp = binary.BigEndian.Uint32(b[4:])
	p.SSRC = binary.BigEndian.Uint32(b[8:])
	p.ExtProfile, p.Extension = 0, nil
	at := HeaderSize + 4*int(b[0]&0x0f)
	if at > len(b) {
		return ErrShort
	}
	if b[0]&0x10 != 0 {
		if at+4 > len(b) {
			return ErrShort
		}
		n := 4 * int(binary.BigEndian.Uint16(b[at+2:]))
		if at+4+n > len(b) {
			return ErrShort
		}
		p.ExtProfile, p.Extension = binary.BigEndian.Uint16(b[at:]), b[at+4:at+4+n]
		at += 4 + n
	}
	end := len(b)
	if b[0]&0x20 != 0 {
		pad := int(b[end-1])
		if pad == 0 || pad > end-at {
			return ErrPadding
		}
		end -= pad
	}
	p.Payload = b[at:end]
	return nil
}

// PutHeader writes a header without CSRCs and extension into b (at least HeaderSize).
func PutHeader(b []byte, marker bool, pt uint8, seq uint16, ts, ssrc uint32) {
	b[0], b[1] = 0x80, pt&0x7f
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
}
