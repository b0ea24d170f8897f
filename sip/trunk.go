package sip

import (
	"context"
	"math/rand/v2"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// health is what OPTIONS tell about one trunk peer:
//
//	unknown ─answer→ up ─3 failures→ down ─2 answers→ up
//	any ─503 with Retry-After→ suspended ─that time over→ unknown
//
// Any final answer but 503 and our own timeout is a sign of life (405 and 481 too).
type health struct {
	state string // "" (unknown) | up | down | suspended
	run   int    // consecutive answers or failures against the state
	until time.Time
}

// probe is the outcome of one OPTIONS: status 0 is no answer at all.
type probe struct {
	status     int
	retryAfter time.Duration
}

func (h health) step(now time.Time, p probe) health {
	if h.state == "suspended" && !now.Before(h.until) {
		h = health{}
	}
	if p.status == 503 && p.retryAfter > 0 {
		return health{state: "suspended", until: now.Add(p.retryAfter)}
	}
	alive := p.status >= 200 && p.status != 503 && p.status != 408
	switch {
	case h.state == "suspended":
		return h // its time is not over; what it answers now does not shorten it
	case h.state != "" && alive == (h.state == "up"):
		return health{state: h.state} // as it was: whatever was counted starts again
	}
	h.run++
	need := 1
	switch {
	case h.state == "up":
		need = 3
	case h.state == "down":
		need = 2
	case !alive: // unknown: nobody has seen it yet, so one failure says down
	}
	if h.run < need {
		return h
	}
	if alive {
		return health{state: "up"}
	}
	return health{state: "down"}
}

func (h health) up() bool { return h.state == "up" }

// watchTrunk asks every peer in turn until ctx ends.
func (a *attachment) watchTrunk(ctx context.Context) {
	if a.o.OptionsInterval < 0 {
		a.setState("up", "")
		<-ctx.Done()
		return
	}
	peers := make([]health, len(a.targets))
	for {
		for i := range a.targets {
			p, err := a.probe(ctx, i)
			if ctx.Err() != nil {
				return
			}
			peers[i] = peers[i].step(time.Now(), p)
			a.trunkState(peers, err)
		}
		interval := a.o.OptionsInterval
		for _, h := range peers {
			// What is not settled yet is asked soon: up within seconds, not minutes.
			if h.run > 0 || h.state == "down" {
				interval = min(interval, 5*time.Second)
			}
		}
		wait := time.NewTimer(time.Duration(float64(interval) * (0.9 + 0.2*rand.Float64())))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// trunkState tells the best of all peers; the first that is up gets the calls.
func (a *attachment) trunkState(peers []health, err error) {
	best, state := -1, "down"
	for i, h := range peers {
		switch {
		case h.up() && best < 0:
			best, state = i, "up"
		case best < 0 && h.state == "suspended":
			state = "suspended"
		}
	}
	last := ""
	if state != "up" && err != nil {
		last = err.Error()
	}
	if best >= 0 {
		a.current.Store(int32(best))
	}
	a.setState(state, last)
}

func (a *attachment) probe(ctx context.Context, i int) (probe, error) {
	target := a.targets[i]
	var uri sipgo.Uri
	if err := sipgo.ParseUri("sip:"+target+a.uriTransport(), &uri); err != nil {
		return probe{}, err
	}
	req := sipgo.NewRequest(sipgo.OPTIONS, uri)
	a.outOfDialog(req, "<sip:"+target+">")
	req.AppendHeader(sipgo.NewHeader("Accept", "application/sdp"))
	req.SetBody(nil)
	ctx, cancel := context.WithTimeout(ctx, max(a.o.OptionsInterval/3, 2*time.Second))
	defer cancel()
	res, err := a.exchange(ctx, req, target)
	if err != nil {
		return probe{}, err
	}
	wait, _ := retryAfter(res)
	return probe{res.StatusCode, wait}, nil
}
