package dialog

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// fork is one dialog the INVITE made: early from its first 18x with a tag, confirmed
// by its 2xx. Each has its own route set, target, CSeq and RSeq spaces (RFC 3261 12.1.2).
type fork struct {
	tag    string
	remote string   // To of every request in it, tag included
	target string   // remote target, refreshed by Contact
	route  []string // frozen at 2xx

	localSeq  uint32
	remoteSeq uint32 // 0: none seen yet
	updates   bool   // the peer allows UPDATE
	early
	ack  *sip.Request
	over bool // an early dialog that ended without BYE; a 2xx revives it
	gone bool // the peer said BYE, or we ended it
}

// early is what an INVITE of ours, or a re-INVITE, has settled in a dialog before its final
// answer.
type early struct {
	rseq    uint32 // last reliable 18x acknowledged
	ours    []byte // our last description, as the owner gave it
	wire    []byte // and as it left
	theirs  []byte // the peer's, binding: it came in a reliable 18x, or with an UPDATE since; nil: our offer waits
	updated bool   // by an UPDATE: ours is not the INVITE's offer any more
	offered bool   // theirs is an offer, and ours the answer
	preview []byte // last description that does not bind
	waits   bool   // the peer's resources are not there yet
	owes    bool   // it waits to hear that our side is ready
	qosSeq  uint32 // CSeq of the UPDATE that says so
	qos     []byte // what that offers, as ours
	again   int    // 500 with Retry-After to it so far
}

// answer is what is told of it: the peer's description and, after an UPDATE, ours.
func (e *early) answer() (theirs, local []byte, offered bool) {
	if e.updated {
		local = e.ours
	}
	return e.theirs, local, e.offered
}

// unsettled is what has been settled in f of an INVITE of ours without final answer; nil:
// there is no such INVITE.
func (c *Call) unsettled(f *fork) *early {
	r := c.reoffer
	switch {
	case r != nil && r.sent && f == c.winner:
		return &r.early
	case c.in == nil && f != nil && f != c.winner:
		return &f.early
	}
	return nil
}

func (c *Call) sendInvite(retry *sip.Request) {
	var routes []string
	routes = append(routes, c.o.Routes...)
	req := c.newRequest(sip.INVITE, c.o.Target, routes, c.o.To, c.seq)
	add(req, "Contact", c.o.Contact)
	for _, h := range c.o.Headers {
		add(req, h.Name, h.Value)
	}
	add(req, "Supported", strings.Join(c.o.Supported, ", "))
	offer := c.o.Offer
	if c.o.Preconditions && c.does("precondition") && len(offer) > 0 {
		offer = offerQoS(offer, "optional")
		if c.o.RequirePreconditions {
			add(req, "Require", "precondition")
		}
	}
	if c.o.SessionExpires > 0 && slices.Contains(c.o.Supported, "timer") {
		add(req, "Session-Expires", deltaSeconds(c.o.SessionExpires))
		add(req, "Min-SE", deltaSeconds(c.o.MinSE))
	}
	add(req, "Allow", c.o.Allow)
	add(req, "Accept", "application/sdp, application/3gpp-ims+xml")
	add(req, "User-Agent", c.o.UserAgent)
	if retry != nil {
		for _, name := range []string{"Authorization", "Proxy-Authorization"} {
			for _, h := range retry.GetHeaders(name) {
				req.AppendHeader(sip.NewHeader(name, h.Value()))
			}
		}
	}
	c.inviteSDP = c.version(offer)
	setSDP(req, c.inviteSDP)
	c.invite, c.proceeding = req, false
	clear(c.forks) // answers to the refused INVITE made no dialog that lives
	c.do(Send{req})
}

func deltaSeconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func (c *Call) onResponse(res *sip.Response) {
	seq := res.CSeq()
	if seq == nil || c.proves(res) {
		return
	}
	switch seq.MethodName {
	case sip.INVITE:
		if seq.SeqNo == c.seq && c.in == nil {
			c.onInviteResponse(res)
		} else if seq.SeqNo > c.seq {
			c.onReofferResponse(res)
		} // an INVITE we have repeated with credentials: its answer has been dealt with
	case sip.PRACK:
		f := c.forks[toTag(res)]
		switch {
		case f == nil || c.hang != nil || c.ended || res.StatusCode < 200:
		case res.StatusCode == 481 && f != c.winner:
			c.forkOver(f)
		default:
			if e := c.unsettled(f); e != nil && e.owes {
				c.sendQoS(f, e)
			}
		}
	case sip.UPDATE:
		if f := c.forks[toTag(res)]; f != nil {
			if e := c.ourQoS(f, seq.SeqNo); e != nil {
				c.onQoSResponse(f, e, res)
				return
			}
		}
		c.onRefreshResponse(seq.SeqNo, res.StatusCode, res)
	case sip.BYE:
		if res.StatusCode >= 200 {
			c.onByeResponse(res)
		}
	case sip.CANCEL: // 200 or 481: the INVITE's own answer decides
	default:
		c.asked(seq.SeqNo, res)
	}
}

// onInviteResponse is the figure of RFC 3261 5 and 17.1.1 as the TU sees it.
func (c *Call) onInviteResponse(res *sip.Response) {
	switch code := res.StatusCode; {
	case code < 200:
		c.onProvisional(res)
	case code < 300:
		c.onSuccess(res)
	default:
		c.onFailure(res)
	}
}

func (c *Call) onProvisional(res *sip.Response) {
	c.progressed = c.progressed || res.StatusCode > 100
	if c.winner != nil || c.cancelSent {
		return // late; the 2xx or the CANCEL has settled it
	}
	first := !c.proceeding
	c.proceeding = true
	if c.hang != nil {
		if first {
			c.sendCancel()
		}
		return
	}
	if res.StatusCode == 100 || c.ended {
		return
	}
	if res.StatusCode == 199 { // RFC 6228: this fork is over
		if f := c.forks[toTag(res)]; f != nil && !f.over {
			if lists(res, "Require", "100rel") {
				c.prack(f, &f.early, c.seq, res)
			}
			c.forkOver(f)
		}
		return
	}
	f := c.fork(res)
	if f != nil && f.over {
		return // overtaken by what ended it
	}
	reliable := false
	if f != nil && lists(res, "Require", "100rel") {
		if reliable = c.prack(f, &f.early, c.seq, res); !reliable {
			return // a retransmission or a gap: not to be processed (RFC 3262 4)
		}
	}
	if f != nil {
		f.hear(res)
	}
	if c.at[timerRing].IsZero() {
		c.stop(timerSetup)
		c.arm(timerRing, c.o.Ring)
	}
	if f != nil && c.describes(&f.early, res, reliable) {
		if f.waits && !c.rang {
			c.arm(timerQoS, preconditionLimit)
		}
		c.emit(Answer{SDP: f.preview, EarlyMedia: value(res, "P-Early-Media")})
	}
	if res.StatusCode == 180 && !c.rang {
		c.rang = true
		c.stop(timerQoS) // whatever it waited for, it rings
		c.arm(timerRing, c.o.Ring)
		c.emit(Ringing{})
	}
}

// describes takes the description in a 18x, where there has been no binding one. It reports
// whether it is new.
func (c *Call) describes(e *early, res *sip.Response, reliable bool) bool {
	sdp := SDP(res)
	if sdp == nil || e.theirs != nil {
		return false
	}
	if reliable {
		e.theirs = sdp // binding: a description in the 2xx is then ignored
		e.owes = c.owesQoS(sdp)
		e.waits = c.does("precondition") && unmet(sdp)
	}
	news := !bytes.Equal(sdp, e.preview) // an unreliable 18x is repeated for ever
	e.preview = sdp
	return news
}

