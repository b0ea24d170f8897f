package sip

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// inbound is what a call that comes in has besides its dialog.
type inbound struct {
	info  Incoming
	take  func(Incoming, IncomingCall) func(Event)
	early []Event // told before there was anybody to tell
	tx    *inviteTx
	key   string // names the INVITE, whichever way it came: see inviteKey
}

// inviteTx is the server transaction of an INVITE. sipgo answers a CANCEL itself, with 487;
// a response of ours that crosses it must not take the place of the 487, which would then
// be what is sent again.
type inviteTx struct {
	*sipgo.ServerTx
	req       *sipgo.Request
	cancelled atomic.Bool
	final     atomic.Bool // a final response was given
	mu        sync.Mutex  // one response at a time
	trying    *time.Timer // of a re-INVITE; an initial one has its 100 at once
}

// sipgo's own 100 reads the request in a goroutine of its own, while newIncomingCall puts our
// tag into it. Both kinds of INVITE have their 100 from us.
func init() { sipgo.Timer_1xx = 24 * time.Hour }

// tryAfter says 100 where nobody answers for so long (RFC 3261 §17.2.1).
const tryAfter = 200 * time.Millisecond

func (tx *inviteTx) tryLater(a *attachment) {
	tx.trying = time.AfterFunc(tryAfter, a.safely(func() {
		_ = tx.respond(sipgo.NewResponseFromRequest(tx.req, 100, dialog.Phrase(100), nil)) // what is behind it says more
	}))
}

// lastWord answers what nobody will answer any more.
func (tx *inviteTx) lastWord() {
	if !tx.final.Load() {
		_ = tx.Respond(sipgo.NewResponseFromRequest(tx.req, 500, dialog.Phrase(500), nil)) // it failed already
	}
}

func (tx *inviteTx) Respond(res *sipgo.Response) error {
	if tx.trying != nil {
		tx.trying.Stop()
	}
	return tx.respond(res)
}

func (tx *inviteTx) respond(res *sipgo.Response) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.cancelled.Load():
		return sipgo.ErrTransactionCanceled
	case res.StatusCode == 100 && tx.final.Load():
		return nil // sipgo would repeat it in place of the final one
	}
	if res.StatusCode >= 200 {
		tx.final.Store(true)
	}
	err := tx.ServerTx.Respond(res)
	if tx.cancelled.Load() {
		_ = tx.ServerTx.Respond(sipgo.NewResponseFromRequest(tx.req, 487, dialog.Phrase(487), nil))
		return sipgo.ErrTransactionCanceled
	}
	return err
}

// onInvite takes an INVITE outside any dialog that passed the front door.
func (a *attachment) onInvite(req *sipgo.Request, tx *sipgo.ServerTx) {
	a.ua.mu.Lock()
	take, closed := a.ua.incoming, a.ua.closed
	a.ua.mu.Unlock()
	switch {
	case closed, take == nil: // not any more, or not yet
		a.answer(req, tx, overload())
		return
	}
	c := newIncomingCall(a, req, tx, take)
	if status, h := dialog.Refusal(c.options, req); status != 0 {
		a.turnAway(req, tx, verdict{status: status, header: h}, c.in.info)
		return
	}
	id, v := a.ua.replaced(req)
	if v.status != 0 {
		a.turnAway(req, tx, v, c.in.info)
		return
	}
	c.in.info.Replaces = id
	if v := a.admit(c); v.status != 0 {
		a.turnAway(req, tx, v, c.in.info)
		return
	}
	a.signed(req)
	c.post(grant{}) // its turn is now
	c.watch(c.in.tx)
	go a.safely(func() {
		defer a.wg.Done()
		c.run()
	})()
}

// turnAway answers an INVITE that will be no call, and tells of it, but not of what is an attempt
// with another one: a merged one (482), and one that is to come again with a newer proof.
func (a *attachment) turnAway(req *sipgo.Request, tx responder, v verdict, in Incoming) {
	a.ua.traces.begin(in.CallID, time.Now())
	a.answer(req, tx, v)
	a.ua.traces.end(in.CallID, time.Now())
	a.ua.mu.Lock()
	tell := a.ua.refused
	a.ua.mu.Unlock()
	if tell != nil && v.status != 482 && !v.usual {
		tell(in, v.status)
	}
}

// overload sends a caller away for a short while, not all of them for the same one.
func overload() verdict {
	return verdict{status: 503, header: dialog.Header{Name: "Retry-After", Value: strconv.Itoa(1 + rand.IntN(10))}}
}

