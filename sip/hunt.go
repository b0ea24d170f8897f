package sip

import (
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
	rest   []string        // peers not tried yet, best first
	now    *try            // nil before the first
	tries  map[string]*try // by branch: at most two for each peer and repetition of the INVITE
	silent *time.Timer
	relit  bool // a connection that died under a try was replaced
}

// try is the INVITE at one peer.
type try struct {
	req       *sipgo.Request
	peer      string
	heard     bool // any response
	early     bool // a provisional one above 100
	cancelled bool
}

// silence is posted when a try has waited long enough for its first response.
type silence struct{ try *try }

// failoverAfter is how long a peer may say nothing at all: 4 s on UDP, 6 s on TCP with
// the RFC's timers (IMS.md 1b).
func (a *attachment) failoverAfter() time.Duration {
	t1 := a.ua.o.T1
	if t1 == 0 {
		t1 = 500 * time.Millisecond
	}
	if a.o.Transport == "udp" {
		return 8 * t1
	}
	return 12 * t1
}

// hunts says whether req is the INVITE of a trunk call, which goes to any peer.
func (c *call) hunts(req *sipgo.Request) bool {
	return c.a.o.Mode == ModeTrunk && req.IsInvite() && !req.To().Params.Has("tag")
}

// sendHunting sends the dialog's INVITE. Repeated with credentials, or with an
// extension less, it goes first to the peer that asked for that.
func (c *call) sendHunting(req *sipgo.Request) {
	if c.hunt == nil {
		c.hunt = &hunt{rest: c.a.candidates(), tries: map[string]*try{}}
	} else if t := c.hunt.now; t != nil {
		c.hunt.rest = append([]string{t.peer}, c.hunt.rest...)
	}
	c.hunt.req, c.hunt.now = req, nil
	if !c.tryNext() {
		c.post(dialog.Failed{Req: req})
	}
}

// tryNext sends the INVITE to the next peer that can be reached, and says if there was one.
func (c *call) tryNext() bool {
	h := c.hunt
	h.stop()
	again := h.now != nil
	for len(h.rest) > 0 && c.a.ctx.Err() == nil {
		peer := h.rest[0]
		h.rest = h.rest[1:]
		// A connection that had just died swallows one write: that peer gets a second.
		for range 2 {
			if again {
				setBranch(h.req, sipgo.RFC3261BranchMagicCookie+token())
			}
			again = true
			t := &try{req: h.req.Clone(), peer: peer}
			c.a.prepare(t.req, peer)
			tx, err := c.a.client.TransactionRequest(c.a.ctx, t.req, asBuilt)
			if err != nil {
				c.a.log.Warn("peer not reached", "peer", peer, "err", err)
				continue
			}
			branch, _ := t.req.Via().Params.Get("branch")
			h.now, h.tries[branch], c.hop = t, t, peer
			c.listen(t.req, tx, false)
			if len(h.rest) > 0 {
				h.silent = time.AfterFunc(c.a.failoverAfter(), func() { c.post(silence{t}) })
			}
			return true
		}
	}
	if h.now != nil { // its CANCEL must still fit
		branch, _ := h.now.req.Via().Params.Get("branch")
		setBranch(h.req, branch)
	}
	return false
}

func setBranch(req *sipgo.Request, branch string) {
	req.Via().Params.Remove("branch")
	req.Via().Params.Add("branch", branch)
}

func (h *hunt) stop() {
	if h != nil && h.silent != nil {
		h.silent.Stop()
	}
}

// moveOn leaves the peer of the try under way, if another can be reached and the call
// is still wanted.
func (c *call) moveOn() bool {
	if len(c.hunt.rest) == 0 || c.d.GivenUp() || !c.tryNext() {
		return false
	}
	c.step(dialog.Resent{})
	c.tell(Message{At: time.Now(), Sent: true, Summary: "INVITE"})
	return true
}

func (c *call) onSilence(s silence) {
	if h := c.hunt; h.now == s.try && !s.try.heard {
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
	t.early = t.early || (res.StatusCode > 100 && res.StatusCode < 200)
	if res.StatusCode != 503 {
		return false
	}
	if wait, ok := retryAfter(res); ok && wait > 0 {
		c.a.suspend(t.peer, wait)
	}
	return !t.early && c.moveOn()
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
		h.rest = append([]string{t.peer}, h.rest...)
	}
	if t != h.now || !t.heard && c.moveOn() {
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
		c.a.dropAnswer(res, t.peer)
	case res.IsProvisional() && !t.cancelled:
		t.cancelled = true
		cancel := dialog.Cancel(t.req, `SIP;cause=487;text="peer was too slow"`, c.a.ua.o.UserAgent)
		c.tell(Message{At: time.Now(), Sent: true, Summary: "CANCEL"})
		c.a.prepare(cancel, t.peer)
		tx, err := c.a.client.TransactionRequest(c.a.ctx, cancel, asBuilt)
		if err != nil {
			c.a.log.Warn("CANCEL not sent", "peer", t.peer, "err", err)
			return
		}
		c.listen(cancel, tx, false)
	}
}
