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

	"sparkle/sip/dialog"
)

// IngressStats count what came to an attachment and was not taken in, since it opened.
type IngressStats struct {
	Strangers uint64 // datagrams and connections from addresses we do not know; messages in clear where a security agreement wants TLS
	Throttled uint64 // datagrams above a peer's rate, dropped
	Held      uint64 // reads of a TCP connection made to wait for its peer's rate
	Malformed uint64 // messages that are not SIP; those that could be answered count in Refused too
	Refused   uint64 // requests answered without a transaction: 400, 405, 505, and 401 after a wrong proof
	Shed      uint64 // requests answered 503 without a transaction: INVITEs above InviteRate, and what is too much at once
	Misled    uint64 // responses to requests that were not ours, and above a bound those to calls that are forgotten, dropped
	Passed    uint64 // requests over ISC that were for nobody here, sent on to the core
	Faults    uint64 // panics of ours, each the end of one message, call or subscription
}

// Add is the sum of two.
func (s IngressStats) Add(o IngressStats) IngressStats {
	return IngressStats{s.Strangers + o.Strangers, s.Throttled + o.Throttled, s.Held + o.Held, s.Malformed + o.Malformed,
		s.Refused + o.Refused, s.Shed + o.Shed, s.Misled + o.Misled, s.Passed + o.Passed, s.Faults + o.Faults}
}

// stats is what the attachment did not take in.
func (s *screen) stats() IngressStats {
	return IngressStats{s.peers.dropped.Load(), s.throttled.Load(), s.held.Load(), s.malformed.Load(), s.refused.Load(),
		s.shed.Load(), s.misled.Load(), s.passed.Load(), s.faults.Load()}
}

// screen sees every read before sipgo does, in the reader's goroutine, and passes on
// whole messages that sipgo will parse. It parses them a first time for that (some 10
// µs each, against the 20 calls a second of an attachment): what sipgo's parser
// refuses it drops in silence, and a peer would repeat it for 32 s; what makes it panic
// would take the daemon with it.
type screen struct {
	registers bool        // REGISTER is taken: third-party registration (ISC)
	sealed    bool        // what does not come over TLS may answer a REGISTER, and is nothing else
	shut      atomic.Bool // the sockets are about to close: what comes now is dropped
	peers     *peers
	parser    *sipgo.Parser
	rate      *limiter
	ctx       context.Context // ends the waiting of TCP readers
	reply     func(network string, to net.Addr, b []byte) error
	record    func(sipgo.TransportReadProps, []byte) // of what passes; nil: nobody wants it
	recordOwn func(sipgo.TransportReadProps, []byte) // of our answer, over UDP: what goes over a stream sipgo tells of
	// ours says whether a sent-by is what our requests have in Via; nil: whatever it is.
	ours func(host string, port int) bool
	// arrive is told of what passes, in the order it came; nil: nobody wants to know.
	arrive func(sipgo.TransportReadProps, sipgo.Message)
	// heard is told of every read from a stream of a known peer; nil: nobody wants to know.
	heard func(sipgo.TransportReadProps, []byte)
	// passes says whether a request goes on to others, whatever its method; nil: none does.
	passes func(*sipgo.Request) bool
	// offhand answers what needs no transaction; status 0 does not. nil: nothing does.
	offhand func(*sipgo.Request, netip.Addr) verdict
	// admit says whether a new INVITE of a peer can be taken; nil: all are.
	admit func(netip.Addr, *sipgo.Request) bool
	busy  heads // server transactions

	throttled, held, malformed, refused, shed, misled, passed, faults atomic.Uint64

	mu      sync.Mutex
	streams map[string]*stream // connections with an unfinished message, by both addresses
}

// stream is the beginning of a message on a TCP connection.
type stream struct {
	buf   []byte
	since time.Time // when its first octets came
}

// streamIdle is when sipgo gives up a connection of ours that says nothing: an older
// beginning has no connection any more. (Those of peers are given up long before.)
const streamIdle = 300 * time.Second

var errStream = errors.New("no message boundary to go on from")

func newScreen(ctx context.Context, p *peers, perSecond float64, reply func(string, net.Addr, []byte) error) *screen {
	return &screen{peers: p, parser: sipgo.NewParser(), rate: newLimiter(perSecond), ctx: ctx, reply: reply, streams: map[string]*stream{}}
}

