package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sparkle/media"
	"sparkle/media/mediapb"
)

// Run opens a conference, plays the load and closes the conference again. It returns
// early, with the context's error, when ctx ends.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	m, err := newMaterial(o.Codec, o.Always)
	if err != nil {
		return nil, err
	}
	g, err := newGenerator(o, m)
	if err != nil {
		return nil, err
	}
	defer g.close()
	return g.conference(ctx, o)
}

// conference is Run with sockets open.
func (g *generator) conference(ctx context.Context, o Options) (*Result, error) {
	var err error
	// Once before it is measured: the first call makes garbage of its own.
	if _, err = o.API.Snapshot(ctx); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if g.res.RSSBase, err = RSS(o.PID); err != nil {
		return nil, err
	}
	for i := 0; i < o.Legs; i += o.Room {
		id := o.conference(i)
		if err := o.API.SetConference(ctx, &mediapb.Conference{Id: id}); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		defer func() { _ = o.API.CloseConference(context.WithoutCancel(ctx), id) }()
	}
	for i := range o.Legs - o.Joining {
		if err := g.open(ctx, o, i); err != nil {
			return nil, err
		}
	}
	go g.run()
	joined := make(chan error, 1)
	go func() { joined <- g.join(ctx, o) }()
	before, after, err := g.watch(ctx, o.API)
	if err != nil {
		g.stop.Store(true)
	}
	err = errors.Join(err, <-joined)
	if err == nil {
		select {
		case <-g.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	g.stop.Store(true)
	<-g.done
	if err != nil {
		return nil, err
	}
	r := g.res
	r.Engine = delta(before, after)
	for i := range phases {
		r.GenOverflow += g.media[i].overflow()
	}
	for i := range g.phones {
		if g.phones[i].rx.armed {
			r.Unheard++
		}
	}
	if r.RSSAfter, err = RSS(o.PID); err != nil {
		return nil, err
	}
	return r, nil
}

// join brings in who comes late, once the window has begun.
func (g *generator) join(ctx context.Context, o Options) error {
	select {
	case <-g.reached:
	case <-g.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := o.Legs - o.Joining; i < o.Legs; i++ {
		if err := g.open(ctx, o, i); err != nil {
			return err
		}
		g.phones[i].on.Store(true)
	}
	return nil
}

// open brings phone i into the conference.
func (g *generator) open(ctx context.Context, o Options, i int) error {
	id := LegID(o.Conference, i)
	reply, err := o.API.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: o.conference(i), Leg: id, LocalIp: "127.0.0.1"})
	if err != nil {
		return fmt.Errorf("load: open leg %d: %w", i, err)
	}
	if reply.AudioPort == 0 || reply.AudioPort > 65535 {
		return fmt.Errorf("load: leg %d has port %d", i, reply.AudioPort)
	}
	g.phones[i].to = sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(reply.AudioPort)))
	g.byPort[reply.AudioPort].Store(int32(i + 1))
	if err := o.API.SetLeg(ctx, g.leg(o, i)); err != nil {
		return fmt.Errorf("load: set leg %d: %w", i, err)
	}
	return nil
}

// leg is phone i as the engine is told it.
func (g *generator) leg(o Options, i int) *mediapb.Leg {
	return &mediapb.Leg{
		Id: LegID(o.Conference, i), Name: fmt.Sprint("Phone ", i), Present: true,
		Audio: o.Codec.stream(&mediapb.Remote{
			Ip: "127.0.0.1", Port: uint32(g.media[i%phases].port), RtcpPort: uint32(g.control[i%phases].port),
		}),
	}
}

// conference is the id of the one that phone i is in.
func (o Options) conference(i int) string {
	if o.Room == o.Legs {
		return o.Conference
	}
	return fmt.Sprintf("%s_%d", o.Conference, i/o.Room)
}

// LegID is the engine's id of phone i of a conference under load.
func LegID(conference string, i int) string { return fmt.Sprintf("leg_%s_%d", conference, i) }

// watch takes the engine's own account at both ends of the window.
func (g *generator) watch(ctx context.Context, api media.API) (before, after *mediapb.SnapshotReply, err error) {
	take := func(at <-chan struct{}) (*mediapb.SnapshotReply, error) {
		select {
		case <-at:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s, err := api.Snapshot(ctx)
		if err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		return s, nil
	}
	if before, err = take(g.reached); err != nil {
		return nil, nil, err
	}
	after, err = take(g.ended)
	return before, after, err
}

func delta(before, after *mediapb.SnapshotReply) EngineDelta {
	a, b := before.GetEngine(), after.GetEngine()
	d := EngineDelta{
		Ticks: b.GetTicks() - a.GetTicks(), LateTicks: b.GetLateTicks() - a.GetLateTicks(),
		SkippedTicks: b.GetSkippedTicks() - a.GetSkippedTicks(),
		Encodes:      b.GetEncodes() - a.GetEncodes(), Decodes: b.GetDecodes() - a.GetDecodes(),
		SharedEncodes: b.GetSharedEncodesSaved() - a.GetSharedEncodesSaved(),
		LateP50ms:     float64(b.GetLateP50Ms()), LateP99ms: float64(b.GetLateP99Ms()), LateMaxms: float64(b.GetLateMaxMs()),
		Realtime: b.GetRealtime(),
	}
	for _, l := range after.GetLegs() {
		s := l.GetAudio()
		d.RxLost += s.GetRxLost()
		d.RxLate += s.GetRxLate()
		d.RxDropped += s.GetRxDropped()
		d.RxStranger += s.GetRxStranger()
		d.TxRefused += s.GetTxRefused()
	}
	return d
}
