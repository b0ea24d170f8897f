package sip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// passage is a core p with an application server for "sip:ours@carrier.example" only, and k by
// which the S-CSCF sends.
type passage struct {
	*peer
	ua    *UA
	k     *knocker
	token string
	n     int
}

func newPassage(t *testing.T, network string, edit ...func(*AttachmentOptions)) *passage {
	p := newPeer(t, network)
	ua := newAS(t, p, edit...)
	ua.SetOurs(func(attachment, target, to string) bool { return target == "sip:ours@carrier.example" })
	return &passage{peer: p, ua: ua, k: knock(t, network, ua.Attachments()[0].LocalAddr), token: "<sip:iscmark@" + p.addr + ";lr;s=1;h=0;d=0;a=7369%70A;Odd>"}
}

// sends a request for others, and reads what comes of it at the core.
func (p *passage) sends(method, uri string, extra ...string) (callID string) {
	p.n++
	callID = fmt.Sprintf("pass%d", p.n)
	p.k.send([]byte(p.toUs(p.ua, method, uri, callID, append([]string{"Route: <sip:" + p.ua.Attachments()[0].LocalAddr + ";lr>, " + p.token,
		"Via: SIP/2.0/UDP 192.0.2.99:5060;branch=z9hG4bKcaller;received=192.0.2.98", "P-Served-User: <tel:+15550100>;sescase=orig;regstate=reg"}, extra...)...)))
	return callID
}

func (p *passage) hears(status string) message {
	p.t.Helper()
	for { // UDP repeats itself
		m := p.k.receive()
		if strings.HasPrefix(m.start, "SIP/2.0 "+status) {
			return m
		}
		if p.net != "udp" {
			p.t.Fatalf("heard %q, want %s", m.start, status)
		}
	}
}

// invites sends an INVITE on its way and returns it as the core has it back.
func (p *passage) invites(extra ...string) (callID string, inv message) {
	p.t.Helper()
	callID = p.sends("INVITE", "tel:+15550177", append(extra, "Contact: <sip:x@"+p.addr+">", "Require: strange", "P-Odd: a,b ;c",
		"Record-Route: <sip:mo@"+p.addr+";lr>", "\n"+offerSDP)...)
	inv = p.expect("INVITE")
	p.hears("100")
	return callID, inv
}

func (p *passage) ack(callID string, res message) {
	p.k.send([]byte(strings.Replace(p.toUs(p.ua, "ACK", "tel:+15550177", callID), "<sip:+15550100@carrier.example>", res.get("To"), 1)))
}

func (p *passage) cancel(callID string) {
	p.k.send([]byte(strings.Replace(p.toUs(p.ua, "CANCEL", "tel:+15550177", callID, `Reason: SIP;cause=200;text="elsewhere"`), "\r\nMax-F",
		"\r\nVia: SIP/2.0/UDP 192.0.2.99:5060;branch=z9hG4bKcaller\r\nMax-F", 1)))
}

