package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// txState orders the states of RFC 3261 §17 as both sides pass through them.
type txState int

const (
	trying txState = iota
	proceeding
	completed // a final answer; INVITE failures wait for or repeat the ACK
	accepted  // INVITE with 2xx (RFC 6026 §7)
	terminated
)

// timer T2 and T4 (RFC 3261 §17.1.2.2).
const (
	t2 = 4 * time.Second
	t4 = 5 * time.Second
)

// ServerTx is one received request. All methods belong to the endpoint's loop.
type ServerTx struct {
	Req  *Message
	From Target
	// OnCancel is called when a CANCEL matched this INVITE and was answered 200.
	OnCancel func(cancel *Message)

	e        *Endpoint
	key      string
	state    txState
	last     []byte
	lastMsg  *Message
	interval time.Duration
	resend   *Timer
	sentBy   Target
}

// ClientTx is one sent request. All methods belong to the endpoint's loop.
type ClientTx struct {
	Req *Message

	e          *Endpoint
	to         Target
	key        string
	state      txState
	got        func(*Message, error)
	interval   time.Duration
	resend     *Timer
	giveUp     *Timer
	wantCancel *Message
	ack        []byte
}

// receive is the loop's entry for every message.
func (e *Endpoint) receive(m *Message, from Target) {
	if e.o.Trace != nil {
		e.o.Trace(false, from, m)
	}
	if e.o.Accept != nil && !e.o.Accept(m, from) {
		return
	}
	via, err := ParseVia(m.Get("Via"))
	if err != nil {
		e.log.Debug("message dropped", "from", from.Addr, "err", err)
		return
	}
	if m.Status > 0 {
		e.receiveResponse(m, via)
		return
	}
	stampVia(m, via, from.Addr)
	key := serverKey(m, via, m.Method)
	switch m.Method {
	case "ACK":
		if t := e.servers[serverKey(m, via, "INVITE")]; t != nil && t.state == completed {
			t.resend.Stop()
			t.e.After(t4, t.forget)
			t.state = terminated
			return
		} else if t != nil && t.state == terminated {
			return // a repeated ACK
		}
		if e.o.Ack != nil {
			e.o.Ack(m, from)
		}
		return
	case "CANCEL":
		e.receiveCancel(m, via, from, key)
		return
	}
	if t := e.servers[key]; t != nil { // retransmission
		if t.last != nil && t.state != accepted && t.state != terminated {
			_ = t.write(t.last)
		}
		return
	}
	t := e.newServer(m, via, from, key)
	if e.o.Request == nil {
		t.Respond(m.Reply(405, "", Token(4)))
		return
	}
	e.o.Request(t)
}

func (e *Endpoint) newServer(m *Message, via Via, from Target, key string) *ServerTx {
	t := &ServerTx{Req: m, From: from, e: e, key: key, interval: e.o.T1, sentBy: from}
	if ip, err := netip.ParseAddr(via.Host); err == nil {
		t.sentBy.Addr = netip.AddrPortFrom(ip.Unmap(), uint16(via.Port))
	}
	e.servers[key] = t
	return t
}

func (e *Endpoint) receiveCancel(m *Message, via Via, from Target, key string) {
	if t := e.servers[key]; t != nil {
		if t.last != nil {
			_ = t.write(t.last)
		}
		return
	}
	c := e.newServer(m, via, from, key)
	t := e.servers[serverKey(m, via, "INVITE")]
	if t == nil {
		c.Respond(m.Reply(481, "", Token(4)))
		return
	}
	c.Respond(m.Reply(200, "", Token(4)))
	if t.OnCancel != nil && t.state < completed {
		t.OnCancel(m)
	}
}

// stampVia notes in the top Via where a request really came from (RFC 3261 §18.2.1,
// RFC 3581 §4).
func stampVia(m *Message, via Via, from netip.AddrPort) {
	v := m.Get("Via")
	if p, ok := via.Params["rport"]; ok && p == "" {
		parts := splitOutside(v, ';')
		for i, s := range parts {
			if strings.EqualFold(s, "rport") || strings.EqualFold(s, "rport=") {
				parts[i] = fmt.Sprintf("rport=%d", from.Port())
			}
		}
		v = strings.Join(parts, ";") + ";received=" + from.Addr().String()
	} else if via.Host != from.Addr().String() {
		v += ";received=" + from.Addr().String()
	}
	for i, h := range m.Headers {
		if strings.EqualFold(h.Name, "Via") {
			m.Headers[i].Value = v
			return
		}
	}
}

