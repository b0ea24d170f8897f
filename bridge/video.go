package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// This file is what becomes of a leg's media once it is answered: the phone's offers and
// ours, and video that comes and goes (IMS.md §3). Audio goes on whatever happens to it.
//
//	video: none ── offered ─┬─ refused ──┐
//	         ^              └─ negotiated ⇄ flowing ⇄ stalled
//	         └── removed <───────┴────────────┴─────────┘   and from any to offered again

// VideoState is how far a leg's video has come.
type VideoState string

const (
	VideoNone       VideoState = "none"
	VideoOffered    VideoState = "offered"
	VideoRefused    VideoState = "refused"
	VideoNegotiated VideoState = "negotiated" // and nothing of it seen yet
	VideoFlowing    VideoState = "flowing"    // the phone's picture is seen
	VideoStalled    VideoState = "stalled"    // its picture does not come any more
	VideoRemoved    VideoState = "removed"
)

// MarshalJSON writes none for legs that were recorded before there was such a state.
func (s VideoState) MarshalJSON() ([]byte, error) {
	if s == "" {
		s = VideoNone
	}
	return json.Marshal(string(s))
}

// Reasons beside those of package sdp (Media.VideoReason).
const (
	reasonRemoved    = "removed"             // by the phone in the call
	reasonVoiceOnly  = "voice_only"          // by the organiser in the call
	reasonCameraOff  = "camera_off"          // it wants to see and does not send
	reasonNotShown   = "not_shown"           // it sends and does not want to see
	reasonSilent     = "silent"              // nothing comes
	reasonUndecoded  = "undecodable"         // what comes has no picture in it
	reasonAudioRoom  = "conference_is_audio" // the phone offered it, here it is not wanted
	reasonNoCapacity = "no_capacity"         // the phone offered it, there are no ports; or no CPU time for it
)

// askEvery is the least time between two questions to a person whether to turn the
// camera on.
const askEvery = 60 * time.Second

// MediaChange is the newest change of a leg's media that the organiser asked for.
type MediaChange struct {
	To    string    `json:"to"`    // video | audio
	State string    `json:"state"` // asking | done | refused
	At    time.Time `json:"at"`    // of this state
	// Status is the SIP status that refused it; 200 when the phone took the rest and not
	// the video. 0: no final answer.
	Status int `json:"status,omitempty"`
}

// proposal is an offer of ours within the call that has not been answered.
type proposal struct {
	session *sdp.Session
	video   bool
	asked   bool // by the organiser: Change tells what becomes of it
	tries   int
	offer   uint64 // ID of the Offer that it replies to; 0: none
}

// has says whether this, if it is out, offers video.
func (p *proposal) has() bool { return p != nil && p.video }

// mayHaveVideo says why a phone that offers video in this conference does not get it; "":
// it does.
func (r *room) mayHaveVideo() string {
	switch {
	case r.conf.Type != VideoConference:
		return reasonAudioRoom
	case r.b.opt.NoVideo:
		return reasonNoCapacity
	}
	return ""
}

// given is an answer of ours to the phone's offer, of which we do not know yet that it went out.
type given struct {
	offer   uint64 // its ID
	session *sdp.Session
	result  sdp.Result
}

// onOffer answers a re-INVITE or UPDATE of the peer, within its two seconds because
// nobody is asked. What cannot be used is refused, and the session stays as it was.
func (r *room) onOffer(now time.Time, l *leg, e sip.Offer) {
	if l.call == nil || l.why != "" {
		return
	}
	l.offer = e.ID
	if e.SDP == nil {
		r.withVideo(now, l, l.hadVideo && !l.voiceOnly && r.mayHaveVideo() == "", e.ID, func(now time.Time, video bool) {
			r.offerAsAsked(now, l, e.ID, video)
		})
		return
	}
	offer, err := r.b.parse(e.SDP)
	if err != nil {
		r.refuseOffer(now, l, e.ID, err)
		return
	}
	why := sdp.VideoNotOffered
	if offer.Video != nil && offer.Video.Port != 0 {
		why = r.mayHaveVideo()
	}
	r.withVideo(now, l, why == "", e.ID, func(now time.Time, video bool) {
		if e.Early {
			r.answerEarly(now, l, e, offer, video)
			return
		}
		if why == "" && !video {
			why = reasonNoCapacity
		}
		r.answerPeer(now, l, e.ID, offer, video, why)
	})
}

