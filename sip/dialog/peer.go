package dialog

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// peerOffer is an INVITE, re-INVITE, UPDATE or PRACK of the peer that we have not
// finished with:
//
//	INVITE:        see incoming; in here from its 2xx on
//	re-INVITE:     Offer → Reply → 2xx, again until ACK (T1, 2·T1 … T2; 64·T1) → done
//	UPDATE, PRACK: Offer → Reply → 2xx → done
type peerOffer struct {
	initial  bool // the INVITE that made the call
	id       uint64
	tx       any
	req      *sip.Request
	empty    bool          // it came without description: ours is the offer
	early    bool          // an INVITE of ours has no final answer yet
	res      *sip.Response // 2xx to an INVITE, waiting for its ACK
	interval time.Duration
	before   session // should a CANCEL prove faster than res
}

// session is what an offer and its answer settle.
type session struct {
	local, remote    []byte
	interval         time.Duration
	weRefresh, alone bool
}

func (c *Call) stands() session {
	return session{c.localSDP, c.remoteSDP, c.session, c.weRefresh, c.alone}
}

// restore goes on with what stood before.
func (c *Call) restore(s session) {
	c.localSDP, c.remoteSDP, c.session, c.weRefresh, c.alone = s.local, s.remote, s.interval, s.weRefresh, s.alone
	c.stop(timerRefresh, timerExpire)
	c.armSession()
}

func (c *Call) onRequest(in Request) {
	req := in.Req
	seq := req.CSeq()
	if seq == nil {
		return
	}
	f := c.forks[fromTag(req)]
	if req.Method == sip.ACK {
		c.onAck(f, req)
		return
	}
	if f == nil || toTag(req) != c.o.FromTag {
		c.respond(in.Tx, req, 481)
		return
	}
	// RFC 3261 12.2.2: a lower number is out of order. Equal means the same request by
	// another path: its transaction has not recognised it.
	switch {
	case f.remoteSeq != 0 && seq.SeqNo == f.remoteSeq:
		c.respond(in.Tx, req, 482)
		return
	case seq.SeqNo < f.remoteSeq:
		c.respond(in.Tx, req, 500)
		return
	}
	f.remoteSeq = seq.SeqNo
	if req.Method == sip.BYE {
		c.onBye(f, in)
		return
	}
	if c.usages > 0 && (req.Method == sip.SUBSCRIBE || req.Method == sip.NOTIFY) {
		c.onOther(in) // whether or not the call is over
		return
	}
	if c.ended || f.gone || f.over {
		c.respond(in.Tx, req, 481)
		return
	}
	switch req.Method {
	case sip.INVITE:
		if c.in != nil && !c.in.final { // RFC 3261 14.2
			c.retryLater(in.Tx, req)
			return
		}
		if f != c.winner {
			c.respond(in.Tx, req, 481) // a re-INVITE needs a confirmed dialog
			return
		}
		c.onPeerOffer(f, in)
	case sip.UPDATE:
		c.onPeerOffer(f, in)
	case sip.INFO:
		c.onInfo(in)
	case sip.OPTIONS:
		c.respond(in.Tx, req, 200)
	case sip.PRACK:
		c.onPrack(in)
	case sip.REFER, sip.SUBSCRIBE, sip.NOTIFY:
		if f != c.winner && c.in == nil {
			c.respond(in.Tx, req, 481) // a fork that may never be
			return
		}
		c.onOther(in)
	default:
		c.respond(in.Tx, req, 405)
	}
}

// response makes a response of this dialog, with what its status demands.
func (c *Call) response(req *sip.Request, status int) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, Phrase(status), nil)
	if status > 100 && res.To() != nil && tagOf(res.To().Params) != c.o.FromTag {
		res.To().Params.Remove("tag") // the INVITE that made the dialog had none of ours
		res.To().Params.Add("tag", c.o.FromTag)
	}
	switch status {
	case 180, 183:
		add(res, "Allow", c.o.Allow)
		add(res, "Contact", c.o.Contact)
	case 200:
		add(res, "Allow", c.o.Allow)
		if req.Method == sip.INVITE || req.Method == sip.UPDATE {
			add(res, "Contact", c.o.Contact)
			add(res, "Supported", strings.Join(c.o.Supported, ", "))
		}
		if req.Method == sip.OPTIONS {
			add(res, "Accept", "application/sdp")
			add(res, "Supported", strings.Join(c.o.Supported, ", "))
		}
	case 405:
		add(res, "Allow", c.o.Allow)
	case 415:
		add(res, "Accept", "application/dtmf-relay, application/sdp")
	case 422:
		add(res, "Min-SE", deltaSeconds(c.o.MinSE))
	}
	return res
}

