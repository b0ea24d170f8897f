package ims

import (
	"strings"
	"testing"
)

func TestParseReferTo(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want ReferTo
		ok   bool
	}{
		{"<sip:+15550123@home;user=phone;method=INVITE>", ReferTo{URI: "sip:+15550123@home;user=phone", Method: "INVITE"}, true},
		{`"Bob, B" <sip:b@h;METHOD=bye;x=y>;p=q`, ReferTo{URI: "sip:b@h;x=y", Method: "BYE"}, true},
		{"<tel:+15550123>", ReferTo{URI: "tel:+15550123", Method: "INVITE"}, true},
		{"tel:+15550123", ReferTo{URI: "tel:+15550123", Method: "INVITE"}, true},
		{"<sip:b@h?Replaces=12%40192.0.2.1%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>",
			ReferTo{URI: "sip:b@h", Method: "INVITE", Replaces: "12@192.0.2.1;to-tag=1;from-tag=2"}, true},
		{"<sip:b@h?Route=%3Csip:evil%3E&body=x>", ReferTo{URI: "sip:b@h", Method: "INVITE"}, true},
		{"<sip:u;method=BYE@h>", ReferTo{URI: "sip:u;method=BYE@h", Method: "INVITE"}, true},
		{"<cid:cn35t8jf02@example.com>", ReferTo{Method: "INVITE", CID: "cn35t8jf02@example.com"}, true},
		{"<CID:a%25b@c>", ReferTo{Method: "INVITE", CID: "a%b@c"}, true},
		{"<sip:a@b>, <sip:c@d>", ReferTo{}, false},
		{"<sip:a@b?Replaces=%zz>", ReferTo{}, false},
		{"<sip:a@b?Replaces=a&Replaces=b>", ReferTo{}, false},
		{"<sip:a b@c>", ReferTo{}, false},
		{"<cid:>", ReferTo{}, false},
		{"Bob", ReferTo{}, false},
		{"", ReferTo{}, false},
		{"<sip:a@b", ReferTo{}, false},
	} {
		got, err := ParseReferTo(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
}

func TestParseReplaces(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Replaces
		ok   bool
	}{
		{"425928@bobster.example.org;to-tag=7743;from-tag=6472", Replaces{"425928@bobster.example.org", "7743", "6472", false}, true},
		{"a ; FROM-TAG=2;early-only ;to-tag=1;x=y", Replaces{"a", "1", "2", true}, true},
		{"a;to-tag=1", Replaces{}, false},
		{"a\r\nX: y;to-tag=1;from-tag=2", Replaces{}, false}, // it goes into a header of ours
		{"a;to-tag=1;from-tag=2\r\nX: y", Replaces{}, false},
		{"to-tag=1;from-tag=2", Replaces{}, false},
		{"", Replaces{}, false},
	} {
		got, err := ParseReplaces(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
}

func FuzzReferTo(f *testing.F) {
	f.Add("<sip:+15550123@home;user=phone;method=INVITE?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>")
	f.Add("<cid:x@y>")
	f.Fuzz(func(t *testing.T, v string) {
		r, err := ParseReferTo(v)
		if err != nil {
			return
		}
		if (r.URI == "") == (r.CID == "") || strings.ContainsAny(r.URI, " <>\"\r\n\x00") || r.Method != strings.ToUpper(r.Method) {
			t.Fatalf("%+v", r)
		}
		if _, m := CutMethod(r.URI); m != "" {
			t.Fatalf("method left in %q", r.URI)
		}
		_, _ = ParseReplaces(r.Replaces)
	})
}
