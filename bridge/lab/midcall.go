package lab

import (
	"fmt"
	"strings"
	"time"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/sdp"
)

// reoffer is a re-INVITE of ours under way.
type reoffer struct {
	body  []byte
	tries int
	done  chan error
}

// inDialog takes a request of the other side within the dialog.
func (k *call) inDialog(tx *wire.ServerTx) {
	m := tx.Req
	tag := m.ToTag()
	if _, fork := k.forks[tag]; fork {
		k.forkRequest(tx, tag)
		return
	}
	n, _ := m.CSeq()
	if n <= k.remoteSeq {
		tx.Respond(m.Reply(500, "CSeq out of order", ""))
		return
	}
	k.remoteSeq = n
	switch m.Method {
	case "PRACK":
		k.pracked(tx)
	case "UPDATE":
		k.view.Updates++
		k.offered(tx)
	case "INVITE":
		k.reinvited(tx)
	case "BYE":
		k.view.Reason = m.Get("Reason")
		tx.Respond(m.Reply(200, "", ""))
		if !k.final && k.tx != nil { // a BYE before the answer ends the INVITE too (RFC 3261 §15.1.2)
			k.final = true
			k.view.Status = 487
			k.tx.Respond(k.response(487, ""))
		}
		k.end(ByCaller)
	case "INFO":
		if len(k.view.Infos) < 100 {
			k.view.Infos = append(k.view.Infos, m.Get("Content-Type")+"\n"+string(m.Body))
		}
		k.h.publish(k) // before the answer: who has that must find it in the history
		tx.Respond(m.Reply(200, "", ""))
	case "OPTIONS":
		r := m.Reply(200, "", "")
		r.Add("Allow", allowed)
		tx.Respond(r)
	default:
		r := m.Reply(405, "", "")
		r.Add("Allow", allowed)
		tx.Respond(r)
	}
}

// forkRequest is what the phones beside the one that won get.
func (k *call) forkRequest(tx *wire.ServerTx, tag string) {
	if tx.Req.Method == "BYE" && k.forks[tag] != "ringing" {
		k.forks[tag] = "gone"
		k.view.ForkByes++
		k.h.publish(k) // who has the answer may look
		tx.Respond(tx.Req.Reply(200, "", ""))
		return
	}
	tx.Respond(tx.Req.Reply(481, "", ""))
}

// offered answers an UPDATE, with a session description or as a mere refresh.
func (k *call) offered(tx *wire.ServerTx) {
	m := tx.Req
	if k.re != nil && len(m.Body) > 0 {
		tx.Respond(m.Reply(491, "", ""))
		return
	}
	r := m.Reply(200, "", "")
	r.Add("Contact", k.h.contactValue())
	if len(m.Body) > 0 && !k.answerOffer(tx, r) {
		return
	}
	k.target(m)
	k.sessionTimer(m, r)
	k.h.publish(k)
	tx.Respond(r)
	if k.waitQoS && len(m.Body) > 0 {
		if o, err := sdp.Parse(m.Body); err == nil && o.Audio != nil && localQoS(o.Audio) == "sendrecv" {
			k.waitQoS = false
			if k.bearer { // otherwise bearerUp rings: a second 180 would outdate the first one's PRACK
				k.ring()
			}
		}
	}
}

// target follows a changed Contact (RFC 3261 §12.2.2).
func (k *call) target(m *wire.Message) {
	if a, err := wire.ParseAddr(m.Get("Contact")); err == nil {
		k.remoteURI = a.URI
	}
}

// answerOffer puts our answer to a request's offer into its response. On false the
// request has been refused.
func (k *call) answerOffer(tx *wire.ServerTx, r *wire.Message) bool {
	k.noteOffer(tx.Req.Body)
	o, err := sdp.Parse(tx.Req.Body)
	var body []byte
	var agreed sdp.Result
	if err == nil {
		body, agreed, err = sdp.Answer(o, k.answerOptions(nil))
	}
	if err != nil {
		status, code := sdp.StatusOf(err)
		bad := tx.Req.Reply(status, "", "")
		bad.Add("Warning", fmt.Sprintf("%d %s %q", max(code, 399), k.h.ep.Addr(), err.Error()))
		tx.Respond(bad)
		return false
	}
	k.local = body
	withSDP(r, body)
	k.agreed = agreed
	if k.started {
		k.start(agreed)
	}
	return true
}

func (k *call) noteOffer(body []byte) {
	if len(k.view.Reoffers) < 50 {
		k.view.Reoffers = append(k.view.Reoffers, string(body))
	}
}

