package bridge_test

import (
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
)

// A redirection leads nowhere that the caller's key may not call, and the outcome says where
// it pointed.
func TestRedirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		limited := h.actor
		limited.DialPrefixes = []string{"+86"}
		for name, tt := range map[string]struct {
			by bridge.Actor
			to string
		}{"free": {h.actor, "+15550199"}, "home": {limited, "+8613900000000"}, "abroad": {limited, "+15550199"}} {
			if err := h.add(name, "redirected="+tt.to); err != nil {
				t.Fatal(err)
			}
			if res, err := h.b.Call(t.Context(), tt.by, h.conf, bridge.CallRequest{Members: []string{h.member(name).ID}}); err != nil || res[0].Err != nil {
				t.Fatal(err, res)
			}
			time.Sleep(time.Second)
			want := ""
			if name == "abroad" {
				want = "tel:" + tt.to
			}
			if o := h.member(name).LastOutcome; o == nil || o.SIP == nil || o.SIP.RedirectedTo != want {
				t.Errorf("%s: %+v, want redirected to %q", name, o, want)
			}
		}
	})
}
