package sip

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

// call runs one dialog.Call: its goroutine feeds the machine from a mailbox and does
// what it says.
type call struct {
	a    *attachment
	in   *inbound // of a call that comes in
	id   string   // Call-ID
	tag  string   // our tag: From of what we send, To of what comes
	icid string
	// identity is whom a call of ours is from.
	identity string
	on       func(Event)
	d        *dialog.Call // the goroutine's

	options dialog.Options
	asks    map[uint64]func(dialog.Asked) // who waits for it
	lastAsk uint64
	usages  int     // of the dialog besides the call (RFC 5057)
	other   *usages // what they are; nil as long as there was none

	open map[string]*sipgo.ClientTx // our transactions (txKey) without a final answer so far; the goroutine's

	tried bool   // Trying was told
	told  bool   // Ended was told
	hop   string // where the last INVITE went, or came from, and over what: its CANCEL goes there too
	hunt  *hunt  // of a trunk's INVITE for a peer

	unheard *unheard    // of a ue's INVITE
	renews  atomic.Bool // it was answered 494, and the P-CSCF is agreed with anew
	again   bool        // it has been placed again for that
	invited bool        // an INVITE left
	turn    *time.Timer // of one that is repeated; nil: none waits

	inv    Invite
	left   bool    // its turn came
	w      *waiter // its place in the queue, and its line
	target *target // the peer whose line it has; written under the attachment's mutex

	charging Charging // as told

	box   *mailbox
	held  time.Time     // when to look at what is held in it; zero: nothing is
	mail  []letter      // taken from it and not dealt with yet
	done  chan struct{} // closed when run has returned
	ended chan struct{} // closed once Ended was told and no BYE is out
}

// kill ends a call's goroutine whatever its state: the UA is closing.
type kill struct{}

// resend is a request whose connection broke, as it was written or while it waited for its
// answer. That may have come just before.
type resend struct {
	req     *sipgo.Request
	written bool
}

// repeat is an INVITE of the dialog after its first, whose turn has come.
type repeat struct{ req *sipgo.Request }

func newCall(a *attachment, inv Invite) *call {
	c := &call{a: a, on: inv.OnEvent, icid: token(),
		open: map[string]*sipgo.ClientTx{}, box: newMailbox(), done: make(chan struct{}), ended: make(chan struct{})}
	c.inv = inv
	c.options = a.dialogOptions(inv, c.icid)
	c.options.Rand = rand.Float64
	c.id, c.tag, c.d = c.options.CallID, c.options.FromTag, dialog.New(c.options)
	return c
}

// leave begins the call, or ends the one that will not get a turn. While an INVITE waited
// the attachment may have got another P-CSCF or identity: its dialog is made now.
func (c *call) leave(g grant) {
	if g.refused != "" {
		c.tellEnded(dialog.Ended{By: "network", Why: g.refused})
		return
	}
	if c.d.GivenUp() || c.left {
		return
	}
	c.left = true
	if c.in != nil {
		c.tell(Message{At: time.Now(), Summary: summary(c.in.tx.req)})
		c.chargedBy(c.in.tx.req, false)
		c.step(dialog.Start{})
		c.present()
		return
	}
	c.identity, _ = c.a.identity()
	o := c.a.dialogOptions(c.inv, c.icid)
	o.Rand = rand.Float64
	o.CallID, o.FromTag, o.Seq = c.id, c.tag, c.options.Seq
	c.options, c.d = o, dialog.New(o)
	c.step(dialog.Start{})
}

// key names the call by what every message of it has: its Call-ID and our tag.
func (c *call) key() string { return callKey(c.id, c.tag) }

func callKey(callID, ourTag string) string { return callID + "\x00" + ourTag }

func (c *call) post(in any) { c.box.put(in) }

// postIfLive posts unless the call is over, for what somebody else must answer then.
func (c *call) postIfLive(in any) bool { return c.box.put(in) }