// withVideo opens a leg's video ports where they are wanted and not there, and goes on:
// video says whether they are there. Nothing is done for a leg that is over by then, nor
// for an offer of the phone (0: it is for none) that does not wait for us any more.
func (r *room) withVideo(now time.Time, l *leg, want bool, offer uint64, then func(now time.Time, video bool)) {
	if !want || l.video != 0 || !l.opened {
		then(now, want && l.video != 0)
		return
	}
	call := l.call
	r.work.do(func(ctx context.Context) {
		reply, err := r.b.media.OpenVideo(ctx, l.ID)
		r.post(func(now time.Time) {
			switch {
			case l.dead || l.why != "" || l.call != call:
				return
			case err != nil:
				r.log.Warn("no video ports for a leg", "leg_id", l.ID, "err", err)
			case l.video == 0:
				l.video, l.sprop = int(reply.VideoPort), reply.Sprop
				r.b.holdPorts(l)
			}
			switch {
			case offer == 0 || offer == l.offer:
				then(now, l.video != 0)
			case l.offer == 0:
				r.closeVideo(l)
			} // or they are for the offer that came after it
		})
	})
}

// closeVideo gives video ports back that nothing negotiated needs.
func (r *room) closeVideo(l *leg) {
	if l.call != nil && l.visitor == nil && !l.bound {
		return // as long as another fork may take what the INVITE offers
	}
	if l.video == 0 || l.agreed != nil && l.agreed.Video != nil || l.pending.has() || l.late.has() || l.given != nil && l.given.result.Video != nil {
		return
	}
	r.b.freePorts(l)
	l.video = 0
	if !l.opened {
		return
	}
	r.b.holdPorts(l)
	r.work.do(func(ctx context.Context) {
		if err := r.b.media.CloseVideo(ctx, l.ID); err != nil {
			r.log.Warn("media did not close a leg's video", "leg_id", l.ID, "err", err)
		}
	})
}

// offerAsAsked answers a re-INVITE without description: with all we have, video too if
// there ever was any. The phone's answer comes with the ACK.
func (r *room) offerAsAsked(now time.Time, l *leg, id uint64, video bool) {
	offer, s, err := l.draftOffer(now, video)
	if err != nil {
		l.call.Refuse(id, 488, 0)
		return
	}
	l.late = &proposal{session: s, video: video, offer: id}
	l.call.Reply(id, offer, 0)
	l.note(now, "media", "the phone asked for an offer")
}

// answerEarly answers an UPDATE before the final answer to our INVITE or re-INVITE. It
// changes nothing here: what stands comes with that answer.
func (r *room) answerEarly(now time.Time, l *leg, e sip.Offer, offer *sdp.Session, video bool) {
	before := l.local
	if l.pending != nil {
		before = l.pending.session
	}
	var err error
	if e.Local != nil {
		before, err = sdp.Parse(e.Local)
	}
	var answer []byte
	if err == nil {
		answer, _, _, err = l.draftAnswer(now, before, offer, video)
	}
	if err != nil {
		r.refuseOffer(now, l, e.ID, err)
		return
	}
	l.note(now, "media", "an offer before the answer")
	l.call.Reply(e.ID, answer, 0)
}

func (r *room) refuseOffer(now time.Time, l *leg, id uint64, err error) {
	_, warning := sdp.StatusOf(err)
	l.note(now, "media", "offer refused: "+err.Error())
	l.call.Refuse(id, 488, warning)
	r.closeVideo(l)
}

