package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/media/mediapb"
	"sparkle/sip"
)

func code(err error) string {
	var own *bridge.Error
	if errors.As(err, &own) {
		return own.Code
	}
	return fmt.Sprint(err)
}

func TestBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		ctx := t.Context()
		stranger := bridge.Actor{Account: "acc_2"}
		limited := bridge.Actor{Account: "acc_1", DialPrefixes: []string{"+44", ""}}
		if err := h.add("Ann", "voice"); err != nil {
			t.Fatal(err)
		}
		create := func(name string, kind bridge.ConferenceType) error {
			_, err := h.b.CreateConference(ctx, organiser, bridge.ConferenceSpec{Name: name, Type: kind})
			return err
		}
		add := func(s bridge.MemberSpec) error {
			res, err := h.b.AddMembers(ctx, organiser, h.conf, []bridge.MemberSpec{s})
			if err != nil || res[0].Err == nil {
				return err
			}
			return res[0].Err
		}
		call := func(a bridge.Actor, r bridge.CallRequest) error {
			res, err := h.b.Call(ctx, a, h.conf, r)
			if err == nil && len(res) > 0 && res[0].Err != nil {
				return res[0].Err
			}
			return err
		}
		_, missing := h.b.Conference(ctx, organiser, "conf_none")
		_, foreign := h.b.Conference(ctx, stranger, h.conf)
		_, _, legs := h.b.Legs(ctx, organiser, h.conf, "mbr_none", 0, "")
		_, noPicture := h.b.Preview(ctx, organiser, h.conf)
		empty := ""
		_, rename := h.b.UpdateConference(ctx, organiser, h.conf, bridge.ConferencePatch{Name: &empty})
		_, role := h.b.UpdateMember(ctx, organiser, h.conf, h.ids["Ann"], bridge.MemberPatch{Role: &empty})
		_, sub := h.b.Subscribe(ctx, stranger, h.conf, "")
		for _, tt := range []struct {
			name string
			err  error
			want string
		}{
			{"no name", create(" ", "video"), "name_required"},
			{"long name", create(strings.Repeat("会", 101), "video"), "name_invalid"},
			{"control characters", create("a\x00b", "video"), "name_invalid"},
			{"not UTF-8", create("\xff", "video"), "name_invalid"},
			{"type", create("a", "holo"), "type_invalid"},
			{"unknown conference", missing, "conference_not_found"},
			{"another's conference", foreign, "not_conference_owner"},
			{"another's events", sub, "not_conference_owner"},
			{"another's delete", h.b.DeleteConference(ctx, stranger, h.conf), "not_conference_owner"},
			{"letters for a number", add(bridge.MemberSpec{Number: "call me"}), "number_invalid"},
			{"national number", add(bridge.MemberSpec{Number: "13800001234"}), "number_invalid"},
			{"emergency", add(bridge.MemberSpec{Number: "112"}), "dial_not_allowed"},
			{"emergency abroad", add(bridge.MemberSpec{Number: "+86 110"}), "dial_not_allowed"},
			{"role", add(bridge.MemberSpec{Number: "+8613900000000", Role: "king"}), "role_invalid"},
			{"twice, typed otherwise", add(bridge.MemberSpec{Number: "0086 138-0000 0001"}), "member_exists"},
			{"no targets", call(organiser, bridge.CallRequest{}), "targets_required"},
			{"targets", call(organiser, bridge.CallRequest{Targets: "everybody"}), "targets_invalid"},
			{"unknown member", call(organiser, bridge.CallRequest{Members: []string{"mbr_none"}}), "member_not_found"},
			{"ring for ever", call(organiser, bridge.CallRequest{Targets: "all", RingTimeout: time.Hour}), "ring_timeout_invalid"},
			{"media", call(organiser, bridge.CallRequest{Targets: "all", Media: "smell"}), "media_invalid"},
			{"video in an audio conference", call(organiser, bridge.CallRequest{Targets: "all", Media: "video"}), "media_invalid"},
			{"dial prefix", call(limited, bridge.CallRequest{Targets: "all"}), "dial_not_allowed"},
			{"hang up nobody", h.b.HangupMember(ctx, organiser, h.conf, "mbr_none"), "member_not_found"},
			{"remove nobody", h.b.RemoveMember(ctx, organiser, h.conf, "mbr_none"), "member_not_found"},
			{"legs of nobody", legs, "member_not_found"},
			{"no picture", noPicture, "no_picture"},
			{"rename to nothing", rename, "name_required"},
			{"no role", role, "role_invalid"},
		} {
			if got := code(tt.err); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		if n := h.net.invites(); n != 0 {
			t.Errorf("%d INVITEs were sent", n)
		}
		for _, a := range h.mem.audit {
			if strings.Contains(fmt.Sprint(a), "138000") {
				t.Errorf("a number in the audit: %+v", a)
			}
		}
		if a := h.mem.audit[0]; a.Action != "conference.create" || a.Actor != "acc_1" || a.Remote != "192.0.2.1" || a.Result != "ok" || a.Target != h.conf {
			t.Errorf("audit %+v", a)
		}
	})
}

func TestStorageFullChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		h.add("Ann", "video")
		h.run("call all")
		h.wait(5 * time.Second)
		h.take()
		h.mem.mu.Lock()
		h.mem.err = &bridge.Error{Kind: bridge.Full, Code: "storage_full"}
		h.mem.mu.Unlock()
		for _, line := range []string{"mute Ann", "remove Ann", "delete", "member Ben video"} {
			if got := code(h.run(line)); got != "storage_full" {
				t.Errorf("%s: %s", line, got)
			}
		}
		if got := h.take(); got != "" {
			t.Errorf("something happened: %s", got)
		}
		if m := h.member("Ann"); m.State != bridge.InConference || m.Muted {
			t.Errorf("the call is not what it was: %+v", m)
		}
		if err := h.run("hangup Ann"); err != nil {
			t.Error(err)
		}
	})
}

// What is durable is there after a restart; legs that were live are closed.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		for _, l := range []string{"member Ann video", "member Ben busy", "member Cai no-answer", "mute Ann", "call all", "after 7s"} {
			if err := h.run(l); err != nil {
				t.Fatal(err)
			}
		}
		before := h.events[len(h.events)-1].Seq
		old, oldEvents := h.b, h.events
		// The new process reads what the old one had written when it died; the old one is
		// then closed only so that its goroutines end.
		h.mem.mu.Lock()
		disk := newMemory()
		for id, c := range h.mem.saved {
			k := *c
			k.Members = slices.Clone(c.Members)
			disk.saved[id] = &k
		}
		for id, l := range h.mem.legs {
			disk.legs[id] = l
		}
		disk.alive = h.mem.alive
		h.mem.mu.Unlock()
		if disk.alive.IsZero() {
			t.Fatal("nobody has noted that the process lives")
		}
		h.stop()
		time.Sleep(time.Hour) // nobody talks then
		old.Close(context.Background())
		h.mem, h.net, h.eng = disk, newNetwork(), newEngine()
		h.bills.records = nil
		h.boot()
		defer h.close()
		h.listen()
		synctest.Wait()
		for name, want := range map[string]bridge.Outcome{"Ann": bridge.Dropped, "Ben": bridge.Busy, "Cai": bridge.NetworkError} {
			m := h.member(name)
			if m.State != bridge.Idle || m.Leg != nil || m.LastOutcome == nil || m.LastOutcome.Outcome != want || m.LastOutcome.Text.En == "" {
				t.Errorf("%s: %+v, last %+v", name, m, m.LastOutcome)
			}
			if m.Muted != (name == "Ann") {
				t.Errorf("%s: muted %v", name, m.Muted)
			}
			legs, _, err := h.b.Legs(t.Context(), organiser, h.conf, h.ids[name], 0, "")
			if err != nil || len(legs) != 1 || legs[0].State != bridge.Ended || legs[0].EndedAt == nil {
				t.Errorf("%s: legs %+v, %v", name, legs, err)
			}
		}
		var charged []bridge.Outcome // what the dead process had not
		for _, r := range h.bills.records {
			charged = append(charged, r.Leg.Outcome)
			if !r.Recovered || !r.Leg.EndedAt.Equal(disk.alive) || r.Leg.Reason != "server_restart" {
				t.Errorf("recovered %v, ended %v (%s), known to live until %v", r.Recovered, r.Leg.EndedAt, r.Leg.Reason, disk.alive)
			}
		}
		if slices.Sort(charged); !slices.Equal(charged, []bridge.Outcome{bridge.Dropped, bridge.NetworkError}) {
			t.Errorf("charged after the restart: %v", charged)
		}
		if err := h.run("unmute Ann"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		last := h.events[len(h.events)-1]
		if last.Seq <= before || last.ID <= oldEvents[len(oldEvents)-1].ID {
			t.Errorf("events went back: seq %d after %d", last.Seq, before)
		}
	})
}

func TestThreeHundredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		specs := make([]bridge.MemberSpec, 300)
		for i := range specs {
			specs[i].Number = fmt.Sprintf("+86139%08d", i)
			h.net.fate[specs[i].Number] = []string{"video", "voice", "busy"}[i%3]
		}
		if _, err := h.b.AddMembers(t.Context(), organiser, h.conf, specs); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		res, err := h.b.Call(t.Context(), organiser, h.conf, bridge.CallRequest{Targets: "all"})
		if err != nil || len(res) != 300 || !time.Now().Equal(begin) {
			t.Fatalf("%d results, %v, after %v", len(res), err, time.Since(begin))
		}
		for _, r := range res {
			if r.Err != nil || r.Leg.State != bridge.Dialing {
				t.Fatalf("%+v", r)
			}
		}
		h.wait(5 * time.Second)
		c, _ := h.b.Conference(t.Context(), organiser, h.conf)
		if c.Members != 300 || c.InRoom != 200 || c.Ringing != 0 || c.State != "active" {
			t.Errorf("%+v", c)
		}
		if err := h.b.HangupAll(t.Context(), organiser, h.conf); err != nil {
			t.Fatal(err)
		}
		h.wait(time.Second)
		if c, _ = h.b.Conference(t.Context(), organiser, h.conf); c.InRoom != 0 || c.State != "idle" {
			t.Errorf("%+v", c)
		}
		checkHistory(t, h)
	})
}

// A leg whose INVITE waits for the carrier's limits says so while it does, and why it
// never left.
func TestLegInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		if err := h.add("Ann", "queued"); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := h.b.Call(t.Context(), organiser, h.conf, bridge.CallRequest{Targets: "all"}); err != nil {
			t.Fatal(err)
		}
		h.wait(time.Second)
		l := h.member("Ann").Leg
		if l == nil || l.State != bridge.Dialing || l.Queue == nil || l.Queue.Ahead != 3 || l.Queue.Until.Sub(begin).Round(time.Second) != 2*time.Second {
			t.Fatalf("leg %+v", l)
		}
		h.wait(5 * time.Second)
		if o := h.member("Ann").LastOutcome; o == nil || o.Outcome != bridge.NetworkError || !strings.Contains(o.Text.En, "lines") {
			t.Errorf("outcome %+v", o)
		}
		legs, _, err := h.b.Legs(t.Context(), organiser, h.conf, h.ids["Ann"], 1, "")
		if err != nil || len(legs) != 1 || legs[0].Queue != nil ||
			!slices.ContainsFunc(legs[0].Timeline, func(e bridge.TimelineEntry) bool { return e.What == "queued" }) {
			t.Errorf("history %+v, %v", legs, err)
		}
	})
}

