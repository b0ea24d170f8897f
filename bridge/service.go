package bridge

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/bridge/fault"
	"sparkle/sip"
	"sparkle/sip/ims"
)

// Roles of a member.
const (
	roleHost     = "host"
	roleSpeaker  = "speaker"
	roleListener = "listener"
)

// maxName is in characters, of conferences and members.
const maxName = 100

// maxPage limits one page of a list; defaultPage is without a wish.
const (
	maxPage     = 200
	defaultPage = 50
)

func errNoConference() *Error {
	return &Error{Kind: Missing, Code: "conference_not_found", Detail: "there is no such conference"}
}

func errNoMember() *Error {
	return &Error{Kind: Missing, Code: "member_not_found", Detail: "there is no such member in this conference"}
}

func mine(a Actor, owner string) bool { return a.Admin || a.Account == owner }

// open finds a conference that the actor may use.
func (b *Bridge) open(a Actor, id string) (*room, *View, error) {
	r := b.find(id)
	if r == nil {
		return nil, nil, errNoConference()
	}
	if !mine(a, r.owner) {
		return nil, nil, &Error{Kind: Forbidden, Code: "not_conference_owner", Detail: "the conference belongs to another account"}
	}
	return r, r.view.Load(), nil
}

// changing opens a conference for a durable change; done must be called.
func (b *Bridge) changing(ctx context.Context, a Actor, id string) (r *room, v *View, done func(), err error) {
	if r, _, err = b.open(a, id); err != nil {
		return nil, nil, nil, err
	}
	if done, err = r.lock(ctx); err != nil {
		return nil, nil, nil, err
	}
	if b.find(id) != r { // deleted while waiting
		done()
		return nil, nil, nil, errNoConference()
	}
	return r, r.view.Load(), done, nil
}

// audit writes who did what, in the log and as a row. Targets are ids: no numbers.
func (b *Bridge) audit(a Actor, action, target string, err error) {
	result := "ok"
	if err != nil {
		result = "internal"
		if own := (*Error)(nil); errors.As(err, &own) {
			result = own.Code
		}
	}
	b.log.Info("audit", "actor", a.Account, "via", a.Via, "remote", a.Remote, "action", action, "target", target, "result", result)
	b.store.QueueAudit(AuditRecord{At: time.Now().UTC(), Actor: a.Account, ActorName: a.Name, Via: a.Via, Remote: a.Remote,
		Action: action, Target: target, Result: result})
}

// cleanName trims a name and refuses what cannot be shown on a line.
func cleanName(s, field string, required bool) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "" && required:
		return "", &Error{Kind: Invalid, Code: "name_required", Detail: "a name is required", Field: field}
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "", &Error{Kind: Invalid, Code: "name_invalid", Detail: "the name has characters that cannot be shown", Field: field}
	case utf8.RuneCountInString(s) > maxName:
		return "", &Error{Kind: Invalid, Code: "name_invalid", Detail: "the name is longer than 100 characters", Field: field}
	}
	return s, nil
}

// CreateConference makes a conference that belongs to the actor.
func (b *Bridge) CreateConference(ctx context.Context, a Actor, spec ConferenceSpec) (c Conference, err error) {
	defer func() { b.audit(a, "conference.create", c.ID, err) }()
	if spec.Name, err = cleanName(spec.Name, "/name", true); err != nil {
		return Conference{}, err
	}
	if spec.Type != VideoConference && spec.Type != AudioConference {
		return Conference{}, &Error{Kind: Invalid, Code: "type_invalid", Detail: `type is "video" or "audio"`, Field: "/type"}
	}
	now := time.Now().UTC()
	c = Conference{ID: newID("conf"), Name: spec.Name, Type: spec.Type, State: "idle", Owner: a.Account, CreatedAt: now, UpdatedAt: now,
		PIN: spec.PIN, JoinPolicy: cmp.Or(spec.JoinPolicy, JoinPIN), WhoMayRefer: cmp.Or(spec.WhoMayRefer, ReferCreator), AnswerConfirm: spec.AnswerConfirm, Rejoin: spec.Rejoin,
		Layout:    cmp.Or(spec.Layout, LayoutMosaic),
		DialLimit: strings.Join(a.DialPrefixes, " ")}
	if bad := checkPolicies(c); bad != nil {
		return Conference{}, bad
	}
	var bad *Error
	if c.Alias, bad = b.cleanAlias(spec.Alias); bad != nil {
		return Conference{}, bad
	}
	_, c, err = b.makeConference(ctx, c)
	return c, err
}

