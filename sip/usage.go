package sip

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
	"sparkle/sip/notifier"
)

// How many subscriptions may live at once. A handset has two or three; a carrier's proxy
// stands for all of its handsets.
const (
	maxUsages        = 4096 // of an attachment
	maxUsagesPeer    = 2048 // from one peer's address
	maxUsagesADialog = 32
)

// usages are the subscriptions in one dialog (RFC 5057), each a machine of package notifier.
// Its goroutine lives as long as there is one. The dialog is a call's, or one that a
// SUBSCRIBE or REFER made (RFC 6665 4.4.1); how it speaks is way.
type usages struct {
	a      *attachment
	way    way
	callID string    // of the call whose dialog it is; "" none
	by     *Identity // who is at the other end of that call; nil: each request says so
	target string    // whom the request that made the dialog meant; "": each request says so

	mu      sync.Mutex
	inbox   []any
	running bool
	ended   bool // nothing is taken any more
	wake    chan struct{}
	idle    func() // called when the last subscription is gone, nothing waits and mu is held

	list []*usage         // the goroutine's, as what follows
	out  map[uint64]asked // NOTIFYs that are out
}

// way is how a dialog answers requests and sends them.
type way interface {
	// tell answers the request that came with tx.
	tell(tx any, req *sipgo.Request, status int, headers []dialog.Header)
	// ask sends a NOTIFY; its outcome goes to usages.answered with the same id.
	ask(id uint64, headers []dialog.Header, contentType string, body []byte)
}

// asked names the machine's NOTIFY behind one of the dialog's.
type asked struct {
	u  *usage
	id uint64
}

// usage is one subscription.
type usage struct {
	us       *usages
	event    string // the value of Event as the peer wrote it
	name, id string
	reqs     map[any]*sipgo.Request // by transaction: what waits for an answer
	n        *notifier.Machine
	on       func(SubscriptionEvent)
	peer     netip.Addr
}

type (
	arrived struct {
		tx  any
		req *sipgo.Request
	}
	command struct {
		u  *usage
		in notifier.Input
	}
	answered struct {
		id         uint64
		status     int
		retryAfter time.Duration
	}
	stopped struct {
		why    string
		polite bool
	}
)

// newUsages is a dialog without subscriptions. callID and by are those of the call it
// belongs to.
func newUsages(a *attachment, w way, callID string, by *Identity) *usages {
	return &usages{a: a, way: w, callID: callID, by: by, wake: make(chan struct{}, 1), out: map[uint64]asked{}}
}

// take hands over a SUBSCRIBE, REFER or NOTIFY of the peer. It reports false if nothing is
// taken any more; then somebody else must answer.
func (us *usages) take(tx any, req *sipgo.Request) bool { return us.post(arrived{tx, req}) }

// answered says what became of a NOTIFY: 0 when nobody answered.
func (us *usages) answered(id uint64, status int, retryAfter time.Duration) {
	us.post(answered{id, status, retryAfter})
}

// stop ends all subscriptions with their dialog: nothing can be sent in it any more.
func (us *usages) stop(why string) {
	us.post(stopped{why, false})
	us.mu.Lock()
	defer us.mu.Unlock()
	us.ended = true
}

func (us *usages) post(in any) bool {
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.ended {
		return false
	}
	if !us.running {
		if _, begins := in.(arrived); !begins {
			return true // there is no subscription that it could be about
		}
		us.running = true
		us.a.wg.Go(us.run)
	}
	us.inbox = append(us.inbox, in)
	select {
	case us.wake <- struct{}{}:
	default:
	}
	return true
}

