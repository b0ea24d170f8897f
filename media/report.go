package media

import (
	"math"
	"slices"
	"strings"
	"time"

	"sparkle/media/mediapb"
)

// reportTime is how often levels are looked at: at most five events a second.
const reportTime = 200 * time.Millisecond

// report turns what the workers note and publish into events, off their threads.
func (e *Engine) report() {
	t := time.NewTicker(reportTime)
	defer t.Stop()
	for {
		select {
		case n := <-e.notes:
			e.tell(n)
		case <-t.C:
			e.look(e.clock())
		case <-e.stop:
			return
		}
	}
}

// wall is an instant of the engine's clock in Unix nanoseconds.
func (e *Engine) wall(at int64) int64 { return time.Now().UnixNano() - (e.clock() - at) }

func (e *Engine) tell(n note) {
	ev := &mediapb.Event{At: e.wall(n.at), Conference: n.leg.room.id, Leg: n.leg.id}
	switch n.what {
	case noteStarted:
		ev.What = &mediapb.Event_MediaStarted{MediaStarted: &mediapb.MediaStarted{Kind: "audio"}}
	case noteDigit:
		ev.What = &mediapb.Event_Digit{Digit: &mediapb.Digit{Digit: string(rune(n.digit)), DurationMs: n.ms}}
	case noteMispacked:
		ev.What = &mediapb.Event_MediaNote{MediaNote: &mediapb.MediaNote{What: "amr_format_mismatch"}}
	case notePlayEnded:
		ev.What = &mediapb.Event_PlayEnded{PlayEnded: &mediapb.PlayEnded{Id: n.id, Cut: n.cut}}
	}
	e.hub.publish(ev)
}

// look finds what changed since the last look: levels, who talks, who fell silent.
func (e *Engine) look(now int64) {
	e.mu.Lock()
	byRoom := make(map[*roomEntry][]*legEntry, len(e.rooms))
	for _, re := range e.rooms {
		byRoom[re] = nil
	}
	for _, le := range e.legs {
		if le.leg.Load() != nil {
			byRoom[le.re] = append(byRoom[le.re], le)
		}
	}
	e.mu.Unlock()
	for re, legs := range byRoom {
		slices.SortFunc(legs, func(a, b *legEntry) int { return strings.Compare(a.id, b.id) })
		e.lookAtLevels(re, legs, now)
		for _, le := range legs {
			e.lookForLife(le, now)
			e.lookAtLag(le)
		}
	}
}

func (e *Engine) lookAtLevels(re *roomEntry, legs []*legEntry, now int64) {
	var levels []*mediapb.Level
	var talking []string
	for _, le := range legs {
		l := le.leg.Load()
		talks, dbov := l.talking.Load(), float32(l.level.Load())/10
		if talks {
			talking = append(talking, le.id)
		}
		if talks != le.lastTalk || talks && math.Abs(float64(dbov-le.lastDBov)) >= 1 {
			le.lastTalk, le.lastDBov = talks, dbov
			levels = append(levels, &mediapb.Level{Leg: le.id, Talking: talks, Dbov: dbov})
		}
	}
	if len(levels) > 0 {
		e.hub.publish(&mediapb.Event{At: e.wall(now), Conference: re.id,
			What: &mediapb.Event_Levels{Levels: &mediapb.Levels{Levels: levels}}})
	}
	if !slices.Equal(talking, re.talking) {
		re.talking = talking
		if e.pictures != nil {
			e.pictures.Talking(re.id, talking)
		}
	}
}

// lagStep is the change of a leg's lag that its pictures are told.
const lagStep = 5 * time.Millisecond

// lookAtLag tells a leg's pictures when its sound is heard.
func (e *Engine) lookAtLag(le *legEntry) {
	if e.pictures == nil {
		return
	}
	lag := time.Duration(le.leg.Load().lag.Load())
	if lag != 0 {
		lag += time.Duration(e.wall(0))
	}
	if (lag == 0) != (le.lag == 0) || (lag-le.lag).Abs() >= lagStep {
		le.lag = lag
		e.pictures.Heard(le.id, lag)
	}
}

// watch is what a leg has to give a sign of life by (IMS.md §5.4).
type watch uint8

const (
	watchNothing watch = iota // it may say nothing: the session timer decides
	watchAny                  // RTP or RTCP, on any stream
	watchReports              // on hold: RTCP, if it is a phone that sends any
)

// watch is what may be expected of a leg with this plan, by its audio or, where it has none,
// by its video v. A leg that the organiser holds goes on sending; the phone that holds us does
// not.
func (p *plan) watch(v *mediapb.VideoStream) watch {
	var send, recv, off bool
	switch s := p.stream; {
	case !p.present:
		return watchNothing
	case s != nil && s.remote.IsValid():
		send, recv, off = s.send, s.recv, s.rtcpOff
	case s == nil && v != nil:
		send, recv, off = v.Send, v.Recv, v.RtcpOff
	default:
		return watchNothing
	}
	switch {
	case send && recv:
		return watchAny
	case off:
		return watchNothing
	}
	return watchReports
}

// lookForLife reports a leg from which nothing came on any stream for the media
// time-out, once, and that it came back.
func (e *Engine) lookForLife(le *legEntry, now int64) {
	l := le.leg.Load()
	e.mu.Lock()
	watches := le.watch != watchNothing
	if le.watch == watchReports && !l.reports.Load() {
		watches, le.watchAt = false, now
	}
	from := le.watchAt
	e.mu.Unlock()
	if !watches {
		le.stalled = false
		return
	}
	last := max(from, l.lastRx.Load())
	silent := now - last
	if silent >= int64(e.opt.MediaTimeout) && e.pictures != nil {
		if v := e.pictures.LegStats(le.id); v != nil && v.LastRx != 0 {
			silent = min(silent, e.wall(now)-v.LastRx)
		}
	}
	switch dead := silent >= int64(e.opt.MediaTimeout); {
	case dead && !le.stalled:
		le.stalled = true
		e.hub.publish(&mediapb.Event{At: e.wall(now), Conference: le.re.id, Leg: le.id,
			What: &mediapb.Event_MediaStalled{MediaStalled: &mediapb.MediaStalled{
				Kind: "audio", SilentMs: silent / int64(time.Millisecond), LegDead: true}}})
	case !dead && le.stalled:
		le.stalled = false
		e.hub.publish(&mediapb.Event{At: e.wall(now), Conference: le.re.id, Leg: le.id,
			What: &mediapb.Event_MediaResumed{MediaResumed: &mediapb.MediaResumed{Kind: "audio"}}})
	}
}