// maxForks bounds the dialogs that are kept of one INVITE.
const maxForks = 32

// fork finds or makes the dialog of a response. A 1xx without tag makes none. The
// number of forks is bounded: a peer that invents tags gets no memory for them. A 2xx
// takes the place of one that only rings; where all have answered it is not kept, and
// each copy of it is acknowledged and ended anew.
func (c *Call) fork(res *sip.Response) *fork {
	tag := toTag(res)
	f := c.forks[tag]
	if f == nil {
		full := len(c.forks) >= maxForks
		if res.StatusCode < 200 && (tag == "" || full) {
			return nil
		}
		f = &fork{tag: tag, localSeq: c.seq, target: c.o.Target, remote: value(res, "To"),
			early: early{ours: c.o.Offer, wire: c.inviteSDP}}
		f.hear(res)
		if !full || c.evict() {
			c.forks[tag] = f
		}
		c.setRoute(f, res)
	}
	return f
}

// hear takes what a response to the INVITE, no copy of one, says of the far end.
func (f *fork) hear(res *sip.Response) {
	if t := AddrSpec(value(res, "Contact")); t != "" {
		f.target = t
	}
	if hs := res.GetHeaders("Allow"); len(hs) > 0 {
		f.updates = lists(res, "Allow", "UPDATE")
	}
}

// evict forgets a dialog that has not answered.
func (c *Call) evict() bool {
	for tag, f := range c.forks {
		if f.ack == nil {
			delete(c.forks, tag)
			return true
		}
	}
	return false
}

// forkOver ends an early dialog: the peer said 199, or knows nothing of it any more. The
// call goes on with the others, or waits for another or a final answer. What the dialog
// has agreed is kept: should somebody have answered there after all, he is heard.
func (c *Call) forkOver(f *fork) {
	f.over, f.owes, f.qosSeq = true, false, 0
	c.bearers(&f.early, nil)
}

// setRoute takes the route set from Record-Route in reverse (RFC 3261 12.1.2).
func (c *Call) setRoute(f *fork, res *sip.Response) {
	f.route = Values(res, "Record-Route")
	slices.Reverse(f.route)
}

// prack acknowledges a reliable provisional response to the INVITE with CSeq seq (RFC 3262
// 4). It reports whether the response is new: a retransmission is left to the PRACK
// transaction, a gap is ignored until what is missing comes.
func (c *Call) prack(f *fork, e *early, seq uint32, res *sip.Response) bool {
	n, err := strconv.ParseUint(value(res, "RSeq"), 10, 32)
	if err != nil || n == 0 || (e.rseq != 0 && uint32(n) != e.rseq+1) {
		return false
	}
	e.rseq = uint32(n)
	f.localSeq++
	req := c.inDialog(f, sip.PRACK, f.localSeq)
	add(req, "RAck", strconv.FormatUint(n, 10)+" "+strconv.FormatUint(uint64(seq), 10)+" INVITE")
	req.SetBody(nil)
	c.send(req, 0)
	return true
}

