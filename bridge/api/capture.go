package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/fault"
	"sparkle/bridge/ladder"
	"sparkle/bridge/pcap"
)

// captureStart is how long a capture may take to say that it cannot be.
const captureStart = 500 * time.Millisecond

func (s strictServer) CaptureLeg(ctx context.Context, q CaptureLegRequestObject) (CaptureLegResponseObject, error) {
	seconds, limit, payload := 30, 20_000_000, deref(q.Params.Payload)
	if q.Params.Seconds != nil {
		seconds = *q.Params.Seconds
	}
	if q.Params.MaxBytes != nil {
		limit = *q.Params.MaxBytes
	}
	switch {
	case payload && !callOf(ctx).principal.Has(accounts.AdminScope):
		return nil, fail(http.StatusForbidden, "scope_missing", "what was said can be heard from it: payload needs the scope admin")
	case seconds < 1 || seconds > 600:
		return nil, fail(http.StatusBadRequest, "parameter_invalid", "seconds: want 1 to 600")
	case limit < 1000 || limit > 100_000_000:
		return nil, fail(http.StatusBadRequest, "parameter_invalid", "max_bytes: want 1000 to 100000000")
	}
	c := &capturing{s: s, who: actor(ctx), leg: q.Leg, payload: payload, limit: limit, batches: make(chan []bridge.MediaPacket, 16), done: make(chan error, 1)}
	c.ctx, c.cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	go fault.Safely(s.Log, "capture", func() {
		err := errors.New("capture: a fault of ours, which is in the log")
		defer func() { c.done <- err }()
		_, err = s.Service.CaptureMedia(c.ctx, c.who, c.leg, payload, func(p []bridge.MediaPacket) {
			select {
			case c.batches <- p: // full: the reader is slow, the tap counts what it loses
			case <-c.ctx.Done():
			}
		})
	})()
	start := time.NewTimer(captureStart)
	defer start.Stop()
	select {
	case err := <-c.done:
		if err != nil {
			c.cancel()
			return nil, err
		}
		c.done <- nil
	case c.first = <-c.batches:
	case <-start.C:
	}
	return c, nil
}

// capturing is the answer while it grows.
type capturing struct {
	s       strictServer
	ctx     context.Context
	cancel  context.CancelFunc
	who     bridge.Actor
	leg     string
	payload bool
	limit   int
	first   []bridge.MediaPacket
	batches chan []bridge.MediaPacket
	done    chan error

	written int
	told    int // SIP messages
}

var errCaptured = errors.New("api: the capture is as large as it may be")

func (c *capturing) VisitCaptureLegResponse(w http.ResponseWriter) error {
	defer c.cancel()
	w.Header().Set("Content-Type", pcap.ContentType)
	w.Header().Set("Content-Disposition", `attachment; filename="leg.pcap"`)
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // the server's own limits are for shorter requests
	out, err := pcap.NewWriter(&metered{w, c})
	next := c.first
	for err == nil {
		rc.SetWriteDeadline(time.Now().Add(writeLimit))
		if err = c.write(out, next); err == nil {
			err = rc.Flush()
		}
		if err != nil {
			break
		}
		select {
		case next = <-c.batches:
		case <-c.done:
			rc.SetWriteDeadline(time.Now().Add(writeLimit))
			for len(c.batches) > 0 {
				if c.write(out, <-c.batches) != nil {
					return nil
				}
			}
			_ = c.write(out, nil) // what SIP said last; the file ends here anyhow
			return nil
		}
	}
	c.cancel()
	<-c.done
	return nil // the file ends where it ends: there is nobody to tell
}

// write writes the SIP messages that are new, and packets.
func (c *capturing) write(out *pcap.Writer, packets []bridge.MediaPacket) error {
	if t, err := c.s.Service.LegTrace(c.ctx, c.who, c.leg, false); err == nil {
		for ; c.told < len(t.Messages); c.told++ {
			if err := ladder.WriteMessage(out, t.Messages[c.told], c.payload); err != nil {
				return err
			}
		}
	}
	for _, p := range packets {
		from, to := p.Local, p.Remote
		if !p.Sent {
			from, to = to, from
		}
		if !to.IsValid() || from.Addr().Unmap().Is4() != to.Addr().Unmap().Is4() {
			continue
		}
		if err := out.Cut(p.At, from, to, p.Data, p.Length); err != nil {
			return err
		}
	}
	return nil
}

// metered ends a capture that has become too large.
type metered struct {
	w http.ResponseWriter
	c *capturing
}

func (m *metered) Write(b []byte) (int, error) {
	if m.c.written += len(b); m.c.written > m.c.limit {
		return 0, errCaptured
	}
	return m.w.Write(b)
}
