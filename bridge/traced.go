package bridge

import (
	"context"
	"slices"
	"sync"

	"sparkle/sip"
)

// Tracer remembers the messages of calls; *sip.UA has it.
type Tracer interface {
	Trace(callID string) (messages []sip.TraceMessage, dropped int)
}

// LegTrace is what a leg said and heard, over all its INVITEs, in order of time.
type LegTrace struct {
	Leg      string
	Dropped  int
	Messages []sip.TraceMessage
}

// traced remembers which calls a leg had, for as long as anybody may want to see them: the
// newest maxTraced legs.
type traced struct {
	mu    sync.Mutex
	legs  map[string]tracedLeg
	order []string
}

type tracedLeg struct {
	owner string
	calls []string // Call-IDs
}

const maxTraced = 20_000

func newTraced() *traced { return &traced{legs: map[string]tracedLeg{}} }

func (t *traced) note(leg, owner, callID string) {
	if callID == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l, known := t.legs[leg]
	if slices.Contains(l.calls, callID) {
		return
	}
	if !known {
		if t.order = append(t.order, leg); len(t.order) > maxTraced {
			delete(t.legs, t.order[0])
			t.order = t.order[1:]
		}
	}
	t.legs[leg] = tracedLeg{owner, append(slices.Clip(l.calls), callID)}
}

func errNoTrace() *Error {
	return &Error{Kind: Missing, Code: "trace_not_found",
		Detail: "no messages of such a leg: it never sent one, or it ended more than an hour or a restart ago"}
}

// LegTrace returns the SIP messages of a leg, live or ended within the last hour.
func (b *Bridge) LegTrace(_ context.Context, a Actor, leg string, full bool) (LegTrace, error) {
	out := LegTrace{Leg: leg}
	b.traced.mu.Lock()
	l, ok := b.traced.legs[leg]
	b.traced.mu.Unlock()
	if !ok || !mine(a, l.owner) || b.tracer == nil {
		return out, errNoTrace()
	}
	for _, id := range l.calls {
		m, dropped := b.tracer.Trace(id)
		out.Messages = append(out.Messages, m...)
		out.Dropped += dropped
	}
	if len(out.Messages) == 0 {
		return out, errNoTrace()
	}
	slices.SortStableFunc(out.Messages, func(x, y sip.TraceMessage) int { return x.At.Compare(y.At) })
	if full {
		b.audit(a, "leg.trace_full", leg, nil)
	}
	return out, nil
}
