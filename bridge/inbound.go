package bridge

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"sparkle/bridge/fault"
	"sparkle/bridge/prompts"
	"sparkle/sip"
	"sparkle/sip/ims"
	"sparkle/sip/sdp"
)

// visitor is a call that came in, from its INVITE to its end. What it says goes to the leg
// it is, which a caller at a shared number changes once: from the lobby's room to that of
// the conference he has the PIN of. What comes while he is on the way waits.
type visitor struct {
	in   sip.Incoming
	call sip.IncomingCall

	mu   sync.Mutex
	room *room // nil: on the way, or nowhere
	leg  *leg
	wait []sip.Event // bounded by the call's dialog
}

// onEvent is the call's goroutine.
func (v *visitor) onEvent(e sip.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.room == nil {
		v.wait = append(v.wait, e)
		return
	}
	v.tell(e)
}

// tell is called with mu held: that keeps the events in order.
func (v *visitor) tell(e sip.Event) {
	r, l := v.room, v.leg
	r.post(func(now time.Time) { r.onSIP(now, l, l.attempt, e) })
}

// attach says whose the call is from now on; called by r's goroutine.
func (v *visitor) attach(r *room, l *leg) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.room, v.leg = r, l
	for _, e := range v.wait {
		v.tell(e)
	}
	v.wait = nil
}

func (v *visitor) detach() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.room, v.leg = nil, nil
}

// destination is where a call is to go by its address: IMS.md §4.1.
type destination struct {
	status  int   // refused; 0: not
	room    *room // a conference
	takes   string
	factory bool
	lobby   bool   // a shared number: the PIN says which conference
	mrf     string // RFC 4240: the conference an application server names, not there yet
}

// onIncoming takes a call. The disk may have to be waited for, so it is not done here.
func (b *Bridge) onIncoming(in sip.Incoming, call sip.IncomingCall) func(sip.Event) {
	v := &visitor{in: in, call: call}
	if b.draining.Load() && in.Replaces == "" { // who takes over a call that there is may
		b.refuse(v, nil, 503)
		return v.onEvent
	}
	if !b.spawn(func() {
		if !fault.Run(b.log, "call that came in", func() { b.receive(v) }) {
			b.refuse(v, nil, 500)
		}
	}) {
		b.refuse(v, nil, 503)
	}
	return v.onEvent
}

// spawn runs f beside everything else, and Close waits for it; false when that has begun.
func (b *Bridge) spawn(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.wg.Go(fault.Safely(b.log, "errand", f))
	return true
}

func (b *Bridge) receive(v *visitor) {
	d := b.route(v.in)
	switch {
	case d.status != 0:
		b.refuse(v, d.room, d.status)
	case b.mediaDown.Load():
		b.refuse(v, d.room, 503)
	case d.factory, d.mrf != "":
		b.adHoc(v, d.mrf)
	case d.takes != "":
		d.room.take(v, func(now time.Time) { d.room.takeOver(now, v, d.takes) })
	case d.lobby:
		b.lobby.take(v, func(now time.Time) { b.lobby.arrive(now, v, "", &door{target: dialled(v.in)}) })
	default:
		b.join(v, d.room)
	}
}

// take is post for a call, which must not be left without an answer.
func (r *room) take(v *visitor, f func(now time.Time)) {
	if !r.post(func(now time.Time) {
		done := false
		defer func() {
			if !done && r.about == nil { // a fault, before there was a leg that ends for it
				r.b.refuse(v, r, 500)
			}
		}()
		f(now)
		done = true
	}) {
		r.b.refuse(v, r, 503)
	}
}

func dialled(in sip.Incoming) string { return parseTarget(in.Target).key() }

// route reads the address in the order of IMS.md §4.1. Emergency calls come first: they
// are nobody's to take over.
func (b *Bridge) route(in sip.Incoming) destination {
	if b.emergency(in) != "" {
		return destination{status: 403}
	}
	if in.Replaces != "" {
		r, id := b.legOf(in.Replaces)
		if r == nil {
			return destination{status: 481}
		}
		return destination{room: r, takes: id}
	}
	return b.addressed(in.Attachment, in.Target, in.To)
}