// filter is sipgo's read filter. An error ends the listener of UDP, which must never
// happen, and the connection of TCP.
func (s *screen) filter(info sipgo.TransportReadProps, data []byte) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // sipgo's reader would take the process with it
			s.faults.Add(1)
			if out, err = nil, nil; !strings.EqualFold(info.Transport, "udp") {
				err = fmt.Errorf("front door: %v", p)
			}
		}
	}()
	if s.shut.Load() {
		return nil, nil
	}
	if !s.peers.trusts(info.RemoteAddr) {
		s.peers.dropped.Add(1)
		return nil, nil
	}
	if strings.EqualFold(info.Transport, "udp") {
		if isKeepAlive(data) {
			return nil, nil
		}
		// What begins something new stops before what belongs to a call that there is.
		spare := 0.25
		if inCourse(data) {
			spare = 0
		}
		if !s.rate.spend(time.Now(), addrOf(info.RemoteAddr), spare) {
			s.throttled.Add(1)
			return nil, nil
		}
		return s.pass(info, data), nil
	}
	if s.heard != nil {
		s.heard(info, data)
	}
	return s.stream(info, data)
}

// inCourse says whether a message belongs to something that was begun: a response, or a
// request of a method that begins nothing.
func inCourse(data []byte) bool {
	word, _, _ := bytes.Cut(data[:min(len(data), 16)], []byte(" "))
	switch string(word) {
	case "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "NOTIFY", "SIP/2.0":
		return true
	}
	return false
}

func isKeepAlive(data []byte) bool { return len(data) <= 4 && len(bytes.Trim(data, "\r\n\x00")) == 0 }

// pass is a message as sipgo will take it: see tidy. If it will not, nil: it has been answered
// where that is possible.
func (s *screen) pass(info sipgo.TransportReadProps, came []byte) []byte {
	data := tidy(came)
	r := readRaw(data)
	if s.sealed && !strings.EqualFold(info.Transport, "tls") && (r.request() || r.seqMethod() != "REGISTER") {
		s.peers.dropped.Add(1) // a P-CSCF that we have agreed with would not do so: who did is a stranger
		return nil
	}
	if len(r.headers) == maxRawHeaders || strings.EqualFold(info.Transport, "udp") && cutOff(r, data) {
		s.malformed.Add(1)
		s.refuse(info, r, 400, "Bad Request")
		return nil
	}
	if r.request() && !strings.EqualFold(r.version, "SIP/2.0") {
		s.refuse(info, r, 505, "Version Not Supported")
		return nil
	}
	// A CSeq of another method would find another request's transaction.
	m, err := s.parse(data)
	if err != nil || r.request() && r.seqMethod() != r.method {
		s.malformed.Add(1)
		if r.strange() { // what follows its scheme is nothing that we could judge
			s.refuse(info, r, 416, "Unsupported URI Scheme")
		} else {
			s.refuse(info, r, 400, "Bad Request")
		}
		return nil
	}
	req, ok := m.(*sipgo.Request)
	onward := ok && s.passes != nil && s.passes(req)
	if r.request() && !slices.Contains(methods, r.method) && !(s.registers && r.method == "REGISTER") && !(onward && r.method == strings.ToUpper(r.method)) {
		// Here and not in onRequest: sipgo folds the case of a method, in the answer too.
		s.refuse(info, r, 405, "Method Not Allowed", "Allow: "+allow)
		return nil
	}
	if !r.request() && s.ours != nil {
		// A response goes to who sent the request (RFC 3261 18.1.2). A 2xx to somebody
		// else's INVITE would make us send an ACK and a BYE.
		if host, port, ok := r.sentBy(); !ok || !s.ours(host, port) {
			s.misled.Add(1)
			return nil
		}
	}
	if r.request() && s.ours != nil {
		// It comes from us, says its Via: a loop. sipgo would answer over whatever connection
		// was opened last.
		if host, port, ok := r.sentBy(); ok && s.ours(host, port) {
			s.malformed.Add(1)
			s.refuse(info, r, 482, "Loop Detected")
			return nil
		}
	}
	from := addrOf(info.RemoteAddr)
	if ok && !onward && s.offhand != nil {
		if v := s.offhand(req, from); v.status != 0 {
			s.answer(info, r, came, v)
			return nil
		}
	}
	first := ok && !onward && req.IsInvite() && !req.To().Params.Has("tag")
	if first && s.admit != nil && !s.admit(from, req) || !s.mayBegin(from, r.method) {
		s.shed.Add(1)
		s.refuse(info, r, 503, "Service Unavailable", "Retry-After: "+overload().header.Value)
		return nil
	}
	if s.record != nil {
		s.record(info, came)
	}
	if s.arrive != nil {
		s.arrive(info, m)
	}
	return data
}

