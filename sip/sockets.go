package sip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo"
	sip "github.com/emiago/sipgo/sip"
	"golang.org/x/sys/unix"
)

// socket is where an attachment listens for one transport.
type socket struct {
	io.Closer
	port int
	udp  net.PacketConn // nil for streams
}

// Listening is one socket of an attachment.
type Listening struct {
	Transport string // udp | tcp | tls
	Port      int    // 0: any free one, the same for all
}

// Listens are the sockets that an attachment opens on its local address, its own transport
// first: those of its targets too, and where the DNS chooses, whatever it may choose. UDP and
// TCP have the same number; TLS beside one of them has the next (RFC 3261 19.1.2: 5060 and 5061).
// Where a security agreement begins in clear, TLS has LocalPort, and clear the one before.
func (o AttachmentOptions) Listens() []Listening {
	out := []Listening{{o.Transport, o.LocalPort}}
	if o.Clear != "" {
		return append(out, Listening{o.Clear, max(o.LocalPort-1, 0)})
	}
	add := func(t string) {
		if t == "" || slices.ContainsFunc(out, func(l Listening) bool { return l.Transport == t }) {
			return
		}
		port := o.LocalPort
		if t == "tls" && port != 0 {
			port++
		}
		out = append(out, Listening{t, port})
	}
	for _, t := range o.Peers {
		add(t.Transport)
		if _, port := t.hostPort(); port == "" && t.Transport == "" && o.Mode != ModeUE && o.Transport != "tls" {
			add("tcp")
			add("udp")
		}
	}
	return out
}

// open binds the ports and starts sipgo's layers on them.
func (a *attachment) open() error {
	quiet := slog.New(slog.DiscardHandler) // sipgo logs whole messages, numbers and all
	client, server, err := a.tlsConfigs()
	if err != nil {
		return err
	}
	stream := func() *sip.TransportTCP {
		return &sip.TransportTCP{
			ReadTimeout: 300 * time.Second, WriteTimeout: 10 * time.Second,
			DialerCreate: func(laddr net.Addr) net.Dialer {
				return net.Dialer{Timeout: 4 * time.Second, LocalAddr: laddr, Control: a.mark}
			},
		}
	}
	stack, err := sipgo.NewUA(
		sipgo.WithUserAgent(a.ua.o.UserAgent),
		sipgo.WithUserAgenTLSConfig(client),
		sipgo.WithUserAgentTransportLayerOptions(
			sip.WithTransportLayerLogger(quiet),
			sip.WithTransportLayerReadFilter(a.screen.filter),
			sip.WithTransportLayerTransports(sip.TransportsConfig{TCP: stream(), TLS: &sip.TransportTLS{TransportTCP: stream()}}),
		),
		sipgo.WithUserAgentTransactionLayerOptions(
			sip.WithTransactionLayerLogger(quiet),
			sip.WithTransactionLayerUnhandledResponseHandler(a.onStray),
		))
	if err != nil {
		return err
	}
	a.stack = stack
	stack.TransactionLayer().OnRequest(a.onRequest)
	if a.client, err = sipgo.NewClient(stack, sipgo.WithClientLogger(quiet)); err != nil {
		return err
	}
	if err := a.bind(); err != nil {
		a.shut()
		return err
	}
	a.port = a.sockets[a.o.Transport].port
	for transport, s := range a.sockets {
		if s.udp != nil {
			a.readUDP(s.udp)
			if err := a.awaitUDP(s.udp.LocalAddr().String()); err != nil {
				a.shut()
				return err
			}
			continue
		}
		guarded := &guardedListener{Listener: s.Closer.(net.Listener), peers: a.peers, screen: a.screen, patience: defaultPatience, again: a.retry(transport)}
		a.wg.Go(a.lasting(func() {
			if transport == "tls" {
				_ = stack.TransportLayer().ServeTLS(&tlsListener{guarded, server}) // it ends when it is closed
				return
			}
			_ = stack.TransportLayer().ServeTCP(guarded)
		}))
	}
	return nil
}

