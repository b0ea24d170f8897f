package bridge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sparkle/sip/ims"
)

// AddMembers adds rows; each succeeds or fails by itself.
func (b *Bridge) AddMembers(ctx context.Context, a Actor, conference string, specs []MemberSpec) (out []MemberResult, err error) {
	defer func() { b.audit(a, "member.add", conference, err) }()
	r, v, done, err := b.changing(ctx, a, conference)
	if err != nil {
		return nil, err
	}
	defer done()
	taken := map[string]bool{}
	for _, m := range v.Members {
		taken[m.Number] = true
	}
	now := time.Now().UTC()
	out = make([]MemberResult, len(specs))
	var added []Member
	for i, s := range specs {
		m, bad := b.newMember(conference, s, now)
		switch {
		case bad != nil:
		case m.Role == roleHost && v.Conference.WhoMayRefer == ReferModerators && mayEmpower(a, v.Conference) != nil:
			bad = mayEmpower(a, v.Conference)
		case taken[m.Number]:
			bad = &Error{Kind: Conflict, Code: "member_exists", Detail: "the number is on the roster already", Field: "/number"}
		case len(taken) >= b.opt.MaxMembers:
			bad = &Error{Kind: Full, Code: "conference_full", Detail: fmt.Sprintf("a conference has at most %d members", b.opt.MaxMembers)}
		}
		if bad != nil {
			out[i].Err = bad
			continue
		}
		taken[m.Number] = true
		out[i].Member = &m
		added = append(added, m)
	}
	if len(added) == 0 {
		return out, nil
	}
	if err := b.store.PutMembers(ctx, added...); err != nil {
		return nil, err
	}
	err = r.do(func(now time.Time) {
		for _, m := range added {
			row := &member{Member: m}
			r.members = append(r.members, row)
			r.emitMember(now, row, "member.added")
		}
	})
	for i := range out {
		if m := out[i].Member; m != nil {
			m.Muted = m.Role == roleListener
		}
	}
	return out, err
}

func (b *Bridge) newMember(conference string, s MemberSpec, now time.Time) (Member, *Error) {
	n, bad := b.parseNumber(s.Number, "/number")
	if bad != nil {
		return Member{}, bad
	}
	name, err := cleanName(s.Name, "/name", false)
	if err != nil {
		return Member{}, err.(*Error)
	}
	role := cmp.Or(s.Role, roleSpeaker)
	if bad := checkRole(role); bad != nil {
		return Member{}, bad
	}
	return Member{ID: newID("mbr"), Conference: conference, Number: n.Digits(), Name: cmp.Or(name, n.Digits()), Role: role,
		State: Idle, CreatedAt: now}, nil
}

func checkRole(role string) *Error {
	if role == roleHost || role == roleSpeaker || role == roleListener {
		return nil
	}
	return &Error{Kind: Invalid, Code: "role_invalid", Detail: `role is "host", "speaker" or "listener"`, Field: "/role"}
}

// Members is the roster in order of joining it.
func (b *Bridge) Members(_ context.Context, a Actor, conference string) ([]Member, error) {
	_, v, err := b.open(a, conference)
	if err != nil {
		return nil, err
	}
	return slices.Clone(v.Members), nil
}

// Member is one row of the roster.
func (b *Bridge) Member(_ context.Context, a Actor, conference, id string) (Member, error) {
	_, v, err := b.open(a, conference)
	if err != nil {
		return Member{}, err
	}
	m, ok := v.member(id)
	if !ok {
		return Member{}, errNoMember()
	}
	return m, nil
}

// UpdateMember sets wanted state. It holds whether the member is in a call or not, for
// later calls, and after a restart; repeating it changes nothing and is no event.
func (b *Bridge) UpdateMember(ctx context.Context, a Actor, conference, id string, p MemberPatch) (m Member, err error) {
	defer func() { b.audit(a, "member.update", id, err) }()
	r, v, done, err := b.changing(ctx, a, conference)
	if err != nil {
		return Member{}, err
	}
	defer done()
	was, ok := v.member(id)
	if !ok {
		return Member{}, errNoMember()
	}
	want := was
	if err := r.do(func(time.Time) { // as wanted, without what a role implies
		want.Muted = r.member(id).muted
	}); err != nil {
		return Member{}, err
	}
	was.Muted = want.Muted
	if err := applyPatch(&want, p); err != nil {
		return Member{}, err
	}
	if want.Role == roleHost && was.Role != roleHost && v.Conference.WhoMayRefer == ReferModerators {
		if bad := mayEmpower(a, v.Conference); bad != nil {
			return Member{}, bad
		}
	}
	if want == was {
		return b.Member(ctx, a, conference, id)
	}
	if want.Number != "" { // one without goes with its call
		if err := b.store.PutMembers(ctx, want); err != nil {
			return Member{}, err
		}
	}
	if err := r.do(func(now time.Time) { r.setSwitches(now, r.member(id), want) }); err != nil {
		return Member{}, err
	}
	return b.Member(ctx, a, conference, id)
}

