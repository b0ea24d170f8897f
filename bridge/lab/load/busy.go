package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"sparkle/media"
	"sparkle/media/mediapb"
)

// Busy is a control process that has its hands full, beside an engine under load: it
// calls the engine all the time, and works on the answers, as an API under load does, on
// several goroutines that never rest, and its SIP is asked with OPTIONS without end.
// StartBusy makes one, Close ends it.
type Busy struct {
	api    media.API
	sink   *net.UDPConn
	sip    *flood
	cancel context.CancelFunc
	wg     sync.WaitGroup
	calls  atomic.Uint64
	failed atomic.Uint64
}

const (
	busyConference = "busy"
	// busyEvery is a call's turn: a hundred a second.
	busyEvery = 10 * time.Millisecond
	// busyOptions is how many OPTIONS come in a second.
	busyOptions = 5000
)

// BusyCount is what a Busy did.
type BusyCount struct {
	Calls, Failed             uint64 // of the engine's API
	OptionsSent, OptionsHeard uint64 // OPTIONS, and their 200s
}

// StartBusy begins with burners goroutines that encode snapshots as JSON without pause.
func StartBusy(ctx context.Context, api media.API, burners int) (*Busy, error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b := &Busy{api: api, sink: sink, cancel: cancel}
	snap, err := b.open(ctx)
	if err == nil {
		b.sip, err = startFlood(run, busyOptions)
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("load: busy: %w", err)
	}
	b.wg.Go(func() { b.call(run) })
	b.wg.Go(func() { discard(sink) })
	for range burners {
		b.wg.Go(func() { burn(run, snap) })
	}
	return b, nil
}

func (b *Busy) open(ctx context.Context) (*mediapb.SnapshotReply, error) {
	if err := b.api.SetConference(ctx, &mediapb.Conference{Id: busyConference}); err != nil {
		return nil, err
	}
	if err := b.join(ctx, 0); err != nil {
		return nil, err
	}
	return b.api.Snapshot(ctx)
}

// join opens a leg and sets it.
func (b *Busy) join(ctx context.Context, i int) error {
	id := LegID(busyConference, i)
	if _, err := b.api.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: busyConference, Leg: id, LocalIp: "127.0.0.1"}); err != nil {
		return err
	}
	return b.set(ctx, id, false)
}

func (b *Busy) set(ctx context.Context, id string, muted bool) error {
	port := udpPort(b.sink)
	return b.api.SetLeg(ctx, &mediapb.Leg{Id: id, Name: "Busy", Present: true, Muted: muted,
		Audio: PCMU().stream(&mediapb.Remote{Ip: "127.0.0.1", Port: port, RtcpPort: port})})
}

// call makes a hundred calls a second: snapshots and switches in turn, and once a second
// somebody who joins and leaves.
func (b *Busy) call(ctx context.Context) {
	tick := time.NewTicker(busyEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var err error
		switch {
		case n%100 == 99:
			if err = b.join(ctx, 1); err == nil {
				_, err = b.api.CloseLeg(ctx, LegID(busyConference, 1))
			}
		case n%2 == 0:
			_, err = b.api.Snapshot(ctx)
		default:
			err = b.set(ctx, LegID(busyConference, 0), n%4 == 1)
		}
		b.calls.Add(1)
		if err != nil && ctx.Err() == nil {
			b.failed.Add(1)
		}
	}
}

// burn works as an API does when it answers without pause.
func burn(ctx context.Context, snap *mediapb.SnapshotReply) {
	for ctx.Err() == nil {
		text, err := protojson.Marshal(snap)
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal(text, &v) != nil {
			return
		}
	}
}

// Count is how far it is.
func (b *Busy) Count() BusyCount {
	return BusyCount{b.calls.Load(), b.failed.Load(), b.sip.sent.Load(), b.sip.answered.Load()}
}

// Close ends it and waits.
func (b *Busy) Close() {
	b.cancel()
	b.sink.Close()
	if b.sip != nil {
		b.sip.close()
	}
	b.wg.Wait()
	_ = b.api.CloseConference(context.Background(), busyConference)
}
