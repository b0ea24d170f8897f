package sip

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Target is one peer as configured.
type Target struct {
	// Host is "host:port", or a name alone, which is looked up as RFC 3263 says: NAPTR,
	// SRV, then its addresses.
	Host      string
	Transport string  // udp | tcp | tls; "": the attachment's, or what the DNS says
	Priority  int     // lower is tried first
	Weight    int     // share of the calls among equal priorities; 0: 1
	CPS       float64 // new calls a second; 0: only the attachment's limit
	MaxCalls  int     // calls at once; 0: only the attachment's limit
}

// ParseTarget reads "host:port", "name" or a SIP URI "sip:host:port;transport=tcp".
func ParseTarget(s string) (Target, error) {
	t := Target{Host: s}
	rest, sips := strings.CutPrefix(s, "sips:")
	if sips {
		t.Host, t.Transport = rest, "tls"
	} else if rest, ok := strings.CutPrefix(s, "sip:"); ok {
		t.Host = rest
	}
	host, params, _ := strings.Cut(t.Host, ";")
	t.Host = host
	for p := range strings.SplitSeq(params, ";") {
		if v, ok := strings.CutPrefix(strings.ToLower(p), "transport="); ok && !sips {
			t.Transport = v
		}
	}
	return t, t.validate()
}

func (t Target) validate() error {
	host, port := t.hostPort()
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return fmt.Errorf("%q is not host:port", t.Host)
	}
	if _, err := netip.ParseAddr(host); err != nil && (!isHostName(host) || port == "" && !strings.Contains(host, ".")) {
		return fmt.Errorf("%q is not host:port", t.Host)
	}
	switch t.Transport {
	case "", "udp", "tcp", "tls":
	default:
		return fmt.Errorf("%q: transport %q is none of udp, tcp, tls", t.Host, t.Transport)
	}
	if t.Priority < 0 || t.Priority > 65535 || t.Weight < 0 || t.Weight > 65535 {
		return fmt.Errorf("%q: priority and weight are from 0 to 65535", t.Host)
	}
	if t.CPS < 0 || t.MaxCalls < 0 {
		return fmt.Errorf("%q: a limit is negative", t.Host)
	}
	return nil
}

// hostPort is the host, and the port or "".
func (t Target) hostPort() (host, port string) {
	if h, p, err := net.SplitHostPort(t.Host); err == nil {
		return h, p
	}
	return strings.Trim(t.Host, "[]"), ""
}

func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return false
		}
	}
	return true
}

// target is one address that requests go to, and what we know of it. What changes is
// guarded by the attachment's mutex.
type target struct {
	conf Target
	hop  string // "tcp/192.0.2.1:5060"
	rank int    // lower first: the configured priority, then that of an SRV record
	load int    // share among equal ranks

	health health
	rtt    time.Duration // of the last OPTIONS answered
	calls  int
	meter  meter
	oc     shedding

	heard  atomic.Int64 // when something was read from it last, Unix ns; of a P-CSCF only
	ponged atomic.Bool  // it answers pings: one that it does not answer says something
}

// hopTo names where a request goes, and over what.
func hopTo(transport, addr string) string { return transport + "/" + addr }

func splitHop(hop, transport string) (string, string) {
	if t, addr, ok := strings.Cut(hop, "/"); ok {
		return t, addr
	}
	return transport, hop
}

func (t *target) addr() string { _, a := splitHop(t.hop, ""); return a }

// full says that the peer has as many calls as it may.
func (t *target) full() bool { return t.conf.MaxCalls > 0 && t.calls >= t.conf.MaxCalls }

func (t *target) state(now time.Time, name string) TargetState {
	transport, addr := splitHop(t.hop, "")
	s := TargetState{Addr: addr, Transport: transport, State: cmp.Or(t.health.state, "unknown"), Until: t.health.until, RTT: t.rtt,
		Calls: t.calls, CPS: t.conf.CPS, MaxCalls: t.conf.MaxCalls, Priority: t.conf.Priority, Weight: cmp.Or(t.load, 1)}
	if name != addr {
		s.Name = name
	}
	return s
}

// inOrder are targets in the order in which a call tries them: by rank, and among equal
// ranks at random by weight (RFC 2782).
func inOrder(ts []*target, chance func() float64) []*target {
	out := slices.Clone(ts)
	slices.SortStableFunc(out, func(a, b *target) int { return a.rank - b.rank })
	for i := range out {
		sum, end := 0, i
		for end < len(out) && out[end].rank == out[i].rank {
			sum += max(out[end].load, 1)
			end++
		}
		if end == i+1 {
			continue
		}
		pick := int(chance() * float64(sum))
		for j := i; j < end; j++ {
			if pick -= max(out[j].load, 1); pick < 0 {
				chosen := out[j]
				copy(out[i+1:j+1], out[i:j]) // the others stay in their order
				out[i] = chosen
				break
			}
		}
	}
	return out
}

// shedding is what a peer asked for with RFC 7339's loss algorithm: leave out so many
// per cent of new calls until its time is over.
type shedding struct {
	loss  int
	until time.Time
}

// sheds says that this call is one of those.
func (o shedding) sheds(now time.Time, chance func() float64) bool {
	return o.loss > 0 && now.Before(o.until) && chance()*100 < float64(o.loss)
}

// setTargets replaces the list: what stays keeps its health, calls and rate.
func (a *attachment) setTargets(list []*target) {
	a.mu.Lock()
	old := a.list
	for i, t := range list {
		for _, was := range old {
			if was.hop == t.hop {
				was.conf, was.rank, was.load, was.meter.every = t.conf, t.rank, t.load, t.meter.every
				list[i] = was
			}
		}
	}
	slices.SortStableFunc(list, func(x, y *target) int { return x.rank - y.rank })
	a.list = list
	a.pace.targets = list
	a.mu.Unlock()
	prefixes := slices.Clone(a.o.TrustPeers)
	cur := a.current.Load()
	kept := slices.Clone(list)
	if a.o.Mode == ModeUE && cur != nil && !slices.Contains(list, cur) {
		kept = append(kept, cur) // the registration is with it until another has it
	}
	for _, t := range kept {
		if ap, err := netip.ParseAddrPort(t.addr()); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()))
		}
	}
	a.peers.set(prefixes)
	if len(list) > 0 && !slices.Contains(kept, cur) {
		a.current.Store(list[0])
	}
}

var errNoTargets = errors.New("none of the targets has an address")

// all are the targets now; the slice is never changed.
func (a *attachment) all() []*target {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list
}

// known is the target of a hop, nil for any other address.
func (a *attachment) known(hop string) *target {
	_, addr := splitHop(hop, "")
	for _, t := range a.all() {
		if t.hop == hop || !strings.Contains(hop, "/") && t.addr() == addr {
			return t
		}
	}
	return nil
}

// targetAt is the target a hop belongs to, whatever its port: a peer's own requests come
// from any. nil: none. a.mu is held.
func (a *attachment) targetAt(hop string) *target {
	_, addr := splitHop(hop, "")
	host, _, _ := net.SplitHostPort(addr)
	var found *target
	for _, t := range a.list {
		h, _, _ := net.SplitHostPort(t.addr())
		if t.hop == hop {
			return t
		}
		if h == host && found == nil {
			found = t
		}
	}
	return found
}
