package dialog

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// peerOffer is a re-INVITE or UPDATE of the peer that we have not finished with:
//
//	re-INVITE: Offer → Reply → 2xx, again until ACK (T1, 2·T1 … T2; 64·T1) → done
//	UPDATE:    Offer → Reply → 2xx → done
type peerOffer struct {
	id       uint64
	tx       any
	req      *sip.Request
	empty    bool          // it came without description: ours is the offer
	res      *sip.Response // 2xx to a re-INVITE, waiting for its ACK
	interval time.Duration
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
	if c.ended || f.gone {
		c.respond(in.Tx, req, 481)
		return
	}
	switch req.Method {
	case sip.INVITE:
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
		c.respond(in.Tx, req, 481) // we send no reliable 1xx
	case sip.NOTIFY:
		c.respond(in.Tx, req, 481) // we subscribe to nothing in here
	case sip.REFER:
		c.respond(in.Tx, req, 603)
	default:
		c.respond(in.Tx, req, 405)
	}
}

// response makes a response of this dialog, with what its status demands.
func (c *Call) response(req *sip.Request, status int) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, Phrase(status), nil)
	switch status {
	case 200:
		add(res, "Allow", c.o.Allow)
		if req.Method == sip.INVITE || req.Method == sip.UPDATE {
			add(res, "Contact", c.o.Contact)
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
	c.do(Respond{tx, c.response(req, status)})
}

func (c *Call) onBye(f *fork, in Request) {
	c.respond(in.Tx, in.Req, 200)
	f.gone = true
	if f != c.winner || c.ended {
		return // an early fork's BYE overtook its 2xx, or it crossed ours
	}
	e := Ended{By: "remote"}
	e.readReasons(in.Req)
	c.end(e)
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
	switch {
	case len(req.Body()) > 0 && sdp == nil:
		c.respond(in.Tx, req, 415)
		return
	case c.tooShort(req):
		c.respond(in.Tx, req, 422)
		return
	case offers && c.reoffer != nil && c.reoffer.sent:
		c.respond(in.Tx, req, 491) // glare (RFC 3261 14.2)
		return
	case offers && c.peer != nil:
		res := c.response(req, 500) // it must wait for our answer to its first
		add(res, "Retry-After", "2")
		c.do(Respond{in.Tx, res})
		return
	}
	if t := addrSpec(value(req, "Contact")); t != "" {
		f.target = t // target refresh (RFC 3261 12.2.2, RFC 3311 5.2)
	}
	if len(req.GetHeaders("Allow")) > 0 {
		f.updates = lists(req, "Allow", "UPDATE")
	}
	if !offers {
		res := c.response(req, 200)
		c.agreeRefresh(req, res)
		res.SetBody(nil)
		c.do(Respond{in.Tx, res})
		return
	}
	c.offerID++
	c.peer = &peerOffer{id: c.offerID, tx: in.Tx, req: req, empty: sdp == nil}
	c.arm(timerReply, c.o.Reply)
	c.emit(Offer{ID: c.offerID, SDP: sdp})
}

func (c *Call) onReply(in Reply) {
	p := c.peer
	if p == nil || p.id != in.ID || p.res != nil {
		return // answered already, or too late
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
	c.outdate()
	res := c.response(p.req, 200)
	c.agreeRefresh(p.req, res)
	c.localSDP = c.version(in.SDP)
	setSDP(res, c.localSDP)
	c.do(Respond{p.tx, res})
	if p.req.Method != sip.INVITE {
		c.peer = nil
		c.proposeQueued()
		return
	}
	p.res, p.interval = res, c.o.T1
	c.arm(timerResend, p.interval)
	c.arm(timerNoAck, 64*c.o.T1)
}

// outdate gives up an offer of ours that waits after glare: the peer's came between, and
// ours was made for the session before it.
func (c *Call) outdate() {
	if r := c.reoffer; r != nil && !r.sent && !r.refresh {
		c.reoffer = nil
		c.stop(timerGlare)
		c.emit(Reoffered{Status: 491})
	}
}

// warnings are the texts of the Warning codes we give (RFC 3261 20.43).
var warnings = map[int]string{
	300: "Incompatible network protocol", 301: "Incompatible network address formats", 304: "Media type not available",
	305: "Incompatible media format", 399: "Session description not usable",
}

// refuse answers the waiting offer with a status; the session stays as it was.
func (c *Call) refuse(status, warning int) {
	p := c.peer
	if p == nil || p.res != nil {
		return
	}
	res := c.response(p.req, status)
	if warning != 0 {
		add(res, "Warning", fmt.Sprintf("%d %s %q", warning, net.JoinHostPort(c.o.Host, strconv.Itoa(c.o.Port)), warnings[warning]))
	}
	c.do(Respond{p.tx, res})
	c.peer = nil
	c.stop(timerReply)
	c.proposeQueued()
}

// dropPeerOffer forgets the peer's offer when the call ends: 487 as for a CANCEL.
func (c *Call) dropPeerOffer() {
	if c.peer == nil {
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
	c.do(Respond{p.tx, p.res})
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
	c.peer = nil
	c.stop(timerResend, timerNoAck)
	if p.empty {
		if sdp := SDP(ack); sdp != nil {
			c.emit(Reoffered{SDP: sdp, Status: 200})
		} else {
			c.emit(Reoffered{Status: 488}) // it acknowledged without answering
		}
	}
	c.proposeQueued()
}
