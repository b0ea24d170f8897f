package sip

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
	"sparkle/sip/reginfo"
	"sparkle/sip/register"
)

// Values of AttachmentOptions.RegEvent.
const (
	RegEventOff      = "off"
	RegEventTry      = "try"      // refused: the registration counts all the same
	RegEventRequired = "required" // no call before the network tells us of our registration
)

// regEvent is the subscription of a ue to the state of its own registration (RFC 3680, TS
// 24.229 §5.1.1.3): the network says through it that it ends a registration, or wants it
// renewed. The goroutine of the registration owns everything but the dialog, which is
// also looked at where NOTIFY comes in.
type regEvent struct {
	a        *attachment
	sub      register.Subscription
	order    reginfo.Order
	answers  chan subAnswer // cap 1: one SUBSCRIBE is out at a time
	notifies chan notify    // cap 16: full means that we are stuck, and is answered 500

	mu sync.Mutex
	dialogState
}

// dialogState is the subscription's dialog.
type dialogState struct {
	callID, local, remote string // remote is "" until somebody answers or notifies
	target                string
	routes                []string
	seq, heard            uint32 // CSeq of ours and of theirs
}

// subAnswer is the answer to a SUBSCRIBE of one dialog.
type subAnswer struct {
	callID string
	of     register.SubAnswer
}

type notify struct {
	state      string
	reason     string
	retryAfter time.Duration
	body       []byte
}

func newRegEvent(a *attachment) *regEvent {
	return &regEvent{a: a, sub: register.Subscription{State: register.SubNone, Chance: a.pace.chance},
		answers: make(chan subAnswer, 1), notifies: make(chan notify, 16)}
}

// registered tells the subscription what has become of the registration.
func (r *regEvent) registered(ctx context.Context, yes bool) {
	sub, ask := r.sub.Registered(time.Now(), yes)
	r.sub = sub
	r.send(ctx, ask)
}

// on takes an input and sends what it leads to.
func (r *regEvent) on(ctx context.Context, f func(register.Subscription) (register.Subscription, *register.Ask)) {
	sub, ask := f(r.sub)
	r.sub = sub
	r.send(ctx, ask)
}

// send sends a SUBSCRIBE; its answer comes to answers.
func (r *regEvent) send(ctx context.Context, ask *register.Ask) {
	if ask == nil {
		return
	}
	if ask.Fresh {
		r.mu.Lock()
		r.dialogState = dialogState{callID: token() + "@" + r.a.host, local: token()}
		r.mu.Unlock()
		r.order = reginfo.Order{}
	}
	r.mu.Lock()
	id := r.callID
	r.mu.Unlock()
	r.a.watchd.Go(r.a.safely(func() {
		ctx, cancel := context.WithTimeout(ctx, 32*time.Second)
		defer cancel()
		var a register.SubAnswer // after a fault as after no answer: it is tried again
		r.a.safely(func() { a = r.exchange(ctx, ask.Expires) })()
		select {
		case r.answers <- subAnswer{id, a}:
		case <-ctx.Done():
		}
	}))
}

// answered takes the answer to a SUBSCRIBE, unless its dialog has been given up.
func (r *regEvent) answered(ctx context.Context, in subAnswer) {
	r.mu.Lock()
	current := in.callID == r.callID
	r.mu.Unlock()
	if current {
		r.on(ctx, func(s register.Subscription) (register.Subscription, *register.Ask) {
			return s.Answered(time.Now(), in.of)
		})
	}
}

