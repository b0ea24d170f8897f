package sip

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

// caller is a peer that calls the UA.
type caller struct {
	*peer
	t    *testing.T
	ua   string   // where
	conn net.Conn // tcp
}

// taker is an owner of incoming calls that does nothing by itself.
type taker struct {
	in   chan Incoming
	call chan IncomingCall
	*events
}

func take(t *testing.T, ua *UA) *taker {
	k := &taker{make(chan Incoming, 16), make(chan IncomingCall, 16), &events{t, make(chan Event, 1024)}}
	ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
		k.in <- in
		k.call <- c
		return func(e Event) { k.ch <- e }
	})
	return k
}

// next is the next call that came in.
func (k *taker) next() (Incoming, IncomingCall) {
	k.t.Helper()
	select {
	case in := <-k.in:
		return in, <-k.call
	case <-time.After(patience):
		k.t.Fatal("no call came in")
		return Incoming{}, nil
	}
}

func newCaller(t *testing.T, p *peer, ua *UA) *caller {
	c := &caller{peer: p, t: t, ua: ua.Attachments()[0].LocalAddr}
	if p.net == "tcp" {
		conn, err := net.Dial("tcp", c.ua)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c.conn = conn
		go p.serveConn(conn)
	}
	return c
}

func (c *caller) write(s string) {
	c.t.Helper()
	var err error
	if c.net == "udp" {
		var to *net.UDPAddr
		if to, err = net.ResolveUDPAddr("udp", c.ua); err == nil {
			_, err = c.udp.WriteTo([]byte(s), to)
		}
	} else {
		_, err = io.WriteString(c.conn, s)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// request sends one of the caller: with the branch and number given, to the tag given.
func (c *caller) request(method, branch string, seq int, tag string, extra ...string) {
	c.t.Helper()
	if tag != "" {
		tag = ";tag=" + tag
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s sip:conf@%s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\n",
		method, c.ua, strings.ToUpper(c.net), c.addr, branch)
	fmt.Fprintf(&b, "From: \"Wang\" <sip:+15550123@carrier.example>;tag=caller\r\nTo: <sip:conf@sparkle.example>%s\r\nCall-ID: in@caller\r\nCSeq: %d %s\r\n", tag, seq, method)
	hasContact := slices.ContainsFunc(extra, func(h string) bool { return strings.HasPrefix(h, "Contact") })
	if !hasContact && (method == "INVITE" || method == "UPDATE") {
		b.WriteString(c.contact() + "\r\n")
	}
	c.write(finish(&b, extra))
}

// connect has a call taken, which k's owner answers.
func (c *caller) connect(k *taker) (call IncomingCall, tag string) {
	c.t.Helper()
	c.request("INVITE", "i1", 1, "", "\n"+offerSDP)
	c.expect("100")
	_, call = k.next()
	call.Accept(Acceptance{SDP: []byte(answerSDP)})
	tag = tagIn(c.expect("200"))
	c.request("ACK", "a1", 1, tag)
	next[Connected](k.events)
	return call, tag
}

// settle makes sure that what was sent last, an ACK, has been dealt with.
func (c *caller) settle() {
	c.t.Helper()
	c.request("OPTIONS", "settle", 1, "")
	c.expect("200")
}

func tagIn(m message) string {
	_, tag, _ := strings.Cut(m.get("To"), "tag=")
	return tag
}

// P-Called-Party-ID says whom the call is for where a core calls us by our Contact; the Request-URI
// is told as it came all the same.
func TestCalledParty(t *testing.T) {
	for _, tt := range []struct {
		name           string
		start          func(*testing.T, *peer) *UA
		target, called string
	}{
		{"ue", newUE, "sip:mmtel@factory.example", "sip:mmtel@factory.example"},
		{"as", func(t *testing.T, p *peer) *UA { return newAS(t, p) }, "sip:mmtel@factory.example", "sip:mmtel@factory.example"},
		{"as, not trusted", func(t *testing.T, p *peer) *UA {
			return newAS(t, p, func(o *AttachmentOptions) { o.Untrusted = true })
		}, "urn:service:sos", ""},
		{"trunk", func(t *testing.T, p *peer) *UA { return newTrunk(t, p) }, "urn:service:sos", "sip:mmtel@factory.example"},
		{"trunk, not trusted", func(t *testing.T, p *peer) *UA {
			return newTrunk(t, p, func(o *AttachmentOptions) { o.Untrusted = true })
		}, "urn:service:sos", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t, "tcp")
			ua := tt.start(t, p)
			k := take(t, ua)
			core := knock(t, "tcp", ua.Attachments()[0].LocalAddr)
			core.send([]byte(p.toUs(ua, "INVITE", "urn:service:sos", "called", "Contact: <sip:x@"+p.addr+">",
				"P-Called-Party-ID: <sip:mmtel@factory.example>", "\n"+offerSDP)))
			in, call := k.next()
			call.Reject(403, 0)
			if in.Target != tt.target || in.CalledParty != tt.called || in.RequestURI != "urn:service:sos" || in.To != "sip:+15550100@carrier.example" {
				t.Errorf("for %q, called party %q, Request-URI %q, To %q", in.Target, in.CalledParty, in.RequestURI, in.To)
			}
		})
	}
}

