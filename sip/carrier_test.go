package sip

import (
	"net"
	"strings"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"golang.org/x/sys/unix"
)

// Who asks with OPTIONS whether he may call hears what an INVITE would (RFC 3261 11.2): 503 and
// when to come back as long as there is no room.
func TestOptionsSayWhetherThereIsRoom(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.MaxCalls = 1 })
		c := newCaller(t, p, ua)
		k := take(t, ua)
		c.request("OPTIONS", "before", 1, "")
		c.expect("200")
		c.request("INVITE", "one", 1, "", "\n"+offerSDP)
		c.expect("100")
		_, call := k.next()
		ua.SetBusy(true)
		c.request("OPTIONS", "busy", 2, "")
		if res := c.expect("503"); res.get("Retry-After") == "" {
			t.Errorf("503 without Retry-After: %q", res.order)
		}
		ua.SetBusy(false)
		c.request("OPTIONS", "full", 2, "")
		if res := c.expect("503"); res.get("Retry-After") == "" {
			t.Errorf("%q", res.order)
		}
		call.Accept(Acceptance{SDP: []byte(answerSDP)})
		tag := tagIn(c.expect("200"))
		c.request("ACK", "ack", 1, tag)
		next[Connected](k.events)
		c.request("OPTIONS", "within", 2, tag) // a call that there is can be asked for
		c.expect("200")
		c.request("BYE", "bye", 3, tag)
		c.expect("200")
		next[Ended](k.events)
		c.request("OPTIONS", "after", 3, "")
		c.expect("200")
	})
}

// A connection whose far end has gone without a word is given up in seconds: without that what
// is written to it waits for a quarter of an hour, and so does every call after it.
func TestDeadConnectionsAreGivenUp(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	c := newCaller(t, p, ua)
	c.settle()
	pool := ua.atts[0].stack.TransportLayer()
	for _, to := range []string{p.addr, c.conn.LocalAddr().String()} {
		conn, err := pool.GetConnection("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		raw := conn.(*sipgo.TCPConnection).Conn
		if g, ok := raw.(*guardedConn); ok {
			raw = g.Conn
		}
		sys, err := raw.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		ms := 0
		var bad error
		if err := sys.Control(func(fd uintptr) { ms, bad = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if got := time.Duration(ms) * time.Millisecond; got != deadAfter {
			t.Errorf("connection with %s is given up after %v, want %v", to, got, deadAfter)
		}
		_, _ = conn.TryClose()
	}
}

// The instance in a Contact is the same after a restart and another one's is not (RFC 5626 4.1).
func TestInstance(t *testing.T) {
	a, again, b := instance("one@ims.example"), instance("one@ims.example"), instance("two@ims.example")
	if a != again || a == b || !strings.HasPrefix(a, `+sip.instance="<urn:uuid:`) || len(a) != len(`+sip.instance="<urn:uuid:00000000-0000-0000-0000-000000000000>"`) {
		t.Errorf("%s, %s, %s", a, again, b)
	}
}

// Who hides his number says it to nobody but those who assert it: not in Contact either (RFC 3323
// 4.1).
func TestHiddenCaller(t *testing.T) {
	for _, untrusted := range []bool{false, true} {
		p := newPeer(t, "tcp")
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.HideCaller, o.Untrusted = true, untrusted })
		call, ev := place(t, ua)
		inv := p.expect("INVITE")
		for _, line := range inv.order {
			if strings.Contains(line, "15550100") && (untrusted || !strings.HasPrefix(line, "P-Asserted-Identity:")) {
				t.Errorf("untrusted %v: %s", untrusted, line)
			}
		}
		if inv.get("Privacy") != "id" || !strings.Contains(inv.get("From"), "anonymous.invalid") {
			t.Errorf("%q", inv.order)
		}
		inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP))
		p.expect("ACK")
		next[Answer](ev)
		next[Connected](ev)
		inv.write(p.inDialog(inv, "a", "BYE", 1)) // such a Contact still leads to the call
		p.expect("200")
		next[Ended](ev)
		call.Hangup("", "")
	}
}
