package sip

import (
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

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
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	return p.has(ip)
}

// maxConns is how many connections peers may have open to one attachment at once.
const maxConns = 256

// guardedListener closes connections of strangers at once, and those above maxConns:
// each would cost a goroutine and 32 KiB.
type guardedListener struct {
	net.Listener
	peers  *peers
	screen *screen
	open   atomic.Int32
}

func (l *guardedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.peers.trusts(conn.RemoteAddr()) || l.open.Load() >= maxConns {
			l.peers.dropped.Add(1)
			conn.Close()
			continue
		}
		l.open.Add(1)
		return &countedConn{Conn: conn, l: l}, nil
	}
}

type countedConn struct {
	net.Conn
	l      *guardedListener
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.l.open.Add(-1)
		c.l.screen.forget(c.Conn)
	}
	return c.Conn.Close()
}

// verdict is what the front handler says of a request: 0 lets it pass.
type verdict struct {
	status int
	header dialog.Header // what the status must carry
}

// single are the headers every request has exactly once (RFC 3261 8.1.1).
var single = []string{"From", "To", "Call-ID", "CSeq"}

// validate checks a request before anything looks into it. Its rows are in the order
// of RFC 3261 8.2.
func validate(req *sipgo.Request) verdict {
	for _, name := range single {
		if len(req.GetHeaders(name)) != 1 {
			return verdict{status: 400}
		}
	}
	for _, name := range []string{"Max-Forwards", "Content-Length", "Content-Type"} {
		if len(req.GetHeaders(name)) > 1 {
			return verdict{status: 400}
		}
	}
	seq, id, from := req.CSeq(), req.CallID(), req.From()
	switch {
	case req.Via() == nil, seq == nil, id == nil || *id == "", from == nil, req.To() == nil:
		return verdict{status: 400}
	case !strings.EqualFold(req.SipVersion, "SIP/2.0"):
		return verdict{status: 505}
	case seq.MethodName != req.Method || seq.SeqNo >= 1<<31:
		return verdict{status: 400}
	case !slices.Contains(methods, string(req.Method)):
		return verdict{405, dialog.Header{Name: "Allow", Value: allow}}
	case req.IsAck():
		return verdict{} // nothing may answer it
	case req.MaxForwards() != nil && req.MaxForwards().Val() == 0 && req.Method != sipgo.OPTIONS:
		return verdict{status: 483}
	}
	if scheme := strings.ToLower(req.Recipient.Scheme); scheme != "sip" && scheme != "sips" && scheme != "tel" {
		return verdict{status: 416}
	}
	if unknown := unsupported(req); req.Method != sipgo.CANCEL && len(unknown) > 0 {
		return verdict{420, dialog.Header{Name: "Unsupported", Value: strings.Join(unknown, ", ")}}
	}
	if req.IsInvite() && len(req.Body()) > 0 && dialog.SDP(req) == nil {
		return verdict{415, dialog.Header{Name: "Accept", Value: "application/sdp"}}
	}
	if req.IsInvite() && !acceptsSDP(dialog.Values(req, "Accept")) {
		return verdict{status: 406}
	}
	return verdict{}
}

// unsupported are the option tags a request requires and we do not know.
func unsupported(req *sipgo.Request) []string {
	known := []string{"100rel", "timer", "replaces", "precondition", "norefersub", "multiple-refer", "recipient-list-invite"}
	return slices.DeleteFunc(dialog.Values(req, "Require"), func(tag string) bool {
		return slices.Contains(known, strings.ToLower(tag))
	})
}

// onRequest is where sipgo hands over a request, in a goroutine of its own.
func (a *attachment) onRequest(req *sipgo.Request, tx *sipgo.ServerTx) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("request handler failed", "method", req.Method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			tx.Terminate()
		}
	}()
	if req.IsAck() {
		// An ACK has no answer: sipgo would keep its transaction for ever.
		defer tx.Terminate()
	}
	if v := validate(req); v.status != 0 {
		a.answer(req, tx, v)
		return
	}
	if c := a.callOf(req); c != nil {
		a.deliver(c, req, tx)
		return
	}
	inDialog := req.To().Params.Has("tag")
	switch {
	case req.IsAck():
	case req.Method == sipgo.SUBSCRIBE, req.Method == sipgo.REFER, req.Method == sipgo.NOTIFY:
		a.onUsage(req, tx)
	case inDialog || req.Method != sipgo.INVITE && req.Method != sipgo.OPTIONS:
		a.answer(req, tx, verdict{status: 481})
	case req.Method == sipgo.OPTIONS:
		a.answer(req, tx, verdict{status: 200})
	default:
		a.onInvite(req, tx)
	}
}

// onUsage takes a request of a subscription that is in no call's dialog.
func (a *attachment) onUsage(req *sipgo.Request, tx *sipgo.ServerTx) {
	if o := a.usages.find(req); o != nil {
		o.onRequest(req, tx)
		return
	}
	if req.To().Params.Has("tag") || req.Method == sipgo.NOTIFY {
		a.answer(req, tx, verdict{status: 481})
		return
	}
	a.begin(req, tx)
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
	if v.header.Name != "" {
		res.AppendHeader(sipgo.NewHeader(v.header.Name, v.header.Value))
	}
	if v.status == 200 {
		res.AppendHeader(sipgo.NewHeader("Allow", allow))
		res.AppendHeader(sipgo.NewHeader("Accept", "application/sdp"))
		res.AppendHeader(sipgo.NewHeader("Supported", "100rel, timer, replaces"))
	}
	if err := tx.Respond(res); err != nil {
		a.log.Debug("response not sent", "status", v.status, "err", err)
	}
}

// onStray takes responses that no transaction claims. sipgo's INVITE transaction ends
// with its connection, and forgets after 32 s; whatever 2xx comes then must not leave
// a phone connected to nobody.
func (a *attachment) onStray(res *sipgo.Response) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("response handler failed", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	seq, id := res.CSeq(), res.CallID()
	if seq == nil || id == nil || res.From() == nil || res.To() == nil || seq.MethodName != sipgo.INVITE {
		return
	}
	tag, _ := res.From().Params.Get("tag")
	if c := a.find(string(*id), tag); c != nil && c.postIfLive(dialog.Response{Res: res}) {
		return
	}
	if res.IsSuccess() {
		a.dropAnswer(res, a.target())
	}
}

// dropAnswer acknowledges a 2xx that nobody wants any more and ends its dialog.
func (a *attachment) dropAnswer(res *sipgo.Response, fallback string) {
	ack, bye := dialog.Stray(a.dialogOptions(Invite{}, ""), res)
	if ack == nil || bye == nil {
		return
	}
	if err := a.write(ack, fallback); err != nil {
		a.log.Warn("ACK of an unwanted answer not sent", "err", err)
		return
	}
	a.log.Info("answer to a forgotten call: ended it")
	a.wg.Go(func() {
		if _, err := a.exchange(a.ctx, bye, a.nextHop(bye, fallback)); err != nil {
			a.log.Warn("BYE of an unwanted answer failed", "err", err)
		}
	})
}
