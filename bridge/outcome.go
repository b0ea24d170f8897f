package bridge

import "time"

// OutcomeOf is what a member remembers of an ended leg, nil of a live one.
func OutcomeOf(l Leg) *LastOutcome {
	if l.Outcome == "" || l.EndedAt == nil {
		return nil
	}
	o := &LastOutcome{Outcome: l.Outcome, Reason: l.Reason, SIP: l.SIP, At: *l.EndedAt, Retry: l.Retry}
	if l.Text != nil {
		o.Text = *l.Text
	}
	return o
}

// afterConnect are the outcomes of a leg that was answered; all others are of legs
// that were not (DESIGN §3).
func (o Outcome) afterConnect() bool { return o == Left || o == HungUp || o == Dropped }

// Charged ends a leg by its charging record, which a process before this one still wrote
// while history did not learn of the end. A zero answered is of a leg that was not.
func Charged(l *Leg, o Outcome, sip *SIPResult, answered, end time.Time) {
	if !answered.IsZero() {
		l.ConnectedAt = &answered
	}
	l.Outcome, l.SIP = o, sip
	settle(l, end, Text{Zh: "服务器重启前通话已结束", En: "The call ended just before the server restarted."}, string(o))
}

// abandoned ends a leg that was live when the last process stopped without a goodbye: when that
// was last known to live, for what came then nobody had.
func abandoned(l *Leg, alive, now time.Time) {
	end := alive
	if end.Before(l.Since) {
		end = l.Since
	}
	if end.After(now) {
		end = now
	}
	l.Reason = "server_restart"
	l.Outcome = NetworkError
	text := Text{Zh: "服务器在呼叫过程中重启", En: "The server restarted while the call was being set up."}
	if l.ConnectedAt != nil {
		l.Outcome = Dropped
		text = Text{Zh: "服务器重启，通话中断", En: "The server restarted; the call was lost."}
	}
	settle(l, end, text, "the server restarted")
}

// settle ends a leg of history whose outcome is there already.
func settle(l *Leg, at time.Time, text Text, why string) {
	l.State, l.Since, l.EndedAt, l.Text, l.Quality = Ended, at, &at, &text, nil
	l.Retry, l.AwaitingConfirm = verdict{outcome: l.Outcome}.hint(), false
	l.Timeline = append(l.Timeline, TimelineEntry{At: at, What: "state", Text: "ended: " + why})
}