func (us *usages) run() {
	defer func() {
		// A fault in one dialog must not end the others.
		if p := recover(); p != nil {
			us.a.log.Error("subscription failed", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			us.abandon()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-us.wake:
			us.mu.Lock()
			inputs := us.inbox
			us.inbox = nil
			us.mu.Unlock()
			for _, in := range inputs {
				us.handle(in)
			}
		case <-timer.C:
			for _, u := range slices.Clone(us.list) {
				us.step(u, notifier.Tick{})
			}
		case <-us.a.ctx.Done():
			us.handle(stopped{why: "shutdown"})
		}
		if us.rest() {
			return
		}
		var next time.Time
		for _, u := range us.list {
			if at := u.n.Next(); next.IsZero() || at.Before(next) {
				next = at
			}
		}
		timer.Reset(max(time.Until(next), 0))
	}
}

// rest ends the goroutine if there is nothing to do.
func (us *usages) rest() bool {
	us.mu.Lock()
	defer us.mu.Unlock()
	if len(us.list) > 0 || len(us.inbox) > 0 {
		return false
	}
	us.running = false
	if us.idle != nil && !us.ended {
		us.ended = true
		us.idle()
	}
	return true
}

// abandon is the end after a fault of ours: what waits is answered, owners are not asked.
func (us *usages) abandon() {
	us.mu.Lock()
	rest := us.inbox
	us.running, us.inbox = false, nil
	if us.idle != nil && !us.ended {
		us.idle()
	}
	us.ended = true
	us.mu.Unlock()
	for _, u := range us.list {
		us.a.usages.leave(u.peer)
		for tx, req := range u.reqs {
			us.way.tell(tx, req, 500, nil)
		}
	}
	for _, in := range rest {
		if in, ok := in.(arrived); ok {
			us.way.tell(in.tx, in.req, 500, nil)
		}
	}
}

func (us *usages) handle(in any) {
	switch in := in.(type) {
	case arrived:
		us.arrive(in.tx, in.req)
	case command:
		if slices.Contains(us.list, in.u) {
			us.step(in.u, in.in)
		}
	case answered:
		if who, ok := us.out[in.id]; ok {
			delete(us.out, in.id)
			us.step(who.u, notifier.Answered{ID: who.id, Status: in.status, RetryAfter: in.retryAfter})
		}
	case stopped:
		for _, u := range slices.Clone(us.list) {
			if in.polite {
				us.step(u, notifier.Terminate{Reason: "deactivated", Why: in.why})
				us.step(u, notifier.Reject{Status: 503}) // one that was not answered yet
			} else {
				us.step(u, notifier.Shutdown{Why: in.why})
			}
		}
	}
}

// arrive takes a request of the peer.
func (us *usages) arrive(tx any, req *sipgo.Request) {
	refuse := func(status int, hs ...dialog.Header) { us.way.tell(tx, req, status, hs) }
	switch req.Method {
	case sipgo.SUBSCRIBE:
		s, status := readSubscribe(req)
		if status != 0 {
			refuse(status, allowEvents)
			return
		}
		name, id := notifier.Package(value(req, "Event"))
		for _, u := range us.list {
			if u.name == name && u.id == id {
				u.reqs[tx] = req
				us.step(u, notifier.Subscribe{Tx: tx, Expires: s.Expires})
				return
			}
		}
		us.subscribe(tx, req, s, name, id)
	case sipgo.REFER:
		r, status := readRefer(req)
		if status != 0 {
			refuse(status)
			return
		}
		us.refer(tx, req, r)
	default:
		refuse(481) // a NOTIFY of a subscription that we do not have
	}
}

// add makes a usage of a request, unless there are too many.
func (us *usages) add(tx any, req *sipgo.Request, ev string, o notifier.Options) *usage {
	peer := sourceOf(req)
	if len(us.list) >= maxUsagesADialog || !us.a.usages.enter(peer) {
		us.way.tell(tx, req, 503, []dialog.Header{{Name: "Retry-After", Value: strconv.Itoa(retrySeconds())}})
		return nil
	}
	o.Tx = tx
	u := &usage{us: us, event: ev, reqs: map[any]*sipgo.Request{tx: req}, n: notifier.New(time.Now(), o), peer: peer}
	u.name, u.id = notifier.Package(ev)
	us.list = append(us.list, u)
	return u
}

// step feeds a machine and does what it says.
func (us *usages) step(u *usage, in notifier.Input) {
	for _, act := range u.n.Step(time.Now(), in) {
		switch act := act.(type) {
		case notifier.Respond:
			req := u.reqs[act.Tx]
			delete(u.reqs, act.Tx)
			var hs []dialog.Header
			if act.Expires >= 0 {
				hs = append(hs, dialog.Header{Name: "Expires", Value: strconv.Itoa(int(act.Expires / time.Second))})
			}
			if act.Status == 200 && act.Expires < 0 {
				hs = append(hs, dialog.Header{Name: "Refer-Sub", Value: "false"})
			}
			us.way.tell(act.Tx, req, act.Status, hs)
		case notifier.Send:
			id := us.a.usages.asks.Add(1)
			us.out[id] = asked{u, act.ID}
			us.way.ask(id, []dialog.Header{{Name: "Event", Value: u.event}, {Name: "Subscription-State", Value: act.State}}, act.Type, act.Body)
		case notifier.Refreshed:
			u.tell(SubscriptionRefreshed{act.Expires})
		case notifier.Gone:
			u.tell(SubscriptionGone{act.Why})
		}
	}
	if u.n.Done() {
		if i := slices.Index(us.list, u); i >= 0 {
			us.list = slices.Delete(us.list, i, i+1)
			us.a.usages.leave(u.peer)
		}
	}
}

func (u *usage) tell(e SubscriptionEvent) {
	if u.on != nil {
		u.on(e)
	}
}

func (u *usage) do(in notifier.Input) { u.us.post(command{u, in}) }

// usageTable counts an attachment's subscriptions and finds the dialogs made for them.
type usageTable struct {
	asks atomic.Uint64 // NOTIFYs sent: the IDs of way.ask

	mu       sync.Mutex
	count    int
	peers    map[netip.Addr]int
	outsides map[string]*outside
	shut     bool
}

// enter counts a subscription, or says that there are too many.
func (t *usageTable) enter(peer netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut || t.count >= maxUsages || t.peers[peer] >= maxUsagesPeer {
		return false
	}
	if t.peers == nil {
		t.peers = map[netip.Addr]int{}
	}
	t.count++
	t.peers[peer]++
	return true
}

func (t *usageTable) leave(peer netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	if t.peers[peer]--; t.peers[peer] == 0 {
		delete(t.peers, peer)
	}
}

// put remembers a dialog, unless there are too many.
func (t *usageTable) put(o *outside) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut || len(t.outsides) >= maxUsages {
		return false
	}
	if t.outsides == nil {
		t.outsides = map[string]*outside{}
	}
	t.outsides[o.key] = o
	return true
}

