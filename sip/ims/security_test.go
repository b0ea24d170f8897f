package ims

import (
	"errors"
	"strings"
	"testing"
)

func TestParseMechanisms(t *testing.T) {
	ms, err := ParseMechanisms([]string{`TLS ; q=0.25, ipsec-3gpp;alg=HMAC-md5-96;spi-c=300`, `digest;d-alg=md5;d-ver="0A,;b";q=1.000`})
	if err != nil || len(ms) != 3 {
		t.Fatalf("%+v, %v", ms, err)
	}
	if m := ms[0]; m.Name != "tls" || m.Q != 250 || len(m.Params) != 0 {
		t.Errorf("%+v", m)
	}
	if m := ms[1]; m.Name != "ipsec-3gpp" || m.Q != 0 || m.Params["alg"] != "hmac-md5-96" || m.Params["spi-c"] != "300" {
		t.Errorf("%+v", m)
	}
	if m := ms[2]; m.Name != "digest" || m.Q != 1000 || m.Params["d-ver"] != "0a,;b" {
		t.Errorf("%+v", m)
	}
	for _, q := range []string{"q=2", "q=-1", "q=NaN", "q=", "q"} { // no preference that could be one
		if ms, err := ParseMechanisms([]string{"tls;" + q}); err != nil || ms[0].Q != 0 {
			t.Errorf("%s: %+v, %v", q, ms, err)
		}
	}
	for name, fields := range map[string][]string{
		"no name":         {";q=0.1"},
		"no token":        {"tls tls"},
		"an end of line":  {"tls;a=\r\nEvil: yes"},
		"DEL":             {"tls;a=\x7f"},
		"too many":        {strings.Repeat("tls,", maxMechanisms+1)},
		"too long":        {"tls;a=" + strings.Repeat("x", maxSecurity)},
		"too long in all": {"tls;a=" + strings.Repeat("x", maxSecurity/2), "tls;a=" + strings.Repeat("x", maxSecurity/2)},
	} {
		if ms, err := ParseMechanisms(fields); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %+v, %v", name, ms, err)
		}
	}
	if ms, err := ParseMechanisms([]string{strings.Repeat("tls,", maxMechanisms)}); err != nil || len(ms) != maxMechanisms {
		t.Errorf("as many as there may be: %d, %v", len(ms), err)
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		server string
		known  []string
		want   string
		q      int
	}{
		{"tls", []string{"tls"}, "tls", 0},
		{"ipsec-3gpp;q=0.9, tls;q=0.1", []string{"tls"}, "tls", 100},
		{"ipsec-3gpp;q=0.1, tls;q=0.9", []string{"ipsec-3gpp", "tls"}, "tls", 900},
		{"ipsec-3gpp;q=0.9, tls;q=0.1", []string{"tls", "ipsec-3gpp"}, "ipsec-3gpp", 900},
		{"ipsec-3gpp, tls", []string{"tls", "ipsec-3gpp"}, "ipsec-3gpp", 0}, // its order
		{"ipsec-3gpp, tls;q=0.1", []string{"tls", "ipsec-3gpp"}, "tls", 100},
		{"ipsec-3gpp, digest", []string{"tls"}, "", 0},
		{"", []string{"tls"}, "", 0},
	} {
		ms, err := ParseMechanisms([]string{tt.server})
		if err != nil {
			t.Fatal(err)
		}
		m, ok := Choose(ms, tt.known...)
		if m.Name != tt.want || m.Q != tt.q || ok != (tt.want != "") {
			t.Errorf("%q of %q: %+v, %v", tt.known, tt.server, m, ok)
		}
	}
}

// Whatever a P-CSCF says, what is copied into requests is short and has no end of line.
func FuzzMechanisms(f *testing.F) {
	for _, s := range []string{"tls;q=0.5", `digest;d-ver="a,b`, "ipsec-3gpp;alg=,;;", ",;,", "tls;q=1e400"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ms, err := ParseMechanisms([]string{s})
		if err != nil {
			return
		}
		if len(s) > maxSecurity || len(ms) > maxMechanisms || strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("taken: %d octets, %d mechanisms", len(s), len(ms))
		}
		for _, m := range ms {
			if !isToken(m.Name) || m.Name != strings.ToLower(m.Name) || m.Q < 0 || m.Q > 1000 {
				t.Fatalf("%+v", m)
			}
		}
		if m, ok := Choose(ms, "tls"); ok && m.Name != "tls" {
			t.Fatalf("chose %+v", m)
		}
	})
}
