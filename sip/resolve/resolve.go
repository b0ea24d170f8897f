// Package resolve finds where a SIP name is served (RFC 3263): NAPTR says over which
// transport, SRV at which hosts and ports, A and AAAA at which addresses. Answers are kept
// as long as their TTL; where the DNS fails, what it said last is used further (RFC 8767).
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of how long an answer is used, whatever its TTL says; and what a failing server
// is asked again after.
const (
	minTTL   = 5 * time.Second
	maxTTL   = time.Hour
	retryTTL = 10 * time.Second
	maxStale = 24 * time.Hour
)

// maxRecords bounds what one name may unfold into.
const maxRecords = 32

// Query is a name as somebody configured it.
type Query struct {
	Host      string
	Port      int      // 0: SRV says
	Transport string   // udp | tcp | tls; "": NAPTR says
	Supported []string // transports we can speak, the preferred one first
}

// Endpoint is one address where a name is served.
type Endpoint struct {
	Addr      netip.AddrPort
	Transport string
	Priority  int // of its SRV record; lower first
	Weight    int
}

// Answer is what a name unfolded into.
type Answer struct {
	Endpoints []Endpoint
	Until     time.Time // ask again then
	Stale     error     // why some endpoints are those of an earlier answer; nil: none are
}

// Resolver asks name servers and remembers what they said. Its methods may be called from
// anywhere.
type Resolver struct {
	servers []string // host:port
	family  int      // 4, 6, or 0 for both

	mu    sync.Mutex
	cache map[question]record // also of what has run out, up to maxStale
}

type question struct {
	name  string
	qtype uint16
}

type record struct {
	rrs   []dns.RR
	until time.Time
}

// New asks these servers (host:port) in turn; none: those of /etc/resolv.conf. family 4 or
// 6 leaves addresses of the other out.
func New(servers []string, family int) (*Resolver, error) {
	if len(servers) == 0 {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return nil, fmt.Errorf("resolve: %w", err)
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	if len(servers) == 0 {
		return nil, errors.New("resolve: no name server")
	}
	return &Resolver{servers: servers, family: family, cache: map[question]record{}}, nil
}

// ErrNone says that the DNS answered, and that there is no such name or nothing we can
// use at it.
var ErrNone = errors.New("resolve: no usable record")

// Lookup unfolds a query. An error is returned only if there was never a good answer, or
// if the DNS says that the name is gone.
func (r *Resolver) Lookup(ctx context.Context, now time.Time, q Query) (Answer, error) {
	w := walk{r: r, ctx: ctx, now: now, until: now.Add(maxTTL)}
	eps, err := w.unfold(q)
	if err != nil {
		return Answer{Until: now.Add(retryTTL)}, err
	}
	return Answer{Endpoints: eps, Until: later(w.until, now.Add(minTTL)), Stale: w.stale}, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// walk is one unfolding; until is the end of the shortest TTL on its way, stale why something on it
// is of an earlier one.
type walk struct {
	r     *Resolver
	ctx   context.Context
	now   time.Time
	until time.Time
	stale error
}

// unfold is RFC 3263 4.1 and 4.2.
func (w *walk) unfold(q Query) ([]Endpoint, error) {
	if ip, err := netip.ParseAddr(q.Host); err == nil {
		t := cmp.Or(q.Transport, first(q.Supported))
		return []Endpoint{{netip.AddrPortFrom(ip, uint16(cmp.Or(q.Port, defaultPort(t)))), t, 0, 1}}, nil
	}
	if q.Port != 0 { // a port is an answer to what SRV would be asked
		t := cmp.Or(q.Transport, first(q.Supported))
		return w.addresses(q.Host, q.Port, t, 0, 1)
	}
	if q.Transport != "" {
		return w.services(srvName(q.Transport, q.Host), q.Host, q.Transport)
	}
	rrs, err := w.ask(q.Host, dns.TypeNAPTR)
	if err != nil && !errors.Is(err, ErrNone) {
		return nil, err
	}
	for _, n := range naptrs(rrs, q.Supported) {
		eps, err := w.services(n.replacement, "", n.transport)
		if err == nil || !errors.Is(err, ErrNone) {
			return eps, err
		}
	}
	for _, t := range q.Supported { // no NAPTR that we can use: SRV by preference
		eps, err := w.services(srvName(t, q.Host), "", t)
		if err == nil || !errors.Is(err, ErrNone) {
			return eps, err
		}
	}
	t := first(q.Supported)
	return w.addresses(q.Host, defaultPort(t), t, 0, 1)
}

func first(s []string) string {
	if len(s) == 0 {
		return "udp"
	}
	return s[0]
}

func defaultPort(transport string) int {
	if transport == "tls" {
		return 5061
	}
	return 5060
}

// srvName is the SRV record of a transport (RFC 3263 4.1).
func srvName(transport, host string) string {
	switch transport {
	case "tls":
		return "_sips._tcp." + host
	case "tcp":
		return "_sip._tcp." + host
	}
	return "_sip._udp." + host
}

type naptr struct {
	order, preference uint16
	transport         string
	replacement       string
}

// naptrs are the usable ones, best first: flag s, a service we speak (RFC 3263 4.1).
func naptrs(rrs []dns.RR, supported []string) []naptr {
	service := map[string]string{"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
	var out []naptr
	for _, rr := range rrs {
		n, ok := rr.(*dns.NAPTR)
		if !ok || !strings.EqualFold(n.Flags, "s") {
			continue
		}
		t := service[strings.ToUpper(n.Service)]
		if slices.Contains(supported, t) && n.Replacement != "." {
			out = append(out, naptr{n.Order, n.Preference, t, n.Replacement})
		}
	}
	slices.SortStableFunc(out, func(a, b naptr) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.preference, b.preference))
	})
	return out
}