// Resuming replays what was missed, without a gap; an unknown id gets a snapshot.
func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		ctx := t.Context()
		other, err := h.b.CreateConference(ctx, bridge.Actor{Account: "acc_2"}, bridge.ConferenceSpec{Name: "x", Type: "audio"})
		if err != nil {
			t.Fatal(err)
		}
		next := func(s *bridge.Subscription) bridge.Event {
			t.Helper()
			synctest.Wait()
			select {
			case e, ok := <-s.C:
				if !ok {
					t.Fatal("the stream ended")
				}
				return e
			default:
				t.Fatal("no event")
			}
			return bridge.Event{}
		}
		none := func(s *bridge.Subscription) {
			t.Helper()
			synctest.Wait()
			select {
			case e := <-s.C:
				t.Fatalf("unexpected %s", e.Type)
			default:
			}
		}
		s, err := h.b.Subscribe(ctx, organiser, "", "")
		if err != nil {
			t.Fatal(err)
		}
		first := next(s)
		var snap struct {
			Conferences []struct {
				Conference bridge.Conference
				Members    []bridge.Member
				Seq        uint64
			}
			Attachments []struct{ Name, Identity string }
		}
		if err := json.Unmarshal(first.Data, &snap); err != nil || first.Type != "snapshot" {
			t.Fatal(first.Type, err)
		}
		if len(snap.Conferences) != 1 || snap.Conferences[0].Conference.ID != h.conf || len(snap.Attachments) != 1 {
			t.Errorf("snapshot %s", first.Data)
		}
		if id := snap.Attachments[0].Identity; id != "sip:+86138****1234@ims.example" {
			t.Errorf("identity %q is not masked", id)
		}
		if err := h.add("Ann", "video"); err != nil {
			t.Fatal(err)
		}
		added := next(s)
		changed := next(s) // conference.updated: one member more
		if added.Type != "member.added" || changed.Type != "conference.updated" || changed.Seq != added.Seq+1 || changed.ID <= added.ID {
			t.Errorf("%s %d, %s %d", added.Type, added.Seq, changed.Type, changed.Seq)
		}
		if _, err := h.b.AddMembers(ctx, bridge.Actor{Account: "acc_2"}, other.ID, []bridge.MemberSpec{{Number: "+447700900123"}}); err != nil {
			t.Fatal(err)
		}
		none(s) // not ours to see
		s.Close()
		s.Close()
		if _, open := <-s.C; open {
			t.Error("closed, and still an event")
		}

		r, err := h.b.Subscribe(ctx, organiser, h.conf, added.ID)
		if err != nil {
			t.Fatal(err)
		}
		if e := next(r); e.ID != changed.ID || e.Seq != changed.Seq {
			t.Errorf("resumed with %+v", e)
		}
		none(r)
		r, _ = h.b.Subscribe(ctx, organiser, h.conf, first.ID)
		if e := next(r); e.ID != added.ID {
			t.Errorf("resumed after the snapshot with %s", e.Type)
		}
		for _, id := range []string{"evt_0000000000000001", "nonsense", "zzz"} {
			r, _ = h.b.Subscribe(ctx, organiser, h.conf, id)
			if e := next(r); e.Type != "snapshot" || e.Seq != changed.Seq || e.ID < changed.ID {
				t.Errorf("after %q: %s seq %d", id, e.Type, e.Seq)
			}
		}

		// Talkers: at most five a second, no seq, not replayed.
		if err := h.run("call all"); err != nil {
			t.Fatal(err)
		}
		h.wait(5 * time.Second)
		live, cancel := context.WithCancel(ctx)
		r, _ = h.b.Subscribe(live, organiser, h.conf, "")
		at := next(r)
		for range 50 {
			h.eng.events <- &mediapb.Event{Conference: h.conf, What: &mediapb.Event_Levels{Levels: &mediapb.Levels{
				Levels: []*mediapb.Level{{Leg: h.member("Ann").Leg.ID, Talking: true, Dbov: -20}}}}}
			h.wait(20 * time.Millisecond)
		}
		n := 0
		for done := false; !done; {
			select {
			case e := <-r.C:
				if e.Type == "talkers" && e.Seq == 0 && e.ID == "" && strings.Contains(string(e.Data), h.ids["Ann"]) {
					n++
				}
			default:
				done = true
			}
		}
		if n < 4 || n > 6 {
			t.Errorf("%d talkers events in a second, want about 5", n)
		}
		again, _ := h.b.Subscribe(ctx, organiser, h.conf, at.ID)
		for done := false; !done; {
			synctest.Wait()
			select {
			case e := <-again.C:
				if e.Type == "talkers" {
					t.Error("talkers were replayed")
				}
			default:
				done = true
			}
		}
		cancel() // ends the stream
		synctest.Wait()
		if _, open := <-r.C; open {
			t.Error("the stream outlives its context")
		}
	})
}

func TestSlowReaderIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		h.add("Ann", "video")
		s, err := h.b.Subscribe(t.Context(), organiser, h.conf, "")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5000 {
			if err := h.run([]string{"mute Ann", "unmute Ann"}[i%2]); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for range s.C { // ends because it was closed
			n++
		}
		if n == 0 || n > 5000 {
			t.Errorf("%d events before the close", n)
		}
		if got := h.b.Stats().SlowReaders; got != 1 {
			t.Errorf("%d slow readers counted", got)
		}
	})
}

func TestReadyAndStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		if r := h.b.Ready(t.Context()); len(r) != 0 {
			t.Errorf("not ready: %v", r)
		}
		for _, l := range []string{"member Ann video", "member Ben video-status=488", "member Cai busy", "call all", "after 5s"} {
			if err := h.run(l); err != nil {
				t.Fatal(err)
			}
		}
		s := h.b.Stats()
		if s.Members[bridge.InConference] != 2 || s.Outcomes[bridge.Busy] != 1 || s.VideoFallback["rejected_488"] != 1 || s.Setup.Count != 2 ||
			s.Legs[bridge.LegKey{State: bridge.Connected, Media: "video"}] != 1 || s.RTP["audio"].Received != 20+50 { // the busy one, as CloseLeg said of it
			t.Errorf("%+v", s)
		}
		if q := h.member("Ann").Leg.Quality; q == nil || q.MOS != 4.2 {
			t.Errorf("quality %+v", q)
		}
		if err := h.run("hangup all"); err != nil {
			t.Fatal(err)
		}
		h.wait(time.Second)
		if got := h.b.Stats().RTP["audio"].Received; got != 150 {
			t.Errorf("%d packets after the legs have gone, want 150", got)
		}
		h.run("attachment down")
		h.run("media down")
		h.wait(2 * time.Second)
		if r := h.b.Ready(t.Context()); r["attachments"] == "" || r["media"] == "" {
			t.Errorf("ready: %v", r)
		}
	})
}

// The audit has the result that the caller was given: a call that nobody could be placed
// for was not ok.
func TestAuditOfACallThatWasNotPlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for _, l := range []string{"member Ann video", "member Ben video", "attachment down"} {
			if err := h.run(l); err != nil {
				t.Fatal(err)
			}
		}
		results := func() (out []string) {
			h.mem.mu.Lock()
			defer h.mem.mu.Unlock()
			for _, r := range h.mem.audit {
				if r.Action == "member.call" {
					out = append(out, r.Result)
				}
			}
			return out
		}
		var own *bridge.Error
		if err := h.run("call all"); !errors.As(err, &own) || own.Code != "attachment_down" {
			t.Errorf("%v", err)
		}
		h.run("attachment up")
		if err := h.run("call all"); err != nil {
			t.Error(err)
		}
		if got := results(); !slices.Equal(got, []string{"attachment_down", "ok"}) {
			t.Errorf("the audit says %q", got)
		}
	})
}

// A network that does not answer a BYE must not keep the server from stopping, and the
// leg's history is complete all the same.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		for _, l := range []string{"member Ann undead", "member Ben video", "call all", "after 5s"} {
			if err := h.run(l); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := h.b.Close(context.Background()); err == nil || time.Since(begin) != 5*time.Second {
			t.Errorf("closed after %v: %v", time.Since(begin), err)
		}
		h.stop()
		h.check()
		for _, l := range h.mem.legs {
			if l.Leg.Outcome != bridge.HungUp || l.Leg.EndedAt == nil || l.Leg.Reason != "shutdown" || l.Leg.Text.En != "The server was stopped." {
				t.Errorf("%+v", l.Leg)
			}
		}
		_, err := h.b.CreateConference(context.Background(), organiser, bridge.ConferenceSpec{Name: "late", Type: "video"})
		if code(err) != "shutting_down" {
			t.Errorf("a conference after Close: %v", err)
		}
	})
}

func TestNoPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		h.eng.noPort = true
		h.add("Ann", "video")
		h.run("call all")
		h.wait(time.Second)
		if o := h.member("Ann").LastOutcome; o == nil || o.Outcome != bridge.NetworkError || !strings.Contains(o.Text.En, "ports") {
			t.Errorf("%+v", o)
		}
		if h.net.invites() != 0 {
			t.Error("an INVITE without ports")
		}
	})
}