// A call comes in, with everything a handset does, and the caller ends it.
func TestIncomingCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		k := take(t, ua)
		c := newCaller(t, p, ua)
		c.request("INVITE", "i1", 1, "", "Supported: 100rel, timer", "Allow: UPDATE, PRACK",
			"P-Asserted-Identity: <sip:+15550123@carrier.example>, <tel:+15550123;verstat=TN-Validation-Passed>",
			"P-Charging-Vector: icid-value=abc;orig-ioi=x", "\n"+offerSDP)
		p.expect("100")
		in, call := k.next()
		if in.Target != "sip:conf@"+c.ua {
			t.Errorf("the caller wants %q", in.Target)
		}
		if in.CallID != "in@caller" || in.ICID != "abc" || in.Caller.Number != "+15550123" || !in.Caller.Trusted || string(in.Offer) != offerSDP {
			t.Errorf("incoming %+v", in)
		}
		call.Ring()
		ringing := p.expect("180")
		tag := tagIn(ringing)
		if ringing.get("Require") != "100rel" || tag == "" || ringing.get("Contact") == "" {
			t.Errorf("180 is\n%s", strings.Join(ringing.order, "\n"))
		}
		call.Accept(Acceptance{SDP: []byte(answerSDP), Focus: "conf-7"})
		c.request("PRACK", "p2", 2, tag, "RAck: "+ringing.get("RSeq")+" 1 INVITE")
		if network == "udp" { // the 200 of the INVITE may overtake that of the PRACK
			p.expect("200")
		} else if ok := p.expect("200"); !strings.Contains(ok.get("Cseq"), "PRACK") {
			t.Errorf("after PRACK came %q", ok.order)
		}
		ok := p.expect("200")
		for !strings.Contains(ok.get("Cseq"), "INVITE") {
			ok = p.expect("200")
		}
		if ok.body != answerSDP || tagIn(ok) != tag || !strings.Contains(ok.get("Contact"), "sip:conf-7@") || !strings.Contains(ok.get("Contact"), ";isfocus") {
			t.Errorf("200 is\n%s\n\n%s", strings.Join(ok.order, "\n"), ok.body)
		}
		c.request("ACK", "a1", 1, tag)
		if e := next[Connected](k.events); !strings.Contains(e.Contact, p.addr) {
			t.Errorf("the caller's Contact is %q", e.Contact)
		}
		c.request("INVITE", "i3", 3, tag, "\n"+offerSDP)
		offer := next[Offer](k.events)
		call.Reply(offer.ID, []byte(answerSDP), 200)
		for ok = p.expect("200"); !strings.Contains(ok.get("Cseq"), "3 INVITE"); {
			ok = p.expect("200")
		}
		if e := next[Replied](k.events); e.Offer != offer.ID || !e.Used {
			t.Errorf("%+v", e)
		}
		c.request("ACK", "a3", 3, tag)
		c.request("BYE", "b4", 4, tag)
		p.expect("200")
		if e := next[Ended](k.events); e.By != ByRemote || !e.Connected {
			t.Errorf("ended %+v", e)
		}
	})
}

// We hang up: BYE goes to the caller's Contact, or where he called from.
func TestIncomingHungUp(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for _, contact := range []string{"", "Contact: <sip:caller@127.0.0.1:1;transport=" + network + ">"} {
			if contact != "" && network == "udp" {
				continue // nothing says that nobody listens there
			}
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			k := take(t, ua)
			c := newCaller(t, p, ua)
			extra := []string{"\n" + offerSDP}
			if contact != "" {
				extra = append(extra, contact)
			}
			c.request("INVITE", "i1", 1, "", extra...)
			_, call := k.next()
			call.Accept(Acceptance{SDP: []byte(answerSDP)})
			p.expect("100")
			ok := p.expect("200")
			c.request("ACK", "a1", 1, tagIn(ok))
			next[Connected](k.events)
			call.Hangup("hung_up", `SIP;cause=200;text="done"`)
			bye := p.expect("BYE")
			bye.write(answer(bye, 200, "OK", ""))
			if e := next[Ended](k.events); e.By != ByLocal || !e.Connected {
				t.Errorf("ended %+v", e)
			}
		}
	})
}

