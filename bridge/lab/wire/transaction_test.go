package wire

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const patience = 10 * time.Second

func listen(t *testing.T, o Options) *Endpoint {
	t.Helper()
	e, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// far is a bare UDP peer.
type far struct {
	t *testing.T
	c *net.UDPConn
}

func newFar(t *testing.T) *far {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &far{t, c}
}

func (f *far) target() Target {
	return Target{Proto: "UDP", Addr: f.c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (f *far) read() *Message {
	f.t.Helper()
	buf := make([]byte, MaxMessage)
	_ = f.c.SetReadDeadline(time.Now().Add(patience))
	n, err := f.c.Read(buf)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := Parse(buf[:n])
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

func (f *far) send(e *Endpoint, m *Message) {
	f.t.Helper()
	if _, err := f.c.WriteToUDPAddrPort(m.Bytes(), e.Addr()); err != nil {
		f.t.Fatal(err)
	}
}

// next skips retransmissions until a method comes.
func (f *far) next(method string) *Message {
	f.t.Helper()
	for {
		if m := f.read(); m.Method == method {
			return m
		}
	}
}

func newRequest(method string) *Message {
	m := &Message{Method: method, URI: "sip:b@192.0.2.1"}
	m.Add("From", "<sip:a@x>;tag=1")
	m.Add("To", "<sip:b@x>")
	m.Add("Call-ID", Token(4))
	m.Add("CSeq", "1 "+method)
	return m
}

type outcome struct {
	status int
	err    error
}

// start runs a client transaction and hands out what it reports.
func start(e *Endpoint, m *Message, to Target) (*ClientTx, chan outcome) {
	ch := make(chan outcome, 50)
	var tx *ClientTx
	_ = e.Do(func() {
		tx = e.Request(m, to, func(r *Message, err error) {
			o := outcome{err: err}
			if r != nil {
				o.status = r.Status
			}
			ch <- o
		})
	})
	return tx, ch
}

func take(t *testing.T, ch chan outcome) outcome {
	t.Helper()
	select {
	case o := <-ch:
		return o
	case <-time.After(patience):
		t.Fatal("nothing was reported")
		return outcome{}
	}
}

func TestClientRepeatsUntilAnsweredAndAcknowledges(t *testing.T) {
	e := listen(t, Options{T1: 5 * time.Millisecond})
	f := newFar(t)
	_, got := start(e, newRequest("INVITE"), f.target())
	first := f.read()
	if again := f.read(); again.Get("Via") != first.Get("Via") {
		t.Errorf("a retransmission has another Via: %q, %q", first.Get("Via"), again.Get("Via"))
	}
	f.send(e, first.Reply(180, "", "t"))
	if o := take(t, got); o.status != 180 {
		t.Errorf("%+v", o)
	}
	for range 2 { // the second final stands for a lost ACK
		f.send(e, first.Reply(486, "", "t"))
		ack := f.next("ACK")
		if ack.Get("Via") != first.Get("Via") || ack.ToTag() != "t" || ack.Get("CSeq") != "1 ACK" {
			t.Errorf("ACK: %s", ack.Bytes())
		}
	}
	if o := take(t, got); o.status != 486 {
		t.Errorf("%+v", o)
	}
	if len(got) != 0 {
		t.Errorf("reported more: %+v", <-got)
	}
}

func TestClientPassesEvery2xxUp(t *testing.T) {
	e := listen(t, Options{T1: 200 * time.Millisecond})
	f := newFar(t)
	_, got := start(e, newRequest("INVITE"), f.target())
	m := f.read()
	for range 3 {
		f.send(e, m.Reply(200, "", "t"))
		if o := take(t, got); o.status != 200 {
			t.Errorf("%+v", o)
		}
	}
}

func TestClientGivesUp(t *testing.T) {
	e := listen(t, Options{T1: time.Millisecond})
	for _, method := range []string{"INVITE", "OPTIONS"} {
		_, got := start(e, newRequest(method), newFar(t).target())
		if o := take(t, got); !errors.Is(o.err, ErrTimeout) {
			t.Errorf("%s: %+v", method, o)
		}
	}
}

func TestCancelWaitsForAProvisionalResponse(t *testing.T) {
	e := listen(t, Options{T1: 100 * time.Millisecond})
	f := newFar(t)
	tx, got := start(e, newRequest("INVITE"), f.target())
	m := f.read()
	if err := e.Do(func() { tx.Cancel("SIP;cause=487") }); err != nil {
		t.Fatal(err)
	}
	if next := f.read(); next.Method != "INVITE" {
		t.Errorf("%s before any response", next.Method)
	}
	f.send(e, m.Reply(180, "", "t"))
	c := f.next("CANCEL")
	if c.Get("Via") != m.Get("Via") || c.Get("CSeq") != "1 CANCEL" || c.ToTag() != "" || c.Get("Reason") != "SIP;cause=487" {
		t.Errorf("CANCEL: %s", c.Bytes())
	}
	f.send(e, c.Reply(200, "", "t"))
	f.send(e, m.Reply(487, "", "t"))
	f.next("ACK")
	for _, want := range []int{180, 487} {
		if o := take(t, got); o.status != want {
			t.Errorf("%+v, want %d", o, want)
		}
	}
}

func TestServerAnswersRetransmissionsAndRepeatsFailures(t *testing.T) {
	requests := make(chan string, 10)
	e := listen(t, Options{T1: 10 * time.Millisecond, Request: func(tx *ServerTx) {
		requests <- tx.Req.Method
		tx.Respond(tx.Req.Reply(486, "", "t"))
	}})
	f := newFar(t)
	m := newRequest("INVITE")
	m.Prepend("Via", fmt.Sprintf("SIP/2.0/UDP %s;branch=%s;rport", f.c.LocalAddr(), Branch()))
	f.send(e, m)
	r := f.read()
	if r.Status != 486 || !strings.Contains(r.Get("Via"), fmt.Sprintf("rport=%d;received=127.0.0.1", f.target().Addr.Port())) {
		t.Errorf("%d, Via %q", r.Status, r.Get("Via"))
	}
	f.send(e, m) // ours
	f.read()     // to the retransmission, or timer G
	f.read()
	ack := newRequest("ACK")
	ack.Set("Call-ID", m.Get("Call-ID"))
	ack.Prepend("Via", m.Get("Via"))
	f.send(e, ack)
	if len(requests) != 1 {
		t.Errorf("the request was handed up %d times", len(requests))
	}
	c := newRequest("CANCEL")
	c.Prepend("Via", fmt.Sprintf("SIP/2.0/UDP %s;branch=%s", f.c.LocalAddr(), Branch()))
	f.send(e, c)
	for {
		r := f.read()
		if _, method := r.CSeq(); method == "CANCEL" {
			if r.Status != 481 {
				t.Errorf("CANCEL of nothing answered %d", r.Status)
			}
			return
		}
	}
}

func TestStreams(t *testing.T) {
	e := listen(t, Options{Request: func(tx *ServerTx) { tx.Respond(tx.Req.Reply(200, "", "t")) }})
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	m := newRequest("OPTIONS")
	m.Prepend("Via", "SIP/2.0/TCP 192.0.2.9;branch="+Branch())
	for _, part := range []string{"\r\n\r\n", string(m.Bytes()[:30]), string(m.Bytes()[30:])} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReader(c)
	if pong, err := r.ReadString('\n'); err != nil || pong != "\r\n" {
		t.Errorf("keep-alive answered %q %v", pong, err)
	}
	got, err := ReadMessage(r, nil)
	if err != nil || got.Status != 200 {
		t.Fatalf("%v %v", got, err)
	}
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection survives nonsense")
	}
}

func TestBrokenConnectionsFailWhatWaitsOnThem(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := listen(t, Options{})
	to := Target{Proto: "TCP", Addr: l.Addr().(*net.TCPAddr).AddrPort()}
	_, got := start(e, newRequest("OPTIONS"), to)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMessage(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if o := take(t, got); !errors.Is(o.err, ErrTransport) {
		t.Errorf("%+v", o)
	}
	l.Close()
	_, got = start(e, newRequest("OPTIONS"), to)
	if o := take(t, got); !errors.Is(o.err, ErrTransport) {
		t.Errorf("nobody listens: %+v", o)
	}
}

func TestClosedEndpoint(t *testing.T) {
	e := listen(t, Options{})
	e.Close()
	if err := e.Do(func() {}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	e.Close()
	if again, err := Listen(Options{Addr: e.Addr().String()}); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		again.Close()
	}
}
