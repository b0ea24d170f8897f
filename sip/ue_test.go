package sip

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	realm  = "ims.example"
	impi   = "user@ims.example"
	secret = "s3cret"
)

func h(s string) string { m := md5.Sum([]byte(s)); return hex.EncodeToString(m[:]) }

// digestParams takes a Digest header value apart; values have no commas in here.
func digestParams(v string) map[string]string {
	ps := map[string]string{}
	for _, part := range strings.Split(strings.TrimPrefix(v, "Digest "), ",") {
		k, val, _ := strings.Cut(strings.TrimSpace(part), "=")
		ps[k] = strings.Trim(val, `"`)
	}
	return ps
}

// proves says whether an Authorization value proves the secret (RFC 2617), computed
// here and not by the code under test.
func proves(method, v string) bool {
	ps := digestParams(v)
	ha1, ha2 := h(impi+":"+realm+":"+secret), h(method+":"+ps["uri"])
	want := h(ha1 + ":" + ps["nonce"] + ":" + ps["nc"] + ":" + ps["cnonce"] + ":" + ps["qop"] + ":" + ha2)
	return ps["response"] == want
}

const challenge = `Digest realm="ims.example", nonce="abc123", algorithm=MD5, qop="auth"`

func newUE(t *testing.T, p *peer) *UA {
	t.Helper()
	o := AttachmentOptions{Name: "ue", Mode: ModeUE, Transport: p.net, LocalAddr: "127.0.0.1", Domain: realm,
		IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}, Targets: []string{p.addr}, PANI: "IEEE-802.3"}
	registrar := make(chan struct{})
	go func() {
		defer close(registrar)
		reg := p.expect("REGISTER")
		if v := reg.get("P-Access-Network-Info"); v != "" {
			t.Errorf("a REGISTER without proof says %q", v)
		}
		reg.write(answer(reg, 401, "Unauthorized", "r", "WWW-Authenticate: "+challenge))
		reg = p.expect("REGISTER")
		if v := reg.get("P-Access-Network-Info"); v != "IEEE-802.3" {
			t.Errorf("P-Access-Network-Info %q", v)
		}
		if !proves("REGISTER", reg.get("Authorization")) {
			t.Errorf("Authorization %q", reg.get("Authorization"))
		}
		if !strings.Contains(reg.get("Contact"), instance("")[:len(`+sip.instance="<urn:uuid:`)]) {
			t.Errorf("no instance in %q", reg.get("Contact"))
		}
		reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600",
			"Service-Route: <sip:orig@scscf.example:6060;lr>", "P-Associated-URI: <sip:+15550199@ims.example>, <tel:+15550199>"))
	}()
	ua := newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
	<-registrar
	return ua
}

// Registration with MD5, a call with the identity and route it gave, an INVITE
// challenged with 407, and de-registration at the end.
func TestRegisterAndCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newUE(t, p)
		if s := ua.Attachments()[0]; s.State != "registered" || s.Identity != "sip:+15550199@ims.example" || s.Expires.IsZero() {
			t.Errorf("attachment %+v", s)
		}
		_, ev := place(t, ua)
		inv := p.expect("INVITE")
		if inv.start != "INVITE tel:+15550123 SIP/2.0" || inv.get("To") != "<tel:+15550123>" {
			t.Errorf("%q To %q", inv.start, inv.get("To"))
		}
		if e := next[Trying](ev); e.Identity != "sip:+15550199@ims.example" { // not as configured: as the core gave it
			t.Errorf("the call is from %s", e.Identity)
		}
		if r := inv.head["Route"]; len(r) != 2 || r[0] != "<sip:"+p.addr+";transport="+network+";lr>" || r[1] != "<sip:orig@scscf.example:6060;lr>" {
			t.Errorf("Route %q", r)
		}
		for name, want := range map[string]string{
			"P-Preferred-Identity": "<sip:+15550199@ims.example>", "P-Preferred-Service": mmtelURN,
			"Accept-Contact": "*;" + mmtelTag, "P-Access-Network-Info": "IEEE-802.3",
		} {
			if got := inv.get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		inv.write(answer(inv, 407, "Proxy Authentication Required", "c", "Proxy-Authenticate: "+challenge))
		p.expect("ACK")
		again := p.expectOther("INVITE", inv)
		if !proves("INVITE", again.get("Proxy-Authorization")) || digestParams(again.get("Proxy-Authorization"))["uri"] != "tel:+15550123" {
			t.Errorf("Proxy-Authorization %q", again.get("Proxy-Authorization"))
		}
		if again.get("Cseq") != "2 INVITE" || again.get("Call-Id") != inv.get("Call-Id") || again.get("From") != inv.get("From") ||
			again.get("Via") == inv.get("Via") || strings.Contains(again.get("To"), "tag=") {
			t.Errorf("repeated INVITE %q", again.order)
		}
		again.write(answer(again, 407, "Proxy Authentication Required", "c", "Proxy-Authenticate: "+challenge))
		p.expect("ACK")
		if e := next[Ended](ev); e.Status != 407 {
			t.Errorf("a second challenge: %+v", e)
		}
		gone := make(chan message, 1)
		go func() {
			m := p.expect("REGISTER")
			m.write(answer(m, 200, "OK", "r"))
			gone <- m
		}()
		if err := ua.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if m := <-gone; m.get("Expires") != "0" {
			t.Errorf("last REGISTER has Expires %q", m.get("Expires"))
		}
	})
}

