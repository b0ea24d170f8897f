package sip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// IngressStats count what an attachment did not take in, since it opened.
type IngressStats struct {
	Strangers uint64 // datagrams and connections from addresses we do not know
	Throttled uint64 // datagrams above a peer's rate, dropped
	Held      uint64 // reads of a TCP connection made to wait for its peer's rate
	Malformed uint64 // messages that are not SIP; those that could be answered count in Refused too
	Refused   uint64 // requests answered without a transaction: 400, 405, 505
}

// Ingress returns what an attachment did not take in.
func (ua *UA) Ingress(name string) (IngressStats, bool) {
	for _, a := range ua.atts {
		if a.o.Name == name {
			s := a.screen
			return IngressStats{s.peers.dropped.Load(), s.throttled.Load(), s.held.Load(), s.malformed.Load(), s.refused.Load()}, true
		}
	}
	return IngressStats{}, false
}

// screen sees every read before sipgo does, in the reader's goroutine, and passes on
// whole messages that sipgo will parse. It parses them a first time for that (some 10
// µs each, against the 20 calls a second of an attachment): what sipgo's parser
// refuses it drops in silence, and a peer would repeat it for 32 s; what makes it panic
// would take the daemon with it.
type screen struct {
	peers  *peers
	parser *sipgo.Parser
	rate   *limiter
	ctx    context.Context // ends the waiting of TCP readers
	reply  func(network string, to net.Addr, b []byte) error
	record func(sipgo.TransportReadProps, []byte) // of what passes; nil: nobody wants it

	throttled, held, malformed, refused atomic.Uint64

	mu      sync.Mutex
	streams map[string]*stream // connections with an unfinished message, by both addresses
}

// stream is the beginning of a message on a TCP connection.
type stream struct {
	buf  []byte
	seen time.Time
}

// streamIdle is when sipgo gives up a connection that says nothing: an older beginning
// has no connection any more.
const streamIdle = 300 * time.Second

var errStream = errors.New("no message boundary to go on from")

func newScreen(ctx context.Context, p *peers, perSecond float64, reply func(string, net.Addr, []byte) error) *screen {
	return &screen{peers: p, parser: sipgo.NewParser(), rate: newLimiter(perSecond), ctx: ctx, reply: reply, streams: map[string]*stream{}}
}

// filter is sipgo's read filter. An error ends the listener of UDP, which must never
// happen, and the connection of TCP.
func (s *screen) filter(info sipgo.TransportReadProps, data []byte) ([]byte, error) {
	if !s.peers.trusts(info.RemoteAddr) {
		s.peers.dropped.Add(1)
		return nil, nil
	}
	if strings.EqualFold(info.Transport, "udp") {
		if isKeepAlive(data) {
			return nil, nil
		}
		if wait := s.rate.take(time.Now(), info.RemoteAddr, 1); wait > 0 {
			s.rate.give(info.RemoteAddr, 1)
			s.throttled.Add(1)
			return nil, nil
		}
		if !s.pass(info, data) {
			return nil, nil
		}
		return data, nil
	}
	return s.stream(info, data)
}

func isKeepAlive(data []byte) bool { return len(data) <= 4 && len(bytes.Trim(data, "\r\n\x00")) == 0 }

// pass says whether sipgo will take this message. If not, it has been answered where
// that is possible.
func (s *screen) pass(info sipgo.TransportReadProps, data []byte) bool {
	r := readRaw(data)
	if r.request() && !strings.EqualFold(r.version, "SIP/2.0") {
		s.refuse(info, r, 505, "Version Not Supported")
		return false
	}
	// A CSeq of another method would find another request's transaction.
	if err := s.parse(data); err != nil || r.request() && r.seqMethod() != r.method {
		s.malformed.Add(1)
		s.refuse(info, r, 400, "Bad Request")
		return false
	}
	if r.request() && !slices.Contains(methods, r.method) {
		// Here and not in onRequest: sipgo folds the case of a method, in the answer too.
		s.refuse(info, r, 405, "Method Not Allowed", "Allow: "+allow)
		return false
	}
	if s.record != nil {
		s.record(info, data)
	}
	return true
}

func (s *screen) parse(data []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("parser: %v", p)
		}
	}()
	m, err := s.parser.ParseSIP(data)
	if err != nil {
		return err
	}
	if m.Via() == nil || m.From() == nil || m.To() == nil || m.CallID() == nil || m.CSeq() == nil {
		return errors.New("a mandatory header is missing")
	}
	return nil
}

