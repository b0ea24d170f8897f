package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("endpoint is closed")

// ErrTransport ends a client transaction whose message could not be sent.
var ErrTransport = errors.New("transport failed")

// ErrTimeout ends a client transaction that nobody answered (timers B and F).
var ErrTimeout = errors.New("no response")

// Options of an Endpoint. The callbacks run on the endpoint's loop, one at a time.
type Options struct {
	Addr string // host:port for TCP and UDP; port 0 picks one free in both. "" is 127.0.0.1:0
	Log  *slog.Logger
	T1   time.Duration // RFC 3261 timer T1; 0 is 500 ms

	// Accept sees every message before anything else does; false drops it in silence.
	Accept func(*Message, Target) bool
	// Request gets each new request except ACK and CANCEL.
	Request func(*ServerTx)
	// Ack gets each ACK that belongs to a 2xx.
	Ack func(*Message, Target)
	// Stray gets responses without a transaction: a 2xx that came too late.
	Stray func(*Message)
	// Trace sees everything sent and received.
	Trace func(sent bool, t Target, m *Message)
}

// Target is where a message goes or came from. A TCP target with a live connection
// uses that, else one to Addr, dialled if need be.
type Target struct {
	Proto string // UDP or TCP
	Addr  netip.AddrPort
	conn  *conn
}

// Alive says whether the TCP connection that a message came on is still up. It is
// false for UDP.
func (t Target) Alive() bool { return t.conn != nil && !t.conn.closed() }

// Same says whether both are one flow: one TCP connection, or one UDP address.
func (t Target) Same(o Target) bool {
	if t.Proto != o.Proto {
		return false
	}
	if t.conn != nil || o.conn != nil {
		return t.conn == o.conn
	}
	return t.Addr == o.Addr
}

// Endpoint is one SIP socket pair, UDP and TCP on one port, with its transactions.
// All state belongs to the goroutine in run; others post functions to it.
type Endpoint struct {
	o     Options
	log   *slog.Logger
	addr  netip.AddrPort
	udp   *net.UDPConn
	tcp   *net.TCPListener
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	inbox chan func() // cap 256: a burst of calls; full makes readers wait, so the kernel's buffers fill

	// Loop's own.
	servers map[string]*ServerTx
	clients map[string]*ClientTx
	conns   map[netip.AddrPort]*conn
}

// Listen opens the sockets and starts the loop.
func Listen(o Options) (*Endpoint, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.T1 == 0 {
		o.T1 = 500 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Endpoint{
		o: o, log: o.Log, inbox: make(chan func(), 256),
		servers: map[string]*ServerTx{}, clients: map[string]*ClientTx{}, conns: map[netip.AddrPort]*conn{},
	}
	if err := e.open(); err != nil {
		return nil, err
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	for _, f := range []func(){e.run, e.readUDP, e.accept} {
		e.wg.Go(f)
	}
	return e, nil
}

// open binds TCP first and UDP to the same port. With port 0 another process may hold
// the UDP side of what TCP got, so it tries a few times.
func (e *Endpoint) open() error {
	want, err := netip.ParseAddrPort(e.o.Addr)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", e.o.Addr, err)
	}
	for try := 0; ; try++ {
		e.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(want))
		if err != nil {
			return err
		}
		got := e.tcp.Addr().(*net.TCPAddr).AddrPort()
		e.addr = netip.AddrPortFrom(got.Addr().Unmap(), got.Port())
		e.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(e.addr))
		if err == nil {
			_ = e.udp.SetReadBuffer(4 << 20) // a burst of 3 kB INVITEs; less is only slower
			return nil
		}
		e.tcp.Close()
		if want.Port() != 0 || try == 20 {
			return err
		}
	}
}

// Addr is the address of both sockets.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Close ends the loop, the sockets and all connections, and waits for them. What was
// under way gets no callback any more.
func (e *Endpoint) Close() {
	e.stop()
	e.tcp.Close()
	e.udp.Close()
	e.wg.Wait()
}