// onSuccess treats every 2xx: the first makes the call, a retransmission gets its ACK
// again, and that of any other fork, or one too late, an ACK and a BYE.
func (c *Call) onSuccess(res *sip.Response) {
	c.proceeding = true
	f := c.fork(res)
	f.over = false
	if f.ack != nil {
		c.do(Ack{f.ack})
		return
	}
	f.hear(res)
	c.setRoute(f, res) // recomputed, then frozen (RFC 3261 13.2.2.4)
	f.ack = c.inDialog(f, sip.ACK, c.seq)
	f.ack.SetBody(nil)
	c.do(Ack{f.ack})
	c.linger()
	f.concluded(res)
	switch {
	case c.hang != nil && !c.ended: // the 200 crossed our CANCEL
		c.bye(f, c.hang.reason)
		c.endHung(Ended{})
	case c.ended || c.winner != nil:
		if !f.gone {
			reason := `SIP;cause=487;text="answered elsewhere"`
			if c.hang != nil {
				reason = c.hang.reason
			}
			c.bye(f, reason)
		}
	case f.gone: // its BYE overtook its 200
		c.winner = f
		c.end(Ended{By: "remote"})
	case f.theirs == nil:
		c.winner = f
		c.byeAndEnd(f, hang{"remote", "no_sdp", `SIP;cause=488;text="no session description"`})
	default:
		c.winner = f
		c.stop(timerSetup, timerRing, timerQoS, timerQoSAgain)
		c.overtaken()
		c.settle(f.wire, f.theirs)
		a := Answer{Final: true}
		a.SDP, a.Local, a.Offered = f.answer()
		c.emit(a)
		c.up(Connected{Contact: value(res, "Contact"), Server: cmp.Or(value(res, "Server"), value(res, "User-Agent"))})
		c.agreeSession(res, true)
	}
}

// concluded takes the 2xx to the INVITE: its description, unless a binding one came before.
// Where that has none either, what was said unreliably was meant: only without any
// description there is no session.
func (e *early) concluded(res *sip.Response) {
	if e.theirs == nil {
		e.theirs = SDP(res)
	}
	if e.theirs == nil {
		e.theirs = e.preview
	}
}

// settle: both sides have agreed on these. Ours is what a refresh offers from now on, without
// what the peer has refused. theirs nil: as before.
func (c *Call) settle(ours, theirs []byte) {
	c.localSDP = withoutRefused(ours, theirs)
	if theirs != nil {
		c.remoteSDP = theirs
	}
}

// onFailure treats a final answer other than 2xx; the transaction has sent its ACK.
func (c *Call) onFailure(res *sip.Response) {
	if c.ended || c.winner != nil {
		return
	}
	if c.hang == nil && c.tryAgain(res) {
		return
	}
	e := Ended{By: "remote", Status: res.StatusCode, Phrase: res.Reason}
	e.readReasons(res)
	if res.StatusCode < 400 {
		e.Target = AddrSpec(value(res, "Contact"))
	}
	c.stop(timerLinger) // a final failure ends every fork
	if c.hang != nil {
		c.endHung(e)
		return
	}
	c.end(e)
}

// hangUp ends the call in the way its state needs.
func (c *Call) hangUp(h hang) {
	switch {
	case c.ended || c.hang != nil:
	case c.in != nil && !c.in.final:
		c.refuseInvite(480, nil, Ended{By: h.by, Why: h.why})
	case c.peer != nil && c.peer.initial: // BYE has to wait for the ACK (RFC 3261 15)
		c.hang = &h
		c.arm(timerGrace, c.o.Grace)
	case c.in == nil && c.invite == nil: // nothing was sent
		c.end(Ended{By: h.by, Why: h.why})
	case c.winner != nil:
		c.byeAndEnd(c.winner, h)
	default:
		c.hang = &h
		c.stop(timerSetup, timerRing, timerQoS, timerQoSAgain)
		c.arm(timerGrace, c.o.Grace)
		if c.proceeding {
			c.sendCancel()
		} // otherwise on the first 1xx (RFC 3261 9.1)
	}
}

func (c *Call) sendCancel() {
	c.cancelSent = true
	c.linger()
	c.do(Send{Cancel(c.invite, c.hang.reason, c.o.UserAgent)})
}

// Cancel is the CANCEL of an INVITE: its branch, its Route, its CSeq number, its To.
func Cancel(inv *sip.Request, reason, userAgent string) *sip.Request {
	req := sip.NewRequest(sip.CANCEL, *inv.Recipient.Clone())
	req.AppendHeader(inv.Via().Clone())
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	for _, h := range inv.GetHeaders("Route") {
		req.AppendHeader(sip.NewHeader("Route", h.Value()))
	}
	for _, name := range []string{"From", "To", "Call-ID"} {
		req.AppendHeader(sip.HeaderClone(inv.GetHeader(name)))
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: inv.CSeq().SeqNo, MethodName: sip.CANCEL})
	add(req, "Reason", reason)
	add(req, "User-Agent", userAgent)
	req.SetBody(nil)
	return req
}

