package sip

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

// peers are the addresses an attachment listens to. What comes from elsewhere is
// dropped before it is parsed or remembered: sipgo keeps an entry for every source
// it lets through.
type peers struct {
	prefixes atomic.Pointer[[]netip.Prefix]
	dropped  atomic.Uint64
}

// set replaces who is trusted: a name in the DNS may move.
func (p *peers) set(prefixes []netip.Prefix) { p.prefixes.Store(&prefixes) }

func (p *peers) has(ip netip.Addr) bool {
	ps := p.prefixes.Load()
	return ps != nil && slices.ContainsFunc(*ps, func(pre netip.Prefix) bool { return pre.Contains(ip) })
}

func (p *peers) trusts(addr net.Addr) bool {
	return p.has(addrOf(addr))
}

// sentByUs says whether the sent-by of a Via is ours.
func (a *attachment) sentByUs(host string, port int) bool {
	if !slices.ContainsFunc(slices.Collect(maps.Values(a.sockets)), func(s socket) bool { return s.port == port }) {
		return false
	}
	if strings.EqualFold(host, a.host) {
		return true
	}
	is, err := netip.ParseAddr(host)
	own, err2 := netip.ParseAddr(a.host)
	return err == nil && err2 == nil && is.Unmap() == own.Unmap()
}

// hasRoom says whether a new INVITE can be taken. One that comes again belongs to a call
// that was.
func (a *attachment) hasRoom(from netip.Addr, req *sipgo.Request) bool {
	key := inviteKey(req)
	a.mu.Lock()
	known, full := a.merging[key], a.pace.max > 0 && a.pace.busy >= a.pace.max
	a.mu.Unlock()
	return known || !full && a.invites.spend(time.Now(), from)
}

// full says that no further call is taken.
func (a *attachment) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shutd || a.pace.max > 0 && a.pace.busy >= a.pace.max
}

// onRequest is where sipgo hands over a request, in a goroutine of its own.
func (a *attachment) onRequest(req *sipgo.Request, tx *sipgo.ServerTx) {
	defer func() {
		if p := recover(); p != nil {
			a.fault("request handler", p)
			a.answer(req, tx, verdict{status: 500})
		}
	}()
	from := sourceOf(req)
	if req.IsAck() {
		// An ACK has no answer: sipgo would keep its transaction for ever.
		defer tx.Terminate()
	} else if from.IsValid() {
		a.screen.busy.enter(from, math.MaxInt, math.MaxInt) // it was let in: see mayBegin
		if !tx.OnTerminate(func(string, error) { a.screen.busy.leave(from) }) {
			a.screen.busy.leave(from)
		}
	}
	if a.passes(req) {
		a.sendOn(req, tx)
		return
	}
	v := validate(req)
	if v.status == 405 && req.Method == sipgo.REGISTER && a.o.Mode == ModeAS {
		a.onThirdParty(req, tx)
		return
	}
	if v.status != 400 { // who it is comes first (RFC 3261 8.2), but for what cannot be read
		if u := a.used(req, from); u.status != 0 {
			v = u
		}
	}
	if a.o.Untrusted {
		distrust(req)
	}
	c := a.callOf(req)
	if v.status != 0 {
		if c != nil {
			c.box.skip(req)
		}
		if req.IsInvite() && !req.To().Params.Has("tag") && v.status != 400 {
			a.turnAway(req, tx, v, a.incoming(req, dialog.SDP(req), icidOf(req)))
			return
		}
		a.answer(req, tx, v)
		return
	}
	if c != nil {
		a.deliver(c, req, tx)
		return
	}
	inDialog := req.To().Params.Has("tag")
	switch {
	case req.IsAck():
	case req.Method == sipgo.SUBSCRIBE, req.Method == sipgo.REFER, req.Method == sipgo.NOTIFY:
		a.onUsage(req, tx)
	case inDialog || req.Method != sipgo.INVITE: // the call has just ended, or see offhand
		a.answer(req, tx, verdict{status: 481})
	default:
		a.onInvite(req, tx)
	}
}

