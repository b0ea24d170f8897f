package sip

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// outside is the dialog that a SUBSCRIBE or REFER made: we are its UAS.
type outside struct {
	a        *attachment
	us       *usages
	key      string
	tag      string // ours
	first    string // the request that made it, whichever way it came: inviteKey
	localURI sipgo.Uri
	remote   *sipgo.FromHeader
	callID   string
	target   string   // Contact of the peer
	routes   []string // Record-Route of the request, in its order (RFC 3261 12.1.1)
	contact  string
	fallback string        // who sent the request
	gone     chan struct{} // closed with the last subscription

	mu        sync.Mutex
	seq       uint32 // of our last request
	remoteSeq uint32
}

// outsideKey is how a request names such a dialog: Call-ID, our tag, the peer's.
func outsideKey(callID, local, remote string) string {
	return callID + "\x00" + local + "\x00" + remote
}

// begin makes a dialog of a SUBSCRIBE or REFER that has none, and hands the request over.
func (a *attachment) begin(req *sipgo.Request, tx *sipgo.ServerTx) {
	target, ok := ims.AddrSpec(first(req, "Contact"))
	from := req.From()
	remoteTag, tagged := from.Params.Get("tag")
	if !ok || !tagged || len(req.GetHeaders("Contact")) != 1 {
		a.answer(req, tx, verdict{status: 400})
		return
	}
	o := &outside{a: a, tag: token(), localURI: req.To().Address, remote: from, callID: string(*req.CallID()), first: inviteKey(req),
		target: target, routes: dialog.Values(req, "Record-Route"), fallback: req.Source(), gone: make(chan struct{}), remoteSeq: req.CSeq().SeqNo}
	user := req.Recipient.User
	if user == "" || !strings.HasPrefix(strings.ToLower(req.Recipient.Scheme), "sip") {
		user = a.user()
	}
	o.contact = "<sip:" + user + "@" + net.JoinHostPort(a.host, strconv.Itoa(a.port)) + a.uriTransport() + ">"
	o.key = outsideKey(o.callID, o.tag, remoteTag)
	o.us = newUsages(a, o, func(n int) {
		if n < 0 {
			a.usages.remove(o)
			close(o.gone)
		}
	})
	o.us.once, o.us.target = true, a.wanted(req)
	if v := a.usages.put(o); v.status != 0 {
		a.answer(req, tx, v)
		return
	}
	o.us.take(tx, req)
}

// onRequest takes a request inside the dialog.
func (o *outside) onRequest(req *sipgo.Request, tx *sipgo.ServerTx) {
	o.mu.Lock()
	late := req.CSeq().SeqNo <= o.remoteSeq
	if !late {
		o.remoteSeq = req.CSeq().SeqNo
		if t, ok := ims.AddrSpec(first(req, "Contact")); ok {
			o.target = t // target refresh (RFC 6665 4.4.1)
		}
	}
	o.mu.Unlock()
	switch {
	case late:
		o.a.answer(req, tx, verdict{status: 500}) // RFC 3261 12.2.2
	case req.Method != sipgo.SUBSCRIBE && req.Method != sipgo.REFER && req.Method != sipgo.NOTIFY:
		o.a.answer(req, tx, verdict{status: 481}) // no call is in this dialog
	case !o.us.take(tx, req):
		o.a.answer(req, tx, verdict{status: 481})
	}
}

// tell implements way.
func (o *outside) tell(tx any, req *sipgo.Request, status int, headers []dialog.Header) {
	res := sipgo.NewResponseFromRequest(req, status, dialog.Phrase(status), nil)
	res.To().Params.Remove("tag")
	res.To().Params.Add("tag", o.tag)
	if status < 300 {
		res.AppendHeader(sipgo.NewHeader("Contact", o.contact))
		res.AppendHeader(sipgo.NewHeader("Allow", allow))
	}
	for _, h := range headers {
		res.AppendHeader(sipgo.NewHeader(h.Name, h.Value))
	}
	if err := tx.(*sipgo.ServerTx).Respond(res); err != nil {
		o.a.log.Debug("response not sent", "status", status, "err", err)
	}
}

// ask implements way: a NOTIFY in a transaction of its own. What the peer asks to be
// proven is not (a challenge in here is no reason to use our credentials).
func (o *outside) ask(id uint64, headers []dialog.Header, contentType string, body []byte) {
	o.mu.Lock()
	o.seq++
	seq, target := o.seq, o.target
	o.mu.Unlock()
	req, err := o.request(target, seq)
	if err != nil {
		o.a.log.Warn("NOTIFY not sent, subscription ended", "err", err)
		o.us.answered(id, 0, 0)
		return
	}
	for _, h := range headers {
		req.AppendHeader(sipgo.NewHeader(h.Name, h.Value))
	}
	if len(body) > 0 {
		req.AppendHeader(sipgo.NewHeader("Content-Type", contentType))
	}
	req.SetBody(body)
	o.a.wg.Go(o.a.safely(func() {
		res, err := o.a.exchange(o.a.ctx, req, o.a.nextHop(req, o.fallbackPeer()))
		if err != nil {
			if o.a.ctx.Err() == nil {
				o.a.log.Warn("NOTIFY not sent or not answered, subscription ended", "err", err)
			}
			o.us.answered(id, 0, 0)
			return
		}
		wait, _ := retryAfter(res)
		o.us.answered(id, res.StatusCode, wait)
	}))
}

// request is a NOTIFY without what is special about it.
func (o *outside) request(target string, seq uint32) (*sipgo.Request, error) {
	routes := o.routes
	if len(routes) > 0 && !loose(routes[0]) {
		// A strict router of RFC 2543 wants its own address in the Request-URI.
		first, _ := ims.AddrSpec(routes[0])
		target, routes = first, append(slices.Clone(routes[1:]), "<"+target+">")
	}
	var uri sipgo.Uri
	if err := sipgo.ParseUri(target, &uri); err != nil {
		return nil, err
	}
	req := sipgo.NewRequest(sipgo.NOTIFY, uri)
	hops := sipgo.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	for _, r := range routes {
		req.AppendHeader(sipgo.NewHeader("Route", r))
	}
	from := &sipgo.FromHeader{Address: o.localURI, Params: sipgo.NewParams()}
	from.Params.Add("tag", o.tag)
	req.AppendHeader(from)
	req.AppendHeader(&sipgo.ToHeader{DisplayName: o.remote.DisplayName, Address: o.remote.Address, Params: o.remote.Params})
	id := sipgo.CallIDHeader(o.callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sipgo.CSeqHeader{SeqNo: seq, MethodName: sipgo.NOTIFY})
	req.AppendHeader(sipgo.NewHeader("Contact", o.contact))
	req.AppendHeader(sipgo.NewHeader("User-Agent", o.a.ua.o.UserAgent))
	return req, nil
}

// fallbackPeer is who knows the way where the route names no peer: on UDP the one that
// sent the request, on TCP, where that port is nobody's to connect to, the target.
func (o *outside) fallbackPeer() string {
	if o.a.o.Transport == "udp" {
		return o.fallback
	}
	return o.a.target()
}

func loose(route string) bool {
	uri, _ := ims.AddrSpec(route)
	_, rest, _ := strings.Cut(uri, ";")
	for p := range strings.SplitSeq(rest, ";") {
		if name, _, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(name), "lr") {
			return true
		}
	}
	return false
}
