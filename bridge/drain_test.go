package bridge_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

// Draining, the server begins no call, says so to whoever asks, and waits for those that there
// are: until they end, or for as long as it may.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.add("Ann", "voice")
		h.add("Ben", "voice")
		h.run("call Ann")
		h.wait(5 * time.Second)
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := h.b.Drain(short); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if !h.net.busy.Load() || h.b.Ready(t.Context())["state"] == "" {
			t.Error("nobody is told")
		}
		res, err := h.b.Call(t.Context(), organiser, h.conf, bridge.CallRequest{Members: []string{h.ids["Ben"]}})
		if len(res) > 0 && res[0].Err != nil {
			err = res[0].Err
		}
		if code(err) != "shutting_down" {
			t.Errorf("a call while draining: %v", err)
		}
		h.net.take(sip.Incoming{Attachment: "core", At: time.Now(), CallID: "in", ICID: "in", Target: h.conference().DialIn.URI}, &caller{say: h.say})
		h.wait(time.Second)
		if r := h.bills.records; len(r) != 1 || r[0].Leg.SIP.Status != 503 {
			t.Errorf("a call that came in while draining: %+v", r)
		}
		h.run("media down") // it has its own word in this, and must not open the door again
		h.run("media up")
		if !h.net.busy.Load() {
			t.Error("calls would be refused, and nobody is told any more")
		}
		if err := h.b.Drain(context.Background()); err != nil { // the engine's end was the call's
			t.Error(err)
		}
	})
}

// Who asks whether he may call hears what a call would: not while the engine is down.
func TestBusyWithoutMedia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.run("media down")
		if !h.net.busy.Load() {
			t.Error("not busy while the engine is down")
		}
		h.run("media up")
		if h.net.busy.Load() {
			t.Error("busy while it is up")
		}
	})
}

// The engine's death may show in a command before it is told of: who loses his call by that is
// called back like the others.
func TestCalledBackAfterARefusedCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.add("Ann", "voice")
		h.run("call Ann")
		h.wait(5 * time.Second)
		h.eng.die()
		h.run("mute Ann")
		h.wait(time.Second / 2)
		h.b.MediaDown()
		h.wait(time.Second)
		h.eng.revive()
		h.b.MediaUp()
		h.wait(5 * time.Second)
		if m := h.member("Ann"); m.State != bridge.InConference {
			t.Errorf("Ann is %s: %+v", m.State, m.LastOutcome)
		}
	})
}