// offhand answers without a transaction, which over UDP would stay for 32 s, what leaves no
// state behind: OPTIONS, what names no call of ours, and who is asked for a proof. What can begin
// something passes.
func (a *attachment) offhand(req *sipgo.Request, from netip.Addr) verdict {
	if begins(req) {
		return a.unproven(req, from)
	}
	within := req.To().Params.Has("tag")
	switch req.Method {
	case sipgo.ACK, sipgo.CANCEL, sipgo.SUBSCRIBE, sipgo.REFER, sipgo.NOTIFY, sipgo.REGISTER:
		return verdict{}
	}
	if a.callOf(req) != nil || within && a.wentLately(req) {
		return verdict{}
	}
	if v := validate(req); v.status != 0 {
		return v
	}
	switch {
	case within || req.Method != sipgo.OPTIONS:
		return verdict{status: 481}
	case a.full() || a.ua.busy.Load(): // as an INVITE would be (RFC 3261 11.2)
		return overload()
	}
	return verdict{status: 200, usual: true}
}

// onUsage takes a request of a subscription that is in no call's dialog.
func (a *attachment) onUsage(req *sipgo.Request, tx *sipgo.ServerTx) {
	if o := a.usages.find(req); o != nil {
		o.onRequest(req, tx)
		return
	}
	if req.Method == sipgo.NOTIFY && a.events != nil && a.events.onNotify(req, tx) {
		return
	}
	if req.To().Params.Has("tag") || req.Method == sipgo.NOTIFY {
		a.answer(req, tx, verdict{status: 481})
		return
	}
	a.begin(req, tx)
}