// exchange sends one SUBSCRIBE, a second time if it is challenged.
func (r *regEvent) exchange(ctx context.Context, expires time.Duration) register.SubAnswer {
	var proof *sipgo.Response
	for {
		req, hop, err := r.request(expires)
		if err == nil && proof != nil {
			_, err = r.a.authorize(req, proof, "")
		}
		if err != nil {
			r.a.log.Warn("SUBSCRIBE not sent", "err", err)
			return register.SubAnswer{}
		}
		res, err := r.a.exchange(ctx, req, hop)
		switch {
		case err != nil:
			return register.SubAnswer{}
		case (res.StatusCode == 401 || res.StatusCode == 407) && proof == nil:
			proof = res
			continue
		}
		out := register.SubAnswer{Status: res.StatusCode}
		out.Expires, _ = ims.ParseSeconds(first(res, "Expires"))
		out.MinExpires, _ = ims.ParseSeconds(first(res, "Min-Expires"))
		out.RetryAfter, _ = retryAfter(res)
		if res.IsSuccess() {
			r.established(res)
		}
		return out
	}
}

// established learns the dialog from the 2xx.
func (r *regEvent) established(res *sipgo.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if tag, _ := res.To().Params.Get("tag"); r.remote == "" || r.remote == tag {
		r.remote = tag
		r.target = dialog.AddrSpec(first(res, "Contact"))
		r.routes = dialog.Values(res, "Record-Route")
		slices.Reverse(r.routes)
	}
}

func (r *regEvent) request(expires time.Duration) (*sipgo.Request, string, error) {
	a := r.a
	identity, routes := a.identity()
	r.mu.Lock()
	r.seq++
	d := r.dialogState
	r.mu.Unlock()
	target := identity
	if d.target != "" {
		target, routes = d.target, d.routes
	}
	var uri sipgo.Uri
	if err := sipgo.ParseUri(target, &uri); err != nil {
		return nil, "", err
	}
	req := sipgo.NewRequest(sipgo.SUBSCRIBE, uri)
	add := func(name, value string) { req.AppendHeader(sipgo.NewHeader(name, value)) }
	for _, route := range routes {
		add("Route", route)
	}
	hops := sipgo.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	from, to := new(sipgo.FromHeader), new(sipgo.ToHeader)
	for _, p := range []struct {
		address *sipgo.Uri
		params  *sipgo.HeaderParams
	}{{&from.Address, &from.Params}, {&to.Address, &to.Params}} {
		if _, err := sipgo.ParseAddressValue("<"+identity+">", p.address, p.params); err != nil {
			return nil, "", err
		}
	}
	from.Params.Add("tag", d.local)
	if d.remote != "" && d.target != "" {
		to.Params.Add("tag", d.remote)
	}
	req.AppendHeader(from)
	req.AppendHeader(to)
	id := sipgo.CallIDHeader(d.callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sipgo.CSeqHeader{SeqNo: d.seq, MethodName: sipgo.SUBSCRIBE})
	add("Contact", "<"+a.contactURI()+">")
	add("Event", "reg")
	add("Accept", "application/reginfo+xml")
	add("Expires", strconv.FormatInt(int64(expires/time.Second), 10))
	if d.target == "" {
		add("P-Preferred-Identity", "<"+identity+">")
		if a.o.PANI != "" {
			add("P-Access-Network-Info", a.o.PANI)
		}
	}
	add("User-Agent", a.ua.o.UserAgent)
	req.SetBody(nil)
	return req, a.nextHop(req, a.target()), nil
}

// onNotify takes a NOTIFY that is ours; false: it belongs to no subscription of this.
func (r *regEvent) onNotify(req *sipgo.Request, tx responder) bool {
	local, _ := req.To().Params.Get("tag")
	remote, _ := req.From().Params.Get("tag")
	r.mu.Lock()
	// The first NOTIFY may come before the 2xx (RFC 6665 4.1.2.4); of forks the first counts.
	ours := r.callID != "" && string(*req.CallID()) == r.callID && local == r.local && (r.remote == "" || r.remote == remote)
	old := ours && r.heard != 0 && req.CSeq().SeqNo <= r.heard
	if ours && !old {
		r.remote, r.heard = remote, req.CSeq().SeqNo
	}
	r.mu.Unlock()
	if !ours {
		return false
	}
	event, _, _ := strings.Cut(first(req, "Event"), ";")
	switch {
	case old:
		r.a.answer(req, tx, verdict{status: 500})
	case !strings.EqualFold(strings.TrimSpace(event), "reg"):
		r.a.answer(req, tx, verdict{status: 489, header: dialog.Header{Name: "Allow-Events", Value: "reg"}})
	default:
		n := notify{body: req.Body()}
		parts := strings.Split(first(req, "Subscription-State"), ";")
		n.state = strings.ToLower(strings.TrimSpace(parts[0]))
		for _, p := range parts[1:] {
			k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
			switch strings.ToLower(k) {
			case "reason":
				n.reason = strings.ToLower(v)
			case "retry-after":
				n.retryAfter, _ = ims.ParseSeconds(v)
			}
		}
		select {
		case r.notifies <- n:
			r.a.answer(req, tx, verdict{status: 200})
		default:
			r.a.answer(req, tx, verdict{status: 500})
		}
	}
	return true
}