// answerPeer answers an offer; why is the reason for no video where there will be none. Until
// the UA says that the answer has gone out nothing is changed: the phone may take its offer back.
func (r *room) answerPeer(now time.Time, l *leg, id uint64, offer *sdp.Session, video bool, why string) {
	answer, own, res, err := l.draftAnswer(now, l.local, offer, video)
	if err != nil {
		r.refuseOffer(now, l, id, err)
		return
	}
	if res.Video == nil && res.WhyNoVideo != sdp.VideoCodecMismatch {
		res.WhyNoVideo = why
		if why == sdp.VideoNotOffered { // it was refused before, or its user pressed "voice only"
			res.WhyNoVideo = reasonRemoved
			if w := l.Media.WhyNoVideo; w != nil && l.agreed != nil && l.agreed.Video == nil {
				res.WhyNoVideo = *w
			}
		}
	}
	l.given = &given{id, own, res}
	l.call.Reply(id, answer, 0)
}

// onReplied is what became of the answer to an offer of the phone.
func (r *room) onReplied(now time.Time, l *leg, e sip.Replied) {
	if l.offer == e.Offer {
		l.offer = 0
	}
	g := l.given
	if g == nil || g.offer != e.Offer || l.why != "" {
		return
	}
	l.given = nil
	if e.Used {
		r.gave(now, l, g)
	} else {
		l.note(now, "media", "the phone's offer came to nothing")
		r.closeVideo(l)
	}
	if l.door != nil && l.door.moving && l.opened && !l.door.offered {
		r.moveIn(now, l)
	}
	r.asWished(now, l)
}

// gave takes over what an answer of ours that went out has agreed to.
func (r *room) gave(now time.Time, l *leg, g *given) {
	before := l.agreed
	l.local, l.fallback = g.session, ""
	l.voiceOnly = l.voiceOnly && g.result.Video == nil // its user has turned the camera on himself
	r.agree(now, l, g.result)
	if handedOver(before, g.result) {
		l.CSAccess = true
		l.note(now, "media", "handed over to a circuit-switched network")
	}
	r.pushLeg(l)
	r.closeVideo(l)
	r.holdState(now, l)
}

// handedOver recognises SRVCC: the network moves the call to its circuit-switched side,
// where the media come from another address, in a narrow-band codec and without video
// (IMS.md §3 row 16).
func handedOver(before *sdp.Result, now sdp.Result) bool {
	return before != nil && before.Audio != nil && now.Audio != nil && now.Video == nil && !now.Held &&
		now.Audio.Addr != before.Audio.Addr && now.Audio.Codec != before.Audio.Codec && now.Audio.Codec != "AMR-WB"
}

// brokenOut recognises a call that ends in a circuit-switched network (row 14): the codec is
// narrow-band, there is no video, and the far end says that it is a gateway; or it refused
// the video that we offered, and its Contact is no IMS phone's.
func (l *leg) brokenOut(contact, server string) bool {
	a := l.agreed.Audio
	if a == nil || a.Codec == "AMR-WB" || l.agreed.Video != nil {
		return false
	}
	who := strings.ToLower(contact + " " + server)
	if strings.Contains(who, "mgcf") || strings.Contains(who, "mgw") {
		return true
	}
	why := l.Media.WhyNoVideo
	return l.visitor == nil && why != nil && *why != sdp.VideoNotOffered && contact != "" && !strings.Contains(who, "g.3gpp.icsi-ref") && !strings.Contains(who, ";video")
}

