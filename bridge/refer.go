package bridge

import (
	"errors"
	"slices"
	"time"

	"sparkle/sip"
	"sparkle/sip/ims"
)

// errand is what one REFER asked for, or a caller's list of recipients: calls to be made.
// The conference's goroutine owns it. Who sent it hears of one call's progress step by
// step; of several, how they ended together.
type errand struct {
	ref  sip.Referral // nil: nobody hears of it
	what sip.Refer    // how they are to be called, and by whose attachment
	left int          // calls that are not decided
	many bool
	ok   bool // one was answered
	last int  // the status of one that was not
}

// progress tells of one call: 1xx as it comes, then one final status.
func (e *errand) progress(status int, phrase string) {
	if e.left == 0 {
		return
	}
	if status < 200 {
		if e.ref != nil && !e.many {
			e.ref.Progress(status, phrase)
		}
		return
	}
	e.left--
	if status < 300 {
		e.ok = true
	} else {
		e.last = status
	}
	if e.left > 0 || e.ref == nil {
		return
	}
	if e.ok {
		e.ref.Progress(200, "OK")
		return
	}
	e.ref.Progress(e.last, phrase)
}

// onRefer decides on a REFER (RFC 3515; IMS.md §4.2). Rows may have to be written, so it
// is not done here.
func (b *Bridge) onRefer(in sip.Refer, ref sip.Referral) {
	if !b.spawn(func() { b.refer(in, ref) }) {
		ref.Reject(503)
	}
}

func (b *Bridge) refer(in sip.Refer, ref sip.Referral) {
	if slices.ContainsFunc(in.URIs, func(uri string) bool { return ims.Emergency(uri, b.opt.Country) }) {
		ref.Reject(403) // in whatever company
		return
	}
	var r *room
	if in.CallID != "" {
		r, _ = b.legOf(in.CallID)
	} else {
		r = b.named(parseTarget(in.Target))
	}
	if r == nil {
		ref.Reject(404)
		return
	}
	status := 404
	if err := r.do(func(now time.Time) { status = r.mayRefer(now, in) }); err != nil || status != 0 {
		b.log.Info("REFER refused", "conference_id", r.id, "method", in.Method, "status", status)
		ref.Reject(status)
		return
	}
	if in.Method == "BYE" {
		b.audit(r.phone(), "member.refer", r.id, nil)
		_ = r.do(func(now time.Time) { r.referBye(now, in, ref) })
		return
	}
	if slices.ContainsFunc(in.URIs, func(uri string) bool { return b.barred(r.limit, uri) }) {
		b.audit(r.phone(), "member.refer", r.id, errBlocked())
		ref.Reject(403)
		return
	}
	b.audit(r.phone(), "member.refer", r.id, nil)
	b.referInvite(r, in, ref)
}

// phone is who acts for a conference when a phone asks: within the limit of who made it.
func (r *room) phone() Actor {
	return Actor{Account: r.owner, Name: "phone", Via: "sip", DialPrefixes: r.limit}
}

// mayRefer is who_may_refer; 0 is yes. Outside a call only an asserted identity speaks for
// a member.
func (r *room) mayRefer(now time.Time, in sip.Refer) int {
	m := r.speaker(in.CallID, in.By)
	if m == nil {
		return 403
	}
	if r.closing {
		return 603
	}
	if m.leg != nil {
		m.leg.note(now, "sip_received", "REFER "+in.Method+", referred by "+MaskNumbers(in.ReferredBy))
	}
	if !r.trusts(m) {
		return 403
	}
	return 0
}

// speaker is the member that a request comes from: by its call, or by an asserted identity
// if he is in. Who stands at the door is nobody.
func (r *room) speaker(callID string, by sip.Identity) *member {
	parties := asserted(by)
	for _, m := range r.members {
		l := m.leg
		switch {
		case l == nil || l.ConnectedAt == nil && !l.answered || l.door != nil:
		case callID != "" && l.CallID == callID:
			return m
		case callID == "" && m.is(parties):
			return m
		}
	}
	return nil
}

// trusts says whether a member may refer others.
func (r *room) trusts(m *member) bool {
	switch r.conf.WhoMayRefer {
	case ReferAny:
		return true
	case ReferModerators:
		return m.ID == r.creator || m.Role == roleHost
	case ReferCreator:
		return m.ID == r.creator
	}
	return false
}

// referBye hangs up the participants that are named.
func (r *room) referBye(now time.Time, in sip.Refer, ref sip.Referral) {
	n := 0
	for _, uri := range in.URIs {
		if m := r.byEntity(uri); m != nil && m.leg != nil {
			m.recall = ""
			r.hangup(now, m.leg, "removed_by_participant")
			n++
		}
	}
	if n == 0 {
		ref.Reject(404)
		return
	}
	ref.Accept()
	ref.Progress(200, "OK")
}

// byEntity finds a member by what he was referred to by, who he is known to be, or the URI that
// documents of this conference call him by.
func (r *room) byEntity(uri string) *member {
	t := parseTarget(uri)
	n, who := r.b.numberOf(t), party(uri)
	for _, m := range r.members {
		if m.uri == uri || n != "" && m.Number == n || who != "" && party(m.known()) == who || m.anonymous() && parseTarget(r.entity(m)).user == t.user {
			return m
		}
	}
	return nil
}

// referInvite calls those who are named.
func (b *Bridge) referInvite(r *room, in sip.Refer, ref sip.Referral) {
	ids, status := b.rows(r, in.URIs, in.Hidden)
	if status != 0 {
		ref.Reject(status)
		return
	}
	ref.Accept()
	e := &errand{ref: ref, what: in, left: len(ids), many: len(ids) > 1}
	if !r.post(func(now time.Time) { r.callFor(now, ids, e) }) {
		ref.Progress(503, "Service Unavailable")
	}
}

