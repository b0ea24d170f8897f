package video

import "time"

const (
	// loadEvery is the least time over which a load is worked out.
	loadEvery = 2 * time.Second
	// hotLoad and coolLoad are what counts as too busy and as having room; hotSamples and
	// coolSamples how many in a row it takes.
	hotLoad, coolLoad       = 0.9, 0.5
	hotSamples, coolSamples = 2, 5
	// mostCool bounds how long a step back is put off after steps back that came too early.
	mostCool = 80
)

// The steps by which a conference's video gives way: rate, then size, then members' video,
// a quarter of them at each step (DESIGN.md §6).
const (
	stepRate = 1
	stepSize = 2
	lastStep = stepSize + 4
)

// leastFPS and leastSide are what rate and size do not go below by this.
const leastFPS, leastSide = 5, 120

// pressure decides how much a conference's video gives way, by how busy its goroutine in the
// video process is: one that cannot keep up shows and hears late, and takes its time from
// all others. It is given the busy time every now and then and has no clock. The zero value
// gives nothing up.
type pressure struct {
	step      int
	load      float64 // of the last sample, 0 to 1
	at        time.Time
	busy      time.Duration
	hot, cool int       // samples in a row
	patience  int       // cool samples before a step back
	eased     time.Time // the last step back
}

// sample takes the time that the conference's goroutine was busy for since the video process
// began. True: step is another.
func (p *pressure) sample(now time.Time, busy time.Duration) bool {
	d := now.Sub(p.at)
	if p.at.IsZero() || busy < p.busy || d > 5*loadEvery { // another process, or a pause
		p.at, p.busy, p.hot, p.cool = now, busy, 0, 0
		return false
	}
	if d < loadEvery {
		return false
	}
	p.load = min(1, float64(busy-p.busy)/float64(d))
	p.at, p.busy = now, busy
	switch {
	case p.load > hotLoad:
		p.hot, p.cool = p.hot+1, 0
	case p.load < coolLoad:
		p.hot, p.cool = 0, p.cool+1
	default:
		p.hot, p.cool = 0, 0
	}
	p.patience = max(p.patience, coolSamples)
	switch {
	case p.hot >= hotSamples && p.step < lastStep:
		if !p.eased.IsZero() && now.Sub(p.eased) < 2*coolSamples*loadEvery { // it was too early
			p.patience = min(2*p.patience, mostCool)
		}
		p.step++
		p.hot = 0
		return true
	case p.cool >= p.patience && p.step > 0:
		p.step--
		p.cool, p.eased = 0, now
		return true
	case p.cool >= mostCool:
		p.patience = coolSamples
	}
	return false
}

// how is the word for a step: "", "rate", "size" or "off".
func (p *pressure) how() string {
	return [...]string{"", "rate", "size", "off", "off", "off", "off"}[p.step]
}

// reduced is the tier that takes another's place.
func (p *pressure) reduced(k tierKey) tierKey {
	if p.step >= stepRate {
		k.fps = max(k.fps/2, min(k.fps, leastFPS))
	}
	if w, h := k.width/2&^1, k.height/2&^1; p.step >= stepSize && min(w, h) >= leastSide {
		k.width, k.height = w, h
	}
	return k
}

// off is how many of n members have no video.
func (p *pressure) off(n int) int { return (n*max(0, p.step-stepSize) + 3) / 4 }
