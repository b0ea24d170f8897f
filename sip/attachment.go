package sip

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo"
	sip "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/digest"
	"sparkle/sip/ims"
	"sparkle/sip/register"
	"sparkle/sip/resolve"
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
	current atomic.Pointer[target] // where what names no peer goes; nil before the first address

	stack    *sipgo.UserAgent
	client   *sipgo.Client
	sockets  map[string]socket      // by transport
	reg      *register.Client       // ue only
	events   *regEvent              // ue with reg_event only
	present  presence               // as only
	charging atomic.Pointer[string] // as: P-Charging-Function-Addresses as the core last said

	dns   *resolve.Resolver // nil: all targets are addresses
	again time.Time         // when names are to be looked up again; lookUp's

	poke chan struct{} // cap 1: a peer was suspended or is new, watchPeers looks at its clock again

	usages  usageTable
	invites *share // new INVITEs
	guard   *guard // nil: no proof is asked for

	strays strays

	transits sync.WaitGroup  // requests for others on their way through us
	leaving  context.Context // ends before ctx: they are given up
	leave    context.CancelFunc
	timerC   time.Duration

	mu      sync.Mutex
	list    []*target // where requests may go, best first; replaced, never changed
	pace    pacer
	clock   *time.Timer // of pace
	state   AttachmentState
	calls   map[string]*call // by call.key
	merging map[string]bool  // by inviteKey, of the calls that came in
	past    past             // calls that have gone
	live    int              // calls not ended
	shutd   bool

	ctx    context.Context // ends when the attachment closes
	cancel context.CancelFunc
	watch  context.CancelFunc // ends registration or watching, before ctx
	watchd sync.WaitGroup
	wg     sync.WaitGroup
}

// bareAttachment has no socket yet.
func bareAttachment(ua *UA, o AttachmentOptions) *attachment {
	a := &attachment{ua: ua, o: o, log: ua.log.With("attachment", o.Name),
		calls: map[string]*call{}, merging: map[string]bool{}, poke: make(chan struct{}, 1), sockets: map[string]socket{}, peers: &peers{},
		pace: pacer{total: meterOf(o.CPS), max: max(o.MaxCalls, 0), chance: rand.Float64}}
	if o.Mode == ModeUE {
		a.pace.fixed = a.fixedTarget
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.leaving, a.leave = context.WithCancel(a.ctx)
	a.screen = newScreen(a.ctx, a.peers, o.PeerRate, a.reply)
	a.screen.record, a.screen.recordOwn, a.screen.arrive = ua.traces.received, ua.traces.replied, a.arrive
	a.screen.ours, a.screen.admit, a.screen.offhand, a.screen.passes = a.sentByUs, a.hasRoom, a.offhand, a.passes
	if o.Mode == ModeUE {
		a.screen.heard = a.onRead
	}
	a.invites, a.timerC = newShare(o.InviteRate), timerC
	a.guard = newGuard(o.Challenge)
	a.screen.registers = o.Mode == ModeAS
	a.screen.sealed = o.Clear != ""
	a.clock = time.AfterFunc(time.Hour, a.safely(a.dispatch))
	a.clock.Stop()
	return a
}

func newAttachment(ua *UA, o AttachmentOptions) (*attachment, error) {
	a := bareAttachment(ua, o)
	if err := a.locate(); err != nil {
		a.cancel()
		return nil, err
	}
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
		if o.RegEvent != RegEventOff {
			a.events = newRegEvent(a)
		}
	}
	a.state = AttachmentState{Name: o.Name, Mode: o.Mode, State: state, Since: time.Now(), Identity: o.IMPU,
		LocalAddr: net.JoinHostPort(a.host, strconv.Itoa(a.port)), CPS: max(o.CPS, 0), MaxCalls: max(o.MaxCalls, 0)}
	if s, ok := a.sockets["udp"]; ok {
		a.state.UDPAddr = net.JoinHostPort(a.host, strconv.Itoa(s.port))
	}
	return a, nil
}

