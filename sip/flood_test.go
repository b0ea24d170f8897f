package sip

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// A million sources that nobody knows leave nothing behind (sipgo keeps an entry for each
// that it is shown).
func TestSourceFlood(t *testing.T) {
	s, answers, _, _ := newBenchScreen(2000)
	here := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5060"))
	msg := []byte(strings.Replace(sound, "TCP", "UDP", 1))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1_000_000 {
		from := &net.UDPAddr{IP: net.IPv4(203, byte(i>>16), byte(i>>8), byte(i)), Port: 1024 + i%60000}
		if out, err := s.filter(sipgo.TransportReadProps{Transport: "UDP", LocalAddr: here, RemoteAddr: from}, msg); err != nil || out != nil {
			t.Fatalf("%q, %v", out, err)
		}
	}
	if after := heap(); after > before+1<<20 || s.stats().Strangers != 1_000_000 || len(*answers) != 0 {
		t.Errorf("heap %d, then %d; %+v, %d answers", before, after, s.stats(), len(*answers))
	}
}

// New calls above the rate are sent away without a transaction and told when to come back;
// requests in calls, and those that come again, are not. Goroutines stay few.
func TestInviteFlood(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.InviteRate, o.PeerRate = 5, 1e6 })
	ua.OnIncoming(func(_ Incoming, call IncomingCall) func(Event) { call.Ring(); return func(Event) {} })
	before := runtime.NumGoroutine()
	c := knock(t, "udp", ua.Attachments()[0].LocalAddr)
	invite := func(i int) []byte {
		return fmt.Appendf(nil, "INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKflood%d\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=%d\r\nTo: <sip:x@y>\r\n"+
			"Call-ID: flood%d\r\nCSeq: 1 INVITE\r\nContact: %s\r\nContent-Length: 0\r\n\r\n", c.conn.LocalAddr(), i, i, i, strings.TrimPrefix(p.contact(), "Contact: "))
	}
	rang, shed, most := 0, 0, 0
	for i := range 200 {
		c.send(invite(i))
		for {
			m := c.receive()
			if !strings.HasSuffix(m.get("Call-Id"), fmt.Sprintf("flood%d", i)) || m.status() == "100" {
				continue // an earlier 180 again, or no answer yet
			}
			if m.status() == "503" {
				if m.get("Retry-After") == "" {
					t.Fatalf("503 without Retry-After: %q", m.order)
				}
				shed++
			} else if m.status() == "180" {
				rang++
			}
			break
		}
		most = max(most, runtime.NumGoroutine())
	}
	if rang < 10 || rang > 100 || shed != 200-rang || ua.Attachments()[0].Ingress.Shed != uint64(shed) {
		t.Errorf("%d rang, %d sent away, %+v", rang, shed, ua.Attachments()[0].Ingress)
	}
	if most > before+rang*6+20 {
		t.Errorf("%d goroutines for %d calls, %d before", most, rang, before)
	}
	c.send(invite(0)) // comes again: its own call answers
	for {
		if m := c.receive(); m.get("Call-Id") == "flood0" {
			if m.status() == "503" {
				t.Error("a call that is ringing was sent away")
			}
			break
		}
	}
}

// Who begins a message must end it, who opens a connection must speak, and one peer cannot
// have all connections.
func TestSlowPeersAreLeft(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, _, _, _ := newBenchScreen(1e6)
	g := &guardedListener{Listener: l, peers: s.peers, screen: s,
		patience: patienceTCP{first: 100 * time.Millisecond, message: 100 * time.Millisecond, idle: time.Hour}, again: func(error) bool { return false }}
	defer l.Close()
	ended := make(chan error, maxConnsPeer)
	go func() { // as sipgo reads
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					_ = c.SetReadDeadline(time.Now().Add(time.Hour))
					n, err := c.Read(b)
					if err == nil {
						_, err = s.filter(sipgo.TransportReadProps{Transport: "TCP", LocalAddr: c.LocalAddr(), RemoteAddr: c.RemoteAddr()}, b[:n])
					}
					if err != nil {
						c.Close() // it counts until then
						ended <- err
						return
					}
				}
			}()
		}
	}()
	loris := knock(t, "tcp", l.Addr().String())
	stop := make(chan struct{})
	go func() { // an octet now and then
		for i := range sound {
			if _, err := loris.conn.Write([]byte{sound[i]}); err != nil {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}()
	for _, who := range []string{"loris", "mute"} {
		if who == "mute" {
			knock(t, "tcp", l.Addr().String())
		}
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", who, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s stays", who)
		}
	}
	close(stop)
	for range maxConnsPeer {
		if !g.open.enter(netip.MustParseAddr("127.0.0.1"), maxConns, maxConnsPeer) {
			t.Fatal("refused below the limit")
		}
	}
	if g.open.enter(netip.MustParseAddr("127.0.0.1"), maxConns, maxConnsPeer) || !g.open.enter(netip.MustParseAddr("127.0.0.2"), maxConns, maxConnsPeer) {
		t.Error("the limit of one peer is not that of one peer")
	}
}

