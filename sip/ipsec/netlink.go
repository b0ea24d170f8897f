package ipsec

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Numbers of the kernel's xfrm interface (linux/xfrm.h).
const (
	msgNewSA     = 0x10
	msgNewPolicy = 0x13

	attrAuth     = 1
	attrCrypt    = 2
	attrTemplate = 5

	protoESP      = 50
	modeTransport = 0
	replayWindow  = 32
	flagRequest   = 0x1
	flagAck       = 0x4
	flagCreate    = 0x400
	forever       = ^uint64(0)
)

// message builds a netlink message in the machine's byte order, as the kernel reads it.
type message struct{ b []byte }

func (m *message) u8(v uint8)   { m.b = append(m.b, v) }
func (m *message) u16(v uint16) { m.b = binary.NativeEndian.AppendUint16(m.b, v) }
func (m *message) u32(v uint32) { m.b = binary.NativeEndian.AppendUint32(m.b, v) }
func (m *message) u64(v uint64) { m.b = binary.NativeEndian.AppendUint64(m.b, v) }
func (m *message) n16(v uint16) { m.b = binary.BigEndian.AppendUint16(m.b, v) }
func (m *message) n32(v uint32) { m.b = binary.BigEndian.AppendUint32(m.b, v) }
func (m *message) zero(n int)   { m.b = append(m.b, make([]byte, n)...) }

func (m *message) align(n int) {
	for len(m.b)%n != 0 {
		m.u8(0)
	}
}

// addr is an xfrm_address_t: 16 octets, IPv4 in the first four.
func (m *message) addr(ip netip.Addr) {
	ip = ip.Unmap()
	m.b = append(m.b, ip.AsSlice()...)
	m.zero(16 - ip.BitLen()/8)
}

func family(ip netip.Addr) uint16 {
	if ip.Unmap().Is4() {
		return 2
	}
	return 10
}

func begin(kind uint16) *message {
	m := new(message)
	m.u32(0) // length, set by end
	m.u16(kind)
	m.u16(flagRequest | flagAck | flagCreate)
	m.u32(0) // sequence, set by who sends
	m.u32(0)
	return m
}

func (m *message) end() []byte {
	m.align(4)
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	return m.b
}

// attr appends a netlink attribute.
func (m *message) attr(kind uint16, fill func(*message)) {
	m.align(4)
	at := len(m.b)
	m.u16(0)
	m.u16(kind)
	fill(m)
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// selector is an xfrm_selector: exactly these two addresses and ports, UDP and TCP alike.
func (m *message) selector(s SA) {
	m.addr(s.To.Addr())
	m.addr(s.From.Addr())
	m.n16(s.To.Port())
	m.n16(0xffff)
	m.n16(s.From.Port())
	m.n16(0xffff)
	m.u16(family(s.To.Addr()))
	bits := uint8(s.To.Addr().Unmap().BitLen())
	m.u8(bits)
	m.u8(bits)
	m.u8(0)   // any protocol
	m.zero(3) // alignment
	m.u32(0)  // any interface
	m.u32(0)
}

// lifetime is an xfrm_lifetime_cfg that ends hard after d, and an empty lifetime_cur.
func (m *message) lifetime(d time.Duration) {
	for range 4 {
		m.u64(forever) // octets and packets
	}
	m.u64(0)
	m.u64(uint64(d / time.Second))
	m.zero(16 + 32)
}

// id is an xfrm_id.
func (m *message) id(to netip.Addr, spi uint32) {
	m.addr(to)
	m.n32(spi)
	m.u8(protoESP)
	m.zero(3)
}

func (m *message) algorithm(kind uint16, name string, key []byte) {
	m.attr(kind, func(m *message) {
		m.b = append(m.b, name...)
		m.zero(64 - len(name))
		m.u32(uint32(len(key) * 8))
		m.b = append(m.b, key...)
	})
}

// NewSA is the XFRM_MSG_NEWSA for an association that ends after lifetime: 4 minutes
// until the network has said 200, then the registration's and 30 s (TS 33.203 §7.4).
func (s SA) NewSA(lifetime time.Duration) []byte {
	m := begin(msgNewSA)
	m.selector(s)
	m.id(s.To.Addr(), s.SPI)
	m.addr(s.From.Addr())
	m.lifetime(lifetime)
	m.zero(12) // statistics
	m.u32(0)   // sequence
	m.u32(s.ReqID)
	m.u16(family(s.To.Addr()))
	m.u8(modeTransport)
	m.u8(replayWindow)
	m.u8(0)
	m.zero(7)
	m.algorithm(attrAuth, keyNames[s.Alg], s.Auth)
	m.algorithm(attrCrypt, keyNames[s.EAlg], s.Enc)
	return m.end()
}

// NewPolicy is the XFRM_MSG_NEWPOLICY that lets nothing but this association's ESP pass
// between its ports.
func (s SA) NewPolicy() []byte {
	m := begin(msgNewPolicy)
	m.selector(s)
	m.lifetime(0)
	m.u32(1000) // priority
	m.u32(0)    // index: the kernel's to choose
	if s.Out {
		m.u8(1)
	} else {
		m.u8(0)
	}
	m.zero(3) // allow; no flags; shared with nobody
	m.zero(4)
	m.attr(attrTemplate, func(m *message) {
		m.id(s.To.Addr(), s.SPI)
		m.u16(family(s.To.Addr()))
		m.zero(2)
		m.addr(s.From.Addr())
		m.u32(s.ReqID)
		m.u8(modeTransport)
		m.zero(3) // not shared, not optional
		for range 3 {
			m.u32(^uint32(0)) // any algorithm: the association says which
		}
	})
	return m.end()
}
