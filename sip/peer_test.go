package sip

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"
)

// Timers of sipgo's transactions are process-wide: a tenth of the RFC's keeps
// "nobody answers" at 3.2 s.
func TestMain(m *testing.M) {
	sipgo.SetTimers(50*time.Millisecond, 400*time.Millisecond, 500*time.Millisecond)
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const patience = 10 * time.Second // for what must come; far above what it takes

// peer is a scripted far end on raw sockets: it shares no code with the UA. It answers
// OPTIONS by itself; everything else waits for the test.
type peer struct {
	t    testing.TB
	net  string
	addr string
	in   chan message
	udp  net.PacketConn
	l    net.Listener

	registrar    atomic.Pointer[func(message)] // takes REGISTER; nil: it goes to in
	asked        atomic.Pointer[message]       // the newest OPTIONS
	pings, pongs atomic.Int32                  // CRLF CRLF that came; how many are answered

	mu    sync.Mutex
	conns []net.Conn
}

// message is a received SIP message with the way back.
type message struct {
	start string
	head  textproto.MIMEHeader
	order []string // header lines as they came
	body  string
	size  int
	write func(string)
	from  string // source address
}

func (m message) method() string { w, _, _ := strings.Cut(m.start, " "); return w }
func (m message) get(name string) string {
	return m.head.Get(name)
}

func newPeer(t testing.TB, network string) *peer {
	t.Helper()
	return newPeerAt(t, network, "127.0.0.1:0")
}

func newPeerAt(t testing.TB, network, addr string) *peer {
	t.Helper()
	p := &peer{t: t, net: network, in: make(chan message, 256)}
	if network == "udp" {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		p.udp, p.addr = c, c.LocalAddr().String()
		go p.serveUDP(c)
		return p
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.drop() }) // registered before the UA's: runs after it
	p.addr, p.l = l.Addr().String(), l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			go p.serveConn(c)
		}
	}()
	return p
}

// die closes the TCP listener and every connection.
func (p *peer) die() {
	p.l.Close()
	p.drop()
}

// drop closes every TCP connection to this peer.
func (p *peer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *peer) serveUDP(c net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := readMessage(bufio.NewReader(strings.NewReader(string(buf[:n]))))
		if err != nil {
			continue
		}
		m.size, m.from = n, from.String()
		m.write = func(s string) { _, _ = c.WriteTo([]byte(s), from) }
		p.take(m)
	}
}

func (p *peer) serveConn(c net.Conn) {
	r := bufio.NewReader(pinged{c, p})
	for {
		m, err := readMessage(r)
		if err != nil {
			return
		}
		m.from = c.RemoteAddr().String()
		m.write = func(s string) { _, _ = io.WriteString(c, s) }
		p.take(m)
	}
}

func (p *peer) take(m message) {
	if m.method() == "OPTIONS" {
		p.asked.Store(&m)
		m.write(answer(m, 200, "OK", "ot"))
		return
	}
	if f := p.registrar.Load(); f != nil && m.method() == "REGISTER" {
		(*f)(m)
		return
	}
	p.in <- m
}

// registers sets who takes REGISTER.
func (p *peer) registers(f func(message)) { p.registrar.Store(&f) }

// pinged is a connection that answers keep-alives (RFC 5626 3.5.1) as long as the peer may.
type pinged struct {
	net.Conn
	p *peer
}

func (c pinged) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if string(b[:n]) == "\r\n\r\n" {
		c.p.pings.Add(1)
		if c.p.pongs.Add(-1) >= 0 {
			_, _ = io.WriteString(c.Conn, "\r\n")
		}
	}
	return n, err
}

func readMessage(r *bufio.Reader) (message, error) {
	var m message
	tp := textproto.NewReader(r)
	for m.start == "" {
		line, err := tp.ReadLine()
		if err != nil {
			return m, err
		}
		m.start = line
	}
	m.head = textproto.MIMEHeader{}
	for {
		line, err := tp.ReadLine()
		if err != nil {
			return m, err
		}
		if line == "" {
			break
		}
		name, v, _ := strings.Cut(line, ":")
		m.head.Add(strings.TrimSpace(name), strings.TrimSpace(v))
		m.order = append(m.order, line)
	}
	n, _ := strconv.Atoi(m.get("Content-Length"))
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return m, err
	}
	m.body = string(body)
	return m, nil
}

// answer builds a response to m. extra are header lines; one that begins with "\n" is
// the body.
func answer(m message, status int, phrase, tag string, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", status, phrase)
	for _, v := range m.head["Via"] {
		fmt.Fprintf(&b, "Via: %s\r\n", v)
	}
	to := m.get("To")
	if tag != "" && !strings.Contains(to, "tag=") {
		to += ";tag=" + tag
	}
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\n", m.get("From"), to, m.get("Call-Id"), m.get("Cseq"))
	return finish(&b, extra)
}

