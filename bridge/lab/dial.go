package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/sdp"
)

// outgoing is what a call that the handset places has besides.
type outgoing struct {
	uri    string
	tx     *wire.ClientTx
	result chan error // cap 1: answered, or why not
	told   bool
}

// Dial calls a number in E.164, or a sip: or tel: URI, through the core, and returns when
// that is answered. It is an error if it is refused, or given up with ctx. The call then is
// as one that came in: HangUp, Hold, SendDTMF and the rest act on it.
func (h *Handset) Dial(ctx context.Context, to string) error {
	uri := to
	if strings.HasPrefix(to, "+") {
		uri = "tel:" + to
	}
	if _, err := wire.ParseURI(uri); err != nil {
		return fmt.Errorf("handset %s: dial %q: %w", h.o.Number, to, err)
	}
	o := &outgoing{uri: uri, result: make(chan error, 1)}
	var err error
	if doErr := h.ep.Do(func() { err = h.dial(o) }); doErr != nil {
		return doErr
	}
	if err != nil {
		return fmt.Errorf("handset %s: dial %s: %w", h.o.Number, to, err)
	}
	select {
	case err = <-o.result:
	case <-ctx.Done():
		_ = h.ep.Do(func() { o.tx.Cancel("") })
		err = context.Cause(ctx)
	case <-h.done:
		err = wire.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("handset %s: dial %s: %w", h.o.Number, to, err)
	}
	return nil
}

// dial sends the INVITE by the route that registration gave (TS 24.229 §5.1.2A.1).
func (h *Handset) dial(o *outgoing) error {
	if h.reg.routes == nil {
		return errors.New("not registered")
	}
	k := &call{h: h, s: h.s, out: o, tag: wire.Token(5), index: -1, forks: map[string]string{}}
	k.from, k.to = "<"+h.IMPU()+">;tag="+k.tag, "<"+o.uri+">"
	k.view = Call{CallID: wire.Token(10), From: h.IMPU(), To: k.to, Placed: true, State: Offered, Invited: time.Now()}
	k.remoteURI = o.uri
	k.routes = append([]string{"<sip:" + h.home.Addr.String() + ";transport=" + h.o.Transport + ";lr>"}, h.reg.routes...)
	if err := k.openOffer(); err != nil {
		return err
	}
	k.view.Offer, k.view.HadVideo = string(k.local), k.wantVid
	h.live[k.view.CallID+"|"+k.tag] = k
	m := k.newRequest("INVITE")
	k.inviteSeq = k.localSeq
	m.Add("Contact", h.contactValue())
	m.Add("P-Preferred-Identity", "<"+h.IMPU()+">")
	m.Add("Allow", allowed)
	m.Add("Accept", "application/sdp")
	withSDP(m, k.local)
	o.tx = h.ep.Request(m, h.toCore(), k.dialled)
	h.publish(k)
	return nil
}

// openOffer gets the media's sockets and makes the offer, of what the phone can do.
func (k *call) openOffer() error {
	if err := k.openMedia(); err != nil {
		return err
	}
	if err := k.offerOurs(); err != nil {
		k.media.Close()
		return err
	}
	if len(k.s.Codecs) > 0 {
		d := splitSDP(k.local)
		for i, m := range d.media {
			if kind(m) == "audio" {
				d.media[i] = onlyCodecs(m, k.s.Codecs)
			}
		}
		k.local = d.bytes()
	}
	return nil
}

