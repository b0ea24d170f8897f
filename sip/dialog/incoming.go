package dialog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// incoming is the INVITE that made this call, as its UAS sees it (RFC 3261 13.3):
//
//	100 ─Ring→ 180 ─Accept────────────────────────────→ 200 ─ACK→ confirmed
//	 │          │  └─ the offer waits for resources: 183 ─PRACK→ ─UPDATE→ 180 ─PRACK→ 200
//	 └──────────┴─ Reject, Hangup, CANCEL, BYE, timers → 3xx-6xx
//
// Where both sides do 100rel a 18x is reliable (RFC 3262 3): it is sent again until its
// PRACK comes, one at a time, and a 2xx waits for it. What the owner asked for waits in
// here until it may be said; see proceed.
type incoming struct {
	req   *sip.Request
	tx    any
	f     *fork
	offer []byte // nil: the offer is ours

	reliable bool // both sides do 100rel
	required bool // the caller wants every 18x reliable
	waits    bool // the caller's mandatory preconditions are not met yet (RFC 3312)

	ring, rung bool
	accept     *Accept
	described  bool // a description of ours went out in a reliable 18x
	answered   bool // offer and answer were exchanged in it
	final      bool // a final response went out

	rseq    uint32
	unacked *provisional
}

// provisional is a reliable 18x whose PRACK has not come.
type provisional struct {
	res      *sip.Response
	interval time.Duration
}

// preconditionLimit is how long a caller's bearer may take.
const preconditionLimit = 15 * time.Second

// NewIncoming makes the call that a peer's INVITE asks for. o says who we are; the
// dialog's identifiers come from req: its To, with o.FromTag, is us. Step(Start) says
// 100. The INVITE must have passed Refusal.
func NewIncoming(o Options, req *sip.Request, tx any) *Call {
	o.CallID, o.From = value(req, "Call-ID"), value(req, "To")
	o.To, o.Target, o.Routes, o.Offer = value(req, "From"), AddrSpec(value(req, "Contact")), nil, nil
	o.Realm = "" // it is another's dialog
	c := New(o)
	c.seq = 0
	f := &fork{tag: fromTag(req), remote: o.To, target: o.Target, route: Values(req, "Record-Route"),
		remoteSeq: req.CSeq().SeqNo, updates: lists(req, "Allow", "UPDATE")}
	c.forks[f.tag] = f
	in := &incoming{req: req, tx: tx, f: f, offer: SDP(req)}
	c.remoteSDP = in.offer
	in.required = lists(req, "Require", "100rel")
	in.reliable = c.does("100rel") && (in.required || lists(req, "Supported", "100rel"))
	in.waits = in.reliable && f.updates && c.usesQoS(req) && unmet(in.offer)
	in.rseq = uint32(c.o.Rand() * (1 << 30))
	c.in = in
	return c
}

// does says whether we have an extension on.
func (c *Call) does(tag string) bool { return slices.Contains(c.o.Supported, tag) }

// usesQoS says whether both sides know preconditions.
func (c *Call) usesQoS(req *sip.Request) bool {
	return c.does("precondition") && (lists(req, "Require", "precondition") || lists(req, "Supported", "precondition"))
}

// Refusal is what an INVITE outside a dialog is to be answered with because of its own
// headers; status 0: nothing speaks against it.
func Refusal(o Options, req *sip.Request) (status int, h Header) {
	if cs := Values(req, "Contact"); len(cs) != 1 || AddrSpec(cs[0]) == "" || cs[0] == "*" {
		return 400, Header{} // there would be nowhere to send a BYE to (RFC 3261 8.1.1.8)
	}
	var unknown []string
	for _, tag := range Values(req, "Require") {
		if tag = strings.ToLower(tag); (tag == "100rel" || tag == "precondition") && !slices.Contains(o.Supported, tag) {
			unknown = append(unknown, tag)
		}
	}
	if unknown != nil {
		return 420, Header{"Unsupported", strings.Join(unknown, ", ")}
	}
	if least := cmp.Or(o.MinSE, 90*time.Second); tooShort(req, least) {
		return 422, Header{"Min-SE", deltaSeconds(least)}
	}
	return 0, Header{}
}

// startIncoming says 100: whoever routed the call stops repeating it.
func (c *Call) startIncoming() {
	if c.in.final || !c.at[timerRing].IsZero() {
		return
	}
	c.do(Respond{Tx: c.in.tx, Res: c.response(c.in.req, 100)})
	c.arm(timerRing, c.o.Ring)
}