// expectOther waits for a message that is not a repetition of m.
func (p *peer) expectOther(want string, m message) message {
	p.t.Helper()
	for {
		if got := p.expect(want); got.get("Cseq") != m.get("Cseq") {
			return got
		}
	}
}

// A wrong password is told, and nobody can call.
func TestWrongPassword(t *testing.T) {
	p := newPeer(t, "tcp")
	go func() {
		for m := range p.in {
			m.write(answer(m, 401, "Unauthorized", "r", "WWW-Authenticate: "+challenge))
		}
	}()
	defer close(p.in)
	ua, err := New(Options{Attachments: []AttachmentOptions{{Name: "ue", Mode: ModeUE, LocalAddr: "127.0.0.1", Domain: realm,
		IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: "wrong"}, Targets: []string{p.addr}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ua.Close(context.Background())
	deadline := time.Now().Add(patience)
	for ua.Attachments()[0].State != "auth_failed" {
		if time.Now().After(deadline) {
			t.Fatalf("attachment %+v", ua.Attachments()[0])
		}
		<-time.After(time.Millisecond)
	}
	if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
		t.Errorf("Invite: %v, want ErrAttachmentDown", err)
	}
}

func TestSQNFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sqn")
	if n, err := loadSQN(path); n != 0 || err != nil {
		t.Errorf("no file: %d, %v", n, err)
	}
	for _, n := range []uint64{1, 1<<48 - 1} {
		if err := saveSQN(path, n); err != nil {
			t.Fatal(err)
		}
		if got, err := loadSQN(path); got != n || err != nil {
			t.Errorf("saved %d, loaded %d, %v", n, got, err)
		}
	}
}

// A TCP connection that is lost in mid-call does not end the call: BYE finds a new one.
func TestConnectionLostMidCall(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	call, ev := place(t, ua)
	connect(t, p, ev)
	p.drop()
	call.Hangup("hung_up", "")
	bye := p.expect("BYE")
	bye.write(answer(bye, 200, "OK", ""))
	if e := next[Ended](ev); e.By != ByLocal || !e.Connected {
		t.Errorf("ended %+v", e)
	}
}

// Close hangs up what lives, also what still rings.
func TestCloseHangsUp(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	_, talking := place(t, ua)
	connect(t, p, talking)
	_, ringing := place(t, ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 180, "Ringing", "r", p.contact()))
	next[Ringing](ringing)
	done := make(chan error, 1)
	go func() { done <- ua.Close(context.Background()) }()
	for seen := map[string]bool{}; !seen["BYE"] || !seen["CANCEL"]; {
		select {
		case m := <-p.in:
			seen[m.method()] = true
			switch m.method() {
			case "BYE":
				m.write(answer(m, 200, "OK", "r"))
			case "CANCEL":
				m.write(answer(m, 200, "OK", "r"))
				inv.write(answer(inv, 487, "Request Terminated", "r"))
			case "ACK":
			default:
				t.Errorf("got %q", m.start)
			}
		case <-time.After(patience):
			t.Fatal("nothing came")
		}
	}
	if e := next[Ended](talking); e.Why != "shutdown" || e.By != ByLocal {
		t.Errorf("ended %+v", e)
	}
	if e := next[Ended](ringing); e.Why != "shutdown" || e.Status != 487 {
		t.Errorf("ended %+v", e)
	}
	if err := <-done; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// Offers of the peer reach the bridge, and its replies the peer; a 2xx of ours is
// repeated until its ACK.
func TestPeerOffers(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		call, ev := place(t, ua)
		inv := connect(t, p, ev)
		hold := strings.Replace(answerSDP, "41000", "41002", 1)
		inv.write(p.inDialog(inv, "a", "INVITE", 10, p.contact(), "\n"+hold))
		o := next[Offer](ev)
		if string(o.SDP) != hold {
			t.Errorf("offer %q", o.SDP)
		}
		if res := p.expect("100"); res.get("Cseq") != "10 INVITE" { // nobody has answered yet
			t.Errorf("100 %q", res.order)
		}
		call.Reply(o.ID, []byte(offerSDP), 200)
		if e := next[Replied](ev); e.Offer != o.ID || !e.Used { // before its ACK
			t.Errorf("%+v", e)
		}
		for range 3 { // nobody acknowledges
			if res := p.expect("200"); res.body != offerSDP || res.get("Contact") == "" {
				t.Errorf("answer %q %q", res.order, res.body)
			}
		}
		inv.write(p.inDialog(inv, "a", "ACK", 10))
		inv.write(p.inDialog(inv, "a", "INFO", 11, "Content-Type: application/dtmf-relay", "\nSignal=5\r\nDuration=160\r\n"))
		if d := next[Info](ev); d.Digit != '5' {
			t.Errorf("digit %q", d.Digit)
		}
		inv.write(p.inDialog(inv, "a", "BYE", 12))
		next[Ended](ev)
	})
}

