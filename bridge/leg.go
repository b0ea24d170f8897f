package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/bridge/fault"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/ims"
	"sparkle/sip/sdp"
)

// leg is a live leg; its room's goroutine owns it.
//
//	opening ─ OpenLeg ─> offered ─ Invite ─> dialing … connected ⇄ held ─ Ended ─> gone
//	                        ^                   │
//	                        └── audio only ─────┘ once, when video was refused as a whole
type leg struct {
	Leg
	number    string
	profile   sip.MediaProfile
	wantsPic  bool // video is wanted in this attempt
	rings     time.Duration
	attempt   int // INVITEs so far; events of an older one are ignored
	call      sip.Call
	opened    bool // the engine has it
	audio     int  // local ports
	video     int
	sprop     string
	local     *sdp.Session // our last description that stands
	pending   *proposal    // an offer of ours that has not been answered, within the call
	late      *proposal    // the same, that the phone had asked for: its answer comes with an ACK
	offer     uint64       // ID of the phone's that waits for our answer; 0: none
	given     *given       // that answer; nil: none, or what became of it is known
	agreed    *sdp.Result  // nil before the binding answer
	bound     bool         // the binding answer to our INVITE came: until then another fork may give one
	held      bool         // by the peer
	why       string       // we are ending it: hung_up, cancelled, media_incompatible …; "" not
	verdict   *verdict     // decided by us when we ended it, not by what the network then says
	dialled   string       // Request-URI of a call that came in
	access    string       // P-Access-Network-Info of the phone
	usage     *Usage       // by the newest figures
	fallback  string       // why_no_video of an audio-only retry
	heard     bool         // audio came from it
	hadVideo  bool         // it was negotiated once
	voiceOnly bool         // the organiser wants no video of it
	askedAt   time.Time    // when he last asked for it
	then      string       // what he wants once pending is answered: audio, video
	seen      VideoState   // flowing or stalled, by the engine; "" nothing yet
	seenWhy   string
	passive   bool      // preconditions as a phone's network likes them: it refused ours
	otherIP   bool      // media at our address of the other family: the phone refused the one
	otherForm bool      // of the number's URI: the network refused the one
	tried     []string  // attachments that could not take the call, before this one
	over      bool      // its call has ended
	dead      bool      // has ended; late mail is ignored
	visitor   *visitor  // the call came in; nil: we called
	answered  bool      // we have sent it our 200: what it asks in its call may overtake the ACK
	replaces  string    // the phone's call that this one takes over (RFC 3891); "" none
	referrer  string    // URI of the participant who had him called; "" nobody
	errands   []*errand // who asked for this call and wants to know
	takesOver *leg      // ends when this one is up; nil: none
	again     bool      // its member was in by a call that was lost
	door      *door     // connected, and not let in yet; nil: he is a member
	calling   string    // whom the call is from
	// When it began and was answered, with the reading of the clock that nobody can set: the
	// times of Leg have none.
	began, answeredAt time.Time
}

// verdict is how a leg ended.
type verdict struct {
	outcome Outcome
	text    Text
	retry   ims.Retry // zero: what the outcome says
	reason  string    // finer than the outcome; "": the reason that it was ended for
}

// ownEnd is the end of a leg that we have ended, and why, in the words of package ims.
func ownEnd(connected bool, why string) verdict {
	w := ims.Classify(ims.Final{Connected: connected, By: string(sip.ByLocal), Why: why})
	return verdict{Outcome(w.Outcome), Text{Zh: w.TextZh, En: w.TextEn}, w.Retry, w.Detail}
}

// hint is the verdict's retry as others see it.
func (v verdict) hint() *Retry {
	how := v.retry.How
	if how == "" {
		how = ims.RetryOf(string(v.outcome))
	}
	return &Retry{How: how, AfterS: int((v.retry.After + time.Second - 1) / time.Second)}
}

// seconds is a duration to the millisecond.
func seconds(d time.Duration) float64 { return float64(max(d, 0).Milliseconds()) / 1000 }

