package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/aka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 10 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func startCore(t *testing.T, o CoreOptions) *Core {
	t.Helper()
	c, err := StartCore(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func addHandset(t *testing.T, c *Core, o HandsetOptions) *Handset {
	t.Helper()
	h, err := c.AddHandset(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ue is a scripted SIP client on a bare socket: it sends what it is told and hands out
// what arrives, in order. It has no transactions and no dialogs of its own.
type ue struct {
	t     *testing.T
	core  *Core
	proto string
	local string
	write func([]byte)
	in    chan *wire.Message
}

func newUE(t *testing.T, c *Core, proto string) *ue {
	t.Helper()
	u := &ue{t: t, core: c, proto: strings.ToUpper(proto), in: make(chan *wire.Message, 200)}
	done := make(chan struct{})
	var conn net.Conn
	if proto == "udp" {
		pc, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		conn = pc
		go func() {
			defer close(done)
			buf := make([]byte, 65536)
			for {
				n, err := pc.Read(buf)
				if err != nil {
					return
				}
				u.got(buf[:n])
			}
		}()
	} else {
		tc, err := net.Dial("tcp", c.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn = tc
		go func() {
			defer close(done)
			r := bufio.NewReader(tc)
			for {
				m, err := wire.ReadMessage(r, nil)
				if err != nil {
					return
				}
				u.in <- m
			}
		}()
	}
	u.local = conn.LocalAddr().String()
	u.write = func(b []byte) {
		if _, err := conn.Write(b); err != nil {
			t.Errorf("ue: %v", err)
		}
	}
	t.Cleanup(func() { conn.Close(); <-done })
	return u
}

func (u *ue) got(b []byte) {
	m, err := wire.Parse(b)
	if err != nil {
		u.t.Errorf("the core sent a bad message: %v\n%s", err, b)
		return
	}
	u.in <- m
}

func (u *ue) send(m *wire.Message) { u.write(m.Bytes()) }

// expect is the next message that ok likes; others on the way are skipped.
func (u *ue) expect(what string, ok func(*wire.Message) bool) *wire.Message {
	u.t.Helper()
	var seen []string
	timeout := time.After(deadline)
	for {
		select {
		case m := <-u.in:
			if ok(m) {
				return m
			}
			_, method := m.CSeq()
			seen = append(seen, fmt.Sprintf("%s%d/%s", m.Method, m.Status, method))
		case <-timeout:
			u.t.Fatalf("%s did not come; seen %v", what, seen)
			return nil
		}
	}
}

// final is the final response to a method, provisional ones before it skipped.
func (u *ue) final(method string) *wire.Message {
	u.t.Helper()
	return u.expect("final response to "+method, func(m *wire.Message) bool {
		_, cm := m.CSeq()
		return m.Status >= 200 && cm == method
	})
}

func (u *ue) status(method string, status int) *wire.Message {
	u.t.Helper()
	return u.expect(fmt.Sprintf("%d to %s", status, method), func(m *wire.Message) bool {
		_, cm := m.CSeq()
		return m.Status == status && cm == method
	})
}

func (u *ue) request(method string) *wire.Message {
	u.t.Helper()
	return u.expect(method, func(m *wire.Message) bool { return m.Method == method })
}

func (u *ue) via() string {
	return "SIP/2.0/" + u.proto + " " + u.local + ";branch=" + wire.Branch() + ";rport"
}

func (u *ue) contact(user string) string {
	return "sip:" + user + "@" + u.local + ";transport=" + strings.ToLower(u.proto)
}

// registrant is a ue's subscription.
type registrant struct {
	*ue
	impi, impu string
	auth       Auth
	sqn        uint64
	callID     string
	seq        int
	routes     []string // Service-Route
}

func (u *ue) subscriber(number string, a Auth) *registrant {
	u.t.Helper()
	r := &registrant{ue: u, impi: number[1:] + "@" + u.core.Domain(), impu: "sip:" + number + "@" + u.core.Domain(), auth: a, callID: wire.Token(6)}
	if err := u.core.AddSubscriber(r.impi, r.impu, a); err != nil {
		u.t.Fatal(err)
	}
	return r
}

// register sends one REGISTER; authorization "" announces the identity only.
func (r *registrant) register(expires int, authorization string) *wire.Message {
	r.t.Helper()
	r.seq++
	m := &wire.Message{Method: "REGISTER", URI: "sip:" + r.core.Domain()}
	m.Add("Via", r.via())
	m.Add("Max-Forwards", "70")
	m.Add("From", "<"+r.impu+">;tag=abc")
	m.Add("To", "<"+r.impu+">")
	m.Add("Call-ID", r.callID)
	m.Add("CSeq", fmt.Sprintf("%d REGISTER", r.seq))
	m.Add("Contact", "<"+r.contact("me")+`>;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel";audio;video`)
	m.Add("Expires", fmt.Sprint(expires))
	m.Add("Supported", "path")
	if authorization == "" {
		authorization = fmt.Sprintf(`Digest username="%s",realm="%s",uri="%s",nonce="",response=""`, r.impi, r.core.Domain(), m.URI)
	}
	m.Add("Authorization", authorization)
	r.send(m)
	return r.final("REGISTER")
}

// proof answers a 401 with the given password, or the SIM's with AKA.
func (r *registrant) proof(challenge *wire.Message, password []byte, nc int) string {
	r.t.Helper()
	p := digestParams(challenge.Get("WWW-Authenticate"))
	if p == nil || p["realm"] != r.core.Domain() || p["nonce"] == "" || p["qop"] != "auth" {
		r.t.Fatalf("challenge %q", challenge.Get("WWW-Authenticate"))
	}
	if password == nil && p["algorithm"] == AKAv1 {
		mil, err := aka.New(r.auth.K, r.auth.OPc)
		if err != nil {
			r.t.Fatal(err)
		}
		rnd, autn, err := aka.ParseNonce(p["nonce"])
		if err != nil {
			r.t.Fatal(err)
		}
		res, auts, err := mil.Check(rnd, autn, r.sqn)
		if err != nil { // out of step
			return fmt.Sprintf(`Digest username="%s",realm="%s",uri="sip:%s",nonce="%s",response="",algorithm=AKAv1-MD5,auts="%s"`,
				r.impi, p["realm"], r.core.Domain(), p["nonce"], base64Of(auts[:]))
		}
		r.sqn = res.SQN
		password = res.RES[:]
	} else if password == nil {
		password = []byte(r.auth.Password)
	}
	pr := proof{
		algorithm: p["algorithm"], username: r.impi, realm: p["realm"], method: "REGISTER", uri: "sip:" + r.core.Domain(),
		nonce: p["nonce"], nc: fmt.Sprintf("%08x", nc), cnonce: "c0ffee", qop: "auth", password: password,
	}
	return fmt.Sprintf(`Digest username="%s",realm="%s",uri="%s",nonce="%s",response="%s",algorithm=%s,qop=auth,cnonce="%s",nc=%s`,
		pr.username, pr.realm, pr.uri, pr.nonce, pr.response(), pr.algorithm, pr.cnonce, pr.nc)
}

// join registers in two steps.
func (r *registrant) join() *wire.Message {
	r.t.Helper()
	ok := r.register(600, r.proof(r.register(600, ""), nil, 1))
	if ok.Status != 200 {
		r.t.Fatalf("REGISTER answered %d", ok.Status)
	}
	r.routes = ok.Values("Service-Route")
	return ok
}

// leg is a ue's half of one call.
type leg struct {
	u        *ue
	invite   *wire.Message
	seq      int
	routes   []string // of the dialog
	target   string
	to       string
	preroute []string
}

// offerVideo is IMS.md §2.1, cut to what matters.
const offerVideo = `v=0
o=- 3973450001 3973450001 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio 49152 RTP/AVP 97 98 99 100 8 101 102
b=AS:41
a=rtpmap:97 AMR-WB/16000/1
a=fmtp:97 mode-change-capability=2;max-red=220
a=rtpmap:98 AMR-WB/16000/1
a=fmtp:98 octet-align=1
a=rtpmap:99 AMR/8000/1
a=rtpmap:100 AMR/8000/1
a=fmtp:100 octet-align=1
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/16000
a=fmtp:101 0-15
a=rtpmap:102 telephone-event/8000
a=fmtp:102 0-15
a=ptime:20
a=sendrecv
`

const videoPart = `m=video 49154 RTP/AVP 114 115 116
b=AS:960
a=tcap:1 RTP/AVPF
a=pcfg:1 t=1
a=rtpmap:114 H264/90000
a=fmtp:114 profile-level-id=42c01f;packetization-mode=1
a=rtpmap:115 H264/90000
a=fmtp:115 profile-level-id=42c00c;packetization-mode=1
a=imageattr:115 send [x=240,y=320] recv [x=240,y=320]
a=rtpmap:116 H264/90000
a=fmtp:116 profile-level-id=42c00c;packetization-mode=0
a=rtcp-fb:* nack pli
a=sendrecv
`

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

var videoOffer, voiceOffer = crlf(offerVideo + videoPart), crlf(offerVideo)

// invite sends an INVITE. edit may change it; it may be nil.
func (u *ue) invite(number string, offer []byte, preroute []string, edit func(*wire.Message)) *leg {
	u.t.Helper()
	m := &wire.Message{Method: "INVITE", URI: "tel:" + number}
	m.Add("Via", u.via())
	m.Add("Max-Forwards", "70")
	for _, r := range preroute {
		m.Add("Route", r)
	}
	m.Add("From", "<sip:+15550100@"+u.core.Domain()+">;tag="+wire.Token(4))
	m.Add("To", "<tel:"+number+">")
	m.Add("Call-ID", wire.Token(8))
	m.Add("CSeq", "1 INVITE")
	m.Add("Contact", "<"+u.contact("me")+">")
	m.Add("Supported", "100rel, timer, precondition")
	m.Add("Session-Expires", "1800")
	if offer != nil {
		m.Add("Content-Type", "application/sdp")
		m.Body = offer
	}
	if edit != nil {
		edit(m)
	}
	l := &leg{u: u, invite: m, seq: 1, preroute: preroute}
	u.send(m)
	return l
}

// follow takes dialog state from a response.
func (l *leg) follow(r *wire.Message) *wire.Message {
	l.u.t.Helper()
	rr := r.Values("Record-Route")
	l.routes = nil
	for i := len(rr) - 1; i >= 0; i-- {
		l.routes = append(l.routes, rr[i])
	}
	a, err := wire.ParseAddr(r.Get("Contact"))
	if err != nil {
		l.u.t.Fatalf("%d has no Contact", r.Status)
	}
	l.target, l.to = a.URI, r.Get("To")
	if len(l.routes) == 0 {
		l.u.t.Errorf("%d has no Record-Route", r.Status)
	}
	return r
}

func (l *leg) message(method string, seq int) *wire.Message {
	m := &wire.Message{Method: method, URI: l.target}
	m.Add("Via", l.u.via())
	m.Add("Max-Forwards", "70")
	for _, r := range l.routes {
		m.Add("Route", r)
	}
	m.Add("From", l.invite.Get("From"))
	m.Add("To", l.to)
	m.Add("Call-ID", l.invite.Get("Call-ID"))
	m.Add("CSeq", fmt.Sprintf("%d %s", seq, method))
	return m
}

func (l *leg) ack() { l.u.send(l.message("ACK", 1)) }

// do sends a request within the dialog.
func (l *leg) do(method string, edit func(*wire.Message)) {
	l.seq++
	m := l.message(method, l.seq)
	m.Add("Contact", "<"+l.u.contact("me")+">")
	if edit != nil {
		edit(m)
	}
	l.u.send(m)
}

// failed acknowledges a failure, hop by hop.
func (l *leg) failed(r *wire.Message) {
	m := &wire.Message{Method: "ACK", URI: l.invite.URI}
	m.Add("Via", l.invite.Get("Via"))
	m.Add("Max-Forwards", "70")
	for _, v := range l.preroute {
		m.Add("Route", v)
	}
	m.Add("From", l.invite.Get("From"))
	m.Add("To", r.Get("To"))
	m.Add("Call-ID", l.invite.Get("Call-ID"))
	m.Add("CSeq", "1 ACK")
	l.u.send(m)
}

func (l *leg) cancel() {
	m := &wire.Message{Method: "CANCEL", URI: l.invite.URI}
	m.Add("Via", l.invite.Get("Via"))
	m.Add("Max-Forwards", "70")
	for _, v := range l.preroute {
		m.Add("Route", v)
	}
	m.Add("From", l.invite.Get("From"))
	m.Add("To", l.invite.Get("To"))
	m.Add("Call-ID", l.invite.Get("Call-ID"))
	m.Add("CSeq", "1 CANCEL")
	m.Add("Reason", `SIP;cause=487;text="ring timeout"`)
	l.u.send(m)
}

// reply answers a request that came to us.
func (u *ue) reply(m *wire.Message, status int) *wire.Message {
	r := m.Reply(status, "", "")
	u.send(r)
	return r
}

// testContextLong is for programs of others.
func testContextLong(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 45*time.Second)
	t.Cleanup(cancel)
	return ctx
}