// bury marks the call as over and answers the requests that came too late.
func (c *call) bury() {
	for _, l := range append(c.mail, c.box.close()...) {
		switch in := l.in.(type) {
		case dialog.Response:
			c.a.onStray(in.Res)
		case dialog.Request:
			if in.Tx != nil {
				c.a.answer(in.Req, in.Tx.(responder), verdict{status: 481})
			}
		case asking:
			in.done(dialog.Asked{})
		}
	}
	for _, done := range c.asks {
		done(dialog.Asked{})
	}
	if c.other != nil {
		c.other.stop("shutdown")
	}
	for _, tx := range c.open { // nobody has answered, and sipgo would wait for a cancelled INVITE's answer for ever
		tx.Terminate()
	}
	c.hunt.stop()
	c.unheard.stop()
	if c.turn != nil {
		c.turn.Stop()
	}
	c.settled()
	close(c.done)
}

// settled says that nobody needs to wait for this call any more.
func (c *call) settled() {
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
}

// leaving is a Hangup of the owner's, which goes behind what he has notified before.
type leaving struct{ dialog.Hangup }

// Hangup implements Call.
func (c *call) Hangup(why, reason string) {
	c.post(leaving{dialog.Hangup{Why: why, Reason: reason}})
}

// Reply implements Call.
func (c *call) Reply(id uint64, sdp []byte, status int) {
	c.post(dialog.Reply{ID: id, SDP: sdp, Status: status})
}

// Refuse implements Call.
func (c *call) Refuse(id uint64, status, warning int) {
	c.post(dialog.Reply{ID: id, Status: status, Warning: warning})
}

// Offer implements Call.
func (c *call) Offer(sdp []byte, focus string) {
	in := dialog.Propose{SDP: sdp}
	if focus != "" {
		in.Contact = c.a.focusContact(focus, hasVideo(sdp))
	}
	c.post(in)
}

func hasVideo(sdp []byte) bool { return bytes.Contains(sdp, []byte("m=video")) }

// responder is a server transaction.
type responder interface {
	Respond(*sipgo.Response) error
}

// run is the call's goroutine. Until its turn comes the call can be hung up without a
// trace in the network.
func (c *call) run() {
	c.a.ua.traces.begin(c.id, time.Now())
	defer func() { c.a.ua.traces.end(c.id, time.Now()) }()
	defer c.bury()
	defer c.a.forget(c)
	if c.guard(c.loop) {
		return
	}
	// A fault of ours, or of the owner's: he hears that the call is over, and nothing more.
	c.guard(func() { c.tellEnded(dialog.Ended{By: "network", Why: "internal"}) })
	if !c.guard(func() { c.giveUp(); c.loop() }) && c.in != nil {
		c.guard(c.in.tx.lastWord)
	}
}

// guard runs f; false: it panicked, which must end no more than this call.
func (c *call) guard(f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.a.fault("call", p)
		}
	}()
	f()
	return true
}

// giveUp ends at the peer what cannot go on here: 500, CANCEL or BYE.
func (c *call) giveUp() {
	if c.other != nil {
		c.other.stop("internal")
	}
	c.step(dialog.Reject{Status: 500})
	c.step(dialog.Hangup{Why: "internal", Reason: `SIP;cause=500;text="internal error"`})
}

// loop is the call's life.
func (c *call) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := c.d.Next()
		if !c.held.IsZero() && (next.IsZero() || c.held.Before(next)) {
			next = c.held
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), 0))
		}
		select {
		case <-timer.C:
			c.step(dialog.Tick{})
		case <-c.box.wake:
		}
		if c.drain() || c.d.Done() || c.told && !c.left {
			return
		}
	}
}

