// Package storetest is what every bridge.Store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"sparkle/bridge"
)

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 891, time.UTC)

// Conference is a conference with every durable field set.
func Conference(n int) bridge.Conference {
	return bridge.Conference{ID: fmt.Sprintf("conf_%04d", n), Name: "Élan 会议", Type: bridge.VideoConference,
		Owner: "acc_1", CreatedAt: t0, UpdatedAt: t0.Add(time.Second), PIN: fmt.Sprintf("%06d", n), Alias: fmt.Sprintf("+861082%06d", n),
		JoinPolicy: bridge.JoinListed, WhoMayRefer: bridge.ReferModerators, AnswerConfirm: true, Rejoin: true, AdHoc: true, DialLimit: "+86 +852",
		Layout: bridge.LayoutSwitched}
}

// Member is a member with every durable field set.
func Member(conference string, n int) bridge.Member {
	return bridge.Member{ID: fmt.Sprintf("mbr_%s_%04d", conference, n), Conference: conference, Number: fmt.Sprintf("+8613800%05d", n),
		Name: "王芳", Role: "speaker", State: bridge.Idle, Muted: true, Deaf: true, CreatedAt: t0}
}

// EndedLeg is a leg that was answered and left.
func EndedLeg(m bridge.Member, n int) bridge.Leg {
	started, ended := t0.Add(time.Duration(n)*time.Minute), t0.Add(time.Duration(n)*time.Minute+time.Second)
	return bridge.Leg{ID: fmt.Sprintf("leg_%04d", n), Member: m.ID, Conference: m.Conference, State: bridge.Ended, Media: bridge.Media{VideoState: bridge.VideoNone},
		Since: ended, Direction: "outbound", Outcome: bridge.Left, Text: &bridge.Text{Zh: "已离开。", En: "Left."},
		SIP: &bridge.SIPResult{Status: 200, Reason: "OK", Q850: 16}, StartedAt: started, ConnectedAt: &started, EndedAt: &ended,
		CallID: "c", ICID: "i", Timeline: []bridge.TimelineEntry{{At: started, What: "state", Text: "dialing"}}}
}