// admit counts a call that comes in, if there is room for it and it is not the same
// INVITE by another way (RFC 3261 8.2.2.2).
func (a *attachment) admit(c *call) verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.merging[c.in.key]:
		return verdict{status: 482}
	case a.shutd || a.pace.max > 0 && a.pace.busy >= a.pace.max:
		return overload()
	}
	a.live++
	c.w, c.target = &waiter{call: c, granted: true}, a.targetAt(c.hop)
	a.pace.busy++
	a.pace.move(nil, c.target)
	a.calls[c.key()] = c
	a.merging[c.in.key] = true
	a.wg.Add(1)
	return verdict{}
}

func inviteKey(req *sipgo.Request) string {
	tag, _ := req.From().Params.Get("tag")
	return string(*req.CallID()) + "\x00" + tag + "\x00" + strconv.FormatUint(uint64(req.CSeq().SeqNo), 10)
}

func newIncomingCall(a *attachment, req *sipgo.Request, tx *sipgo.ServerTx, take func(Incoming, IncomingCall) func(Event)) *call {
	offer := dialog.SDP(req)
	c := &call{a: a, icid: icidOf(req), tried: true, hop: hopTo(strings.ToLower(req.Transport()), req.Source()),
		open: map[string]*sipgo.ClientTx{}, box: newMailbox(), done: make(chan struct{}), ended: make(chan struct{})}
	c.options = a.dialogOptions(Invite{Video: bytes.Contains(offer, []byte("m=video"))}, c.icid)
	c.options.Rand = rand.Float64
	c.id, c.tag = string(*req.CallID()), c.options.FromTag
	// Every response has our tag in To, the 487 that sipgo makes itself too. A CANCEL may be
	// read meanwhile: it finds the one To or the other.
	to := *req.To()
	to.Params = append(to.Params.Clone(), sipgo.HeaderKV{K: "tag", V: c.tag})
	req.ReplaceHeader(&to)
	c.in = &inbound{take: take, tx: &inviteTx{ServerTx: tx, req: req}, key: inviteKey(req)}
	c.in.info = a.incoming(req, offer, c.icid)
	c.on = func(e Event) { c.in.early = append(c.in.early, e) }
	c.chargedBy(req, false)
	c.d = dialog.NewIncoming(c.options, req, c.in.tx)
	return c
}

// present shows the call to who takes it. It runs in the call's goroutine.
func (c *call) present() {
	sink := c.in.take(c.in.info, c)
	if sink == nil {
		sink = func(Event) {}
		if !c.answeredByOwner() {
			c.post(dialog.Reject{Status: 404})
		}
	}
	c.on = sink
	for _, e := range c.in.early {
		c.on(e)
	}
	c.in.early = nil
}

// answeredByOwner says whether a final answer waits in the mailbox.
func (c *call) answeredByOwner() bool {
	return c.box.has(func(in any) bool {
		switch in.(type) {
		case dialog.Accept, dialog.Reject, leaving:
			return true
		}
		return false
	})
}

// Ring implements IncomingCall.
func (c *call) Ring() { c.post(dialog.Ring{}) }

// Accept implements IncomingCall.
func (c *call) Accept(acc Acceptance) {
	in := dialog.Accept{SDP: acc.SDP}
	if acc.Focus != "" {
		in.Contact = c.a.focusContact(acc.Focus, hasVideo(acc.SDP))
	}
	c.post(in)
}

// Reject implements IncomingCall.
func (c *call) Reject(status, warning int) {
	in := dialog.Reject{Status: status, Warning: warning}
	if status == 503 { // or the peer has no reason to come back to us
		in.Headers = append(in.Headers, overload().header)
	}
	c.post(in)
}

// watch brings what concerns a server transaction of an INVITE to the mailbox.
func (c *call) watch(tx *inviteTx) {
	cancelled := func(cancel *sipgo.Request) {
		tx.cancelled.Store(true)
		c.post(dialog.Cancelled{Tx: tx, Req: cancel})
	}
	if !tx.OnCancel(cancelled) {
		cancelled(nil) // it came before we listened; twice is nothing
	}
	// A peer that gives its ACK the INVITE's branch has it matched there.
	c.a.wg.Go(c.a.safely(func() {
		for {
			select {
			case ack := <-tx.Acks():
				c.post(dialog.Request{Req: ack})
			case <-tx.Done():
				return
			}
		}
	}))
}