func applyPatch(m *Member, p MemberPatch) error {
	if p.Role != nil {
		if bad := checkRole(*p.Role); bad != nil {
			return bad
		}
		m.Role = *p.Role
	}
	if p.Name != nil {
		name, err := cleanName(*p.Name, "/name", false)
		if err != nil {
			return err
		}
		m.Name = cmp.Or(name, m.Number)
	}
	if p.Muted != nil && !*p.Muted && m.Role == roleListener {
		return &Error{Kind: Conflict, Code: "listener_is_muted", Detail: "a listener is always muted; make it a speaker to unmute", Field: "/muted"}
	}
	set := func(to *bool, from *bool) {
		if from != nil {
			*to = *from
		}
	}
	set(&m.Muted, p.Muted)
	set(&m.VideoMuted, p.VideoMuted)
	set(&m.Deaf, p.Deaf)
	set(&m.Held, p.Held)
	return nil
}

// setSwitches applies what is on the disk now.
func (r *room) setSwitches(now time.Time, m *member, want Member) {
	var words []string
	flag := func(name string, to *bool, on bool) {
		if *to != on {
			*to = on
			words = append(words, fmt.Sprintf("%s=%t", name, on))
		}
	}
	flag("muted", &m.muted, want.Muted)
	flag("video_muted", &m.VideoMuted, want.VideoMuted)
	flag("deaf", &m.Deaf, want.Deaf)
	flag("held", &m.Held, want.Held)
	if m.Role != want.Role {
		words = append(words, "role="+want.Role)
	}
	m.Name, m.Role = want.Name, want.Role
	if m.leg != nil {
		if len(words) > 0 {
			m.leg.note(now, "switch", strings.Join(words, " "))
		}
		r.pushLeg(m.leg)
	}
	r.emitMember(now, m, "member.updated")
}

// RemoveMember hangs up and takes the row off the roster. Its leg history stays.
func (b *Bridge) RemoveMember(ctx context.Context, a Actor, conference, id string) (err error) {
	defer func() { b.audit(a, "member.remove", id, err) }()
	r, v, done, err := b.changing(ctx, a, conference)
	if err != nil {
		return err
	}
	defer done()
	if _, ok := v.member(id); !ok {
		return errNoMember()
	}
	if err := b.store.DropMember(ctx, id); err != nil {
		return err
	}
	return r.do(func(now time.Time) {
		m := r.member(id)
		m.recall = ""
		if m.leg != nil {
			r.endWhisperOf(now, m)
			r.hangup(now, m.leg, "removed")
		}
		last := m.public()
		m.leg = nil // it ends by itself, as nobody's
		r.members = slices.DeleteFunc(r.members, func(x *member) bool { return x == m })
		r.emit(now, "member.removed", id, "", last)
	})
}

// Call calls members; the error is attachment_down if that keeps all of them from being
// called. It returns at once, with a leg in state dialing for each row that
// is being called; how fast INVITEs leave is the user agent's.
func (b *Bridge) Call(_ context.Context, a Actor, conference string, req CallRequest) (out []CallResult, err error) {
	defer func() { b.audit(a, "member.call", conference, err) }()
	r, v, err := b.open(a, conference)
	if err != nil {
		return nil, err
	}
	video, err := checkCall(req, v.Conference.Type)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	closing := b.closing
	b.mu.Unlock()
	if closing {
		return nil, errClosing()
	}
	at, profile, down := b.attachment("")
	how := manner{video && !b.opt.NoVideo, cmp.Or(req.RingTimeout, b.opt.RingTimeout), v.Conference.AnswerConfirm}
	if req.AnswerConfirm != nil {
		how.confirm = *req.AnswerConfirm
	}
	err = r.do(func(now time.Time) {
		ids := req.Members
		if req.Targets != "" {
			ids = r.targets(req.Targets)
		}
		out = make([]CallResult, 0, len(ids))
		for _, id := range ids {
			res := CallResult{Member: id}
			m := r.member(id)
			if bad := r.mayCall(a, m, down); bad != nil {
				res.Err = bad
			} else {
				m.prefixes = a.DialPrefixes
				r.startLeg(now, m, how, at, profile)
				l := m.leg.public(false)
				res.Leg = &l
			}
			out = append(out, res)
		}
	})
	placeless := func(x CallResult) bool { return x.Err != nil && x.Err.Code == "attachment_down" }
	if err == nil && len(out) > 0 && !slices.ContainsFunc(out, func(x CallResult) bool { return !placeless(x) }) {
		return nil, out[0].Err
	}
	return out, err
}