// makeConference writes a conference that is whole but for its PIN, and opens its room.
func (b *Bridge) makeConference(ctx context.Context, c Conference, members ...Member) (*room, Conference, error) {
	b.mu.Lock()
	closing, full := b.closing || b.draining.Load(), len(b.rooms) >= b.opt.MaxConferences
	b.mu.Unlock()
	if closing {
		return nil, Conference{}, errClosing()
	}
	if full {
		return nil, Conference{}, &Error{Kind: Full, Code: "too_many_conferences", Detail: "delete a conference first"}
	}
	if bad := b.claim(&c); bad != nil {
		return nil, Conference{}, bad
	}
	c.DialIn = b.opt.dialIn(c)
	err := b.store.PutConference(ctx, c, seqBlock)
	if err == nil && len(members) > 0 {
		err = b.store.PutMembers(ctx, members...)
	}
	if err != nil {
		b.release(c, Conference{})
		return nil, Conference{}, err
	}
	r := newRoom(b, c, 0, members)
	b.mu.Lock()
	closing = b.closing
	if !closing {
		b.rooms[c.ID] = r
	}
	b.mu.Unlock()
	if closing { // it is on the disk, and there after the restart
		r.stop()
		return nil, Conference{}, errClosing()
	}
	err = r.do(func(now time.Time) {
		r.emit(now, "conference.created", "", "", r.conf)
		for _, m := range r.members {
			r.emitMember(now, m, "member.added")
		}
	})
	return r, r.view.Load().Conference, err
}

// Conferences pages through the actor's conferences, newest first.
func (b *Bridge) Conferences(_ context.Context, a Actor, limit int, cursor string) ([]Conference, string, error) {
	limit = page(limit)
	var all []Conference
	for _, r := range b.all() {
		if mine(a, r.owner) && (cursor == "" || r.id < cursor) {
			all = append(all, r.view.Load().Conference)
		}
	}
	slices.SortFunc(all, func(x, y Conference) int { return cmp.Compare(y.ID, x.ID) })
	if len(all) > limit {
		return all[:limit], all[limit-1].ID, nil
	}
	return all, "", nil
}

