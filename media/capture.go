package media

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
	"sparkle/media/tap"
)

// captureEvery is how often captured packets are handed over.
const captureEvery = 100 * time.Millisecond

// Capture implements API.
func (e *Engine) Capture(ctx context.Context, r *mediapb.CaptureRequest, f func(*mediapb.Captured)) error {
	le := e.findLeg(r.GetLeg())
	if le == nil {
		return status.Errorf(codes.NotFound, "media: no leg %q", r.GetLeg())
	}
	t := tap.New(r.Payload)
	ended, err := e.tapLeg(le, t)
	if err != nil {
		return err
	}
	defer e.untapLeg(le, ended)
	beat := time.NewTicker(captureEvery)
	defer beat.Stop()
	for {
		over := false
		select {
		case <-beat.C:
		case <-ctx.Done():
			over = true
		case <-ended:
			over = true
		case <-e.stop:
			return errClosed
		}
		batch := &mediapb.Captured{Lost: t.Lost()}
		for range len(t.C) {
			p := <-t.C
			batch.Packets = append(batch.Packets, &mediapb.CapturedPacket{
				At: p.At.UnixNano(), Sent: p.Sent, Rtcp: p.RTCP, Local: p.Local.String(), Remote: p.Remote.String(),
				Length: uint32(p.Len), Data: append([]byte(nil), p.Data()...)})
		}
		if len(batch.Packets) > 0 {
			f(batch)
		}
		if over {
			return nil
		}
	}
}

func (e *Engine) tapLeg(le *legEntry, t *tap.Tap) (ended chan struct{}, err error) {
	le.mu.Lock()
	defer le.mu.Unlock()
	switch {
	case le.closed:
		return nil, status.Errorf(codes.NotFound, "media: no leg %q", le.id)
	case le.tapped != nil:
		return nil, status.Errorf(codes.AlreadyExists, "media: leg %q is being captured", le.id)
	}
	ended = make(chan struct{})
	le.tapped = ended
	if err := le.re.w.do(func() { le.leg.Load().tap = t }); err != nil {
		le.tapped = nil
		return nil, err
	}
	if e.pictures != nil {
		e.pictures.Tap(le.id, t)
	}
	return ended, nil
}

func (e *Engine) untapLeg(le *legEntry, ended chan struct{}) {
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.tapped != ended { // the leg was closed
		return
	}
	le.tapped = nil
	_ = le.re.w.do(func() { le.leg.Load().tap = nil }) // an engine that has closed taps nothing either
	if e.pictures != nil {
		e.pictures.Tap(le.id, nil)
	}
}
