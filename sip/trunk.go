package sip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
)

// health is what OPTIONS tell about one trunk peer:
//
//	unknown ─answer→ up ─3 failures→ down ─2 answers→ up
//	any ─503 with Retry-After, to an INVITE too→ suspended ─that time over→ unknown
//
// Any final answer but 503 is a sign of life (405, 481 and a peer's own 408 too).
type health struct {
	state string // "" (unknown) | up | down | suspended
	run   int    // consecutive answers or failures against the state
	until time.Time
}

// probe is the outcome of one OPTIONS: status 0 is no answer at all.
type probe struct {
	status     int
	retryAfter time.Duration
	rtt        time.Duration
}

func (h health) step(now time.Time, p probe) health {
	if h.state == "suspended" && !now.Before(h.until) {
		h = health{}
	}
	if p.status == 503 && p.retryAfter > 0 {
		return health{state: "suspended", until: now.Add(p.retryAfter)}
	}
	alive := p.status >= 200 && p.status != 503
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

// longestSuspension bounds what a peer can ask for with Retry-After: one wrong header
// must not take a trunk away for a year.
const longestSuspension = time.Hour

// watchPeers asks all peers again and again until ctx ends, and lets the suspended ones back in
// when their time is over. With a negative interval nobody is asked: then a peer is up
// unless it is suspended.
func (a *attachment) watchPeers(ctx context.Context) {
	asks := a.o.OptionsInterval >= 0
	var due time.Time
	for {
		until, back := a.readmit(time.Now(), asks)
		if asks && (back || !time.Now().Before(due)) {
			if a.probeAll(ctx); ctx.Err() != nil {
				return
			}
			due = time.Now().Add(time.Duration(float64(a.interval()) * (0.9 + 0.2*rand.Float64())))
			continue // a probe may have suspended somebody
		}
		a.trunkState("")
		if until.IsZero() || asks && due.Before(until) {
			until = due
		}
		clock := time.NewTimer(time.Until(until))
		if until.IsZero() { // nothing to wait for but a poke
			clock.Stop()
		}
		select {
		case <-clock.C:
		case <-a.poke:
		case <-ctx.Done():
			clock.Stop()
			return
		}
		clock.Stop()
	}
}

// probeAll asks all peers at once: who says nothing must not keep us from those who do.
func (a *attachment) probeAll(ctx context.Context) {
	var all sync.WaitGroup
	for _, t := range a.all() {
		if a.healthOf(t).state == "suspended" {
			continue // it asked to be left alone
		}
		all.Go(a.safely(func() {
			start := time.Now()
			p, err := a.probe(ctx, t)
			if ctx.Err() == nil {
				p.rtt = time.Since(start)
				a.observe(t, p, err)
			}
		}))
	}
	all.Wait()
}

// interval is how long to wait until all are asked again. What is not settled yet is
// asked soon: up within seconds, not minutes.
func (a *attachment) interval() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.o.OptionsInterval
	for _, t := range a.list {
		if t.health.run > 0 || t.health.state == "down" {
			d = min(d, 5*time.Second)
		}
	}
	return d
}

// readmit ends suspensions whose time is over. It returns when the next one ends, zero
// if there is none, and whether there is somebody to ask: who came back, or is new.
func (a *attachment) readmit(now time.Time, asks bool) (next time.Time, ask bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.list {
		switch h := t.health; {
		case h.state == "":
			ask = ask || h.run == 0
			if !asks {
				t.health = health{state: "up"}
			}
		case h.state != "suspended":
		case now.Before(h.until):
			if next.IsZero() || h.until.Before(next) {
				next = h.until
			}
		default:
			ask = true
			t.health = health{}
			if !asks {
				t.health = health{state: "up"}
			}
		}
	}
	return next, ask
}

func (a *attachment) healthOf(t *target) health {
	a.mu.Lock()
	defer a.mu.Unlock()
	return t.health
}