// drain takes everything from the mailbox; it reports whether the call was killed.
func (c *call) drain() bool {
	var fresh []letter
	fresh, c.held = c.box.take(time.Now())
	for c.mail = append(c.mail, fresh...); len(c.mail) > 0; {
		l := c.mail[0]
		c.mail = c.mail[1:]
		switch in := l.in.(type) {
		case kill:
			if !c.d.HasEnded() {
				c.tellEnded(dialog.Ended{By: "local", Why: "shutdown"})
			}
			return true
		case resend:
			if !in.written || c.open[txKey(in.req)] != nil {
				c.send(in.req, false)
			}
		case repeat:
			c.onRepeat(in.req)
		case grant:
			c.leave(in)
		case silence:
			c.onSilence(in)
		case turn:
			c.onTurn(in)
		case which:
			in.answer <- c.d.Match(in.tag)
		case leaving:
			if c.other != nil {
				c.other.behind(func() { c.post(in.Hangup) })
				continue
			}
			c.step(in.Hangup)
		case asking:
			if c.asks == nil {
				c.asks = map[uint64]func(dialog.Asked){}
			}
			c.lastAsk++
			c.asks[c.lastAsk] = in.done
			in.ask.ID = c.lastAsk
			c.step(in.ask)
		case using:
			c.usages += int(in)
			c.step(dialog.Use{Usages: c.usages})
		case dialog.Request:
			c.tell(Message{At: time.Now(), Summary: summary(in.Req)})
			c.chargedBy(in.Req, false)
			c.step(in)
		case dialog.Response:
			c.tell(Message{At: time.Now(), Summary: summary(in.Res)})
			c.chargedBy(in.Res, false)
			c.heardOf(in.Res)
			if in.Res.StatusCode >= 200 {
				delete(c.open, txKey(in.Res))
			}
			if !c.onTryResponse(in.Res) && !c.onDisagreed(in.Res) {
				c.step(in)
			}
		case dialog.Failed:
			delete(c.open, txKey(in.Req))
			if !c.onTryFailed(in) {
				c.step(in)
			}
		case dialog.Input:
			c.step(in)
		}
	}
	return false
}

func (c *call) step(in dialog.Input) {
	for _, act := range c.d.Step(time.Now(), in) {
		c.perform(act)
	}
	if c.d.Settled() {
		c.settled()
	}
}

func (c *call) perform(act dialog.Action) {
	switch act := act.(type) {
	case dialog.Send:
		c.tell(Message{At: time.Now(), Sent: true, Summary: summary(act.Req)})
		if !c.tried {
			c.tried = true
			c.tell(Trying{At: time.Now(), CallID: c.id, ICID: c.icid, Identity: c.identity})
			c.chargedBy(act.Req, true)
		}
		if !c.mustWait(act.Req) {
			c.send(act.Req, true)
		}
	case dialog.Ack:
		c.tell(Message{At: time.Now(), Sent: true, Summary: "ACK"})
		if err := c.a.write(act.Req, c.fallback()); err != nil {
			c.a.log.Warn("ACK not sent", "err", err) // the 2xx comes again, and so does it
		}
	case dialog.Respond:
		c.tell(Message{At: time.Now(), Sent: true, Summary: summary(act.Res)})
		err := act.Tx.(responder).Respond(act.Res)
		if err != nil && !errors.Is(err, sipgo.ErrTransactionTerminated) {
			c.a.log.Debug("response not sent", "err", err)
		}
		if act.Then != nil && !errors.Is(err, sipgo.ErrTransactionCanceled) { // one that was lost on its way has been given all the same
			c.tell(event(act.Then))
		}
	case dialog.ByeRefused:
		c.a.log.Warn("BYE refused, the far end may go on with the call", "call_id", c.id, "status", act.Res.StatusCode)
	case dialog.Emit:
		switch e := act.Event.(type) {
		case dialog.Ended:
			c.tellEnded(e)
		case dialog.Other:
			c.onOther(e)
		case dialog.Asked:
			done := c.asks[e.ID]
			delete(c.asks, e.ID)
			done(e)
		default:
			c.tell(event(act.Event))
		}
	}
}

