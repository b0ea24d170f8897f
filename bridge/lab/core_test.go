package lab

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab/wire"
)

func TestWhoMayCall(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	off := addHandset(t, c, HandsetOptions{Number: "+8613800138002"})
	if err := off.PowerOff(); err != nil {
		t.Fatal(err)
	}
	u, route := caller(t, c, "tcp")
	stranger := newUE(t, c, "udp")
	for _, tt := range []struct {
		name   string
		u      *ue
		number string
		route  []string
		edit   func(*wire.Message)
		status int
	}{
		{"a stranger", stranger, h.Number(), route, nil, 403},
		{"without any Route", u.ue, h.Number(), nil, nil, 403},
		{"without the Service-Route", u.ue, h.Number(), route[:1], nil, 403},
		{"without the P-CSCF", u.ue, h.Number(), route[1:], nil, 403},
		{"another's Service-Route", u.ue, h.Number(), []string{route[0], "<sip:orig-00@" + c.Addr().String() + ";lr>"}, nil, 403},
		{"a Route that leads elsewhere", u.ue, h.Number(), append(route[:2:2], "<sip:192.0.2.1;lr>"), nil, 403},
		{"an unknown number", u.ue, "+19999999", route, nil, 404},
		{"a phone that is off", u.ue, off.Number(), route, nil, 480},
		{"too many hops", u.ue, h.Number(), route, func(m *wire.Message) { m.Set("Max-Forwards", "0") }, 483},
		{"an option nobody knows", u.ue, h.Number(), route, func(m *wire.Message) { m.Add("Require", "teleport") }, 420},
		{"the sip form", u.ue, h.Number(), route, func(m *wire.Message) {
			m.URI = "sip:" + h.Number() + "@" + c.Domain() + ";user=phone"
			m.Set("Supported", "timer")
			m.Body = []byte("v=0\r\nbroken")
		}, 488},
	} {
		l := tt.u.invite(tt.number, videoOffer, tt.route, tt.edit)
		got := tt.u.final("INVITE")
		if got.Status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, got.Status, got.Get("Warning"), tt.status)
		}
		l.preroute = tt.route
		l.failed(got)
	}
	if err := off.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if !c.Registered("tel:" + off.Number()) {
		t.Error("a phone that is switched on again is not registered")
	}
}

func TestInDialogRequestsFollowTheRecordRoute(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, l := connect(t, c, h, "tcp", videoOffer)
	good := l.routes
	for _, routes := range [][]string{nil, append([]string{"<sip:" + c.Addr().String() + ";lr>"}, u.routes...)} {
		l.routes = routes
		l.do("BYE", nil)
		if got := u.final("BYE"); got.Status != 403 {
			t.Errorf("BYE with Route %q answered %d, want 403", routes, got.Status)
		}
	}
	if len(good) != 2 {
		t.Errorf("TCP to UDP has %d Record-Routes, want one for each side", len(good))
	}
	l.routes = good
	l.do("BYE", nil)
	if got := u.final("BYE"); got.Status != 200 {
		t.Errorf("BYE answered %d", got.Status)
	}
}

func TestTrunkPeer(t *testing.T) {
	c := startCore(t, CoreOptions{TrunkPeers: []string{"127.0.0.1"}})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u := newUE(t, c, "udp")
	m := &wire.Message{Method: "OPTIONS", URI: "sip:" + c.Addr().String()}
	m.Add("Via", u.via())
	m.Add("Max-Forwards", "70")
	m.Add("From", "<sip:trunk@example.test>;tag=1")
	m.Add("To", "<"+m.URI+">")
	m.Add("Call-ID", wire.Token(6))
	m.Add("CSeq", "1 OPTIONS")
	u.send(m)
	if got := u.final("OPTIONS"); got.Status != 200 || !got.Has("Allow", "INVITE") {
		t.Errorf("OPTIONS answered %d, Allow %q", got.Status, got.Values("Allow"))
	}
	l := u.invite(h.Number(), videoOffer, nil, func(m *wire.Message) {
		m.Add("P-Asserted-Identity", "<tel:+15557777>")
		m.Add("P-Charging-Vector", "icid-value=mine")
	})
	l.follow(u.status("INVITE", 200))
	l.ack()
	call, err := h.WaitState(testContext(t), Connected)
	if err != nil {
		t.Fatal(err)
	}
	if call.From != "<tel:+15557777>" || !strings.Contains(strings.Join(call.Headers, "\n"), "P-Charging-Vector: icid-value=mine") {
		t.Errorf("a trunk's identity and charging vector pass: %q", call.Headers)
	}
	if err := h.HangUp(); err != nil {
		t.Fatal(err)
	}
	u.reply(u.request("BYE"), 200)
}

