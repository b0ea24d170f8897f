package churn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab/load"
)

// caller is an organiser who calls members one after the other, at a rate, and reads in
// the event stream what becomes of it.
type caller struct {
	api     *client.Client
	want    bridge.Outcome
	members []seat
	wg      sync.WaitGroup

	mu      sync.Mutex
	ended   int
	failed  int
	why     map[string]int // of those that failed, by outcome or error code
	setup   *load.Histogram
	changed chan struct{} // cap 1: something ended
}

// seat is a member somewhere.
type seat struct{ conference, member string }

const conferenceSize = 20

// newCaller makes the conferences and invites everybody.
func newCaller(ctx context.Context, api *client.Client, members, perConference int, want bridge.Outcome) (*caller, error) {
	c := &caller{api: api, want: want, why: map[string]int{}, setup: new(load.Histogram), changed: make(chan struct{}, 1)}
	for len(c.members) < members {
		conf, err := api.CreateConference(ctx, "churn", bridge.VideoConference)
		if err != nil {
			return nil, fmt.Errorf("churn: %w", err)
		}
		var rows []bridge.MemberSpec
		for i := range min(perConference, members-len(c.members)) {
			rows = append(rows, bridge.MemberSpec{Number: fmt.Sprintf("+86138001%05d", len(c.members)+i), Name: "SIPp"})
		}
		results, err := api.AddMembers(ctx, conf.ID, rows)
		if err != nil {
			return nil, fmt.Errorf("churn: %w", err)
		}
		for _, r := range results {
			if r.Member == nil {
				return nil, fmt.Errorf("churn: a member was refused: %+v", r.Error)
			}
			c.members = append(c.members, seat{conf.ID, r.Member.ID})
		}
	}
	return c, nil
}

// listen reads the events of all conferences until ctx ends; a stream that the server
// ended is taken up behind its last event.
func (c *caller) listen(ctx context.Context) error {
	stream, err := c.api.Events(ctx, "", "")
	if err != nil {
		return fmt.Errorf("churn: %w", err)
	}
	c.wg.Go(func() {
		last := ""
		for ctx.Err() == nil {
			e, err := stream.Next()
			switch {
			case err == nil:
				if e.ID != "" {
					last = e.ID
				}
				if e.Type == "leg.ended" {
					c.onEnded(e)
				}
				continue
			case ctx.Err() != nil:
				return
			case errors.Is(err, io.EOF):
				stream.Close()
				if stream, err = c.api.Events(ctx, "", last); err == nil {
					continue
				}
			}
			c.fail("event stream")
			return
		}
	})
	c.wg.Go(func() { <-ctx.Done(); stream.Close() })
	return nil
}

func (c *caller) onEnded(e bridge.Event) {
	var l bridge.Leg
	err := json.Unmarshal(e.Data, &l)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
	switch {
	case err != nil:
		c.failed++
		c.why["event"]++
	case l.Outcome != c.want:
		c.failed++
		c.why[string(l.Outcome)]++
	}
	if err == nil && l.ConnectedAt != nil {
		c.setup.Add(l.ConnectedAt.Sub(l.StartedAt))
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// fail counts a call that never began.
func (c *caller) fail(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed++
	c.why[why]++
}

// place calls members in turn, rate a second, until d has passed; it returns how many
// calls it asked for.
func (c *caller) place(ctx context.Context, rate int, d time.Duration) int {
	every := time.Second / time.Duration(rate)
	start, n := time.Now(), 0
	clock := time.NewTimer(0)
	defer clock.Stop()
	for ; time.Duration(n)*every < d; n++ {
		clock.Reset(time.Until(start.Add(time.Duration(n) * every)))
		select {
		case <-clock.C:
		case <-ctx.Done():
			return n
		}
		s := c.members[n%len(c.members)]
		c.wg.Go(func() {
			results, err := c.api.Call(ctx, s.conference, bridge.CallRequest{Members: []string{s.member}})
			switch {
			case ctx.Err() != nil:
			case err != nil:
				c.fail("api: " + err.Error())
			case len(results) != 1 || results[0].Error != nil:
				c.fail(fmt.Sprintf("api: %+v", results))
			}
		})
	}
	return n
}

// await waits until that many legs have ended or could not begin.
func (c *caller) await(ctx context.Context, calls int, patience time.Duration) error {
	clock := time.NewTimer(patience)
	defer clock.Stop()
	for {
		c.mu.Lock()
		done := c.ended+c.never() >= calls
		left := calls - c.ended - c.never()
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-c.changed:
		case <-clock.C:
			return fmt.Errorf("churn: %d calls did not end", left)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// never is how many calls did not begin. c.mu is held.
func (c *caller) never() int {
	n := 0
	for why, count := range c.why {
		if len(why) > 4 && why[:4] == "api:" {
			n += count
		}
	}
	return n
}