// Somebody's call that a filter sends by way of us goes on with the S-CSCF's token byte for byte;
// all that is answered comes back; nobody here answers, and nothing more comes this way.
func TestGoesOnOverISC(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPassage(t, network)
		p.ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
			t.Errorf("taken for ours: %+v", in)
			return nil
		})
		_, inv := p.invites()
		if inv.start != "INVITE tel:+15550177 SIP/2.0" || inv.get("Route") != p.token || len(inv.head["Route"]) != 1 || inv.get("Max-Forwards") != "69" ||
			inv.get("P-Odd") != "a,b ;c" || inv.get("Require") != "strange" || inv.body != offerSDP || strings.Contains(inv.get("To"), "tag") {
			t.Errorf("went on as %q\n%q", inv.order, inv.body)
		}
		if rr := inv.head["Record-Route"]; len(rr) != 1 || rr[0] != "<sip:mo@"+p.addr+";lr>" {
			t.Errorf("Record-Route %q", rr)
		}
		vias := inv.head["Via"]
		if len(vias) != 3 || !strings.Contains(vias[0], p.ua.Attachments()[0].LocalAddr) || !strings.Contains(vias[1], "z9hG4bK-pass1") ||
			!strings.Contains(vias[1], "received=127.0.0.1") || !strings.Contains(vias[2], "192.0.2.98") {
			t.Errorf("Via %q", vias)
		}
		inv.write(answer(inv, 183, "Session Progress", "callee", "Require: 100rel", "RSeq: 7", p.contact(), "\n"+answerSDP))
		early := p.hears("183")
		if early.get("RSeq") != "7" || early.body != answerSDP || !slices.Equal(early.head["Via"], vias[1:]) {
			t.Errorf("183 came back as %q", early.order)
		}
		inv.write(answer(inv, 200, "OK", "callee", p.contact(), "Record-Route: <sip:mt@192.0.2.5;lr>, <sip:mo@"+p.addr+";lr>", "\n"+answerSDP))
		ok := p.hears("200")
		if !strings.HasSuffix(ok.get("To"), "tag=callee") || ok.get("Contact") != strings.TrimPrefix(p.contact(), "Contact: ") || !slices.Equal(ok.head["Via"], vias[1:]) ||
			strings.Join(ok.head["Record-Route"], ", ") != "<sip:mt@192.0.2.5;lr>, <sip:mo@"+p.addr+";lr>" || ok.body != answerSDP {
			t.Errorf("200 came back as %q", ok.order)
		}
		inv.write(answer(inv, 200, "OK", "callee", p.contact())) // its ACK has not come yet
		p.hears("200")
		if in := p.ua.Attachments()[0].Ingress; in.Passed != 1 || in.Refused != 0 {
			t.Errorf("counted %+v", in)
		}

		// Refused: the ACK is ours to the one side, and taken from the other.
		for status, back := range map[int]string{486: "486", 604: "604", 503: "500"} {
			callID, inv := p.invites()
			inv.write(answer(inv, status, "No", "callee", "Retry-After: 9", "Warning: 399 x \"y\""))
			p.expect("ACK")
			res := p.hears(back)
			if got := res.get("Retry-After") != ""; got == (status == 503) || res.get("Warning") == "" {
				t.Errorf("%d came back as %q", status, res.order)
			}
			p.ack(callID, res)
		}
	})
}

// An emergency call that is for nobody here is the core's to route: it is not ended by us.
func TestEmergencyCallGoesOn(t *testing.T) {
	p := newPassage(t, "tcp")
	p.ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
		t.Errorf("taken for ours: %+v", in)
		return nil
	})
	p.sends("INVITE", "urn:service:sos", "Contact: <sip:x@"+p.addr+">", "\n"+offerSDP)
	inv := p.expect("INVITE")
	p.hears("100")
	if inv.start != "INVITE urn:service:sos SIP/2.0" || inv.get("Route") != p.token {
		t.Errorf("went on as %q", inv.order)
	}
	inv.write(answer(inv, 200, "OK", "callee", p.contact(), "\n"+answerSDP))
	p.hears("200")
}

// What is for us stays: by its address, by the call that it replaces, or since no Route leads on.
func TestWhatIsOursStays(t *testing.T) {
	p := newPassage(t, "tcp")
	got := make(chan Incoming, 1)
	p.ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
		got <- in
		c.Reject(486, 0)
		return func(Event) {}
	})
	p.sends("OPTIONS", "sip:ours@carrier.example")
	p.hears("200")
	c, ev := place(t, p.ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 200, "OK", "callee", p.contact(), "\n"+answerSDP))
	p.expect("ACK")
	next[Answer](ev)
	next[Connected](ev)
	_, tag, _ := strings.Cut(inv.get("From"), "tag=")
	token := p.token
	for _, tt := range []struct{ uri, token, replaces string }{
		{"sip:ours@carrier.example", token, ""},
		{"sip:conf@carrier.example", token, ""},
		{"tel:+15550177", token, inv.get("Call-Id") + ";to-tag=" + tag + ";from-tag=callee"},
		{"tel:+15550177", "<sip:" + p.ua.Attachments()[0].LocalAddr + ";lr>", ""}, // us again, and nobody behind
	} {
		extra := []string{"Contact: <sip:x@" + p.addr + ">", "\n" + offerSDP}
		if tt.replaces != "" {
			extra = append(extra, "Replaces: "+tt.replaces)
		}
		p.token = tt.token
		p.sends("INVITE", tt.uri, extra...)
		select {
		case in := <-got:
			if in.Target != tt.uri || (in.Replaces != "") != (tt.replaces != "") {
				t.Errorf("%+v came in for %+v", in, tt)
			}
		case <-time.After(patience):
			t.Fatalf("%+v did not come in", tt)
		}
		p.hears("100")
		p.hears("486")
	}
	c.Hangup("hung_up", "")
	bye := p.expect("BYE")
	bye.write(answer(bye, 200, "OK", "callee"))
}