// services asks SRV; with none there and a fallback, its addresses at the default port.
func (w *walk) services(name, fallback, transport string) ([]Endpoint, error) {
	rrs, err := w.ask(name, dns.TypeSRV)
	if errors.Is(err, ErrNone) && fallback != "" {
		return w.addresses(fallback, defaultPort(transport), transport, 0, 1)
	}
	if err != nil {
		return nil, err
	}
	var out []Endpoint
	var failed error
	for _, rr := range rrs {
		s, ok := rr.(*dns.SRV)
		if !ok || s.Target == "." || s.Port == 0 { // "." : decidedly not offered here (RFC 2782)
			continue
		}
		eps, err := w.addresses(s.Target, int(s.Port), transport, int(s.Priority), int(s.Weight))
		if err != nil {
			failed = err // one dead host must not take the others with it
			continue
		}
		out = append(out, eps...)
	}
	if len(out) == 0 {
		return nil, cmp.Or(failed, fmt.Errorf("%s: %w", name, ErrNone))
	}
	return out[:min(len(out), maxRecords)], nil
}

// addresses asks A and AAAA. With both there is one endpoint each, IPv4 first.
func (w *walk) addresses(host string, port int, transport string, priority, weight int) ([]Endpoint, error) {
	var out []Endpoint
	var failed error
	for _, qt := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if w.r.family == 4 && qt == dns.TypeAAAA || w.r.family == 6 && qt == dns.TypeA {
			continue
		}
		rrs, err := w.ask(host, qt)
		if err != nil {
			failed = err
			continue
		}
		for _, rr := range rrs {
			var ip netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				ip, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				ip, _ = netip.AddrFromSlice(rr.AAAA)
			}
			if ip = ip.Unmap(); ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() {
				out = append(out, Endpoint{netip.AddrPortFrom(ip, uint16(port)), transport, priority, weight})
			}
		}
	}
	if len(out) == 0 {
		return nil, cmp.Or(failed, fmt.Errorf("%s: %w", host, ErrNone))
	}
	return out[:min(len(out), maxRecords)], nil
}

// ask is one question, from the cache while its answer holds. No such name and no such
// record are ErrNone.
func (w *walk) ask(name string, qtype uint16) ([]dns.RR, error) {
	q := question{strings.ToLower(dns.Fqdn(name)), qtype}
	w.r.mu.Lock()
	got, ok := w.r.cache[q]
	w.r.mu.Unlock()
	if !ok || !w.now.Before(got.until) {
		rrs, ttl, err := w.r.exchange(w.ctx, q)
		switch {
		case err == nil:
			got = record{rrs, w.now.Add(ttl)}
			w.r.keep(w.now, q, got)
		case ok && w.now.Before(got.until.Add(maxStale)):
			got.until, w.stale = w.now.Add(retryTTL), err
		default:
			return nil, err
		}
	}
	if got.until.Before(w.until) {
		w.until = got.until
	}
	if len(got.rrs) == 0 {
		return nil, fmt.Errorf("%s: %w", name, ErrNone)
	}
	return got.rrs, nil
}

// keep puts a record into the cache and takes out what nobody may use any more.
func (r *Resolver) keep(now time.Time, q question, got record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, old := range r.cache {
		if !now.Before(old.until.Add(maxStale)) {
			delete(r.cache, k)
		}
	}
	r.cache[q] = got
}

// exchange asks the servers in turn; an answer cut short over UDP is asked for over TCP.
func (r *Resolver) exchange(ctx context.Context, q question) (rrs []dns.RR, ttl time.Duration, err error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.qtype)
	m.SetEdns0(1232, false)
	for _, server := range r.servers {
		var in *dns.Msg
		for _, network := range []string{"udp", "tcp"} {
			c := dns.Client{Net: network, Timeout: 2 * time.Second}
			if in, _, err = c.ExchangeContext(ctx, m, server); err != nil || !in.Truncated {
				break
			}
		}
		switch {
		case err != nil:
			err = fmt.Errorf("resolve: %s: %w", strings.TrimSuffix(q.name, "."), err)
			continue
		case in.Rcode == dns.RcodeNameError:
			return nil, negative(in), nil
		case in.Rcode != dns.RcodeSuccess:
			err = fmt.Errorf("resolve: %s: %s", strings.TrimSuffix(q.name, "."), dns.RcodeToString[in.Rcode])
			continue
		}
		ttl = maxTTL
		for _, rr := range in.Answer { // a CNAME on the way has a TTL too
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
			if rr.Header().Rrtype == q.qtype && len(rrs) < maxRecords {
				rrs = append(rrs, rr)
			}
		}
		if len(rrs) == 0 {
			return nil, negative(in), nil
		}
		return rrs, max(ttl, minTTL), nil
	}
	return nil, 0, err
}

// negative is how long "there is none" holds (RFC 2308 5).
func negative(in *dns.Msg) time.Duration {
	for _, rr := range in.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			ttl := time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			return min(max(ttl, minTTL), 5*time.Minute)
		}
	}
	return time.Minute
}

// Literal answers a query whose host is an address: no DNS is asked.
func Literal(q Query) (Answer, error) {
	eps, err := (&walk{}).unfold(q)
	return Answer{Endpoints: eps}, err
}
