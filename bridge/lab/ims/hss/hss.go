// Package hss is a home subscriber server for the lab: users from data, AKA and digest
// credentials, and the Cx interface (TS 29.228, 29.229) that a real S-CSCF and I-CSCF
// speak. It answers UAR, MAR, SAR and LIR, and takes registrations away (RTR).
package hss

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"sparkle/sip/aka"
)

// Options of Listen.
type Options struct {
	Addr   string // "" is 127.0.0.1:0
	Host   string // Origin-Host, by which the peers know us
	Domain string // home domain: realm of Diameter and of digests
	Log    *slog.Logger
}

// HSS is a server. Its methods may be called from anywhere.
type HSS struct {
	o   Options
	log *slog.Logger
	l   net.Listener
	wg  sync.WaitGroup

	mu       sync.Mutex
	users    map[string]*subscriber // by private identity
	services map[string]string      // server by public service identity
	peers    map[*peer]bool
	seen     []Request
	changed  chan struct{} // closed at the next request or peer
	closed   bool
}

// subscriber is a user with what the network knows of him now.
type subscriber struct {
	User
	mil    *aka.Milenage // nil: digest
	sqn    uint64
	server string // S-CSCF that serves him, "": none
	peer   string // its Origin-Host
	up     bool   // registered
}

// Request is one that was answered, for tests.
type Request struct {
	Name   string // UAR, MAR, SAR, LIR
	IMPI   string
	IMPU   string
	Type   uint32 // Server-Assignment-Type of SAR
	Resync bool   // MAR with AUTS
	Result uint32
}

// Listen opens the socket and answers from then on, until Close.
func Listen(o Options) (*HSS, error) {
	if o.Host == "" || o.Domain == "" {
		return nil, errors.New("hss: neither host nor domain may be empty")
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("hss: %w", err)
	}
	h := &HSS{o: o, log: o.Log, l: l, users: map[string]*subscriber{}, services: map[string]string{},
		peers: map[*peer]bool{}, changed: make(chan struct{})}
	h.wg.Go(h.accept)
	return h, nil
}

// Addr is where Diameter peers connect to.
func (h *HSS) Addr() netip.AddrPort { return h.l.Addr().(*net.TCPAddr).AddrPort() }

// Close ends all connections and waits.
func (h *HSS) Close() {
	h.mu.Lock()
	h.closed = true
	for p := range h.peers {
		p.conn.Close()
	}
	h.mu.Unlock()
	h.l.Close()
	h.wg.Wait()
}

// SetUser provisions a user, or replaces the one of the same private identity; the S-CSCF
// learns of a new profile with the next registration.
func (h *HSS) SetUser(u User) error {
	if err := u.Validate(); err != nil {
		return fmt.Errorf("hss: %w", err)
	}
	s := &subscriber{User: u, sqn: u.SQN}
	if u.K != nil {
		var err error
		if s.mil, err = aka.New(u.K, u.OPc); err != nil {
			return fmt.Errorf("hss: %w", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range h.users {
		for _, i := range u.IMPUs {
			if other.IMPI != u.IMPI && other.has(i) {
				return fmt.Errorf("hss: %s is %s already", i, other.IMPI)
			}
		}
	}
	if old := h.users[u.IMPI]; old != nil {
		s.server, s.peer, s.up = old.server, old.peer, old.up
	}
	h.users[u.IMPI] = s
	return nil
}

// SetService provisions a public service identity.
func (h *HSS) SetService(s Service) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.services[s.Identity] = s.Server
}

// SetSQN has the network forget how far a SIM's sequence number is.
func (h *HSS) SetSQN(impi string, sqn uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.users[impi]
	if s == nil {
		return fmt.Errorf("hss: no user %s", impi)
	}
	s.sqn = sqn & aka.SQNMask
	return nil
}

// Registered says whether a public identity is registered with an S-CSCF.
func (h *HSS) Registered(impu string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.owner(impu)
	return s != nil && s.up
}

// Peers are the Origin-Hosts connected now.
func (h *HSS) Peers() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for p := range h.peers {
		if p.host != "" {
			out = append(out, p.host)
		}
	}
	slices.Sort(out)
	return out
}

// Wait blocks until ok says yes to the requests answered so far, or ctx ends. It is asked
// again when a peer comes or goes.
func (h *HSS) Wait(ctx context.Context, ok func([]Request) bool) error {
	for {
		h.mu.Lock()
		seen, changed := slices.Clone(h.seen), h.changed
		h.mu.Unlock()
		if ok(seen) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("hss: %w; answered so far: %+v", context.Cause(ctx), seen[max(0, len(seen)-12):])
		}
	}
}

// stir wakes who waits. h.mu is held.
func (h *HSS) stir() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// owner is whose public identity it is. h.mu is held.
func (h *HSS) owner(impu string) *subscriber {
	for _, s := range h.users {
		if s.has(impu) {
			return s
		}
	}
	return nil
}

func md5Sum(s string) []byte { b := md5.Sum([]byte(s)); return b[:] }
