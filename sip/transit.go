package sip

import (
	"errors"
	"net"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// transit is a request on its way through us: a filter of the core (iFC) sent it by way of this
// application server, and it is for nobody here. It goes on to the S-CSCF with the token that
// this knows the session by, and its answers go back: a proxy that keeps transactions (TS 24.229
// §5.7.4, RFC 3261 §16). Without a Record-Route nothing else of its dialog comes this way.
type transit struct {
	a      *attachment
	came   *sipgo.Request
	on     *sipgo.Request // as it goes on
	up     responder
	cancel chan string // cap 1: the Reason of the CANCEL that came

	patience *time.Timer // timer C, of an INVITE
	heard    bool        // of who is called: a CANCEL may follow (RFC 3261 §9.1)
	dropped  bool        // who calls has had an answer that was not theirs: who answers now is alone
	stopping bool        // CANCEL is due, as soon as it may be sent
	stopped  bool        // it has left
	reason   string      // of the CANCEL
}

// timerC is how long who was heard of may take to say more (RFC 3261 §16.6 step 11).
const timerC = 3*time.Minute + time.Second

// passes says whether a request is one to send on: outside any dialog, of good form, with a Route
// behind ours, for nobody here.
//
// An emergency call is one too, on purpose. We bring nobody to an emergency service, and what
// comes here as a call of ours is refused; but this one the core routes, to where it would have
// gone without us. To end it because a filter matched too much would be worse.
func (a *attachment) passes(req *sipgo.Request) bool {
	ours := a.ua.ours.Load()
	if a.o.Mode != ModeAS || a.o.Untrusted || ours == nil || malformed(req).status != 0 || req.To().Params.Has("tag") {
		return false
	}
	switch req.Method {
	case sipgo.ACK, sipgo.CANCEL, sipgo.REGISTER:
		return false
	}
	if hops := req.MaxForwards(); hops != nil && hops.Val() == 0 || len(a.routesBehind(req)) == 0 {
		return false
	}
	if r, err := ims.ParseReplaces(first(req, "Replaces")); err == nil && a.ua.callNamed(r) != nil {
		return false
	}
	target := a.wanted(req)
	return target != a.o.IMPU && !(*ours)(a.o.Name, target, req.To().Address.String())
}

// sendOn takes what passes.
func (a *attachment) sendOn(req *sipgo.Request, tx *sipgo.ServerTx) {
	// Unlike Require, which is for who answers, this is for all on the way.
	if wants := dialog.Values(req, "Proxy-Require"); len(wants) > 0 {
		a.answer(req, tx, verdict{status: 420, header: dialog.Header{Name: "Unsupported", Value: strings.Join(wants, ", ")}})
		return
	}
	a.mu.Lock()
	closed := a.shutd
	if !closed {
		a.transits.Add(1)
	}
	a.mu.Unlock()
	if closed {
		a.answer(req, tx, overload())
		return
	}
	t := &transit{a: a, came: req, up: tx, cancel: make(chan string, 1), patience: time.NewTimer(time.Hour)}
	t.patience.Stop()
	if req.IsInvite() {
		t.upInvite(tx)
		t.patience.Reset(a.timerC)
	}
	t.on = a.onward(req)
	a.screen.passed.Add(1)
	go a.safely(func() {
		defer a.transits.Done()
		defer t.patience.Stop()
		if !t.run() {
			tx.Terminate() // it would wait for ever
		}
	})()
}

// upInvite says 100 at once: an S-CSCF that hears nothing goes on without us.
func (t *transit) upInvite(tx *sipgo.ServerTx) {
	itx := &inviteTx{ServerTx: tx, req: t.came}
	t.up = itx
	_ = itx.Respond(sipgo.NewResponseFromRequest(t.came, 100, dialog.Phrase(100), nil)) // what is behind it says more
	cancelled := func(cancel *sipgo.Request) {
		itx.cancelled.Store(true)
		reason := ""
		if cancel != nil {
			reason = first(cancel, "Reason")
		}
		select {
		case t.cancel <- reason:
		default: // twice is nothing
		}
	}
	if !tx.OnCancel(cancelled) {
		cancelled(nil) // it came before we listened
	}
}

// onward is a request as it goes on: without our Route, with those behind it byte for byte.
func (a *attachment) onward(req *sipgo.Request) *sipgo.Request {
	on := req.Clone()
	// The way back, as RFC 3261 §18.2.1 and RFC 3581 want it.
	if host, port, err := net.SplitHostPort(req.Source()); err == nil {
		via := on.Via()
		if v, asked := via.Params.Get("rport"); asked && v == "" {
			via.Params.Add("rport", port)
			via.Params.Add("received", host)
		} else if via.Host != host {
			via.Params.Add("received", host)
		}
	}
	hops := sipgo.MaxForwardsHeader(70)
	if had := on.MaxForwards(); had != nil {
		hops = *had - 1
	}
	for _, name := range []string{"Route", "Max-Forwards"} {
		for on.RemoveHeader(name) {
		}
	}
	on.PrependHeader(a.freshVia(), sipgo.NewHeader("Route", strings.Join(a.routesBehind(req), ", ")), &hops)
	return on
}

// run sends the request on and brings back what is answered; false: who asked has had no answer,
// and gets none.
func (t *transit) run() bool {
	tx, err := t.a.transact(t.a.ctx, t.on, t.a.nextHop(t.on, hopTo(strings.ToLower(t.came.Transport()), t.came.Source())))
	if err != nil {
		t.a.log.Warn("request for others not sent on", "method", t.came.Method, "err", err)
		t.refuse(500)
		return true
	}
	defer tx.Terminate()
	tx.OnRetransmission(func(res *sipgo.Response) {
		if res.IsSuccess() { // RFC 6026: every one goes back
			t.a.safely(func() { t.back(res) })()
		}
	})
	under := t.a.watchConn(t.on, tx)
	defer under.stop()
	final, leave := false, t.a.leaving.Done()
	for {
		select {
		case res := <-tx.Responses():
			t.heard = true
			if !res.IsProvisional() {
				final = true
				t.patience.Stop()
				under.stop()
			} else if res.StatusCode > 100 && !t.stopping {
				t.patience.Reset(t.a.timerC)
			}
			if res.StatusCode > 100 {
				t.back(res)
			}
			if final && !t.came.IsInvite() {
				return true
			}
		case t.reason = <-t.cancel:
			t.stopping = true
		case <-t.patience.C:
			if t.stopped { // nothing has come of the CANCEL (RFC 3261 §9.1)
				return true
			}
			t.stopping = true
			t.refuse(408)
		case <-leave: // we go: what nobody would bring back any more is given up
			if final {
				return true
			}
			leave, t.stopping = nil, true
			t.refuse(500)
			if !t.heard || !t.came.IsInvite() {
				return true
			}
		case <-under.look:
			if under.gone() {
				if t.heard && t.came.IsInvite() && !t.stopped { // or somebody's phone rings on
					t.stop()
				}
				t.refuse(500)
				return true
			}
		case <-tx.Done():
			switch timeout := errors.Is(tx.Err(), sipgo.ErrTransactionTimeout); {
			case final:
			case !timeout:
				t.refuse(500)
			case t.came.IsInvite():
				t.refuse(408)
			default: // whoever waits has given up by now (RFC 4320 §4.2)
				return false
			}
			return true
		case <-t.a.ctx.Done():
			return false
		}
		if t.stopping && t.heard && !t.stopped && !final {
			t.stop()
			t.patience.Reset(64 * sipgo.T1)
		}
	}
}

// back brings an answer to who asked, without the Via that was ours.
func (t *transit) back(res *sipgo.Response) {
	if itx, invite := t.up.(*inviteTx); t.dropped || invite && itx.cancelled.Load() {
		if invite && res.IsSuccess() {
			t.a.dropAnswer(res, hopOf(t.on)) // who called has heard that it is over
		}
		return
	}
	out := res.Clone()
	out.RemoveHeader("Via")
	if out.StatusCode == 503 { // theirs, not ours: who asked had better not leave us (RFC 3261 §16.7 step 6)
		out.StatusCode, out.Reason = 500, dialog.Phrase(500)
		for out.RemoveHeader("Retry-After") {
		}
	}
	out.SetTransport(t.came.Transport())
	out.SetSource("")
	out.SetDestination(t.came.Source())
	if err := t.up.Respond(out); err != nil {
		t.a.log.Debug("answer for others not brought back", "status", res.StatusCode, "err", err)
	}
}

// refuse gives an answer that is not theirs.
func (t *transit) refuse(status int) {
	t.dropped = true
	t.a.answer(t.came, t.up, verdict{status: status})
}

// stop sends the CANCEL of an INVITE that was sent on.
func (t *transit) stop() {
	t.stopped = true
	req, dest := dialog.Cancel(t.on, t.reason, t.a.ua.o.UserAgent), hopOf(t.on)
	t.a.transits.Go(t.a.safely(func() {
		if _, err := t.a.await(t.a.ctx, req, dest); err != nil {
			t.a.log.Debug("CANCEL for others not answered", "err", err)
		}
	}))
}
