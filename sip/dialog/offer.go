package dialog

import (
	"cmp"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// reoffer is a re-INVITE of ours.
type reoffer struct {
	sdp       []byte
	refresh   bool // it only keeps the session alive: nobody is told, unless the answer is news
	seq       uint32
	req       *sip.Request
	sent      bool // false while it waits after 491
	tries     int  // 500 with Retry-After so far
	cancelled bool

	proceeding bool // a provisional response came
	early
}

func (c *Call) onPropose(in Propose) {
	if c.ended || c.winner == nil || len(in.SDP) == 0 {
		return
	}
	c.o.Contact = cmp.Or(in.Contact, c.o.Contact)
	if c.reoffer != nil || c.peer != nil || c.refresh != 0 {
		c.queued = &in
		return
	}
	c.reoffer = &reoffer{sdp: in.SDP}
	c.sendReoffer()
}

func (c *Call) proposeQueued() {
	if q := c.queued; q != nil && c.reoffer == nil && c.peer == nil && c.refresh == 0 {
		c.queued = nil
		c.onPropose(*q)
	}
}

func (c *Call) sendReoffer() {
	r, f := c.reoffer, c.winner
	if r == nil || f == nil {
		return
	}
	if c.peer != nil { // the peer's turn now; try when it is through
		c.arm(timerGlare, c.o.T1)
		return
	}
	f.localSeq++
	r.seq, r.sent = f.localSeq, true
	r.req = c.inDialog(f, sip.INVITE, r.seq)
	c.refreshHeaders(r.req)
	r.proceeding, r.early = false, early{ours: r.sdp, wire: c.version(r.sdp)} // the version of now: others may have left meanwhile
	setSDP(r.req, r.wire)
	c.send(r.req, 0)
	c.arm(timerReoffer, reofferLimit)
}

// refreshHeaders are those of every request that refreshes target and session.
func (c *Call) refreshHeaders(req *sip.Request) {
	add(req, "Contact", c.o.Contact)
	add(req, "Supported", strings.Join(c.o.Supported, ", "))
	add(req, "Allow", c.o.Allow)
	if c.session > 0 && !c.alone {
		who := "uas"
		if c.weRefresh {
			who = "uac"
		}
		add(req, "Session-Expires", deltaSeconds(c.session)+";refresher="+who)
		add(req, "Min-SE", deltaSeconds(c.o.MinSE))
	}
}

func (c *Call) onReofferResponse(res *sip.Response) {
	f := c.forks[toTag(res)]
	code := res.StatusCode
	if f == nil || f != c.winner {
		return
	}
	seq := res.CSeq().SeqNo
	if code < 200 {
		c.onReofferProgress(f, seq, res)
		return
	}
	if c.reAck != nil && c.reAck.CSeq().SeqNo == seq {
		if code < 300 {
			c.do(Ack{c.reAck})
		}
		return
	}
	r := c.reoffer
	if code < 300 { // whatever became of the call, a 2xx is acknowledged
		if t := AddrSpec(value(res, "Contact")); t != "" {
			f.target = t
		}
		c.reAck = c.inDialog(f, sip.ACK, seq)
		c.reAck.SetBody(nil)
		c.do(Ack{c.reAck})
	}
	if r == nil || r.seq != seq || c.ended {
		return
	}
	c.overtaken()
	switch {
	case code < 300:
		r.concluded(res)
		if r.refresh && r.theirs != nil && !sameSession(r.theirs, c.remoteSDP) {
			c.emit(Refreshed{SDP: r.theirs, Local: r.ours})
		}
		c.settle(r.wire, r.theirs)
		c.agreeSession(res, false)
		c.reofferDone(code)
	case code == 491:
		c.reofferLater(c.afterGlare())
	case code == 500 && r.tries < maxAgain && len(res.GetHeaders("Retry-After")) > 0:
		// It has an offer of its own, or ours, in hand (RFC 3261 14.1, RFC 3311 5.3).
		wait, _ := seconds(value(res, "Retry-After"))
		r.tries++
		c.reofferLater(min(max(wait, c.o.T1), 10*time.Second))
	case code == 481 || code == 408:
		c.reofferDead()
	case code == 422 && c.raiseMinSE(res):
		r.sent = false
		c.sendReoffer()
	default:
		c.reofferDone(code)
	}
}

// onReofferProgress takes a provisional response to our re-INVITE. A reliable one may
// bring the answer, and preconditions behind it, as it does to the INVITE.
func (c *Call) onReofferProgress(f *fork, seq uint32, res *sip.Response) {
	r := c.reoffer
	if r == nil || r.seq != seq || !r.sent {
		return
	}
	r.proceeding = true
	reliable := res.StatusCode > 100 && lists(res, "Require", "100rel")
	if reliable && !c.prack(f, &r.early, seq, res) {
		return
	}
	c.describes(&r.early, res, reliable)
}

// maxAgain is how often a re-INVITE is sent again that the peer was not ready for.
const maxAgain = 3

// afterGlare is how long we wait after a 491 (RFC 3261 14.1): 2.1 to 4 s where the
// Call-ID is ours, up to 2 s where it is not, so that only one comes again at a time.
func (c *Call) afterGlare() time.Duration {
	if c.in != nil {
		return time.Duration(c.o.Rand()*200) * 10 * time.Millisecond
	}
	return 2100*time.Millisecond + time.Duration(c.o.Rand()*190)*10*time.Millisecond
}

func (c *Call) reofferLater(wait time.Duration) {
	c.reoffer.sent = false
	c.stop(timerReoffer)
	c.arm(timerGlare, wait)
}

func (c *Call) reofferDone(status int) {
	r := c.reoffer
	c.stop(timerReoffer, timerGlare, timerQoSAgain)
	c.overtaken()
	c.reoffer = nil
	switch {
	case !r.refresh && status < 300:
		e := Reoffered{Status: status}
		e.SDP, e.Local, e.Offered = r.answer()
		c.emit(e)
	case !r.refresh:
		c.emit(Reoffered{Status: status})
	case status >= 300:
		c.refreshLater()
	}
	c.proposeQueued()
}

// giveUpReoffer: nobody answers our re-INVITE. It is cancelled; the session stays.
func (c *Call) giveUpReoffer() {
	r := c.reoffer
	if r == nil {
		return
	}
	if !r.cancelled && r.sent {
		r.cancelled = true
		c.do(Send{Cancel(r.req, `SIP;cause=408;text="re-INVITE timeout"`, c.o.UserAgent)})
		c.arm(timerReoffer, 64*c.o.T1)
		return
	}
	c.reofferDone(408)
}

// reofferDead: 481, 408 or no answer in a dialog means that it is gone there.
func (c *Call) reofferDead() {
	c.reoffer = nil
	c.byeAndEnd(c.winner, hang{"network", "dialog_lost", `SIP;cause=481;text="dialog lost"`})
}

// Session timers, RFC 4028. We ask for Session-Expires; what the newest 2xx grants counts.
// The refresher refreshes at half of it, the other side ends the call a little before
// the end: min(32 s, a third). A 2xx without it turns the timer off (7.2, 9): from then on
// nobody owes us a refresh, and we go on alone.

// agreeSession reads the 2xx to a request of ours.
func (c *Call) agreeSession(res *sip.Response, initial bool) {
	v := value(res, "Session-Expires")
	d, ok := seconds(v)
	if !ok || d <= 0 {
		if initial && c.does("timer") {
			c.session = c.o.SessionExpires
		}
		c.refreshAlone()
		return
	}
	c.session, c.alone = d, false
	c.weRefresh = !strings.EqualFold(Params(v)["refresher"], "uas")
	c.armSession()
}

// refreshAlone: the peer does no session timer, or does it no more. We ask all the same
// whether it is there, for who is gone without a word does not answer; who refuses is there.
func (c *Call) refreshAlone() {
	c.weRefresh, c.alone = true, true
	c.armSession()
}

func (c *Call) armSession() {
	if c.session == 0 {
		return
	}
	c.stop(timerRefresh, timerExpire)
	if !c.alone {
		c.arm(timerExpire, c.session-min(32*time.Second, c.session/3))
	}
	if c.weRefresh {
		c.arm(timerRefresh, c.session/2)
	}
}

// tooShort says whether a request of the peer wants a session interval below ours. One
// that does not know of timers would not understand the refusal (RFC 4028 9).
func tooShort(req *sip.Request, least time.Duration) bool {
	d, ok := seconds(value(req, "Session-Expires"))
	return ok && d < least && knowsTimer(req)
}

func knowsTimer(req *sip.Request) bool {
	return lists(req, "Supported", "timer") || lists(req, "Require", "timer")
}

// agreeRefresh answers the Session-Expires of a peer's request in our 2xx.
func (c *Call) agreeRefresh(req *sip.Request, res *sip.Response) {
	v := value(req, "Session-Expires")
	d, ok := seconds(v)
	switch {
	case ok && d >= c.o.MinSE:
	case c.session > 0 && !c.alone && knowsTimer(req): // he asks for none; without one in our 2xx it would be off
		c.askRefresh(req, res)
		return
	default: // below our minimum only a proxy asks, on behalf of a peer without timers
		c.refreshAlone()
		return
	}
	c.session, c.alone = d, false
	// In its request uac is the peer. Where it leaves the choice, it stays with him if he
	// knows of timers; the interval of a proxy on his behalf is ours to keep.
	refresher := Params(v)["refresher"]
	c.weRefresh = strings.EqualFold(refresher, "uas") || refresher == "" && !knowsTimer(req)
	who := "uac"
	if c.weRefresh {
		who = "uas"
	} else if knowsTimer(req) {
		add(res, "Require", "timer")
	}
	add(res, "Session-Expires", deltaSeconds(c.session)+";refresher="+who)
	c.armSession()
}

// askRefresh puts the session's interval, or more where the peer wants no less, into our 2xx to
// a request that asks for none: we refresh.
func (c *Call) askRefresh(req *sip.Request, res *sip.Response) {
	c.weRefresh, c.alone = true, false
	if least, ok := seconds(value(req, "Min-SE")); ok && least > c.session {
		c.session = least
	}
	add(res, "Session-Expires", deltaSeconds(c.session)+";refresher=uas")
	c.armSession()
}

// refreshSession sends UPDATE without description where the peer allows it, otherwise
// a re-INVITE with the description that stands.
func (c *Call) refreshSession() {
	f := c.winner
	switch {
	case f == nil || c.refresh != 0:
		return
	case !f.updates && (c.reoffer != nil || c.peer != nil): // that exchange refreshes as well, when it is through
		c.refreshLater()
		return
	case !f.updates:
		c.reoffer = &reoffer{sdp: c.localSDP, refresh: true}
		c.sendReoffer()
		return
	}
	f.localSeq++
	c.refresh = f.localSeq
	req := c.inDialog(f, sip.UPDATE, f.localSeq)
	c.refreshHeaders(req)
	req.SetBody(nil)
	c.send(req, 0)
}

// expired: nobody has refreshed the session. Where the peer's user makes up his mind about our
// re-INVITE, the peer has said that it is there, and nothing else can be asked of it.
func (c *Call) expired() {
	if r := c.reoffer; r != nil && r.sent && r.proceeding {
		c.arm(timerExpire, 20*time.Second) // refreshLater comes before
		return
	}
	c.byeAndEnd(c.winner, hang{"timeout", "session_expired", `SIP;cause=408;text="session timer"`})
}

// refreshLater tries again soon, and timerExpire has the last word; alone there is no hurry.
func (c *Call) refreshLater() {
	if c.alone {
		c.armSession()
	} else if c.session > 0 && c.weRefresh {
		c.arm(timerRefresh, min(10*time.Second, c.session/10))
	}
}

func (c *Call) onRefreshResponse(seq uint32, code int, res *sip.Response) {
	if c.refresh == 0 || c.refresh != seq || code < 200 {
		return
	}
	c.refresh = 0
	switch {
	case code < 300:
		if t := AddrSpec(value(res, "Contact")); t != "" {
			c.winner.target = t
		}
		c.agreeSession(res, false)
	case code == 481 || code == 408:
		c.byeAndEnd(c.winner, hang{"network", "dialog_lost", `SIP;cause=481;text="dialog lost"`})
		return
	case code == 422 && c.raiseMinSE(res):
		c.refreshSession()
		return
	case code == 405 || code == 501:
		c.winner.updates = false
		if c.alone {
			c.armSession()
			break
		}
		c.refreshSession()
		return
	default:
		c.refreshLater()
	}
	c.proposeQueued()
}

// raiseMinSE takes a 422 inside the dialog: once we raise, it cannot come again.
func (c *Call) raiseMinSE(res *sip.Response) bool {
	least, ok := seconds(value(res, "Min-SE"))
	if !ok || least <= c.o.MinSE || least <= c.session {
		return false
	}
	c.o.MinSE, c.session = least, least
	return true
}