// A ping of any length is one ping, and a fault in the filter ends nothing but what it
// happened in.
func TestPingsAndFaults(t *testing.T) {
	s, _, tcp, udp := newBenchScreen(1e6)
	if out, err := s.filter(tcp, []byte(strings.Repeat("\r\n", 1000))); err != nil || len(out) != 4 {
		t.Errorf("%d octets of a flood of line ends pass, %v", len(out), err)
	}
	s.admit = func(netip.Addr, *sipgo.Request) bool { panic("test") }
	inv := []byte(strings.ReplaceAll(strings.Replace(sound, "TCP", "UDP", 1), "OPTIONS", "INVITE"))
	if out, err := s.filter(udp, inv); out != nil || err != nil {
		t.Errorf("UDP after a fault: %q, %v", out, err)
	}
	if out, err := s.filter(tcp, inv); out != nil || err == nil || s.stats().Faults != 2 {
		t.Errorf("TCP after a fault: %q, %v, %+v", out, err, s.stats())
	}
}

// A response to a request that is not ours, and a request that says to be ours, go no
// further.
func TestMisled(t *testing.T) {
	s, answers, _, udp := newBenchScreen(1e6)
	s.ours = func(host string, port int) bool { return host == "127.0.0.1" && port == 5060 }
	res := "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
	for port, pass := range map[int]bool{5060: true, 5061: false} {
		if out, err := s.filter(udp, fmt.Appendf(nil, res, port)); err != nil || (out != nil) != pass {
			t.Errorf("response to port %d: %q, %v", port, out, err)
		}
	}
	loop := strings.Replace(sound, "TCP 127.0.0.1:5070", "UDP 127.0.0.1:5060", 1)
	if out, err := s.filter(udp, []byte(loop)); err != nil || out != nil || len(*answers) != 1 || !strings.HasPrefix((*answers)[0], "SIP/2.0 482 ") {
		t.Errorf("loop: %q, %v, %q", out, err, *answers)
	}
	if s.stats().Misled != 1 {
		t.Errorf("%+v", s.stats())
	}
}

// Sockets that fail once.
type (
	failingListener struct {
		net.Listener
		failed bool
	}
	failingPackets struct {
		net.PacketConn
		failed bool
	}
)

var errNoDescriptor = &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}

func (f *failingListener) Accept() (net.Conn, error) {
	if !f.failed {
		f.failed = true
		return nil, errNoDescriptor
	}
	return f.Listener.Accept()
}

func (f *failingPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	if !f.failed {
		f.failed = true
		return 0, nil, errNoDescriptor
	}
	return f.PacketConn.ReadFrom(b)
}