// maxTimeline bounds what a leg remembers; a phone that sends re-INVITEs for hours must
// not fill the memory.
const maxTimeline = 200

func (l *leg) note(now time.Time, what, text string) {
	if len(l.Timeline) < maxTimeline {
		l.Timeline = append(l.Timeline, TimelineEntry{At: now.UTC(), What: what, Text: text})
	}
}

// public is a copy that shares nothing that changes. The timeline is only ever
// appended to, so a capped slice of it does not change.
func (l *leg) public(timeline bool) Leg {
	out := l.Leg
	if timeline {
		out.Timeline = slices.Clip(l.Timeline)
	} else {
		out.Timeline = nil
	}
	return out
}

// takesOverLive: its member is in, by the leg that it takes the place of.
func (l *leg) takesOverLive() bool {
	old := l.takesOver
	return old != nil && !old.dead && !old.ringsOrDials()
}

func (l *leg) ringsOrDials() bool {
	return l.State == Dialing || l.State == Ringing || l.State == EarlyMedia
}

// manner is how a member is called.
type manner struct {
	video   bool
	rings   time.Duration
	confirm bool // who answers must press 1
}

// startLeg begins a call with m: state dialing at once, ports next, INVITE then.
func (r *room) startLeg(now time.Time, m *member, how manner, at sip.AttachmentState, p sip.MediaProfile) {
	l := &leg{number: m.Number, profile: p, wantsPic: how.video, rings: how.rings, Leg: Leg{
		ID: newID("leg"), Member: m.ID, Conference: r.id, Direction: "outbound",
		Attachment: at.Name, StartedAt: now.UTC(),
	}, began: now}
	if how.confirm {
		l.door = &door{confirm: true}
	}
	m.leg, m.recall, m.rejoins, m.confirm = l, "", time.Time{}, how.confirm
	r.legs[l.ID] = l
	r.setState(now, l, Dialing)
	r.openLeg(l)
}

// openLeg has the engine open a leg's ports.
func (r *room) openLeg(l *leg) {
	r.b.legRoom.Store(l.ID, r)
	if !r.mediaOpen {
		r.pushConference()
	}
	r.opening++
	req := &mediapb.OpenLegRequest{Conference: r.id, Leg: l.ID, LocalIp: l.profile.LocalIP, Video: l.wantsPic}
	r.work.do(func(ctx context.Context) {
		reply, err := (*mediapb.OpenLegReply)(nil), errFault
		defer func() { r.post(func(now time.Time) { r.legOpened(now, l, reply, err) }) }()
		if reply, err = r.b.media.OpenLeg(ctx, req); err == nil {
			r.b.totals.open(l.ID)
		}
	})
}

func (r *room) legOpened(now time.Time, l *leg, reply *mediapb.OpenLegReply, err error) {
	r.about = l
	r.opening--
	l.opened = err == nil
	switch {
	case l.dead: // cancelled meanwhile, and charged
		if l.opened {
			r.closeLeg(l, func(*mediapb.LegStats) {})
		}
	case err != nil:
		r.log.Warn("media did not open a leg", "leg_id", l.ID, "err", err)
		v := verdict{outcome: NetworkError, text: Text{Zh: "媒体服务不可用，呼叫未发出", En: "The media service is not available; the call was not placed."}}
		if status.Code(err) == codes.ResourceExhausted {
			v.text = Text{Zh: "媒体端口已用完，呼叫未发出", En: "No media ports are free; the call was not placed."}
		}
		if l.visitor != nil {
			r.cannotOpen(now, l)
			return
		}
		r.endLeg(now, l, v, nil)
	default:
		l.audio, l.video, l.sprop = int(reply.AudioPort), int(reply.VideoPort), reply.Sprop
		r.b.holdPorts(l)
		if l.visitor != nil {
			r.answerCall(now, l)
			return
		}
		r.invite(now, l)
	}
}