func (e *Endpoint) run() {
	defer func() {
		for _, c := range e.conns {
			c.close()
		}
	}()
	for {
		select {
		case f := <-e.inbox:
			f()
		case <-e.ctx.Done():
			return
		}
	}
}

// Post has f run on the loop. It waits while the loop's inbox is full; after Close it
// does nothing. The loop itself must not call it.
func (e *Endpoint) Post(f func()) bool {
	select {
	case e.inbox <- f:
		return true
	case <-e.ctx.Done():
		return false
	}
}

// Do runs f on the loop and waits for it.
func (e *Endpoint) Do(f func()) error {
	done := make(chan struct{})
	if !e.Post(func() { defer close(done); f() }) {
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-e.ctx.Done():
		return ErrClosed
	}
}

// Timer is a pending After.
type Timer struct {
	t    *time.Timer
	dead bool // loop's own: stopped, though its function may be in the inbox already
}

// After has f run on the loop in d. Only the loop may call it and Stop.
func (e *Endpoint) After(d time.Duration, f func()) *Timer {
	t := &Timer{}
	t.t = time.AfterFunc(d, func() {
		e.Post(func() {
			if !t.dead {
				t.dead = true
				f()
			}
		})
	})
	return t
}

// Stop prevents the function from running. A nil Timer may be stopped.
func (t *Timer) Stop() {
	if t != nil {
		t.dead = true
		t.t.Stop()
	}
}

// CloseConns breaks all TCP connections, as a failing core would.
func (e *Endpoint) CloseConns() error {
	return e.Do(func() {
		for a, c := range e.conns {
			c.close()
			delete(e.conns, a)
		}
	})
}

// Via is a new Via value of this endpoint.
func (e *Endpoint) Via(proto, branch string) string {
	return "SIP/2.0/" + proto + " " + e.addr.String() + ";branch=" + branch + ";rport"
}

// URI is this endpoint as a sip: URI.
func (e *Endpoint) URI(user, params string) string {
	if user != "" {
		user += "@"
	}
	return "sip:" + user + e.addr.String() + params
}

// Send sends one message outside transactions (an ACK). Only the loop may call it.
func (e *Endpoint) Send(m *Message, to Target) error {
	if e.o.Trace != nil {
		e.o.Trace(true, to, m)
	}
	return e.sendBytes(m.Bytes(), to)
}

func (e *Endpoint) sendBytes(b []byte, to Target) error {
	if to.Proto == "TCP" {
		c := to.conn
		if c == nil || c.closed() {
			c = e.conns[to.Addr]
		}
		if c == nil || c.closed() {
			c = e.dial(to.Addr)
		}
		return c.send(b)
	}
	if to.Proto != "UDP" {
		return fmt.Errorf("%w: protocol %q", ErrTransport, to.Proto)
	}
	if _, err := e.udp.WriteToUDPAddrPort(b, to.Addr); err != nil {
		return fmt.Errorf("%w: %w", ErrTransport, err)
	}
	return nil
}

func (e *Endpoint) readUDP() {
	buf := make([]byte, MaxMessage+1)
	for {
		n, from, err := e.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // ICMP of an earlier send
		}
		if n < 5 || len(strings.TrimSpace(string(buf[:n]))) == 0 {
			continue // keep-alive
		}
		m, err := Parse(buf[:n])
		if err != nil {
			e.log.Debug("datagram dropped", "from", from, "err", err)
			continue
		}
		to := Target{Proto: "UDP", Addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
		e.Post(func() { e.receive(m, to) })
	}
}

// conn is one TCP connection: a reader and a writer. The writer dials first when the
// connection is ours.
type conn struct {
	e      *Endpoint
	remote netip.AddrPort
	out    chan []byte // cap 512 messages; full means the peer does not read: the connection ends
	ctx    context.Context
	stop   context.CancelFunc
}

