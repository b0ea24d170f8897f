// Package port hands out pairs of UDP ports for RTP (even) and RTCP (the next odd
// one, RFC 3550 §11) out of a range, in random order (an attacker cannot guess the
// next one) and not again for a while after they came back, so that the late packets
// of one call are not heard in the next.
//
// A Pool is safe for concurrent use. A pair that somebody else on this machine holds
// is skipped. What a Pool gave out is open until Pair.Close.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrExhausted says that every pair of the range is in use, in quarantine or held by
// another process.
var ErrExhausted = errors.New("port: no free pair in the range")

// Options says which ports a Pool may use.
type Options struct {
	// Min and Max bound the range, both included: RTP is even, RTCP the odd port above
	// it. Both 0: the kernel's ephemeral ports, without quarantine.
	Min, Max uint16
	// Quarantine is how long a pair rests after Close.
	Quarantine time.Duration
	// Now is the clock; nil is time.Now. It must not go back.
	Now func() time.Time
}

// Validate reports the first fault.
func (o Options) Validate() error {
	switch {
	case o.Min == 0 && o.Max == 0:
	case o.Min < 1024:
		return fmt.Errorf("port: range starts at %d, below 1024", o.Min)
	case int(o.Max) < (int(o.Min)+1)&^1+1:
		return fmt.Errorf("port: range %d-%d holds no even/odd pair", o.Min, o.Max)
	}
	if o.Quarantine < 0 {
		return fmt.Errorf("port: quarantine %v is negative", o.Quarantine)
	}
	return nil
}

// Pool owns a range. Make one with NewPool.
type Pool struct {
	opt  Options
	open atomic.Int64 // pairs given out and not closed

	mu    sync.Mutex
	free  []uint16 // even ports, in random order
	rests []rest   // in order of their ends: all rest equally long
}

type rest struct {
	port  uint16
	until time.Time
}

// NewPool makes a pool; no socket is opened yet.
func NewPool(opt Options) (*Pool, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	p := &Pool{opt: opt}
	if opt.Max != 0 {
		for n := (int(opt.Min) + 1) &^ 1; n+1 <= int(opt.Max); n += 2 {
			p.free = append(p.free, uint16(n))
		}
		rand.Shuffle(len(p.free), func(i, j int) { p.free[i], p.free[j] = p.free[j], p.free[i] })
	}
	return p, nil
}

// Free is how many pairs could be tried now. In ephemeral mode it is 0: the kernel
// knows, we do not.
func (p *Pool) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
	return len(p.free)
}

// Open is how many pairs are out.
func (p *Pool) Open() int { return int(p.open.Load()) }

// wake moves pairs whose rest is over to a random place among the free ones.
func (p *Pool) wake() {
	now := p.opt.Now()
	for len(p.rests) > 0 && !p.rests[0].until.After(now) {
		p.put(p.rests[0].port)
		p.rests = p.rests[1:]
	}
}

func (p *Pool) put(port uint16) {
	p.free = append(p.free, port)
	i := rand.IntN(len(p.free))
	last := len(p.free) - 1
	p.free[i], p.free[last] = p.free[last], p.free[i]
}

func (p *Pool) take() (uint16, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
	if len(p.free) == 0 {
		return 0, false
	}
	n := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return n, true
}

// Pair is two bound, non-blocking, unconnected UDP sockets. The caller may use the
// descriptors from any thread until Close.
type Pair struct {
	RTP, RTCP int        // file descriptors
	IP        netip.Addr // bound address
	Port      uint16     // of RTP, even; RTCP is Port+1

	pool *Pool
	once sync.Once
	gone bool // the descriptors belong to the conns of Conns
}

// OpenPair binds a pair to ip, which must be a concrete address of this host.
// errors.Is(err, ErrExhausted) if there is none left.
func (p *Pool) OpenPair(ip netip.Addr) (*Pair, error) {
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() {
		return nil, fmt.Errorf("port: %v is not a concrete address", ip)
	}
	ip = ip.Unmap()
	if p.opt.Max == 0 {
		return p.ephemeral(ip)
	}
	var taken []uint16 // by others; they go back to the range when we are done looking
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, n := range taken {
			p.put(n)
		}
	}()
	for {
		n, ok := p.take()
		if !ok {
			return nil, fmt.Errorf("%w %d-%d", ErrExhausted, p.opt.Min, p.opt.Max)
		}
		pair, err := p.bind(ip, n)
		if err == nil {
			return pair, nil
		}
		taken = append(taken, n)
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, err // a wrong address fails for every port alike
		}
	}
}