func page(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// Conference is one conference as it is now.
func (b *Bridge) Conference(_ context.Context, a Actor, id string) (Conference, error) {
	_, v, err := b.open(a, id)
	if err != nil {
		return Conference{}, err
	}
	return v.Conference, nil
}

// UpdateConference changes what is not nil.
func (b *Bridge) UpdateConference(ctx context.Context, a Actor, id string, p ConferencePatch) (c Conference, err error) {
	defer func() { b.audit(a, "conference.update", id, err) }()
	r, v, done, err := b.changing(ctx, a, id)
	if err != nil {
		return Conference{}, err
	}
	defer done()
	was := v.Conference
	if c, err = b.patched(was, p); err != nil || c == was {
		return c, err
	}
	if c.WhoMayRefer != was.WhoMayRefer && c.WhoMayRefer != ReferNone {
		if bad := mayEmpower(a, was); bad != nil {
			return Conference{}, bad
		}
	}
	if bad := b.claim(&c); bad != nil {
		return Conference{}, bad
	}
	c.DialIn, c.UpdatedAt = b.opt.dialIn(c), time.Now().UTC()
	if err := b.store.PutConference(ctx, c, 0); err != nil {
		b.release(c, was)
		return Conference{}, err
	}
	b.release(was, c)
	err = r.do(func(now time.Time) {
		r.conf.Name, r.conf.UpdatedAt = c.Name, c.UpdatedAt
		r.conf.PIN, r.conf.Alias, r.conf.DialIn = c.PIN, c.Alias, c.DialIn
		r.conf.JoinPolicy, r.conf.WhoMayRefer, r.conf.AnswerConfirm, r.conf.Rejoin = c.JoinPolicy, c.WhoMayRefer, c.AnswerConfirm, c.Rejoin
		if r.conf.Layout != c.Layout {
			if r.conf.Layout = c.Layout; r.mediaOpen {
				r.pushConference()
			}
		}
		r.emit(now, "conference.updated", "", "", r.conf)
	})
	return r.view.Load().Conference, err
}

// patched is c as p wants it. A PIN that is to be made up is "".
func (b *Bridge) patched(c Conference, p ConferencePatch) (Conference, error) {
	if p.Name != nil {
		name, err := cleanName(*p.Name, "/name", true)
		if err != nil {
			return c, err
		}
		c.Name = name
	}
	if p.PIN != nil {
		c.PIN = *p.PIN
	}
	if p.Alias != nil {
		alias, bad := b.cleanAlias(*p.Alias)
		if bad != nil {
			return c, bad
		}
		c.Alias = alias
	}
	if p.JoinPolicy != nil {
		c.JoinPolicy = *p.JoinPolicy
	}
	if p.WhoMayRefer != nil {
		c.WhoMayRefer = *p.WhoMayRefer
	}
	if p.AnswerConfirm != nil {
		c.AnswerConfirm = *p.AnswerConfirm
	}
	if p.Rejoin != nil {
		c.Rejoin = *p.Rejoin
	}
	if p.Layout != nil {
		c.Layout = *p.Layout
	}
	if bad := checkPolicies(c); bad != nil {
		return c, bad
	}
	return c, nil
}

// DeleteConference hangs up everybody and forgets the conference and its roster. The
// goodbyes go on after it has returned.
func (b *Bridge) DeleteConference(ctx context.Context, a Actor, id string) (err error) {
	defer func() { b.audit(a, "conference.delete", id, err) }()
	r, _, done, err := b.changing(ctx, a, id)
	if err != nil {
		return err
	}
	defer done()
	if err := b.store.DropConference(ctx, id); err != nil {
		return err
	}
	b.mu.Lock()
	if b.closing { // Close ends the room
		b.mu.Unlock()
		return nil
	}
	delete(b.rooms, id)
	b.wg.Add(1)
	b.mu.Unlock()
	b.release(r.view.Load().Conference, Conference{})
	err = r.do(func(now time.Time) {
		r.shutdown(now, "room_closed")
		r.emit(now, "conference.deleted", "", "", r.conf)
		r.mute = true
	})
	go fault.Safely(r.log, "deleted conference", func() {
		defer b.wg.Done()
		b.bury(r)
	})()
	return err
}

// buryAfter is how long a deleted conference waits for goodbyes: a CANCEL that is not
// answered takes 32 s (64*T1).
const buryAfter = 40 * time.Second

func (b *Bridge) bury(r *room) {
	t := time.NewTimer(buryAfter)
	defer t.Stop()
	select {
	case <-r.drained:
	case <-t.C:
	case <-b.ctx.Done():
	}
	r.post(r.abandon)
	r.stop()
}

// Legs pages through a member's legs, newest first; the live one is as it is now.
func (b *Bridge) Legs(ctx context.Context, a Actor, conference, member string, limit int, cursor string) ([]Leg, string, error) {
	_, v, err := b.open(a, conference)
	if err != nil {
		return nil, "", err
	}
	if _, ok := v.member(member); !ok {
		return nil, "", errNoMember()
	}
	items, next, err := b.store.Legs(ctx, conference, member, page(limit), cursor)
	if err != nil {
		return nil, "", err
	}
	for i := range items {
		for _, l := range v.legs {
			if l.ID == items[i].ID && items[i].EndedAt == nil {
				items[i] = l
			}
		}
	}
	return items, next, nil
}

// SetWhisper begins a whisper or changes it; one stands at a time.
func (b *Bridge) SetWhisper(_ context.Context, a Actor, conference string, w WhisperSpec) (err error) {
	defer func() { b.audit(a, "whisper.set", conference, err) }()
	r, _, err := b.open(a, conference)
	if err != nil {
		return err
	}
	if w.Mode != "private" && w.Mode != "coach" {
		return &Error{Kind: Invalid, Code: "mode_invalid", Detail: `mode is "private" or "coach"`, Field: "/mode"}
	}
	w.To = slices.Clone(w.To)
	slices.Sort(w.To)
	w.To = slices.Compact(w.To)
	if len(w.To) == 0 {
		return &Error{Kind: Invalid, Code: "to_required", Detail: "whisper to at least one member", Field: "/to"}
	}
	if w.From == "console" {
		return &Error{Kind: Conflict, Code: "console_has_no_audio", Detail: "the console has no microphone in this conference", Field: "/from"}
	}
	if slices.Contains(w.To, w.From) {
		return &Error{Kind: Invalid, Code: "to_invalid", Detail: "nobody whispers to himself", Field: "/to"}
	}
	var refused error
	err = r.do(func(now time.Time) {
		for _, id := range append([]string{w.From}, w.To...) {
			switch m := r.member(id); {
			case m == nil:
				refused = errNoMember()
				return
			case m.State != InConference:
				refused = &Error{Kind: Conflict, Code: "member_not_in_conference", Detail: "member " + id + " is not in the conference"}
				return
			}
		}
		if old := r.whisper; old != nil && old.From == w.From && old.Mode == w.Mode && slices.Equal(old.To, w.To) {
			return
		}
		r.whisper = &w
		r.pushConference()
		r.emitWhisper(now)
	})
	return cmp.Or(refused, err)
}

// EndWhisper ends it; without one nothing happens.
func (b *Bridge) EndWhisper(_ context.Context, a Actor, conference string) (err error) {
	defer func() { b.audit(a, "whisper.end", conference, err) }()
	r, _, err := b.open(a, conference)
	if err != nil {
		return err
	}
	return r.do(func(now time.Time) {
		if r.whisper == nil {
			return
		}
		r.whisper = nil
		if len(r.legs) > 0 {
			r.pushConference()
		}
		r.emitWhisper(now)
	})
}

// Preview is the picture that the phones see.
func (b *Bridge) Preview(ctx context.Context, a Actor, conference string) (Preview, error) {
	_, v, err := b.open(a, conference)
	if err != nil {
		return Preview{}, err
	}
	none := &Error{Kind: Conflict, Code: "no_picture", Detail: "nobody is in the conference with video"}
	if v.Conference.Type != VideoConference || v.Conference.State == "idle" {
		return Preview{}, none
	}
	ctx, cancel := context.WithTimeout(ctx, mediaTimeout)
	defer cancel()
	p, err := b.media.Preview(ctx, conference, 0)
	switch {
	case err == nil && len(p.Jpeg) > 0:
		return Preview{JPEG: p.Jpeg, At: time.Unix(0, p.At).UTC()}, nil
	case err == nil, status.Code(err) == codes.NotFound, status.Code(err) == codes.FailedPrecondition:
		return Preview{}, none
	}
	return Preview{}, &Error{Kind: Unavailable, Code: "media_down", Detail: "the media service does not answer"}
}

// Attachments are the connections to carriers, identities masked.
func (b *Bridge) Attachments(context.Context) []sip.AttachmentState {
	states := slices.Clone(b.caller.Attachments())
	for i := range states {
		states[i].Identity = MaskNumbers(states[i].Identity)
	}
	return states
}

// RegisterAttachment has an attachment register again at once: an administrator has mended
// what kept it from being registered. Errors: attachment_not_found, attachment_not_registering.
func (b *Bridge) RegisterAttachment(_ context.Context, a Actor, name string) (err error) {
	defer func() { b.audit(a, "attachment.register", name, err) }()
	switch err := b.caller.Register(name); {
	case errors.Is(err, sip.ErrUnknownAttachment):
		return &Error{Kind: Missing, Code: "attachment_not_found", Detail: "there is no such attachment"}
	case err != nil:
		return &Error{Kind: Conflict, Code: "attachment_not_registering", Detail: "only an attachment of mode ue registers"}
	}
	return nil
}

// MaskNumbers hides the subscriber digits of the numbers in a text.
func MaskNumbers(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if n < 0 {
			n = len(s)
		}
		digits := s[:n]
		switch {
		case n >= 11:
			digits = digits[:n-8] + "****" + digits[n-4:]
		case n >= 7:
			digits = digits[:2] + "****" + digits[n-2:]
		}
		out.WriteString(digits)
		if n < len(s) {
			_, size := utf8.DecodeRuneInString(s[n:])
			out.WriteString(s[n : n+size])
			n += size
		}
		s = s[n:]
	}
	return out.String()
}