// What a call that comes in is refused with before anybody hears of it.
func TestIncomingRefused(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.MaxCalls = 1 })
		c := newCaller(t, p, ua)
		expect := func(branch string, status string, header, want string, extra ...string) {
			t.Helper()
			c.request("INVITE", branch, 1, "", append(extra, "\n"+offerSDP)...)
			res := p.expect(status)
			if header != "" && (want != "" && res.get(header) != want || res.get(header) == "") {
				t.Errorf("%s has %s %q", status, header, res.get(header))
			}
			c.request("ACK", branch, 1, tagIn(res))
		}
		expect("r1", "503", "Retry-After", "") // nobody takes calls yet
		k := take(t, ua)
		expect("r2", "422", "Min-Se", "90", "Session-Expires: 30", "Supported: timer")
		expect("r3", "481", "", "", "Replaces: nobody@nowhere;to-tag=1;from-tag=2")
		expect("r4", "400", "", "", "Replaces: nobody@nowhere;from-tag=2")
		expect("r5", "400", "", "", "Contact: *")
		c.request("INVITE", "i1", 1, "", "\n"+offerSDP)
		_, call := k.next()
		p.expect("100")
		call.Ring()
		p.expect("180")
		expect("i1b", "482", "", "") // the same INVITE by another way
		other := strings.ReplaceAll
		c.write(other("INVITE sip:conf@x SIP/2.0\r\nVia: SIP/2.0/NET ADDR;branch=z9hG4bKo;rport\r\nFrom: <sip:a@b>;tag=o\r\nTo: <sip:c@d>\r\nCall-ID: o\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:a@127.0.0.1>\r\nContent-Length: 0\r\n\r\n",
			"NET ADDR", strings.ToUpper(network)+" "+p.addr))
		if res := p.expect("503"); res.get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		call.Reject(503, 0)
		if res := p.expect("503"); res.get("Retry-After") == "" {
			t.Error("503 of the owner's without Retry-After")
		}
		if e := next[Ended](k.events); e.Status != 503 || e.By != ByLocal {
			t.Errorf("ended %+v", e)
		}
		c.settle()
		if n := ua.Attachments()[0].Calls; n != 0 {
			t.Errorf("%d calls are left", n)
		}
	})
}

// CANCEL is answered for the call whatever the owner does at the same time, and all
// responses carry one tag.
func TestIncomingCancelled(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		k := take(t, ua)
		c := newCaller(t, p, ua)
		c.request("INVITE", "i1", 1, "", "\n"+offerSDP)
		_, call := k.next()
		p.expect("100")
		call.Ring()
		tag := tagIn(p.expect("180"))
		c.request("CANCEL", "i1", 1, "", `Reason: SIP;cause=200;text="Call completed elsewhere"`)
		p.expect("200")
		final := p.expect("487")
		if !strings.Contains(final.get("Cseq"), "INVITE") || tagIn(final) != tag {
			t.Errorf("487 is %q, its tag should be %s", final.order, tag)
		}
		call.Accept(Acceptance{SDP: []byte(answerSDP)})
		c.request("ACK", "i1", 1, tag)
		c.settle()
		if e := next[Ended](k.events); e.By != ByRemote || e.Why != "cancelled" || e.SIPCause != 200 || e.Connected {
			t.Errorf("ended %+v", e)
		}
	})
}

// Over UDP a BYE may come again, after the call has gone: the answer is the same (RFC 3261 17.2.2).
func TestByeAgain(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	k := take(t, ua)
	c := newCaller(t, p, ua)
	_, tag := c.connect(k)
	c.request("BYE", "b2", 2, tag)
	p.expect("200")
	next[Ended](k.events)
	eventually(t, "the call to be forgotten", func() bool {
		ua.atts[0].mu.Lock()
		defer ua.atts[0].mu.Unlock()
		return len(ua.atts[0].calls) == 0
	})
	for range 2 {
		c.request("BYE", "b2", 2, tag)
		if m := <-p.in; !strings.HasPrefix(m.start, "SIP/2.0 200") || !strings.Contains(m.get("Cseq"), "BYE") {
			t.Errorf("to the BYE again: %s", m.start)
		}
	}
	c.request("BYE", "b3", 3, tag)
	p.expect("481")
}

