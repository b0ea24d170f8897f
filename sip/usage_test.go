package sip

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// asker is a peer's side of one dialog that it makes itself. What it sends goes over a
// socket of its own; what the UA sends comes to the peer named in Contact.
type asker struct {
	*knocker
	p    *peer
	net  string
	uri  string
	call string
	tag  string // the UA's, once known
	seq  int
}

func newAsker(t *testing.T, p *peer, ua *UA, uri string) *asker {
	t.Helper()
	return &asker{knocker: knock(t, p.net, ua.Attachments()[0].LocalAddr), p: p, net: strings.ToUpper(p.net), uri: uri,
		call: fmt.Sprintf("call-%s-%d", t.Name(), time.Now().UnixNano())}
}

// ask sends a request and returns its final response.
func (a *asker) ask(method string, extra ...string) message {
	a.t.Helper()
	a.seq++
	to := "<" + a.uri + ">"
	if a.tag != "" {
		to += ";tag=" + a.tag
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%s-%d\r\nMax-Forwards: 70\r\n", method, a.uri, a.net,
		a.conn.LocalAddr(), a.call, a.seq)
	fmt.Fprintf(&b, "From: \"Ann\" <sip:ann@home.example>;tag=peer\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n", to, a.call, a.seq, method)
	a.send([]byte(finish(&b, extra)))
	for {
		m := a.receive()
		if strings.HasPrefix(m.start, "SIP/2.0 1") {
			continue
		}
		if strings.HasPrefix(m.start, "SIP/2.0 2") {
			_, a.tag, _ = strings.Cut(m.get("To"), ";tag=")
		}
		return m
	}
}

func (m message) status() string {
	_, s, _ := strings.Cut(m.start, " ")
	s, _, _ = strings.Cut(s, " ")
	return s
}

func (a *asker) contact() string { return a.p.contact() }

// notified takes the next NOTIFY, wants it to belong to the dialog, and answers it.
func (a *asker) notified(state string, status int) message {
	a.t.Helper()
	m := a.p.expect("NOTIFY")
	if m.get("Call-Id") != a.call || !strings.HasSuffix(m.get("From"), ";tag="+a.tag) || !strings.HasSuffix(m.get("To"), ";tag=peer") {
		a.t.Errorf("NOTIFY in another dialog: %q", m.order)
	}
	if got := m.get("Subscription-State"); got != state {
		a.t.Errorf("state %q, want %q", got, state)
	}
	m.write(answer(m, status, "x", ""))
	return m
}

// subscriber records what OnSubscribe and its events bring.
type subscriber struct {
	asked  chan Subscribe
	subs   chan Subscription
	events chan SubscriptionEvent
}

func onSubscribe(ua *UA, decide func(Subscription)) *subscriber {
	s := &subscriber{make(chan Subscribe, 16), make(chan Subscription, 16), make(chan SubscriptionEvent, 16)}
	ua.OnSubscribe(func(in Subscribe, sub Subscription) func(SubscriptionEvent) {
		decide(sub)
		s.asked <- in
		s.subs <- sub
		return func(e SubscriptionEvent) { s.events <- e }
	})
	return s
}

func got[T any](t testing.TB, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		var v T
		t.Fatalf("no %T came", v)
		return v
	}
}