// Who calls gives up: the one who is called hears of it, when he may, and if he has answered
// meanwhile he is not left alone.
func TestCancelGoesOnOverISC(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPassage(t, network)
		for _, ring := range []bool{true, false} {
			callID, inv := p.invites()
			if ring {
				inv.write(answer(inv, 180, "Ringing", "callee"))
				p.hears("180")
			}
			p.cancel(callID)
			p.hears("200")
			p.hears("487")
			if !ring {
				select {
				case m := <-p.in:
					if m.method() == "CANCEL" {
						t.Error("CANCEL before anything was heard")
					}
				case <-time.After(100 * time.Millisecond): // a test of absence
				}
				inv.write(answer(inv, 100, "Trying", ""))
			}
			cancel := p.expect("CANCEL")
			if cancel.get("Via") != inv.get("Via") || cancel.get("Route") != p.token || !strings.Contains(cancel.get("Reason"), "elsewhere") || len(cancel.head["Via"]) != 1 {
				t.Errorf("CANCEL %q for %q", cancel.order, inv.order)
			}
			cancel.write(answer(cancel, 200, "OK", "callee"))
			inv.write(answer(inv, 487, "Request Terminated", "callee"))
			p.expect("ACK")
		}
		callID, inv := p.invites()
		inv.write(answer(inv, 180, "Ringing", "callee"))
		p.hears("180")
		p.cancel(callID)
		p.hears("200")
		p.hears("487")
		cancel := p.expect("CANCEL")
		inv.write(answer(inv, 200, "OK", "callee", p.contact(), "Record-Route: <sip:mt@"+p.addr+";lr>", "\n"+answerSDP))
		cancel.write(answer(cancel, 200, "OK", "callee"))
		p.expect("ACK")
		bye := p.expect("BYE")
		if bye.get("Route") != "<sip:mt@"+p.addr+";lr>" || bye.get("To") != inv.get("To")+";tag=callee" || bye.get("From") != inv.get("From") {
			t.Errorf("BYE %q", bye.order)
		}
		bye.write(answer(bye, 200, "OK", "callee"))
	})
}