// serverKey is RFC 3261 §17.2.3; an RFC 2543 branch is matched by the dialog's parts.
func serverKey(m *Message, via Via, method string) string {
	if b := via.Params["branch"]; strings.HasPrefix(b, "z9hG4bK") {
		return fmt.Sprintf("%s|%s:%d|%s", b, via.Host, via.Port, method)
	}
	n, _ := m.CSeq()
	return fmt.Sprintf("%s|%d|%s|%s", m.Get("Call-ID"), n, m.FromTag(), method)
}

// State of a server transaction that its owner asks for.
func (t *ServerTx) Answered() bool { return t.state >= completed }

// Respond sends a response. After a final one, others are ignored, except that a 2xx
// to an INVITE may be repeated (by the UA that owns it, or as a proxy gets it).
func (t *ServerTx) Respond(m *Message) {
	ok2xx := t.Req.Method == "INVITE" && m.Status/100 == 2
	if t.state >= completed && !(t.state == accepted && ok2xx) {
		return
	}
	t.last, t.lastMsg = m.Bytes(), m
	if t.e.o.Trace != nil {
		t.e.o.Trace(true, t.From, m)
	}
	if err := t.write(t.last); err != nil {
		t.e.log.Debug("response not sent", "status", m.Status, "err", err)
	}
	if m.Status < 200 {
		t.state = proceeding
		return
	}
	if t.state == accepted {
		return
	}
	if ok2xx {
		t.state = accepted
		t.e.After(64*t.e.o.T1, t.forget) // timer L
		return
	}
	t.state = completed
	if t.Req.Method == "INVITE" {
		t.e.After(64*t.e.o.T1, t.forget) // timer H
		if t.From.Proto == "UDP" {
			t.armG()
		}
		return
	}
	if t.From.Proto == "UDP" {
		t.e.After(64*t.e.o.T1, t.forget) // timer J
		return
	}
	t.forget()
}

// armG repeats a failure until its ACK comes (timer G).
func (t *ServerTx) armG() {
	t.resend = t.e.After(t.interval, func() {
		_ = t.write(t.last)
		t.interval = min(2*t.interval, t2)
		if t.state == completed {
			t.armG()
		}
	})
}

// write sends to where the request came from; a TCP connection that broke meanwhile is
// replaced by one to the sent-by address (RFC 3261 §18.2.2).
func (t *ServerTx) write(b []byte) error {
	if t.From.Proto == "TCP" && !t.From.Alive() {
		to := t.sentBy
		to.conn = nil
		return t.e.sendBytes(b, to)
	}
	return t.e.sendBytes(b, t.From)
}

func (t *ServerTx) forget() {
	t.resend.Stop()
	t.state = terminated
	if t.e.servers[t.key] == t {
		delete(t.e.servers, t.key)
	}
}

// Request sends m in a new client transaction and puts a Via before m's own. got is
// called for each response, for an INVITE also for each repeated 2xx, and at most once
// with an error (then nothing follows).
func (e *Endpoint) Request(m *Message, to Target, got func(*Message, error)) *ClientTx {
	branch := Branch()
	m.Prepend("Via", e.Via(to.Proto, branch))
	t := &ClientTx{Req: m, e: e, to: to, key: branch + "|" + m.Method, got: got, interval: e.o.T1}
	e.clients[t.key] = t
	if e.o.Trace != nil {
		e.o.Trace(true, to, m)
	}
	if err := e.sendBytes(m.Bytes(), to); err != nil {
		e.After(0, func() { t.end(err) }) // not from inside Request: the caller has no handle yet
		return t
	}
	t.giveUp = e.After(64*e.o.T1, func() { t.end(ErrTimeout) }) // timers B and F
	if to.Proto == "UDP" {
		t.armA()
	}
	return t
}

// armA repeats the request (timers A and E).
func (t *ClientTx) armA() {
	t.resend = t.e.After(t.interval, func() {
		if t.state >= completed {
			return
		}
		_ = t.e.sendBytes(t.Req.Bytes(), t.to)
		t.interval *= 2
		if t.Req.Method != "INVITE" {
			t.interval = min(t.interval, t2)
		}
		t.armA()
	})
}

