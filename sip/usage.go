package sip

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
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
	once    bool        // with the last subscription the dialog ends
	use     func(n int) // called with mu held: +1 when the goroutine begins, -1 when it ends

	list []*usage         // the goroutine's, as what follows
	had  bool             // there was one
	out  map[uint64]asked // NOTIFYs that are out
	held []func()         // of behind: NOTIFYs wait for answers
	till time.Time        // and are not waited for any longer
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
	max      int // length of a document
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
	behind struct{ f func() }
)

func newUsages(a *attachment, w way, use func(n int)) *usages {
	return &usages{a: a, way: w, use: use, wake: make(chan struct{}, 1), out: map[uint64]asked{}}
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

// behind runs f when all that was posted before has been done and answered: who gets BYE right
// behind a NOTIFY may have no dialog left to answer it in. A peer that does not answer is not
// waited for (farewell).
func (us *usages) behind(f func()) {
	us.mu.Lock()
	busy := us.running
	if busy {
		us.queue(behind{f})
	}
	us.mu.Unlock()
	if !busy {
		f()
	}
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
		us.use(1)
		us.a.wg.Go(us.a.safely(us.run))
	}
	us.queue(in)
	return true
}

// queue is called with mu held.
func (us *usages) queue(in any) {
	us.inbox = append(us.inbox, in)
	select {
	case us.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest of what waits; false: nothing does.
func (us *usages) next() (in any, ok bool) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if len(us.inbox) == 0 {
		return nil, false
	}
	in, us.inbox = us.inbox[0], us.inbox[1:]
	return in, true
}

func (us *usages) run() {
	defer func() {
		// A fault in one dialog must not end the others.
		if p := recover(); p != nil {
			us.a.fault("subscription", p)
			us.abandon()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-us.wake:
			for in, ok := us.next(); ok; in, ok = us.next() {
				us.handle(in)
			}
		case <-timer.C:
			for _, u := range slices.Clone(us.list) {
				us.step(u, notifier.Tick{})
			}
		case <-us.a.ctx.Done():
			us.handle(stopped{why: "shutdown"})
		}
		us.release()
		if us.rest() {
			return
		}
		next := us.till
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
	us.ended = us.ended || us.once
	us.use(-1)
	return true
}

// abandon is the end after a fault of ours: what waits is answered, owners are not asked.
func (us *usages) abandon() {
	for _, f := range us.held {
		f()
	}
	us.mu.Lock()
	rest := us.inbox
	us.running, us.inbox, us.ended = false, nil, true
	us.use(-1)
	us.mu.Unlock()
	for _, u := range us.list {
		us.a.usages.leave(u.peer)
		for tx, req := range u.reqs {
			us.way.tell(tx, req, 500, nil)
		}
	}
	for _, in := range rest {
		switch in := in.(type) {
		case arrived:
			us.way.tell(in.tx, in.req, 500, nil)
		case behind:
			in.f()
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
	case behind:
		if len(us.held) == 0 {
			us.till = time.Now().Add(farewell)
		}
		us.held = append(us.held, in.f)
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

// release runs what waited for NOTIFYs to be answered.
func (us *usages) release() {
	if slices.ContainsFunc(us.list, func(u *usage) bool { return u.n.Waits() }) && time.Now().Before(us.till) {
		return
	}
	for _, f := range us.held {
		f()
	}
	us.held, us.till = nil, time.Time{}
}

// arrive takes a request of the peer.
func (us *usages) arrive(tx any, req *sipgo.Request) {
	refuse := func(status int, hs ...dialog.Header) { us.way.tell(tx, req, status, hs) }
	if us.once && us.had && len(us.list) == 0 {
		refuse(481) // it ended with its last subscription, as this came
		return
	}
	switch req.Method {
	case sipgo.SUBSCRIBE:
		s, status := readSubscribe(req)
		if status != 0 {
			refuse(status, allowEvents)
			return
		}
		name, id := notifier.Package(first(req, "Event"))
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
		v := overload()
		us.way.tell(tx, req, v.status, []dialog.Header{v.header})
		return nil
	}
	o.Tx = tx
	u := &usage{us: us, event: ev, reqs: map[any]*sipgo.Request{tx: req}, n: notifier.New(time.Now(), o), peer: peer, max: us.maxDocument(req)}
	u.name, u.id = notifier.Package(ev)
	us.list, us.had = append(us.list, u), true
	return u
}

// step feeds a machine and does what it says.
func (us *usages) step(u *usage, in notifier.Input) {
	for _, act := range u.n.Step(time.Now(), in) {
		switch act := act.(type) {
		case notifier.Respond:
			req := u.reqs[act.Tx]
			delete(u.reqs, act.Tx)
			hs := u.available(act.Status)
			if act.Expires >= 0 {
				hs = append(hs, dialog.Header{Name: "Expires", Value: strconv.Itoa(int(act.Expires / time.Second))})
			}
			if act.Status == 200 && act.Expires < 0 {
				hs = append(hs, dialog.Header{Name: "Refer-Sub", Value: "false"})
			}
			us.way.tell(act.Tx, req, act.Status, hs)
		case notifier.Send:
			if len(act.Body) > u.max {
				us.a.log.Warn("document not sent, subscription ended", "event", u.name, "bytes", len(act.Body), "max", u.max)
				us.step(u, notifier.Unsent{ID: act.ID})
				continue
			}
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
	firsts   map[string]bool // outside.first of each
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

// put remembers a dialog, unless there are too many or its first request came before by
// another way (RFC 3261 8.2.2.2).
func (t *usageTable) put(o *outside) verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.firsts[o.first]:
		return verdict{status: 482}
	case t.shut || len(t.outsides) >= maxUsages:
		return overload()
	}
	if t.outsides == nil {
		t.outsides, t.firsts = map[string]*outside{}, map[string]bool{}
	}
	t.outsides[o.key], t.firsts[o.first] = o, true
	return verdict{}
}

func (t *usageTable) remove(o *outside) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.outsides, o.key)
	delete(t.firsts, o.first)
}

// began says whether a request has made a dialog: see inviteKey.
func (t *usageTable) began(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firsts[key]
}

// find is the dialog that a request names.
func (t *usageTable) find(req *sipgo.Request) *outside {
	local, _ := req.To().Params.Get("tag")
	remote, _ := req.From().Params.Get("tag")
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.outsides[outsideKey(string(*req.CallID()), local, remote)]
}

// farewell is how long subscribers may take to answer a NOTIFY as we close, or hang up.
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

// inCall is how the usages of a call's dialog speak.
type inCall struct {
	c  *call
	us *usages
}

// newUsages is for what comes in the call's dialog besides the call.
func (c *call) newUsages() *usages {
	way := &inCall{c: c}
	us := newUsages(c.a, way, c.use)
	us.callID, way.us = c.id, us
	if c.in != nil {
		us.by = &c.in.info.Caller
	} else {
		uri := dialog.AddrSpec(c.options.To) // whom we called ourselves
		us.by = &Identity{URI: uri, Number: numberOf(uri), URIs: []string{uri}, Trusted: true}
	}
	return us
}

func (w *inCall) tell(tx any, _ *sipgo.Request, status int, headers []dialog.Header) {
	w.c.tellOther(tx.(uint64), status, headers...)
}

func (w *inCall) ask(id uint64, headers []dialog.Header, contentType string, body []byte) {
	w.c.ask(sipgo.NOTIFY, headers, contentType, body, func(e dialog.Asked) { w.us.answered(id, e.Status, e.RetryAfter) })
}

// sourceOf is the address a message came from.
func sourceOf(m interface{ Source() string }) netip.Addr {
	ap, _ := netip.ParseAddrPort(m.Source())
	return ap.Addr().Unmap().WithZone("")
}
