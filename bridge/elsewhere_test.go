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