// Limits of how long a phone may be left to ring.
const minRingTimeout = time.Second

func checkCall(req CallRequest, kind ConferenceType) (video bool, err error) {
	if !slices.Contains([]string{"", "all", "idle", "failed"}, req.Targets) {
		return false, &Error{Kind: Invalid, Code: "targets_invalid", Detail: `targets is "all", "idle", "failed" or a list of member ids`, Field: "/targets"}
	}
	if req.Targets == "" && len(req.Members) == 0 {
		return false, &Error{Kind: Invalid, Code: "targets_required", Detail: "say whom to call", Field: "/targets"}
	}
	if req.RingTimeout != 0 && (req.RingTimeout < minRingTimeout || req.RingTimeout > maxRingTimeout) {
		return false, &Error{Kind: Invalid, Code: "ring_timeout_invalid", Detail: "ring_timeout_s is 1 to 300", Field: "/ring_timeout_s"}
	}
	switch req.Media {
	case "":
		return kind == VideoConference, nil
	case "audio":
		return false, nil
	case "video":
		if kind == AudioConference {
			return false, &Error{Kind: Invalid, Code: "media_invalid", Detail: "this is an audio conference", Field: "/media"}
		}
		return true, nil
	}
	return false, &Error{Kind: Invalid, Code: "media_invalid", Detail: `media is "video" or "audio"`, Field: "/media"}
}

// targets are the members a word means: none with a live leg.
func (r *room) targets(word string) []string {
	var ids []string
	for _, m := range r.members {
		if m.leg != nil {
			continue
		}
		if word == "failed" && !failed(m.LastOutcome) {
			continue
		}
		ids = append(ids, m.ID)
	}
	return ids
}

// failed: he was not reached, or lost, or a mailbox took the call.
func failed(o *LastOutcome) bool {
	return o != nil && (o.Outcome != Left && o.Outcome != HungUp || o.Retry != nil && o.Retry.How == ims.RetryLater)
}

// mayCall: everything that forbids a call before an INVITE.
func (r *room) mayCall(a Actor, m *member, down *Error) *Error {
	switch {
	case r.closing:
		return errNoConference()
	case m == nil:
		return errNoMember()
	case m.leg != nil:
		return &Error{Kind: Conflict, Code: "member_in_call", Detail: "the member is ringing or in the conference already"}
	}
	if _, bad := r.b.parseNumber(m.Number, ""); bad != nil {
		return bad
	}
	if bad := r.b.mayDial(a.DialPrefixes, m.Number); bad != nil {
		return bad
	}
	return down
}

// HangupMember ends a member's call, also one that rings; the row stays. Without a call
// it changes nothing.
func (b *Bridge) HangupMember(_ context.Context, a Actor, conference, id string) (err error) {
	defer func() { b.audit(a, "member.hangup", id, err) }()
	r, _, err := b.open(a, conference)
	if err != nil {
		return err
	}
	var missing error
	err = r.do(func(now time.Time) {
		m := r.member(id)
		if m == nil {
			missing = errNoMember()
			return
		}
		m.recall = ""
		if m.leg != nil {
			r.hangup(now, m.leg, "hung_up")
		}
	})
	return cmp.Or(missing, err)
}

// HangupAll ends every call of a conference, which can be used again.
func (b *Bridge) HangupAll(_ context.Context, a Actor, conference string) (err error) {
	defer func() { b.audit(a, "conference.hangup", conference, err) }()
	r, _, err := b.open(a, conference)
	if err != nil {
		return err
	}
	return r.do(func(now time.Time) {
		for _, m := range r.members {
			m.recall = ""
		}
		for _, l := range sortedLegs(r.legs) {
			r.hangup(now, l, "room_closed")
		}
	})
}