// Run runs the suite. open returns an empty store and a function that closes it and
// opens the same data again.
func Run(t *testing.T, open func(*testing.T) (s bridge.Store, reopen func() bridge.Store)) {
	ctx := context.Background()
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	load := func(t *testing.T, s bridge.Store) bridge.Saved {
		t.Helper()
		out, err := s.Load(ctx)
		must(t, err)
		return out
	}
	t.Run("everything comes back after a restart", func(t *testing.T) {
		s, reopen := open(t)
		c, m1, m2 := Conference(1), Member("conf_0001", 1), Member("conf_0001", 2)
		must(t, s.PutConference(ctx, c, 7))
		must(t, s.PutMembers(ctx, m1, m2))
		s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(m1, 1), Number: m1.Number})
		live := EndedLeg(m2, 2)
		live.Outcome, live.EndedAt, live.State = "", nil, bridge.Connected
		s.QueueLeg(bridge.LegRecord{Leg: live, Number: m2.Number})
		s.QueueSeq(c.ID, 99)
		s.QueueAlive(t0)
		s.QueueAlive(t0.Add(time.Second))
		s.QueueAudit(bridge.AuditRecord{At: t0, Actor: "acc_1", Action: "member.call", Target: m1.ID, Result: "ok"})
		m1.LastOutcome = bridge.OutcomeOf(EndedLeg(m1, 1))
		want := bridge.Saved{
			Conferences: []bridge.SavedConference{{Conference: c, Seq: 99, Members: []bridge.Member{m1, m2}}},
			Live:        []bridge.LegRecord{{Leg: live, Number: m2.Number}},
			Alive:       t0.Add(time.Second),
		}
		if got := load(t, reopen()); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("put changes, drop forgets, history stays", func(t *testing.T) {
		s, reopen := open(t)
		c, m := Conference(1), Member("conf_0001", 1)
		must(t, s.PutConference(ctx, c, 7))
		must(t, s.PutMembers(ctx, m))
		s.QueueSeq(c.ID, 50)
		s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(m, 1), Number: m.Number})
		s = reopen()
		c.Name, m.Name, m.Muted, m.Role = "new", "neu", false, "host"
		c.Layout = bridge.LayoutMosaic
		c.PIN, c.Alias, c.JoinPolicy, c.WhoMayRefer, c.AnswerConfirm, c.Rejoin = "654321", "", bridge.JoinOpen, bridge.ReferNone, false, false
		must(t, s.PutConference(ctx, c, 1))
		must(t, s.PutMembers(ctx, m))
		got := load(t, s).Conferences[0]
		if got.Conference != c || got.Seq != 50 {
			t.Errorf("conference %+v, seq %d; want %+v, 50", got.Conference, got.Seq, c)
		}
		if g := got.Members[0]; g.Name != "neu" || g.Muted || g.Role != "host" || g.LastOutcome == nil {
			t.Errorf("member %+v", g)
		}
		must(t, s.DropMember(ctx, m.ID))
		must(t, s.DropMember(ctx, m.ID))
		if got := load(t, s).Conferences[0].Members; len(got) != 0 {
			t.Errorf("members after drop: %v", got)
		}
		must(t, s.PutMembers(ctx, m))
		must(t, s.DropConference(ctx, c.ID))
		must(t, s.DropConference(ctx, c.ID))
		if got := load(t, s); len(got.Conferences) != 0 {
			t.Errorf("conferences after drop: %v", got.Conferences)
		}
		if legs, _, err := s.Legs(ctx, c.ID, m.ID, 10, ""); err != nil || len(legs) != 1 {
			t.Errorf("legs after drop: %v, %v", legs, err)
		}
	})
	t.Run("members are all or none", func(t *testing.T) {
		s, _ := open(t)
		must(t, s.PutConference(ctx, Conference(1), 1))
		twin := Member("conf_0001", 2)
		twin.Number = Member("conf_0001", 1).Number
		if err := s.PutMembers(ctx, Member("conf_0001", 1), twin); err == nil {
			t.Error("the same number twice in a conference was taken")
		}
		if err := s.PutMembers(ctx, Member("conf_none", 1)); err == nil {
			t.Error("a member without a conference was taken")
		}
		if got := load(t, s).Conferences[0].Members; len(got) != 0 {
			t.Errorf("members %v, want none", got)
		}
	})
	t.Run("writes at once do not disturb each other", func(t *testing.T) {
		s, reopen := open(t)
		must(t, s.PutConference(ctx, Conference(1), 1))
		var wg sync.WaitGroup
		errs := make([]error, 100)
		for i := range errs {
			wg.Go(func() {
				m := Member("conf_0001", i)
				if i%10 == 0 {
					m.Conference = "conf_none" // fails, alone
				}
				errs[i] = s.PutMembers(ctx, m)
			})
		}
		wg.Wait()
		for i, err := range errs {
			if (err != nil) != (i%10 == 0) {
				t.Errorf("write %d: %v", i, err)
			}
		}
		if got := load(t, reopen()).Conferences[0].Members; len(got) != 90 {
			t.Errorf("%d members, want 90", len(got))
		}
	})
	t.Run("legs page by cursor, newest first, queued ones too", func(t *testing.T) {
		s, reopen := open(t)
		m := Member("conf_0001", 1)
		for i := range 5 {
			s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(m, i)})
		}
		s = reopen()
		for i := 5; i < 7; i++ {
			s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(m, i)})
		}
		s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(Member("conf_0001", 2), 8)})
		var got []string
		cursor := ""
		for pages := 0; ; pages++ {
			items, next, err := s.Legs(ctx, m.Conference, m.ID, 3, cursor)
			must(t, err)
			for _, l := range items {
				got = append(got, l.ID)
			}
			if cursor = next; next == "" || pages > 5 {
				break
			}
		}
		want := []string{"leg_0006", "leg_0005", "leg_0004", "leg_0003", "leg_0002", "leg_0001", "leg_0000"}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if items, next, err := s.Legs(ctx, m.Conference, m.ID, 7, ""); len(items) != 7 || next != "" || err != nil {
			t.Errorf("one whole page: %d, %q, %v", len(items), next, err)
		}
		if items, _, err := s.Legs(ctx, "conf_other", m.ID, 7, ""); len(items) != 0 || err != nil {
			t.Errorf("another conference's legs: %v, %v", items, err)
		}
	})
	t.Run("a leg goes from the lobby to its conference and member", func(t *testing.T) {
		s, reopen := open(t)
		lobby, m := Member("conf_lobby", 0), Member("conf_0001", 1)
		lobby.ID = ""
		s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(lobby, 1)})
		s = reopen()
		s.QueueLeg(bridge.LegRecord{Leg: EndedLeg(m, 1), Number: m.Number})
		s = reopen()
		if items, _, err := s.Legs(ctx, m.Conference, m.ID, 7, ""); len(items) != 1 || err != nil {
			t.Errorf("the member's legs: %v, %v", items, err)
		}
	})
	t.Run("a caller who gives up is not kept", func(t *testing.T) {
		s, _ := open(t)
		done, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.PutConference(done, Conference(1), 1); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