// describeVideo works out Media's words on video from what was agreed and what is seen.
func (l *leg) describeVideo() {
	m := &l.Media
	state, reason := VideoNone, ""
	switch {
	case l.agreed == nil && l.wantsPic:
		state = VideoOffered
	case l.agreed == nil:
	case l.agreed.Video == nil:
		reason = *m.WhyNoVideo
		switch reason {
		case sdp.VideoNotOffered, reasonAudioRoom, reasonNoCapacity:
		case reasonRemoved, reasonVoiceOnly:
			state = VideoRemoved
		default:
			state = VideoRefused
		}
	default:
		state = VideoNegotiated
		v := l.agreed.Video
		switch {
		case m.WhyNoVideo != nil:
			reason = *m.WhyNoVideo
		case l.seen != "":
			state = l.seen
			reason = l.seenWhy
		case !v.Recv:
			reason = reasonCameraOff
		case !v.Send:
			reason = reasonNotShown
		}
	}
	if (l.pending.has() || l.late.has()) && l.agreed != nil && l.agreed.Video == nil {
		state = VideoOffered
	}
	m.VideoState, m.VideoReason = state, nil
	if reason != "" {
		m.VideoReason = &reason
	}
}

// onVideoState hears the engine: the phone's picture comes, stays away, cannot be read.
// The leg goes on in any case; its tile shows what there is.
func (r *room) onVideoState(now time.Time, l *leg, v *mediapb.VideoState) {
	l.note(now, "media", "video "+v.State)
	switch v.State {
	case "flowing":
		l.seen, l.seenWhy = VideoFlowing, ""
	case "stalled":
		l.seen, l.seenWhy = VideoStalled, reasonSilent
	case "undecodable":
		l.seen, l.seenWhy = VideoStalled, reasonUndecoded
	case "overload":
		l.seen, l.seenWhy = VideoStalled, reasonNoCapacity
	default:
		return
	}
	if l.agreed != nil && l.agreed.Video != nil {
		l.describeVideo()
		r.emitLeg(now, l, "leg.updated")
	}
}

// SetLegMedia asks a member's phone for video, or goes on by voice only. The answer is the
// leg as it is now; what becomes of it comes as events. Refusal never ends the leg.
func (b *Bridge) SetLegMedia(_ context.Context, a Actor, conference, member, media string) (out Leg, err error) {
	defer func() { b.audit(a, "member.media", member, err) }()
	r, _, err := b.open(a, conference)
	if err != nil {
		return Leg{}, err
	}
	if media != "video" && media != "audio" {
		return Leg{}, &Error{Kind: Invalid, Code: "media_invalid", Detail: `media is "video" or "audio"`, Field: "/media"}
	}
	var bad *Error
	err = r.do(func(now time.Time) {
		m := r.member(member)
		if m == nil {
			bad = errNoMember()
			return
		}
		if bad = r.setMedia(now, m.leg, media); bad == nil {
			out = m.leg.public(false)
		}
	})
	if err == nil && bad != nil {
		err = bad
	}
	return out, err
}

func (r *room) setMedia(now time.Time, l *leg, media string) *Error {
	conflict := func(code, detail string) *Error { return &Error{Kind: Conflict, Code: code, Detail: detail} }
	if l == nil || l.ConnectedAt == nil || l.why != "" || l.door != nil {
		return conflict("not_connected", "the member is not in the conference")
	}
	has := l.agreed != nil && l.agreed.Video != nil && l.Media.WhyNoVideo == nil
	asking := l.pending.has() && l.pending.asked
	if media == "audio" {
		l.voiceOnly = true
		if asking {
			l.then = "audio" // as soon as the phone has made up its mind
		} else if l.agreed != nil && l.agreed.Video != nil {
			r.toVoice(now, l)
		}
		return nil
	}
	if has {
		return nil
	}
	switch {
	case r.mayHaveVideo() == reasonAudioRoom:
		return conflict("conference_is_audio", "this is an audio conference")
	case r.mayHaveVideo() != "":
		return &Error{Kind: Unavailable, Code: "no_video", Detail: "this server has no video"}
	case l.CSAccess:
		return conflict("cs_access", "the phone is reached over a circuit-switched network, which carries no video")
	case l.held:
		return conflict("leg_held", "the phone has put the call on hold")
	case r.mediaDown:
		return &Error{Kind: Unavailable, Code: "media_down", Detail: "the media service is restarting"}
	}
	wait := askEvery - now.Sub(l.askedAt)
	if asking {
		wait = max(wait, 10*time.Second) // a user may think for a little more than a minute
	}
	if wait > 0 && !l.askedAt.IsZero() {
		return &Error{Kind: TooSoon, Code: "upgrade_too_soon", Detail: "the phone has been asked within the last minute", Retry: wait}
	}
	l.askedAt, l.voiceOnly, l.then = now, false, ""
	l.Change = &MediaChange{To: "video", State: "asking", At: now.UTC()}
	l.note(now, "media", "asks for video")
	r.emitLeg(now, l, "leg.updated")
	r.toVideo(now, l)
	return nil
}

