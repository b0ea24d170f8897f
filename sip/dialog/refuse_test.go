package dialog

import (
	"testing"

	"github.com/emiago/sipgo/sip"
)

// Who refuses an offer says why (RFC 3261 20.43), and the old session stands.
func TestRefusalSaysWhy(t *testing.T) {
	b := newBench(t, options())
	b.run(up + "> INVITE a 5 other_family -> offer 1 other_family")
	actions := b.c.Step(b.now, Reply{ID: 1, Status: 488, Warning: 301})
	if len(actions) != 1 {
		t.Fatalf("%d actions, want one response", len(actions))
	}
	res := actions[0].(Respond).Res
	if got, want := value(res, "Warning"), `301 192.0.2.10:5060 "Incompatible network address formats"`; res.StatusCode != 488 || got != want {
		t.Errorf("%d, Warning %s; want 488, %s", res.StatusCode, got, want)
	}
}

// A 380 may mean an emergency call, which must never be tried again another way.
func TestAlternativeService(t *testing.T) {
	const emergency = `<?xml version="1.0"?><ims-3gpp version="1"><alternative-service><type> emergency </type><reason/></alternative-service></ims-3gpp>`
	for _, tt := range []struct{ kind, body, want string }{
		{"application/3gpp-ims+xml; sv=1", emergency, "emergency"},
		{"application/3gpp-ims+xml", `<ims-3gpp><alternative-service><type>restoration</type></alternative-service></ims-3gpp>`, "restoration"},
		{"application/3gpp-ims+xml", `<ims-3gpp><type>`, ""},
		{"application/3gpp-ims+xml", `nonsense`, ""},
		{"text/plain", emergency, ""},
	} {
		b := newBench(t, options())
		b.run("start -> INVITE 1")
		res := b.response([]string{"380", "a"})
		res.AppendHeader(sip.NewHeader("Content-Type", tt.kind))
		res.SetBody([]byte(tt.body))
		var got Ended
		for _, a := range b.c.Step(b.now, Response{res}) {
			if e, ok := a.(Emit); ok {
				got = e.Event.(Ended)
			}
		}
		if got.Status != 380 || got.AltService != tt.want {
			t.Errorf("%s %s: status %d, service %q; want %q", tt.kind, tt.body, got.Status, got.AltService, tt.want)
		}
	}
}

// What the far end says of itself in the 2xx goes with Connected.
func TestConnectedTellsTheFarEnd(t *testing.T) {
	b := newBench(t, options())
	b.run("start -> INVITE 1")
	for _, a := range b.c.Step(b.now, Response{b.response([]string{"200", "a", "answer", "Server=mgcf/1"})}) {
		if e, ok := a.(Emit); ok {
			if c, ok := e.Event.(Connected); ok && (c.Server != "mgcf/1" || c.Contact != "<sip:a@198.51.100.7:5070>") {
				t.Errorf("%+v", c)
			}
		}
	}
}
