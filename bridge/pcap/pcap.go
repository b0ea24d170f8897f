// Package pcap writes datagrams as a capture file that Wireshark and tcpdump read: the
// classic format (draft-ietf-opsawg-pcap), link type RAW, with IP and UDP headers made up
// around each payload.
package pcap

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"time"
)

// ContentType is what a capture file is in HTTP.
const ContentType = "application/vnd.tcpdump.pcap"

const (
	magic   = 0xa1b2c3d4 // times in microseconds
	linkRaw = 101        // a packet begins with its IP header
	snap    = 65535
)

// Writer writes one file. It is not safe for concurrent use.
type Writer struct{ w io.Writer }

// NewWriter writes the file's header.
func NewWriter(w io.Writer) (*Writer, error) {
	h := make([]byte, 24)
	le := binary.LittleEndian
	le.PutUint32(h, magic)
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], snap)
	le.PutUint32(h[20:], linkRaw)
	_, err := w.Write(h)
	return &Writer{w}, err
}

// Datagram writes a UDP datagram. The addresses must be of one family. A payload that no
// datagram can carry is cut, and the packet says how long it was.
func (w *Writer) Datagram(at time.Time, from, to netip.AddrPort, payload []byte) error {
	return w.Cut(at, from, to, payload, len(payload))
}

// Cut is Datagram for one whose payload was length octets long, of which only the first are
// there. It has no checksum, since that could not be right.
func (w *Writer) Cut(at time.Time, from, to netip.AddrPort, payload []byte, length int) error {
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	if !src.IsValid() || src.Is4() != dst.Is4() {
		return errors.New("pcap: addresses of two families")
	}
	size := 40 // of the IP header
	if src.Is4() {
		size = 20
	}
	length = max(length, len(payload))
	whole := size + 8 + length
	udpLen := uint16(min(8+length, snap-size))
	payload = payload[:min(len(payload), snap-size-8)]
	n := size + 8 + len(payload)
	b := make([]byte, 16+n)
	le, be := binary.LittleEndian, binary.BigEndian
	le.PutUint32(b, uint32(at.Unix()))
	le.PutUint32(b[4:], uint32(at.Nanosecond()/1000))
	le.PutUint32(b[8:], uint32(n))
	le.PutUint32(b[12:], uint32(whole))
	ip := b[16:]
	udp := ip[size:]
	be.PutUint16(udp, from.Port())
	be.PutUint16(udp[2:], to.Port())
	be.PutUint16(udp[4:], udpLen)
	copy(udp[8:], payload)
	pseudo := uint32(17) + uint32(udpLen)
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		ip[0] = 0x45
		be.PutUint16(ip[2:], uint16(min(whole, snap)))
		be.PutUint16(ip[6:], 0x4000) // do not fragment
		ip[8], ip[9] = 64, 17
		copy(ip[12:], s[:])
		copy(ip[16:], d[:])
		be.PutUint16(ip[10:], fold(sum(0, ip[:20])))
		pseudo = sum(pseudo, ip[12:20])
	} else {
		s, d := src.As16(), dst.As16()
		ip[0] = 0x60
		be.PutUint16(ip[4:], udpLen)
		ip[6], ip[7] = 17, 64
		copy(ip[8:], s[:])
		copy(ip[24:], d[:])
		pseudo = sum(pseudo, ip[8:40])
	}
	if int(udpLen) != 8+len(payload) {
		_, err := w.w.Write(b)
		return err
	}
	check := fold(sum(pseudo, udp[:8+len(payload)]))
	if check == 0 { // RFC 768: zero says that there is none
		check = 0xffff
	}
	be.PutUint16(udp[6:], check)
	_, err := w.w.Write(b)
	return err
}

// sum and fold are the Internet checksum (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
