package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// A final answer ends the call with everything it said.
func TestRefused(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		_, ev := place(t, ua)
		inv := p.expect("INVITE")
		inv.write(answer(inv, 503, "Service Unavailable", "x", "Retry-After: 17 (soon)",
			`Reason: Q.850;cause=34;text="no circuit"`, `Warning: 399 core "full"`))
		p.expect("ACK")
		e := next[Ended](ev)
		if e.By != ByRemote || e.Status != 503 || e.Q850 != 34 || e.ReasonText != "no circuit" || e.Reason != `Q.850;cause=34;text="no circuit"` ||
			e.RetryAfter != 17*time.Second || e.Warning != `399 core "full"` || e.Connected || e.WasRinging {
			t.Errorf("ended %+v", e)
		}
	})
}

func TestNoDescriptionAnywhere(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 200, "OK", "a", p.contact()))
	p.expect("ACK")
	bye := p.expect("BYE")
	bye.write(answer(bye, 200, "OK", ""))
	if e := next[Ended](ev); e.Why != "no_sdp" || e.Connected {
		t.Errorf("ended %+v", e)
	}
}

// Nobody answers at all: UDP repeats the INVITE until timer B, and says so.
func TestNoResponse(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	_, ev := place(t, ua)
	p.expect("INVITE")
	if e := next[Ended](ev); e.By != ByNetwork || e.Why != "no_response" || e.Status != 0 {
		t.Errorf("ended %+v", e)
	}
}

func TestTimers(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		ring      bool
		edit      func(*Invite)
	}{
		{"setup", "setup_timeout", false, func(i *Invite) { i.SetupTimeout = 50 * time.Millisecond }},
		{"ring", "ring_timeout", true, func(i *Invite) { i.RingTimeout = 50 * time.Millisecond }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t, "tcp")
			ua := newTrunk(t, p)
			_, ev := place(t, ua, tt.edit)
			inv := p.expect("INVITE")
			inv.write(answer(inv, 100, "Trying", ""))
			if tt.ring {
				inv.write(answer(inv, 180, "Ringing", "a", p.contact()))
				next[Ringing](ev)
			}
			cancel := p.expect("CANCEL")
			cancel.write(answer(cancel, 200, "OK", "a"))
			inv.write(answer(inv, 487, "Request Terminated", "a"))
			p.expect("ACK")
			if e := next[Ended](ev); e.By != ByTimeout || e.Why != tt.why || e.WasRinging != tt.ring {
				t.Errorf("ended %+v", e)
			}
		})
	}
}

// A video INVITE of IMS size leaves over UDP in one piece.
func TestLargeInvite(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	offer := offerSDP + strings.Repeat("a=x:0123456789012345678901234567890123456789\r\n", 150)
	call, ev := place(t, ua, func(i *Invite) { i.Offer = []byte(offer) })
	inv := p.expect("INVITE")
	if inv.size < 7000 || inv.body != offer {
		t.Errorf("%d octets came, body %d of %d", inv.size, len(inv.body), len(offer))
	}
	if inv.from != ua.Attachments()[0].LocalAddr {
		t.Errorf("sent from %s, want the listener's %s", inv.from, ua.Attachments()[0].LocalAddr)
	}
	inv.write(answer(inv, 486, "Busy Here", "a"))
	next[Ended](ev)
	call.Hangup("again", "") // harmless after the end
}

// After a 580 an INVITE knows preconditions and offers none, whatever the attachment says.
func TestPassivePreconditions(t *testing.T) {
	for _, mode := range []string{"off", "passive", "active", "required"} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.Preconditions = mode })
		if m, _ := ua.MediaProfile("t"); m.Passive != (mode == "passive") {
			t.Errorf("%s: Passive is %v", mode, m.Passive)
		}
		for _, passive := range []bool{false, true} {
			_, ev := place(t, ua, func(i *Invite) { i.Passive = passive })
			inv := p.expect("INVITE")
			knows, offers, needs := strings.Contains(inv.get("Supported"), "precondition"), strings.Contains(inv.body, "qos"), inv.get("Require") != ""
			as := mode
			if passive {
				as = "passive"
			}
			if knows != (as != "off") || offers != (as == "active" || as == "required") || needs != (as == "required") {
				t.Errorf("%s, passive %v: known %v, offered %v, required %v", mode, passive, knows, offers, needs)
			}
			inv.write(answer(inv, 580, "Precondition Failure", "a"))
			p.expect("ACK")
			next[Ended](ev)
		}
	}
}