func TestSubscribe(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		s := onSubscribe(ua, func(sub Subscription) {
			sub.Accept(10 * time.Minute)
			sub.Notify("application/conference-info+xml", []byte("<one/>"))
		})
		a := newAsker(t, p, ua, "sip:conf-1@carrier.example")
		res := a.ask("SUBSCRIBE", a.contact(), "Event: conference;id=7", "Expires: 3600", "Accept: application/conference-info+xml",
			"P-Asserted-Identity: \"Ann A\" <sip:ann@home.example>, <tel:+8613800138001>", "Privacy: id", "Record-Route: <sip:"+p.addr+";lr;transport="+network+">")
		if res.status() != "200" || res.get("Expires") != "600" || !strings.HasPrefix(res.get("Contact"), "<sip:conf-1@127.0.0.1:") ||
			res.get("Record-Route") == "" {
			t.Fatalf("%q", res.order)
		}
		in := got(t, s.asked)
		want := Subscribe{Attachment: "t", At: in.At, MaxDocument: map[string]int{"udp": maxDatagramDocument, "tcp": maxStreamDocument}[network], Target: "sip:conf-1@carrier.example", Event: "conference", Expires: time.Hour,
			Accept: []string{"application/conference-info+xml"},
			By:     Identity{URI: "tel:+8613800138001", Number: "+8613800138001", URIs: []string{"tel:+8613800138001", "sip:ann@home.example"}, Name: "Ann", Trusted: true, Private: true}}
		if !reflect.DeepEqual(in, want) {
			t.Errorf("%+v", in)
		}
		sub := got(t, s.subs)
		m := a.notified("active;expires=600", 200)
		if m.get("Event") != "conference;id=7" || m.get("Content-Type") != "application/conference-info+xml" || m.body != "<one/>" ||
			m.get("Route") != "<sip:"+p.addr+";lr;transport="+network+">" || !strings.HasPrefix(m.start, "NOTIFY sip:callee@"+p.addr) {
			t.Errorf("%s %q %q", m.start, m.order, m.body)
		}
		res = a.ask("SUBSCRIBE", a.contact(), "Event: conference;id=7", "Expires: 300")
		if e, ok := got(t, s.events).(SubscriptionRefreshed); !ok || e.Expires != 5*time.Minute || res.get("Expires") != "300" {
			t.Errorf("refreshed %+v, %q", e, res.order)
		}
		sub.Notify("application/conference-info+xml", []byte("<two/>"))
		if m := a.notified("active;expires=300", 200); m.body != "<two/>" {
			t.Errorf("%q", m.body)
		}
		if res := a.ask("BYE"); res.status() != "481" {
			t.Errorf("BYE: %s", res.start)
		}
		if res = a.ask("SUBSCRIBE", a.contact(), "Event: conference;id=7", "Expires: 0"); res.status() != "200" || res.get("Expires") != "0" {
			t.Errorf("%q", res.order)
		}
		if e := got(t, s.events); e != (SubscriptionGone{"unsubscribed"}) {
			t.Errorf("%+v", e)
		}
		a.notified("terminated;reason=timeout", 200)
		sub.Notify("x/y", nil) // harmless after the end
	})
}

