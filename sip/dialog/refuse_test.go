package dialog

import (
	"strings"
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

// A 380 may mean an emergency call, which must never be tried again another way; and a body
// may say what the refusal is about.
func TestWordsOfARefusal(t *testing.T) {
	const emergency = `<?xml version="1.0"?><ims-3gpp version="1"><alternative-service><type> emergency </type><reason/></alternative-service></ims-3gpp>`
	for _, tt := range []struct{ kind, body, want, text string }{
		{"application/3gpp-ims+xml; sv=1", emergency, "emergency", ""},
		{"application/3gpp-ims+xml", `<ims-3gpp><alternative-service><type>restoration</type><reason>Video
			not	supported</reason></alternative-service></ims-3gpp>`, "restoration", "Video not supported"},
		{"application/3gpp-ims+xml", `<ims-3gpp><type>Emergency</type>`, "emergency", ""},
		{"application/3gpp-ims+xml", `<ims-3gpp><alternative-service><type>`, "", ""},
		{"application/3gpp-ims+xml", `nonsense`, "", ""},
		{"multipart/mixed;boundary=b", "--b\r\nContent-Type: application/3gpp-ims+xml\r\n\r\n" + emergency + "\r\n--b--\r\n", "emergency", ""},
		{"text/plain", "video not\r\nsubscribed\x00", "", "video not subscribed"},
		{"text/plain; charset=utf-8", strings.Repeat("\xff视", 300), "", strings.Repeat("?视", 100)},
		{"text/html", "<p>video</p>", "", ""},
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
		if got.Status != 380 || got.AltService != tt.want || got.ReasonText != tt.text {
			t.Errorf("%s %s: status %d, service %q, text %q; want %q, %q", tt.kind, tt.body, got.Status, got.AltService, got.ReasonText, tt.want, tt.text)
		}
	}
}

// A refusal may have several Warning fields, its own proxy's first: each of them is told, and none
// is cut where its text has a comma.
func TestAllWarningsAreTold(t *testing.T) {
	for _, tt := range []struct {
		fields []string
		want   string
	}{
		{nil, ""},
		{[]string{`301 phone "other family"`}, `301 phone "other family"`},
		{[]string{`399 sbc "as, it happens"`, `301 phone "other family"`}, `399 sbc "as, it happens", 301 phone "other family"`},
		{[]string{`399 a "x", 399 b "y"`, `304 c "media type not available"`}, `399 a "x", 399 b "y", 304 c "media type not available"`},
	} {
		b := newBench(t, options())
		b.run("start -> INVITE 1")
		res := b.response([]string{"488", "a"})
		for _, f := range tt.fields {
			res.AppendHeader(sip.NewHeader("Warning", f))
		}
		told := false
		for _, a := range b.c.Step(b.now, Response{res}) {
			if e, ok := a.(Emit); ok {
				told = true
				if got := e.Event.(Ended).Warning; got != tt.want {
					t.Errorf("%q: told %q", tt.fields, got)
				}
			}
		}
		if !told {
			t.Errorf("%q: nothing was told", tt.fields)
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