// mustWait says that an INVITE which repeats the first, with credentials, or an extension
// less, or for somebody else, waits until the limits allow it.
func (c *call) mustWait(req *sipgo.Request) bool {
	if c.in != nil || !req.IsInvite() || req.To().Params.Has("tag") {
		return false
	}
	if !c.invited {
		c.invited = true
		return false
	}
	wait := c.a.repeatAfter(c.target)
	if wait <= 0 {
		return false
	}
	c.turn = time.AfterFunc(wait, c.a.safely(func() { c.post(repeat{req}) }))
	return true
}

// onRepeat sends an INVITE that waited. A call that was given up meanwhile just ends: nothing
// of it is under way.
func (c *call) onRepeat(req *sipgo.Request) {
	c.turn = nil
	if c.d.GivenUp() {
		c.step(dialog.Failed{Req: req})
		return
	}
	c.send(req, true)
}

// onOther takes a request of another usage of the dialog (RFC 5057): REFER, SUBSCRIBE. It
// is answered by tellOther, then or within 2 s.
func (c *call) onOther(e dialog.Other) {
	if c.other == nil || !c.other.take(e.ID, e.Req) {
		c.other = c.newUsages()
		c.other.take(e.ID, e.Req)
	}
}

// tellOther answers the request that came to onOther.
func (c *call) tellOther(id uint64, status int, headers ...dialog.Header) {
	c.post(dialog.Tell{ID: id, Status: status, Headers: headers})
}

// asking and using are posted by ask and use.
type (
	asking struct {
		ask  dialog.Ask
		done func(dialog.Asked)
	}
	using int
)

// ask sends a request of another usage in the call's dialog: NOTIFY, REFER. done hears its
// final status from the call's goroutine; 0 if there was no answer, or no dialog any more.
func (c *call) ask(method sipgo.RequestMethod, headers []dialog.Header, contentType string, body []byte, done func(dialog.Asked)) {
	a := asking{dialog.Ask{Method: method, Headers: headers, ContentType: contentType, Body: body}, done}
	if !c.postIfLive(a) {
		done(dialog.Asked{})
	}
}

// use says that a usage of the dialog began (+1) or ended (-1): the dialog lives on for
// it after the call. Who begins one sees to it that it ends.
func (c *call) use(n int) { c.post(using(n)) }

// fallback is who knows the way where a route does not name a peer: the one that took
// the INVITE.
func (c *call) fallback() string {
	if c.hop != "" && c.a.o.Mode != ModeUE {
		return c.hop
	}
	return c.a.target()
}

// txKey names a client transaction of ours by what its request and its responses have: the
// branch, and the method, since a CANCEL has that of its INVITE (RFC 3261 17.1.3).
func txKey(m sipgo.Message) string {
	via, seq := m.(interface{ Via() *sipgo.ViaHeader }).Via(), m.(interface{ CSeq() *sipgo.CSeqHeader }).CSeq()
	if via == nil || seq == nil {
		return ""
	}
	branch, _ := via.Params.Get("branch")
	return branch + " " + string(seq.MethodName)
}

// send starts a client transaction.
func (c *call) send(req *sipgo.Request, again bool) {
	if c.hunts(req) {
		c.sendHunting(req)
		return
	}
	dest := c.a.nextHop(req, c.fallback())
	switch {
	case req.IsCancel():
		dest = c.hop
	case again || c.in == nil:
	case dest != c.hop: // who called us need not listen where his Contact says
		dest = c.hop
	default: // and his connection may be gone
		dest = c.a.target()
	}
	tx, err := c.a.transact(c.a.ctx, req, dest)
	if req.IsInvite() {
		c.hop = hopOf(req)
	}
	if err != nil {
		c.a.flowLost(dest, "not to be connected", false)
		if again && c.a.ctx.Err() == nil {
			// The connection had just died: nobody has seen the request, a new one may do.
			c.post(resend{req: req})
			return
		}
		c.a.log.Warn("request not sent", "method", req.Method, "err", err)
		c.post(dialog.Failed{Req: req})
		return
	}
	c.listenFor(req)
	c.listen(req, tx, again)
}