// An error that passes, such as of no free descriptor, must not end the listening: sipgo's would
// without a word, and the attachment would stay "up" and hear nothing.
func TestListeningOutlivesAnError(t *testing.T) {
	a := bareAttachment(&UA{log: slog.New(slog.DiscardHandler), traces: newTraces()}, AttachmentOptions{Name: "a", PeerRate: 10, InviteRate: 10})
	defer a.cancel()
	a.peers.set([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := &guardedListener{Listener: &failingListener{Listener: l}, peers: a.peers, screen: a.screen, patience: defaultPatience, again: a.retry("tcp")}
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()

	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &guardedPackets{PacketConn: &failingPackets{PacketConn: p}, peers: a.peers, again: a.retry("udp"), begin: func() {}}
	if _, err := p.WriteTo([]byte("x"), p.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := u.ReadFrom(make([]byte, 10)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p.Close()
	if _, _, err := u.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	l.Close()
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A peer that sends from ever new ports leaves little behind: what needs no transaction gets none,
// and what sipgo remembers of each source is forgotten with its reader. Calls are taken meanwhile
// and afterwards.
func TestSourcesAreForgotten(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.PeerRate = 1e6 })
	a := ua.atts[0]
	us, err := net.ResolveUDPAddr("udp", ua.Attachments()[0].LocalAddr)
	if err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	b := make([]byte, 4096)
	from := func(i int, method string) (answer string) {
		c, err := net.DialUDP("udp", nil, us)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = fmt.Fprintf(c, "%s sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKsrc%d%s\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=%d\r\nTo: <sip:x@y>\r\n"+
			"Call-ID: src%d\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n", method, c.LocalAddr(), i, method, i, i, method)
		if err != nil {
			t.Fatal(err)
		}
		if method == "ACK" {
			return ""
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for i := range 3000 {
		if method := []string{"OPTIONS", "BYE", "INFO"}[i%3]; !strings.HasPrefix(from(i, method), map[bool]string{true: "SIP/2.0 200 ", false: "SIP/2.0 481 "}[method == "OPTIONS"]) {
			t.Fatalf("%s: %s", method, b[:40])
		}
	}
	if n := a.stack.TransportLayer().Pool("udp").Size(); n > 10 {
		t.Errorf("sipgo knows %d addresses of requests that were answered without it", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines+20 || a.screen.busy.total > 10 {
		t.Errorf("%d goroutines, %d before; %d transactions", n, goroutines, a.screen.busy.total)
	}
	for i := range maxSources + 500 { // of those before some count too
		from(i, "ACK") // has no answer, and passes
		if i%100 == 0 {
			from(i, "OPTIONS") // so that no datagram is lost
		}
	}
	for deadline := time.Now().Add(patience); a.stack.TransportLayer().Pool("udp").Size() > maxSources; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("sipgo still knows %d sources", a.stack.TransportLayer().Pool("udp").Size())
		}
	}
	k := take(t, ua)
	c := newCaller(t, p, ua)
	c.request("INVITE", "one", 1, "", "\n"+offerSDP)
	c.expect("100")
	_, call := k.next()
	call.Reject(486, 0)
	c.expect("486")
}

// Who floods has his part of the rate, and no more: another peer's calls are taken, up to the same part.
func TestShare(t *testing.T) {
	now := time.Unix(1000, 0)
	flooder, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	s := newShare(100)
	taken := map[netip.Addr]int{}
	run := func(d time.Duration, every map[netip.Addr]time.Duration) {
		clear(taken)
		due := map[netip.Addr]time.Time{flooder: now, other: now}
		for end := now.Add(d); now.Before(end); now = now.Add(time.Millisecond) {
			for _, who := range []netip.Addr{flooder, other} {
				for every[who] > 0 && !due[who].After(now) {
					due[who] = due[who].Add(every[who])
					if s.spend(now, who) {
						taken[who]++
					}
				}
			}
		}
	}
	run(10*time.Second, map[netip.Addr]time.Duration{flooder: 4 * time.Millisecond})
	if n := taken[flooder]; n < 1000 || n > 1210 {
		t.Errorf("alone he has %d of 1000 and a burst", n)
	}
	run(10*time.Second, map[netip.Addr]time.Duration{flooder: 4 * time.Millisecond, other: 50 * time.Millisecond})
	if taken[other] != 200 || taken[flooder] > 560 {
		t.Errorf("beside the flood %d of 200 are taken, and %d of the flood", taken[other], taken[flooder])
	}
	run(10*time.Second, map[netip.Addr]time.Duration{flooder: 4 * time.Millisecond, other: 4 * time.Millisecond})
	if d := taken[flooder] - taken[other]; d < -150 || d > 150 || taken[flooder]+taken[other] > 1300 {
		t.Errorf("two floods have %v", taken)
	}
	run(10*time.Second, map[netip.Addr]time.Duration{flooder: 4 * time.Millisecond}) // and all of it again
	if n := taken[flooder]; n < 850 {
		t.Errorf("alone again he has %d", n)
	}
}

// Transactions have a bound: for one peer, for all, and a little more for what ends calls.
func TestTransactionsAreBounded(t *testing.T) {
	one, two, three := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	s := &screen{}
	x := &s.busy
	fill := func(who netip.Addr, method string) {
		for s.mayBegin(who, method) {
			x.enter(who, math.MaxInt, math.MaxInt)
		}
	}
	fill(one, "SUBSCRIBE")
	if x.total != maxTransactions/2 || s.mayBegin(one, "INVITE") || !s.mayBegin(two, "INVITE") || !s.mayBegin(one, "ACK") || !s.mayBegin(one, "") {
		t.Errorf("one peer has %d", x.total)
	}
	fill(two, "SUBSCRIBE")
	if x.total != maxTransactions || s.mayBegin(three, "INVITE") || !s.mayBegin(three, "BYE") {
		t.Errorf("two peers have %d", x.total)
	}
	for range maxTransactions / 2 {
		x.leave(one)
		x.leave(two)
	}
	if x.total != 0 || len(x.of) != 0 {
		t.Errorf("%d are left, of %d", x.total, len(x.of))
	}
}

// A TLS handshake is part of the time that a peer has to say something, however its octets come.
func TestHandshakeMustEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _, _, _ := newBenchScreen(1e6)
	g := &tlsListener{&guardedListener{Listener: l, peers: s.peers, screen: s, again: func(error) bool { return false },
		patience: patienceTCP{first: 200 * time.Millisecond, message: time.Hour, idle: time.Hour}}, &tls.Config{}}
	ended := make(chan error, 1)
	go func() {
		c, err := g.Accept()
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 4096))
		}
		ended <- err
	}()
	loris := knock(t, "tcp", l.Addr().String())
	hello := append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 200)...) // the first half of one
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for i := range hello {
			if _, err := loris.conn.Write(hello[i : i+1]); err != nil {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it may go on for ever")
	}
}