// emergency is the address of an emergency service that a call names, wherever it does: a
// network may have put ours into the Request-URI and left what was dialled elsewhere, or the other
// way round. "": none.
func (b *Bridge) emergency(in sip.Incoming) string {
	for _, uri := range []string{in.RequestURI, in.Target, in.CalledParty, in.To} {
		if ims.Emergency(uri, b.opt.Country) {
			return uri
		}
	}
	return ""
}

// addressed is what an address means here, or that of To: 404 nothing. Whoever is registered is
// called by his Contact; a core that does not say who was dialled has left that in To at least. It
// may be more than the number in Contact is.
func (b *Bridge) addressed(attachment, uri, to string) destination {
	dialled := []target{parseTarget(uri), parseTarget(to)}
	for _, t := range dialled {
		if b.isFactory(t) {
			return destination{factory: true}
		}
		if r := b.named(t); r != nil {
			return destination{room: r}
		}
	}
	if slices.ContainsFunc(dialled, func(t target) bool { return slices.Contains(b.opt.DialIn, b.numberOf(t)) }) {
		return destination{lobby: true}
	}
	if id, ok := strings.CutPrefix(dialled[0].user, "conf="); ok && b.isServer(attachment) && aliasForm.MatchString(strings.ToLower(id)) {
		return destination{mrf: strings.ToLower(id)}
	}
	return destination{status: 404}
}

// isServer: the attachment's peers are application servers, which own their conferences.
func (b *Bridge) isServer(attachment string) bool {
	return slices.ContainsFunc(b.caller.Attachments(), func(a sip.AttachmentState) bool { return a.Name == attachment && a.Mode == "as" })
}

// legOf finds the live leg of a call.
func (b *Bridge) legOf(callID string) (*room, string) {
	for _, r := range b.all() {
		for _, l := range r.view.Load().legs {
			if l.CallID == callID && callID != "" {
				return r, l.ID
			}
		}
	}
	return nil, ""
}

// target is an address that was dialled, in its parts.
type target struct{ user, host string }

func (t target) key() string { return t.user + "@" + t.host }

// parseTarget reads a sip:, sips: or tel: URI; of a tel: URI the number is the user, and of a local
// one its context the host. What is neither has no parts.
func parseTarget(uri string) target {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(uri), ":")
	if !ok {
		return target{}
	}
	var t target
	switch strings.ToLower(scheme) {
	case "tel":
		var params string
		t.user, params, _ = strings.Cut(rest, ";")
		for p := range strings.SplitSeq(params, ";") {
			if name, context, _ := strings.Cut(p, "="); strings.EqualFold(name, "phone-context") {
				t.host = strings.ToLower(context)
			}
		}
		return t
	case "sip", "sips":
	default:
		return target{}
	}
	rest, _, _ = strings.Cut(rest, "?")
	user, host, at := strings.Cut(rest, "@")
	if !at {
		return target{host: hostOf(rest)}
	}
	user, _, _ = strings.Cut(user, ";")
	user, _, _ = strings.Cut(user, ":") // a password is nobody's business
	if u, err := url.PathUnescape(user); err == nil {
		user = u
	}
	return target{user: user, host: hostOf(host)}
}

// hostOf is the host of "host:port;params", in small letters.
func hostOf(s string) string {
	s, _, _ = strings.Cut(s, ";")
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().String()
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.String()
	}
	host, _, _ := strings.Cut(s, ":")
	return strings.ToLower(host)
}

// isFactory: the user part decides, and the host, where the network has not put our
// address in its place.
func (b *Bridge) isFactory(t target) bool {
	return slices.ContainsFunc(b.opt.FactoryURIs, func(uri string) bool {
		f := parseTarget(uri)
		_, err := netip.ParseAddr(t.host)
		return t.user != "" && f.user == t.user && (f.host == t.host || err == nil)
	})
}

// named finds the conference that an address means: its own URI, or its alias.
func (b *Bridge) named(t target) *room {
	if id := conferenceID(t.user); id != "" {
		if r := b.find(id); r != nil {
			return r
		}
	}
	alias := strings.ToLower(strings.TrimPrefix(t.user, "conf="))
	b.mu.Lock()
	defer b.mu.Unlock()
	if id := b.aliases[alias]; id != "" {
		return b.rooms[id]
	}
	if n := b.numberOf(t); n != "" {
		return b.rooms[b.aliases[n]]
	}
	return nil
}

