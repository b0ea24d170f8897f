package bridge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sparkle/bridge/fault"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/ims"
)

// This file is when somebody is called again: an INVITE behind one that failed, in the same
// leg (by voice, in another form, by another attachment), and another leg for a call that was
// lost (the engine died, the network lost it).

// unreached says that a call ended before anybody but the attachment's own peers saw it, so
// that another attachment may do (IMS.md §6, "T"). Nobody is called twice: after any
// provisional response above 100 it is too late.
func unreached(e sip.Ended) bool {
	switch {
	case e.Connected || e.WasRinging || e.Progressed:
		return false
	case e.By == sip.ByRemote:
		return slices.Contains([]int{408, 500, 502, 503, 504}, e.Status)
	}
	return (e.Status == 0 || e.Status == 487) &&
		slices.Contains([]string{"no_response", "setup_timeout", "transport", "no_line", "overload", "attachment_down"}, e.Why)
}

// elsewhere places the call by the next attachment that is up, in the same leg; false: there
// is none that has not been tried. v is how it ended here.
func (r *room) elsewhere(now time.Time, l *leg, v verdict, why string) bool {
	at, p, none := r.b.attachment("", append(l.tried, l.Attachment)...)
	if none != nil {
		return false
	}
	r.supersede(now, l, v)
	why = l.Attachment + ": " + why + ", trying " + at.Name
	l.tried, l.Attachment = append(l.tried, l.Attachment), at.Name
	l.passive, l.otherForm, l.otherIP = false, false, false // what the one wanted the other need not
	ip := p.LocalIP
	p.LocalIP = l.profile.LocalIP
	l.profile = p
	r.anew(now, l, why)
	if ip == p.LocalIP {
		r.invite(now, l)
	} else { // its phones reach another address of ours
		r.moveTo(l, ip)
	}
	return true
}

// otherFamily places the call once more with media at our address of the other IP family, which
// the phone asks for by Warning 301 (IMS.md §3 row 9); false: there is none, or it was that one.
func (r *room) otherFamily(now time.Time, l *leg, v verdict, e sip.Ended) bool {
	ip := r.b.opt.OtherIP(l.profile.LocalIP)
	if ip == "" || l.otherIP {
		return false
	}
	l.otherIP = true
	r.refusedSo(now, l, v, e, "address family refused, trying the other")
	r.moveTo(l, ip)
	return true
}

// moveTo has a leg that is to be placed anew receive at another address of ours, and places it.
func (r *room) moveTo(l *leg, ip string) {
	r.closeLeg(l, func(*mediapb.LegStats) {})
	l.profile.LocalIP = ip
	r.openLeg(l)
}

// supersede charges an INVITE that failed and that another one of the leg is to follow: to the
// network they are two calls.
func (r *room) supersede(now time.Time, l *leg, v verdict) {
	if l.CallID == "" {
		return // none left
	}
	record := l.record()
	at := now.UTC()
	record.Leg.State, record.Leg.Outcome, record.Leg.Reason, record.Leg.EndedAt, record.Leg.Attempts = Ended, v.outcome, v.reason, &at, l.attempt
	record.Superseded = true
	r.b.charge(record)
}

// inviteAgain places the call once more, in the same leg.
func (r *room) inviteAgain(now time.Time, l *leg, v verdict, e sip.Ended, why string) {
	r.refusedSo(now, l, v, e, why)
	r.invite(now, l)
}

// refusedSo makes a leg one that is to be placed anew. What the network said of it this time stays
// in the timeline.
func (r *room) refusedSo(now time.Time, l *leg, v verdict, e sip.Ended, why string) {
	r.supersede(now, l, v)
	said := slices.DeleteFunc([]string{e.Phrase, e.ReasonText, e.Warning}, func(s string) bool { return s == "" })
	r.anew(now, l, fmt.Sprintf("%s: %d %s", why, e.Status, MaskNumbers(strings.Join(said, "; "))))
}

// anew makes a leg one that has not been placed yet.
func (r *room) anew(now time.Time, l *leg, why string) {
	l.local, l.agreed, l.call, l.SIP, l.over, l.offer = nil, nil, nil, nil, false, 0
	l.CallID, l.ICID, l.Charging, l.access, l.Queue = "", "", nil, "", nil
	l.describeVideo()
	if !l.wantsPic {
		r.closeVideo(l)
	}
	l.note(now, "state", why)
	r.setState(now, l, Dialing)
}

// mediaLost: the engine is gone and every leg's streams with it. Who was in is called
// back when it is up again.
func (r *room) mediaLost(now time.Time) {
	r.mediaDown, r.mediaOpen = true, false
	for _, l := range sortedLegs(r.legs) {
		if m := r.member(l.Member); m != nil && m.leg == l && l.ConnectedAt != nil && (l.why == "" || l.why == "media_lost") && !r.closing {
			m.recall, m.lostBy, m.rejoins = l.askedFor(), l.Attachment, time.Time{}
		}
		l.opened = false // nothing to close
		r.b.freePorts(l)
		r.b.totals.close(l.ID, nil)
		r.drop(now, l, "media_lost")
	}
}

// mediaBack calls back, once, those who lost their call.
func (r *room) mediaBack(now time.Time) {
	r.mediaDown = false
	for _, m := range r.members {
		r.recall(now, m)
	}
}

// recall calls a member back if that is owed and possible now.
func (r *room) recall(now time.Time, m *member) {
	if m == nil || m.recall == "" || m.leg != nil || r.mediaDown || r.closing || now.Before(m.rejoins) {
		return
	}
	how, again := manner{m.recall == "video", r.b.opt.RingTimeout, m.confirm}, !m.rejoins.IsZero()
	m.recall = ""
	at, p, bad := r.b.attachment(m.lostBy)
	if bad != nil {
		r.log.Warn("a member cannot be called back", "member_id", m.ID, "err", bad)
		return
	}
	r.startLeg(now, m, how, at, p)
	if m.leg != nil && again {
		m.leg.again = true
		m.leg.note(now, "state", "called again: the call before was lost")
	}
}

// askedFor is the media to call somebody back with: as he was called first.
func (l *leg) askedFor() string {
	if l.wantsPic || strings.HasPrefix(l.fallback, "rejected") {
		return "video"
	}
	return "audio"
}

// rejoinAfter leaves a phone time to find its network again, and its user to call by himself.
const rejoinAfter = 5 * time.Second

// rejoin has whoever was called and lost his call (IMS.md §6) called once more, where the
// conference is so. That call is not followed by another.
func (r *room) rejoin(now time.Time, m *member, l *leg, v verdict) {
	if !r.conf.Rejoin || m == nil || m.leg != nil || m.recall != "" || l.visitor != nil || l.again || r.closing ||
		v.outcome != Dropped || v.hint().How != ims.RetryLater {
		return
	}
	m.recall, m.lostBy, m.rejoins = l.askedFor(), l.Attachment, now.Add(rejoinAfter)
	time.AfterFunc(rejoinAfter, fault.Safely(r.log, "rejoin", func() {
		r.post(func(now time.Time) { r.recall(now, r.member(m.ID)) })
	}))
}