// cutOff says whether a datagram ends before its body does (RFC 3261 18.3).
func cutOff(r raw, data []byte) bool {
	n, err := strconv.ParseUint(r.first("content-length"), 10, 31)
	end := bytes.Index(data, []byte("\r\n\r\n"))
	return err == nil && end >= 0 && uint64(len(data)-end-4) < n
}

func (s *screen) parse(data []byte) (m sipgo.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("parser: %v", p)
		}
	}()
	m, err = s.parser.ParseSIP(data)
	if err != nil {
		return nil, err
	}
	if m.Via() == nil || m.From() == nil || m.To() == nil || m.CallID() == nil || m.CSeq() == nil {
		return nil, errors.New("a mandatory header is missing")
	}
	return m, nil
}

// refuse answers a request without a transaction (RFC 3261 8.2.7). It is sent to the
// address it came from, whatever its Via says of others.
func (s *screen) refuse(info sipgo.TransportReadProps, r raw, status int, phrase string, extra ...string) {
	if s.say(info, r, status, phrase, extra) != nil {
		s.refused.Add(1)
	}
}

// answer gives what offhand said of a message.
func (s *screen) answer(info sipgo.TransportReadProps, r raw, data []byte, v verdict) {
	asks := v.usual && len(v.ask) > 0 && s.record != nil
	if asks { // it is how the call begins
		s.record(info, data)
	}
	var lines []string
	for _, h := range v.headers() {
		lines = append(lines, h.Name+": "+h.Value)
	}
	res := s.say(info, r, v.status, dialog.Phrase(v.status), lines)
	if asks && res != nil && strings.EqualFold(info.Transport, "udp") {
		s.recordOwn(info, res)
	}
	if !v.usual {
		s.refused.Add(1)
	}
}

// say is the answer that left, nil if none did.
func (s *screen) say(info sipgo.TransportReadProps, r raw, status int, phrase string, extra []string) []byte {
	res, port, ok := r.response(info.RemoteAddr, status, phrase, extra)
	if !ok {
		return nil
	}
	to := info.RemoteAddr
	if u, udp := to.(*net.UDPAddr); udp && port != 0 {
		to = &net.UDPAddr{IP: u.IP, Zone: u.Zone, Port: port}
	}
	if s.reply(info.Transport, to, res) != nil {
		return nil
	}
	return res
}

// stream cuts what a TCP connection delivers into messages (RFC 3261 18.3).
func (s *screen) stream(info sipgo.TransportReadProps, data []byte) ([]byte, error) {
	key := info.LocalAddr.String() + "|" + info.RemoteAddr.String()
	now := time.Now()
	since := now
	s.mu.Lock()
	if st := s.streams[key]; st != nil {
		delete(s.streams, key)
		if now.Sub(st.since) < streamIdle {
			data, since = append(st.buf, data...), st.since
		}
	} else {
		data = bytes.Clone(data)
	}
	s.mu.Unlock()
	var out []byte
	for len(data) > 0 {
		if n := len(data) - len(bytes.TrimLeft(data, "\r\n")); n > 0 {
			// Keep-alives are sipgo's to answer; more than one ping at once is no keep-alive.
			if err := s.hold(info); err != nil {
				return nil, err
			}
			out, data = append(out, data[:min(n, 4)]...), data[n:]
		}
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
		if err := s.hold(info); err != nil {
			return nil, err
		}
		out = append(out, s.pass(info, data[:size:size])...)
		data, since = data[size:], now
	}
	if len(data) > 0 {
		s.keep(key, data, since)
	}
	return out, nil
}