// incoming reads what an INVITE says of its caller.
func (a *attachment) incoming(req *sipgo.Request, offer []byte, icid string) Incoming {
	served, sescase, regstate := servedUser(req)
	if v := first(req, "P-Charging-Function-Addresses"); v != "" && len(v) <= maxCharging && a.o.Mode == ModeAS {
		a.charging.Store(&v)
	}
	all, hidden := recipients(req)
	caller := identityOf(req)
	if a.o.Untrusted { // it may not judge numbers either
		caller.Verstat = ""
	}
	return Incoming{
		ServedUser: served, SesCase: sescase, RegState: regstate, Routes: a.routesBehind(req),
		Attachment: a.o.Name, At: time.Now(), CallID: string(*req.CallID()), ICID: icid,
		Target: a.wanted(req), RequestURI: req.Recipient.String(), CalledParty: calledParty(req), To: req.To().Address.String(), Caller: caller,
		Diverted: divertedFrom(req), Offer: offer, Supported: dialog.Values(req, "Supported"),
		Recipients: all, Hidden: hidden,
		ReferredBy: dialog.AddrSpec(first(req, "Referred-By")),
	}
}

// wanted is whom a request outside a dialog is for. A core that has put our Contact into the
// Request-URI says in P-Called-Party-ID what was there before (RFC 7315 4.2). A trunk has no
// Contact of ours to put there.
func (a *attachment) wanted(req *sipgo.Request) string {
	if uri := calledParty(req); uri != "" && a.o.Mode != ModeTrunk {
		return uri
	}
	return req.Recipient.String()
}

func calledParty(req *sipgo.Request) string { return dialog.AddrSpec(first(req, "P-Called-Party-ID")) }

func first(m sipgo.Message, name string) string {
	if hs := m.GetHeaders(name); len(hs) > 0 {
		return strings.TrimSpace(hs[0].Value())
	}
	return ""
}

// identityOf is who a request comes from: the asserted identity, a telephone number
// before a SIP name, for all who may send to us are trusted (RFC 3325); else From.
func identityOf(req *sipgo.Request) Identity {
	id := Identity{URI: req.From().Address.String(), Name: req.From().DisplayName}
	asserted := dialog.Values(req, "P-Asserted-Identity")
	slices.SortStableFunc(asserted, func(x, y string) int { return rank(x) - rank(y) })
	for _, v := range asserted {
		if uri := dialog.AddrSpec(v); uri != "" {
			id.URIs = append(id.URIs, uri)
		}
	}
	if len(id.URIs) > 0 {
		id.URI, id.Trusted = id.URIs[0], true
		if name := displayName(asserted[0]); name != "" {
			id.Name = name
		}
	}
	id.Number = numberOf(id.URI)
	from, _ := req.From().Params.Get("verstat")
	id.Verstat = verdictOn(append(asserted, ";verstat="+from, "<"+req.From().Address.String()+">")) // some put it where the caller's own URI is
	id.Private = wishes(dialog.Values(req, "Privacy"), "id", "user", "header")
	return id
}

// wishes says whether one of these is among what Privacy values ask for (RFC 3323 §4.2).
func wishes(privacy []string, words ...string) bool {
	for _, v := range privacy {
		for w := range strings.SplitSeq(v, ";") {
			if slices.Contains(words, strings.ToLower(strings.TrimSpace(w))) {
				return true
			}
		}
	}
	return false
}

// rank is the order of asserted identities: a tel: URI, a number in a sip: URI, a name; what is
// no URI at all is last.
func rank(nameAddr string) int {
	switch uri := dialog.AddrSpec(nameAddr); {
	case uri == "":
		return 3
	case strings.HasPrefix(strings.ToLower(uri), "tel:"):
		return 0
	case numberOf(uri) != "":
		return 1
	}
	return 2
}

// displayName is the name before the URI of a name-addr.
func displayName(nameAddr string) string {
	var uri sipgo.Uri
	var ps sipgo.HeaderParams
	name, err := sipgo.ParseAddressValue(nameAddr, &uri, &ps)
	if err != nil {
		return ""
	}
	return name
}

// numberOf is the telephone number in a tel: or sip: URI, without the separators that
// people read it by; "" if it is none of E.164.
func numberOf(uri string) string {
	scheme, rest, _ := strings.Cut(uri, ":")
	switch strings.ToLower(scheme) {
	case "tel":
	case "sip", "sips":
		user, _, at := strings.Cut(rest, "@")
		if !at {
			return ""
		}
		rest = user
	default:
		return ""
	}
	rest, _, _ = strings.Cut(rest, ";")
	number := strings.NewReplacer("-", "", ".", "", "(", "", ")", "").Replace(rest)
	if !validNumber(number) {
		return ""
	}
	return number
}

