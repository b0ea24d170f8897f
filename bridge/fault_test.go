package bridge_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/fault"
)

// A panic of ours in a conference's job ends that job, and the leg it was about: its member is
// told and can be called again. The others of the conference, and other conferences, talk on.
func TestFaultEndsOneLeg(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		before := fault.Count()
		run := func(lines ...string) {
			t.Helper()
			for _, l := range lines {
				if err := h.run(l); err != nil {
					t.Fatalf("%s: %v", l, err)
				}
			}
		}
		other, err := h.b.CreateConference(t.Context(), organiser, bridge.ConferenceSpec{Name: "other", Type: "video"})
		if err != nil {
			t.Fatal(err)
		}
		first := h.conf
		h.conf = other.ID
		run("member Zoe video", "call Zoe")
		h.conf = first
		run("member Ann video", "member Bob faulty-reply", "member Cas faulty", "member Dan video", "call Ann", "call Bob", "after 5s")
		faults := func(n uint64) {
			t.Helper()
			if got := fault.Count() - before; got != n {
				t.Errorf("%d faults, want %d", got, n)
			}
		}
		ended := func(name string, want bridge.Outcome) {
			t.Helper()
			m := h.member(name)
			if m.Leg != nil || m.State != bridge.Idle || m.LastOutcome == nil || m.LastOutcome.Outcome != want || m.LastOutcome.Text.En != "An error of the server's ended the call." {
				t.Errorf("%s: %s, leg %v, last %+v", name, m.State, m.Leg, m.LastOutcome)
			}
		}
		run("call Cas", "after 1s") // in the job that places the call
		ended("Cas", bridge.NetworkError)
		faults(1)
		h.net.phone(h.number["Bob"]).reoffer(func(s string) string { return s })
		h.wait(time.Second) // in the job that answers him
		ended("Bob", bridge.Dropped)
		faults(2)

		h.eng.mu.Lock()
		h.eng.faulty = true
		h.eng.mu.Unlock()
		run("call Dan", "after 1s") // beside the conference
		if m := h.member("Dan"); m.Leg != nil || m.LastOutcome.Outcome != bridge.NetworkError {
			t.Errorf("Dan: %+v", m)
		}
		faults(3)
		h.eng.mu.Lock()
		h.eng.faulty = false
		h.eng.mu.Unlock()

		run("policy open")
		h.net.faulty.Store(true)
		run("dial Eve conf", "after 1s") // before there is a leg: who calls must have an answer
		h.net.faulty.Store(false)
		faults(4)
		if got := h.records(); len(got) != 1 || got[0] != "inbound ended network_error 500" {
			t.Errorf("%q", got)
		}

		run("call Dan", "after 5s")
		for _, name := range []string{"Ann", "Dan"} {
			if m := h.member(name); m.State != bridge.InConference {
				t.Errorf("%s is %s", name, m.State)
			}
		}
		zoe, err := h.b.Member(context.Background(), organiser, other.ID, h.ids["Zoe"])
		if err != nil || zoe.State != bridge.InConference {
			t.Errorf("the other conference: %+v, %v", zoe, err)
		}
		if s := h.b.Stats(); s.Faults != fault.Count() {
			t.Errorf("%d faults shown", s.Faults)
		}
	})
}
