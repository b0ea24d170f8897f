package sip

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"net/netip"
)

const sound = "OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bKs\r\nMax-Forwards: 70\r\n" +
	"From: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 4\r\n\r\nbody"

// bench is a screen without sockets; answers collects what it sends.
func newBenchScreen(rate float64) (s *screen, answers *[]string, tcp, udp sipgo.TransportReadProps) {
	answers = new([]string)
	p := &peers{}
	p.set([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	s = newScreen(context.Background(), p, rate, func(_ string, _ net.Addr, b []byte) error {
		*answers = append(*answers, string(b))
		return nil
	})
	here, there := netip.MustParseAddrPort("127.0.0.1:5060"), netip.MustParseAddrPort("127.0.0.1:40000")
	tcp = sipgo.TransportReadProps{Transport: "TCP", LocalAddr: net.TCPAddrFromAddrPort(here), RemoteAddr: net.TCPAddrFromAddrPort(there)}
	udp = sipgo.TransportReadProps{Transport: "UDP", LocalAddr: net.UDPAddrFromAddrPort(here), RemoteAddr: net.UDPAddrFromAddrPort(there)}
	return s, answers, tcp, udp
}

// However TCP cuts a stream, the same messages come out, and nothing is kept after.
func TestScreenPutsStreamsTogether(t *testing.T) {
	in := "\r\n\r\n" + sound + sound + "\r\n" + sound
	for _, size := range []int{1, 2, 3, 7, 100, len(sound), len(in)} {
		s, answers, tcp, _ := newBenchScreen(1e6)
		var out []byte
		for rest := []byte(in); len(rest) > 0; {
			n := min(size, len(rest))
			got, err := s.filter(tcp, bytes.Clone(rest[:n]))
			if err != nil {
				t.Fatal(size, err)
			}
			out, rest = append(out, got...), rest[n:]
		}
		if string(out) != in || len(*answers) != 0 || len(s.streams) != 0 {
			t.Errorf("cut by %d: %d of %d octets, answers %q, %d kept", size, len(out), len(in), *answers, len(s.streams))
		}
	}
}

func TestScreenStreams(t *testing.T) {
	bad := strings.Replace(sound, "sip:x@y SIP", "<sip:x@y> SIP", 1)
	for _, tt := range []struct {
		name, in, out, answer string
		err                   bool
	}{
		{"one refused between two", sound + bad + sound, sound + sound, "400", false},
		{"no length", strings.Replace(sound, "Content-Length", "X", 1), "", "400", true},
		{"negative length", strings.Replace(sound, "Length: 4", "Length: -4", 1), "", "400", true},
		{"two lengths", strings.Replace(sound, "Max-Forwards: 70", "l: 4", 1), "", "400", true},
		{"huge length", strings.Replace(sound, "Length: 4", "Length: 99999999", 1), "", "400", true},
		{"headers without end", strings.Repeat("X: y\r\n", 20000), "", "", true},
		{"a response that is none", strings.Replace(sound, "OPTIONS sip:x@y SIP/2.0", "SIP/2.0 4294967301 x", 1), "", "", false},
		{"version", strings.Replace(sound, "SIP/2.0", "SIP/3.0", 1), "", "505", false},
		{"method", strings.ReplaceAll(sound, "OPTIONS", "options"), "", "405", false},
		{"broken ACK", strings.ReplaceAll(bad, "OPTIONS", "ACK"), "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, answers, tcp, _ := newBenchScreen(1e6)
			out, err := s.filter(tcp, []byte(tt.in))
			if string(out) != tt.out || (err != nil) != tt.err || len(s.streams) != 0 {
				t.Errorf("%d octets pass (want %d), %v, %d kept", len(out), len(tt.out), err, len(s.streams))
			}
			got := strings.Join(*answers, "")
			if (got == "") != (tt.answer == "") || !strings.HasPrefix(strings.TrimPrefix(got, "SIP/2.0 "), tt.answer) {
				t.Errorf("answered %q, want %s", got, tt.answer)
			}
		})
	}
}

// A stateless answer goes to the source address only, and copies what it must.
func TestRawResponse(t *testing.T) {
	from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:40000"))
	build := func(via string) raw {
		return readRaw([]byte("BAD x SIP/2.0\r\n" + via + "f: \"a\x00b\" <sip:a@b>;tag=1\r\nt: <sip:x@y>\r\ni: s\r\nCSeq: 1\r\n  BAD\r\n\r\n"))
	}
	for _, tt := range []struct {
		via  string
		port int // 0: no answer
		top  string
	}{
		{"Via: SIP/2.0/UDP 192.0.2.1;branch=x\r\n", 5060, "SIP/2.0/UDP 192.0.2.1;branch=x;received=127.0.0.1"},
		{"v: SIP / 2.0 / UDP [2001:db8::1]:5070 ;branch=x, SIP/2.0/TCP b\r\n", 5070, "SIP / 2.0 / UDP [2001:db8::1]:5070 ;branch=x;received=127.0.0.1, SIP/2.0/TCP b"},
		{"VIA: SIP/2.0/UDP h:1;rport\r\n ;branch=x\r\n", 40000, "SIP/2.0/UDP h:1;rport=40000;branch=x;received=127.0.0.1"},
		{"Via: SIP/2.0/UDP h:99999\r\n", 0, ""},
		{"Via: nonsense\r\n", 0, ""},
		{"", 0, ""},
	} {
		res, port, ok := build(tt.via).response(from, 400, "Bad Request", nil)
		if ok != (tt.port != 0) || port != tt.port && ok {
			t.Errorf("%q: port %d, %v", tt.via, port, ok)
			continue
		}
		if !ok {
			continue
		}
		m, err := readMessage(bufio.NewReader(bytes.NewReader(res)))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(m.get("Via"), " ;branch=x;", ";branch=x;"); got != strings.ReplaceAll(tt.top, " ;branch=x;", ";branch=x;") &&
			m.get("Via") != tt.top {
			t.Errorf("Via %q, want %q", m.get("Via"), tt.top)
		}
		if m.get("From") != `"ab" <sip:a@b>;tag=1` || !strings.HasPrefix(m.get("To"), "<sip:x@y>;tag=") || m.get("Cseq") != "1 BAD" {
			t.Errorf("answer %q", m.order)
		}
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(10)
	a, b := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	now := time.Unix(0, 0)
	for i := range 20 { // the burst
		if w := l.take(now, a, 1); w != 0 {
			t.Fatalf("message %d waits %v", i, w)
		}
	}
	if w := l.take(now, a, 1); w != 100*time.Millisecond {
		t.Errorf("the next waits %v, want 100ms", w)
	}
	if w := l.take(now, b, 1); w != 0 {
		t.Errorf("another peer waits %v", w)
	}
	if w := l.take(now.Add(time.Second), a, 1); w != 0 {
		t.Errorf("a second later it waits %v", w)
	}
}

// A flood from one peer is dropped and counted; with the flood's end it is heard again.
func TestFloodIsThrottled(t *testing.T) {
	s, answers, _, udp := newBenchScreen(10)
	msg := []byte(strings.Replace(sound, "TCP", "UDP", 1))
	passed := 0
	for range 1000 {
		out, err := s.filter(udp, msg)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 0 {
			passed++
		}
	}
	if got := s.throttled.Load(); passed < 15 || passed > 500 || got != uint64(1000-passed) || len(*answers) != 0 {
		t.Errorf("%d pass, %d counted, answers %d", passed, got, len(*answers))
	}
}

// What cannot be parsed is answered on a real socket, and counted.
func TestIngressCounts(t *testing.T) {
	ua := newTrunk(t, newPeer(t, "udp"))
	k := knock(t, "udp", ua.Attachments()[0].LocalAddr)
	k.send([]byte(strings.Replace(strings.Replace(sound, "TCP 127.0.0.1:5070", "UDP 127.0.0.1:1;rport", 1), "sip:x@y SIP", "<sip:x@y> SIP", 1)))
	if m := k.receive(); m.start != "SIP/2.0 400 Bad Request" {
		t.Errorf("answered %q", m.start)
	}
	deadline := time.Now().Add(patience)
	for want := (IngressStats{Malformed: 1, Refused: 1}); ; <-time.After(time.Millisecond) {
		s := ua.Attachments()[0].Ingress // counted once it was sent
		if s == want {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
	}
}

func FuzzScreen(f *testing.F) {
	files, _ := filepath.Glob("../testdata/sip/rfc4475/*.dat")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(sound))
	f.Add([]byte("\r\n\r\nOPTIONS x SIP/2.0\r\nl:0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, answers, tcp, udp := newBenchScreen(1e9)
		if out, err := s.filter(udp, bytes.Clone(b)); err != nil || len(out) != 0 && !bytes.Equal(out, tidy(b)) {
			t.Fatalf("%q, %v", out, err)
		}
		whole, err := s.filter(tcp, bytes.Clone(b))
		if len(whole) > len(b)+20*bytes.Count(b, []byte("\n")) { // tidy writes names in full
			t.Fatalf("more comes out: %q", whole)
		}
		// Cut in two it is the same.
		c, _, tcp, _ := newBenchScreen(1e9)
		half := len(b) / 2
		first, err1 := c.filter(tcp, bytes.Clone(b[:half]))
		if err1 == nil && err == nil {
			second, err2 := c.filter(tcp, bytes.Clone(b[half:]))
			if err2 != nil || !bytes.Equal(noLineEnds(append(first, second...)), noLineEnds(whole)) { // of pings, each read passes one
				t.Fatalf("in halves %q %q (%v), whole %q", first, second, err2, whole)
			}
		}
		for _, a := range *answers {
			m, err := readMessage(bufio.NewReader(strings.NewReader(a)))
			if err != nil || !strings.HasPrefix(m.start, "SIP/2.0 ") || len(m.head["Call-Id"]) != 1 || m.get("Cseq") == "" {
				t.Fatalf("answer %q: %v", a, err)
			}
		}
	})
}

func noLineEnds(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r"), nil), []byte("\n"), nil)
}

func BenchmarkScreen(b *testing.B) {
	s, _, _, udp := newBenchScreen(1e12)
	msg := []byte(sound)
	b.ReportAllocs()
	for b.Loop() {
		if out, err := s.filter(udp, msg); err != nil || len(out) == 0 {
			b.Fatal(err)
		}
	}
}

// Where everything but REGISTER goes over TLS, nothing else is taken from any other socket.
func TestScreenSealed(t *testing.T) {
	s, answers, tcp, udp := newBenchScreen(1e6)
	s.sealed = true
	tls := tcp
	tls.Transport = "TLS"
	answer := func(method string) string {
		return "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKs\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n" +
			"Call-ID: s\r\nCSeq: 1 " + method + "\r\nContent-Length: 0\r\n\r\n"
	}
	for _, in := range []sipgo.TransportReadProps{tcp, udp, tls} {
		for msg, clear := range map[string]bool{sound: false, strings.ReplaceAll(sound, "OPTIONS", "INVITE"): false, answer("INVITE"): false, answer("SUBSCRIBE"): false, answer("REGISTER"): true} {
			before := s.stats().Strangers
			out, err := s.filter(in, []byte(msg))
			if err != nil {
				t.Fatal(err)
			}
			if want := clear || in.Transport == "TLS"; (len(out) > 0) != want || (s.stats().Strangers == before) != want {
				t.Errorf("%s over %s passes: %v, want %v", strings.SplitN(msg, "\r\n", 2)[0], in.Transport, !want, want)
			}
		}
	}
	_, _ = s.filter(udp, []byte(strings.Replace(sound, "SIP/2.0", "SIP/3.0", 1))) // nor is it answered what is wrong with it
	if len(*answers) != 0 {
		t.Errorf("answered: %q", *answers)
	}
}
