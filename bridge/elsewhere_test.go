package bridge_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"sparkle/bridge"
)

// Who has mended an attachment has it register at once, and is in the audit.
func TestRegisterAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.net.spare = true
		for name, want := range map[string]string{"core": "", "spare": "attachment_not_registering", "nobody": "attachment_not_found"} {
			err := h.b.RegisterAttachment(t.Context(), organiser, name)
			var own *bridge.Error
			if errors.As(err, &own) != (want != "") || own != nil && own.Code != want {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
			if want == "" {
				want = "ok"
			}
			if !h.audited("attachment.register", name, want) {
				t.Errorf("%s is not in the audit", name)
			}
		}
		if h.net.registers != 1 {
			t.Errorf("registered %d times", h.net.registers)
		}
	})
}

// audited says whether the store has such a row.
func (h *house) audited(action, target, result string) bool {
	h.mem.mu.Lock()
	defer h.mem.mu.Unlock()
	for _, r := range h.mem.audit {
		if r.Action == action && r.Target == target && r.Result == result {
			return true
		}
	}
	return false
}

// What the core has by way of us is told apart from what is for us: conferences, a factory and
// shared numbers, by the address or that of To, and nothing else.
func TestServedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for _, tt := range []struct {
			target, to string
			want       bool
		}{
			{"sip:" + h.conf + "@ims.example", "sip:x@ims.example", true},
			{"sip:contact@192.0.2.1", "sip:" + h.conf + "@ims.example", true},
			{"tel:+8613800139999", "tel:+8613800139999", false},
			{"urn:service:sos", "urn:service:sos", false}, // somebody's, who must not fail by us
			{"sip:nobody@ims.example", "", false},
		} {
			if got := h.net.ours("core", tt.target, tt.to); got != tt.want {
				t.Errorf("%s, To %s: %v", tt.target, tt.to, got)
			}
		}
	})
}
