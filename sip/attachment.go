package sip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emiago/sipgo"
	sip "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/register"
)

// attachment is one connection to a carrier: its sockets, its state, its calls. It has
// a sipgo.UserAgent of its own, since connections in there are known by their remote
// address only.
type attachment struct {
	ua      *UA
	o       AttachmentOptions
	log     *slog.Logger
	host    string // bound
	port    int
	peers   *peers
	screen  *screen
	targets []string // ip:port, as Options.Targets
	current atomic.Int32

	stack  *sipgo.UserAgent
	client *sipgo.Client
	socket interface{ Close() error }
	reg    *register.Client // ue only

	pace *pacer
	poke chan struct{} // cap 1: a peer was suspended, watchTrunk looks at its clock again

	usages usageTable

	mu      sync.Mutex
	peer    []health // of each target; trunk only
	state   AttachmentState
	calls   map[string]*call // by call.key
	merging map[string]bool  // by inviteKey, of the calls that came in
	live    int              // calls not ended
	shutd   bool

	ctx    context.Context // ends when the attachment closes
	cancel context.CancelFunc
	watch  context.CancelFunc // ends registration or watching, before ctx
	watchd sync.WaitGroup
	wg     sync.WaitGroup
}

func newAttachment(ua *UA, o AttachmentOptions) (*attachment, error) {
	a := &attachment{ua: ua, o: o, log: ua.log.With("attachment", o.Name),
		calls: map[string]*call{}, merging: map[string]bool{}, poke: make(chan struct{}, 1), pace: newPacer(o.CPS), peers: &peers{prefixes: slices.Clone(o.TrustPeers)}}
	if err := a.resolve(); err != nil {
		return nil, err
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.screen = newScreen(a.ctx, a.peers, o.PeerRate, a.reply)
	a.screen.record = ua.traces.received
	if err := a.open(); err != nil {
		a.cancel()
		return nil, err
	}
	state := "down"
	if o.Mode == ModeUE {
		state = "registering"
		reg, err := newRegistrar(a)
		if err != nil {
			a.shut()
			return nil, err
		}
		a.reg = reg
	}
	a.state = AttachmentState{Name: o.Name, Mode: o.Mode, State: state, Since: time.Now(), Identity: o.IMPU,
		LocalAddr: net.JoinHostPort(a.host, strconv.Itoa(a.port))}
	return a, nil
}

// resolve turns targets into addresses, trusts them, and finds the local address.
func (a *attachment) resolve() error {
	for _, t := range a.o.Targets {
		host, port, _ := net.SplitHostPort(t)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		cancel()
		if err != nil || len(ips) == 0 {
			return fmt.Errorf("target %s: address not found: %w", t, err)
		}
		ip := ips[0].Unmap()
		for _, i := range ips { // a name with both: IPv4, as long as nothing else is said
			if i.Unmap().Is4() {
				ip = i.Unmap()
				break
			}
		}
		a.targets = append(a.targets, net.JoinHostPort(ip.String(), port))
		a.peers.prefixes = append(a.peers.prefixes, netip.PrefixFrom(ip, ip.BitLen()))
	}
	a.peer = make([]health, len(a.targets))
	a.host = a.o.LocalAddr
	if a.host == "" {
		// Connecting a UDP socket sends nothing; it only asks for the route.
		c, err := net.Dial("udp", a.targets[0])
		if err != nil {
			return fmt.Errorf("no route to %s: %w", a.targets[0], err)
		}
		a.host = c.LocalAddr().(*net.UDPAddr).IP.String()
		c.Close()
	}
	return nil
}

// open binds the port and starts sipgo's layers on it.
func (a *attachment) open() error {
	bind := net.JoinHostPort(a.host, strconv.Itoa(a.o.LocalPort))
	quiet := slog.New(slog.DiscardHandler) // sipgo logs whole messages, numbers and all
	stack, err := sipgo.NewUA(
		sipgo.WithUserAgent(a.ua.o.UserAgent),
		sipgo.WithUserAgentTransportLayerOptions(
			sip.WithTransportLayerLogger(quiet),
			sip.WithTransportLayerReadFilter(a.screen.filter),
			sip.WithTransportLayerTransports(sip.TransportsConfig{TCP: &sip.TransportTCP{
				ReadTimeout: 300 * time.Second, WriteTimeout: 10 * time.Second,
				DialerCreate: func(laddr net.Addr) net.Dialer {
					return net.Dialer{Timeout: 4 * time.Second, LocalAddr: laddr}
				},
			}}),
		),
		sipgo.WithUserAgentTransactionLayerOptions(
			sip.WithTransactionLayerLogger(quiet),
			sip.WithTransactionLayerUnhandledResponseHandler(a.onStray),
			sip.WithTransactionLayerTerminateOnConnClose(),
		))
	if err != nil {
		return err
	}
	a.stack = stack
	stack.TransactionLayer().OnRequest(a.onRequest)
	if a.client, err = sipgo.NewClient(stack, sipgo.WithClientLogger(quiet)); err != nil {
		return err
	}
	if a.o.Transport == "udp" {
		conn, err := net.ListenPacket("udp", bind)
		if err != nil {
			return bindError(bind, err)
		}
		a.socket, a.port = conn, conn.LocalAddr().(*net.UDPAddr).Port
		a.wg.Go(func() { _ = stack.TransportLayer().ServeUDP(conn) })
		return a.awaitUDP(conn.LocalAddr().String())
	}
	l, err := net.Listen("tcp", bind)
	if err != nil {
		return bindError(bind, err)
	}
	a.socket, a.port = l, l.Addr().(*net.TCPAddr).Port
	a.wg.Go(func() {
		_ = stack.TransportLayer().ServeTCP(&guardedListener{Listener: l, peers: a.peers, screen: a.screen})
	})
	return nil
}

// reply sends an answer that has no transaction back to where a request came from.
func (a *attachment) reply(network string, to net.Addr, b []byte) error {
	if udp, ok := a.socket.(net.PacketConn); ok {
		_, err := udp.WriteTo(b, to)
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
			a.shut()
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

// start begins to register or to watch, and to keep connections alive.
func (a *attachment) start() {
	ctx, cancel := context.WithCancel(a.ctx)
	a.watch = cancel
	a.watchd.Go(func() {
		if a.o.Mode == ModeUE {
			a.register(ctx)
		} else {
			a.watchTrunk(ctx)
		}
	})
	if a.o.Transport == "tcp" {
		a.wg.Go(a.keepAlive)
	}
}

// keepAlive sends CRLF CRLF on the connection to the current target every two minutes
// (RFC 5626 3.5.1): what the peer has for us comes over it too.
func (a *attachment) keepAlive() {
	tick := time.NewTicker(2 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c, err := a.stack.TransportLayer().GetConnection("tcp", a.target())
			if err != nil {
				continue // none is open; the next request opens one
			}
			if tcp, ok := c.(*sip.TCPConnection); ok {
				_, _ = tcp.Write([]byte("\r\n\r\n")) // a dead one is noticed by its reader
			}
			_, _ = c.TryClose()
		case <-a.ctx.Done():
			return
		}
	}
}

func (a *attachment) target() string { return a.targets[int(a.current.Load())%len(a.targets)] }

// profile is what was configured, with the address that is really bound.
func (a *attachment) profile() AttachmentOptions {
	o := a.o
	o.LocalAddr, o.LocalPort = a.host, a.port
	return o
}

func (a *attachment) snapshot() AttachmentState {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state
	s.Calls = a.live
	return s
}

// setState changes the state and tells, if it is a change.
func (a *attachment) setState(state, lastError string) {
	a.update(func(s *AttachmentState) { s.State, s.LastError = state, lastError })
}

func (a *attachment) update(f func(*AttachmentState)) {
	a.mu.Lock()
	old := a.state
	f(&a.state)
	s := &a.state
	s.Up = s.State == "registered" || s.State == "up"
	if s.State != old.State {
		s.Since = time.Now()
	}
	changed, now := !reflect.DeepEqual(*s, old), *s
	now.Calls = a.live
	a.mu.Unlock()
	if !changed {
		return
	}
	if now.State != old.State {
		a.log.Info("attachment", "state", now.State, "err", now.LastError)
	}
	a.ua.changed(now)
}

// identity is who we are on this attachment, and the Route of initial requests.
func (a *attachment) identity() (uri string, routes []string) {
	if a.reg == nil {
		return a.o.IMPU, nil
	}
	r := a.reg.State()
	first := "<sip:" + a.target() + a.uriTransport() + ";lr>"
	return r.Identity, append([]string{first}, r.ServiceRoutes...)
}

func (a *attachment) authorize(req *sip.Request, res *sip.Response) error {
	if a.reg == nil {
		return a.authorizeTrunk(req, res)
	}
	return a.reg.Authorize(req, res)
}

func (a *attachment) invite(inv Invite) (*call, error) {
	c := newCall(a, inv)
	a.mu.Lock()
	switch {
	case a.shutd:
		a.mu.Unlock()
		return nil, ErrClosed
	case a.live >= a.o.MaxCalls:
		a.mu.Unlock()
		return nil, ErrBusy
	}
	a.live++
	a.calls[c.key()] = c
	a.wg.Add(1)
	a.mu.Unlock()
	startAt := a.pace.reserve(time.Now())
	go func() {
		defer a.wg.Done()
		c.run(startAt)
	}()
	return c, nil
}

func (a *attachment) find(callID, ourTag string) *call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[callKey(callID, ourTag)]
}

func (a *attachment) forget(c *call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, c.key())
	if c.in != nil {
		delete(a.merging, c.in.key)
	}
}