// invite makes the offer and places the call.
func (r *room) invite(now time.Time, l *leg) {
	offer, err := l.makeOffer(now)
	if err == nil {
		l.attempt++
		attempt, prefixes := l.attempt, []string(nil)
		if m := r.member(l.Member); m != nil {
			prefixes = m.prefixes
		}
		l.call, err = r.b.caller.Invite(sip.Invite{
			Attachment: l.Attachment, Number: l.number, Offer: offer, Video: l.wantsPic, Focus: focusUser(r.id), Passive: l.passive, OtherForm: l.otherForm, Replaces: l.replaces, ReferredBy: l.referrer,
			SetupTimeout: r.b.opt.SetupTimeout, RingTimeout: l.rings,
			MayCall: func(_, number string) bool { return r.b.mayDial(prefixes, number) == nil },
			OnEvent: func(e sip.Event) {
				r.post(func(now time.Time) { r.onSIP(now, l, attempt, e) })
			},
		})
	}
	if (errors.Is(err, sip.ErrAttachmentDown) || errors.Is(err, sip.ErrBusy)) && r.elsewhere(now, l, inviteVerdict(err), "is down") {
		return
	}
	if err != nil {
		r.log.Warn("a call could not be placed", "leg_id", l.ID, "err", err)
		r.endLeg(now, l, inviteVerdict(err), nil)
	}
}

// onSIP is everything that a call can say. What comes for an older attempt or after
// the end changes nothing.
func (r *room) onSIP(now time.Time, l *leg, attempt int, e sip.Event) {
	if l.dead || attempt != l.attempt {
		return
	}
	r.about = l
	switch e := e.(type) {
	case sip.Queued:
		r.onQueued(now, l, e)
	case sip.Trying:
		l.CallID, l.ICID, l.Queue, l.calling = e.CallID, e.ICID, nil, e.Identity
		r.b.traced.note(l.ID, r.owner, l.CallID)
		r.dirty = true
	case sip.Charging:
		l.access = e.AccessNetwork
		if e.OrigIOI != "" || e.TermIOI != "" {
			l.Charging = &Charging{OrigIOI: e.OrigIOI, TermIOI: e.TermIOI}
		}
	case sip.Message:
		what := "sip_received"
		if e.Sent {
			what = "sip_sent"
		}
		l.note(e.At, what, e.Summary)
		r.dirty = true
	case sip.Ringing:
		if l.State == Dialing || l.State == EarlyMedia {
			r.rang(e.At, l)
			r.setState(now, l, Ringing)
		}
	case sip.Answer:
		r.onAnswer(now, l, e)
	case sip.Connected:
		r.onConnected(now, l, e)
	case sip.Offer:
		r.onOffer(now, l, e)
	case sip.Refreshed:
		r.onRefreshed(now, l, e)
	case sip.Replied:
		r.onReplied(now, l, e)
	case sip.Reoffered:
		moving := l.door != nil && l.door.moving && l.opened
		switch {
		case e.Offer != 0:
			r.onLateAnswer(now, l, e)
		case l.pending != nil: // it was asked before it moved
			r.onReoffered(now, l, e)
			if moving {
				r.moveIn(now, l)
			}
		case moving && e.SDP == nil && e.Status == 491:
			r.moveIn(now, l) // the phone offered something itself meanwhile
		case moving:
			r.movedIn(now, l, e)
		}
	case sip.Info:
		l.note(e.At, "dtmf", "a key by INFO") // which one may be a secret
		r.onKey(now, l, e.Digit)
	case sip.Ended:
		l.over = true
		r.onEnded(now, l, e)
	}
}

func (r *room) rang(now time.Time, l *leg) {
	if l.RingingAt == nil {
		at := now.UTC()
		l.RingingAt = &at
		r.b.counts.setup(now.Sub(l.began))
	}
}

