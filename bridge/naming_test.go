package bridge_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/media/mediapb"
)

func codeOf(err error) string {
	var own *bridge.Error
	if errors.As(err, &own) {
		return own.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// What a conference is called by is one conference's only, and comes back after a restart.
func TestConferenceNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		ctx := t.Context()
		first, err := h.b.Conference(ctx, organiser, h.conf)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^[0-9]{6}$`).MatchString(first.PIN) || first.JoinPolicy != bridge.JoinPIN || first.WhoMayRefer != bridge.ReferCreator {
			t.Errorf("a new conference is %+v", first)
		}
		make := func(s bridge.ConferenceSpec) (bridge.Conference, string) {
			s.Name, s.Type = "x", bridge.AudioConference
			c, err := h.b.CreateConference(ctx, organiser, s)
			return c, codeOf(err)
		}
		for _, tt := range []struct {
			spec bridge.ConferenceSpec
			want string
		}{
			{bridge.ConferenceSpec{PIN: first.PIN}, "pin_taken"},
			{bridge.ConferenceSpec{PIN: "12345"}, "pin_invalid"},
			{bridge.ConferenceSpec{Alias: "110"}, "alias_invalid"},
			{bridge.ConferenceSpec{Alias: "+86110"}, "dial_not_allowed"},
			{bridge.ConferenceSpec{Alias: "+8612"}, "number_invalid"},
			{bridge.ConferenceSpec{Alias: "a b"}, "alias_invalid"},
			{bridge.ConferenceSpec{Alias: "conf-1"}, "alias_invalid"},
			{bridge.ConferenceSpec{Alias: dialIn}, "alias_taken"},
			{bridge.ConferenceSpec{JoinPolicy: "x"}, "join_policy_invalid"},
			{bridge.ConferenceSpec{WhoMayRefer: "x"}, "who_may_refer_invalid"},
			{bridge.ConferenceSpec{Layout: "x"}, "layout_invalid"},
			{bridge.ConferenceSpec{PIN: "123456", Alias: "Board.Room"}, ""},
			{bridge.ConferenceSpec{Alias: "board.room"}, "alias_taken"},
			{bridge.ConferenceSpec{Alias: "+86 10 8212 3456"}, ""},
		} {
			if c, got := make(tt.spec); got != tt.want {
				t.Errorf("%+v: %q, want %q", tt.spec, got, tt.want)
			} else if c.Alias == "+861082123456" && c.DialIn.Number != c.Alias {
				t.Errorf("a conference with a number of its own is dialled at %+v", c.DialIn)
			}
		}
		none, open := "", bridge.JoinOpen
		c, err := h.b.UpdateConference(ctx, organiser, h.conf, bridge.ConferencePatch{PIN: &none, JoinPolicy: &open})
		if err != nil || c.PIN == first.PIN || c.JoinPolicy != open {
			t.Errorf("another PIN: %+v, %v", c, err)
		}
		if again, code := make(bridge.ConferenceSpec{PIN: first.PIN}); code != "" || again.PIN != first.PIN {
			t.Errorf("a PIN given back cannot be used: %s", code)
		}
		h.close()
		h.boot()
		if back, err := h.b.Conference(ctx, organiser, h.conf); err != nil || back.PIN != c.PIN || back.JoinPolicy != open || back.DialIn != c.DialIn {
			t.Errorf("after a restart %+v, %v; want %+v", back, err, c)
		}
		if _, code := make(bridge.ConferenceSpec{PIN: c.PIN}); code != "pin_taken" {
			t.Errorf("after a restart the PIN is free: %q", code)
		}
		h.close()
	})
}

// Whose alias is refused hears why.
func TestRefusedAliasSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for alias, want := range map[string]string{"110": "emergency", "conf-1": "conf-", "a b": "letters"} {
			_, err := h.b.CreateConference(t.Context(), organiser, bridge.ConferenceSpec{Name: "x", Type: bridge.AudioConference, Alias: alias})
			var own *bridge.Error
			if !errors.As(err, &own) || own.Code != "alias_invalid" || own.Field != "/alias" || !strings.Contains(own.Detail, want) {
				t.Errorf("%s: %+v, want %q", alias, own, want)
			}
		}
	})
}

// What the phones see can be changed while they are in.
func TestLayoutIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		if err := h.add("A", "video"); err != nil {
			t.Fatal(err)
		}
		if err := h.run("call all"); err != nil {
			t.Fatal(err)
		}
		h.wait(5 * time.Second)
		for _, layout := range []bridge.Layout{bridge.LayoutMosaic, bridge.LayoutSwitched, bridge.LayoutMosaic} {
			c, err := h.b.UpdateConference(t.Context(), organiser, h.conf, bridge.ConferencePatch{Layout: &layout})
			if err != nil || c.Layout != layout {
				t.Fatalf("%+v, %v", c, err)
			}
			synctest.Wait()
			h.eng.mu.Lock()
			told := h.eng.confs[h.conf].Layout == mediapb.Conference_SWITCHED
			h.eng.mu.Unlock()
			if told != (layout == bridge.LayoutSwitched) {
				t.Errorf("%s: the engine was told of switched: %v", layout, told)
			}
		}
		wrong := bridge.Layout("x")
		if _, err := h.b.UpdateConference(t.Context(), organiser, h.conf, bridge.ConferencePatch{Layout: &wrong}); codeOf(err) != "layout_invalid" {
			t.Error(err)
		}
	})
}
