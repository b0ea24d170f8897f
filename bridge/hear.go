package bridge

import (
	"context"
	"math"
	"time"

	"sparkle/media/mediapb"
	"sparkle/sip"
)

// talker is who is heard in a talkers event.
type talker struct {
	Member  string  `json:"member_id"`
	Talking bool    `json:"talking"`
	DBov    float64 `json:"dbov"`
}

// talkersEvery is the shortest time between two talkers events of a conference.
const talkersEvery = 200 * time.Millisecond

// onMedia is one event of the engine about this conference.
func (r *room) onMedia(now time.Time, e *mediapb.Event) {
	if lv := e.GetLevels(); lv != nil {
		r.onLevels(now, lv)
		return
	}
	if vp := e.GetVideoProcess(); vp != nil {
		r.b.counts.videoProcess(vp.State)
		r.log.Info("video process", "state", vp.State, "pid", vp.Pid, "why", vp.Why)
		return
	}
	l := r.legs[e.Leg]
	if l == nil {
		return
	}
	r.about = l
	switch w := e.What.(type) {
	case *mediapb.Event_MediaStarted:
		l.note(now, "media", w.MediaStarted.Kind+" flows")
		l.heard = l.heard || w.MediaStarted.Kind == "audio"
	case *mediapb.Event_MediaResumed:
		l.note(now, "media", w.MediaResumed.Kind+" flows again")
	case *mediapb.Event_MediaStalled:
		l.note(now, "media", w.MediaStalled.Kind+" stalled")
		if w.MediaStalled.LegDead && l.ConnectedAt != nil {
			r.drop(now, l, "media_timeout")
		}
	case *mediapb.Event_MediaNote:
		l.note(now, "media", w.MediaNote.What)
	case *mediapb.Event_Digit:
		l.note(now, "dtmf", "a key") // which one may be a secret
		for _, key := range w.Digit.Digit {
			r.onKey(now, l, key)
		}
	case *mediapb.Event_PlayEnded:
		r.played(now, l, w.PlayEnded)
	case *mediapb.Event_VideoState:
		r.onVideoState(now, l, w.VideoState)
	}
	r.dirty = true
}

// onLevels coalesces to talkersEvery; the newest levels win.
func (r *room) onLevels(now time.Time, lv *mediapb.Levels) {
	r.levels = r.levels[:0]
	for _, x := range lv.Levels {
		if l := r.legs[x.Leg]; l != nil {
			r.levels = append(r.levels, talker{Member: l.Member, Talking: x.Talking, DBov: math.Round(float64(x.Dbov))})
		}
	}
	if now.Sub(r.talkedAt) < talkersEvery {
		return
	}
	r.talkedAt = now
	r.events = append(r.events, routed{owner: r.owner, Event: Event{Time: now.UTC(), Type: "talkers", Conference: r.id,
		Data: encode(map[string]any{"talkers": r.levels})}})
}

// readQuality reads the engine's figures once and hands each conference its legs'.
func (b *Bridge) readQuality(ctx context.Context) {
	if b.mediaDown.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mediaTimeout)
	defer cancel()
	s, err := b.media.Snapshot(ctx)
	if err != nil {
		b.log.Debug("no figures from the engine", "err", err)
		return
	}
	b.stats.Store(s)
	b.totals.update(s.Legs)
	byRoom := map[*room]map[string]*mediapb.LegStats{}
	for _, l := range s.Legs {
		v, ok := b.legRoom.Load(l.Id)
		if !ok || l.Audio == nil {
			continue
		}
		r := v.(*room)
		if byRoom[r] == nil {
			byRoom[r] = map[string]*mediapb.LegStats{}
		}
		byRoom[r][l.Id] = l
	}
	for r, legs := range byRoom {
		r.post(func(now time.Time) { r.onQuality(now, legs) })
	}
}

// onQuality keeps the newest figures; only what a person would notice is an event, or
// counters alone would fill the stream.
func (r *room) onQuality(now time.Time, legs map[string]*mediapb.LegStats) {
	for _, l := range sortedLegs(r.legs) {
		q := qualityOf(legs[l.ID])
		if u := usageOf(legs[l.ID]); u != nil {
			l.usage = u
		}
		if q == nil || l.ConnectedAt == nil {
			continue
		}
		old := l.Quality
		l.Quality = q
		r.dirty = true
		if old == nil || noticeable(*old, *q) {
			r.emitLeg(now, l, "leg.updated")
		}
	}
}

func noticeable(a, b Quality) bool {
	far := func(x, y, d float64) bool { return math.Abs(x-y) >= d }
	return far(a.RxLoss, b.RxLoss, 0.01) || far(a.TxLoss, b.TxLoss, 0.01) || far(a.RxJitterMs, b.RxJitterMs, 10) ||
		far(a.RTTMs, b.RTTMs, 50) || far(a.MOS, b.MOS, 0.2)
}

// watchAttachments publishes what has changed since known.
func (b *Bridge) watchAttachments(ctx context.Context, now time.Time, known []sip.AttachmentState) []sip.AttachmentState {
	states := b.Attachments(ctx)
	old := map[string]sip.AttachmentState{}
	for _, a := range known {
		old[a.Name] = a
	}
	var events []routed
	for _, a := range states {
		was := old[a.Name]
		if was.State == a.State && was.Up == a.Up && was.LastError == a.LastError {
			continue
		}
		events = append(events, routed{Event: Event{Time: now.UTC(), Type: "attachment.updated", Data: encode(ViewAttachment(a))}})
		b.log.Info("attachment", "name", a.Name, "state", a.State, "up", a.Up, "err", a.LastError)
	}
	if len(events) > 0 {
		b.hub.publish(now, events)
	}
	return states
}