// ephemeral asks the kernel for an even port whose odd neighbour is free.
func (p *Pool) ephemeral(ip netip.Addr) (*Pair, error) {
	for range 200 {
		fd, n, err := bindUDP(ip, 0)
		if err != nil {
			return nil, err
		}
		unix.Close(fd)
		if n == 65535 {
			continue
		}
		pair, err := p.bind(ip, n&^1)
		if err == nil {
			return pair, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EACCES) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w of ephemeral ports", ErrExhausted)
}

func (p *Pool) bind(ip netip.Addr, n uint16) (*Pair, error) {
	rtp, _, err := bindUDP(ip, n)
	if err != nil {
		return nil, err
	}
	rtcp, _, err := bindUDP(ip, n+1)
	if err != nil {
		unix.Close(rtp)
		return nil, err
	}
	p.open.Add(1)
	return &Pair{RTP: rtp, RTCP: rtcp, IP: ip, Port: n, pool: p}, nil
}

func bindUDP(ip netip.Addr, n uint16) (fd int, bound uint16, err error) {
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(n)}
	if ip.Is4() {
		sa.(*unix.SockaddrInet4).Addr = ip.As4()
	} else {
		family = unix.AF_INET6
		six := &unix.SockaddrInet6{Port: int(n), Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			ifi, err := net.InterfaceByName(zone)
			if err != nil {
				return -1, 0, fmt.Errorf("port: zone of %v: %w", ip, err)
			}
			six.ZoneId = uint32(ifi.Index)
		}
		sa = six
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("port: socket: %w", err)
	}
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("port: bind %v: %w", netip.AddrPortFrom(ip, n), err)
	}
	if n == 0 {
		got, err := unix.Getsockname(fd)
		if err != nil {
			unix.Close(fd)
			return -1, 0, fmt.Errorf("port: getsockname: %w", err)
		}
		switch sa := got.(type) {
		case *unix.SockaddrInet4:
			n = uint16(sa.Port)
		case *unix.SockaddrInet6:
			n = uint16(sa.Port)
		}
	}
	return fd, n, nil
}

// SetDSCP marks what the pair sends (RFC 2474; EF is 46, AF41 is 34). 0..63.
func (q *Pair) SetDSCP(dscp int) error {
	if dscp < 0 || dscp > 63 {
		return fmt.Errorf("port: DSCP %d is not in 0..63", dscp)
	}
	level, name := unix.IPPROTO_IP, unix.IP_TOS
	if q.IP.Is6() {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	for _, fd := range [2]int{q.RTP, q.RTCP} {
		if err := unix.SetsockoptInt(fd, level, name, dscp<<2); err != nil {
			return fmt.Errorf("port: DSCP %d: %w", dscp, err)
		}
	}
	return nil
}

// Conns turns the pair into net.UDPConns, which the caller must close. The pair's own
// descriptors are closed; Pair.Close is still needed afterwards to give the ports back.
func (q *Pair) Conns() (rtp, rtcp *net.UDPConn, err error) {
	q.gone = true
	rtp, err = conn(q.RTP)
	if err != nil {
		unix.Close(q.RTCP)
		return nil, nil, err
	}
	rtcp, err = conn(q.RTCP)
	if err != nil {
		rtp.Close()
		return nil, nil, err
	}
	return rtp, rtcp, nil
}

func conn(fd int) (*net.UDPConn, error) {
	f := os.NewFile(uintptr(fd), "udp")
	defer f.Close() // FilePacketConn has its own duplicate
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	return c.(*net.UDPConn), nil
}

// Close closes the sockets and lets the ports rest. It may be called again.
func (q *Pair) Close() {
	q.once.Do(func() {
		if !q.gone {
			unix.Close(q.RTP)
			unix.Close(q.RTCP)
		}
		p := q.pool
		p.open.Add(-1)
		if p.opt.Max == 0 {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.opt.Quarantine == 0 {
			p.put(q.Port)
			return
		}
		p.rests = append(p.rests, rest{q.Port, p.opt.Now().Add(p.opt.Quarantine)})
	})
}