// toVideo asks the phone's user for video, with ports for it.
func (r *room) toVideo(now time.Time, l *leg) {
	r.withVideo(now, l, true, 0, func(now time.Time, video bool) {
		if !video {
			r.changed(now, l, false, 0)
			r.emitLeg(now, l, "leg.updated")
			return
		}
		r.propose(now, l, &proposal{video: true, asked: true})
	})
}

// toVoice tells the phone at once: going on by voice only needs nobody's consent.
func (r *room) toVoice(now time.Time, l *leg) {
	l.Change = &MediaChange{To: "audio", State: "asking", At: now.UTC()}
	r.propose(now, l, &proposal{asked: true})
}

// propose offers what p says in a re-INVITE. One is out at a time.
func (r *room) propose(now time.Time, l *leg, p *proposal) {
	if l.pending != nil || l.late != nil || l.given != nil { // it is answered soon, or given up by the UA
		l.later(p)
		return
	}
	offer, s, err := l.draftOffer(now, p.video)
	if err != nil {
		r.log.Warn("no offer within a call", "leg_id", l.ID, "err", err)
		return
	}
	p.session = s
	p.tries++
	l.pending = p
	l.describeVideo()
	l.call.Offer(offer, "")
	r.emitLeg(now, l, "leg.updated")
}

// later remembers what the organiser wants once what is out has been answered.
func (l *leg) later(p *proposal) {
	if p.asked {
		l.then = "audio"
		if p.video {
			l.then = "video"
		}
	}
}

// maxProposals bounds how often an offer is made anew because the phone's came between.
const maxProposals = 3

// onReoffered is the end of an offer of ours that was out on its own account.
func (r *room) onReoffered(now time.Time, l *leg, e sip.Reoffered) {
	p := l.pending
	l.pending = nil
	if e.SDP == nil && e.Status == 491 && l.late != nil { // the phone has asked for an offer meanwhile
		l.local = l.local.Following(p.session)
		if l.then == "" {
			l.later(p)
		}
		return
	}
	r.answered(now, l, p, e)
}

// onRefreshed takes what the phone, or a border controller before it, has answered to a refresh
// of the UA's. Whatever is out of ours still waits for its own answer; so does a leg on its way
// from the lobby, which has agreed on nothing here yet.
func (r *room) onRefreshed(now time.Time, l *leg, e sip.Refreshed) {
	if l.agreed == nil || l.why != "" {
		return
	}
	_, res, err := r.b.settled(l.local, e.SDP, e.Local, false)
	if err != nil {
		l.note(now, "media", "answer to a refresh not usable, media stay: "+err.Error())
		r.log.Warn("an answer to a refresh is not usable", "leg_id", l.ID, "err", err)
		return
	}
	if res.Video == nil && res.WhyNoVideo != sdp.VideoCodecMismatch {
		res.WhyNoVideo = reasonRemoved
		if w := l.Media.WhyNoVideo; w != nil && l.agreed.Video == nil {
			res.WhyNoVideo = *w
		}
	}
	r.agree(now, l, res)
	r.pushLeg(l)
	r.tellMismatch(now, l)
	r.closeVideo(l)
	r.holdState(now, l)
}

