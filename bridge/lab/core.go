// Package lab is a small IMS core and simulated handsets: the other side of the
// daemon in the demo, in tests and under load (DESIGN §10). It knows nothing of the
// daemon's internals. It shares wire formats (session descriptions, Milenage) and has
// a SIP stack of its own (package wire).
//
// A Core plays P-CSCF, registrar, S-CSCF and HSS on one socket pair; a Handset
// registers with it over a socket of its own, behaves as its Script says, and dials.
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sparkle/bridge/lab/wire"
)

// DefaultDomain is the home domain of a core that names none.
const DefaultDomain = "ims.mnc001.mcc001.3gppnetwork.org"

// CoreOptions of StartCore. The zero value works.
type CoreOptions struct {
	Addr   string // ip:port for TCP and UDP. "" is 127.0.0.1:0, a free port
	Domain string // home domain and digest realm. "" is DefaultDomain

	// TrunkPeers may call without registration: "ip" or "ip:port" or a prefix
	// "ip/bits". Requests from them need no Route.
	TrunkPeers []string

	MaxExpires time.Duration // longest registration granted; 0 is 1 h
	MinExpires time.Duration // shorter ones are answered 423; 0 asks nothing
	T1         time.Duration // RFC 3261 timer T1 of core and handsets; 0 is 500 ms
	Log        *slog.Logger  // nil logs nothing

	// Trace sees each message of the core as sent or received. It must not block.
	Trace func(sent bool, peer string, message []byte)
}

// Validate reports every fault of the options.
func (o CoreOptions) Validate() error {
	var errs []error
	if o.Addr != "" {
		if _, err := netip.ParseAddrPort(o.Addr); err != nil {
			errs = append(errs, fmt.Errorf("addr: %w", err))
		}
	}
	if strings.ContainsAny(o.Domain, " \t<>\";@:") {
		errs = append(errs, fmt.Errorf("domain: %q is not a host name", o.Domain))
	}
	for _, p := range o.TrunkPeers {
		if _, err := parsePeer(p); err != nil {
			errs = append(errs, fmt.Errorf("trunk_peers: %w", err))
		}
	}
	if o.MaxExpires < 0 || o.MinExpires < 0 || o.T1 < 0 {
		errs = append(errs, errors.New("durations must not be negative"))
	}
	if o.MaxExpires > 0 && o.MinExpires > o.MaxExpires {
		errs = append(errs, errors.New("min_expires is above max_expires"))
	}
	return errors.Join(errs...)
}

// Faults are what a test can have go wrong. They hold for what arrives at the core from
// then on; calls under way go on.
type Faults struct {
	SilentRegister bool // REGISTER gets no answer at all
	SilentInvite   bool // initial INVITE gets no answer at all
	RegisterStatus int  // every REGISTER gets this final answer
	InviteStatus   int  // every initial INVITE gets this final answer
	RetryAfter     time.Duration
	Delay          time.Duration // every request waits this long before anything happens
}

// Core is a running IMS core.
type Core struct {
	o     CoreOptions
	log   *slog.Logger
	ep    *wire.Endpoint
	peers []peer

	mu       sync.Mutex
	handsets []*Handset
	closed   bool

	// Owned by the endpoint's loop.
	faults   Faults
	subs     map[string]*subscriber // by userKey of the IMPU
	byAddr   map[netip.AddrPort][]*binding
	byFlow   map[wire.Target][]*binding
	counters map[string]int
	timerC   time.Duration
}

// peer is an allowed trunk source; port 0 means any.
type peer struct {
	prefix netip.Prefix
	port   uint16
}

func parsePeer(s string) (peer, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return peer{prefix: p}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return peer{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return peer{}, fmt.Errorf("%q is neither ip, ip:port nor ip/bits", s)
	}
	return peer{netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), ap.Port()}, nil
}

// StartCore opens the sockets and answers from then on, until Close.
func StartCore(o CoreOptions) (*Core, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("lab core: %w", err)
	}
	if o.Domain == "" {
		o.Domain = DefaultDomain
	}
	if o.MaxExpires == 0 {
		o.MaxExpires = time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Core{
		o: o, log: o.Log, counters: map[string]int{}, timerC: 3 * time.Minute,
		subs: map[string]*subscriber{}, byAddr: map[netip.AddrPort][]*binding{}, byFlow: map[wire.Target][]*binding{},
	}
	for _, s := range o.TrunkPeers {
		p, _ := parsePeer(s) // Validate has seen it
		c.peers = append(c.peers, p)
	}
	started := make(chan struct{}) // the loop may be faster than c.ep's assignment
	ep, err := wire.Listen(wire.Options{
		Addr: o.Addr, Log: o.Log, T1: o.T1,
		Accept:  func(m *wire.Message, t wire.Target) bool { <-started; return c.accept(m) },
		Request: c.request,
		Ack:     c.ack,
		Trace:   c.trace,
	})
	if err != nil {
		return nil, fmt.Errorf("lab core: %w", err)
	}
	c.ep = ep
	close(started)
	return c, nil
}