func (c *Call) respond(tx any, req *sip.Request, status int) {
	c.do(Respond{Tx: tx, Res: c.response(req, status)})
}

func (c *Call) onBye(f *fork, in Request) {
	c.respond(in.Tx, in.Req, 200)
	f.gone = true
	if c.peer != nil && c.peer.initial { // it has our 2xx, whatever became of its ACK
		c.peer = nil
		c.stop(timerResend, timerNoAck)
	}
	if c.ended {
		return // it crossed ours
	}
	e := Ended{By: "remote"}
	e.readReasons(in.Req)
	switch {
	case c.in != nil && !c.in.final: // the caller may end an early dialog so (RFC 3261 15)
		c.refuseInvite(487, nil, e)
	case f != c.winner: // an early fork's BYE overtook its 2xx
	case c.hang != nil:
		c.endHung(e)
	default:
		c.end(e)
	}
}

// onInfo takes DTMF (application/dtmf-relay: "Signal=5"). An empty INFO is a probe.
func (c *Call) onInfo(in Request) {
	body := in.Req.Body()
	if len(body) == 0 {
		c.respond(in.Tx, in.Req, 200)
		return
	}
	kind, _, _ := strings.Cut(strings.ToLower(value(in.Req, "Content-Type")), ";")
	if strings.TrimSpace(kind) != "application/dtmf-relay" {
		c.respond(in.Tx, in.Req, 415)
		return
	}
	digit, ok := dtmf(string(body))
	if !ok {
		c.respond(in.Tx, in.Req, 400)
		return
	}
	c.respond(in.Tx, in.Req, 200)
	c.emit(Info{digit})
}

func dtmf(body string) (rune, bool) {
	for line := range strings.Lines(body) {
		name, v, ok := strings.Cut(line, "=")
		v = strings.ToUpper(strings.TrimSpace(v))
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "signal") {
			continue
		}
		switch { // some send the event number of RFC 4733
		case v == "10":
			return '*', true
		case v == "11":
			return '#', true
		case len(v) == 1 && strings.Contains("0123456789*#ABCD", v):
			return rune(v[0]), true
		}
		return 0, false
	}
	return 0, false
}

// onPeerOffer takes re-INVITE and UPDATE, with and without a description.
func (c *Call) onPeerOffer(f *fork, in Request) {
	req := in.Req
	sdp := SDP(req)
	offers := sdp != nil || req.Method == sip.INVITE
	if req.Method == sip.INVITE && c.peer != nil && c.peer.res != nil && !c.peer.empty {
		// Nobody sends an INVITE before he has the 2xx to his last: its ACK is late.
		c.acknowledged(c.peer, c.peer.req)
	}
	switch {
	case c.ended: // BYE had waited for that ACK
		c.respond(in.Tx, req, 481)
		return
	case len(req.Body()) > 0 && sdp == nil:
		c.respond(in.Tx, req, 415)
		return
	case tooShort(req, c.o.MinSE):
		c.respond(in.Tx, req, 422)
		return
	case req.Method == sip.INVITE && c.reoffer != nil && c.reoffer.sent:
		c.respond(in.Tx, req, 491) // glare (RFC 3261 14.2)
		return
	case offers && c.peer != nil && c.peer.res != nil && c.peer.empty, offers && c.ourOfferIsOut(f):
		c.respond(in.Tx, req, 491) // his answer to our offer comes first
		return
	case offers && (c.peer != nil || c.in != nil && !c.in.final && !c.in.described):
		c.retryLater(in.Tx, req) // it must wait for our answer to its first (RFC 3311 5.2)
		return
	}
	if t := AddrSpec(value(req, "Contact")); t != "" {
		f.target = t // target refresh (RFC 3261 12.2.2, RFC 3311 5.2)
	}
	if len(req.GetHeaders("Allow")) > 0 {
		f.updates = lists(req, "Allow", "UPDATE")
	}
	if !offers {
		res := c.response(req, 200)
		c.agreeRefresh(req, res)
		res.SetBody(nil)
		c.do(Respond{Tx: in.Tx, Res: res})
		return
	}
	c.offered(in, sdp)
}