// onLateAnswer is the answer in an ACK to the offer that the phone had asked for.
func (r *room) onLateAnswer(now time.Time, l *leg, e sip.Reoffered) {
	if l.offer == e.Offer {
		l.offer = 0
	}
	p := l.late
	if p == nil || p.offer != e.Offer {
		return
	}
	l.late = nil
	r.answered(now, l, p, e)
	if l.door != nil && l.door.moving && l.opened {
		r.moveIn(now, l)
	}
}

// answered is the end of p. A refusal leaves everything as it was.
func (r *room) answered(now time.Time, l *leg, p *proposal, e sip.Reoffered) {
	res, err := sdp.Result{}, error(nil)
	if e.SDP != nil {
		p.session, res, err = r.b.settled(p.session, e.SDP, e.Local, e.Offered)
	}
	switch {
	case e.SDP == nil && e.Status == 491 && p.tries < maxProposals && l.why == "":
		l.local = l.local.Following(p.session)
		r.propose(now, l, p)
		return
	case e.SDP == nil:
		l.local = l.local.Following(p.session) // its version was seen
		l.note(now, "media", fmt.Sprintf("our offer was refused: %d", e.Status))
		r.closeVideo(l)
		l.describeVideo()
	case err != nil: // the session of before goes on
		l.local = l.local.Following(p.session)
		l.note(now, "media", "answer not usable, media stay: "+err.Error())
		r.log.Warn("an answer within a call is not usable", "leg_id", l.ID, "err", err)
		r.closeVideo(l)
		l.describeVideo()
	default:
		l.local, l.fallback = p.session, ""
		if res.Video == nil && !p.video {
			res.WhyNoVideo = reasonVoiceOnly
			if w := l.Media.WhyNoVideo; w != nil && !p.asked {
				res.WhyNoVideo = *w
			}
		}
		r.agree(now, l, res)
		r.pushLeg(l)
		r.tellMismatch(now, l)
		r.closeVideo(l)
	}
	if p.asked {
		r.changed(now, l, err == nil && e.SDP != nil && p.video == (res.Video != nil), e.Status)
	}
	r.holdState(now, l)
	r.asWished(now, l)
}

// asWished does what the organiser has asked for meanwhile, once nothing is out any more.
func (r *room) asWished(now time.Time, l *leg) {
	if l.pending != nil || l.late != nil || l.given != nil {
		return
	}
	next := l.then
	l.then = ""
	switch {
	case l.why != "" || l.agreed == nil || next == "":
	case l.Change != nil && l.Change.State == "asking" && l.Change.To == next && (next == "video") == (l.agreed.Video != nil):
		r.changed(now, l, true, 0) // it came to that by itself
		r.emitLeg(now, l, "leg.updated")
	case next == "audio" && l.agreed.Video != nil:
		r.toVoice(now, l)
	case next == "video" && l.agreed.Video == nil:
		r.toVideo(now, l)
	}
}

// changed notes what became of the organiser's wish; the caller tells.
func (r *room) changed(now time.Time, l *leg, done bool, status int) {
	if l.Change == nil {
		return
	}
	c := *l.Change // others hold the one before
	c.State, c.At, c.Status = "refused", now.UTC(), status
	if done {
		c.State, c.Status = "done", 0
	}
	l.Change = &c
	l.note(now, "media", c.To+" "+c.State)
	r.dirty = true
}

// declinedVideo says whether a call's end is about video as its user wants none: a policy may
// then try by voice (IMS.md §3 row 11).
func declinedVideo(e sip.Ended) bool {
	if e.By != sip.ByRemote || e.Connected {
		return false
	}
	if e.Status == 600 {
		return true
	}
	text := strings.ToLower(e.Phrase + " " + e.ReasonText + " " + e.Warning)
	return slices.Contains([]int{480, 486, 603}, e.Status) && strings.Contains(text, "video")
}
