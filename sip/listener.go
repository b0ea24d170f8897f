package sip

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// How many connections peers may have open to one attachment at once: each costs a
// goroutine and 32 KiB.
const (
	maxConns     = 1024
	maxConnsPeer = 256 // from one address
)

// patienceTCP is how long a peer's connection may say nothing.
type patienceTCP struct {
	first   time.Duration // after it was opened
	message time.Duration // from the first octet of a message to its last
	idle    time.Duration // between messages; a keep-alive is one
}

var defaultPatience = patienceTCP{first: 30 * time.Second, message: 5 * time.Second, idle: 300 * time.Second}

// guardedListener closes connections of strangers at once, and those above the limits. On
// those it lets in, who is too slow is given up.
type guardedListener struct {
	net.Listener
	peers    *peers
	screen   *screen
	patience patienceTCP
	again    func(error) bool // after an error of Accept
	open     heads            // connections
}

func (l *guardedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if l.again(err) {
				continue
			}
			return nil, err
		}
		if !l.peers.trusts(conn.RemoteAddr()) || !l.open.enter(addrOf(conn.RemoteAddr()), maxConns, maxConnsPeer) {
			l.peers.dropped.Add(1)
			conn.Close()
			continue
		}
		return &guardedConn{Conn: conn, l: l, opened: time.Now()}, nil
	}
}

// maxSources bounds what one reader of a UDP socket keeps: sipgo remembers every address and
// port that it ever heard, until its reader ends. So after so many another one takes its place.
const maxSources = 4096

// guardedPackets is a UDP socket as one reader of sipgo's sees it.
type guardedPackets struct {
	net.PacketConn
	peers *peers
	again func(error) bool // after an error of ReadFrom
	begin func()           // it reads: sipgo sends from the socket now
	renew func()           // has another reader take over; nothing is read here any more

	last    netip.AddrPort
	sources int // at least as many as there were different ones
}

// ReadFrom implements net.PacketConn.
func (c *guardedPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	c.begin()
	if c.sources >= maxSources {
		c.renew()
		return 0, nil, net.ErrClosed
	}
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil && c.again(err) {
			continue
		}
		if u, ok := from.(*net.UDPAddr); ok && err == nil {
			if is := u.AddrPort(); is != c.last && c.peers.has(is.Addr().Unmap().WithZone("")) {
				c.last, c.sources = is, c.sources+1
			}
		}
		return n, from, err
	}
}

// tlsListener is a guarded listener whose peers speak TLS.
type tlsListener struct {
	*guardedListener
	config *tls.Config
}

// Accept implements net.Listener.
func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.guardedListener.Accept()
	if err != nil {
		return nil, err
	}
	g := c.(*guardedConn)
	g.sealed = true
	return &tlsConn{tls.Server(g, l.config), g}, nil
}

// tlsConn is a guarded connection within TLS: a peer speaks once something comes through, and
// the handshake is part of the time that he has until then.
type tlsConn struct {
	*tls.Conn
	g *guardedConn
}

// Read implements net.Conn.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.spoke = c.g.spoke || n > 0
	return n, err
}

// guardedConn is a peer's connection. Its reader is one goroutine of sipgo's.
type guardedConn struct {
	net.Conn
	l      *guardedListener
	opened time.Time
	sealed bool // TLS is spoken on it, see tlsConn
	spoke  bool // the reader's
	closed sync.Once
}

// SetReadDeadline does nothing: Read knows better how long to wait.
func (c *guardedConn) SetReadDeadline(time.Time) error { return nil }

// Read implements net.Conn. A message that has begun must be whole in time, however its
// octets trickle in; without one the connection may idle.
func (c *guardedConn) Read(b []byte) (int, error) {
	wait := time.Now().Add(c.l.patience.idle)
	if !c.spoke {
		wait = c.opened.Add(c.l.patience.first)
	}
	if begun := c.l.screen.begun(c.Conn); !begun.IsZero() {
		wait = begun.Add(c.l.patience.message)
	}
	if err := c.Conn.SetReadDeadline(wait); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	c.spoke = c.spoke || n > 0 && !c.sealed
	return n, err
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	c.closed.Do(func() {
		c.l.open.leave(addrOf(c.RemoteAddr()))
		c.l.screen.forget(c.Conn)
	})
	return c.Conn.Close()
}