func (a *attachment) callEnded() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live--
}

// asBuilt keeps sipgo's client from completing our requests: they are complete.
func asBuilt(*sipgo.Client, *sip.Request) error { return nil }

// prepare says over which socket and to whom a request goes. TCP takes any local
// port: sipgo knows a connection from the listening port only by that port, which
// would confuse two peers.
func (a *attachment) prepare(req *sip.Request, dest string) {
	req.SetTransport(strings.ToUpper(a.o.Transport))
	req.Laddr = sip.Addr{IP: net.ParseIP(a.host), Hostname: a.host}
	if a.o.Transport == "udp" {
		req.Laddr.Port = a.port
	}
	req.SetDestination(dest)
}

// nextHop is where a request goes: its first Route, else its Request-URI, if that is
// one of the peers; anything else goes to fallback, a peer that knows the way.
func (a *attachment) nextHop(req *sip.Request, fallback string) string {
	uri := req.Recipient
	if hs := req.GetHeaders("Route"); len(hs) > 0 {
		var ps sip.HeaderParams
		if _, err := sip.ParseAddressValue(hs[0].Value(), &uri, &ps); err != nil {
			return fallback
		}
	}
	host := strings.Trim(uri.Host, "[]")
	ip, err := netip.ParseAddr(host)
	if err != nil || !slices.ContainsFunc(a.peers.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return fallback
	}
	port := uri.Port
	if port == 0 {
		port = sip.DefaultPort(a.o.Transport)
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// transact starts a client transaction for a request that is complete.
func (a *attachment) transact(req *sip.Request, dest string) (sip.ClientTransaction, error) {
	a.prepare(req, dest)
	return a.client.TransactionRequest(a.ctx, req, asBuilt)
}

// write sends an ACK to a 2xx, which has no transaction.
func (a *attachment) write(req *sip.Request, fallback string) error {
	a.prepare(req, a.nextHop(req, fallback))
	return a.client.WriteRequest(req, asBuilt)
}

// exchange sends a request outside a dialog and waits for its final response.
func (a *attachment) exchange(ctx context.Context, req *sip.Request, dest string) (*sip.Response, error) {
	a.addVia(req)
	a.prepare(req, dest)
	tx, err := a.client.TransactionRequest(ctx, req, asBuilt)
	if err != nil {
		return nil, err
	}
	defer tx.Terminate()
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			a.discard(req, tx)
			return nil, tx.Err()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// discard takes the connection of a transaction that it broke under out of the pool.
// sipgo tells of a closed connection before it forgets it: what is sent at once would go
// into the closed one, and be lost without an error.
func (a *attachment) discard(req *sip.Request, tx sip.ClientTransaction) {
	if a.o.Transport != "tcp" || !errors.Is(tx.Err(), sip.ErrTransactionTransport) {
		return
	}
	if c, ok := tx.(*sip.ClientTx); ok && c.Connection() != nil {
		// An error here only says that it was closed already.
		_ = a.stack.TransportLayer().Pool("tcp").CloseAndDelete(c.Connection(), req.Destination())
	}
}

// close ends calls, then the registration, then the sockets; everything is waited for.
func (a *attachment) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closeCap)
	defer cancel()
	a.mu.Lock()
	a.shutd = true
	calls := make([]*call, 0, len(a.calls))
	for _, c := range a.calls {
		calls = append(calls, c)
	}
	a.mu.Unlock()
	for _, c := range calls {
		c.post(dialog.Hangup{Why: "shutdown", Reason: `SIP;cause=200;text="shutdown"`})
	}
	for _, c := range calls {
		select {
		case <-c.ended:
		case <-ctx.Done():
		}
	}
	for _, c := range calls {
		c.post(kill{})
		<-c.done
	}
	a.usages.close(ctx)
	a.watch()
	a.watchd.Wait()
	a.shut()
}

// shut closes the sockets and waits for the goroutines on them.
func (a *attachment) shut() {
	a.cancel()
	if a.socket != nil {
		_ = a.socket.Close()
	}
	_ = a.stack.Close()
	a.wg.Wait()
}