// refuse answers a request without a transaction (RFC 3261 8.2.7). It is sent to the
// address it came from, whatever its Via says of others.
func (s *screen) refuse(info sipgo.TransportReadProps, r raw, status int, phrase string, extra ...string) {
	res, port, ok := r.response(info.RemoteAddr, status, phrase, extra)
	if !ok {
		return
	}
	to := info.RemoteAddr
	if u, udp := to.(*net.UDPAddr); udp && port != 0 {
		to = &net.UDPAddr{IP: u.IP, Zone: u.Zone, Port: port}
	}
	if s.reply(info.Transport, to, res) == nil {
		s.refused.Add(1)
	}
}

// stream cuts what a TCP connection delivers into messages (RFC 3261 18.3).
func (s *screen) stream(info sipgo.TransportReadProps, data []byte) ([]byte, error) {
	key := info.LocalAddr.String() + "|" + info.RemoteAddr.String()
	now := time.Now()
	s.mu.Lock()
	if st := s.streams[key]; st != nil {
		delete(s.streams, key)
		if now.Sub(st.seen) < streamIdle {
			data = append(st.buf, data...)
		}
	} else {
		data = bytes.Clone(data)
	}
	s.mu.Unlock()
	var out []byte
	for len(data) > 0 {
		n := len(data) - len(bytes.TrimLeft(data, "\r\n"))
		out, data = append(out, data[:n]...), data[n:] // keep-alives are sipgo's to answer
		size, err := frame(data)
		if err != nil || size > sipgo.ParseMaxMessageLength {
			s.malformed.Add(1)
			s.refuse(info, readRaw(data), 400, "Bad Request")
			return nil, errStream
		}
		if size < 0 || size > len(data) {
			if len(data) > sipgo.ParseMaxMessageLength {
				s.malformed.Add(1)
				return nil, errStream
			}
			break
		}
		if size == 0 {
			break
		}
		if wait := s.rate.take(now, info.RemoteAddr, 1); wait > 0 {
			// Not reading is how TCP tells a peer to be slower.
			s.held.Add(1)
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-s.ctx.Done():
				t.Stop()
				return nil, s.ctx.Err()
			}
		}
		if s.pass(info, data[:size]) {
			out = append(out, data[:size]...)
		}
		data = data[size:]
	}
	if len(data) > 0 {
		s.keep(key, data, now)
	}
	return out, nil
}

// keep remembers the beginning of a message until the next read.
func (s *screen) keep(key string, data []byte, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, st := range s.streams { // at most one for each connection that stopped half-way
		if now.Sub(st.seen) >= streamIdle {
			delete(s.streams, k)
		}
	}
	s.streams[key] = &stream{data, now}
}

// forget drops what a closed connection left unfinished.
func (s *screen) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, c.LocalAddr().String()+"|"+c.RemoteAddr().String())
}

// frame is the size of the message data begins with; -1 as long as its headers have
// not all come, 0 for no data. A message without exactly one sound Content-Length has
// no end on a stream.
func frame(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return -1, nil
	}
	length := -1
	for _, h := range readRaw(data[:end+4]).headers {
		if h.name != "content-length" {
			continue
		}
		n, err := strconv.ParseUint(h.value, 10, 31)
		if err != nil || length >= 0 {
			return 0, errStream
		}
		length = int(n)
	}
	if length < 0 {
		return 0, errStream
	}
	return end + 4 + length, nil
}

// limiter is a token bucket for each peer address.
type limiter struct {
	rate, burst float64
	mu          sync.Mutex
	m           map[netip.Addr]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// maxBuckets bounds the memory of a trusted network from which everybody sends.
const maxBuckets = 4096

func newLimiter(perSecond float64) *limiter {
	return &limiter{rate: perSecond, burst: 2 * perSecond, m: map[netip.Addr]*bucket{}}
}

// take takes n tokens and returns how long that is too early: 0 is in time.
func (l *limiter) take(now time.Time, from net.Addr, n float64) time.Duration {
	ip := addrOf(from)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.m[ip]
	if b == nil {
		if len(l.m) >= maxBuckets {
			clear(l.m) // everybody starts with a full bucket again
		}
		b = &bucket{l.burst, now}
		l.m[ip] = b
	}
	b.tokens = min(l.burst, b.tokens+now.Sub(b.at).Seconds()*l.rate) - n
	b.at = now
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / l.rate * float64(time.Second))
}

// give takes back what take took, for what was dropped.
func (l *limiter) give(from net.Addr, n float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.m[addrOf(from)]; b != nil {
		b.tokens += n
	}
}

func addrOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}
