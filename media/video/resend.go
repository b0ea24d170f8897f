package video

import (
	"time"
)

const (
	// cacheSlots and cacheTime bound what is kept to be sent again: half a second, and at
	// most so many packets (150 kB a leg). Half a second is what a phone's jitter buffer can
	// still use; 128 packets are that of 2 Mbit/s.
	cacheSlots = 128
	cacheTime  = 500 * time.Millisecond
	// resendGap is the least time between two copies of a packet, where the round trip is
	// shorter or unknown: a phone that asks in each report still gets it once.
	resendGap = 20 * time.Millisecond
	// resendShare is the part of the stream's rate that packets sent again may take: more
	// loss than that is not mended by more packets.
	resendShare = 4
)

// cache is what was sent lately, by sequence number, so that the packets a phone asks for
// (generic NACK, RFC 4585 §6.2.1) can be sent again as they were. Its owner passes the time
// in. It is not safe for concurrent use.
type cache struct {
	slots    [cacheSlots]sentPacket
	credit   float64 // octets that may be sent again now
	creditAt time.Time
}

type sentPacket struct {
	seq       uint16
	at, again time.Time
	b         []byte
}

// put keeps a copy of a packet.
func (c *cache) put(seq uint16, b []byte, now time.Time) {
	s := &c.slots[seq%cacheSlots]
	s.seq, s.at, s.again = seq, now, time.Time{}
	s.b = append(s.b[:0], b...)
}

// take is the packet with that number if it may be sent again now: it is not too old, was
// not sent again within a round trip, and the stream of bps bit/s has room for it. Nil: not.
// The octets are valid until the next put.
func (c *cache) take(seq uint16, now time.Time, rtt time.Duration, bps int) []byte {
	s := &c.slots[seq%cacheSlots]
	if s.seq != seq || len(s.b) == 0 || now.Sub(s.at) > cacheTime || now.Sub(s.again) < max(rtt, resendGap) {
		return nil
	}
	rate := float64(bps) / 8 / resendShare
	c.credit = min(c.credit+rate*max(0, now.Sub(c.creditAt).Seconds()), max(rate, 4*maxPacket))
	if c.creditAt.IsZero() {
		c.credit = max(rate, 4*maxPacket) // a second's worth to begin with: key frames are bursts
	}
	c.creditAt = now
	if c.credit < float64(len(s.b)) {
		return nil
	}
	c.credit -= float64(len(s.b))
	s.again = now
	return s.b
}

// maxPacket is room for the largest packet that is sent: rtp264's hard limit with a header
// and an extension.
const maxPacket = 1500