// Ready says what keeps the server from placing calls; empty when nothing does.
func (b *Bridge) Ready(context.Context) map[string]string {
	out := map[string]string{}
	if b.mediaDown.Load() {
		out["media"] = "the media engine is down"
	}
	if !slices.ContainsFunc(b.caller.Attachments(), func(a sip.AttachmentState) bool { return a.Up }) {
		out["attachments"] = "no connection to a carrier is up"
	}
	if err := b.store.Healthy(); err != nil {
		out["store"] = err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing || b.draining.Load() {
		out["state"] = "shutting down"
	}
	return out
}

// Subscribe delivers events of one conference, or with "" of all that the actor may
// see. It begins after the event id after if that can be replayed, else with a
// snapshot: {conferences: [{conference, members, whisper, seq}], attachments: […]}.
func (b *Bridge) Subscribe(ctx context.Context, a Actor, conference, after string) (*Subscription, error) {
	if conference != "" {
		if _, _, err := b.open(a, conference); err != nil {
			return nil, err
		}
	}
	s, replayed, at, err := b.hub.subscribe(conference, after, func(owner string) bool { return mine(a, owner) })
	if err != nil {
		return nil, err
	}
	if !replayed {
		e, seen := b.snapshot(ctx, a, conference, at)
		b.hub.start(s, e, seen)
	}
	stop := context.AfterFunc(ctx, fault.Safely(b.log, "event stream", func() { b.hub.unsubscribe(s) }))
	return &Subscription{C: s.ch, Close: func() {
		stop()
		b.hub.unsubscribe(s)
	}}, nil
}

func (b *Bridge) snapshot(ctx context.Context, a Actor, conference, id string) (Event, map[string]uint64) {
	data := struct {
		Conferences []*View      `json:"conferences"`
		Attachments []Attachment `json:"attachments"`
	}{Conferences: []*View{}, Attachments: []Attachment{}}
	seen := map[string]uint64{}
	e := Event{ID: id, Time: time.Now().UTC(), Type: "snapshot", Conference: conference}
	for _, r := range b.all() {
		if conference != "" && r.id != conference || !mine(a, r.owner) {
			continue
		}
		v := r.view.Load()
		seen[r.id] = v.Seq
		if conference != "" {
			e.Seq = v.Seq
		}
		data.Conferences = append(data.Conferences, v)
	}
	for _, at := range b.Attachments(ctx) {
		data.Attachments = append(data.Attachments, ViewAttachment(at))
	}
	e.Data = encode(data)
	return e, seen
}

// parseNumber reads a number as typed and refuses those that must never be called.
func (b *Bridge) parseNumber(typed, field string) (ims.Number, *Error) {
	if ims.Emergency(typed, b.opt.Country) {
		return "", &Error{Kind: Forbidden, Code: "dial_not_allowed", Detail: "emergency numbers are not called from a conference", Field: field}
	}
	n, err := ims.ParseTyped(typed, b.opt.CallingCode)
	if err != nil {
		return "", &Error{Kind: Invalid, Code: "number_invalid", Detail: "not a phone number with country code, like +8613800001234", Field: field}
	}
	return n, nil
}