// retry says what is to be done about an error of a socket that is being listened on: wait and
// try again, unless it was closed. sipgo would stop to listen, and say nothing.
func (a *attachment) retry(transport string) func(err error) bool {
	var said time.Time
	return func(err error) bool {
		if errors.Is(err, net.ErrClosed) || a.ctx.Err() != nil {
			return false
		}
		if now := time.Now(); now.Sub(said) > 10*time.Second { // the reader's goroutine alone comes here
			a.log.Error("listening", "transport", transport, "err", err)
			said = now
		}
		select {
		case <-time.After(againAfter):
			return true
		case <-a.ctx.Done():
			return false
		}
	}
}

// againAfter is how long a socket that fails, for want of descriptors say, is left alone.
const againAfter = 50 * time.Millisecond

// readUDP has sipgo read a socket until it is closed. begun is closed once it does.
func (a *attachment) readUDP(c net.PacketConn) (begun <-chan struct{}) {
	reads := make(chan struct{})
	begin := sync.OnceFunc(func() { close(reads) })
	a.wg.Go(a.lasting(func() {
		_ = a.stack.TransportLayer().ServeUDP(&guardedPackets{PacketConn: c, peers: a.peers, again: a.retry("udp"), begin: begin, renew: func() {
			<-a.readUDP(c) // from here on what comes is that one's, and what leaves
			select {
			case <-time.After(strayTime): // for those who are just looking for the way back
			case <-a.ctx.Done():
			}
		}})
	}))
	return reads
}

// bind opens all sockets, or none. Any free port must be free for all of them.
func (a *attachment) bind() error {
	o, err := a.o, error(nil)
	for range 20 {
		o.LocalPort = a.o.LocalPort
		for i := range a.o.Listens() {
			l := o.Listens()[i]
			var s socket
			if s, err = a.listen(l.Transport, l.Port); err != nil {
				break
			}
			a.sockets[l.Transport] = s
			if o.LocalPort == 0 {
				o.LocalPort = s.port
			}
		}
		if err == nil {
			return nil
		}
		for t, s := range a.sockets {
			s.Close()
			delete(a.sockets, t)
		}
		if a.o.LocalPort != 0 || len(o.Listens()) == 1 {
			return err
		}
	}
	return err
}

func (a *attachment) listen(transport string, port int) (socket, error) {
	addr := net.JoinHostPort(a.host, strconv.Itoa(port))
	lc := net.ListenConfig{Control: a.mark}
	if transport == "udp" {
		c, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			return socket{}, bindError(addr, err)
		}
		return socket{c, c.LocalAddr().(*net.UDPAddr).Port, c}, nil
	}
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return socket{}, bindError(addr, err)
	}
	return socket{l, l.Addr().(*net.TCPAddr).Port, nil}, nil
}

// deadAfter is how long TCP repeats what nobody acknowledges (RFC 5482); the system's own patience
// is a quarter of an hour, and everything that is written to the connection meanwhile is lost.
const deadAfter = 10 * time.Second

// mark sets the DSCP and the patience of a socket, and of connections it accepts.
func (a *attachment) mark(network, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		if strings.HasPrefix(network, "tcp") {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter/time.Millisecond))
		}
		if err != nil || a.o.DSCP == 0 {
			return
		}
		if network == "udp6" || network == "tcp6" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, a.o.DSCP<<2)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, a.o.DSCP<<2)
	})
	return errors.Join(ctl, err)
}

// reply sends an answer that has no transaction back to where a request came from.
func (a *attachment) reply(network string, to net.Addr, b []byte) error {
	network = sip.NetworkToLower(network)
	if s := a.sockets[network]; s.udp != nil {
		_, err := s.udp.WriteTo(b, to)
		return err
	}
	c, err := a.stack.TransportLayer().GetConnection(network, to.String())
	if err != nil {
		return err
	}
	defer func() { _, _ = c.TryClose() }()
	w, ok := c.(io.Writer)
	if !ok {
		return errors.New("connection cannot be written to")
	}
	_, err = w.Write(b)
	return err
}

// awaitUDP waits until sipgo knows its listener: a request sent before would open a
// second socket on the same port and fail.
func (a *attachment) awaitUDP(addr string) error {
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	for {
		if c, err := a.stack.TransportLayer().GetConnection("udp", addr); err == nil {
			_, _ = c.TryClose()
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline.C:
			return errors.New("UDP listener did not start")
		}
	}
}

func bindError(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: port in use", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: no such address on this machine", addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: not allowed to bind", addr)
	}
	return fmt.Errorf("%s: %w", addr, err)
}