// numberOf is the number an address names, E.164; "" if it is none.
func (b *Bridge) numberOf(t target) string {
	n, err := ims.ParseTyped(t.user, b.opt.CallingCode)
	if err != nil {
		return ""
	}
	return n.Digits()
}

// join brings a caller into a conference that he has dialled, by its policy.
func (b *Bridge) join(v *visitor, r *room) {
	c := r.view.Load().Conference
	switch c.JoinPolicy {
	case JoinPIN:
		r.take(v, func(now time.Time) { r.arrive(now, v, "", &door{room: r, target: r.id}) })
		return
	case JoinListed:
		if _, ok := b.listed(r.view.Load(), v.in.Caller); !ok {
			b.refuse(v, r, 403)
			return
		}
	}
	id, status := b.admit(r, v)
	if status != 0 {
		b.refuse(v, r, status)
		return
	}
	r.take(v, func(now time.Time) { r.arrive(now, v, id, nil) })
}

// listed finds the row of a caller: only a number that a trusted peer asserts is his.
func (b *Bridge) listed(v *View, who sip.Identity) (Member, bool) {
	parties := asserted(who)
	for _, m := range v.Members {
		if m.Number != "" && slices.Contains(parties, m.Number) {
			return m, true
		}
	}
	return Member{}, false
}

// admit gives a caller his row: the one of his number, or a new one. The status refuses
// him: 486 full, 404 gone, 503 not now.
//
// Whose number is withheld or unproven gets a row without one: it is not written, and goes
// with its call, for it can neither be called nor recognised again.
func (b *Bridge) admit(r *room, v *visitor) (id string, status int) {
	unlock, err := r.lock(b.ctx)
	if err != nil {
		return "", 503
	}
	defer unlock()
	if b.find(r.id) != r {
		return "", 404
	}
	view, who := r.view.Load(), v.in.Caller
	if m, ok := b.listed(view, who); ok {
		return m.ID, 0
	}
	if len(view.Members) >= b.opt.MaxMembers {
		return "", 486
	}
	m := Member{ID: newID("mbr"), Conference: r.id, Name: callerName(who), Role: roleSpeaker, State: Idle, CreatedAt: time.Now().UTC(),
		Unverified: !who.Trusted}
	if _, bad := b.parseNumber(who.Number, ""); bad == nil && who.Trusted && !who.Private {
		m.Number = who.Number
		if err := b.store.PutMembers(b.ctx, m); err != nil {
			b.log.Warn("a caller's row cannot be written", "conference_id", r.id, "err", err)
			return "", 503
		}
	}
	if err := r.addRow(m); err != nil {
		return "", 404
	}
	return m.ID, 0
}

func (r *room) addRow(m Member) error {
	return r.do(func(now time.Time) {
		row := &member{Member: m}
		r.members = append(r.members, row)
		r.emitMember(now, row, "member.added")
	})
}

// withheld is what others see of a caller who wants not to be known (RFC 3323).
const withheld = "匿名 Anonymous"

// unverified stands before the name of a caller that nobody vouches for, where others see it: before,
// for a name can be longer than what is shown of it.
const unverified = "未验证? "

// shown is what others see of a member's name.
func (m *member) shown() string {
	switch {
	case m.private():
		return withheld
	case m.Unverified:
		return unverified + m.Name
	}
	return m.Name
}

func callerName(who sip.Identity) string {
	if who.Private {
		return withheld
	}
	name, err := cleanName(who.Name, "", false)
	if err != nil {
		name = ""
	}
	id, err := cleanName(cmp.Or(who.Number, party(who.URI)), "", false)
	if err != nil {
		id = ""
	}
	return cmp.Or(name, id, withheld)
}

// refuse ends a call that got no leg, and keeps a record of it: the attempt is part of
// what is charged and looked into later.
func (b *Bridge) refuse(v *visitor, r *room, status int) {
	v.call.Reject(status, 0)
	b.keepRefused(v.in, r, status, refusal(status))
}