// Addr is the core's address, the same port for UDP and TCP.
func (c *Core) Addr() netip.AddrPort { return c.ep.Addr() }

// Domain is the home domain.
func (c *Core) Domain() string { return c.o.Domain }

// Close ends all handsets and the core, and waits for both.
func (c *Core) Close() {
	c.mu.Lock()
	hs := c.handsets
	c.handsets, c.closed = nil, true
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, h := range hs {
		wg.Go(h.Close)
	}
	wg.Wait()
	c.ep.Close()
}

// SetFaults replaces the faults in force; the zero value heals everything.
func (c *Core) SetFaults(f Faults) error {
	return c.ep.Do(func() { c.faults = f })
}

// CloseConnections breaks all TCP connections.
func (c *Core) CloseConnections() error { return c.ep.CloseConns() }

// Counters counts messages by "rx INVITE", "tx INVITE", "rx 200 INVITE", "tx 401
// REGISTER" and so on. Retransmissions received count, those sent do not.
func (c *Core) Counters() map[string]int {
	out := map[string]int{}
	_ = c.ep.Do(func() {
		for k, v := range c.counters {
			out[k] = v
		}
	})
	return out
}

func (c *Core) trace(sent bool, t wire.Target, m *wire.Message) {
	key := "rx "
	if sent {
		key = "tx "
	}
	if m.Method != "" {
		key += m.Method
	} else {
		_, method := m.CSeq()
		key += fmt.Sprintf("%d %s", m.Status, method)
	}
	// Peers make up methods; the map must not grow with their imagination.
	if _, known := c.counters[key]; known || len(c.counters) < 512 {
		c.counters[key]++
	}
	if c.o.Trace != nil {
		c.o.Trace(sent, t.Proto+" "+t.Addr.String(), m.Bytes())
	}
}

// accept drops what a fault wants unanswered.
func (c *Core) accept(m *wire.Message) bool {
	switch {
	case m.Method == "REGISTER" && c.faults.SilentRegister:
		return false
	case c.faults.SilentInvite && m.Method == "INVITE" && m.ToTag() == "":
		return false
	}
	return true
}

func (c *Core) request(tx *wire.ServerTx) {
	if d := c.faults.Delay; d > 0 {
		c.ep.After(d, func() { c.handle(tx) })
		return
	}
	c.handle(tx)
}

func (c *Core) handle(tx *wire.ServerTx) {
	m := tx.Req
	if strings.TrimSpace(m.Get("Max-Forwards")) == "0" {
		c.refuse(tx, 483, "")
		return
	}
	if m.Method == "REGISTER" {
		if s := c.faults.RegisterStatus; s != 0 {
			c.refuse(tx, s, "")
			return
		}
		c.register(tx)
		return
	}
	u, err := wire.ParseURI(m.URI)
	if err != nil {
		c.refuse(tx, 416, "")
		return
	}
	if m.Method == "OPTIONS" && m.ToTag() == "" && u.User == "" {
		r := m.Reply(200, "", wire.Token(4))
		r.Add("Allow", allow)
		r.Add("Accept", "application/sdp")
		r.Add("Supported", "path, 100rel, timer, precondition")
		tx.Respond(r)
		return
	}
	if m.ToTag() != "" {
		c.inDialog(tx)
		return
	}
	if m.Method == "INVITE" && c.faults.InviteStatus != 0 {
		c.refuse(tx, c.faults.InviteStatus, "")
		return
	}
	c.originate(tx, u)
}

const allow = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, INFO"

// refuse answers a request finally; why, if any, goes into a Warning that an operator
// can read.
func (c *Core) refuse(tx *wire.ServerTx, status int, why string) {
	r := tx.Req.Reply(status, "", wire.Token(4))
	if why != "" {
		r.Add("Warning", fmt.Sprintf("399 %s %q", c.o.Domain, why))
	}
	if (status == 503 || status == 480) && c.faults.RetryAfter > 0 {
		r.Add("Retry-After", fmt.Sprintf("%d", int(c.faults.RetryAfter.Seconds())))
	}
	tx.Respond(r)
}

// trunk says whether a request comes from a configured peer.
func (c *Core) trunk(from wire.Target) bool {
	for _, p := range c.peers {
		if p.prefix.Contains(from.Addr.Addr()) && (p.port == 0 || p.port == from.Addr.Port()) {
			return true
		}
	}
	return false
}