// A re-INVITE that its sender takes back has changed nothing, and the owner hears so, whether he
// has answered it by then or not.
func TestOfferTakenBack(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		k := take(t, ua)
		c := newCaller(t, p, ua)
		call, tag := c.connect(k)
		c.request("INVITE", "i2", 2, tag, "\n"+offerSDP+"a=sendonly\r\n")
		offer := next[Offer](k.events)
		c.request("CANCEL", "i2", 2, tag)
		for cancelled, over := false, false; !cancelled || !over; {
			m := p.expect("")
			cancelled = cancelled || strings.HasSuffix(m.get("Cseq"), "CANCEL") && strings.Contains(m.start, " 200 ")
			over = over || strings.HasSuffix(m.get("Cseq"), "2 INVITE") && strings.Contains(m.start, " 487 ")
		}
		c.request("ACK", "i2", 2, tag)
		if e := next[Replied](k.events); e.Offer != offer.ID || e.Used {
			t.Errorf("%+v", e)
		}
		call.Reply(offer.ID, []byte(answerSDP), 200)
		c.request("BYE", "b3", 3, tag)
		p.expect("200")
		next[Ended](k.events)
	})
}

// lost is a server transaction that does not get its response out.
type lost struct{ error }

func (l lost) Respond(*sipgo.Response) error { return l.error }

// What follows a response is told once it has gone out: not where a CANCEL was faster, which tells
// something else.
func TestToldOnceItHasGoneOut(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{fmt.Errorf("write: %w", net.ErrClosed), true}, // as one that is lost on its way: it is said again
		{sipgo.ErrTransactionCanceled, false},
		{fmt.Errorf("INVITE: %w", sipgo.ErrTransactionCanceled), false},
	} {
		told := false
		c := &call{a: &attachment{log: slog.New(slog.DiscardHandler)}, on: func(e Event) {
			if r, ok := e.(Replied); ok {
				told = r.Used && r.Offer == 7
			}
		}}
		c.perform(dialog.Respond{Tx: lost{tt.err}, Res: sipgo.NewResponse(200, "OK"), Then: dialog.Replied{Offer: 7, Used: true}})
		if told != tt.want {
			t.Errorf("%v: told %v", tt.err, told)
		}
	}
}

// An owner that returns nothing has not taken the call.
func TestIncomingNotTaken(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	ua.OnIncoming(func(Incoming, IncomingCall) func(Event) { return nil })
	c := newCaller(t, p, ua)
	c.request("INVITE", "i1", 1, "", "\n"+offerSDP)
	p.expect("100")
	p.expect("404")
}

// Replaces finds a call of ours, whoever began it, as RFC 3891 3 allows.
func TestReplaces(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	k := take(t, ua)
	c := newCaller(t, p, ua)
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	_, us, _ := strings.Cut(inv.get("From"), "tag=")
	id := inv.get("Call-Id")
	n := 0
	try := func(want string, replaces string) {
		t.Helper()
		n++
		branch := fmt.Sprint("r", n)
		c.request("INVITE", branch, n, "", "Replaces: "+replaces, "\n"+offerSDP)
		p.expect("100")
		if want == "" {
			in, call := k.next()
			if in.Replaces != id {
				t.Errorf("Replaces is %q, want %q", in.Replaces, id)
			}
			call.Reject(480, 0)
			want = "480"
		}
		res := p.expect(want)
		c.request("ACK", branch, n, tagIn(res))
	}
	refused := func(want, replaces string) {
		t.Helper()
		n++
		branch := fmt.Sprint("r", n)
		c.request("INVITE", branch, n, "", "Replaces: "+replaces, "\n"+offerSDP)
		res := p.expect(want)
		c.request("ACK", branch, n, tagIn(res))
	}
	refused("481", id+";to-tag="+us+";from-tag=x") // no such fork yet
	inv.write(answer(inv, 180, "Ringing", "x", p.contact()))
	next[Ringing](ev)
	try("", id+";to-tag="+us+";from-tag=x") // early, and we called: it may
	try("", id+";to-tag="+us+";from-tag=x;early-only")
	inv.write(answer(inv, 200, "OK", "x", p.contact(), "\n"+answerSDP))
	p.expect("ACK")
	next[Answer](ev)
	next[Connected](ev)
	refused("486", id+";to-tag="+us+";from-tag=x;early-only")
	refused("481", id+";to-tag="+us+";from-tag=y")
	refused("481", id+";to-tag=x;from-tag="+us)
	try("", id+";to-tag="+us+";from-tag=x")
	p.conns[0].Write([]byte(p.inDialog(inv, "x", "BYE", 7)))
	p.expect("200")
	next[Ended](ev)
	refused("603", id+";to-tag="+us+";from-tag=x")
}

