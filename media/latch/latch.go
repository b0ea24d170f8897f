// Package latch decides by its source whether a datagram may come in on a media socket, and
// where the answers go (IMS.md §5.5). There are three ways:
//
//	off     what signalling named, address and port
//	strict  any port of that address for 5 s, then the one that was used last
//	nat     what signalling named, or who proves to be the phone behind its NAT: from inside
//	        configured prefixes, three packets in a row of one stream. That one is kept until
//	        the phone's description changes, and what is sent goes there
//
// Nothing is ever sent to an address that signalling did not name and that has not proved
// itself so: else whoever writes another's address into a packet would have him flooded.
//
// A Gate has no clock: its owner passes the time in, counted from any fixed point. It is not
// safe for concurrent use, allocates nothing but in Set, and its zero value lets nobody in.
package latch

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// portTime is how long any port of the right address is taken (strict).
	portTime = 5 * time.Second
	// proofTime is how long after a change of the phone's description, or after it answered,
	// another source may prove itself. Later only the named one can begin.
	proofTime = 10 * time.Second
	// proofs is how many packets in a row of one stream are a proof, and stride how far their
	// sequence numbers may be apart.
	proofs, stride = 3, 16
	// preferTime is how long the named source, if it can be heard at all, displaces another
	// that was quicker.
	preferTime = 2 * time.Second
	// silentTime is how long a source has to be silent before another may take its place,
	// after a change: comfort noise comes every 160 ms.
	silentTime = 500 * time.Millisecond
	// candidates bounds who may be on the way to a proof at a time.
	candidates = 4
)

// Policy is what signalling and configuration say of one socket's peer.
type Policy struct {
	Want     netip.AddrPort
	AnyPort  bool           // strict
	Prefixes []netip.Prefix // nat, where the phone's real address may be; empty: not nat
	Own      netip.Addr     // ours: no peer's, unless it is named
	Version  uint64         // of the peer's description
	Live     bool           // the call is answered
}

// Gate is one socket's.
type Gate struct {
	p      Policy
	opened time.Duration // since when another source may prove itself
	proved bool          // and one has, or the named one was heard: no further one may

	heard bool // from at, at first and last
	first time.Duration
	last  time.Duration
	at    netip.AddrPort // strict: the port that was used last; nat: who is listened to
	host  netip.Addr     // whose ports are taken: of RTCP, the address that RTP comes from

	try  [candidates]candidate
	turn int
}

type candidate struct {
	from netip.AddrPort
	ssrc uint32
	seq  uint16
	n    int // packets in a row, 0: free
}

// Set gives the gate its policy. The same again changes nothing; another named address
// begins anew; any other change lets a source prove itself again.
func (g *Gate) Set(p Policy, now time.Duration) {
	o := &g.p
	if o.Want == p.Want && o.AnyPort == p.AnyPort && o.Version == p.Version && o.Live == p.Live && slices.Equal(o.Prefixes, p.Prefixes) {
		return
	}
	if o.Want != p.Want || o.AnyPort != p.AnyPort || (len(o.Prefixes) == 0) != (len(p.Prefixes) == 0) {
		*g = Gate{}
	}
	p.Prefixes = slices.Clone(p.Prefixes)
	g.p, g.opened, g.first, g.proved = p, now, now, false
	g.try, g.turn = [candidates]candidate{}, 0
}

// NAT says whether a source that was not named may prove itself.
func (g *Gate) NAT() bool { return len(g.p.Prefixes) > 0 }

// Follow has an RTCP gate look for the phone at an address that RTP comes from: it is behind
// the same NAT, on another port.
func (g *Gate) Follow(host netip.Addr) {
	if g.host != host {
		g.host, g.heard, g.try[0] = host, false, candidate{}
	}
}

// May says whether a datagram from there could be let in: a look at the address alone, for
// before it is parsed.
func (g *Gate) May(from netip.AddrPort) bool {
	switch {
	case from == g.p.Want || g.heard && from == g.at:
		return true
	case from.Addr() == g.host:
		return true
	case from.Addr() == g.p.Want.Addr():
		return g.p.AnyPort || g.NAT()
	}
	return g.inside(from.Addr())
}

func (g *Gate) inside(a netip.Addr) bool {
	if a == g.p.Own {
		return false
	}
	for _, p := range g.p.Prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Take says whether a valid packet that May let pass is let in. Of RTCP every packet has a
// number of its own: Control is for that.
func (g *Gate) Take(from netip.AddrPort, ssrc uint32, seq uint16, now time.Duration) bool {
	if !g.NAT() {
		return g.takePort(from, now)
	}
	if g.heard && from == g.at {
		g.last = now
		return true
	}
	if from == g.p.Want {
		if !g.heard || now-g.first < preferTime {
			g.latch(from, now)
			return true
		}
		return false
	}
	if g.proved || now-g.opened >= proofTime || g.heard && now-g.last < silentTime {
		return false
	}
	c := g.candidate(from)
	if d := seq - c.seq; c.n == 0 || c.ssrc != ssrc || d == 0 || d > stride {
		c.n = 0
	}
	c.from, c.ssrc, c.seq = from, ssrc, seq
	if c.n++; c.n < proofs {
		return false
	}
	g.latch(from, now)
	return true
}

// Control is Take for valid RTCP. It carries nothing of three in a row, and others sit behind
// the same NAT: a port that was not named is the phone's when, for longer than two reports are
// apart, no other port of the address sent any.
func (g *Gate) Control(from netip.AddrPort, now time.Duration) bool {
	switch c := &g.try[0]; {
	case !g.NAT():
		return g.takePort(from, now)
	case from == g.p.Want:
		return true
	case from.Addr() != g.host:
		return false
	case g.heard:
		return from == g.at
	case c.from != from:
		*c = candidate{from: from}
		g.first = now
		return false
	case now-g.first < portTime:
		return false
	}
	g.heard, g.at = true, from
	return true
}

// takePort is strict's rule, and off's.
func (g *Gate) takePort(from netip.AddrPort, now time.Duration) bool {
	switch {
	case !g.p.AnyPort:
		return from == g.p.Want
	case !g.heard:
		g.heard, g.first = true, now
	case now-g.first >= portTime:
		return from == g.at
	}
	g.at, g.last = from, now
	return true
}

func (g *Gate) latch(from netip.AddrPort, now time.Duration) {
	g.heard, g.proved, g.at, g.first, g.last = true, true, from, now, now
	g.try, g.turn = [candidates]candidate{}, 0
}

// candidate is the place of a source on its way: its own, a free one, or that of one that
// has come least far.
func (g *Gate) candidate(from netip.AddrPort) *candidate {
	var free *candidate
	for i := range g.try {
		c := &g.try[i]
		if c.n > 0 && c.from == from {
			return c
		}
		if c.n == 0 && free == nil {
			free = c
		}
	}
	if free != nil {
		return free
	}
	for range g.try {
		g.turn = (g.turn + 1) % candidates
		if g.try[g.turn].n == 1 {
			break
		}
	}
	g.try[g.turn] = candidate{}
	return &g.try[g.turn]
}

// To is where packets to the peer go.
func (g *Gate) To() netip.AddrPort {
	if g.heard && g.NAT() {
		return g.at
	}
	return g.p.Want
}

// Host is the address that a peer who was not named is listened to at; invalid: the named one
// is.
func (g *Gate) Host() netip.Addr {
	if g.NAT() && g.heard && g.at != g.p.Want {
		return g.at.Addr()
	}
	return netip.Addr{}
}