func TestSubscriptionEnds(t *testing.T) {
	accept := func(sub Subscription) {
		sub.Accept(time.Hour)
		sub.Notify("x/y", []byte("1"))
	}
	t.Run("481", func(t *testing.T) {
		p := newPeer(t, "udp")
		ua := newTrunk(t, p)
		s := onSubscribe(ua, accept)
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		a.ask("SUBSCRIBE", a.contact(), "Event: conference")
		a.notified("active;expires=3600", 481)
		if e := got(t, s.events); e != (SubscriptionGone{"notify_failed"}) {
			t.Errorf("%+v", e)
		}
		if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "481" {
			t.Errorf("afterwards %s", res.start)
		}
	})
	t.Run("asked again as it ends", func(t *testing.T) {
		p := newPeer(t, "udp")
		ua := newTrunk(t, p)
		ends := make(chan struct{}, 1)
		ua.OnSubscribe(func(_ Subscribe, sub Subscription) func(SubscriptionEvent) {
			accept(sub)
			return func(SubscriptionEvent) { // the dialog's goroutine: it waits until more has come
				ends <- struct{}{}
				n := &ua.atts[0].usages
				eventually(t, "what comes as it ends", func() bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					return slices.ContainsFunc(slices.Collect(maps.Values(n.outsides)), func(o *outside) bool {
						o.us.mu.Lock()
						defer o.us.mu.Unlock()
						return len(o.us.inbox) > 0
					})
				})
			}
		})
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		a.ask("SUBSCRIBE", a.contact(), "Event: conference")
		a.notified("active;expires=3600", 481)
		got(t, ends)
		if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "481" {
			t.Errorf("as its last subscription ended: %s", res.start)
		}
	})
	t.Run("terminated", func(t *testing.T) {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		s := onSubscribe(ua, accept)
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		a.ask("SUBSCRIBE", a.contact(), "Event: conference")
		a.notified("active;expires=3600", 200)
		got(t, s.subs).Terminate("noresource", "x/y", []byte("last"))
		if m := a.notified("terminated;reason=noresource", 200); m.body != "last" {
			t.Errorf("%q", m.body)
		}
		if e := got(t, s.events); e != (SubscriptionGone{"terminated"}) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("a document that does not fit", func(t *testing.T) {
		both(t, func(t *testing.T, network string) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			s := onSubscribe(ua, func(sub Subscription) { sub.Accept(time.Hour) })
			a := newAsker(t, p, ua, "sip:c@carrier.example")
			a.ask("SUBSCRIBE", a.contact(), "Event: conference")
			sub, most := got(t, s.subs), got(t, s.asked).MaxDocument
			sub.Notify("x/y", bytes.Repeat([]byte("d"), most))
			m, limit := a.notified("active;expires=3600", 200), map[string]int{"udp": 8000, "tcp": 16 << 10}[network]
			size := len(m.start+strings.Join(m.order, "..")+m.body) + len("......")
			if len(m.body) != most || size > limit || size < limit*3/4 {
				t.Errorf("NOTIFY of %d bytes, %d of them the document; want it below %d", size, len(m.body), limit)
			}
			sub.Notify("x/y", bytes.Repeat([]byte("d"), most+1))
			if m := a.notified("terminated;reason=probation", 200); m.body != "" {
				t.Errorf("%d bytes more than may be", len(m.body)-most)
			}
			if e := got(t, s.events); e != (SubscriptionGone{"notify_failed"}) {
				t.Errorf("%+v", e)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		onSubscribe(ua, func(sub Subscription) { sub.Reject(403) })
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "403" {
			t.Error(res.start)
		}
	})
	t.Run("nobody decides", func(t *testing.T) {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		onSubscribe(ua, func(Subscription) {})
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "480" {
			t.Error(res.start)
		}
	})
	t.Run("closing", func(t *testing.T) {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		s := onSubscribe(ua, accept)
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		a.ask("SUBSCRIBE", a.contact(), "Event: conference")
		a.notified("active;expires=3600", 200)
		closed := make(chan struct{})
		go func() { _ = ua.Close(context.Background()); close(closed) }()
		a.notified("terminated;reason=deactivated", 200)
		if e := got(t, s.events); e != (SubscriptionGone{"shutdown"}) {
			t.Errorf("%+v", e)
		}
		<-closed
	})
	t.Run("a fault of the owner", func(t *testing.T) {
		p := newPeer(t, "udp")
		ua := newTrunk(t, p)
		onSubscribe(ua, func(Subscription) { panic("test") })
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "500" {
			t.Error(res.start)
		}
		onSubscribe(ua, accept)
		b := newAsker(t, p, ua, "sip:c@carrier.example")
		if res := b.ask("SUBSCRIBE", b.contact(), "Event: conference"); res.status() != "200" {
			t.Error(res.start)
		}
		b.notified("active;expires=3600", 481)
		n := &ua.atts[0].usages
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.count > 1 || len(n.peers) > 1 {
			t.Errorf("%d subscriptions counted", n.count)
		}
	})
}

func TestRefer(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		refers, refs := make(chan Refer, 16), make(chan Referral, 16)
		ua.OnRefer(func(r Refer, ref Referral) { ref.Accept(); refers <- r; refs <- ref })
		a := newAsker(t, p, ua, "sip:conf-1@carrier.example")
		res := a.ask("REFER", a.contact(), "Refer-To: <sip:+15550123@home.example;user=phone;method=INVITE?Replaces=abc%40h%3Bto-tag%3D1%3Bfrom-tag%3D2>",
			"Referred-By: \"Ann\" <sip:ann@home.example>;cid=x")
		if res.status() != "202" || res.get("Expires") != "" || res.get("Contact") == "" {
			t.Fatalf("%s %q", res.start, res.order)
		}
		r := got(t, refers)
		want := Refer{Attachment: "t", At: r.At, Target: "sip:conf-1@carrier.example", By: Identity{URI: "sip:ann@home.example", Name: "Ann"},
			ReferredBy: "sip:ann@home.example", Method: "INVITE", URIs: []string{"sip:+15550123@home.example;user=phone"}, Replaces: "abc@h;to-tag=1;from-tag=2"}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%+v", r)
		}
		m := a.notified("active;expires=300", 200)
		if m.get("Event") != "refer;id=1" || m.get("Content-Type") != "message/sipfrag;version=2.0" || m.body != "SIP/2.0 100 Trying\r\n" {
			t.Errorf("%q %q", m.order, m.body)
		}
		first := got(t, refs)
		// A second REFER in the same dialog has a subscription of its own.
		if res := a.ask("REFER", a.contact(), "Refer-To: <tel:+15550124;method=BYE>"); res.status() != "202" {
			t.Error(res.start)
		}
		if r := got(t, refers); r.Method != "BYE" || r.URIs[0] != "tel:+15550124" || r.Target != "sip:conf-1@carrier.example" {
			t.Errorf("%+v", r)
		}
		if m := a.notified("active;expires=300", 200); m.get("Event") != "refer;id=2" {
			t.Error(m.order)
		}
		second := got(t, refs)
		first.Progress(180, "Ringing")
		if m := a.notified("active;expires=300", 200); m.get("Event") != "refer;id=1" || m.body != "SIP/2.0 180 Ringing\r\n" {
			t.Errorf("%q %q", m.order, m.body)
		}
		second.Progress(481, "Call/Transaction Does Not Exist")
		if m := a.notified("terminated;reason=noresource", 200); m.get("Event") != "refer;id=2" {
			t.Error(m.order)
		}
		first.Progress(200, "OK")
		if m := a.notified("terminated;reason=noresource", 200); m.body != "SIP/2.0 200 OK\r\n" {
			t.Error(m.body)
		}
	})
}

