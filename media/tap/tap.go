// Package tap copies the packets of one leg for a capture file, without ever holding up who
// sends and receives them.
package tap

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// maxKept octets of a datagram: what Ethernet carries.
const maxKept = 1500

// Packet is one RTP or RTCP datagram.
type Packet struct {
	At            time.Time
	Sent, RTCP    bool
	Local, Remote netip.AddrPort
	Len           int // of the datagram
	n             int
	data          [maxKept]byte
}

// Data is what was kept of it.
func (p *Packet) Data() []byte { return p.data[:p.n] }

// Tap is where packets go. A nil Tap takes none.
type Tap struct {
	// C has the packets. When nobody takes them, new ones are dropped and counted.
	C       chan Packet // cap 512
	payload bool
	lost    atomic.Uint64
}

// New makes a tap that keeps of RTP no more than the headers, or with payload all. RTCP is
// kept whole.
func New(payload bool) *Tap { return &Tap{C: make(chan Packet, 512), payload: payload} }

// Lost is how many packets were dropped.
func (t *Tap) Lost() uint64 { return t.lost.Load() }

// Put copies a datagram. It does not block or allocate.
func (t *Tap) Put(sent, rtcp bool, local, remote netip.AddrPort, b []byte) {
	if t == nil {
		return
	}
	if len(t.C) == cap(t.C) { // before copying: a reader that is stuck must cost nothing
		t.lost.Add(1)
		return
	}
	p := Packet{At: time.Now(), Sent: sent, RTCP: rtcp, Local: local, Remote: remote, Len: len(b)}
	if !rtcp && !t.payload {
		b = b[:header(b)]
	}
	p.n = copy(p.data[:], b)
	select {
	case t.C <- p:
	default:
		t.lost.Add(1)
	}
}

// header is how long the RTP header of a datagram is, CSRCs and extension included, or as
// much of it as is there (RFC 3550 §5.1, §5.3.1).
func header(b []byte) int {
	if len(b) < 12 {
		return len(b)
	}
	n := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 && n+4 <= len(b) {
		n += 4 + 4*(int(b[n+2])<<8|int(b[n+3]))
	}
	return min(n, len(b))
}
