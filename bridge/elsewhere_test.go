package bridge_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
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

// A call over ISC that names no conference is not ours to refuse: the core goes on without us.
func TestOrdinaryCallOverISC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for _, tt := range []struct {
			served string
			routes []string
			want   int
		}{
			{"tel:+8613800138001", []string{"<sip:iscmark@192.0.2.1;lr;s=1>"}, 500},
			{"sip:psi@ims.example", nil, 404}, // a PSI of ours that nobody knows
			{"", nil, 404},
		} {
			c := &caller{say: func(string, ...any) {}, in: sip.Incoming{Attachment: "core", Target: "tel:+8613800139999", To: "tel:+8613800139999",
				ServedUser: tt.served, SesCase: "orig", Routes: tt.routes}}
			h.net.take(c.in, c)
			h.wait(time.Second)
			if c.final != tt.want {
				t.Errorf("%+v: %d", tt, c.final)
			}
		}
	})
}