// verdictOn is what a network has found of a caller's number: a failure that any of these header
// values tells of, or else the first status.
func verdictOn(values []string) string {
	first := ""
	for _, v := range values {
		uri := v // without brackets parameters are the header's (RFC 3261 §20); networks mean the URI's all the same
		if strings.ContainsAny(v, `<"`) {
			uri = dialog.AddrSpec(v)
		}
		status := verstat(uri)
		if strings.HasPrefix(strings.ToLower(status), "tn-validation-failed") {
			return status
		}
		first = cmp.Or(first, status)
	}
	return first
}

// verstat is the verification status a network put into a telephone number's URI (TS
// 24.229 7.2A.20): in a sip: URI it stands among the parameters of the user part.
func verstat(uri string) string {
	uri, _, _ = strings.Cut(uri, "@")
	for p := range strings.SplitSeq(uri, ";") {
		if name, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(name, "verstat") {
			return v
		}
	}
	return ""
}

// divertedFrom is who was dialled first: the oldest entry of Diversion (RFC 5806), or of
// a History-Info (RFC 7044) that tells of more than this target. Who wants to be hidden is, and
// nobody shown in his place.
func divertedFrom(req *sipgo.Request) string {
	if ds := dialog.Values(req, "Diversion"); len(ds) > 0 {
		oldest := ds[len(ds)-1]
		if wishes([]string{dialog.Params(oldest)["privacy"]}, "full", "uri") {
			return ""
		}
		return dialog.AddrSpec(oldest)
	}
	if hs := dialog.Values(req, "History-Info"); len(hs) > 1 {
		uri, headers, _ := strings.Cut(dialog.AddrSpec(hs[0]), "?") // Reason and Privacy ride on it
		privacy := dialog.Values(req, "Privacy")
		for h := range strings.SplitSeq(headers, "&") {
			name, v, _ := strings.Cut(h, "=")
			if v, err := url.PathUnescape(v); err == nil && strings.EqualFold(name, "Privacy") {
				privacy = append(privacy, v)
			}
		}
		if wishes(privacy, "history", "header", "session") { // RFC 7044 §10.1
			return ""
		}
		return uri
	}
	return ""
}

// signed logs that an INVITE has Identity (RFC 8224). A PASSporT has numbers in it, and the network
// has judged it: how many there were, and how long, is all that is said.
func (a *attachment) signed(req *sipgo.Request) {
	hs := req.GetHeaders("Identity")
	if len(hs) == 0 {
		return
	}
	n := 0
	for _, h := range hs {
		n += len(h.Value())
	}
	a.log.Info("the caller's identity is signed", "call_id", string(*req.CallID()), "identities", len(hs), "bytes", n)
}

// icidOf is the call's name in everybody's charging records (RFC 7315 4.6).
func icidOf(req *sipgo.Request) string {
	for _, v := range dialog.Values(req, "P-Charging-Vector") {
		if pcv, err := ims.ParseChargingVector(v); err == nil && pcv.ICID != "" && len(pcv.ICID) <= maxCharging {
			return pcv.ICID
		}
	}
	return token()
}

// which asks a call's goroutine for the dialog with this remote tag.
type which struct {
	tag    string
	answer chan dialog.Match // cap 1
}

// replaced resolves Replaces (RFC 3891 3) to the Call-ID of a call of ours.
func (ua *UA) replaced(req *sipgo.Request) (callID string, v verdict) {
	hs := req.GetHeaders("Replaces")
	if len(hs) == 0 {
		return "", verdict{}
	}
	r, err := ims.ParseReplaces(hs[0].Value())
	if err != nil || len(hs) > 1 {
		return "", verdict{status: 400}
	}
	if c := ua.callNamed(r); c != nil {
		switch m := c.match(r.FromTag); {
		case !m.Found:
		case m.Ended:
			return "", verdict{status: 603}
		case m.Confirmed && r.EarlyOnly:
			return "", verdict{status: 486}
		case !m.Confirmed && m.Incoming: // only who called may have an early dialog replaced
		default:
			return r.CallID, verdict{}
		}
	}
	return "", verdict{status: 481}
}

// callNamed finds the call whose dialog Replaces names by our tag.
func (ua *UA) callNamed(r ims.Replaces) *call {
	for _, a := range ua.atts {
		if c := a.find(r.CallID, r.ToTag); c != nil {
			return c
		}
	}
	return nil
}

// match asks the call's goroutine about one of its dialogs.
func (c *call) match(remoteTag string) dialog.Match {
	q := which{remoteTag, make(chan dialog.Match, 1)}
	c.post(q)
	select {
	case m := <-q.answer:
		return m
	case <-c.done:
		return dialog.Match{}
	}
}