// notified acts on a NOTIFY.
func (r *regEvent) notified(ctx context.Context, n notify) {
	if len(n.body) > 0 {
		r.read(ctx, n.body)
	}
	if n.state == "terminated" {
		r.on(ctx, func(s register.Subscription) (register.Subscription, *register.Ask) {
			return s.Terminated(time.Now(), n.reason, n.retryAfter)
		})
	}
}

func (r *regEvent) read(ctx context.Context, body []byte) {
	doc, err := reginfo.Parse(body)
	if err != nil {
		r.a.log.Warn("reg event not understood", "err", err)
		return
	}
	switch v := r.order.Take(doc); {
	case v == reginfo.Stale:
		return
	case v == reginfo.Gap: // what is in it holds; what was lost comes with the next
		r.on(ctx, register.Subscription.Refresh)
	}
	known := append(r.a.reg.State().AssociatedURIs, r.a.o.IMPU)
	c, ok := doc.Find(r.a.reg.Same, func(aor string) bool {
		return slices.ContainsFunc(known, func(k string) bool { return sameAOR(k, aor) })
	})
	if !ok {
		return
	}
	r.a.log.Info("the network tells of our registration", "state", c.State, "event", c.Event, "expires", c.Expires)
	if c.State == "terminated" && c.Event == "rejected" {
		// It has let go of our calls already: what is left of them is ended here (IMS.md §1a).
		r.a.hangUpAll(`SIP;cause=480;text="registration ended by the network"`)
	}
	r.a.reg.Notice(c)
}

// sameAOR compares public identities: without parameters, and the host in any case.
func sameAOR(a, b string) bool {
	a, _, _ = strings.Cut(a, ";")
	b, _, _ = strings.Cut(b, ";")
	userA, hostA, _ := strings.Cut(a, "@")
	userB, hostB, _ := strings.Cut(b, "@")
	return userA == userB && strings.EqualFold(hostA, hostB)
}

// hangUpAll ends every call because the network does not want us any more.
func (a *attachment) hangUpAll(reason string) {
	a.mu.Lock()
	calls := make([]*call, 0, len(a.calls))
	for _, c := range a.calls {
		calls = append(calls, c)
	}
	a.mu.Unlock()
	for _, c := range calls {
		c.post(dialog.Hangup{Why: "attachment_down", Reason: reason})
	}
}

// report adds the subscription to the attachment's state.
func (r *regEvent) report(s *AttachmentState) {
	s.Reg.RegEvent, s.Reg.RegEventExpires = string(r.sub.State), time.Time{}
	if r.sub.State == register.SubActive {
		s.Reg.RegEventExpires = r.sub.Expires
		return
	}
	if s.State != string(register.Registered) {
		return
	}
	if r.sub.Err != "" {
		s.LastError = r.sub.Err
	}
	if r.a.o.RegEvent == RegEventRequired {
		s.State = string(register.Registering)
		if r.sub.State == register.SubRefused {
			s.State = string(register.Rejected)
		}
		if s.LastError == "" {
			s.LastError = fmt.Sprintf("the subscription to our registration is %s, and required", r.sub.State)
		}
	}
}