func (c *Call) onRing() {
	if c.in != nil && !c.in.ring {
		c.in.ring = true
		c.proceed()
	}
}

func (c *Call) onAccept(a Accept) {
	in := c.in
	if in == nil || in.final || in.accept != nil {
		return
	}
	if len(a.SDP) == 0 {
		c.refuseInvite(488, nil, Ended{By: "local", Why: "no_sdp"})
		return
	}
	in.accept = &a
	c.o.Contact = cmp.Or(a.Contact, c.o.Contact)
	c.proceed()
}

func (c *Call) onReject(r Reject) {
	if c.in == nil || c.in.final {
		return
	}
	if r.Status < 300 || r.Status > 699 {
		r.Status = 480
	}
	if r.Warning != 0 {
		r.Headers = append(r.Headers, c.warning(r.Warning))
	}
	c.refuseInvite(r.Status, r.Headers, Ended{By: "local", Why: "rejected"})
}

// proceed says what may be said next. Nothing may while a PRACK is owed to us or an
// offer of the caller waits for its answer.
func (c *Call) proceed() {
	in := c.in
	if in == nil || in.final || in.unacked != nil || c.peer != nil {
		return
	}
	switch {
	case in.waits && in.accept == nil: // nobody rings before the caller can talk
	case in.waits && !in.described:
		c.say(183, c.describe())
	case in.waits: // for UPDATE
	case in.ring && !in.rung:
		c.sayRinging()
	case in.accept != nil:
		c.say200()
	}
}

// sayRinging says 180. To an INVITE without offer the first reliable response carries
// ours (RFC 3261 13.2.1): as long as there is none it is said unreliably, or not at all.
func (c *Call) sayRinging() {
	in := c.in
	var sdp []byte
	if in.offer == nil && in.reliable && !in.described {
		switch {
		case in.accept != nil:
			sdp = c.describe()
		case in.required:
			return
		}
	}
	in.rung = true
	c.say(180, sdp)
	c.proceed() // it was not reliable, and more may wait
}

// describe is what we say about ourselves in the first message that may.
func (c *Call) describe() []byte {
	in := c.in
	sdp := in.accept.SDP
	if in.offer != nil && c.usesQoS(in.req) {
		sdp = answerQoS(in.offer, sdp)
	}
	c.localSDP = c.version(sdp)
	return c.localSDP
}

// say sends a provisional response, reliably where that is possible.
func (c *Call) say(status int, sdp []byte) {
	in := c.in
	res := c.response(in.req, status)
	if in.reliable && (in.offer != nil || sdp != nil || in.described) {
		require := "100rel"
		if in.waits {
			require += ", precondition"
		}
		in.rseq++
		add(res, "Require", require)
		add(res, "RSeq", strconv.FormatUint(uint64(in.rseq), 10))
		in.described = in.described || sdp != nil
		in.unacked = &provisional{res, c.o.T1}
		c.arm(timerPrack, c.o.T1)
		c.arm(timerNoPrack, 64*c.o.T1)
	}
	setSDP(res, sdp)
	c.do(Respond{Tx: in.tx, Res: res})
}

// resend1xx repeats a reliable provisional response: T1, 2·T1, 4·T1 … (RFC 3262 3).
func (c *Call) resend1xx() {
	p := c.in.unacked
	if p == nil {
		return
	}
	c.do(Respond{Tx: c.in.tx, Res: p.res})
	p.interval *= 2
	c.arm(timerPrack, p.interval)
}

// onPrack matches PRACK by all three words of its RAck.
func (c *Call) onPrack(in Request) {
	i := c.in
	if i == nil || i.unacked == nil || !i.acknowledges(value(in.Req, "RAck")) {
		c.respond(in.Tx, in.Req, 481)
		return
	}
	i.unacked = nil
	c.stop(timerPrack, timerNoPrack)
	sdp := SDP(in.Req)
	switch {
	case i.described && !i.answered && i.offer == nil: // the answer to our offer
		c.respond(in.Tx, in.Req, 200)
		if sdp == nil {
			c.refuseInvite(400, nil, Ended{By: "remote", Why: "no_sdp"})
			return
		}
		i.answered = true
		c.settle(c.localSDP, sdp)
		c.emit(Answer{SDP: sdp, Final: true})
	case i.described && sdp != nil: // a second offer (RFC 3262 5)
		i.answered = true
		c.offered(in, sdp)
		return
	default:
		i.answered = i.described
		c.respond(in.Tx, in.Req, 200)
	}
	c.awaitQoS()
	c.proceed()
}

