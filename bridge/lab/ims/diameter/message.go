// Package diameter is as much of the Diameter base protocol (RFC 6733) as a home
// subscriber server of the lab needs: messages to and from bytes. It holds no state.
package diameter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxMessage is the largest message read: Cx documents are some kB.
const MaxMessage = 1 << 16

// Flags of a message (RFC 6733 §3).
const (
	Request   = 0x80
	Proxiable = 0x40
	Error     = 0x20
)

const (
	headerSize = 20
	vendorFlag = 0x80 // of an AVP
	mandatory  = 0x40
)

// ErrMessage is wrapped by every error of a malformed message.
var ErrMessage = errors.New("diameter: malformed")

// Message is one request or answer.
type Message struct {
	Flags    byte
	Command  uint32 // 24 bits
	App      uint32 // Application-Id
	HopByHop uint32
	EndToEnd uint32
	AVPs     AVPs
}

// AVP is an attribute with its value. All of the lab's are mandatory.
type AVP struct {
	Code   uint32
	Vendor uint32 // 0: the base protocol's
	Data   []byte
}

// AVPs is a list of them, in order: a message's, or a grouped AVP's.
type AVPs []AVP

// Bytes is an AVP's value as text or octets.
func Bytes[T string | []byte](code, vendor uint32, v T) AVP { return AVP{code, vendor, []byte(v)} }

// Uint32 is an AVP of type Unsigned32 or Enumerated.
func Uint32(code, vendor, v uint32) AVP {
	return AVP{code, vendor, binary.BigEndian.AppendUint32(nil, v)}
}

// Group is a grouped AVP.
func Group(code, vendor uint32, inner ...AVP) AVP { return AVP{code, vendor, AVPs(inner).append(nil)} }

// Find is the first AVP of a code, nil if there is none.
func (l AVPs) Find(code, vendor uint32) *AVP {
	for i := range l {
		if l[i].Code == code && l[i].Vendor == vendor {
			return &l[i]
		}
	}
	return nil
}

// Text is the value of the first AVP of a code, "" if there is none.
func (l AVPs) Text(code, vendor uint32) string {
	if a := l.Find(code, vendor); a != nil {
		return string(a.Data)
	}
	return ""
}

// Number is the Unsigned32 of the first AVP of a code.
func (l AVPs) Number(code, vendor uint32) (uint32, bool) {
	if a := l.Find(code, vendor); a != nil && len(a.Data) == 4 {
		return binary.BigEndian.Uint32(a.Data), true
	}
	return 0, false
}

// Inner are the AVPs of the first grouped AVP of a code; none if it is not there or no
// group.
func (l AVPs) Inner(code, vendor uint32) AVPs {
	a := l.Find(code, vendor)
	if a == nil {
		return nil
	}
	inner, err := parseAVPs(a.Data)
	if err != nil {
		return nil
	}
	return inner
}

// IsRequest says whether an answer is due.
func (m *Message) IsRequest() bool { return m.Flags&Request != 0 }

// Answer begins the answer to a request: the same command and ids, the session's id
// first (RFC 6733 §6.2).
func (m *Message) Answer() *Message {
	a := &Message{Flags: m.Flags & Proxiable, Command: m.Command, App: m.App, HopByHop: m.HopByHop, EndToEnd: m.EndToEnd}
	if s := m.AVPs.Find(SessionID, 0); s != nil {
		a.AVPs = append(a.AVPs, *s)
	}
	return a
}

// Bytes is the message on the wire.
func (m *Message) Bytes() []byte {
	b := make([]byte, headerSize, 512)
	b = m.AVPs.append(b)
	binary.BigEndian.PutUint32(b, 1<<24|uint32(len(b))) // version 1
	binary.BigEndian.PutUint32(b[4:], uint32(m.Flags)<<24|m.Command&0xffffff)
	binary.BigEndian.PutUint32(b[8:], m.App)
	binary.BigEndian.PutUint32(b[12:], m.HopByHop)
	binary.BigEndian.PutUint32(b[16:], m.EndToEnd)
	return b
}

func (l AVPs) append(b []byte) []byte {
	for _, a := range l {
		n, flags := 8+len(a.Data), uint32(mandatory)
		if a.Vendor != 0 {
			n, flags = n+4, flags|vendorFlag
		}
		b = binary.BigEndian.AppendUint32(b, a.Code)
		b = binary.BigEndian.AppendUint32(b, flags<<24|uint32(n))
		if a.Vendor != 0 {
			b = binary.BigEndian.AppendUint32(b, a.Vendor)
		}
		b = append(b, a.Data...)
		for ; n%4 != 0; n++ { // the padding is outside the AVP's length
			b = append(b, 0)
		}
	}
	return b
}

// Parse reads one message that fills b. The AVPs' data are parts of b.
func Parse(b []byte) (*Message, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes are no header", ErrMessage, len(b))
	}
	if b[0] != 1 {
		return nil, fmt.Errorf("%w: version %d", ErrMessage, b[0])
	}
	if n := binary.BigEndian.Uint32(b) & 0xffffff; int(n) != len(b) {
		return nil, fmt.Errorf("%w: length %d in %d bytes", ErrMessage, n, len(b))
	}
	avps, err := parseAVPs(b[headerSize:])
	if err != nil {
		return nil, err
	}
	return &Message{
		Flags: b[4], Command: binary.BigEndian.Uint32(b[4:]) & 0xffffff, App: binary.BigEndian.Uint32(b[8:]),
		HopByHop: binary.BigEndian.Uint32(b[12:]), EndToEnd: binary.BigEndian.Uint32(b[16:]), AVPs: avps,
	}, nil
}

func parseAVPs(b []byte) (AVPs, error) {
	var l AVPs
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, fmt.Errorf("%w: %d bytes are no AVP", ErrMessage, len(b))
		}
		a, head := AVP{Code: binary.BigEndian.Uint32(b)}, 8
		n := int(binary.BigEndian.Uint32(b[4:]) & 0xffffff)
		if b[4]&vendorFlag != 0 {
			head = 12
		}
		if n < head || n > len(b) {
			return nil, fmt.Errorf("%w: AVP %d has length %d of %d", ErrMessage, a.Code, n, len(b))
		}
		if head == 12 {
			a.Vendor = binary.BigEndian.Uint32(b[8:])
		}
		a.Data = b[head:n:n]
		l = append(l, a)
		b = b[min((n+3)&^3, len(b)):] // the last one's padding may be missing
	}
	return l, nil
}

// Read reads the next message of a connection.
func Read(r io.Reader) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:]) & 0xffffff
	if head[0] != 1 || n < headerSize || n > MaxMessage {
		return nil, fmt.Errorf("%w: version %d, length %d", ErrMessage, head[0], n)
	}
	b := make([]byte, n)
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return nil, err
	}
	return Parse(b)
}