// The INVITE of a trunk: what must be there and what must not.
func TestInviteHeaders(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	for name, want := range map[string]string{
		"Supported": "100rel, timer, replaces, precondition", "Session-Expires": "1800", "Min-Se": "90",
		"Allow": allow, "P-Early-Media": "supported", "P-Asserted-Identity": "<sip:+15550100@carrier.example>",
		"Accept": "application/sdp, application/3gpp-ims+xml", "Max-Forwards": "70", "Content-Type": "application/sdp",
		"User-Agent": "Sparkle",
	} {
		if got := inv.head[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if inv.start != "INVITE sip:+15550123@carrier.example;user=phone SIP/2.0" {
		t.Errorf("start line %q", inv.start)
	}
	for _, no := range []string{"P-Preferred-Identity", "P-Preferred-Service", "Route", "P-Access-Network-Info"} {
		if got := inv.get(no); got != "" {
			t.Errorf("a trunk gets no %s: %q", no, got)
		}
	}
	if c := inv.get("Contact"); !strings.Contains(c, "transport=tcp>;"+mmtelTag+";audio;video") {
		t.Errorf("Contact %q", c)
	}
	if v := inv.get("P-Charging-Vector"); !strings.HasPrefix(v, "icid-value=") || !strings.Contains(v, "orig-ioi=carrier.example") {
		t.Errorf("P-Charging-Vector %q", v)
	}
	inv.write(answer(inv, 486, "Busy Here", "a"))
	next[Ended](ev)
}

func TestInviteRefusedLocally(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	for _, tt := range []struct {
		inv  Invite
		want error
	}{
		{Invite{Number: "15550123"}, ErrBadNumber},
		{Invite{Number: "+1 555"}, ErrBadNumber},
		{Invite{Number: "+1555\r\nX: y"}, ErrBadNumber},
		{Invite{Number: "+15550123", Attachment: "nobody"}, ErrUnknownAttachment},
	} {
		if _, err := ua.Invite(tt.inv); !errors.Is(err, tt.want) {
			t.Errorf("Invite(%+v): %v, want %v", tt.inv, err, tt.want)
		}
	}
	if err := ua.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// A trunk whose peer answers nothing goes down, and calls are refused at once.
func TestTrunkDown(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0") // it takes everything and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ua, err := New(Options{Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: "udp",
		LocalAddr: "127.0.0.1", Domain: "x.example", Targets: []string{c.LocalAddr().String()}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ua.Close(context.Background())
	if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
		t.Errorf("Invite: %v, want ErrAttachmentDown", err)
	}
}

func TestPortInUse(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		_, port, _ := net.SplitHostPort(p.addr)
		n := 0
		fmt.Sscan(port, &n)
		_, err := New(Options{Attachments: []AttachmentOptions{{Name: "a", Mode: ModeTrunk, Transport: network,
			LocalAddr: "127.0.0.1", LocalPort: n, Domain: "x.example", Targets: []string{"127.0.0.1:9"}}}}, nil)
		if err == nil || !strings.Contains(err.Error(), "port in use") || !strings.Contains(err.Error(), "attachment a") {
			t.Errorf("New: %v", err)
		}
	})
}

// Requests of the peer that no dialog of ours asked for, on a raw socket.
func TestFrontHandler(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	to, err := net.ResolveUDPAddr("udp", ua.Attachments()[0].LocalAddr)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan string, 16)
	ua.OnRefused(func(in Incoming, status int) {
		refused <- fmt.Sprint(status)
		if m, _ := ua.Trace(in.CallID); len(m) == 0 || in.ICID == "" || in.Caller.URI != "sip:a@b" {
			t.Errorf("%d: %d messages, %+v", status, len(m), in)
		}
	})
	n := 0
	build := func(method, toTag string, extra ...string) string {
		n++
		var b strings.Builder
		fmt.Fprintf(&b, "%s sip:x@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKf%d;rport\r\n", method, to, p.addr, n)
		fmt.Fprintf(&b, "From: <sip:a@b>;tag=f%d\r\nTo: <sip:x@y>%s\r\nCall-ID: front%d\r\nCSeq: 1 %s\r\n", n, toTag, n, method)
		return finish(&b, extra)
	}
	for _, tt := range []struct {
		name, msg, want string
		header          string
	}{
		{"inbound call", build("INVITE", "", "Max-Forwards: 70"), "503", "Retry-After"},
		{"options", build("OPTIONS", "", "Max-Forwards: 70"), "200", "Allow"},
		{"bye in no dialog", build("BYE", ";tag=zz", "Max-Forwards: 70"), "481", ""},
		{"bye without tag", build("BYE", "", "Max-Forwards: 70"), "481", ""},
		{"cancel of nothing", build("CANCEL", "", "Max-Forwards: 70"), "481", ""},
		{"method", build("PUBLISH", "", "Max-Forwards: 70"), "405", "Allow"},
		{"hops", build("INVITE", "", "Max-Forwards: 0"), "483", ""},
		{"extension", build("INVITE", "", "Max-Forwards: 70", "Require: nothingSupportsThis, 100rel"), "420", "Unsupported"},
		{"body", build("INVITE", "", "Max-Forwards: 70", "Content-Type: text/plain", "\nhello"), "415", "Accept"},
		{"two From", build("INVITE", "", "Max-Forwards: 70", "From: <sip:z@z>;tag=2"), "400", ""},
		{"CSeq of another method", strings.Replace(build("INVITE", ""), "CSeq: 1 INVITE", "CSeq: 1 BYE", 1), "400", ""},
		{"version", strings.Replace(build("OPTIONS", ""), " SIP/2.0\r\n", " SIP/7.0\r\n", 1), "505", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.t = t
			if _, err := p.udp.WriteTo([]byte(tt.msg), to); err != nil {
				t.Fatal(err)
			}
			res := p.await(tt.want)
			if tt.header != "" && res.get(tt.header) == "" {
				t.Errorf("%s has no %s: %q", res.start, tt.header, res.order)
			}
			if tt.want != "200" && tt.name == "inbound call" {
				ack := strings.Replace(tt.msg, "INVITE", "ACK", 2)
				_, _ = p.udp.WriteTo([]byte(strings.Replace(ack, "<sip:x@y>", res.get("To"), 1)), to)
			}
		})
	}
	told := []string{got(t, refused), got(t, refused), got(t, refused)}
	slices.Sort(told)                                                     // each is told of behind its answer, in a goroutine of its own
	if want := []string{"415", "420", "483"}; !slices.Equal(told, want) { // calls that were none; what is malformed is counted only
		t.Errorf("%q refused, want %q", told, want)
	}
	if len(refused) != 0 {
		t.Errorf("also refused: %s", <-refused)
	}
}

