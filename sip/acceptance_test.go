package sip

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"golang.org/x/sys/unix"
)

// What a carrier asks of every attachment: DSCP, what our OPTIONS contain, failover on more than
// 503, overload, and the order of an end.

func TestOptionsThatWeSend(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		newTrunk(t, p)
		m := p.asked.Load()
		if want := "OPTIONS sip:" + p.addr + ";transport=" + network + " SIP/2.0"; m.start != want {
			t.Errorf("%q, want %q", m.start, want)
		}
		for name, want := range map[string]string{"Max-Forwards": "70", "Accept": "application/sdp", "To": "<sip:" + p.addr + ">",
			"Cseq": "1 OPTIONS", "Content-Length": "0", "User-Agent": "Sparkle"} {
			if got := m.get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.HasPrefix(m.get("From"), "<sip:+15550100@carrier.example>;tag=") || !strings.Contains(m.get("Via"), ";branch=z9hG4bK") {
			t.Errorf("%q", m.order)
		}
	})
}

// The DSCP is on what listens, and so on what it accepts, and on what we connect.
func TestDSCPOfSockets(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.DSCP = 24 })
		a := ua.atts[0]
		var conns []any
		if s := a.sockets[network]; s.udp != nil {
			conns = append(conns, s.udp)
		} else {
			conns = append(conns, s.Closer)
			c, err := a.stack.TransportLayer().GetConnection(network, p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = c.TryClose() }()
			conns = append(conns, c.(*sipgo.TCPConnection).Conn)
		}
		for _, c := range conns {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			tos, bad := 0, error(nil)
			if err := raw.Control(func(fd uintptr) { tos, bad = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS) }); err != nil || bad != nil {
				t.Fatal(err, bad)
			}
			if tos != 24<<2 {
				t.Errorf("%T: TOS %d, want %d", c, tos, 24<<2)
			}
		}
	})
}

// The answers that send a call on are those that are configured, and no other.
func TestFailoverOnTheAnswersNamed(t *testing.T) {
	for _, status := range []int{500, 502, 504} {
		a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
		ua := newTrunk(t, a, func(o *AttachmentOptions) {
			o.OptionsInterval, o.Targets, o.FailoverOn = -1, []string{a.addr, b.addr}, []int{500, 502, 504}
		})
		_, ev := place(t, ua)
		inv := a.expect("INVITE")
		inv.write(answer(inv, status, "No", "x"))
		a.expect("ACK")
		inv = b.expect("INVITE")
		inv.write(answer(inv, 503, "Service Unavailable", "y"))
		b.expect("ACK")
		if e := next[Ended](ev); e.Status != 503 {
			t.Errorf("%d: ended %+v", status, e)
		}
	}
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua := newTrunk(t, a, func(o *AttachmentOptions) {
		o.OptionsInterval, o.Targets, o.FailoverOn = -1, []string{a.addr, b.addr}, []int{}
	})
	_, ev := place(t, ua)
	inv := a.expect("INVITE")
	inv.write(answer(inv, 503, "Service Unavailable", "x"))
	a.expect("ACK")
	if e := next[Ended](ev); e.Status != 503 {
		t.Errorf("none: ended %+v", e)
	}
}

// A configured patience with a silent peer takes the place of ours, which would be 24 s here.
func TestFailoverTimer(t *testing.T) {
	silent, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua := newUA(t, Options{T1: 2 * time.Second, Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, LocalAddr: "127.0.0.1", Domain: "carrier.example",
		OptionsInterval: -1, Targets: []string{silent.addr, b.addr}, Failover: 20 * time.Millisecond}}})
	_, ev := place(t, ua)
	first := silent.expect("INVITE")
	inv := b.expect("INVITE")
	first.write(answer(first, 486, "Busy Here", "x")) // late, and no news any more
	inv.write(answer(inv, 480, "Temporarily Unavailable", "y"))
	if e := next[Ended](ev); e.Status != 480 {
		t.Errorf("ended %+v", e)
	}
}

// What a peer's answer says of its load (RFC 7339) holds for the calls after it.
func TestPeerAsksForFewerCalls(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunks(t, p)
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	via := inv.get("Via")
	inv.write(strings.Replace(answer(inv, 486, "Busy Here", "x"), via, via+";oc=100;oc-validity=60000", 1))
	p.expect("ACK")
	next[Ended](ev)
	_, ev = place(t, ua)
	if e := next[Ended](ev); e.Why != "overload" {
		t.Errorf("ended %+v", e)
	}
}

// A ue goes in this order: the call, then the registration.
func TestCloseOfAUE(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newUE(t, p)
	_, ev := place(t, ua)
	connect(t, p, ev)
	done := make(chan error, 1)
	go func() { done <- ua.Close(context.Background()) }()
	bye := p.expect("BYE")
	if !strings.Contains(bye.get("Reason"), "cause=200") {
		t.Errorf("BYE %q", bye.order)
	}
	bye.write(answer(bye, 200, "OK", ""))
	reg := p.expect("REGISTER")
	if reg.get("Expires") != "0" {
		t.Errorf("REGISTER %q", reg.order)
	}
	reg.write(answer(reg, 200, "OK", "r"))
	next[Ended](ev)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
