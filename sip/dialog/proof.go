package dialog

import (
	"slices"

	"github.com/emiago/sipgo/sip"
)

// Challenges within a dialog (RFC 3261 22). Some trunks want a proof with a BYE or a refresh as
// they did with the INVITE, and let a call go on, and charge for it, whose BYE has none. But
// who was called can ask for one just as well, and compute at leisure which password would have
// given it. So there is one proof a request, for the realm that asked about the INVITE, or
// Options.Realm; one more where its nonce was only too old; and none in a dialog that
// another began.

// unproven is a request of ours within a dialog that has no final answer.
type unproven struct {
	req    *sip.Request
	proofs int // in it, and in those it repeats
}

// send sends a request within a dialog, and keeps it as long as it may have to come again.
func (c *Call) send(req *sip.Request, proofs int) {
	if c.realm != "" {
		c.unanswered[branch(req)] = unproven{req, proofs}
	}
	c.do(Send{req})
}

// proves answers a challenge with the same request and a proof. It reports whether it has: then
// nobody else needs to know of res.
func (c *Call) proves(res *sip.Response) bool {
	u := c.unanswered[branch(res)]
	if u.req == nil || u.req.Method != res.CSeq().MethodName || res.StatusCode < 200 {
		return false
	}
	delete(c.unanswered, branch(res))
	f := c.forks[toTag(u.req)]
	if f == nil || res.StatusCode != 401 && res.StatusCode != 407 {
		return false
	}
	again := u.req.Clone()
	again.CSeq().SeqNo = f.localSeq + 1
	again.Via().Params.Add("branch", sip.RFC3261BranchMagicCookie+c.o.ID())
	ch, err := c.o.Authorize(again, res, c.realm)
	if err != nil || u.proofs > 0 && (u.proofs > 1 || !ch.Stale) || !c.replaces(f, u.req, again) {
		return false
	}
	f.localSeq++
	c.send(again, u.proofs+1)
	return true
}

// replaces puts again where the answer to req is waited for; false: it is not any more.
func (c *Call) replaces(f *fork, req, again *sip.Request) bool {
	old, seq := req.CSeq().SeqNo, again.CSeq().SeqNo
	over := c.ended || c.hang != nil || f.over
	switch req.Method {
	case sip.BYE:
		i := slices.Index(c.byes, branch(req))
		if i >= 0 {
			c.byes[i] = branch(again)
		}
		return i >= 0
	case sip.INVITE:
		r := c.reoffer
		if over || r == nil || r.seq != old || r.cancelled || r.theirs != nil { // what was agreed in it is void
			return false
		}
		r.seq, r.req, r.proceeding = seq, again, false
		r.early = early{ours: r.ours, wire: r.wire}
		return true
	case sip.UPDATE:
		e := c.ourQoS(f, old)
		switch {
		case over:
			return false
		case e != nil:
			e.qosSeq = seq
			return true
		case c.refresh == old:
			c.refresh = seq
			return true
		}
		return false
	case sip.PRACK:
		return !over
	}
	id, waits := c.asks[old]
	if waits {
		delete(c.asks, old)
		c.asks[seq] = id
	}
	return waits
}
