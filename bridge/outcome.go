package bridge

import "time"

// OutcomeOf is what a member remembers of an ended leg, nil of a live one.
func OutcomeOf(l Leg) *LastOutcome {
	if l.Outcome == "" || l.EndedAt == nil {
		return nil
	}
	o := &LastOutcome{Outcome: l.Outcome, SIP: l.SIP, At: *l.EndedAt}
	if l.Text != nil {
		o.Text = *l.Text
	}
	return o
}

// afterConnect are the outcomes of a leg that was answered; all others are of legs
// that were not (DESIGN §3).
func (o Outcome) afterConnect() bool { return o == Left || o == HungUp || o == Dropped }

// abandoned ends a leg that was live when the last process stopped without a goodbye.
func abandoned(l *Leg, now time.Time) {
	l.Outcome = NetworkError
	l.Text = &Text{Zh: "服务器在呼叫过程中重启", En: "The server restarted while the call was being set up."}
	if l.ConnectedAt != nil {
		l.Outcome = Dropped
		l.Text = &Text{Zh: "服务器重启，通话中断", En: "The server restarted; the call was lost."}
	}
	l.State, l.Since, l.EndedAt, l.Quality = Ended, now, &now, nil
	l.Timeline = append(l.Timeline, TimelineEntry{At: now, What: "state", Text: "ended: the server restarted"})
}
