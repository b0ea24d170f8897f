package sip

import (
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

	mu   sync.Mutex
	open int
	from map[netip.Addr]int
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
		if !l.peers.trusts(conn.RemoteAddr()) || !l.enter(addrOf(conn.RemoteAddr())) {
			l.peers.dropped.Add(1)
			conn.Close()
			continue
		}
		return &guardedConn{Conn: conn, l: l}, nil
	}
}

// guardedPackets is a UDP socket as sipgo reads it.
type guardedPackets struct {
	net.PacketConn
	again func(error) bool // after an error of ReadFrom
}

// ReadFrom implements net.PacketConn.
func (c *guardedPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err == nil || !c.again(err) {
			return n, from, err
		}
	}
}

func (l *guardedListener) enter(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= maxConns || l.from[peer] >= maxConnsPeer {
		return false
	}
	if l.from == nil {
		l.from = map[netip.Addr]int{}
	}
	l.open++
	l.from[peer]++
	return true
}

func (l *guardedListener) leave(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.from[peer]--; l.from[peer] == 0 {
		delete(l.from, peer)
	}
}

// guardedConn is a peer's connection. Its reader is one goroutine of sipgo's.
type guardedConn struct {
	net.Conn
	l      *guardedListener
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
		wait = time.Now().Add(c.l.patience.first)
	}
	if begun := c.l.screen.begun(c.Conn); !begun.IsZero() {
		wait = begun.Add(c.l.patience.message)
	}
	if err := c.Conn.SetReadDeadline(wait); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	c.spoke = c.spoke || n > 0
	return n, err
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	c.closed.Do(func() {
		c.l.leave(addrOf(c.RemoteAddr()))
		c.l.screen.forget(c.Conn)
	})
	return c.Conn.Close()
}