// Cancel sends a CANCEL now or, as RFC 3261 §9.1 asks, after the first provisional
// response. reason may be "". The INVITE's own final answer still comes.
func (t *ClientTx) Cancel(reason string) {
	if t.Req.Method != "INVITE" || t.state >= completed || t.wantCancel != nil {
		return
	}
	c := &Message{Method: "CANCEL", URI: t.Req.URI}
	n, _ := t.Req.CSeq()
	c.Add("Via", t.Req.Get("Via"))
	c.Add("Max-Forwards", "70")
	for _, h := range t.Req.Headers {
		switch strings.ToLower(h.Name) {
		case "route", "from", "to", "call-id":
			c.Headers = append(c.Headers, h)
		}
	}
	c.Add("CSeq", fmt.Sprintf("%d CANCEL", n))
	if reason != "" {
		c.Add("Reason", reason)
	}
	t.wantCancel = c
	if t.state == proceeding {
		t.sendCancel()
	}
}

func (t *ClientTx) sendCancel() {
	c := &ClientTx{Req: t.wantCancel, e: t.e, to: t.to, got: func(*Message, error) {}, interval: t.e.o.T1}
	via, _ := ParseVia(t.Req.Get("Via"))
	c.key = via.Params["branch"] + "|CANCEL"
	t.e.clients[c.key] = c
	if t.e.o.Trace != nil {
		t.e.o.Trace(true, t.to, c.Req)
	}
	_ = t.e.sendBytes(c.Req.Bytes(), t.to)
	c.giveUp = t.e.After(64*t.e.o.T1, func() { c.end(ErrTimeout) })
	if t.to.Proto == "UDP" {
		c.armA()
	}
	// Nobody may wait for ever for a 487 that does not come.
	t.e.After(64*t.e.o.T1, func() { t.end(ErrTimeout) })
}

func (e *Endpoint) receiveResponse(m *Message, via Via) {
	_, method := m.CSeq()
	t := e.clients[via.Params["branch"]+"|"+method]
	if t == nil {
		if e.o.Stray != nil {
			e.o.Stray(m)
		}
		return
	}
	invite := t.Req.Method == "INVITE"
	switch {
	case t.state == accepted: // RFC 6026: every 2xx goes up
		if m.Status/100 == 2 {
			t.got(m, nil)
		}
	case t.state == completed:
		if invite && m.Status >= 300 {
			_ = e.sendBytes(t.ack, t.to)
		}
	case t.state == terminated:
	case m.Status < 200:
		t.state = proceeding
		if invite {
			t.resend.Stop()
			t.giveUp.Stop()
		}
		t.got(m, nil)
		if t.wantCancel != nil && t.state == proceeding && e.clients[via.Params["branch"]+"|CANCEL"] == nil {
			t.sendCancel()
		}
	case invite && m.Status < 300:
		t.stopTimers()
		t.state = accepted
		e.After(64*e.o.T1, t.forget) // timer M
		t.got(m, nil)
	default:
		t.stopTimers()
		t.state = completed
		keep := t4 // timer K
		if invite {
			t.sendAck(m)
			keep = 64 * e.o.T1 // timer D
		}
		if t.to.Proto == "TCP" {
			t.forget()
		} else {
			e.After(keep, t.forget)
		}
		t.got(m, nil)
	}
}

// sendAck acknowledges a failure (RFC 3261 §17.1.1.3).
func (t *ClientTx) sendAck(final *Message) {
	n, _ := t.Req.CSeq()
	a := &Message{Method: "ACK", URI: t.Req.URI}
	a.Add("Via", t.Req.Get("Via"))
	a.Add("Max-Forwards", "70")
	for _, h := range t.Req.Headers {
		switch strings.ToLower(h.Name) {
		case "route", "from", "call-id":
			a.Headers = append(a.Headers, h)
		}
	}
	a.Add("To", final.Get("To"))
	a.Add("CSeq", fmt.Sprintf("%d ACK", n))
	t.ack = a.Bytes()
	_ = t.e.Send(a, t.to)
}

// end gives up: nothing, or nothing more, came.
func (t *ClientTx) end(err error) {
	if t.state >= completed {
		return
	}
	t.stopTimers()
	t.forget()
	t.got(nil, err)
}

func (t *ClientTx) stopTimers() {
	t.resend.Stop()
	t.giveUp.Stop()
}

func (t *ClientTx) forget() {
	t.stopTimers()
	t.state = terminated
	if t.e.clients[t.key] == t {
		delete(t.e.clients, t.key)
	}
}
