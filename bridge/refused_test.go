package bridge_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

// ladders is a Tracer that has one message of every call.
type ladders struct{}

func (ladders) Trace(callID string) ([]sip.TraceMessage, int) {
	return []sip.TraceMessage{{Raw: []byte("INVITE " + callID)}}, 0
}

// A call that was refused has a record with the id of the network's, and a ladder: by us, before
// it came to us, and while we are shutting down.
func TestRefusedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		in := func(id string) sip.Incoming {
			return sip.Incoming{Attachment: "core", At: time.Now(), CallID: id, ICID: "icid-" + id, Target: "tel:+8613900000001",
				Caller: sip.Identity{URI: "tel:+8613900000002", Number: "+8613900000002"}}
		}
		h.net.take(in("unknown"), &caller{say: h.say})
		for status, id := range map[int]string{401: "credentials", 420: "extension", 481: "replaces", 486: "early", 503: "full"} {
			h.net.refused(in(id), status)
		}
		h.wait(time.Second)
		want := map[string]bridge.Outcome{"unknown": bridge.NotFound, "credentials": bridge.NotAllowed, "extension": bridge.NetworkError, "replaces": bridge.NotFound,
			"early": bridge.NetworkError, "full": bridge.NetworkError}
		admin := bridge.Actor{Account: "acc_9", Admin: true}
		for _, r := range h.bills.records {
			if want[r.Leg.CallID] != r.Leg.Outcome || r.Leg.ICID != "icid-"+r.Leg.CallID || r.Number == "" || r.Dialled == "" || r.Leg.SIP.Status == 0 {
				t.Errorf("%+v", r)
			}
			delete(want, r.Leg.CallID)
			if _, err := h.b.LegTrace(context.Background(), admin, r.Leg.ID, false); err != nil {
				t.Errorf("no ladder of %s: %v", r.Leg.CallID, err)
			}
		}
		if len(want) > 0 {
			t.Errorf("no record of %v", want)
		}
		take := h.net.take
		h.close()
		n := len(h.bills.records)
		take(in("late"), &caller{say: h.say})
		if len(h.bills.records) != n+1 || h.bills.records[n].Leg.SIP.Status != 503 {
			t.Errorf("while shutting down: %+v", h.bills.records[n:])
		}
	})
}

// Who listens in is written down, whatever he gets to hear.
func TestEveryCaptureIsAudited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.add("Ann", "voice")
		h.run("call Ann")
		h.wait(5 * time.Second)
		leg := h.member("Ann").Leg.ID
		for _, payload := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _ = h.b.CaptureMedia(ctx, organiser, leg, payload, func([]bridge.MediaPacket) {})
			cancel()
		}
		var got []string
		for _, a := range h.mem.audit {
			if a.Target == leg {
				got = append(got, a.Action)
			}
		}
		if want := []string{"leg.capture", "leg.capture_payload"}; !slices.Equal(got, want) {
			t.Errorf("audited %q, want %q", got, want)
		}
	})
}