// Answers to calls that there are not: each is ended, a copy only acknowledged, and a flood of them
// is bounded.
func TestFloodOfStrayAnswers(t *testing.T) {
	p := newPeer(t, "udp")
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	ua := newTrunk(t, p)
	us := ua.Attachments()[0].LocalAddr
	to, err := net.ResolveUDPAddr("udp", us)
	if err != nil {
		t.Fatal(err)
	}
	stray := func(id string) {
		if _, err := p.udp.WriteTo(fmt.Appendf(nil, "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: %s\r\nCSeq: 1 INVITE\r\n"+
			"%s\r\nContent-Length: 0\r\n\r\n", us, id, id, p.contact()), to); err != nil {
			t.Fatal(err)
		}
	}
	stray("one")
	p.expect("ACK")
	bye := p.expect("BYE")
	stray("one")
	for m := p.expect("ACK"); m.get("Call-Id") != "one"; m = p.expect("ACK") {
	}
	bye.write(answer(bye, 200, "OK", ""))
	go func() { // nobody answers them
		for {
			select {
			case <-p.in:
			case <-end:
				return
			}
		}
	}()
	n := 0
	eventually(t, "one that is dropped, of as many as come", func() bool { // the kernel may lose some
		for range 100 {
			stray(fmt.Sprint("many", n))
			n++
		}
		return ua.Attachments()[0].Ingress.Misled > 0
	})
	if n := running("sparkle/sip.(*attachment).exchange"); n > maxStraysPeer+8 {
		t.Errorf("%d BYEs at once, of %d", n, maxStraysPeer)
	}
	gone(t, "sparkle/sip.(*attachment).dropAnswer.func1") // and then there is room again
	if a := ua.atts[0]; !a.strays.room(netip.MustParseAddr("127.0.0.1"), 1, 1) || len(a.strays.live) > 0 {
		t.Errorf("kept: %v", a.strays.live)
	}
}

// A name that looks like a tag does not get a call by the limits, nor an answer without a tag.
func TestNameThatLooksLikeATag(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.MaxCalls = 1 })
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	k := knock(t, "tcp", ua.Attachments()[0].LocalAddr)
	for _, to := range []string{"\"x;tag=y\" <sip:+15550100@carrier.example>", "<sip:+15550100@carrier.example;tag=z>"} {
		k.send([]byte(strings.Replace(p.toUs(ua, "INVITE", "sip:conf@carrier.example", "named", "Contact: <sip:x@"+p.addr+">", "\n"+offerSDP), "To: <sip:+15550100@carrier.example>", "To: "+to, 1)))
		if res := k.receive(); !strings.HasPrefix(res.start, "SIP/2.0 503") || !strings.Contains(res.get("To"), ">;tag=") {
			t.Errorf("To %s: %q", to, res.order)
		}
	}
	if n := ua.Attachments()[0].Ingress.Shed; n != 2 {
		t.Errorf("%d were shed", n)
	}
	inv.write(answer(inv, 486, "Busy Here", "x"))
	next[Ended](ev)
}