// onAnswer takes a description: early media is noted and not sent into the
// conference; the binding answer sets up the streams.
func (r *room) onAnswer(now time.Time, l *leg, e sip.Answer) {
	if !e.Final {
		l.note(e.At, "media", "early media")
		if l.State == Dialing {
			r.setState(now, l, EarlyMedia)
		}
		return
	}
	own, res, err := r.b.settled(l.local, e.SDP, e.Local, e.Offered)
	l.local, l.bound = own, true
	if err != nil {
		l.note(now, "media", "answer not usable: "+err.Error())
		r.log.Info("answer not usable", "leg_id", l.ID, "err", err)
		r.hang(now, l, "media_incompatible", `SIP;cause=488;text="Not Acceptable Here"`, &verdict{outcome: MediaIncompatible, text: Text{Zh: "对方的媒体无法使用", En: "The phone's media cannot be used."}})
		return
	}
	r.agree(now, l, res)
	r.pushLeg(l)
	r.closeVideo(l)
}

// agree notes what was negotiated.
func (r *room) agree(now time.Time, l *leg, res sdp.Result) {
	old := l.agreed
	l.agreed = &res
	l.held = res.Held
	l.Media = describe(res, l.fallback)
	l.hadVideo = l.hadVideo || res.Video != nil
	if old == nil || old.Video == nil || res.Video == nil || old.Video.Remote != res.Video.Remote || !res.Video.Recv {
		l.seen, l.seenWhy = "", "" // another stream
	}
	l.describeVideo()
	l.note(now, "media", mediaWords(l.Media))
	for _, n := range res.Notes {
		l.note(now, "media", "forgiven: "+n)
	}
	r.dirty = true
}

func (r *room) onConnected(now time.Time, l *leg, e sip.Connected) {
	if l.why != "" || l.agreed == nil || l.ConnectedAt != nil {
		return // it is being ended; the UA says goodbye to a late 200
	}
	at := e.At.UTC()
	l.ConnectedAt, l.answeredAt = &at, e.At
	l.CSAccess = l.brokenOut(e.Contact, e.Server)
	if l.RingingAt == nil {
		r.b.counts.setup(e.At.Sub(l.began))
	}
	if w := l.Media.WhyNoVideo; w != nil && r.mayHaveVideo() == "" && *w != sdp.VideoNotOffered {
		r.b.counts.fallback(*w)
	}
	state := Connected
	if l.held {
		state = Held
	}
	if l.door != nil && l.door.confirm {
		state, l.AwaitingConfirm = Ringing, true
		l.note(now, "state", "answered, and is to press 1")
	}
	r.setState(now, l, state)
	r.pushLeg(l)
	r.tookOver(now, l)
	if l.visitor != nil && l.door == nil {
		r.inviteList(now, l)
	}
	if l.door != nil {
		r.knock(now, l)
	}
	r.tellMismatch(now, l)
	r.log.Info("leg answered", "leg_id", l.ID, "media", mediaWords(l.Media), "after", e.At.Sub(l.began))
}

// tellMismatch tells a phone that has opened its camera for what nobody here can read or send
// that this is a voice call.
func (r *room) tellMismatch(now time.Time, l *leg) {
	open := l.local != nil && l.local.Video != nil && l.local.Video.Port != 0
	if open && l.agreed.WhyNoVideo == sdp.VideoCodecMismatch && l.ConnectedAt != nil && l.why == "" {
		r.propose(now, l, &proposal{})
	}
}

// holdState follows the peer's hold and resume.
func (r *room) holdState(now time.Time, l *leg) {
	switch {
	case l.held && l.State == Connected:
		r.setState(now, l, Held)
	case !l.held && l.State == Held:
		r.setState(now, l, Connected)
	default:
		r.emitLeg(now, l, "leg.updated")
	}
}

