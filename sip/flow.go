package sip

import (
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/register"
)

// The flow of a ue is what it has to its P-CSCF: a connection, or only the belief that there
// is somebody (RFC 5626). When it is lost the registration is made again at once, there or at
// the next P-CSCF, and calls wait for that:
//
//	connection closed, or not to be made   → the same P-CSCF once more, then the next
//	no answer at all to an INVITE          → the next
//	no pong from one that has ponged       → the next
//
// Over UDP only an INVITE shows it, and the refresh.

// flowCheck is how often the connection to the P-CSCF is looked for: sipgo does not tell that
// one was closed.
const flowCheck = 500 * time.Millisecond

// pongWait is how long a pong may take (RFC 5626 §4.4.1).
const pongWait = 10 * time.Second

// flowLost says that the flow over a hop was lost; any but a ue's to its P-CSCF does not count.
func (a *attachment) flowLost(hop, why string, mute bool) {
	if a.reg == nil || a.ctx.Err() != nil {
		return
	}
	_, addr := splitHop(hop, "")
	a.reg.Lose(register.Loss{Target: addr, At: time.Now(), Mute: mute, Why: "P-CSCF lost: " + why})
}

// checkFlow looks for the connection to the P-CSCF we are registered with.
func (a *attachment) checkFlow() {
	r := a.reg.State()
	if a.o.Transport == "udp" || r.State != register.Registered || r.Target == "" {
		return
	}
	at := time.Now()
	c, err := a.stack.TransportLayer().GetConnection(a.o.Transport, r.Target)
	if err != nil {
		a.reg.Lose(register.Loss{Target: r.Target, At: at, Why: "P-CSCF lost: connection closed"})
		return
	}
	_, _ = c.TryClose()
}

// awaitPong notices that a P-CSCF does not answer a ping. One that never has does not know
// RFC 5626, and may be well.
func (a *attachment) awaitPong(t *target, pinged time.Time) {
	if a.reg == nil || !t.ponged.Load() {
		return
	}
	time.AfterFunc(min(pongWait, a.o.KeepAlive), a.safely(func() {
		if t.heard.Load() < pinged.UnixNano() {
			a.flowLost(t.hop, "no answer to a ping", true)
		}
	}))
}

// onRead is told of every read from a stream: anything is a sign of life, a single CRLF alone
// a pong.
func (a *attachment) onRead(info sipgo.TransportReadProps, data []byte) {
	t := a.current.Load()
	if t == nil || info.RemoteAddr.String() != t.addr() {
		return
	}
	t.heard.Store(time.Now().UnixNano())
	if string(data) == "\r\n" {
		t.ponged.Store(true)
	}
}

// listenFor waits for the first sign of an answer to the INVITE of a ue's call.
func (c *call) listenFor(req *sipgo.Request) {
	if c.a.reg == nil || c.in != nil || !req.IsInvite() || req.To().Params.Has("tag") {
		return
	}
	hop := hopOf(req)
	c.unheard.stop()
	c.unheard = &unheard{seq: req.CSeq().SeqNo, timer: time.AfterFunc(c.a.failoverAfter(hop), c.a.safely(func() {
		c.a.flowLost(hop, "no answer to an INVITE", true)
	}))}
}

// unheard is an INVITE outside a dialog that has not been answered by anything yet.
type unheard struct {
	seq   uint32
	timer *time.Timer
}

func (u *unheard) stop() {
	if u != nil {
		u.timer.Stop()
	}
}

// heardOf takes what a response to the INVITE of a ue's call says of the P-CSCF.
func (c *call) heardOf(res *sipgo.Response) {
	u := c.unheard
	if seq := res.CSeq(); u == nil || c.target == nil || seq == nil || seq.MethodName != sipgo.INVITE || seq.SeqNo != u.seq {
		return
	}
	u.stop()
	c.a.judge(c.target, res)
}

// judge takes what the answer of a peer to a new call says of its load.
func (a *attachment) judge(t *target, res *sipgo.Response) {
	a.heed(t, res)
	if wait, ok := retryAfter(res); res.StatusCode == 503 && ok && wait > 0 {
		a.suspend(t, wait)
	}
}

// rest is until when the P-CSCF wants no calls; zero: it takes them. a.mu is held.
func (a *attachment) rest() time.Time {
	if t := a.current.Load(); a.reg != nil && t != nil && t.health.state == "suspended" {
		return t.health.until
	}
	return time.Time{}
}

// restUntil is rest for who has no lock.
func (a *attachment) restUntil() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rest()
}