// onRefused keeps the record of a call that was refused before it came here.
func (b *Bridge) onRefused(in sip.Incoming, status int) {
	v := refusal(status)
	switch status {
	case 404, 503:
	case 401:
		v = verdict{outcome: NotAllowed, text: Text{Zh: "来电方未能通过身份验证", En: "The caller's network gave a wrong user name or password."}}
	case 481:
		v.text = Text{Zh: "来电要接替的通话不存在", En: "The call that the caller wanted to take over does not exist."}
	default:
		v = verdict{outcome: NetworkError, text: Text{Zh: "来电的请求无法接受", En: "The caller's request could not be accepted."}}
	}
	b.keepRefused(in, nil, status, v)
}

func (b *Bridge) keepRefused(in sip.Incoming, r *room, status int, verdict verdict) {
	now := time.Now().UTC()
	l := Leg{ID: newID("leg"), State: Ended, Since: now, Direction: "inbound", Attachment: in.Attachment, StartedAt: in.At.UTC(),
		EndedAt: &now, SIP: &SIPResult{Status: status}, CallID: in.CallID, ICID: in.ICID,
		Verstat: in.Caller.Verstat, DivertedFrom: in.Diverted, Unverified: !in.Caller.Trusted}
	owner := ""
	if r != nil {
		l.Conference, owner = r.id, r.owner
	}
	b.traced.note(l.ID, owner, l.CallID)
	l.Outcome, l.Text, l.Retry, l.Reason = verdict.outcome, &verdict.text, verdict.hint(), "refused"
	b.counts.outcome(l.Outcome)
	record := LegRecord{Leg: l, Number: charged(in.Caller), Dialled: cmp.Or(b.emergency(in), in.Target)}
	b.store.QueueLeg(record)
	b.charge(record)
	b.log.Info("call refused", "leg_id", l.ID, "conference_id", l.Conference, "status", status, "trusted", in.Caller.Trusted)
}

// refusal is what our own final answer to a call means.
func refusal(status int) verdict {
	switch status {
	case 403:
		return verdict{outcome: NotAllowed, text: Text{Zh: "来电不允许加入会议", En: "The caller may not join the conference."}}
	case 404, 481:
		return verdict{outcome: NotFound, text: Text{Zh: "来电所拨的会议不存在", En: "The caller dialled no conference."}}
	case 486:
		return verdict{outcome: Busy, text: Text{Zh: "会议人数已满", En: "The conference is full."}}
	case 488:
		return verdict{outcome: MediaIncompatible, text: Text{Zh: "来电的媒体无法使用", En: "The caller's media cannot be used."}}
	}
	return verdict{outcome: NetworkError, text: Text{Zh: "服务器暂时不能接听", En: "The server could not take the call."}}
}

// arrive makes the leg of a call that is to be answered: a member's, or with a door
// nobody's until it is opened.
func (r *room) arrive(now time.Time, v *visitor, member string, d *door) *leg {
	m, status := r.member(member), 0
	switch {
	case r.closing, r.mediaDown:
		status = 503
	case d == nil && m == nil: // removed meanwhile
		status = 404
	case d != nil && r.b.guesses.shut(now, v.caller(), d.target):
		status = 403
	}
	if status != 0 {
		r.b.refuse(v, r, status)
		r.forget(now, member)
		r.expire()
		return nil
	}
	p, _ := r.b.caller.MediaProfile(v.in.Attachment)
	p.LocalIP = r.b.opt.LocalIP(p.LocalIP)
	if s, err := sdp.Parse(v.in.Offer); err == nil && s.Audio != nil && isIPv6(s.Audio.Addr.String()) != isIPv6(p.LocalIP) {
		p.LocalIP = cmp.Or(r.b.opt.OtherIP(p.LocalIP), p.LocalIP)
	}
	l := &leg{number: v.in.Caller.Number, profile: p, wantsPic: r.conf.Type == VideoConference && !r.b.opt.NoVideo,
		visitor: v, call: v.call, attempt: 1, door: d, began: v.in.At, Leg: Leg{
			ID: newID("leg"), Member: member, Conference: r.id, Direction: "inbound", Attachment: v.in.Attachment,
			StartedAt: v.in.At.UTC(), CallID: v.in.CallID, ICID: v.in.ICID, Verstat: v.in.Caller.Verstat, DivertedFrom: v.in.Diverted,
			Unverified: !v.in.Caller.Trusted,
		}}
	if m != nil && m.leg == nil { // else the new leg takes its place once it is answered
		m.leg, m.recall = l, ""
	}
	if v.in.ReferredBy != "" {
		l.note(now, "sip_received", "referred by "+MaskNumbers(v.in.ReferredBy))
	}
	if v.in.Diverted != "" {
		l.note(now, "sip_received", "diverted from "+MaskNumbers(v.in.Diverted))
	}
	l.dialled = v.in.Target
	r.about = l
	r.legs[l.ID] = l
	r.setState(now, l, Dialing)
	r.openLeg(l)
	v.attach(r, l)
	return l
}