// Phones that are to know of their conference have its URI as our Contact (RFC 4579 5.2), from
// the start or once they have come in; what they ask of it outside the call finds it.
func TestContactIsTheFocus(t *testing.T) {
	for _, told := range []bool{true, false} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.IsFocus = told })
		s := onSubscribe(ua, func(sub Subscription) { sub.Reject(403) })
		call, ev := place(t, ua, func(inv *Invite) { inv.Focus = "conf-7" })
		inv := connect(t, p, ev)
		contact := inv.get("Contact")
		if strings.HasPrefix(contact, "<sip:conf-7@") != told || strings.HasSuffix(contact, ";audio;video;isfocus") != told {
			t.Errorf("told %v: Contact %s", told, contact)
		}
		call.Offer([]byte(offerSDP), "conf-8")
		re := p.expect("INVITE")
		re.write(answer(re, 200, "OK", "", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		next[Reoffered](ev)
		if contact = re.get("Contact"); !strings.HasPrefix(contact, "<sip:conf-8@") || !strings.HasSuffix(contact, ";isfocus") {
			t.Errorf("moved: Contact %s", contact)
		}
		uri := contact[1:strings.Index(contact, ">")]
		if res := newAsker(t, p, ua, uri).ask("SUBSCRIBE", p.contact(), "Event: conference"); res.status() != "403" {
			t.Errorf("SUBSCRIBE to it: %s", res.start)
		}
		if in := got(t, s.asked); in.Target != uri || in.CallID != "" {
			t.Errorf("%+v", in)
		}
		call.Hangup("hung_up", "")
		bye := p.expect("BYE")
		bye.write(answer(bye, 200, "OK", ""))
		next[Ended](ev)
	}
}

// Offer sends a re-INVITE and tells what became of it.
func TestOurOffer(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	call, ev := place(t, ua)
	connect(t, p, ev)
	call.Offer([]byte(offerSDP+"a=x\r\n"), "")
	re := p.expect("INVITE")
	if !strings.Contains(re.get("To"), "tag=a") || !strings.HasSuffix(re.body, "a=x\r\n") || re.get("Cseq") != "2 INVITE" {
		t.Errorf("re-INVITE %q", re.order)
	}
	re.write(answer(re, 200, "OK", "", p.contact(), "\n"+answerSDP))
	if ack := p.expect("ACK"); ack.get("Cseq") != "2 ACK" {
		t.Errorf("ACK %q", ack.get("Cseq"))
	}
	if r := next[Reoffered](ev); string(r.SDP) != answerSDP || r.Status != 200 {
		t.Errorf("%+v", r)
	}
	call.Hangup("hung_up", "")
	bye := p.expect("BYE")
	bye.write(answer(bye, 200, "OK", ""))
	next[Ended](ev)
}

// A registrar may want no Authorization in the first REGISTER, and have a realm that is not the
// home domain; a challenge of any other realm is still not answered.
func TestRegistrarsOfTheirOwnKind(t *testing.T) {
	p := newPeer(t, "tcp")
	o := AttachmentOptions{Name: "ue", Mode: ModeUE, Transport: "tcp", LocalAddr: "127.0.0.1", Domain: realm, IMPI: impi, IMPU: "sip:+15550100@ims.example",
		Auth: Auth{Password: secret, Realm: "pbx.example", BareFirst: true, Outbound: true}, Targets: []string{p.addr}}
	go func() {
		reg := p.expect("REGISTER")
		if v := reg.get("Authorization"); v != "" {
			t.Errorf("first REGISTER has %q", v)
		}
		if reg.get("Supported") != "path, outbound" || !strings.HasSuffix(reg.get("Contact"), ";reg-id=1") || reg.get("P-Access-Network-Info") != "" {
			t.Errorf("%q", reg.order)
		}
		reg.write(answer(reg, 401, "Unauthorized", "r", "WWW-Authenticate: "+challenge, "WWW-Authenticate: "+strings.Replace(challenge, "ims.example", "pbx.example", 1)))
		reg = p.expect("REGISTER")
		if got := digestParams(reg.get("Authorization"))["realm"]; got != "pbx.example" {
			t.Errorf("proof for %q", got)
		}
		reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
		reg = p.expect("REGISTER") // the end
		reg.write(answer(reg, 200, "OK", "r"))
	}()
	newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
	o.Auth.Realm = "a\"b"
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "realm") {
		t.Errorf("a realm with quotes: %v", err)
	}
}