// onlyCodecs is an audio section with these codecs, and the keys at their clock rates.
func onlyCodecs(section []string, codecs []sdp.Codec) []string {
	drop, clocks := map[string]bool{}, map[string]bool{}
	each := func(f func(pt, name, clock string)) {
		for _, l := range section {
			pt, what, ok := strings.Cut(strings.TrimPrefix(l, "a=rtpmap:"), " ")
			if name, clock, _ := strings.Cut(what, "/"); ok && strings.HasPrefix(l, "a=rtpmap:") {
				clock, _, _ = strings.Cut(clock, "/")
				f(pt, name, clock)
			}
		}
	}
	each(func(pt, name, clock string) {
		known := slices.ContainsFunc(codecs, func(c sdp.Codec) bool { return strings.EqualFold(c.Name, name) })
		if known {
			clocks[clock] = true
		}
		drop[pt] = !known
	})
	each(func(pt, name, clock string) {
		if strings.EqualFold(name, "telephone-event") {
			drop[pt] = !clocks[clock]
		}
	})
	var out []string
	for i, l := range section {
		if i == 0 {
			f := strings.Fields(l)
			out = append(out, strings.Join(slices.DeleteFunc(f, func(pt string) bool { return drop[pt] }), " "))
			continue
		}
		_, rest, _ := strings.Cut(l, ":")
		pt, _, _ := strings.Cut(rest, " ")
		if (strings.HasPrefix(l, "a=rtpmap:") || strings.HasPrefix(l, "a=fmtp:")) && drop[pt] {
			continue
		}
		out = append(out, l)
	}
	return out
}

// decided tells who dialled, once.
func (o *outgoing) decided(err error) {
	if !o.told {
		o.told = true
		o.result <- err
	}
}

// dialled takes what the INVITE of ours gets: the caller's side of RFC 3261 §13.2.2. The
// first phone that answers is it; another one that does is hung up.
func (k *call) dialled(r *wire.Message, err error) {
	switch {
	case err != nil:
		k.out.decided(err)
		k.end(ByDialogLos)
	case r.Status < 200:
		if r.Status > 100 && k.view.State == Offered {
			k.view.State, k.view.Rang = Ringing, time.Now()
			k.h.publish(k)
		}
	case r.Status >= 300:
		k.final = true
		k.view.Status = r.Status
		k.view.Reason = r.Get("Reason")
		k.out.decided(fmt.Errorf("answered %d %s", r.Status, r.Phrase))
		k.end(ByRefusal)
	case k.view.State == Ended || k.final && r.Get("To") != k.to:
		k.drop(r)
	default:
		k.talk(r)
	}
}

// talk begins the dialog that a 2xx makes, or repeats the ACK of that 2xx.
func (k *call) talk(r *wire.Message) {
	first := !k.final
	k.follow(r)
	k.sendACK(k.inviteSeq)
	if !first {
		return
	}
	k.final = true
	k.view.Answer, k.view.Status = string(r.Body), r.Status
	k.view.State, k.view.AnsweredAt, k.view.ConnectedAt = Connected, time.Now(), time.Now()
	for _, x := range r.Headers {
		k.view.Headers = append(k.view.Headers, x.Name+": "+x.Value)
	}
	k.takeAnswer(r.Body)
	k.h.publish(k)
	if !k.started {
		k.out.decided(errors.New("the answer cannot be used"))
		k.bye(ByHandset, `SIP;cause=488;text="Not Acceptable Here"`)
		return
	}
	k.out.decided(nil)
	if k.s.HangUp > 0 {
		k.hangUp = k.h.ep.After(k.s.HangUp, func() { k.bye(ByHandset, userEnds) })
	}
}

// follow takes dialog state from a 2xx: the peer's tag and target, and the route set, which
// is Record-Route read backwards (RFC 3261 §12.1.2).
func (k *call) follow(r *wire.Message) {
	k.to = r.Get("To")
	k.target(r)
	k.routes = r.Values("Record-Route")
	slices.Reverse(k.routes)
}

// drop acknowledges a 2xx that nobody waits for any more, and hangs up.
func (k *call) drop(r *wire.Message) {
	other := *k
	other.follow(r)
	other.sendACK(k.inviteSeq)
	other.localSeq = k.localSeq
	k.h.ep.Request(other.newRequest("BYE"), other.hop(), func(*wire.Message, error) {})
	k.localSeq = other.localSeq
}

// sendACK acknowledges a 2xx of an INVITE of ours.
func (k *call) sendACK(seq uint32) {
	a := k.newRequest("ACK")
	k.localSeq-- // an ACK has the number of its INVITE
	a.Set("CSeq", strconv.FormatUint(uint64(seq), 10)+" ACK")
	to := k.hop()
	a.Prepend("Via", k.h.ep.Via(to.Proto, wire.Branch()))
	if err := k.h.ep.Send(a, to); err != nil {
		k.h.log.Warn("ACK not sent", "err", err)
	}
}