const referees = `<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list>` +
	`<entry uri="tel:+15550123"/><entry uri="sip:b@h;method=INVITE?Route=%3Csip:evil%3E"/></list></resource-lists>`

// What a REFER asks for is read as the RFCs have it, and refused where it makes no sense.
func TestReferForms(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	refers := make(chan Refer, 16)
	ua.OnRefer(func(r Refer, ref Referral) { ref.Accept(); refers <- r })
	list := []string{"Refer-To: <cid:l@h>", "Refer-Sub: false", "Require: multiple-refer", "Content-Type: application/resource-lists+xml", "Content-ID: <l@h>"}
	for _, tt := range []struct {
		name   string
		extra  []string
		status string
		uris   []string
	}{
		{"silent", []string{"Refer-To: <tel:+15550123>", "Refer-Sub: FALSE"}, "200", []string{"tel:+15550123"}},
		{"list", append(list, "\n"+referees), "200", []string{"tel:+15550123", "sip:b@h"}},
		{"list of two kinds", append(list, "\n"+strings.Replace(referees, "method=INVITE", "method=BYE", 1)), "400", nil},
		{"list that is not there", append(list[1:], "Refer-To: <cid:other@h>", "\n"+referees), "400", nil},
		{"no Refer-To", nil, "400", nil},
		{"two", []string{"Refer-To: <tel:+1>", "Refer-To: <tel:+2>"}, "400", nil},
		{"nonsense", []string{"Refer-To: Bob"}, "400", nil},
		{"half a Replaces", []string{"Refer-To: <sip:a@b?Replaces=x>"}, "400", nil},
		{"another method", []string{"Refer-To: <sip:a@b;method=MESSAGE>"}, "501", nil},
		{"no Contact", nil, "400", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAsker(t, p, ua, "sip:c@carrier.example")
			extra := tt.extra
			if tt.name != "no Contact" {
				extra = append([]string{a.contact()}, extra...)
			} else {
				extra = []string{"Refer-To: <tel:+15550123>"}
			}
			res := a.ask("REFER", extra...)
			if res.status() != tt.status {
				t.Fatalf("%s, want %s", res.start, tt.status)
			}
			if tt.status != "200" {
				return
			}
			if res.get("Refer-Sub") != "false" {
				t.Errorf("%q", res.order)
			}
			if r := got(t, refers); !r.Silent || !reflect.DeepEqual(r.URIs, tt.uris) {
				t.Errorf("%+v", r)
			}
		})
	}
	select {
	case m := <-p.in:
		t.Errorf("nobody wanted %s", m.start)
	default:
	}
}

