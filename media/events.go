package media

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
)

const (
	levelsKept = 256     // Levels a slow reader may be behind; then the oldest go
	eventsKept = 1 << 16 // other events a reader may be behind; then it is cut off
)

// hub gives every subscriber every event, in order. publish never waits: what a
// reader has not taken yet stays in its own list (levelsKept, eventsKept).
type hub struct {
	lost atomic.Uint64

	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	wake chan struct{} // cap 1: coalesces

	mu     sync.Mutex
	list   []*mediapb.Event
	levels int
	end    error // what Events returns once list is empty
}

func newHub() *hub { return &hub{subs: map[*subscriber]struct{}{}} }

func (h *hub) publish(ev *mediapb.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if !s.add(ev, &h.lost) {
			delete(h.subs, s)
		}
	}
}

// add says whether the subscriber goes on.
func (s *subscriber) add(ev *mediapb.Event, lost *atomic.Uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ev.GetLevels() != nil {
		if s.levels >= levelsKept {
			for i, old := range s.list {
				if old.GetLevels() != nil {
					s.list = append(s.list[:i], s.list[i+1:]...)
					s.levels--
					lost.Add(1)
					break
				}
			}
		}
		s.levels++
	} else if len(s.list)-s.levels >= eventsKept {
		s.end = status.Error(codes.ResourceExhausted, "media: the reader of events is too slow")
		lost.Add(1)
		s.poke()
		return false
	}
	s.list = append(s.list, ev)
	s.poke()
	return true
}

func (s *subscriber) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) take() ([]*mediapb.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.list
	s.list, s.levels = nil, 0
	return l, s.end
}

func (h *hub) subscribe() *subscriber {
	s := &subscriber{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.end = errClosed
		s.poke()
		return s
	}
	h.subs[s] = struct{}{}
	return s
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

// close ends all subscriptions once they have read what is there.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		s.mu.Lock()
		s.end = errClosed
		s.mu.Unlock()
		s.poke()
		delete(h.subs, s)
	}
}

// run calls f for every event until ctx or the subscription ends.
func (s *subscriber) run(ctx context.Context, f func(*mediapb.Event)) error {
	for {
		select {
		case <-s.wake:
			list, end := s.take()
			for _, ev := range list {
				f(ev)
			}
			if end != nil {
				return end
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}
