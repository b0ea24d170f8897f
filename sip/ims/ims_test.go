package ims

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"", nil}, {" , ,", nil}, {"100rel, timer,replaces", []string{"100rel", "timer", "replaces"}},
		{`<sip:a,b@c;lr>, <sip:d>`, []string{"<sip:a,b@c;lr>", "<sip:d>"}},
		{`"Doe, J \", x" <tel:+1>,<tel:+2>`, []string{`"Doe, J \", x" <tel:+1>`, "<tel:+2>"}},
		{`"open, quote`, []string{`"open, quote`}}, {`<open, angle`, []string{"<open, angle"}},
	} {
		if got := Split(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("Split(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if !Has("timer, 100REL", "100rel") || Has("x100rel", "100rel") {
		t.Error("Has")
	}
}

func TestHeaders(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  func() (any, error)
		want any // nil: an error
	}{
		{"RSeq", func() (any, error) { return ParseRSeq("4294967295") }, uint32(1<<32 - 1)},
		{"RSeq 0", func() (any, error) { return ParseRSeq("0") }, nil},
		{"RSeq big", func() (any, error) { return ParseRSeq("4294967296") }, nil},
		{"RAck", func() (any, error) { return ParseRAck("776656 1 INVITE") }, RAck{776656, 1, "INVITE"}},
		{"RAck short", func() (any, error) { return ParseRAck("1 INVITE") }, nil},
		{"Session-Expires", func() (any, error) { return ParseSessionExpires("1800 ;Refresher=UAS") }, SessionExpires{30 * time.Minute, "uas"}},
		{"Session-Expires plain", func() (any, error) { return ParseSessionExpires("90") }, SessionExpires{90 * time.Second, ""}},
		{"Session-Expires junk", func() (any, error) { return ParseSessionExpires("soon") }, nil},
		{"Session-Expires 0", func() (any, error) { return ParseSessionExpires("0") }, nil},
		{"Min-SE", func() (any, error) { return ParseSeconds("90;x=y") }, 90 * time.Second},
		{"Min-SE negative", func() (any, error) { return ParseSeconds("-1") }, nil},
		{"Retry-After", func() (any, error) { return ParseRetryAfter("18000 (back soon);duration=3600") }, 5 * time.Hour},
		{"Retry-After junk", func() (any, error) { return ParseRetryAfter("") }, nil},
		{"P-Charging-Vector", func() (any, error) {
			return ParseChargingVector(`icid-value="a;b";icid-generated-at=192.0.2.1;orig-ioi=home;term-ioi=away`)
		}, ChargingVector{"a;b", "192.0.2.1", "home", "away"}},
		{"no icid", func() (any, error) { return ParseChargingVector("orig-ioi=home") }, nil},
		{"P-Early-Media", func() (any, error) { return ParseEarlyMedia("SendRecv, inactive, gated, odd"), nil }, EarlyMedia{false, true, "sendrecv"}},
		{"Reason", func() (any, error) {
			return ParseReasons([]string{`Q.850;cause=17;text="busy, sorry"`, `sip ;cause=486, RELEASE_CAUSE;cause=2`, "cause=3"}), nil
		}, []Reason{{"Q.850", 17, "busy, sorry"}, {"SIP", 486, ""}, {"RELEASE_CAUSE", 2, ""}}},
		{"Warning", func() (any, error) {
			return ParseWarnings([]string{`305 host:5060 "Incompatible, media", 370 x "y"`, "junk"}), nil
		}, []Warning{{305, "host:5060", "Incompatible, media"}, {370, "x", "y"}}},
		{"addresses", func() (any, error) {
			return ParseAddrs([]string{`"a, b" <sip:x@y;p=1>;q=1, <tel:+1>`, "sip:z;tag=1", "none"}), nil
		}, []string{"sip:x@y;p=1", "tel:+1", "sip:z"}},
	} {
		got, err := tt.got()
		if tt.want == nil {
			if !errors.Is(err, ErrSyntax) {
				t.Errorf("%s: %v, %v, want an error", tt.name, got, err)
			}
		} else if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %#v, %v, want %#v", tt.name, got, err, tt.want)
		}
	}
}

func TestHeadersBack(t *testing.T) {
	for _, s := range []string{`SIP;cause=200;text="Call \"completed\""`, "Q.850;cause=16", "RELEASE_CAUSE;cause=2"} {
		if r := ParseReasons([]string{s}); len(r) != 1 || r[0].String() != s {
			t.Errorf("%s came back as %v", s, r)
		}
	}
	if s := (Reason{Protocol: "SIP", Text: "a\r\nX: y"}).String(); strings.ContainsAny(s, "\r\n") {
		t.Errorf("line break in %q", s)
	}
	c := ChargingVector{ICID: "x", OrigIOI: "home"}
	if got, err := ParseChargingVector(c.String()); err != nil || got != c {
		t.Errorf("%v, %v", got, err)
	}
	if got := (SessionExpires{1800 * time.Second, "uac"}).String(); got != "1800;refresher=uac" {
		t.Error(got)
	}
	if got := (RAck{1, 2, "INVITE"}).String(); got != "1 2 INVITE" {
		t.Error(got)
	}
	if w := ParseWarnings([]string{Warning{399, "h", `a "b"`}.String()}); len(w) != 1 || w[0].Text != `a "b"` {
		t.Error(w)
	}
	q, s, r, text := Causes(ParseReasons([]string{`SIP;cause=486;text="one"`, `Q.850;cause=17;text="two"`, "RELEASE_CAUSE;cause=3", "Q.850;cause=1"}))
	if q != 17 || s != 486 || r != 3 || text != "one" {
		t.Error(q, s, r, text)
	}
	if n, ok := AssertedNumber([]string{`"B" <sip:+15550100@home>, <tel:+15550101>`}); !ok || n != "+15550101" {
		t.Error("tel is not preferred", n.Digits())
	}
}