// Without an owner, and in dialogs that do not exist.
func TestUsagesRefused(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	for _, tt := range []struct {
		method, status string
		extra          []string
		tag            string
	}{
		{"SUBSCRIBE", "489", []string{"Event: conference"}, ""},
		{"SUBSCRIBE", "489", nil, ""},
		{"SUBSCRIBE", "400", []string{"Event: a", "Event: b"}, ""},
		{"SUBSCRIBE", "400", []string{"Event: conference", "Expires: soon"}, ""},
		{"SUBSCRIBE", "481", []string{"Event: conference"}, "nobody"},
		{"REFER", "403", []string{"Refer-To: <tel:+15550123>"}, ""},
		{"REFER", "481", []string{"Refer-To: <tel:+15550123>"}, "nobody"},
		{"NOTIFY", "481", []string{"Event: conference", "Subscription-State: active"}, "nobody"},
		{"NOTIFY", "481", []string{"Event: conference", "Subscription-State: active"}, ""},
	} {
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		a.tag = tt.tag
		res := a.ask(tt.method, append(tt.extra, a.contact())...)
		if res.status() != tt.status || tt.status == "489" && res.get("Allow-Events") != "conference, refer" {
			t.Errorf("%s %v: %s", tt.method, tt.extra, res.start)
		}
	}
}

// Who is refused hears what we have (RFC 6665 8.3.2, RFC 3261 21.4.7).
func TestRefusedSubscribeSaysWhatThereIs(t *testing.T) {
	for _, tt := range []struct {
		status               int
		allowEvents, accepts string
	}{
		{489, "conference, refer", ""},
		{406, "", "application/conference-info+xml"},
		{403, "", ""},
	} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		onSubscribe(ua, func(sub Subscription) { sub.Reject(tt.status) })
		a := newAsker(t, p, ua, "sip:c@carrier.example")
		res := a.ask("SUBSCRIBE", a.contact(), "Event: conference", "Accept: text/plain")
		if res.status() != fmt.Sprint(tt.status) || res.get("Allow-Events") != tt.allowEvents || res.get("Accept") != tt.accepts {
			t.Errorf("%s, Allow-Events %q, Accept %q", res.start, res.get("Allow-Events"), res.get("Accept"))
		}
	}
}

// Types are compared as RFC 3261 has it: whatever their case and parameters.
func TestSubscribeAccepts(t *testing.T) {
	const kind = "application/conference-info+xml"
	for _, tt := range []struct {
		accept []string
		want   bool
	}{
		{nil, true},
		{[]string{"application/conference-info+xml;q=0.9", "text/plain"}, true},
		{[]string{"text/plain", "Application/Conference-Info+XML"}, true},
		{[]string{" application/* ; q=0.1"}, true},
		{[]string{"*/*"}, true},
		{[]string{"text/*"}, false},
		{[]string{"application/conference-info+xml2"}, false},
		{[]string{"application/sdp"}, false},
	} {
		if got := (Subscribe{Accept: tt.accept}).Accepts(kind); got != tt.want {
			t.Errorf("%q: %v", tt.accept, got)
		}
	}
}

// One dialog, and one peer, can have only so many.
func TestUsagesAreBounded(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	ua.OnRefer(func(r Refer, ref Referral) { ref.Accept() })
	a := newAsker(t, p, ua, "sip:c@carrier.example")
	for i := range maxUsagesADialog + 1 {
		want := "202"
		if i == maxUsagesADialog {
			want = "503"
		}
		if res := a.ask("REFER", a.contact(), "Refer-To: <tel:+15550123>"); res.status() != want || want == "503" && res.get("Retry-After") == "" {
			t.Fatalf("REFER %d: %s", i, res.start)
		}
	}
}

// pair waits for two messages in either order: they come over different connections.
func (p *peer) pair(first, second string) (a, b message) {
	p.t.Helper()
	for range 2 {
		m := got(p.t, p.in)
		switch {
		case strings.HasPrefix(m.start, "SIP/2.0 "+first):
			a = m
		case m.method() == second:
			b = m
		}
	}
	if a.start == "" || b.start == "" {
		p.t.Fatalf("%s and %s: got %q and %q", first, second, a.start, b.start)
	}
	return a, b
}