// locate looks the targets up and finds the local address.
func (a *attachment) locate() error {
	err := a.lookUp(a.ctx)
	a.host = a.o.LocalAddr
	if a.host != "" {
		if err != nil { // the DNS may come back
			a.log.Warn("targets not found", "err", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	// Connecting a UDP socket sends nothing; it only asks for the route.
	to := a.all()[0].addr()
	c, err := net.Dial("udp", to)
	if err != nil {
		return fmt.Errorf("no route to %s: %w", to, err)
	}
	a.host = c.LocalAddr().(*net.UDPAddr).IP.String()
	return c.Close()
}

// start begins to register or to watch, and to keep connections alive.
func (a *attachment) start() {
	ctx, cancel := context.WithCancel(a.ctx)
	a.watch = cancel
	a.watchd.Go(a.lasting(func() {
		if a.o.Mode == ModeUE {
			a.register(ctx)
		} else {
			a.watchPeers(ctx)
		}
	}))
	if a.named() {
		a.wg.Go(a.lasting(a.watchNames))
	}
	if a.o.KeepAlive > 0 {
		a.wg.Go(a.lasting(a.keepAlive))
	}
}

// keepAlive sends CRLF CRLF on the connections to the targets (RFC 5626 3.5.1): what a
// peer has for us comes over them too.
func (a *attachment) keepAlive() {
	tick := time.NewTicker(a.o.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, t := range a.all() {
				a.ping(t)
			}
		case <-a.ctx.Done():
			return
		}
	}
}

func (a *attachment) ping(t *target) {
	transport, addr := splitHop(t.hop, a.o.Transport)
	if transport == "udp" {
		return
	}
	c, err := a.stack.TransportLayer().GetConnection(transport, addr)
	if err != nil {
		return // none is open; the next request opens one
	}
	if tcp, ok := c.(*sip.TCPConnection); ok {
		at := time.Now()
		_, _ = tcp.Write([]byte("\r\n\r\n")) // a dead one is noticed by its reader
		a.awaitPong(t, at)
	}
	_, _ = c.TryClose()
}

// target is the hop of the current target, "" before there is one.
func (a *attachment) target() string {
	if t := a.current.Load(); t != nil {
		return t.hop
	}
	return ""
}

// fixedTarget is where all calls of a ue go; nil while none can be placed, which is also as
// long as a lost flow is being replaced, and until follow has seen who did that. a.mu is held.
func (a *attachment) fixedTarget() *target {
	t, r := a.current.Load(), a.reg.State()
	if !a.state.Up || r.Held || t == nil || r.Target != "" && r.Target != t.addr() {
		return nil
	}
	return t
}

// profile is what was configured, with the address that is really bound.
func (a *attachment) profile() AttachmentOptions {
	o := a.o
	o.LocalAddr, o.LocalPort = a.host, a.port
	return o
}

func (a *attachment) snapshot() AttachmentState {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state
	s.Calls, s.Queued, s.Ingress = a.live, len(a.pace.queue), a.screen.stats()
	s.Presence = a.present.count(now)
	for _, t := range a.list {
		ts := t.state(now, t.conf.Host)
		if a.o.Mode == ModeUE {
			if ts.State != "suspended" {
				ts.State = "standby"
				if t == a.current.Load() {
					ts.State = "in_use"
				}
			}
		}
		s.Targets = append(s.Targets, ts)
	}
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
	a.dispatch()
}

// identity is who we are on this attachment, and the Route of initial requests.
func (a *attachment) identity() (uri string, routes []string) {
	if a.reg == nil {
		return a.o.IMPU, nil
	}
	r := a.reg.State()
	transport, addr := splitHop(a.target(), a.o.Transport)
	if r.Target != "" {
		addr = r.Target
	}
	first := "<sip:" + addr + ";transport=" + transport + ";lr>"
	return r.Identity, append([]string{first}, r.ServiceRoutes...)
}

// authorize answers a challenge of realm, or of what is configured if that is empty.
func (a *attachment) authorize(req *sip.Request, res *sip.Response, realm string) (digest.Challenge, error) {
	if a.reg == nil {
		return a.authorizeTrunk(req, res, realm)
	}
	return a.reg.Authorize(req, res, realm)
}

// realm is whose challenges inside a dialog are answered before its INVITE was challenged: that
// of the core at which a ue registers. Of a trunk none is known before it has asked.
func (a *attachment) realm() string {
	switch {
	case a.o.Mode != ModeUE || a.o.Auth.Realm == "*":
		return ""
	case a.o.Auth.Realm != "":
		return a.o.Auth.Realm
	}
	return a.o.Domain
}

// invite queues a call for its turn.
func (a *attachment) invite(inv Invite) (*call, error) {
	c := newCall(a, inv)
	c.w = &waiter{call: c, patience: cmp.Or(inv.SetupTimeout, 60*time.Second)}
	now := time.Now()
	a.mu.Lock()
	switch {
	case a.shutd:
		a.mu.Unlock()
		return nil, ErrClosed
	case len(a.pace.queue) >= maxQueue:
		a.mu.Unlock()
		return nil, ErrBusy
	}
	a.live++
	a.calls[c.key()] = c
	a.wg.Add(1)
	a.pace.add(now, c.w)
	grants := a.advance(now)
	ahead := slices.Index(a.pace.queue, c.w)
	until := a.pace.forecast(now, max(ahead, 0))
	a.mu.Unlock()
	if ahead >= 0 { // before anything else can be told: the call does not run yet
		c.on(Queued{At: now, Ahead: ahead, Until: until})
	}
	hand(grants)
	go a.safely(func() {
		defer a.wg.Done()
		c.run()
	})()
	return c, nil
}

// requeue has a call that had its turn wait for another, ahead of all others. waits: and for what.
func (a *attachment) requeue(c *call) (q Queued, waits bool) {
	now := time.Now()
	w := &waiter{call: c, patience: c.w.patience}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pace.release(c.target)
	c.w, c.target = w, nil
	a.pace.addFirst(now, w)
	hand(a.advance(now))
	if w.granted {
		return q, false
	}
	return Queued{At: now, Until: a.pace.forecast(now, 0)}, true
}

// dispatch lets go whose turn has come.
func (a *attachment) dispatch() {
	if a.ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock() // also after a fault: whoever waits for it would wait for ever
	hand(a.advance(time.Now()))
}

// advance steps the pacer and sets its clock. a.mu is held.
func (a *attachment) advance(now time.Time) []grant {
	grants, wake := a.pace.step(now)
	for _, g := range grants {
		g.w.call.target = g.target
	}
	if wake.IsZero() {
		a.clock.Stop()
	} else {
		a.clock.Reset(max(time.Until(wake), 0))
	}
	return grants
}

// hand tells the calls.
func hand(grants []grant) {
	for _, g := range grants {
		g.w.call.post(g)
	}
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
	a.past.add(time.Now(), c.key())
	if c.in != nil {
		delete(a.merging, c.in.key)
	}
}

// past are calls that have gone of late: over UDP a BYE may come again after its answer, which its
// transaction, and not the front door, has to give once more (RFC 3261 17.2.2).
type past struct {
	order []string
	until map[string]time.Time
}

// maxPast bounds them: 50 calls a second for as long as a transaction lasts are 1600.
const maxPast = 4096

func (p *past) add(now time.Time, key string) {
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	p.order, p.until[key] = append(p.order, key), now.Add(64*sip.T1)
	for len(p.order) > maxPast || p.until[p.order[0]].Before(now) {
		delete(p.until, p.order[0])
		p.order = p.order[1:]
	}
}

// has says whether a call went so late that its transactions may still be there.
func (p *past) has(now time.Time, key string) bool { return now.Before(p.until[key]) }

// wentLately says whether a request names a call that has just gone.
func (a *attachment) wentLately(req *sip.Request) bool {
	tag, _ := req.To().Params.Get("tag")
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.past.has(time.Now(), callKey(string(*req.CallID()), tag))
}

// callEnded gives back what a call had: its place in the queue, or its line.
func (a *attachment) callEnded(c *call) {
	a.mu.Lock()
	a.live--
	a.pace.drop(c.w)
	if c.w != nil && c.w.granted {
		a.pace.release(c.target)
	}
	a.mu.Unlock()
	a.dispatch()
}

// asBuilt keeps sipgo's client from completing our requests: they are complete.
func asBuilt(*sipgo.Client, *sip.Request) error { return nil }

// prepare says over which socket and to whom a request goes. TCP takes any local port:
// sipgo knows a connection from the listening port only by that port, which would
// confuse two peers. It adds what was agreed with a P-CSCF.
func (a *attachment) prepare(req *sip.Request, hop string) {
	transport, addr := splitHop(hop, a.o.Transport)
	req.SetTransport(strings.ToUpper(transport))
	req.Laddr = sip.Addr{IP: net.ParseIP(a.host), Hostname: a.host}
	s, ok := a.sockets[transport]
	if transport == "udp" {
		req.Laddr.Port = s.port
	}
	if via := req.Via(); via != nil && ok {
		via.Transport, via.Port = strings.ToUpper(transport), s.port
	}
	req.SetDestination(addr)
	a.verify(req)
}

// hopOf is where a request was sent.
func hopOf(req *sip.Request) string {
	return hopTo(strings.ToLower(req.Transport()), req.Destination())
}

// nextHop is where a request goes: its first Route, or its Request-URI if there is none or
// that is a strict router's (RFC 3261 8.1.2, 12.2.1.1), if that is one of the peers; anything
// else goes to fallback, a peer that knows the way.
func (a *attachment) nextHop(req *sip.Request, fallback string) string {
	uri := req.Recipient
	if hs := req.GetHeaders("Route"); len(hs) > 0 {
		first := ims.Split(hs[0].Value())
		var ps sip.HeaderParams
		if len(first) == 0 {
			return fallback
		}
		if loose(first[0]) {
			if _, err := sip.ParseAddressValue(first[0], &uri, &ps); err != nil {
				return fallback
			}
		}
	}
	host := strings.Trim(uri.Host, "[]")
	ip, err := netip.ParseAddr(host)
	if err != nil || !a.peers.has(ip) {
		return fallback
	}
	transport := strings.ToLower(uri.UriParams.GetOr("transport", ""))
	if transport != "" && transport == a.o.Clear {
		return fallback // what a P-CSCF writes into a route must not lead out of TLS
	}
	if _, open := a.sockets[transport]; !open {
		transport = a.o.Transport
		if t := a.known(net.JoinHostPort(host, strconv.Itoa(uri.Port))); t != nil {
			transport, _ = splitHop(t.hop, transport)
		}
	}
	port := uri.Port
	if port == 0 {
		port = sip.DefaultPort(transport)
	}
	return hopTo(transport, net.JoinHostPort(host, strconv.Itoa(port)))
}

// transact starts a client transaction for a request that is complete. A connection that could
// not be written to is taken out of the pool: sipgo would give it to the next one too, until its
// reader notices.
func (a *attachment) transact(ctx context.Context, req *sip.Request, dest string) (*sip.ClientTx, error) {
	a.prepare(req, dest)
	tx, err := a.stack.TransactionLayer().NewClientTransaction(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := tx.Init(); err != nil {
		tx.Terminate()
		if pool := a.streams(req); pool != nil {
			_ = pool.CloseAndDelete(tx.Connection(), req.Destination()) // an error says that it was closed already
		}
		return nil, err
	}
	return tx, nil
}

// write sends an ACK to a 2xx, which has no transaction.
func (a *attachment) write(req *sip.Request, fallback string) error {
	a.prepare(req, a.nextHop(req, fallback))
	return a.client.WriteRequest(req, asBuilt)
}

// exchange sends a request outside a dialog and waits for its final response.
func (a *attachment) exchange(ctx context.Context, req *sip.Request, dest string) (*sip.Response, error) {
	a.addVia(req)
	return a.await(ctx, req, dest)
}

// await is exchange for a request that has its Via.
func (a *attachment) await(ctx context.Context, req *sip.Request, dest string) (*sip.Response, error) {
	tx, err := a.transact(ctx, req, dest)
	if err != nil {
		return nil, err
	}
	defer tx.Terminate()
	under := a.watchConn(req, tx)
	defer under.stop()
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			return nil, tx.Err()
		case <-under.look:
			if under.gone() {
				return nil, fmt.Errorf("connection closed: %w", sip.ErrTransactionTransport)
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
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
	a.endTransits(ctx)
	a.usages.close(ctx)
	a.watch()
	a.watchd.Wait()
	a.shut()
}

// endTransits gives up what is on its way to others, and waits until they have heard of it.
func (a *attachment) endTransits(ctx context.Context) {
	a.leave()
	done := make(chan struct{})
	a.wg.Go(a.safely(func() { a.transits.Wait(); close(done) }))
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// shut closes the sockets and waits for the goroutines on them.
func (a *attachment) shut() {
	// sipgo opens a socket of its own for a message that it gets to after its listener is gone.
	a.screen.shut.Store(true)
	a.cancel()
	a.mu.Lock()
	a.clock.Stop()
	a.mu.Unlock()
	for _, s := range a.sockets {
		_ = s.Close()
	}
	_ = a.stack.Close()
	a.wg.Wait()
	// What sipgo had read before the sockets closed it may still answer, from a socket that it
	// opens for that, and it does not say when the last of its goroutines has done so.
	time.AfterFunc(strayTime, a.safely(func() { _ = a.stack.TransportLayer().Close() }))
}

// strayTime is how long sipgo may take to answer what it had read before the sockets closed.
const strayTime = 250 * time.Millisecond
