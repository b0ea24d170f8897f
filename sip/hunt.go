package sip

import (
	"cmp"
	"slices"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

// hunt is how the INVITE of a trunk finds a peer that takes it:
//
//	INVITE → peer 1 ─nothing for 8·T1 (TCP 12·T1), no connection, 503→ peer 2 …
//
// Every try is the same INVITE with a branch of its own (RFC 3261 16.7 step 6 does so
// in a proxy). Once a peer has said more than 100 the call is its; what an earlier peer
// still says is CANCELled, or acknowledged and ended. The last peer is waited for as
// long as timer B says. A hunt belongs to its call's goroutine.
type hunt struct {
	req    *sipgo.Request  // the dialog's own; its Via names the try under way
	uri    string          // Request-URI of req
	tried  []*target       // where it has been
	now    *try            // nil before the first
	due    *time.Timer     // to when the next peer's rate allows
	tries  map[string]*try // by branch: at most two for each peer and repetition of the INVITE
	silent *time.Timer
	relit  bool // a connection that died under a try was replaced
}

// try is the INVITE at one peer.
type try struct {
	req       *sipgo.Request
	peer      *target
	heard     bool // any response
	early     bool // a provisional one above 100
	cancelled bool
}

// silence is posted when a try has waited long enough for its first response; turn when
// the rate of the next peer allows one.
type (
	silence struct{ try *try }
	turn    struct{ peer *target }
)

// failoverAfter is how long a peer may say nothing at all: 4 s on UDP, 6 s on TCP with
// the RFC's timers (IMS.md 1b), unless it is configured.
func (a *attachment) failoverAfter(hop string) time.Duration {
	if a.o.Failover > 0 {
		return a.o.Failover
	}
	t1 := cmp.Or(a.ua.o.T1, 500*time.Millisecond)
	if transport, _ := splitHop(hop, a.o.Transport); transport == "udp" {
		return 8 * t1
	}
	return 12 * t1
}

// hunts says whether req is the INVITE of a trunk call, which goes to any peer.
func (c *call) hunts(req *sipgo.Request) bool {
	return c.a.o.Mode != ModeUE && req.IsInvite() && !req.To().Params.Has("tag")
}

// sendHunting sends the dialog's INVITE: first to the peer that the pacer chose. Repeated
// with credentials, or with an extension less, it goes to the peer that asked for that.
func (c *call) sendHunting(req *sipgo.Request) {
	first := c.target
	switch {
	case c.hunt == nil:
		c.hunt = &hunt{tries: map[string]*try{}}
	case c.hunt.uri != req.Recipient.String(): // redirected: all peers may be asked again
		c.hunt.tried = nil
		if t := c.a.targetOf(req.Recipient); t != nil {
			c.a.moveTo(c, t)
			first = t
		} else if t := c.hunt.now; t != nil {
			first = t.peer
		}
	case c.hunt.now != nil:
		first = c.hunt.now.peer
	}
	c.hunt.uri = req.Recipient.String()
	c.hunt.req, c.hunt.now = req, nil
	if first != nil && c.try(first) || c.next() {
		return
	}
	c.post(dialog.Failed{Req: req})
}

// try sends the INVITE to a peer; false if it cannot be reached. A connection that had
// just died swallows one write, so there is a second.
func (c *call) try(peer *target) bool {
	h := c.hunt
	h.stop()
	again := h.now != nil
	if !slices.Contains(h.tried, peer) {
		h.tried = append(h.tried, peer)
	}
	for range 2 {
		if c.a.ctx.Err() != nil {
			return false
		}
		if again {
			setBranch(h.req, sipgo.RFC3261BranchMagicCookie+token())
		}
		again = true
		if c.a.o.Mode == ModeAS && len(c.inv.Routes) == 0 { // it names the S-CSCF that is tried
			h.req.ReplaceHeader(sipgo.NewHeader("Route", c.a.origRoute(peer.hop)))
		}
		t := &try{req: h.req.Clone(), peer: peer}
		tx, err := c.a.transact(c.a.ctx, t.req, peer.hop)
		if err != nil {
			c.a.log.Warn("peer not reached", "peer", peer.hop, "err", err)
			continue
		}
		branch, _ := t.req.Via().Params.Get("branch")
		h.now, h.tries[branch], c.hop = t, t, peer.hop
		c.listen(t.req, tx, false)
		h.silent = time.AfterFunc(c.a.failoverAfter(peer.hop), c.a.safely(func() { c.post(silence{t}) }))
		return true
	}
	if h.now != nil { // its CANCEL must still fit
		branch, _ := h.now.req.Via().Params.Get("branch")
		setBranch(h.req, branch)
	}
	return false
}

// next sends the INVITE to the best peer not tried yet, or waits until its rate allows;
// it says if there is one.
func (c *call) next() bool {
	for {
		peer, wait := c.a.reroute(c)
		if peer == nil {
			return false
		}
		c.hunt.stop()
		if wait > 0 {
			c.hunt.tried = append(c.hunt.tried, peer)
			c.hunt.due = time.AfterFunc(wait, c.a.safely(func() { c.post(turn{peer}) }))
			return true
		}
		if c.try(peer) {
			return true
		}
	}
}

// onTurn sends the INVITE that waited for its next peer's rate. Meanwhile nothing of it
// was under way: a call that was given up just ends.
func (c *call) onTurn(in turn) {
	if c.hunt.due == nil {
		return
	}
	c.hunt.due = nil
	if c.d.GivenUp() || !c.try(in.peer) && !c.next() {
		c.step(dialog.Failed{Req: c.hunt.req})
	}
}

// reroute takes the next peer for a call, and how long to wait for its rate.
func (a *attachment) reroute(c *call) (*target, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	t, at := a.pace.next(now, c.target, c.hunt.tried, failoverPatience)
	if t == nil {
		return nil, 0
	}
	c.target = t
	return t, at.Sub(now)
}

// repeatAfter is how long a call waits to repeat its INVITE.
func (a *attachment) repeatAfter(t *target) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	return a.pace.again(now, t).Sub(now)
}