// takeOver is INVITE with Replaces (RFC 3891): the new call becomes the member's leg, and
// the old one ends, once it is clear that the new one can be answered.
func (r *room) takeOver(now time.Time, v *visitor, id string) {
	old := r.legs[id]
	if old == nil || old.why != "" || r.member(old.Member) == nil {
		r.b.refuse(v, r, 481)
		return
	}
	if l := r.arrive(now, v, old.Member, nil); l != nil {
		l.note(now, "state", "takes over "+old.ID)
		old.note(now, "state", "to be taken over by "+l.ID)
	}
}

// answerCall answers a call with its media open; what cannot be answered is 488.
func (r *room) answerCall(now time.Time, l *leg) {
	if l.why != "" {
		return // it is being ended
	}
	if l.door != nil && l.door.moving { // he was answered in the lobby; this is his conference
		r.moveIn(now, l)
		return
	}
	in := l.visitor.in
	a := sip.Acceptance{Focus: focusUser(r.id)}
	if r == r.b.lobby {
		a.Focus = ""
	}
	var err error
	if in.Offer == nil {
		a.SDP, err = l.makeOffer(now)
	} else {
		var res sdp.Result
		var offer *sdp.Session
		if offer, err = r.b.parse(in.Offer); err == nil {
			a.SDP, res, err = l.answerOffer(now, offer, l.wantsPic)
		}
		if err == nil {
			if why := r.mayHaveVideo(); why != "" && res.WhyNoVideo == sdp.VideoRefused { // by us
				res.WhyNoVideo = why
			}
			r.agree(now, l, res)
		}
	}
	if err != nil {
		status, warning := sdp.StatusOf(err)
		l.note(now, "media", "offer refused: "+err.Error())
		l.visitor.call.Reject(status, warning)
		l.SIP = &SIPResult{Status: status}
		r.endLeg(now, l, refusal(status), nil)
		return
	}
	r.pushLeg(l)
	l.visitor.call.Accept(a)
	l.answered = true
	l.note(now, "state", "answered")
	r.takePlace(now, l)
}

// cannotOpen: the engine has no ports for a call that came in.
func (r *room) cannotOpen(now time.Time, l *leg) {
	if l.ConnectedAt != nil { // on the way from the lobby
		r.drop(now, l, "media_lost")
		return
	}
	l.visitor.call.Reject(503, 0)
	l.SIP = &SIPResult{Status: 503}
	r.endLeg(now, l, refusal(503), nil)
}

// takePlace makes l its member's leg; the one he had ends. So a member who is being rung
// and calls in at the same moment is in by his own call, and a radio that was lost and is
// back needs no organiser.
func (r *room) takePlace(now time.Time, l *leg) {
	m := r.member(l.Member)
	if m == nil || m.leg == l {
		return
	}
	old := m.leg
	m.leg, m.recall = l, ""
	switch {
	case old == nil:
	case old.ConnectedAt != nil && l.ConnectedAt == nil:
		l.takesOver = old // it talks until the other one does (RFC 3891 §3)
	default:
		r.replace(now, old)
	}
	r.setState(now, l, l.State)
}

// replace ends a leg that another call of its member has taken the place of.
func (r *room) replace(now time.Time, old *leg) {
	v := &verdict{outcome: Cancelled, text: Text{Zh: "对方已自行打入会议", En: "The member called in by another call."}}
	if old.ConnectedAt != nil {
		v = &verdict{outcome: HungUp, text: Text{Zh: "已由该成员的另一个呼叫接替", En: "Another call of the member took over."}}
	}
	r.hang(now, old, "replaced", `SIP;cause=200;text="Call completed elsewhere"`, v)
}

