package sip

import (
	"bytes"
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

func FuzzTidy(f *testing.F) {
	b, _ := os.ReadFile("../testdata/sip/rfc4475/wsinv.dat")
	f.Add(b)
	f.Add([]byte(sound))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := tidy(bytes.Clone(b))
		if len(out) > len(b)+bytes.Count(b, []byte("\r\n")) {
			t.Fatalf("%d octets out of %d", len(out), len(b))
		}
		plain := func(b []byte) string {
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