// rows finds or makes the rows of those who are to be called, in order. Of a list, those
// that are no numbers are left out; the status is not 0 if nobody is left.
func (b *Bridge) rows(r *room, uris, hidden []string) (ids []string, status int) {
	var specs []MemberSpec
	var names []string
	status = 404
	for _, uri := range uris {
		n, bad := b.parseNumber(parseTarget(uri).user, "")
		if bad != nil {
			continue
		}
		specs = append(specs, MemberSpec{Number: n.Digits()})
		names = append(names, uri)
	}
	if len(specs) == 0 {
		return nil, 404
	}
	results, err := b.AddMembers(b.ctx, r.phone(), r.id, specs)
	if err != nil {
		if own := (*Error)(nil); errors.As(err, &own) && own.Kind == Missing {
			return nil, 404
		}
		return nil, 503
	}
	_ = r.do(func(time.Time) {
		for i, res := range results {
			m := r.byNumber(specs[i].Number)
			if m == nil {
				if res.Err != nil && res.Err.Kind == Full {
					status = 603
				}
				continue
			}
			m.hidden = slices.Contains(hidden, names[i])
			if len(names[i]) <= maxEntity {
				m.uri = names[i]
			}
			if !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	})
	if len(ids) == 0 {
		return nil, status
	}
	return ids, 0
}

// listedAs finds the row of one of these parties, in a call or not.
func (r *room) listedAs(parties []string) *member {
	for _, m := range r.members {
		if m.Number != "" && slices.Contains(parties, m.Number) {
			return m
		}
	}
	return nil
}

func (r *room) byNumber(number string) *member {
	for _, m := range r.members {
		if m.Number == number && number != "" {
			return m
		}
	}
	return nil
}

// callFor calls members and has the errand hear of it.
func (r *room) callFor(now time.Time, ids []string, e *errand) {
	at, profile, down := r.b.attachment(e.what.Attachment)
	how := manner{r.conf.Type == VideoConference && !r.b.opt.NoVideo, r.b.opt.RingTimeout, r.conf.AnswerConfirm}
	for _, id := range ids {
		m := r.member(id)
		switch {
		case m == nil || r.closing:
			e.progress(603, "Decline")
		case m.leg != nil && m.State == InConference:
			e.progress(200, "OK")
		case m.leg != nil:
			m.leg.errands = append(m.leg.errands, e)
		default:
			if bad := r.mayCall(r.phone(), m, down); bad != nil {
				status := 403
				if bad.Kind == Unavailable {
					status = 503
				}
				e.progress(status, "Not placed")
				continue
			}
			m.prefixes = r.limit
			r.startLeg(now, m, how, at, profile)
			m.leg.replaces = e.what.Replaces
			if !e.what.By.Private {
				m.leg.referrer = e.what.ReferredBy
			}
			m.leg.note(now, "state", "asked for by a participant")
			m.leg.errands = append(m.leg.errands, e)
		}
	}
}

// report tells a leg's errands where it is.
func (r *room) report(l *leg) {
	if len(l.errands) == 0 {
		return
	}
	status, phrase := 0, ""
	switch l.State {
	case Ringing:
		status, phrase = 180, "Ringing"
	case EarlyMedia:
		status, phrase = 183, "Session Progress"
	case Connected, Held:
		status, phrase = 200, "OK"
	case Ended:
		status, phrase = finalOf(l)
	default:
		return
	}
	for _, e := range l.errands {
		e.progress(status, phrase)
	}
	if status >= 200 {
		l.errands = nil
	}
}

// finalOf is what a referrer is told of a leg that was not answered.
func finalOf(l *leg) (int, string) {
	if s := l.SIP; s != nil && s.Status >= 300 && s.Status < 700 && s.Status != 487 {
		return s.Status, s.Reason
	}
	switch l.Outcome {
	case Busy:
		return 486, "Busy Here"
	case Declined:
		return 603, "Decline"
	case NoAnswer, Unreachable, Left, HungUp, Dropped: // the last three: he never pressed 1
		return 480, "Temporarily Unavailable"
	case NotFound:
		return 404, "Not Found"
	case NotAllowed, Blocked:
		return 403, "Forbidden"
	case MediaIncompatible:
		return 488, "Not Acceptable Here"
	case Cancelled:
		return 487, "Request Terminated"
	}
	return 503, "Service Unavailable"
}

// inviteList calls those whom a caller brought along (RFC 5366): after he has been
// answered, and if he may.
func (r *room) inviteList(now time.Time, l *leg) {
	uris := l.visitor.in.Recipients
	m := r.member(l.Member)
	if len(uris) == 0 || m == nil {
		return
	}
	switch {
	case !r.trusts(m):
		l.note(now, "state", "his recipients are not called: he may not refer")
		return
	case slices.ContainsFunc(uris, func(uri string) bool { return r.b.barred(r.limit, uri) }):
		l.note(now, "state", "his recipients are not called: one must not be")
		return
	}
	r.b.spawn(func() {
		ids, status := r.b.rows(r, uris, l.visitor.in.Hidden)
		if status != 0 {
			r.log.Info("recipients are not called", "status", status)
			return
		}
		r.post(func(now time.Time) {
			r.callFor(now, ids, &errand{what: sip.Refer{Attachment: l.visitor.in.Attachment}, left: len(ids), many: true})
		})
	})
}