// checkHistory: exactly one end per leg, words that fit each other, seq without a gap.
func checkHistory(t *testing.T, h *house) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	ends := map[string]int{}
	var seq uint64
	for _, e := range h.events {
		if e.Type == "snapshot" {
			seq = e.Seq
			continue
		}
		if e.Type == "talkers" || e.Type == "attachment.updated" {
			continue
		}
		if e.Seq != seq+1 {
			t.Errorf("%s has seq %d after %d", e.Type, e.Seq, seq)
		}
		seq = e.Seq
		switch e.Type {
		case "leg.ended":
			ends[e.Leg]++
			var l bridge.Leg
			json.Unmarshal(e.Data, &l)
			after := l.Outcome == bridge.Left || l.Outcome == bridge.HungUp || l.Outcome == bridge.Dropped
			if l.State != bridge.Ended || l.Outcome == "" || l.Text == nil || l.Text.Zh == "" || l.Text.En == "" || l.EndedAt == nil || after != (l.ConnectedAt != nil) {
				t.Errorf("leg ended as %+v", l)
			}
		case "leg.updated":
			if ends[e.Leg] > 0 {
				t.Errorf("leg %s is alive after its end", e.Leg)
			}
		case "member.updated":
			var m bridge.Member
			json.Unmarshal(e.Data, &m)
			want := bridge.Idle
			if m.Leg != nil {
				want = bridge.MemberRings
				if m.Leg.State == bridge.Connected || m.Leg.State == bridge.Held {
					want = bridge.InConference
				}
			}
			if m.State != want {
				t.Errorf("member is %s with leg %+v", m.State, m.Leg)
			}
		}
	}
	for leg, n := range ends {
		if n != 1 {
			t.Errorf("leg %s ended %d times", leg, n)
		}
	}
	h.mem.mu.Lock()
	defer h.mem.mu.Unlock()
	for id, l := range h.mem.legs {
		if (l.Leg.EndedAt != nil) != (ends[id] == 1) && seq > 0 {
			t.Errorf("leg %s: history and events differ", id)
		}
	}
}

// checkBills: every leg that ended was charged once, as history has it, and no other.
func checkBills(t *testing.T, h *house) {
	t.Helper()
	charged := map[string]bridge.LegRecord{}
	invites := map[string]int{} // a record for every INVITE that left, as the network has
	for _, c := range h.net.calls {
		if c.left {
			invites[c.icid]++
		}
	}
	for _, r := range h.bills.records {
		if r.Leg.ICID != "" && r.Leg.Direction == "outbound" {
			invites[r.Leg.ICID]--
		}
		if r.Superseded {
			if r.Leg.EndedAt == nil || r.Leg.Outcome == "" || r.Leg.ICID == "" || r.Leg.Attempts == 0 {
				t.Errorf("superseded: %+v", r)
			}
			continue
		}
		if _, twice := charged[r.Leg.ID]; twice {
			t.Errorf("leg %s was charged twice", r.Leg.ID)
		}
		charged[r.Leg.ID] = r
	}
	for icid, n := range invites {
		if n != 0 {
			t.Errorf("%d INVITEs of %s without a record", n, icid)
		}
	}
	for id, l := range h.mem.legs {
		r, ok := charged[id]
		delete(charged, id)
		switch {
		case !ok:
			t.Errorf("leg %s (%s) was not charged", id, l.Leg.Outcome)
		case r.Leg.Outcome != l.Leg.Outcome || r.Number != l.Number || r.Leg.CallID != l.Leg.CallID || r.Leg.EndedAt == nil:
			t.Errorf("leg %s was charged as %+v, history has %+v", id, r.Leg, l.Leg)
		}
	}
	for id := range charged {
		t.Errorf("leg %s was charged and is not in history", id)
	}
}

