package sip

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pcscf is a scripted P-CSCF that agrees on security (RFC 3329): over TLS, and in clear at the port
// before if clear is not "".
type pcscf struct {
	*peer       // over TLS
	clear *peer // nil: there is none
}

func newPCSCF(t *testing.T, ca *authority, cert, clear string) *pcscf {
	t.Helper()
	for range 50 { // until two ports in a row are free
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if clear == "" {
			return &pcscf{peer: ca.serveTLS(cert, l)}
		}
		before := net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port-1))
		if free(clear, before) {
			return &pcscf{ca.serveTLS(cert, l), newPeerAt(t, clear, before)}
		}
		l.Close()
	}
	t.Fatal("no two free ports in a row")
	return nil
}

func free(network, addr string) bool {
	if network == "udp" {
		c, err := net.ListenPacket("udp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
	}
	return err == nil
}

// first is where the first REGISTER comes to.
func (p *pcscf) first() *peer {
	if p.clear != nil {
		return p.clear
	}
	return p.peer
}

func agreeing(ca *authority, ps ...*pcscf) AttachmentOptions {
	o := AttachmentOptions{Name: "ue", Mode: ModeUE, LocalAddr: "127.0.0.1", Domain: realm, IMPI: impi, IMPU: "sip:+15550100@ims.example",
		Auth: Auth{Password: secret}, PANI: "IEEE-802.3", SecurityAgreement: AgreeTLS}
	ca.options(nil)(&o)
	for _, p := range ps {
		o.Targets = append(o.Targets, p.addr)
		if p.clear != nil {
			o.Clear = p.clear.net
		}
	}
	return o
}

func authorities(t *testing.T) *authority {
	ca := newAuthority(t)
	ca.make("us", []string{"sparkle.example"})
	ca.make("sbc", []string{"sbc.example"})
	return ca
}

// lines are the header lines of a name, byte for byte as they came.
func (m message) lines(name string) (out []string) {
	for _, l := range m.order {
		if n, v, _ := strings.Cut(l, ": "); strings.EqualFold(n, name) {
			out = append(out, v)
		}
	}
	return out
}

// verifies wants a request to repeat the P-CSCF's list, field by field, and to require that it be
// looked at; nil: to say nothing of it.
func verifies(t *testing.T, m message, list []string) {
	t.Helper()
	if got := m.lines("Security-Verify"); !slices.Equal(got, list) {
		t.Errorf("%s: Security-Verify %q, want %q", m.start, got, list)
	}
	for _, name := range []string{"Require", "Proxy-Require"} {
		if got := slices.Contains(m.lines(name), "sec-agree"); got != (list != nil) {
			t.Errorf("%s: %s %q", m.start, name, m.lines(name))
		}
	}
}

// offers wants a REGISTER that begins: an offer, and neither a list nor a proof.
func offers(t *testing.T, reg message) {
	t.Helper()
	for name, want := range map[string]string{"Security-Client": "tls", "Require": "sec-agree", "Proxy-Require": "sec-agree", "Security-Verify": "", "P-Access-Network-Info": ""} {
		if got := strings.Join(reg.lines(name), "|"); got != want {
			t.Errorf("%s %q, want %q in\n%s", name, got, want, strings.Join(reg.order, "\n"))
		}
	}
	if p := digestParams(reg.get("Authorization")); p["username"] != impi || p["response"] != "" || p["nonce"] != "" {
		t.Errorf("Authorization %q", reg.get("Authorization"))
	}
}

// admit is a registration: first offer, the P-CSCF's list, proof and list, 200.
func (p *pcscf) admit(t *testing.T, list []string) {
	t.Helper()
	reg := p.first().expect("REGISTER")
	offers(t, reg)
	p.challenge(reg, list)
	p.accept(t, p.expect("REGISTER"), list)
}

func (p *pcscf) challenge(reg message, list []string) {
	lines := []string{"WWW-Authenticate: " + challenge}
	for _, field := range list {
		lines = append(lines, "Security-Server: "+field)
	}
	reg.write(answer(reg, 401, "Unauthorized", "r", lines...))
}

func (p *pcscf) accept(t *testing.T, reg message, list []string) {
	t.Helper()
	verifies(t, reg, list)
	if reg.get("Security-Client") != "tls" || !proves("REGISTER", reg.get("Authorization")) || !strings.HasPrefix(reg.get("Via"), "SIP/2.0/TLS ") {
		t.Errorf("REGISTER with proof\n%s", strings.Join(reg.order, "\n"))
	}
	reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600", "Service-Route: <sip:orig@"+p.addr+";transport=tls;lr>"))
}

// A registration and calls with a security agreement: from the first REGISTER over TLS, or from
// where that one came in clear. The list has two fields, and is written in a way of its own.
func TestSecurityAgreement(t *testing.T) {
	for _, clear := range []string{"", "tcp", "udp"} {
		t.Run("clear="+clear, func(t *testing.T) {
			ca := authorities(t)
			p := newPCSCF(t, ca, "sbc", clear)
			list := []string{`ipsec-3gpp;q=0.1 ; Alg=hmac-md5-96 ,tls; q=0.200`, `digest;d-alg=MD5;d-ver="00,11"`}
			o := agreeing(ca, p)
			o.RegEvent = RegEventTry
			done := make(chan message, 1)
			go func() {
				defer close(done)
				reg := p.first().expect("REGISTER")
				offers(t, reg)
				if via := "SIP/2.0/" + strings.ToUpper(p.first().net) + " "; !strings.HasPrefix(reg.get("Via"), via) || !strings.Contains(reg.get("Route"), p.first().addr+";transport="+p.first().net) {
					t.Errorf("REGISTER #1\n%s", strings.Join(reg.order, "\n"))
				}
				p.challenge(reg, list)
				second := p.expect("REGISTER")
				if second.get("Contact") != reg.get("Contact") || second.get("Call-Id") != reg.get("Call-Id") {
					t.Errorf("REGISTER #2 is of another registration\n%s", strings.Join(second.order, "\n"))
				}
				p.accept(t, second, list)
				sub := p.expect("SUBSCRIBE")
				verifies(t, sub, list)
				sub.write(answer(sub, 200, "OK", "s", "Expires: 600", p.contact()))
				done <- second
			}()
			ua := newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
			reg, ok := <-done
			if !ok {
				t.FailNow()
			}
			s := ua.Attachments()[0]
			if want := "@" + s.LocalAddr + ";transport=tls>"; !strings.Contains(reg.get("Contact"), want) {
				t.Errorf("Contact %q, want %s", reg.get("Contact"), want)
			}

			// a call of ours, answered
			call, ev := place(t, ua)
			inv := p.expect("INVITE")
			verifies(t, inv, list)
			inv.write(answer(inv, 180, "Ringing", "a", p.contact(), "Require: 100rel", "RSeq: 7"))
			prack := p.expect("PRACK")
			verifies(t, prack, list)
			prack.write(answer(prack, 200, "OK", ""))
			next[Ringing](ev)
			inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
			ack := p.expect("ACK")
			verifies(t, ack, nil)
			next[Answer](ev)
			next[Connected](ev)
			call.Offer([]byte(offerSDP), "")
			re := p.expect("INVITE")
			verifies(t, re, list)
			re.write(answer(re, 488, "Not Acceptable Here", ""))
			verifies(t, p.expect("ACK"), nil)
			next[Reoffered](ev)
			call.Hangup("hung_up", "")
			bye := p.expect("BYE")
			verifies(t, bye, list)
			bye.write(answer(bye, 200, "OK", ""))
			next[Ended](ev)

			// one that is given up while it rings
			call, ev = place(t, ua)
			inv = p.expect("INVITE")
			inv.write(answer(inv, 180, "Ringing", "c", p.contact()))
			next[Ringing](ev)
			call.Hangup("cancelled", "")
			cancel := p.expect("CANCEL")
			verifies(t, cancel, nil)
			cancel.write(answer(cancel, 200, "OK", "c"))
			inv.write(answer(inv, 487, "Request Terminated", "c"))
			p.expect("ACK")
			next[Ended](ev)

			if clear != "" {
				knockInClear(t, ua, p, clear)
			}
			gone := make(chan message, 1)
			go func() {
				m := p.expect("REGISTER")
				m.write(answer(m, 200, "OK", "r"))
				gone <- m
			}()
			if err := ua.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			m := <-gone
			verifies(t, m, list)
			if m.get("Expires") != "0" || m.get("Security-Client") != "tls" {
				t.Errorf("de-registration\n%s", strings.Join(m.order, "\n"))
			}
			if clear != "" && len(p.clear.in) != 0 {
				t.Errorf("in clear came %q", (<-p.clear.in).start)
			}
		})
	}
}

// knockInClear sends a request to the socket that the first REGISTER went from: it is not taken.
func knockInClear(t *testing.T, ua *UA, p *pcscf, network string) {
	t.Helper()
	s := ua.Attachments()[0]
	host, port, _ := net.SplitHostPort(s.LocalAddr)
	n, _ := strconv.Atoi(port)
	to := net.JoinHostPort(host, strconv.Itoa(n-1))
	c, err := net.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(p.clear.toUs(ua, "OPTIONS", "sip:us@"+to, "clear"))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ua.Attachments()[0].Ingress.Strangers == s.Ingress.Strangers; {
		if time.Now().After(deadline) {
			t.Fatal("a request in clear was not dropped")
		}
		<-time.After(time.Millisecond)
	}
}

// A 494 to something else than a REGISTER says that the list has changed: the registration is made
// again from its beginning, over TLS and once, and what comes next has the new list. The call that
// heard of it is the first of that; should it hear so again it ends.
func TestAgreementChanges(t *testing.T) {
	for _, clear := range []string{"", "udp"} {
		t.Run("clear="+clear, func(t *testing.T) {
			ca := authorities(t)
			p := newPCSCF(t, ca, "sbc", clear)
			admitted := make(chan struct{})
			go func() { defer close(admitted); p.admit(t, []string{"tls"}) }()
			o := agreeing(ca, p)
			o.CPS = -1
			ua := newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
			<-admitted
			regs := make(chan message, 16) // they come in no order with what belongs to calls
			p.registers(func(m message) { regs <- m })
			refuse := func(list ...string) (message, *events) {
				t.Helper()
				_, ev := place(t, ua)
				inv := p.expect("INVITE")
				verifies(t, inv, list)
				inv.disagrees()
				p.expect("ACK")
				return inv, ev
			}
			first, ev := refuse("tls")
			reg := got(t, regs)
			offers(t, reg)
			next[Queued](ev)
			_, later := place(t, ua) // it waits for what comes now, behind the other
			if e, ok := got(t, later.ch).(Queued); !ok {
				t.Fatalf("%#v, want it to wait", e)
			}
			p.challenge(reg, []string{"tls;q=0.5"})
			p.accept(t, got(t, regs), []string{"tls;q=0.5"})
			placed := 0
			for _, inv := range []message{p.expect("INVITE"), p.expect("INVITE")} { // in any order
				verifies(t, inv, []string{"tls;q=0.5"})
				seq := "1 INVITE"
				if inv.get("Call-Id") == first.get("Call-Id") {
					placed++
					seq = "2 INVITE"
				}
				if inv.get("Cseq") != seq || inv.get("Via") == first.get("Via") {
					t.Errorf("%s, want CSeq %s and another branch than\n%s", strings.Join(inv.order, "\n"), seq, first.get("Via"))
				}
				inv.write(answer(inv, 486, "Busy Here", "b"))
				p.expect("ACK")
			}
			for _, ev := range []*events{ev, later} {
				if e := next[Ended](ev); e.Status != 486 {
					t.Errorf("ended %+v", e)
				}
			}
			if placed != 1 {
				t.Errorf("the call that heard of it was placed %d times again", placed)
			}
			for range 2 { // soon again: it is in disorder, and not asked all the time
				_, ev := refuse("tls;q=0.5")
				if e := next[Ended](ev); e.Status != 494 {
					t.Errorf("ended %+v", e)
				}
			}
			p.registers(func(m message) { m.write(answer(m, 200, "OK", "r")) }) // the end
			if n := len(regs); n != 0 {
				t.Errorf("%d more REGISTERs\n%s", n, strings.Join((<-regs).order, "\n"))
			}
			if clear != "" && len(p.clear.in) != 0 {
				t.Errorf("in clear came %q", (<-p.clear.in).start)
			}
		})
	}
}

// disagrees answers that the list is another one now.
func (m message) disagrees() {
	m.write(answer(m, 494, "Security Agreement Required", "n", "Security-Server: tls;q=0.5"))
}

// A call that waits for the new agreement: it is placed again once and no more, it can be hung up,
// and it does not wait for ever.
func TestCallWaitsForAnAgreement(t *testing.T) {
	list := []string{"tls;q=0.5"}
	for _, tt := range []struct {
		name string
		then func(t *testing.T, p *pcscf, reg message, regs chan message, call Call)
		want Ended
	}{
		{"refused again", func(t *testing.T, p *pcscf, reg message, regs chan message, _ Call) {
			p.challenge(reg, list)
			p.accept(t, got(t, regs), list)
			p.expect("INVITE").disagrees()
			p.expect("ACK")
		}, Ended{By: ByRemote, Status: 494}},
		{"hung up", func(t *testing.T, p *pcscf, reg message, regs chan message, call Call) {
			call.Hangup("cancelled", "")
		}, Ended{By: ByLocal, Why: "cancelled"}},
		{"no agreement", func(t *testing.T, p *pcscf, reg message, regs chan message, _ Call) {
			reg.write(answer(reg, 403, "Forbidden", "r"))
		}, Ended{By: ByNetwork, Why: "attachment_down"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := authorities(t)
			p := newPCSCF(t, ca, "sbc", "")
			admitted := make(chan struct{})
			go func() { defer close(admitted); p.admit(t, []string{"tls"}) }()
			o := agreeing(ca, p)
			o.MaxCalls = 1 // a line that is not given back is missed by the next call
			ua := newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
			<-admitted
			regs := make(chan message, 16)
			p.registers(func(m message) { regs <- m })
			call, ev := place(t, ua, func(inv *Invite) { inv.SetupTimeout = 300 * time.Millisecond })
			p.expect("INVITE").disagrees()
			p.expect("ACK")
			reg := got(t, regs)
			next[Queued](ev)
			tt.then(t, p, reg, regs, call)
			e := next[Ended](ev)
			if e.By != tt.want.By || e.Status != tt.want.Status || e.Why != tt.want.Why {
				t.Errorf("ended %+v", e)
			}
			if s := ua.Attachments()[0]; s.Calls != 0 || s.Queued != 0 {
				t.Errorf("%d calls are left, %d queued", s.Calls, s.Queued)
			}
			if n := len(p.in); n != 0 {
				t.Errorf("%d more came, first %q", n, (<-p.in).start)
			}
			p.registers(func(m message) { m.write(answer(m, 200, "OK", "r")) }) // the end
			if tt.name == "hung up" {
				reg.write(answer(reg, 403, "Forbidden", "r"))
			}
		})
	}
}

// With another P-CSCF the agreement begins from nothing.
func TestAgreementOfAnotherPCSCF(t *testing.T) {
	ca := authorities(t)
	a, b := newPCSCF(t, ca, "sbc", "tcp"), newPCSCF(t, ca, "sbc", "tcp")
	admitted := make(chan struct{})
	go func() { defer close(admitted); a.admit(t, []string{"tls;q=0.1"}) }()
	ua := newUA(t, Options{Attachments: []AttachmentOptions{agreeing(ca, a, b)}, T1: 50 * time.Millisecond})
	<-admitted
	a.peer.die()
	a.clear.die()
	b.admit(t, []string{"tls;q=0.9"})
	awaitState(t, ua, "registered with the other", func(s AttachmentState) bool { return s.Up && s.Reg.PCSCF == b.addr })
	_, ev := place(t, ua)
	inv := b.expect("INVITE")
	verifies(t, inv, []string{"tls;q=0.9"})
	inv.write(answer(inv, 486, "Busy Here", "b"))
	b.expect("ACK")
	next[Ended](ev)
	b.registers(func(m message) { m.write(answer(m, 200, "OK", "r")) })
}

// What would go on in clear, or with somebody else, goes no further: no proof leaves, and no call.
func TestAgreementFails(t *testing.T) {
	for _, tt := range []struct {
		name, cert, clear string
		list              []string
		state, why        string
	}{
		{"somebody keeps the list from us", "sbc", "udp", nil, "rejected", "no Security-Server in the answer"},
		{"IPsec only, in clear", "sbc", "tcp", []string{"ipsec-3gpp;q=0.1"}, "rejected", "the P-CSCF has ipsec-3gpp, we have tls"},
		{"IPsec only, over TLS", "sbc", "", []string{"ipsec-3gpp;q=0.1"}, "rejected", "the P-CSCF has ipsec-3gpp, we have tls"},
		{"a list without end", "sbc", "tcp", []string{strings.Repeat("tls,", 5000)}, "rejected", "cannot be read"},
		{"another answers at the port of TLS", "stranger", "tcp", []string{"tls"}, "unregistered", "certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := authorities(t)
			ca.make("stranger", []string{"stranger.example"})
			p := newPCSCF(t, ca, tt.cert, tt.clear)
			ua, err := New(Options{Attachments: []AttachmentOptions{agreeing(ca, p)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ua.Close(t.Context())
			reg := p.first().expect("REGISTER")
			offers(t, reg)
			p.challenge(reg, tt.list)
			awaitState(t, ua, tt.state, func(s AttachmentState) bool { return s.State == tt.state && strings.Contains(s.LastError, tt.why) })
			if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
				t.Errorf("Invite: %v", err)
			}
			for _, at := range []*peer{p.peer, p.first()} {
				at.registers(func(m message) { m.write(answer(m, 200, "OK", "r")) })
				if n := len(at.in); n != 0 {
					t.Errorf("%d more came, first %q", n, (<-at.in).start)
				}
			}
		})
	}
}

// Over TLS from the start a P-CSCF may know nothing of agreements: what there would be to agree on
// is there.
func TestPCSCFWithoutAgreement(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprint("420 ", refuses), func(t *testing.T) {
			ca := authorities(t)
			p := newPCSCF(t, ca, "sbc", "")
			registered := make(chan struct{})
			go func() {
				defer close(registered)
				reg := p.expect("REGISTER")
				offers(t, reg)
				if refuses {
					reg.write(answer(reg, 420, "Bad Extension", "r", "Unsupported: sec-agree"))
					if reg = p.expect("REGISTER"); reg.lines("Security-Client") != nil || reg.lines("Require") != nil || reg.lines("Proxy-Require") != nil {
						t.Errorf("after 420\n%s", strings.Join(reg.order, "\n"))
					}
				}
				p.challenge(reg, nil)
				reg = p.expect("REGISTER")
				if !proves("REGISTER", reg.get("Authorization")) || reg.lines("Security-Verify") != nil {
					t.Errorf("REGISTER #2\n%s", strings.Join(reg.order, "\n"))
				}
				reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
			}()
			ua := newUA(t, Options{Attachments: []AttachmentOptions{agreeing(ca, p)}, T1: 50 * time.Millisecond})
			<-registered
			_, ev := place(t, ua)
			inv := p.expect("INVITE")
			verifies(t, inv, nil)
			inv.write(answer(inv, 486, "Busy Here", "b"))
			p.expect("ACK")
			next[Ended](ev)
			p.registers(func(m message) { m.write(answer(m, 200, "OK", "r")) })
		})
	}
}