func (t *usageTable) remove(o *outside) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.outsides, o.key)
}

// find is the dialog that a request names.
func (t *usageTable) find(req *sipgo.Request) *outside {
	local, _ := req.To().Params.Get("tag")
	remote, _ := req.From().Params.Get("tag")
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.outsides[outsideKey(string(*req.CallID()), local, remote)]
}

// farewell is how long subscribers may take to answer the last NOTIFY as we close.
const farewell = time.Second

// close ends the subscriptions of all dialogs but those of calls, which end with them.
func (t *usageTable) close(ctx context.Context) {
	t.mu.Lock()
	t.shut = true
	open := slices.Collect(maps.Values(t.outsides))
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	for _, o := range open {
		o.us.post(stopped{"shutdown", true})
	}
	for _, o := range open {
		select {
		case <-o.gone:
		case <-ctx.Done():
			return
		}
	}
}

// outside is the dialog that a SUBSCRIBE or REFER made: we are its UAS.
type outside struct {
	a        *attachment
	us       *usages
	key      string
	tag      string // ours
	local    string // To of the request, without a tag
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
	target, ok := ims.AddrSpec(value(req, "Contact"))
	from := req.From()
	remoteTag, tagged := from.Params.Get("tag")
	if !ok || !tagged || len(req.GetHeaders("Contact")) != 1 {
		a.answer(req, tx, verdict{status: 400})
		return
	}
	o := &outside{a: a, tag: token(), localURI: req.To().Address, remote: from, callID: string(*req.CallID()),
		target: target, routes: dialog.Values(req, "Record-Route"), fallback: req.Source(), gone: make(chan struct{}), remoteSeq: req.CSeq().SeqNo}
	user := req.Recipient.User
	if user == "" || !strings.HasPrefix(strings.ToLower(req.Recipient.Scheme), "sip") {
		user = a.user()
	}
	o.contact = "<sip:" + user + "@" + net.JoinHostPort(a.host, strconv.Itoa(a.port)) + a.uriTransport() + ">"
	o.key = outsideKey(o.callID, o.tag, remoteTag)
	o.us = newUsages(a, o, "", nil)
	o.us.target = req.Recipient.String()
	o.us.idle = func() {
		a.usages.remove(o)
		close(o.gone)
	}
	if !a.usages.put(o) || !o.us.take(tx, req) {
		a.answer(req, tx, overloaded())
	}
}

// onRequest takes a request inside the dialog.
func (o *outside) onRequest(req *sipgo.Request, tx *sipgo.ServerTx) {
	o.mu.Lock()
	late := req.CSeq().SeqNo <= o.remoteSeq
	if !late {
		o.remoteSeq = req.CSeq().SeqNo
		if t, ok := ims.AddrSpec(value(req, "Contact")); ok {
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
	o.a.wg.Go(func() {
		res, err := o.a.exchange(o.a.ctx, req, o.a.nextHop(req, o.fallbackPeer()))
		if err != nil {
			o.us.answered(id, 0, 0)
			return
		}
		wait, _ := retryAfter(res)
		o.us.answered(id, res.StatusCode, wait)
	})
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

// sourceOf is the address a request came from.
func sourceOf(req *sipgo.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(req.Source())
	return ap.Addr().Unmap()
}

// value is the first value of a header, "" if there is none.
func value(m sipgo.Message, name string) string {
	if hs := m.GetHeaders(name); len(hs) > 0 {
		return strings.TrimSpace(hs[0].Value())
	}
	return ""
}