// onEnded is the one place where a leg's outcome comes from, unless we had decided it.
func (r *room) onEnded(now time.Time, l *leg, e sip.Ended) {
	v, retry := classify(e, l)
	l.SIP = resultOf(e)
	if l.visitor != nil && l.ConnectedAt == nil {
		v, retry = inboundVerdict(e), false
	}
	retry = retry || r.b.opt.RetryAudioOnDecline && declinedVideo(e)
	may := l.visitor == nil && l.why == "" && l.ConnectedAt == nil && !r.closing && !r.mediaDown
	switch {
	case may && v.reason == "address_family" && r.otherFamily(now, l, v, e):
		return
	case may && retry && l.wantsPic:
		l.wantsPic, l.fallback = false, fmt.Sprintf("rejected_%d", e.Status)
		l.passive = e.Status == 580
		r.inviteAgain(now, l, v, e, "video refused, trying voice only")
		return
	case may && e.Status == 580 && !l.wantsPic && !l.passive && !l.profile.Passive:
		l.passive = true
		r.inviteAgain(now, l, v, e, "preconditions refused, trying without ours")
		return
	case may && e.Status == 416 && !l.otherForm: // the number is no worse for that
		l.otherForm = true
		r.inviteAgain(now, l, v, e, "its URI refused, trying the other form of the number")
		return
	case may && unreached(e) && r.elsewhere(now, l, v, cmp.Or(e.Why, strconv.Itoa(e.Status))):
		return
	}
	if l.verdict != nil {
		v = *l.verdict
	}
	r.endLeg(now, l, v, &e)
}

// resultOf is what the network said of an end; nil if it said nothing.
func resultOf(e sip.Ended) *SIPResult {
	if e.Status == 0 && e.Q850 == 0 && e.SIPCause == 0 && e.ReleaseCause == 0 && e.Reason == "" {
		return nil
	}
	return &SIPResult{Status: e.Status, Reason: e.Phrase, Q850: e.Q850, Warning: e.Warning, Text: e.ReasonText,
		Header: e.Reason, SIPCause: e.SIPCause, ReleaseCause: e.ReleaseCause, RedirectedTo: e.Target}
}

// party is who is at the other end, as a record names him.
func (l *leg) party() string {
	if l.visitor == nil {
		return l.number
	}
	return charged(l.visitor.in.Caller)
}

// record is the leg as it is kept.
func (l *leg) record() LegRecord {
	return LegRecord{Leg: l.public(true), Number: l.party(), AccessNetwork: l.access, Dialled: l.dialled, Calling: l.calling}
}

// hang ends a leg in the way its state needs; why is the first reason given. A verdict
// of ours outlives what the network says of our BYE.
func (r *room) hang(now time.Time, l *leg, why, reason string, v *verdict) {
	if l.dead || l.why != "" {
		return
	}
	l.why, l.verdict = why, v
	l.note(now, "state", "ending: "+why)
	if l.call != nil {
		l.call.Hangup(why, reason)
		r.dirty = true
		return
	}
	end := verdict{outcome: Cancelled, text: Text{Zh: "呼叫已取消", En: "The call was cancelled."}}
	if v != nil {
		end = *v
	}
	r.endLeg(now, l, end, nil)
}

// hangups are what phones are told of our ends, in Reason.
var hangups = map[string]string{
	"hung_up":                "hung up by the organiser",
	"removed":                "removed from the conference",
	"removed_by_participant": "removed by a participant",
	"room_closed":            "the conference has ended",
	"shutdown":               "the server is shutting down",
}

// hangup is hang as somebody wanted it: a phone that rings stops, one that talks is put down.
// why is one of hangups.
func (r *room) hangup(now time.Time, l *leg, why string) {
	if l.ConnectedAt != nil {
		v := ownEnd(true, why)
		r.hang(now, l, why, `SIP;cause=200;text="`+hangups[why]+`"`, &v)
		return
	}
	r.hang(now, l, "cancelled", `SIP;cause=487;text="`+hangups[why]+`"`, nil)
}