func TestFaults(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 20 * time.Millisecond})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, route := caller(t, c, "tcp")
	set := func(f Faults) {
		t.Helper()
		if err := c.SetFaults(f); err != nil {
			t.Fatal(err)
		}
	}
	set(Faults{InviteStatus: 503, RetryAfter: 7 * time.Second})
	l := u.invite(h.Number(), videoOffer, route, nil)
	got := u.final("INVITE")
	if got.Status != 503 || got.Get("Retry-After") != "7" {
		t.Errorf("%d, Retry-After %q", got.Status, got.Get("Retry-After"))
	}
	l.failed(got)

	set(Faults{RegisterStatus: 500})
	if got := u.register(600, ""); got.Status != 500 {
		t.Errorf("REGISTER answered %d", got.Status)
	}

	// Silence: what comes after it is answered, so it was not merely slow.
	set(Faults{SilentInvite: true, SilentRegister: true})
	before := c.Counters()
	u.invite(h.Number(), videoOffer, route, nil)
	waitUntil(t, "the INVITE arrives", func() bool { return c.Counters()["rx INVITE"] > before["rx INVITE"] })
	after := c.Counters()
	for k, n := range after {
		if strings.HasPrefix(k, "tx ") && strings.HasSuffix(k, " INVITE") && n != before[k] {
			t.Errorf("%s happened while the core is silent", k)
		}
	}

	set(Faults{Delay: 150 * time.Millisecond})
	start := time.Now()
	if got := u.register(600, ""); got.Status != 401 || time.Since(start) < 150*time.Millisecond {
		t.Errorf("%d after %v", got.Status, time.Since(start))
	}

	set(Faults{})
	if err := c.CloseConnections(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the connection breaks", func() bool {
		_, err := net.DialTimeout("tcp", u.local, time.Millisecond)
		return err != nil
	})
	// The same phone comes back on a new connection, with the contact it registered.
	again := newUE(t, c, "tcp")
	again.invite(h.Number(), videoOffer, route, func(m *wire.Message) { m.Set("Contact", "<"+u.contact("me")+">") })
	if got := again.final("INVITE"); got.Status != 200 {
		t.Errorf("after a broken connection: %d %s", got.Status, got.Get("Warning"))
	}
}

func TestCalleeGone(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 5 * time.Millisecond})
	u, route := caller(t, c, "tcp")
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	h.Close() // a flat battery: still registered, nobody there
	l := u.invite(h.Number(), videoOffer, route, nil)
	got := u.final("INVITE")
	if got.Status != 408 {
		t.Errorf("%d, want 408", got.Status)
	}
	l.failed(got)
}

func TestRingingForEverIsCutOff(t *testing.T) {
	c := startCore(t, CoreOptions{})
	c.ringLimit(50 * time.Millisecond)
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: NoAnswer})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	got := u.final("INVITE")
	if got.Status != 487 {
		t.Errorf("%d, want 487 from timer C", got.Status)
	}
	l.failed(got)
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]CoreOptions{
		"addr":       {Addr: "nonsense"},
		"domain":     {Domain: "a b"},
		"peer":       {TrunkPeers: []string{"example.test"}},
		"min > max":  {MinExpires: time.Hour, MaxExpires: time.Minute},
		"negative":   {T1: -1},
		"port taken": {Addr: startCore(t, CoreOptions{}).Addr().String()},
	} {
		if c, err := StartCore(o); err == nil {
			c.Close()
			t.Errorf("%s: started", name)
		}
	}
	c := startCore(t, CoreOptions{})
	for name, o := range map[string]HandsetOptions{
		"number":    {Number: "12345"},
		"letters":   {Number: "+86abc"},
		"profile":   {Number: "+8613800138001", Profile: "toaster"},
		"transport": {Number: "+8613800138001", Transport: "sctp"},
		"script":    {Number: "+8613800138001", Script: &Script{Status: 200}},
		"auth":      {Number: "+8613800138001", Auth: &Auth{Algorithm: "ROT13"}},
	} {
		if _, err := c.AddHandset(o); err == nil {
			t.Errorf("%s: added", name)
		}
	}
	c.Close()
	if _, err := c.AddHandset(HandsetOptions{Number: "+8613800138001"}); err == nil {
		t.Error("a closed core takes handsets")
	}
	if err := c.SetFaults(Faults{}); err == nil {
		t.Error("a closed core takes faults")
	}
}

func TestDemoRoster(t *testing.T) {
	c := startCore(t, CoreOptions{})
	hs, err := c.AddDemo(nil)
	if err != nil {
		t.Fatal(err)
	}
	count := map[Profile]int{}
	for _, h := range hs {
		count[h.Profile()]++
		if !c.Registered("tel:" + h.Number()) {
			t.Errorf("%s is not registered", h.Name())
		}
	}
	want := map[Profile]int{VolteVideo: 3, VolteVoice: 1, Video488: 1, PSTN: 1, Busy: 1, NoAnswer: 1}
	for p, n := range want {
		if count[p] != n {
			t.Errorf("%d handsets of %s, want %d", count[p], p, n)
		}
	}
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	var out bytes.Buffer
	ready := make(chan *Core, 1)
	done := make(chan error, 1)
	sub, err := ParseSubscriber("15550100@lab,sip:+15550100@lab,akav1-md5,00112233445566778899aabbccddeeff,ffeeddccbbaa99887766554433221100")
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseHandset("+8613800138009,slow=2s,小明")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- Serve(ctx, ServeOptions{
			Core: CoreOptions{Domain: "lab"}, Subscribers: []Subscriber{sub}, Handsets: []HandsetOptions{h}, Out: &out,
			Ready: func(c *Core, _ []*Handset) { ready <- c },
		})
	}()
	c := <-ready
	for _, s := range []string{c.Addr().String(), "+8613800138009", "小明", "sip:+15550100@lab", "AKAv1-MD5"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("%q is not printed:\n%s", s, &out)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", c.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
	for _, bad := range []string{"", "+86138", "+8613800138009,toaster", "+8613800138009,busy=3s", "x,busy"} {
		if _, err := ParseHandset(bad); err == nil {
			t.Errorf("handset %q is taken", bad)
		}
	}
	for _, bad := range []string{"a,b", "a,sip:+1@x,rot13,p", "a,sip:+1@x,akav1-md5,00,11", "a,mailto:x,md5,p"} {
		if _, err := ParseSubscriber(bad); err == nil {
			t.Errorf("subscriber %q is taken", bad)
		}
	}
}