func (i *incoming) acknowledges(rack string) bool {
	w := strings.Fields(rack)
	if len(w) != 3 || !strings.EqualFold(w[2], "INVITE") {
		return false
	}
	r, err1 := strconv.ParseUint(w[0], 10, 32)
	s, err2 := strconv.ParseUint(w[1], 10, 32)
	return err1 == nil && err2 == nil && uint32(r) == i.rseq && uint32(s) == i.req.CSeq().SeqNo
}

// awaitQoS limits the wait for the caller's resources once he knows of ours.
func (c *Call) awaitQoS() {
	if i := c.in; i.waits && i.described && c.at[timerQoS].IsZero() {
		c.arm(timerQoS, preconditionLimit)
	}
}

// settleQoS looks whether an offer of the peer within an early dialog says that its
// resources are there.
func (c *Call) settleQoS(req *sip.Request) {
	if i := c.in; i != nil {
		if !i.final && i.waits {
			if i.waits = unmet(SDP(req)); !i.waits {
				c.stop(timerQoS)
			}
		}
		return
	}
	if f := c.forks[fromTag(req)]; f != nil {
		c.bearers(&f.early, SDP(req))
	}
}

// say200 answers the call. From here on a CANCEL comes too late.
func (c *Call) say200() {
	in := c.in
	in.final = true
	c.stop(timerRing, timerQoS)
	res := c.response(in.req, 200)
	c.agreeInvite(in.req, res)
	p := &peerOffer{tx: in.tx, req: in.req, initial: true, empty: in.offer == nil && !in.described,
		res: res, interval: c.o.T1}
	var sdp []byte
	if !in.described {
		sdp = c.describe()
	}
	setSDP(res, sdp)
	c.winner, c.peer = in.f, p
	c.do(Respond{Tx: in.tx, Res: res})
	c.arm(timerResend, p.interval)
	c.arm(timerNoAck, 64*c.o.T1)
}

// onFirstAck is the end of the three-way handshake.
func (c *Call) onFirstAck(p *peerOffer, ack *sip.Request) {
	if c.hang != nil { // we could not say BYE before (RFC 3261 15)
		c.bye(c.winner, c.hang.reason)
		c.endHung(Ended{})
		return
	}
	if p.empty {
		sdp := SDP(ack)
		if sdp == nil {
			c.byeAndEnd(c.winner, hang{"remote", "no_sdp", `SIP;cause=488;text="no session description"`})
			return
		}
		c.settle(c.localSDP, sdp)
		c.emit(Answer{SDP: sdp, Final: true})
	}
	c.up(Connected{Contact: value(c.in.req, "Contact"), Server: cmp.Or(value(c.in.req, "Server"), value(c.in.req, "User-Agent"))})
	c.proposeQueued()
}

// onCancelled: the caller's CANCEL was faster than our final response, and 487 has been
// sent. A 2xx that we think we said never left.
func (c *Call) onCancelled(in Cancelled) {
	i := c.in
	p := c.peer
	if i.final && (p == nil || !p.initial) {
		return
	}
	if p != nil && p.initial {
		c.peer = nil
		c.stop(timerResend, timerNoAck)
	}
	i.final, i.unacked, i.f.gone = true, nil, true
	e := Ended{By: "remote", Why: "cancelled", Status: 487}
	if in.Req != nil {
		e.readReasons(in.Req)
	}
	if c.hang != nil {
		c.endHung(e)
		return
	}
	c.end(e)
}

// refuseInvite ends the call with a final response other than 2xx.
func (c *Call) refuseInvite(status int, headers []Header, e Ended) {
	i := c.in
	i.final, i.unacked, i.f.gone = true, nil, true
	res := c.response(i.req, status)
	for _, h := range headers {
		add(res, h.Name, h.Value)
	}
	res.SetBody(nil)
	c.do(Respond{Tx: i.tx, Res: res})
	e.Status = status
	c.end(e)
}

// agreeInvite settles the session timer in our 2xx to the INVITE (RFC 4028 9). A caller
// that asks for none gets ours, and we refresh: he need not know of it.
func (c *Call) agreeInvite(req *sip.Request, res *sip.Response) {
	if _, ok := seconds(value(req, "Session-Expires")); ok {
		c.agreeRefresh(req, res)
		return
	}
	if c.o.SessionExpires <= 0 || !c.does("timer") {
		return
	}
	c.session = c.o.SessionExpires
	c.askRefresh(req, res)
}