// await takes the next response and wants this status; provisional ones and
// repetitions pass.
func (p *peer) await(want string) message {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-p.in:
			if strings.HasPrefix(m.start, "SIP/2.0 1") {
				continue
			}
			if strings.Contains(m.start, want) {
				return m
			}
			if strings.HasPrefix(m.get("Cseq"), "1 INVITE") {
				continue // an earlier row's final answer, repeated since nobody acknowledged
			}
			p.t.Fatalf("got %q, want %s", m.start, want)
		case <-timeout:
			p.t.Fatalf("no %s came", want)
		}
	}
}

// Strangers are not answered, whatever they send, and nothing is kept of them.
func TestStrangerIsDropped(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	stranger, err := net.ListenPacket("udp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address:", err)
	}
	defer stranger.Close()
	a := ua.atts[0]
	before := a.stack.TransportLayer().Pool("udp").Size()
	to, _ := net.ResolveUDPAddr("udp", ua.Attachments()[0].LocalAddr)
	msg := "OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKs\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
	for range 10 {
		_, _ = stranger.WriteTo([]byte(msg), to)
	}
	deadline := time.Now().Add(patience)
	for a.peers.dropped.Load() < 10 {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 10 datagrams dropped", a.peers.dropped.Load())
		}
		<-time.After(time.Millisecond)
	}
	if after := a.stack.TransportLayer().Pool("udp").Size(); after != before {
		t.Errorf("pool grew from %d to %d entries", before, after)
	}
	// A stranger's TCP connection is closed at once.
	pt := newPeer(t, "tcp")
	uat := newTrunk(t, pt)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	c, err := d.Dial("tcp", uat.Attachments()[0].LocalAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, errDeadline(err)) {
		t.Errorf("stranger's connection: read %d, %v", n, err)
	}
}

// errDeadline returns err if it is a timeout, so that errors.Is tells it apart.
func errDeadline(err error) error {
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return err
	}
	return errors.New("no timeout")
}

func TestHealth(t *testing.T) {
	ok, fail, sus := probe{status: 200}, probe{}, probe{status: 503, retryAfter: time.Minute}
	for _, tt := range []struct {
		name string
		in   []probe
		want string
	}{
		{"first answer", []probe{ok}, "up"},
		{"405 is an answer", []probe{{status: 405}}, "up"},
		{"408 is one", []probe{fail, {status: 408}, {status: 408}}, "up"},
		{"first silence", []probe{fail}, "down"},
		{"two failures are not enough", []probe{ok, fail, fail}, "up"},
		{"three are", []probe{ok, fail, fail, fail}, "down"},
		{"an answer between starts the count again", []probe{ok, fail, fail, ok, fail, fail}, "up"},
		{"one answer does not bring it back", []probe{fail, ok}, "down"},
		{"two do", []probe{fail, ok, ok}, "up"},
		{"503 counts as failure", []probe{ok, {status: 503}, {status: 503}, {status: 503}}, "down"},
		{"503 with Retry-After suspends", []probe{ok, sus}, "suspended"},
		{"and stays so", []probe{ok, sus, ok, ok}, "suspended"},
	} {
		var h health
		now := time.Unix(0, 0)
		for _, p := range tt.in {
			h = h.step(now, p)
			now = now.Add(time.Second)
		}
		if h.state != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, h.state, tt.want)
		}
	}
	h := health{}.step(time.Unix(0, 0), sus).step(time.Unix(61, 0), ok)
	if !h.up() {
		t.Errorf("after its time a suspended peer that answers is %s", h.state)
	}
}

func TestSummaryHasNoNumbers(t *testing.T) {
	res := sipgo.NewResponse(486, "User +15550123 busy\r\n")
	if got := summary(res); got != "486 User + busy" {
		t.Errorf("summary %q", got)
	}
}