// reinvited answers a re-INVITE at once, as handsets do where nothing is asked of the
// user.
func (k *call) reinvited(tx *wire.ServerTx) {
	m := tx.Req
	switch {
	case !k.final: // our first answer is still out (RFC 3261 §14.2)
		r := m.Reply(500, "", "")
		r.Add("Retry-After", "1")
		tx.Respond(r)
		return
	case k.re != nil || k.theirRe != nil:
		tx.Respond(m.Reply(491, "", ""))
		return
	}
	tx.Respond(m.Reply(100, "", ""))
	if k.addsVideo(m.Body) {
		if k.s.Upgrade >= 300 { // its user does not want to be seen
			tx.Respond(m.Reply(k.s.Upgrade, "", ""))
			return
		}
		k.wantVid = k.s.Upgrade == 200
	}
	r := m.Reply(200, "", "")
	r.Add("Contact", k.h.contactValue())
	r.Add("Allow", allowed)
	if len(m.Body) == 0 { // we are to offer: what we have
		withSDP(r, k.local)
	} else if !k.answerOffer(tx, r) {
		return
	}
	k.target(m)
	k.sessionTimer(m, r)
	k.theirRe = m
	k.h.publish(k)
	tx.Respond(r)
	k.repeatRe(tx, r, k.h.t1(), time.Now().Add(64*k.h.t1()))
}

// addsVideo says whether an offer has video for a call that has none.
func (k *call) addsVideo(offer []byte) bool {
	if k.agreed.Video != nil || k.wantVid {
		return false
	}
	o, err := sdp.Parse(offer)
	return err == nil && o.Video != nil && o.Video.Port != 0
}

// repeatRe repeats the 2xx of a re-INVITE until its ACK; without one the call ends.
func (k *call) repeatRe(tx *wire.ServerTx, r *wire.Message, wait time.Duration, end time.Time) {
	k.reTimer = k.h.ep.After(wait, func() {
		if time.Now().After(end) {
			k.bye(ByNoACK, `SIP;cause=408;text="ACK missing"`)
			return
		}
		tx.Respond(r)
		k.repeatRe(tx, r, min(2*wait, 8*k.h.t1()), end)
	})
}

// newRequest is a request of ours within the dialog (RFC 3261 §12.2.1.1).
func (k *call) newRequest(method string) *wire.Message {
	k.localSeq++
	m := &wire.Message{Method: method, URI: k.remoteURI}
	for _, v := range k.routes {
		m.Add("Route", v)
	}
	m.Add("Max-Forwards", "70")
	m.Add("From", k.from)
	m.Add("To", k.to)
	m.Add("Call-ID", k.view.CallID)
	m.Add("CSeq", fmt.Sprintf("%d %s", k.localSeq, method))
	return m
}

// hop is where requests within the dialog go first.
func (k *call) hop() wire.Target {
	uri := k.remoteURI
	if len(k.routes) > 0 {
		if a, err := wire.ParseAddr(k.routes[0]); err == nil {
			uri = a.URI
		}
	}
	if u, err := wire.ParseURI(uri); err == nil {
		if ap, ok := u.AddrPort(); ok {
			return wire.Target{Proto: strings.ToUpper(orDefault(u.Params["transport"], k.h.o.Transport)), Addr: ap}
		}
	}
	return k.h.toCore()
}

// bye ends an answered call from our side.
func (k *call) bye(by, reason string) {
	if k.view.State == Ended || !k.final {
		return
	}
	m := k.newRequest("BYE")
	if reason != "" {
		m.Add("Reason", reason)
	}
	k.h.ep.Request(m, k.hop(), func(*wire.Message, error) {})
	if by == ByHandset {
		k.view.Reason = reason
	}
	k.end(by)
}

// sendReoffer sends a re-INVITE with body.
func (k *call) sendReoffer(re *reoffer) {
	k.re = re
	re.tries++
	m := k.newRequest("INVITE")
	m.Add("Contact", k.h.contactValue())
	m.Add("Allow", allowed)
	m.Add("Supported", "timer, 100rel")
	withSDP(m, re.body)
	seq := k.localSeq
	k.h.ep.Request(m, k.hop(), func(r *wire.Message, err error) { k.reanswered(re, seq, r, err) })
}

// reanswered takes what a re-INVITE of ours got. Only a lost dialog ends the call.
func (k *call) reanswered(re *reoffer, seq uint32, r *wire.Message, err error) {
	if err == nil && r.Status < 200 {
		return
	}
	if err == nil && r.Status < 300 {
		k.sendACK(seq)
	}
	if k.re != re { // a repeated 2xx
		return
	}
	k.re = nil
	switch {
	case k.view.State == Ended:
		err = ErrNoCall
	case err != nil:
		k.bye(ByDialogLos, `SIP;cause=408`)
	case r.Status == 491 && re.tries < 5:
		// The other side owns the Call-ID, so it waits longer than we (RFC 3261 §14.1).
		k.reTimer = k.h.ep.After(time.Duration(100+200*re.tries)*time.Millisecond, func() { k.sendReoffer(re) })
		k.re = re
		return
	case r.Status == 481 || r.Status == 408:
		err = fmt.Errorf("re-INVITE answered %d", r.Status)
		k.bye(ByDialogLos, "")
	case r.Status >= 300:
		err = fmt.Errorf("re-INVITE answered %d %s", r.Status, r.Phrase)
	default:
		k.local = re.body
		if len(k.view.Reanswers) < 50 {
			k.view.Reanswers = append(k.view.Reanswers, string(r.Body))
		}
		k.target(r)
		k.takeAnswer(r.Body)
		k.h.publish(k)
	}
	re.done <- err
}

