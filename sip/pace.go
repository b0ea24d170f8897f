package sip

import (
	"sync"
	"time"
)

// pacer spreads new calls: a token bucket that holds one token, so that calling a
// whole conference sends its INVITEs at the carrier's rate and not in one burst. Its
// queue is the calls themselves, each waiting for the instant it was given; MaxCalls
// bounds them. A call cancelled while it waits leaves its instant unused.
type pacer struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time // when the next token is there
}

func newPacer(cps float64) *pacer {
	return &pacer{every: time.Duration(float64(time.Second) / cps)}
}

// reserve returns when the caller may go.
func (p *pacer) reserve(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := now
	if p.next.After(now) {
		at = p.next
	}
	p.next = at.Add(p.every)
	return at
}