// endLeg is the end of a leg, once.
func (r *room) endLeg(now time.Time, l *leg, v verdict, e *sip.Ended) {
	if l.dead {
		return
	}
	connected := l.ConnectedAt != nil
	if v.outcome.afterConnect() != connected { // the words of DESIGN §3 hold whatever anybody says
		if connected {
			v.outcome = Dropped
		} else {
			v.outcome = NetworkError
		}
		v.text, v.retry = fallbackText(v.outcome), ims.Retry{}
	}
	l.dead = true
	at := now.UTC()
	l.Reason, l.Attempts = cmp.Or(v.reason, l.why, string(v.outcome)), l.attempt
	if l.visitor != nil {
		l.Attempts = 0
	}
	if connected {
		l.DurationS = seconds(now.Sub(l.answeredAt))
	}
	l.Outcome, l.EndedAt, l.Text, l.Retry, l.AwaitingConfirm = v.outcome, &at, &v.text, v.hint(), false
	l.State, l.Since, l.Queue = Ended, at, nil
	l.note(now, "state", "ended: "+string(v.outcome))
	delete(r.legs, l.ID)
	r.b.legRoom.Delete(l.ID)
	r.b.counts.outcome(v.outcome)
	record := l.record()
	record.Leg.Usage = l.usage
	r.b.store.QueueLeg(record)
	if l.opened {
		r.closeLeg(l, func(last *mediapb.LegStats) { r.b.complete(record, last) })
	} else {
		r.b.charge(record)
	}
	m := r.member(l.Member)
	if m != nil && m.leg == l {
		r.endWhisperOf(now, m)
		m.leg, m.State = nil, Idle
		m.LastOutcome = OutcomeOf(l.Leg)
	} else if m != nil && m.leg != nil && m.leg.takesOver == l { // it did not wait for that one
		m.leg.takesOver = nil
		r.setState(now, m.leg, m.leg.State)
	}
	if l.Member != "" { // at the door he is nobody yet
		r.emit(now, "leg.ended", l.Member, l.ID, record.Leg)
	}
	switch {
	case m != nil && m.Number == "" && m.leg == nil:
		r.dropRow(now, m)
		m = nil
	case m != nil:
		r.emitMember(now, m, "member.updated")
	}
	if l.door != nil {
		l.door.stop()
	}
	r.dirty = true
	attrs := []any{"leg_id", l.ID, "outcome", string(v.outcome), "attempts", l.attempt}
	if l.SIP != nil {
		attrs = append(attrs, "status", l.SIP.Status, "q850", l.SIP.Q850)
	}
	if e != nil {
		attrs = append(attrs, "by", string(e.By), "why", e.Why)
	}
	r.log.Info("leg ended", attrs...)
	r.tookOver(now, l)
	r.report(l)
	r.rejoin(now, m, l, v)
	r.recall(now, m)
	r.expire()
}

// closeLeg gives the ports back. done gets the last figures, nil if there are none.
func (r *room) closeLeg(l *leg, done func(*mediapb.LegStats)) {
	l.opened = false
	r.b.freePorts(l)
	r.work.do(func(ctx context.Context) {
		var stats *mediapb.LegStats
		defer func() { done(stats) }() // after a fault too: it is charged
		stats, err := r.b.media.CloseLeg(ctx, l.ID)
		r.b.totals.close(l.ID, stats)
		if err != nil {
			r.log.Warn("media did not close a leg", "leg_id", l.ID, "err", err)
			stats = nil
		}
	})
}

// complete puts the last figures into the record of an ended leg, and charges it.
func (b *Bridge) complete(record LegRecord, last *mediapb.LegStats) {
	if q := qualityOf(last); q != nil {
		record.Leg.Quality, record.Leg.Usage = q, usageOf(last)
		b.store.QueueLeg(record)
	}
	b.charge(record)
}

// setState moves a leg, and its member with it.
func (r *room) setState(now time.Time, l *leg, s LegState) {
	news := l.State != s
	l.State, l.Since = s, now.UTC()
	if l.agreed == nil {
		l.describeVideo()
	}
	r.b.traced.note(l.ID, r.owner, l.CallID) // one that came in had it from the start
	l.note(now, "state", string(s))
	if m := r.member(l.Member); m != nil && m.leg == l {
		m.State = InConference
		if l.ringsOrDials() && !l.takesOverLive() {
			m.State = MemberRings
		}
	}
	if news {
		r.report(l)
	}
	r.emitLeg(now, l, "leg.updated")
	r.b.store.QueueLeg(LegRecord{Leg: l.public(true), Number: l.party()})
}