// observe takes what an OPTIONS told about a peer.
func (a *attachment) observe(t *target, p probe, err error) {
	p.retryAfter = min(p.retryAfter, longestSuspension)
	a.mu.Lock()
	t.health = t.health.step(time.Now(), p)
	if p.status != 0 && p.rtt > 0 {
		t.rtt = p.rtt
	}
	a.mu.Unlock()
	why := ""
	if err != nil {
		why = err.Error()
	}
	if a.reg == nil {
		a.trunkState(why)
	}
}

// suspend takes a peer that answered an INVITE with 503 and Retry-After out of use.
func (a *attachment) suspend(t *target, wait time.Duration) {
	a.observe(t, probe{status: 503, retryAfter: wait}, nil)
	a.nudge()
}

// nudge makes watchPeers, or the registration of a ue, look again.
func (a *attachment) nudge() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// trunkState tells the best of all peers.
func (a *attachment) trunkState(why string) {
	var best *target
	state, last := "down", ""
	a.mu.Lock()
	for _, t := range a.list {
		switch {
		case t.health.up() && best == nil:
			best = t
		case t.health.state == "suspended":
			state = "suspended"
			last = t.rests()
		}
	}
	if best == nil && state == "down" {
		if last = why; why == "" {
			last = a.state.LastError // as it was told by whoever failed last
		}
	}
	a.mu.Unlock()
	if best != nil {
		state = "up" // what is suspended beside it stays to be read in LastError
		a.current.Store(best)
	}
	a.setState(state, last)
	a.dispatch()
}

// rests says until when a suspended peer is left alone.
func (t *target) rests() string {
	return fmt.Sprintf("%s answered 503: not used until %s", t.addr(), t.health.until.UTC().Format(time.TimeOnly+"Z"))
}

// authorizeTrunk answers the challenge of a peer with the password configured for it.
func (a *attachment) authorizeTrunk(req *sipgo.Request, res *sipgo.Response, realm string) (challenge digest.Challenge, err error) {
	if a.o.Auth.Password == "" {
		return challenge, errors.New("attachment has no credentials")
	}
	from, name := "WWW-Authenticate", "Authorization"
	if res.StatusCode == 407 {
		from, name = "Proxy-Authenticate", "Proxy-Authorization"
	}
	var values []string
	for _, h := range res.GetHeaders(from) {
		values = append(values, h.Value())
	}
	challenges, err := digest.ParseChallenges(values)
	if err != nil {
		return challenge, err
	}
	if realm == "" && a.o.Auth.Realm != "*" {
		realm = a.o.Auth.Realm
	}
	challenge, err = digest.Choose(challenges, a.o.Auth.Algorithms, realm)
	if err != nil {
		return challenge, err
	}
	user := a.o.IMPI
	if user == "" {
		user = a.user()
	}
	proof, err := digest.NewSession(challenge, user, []byte(a.o.Auth.Password)).Authorize(
		digest.Request{Method: req.Method.String(), URI: req.Recipient.String(), Body: req.Body()})
	if err != nil {
		return challenge, err
	}
	for req.RemoveHeader(name) {
	}
	req.AppendHeader(sipgo.NewHeader(name, proof.String()))
	return challenge, nil
}

func (a *attachment) probe(ctx context.Context, t *target) (probe, error) {
	transport, addr := splitHop(t.hop, a.o.Transport)
	var uri sipgo.Uri
	if err := sipgo.ParseUri("sip:"+addr+";transport="+transport, &uri); err != nil {
		return probe{}, err
	}
	req := sipgo.NewRequest(sipgo.OPTIONS, uri)
	a.outOfDialog(req, "<sip:"+addr+">")
	req.AppendHeader(sipgo.NewHeader("Accept", "application/sdp"))
	req.SetBody(nil)
	ctx, cancel := context.WithTimeout(ctx, max(a.o.OptionsInterval/3, 2*time.Second))
	defer cancel()
	res, err := a.exchange(ctx, req, t.hop)
	if err != nil {
		return probe{}, err
	}
	wait, _ := retryAfter(res)
	return probe{status: res.StatusCode, retryAfter: wait}, nil
}