// moveTo counts a call at another peer than the one it was counted at.
func (a *attachment) moveTo(c *call, t *target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pace.move(c.target, t)
	c.target = t
}

// failoverPatience is how long a call that was turned away waits for the rate of another
// peer: a carrier wants failover within 10 s.
const failoverPatience = 3 * time.Second

func setBranch(req *sipgo.Request, branch string) {
	req.Via().Params.Remove("branch")
	req.Via().Params.Add("branch", branch)
}

func (h *hunt) stop() {
	if h == nil {
		return
	}
	for _, t := range []*time.Timer{h.silent, h.due} {
		if t != nil {
			t.Stop()
		}
	}
}

// moveOn leaves the peer of the try under way, if there is another and the call is still
// wanted.
func (c *call) moveOn() bool {
	if c.d.GivenUp() || !c.next() {
		return false
	}
	c.step(dialog.Resent{})
	c.tell(Message{At: time.Now(), Sent: true, Summary: "INVITE"})
	return true
}

func (c *call) onSilence(s silence) {
	if h := c.hunt; h.now == s.try && h.due == nil && !s.try.heard {
		c.moveOn()
	}
}

// tryOf finds the try a message of an INVITE belongs to.
func (c *call) tryOf(m sipgo.Message) *try {
	if c.hunt == nil {
		return nil
	}
	via, seq := m.Via(), m.CSeq()
	if via == nil || seq == nil || seq.MethodName != sipgo.INVITE {
		return nil
	}
	branch, _ := via.Params.Get("branch")
	return c.hunt.tries[branch]
}

// onTryResponse sees a response before the dialog does; true keeps it from the dialog.
func (c *call) onTryResponse(res *sipgo.Response) bool {
	t := c.tryOf(res)
	if t == nil {
		return false
	}
	if t != c.hunt.now {
		c.late(t, res)
		return true
	}
	t.heard = true
	c.hunt.stop()
	if c.hunt.due != nil { // it has come to life while the next one's rate was waited for
		c.hunt.due = nil
		c.a.moveTo(c, t.peer)
	}
	t.early = t.early || (res.StatusCode > 100 && res.StatusCode < 200)
	c.a.judge(t.peer, res)
	return slices.Contains(c.a.o.FailoverOn, res.StatusCode) && !t.early && c.moveOn()
}

// onTryFailed is the same for a transaction that ended without a final response.
func (c *call) onTryFailed(in dialog.Failed) bool {
	t := c.tryOf(in.Req)
	if t == nil {
		return false
	}
	h := c.hunt
	if t == h.now && !t.heard && !in.Timeout && !h.relit {
		h.relit = true
		if !c.d.GivenUp() && c.try(t.peer) {
			c.step(dialog.Resent{})
			return true
		}
	}
	if t != h.now || h.due != nil || !t.heard && c.moveOn() {
		return true
	}
	c.step(dialog.Failed{Req: h.req, Timeout: in.Timeout})
	return true
}

// late is what a peer says whose try was given up. No CANCEL went there, since it had
// said nothing (RFC 3261 9.1); now it may.
func (c *call) late(t *try, res *sipgo.Response) {
	switch {
	case res.IsSuccess():
		c.a.dropAnswer(res, t.peer.hop)
	case res.IsProvisional() && !t.cancelled:
		t.cancelled = true
		cancel := dialog.Cancel(t.req, `SIP;cause=487;text="peer was too slow"`, c.a.ua.o.UserAgent)
		c.tell(Message{At: time.Now(), Sent: true, Summary: "CANCEL"})
		tx, err := c.a.transact(c.a.ctx, cancel, t.peer.hop)
		if err != nil {
			c.a.log.Warn("CANCEL not sent", "peer", t.peer.hop, "err", err)
			return
		}
		c.listen(cancel, tx, false)
	}
}