func (e *Endpoint) newConn(remote netip.AddrPort) *conn {
	c := &conn{e: e, remote: remote, out: make(chan []byte, 512)}
	c.ctx, c.stop = context.WithCancel(e.ctx)
	return c
}

func (c *conn) close()       { c.stop() }
func (c *conn) closed() bool { return c.ctx.Err() != nil }

func (c *conn) send(b []byte) error {
	select {
	case c.out <- b:
		return nil
	default:
		c.close()
		return fmt.Errorf("%w: %v does not read", ErrTransport, c.remote)
	}
}

func (e *Endpoint) accept() {
	for {
		s, err := e.tcp.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		ap := s.RemoteAddr().(*net.TCPAddr).AddrPort()
		c := e.newConn(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		if !e.Post(func() { e.conns[c.remote] = c }) {
			s.Close()
			return
		}
		e.wg.Go(func() { c.serve(s) })
	}
}

// dial makes a connection whose messages wait until it is up.
func (e *Endpoint) dial(to netip.AddrPort) *conn {
	c := e.newConn(to)
	e.conns[to] = c
	e.wg.Go(func() {
		d := net.Dialer{Timeout: 3 * time.Second}
		s, err := d.DialContext(c.ctx, "tcp", to.String())
		if err != nil {
			c.close()
			e.Post(func() { e.lost(c) })
			return
		}
		c.serve(s)
	})
	return c
}

// serve runs both directions until one of them or the endpoint ends.
func (c *conn) serve(s net.Conn) {
	c.e.wg.Go(func() {
		defer s.Close() // wakes the reader
		for {
			select {
			case b := <-c.out:
				_ = s.SetWriteDeadline(time.Now().Add(3 * time.Second))
				if _, err := s.Write(b); err != nil {
					c.close()
					return
				}
			case <-c.ctx.Done():
				return
			}
		}
	})
	r := bufio.NewReaderSize(s, 8192)
	for {
		m, err := ReadMessage(r, func() { _ = c.send([]byte("\r\n")) })
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				c.e.log.Debug("connection ends", "peer", c.remote, "err", err)
			}
			break
		}
		c.e.Post(func() { c.e.receive(m, Target{Proto: "TCP", Addr: c.remote, conn: c}) })
	}
	c.close()
	c.e.Post(func() { c.e.lost(c) })
}

// lost forgets a connection and fails the requests that wait on it.
func (e *Endpoint) lost(c *conn) {
	if e.conns[c.remote] == c {
		delete(e.conns, c.remote)
	}
	for _, t := range e.clients {
		if t.to.Proto == "TCP" && t.to.Addr == c.remote && t.state < completed && (t.to.conn == nil || t.to.conn == c) {
			t.end(fmt.Errorf("%w: connection to %v lost", ErrTransport, c.remote))
		}
	}
}

// ReadMessage reads one message of a stream. ping is called for each double CRLF
// keep-alive (RFC 5626 §4.4.1); it may be nil.
func ReadMessage(r *bufio.Reader, ping func()) (*Message, error) {
	var head []byte
	empty, length := 0, -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err // also a line above the buffer's size
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" && len(head) == 0 {
			if empty++; empty%2 == 0 && ping != nil {
				ping()
			}
			continue
		}
		if len(head)+len(line) > MaxMessage {
			return nil, fmt.Errorf("%w: headers too long", ErrMessage)
		}
		head = append(head, line...)
		if text == "" {
			break
		}
		if name, v, ok := strings.Cut(text, ":"); ok {
			if n := strings.TrimSpace(name); strings.EqualFold(n, "Content-Length") || strings.EqualFold(n, "l") {
				if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil || length < 0 {
					return nil, fmt.Errorf("%w: %q", ErrMessage, text)
				}
			}
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("%w: no Content-Length on a stream", ErrMessage)
	}
	if len(head)+length > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes of body", ErrMessage, length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return Parse(append(head, body...))
}