// fault notes a panic of ours. It must not end more than what it happened in.
func (a *attachment) fault(what string, p any) {
	a.screen.faults.Add(1)
	a.log.Error(what+" failed", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// safely is f for a goroutine of its own.
func (a *attachment) safely(f func()) func() {
	return func() {
		defer func() {
			if p := recover(); p != nil {
				a.fault("goroutine", p)
			}
		}()
		f()
	}
}

// lasting is f for a goroutine that the attachment cannot be without: after a fault it
// begins again, a second later.
func (a *attachment) lasting(f func()) func() {
	return func() {
		for done := false; !done && a.ctx.Err() == nil; {
			a.safely(func() { f(); done = true })()
			if !done {
				select {
				case <-time.After(time.Second):
				case <-a.ctx.Done():
				}
			}
		}
	}
}

// callOf finds the call whose dialog a request names: Call-ID and our tag.
func (a *attachment) callOf(req *sipgo.Request) *call {
	id, to := req.CallID(), req.To()
	if id == nil || to == nil {
		return nil
	}
	tag, _ := to.Params.Get("tag")
	return a.find(string(*id), tag)
}

func (a *attachment) deliver(c *call, req *sipgo.Request, tx *sipgo.ServerTx) {
	var to responder = tx
	switch {
	case req.IsAck():
		c.post(dialog.Request{Req: req})
		return
	case req.IsInvite():
		itx := &inviteTx{ServerTx: tx, req: req}
		itx.tryLater(a)
		c.watch(itx)
		to = itx
	}
	if !c.postIfLive(dialog.Request{Req: req, Tx: to}) {
		a.answer(req, to, verdict{status: 481})
	}
}

func (a *attachment) answer(req *sipgo.Request, tx responder, v verdict) {
	if req.IsAck() {
		return
	}
	res := sipgo.NewResponseFromRequest(req, v.status, dialog.Phrase(v.status), nil)
	for _, h := range v.headers() {
		res.AppendHeader(sipgo.NewHeader(h.Name, h.Value))
	}
	if err := tx.Respond(res); err != nil {
		a.log.Debug("response not sent", "status", v.status, "err", err)
	}
}

// arrive sees every message that passed the screen, in the order they came, before sipgo
// does. What belongs to a call's dialog is posted to it, or announced: see mailbox.
func (a *attachment) arrive(info sipgo.TransportReadProps, m sipgo.Message) {
	switch m := m.(type) {
	case *sipgo.Request:
		if c := a.callOf(m); c != nil {
			c.box.expect(time.Now(), m)
		}
	case *sipgo.Response:
		anew := a.disagreed(m)
		tag, _ := m.From().Params.Get("tag")
		if c := a.find(string(*m.CallID()), tag); c != nil {
			if anew && m.CSeq().MethodName == sipgo.INVITE {
				c.renews.Store(true)
			}
			if acknowledged(m) {
				c.box.expect(time.Now(), m)
				return
			}
			m.SetTransport(info.Transport)
			m.SetSource(info.RemoteAddr.String())
			c.post(dialog.Response{Res: m})
		}
	}
}

// onStray takes responses that no transaction claims. sipgo's INVITE transaction ends
// with its connection, and forgets after 32 s; whatever 2xx comes then must not leave
// a phone connected to nobody.
func (a *attachment) onStray(res *sipgo.Response) {
	defer func() {
		if p := recover(); p != nil {
			a.fault("response handler", p)
		}
	}()
	seq, id := res.CSeq(), res.CallID()
	if seq == nil || id == nil || res.From() == nil || res.To() == nil || seq.MethodName != sipgo.INVITE {
		return
	}
	tag, _ := res.From().Params.Get("tag")
	if c := a.find(string(*id), tag); c != nil {
		if acknowledged(res) { // of other responses it knows: see arrive
			c.post(dialog.Response{Res: res})
		}
		return
	}
	if res.IsSuccess() {
		a.dropAnswer(res, a.target())
	}
}

// How many dialogs that nobody wants are ended at once, and how many of one peer. A peer whose
// answers are late by a mistake has a few; more are a flood, each of which would make us send a
// BYE eleven times.
const maxStrays, maxStraysPeer = 512, 128

// strays are the dialogs that are being ended.
type strays struct {
	heads
	mu   sync.Mutex
	live map[string]bool // by Call-ID and the peer's tag
}

// begin is false for one that is being ended already; full: there are too many.
func (s *strays) begin(key string, from netip.Addr) (first, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[key] {
		return false, false
	}
	if !s.enter(from, maxStrays, maxStraysPeer) {
		return false, true
	}
	if s.live == nil {
		s.live = map[string]bool{}
	}
	s.live[key] = true
	return true, false
}

func (s *strays) end(key string, from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, key)
	s.leave(from)
}

// dropAnswer acknowledges a 2xx that nobody wants any more and ends its dialog. A copy of it is
// acknowledged only.
func (a *attachment) dropAnswer(res *sipgo.Response, fallback string) {
	ack, bye := dialog.Stray(a.dialogOptions(Invite{}, ""), res)
	if ack == nil || bye == nil {
		return
	}
	tag, _ := res.To().Params.Get("tag")
	key, from := string(*res.CallID())+"\x00"+tag, sourceOf(res)
	first, full := a.strays.begin(key, from)
	if full {
		a.screen.misled.Add(1) // who means it says it again
		return
	}
	if err := a.write(ack, fallback); err != nil {
		a.log.Warn("ACK of an unwanted answer not sent", "err", err)
		if first {
			a.strays.end(key, from)
		}
		return
	}
	if !first {
		return
	}
	a.log.Info("answer to a forgotten call: ended it")
	a.wg.Go(a.safely(func() {
		defer a.strays.end(key, from)
		if _, err := a.exchange(a.ctx, bye, a.nextHop(bye, fallback)); err != nil {
			a.log.Warn("BYE of an unwanted answer failed", "err", err)
		}
	}))
}
