package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const base = "From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n"

func text(start, headers, body string) []byte {
	return []byte(start + "\r\n" + headers + "\r\n" + body)
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"request", text("OPTIONS sip:b@x SIP/2.0", base, ""), true},
		{"response", text("SIP/2.0 200 OK", base, ""), true},
		{"response without phrase", text("SIP/2.0 200", base, ""), true},
		{"bare line feeds", []byte(strings.ReplaceAll(string(text("OPTIONS sip:b@x SIP/2.0", base, "")), "\r", "")), true},
		{"body as announced", text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 3\r\n", "abc and more"), true},
		{"compact and odd case", text("OPTIONS sip:b@x SIP/2.0", "f: <sip:a@x>;tag=1\r\nT: <sip:b@x>\r\ni: c\r\ncseq: 1  OPTIONS\r\nv: SIP / 2.0 / UDP 192.0.2.1\r\n", ""), true},
		{"folded", text("OPTIONS sip:b@x SIP/2.0", base+"Subject: one\r\n  two\r\n", ""), true},

		{"empty", nil, false},
		{"no end", []byte("OPTIONS sip:b@x SIP/2.0\r\n" + base), false},
		{"other version", text("OPTIONS sip:b@x SIP/7.0", base, ""), false},
		{"status over int", text("SIP/2.0 4294967301 OK", base, ""), false},
		{"no CSeq", text("OPTIONS sip:b@x SIP/2.0", strings.Replace(base, "CSeq", "X", 1), ""), false},
		{"CSeq of another method", text("INVITE sip:b@x SIP/2.0", base, ""), false},
		{"CSeq over 31 bits", text("OPTIONS sip:b@x SIP/2.0", strings.Replace(base, "1 OPT", "2147483648 OPT", 1), ""), false},
		{"body cut short", text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 30\r\n", "abc"), false},
		{"negative length", text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: -1\r\n", "abc"), false},
		{"two lengths", text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 1\r\nl: 2\r\n", "abc"), false},
		{"a line without colon", text("OPTIONS sip:b@x SIP/2.0", base+"nonsense\r\n", ""), false},
		{"folded first", text("OPTIONS sip:b@x SIP/2.0", " folded\r\n"+base, ""), false},
		{"too many headers", text("OPTIONS sip:b@x SIP/2.0", base+strings.Repeat("X: y\r\n", maxHeaders), ""), false},
		{"too big", append(text("OPTIONS sip:b@x SIP/2.0", base, ""), make([]byte, MaxMessage)...), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Parse(tt.in)
			if (err == nil) != tt.ok {
				t.Fatalf("%v, %v", m, err)
			}
			if err != nil && !errors.Is(err, ErrMessage) {
				t.Errorf("%v is no ErrMessage", err)
			}
			if err == nil {
				again, err := Parse(m.Bytes())
				if err != nil || !reflect.DeepEqual(again, m) {
					t.Errorf("written and read again it differs: %v\n%s", err, m.Bytes())
				}
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	m, err := Parse(text("OPTIONS sip:b@x SIP/2.0", base+
		"Route: <sip:1@x;lr>, <sip:2@x;lr>\r\nOdd: \"a,b\" <sip:c,d@x>, e\r\nSupported: 100rel,timer\r\nRoute: <sip:3@x;lr>\r\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Values("odd"); !reflect.DeepEqual(got, []string{`"a,b" <sip:c,d@x>`, "e"}) {
		t.Errorf("Odd: %q", got)
	}
	if !m.Has("Supported", "TIMER") || m.Has("Supported", "rel") {
		t.Error("Supported is misread")
	}
	if got := m.Pop("Route"); got != "<sip:1@x;lr>" {
		t.Errorf("first Route %q", got)
	}
	if got := m.Values("Route"); !reflect.DeepEqual(got, []string{"<sip:2@x;lr>", "<sip:3@x;lr>"}) {
		t.Errorf("rest %q", got)
	}
	m.Set("Route", "<sip:9@x>")
	if got := m.Values("Route"); len(got) != 1 || got[0] != "<sip:9@x>" {
		t.Errorf("set %q", got)
	}
	r := m.Reply(486, "", "tag9")
	if r.ToTag() != "tag9" || r.FromTag() != "1" || r.Phrase != "Busy Here" || r.Get("Route") != "" {
		t.Errorf("reply %s", r.Bytes())
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		in, display, uri, tag string
		ok                    bool
	}{
		{`"A; <B>" <sip:a@x;p=1>;tag=t;+sip.instance="<urn:x;y>"`, "A; <B>", "sip:a@x;p=1", "t", true},
		{"tel:+15550123;tag=t", "", "tel:+15550123", "t", true},
		{"<>", "", "", "", false},
		{"", "", "", "", false},
		{"<sip:a@x", "", "", "", false},
	} {
		a, err := ParseAddr(tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if tt.ok && (a.Display != tt.display || a.URI != tt.uri || a.Params["tag"] != tt.tag) {
			t.Errorf("%q: %+v", tt.in, a)
		}
	}
	for _, tt := range []struct {
		in, number, addr string
		ok               bool
	}{
		{"tel:+86-138 (0013)-8001;phone-context=x", "+8613800138001", "", true},
		{"sip:+15550123;npdi@192.0.2.1;user=phone", "+15550123", "192.0.2.1:5060", true},
		{"sip:conf-x@[2001:db8::1]:5070;transport=tcp", "", "[2001:db8::1]:5070", true},
		{"sip:192.0.2.1:99999", "", "", false},
		{"sip:", "", "", false},
		{"mailto:a@x", "", "", false},
	} {
		u, err := ParseURI(tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		ap, _ := u.AddrPort()
		if got := ap.String(); tt.ok && (u.Number() != tt.number || tt.addr != "" && got != tt.addr) {
			t.Errorf("%q: number %q, address %s", tt.in, u.Number(), got)
		}
	}
}

func TestReadMessage(t *testing.T) {
	one := text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 3\r\n", "abc")
	pings := 0
	r := bufio.NewReader(bytes.NewReader(append(append([]byte("\r\n\r\n"), one...), one...)))
	for range 2 {
		m, err := ReadMessage(r, func() { pings++ })
		if err != nil || string(m.Body) != "abc" {
			t.Fatalf("%v %v", m, err)
		}
	}
	if _, err := ReadMessage(r, nil); err != io.EOF {
		t.Errorf("at the end %v", err)
	}
	if pings != 1 {
		t.Errorf("%d keep-alives seen", pings)
	}
	for name, in := range map[string][]byte{
		"no length":   text("OPTIONS sip:b@x SIP/2.0", base, ""),
		"endless":     bytes.Repeat([]byte("X: y\r\n"), MaxMessage),
		"no newline":  bytes.Repeat([]byte("x"), MaxMessage),
		"huge length": text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 2000000000\r\n", ""),
		"cut":         one[:len(one)-1],
	} {
		if m, err := ReadMessage(bufio.NewReader(bytes.NewReader(in)), nil); err == nil {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text("OPTIONS sip:b@x SIP/2.0", base+"Content-Length: 3\r\n", "abc"))
	f.Add(text("SIP/2.0 200 OK", base+"Contact: <sip:a@x>;+sip.instance=\"<urn:x;y>\"\r\nRoute: <sip:1@x>, <sip:2@x>\r\n", ""))
	f.Add([]byte("INVITE sip:b@x SIP/2.0\n f\n\n"))
	f.Add(text("OPTIONS sip:b@[::1 SIP/2.0", "Via: SIP / 2.0 / UDP\r\n"+base, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, h := range m.Headers {
			_, _ = ParseVia(h.Value)
			if a, err := ParseAddr(h.Value); err == nil {
				if u, err := ParseURI(a.URI); err == nil {
					u.Number()
					u.AddrPort()
				}
			}
		}
		// What we forward must be read alike by the next hop.
		again, err := Parse(m.Bytes())
		if err != nil {
			if len(m.Bytes()) > MaxMessage || len(m.Headers) >= maxHeaders {
				return
			}
			t.Fatalf("%v\n%q\n%q", err, b, m.Bytes())
		}
		if again.Method != m.Method || again.URI != m.URI || again.Status != m.Status || !bytes.Equal(again.Body, m.Body) {
			t.Fatalf("%+v\n%+v", m, again)
		}
	})
}