// listen watches a transaction. Its responses, every further 2xx of the INVITE and those of
// other forks too (RFC 6026), have come by way of the screen, all but the one that sipgo has
// acknowledged; what comes when the call has been forgotten is a stray.
func (c *call) listen(req *sipgo.Request, tx *sipgo.ClientTx, again bool) {
	c.open[txKey(req)] = tx
	tx.OnRetransmission(c.a.onStray)
	c.a.wg.Go(c.a.safely(func() { c.follow(req, tx, again) }))
}

// follow reads a transaction to its end: not reading it would stop its timers.
func (c *call) follow(req *sipgo.Request, tx *sipgo.ClientTx, again bool) {
	final, heard := false, false
	under := c.a.watchConn(req, tx)
	defer under.stop()
	for {
		select {
		case res := <-tx.Responses():
			heard = true
			if res.StatusCode >= 200 {
				final = true
				under.stop()
			}
			switch {
			case acknowledged(res):
				c.post(dialog.Response{Res: res})
			case res.IsSuccess():
				c.a.onStray(res)
			}
			continue
		case <-under.look:
			if !under.gone() {
				continue
			}
			tx.Terminate()
		case <-tx.Done():
		}
		if final {
			return
		}
		timeout := errors.Is(tx.Err(), sipgo.ErrTransactionTimeout)
		if !timeout {
			c.a.flowLost(hopOf(req), "connection closed", false)
		}
		// Its connection was closed under it, or died unnoticed as it was written: a new
		// one may do. A BYE is worth a second try after silence too, since without it
		// a phone stays connected. An INVITE that was heard of is not repeated: its
		// answer finds us.
		if again && (!req.IsInvite() || !heard && !timeout) && c.a.ctx.Err() == nil && (!timeout || req.Method == sipgo.BYE) {
			c.post(resend{req, true})
			return
		}
		c.post(dialog.Failed{Req: req, Timeout: timeout})
		return
	}
}

// tell keeps the promise that nothing follows Ended.
func (c *call) tell(e Event) {
	if !c.told {
		c.on(e)
	}
}

func (c *call) tellEnded(e dialog.Ended) {
	if c.told {
		return
	}
	defer func() { c.told = true }()
	c.a.callEnded(c)
	c.tell(Ended{At: time.Now(), By: By(e.By), Connected: e.Connected, WasRinging: e.WasRinging, Progressed: e.Progressed,
		Status: e.Status, Phrase: e.Phrase, Q850: e.Q850, SIPCause: e.SIPCause, ReleaseCause: e.ReleaseCause,
		ReasonText: e.ReasonText, Reason: e.Reason, Warning: e.Warning, RetryAfter: e.RetryAfter, Target: e.Target, AltService: e.AltService, Why: e.Why})
}

func event(e dialog.Event) Event {
	now := time.Now()
	switch e := e.(type) {
	case dialog.Ringing:
		return Ringing{At: now}
	case dialog.Answer:
		return Answer{At: now, SDP: e.SDP, Final: e.Final, EarlyMedia: e.EarlyMedia, Local: e.Local, Offered: e.Offered}
	case dialog.Connected:
		return Connected{At: now, Contact: e.Contact, Server: e.Server}
	case dialog.Offer:
		return Offer{At: now, ID: e.ID, SDP: e.SDP, Early: e.Early, Local: e.Local}
	case dialog.Reoffered:
		return Reoffered{At: now, Offer: e.Offer, SDP: e.SDP, Status: e.Status, Local: e.Local, Offered: e.Offered}
	case dialog.Refreshed:
		return Refreshed{At: now, SDP: e.SDP, Local: e.Local}
	case dialog.Replied:
		return Replied{At: now, Offer: e.Offer, Used: e.Used}
	case dialog.Info:
		return Info{At: now, Digit: e.Digit}
	}
	panic(fmt.Sprintf("sip: dialog event %T has no counterpart", e))
}
