package bridge

import (
	"slices"
	"time"

	"sparkle/sip"
	"sparkle/sip/ims"
)

// earlyEnd is how soon a phone that has said nothing hangs up that nobody answered: a
// mailbox, or an announcement (IMS.md §6).
const earlyEnd = 3 * time.Second

// classify asks the one table (package ims) what an end means, and whether one
// voice-only attempt is worth it.
func classify(e sip.Ended, l *leg) (v verdict, retry bool) {
	f := ims.Final{
		Status: e.Status, Phrase: e.Phrase, Q850: e.Q850, SIPCause: e.SIPCause, ReleaseCause: e.ReleaseCause, RetryAfter: e.RetryAfter, Warning: e.Warning, ReasonText: e.ReasonText, AltService: e.AltService,
		WasRinging: e.WasRinging || l.RingingAt != nil, Connected: l.ConnectedAt != nil, By: string(e.By), Why: e.Why,
		FirstHadVideo: l.wantsPic,
	}
	// A 487 is the echo of our CANCEL. Any other final answer crossed it, and says more.
	if l.why != "" && !f.Connected && (e.Status == 0 || e.Status == 487) {
		f.By = string(sip.ByLocal)
	}
	if early := l.visitor == nil && e.By == sip.ByRemote && f.Connected && !l.heard && e.At.Sub(*l.ConnectedAt) < earlyEnd; early {
		f.Why = "ended_early"
	}
	w := ims.Classify(f)
	v = verdict{Outcome(w.Outcome), Text{Zh: w.TextZh, En: w.TextEn}, w.Retry, w.Detail}
	if !slices.Contains(allOutcomes, v.outcome) {
		v = verdict{outcome: NetworkError, text: fallbackText(NetworkError)}
	}
	return v, w.Retry.How == ims.RetryAudio
}

// allOutcomes are the words of DESIGN §3.
var allOutcomes = []Outcome{Busy, NoAnswer, Declined, Unreachable, NotFound, NotAllowed, Blocked, MediaIncompatible,
	Cancelled, NetworkError, Left, HungUp, Dropped}

// Outcomes are all outcomes there are.
func Outcomes() []Outcome { return slices.Clone(allOutcomes) }