func TestParseNumber(t *testing.T) {
	for in, want := range map[string]Number{
		"+86 138-0013-8000": "+8613800138000", "0086 (138) 0013.8000": "+8613800138000", "tel:+8613800138000;x=y": "+8613800138000",
		"sip:+8613800138000@home;user=phone": "+8613800138000", "SIP:%2B15550123@h": "+15550123", "＋８６13800138000": "+8613800138000",
		"13800138000": "", "+": "", "+12": "", "+0123456789": "", "+1234567890123456": "", "+86138x": "", "sip:home": "", "http://x": "", "": "",
		"tel:110": "", "+86\r\n13800138000": "",
	} {
		got, err := ParseNumber(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrBadNumber) {
			t.Errorf("ParseNumber(%q) = %q, %v, want %q", in, got.Digits(), err, want.Digits())
		}
	}
	n := Number("+8613800138000")
	if n.URI("tel", "h") != "tel:+8613800138000" || n.URI("sip", "h") != "sip:+8613800138000@h;user=phone" {
		t.Error(n.URI("tel", ""), n.URI("sip", "h"))
	}
}

// Whatever prints or logs a number, the subscriber is not in it.
func TestNumberIsMasked(t *testing.T) {
	n := Number("+8613812341234")
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "n", n)
	for _, s := range []string{n.String(), fmt.Sprintf("%v %+v %#v %s %q %d %x", n, n, n, n, n, n, n), fmt.Sprint([]Number{n}), b.String()} {
		if strings.Contains(s, "12341234") || strings.Contains(s, "38123") || !strings.Contains(s, "+86138****1234") {
			t.Errorf("prints %s", s)
		}
	}
	for _, short := range []Number{"+1555010", "+15550", ""} {
		if m := short.Masked(); len(m) != len(short) || short != "" && !strings.Contains(m, "***") {
			t.Errorf("%s", m)
		}
	}
}

func TestEmergency(t *testing.T) {
	for _, tt := range []struct {
		number, country string
		want            bool
	}{
		{"112", "CN", true}, {"110", "CN", true}, {"120", "CN", true}, {"1-1-0", "CN", true}, {"+86 110", "CN", true}, {"0086119", "", true},
		{"tel:110", "CN", true}, {"sip:911@home;user=phone", "US", true}, {"urn:service:sos.fire", "", true}, {"URN:service:sos", "US", true},
		{"+1911", "", true}, {"+112", "", true}, {"sip:%2B86110@h", "CN", true}, {"111", "NZ", true}, {"111", "", true}, {"111", "CN", false},
		{"+8613800138000", "CN", false}, {"+15550911", "US", false}, {"+8611000000000", "CN", false}, {"", "", false},
		{"sip:%31%31%30@h", "CN", true}, {"sip:110:secret@h", "CN", true}, {"sip:%zz@h", "CN", false},
	} {
		if got := Emergency(tt.number, tt.country); got != tt.want {
			t.Errorf("Emergency(%q, %q) = %v", tt.number, tt.country, got)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{`Q.850;cause=17;text="a\"b"`, `305 h "x, y"`, `"a" <sip:b>, <c`, "1 2 INVITE", "1800;refresher=uac", "+86 138-0013-8000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range Split(s) {
			if p == "" || p != strings.TrimSpace(p) {
				t.Fatalf("Split gives %q", p)
			}
		}
		for _, r := range ParseReasons([]string{s}) {
			if r.Cause < 0 || r.Cause > 999 {
				t.Fatal(r)
			}
		}
		ParseWarnings([]string{s})
		ParseAddrs([]string{s})
		_, _ = ParseRAck(s)
		_, _ = ParseChargingVector(s)
		if d, err := ParseSessionExpires(s); err == nil && d.Interval <= 0 {
			t.Fatal(d)
		}
		if n, err := ParseNumber(s); err == nil {
			if m, err := ParseNumber(n.Digits()); m != n || err != nil {
				t.Fatalf("%q is not stable", n.Digits())
			}
			if m, err := ParseNumber(n.URI("sip", "h")); m != n || err != nil {
				t.Fatal("URI does not come back")
			}
		}
		Emergency(s, "CN")
	})
}
