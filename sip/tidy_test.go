package sip

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	sipgo "github.com/emiago/sipgo/sip"
)

func TestSqueeze(t *testing.T) {
	for _, tt := range [][3]string{
		{"from", "<sip:a@b> ; tag \t=  x", "<sip:a@b>;tag=x"},
		{"from", "\"a ; b = c \\\" d\" <sip:a@b ; x = y>;tag=1", "\"a ; b = c \\\" d\" <sip:a@b ; x = y>;tag=1"},
		{"from", "Bell  Tel <sip:a@b>;tag=1", "Bell  Tel <sip:a@b>;tag=1"},
		{"via", "SIP  / 2.0\r\n /UDP\r\n    192.0.2.2 : 5060 ;branch=390skdjuw , SIP/2.0/TCP b", "SIP/2.0/UDP      192.0.2.2:5060;branch=390skdjuw,SIP/2.0/TCP b"},
		{"cseq", "0009\r\n  INVITE", "0009 INVITE"},
		{"contact", "\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\r\n newvalue", "\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com>;newparam=newvalue"},
	} {
		if got := squeeze(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s %q: %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}

// An ordinary message is not touched, and a tortuous one reads the same to sipgo's parser
// as the RFC's reader would have it.
func TestTidy(t *testing.T) {
	if in := []byte(sound); &tidy(in)[0] != &in[0] {
		t.Error("an ordinary message is copied")
	}
	b, err := os.ReadFile("../testdata/sip/rfc4475/wsinv.dat")
	if err != nil {
		t.Fatal(err)
	}
	m, err := sipgo.NewParser().ParseSIP(tidy(b))
	if err != nil {
		t.Fatal(err)
	}
	tag, _ := m.From().Params.Get("tag")
	if tag != "98asjd8" || m.Via().Transport != "UDP" || m.CSeq().MethodName != "INVITE" || m.CSeq().SeqNo != 9 || len(m.Body()) != 150 {
		t.Errorf("tag %q, Via %v, CSeq %v, %d octets", tag, m.Via(), m.CSeq(), len(m.Body()))
	}
}

// Headers have two names (RFC 3261 7.3.3): what is asked by the short one is asked.
func TestCompactForms(t *testing.T) {
	lines, want := "", map[string]string{}
	for short, long := range longNames {
		value := "x-" + short
		if short != "v" && short != "f" && short != "t" && short != "i" && short != "m" && short != "c" && short != "l" && short != "r" && short != "b" {
			lines += strings.ToUpper(short) + " : " + value + "\r\n"
			want[long] = value
		}
	}
	m, err := sipgo.NewParser().ParseSIP(tidy([]byte("INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/TCP h;branch=z9hG4bKx, SIP/2.0/UDP i;branch=z9hG4bKy\r\nf: <sip:x@y>;tag=1\r\nt: <sip:a@b>\r\ni: id\r\n" +
		"CSeq: 1 INVITE\r\nm: <sip:x@h>\r\nr: <sip:q@w>\r\nb: <sip:z@w>\r\nc: application/sdp\r\n" + lines + "l: 4\r\n\r\nk:k\n")))
	if err != nil {
		t.Fatal(err)
	}
	for short, long := range longNames {
		hs := m.GetHeaders(long)
		if len(hs) == 0 || want[long] != "" && strings.TrimSpace(hs[0].Value()) != want[long] {
			t.Errorf("%s is not read as %s: %v", short, long, hs)
		}
	}
	if string(m.Body()) != "k:k\n" {
		t.Errorf("the body is %q", m.Body())
	}

	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p)
		ua.OnSubscribe(func(s Subscribe, x Subscription) func(SubscriptionEvent) {
			x.Reject(603)
			return func(SubscriptionEvent) {}
		})
		ua.OnRefer(func(r Refer, x Referral) { x.Reject(603) })
		ua.OnIncoming(func(in Incoming, c IncomingCall) func(Event) {
			c.Reject(603, 0)
			return func(Event) {}
		})
		k := knock(t, network, ua.Attachments()[0].LocalAddr)
		for i, tt := range []struct{ method, header, want string }{
			{"SUBSCRIBE", "o: conference", "603"}, {"REFER", "r: <tel:+15550123>", "603"}, {"INVITE", "x: 30\r\nk: timer", "422"}, {"INVITE", "e: gzip", "415"},
		} {
			k.send([]byte(p.toUs(ua, tt.method, "sip:conf@carrier.example", fmt.Sprint("short", i), tt.header, "m: <sip:x@"+p.addr+">", "\n"+offerSDP)))
			for res := k.receive(); ; res = k.receive() {
				if !strings.HasPrefix(res.start, "SIP/2.0 100") {
					if !strings.HasPrefix(res.start, "SIP/2.0 "+tt.want) {
						t.Errorf("%s with %q: %s", tt.method, tt.header, res.start)
					}
					break
				}
			}
		}
	})
}

func FuzzTidy(f *testing.F) {
	b, _ := os.ReadFile("../testdata/sip/rfc4475/wsinv.dat")
	f.Add(b)
	f.Add([]byte(sound))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := tidy(bytes.Clone(b))
		if len(out) > len(b)+20*bytes.Count(b, []byte("\r\n")) {
			t.Fatalf("%d octets out of %d", len(out), len(b))
		}
		plain := func(b []byte) string {
			if head, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok {
				lines := bytes.SplitAfter(head, []byte("\r\n"))
				for i, line := range lines[1:] {
					name, value, ok := strings.Cut(string(line), ":")
					if long := longNames[strings.ToLower(strings.TrimRight(name, " \t"))]; ok && long != "" {
						lines[i+1] = []byte(long + ":" + value)
					}
				}
				b = append(append(bytes.Join(lines, nil), "\r\n\r\n"...), body...)
			}
			return strings.Map(func(r rune) rune {
				if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
					return -1
				}
				return r
			}, string(b))
		}
		if plain(out) != plain(b) {
			t.Fatalf("more than blanks: %q, %q", b, out)
		}
		if again := tidy(bytes.Clone(out)); !bytes.Equal(again, out) {
			t.Fatalf("not at rest: %q, %q", out, again)
		}
	})
}
