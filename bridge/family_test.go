package bridge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"sparkle/bridge"
)

// connections are the c= lines of the offers that a number was called with, and whether with video.
func (h *house) connections(number string) (out []string) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, c := range h.net.calls {
		if c.inv.Number != number {
			continue
		}
		_, rest, _ := strings.Cut(string(c.inv.Offer), "c=IN ")
		addr, _, _ := strings.Cut(rest, "\r\n")
		if c.inv.Video {
			addr += " video"
		}
		out = append(out, addr)
	}
	return out
}

// Media is received where the configuration says: of two addresses at that of the attachment's
// family, of one at that one; else where SIP is.
func TestWhereMediaIsReceived(t *testing.T) {
	for _, tt := range []struct{ ip, other, want string }{
		{"", "", "IP4 127.0.0.1"}, {"127.0.0.9", "", "IP4 127.0.0.9"}, {"::1", "", "IP6 ::1"},
		{"::1", "127.0.0.8", "IP4 127.0.0.8"}, {"", "::1", "IP4 127.0.0.1"}, {"", "127.0.0.8", "IP4 127.0.0.8"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.AudioConference, func(o *bridge.Options) { o.MediaIP, o.OtherMediaIP = tt.ip, tt.other })
			defer h.close()
			h.script("member ann voice", "call ann", "after 3s")
			if got := h.connections(h.number["ann"]); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("%+v: %q", tt, got)
			}
		})
	}
}

// Warning 301 (IMS.md §3 row 9): the other IP family is tried first, with picture, then voice. Whom
// neither reaches, the organiser hears why.
func TestOtherFamilyIsTried(t *testing.T) {
	for _, tt := range []struct {
		fate, other string
		want        []string
		ends        string // the reason; "": he is in
	}{
		{"family=video", "::1", []string{"IP4 127.0.0.1 video", "IP6 ::1 video"}, ""},
		{"family=novideo", "::1", []string{"IP4 127.0.0.1 video", "IP6 ::1 video", "IP6 ::1"}, ""},
		{"family=never", "::1", []string{"IP4 127.0.0.1 video", "IP6 ::1 video"}, "address_family"},
		{"family=video", "", []string{"IP4 127.0.0.1 video"}, "address_family"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference, func(o *bridge.Options) { o.OtherMediaIP = tt.other })
			defer h.close()
			h.script("member ann "+tt.fate, "policy open", "call ann", "after 100ms")
			h.eng.mu.Lock()
			first := h.eng.ports // of the first attempt
			h.eng.mu.Unlock()
			h.script("after 5s")
			if got := h.connections(h.number["ann"]); !slices.Equal(got, tt.want) {
				t.Errorf("%+v: %q", tt, got)
			}
			l := h.member("ann").Leg
			if tt.ends == "" && (l == nil || l.State != bridge.Connected) {
				t.Errorf("%+v: he is %+v", tt, l)
			}
			for _, r := range h.bills.records {
				if !r.Superseded && r.Leg.Reason != tt.ends {
					t.Errorf("%+v: ended as %+v", tt, r.Leg)
				}
			}
			if n := len(h.bills.records); n != len(tt.want)-1 && tt.ends == "" || tt.ends != "" && n != len(tt.want) {
				t.Errorf("%+v: %d records", tt, n)
			}
			// The port at the first address is nobody's any more.
			if got := h.script(fmt.Sprint("dial guest conf audio=", first), "after 1s"); tt.other != "" && !strings.Contains(got, "<- 200") {
				t.Errorf("port %d of the first attempt is still taken for ours:\n%s", first, got)
			}
		})
	}
}

// Who calls with the other family is answered in that, if there is an address of it.
func TestCallerOfTheOtherFamily(t *testing.T) {
	for other, want := range map[string]string{"::1": "<- 200 isfocus audio video", "": "<- 488 warning 301"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference, func(o *bridge.Options) { o.OtherMediaIP = other })
			defer h.close()
			if got := h.script("policy open", "dial ann conf ipv6", "after 1s"); !strings.Contains(got, want) {
				t.Errorf("with %q: no %q in\n%s", other, want, got)
			}
		})
	}
}