// ourOfferIsOut says whether an offer of ours in f waits for its answer: that of the INVITE,
// of a re-INVITE, of a reliable 18x, or of an UPDATE (RFC 3311 5.2). A re-INVITE that only
// refreshes has nothing that a description could change before it is through.
func (c *Call) ourOfferIsOut(f *fork) bool {
	if r := c.reoffer; r != nil && r.sent {
		return r.theirs == nil || r.qosSeq != 0 || r.refresh
	}
	if c.in != nil {
		return !c.in.final && c.in.described && !c.in.answered && c.in.offer == nil
	}
	return f != c.winner && f.theirs == nil || f.qosSeq != 0
}

// offered hands the peer's offer to the owner. nil: the owner is to make one.
func (c *Call) offered(in Request, sdp []byte) {
	c.offerID++
	c.peer = &peerOffer{id: c.offerID, tx: in.Tx, req: in.Req, empty: sdp == nil}
	o := Offer{ID: c.offerID, SDP: sdp}
	if e := c.unsettled(c.forks[fromTag(in.Req)]); e != nil {
		c.peer.early, o.Early = true, true
		_, o.Local, _ = e.answer()
	}
	c.arm(timerReply, c.o.Reply)
	c.emit(o)
}

// overtaken: our INVITE has its final answer, and an UPDATE before it waits for a Reply that
// would come too late to be told of. It may come again.
func (c *Call) overtaken() {
	if p := c.peer; p != nil && p.early && p.res == nil {
		c.retryLater(p.tx, p.req)
		c.peer = nil
		c.stop(timerReply)
		c.lapse(p, 500)
	}
}

// lapse tells that an offer is through, by this status, and no Reply to it stands.
func (c *Call) lapse(p *peerOffer, status int) {
	if p.empty {
		c.emit(Reoffered{Offer: p.id, Status: status})
		return
	}
	c.emit(Replied{Offer: p.id})
}

// retryLater refuses what comes too early.
func (c *Call) retryLater(tx any, req *sip.Request) {
	res := c.response(req, 500)
	add(res, "Retry-After", "2")
	c.do(Respond{Tx: tx, Res: res})
}

func (c *Call) onReply(in Reply) {
	p := c.peer
	if p == nil || p.id != in.ID || p.res != nil {
		return // answered already, or too late, which has been told
	}
	if len(in.SDP) == 0 || in.Status >= 300 {
		status := in.Status
		if status < 300 || status > 699 {
			status = 488
		}
		c.refuse(status, in.Warning)
		return
	}
	c.stop(timerReply)
	outdated, before := !p.early && c.outdate(), c.stands()
	res := c.response(p.req, 200)
	if p.req.Method != sip.PRACK {
		c.agreeRefresh(p.req, res)
	}
	offer, said := SDP(p.req), in.SDP
	if c.does("precondition") {
		said = answerQoS(offer, said)
	}
	said = c.version(said)
	setSDP(res, said)
	if e := c.unsettled(c.forks[fromTag(p.req)]); e != nil { // it binds with the answer to our INVITE
		e.ours, e.wire, e.theirs, e.updated, e.offered = in.SDP, said, offer, true, true
	} else {
		c.settle(said, offer)
	}
	answer := Respond{Tx: p.tx, Res: res}
	if !p.empty {
		answer.Then = Replied{Offer: p.id, Used: true}
	}
	c.do(answer)
	if outdated { // behind Replied: the next offer is to be made for the session that stands now
		c.emit(Reoffered{Status: 491})
	}
	if p.req.Method != sip.INVITE {
		c.settleQoS(p.req)
		c.peerDone()
		return
	}
	p.res, p.interval, p.before = res, c.o.T1, before
	c.arm(timerResend, p.interval)
	c.arm(timerNoAck, 64*c.o.T1)
}