// tookOver ends what l has taken over, now that l is up, or never will be.
func (r *room) tookOver(now time.Time, l *leg) {
	if old := l.takesOver; old != nil {
		l.takesOver = nil
		if !old.dead {
			r.replace(now, old)
		}
	}
}

// inboundVerdict is the end of a call that came in and was never answered.
func inboundVerdict(e sip.Ended) verdict {
	if e.By == sip.ByRemote {
		return verdict{outcome: Cancelled, text: Text{Zh: "对方在接通前挂断", En: "The caller hung up before the call was answered."}}
	}
	return verdict{outcome: NetworkError, text: Text{Zh: "来电未能接通", En: "The call that came in could not be set up."}}
}

// language is what a caller is spoken to in: by his country, and in both where that is
// not known.
func language(number string) prompts.Language {
	switch {
	case number == "":
		return prompts.Both
	case slices.ContainsFunc([]string{"+86", "+852", "+853", "+886"}, func(p string) bool { return strings.HasPrefix(number, p) }):
		return prompts.Chinese
	}
	return prompts.English
}

// dropRow takes a row that went with its call off the roster.
func (r *room) dropRow(now time.Time, m *member) {
	last := m.public()
	r.members = slices.DeleteFunc(r.members, func(x *member) bool { return x == m })
	r.emit(now, "member.removed", m.ID, "", last)
}

// adHoc makes a conference for a caller: at the factory (TS 24.147 §5.3.2.3), or under the
// name that an application server gave it (RFC 4240 §5).
func (b *Bridge) adHoc(v *visitor, alias string) {
	who := v.in.Caller
	if !who.Trusted && alias == "" {
		b.refuse(v, nil, 403) // nobody knows who would pay for it
		return
	}
	if slices.ContainsFunc(v.in.Recipients, func(uri string) bool { return b.barred(nil, uri) }) {
		b.refuse(v, nil, 403)
		return
	}
	now := time.Now().UTC()
	c := Conference{ID: newID("conf"), Name: callerName(who), Type: offeredType(v.in.Offer), State: "idle", Layout: LayoutMosaic, Owner: factoryOwner, CreatedAt: now, UpdatedAt: now,
		Alias: alias, JoinPolicy: JoinPIN, WhoMayRefer: ReferCreator, AdHoc: true}
	if alias != "" {
		c.Name, c.JoinPolicy = alias, JoinOpen
	}
	m := Member{ID: newID("mbr"), Conference: c.ID, Name: callerName(who), Role: roleHost, State: Idle, CreatedAt: now, Unverified: !who.Trusted}
	var rows []Member
	if _, bad := b.parseNumber(who.Number, ""); bad == nil && who.Trusted && !who.Private {
		m.Number = who.Number
		rows = []Member{m}
	}
	r, _, err := b.makeConference(b.ctx, c, rows...)
	b.audit(Actor{Account: factoryOwner, Name: factoryOwner, Via: "system"}, "conference.create", c.ID, err)
	if err != nil {
		if r := b.named(target{user: alias}); alias != "" && r != nil { // another call was first
			b.join(v, r)
			return
		}
		b.refuse(v, nil, 503)
		return
	}
	if rows == nil {
		_ = r.addRow(m)
	}
	r.take(v, func(now time.Time) {
		r.creator = m.ID
		r.arrive(now, v, m.ID, nil)
	})
}

// factoryOwner owns what phones make: no account has this id, so only administrators see
// it over the API.
const factoryOwner = "factory"

func offeredType(offer []byte) ConferenceType {
	if s, err := sdp.Parse(offer); err == nil && s.Video != nil && s.Video.Port != 0 {
		return VideoConference
	}
	return AudioConference
}

// expire ends an ad-hoc conference with its last call.
func (r *room) expire() {
	if !r.conf.AdHoc || len(r.legs) > 0 || r.closing || r.expired {
		return
	}
	r.expired = true
	r.b.spawn(func() {
		if err := r.b.DeleteConference(context.WithoutCancel(r.b.ctx), Actor{Account: factoryOwner, Name: factoryOwner, Via: "system"}, r.id); err != nil {
			r.log.Warn("an ad-hoc conference could not be ended", "err", err)
		}
	})
}