// What else may happen on the way: another method, nobody there, silence, no hops left.
func TestOnItsWayOverISC(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPassage(t, network)
		for _, method := range []string{"MESSAGE", "PUBLISH", "SUBSCRIBE", "STRANGE"} {
			p.sends(method, "sip:friend@carrier.example", "\nhello", "Content-Type: text/plain")
			m := p.expect(method)
			if m.get("Route") != p.token || m.body != "hello" {
				t.Errorf("%s went on as %q", method, m.order)
			}
			m.write(answer(m, 202, "Accepted", "friend", "X-Kept: 1"))
			if res := p.hears("202"); res.get("X-Kept") != "1" {
				t.Errorf("202 came back as %q", res.order)
			}
		}
		p.sends("INVITE", "tel:+15550177", "Proxy-Require: strange", "Contact: <sip:x@y>")
		if res := p.hears("420"); res.get("Unsupported") != "strange" {
			t.Errorf("%q", res.order)
		}
		p.k.send([]byte(strings.Replace(p.toUs(p.ua, "INVITE", "tel:+15550177", "hops", "Route: "+p.token, "Contact: <sip:x@y>"), "Max-Forwards: 70", "Max-Forwards: 0", 1)))
		p.hears("483")
		// The core is silent. Only an INVITE hears of that, and nothing is kept.
		p.sends("MESSAGE", "sip:friend@carrier.example")
		p.expect("MESSAGE")
		callID := p.sends("INVITE", "tel:+15550177", "Contact: <sip:x@y>", "\n"+offerSDP)
		p.expect("INVITE")
		p.hears("100")
		p.ack(callID, p.hears("408"))
		busy := &p.ua.atts[0].screen.busy
		eventually(t, "the end of what nobody answered", func() bool { return busy.room(netip.MustParseAddr("127.0.0.1"), 1, 1) })
	})
	p := newPassage(t, "tcp")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p.token = "<sip:iscmark@" + l.Addr().String() + ";lr>"
	p.sends("INVITE", "tel:+15550177", "Contact: <sip:x@y>", "\n"+offerSDP)
	p.hears("100")
	p.hears("500")
	// It had one, which is lost.
	p = newPassage(t, "tcp")
	_, inv := p.invites()
	inv.write(answer(inv, 180, "Ringing", "callee"))
	p.hears("180")
	p.drop()
	p.hears("500")
	if cancel := p.expect("CANCEL"); cancel.get("Call-Id") != inv.get("Call-Id") { // it would ring on
		t.Errorf("CANCEL %q", cancel.order)
	} else {
		cancel.write(answer(cancel, 200, "OK", "callee"))
	}
	// No call of ours has room any more, which is nothing to those of others.
	p = newPassage(t, "tcp", func(o *AttachmentOptions) { o.MaxCalls = 1 })
	c, ev := place(t, p.ua)
	ours := p.expect("INVITE")
	p.sends("INVITE", "sip:ours@carrier.example", "Contact: <sip:x@y>", "\n"+offerSDP)
	p.hears("503")
	_, inv = p.invites()
	inv.write(answer(inv, 486, "Busy Here", "callee"))
	p.hears("486")
	p.expect("ACK")
	c.Hangup("cancelled", "")
	ours.write(answer(ours, 486, "Busy Here", "callee"))
	next[Ended](ev)
	// It rings for ever, or not even that.
	p = newPassage(t, "tcp")
	p.ua.atts[0].timerC = time.Second
	for _, status := range []int{180, 100} {
		_, inv = p.invites()
		inv.write(answer(inv, status, "Trying", "callee"))
		if status > 100 {
			p.hears("180")
		}
		p.hears("408")
		cancel := p.expect("CANCEL")
		cancel.write(answer(cancel, 200, "OK", "callee"))
		inv.write(answer(inv, 180, "Ringing", "callee")) // too late for who called
		inv.write(answer(inv, 200, "OK", "callee", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", "callee"))
	}
}

// Who is called answers the CANCEL and nothing else: that is not waited for.
func TestCancelledWithoutFinalAnswerOverISC(t *testing.T) {
	p := newPassage(t, "tcp")
	callID, inv := p.invites()
	inv.write(answer(inv, 180, "Ringing", "callee"))
	p.hears("180")
	p.cancel(callID)
	p.hears("200")
	p.ack(callID, p.hears("487"))
	cancel := p.expect("CANCEL")
	cancel.write(answer(cancel, 200, "OK", "callee"))
	gone(t, "sparkle/sip.(*transit).run")
}

// After an answer of ours nothing of theirs goes to who called, over UDP in its place neither.
func TestLateAnswersOverISC(t *testing.T) {
	p := newPassage(t, "udp")
	p.ua.atts[0].timerC = 500 * time.Millisecond
	_, inv := p.invites()
	inv.write(answer(inv, 180, "Ringing", "callee"))
	p.hears("180")
	first := p.hears("408")
	cancel := p.expect("CANCEL")
	cancel.write(answer(cancel, 200, "OK", "callee"))
	inv.write(answer(inv, 180, "Ringing", "callee"))
	inv.write(answer(inv, 487, "Request Terminated", "callee"))
	p.expect("ACK")
	for range 3 { // it is not acknowledged, and repeated
		if m := p.k.receive(); m.get("To") != first.get("To") || !strings.HasPrefix(m.start, "SIP/2.0 408") {
			t.Errorf("after %s %q: %s %q", first.start, first.get("To"), m.start, m.get("To"))
		}
	}
}

// We go: what is on its way is given up on both sides.
func TestCloseGivesUpWhatIsOnItsWay(t *testing.T) {
	p := newPassage(t, "tcp")
	_, inv := p.invites()
	inv.write(answer(inv, 180, "Ringing", "callee"))
	p.hears("180")
	_, silent := p.invites()
	closed := make(chan error, 1)
	go func() { closed <- p.ua.Close(context.Background()) }()
	p.hears("500")
	p.hears("500")
	cancel := p.expect("CANCEL")
	if cancel.get("Call-Id") != inv.get("Call-Id") {
		t.Errorf("CANCEL of %s, not %s", cancel.get("Call-Id"), silent.get("Call-Id"))
	}
	cancel.write(answer(cancel, 200, "OK", "callee"))
	inv.write(answer(inv, 487, "Request Terminated", "callee"))
	p.expect("ACK")
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
