package bridge

import (
	"sync"
	"time"
)

// Limits on wrong PINs. One caller has ten in ten minutes, at whatever conferences. What was
// dialled takes thirty from all callers together, so that many callers do not search what
// one may not: of a hundred conferences behind one number, all of them trying day and night
// find one in two days.
const (
	guessWindow    = 10 * time.Minute
	callerGuesses  = 10
	targetGuesses  = 30
	maxGuessTracks = 10_000
)

// guesses counts wrong PINs for the whole server.
type guesses struct {
	mu    sync.Mutex
	track map[string]*guessCount
}

type guessCount struct {
	n     int
	since time.Time
}

func newGuesses() *guesses { return &guesses{track: map[string]*guessCount{}} }

// shut says that a caller, or what he dialled, has had its share of wrong PINs for now.
func (g *guesses) shut(now time.Time, caller, target string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count(now, caller) >= callerGuesses || g.count(now, "target "+target) >= targetGuesses
}

func (g *guesses) count(now time.Time, key string) int {
	c := g.track[key]
	if c == nil || now.Sub(c.since) > guessWindow {
		return 0
	}
	return c.n
}

// wrong counts a wrong PIN.
func (g *guesses) wrong(now time.Time, caller, target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range []string{caller, "target " + target} {
		c := g.track[key]
		if c == nil || now.Sub(c.since) > guessWindow {
			if len(g.track) >= maxGuessTracks {
				g.sweep(now)
			}
			c = &guessCount{since: now}
			g.track[key] = c
		}
		c.n++
	}
}

// sweep makes room: what has expired goes, and if that is nothing, anything.
func (g *guesses) sweep(now time.Time) {
	for k, c := range g.track {
		if now.Sub(c.since) > guessWindow {
			delete(g.track, k)
		}
	}
	for k := range g.track {
		if len(g.track) < maxGuessTracks {
			return
		}
		delete(g.track, k)
	}
}