// outdate gives up an offer of ours that waits, after glare or for its turn: the peer's came
// between, and ours was made for the session before it. It reports whether there was one.
func (c *Call) outdate() bool {
	waits := c.queued != nil
	if r := c.reoffer; r != nil && !r.sent && !r.refresh {
		c.reoffer, waits = nil, true
		c.stop(timerGlare)
	}
	c.queued = nil
	return waits
}

// warnings are the texts of the Warning codes we give (RFC 3261 20.43).
var warnings = map[int]string{
	300: "Incompatible network protocol", 301: "Incompatible network address formats", 304: "Media type not available",
	305: "Incompatible media format", 399: "Session description not usable",
}

func (c *Call) warning(code int) Header {
	return Header{"Warning", fmt.Sprintf("%d %s %q", code, net.JoinHostPort(c.o.Host, strconv.Itoa(c.o.Port)), warnings[code])}
}

// refuse answers the waiting offer with a status; the session stays as it was.
func (c *Call) refuse(status, warning int) {
	p := c.peer
	if p == nil || p.res != nil {
		return
	}
	res := c.response(p.req, status)
	if warning != 0 {
		h := c.warning(warning)
		add(res, h.Name, h.Value)
	}
	c.do(Respond{Tx: p.tx, Res: res})
	c.stop(timerReply)
	c.peerDone()
}

// peerDone makes room for what waited behind the peer's offer.
func (c *Call) peerDone() {
	c.peer = nil
	if c.in != nil && !c.in.final {
		c.awaitQoS()
		c.proceed()
		return
	}
	c.proposeQueued()
}

// dropPeerOffer forgets the peer's offer when the call ends: 487 as for a CANCEL. Our
// 2xx to the INVITE that made the call goes on until its ACK.
func (c *Call) dropPeerOffer() {
	if c.peer == nil || c.peer.initial {
		return
	}
	if c.peer.res == nil {
		c.respond(c.peer.tx, c.peer.req, 487)
	}
	c.peer = nil
	c.stop(timerReply, timerResend, timerNoAck)
}

func (c *Call) resend2xx() {
	p := c.peer
	if p == nil || p.res == nil {
		return
	}
	c.do(Respond{Tx: p.tx, Res: p.res})
	p.interval = min(2*p.interval, c.o.T2)
	c.arm(timerResend, p.interval)
}

// onAck ends the retransmission of our 2xx. It is matched by the CSeq number of the
// INVITE it acknowledges, never by the dialog's newest.
func (c *Call) onAck(f *fork, ack *sip.Request) {
	p := c.peer
	if f == nil || f != c.winner || p == nil || p.res == nil || ack.CSeq().SeqNo != p.req.CSeq().SeqNo {
		return
	}
	c.acknowledged(p, ack)
}

func (c *Call) acknowledged(p *peerOffer, ack *sip.Request) {
	c.peer = nil
	c.stop(timerResend, timerNoAck)
	if p.initial {
		c.onFirstAck(p, ack)
		return
	}
	if p.empty {
		if sdp := SDP(ack); sdp != nil {
			c.settle(c.localSDP, sdp)
			c.emit(Reoffered{Offer: p.id, SDP: sdp, Status: 200})
		} else {
			c.emit(Reoffered{Offer: p.id, Status: 488}) // it acknowledged without answering
		}
	}
	c.proposeQueued()
}

// noAck: 64·T1 over and no ACK. The dialog is there all the same and has to be ended.
func (c *Call) noAck() {
	c.peer = nil
	c.stop(timerResend)
	h := hang{"timeout", "no_ack", `SIP;cause=408;text="no ACK"`}
	switch {
	case c.hang == nil:
		c.byeAndEnd(c.winner, h)
	case !c.winner.gone: // it was to be hung up anyway
		c.bye(c.winner, c.hang.reason)
		c.endHung(Ended{})
	}
}
