package sip

import (
	"errors"
	"fmt"
	"log/slog"
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
		if !g.enter(netip.MustParseAddr("127.0.0.1")) {
			t.Fatal("refused below the limit")
		}
	}
	if g.enter(netip.MustParseAddr("127.0.0.1")) || !g.enter(netip.MustParseAddr("127.0.0.2")) {
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
	s.admit = func(raw) bool { panic("test") }
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
	u := &guardedPackets{PacketConn: &failingPackets{PacketConn: p}, again: a.retry("udp")}
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
