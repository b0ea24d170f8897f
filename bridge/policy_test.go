package bridge_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
)

// script runs lines and returns what happened.
func (h *house) script(lines ...string) string {
	h.t.Helper()
	for _, l := range lines {
		if err := h.run(l); err != nil {
			h.say("%s: error: %v", l, err)
		}
		synctest.Wait()
	}
	return h.take()
}

// Phones have nobody called whom the key that made their conference may not call, and
// nobody at all calls whom the server's list forbids.
func TestPhonesKeepToTheLimit(t *testing.T) {
	const abroad, denied, home = "+15550100199", "+8690000000001", "+8613700000009"
	limited := organiser
	limited.DialPrefixes = []string{"+86", "+852"}
	list := func(o *bridge.Options) { o.Deny = []string{"+8690"} }
	refused := func(t *testing.T, h *house, line, word string) {
		t.Helper()
		before := h.net.invites()
		if got := h.script(line, "after 2s"); !strings.Contains(got, word) || h.net.invites() != before {
			t.Errorf("%s: %d calls, and\n%s", line, h.net.invites()-before, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference, list)
		defer h.close()
		free := h.conf
		c, err := h.b.CreateConference(t.Context(), limited, bridge.ConferenceSpec{Name: "limited", Type: bridge.VideoConference,
			JoinPolicy: bridge.JoinOpen, WhoMayRefer: bridge.ReferAny})
		if err != nil {
			t.Fatal(err)
		}
		h.conf = c.ID
		h.listen()
		h.net.fate[home] = "redirected=" + abroad
		h.script("member bob voice", "dial ann conf", "after 1s")
		refused(t, h, "refer ann invite tel:"+abroad, "403 to REFER")
		refused(t, h, "refer ann invite bob,tel:"+abroad, "403 to REFER")
		refused(t, h, "refer ann invite tel:"+denied, "403 to REFER")
		h.script("refer ann invite tel:"+home, "after 2s")
		if i := slices.IndexFunc(members(h), func(m bridge.Member) bool { return m.Number == home }); i < 0 {
			t.Error("whom the key may call is not called")
		} else if o := members(h)[i].LastOutcome; o == nil || o.SIP == nil || o.SIP.RedirectedTo != "tel:"+abroad {
			t.Errorf("a redirection out of the limit: %+v", o)
		}

		// The limit is the conference's, also after a restart; an organiser without one has his own.
		h.script("caller ann bye", "after 1s")
		if err := h.b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.stop()
		h.boot()
		h.listen()
		h.script("dial ann conf", "after 1s")
		refused(t, h, "refer ann invite tel:"+abroad, "403 to REFER")
		for number, want := range map[string]string{denied: "blocked_by_policy", abroad: ""} {
			res, err := h.b.AddMembers(t.Context(), organiser, h.conf, []bridge.MemberSpec{{Number: number}})
			if err != nil || res[0].Err != nil {
				t.Fatal(err, res)
			}
			calls, err := h.b.Call(t.Context(), organiser, h.conf, bridge.CallRequest{Members: []string{res[0].Member.ID}})
			if err != nil || (calls[0].Err == nil) != (want == "") || want != "" && calls[0].Err.Code != want {
				t.Errorf("%s: %+v, %v", number, calls, err)
			}
		}
		h.script("after 5s", "hangup all", "after 1s")

		// A limited key cannot give phones of a conference that is not limited what it has not.
		h.conf = free
		refers, host := bridge.ReferModerators, "host"
		if _, err := h.b.UpdateConference(t.Context(), limited, free, bridge.ConferencePatch{WhoMayRefer: &refers}); code(err) != "dial_not_allowed" {
			t.Error("a limited key lets phones refer:", err)
		}
		if _, err := h.b.UpdateConference(t.Context(), organiser, free, bridge.ConferencePatch{WhoMayRefer: &refers}); err != nil {
			t.Error(err)
		}
		res, err := h.b.AddMembers(t.Context(), limited, free, []bridge.MemberSpec{{Number: "+8613800001111", Role: host}, {Number: "+8613800001112"}})
		if err != nil || res[0].Err == nil || res[0].Err.Code != "dial_not_allowed" || res[1].Err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		if _, err := h.b.UpdateMember(t.Context(), limited, free, res[1].Member.ID, bridge.MemberPatch{Role: &host}); code(err) != "dial_not_allowed" {
			t.Error("a limited key makes hosts:", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the factory's conferences have nobody's limit, and the list
		h := newHouse(t, bridge.VideoConference, list)
		defer h.close()
		refused(t, h, "dial ann factory invites="+home+","+denied, "ann's phone: <- 403")
		h.script("dial ann factory", "after 1s", "adopt")
		refused(t, h, "refer ann invite tel:"+denied, "403 to REFER")
		h.script("caller ann bye", "after 1s")
		time.Sleep(time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // a list of what may be called
		h := newHouse(t, bridge.AudioConference, list, func(o *bridge.Options) { o.Allow = []string{"+86"} })
		defer h.close()
		h.net.fate["+8613800000001"] = "redirected=" + abroad
		h.script("member ann redirected="+abroad, "call all", "after 1s")
		if o := h.member("ann").LastOutcome; o == nil || o.SIP == nil || o.SIP.RedirectedTo != "tel:"+abroad {
			t.Errorf("a redirection out of the list: %+v", o)
		}
	})
}

func members(h *house) []bridge.Member {
	h.t.Helper()
	all, err := h.b.Members(h.t.Context(), h.actor, h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}