// parse reads one request.
func parseRequest(t *testing.T, headers string) *sipgo.Request {
	t.Helper()
	m, err := sipgo.NewParser().ParseSIP([]byte("INVITE sip:x@y SIP/2.0\r\n" + headers + "Call-ID: 1\r\nCSeq: 1 INVITE\r\nTo: <sip:x@y>\r\nContent-Length: 0\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m.(*sipgo.Request)
}

func TestIdentity(t *testing.T) {
	for _, tt := range []struct {
		name, headers string
		want          Identity
	}{
		{"From alone", "From: \"Wang\" <sip:+15550123@h;user=phone>;tag=1\r\n", Identity{URI: "sip:+15550123@h;user=phone", Number: "+15550123", Name: "Wang"}},
		{"a name is no number", "From: <sip:wang@h>;tag=1\r\n", Identity{URI: "sip:wang@h"}},
		{"asserted, tel preferred", "From: <sip:anonymous@anonymous.invalid>;tag=1\r\nP-Asserted-Identity: \"Li\" <sip:li@h>\r\nP-Asserted-Identity: <tel:+1-555-0123;verstat=TN-Validation-Passed>\r\n",
			Identity{URI: "tel:+1-555-0123;verstat=TN-Validation-Passed", Number: "+15550123", Trusted: true, Verstat: "TN-Validation-Passed",
				URIs: []string{"tel:+1-555-0123;verstat=TN-Validation-Passed", "sip:li@h"}}},
		{"asserted, a number before a name", "From: <sip:a@h>;tag=1\r\nP-Asserted-Identity: <>, \"Li\" <sip:li@h>, <sip:+15550123@h>\r\n",
			Identity{URI: "sip:+15550123@h", Number: "+15550123", Trusted: true, URIs: []string{"sip:+15550123@h", "sip:li@h"}}},
		{"asserted, sip with verstat in the user part", "From: <sip:a@h>;tag=1\r\nP-Asserted-Identity: \"Li\" <sip:+15550123;verstat=No-TN-Validation@h;user=phone>\r\nPrivacy: header; id\r\n",
			Identity{URI: "sip:+15550123;verstat=No-TN-Validation@h;user=phone", Number: "+15550123", Name: "Li", Trusted: true, Private: true, Verstat: "No-TN-Validation",
				URIs: []string{"sip:+15550123;verstat=No-TN-Validation@h;user=phone"}}},
		{"local numbers are none", "From: <tel:0123;phone-context=h>;tag=1\r\nPrivacy: none\r\n", Identity{URI: "tel:0123;phone-context=h"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := identityOf(parseRequest(t, tt.headers)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// That a call is signed is in the log; what the signature says, numbers among it, is not.
func TestSignedCallIsLogged(t *testing.T) {
	p := newPeer(t, "tcp")
	var lines logLines
	ua, err := New(Options{Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: "tcp", LocalAddr: "127.0.0.1", Domain: "carrier.example",
		Targets: []string{p.addr}, OptionsInterval: -1}}}, slog.New(slog.NewTextHandler(&lines, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close(context.Background()) })
	k := take(t, ua)
	core := knock(t, "tcp", ua.Attachments()[0].LocalAddr)
	const passport = "eyJhbGciOiJFUzI1NiJ9.eyJvcmlnIjp7InRuIjoiMTU1NTAxMjMifX0.c2ln"
	for id, extra := range map[string][]string{"signed": {"Identity: " + passport + ";info=<https://cert.example/a>", "Identity: x;info=<https://cert.example/b>"}, "plain": nil} {
		core.send([]byte(p.toUs(ua, "INVITE", "sip:conf@carrier.example", id, append(extra, "Contact: <sip:x@"+p.addr+">", "\n"+offerSDP)...)))
		_, call := k.next()
		call.Reject(486, 0)
	}
	log := lines.String()
	bytes := len(passport + ";info=<https://cert.example/a>" + "x;info=<https://cert.example/b>")
	if !strings.Contains(log, fmt.Sprint("call_id=signed identities=2 bytes=", bytes)) {
		t.Errorf("not in the log:\n%s", log)
	}
	if strings.Contains(log, passport[:20]) || strings.Contains(log, "call_id=plain") {
		t.Errorf("in the log:\n%s", log)
	}
}

// The network's judgement of the caller's number, wherever it is written; a bad one is not hidden by
// a good one.
func TestVerstat(t *testing.T) {
	const bad, good, none = "TN-Validation-Failed", "TN-Validation-Passed", "No-TN-Validation"
	for _, tt := range []struct{ from, asserted, want string }{
		{"<sip:a@h>", "", ""},
		{"<sip:a@h>", "tel:+15550123;verstat=" + good, good},
		{"<sip:a@h>", "tel:+15550123;verstat=" + good + ", <sip:+15550123@h>", good},
		{"<sip:a@h>", "<sip:+15550123;verstat=" + bad + "@h>, <tel:+15550123>", bad},
		{"<sip:a@h>", "<sip:+15550123;verstat=" + bad + "@h>, <tel:+15550123;verstat=" + good + ">", bad},
		{"<sip:a@h>", "<sip:+15550123;verstat=" + good + "@h>, tel:+15550123;verstat=" + bad + "-B", bad + "-B"},
		{"<sip:a@h>", "<sip:+15550123;verstat=" + good + "@h>, <tel:+15550123;verstat=" + none + ">", none},
		{"<sip:a@h>", `"x;verstat=` + good + `" <tel:+15550123>`, ""},
		{"<sip:a@h>", "<tel:+15550123;VERSTAT=" + good + ">", good},
		{"<sip:+15550123;verstat=" + good + "@h>", "", good},
		{"<tel:+15550123;verstat=" + good + ">", "<tel:+15550123>", good},
		{"tel:+15550123;verstat=" + good, "", good},
		{"<tel:+15550123;verstat=" + bad + ">", "<tel:+15550123;verstat=" + good + ">", bad},
	} {
		headers := "From: " + tt.from + ";tag=1\r\n"
		if tt.asserted != "" {
			headers += "P-Asserted-Identity: " + tt.asserted + "\r\n"
		}
		if got := identityOf(parseRequest(t, headers)).Verstat; got != tt.want {
			t.Errorf("%q: %q, want %q", headers, got, tt.want)
		}
	}
}

func TestDiverted(t *testing.T) {
	from := "From: <sip:a@h>;tag=1\r\n"
	for headers, want := range map[string]string{
		"": "",
		"Diversion: <tel:+15550111>;reason=unconditional, <tel:+15550110>;reason=user-busy\r\n":                                      "tel:+15550110",
		"History-Info: <sip:+15550110@h>;index=1\r\n":                                                                                "",
		"History-Info: <sip:+15550110@h?Reason=SIP%3Bcause%3D302>;index=1, <sip:+15550111@h;cause=302>;index=1.1\r\nDummy: none\r\n": "sip:+15550110@h",
		"Diversion: <tel:+15550111>;privacy=full, <tel:+15550110>;reason=user-busy;privacy=off\r\n":                                  "tel:+15550110",
		"Diversion: <tel:+15550111>, <tel:+15550110>;reason=user-busy;Privacy=\"Full\"\r\n":                                          "",
		"Diversion: <tel:+15550110>;privacy=uri\r\n":                                                                                 "",
		"Diversion: \"Li\" <tel:+15550110>;privacy=name\r\n":                                                                         "tel:+15550110",
		"History-Info: <sip:+15550110@h?Privacy=history&Reason=SIP%3Bcause%3D302>;index=1, <sip:+15550111@h>;index=1.1\r\n":          "",
		"History-Info: <sip:+15550110@h?Reason=SIP%3Bcause%3D302&privacy=id%3bHistory>;index=1, <sip:+15550111@h>;index=1.1\r\n":     "",
		"History-Info: <sip:+15550110@h?Privacy=none>;index=1, <sip:+15550111@h?Privacy=history>;index=1.1\r\n":                      "sip:+15550110@h",
		"History-Info: <sip:+15550110@h>;index=1, <sip:+15550111@h>;index=1.1\r\nPrivacy: history\r\n":                               "",
		"History-Info: <sip:+15550110@h>;index=1, <sip:+15550111@h>;index=1.1\r\nPrivacy: id\r\n":                                    "sip:+15550110@h",
	} {
		if got := divertedFrom(parseRequest(t, from+headers)); got != want {
			t.Errorf("%q: got %q, want %q", headers, got, want)
		}
	}
}