// BYE goes behind what was notified before, though the peer be slow to answer NOTIFY; but it
// does not wait for one who never does.
func TestHangupBehindNotify(t *testing.T) {
	for _, answers := range []bool{true, false} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p)
		refs := make(chan Referral, 1)
		ua.OnRefer(func(_ Refer, ref Referral) { ref.Accept(); refs <- ref })
		call, ev := place(t, ua)
		inv := connect(t, p, ev)
		inv.write(p.inDialog(inv, "a", "REFER", 7, p.contact(), "Refer-To: <tel:+15550124>"))
		_, trying := p.pair("202", "NOTIFY")
		got(t, refs).Progress(200, "OK")
		call.Hangup("hung_up", "")
		last := func() {
			trying.write(answer(trying, 200, "OK", ""))
			n := p.expect("NOTIFY")
			if !strings.HasPrefix(n.get("Subscription-State"), "terminated") {
				t.Errorf("%q", n.order)
			}
			n.write(answer(n, 200, "OK", ""))
		}
		if answers {
			last()
		}
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		next[Ended](ev)
		if !answers {
			last()
		}
	}
}

// The same in the dialog of a call, as handsets do it: REFER and SUBSCRIBE beside each
// other. What was subscribed to outlives the call (RFC 5057).
func TestUsagesInACall(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	s := onSubscribe(ua, func(sub Subscription) {
		sub.Accept(time.Hour)
		sub.Notify("x/y", []byte("full"))
	})
	refers, refs := make(chan Refer, 16), make(chan Referral, 16)
	ua.OnRefer(func(r Refer, ref Referral) { ref.Accept(); refers <- r; refs <- ref })
	k := take(t, ua)
	c := newCaller(t, p, ua)
	c.request("INVITE", "i1", 1, "", "P-Asserted-Identity: <tel:+15550123>", "\n"+offerSDP)
	p.expect("100")
	_, call := k.next()
	call.Accept(Acceptance{SDP: []byte(answerSDP), Focus: "conf-7"})
	ok := p.expect("200")
	tag := tagIn(ok)
	c.request("ACK", "a1", 1, tag)
	next[Connected](k.events)

	c.request("REFER", "r2", 2, tag, "Refer-To: <tel:+15550124;method=INVITE>")
	res, n := p.pair("202", "NOTIFY")
	if !strings.Contains(res.get("Contact"), "sip:conf-7@") {
		t.Errorf("%q", res.order)
	}
	r := got(t, refers)
	if r.CallID != "in@caller" || r.By.Number != "+15550123" || !r.By.Trusted || r.URIs[0] != "tel:+15550124" {
		t.Errorf("%+v", r)
	}
	if n.get("Event") != "refer;id=2" || n.body != "SIP/2.0 100 Trying\r\n" || n.get("Subscription-State") != "active;expires=300" {
		t.Errorf("%q %q", n.order, n.body)
	}
	n.write(answer(n, 200, "OK", ""))
	c.request("SUBSCRIBE", "s3", 3, tag, "Event: conference", "Expires: 600")
	if res, n = p.pair("200", "NOTIFY"); res.get("Expires") != "600" {
		t.Errorf("%q", res.order)
	}
	if in := got(t, s.asked); in.CallID != "in@caller" || in.By.Number != "+15550123" {
		t.Errorf("%+v", in)
	}
	if n.get("Event") != "conference" || n.body != "full" {
		t.Errorf("%q %q", n.order, n.body)
	}
	n.write(answer(n, 503, "Service Unavailable", "", "Retry-After: 1")) // the subscription goes on (RFC 6665 4.2.2)
	if n = p.expect("NOTIFY"); n.get("Event") != "conference" || n.body != "full" {
		t.Errorf("%q %q", n.order, n.body)
	}
	n.write(answer(n, 200, "OK", ""))
	got(t, refs).Progress(200, "OK")
	n = p.expect("NOTIFY")
	if n.get("Event") != "refer;id=2" || n.get("Subscription-State") != "terminated;reason=noresource" {
		t.Errorf("%q", n.order)
	}
	n.write(answer(n, 200, "OK", ""))

	c.request("BYE", "b4", 4, tag)
	p.expect("200")
	next[Ended](k.events)
	got(t, s.subs).Terminate("noresource", "x/y", []byte("last"))
	n = p.expect("NOTIFY")
	if n.get("Subscription-State") != "terminated;reason=noresource" || n.body != "last" {
		t.Errorf("%q %q", n.order, n.body)
	}
	n.write(answer(n, 200, "OK", ""))
	if e := got(t, s.events); e != (SubscriptionGone{"terminated"}) {
		t.Errorf("%+v", e)
	}
	// With the last usage the dialog is gone.
	deadline := time.Now().Add(patience)
	for a := ua.atts[0]; a.find("in@caller", tag) != nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the dialog stays")
		}
	}
}
