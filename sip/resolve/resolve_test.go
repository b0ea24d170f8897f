package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a name server on loopback with a zone that a test changes.
type server struct {
	mu    sync.Mutex
	zone  []string
	rcode int
	fails string // the name that rcode is for; "": all
	asked map[string]int
	addr  string
}

func newServer(t *testing.T, zone ...string) *server {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{zone: zone, asked: map[string]int{}, addr: c.LocalAddr().String()}
	up := make(chan struct{})
	d := &dns.Server{PacketConn: c, Handler: s, NotifyStartedFunc: func() { close(up) }}
	done := make(chan struct{})
	go func() { defer close(done); _ = d.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = d.Shutdown(); <-done })
	return s
}

// times is how often it was asked for something.
func (s *server) times(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[what]
}

func (s *server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	name, rcode := q.Question[0].Name, s.rcode
	if s.fails != "" && s.fails != name {
		rcode = 0
	}
	m.Rcode = rcode
	s.asked[dns.TypeToString[q.Question[0].Qtype]+" "+name]++
	known := false
	for _, line := range s.zone {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		if rr.Header().Name != name {
			continue
		}
		known = true
		if rr.Header().Rrtype == q.Question[0].Qtype && rcode == 0 {
			m.Answer = append(m.Answer, rr)
		}
	}
	if !known && rcode == 0 {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

func (s *server) set(rcode int, zone ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode = rcode
	if zone != nil {
		s.zone = zone
	}
}

func (a Answer) String() string {
	var out []string
	for _, e := range a.Endpoints {
		out = append(out, fmt.Sprintf("%s/%s p%d w%d", e.Transport, e.Addr, e.Priority, e.Weight))
	}
	return strings.Join(out, ", ")
}

// A server that fails for one of several hosts takes nothing away: the host's last addresses hold.
func TestLastGoodOfAPart(t *testing.T) {
	s := newServer(t, `_sip._udp.x.example. 60 IN SRV 0 1 5060 a.x.example.`, `_sip._udp.x.example. 60 IN SRV 1 1 5070 b.x.example.`,
		`a.x.example. 60 IN A 192.0.2.1`, `b.x.example. 60 IN A 192.0.2.2`)
	r, err := New([]string{s.addr}, 4)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ask := func(after time.Duration) Answer {
		a, err := r.Lookup(context.Background(), now.Add(after), Query{Host: "x.example", Transport: "udp"})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	both := ask(0).String()
	s.mu.Lock()
	s.fails = "b.x.example."
	s.mu.Unlock()
	s.set(dns.RcodeServerFailure)
	a := ask(2 * time.Minute)
	if a.String() != both || a.Stale == nil || a.Until.Sub(now) != 2*time.Minute+retryTTL {
		t.Errorf("%s, stale %v, until %v; want %s", a, a.Stale, a.Until.Sub(now), both)
	}
	s.set(0, `_sip._udp.x.example. 60 IN SRV 0 1 5060 a.x.example.`, `_sip._udp.x.example. 60 IN SRV 1 1 5070 b.x.example.`, `a.x.example. 60 IN A 192.0.2.1`)
	if a = ask(4 * time.Minute); a.String() != "udp/192.0.2.1:5060 p0 w1" || a.Stale != nil {
		t.Errorf("when it is gone: %s, %v", a, a.Stale)
	}
	s.set(0, `_sip._udp.x.example. 60 IN SRV 0 1 5060 a.x.example.`, `a.x.example. 60 IN A 192.0.2.1`)
	for i := range 200 { // names that come and go are forgotten
		_, _ = r.Lookup(context.Background(), now.Add(5*time.Minute), Query{Host: fmt.Sprintf("n%d.example", i), Port: 5060, Transport: "udp"})
	}
	ask(26 * time.Hour)
	if n := len(r.cache); n > 4 {
		t.Errorf("%d records are kept", n)
	}
}

// RFC 3263 §4.1 and 4.2, one row a path.
func TestLookup(t *testing.T) {
	s := newServer(t,
		`full.example. 60 IN NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.full.example.`,
		`full.example. 60 IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.full.example.`,
		`full.example. 60 IN NAPTR 5 10 "s" "SIPS+D2T" "" _sips._tcp.full.example.`,
		`_sip._tcp.full.example. 60 IN SRV 10 3 5070 a.full.example.`,
		`_sip._tcp.full.example. 60 IN SRV 10 1 5070 b.full.example.`,
		`_sip._tcp.full.example. 60 IN SRV 20 1 5080 gone.full.example.`,
		`_sip._udp.full.example. 60 IN SRV 1 1 5060 a.full.example.`,
		`a.full.example. 60 IN A 192.0.2.1`, `b.full.example. 60 IN A 192.0.2.2`, `b.full.example. 60 IN AAAA 2001:db8::2`,
		`srv.example. 60 IN A 192.0.2.9`, `_sip._udp.srv.example. 60 IN SRV 1 0 5062 a.full.example.`,
		`plain.example. 60 IN A 192.0.2.7`,
		`no.example. 60 IN A 192.0.2.7`, `_sip._udp.no.example. 60 IN SRV 0 0 0 .`,
		`alias.example. 60 IN A 0.0.0.0`)
	r, err := New([]string{s.addr}, 0)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"tcp", "udp"}
	for _, tt := range []struct {
		q    Query
		want string
	}{
		{Query{Host: "full.example", Supported: both}, "tcp/192.0.2.1:5070 p10 w3, tcp/192.0.2.2:5070 p10 w1, tcp/[2001:db8::2]:5070 p10 w1"},
		{Query{Host: "full.example", Supported: []string{"udp"}}, "udp/192.0.2.1:5060 p1 w1"},
		{Query{Host: "full.example", Transport: "udp"}, "udp/192.0.2.1:5060 p1 w1"},
		{Query{Host: "full.example", Supported: []string{"tls"}}, ""},
		{Query{Host: "srv.example", Supported: both}, "udp/192.0.2.1:5062 p1 w0"},
		{Query{Host: "plain.example", Supported: both}, "tcp/192.0.2.7:5060 p0 w1"},
		{Query{Host: "plain.example", Transport: "tls"}, "tls/192.0.2.7:5061 p0 w1"},
		{Query{Host: "plain.example", Port: 5090, Transport: "udp"}, "udp/192.0.2.7:5090 p0 w1"},
		{Query{Host: "no.example", Transport: "udp"}, ""},
		{Query{Host: "alias.example", Port: 1, Transport: "udp"}, ""},
		{Query{Host: "nobody.example", Supported: both}, ""},
		{Query{Host: "192.0.2.3", Supported: both}, "tcp/192.0.2.3:5060 p0 w1"},
		{Query{Host: "2001:db8::1", Port: 7, Transport: "udp"}, "udp/[2001:db8::1]:7 p0 w1"},
	} {
		a, err := r.Lookup(t.Context(), time.Now(), tt.q)
		if a.String() != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrNone) {
			t.Errorf("%+v: %s, %v\nwant %s", tt.q, a, err, tt.want)
		}
	}
}

// Answers hold as long as their TTL; a failing DNS leaves the last good one; a name that
// is gone is gone.
func TestTTLAndLastGood(t *testing.T) {
	s := newServer(t, `x.example. 60 IN A 192.0.2.1`)
	r, err := New([]string{s.addr}, 4)
	if err != nil {
		t.Fatal(err)
	}
	q := Query{Host: "x.example", Port: 5060, Transport: "udp"}
	now := time.Now()
	ask := func(after time.Duration) (Answer, error) { return r.Lookup(context.Background(), now.Add(after), q) }
	a, err := ask(0)
	if err != nil || a.String() != "udp/192.0.2.1:5060 p0 w1" || a.Until != now.Add(time.Minute) {
		t.Fatalf("%s until %v, %v", a, a.Until.Sub(now), err)
	}
	s.set(0, `x.example. 60 IN A 192.0.2.2`)
	if a, _ = ask(59 * time.Second); a.String() != "udp/192.0.2.1:5060 p0 w1" || s.times("A x.example.") != 1 {
		t.Errorf("within the TTL: %s, asked %d times", a, s.times("A x.example."))
	}
	if a, _ = ask(61 * time.Second); a.String() != "udp/192.0.2.2:5060 p0 w1" {
		t.Errorf("after the TTL: %s", a)
	}
	s.set(dns.RcodeServerFailure)
	if a, err = ask(10 * time.Minute); err != nil || a.Stale == nil || !slices.Equal(a.Endpoints, []Endpoint{{a.Endpoints[0].Addr, "udp", 0, 1}}) || a.String() != "udp/192.0.2.2:5060 p0 w1" {
		t.Errorf("SERVFAIL: %s, stale %v, %v", a, a.Stale, err)
	}
	if a.Until.Sub(now) != 10*time.Minute+retryTTL {
		t.Errorf("asked again after %v", a.Until.Sub(now))
	}
	s.set(0, `y.example. 60 IN A 192.0.2.2`)
	if a, err = ask(20 * time.Minute); !errors.Is(err, ErrNone) {
		t.Errorf("gone: %s, %v", a, err)
	}
}