func (c *Call) bye(f *fork, reason string) {
	f.gone = true
	f.localSeq++
	req := c.inDialog(f, sip.BYE, f.localSeq)
	c.byes = append(c.byes, branch(req))
	add(req, "Reason", reason)
	req.SetBody(nil)
	c.send(req, 0)
}

// onByeResponse takes the final answer to a BYE, which may come twice. One that is refused is
// over as well: there is no other way to say it. 481 is no refusal, there was nothing to end.
func (c *Call) onByeResponse(res *sip.Response) {
	if c.byeDone(res) && res.StatusCode >= 300 && res.StatusCode != 481 {
		c.do(ByeRefused{res})
	}
}

// byeDone: m is the BYE that got no answer, or the answer; false: not of one that is waited for.
func (c *Call) byeDone(m sip.Message) bool {
	b, n := branch(m), len(c.byes)
	c.byes = slices.DeleteFunc(c.byes, func(open string) bool { return open == b })
	return len(c.byes) < n
}

// byeAndEnd ends the dialog that was answered.
func (c *Call) byeAndEnd(f *fork, h hang) {
	if f == nil || c.ended {
		return
	}
	if !f.gone {
		c.bye(f, h.reason)
	}
	c.end(Ended{By: h.by, Why: h.why})
}

// endHung ends a call that we had given up, with what the far end said about it.
func (c *Call) endHung(e Ended) {
	h := c.hang
	if h == nil {
		return
	}
	e.By, e.Why = h.by, h.why
	c.end(e)
}

func (c *Call) onFailed(in Failed) {
	seq := in.Req.CSeq()
	delete(c.unanswered, branch(in.Req))
	switch {
	case seq == nil:
	case seq.MethodName == sip.BYE:
		c.byeDone(in.Req)
	case seq.MethodName == sip.UPDATE:
		if f := c.forks[toTag(in.Req)]; f != nil {
			if e := c.ourQoS(f, seq.SeqNo); e != nil {
				e.qosSeq = 0 // a refusal blocks nothing, nor does silence
				return
			}
		}
		if in.Timeout {
			c.onRefreshResponse(seq.SeqNo, 408, nil)
		} else {
			c.onRefreshResponse(seq.SeqNo, 503, nil)
		}
	case seq.MethodName == sip.INVITE && seq.SeqNo > c.seq:
		switch {
		case c.reoffer == nil || c.reoffer.seq != seq.SeqNo:
		case c.reoffer.proceeding: // as for the INVITE: see onInviteLost
		case in.Timeout:
			c.reofferDead()
		default: // no connection is no reason to end a call that talks
			c.reofferDone(503)
		}
	case seq.MethodName == sip.INVITE && seq.SeqNo == c.seq:
		c.onInviteLost(in.Timeout)
	default:
		c.asked(seq.SeqNo, nil)
	}
}

// onInviteLost: the INVITE's transaction is gone without a final answer. Once it was
// proceeding the answer may still come over another connection (RFC 3261 18.2.2), so
// only the call's own timers end it then. That holds for its timer B too, which has no
// place in that state (17.1.1.2) but stays armed in sipgo when the 1xx is faster than
// the code that arms it.
func (c *Call) onInviteLost(timeout bool) {
	switch {
	case c.winner != nil || c.ended:
	case c.proceeding:
	case c.hang != nil:
		c.endHung(Ended{})
	case timeout:
		c.end(Ended{By: "network", Why: "no_response"})
	default:
		c.end(Ended{By: "network", Why: "transport"})
	}
}