// A charging record has what the network said and what the streams carried, also of a
// call that failed.
func TestCharging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.add("Ann", "voice")
		h.add("Ben", "busy")
		h.add("Cat", "voice")
		h.run("call Ann")
		h.run("call Ben")
		h.wait(5 * time.Second)
		ann := h.member("Ann").Leg
		h.net.phone(h.number["Ann"]).tell(sip.Charging{At: time.Now(), OrigIOI: "home", TermIOI: "away", AccessNetwork: "3GPP-NR"})
		h.eng.mu.Lock()
		h.eng.stats[ann.ID] = &mediapb.LegStats{Id: ann.ID, Audio: &mediapb.StreamStats{RxPackets: 10, RxBytes: 730, TxPackets: 11, TxBytes: 803}}
		h.eng.mu.Unlock()
		h.run("peer Ann bye")
		h.run("call Cat")
		h.wait(5 * time.Second)
		checkOne := func(name string, i int, want string) {
			t.Helper()
			if len(h.bills.records) <= i {
				t.Fatalf("%s: %d records", name, len(h.bills.records))
			}
			r := h.bills.records[i]
			got := fmt.Sprint(r.Leg.Outcome, " ", r.AccessNetwork)
			if r.Leg.SIP != nil {
				got += fmt.Sprint(" ", r.Leg.SIP.Status)
			}
			if r.Leg.Charging != nil {
				got += fmt.Sprint(" ", *r.Leg.Charging)
			}
			if r.Leg.Usage != nil {
				got += fmt.Sprint(" ", r.Leg.Usage.Audio)
			}
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if r := h.bills.records[0]; r.Calling != "sip:us@ims.example" || r.Leg.Reason != "busy" || r.Leg.Attempts != 1 {
			t.Errorf("%+v", r)
		}
		if r := h.bills.records[1]; r.Leg.Reason != "ended_early" || r.Leg.DurationS != r.Leg.EndedAt.Sub(*r.Leg.ConnectedAt).Seconds() || r.Leg.DurationS < 1 {
			t.Errorf("%+v", r)
		}
		checkOne("busy", 0, "busy  486 {50 0 51 0}")
		checkOne("left", 1, "left 3GPP-NR 0 {home away} {10 730 11 803}")
		legs, _, err := h.b.Legs(t.Context(), organiser, h.conf, h.ids["Ann"], 0, "")
		if doc, _ := json.Marshal(legs); err != nil || strings.Contains(string(doc), "3GPP-NR") {
			t.Errorf("where a subscriber is shows in the history: %s, %v", doc, err)
		}
		h.run("remove Cat")
		h.wait(time.Second)
		checkBills(t, h)
		if r := h.bills.records[len(h.bills.records)-1]; r.Leg.Reason != "removed" || r.Leg.Text.En != "The member was removed from the conference." {
			t.Errorf("removed: %+v", r.Leg)
		}
	})
}

// Random organisers, phones and faults; then everybody is hung up and the books must
// balance. A failing seed is a test case.
func TestRandom(t *testing.T) {
	fates := []string{"video", "voice", "video-status=488", "pstn", "busy", "no-answer", "declines", "nonsense", "leaves", "early", "unreachable", "short", "status=580"}
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				h := newHouse(t, bridge.VideoConference)
				names := []string{}
				for i := range 8 {
					names = append(names, fmt.Sprintf("m%d", i))
					if err := h.add(names[i], fates[rnd.IntN(len(fates))]); err != nil {
						t.Fatal(err)
					}
				}
				down := false
				for range 120 {
					n := names[rnd.IntN(len(names))]
					line := ""
					switch rnd.IntN(16) {
					case 0:
						line = "call all"
					case 1, 2:
						line = "call " + n
					case 3:
						line = "hangup " + n
					case 4:
						line = "mute " + n
					case 5:
						line = "unmute " + n
					case 6:
						line = "whisper " + n + " coach " + names[rnd.IntN(len(names))]
					case 7:
						line = "peer " + n + " hold"
					case 8:
						line = "peer " + n + " resume"
					case 9:
						line = "peer " + n + " bye"
					case 10:
						if down = !down; down {
							line = "media down"
						} else {
							line = "media up"
						}
					case 11:
						line = "call failed"
					case 12:
						line = "hangup all"
					default:
						line = fmt.Sprintf("after %dms", rnd.IntN(3000))
					}
					if strings.HasPrefix(line, "peer") && !strings.HasSuffix(line, "bye") {
						c := h.net.phone(h.number[n])
						if c == nil || !c.talks() {
							continue
						}
					}
					if strings.HasPrefix(line, "media") {
						synctest.Wait() // a call half opened may find nothing, and then fails
					}
					err := h.run(line)
					var own *bridge.Error
					if err != nil && !errors.As(err, &own) && !strings.HasPrefix(err.Error(), "no call") {
						t.Fatalf("%s: %v", line, err)
					}
				}
				h.eng.revive()
				h.b.MediaUp()
				h.run("hangup all")
				h.wait(100 * time.Second)
				for _, n := range names {
					if m := h.member(n); m.State != bridge.Idle || m.Leg != nil {
						t.Errorf("%s is %s after all was hung up", n, m.State)
					}
				}
				checkHistory(t, h)
				h.close()
				checkBills(t, h)
			})
		})
	}
}