func finish(b *strings.Builder, extra []string) string {
	body := ""
	for _, e := range extra {
		if rest, ok := strings.CutPrefix(e, "\n"); ok {
			body = rest
			continue
		}
		b.WriteString(e + "\r\n")
	}
	if body != "" && !strings.Contains(strings.Join(extra, ""), "Content-Type") {
		b.WriteString("Content-Type: application/sdp\r\n")
	}
	fmt.Fprintf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

// inDialog builds a request of the callee inside the dialog that inv and tag made.
func (p *peer) inDialog(inv message, tag, method string, seq int, extra ...string) string {
	contact := inv.get("Contact")
	uri := contact[strings.Index(contact, "<")+1 : strings.Index(contact, ">")]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK-%s-%d-%d;rport\r\nMax-Forwards: 70\r\n",
		method, uri, strings.ToUpper(p.net), p.addr, strings.ToLower(method), seq, time.Now().UnixNano())
	fmt.Fprintf(&b, "From: %s;tag=%s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n",
		inv.get("To"), tag, inv.get("From"), inv.get("Call-Id"), seq, method)
	return finish(&b, extra)
}

func (p *peer) contact() string {
	return "Contact: <sip:callee@" + p.addr + ";transport=" + p.net + ">"
}

// expect waits for the next message and wants it to be this method or status; copies
// of what was seen before (UDP retransmissions) are passed over.
func (p *peer) expect(want string) message {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-p.in:
			if got := m.method(); got == want || strings.HasPrefix(m.start, "SIP/2.0 "+want) {
				return m
			}
			if p.net == "udp" && m.method() != "BYE" && m.method() != "CANCEL" {
				continue
			}
			p.t.Fatalf("got %q, want %s", m.start, want)
		case <-timeout:
			p.t.Fatalf("no %s came", want)
		}
	}
}

// caller is a UA with one trunk attachment to p, which is up.
func newTrunk(t testing.TB, p *peer, edit ...func(*AttachmentOptions)) *UA {
	t.Helper()
	o := AttachmentOptions{Name: "t", Mode: ModeTrunk, Transport: p.net, LocalAddr: "127.0.0.1",
		Domain: "carrier.example", IMPU: "sip:+15550100@carrier.example", Targets: []string{p.addr}}
	for _, f := range edit {
		f(&o)
	}
	return newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond, T2: 400 * time.Millisecond})
}

func newUA(t testing.TB, o Options) *UA {
	t.Helper()
	return newUALogging(t, o, io.Discard)
}

// newUALogging is newUA with its log in w.
func newUALogging(t testing.TB, o Options, w io.Writer) *UA {
	t.Helper()
	ua, err := New(o, slog.New(slog.NewTextHandler(w, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = ua.Close(ctx)
	})
	up := make(chan struct{}, 16)
	ua.OnAttachment(func(s AttachmentState) {
		if s.Up {
			up <- struct{}{}
		}
	})
	for i, s := range ua.Attachments() {
		for !s.Up {
			select {
			case <-up:
			case <-time.After(patience):
				t.Fatalf("attachment %s is %s: %s", s.Name, s.State, s.LastError)
			}
			s = ua.Attachments()[i]
		}
	}
	return ua
}

// events collects what a call tells.
type events struct {
	t  testing.TB
	ch chan Event
}

func place(t testing.TB, ua *UA, edit ...func(*Invite)) (Call, *events) {
	t.Helper()
	ev := &events{t, make(chan Event, 1024)}
	inv := Invite{Number: "+15550123", Offer: []byte(offerSDP), Video: true, OnEvent: func(e Event) { ev.ch <- e }}
	for _, f := range edit {
		f(&inv)
	}
	c, err := ua.Invite(inv)
	if err != nil {
		t.Fatal(err)
	}
	return c, ev
}

// next waits for an event of type E; Message, Trying and Queued on the way are passed over.
func next[E Event](ev *events) E {
	ev.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-ev.ch:
			switch e := e.(type) {
			case E:
				return e
			case Message, Trying, Queued, Charging:
			default:
				var want E
				ev.t.Fatalf("got %#v, want %T", e, want)
			}
		case <-timeout:
			var want E
			ev.t.Fatalf("no %T came", want)
		}
	}
}

const (
	offerSDP  = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 97\r\na=rtpmap:97 AMR-WB/16000/1\r\n"
	answerSDP = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 41000 RTP/AVP 97\r\na=rtpmap:97 AMR-WB/16000/1\r\n"
)

// parseMessage reads a message that has come whole.
func parseMessage(text string) message {
	m, _ := readMessage(bufio.NewReader(strings.NewReader(text)))
	return m
}
