package bridge

import (
	"fmt"
	"sync"
	"time"
)

// hub keeps the last events and hands them to subscribers. Publishing never waits: a
// subscriber whose channel is full is closed, and resumes by id.
type hub struct {
	mu      sync.Mutex
	counter uint64   // of the newest id
	ring    []routed // what can be replayed: at most ringSize, at most ringAge old
	before  string   // id of the newest event that is no longer in ring
	subs    map[*subscriber]struct{}
	closed  bool
	slow    uint64 // subscribers closed for being slow
}

// ringSize and ringAge bound what is replayed; subscriberRoom is how far behind a
// reader may fall: a call of a full conference is some thousand events.
const (
	ringSize       = 10_000
	ringAge        = 10 * time.Minute
	subscriberRoom = 4096
)

// routed is an event and whom it is for. Owner "" is for everybody.
type routed struct {
	Event
	owner string
}

type subscriber struct {
	ch         chan Event // cap subscriberRoom and what is replayed; full: closed
	conference string
	sees       func(owner string) bool
	held       []Event // while its snapshot is being made
	holding    bool
}

func newHub(now time.Time) *hub {
	h := &hub{subs: map[*subscriber]struct{}{}}
	h.before = h.id(now) // ids of an earlier process are older than this one
	return h
}

// id is larger than every id before it, also when the clock is set back.
func (h *hub) id(now time.Time) string {
	h.counter = max(h.counter+1, uint64(now.UnixMicro()))
	return fmt.Sprintf("evt_%016x", h.counter)
}

// publish stamps and delivers events. Events of type talkers are for who is listening
// now: they get no id and are not kept.
func (h *hub) publish(now time.Time, events []routed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	for _, e := range events {
		if e.Type != "talkers" {
			e.ID = h.id(now)
			h.ring = append(h.ring, e)
		}
		for s := range h.subs {
			if s.wants(e) {
				h.deliver(s, e.Event)
			}
		}
	}
	drop := max(0, len(h.ring)-ringSize)
	for drop < len(h.ring) && now.Sub(h.ring[drop].Time) > ringAge {
		drop++
	}
	if drop > 0 {
		h.before = h.ring[drop-1].ID
		clear(h.ring[:drop]) // for the collector: append reuses the array's tail only
		h.ring = h.ring[drop:]
	}
}

func (s *subscriber) wants(e routed) bool {
	if s.conference != "" && e.Conference != s.conference && e.Conference != "" {
		return false
	}
	return e.owner == "" || s.sees(e.owner)
}

// deliver is called with mu held.
func (h *hub) deliver(s *subscriber, e Event) {
	if s.holding {
		if len(s.held) < subscriberRoom {
			s.held = append(s.held, e)
			return
		}
	} else {
		select {
		case s.ch <- e:
			return
		default:
		}
	}
	h.slow++
	h.remove(s)
}

func (h *hub) remove(s *subscriber) {
	if _, ok := h.subs[s]; ok {
		delete(h.subs, s)
		close(s.ch)
	}
}

// subscribe adds a subscriber. It replays what came after the event id after if it
// can; else replayed is false, events are held back, and the caller makes a snapshot
// and calls start with it. at is the newest id now.
func (h *hub) subscribe(conference, after string, sees func(string) bool) (s *subscriber, replayed bool, at string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, "", errClosing()
	}
	s = &subscriber{conference: conference, sees: sees}
	at = h.before
	if n := len(h.ring); n > 0 {
		at = h.ring[n-1].ID
	}
	from := -1
	if after == h.before {
		from = 0
	}
	for i := len(h.ring) - 1; i >= 0 && from < 0 && h.ring[i].ID >= after; i-- {
		if h.ring[i].ID == after {
			from = i + 1
		}
	}
	if after == "" || from < 0 {
		s.ch, s.holding = make(chan Event, subscriberRoom), true
		h.subs[s] = struct{}{}
		return s, false, at, nil
	}
	s.ch = make(chan Event, subscriberRoom+len(h.ring)-from)
	for _, e := range h.ring[from:] {
		if s.wants(e) {
			s.ch <- e.Event
		}
	}
	h.subs[s] = struct{}{}
	return s, true, at, nil
}

// start gives a held subscriber its snapshot and then what came since, without what
// the snapshot has already: seen is its sequence number of each conference.
func (h *hub) start(s *subscriber, snapshot Event, seen map[string]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.subs[s]; !ok {
		return // closed or too slow meanwhile
	}
	s.holding = false
	h.deliver(s, snapshot)
	for _, e := range s.held {
		if _, ok := h.subs[s]; !ok {
			return
		}
		if e.Seq == 0 || e.Seq > seen[e.Conference] {
			h.deliver(s, e)
		}
	}
	s.held = nil
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(s)
}

// close ends every subscription.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		h.remove(s)
	}
}

func errClosing() *Error {
	return &Error{Kind: Unavailable, Code: "shutting_down", Detail: "the server is shutting down"}
}
