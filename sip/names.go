package sip

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"sparkle/sip/resolve"
)

// named says whether a target is a name, which has to be looked up again and again.
func (a *attachment) named() bool {
	for _, t := range a.o.Peers {
		host, _ := t.hostPort()
		if _, err := netip.ParseAddr(host); err != nil {
			return true
		}
	}
	return false
}

// lookUp finds the addresses of all targets and takes them over. A name that cannot be
// looked up keeps its last addresses; an error says that there is no target at all.
func (a *attachment) lookUp(ctx context.Context) error {
	list, until, err := a.unfold(ctx)
	a.again = until
	if len(list) == 0 {
		return cmp.Or(err, errNoTargets)
	}
	a.setTargets(list)
	return nil
}

// unfold makes targets of what is configured. err is the last fault, which may leave some.
func (a *attachment) unfold(ctx context.Context) (list []*target, until time.Time, err error) {
	supported := []string{a.o.Transport}
	for _, l := range a.o.Listens() {
		if l.Transport != a.o.Transport && l.Transport != "tls" {
			supported = append(supported, l.Transport)
		}
	}
	now := time.Now()
	until = now.Add(time.Hour)
	seen := map[string]bool{}
	add := func(conf Target, ep resolve.Endpoint) {
		hop := hopTo(ep.Transport, ep.Addr.String())
		if seen[hop] {
			return
		}
		seen[hop] = true
		load := conf.Weight
		if load == 0 {
			load = max(ep.Weight, 1)
		}
		list = append(list, &target{conf: conf, hop: hop, rank: conf.Priority<<16 | ep.Priority, load: load, meter: meterOf(conf.CPS)})
	}
	for _, t := range a.o.Peers {
		host, port := t.hostPort()
		n, _ := strconv.Atoi(port)
		q := resolve.Query{Host: host, Port: n, Transport: t.Transport, Supported: supported}
		if a.o.Mode == ModeUE {
			q.Transport, q.Supported = a.o.Transport, []string{a.o.Transport}
		}
		if host == "localhost" { // not the DNS's to say
			q.Host = "127.0.0.1"
		}
		if _, e := netip.ParseAddr(q.Host); e != nil && a.dns == nil {
			if a.dns, e = resolve.New(a.o.DNS, family(a.o.LocalAddr)); e != nil {
				return nil, now.Add(10 * time.Second), e
			}
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		ans, e := resolve.Answer{}, error(nil)
		if a.dns != nil {
			ans, e = a.dns.Lookup(ctx, now, q)
		} else {
			ans, e = resolve.Literal(q)
		}
		cancel()
		if e = cmp.Or(e, ans.Stale); e != nil {
			err = e
			a.log.Warn("target not looked up", "target", host, "err", e, "kept", len(ans.Endpoints))
		}
		if !ans.Until.IsZero() && ans.Until.Before(until) {
			until = ans.Until
		}
		for _, ep := range ans.Endpoints {
			add(t, ep)
		}
	}
	return list, until, err
}

// family keeps addresses away that the local one cannot reach.
func family(local string) int {
	ip := net.ParseIP(local)
	switch {
	case ip == nil:
		return 0
	case ip.To4() != nil:
		return 4
	}
	return 6
}

// watchNames looks the targets up again when their records run out.
func (a *attachment) watchNames() {
	for {
		clock := time.NewTimer(time.Until(a.again))
		select {
		case <-clock.C:
		case <-a.ctx.Done():
			clock.Stop()
			return
		}
		if err := a.lookUp(a.ctx); err != nil && len(a.all()) == 0 && a.o.Mode != ModeUE {
			a.trunkState(err.Error())
		}
		if a.reg != nil && a.reg.SetTargets(a.addrs()) {
			a.reg.Refresh()
		}
		a.nudge()
	}
}

// addrs are the addresses of the targets, best first.
func (a *attachment) addrs() []string {
	var out []string
	for _, t := range a.all() {
		out = append(out, t.addr())
	}
	return out
}
