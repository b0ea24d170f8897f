package bridge_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sparkle/bridge"
)

// memory is a bridge.Store in memory.
type memory struct {
	mu    sync.Mutex
	saved map[string]*bridge.SavedConference
	legs  map[string]bridge.LegRecord
	audit []bridge.AuditRecord
	alive time.Time
	err   error // of every acknowledged write
}

func newMemory() *memory {
	return &memory{saved: map[string]*bridge.SavedConference{}, legs: map[string]bridge.LegRecord{}}
}

func (s *memory) Load(context.Context) (bridge.Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := bridge.Saved{Alive: s.alive}
	for _, c := range s.saved {
		k := *c
		k.Members = slices.Clone(c.Members)
		for i := range k.Members {
			for _, l := range s.legs {
				if o := bridge.OutcomeOf(l.Leg); l.Leg.Member == k.Members[i].ID && o != nil {
					if k.Members[i].LastOutcome == nil || k.Members[i].LastOutcome.At.Before(o.At) {
						k.Members[i].LastOutcome = o
					}
				}
			}
		}
		out.Conferences = append(out.Conferences, k)
	}
	slices.SortFunc(out.Conferences, func(a, b bridge.SavedConference) int { return strings.Compare(a.Conference.ID, b.Conference.ID) })
	for _, l := range s.legs {
		if l.Leg.EndedAt == nil {
			out.Live = append(out.Live, l)
		}
	}
	return out, nil
}

func (s *memory) PutConference(_ context.Context, c bridge.Conference, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	c.State, c.Members, c.Ringing, c.InRoom = "", 0, 0, 0
	if old := s.saved[c.ID]; old != nil {
		old.Conference = c
		return nil
	}
	s.saved[c.ID] = &bridge.SavedConference{Conference: c, Seq: seq}
	return nil
}

func (s *memory) DropConference(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		delete(s.saved, id)
	}
	return s.err
}

func (s *memory) PutMembers(_ context.Context, members ...bridge.Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	seen := map[string]bool{}
	for _, m := range members {
		if s.saved[m.Conference] == nil || seen[m.Number] {
			return fmt.Errorf("member %s breaks a rule", m.ID)
		}
		seen[m.Number] = true
	}
	for _, m := range members {
		c := s.saved[m.Conference]
		m.Leg, m.LastOutcome, m.State = nil, nil, bridge.Idle
		if i := slices.IndexFunc(c.Members, func(x bridge.Member) bool { return x.ID == m.ID }); i >= 0 {
			c.Members[i] = m
		} else {
			c.Members = append(c.Members, m)
		}
	}
	return nil
}

func (s *memory) DropMember(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for _, c := range s.saved {
		c.Members = slices.DeleteFunc(c.Members, func(x bridge.Member) bool { return x.ID == id })
	}
	return nil
}

func (s *memory) QueueLeg(r bridge.LegRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.legs[r.Leg.ID] = r
}

func (s *memory) QueueAudit(r bridge.AuditRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit = append(s.audit, r)
}

func (s *memory) QueueAlive(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive = at
}

func (s *memory) QueueSeq(id string, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.saved[id]; c != nil {
		c.Seq = seq
	}
}

func (s *memory) Legs(_ context.Context, conf, member string, limit int, cursor string) ([]bridge.Leg, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bridge.Leg
	for _, r := range s.legs {
		if r.Leg.Conference == conf && r.Leg.Member == member && (cursor == "" || r.Leg.ID < cursor) {
			out = append(out, r.Leg)
		}
	}
	slices.SortFunc(out, func(a, b bridge.Leg) int { return strings.Compare(b.ID, a.ID) })
	if len(out) > limit {
		return out[:limit], out[limit-1].ID, nil
	}
	return out, "", nil
}

// ledger is a bridge.Charger in memory.
type ledger struct {
	mu      sync.Mutex
	records []bridge.LegRecord
}

func (l *ledger) Charge(r bridge.LegRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

func (s *memory) Healthy() error { return nil }