// hold takes a token of a TCP peer and waits for it if need be: not reading is how TCP
// tells a peer to be slower.
func (s *screen) hold(info sipgo.TransportReadProps) error {
	wait := s.rate.take(time.Now(), addrOf(info.RemoteAddr), 1)
	if wait == 0 {
		return nil
	}
	s.held.Add(1)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// keep remembers the beginning of a message until the next read.
func (s *screen) keep(key string, data []byte, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, st := range s.streams { // at most one for each connection that stopped half-way
		if time.Since(st.since) >= streamIdle {
			delete(s.streams, k)
		}
	}
	s.streams[key] = &stream{data, since}
}

// begun is when the message began that a connection has sent a part of; zero if none.
func (s *screen) begun(c net.Conn) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[c.LocalAddr().String()+"|"+c.RemoteAddr().String()]; st != nil {
		return st.since
	}
	return time.Time{}
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

// maxTransactions bounds the server transactions of an attachment: over UDP sipgo keeps each
// for 32 s after its answer. One peer may have half of them.
const maxTransactions = 40_000

// mayBegin says whether a request may have one. What belongs to a call goes on a little longer.
func (s *screen) mayBegin(from netip.Addr, method string) bool {
	most := maxTransactions
	switch method {
	case "", "ACK": // has none
		return true
	case "BYE", "CANCEL", "PRACK", "UPDATE":
		most += most / 4
	}
	return s.busy.room(from, most, most/2)
}

// heads counts what peers hold, all and each.
type heads struct {
	mu    sync.Mutex
	total int
	of    map[netip.Addr]int
}

// room says whether there are fewer than most, and of who fewer than each.
func (h *heads) room(who netip.Addr, most, each int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total < most && h.of[who] < each
}

// enter counts one if there is room; leave must be called for it.
func (h *heads) enter(who netip.Addr, most, each int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total >= most || h.of[who] >= each {
		return false
	}
	if h.of == nil {
		h.of = map[netip.Addr]int{}
	}
	h.total++
	h.of[who]++
	return true
}

func (h *heads) leave(who netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total--
	if h.of[who]--; h.of[who] == 0 {
		delete(h.of, who)
	}
}

// share is what one rate leaves to each of those who use it: whoever comes beside others has
// an equal part, whatever they send. Together they may have a quarter more, or who comes late
// would find nothing left.
type share struct {
	rate, burst float64
	all         *limiter
	mu          sync.Mutex
	m           map[netip.Addr]*bucket
}

// shareFor is how long a peer counts who sends nothing more.
const shareFor = 2 * time.Second

func newShare(perSecond float64) *share {
	return &share{rate: perSecond, burst: 2 * perSecond, all: newLimiter(1.25 * perSecond), m: map[netip.Addr]*bucket{}}
}

// spend takes a token of the peer's part, if there is one.
func (s *share) spend(now time.Time, from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for who, b := range s.m {
		if who != from && now.Sub(b.at) > shareFor {
			delete(s.m, who)
		}
	}
	b := s.m[from]
	if b == nil && len(s.m) >= maxSharers {
		return false
	}
	n := float64(len(s.m))
	if b == nil {
		n++
		b = &bucket{max(1, s.burst/n), now}
		s.m[from] = b
	}
	b.tokens = min(max(1, s.burst/n), b.tokens+now.Sub(b.at).Seconds()*s.rate/n)
	b.at = now
	if b.tokens < 1 || !s.all.spend(now, netip.Addr{}, 0) {
		return false
	}
	b.tokens--
	return true
}

// maxSharers bounds the peers that count.
const maxSharers = 256

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
func (l *limiter) take(now time.Time, from netip.Addr, n float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.fill(now, from)
	b.tokens -= n
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / l.rate * float64(time.Second))
}

// spend takes a token if there is one, and of what a full bucket holds the part spare is
// left over.
func (l *limiter) spend(now time.Time, from netip.Addr, spare float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.fill(now, from)
	if b.tokens < 1+spare*l.burst {
		return false
	}
	b.tokens--
	return true
}

// fill is a peer's bucket as it is now.
func (l *limiter) fill(now time.Time, from netip.Addr) *bucket {
	b := l.m[from]
	if b == nil {
		if len(l.m) >= maxBuckets {
			clear(l.m) // everybody starts with a full bucket again
		}
		b = &bucket{l.burst, now}
		l.m[from] = b
	}
	b.tokens = min(l.burst, b.tokens+now.Sub(b.at).Seconds()*l.rate)
	b.at = now
	return b
}

// addrOf is the IP address of a peer; the zero Addr if it has none.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("")
}