func (r *room) emitLeg(now time.Time, l *leg, kind string) {
	r.dirty = true
	if l.Member == "" {
		return
	}
	r.emit(now, kind, l.Member, l.ID, l.public(false))
	if m := r.member(l.Member); m != nil && m.leg == l {
		r.emitMember(now, m, "member.updated")
	}
}

// pushLeg tells the engine what the leg is to be now.
func (r *room) pushLeg(l *leg) {
	if !l.opened || l.agreed == nil || l.dead {
		return
	}
	want := mediaLeg(l)
	if m := r.member(l.Member); m != nil {
		want.Name = m.shown()
		want.Muted = m.muted || m.Role == roleListener
		want.VideoMuted, want.Deaf = m.VideoMuted, m.Deaf
		want.Held = m.Held || l.held
	}
	r.work.setLeg(want, func(what *mediapb.Leg, err error) {
		r.post(func(now time.Time) {
			r.about = l
			r.mediaRefused(now, l, what, err)
		})
	})
}

// tellTime is how long it may take until somebody tells that the engine has died.
const tellTime = time.Second

// mediaRefused: a leg whose streams the engine does not take, what, goes on without a picture. Where
// that is not it, it cannot be heard: better to end it than to leave somebody in silence.
func (r *room) mediaRefused(now time.Time, l *leg, what *mediapb.Leg, err error) {
	if status.Code(err) == codes.Unavailable && l.ConnectedAt != nil && l.why == "" {
		// The engine has died, most likely: MediaDown will say so, and have him called back.
		time.AfterFunc(tellTime, fault.Safely(r.log, "leg", func() {
			r.post(func(now time.Time) {
				if r.about = l; r.legs[l.ID] == l && l.why == "" {
					r.drop(now, l, "media_lost")
				}
			})
		}))
		return
	}
	r.log.Warn("media refused a leg", "leg_id", l.ID, "err", err)
	l.note(now, "media", "refused by the engine: "+status.Convert(err).Message())
	if status.Code(err) == codes.InvalidArgument && what.Video != nil && l.agreed != nil && l.agreed.Video == nil {
		return // it was on its way as another refusal took the picture away
	}
	if status.Code(err) == codes.InvalidArgument && l.agreed != nil && l.agreed.Video != nil && l.agreed.Audio != nil {
		res := *l.agreed
		res.Video, res.WhyNoVideo = nil, sdp.VideoCodecMismatch
		r.agree(now, l, res)
		r.pushLeg(l)
		r.tellMismatch(now, l)
		r.closeVideo(l)
		r.emitLeg(now, l, "leg.updated")
		return
	}
	if l.ConnectedAt != nil {
		r.drop(now, l, "media_lost")
		return
	}
	r.hang(now, l, "media_incompatible", `SIP;cause=488;text="Not Acceptable Here"`,
		&verdict{outcome: MediaIncompatible, text: Text{Zh: "对方的媒体无法使用", En: "The phone's media cannot be used."}})
}

// drop ends a leg whose media is lost.
func (r *room) drop(now time.Time, l *leg, why string) {
	v := &verdict{outcome: Dropped, text: Text{Zh: "媒体服务中断，通话掉线", En: "The media service failed; the call was dropped."}}
	reason := `SIP;cause=500;text="media lost"`
	if why == "media_timeout" {
		v.text = Text{Zh: "长时间收不到对方的声音，通话掉线", En: "Nothing was received from the phone for too long; the call was dropped."}
		reason = `RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"`
	}
	if l.ConnectedAt == nil {
		v.outcome, v.text = NetworkError, Text{Zh: "媒体服务中断，呼叫失败", En: "The media service failed; the call was ended."}
	}
	r.hang(now, l, why, reason, v)
}

func sortedLegs(legs map[string]*leg) []*leg {
	out := make([]*leg, 0, len(legs))
	for _, l := range legs {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *leg) int { return strings.Compare(a.ID, b.ID) })
	return out
}