// current is the newest call that is connected.
func (h *Handset) current() (*call, error) {
	var best *call
	for _, k := range h.live {
		if k.view.State == Connected && (best == nil || k.view.Invited.After(best.view.Invited)) {
			best = k
		}
	}
	if best == nil {
		return nil, ErrNoCall
	}
	return best, nil
}

// change sends a re-INVITE with our description as edit leaves it and waits for the
// answer.
func (h *Handset) change(edit func(*call, *description)) error {
	re := &reoffer{done: make(chan error, 1)}
	var err error
	if doErr := h.ep.Do(func() {
		var k *call
		if k, err = h.current(); err != nil {
			return
		}
		if k.re != nil || k.theirRe != nil {
			err = fmt.Errorf("handset %s: an offer is under way already", h.o.Number)
			return
		}
		d := splitSDP(k.local)
		edit(k, &d)
		d.raise()
		re.body = d.bytes()
		k.sendReoffer(re)
	}); doErr != nil {
		return doErr
	}
	if err != nil {
		return err
	}
	select {
	case err = <-re.done:
		return err
	case <-h.done:
		return wire.ErrClosed
	}
}

// Hold puts the other side on hold: sendonly, or inactive.
func (h *Handset) Hold(inactive bool) error {
	dir := "sendonly"
	if inactive {
		dir = "inactive"
	}
	return h.change(func(_ *call, d *description) { d.directAll(dir) })
}

// Resume ends a hold.
func (h *Handset) Resume() error {
	return h.change(func(_ *call, d *description) { d.directAll("sendrecv") })
}

// directAll gives every m-line that is in use a direction.
func (d *description) directAll(dir string) {
	for i, m := range d.media {
		if !refusedSection(m) {
			d.media[i] = direct(m, dir)
		}
	}
}

// VideoOff is the user's "voice only": m=video 0.
func (h *Handset) VideoOff() error {
	return h.change(func(k *call, d *description) {
		k.wantVid = false
		for i, m := range d.media {
			if kind(m) == "video" {
				d.media[i] = closedSection(m)
			}
		}
	})
}

// VideoOn offers video, in its old place if it had one (RFC 3264 §8.2).
func (h *Handset) VideoOn() error {
	return h.change(func(k *call, d *description) {
		k.wantVid = true
		for i, m := range d.media {
			if kind(m) == "video" {
				if refusedSection(m) {
					d.media[i] = videoSection(k.video)
				}
				return
			}
		}
		d.media = append(d.media, videoSection(k.video))
	})
}

// HangUp ends the call with BYE, refuses one that rings with 486, or gives up one that has
// been dialled.
func (h *Handset) HangUp() error {
	err := ErrNoCall
	doErr := h.ep.Do(func() {
		for _, k := range h.live {
			switch {
			case k.view.State == Ended:
			case k.final:
				k.bye(ByHandset, userEnds)
				err = nil
			case k.out != nil:
				k.out.tx.Cancel("")
				err = nil
			default:
				k.refuse(486, "", `Q.850;cause=17;text="User decline"`, "")
				err = nil
			}
		}
	})
	if doErr != nil {
		return doErr
	}
	return err
}

// Answer picks up a call that rings, whatever the script has in mind.
func (h *Handset) Answer() error {
	err := ErrNoCall
	doErr := h.ep.Do(func() {
		for _, k := range h.live {
			if k.view.State == Ringing && k.pending == nil && !k.final && k.out == nil {
				k.accept()
				err = nil
				return
			}
		}
	})
	if doErr != nil {
		return doErr
	}
	return err
}

// SendDTMF presses keys, 0-9 * # A-D, in the call.
func (h *Handset) SendDTMF(keys string) error {
	var err error
	doErr := h.ep.Do(func() {
		var k *call
		if k, err = h.current(); err != nil {
			return
		}
		for _, d := range keys {
			if !strings.ContainsRune("0123456789*#ABCD", d) {
				err = fmt.Errorf("handset %s: no key %q", h.o.Number, d)
				return
			}
		}
		for _, d := range keys {
			k.media.SendDTMF(d)
		}
	})
	if doErr != nil {
		return doErr
	}
	return err
}
