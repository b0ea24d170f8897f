package digest

import (
	"errors"
	"strings"
	"testing"
)

// RFC 7616 §3.9.1 and RFC 2617 §3.5: the published examples.
func TestPublishedExamples(t *testing.T) {
	const nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
	for _, tt := range []struct{ alg, realm, user, password, nonce, cnonce, uri, want string }{
		{MD5, "http-auth@example.org", "Mufasa", "Circle of Life", nonce,
			"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "/dir/index.html", "8ca523f5e9506fed4657c9700eebdbec"},
		{SHA256, "http-auth@example.org", "Mufasa", "Circle of Life", nonce,
			"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "/dir/index.html",
			"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"},
		{MD5, "testrealm@host.com", "Mufasa", "Circle Of Life", "dcd98b7102dd2f0e8b11d0f600bfb0c093",
			"0a4f113b", "/dir/index.html", "6629fae49393a05397450978507c4ef1"},
	} {
		cs, err := ParseChallenges([]string{Challenge{Realm: tt.realm, Nonce: tt.nonce, Algorithm: tt.alg, QOP: []string{"auth"}}.String()})
		if err != nil || len(cs) != 1 {
			t.Fatal(cs, err)
		}
		s := NewSession(cs[0], tt.user, []byte(tt.password))
		a, err := s.authorize(Request{"GET", tt.uri, nil}, tt.cnonce)
		if err != nil || a.Response != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.alg, a.Response, err, tt.want)
		}
	}
}

// Whatever quality of protection and algorithm, a registrar accepts its client's proof,
// and no other.
func TestClientAndServer(t *testing.T) {
	for _, alg := range strength {
		for _, qop := range [][]string{nil, {"auth"}, {"auth-int"}, {"auth-int", "auth"}} {
			c := Challenge{Realm: "ims.test", Nonce: "bm9uY2U=", Algorithm: alg, QOP: qop, Opaque: "o"}
			s := NewSession(c, `a"b@ims.test`, []byte{0xff, 0, 1})
			r := Request{"REGISTER", "sip:ims.test", []byte("body")}
			for nc := range 3 {
				proof, err := s.Authorize(r)
				if err != nil {
					t.Fatal(err)
				}
				a, ok, err := Verify(proof.String(), []byte{0xff, 0, 1}, r)
				if err != nil || !ok {
					t.Errorf("%s %v: refused: %v in %s", alg, qop, err, proof)
				}
				if qop != nil && a.NC != uint32(nc+1) {
					t.Errorf("%s %v: nc %d, want %d", alg, qop, a.NC, nc+1)
				}
				for name, bad := range map[string]bool{
					"password": a.Verify([]byte{0xff, 0, 2}, r.Method, r.Body),
					"method":   a.Verify([]byte{0xff, 0, 1}, "INVITE", r.Body),
					"body":     a.QOP == "auth-int" && a.Verify([]byte{0xff, 0, 1}, r.Method, []byte("other")),
				} {
					if bad {
						t.Errorf("%s %v: wrong %s accepted", alg, qop, name)
					}
				}
				if err := s.Confirm(proof, a.Info([]byte{0xff, 0, 1}, nil)+`,nextnonce="next"`, nil); err != nil {
					t.Errorf("%s %v: %v", alg, qop, err)
				}
				if err := s.Confirm(proof, a.Info([]byte("x"), nil), nil); err == nil {
					t.Errorf("%s %v: wrong rspauth accepted", alg, qop)
				}
				s.nonce, s.nc = c.Nonce, uint32(nc+1)
			}
		}
	}
}

func TestNextNonce(t *testing.T) {
	s := NewSession(Challenge{Realm: "r", Nonce: "one", Algorithm: SHA256, QOP: []string{"auth"}}, "u", []byte("p"))
	a, _ := s.Authorize(Request{Method: "REGISTER", URI: "sip:r"})
	if err := s.Confirm(a, `nextnonce="two"`, nil); err != nil {
		t.Fatal(err)
	}
	if a, _ = s.Authorize(Request{Method: "REGISTER", URI: "sip:r"}); a.Nonce != "two" || a.NC != 1 {
		t.Errorf("nonce %q nc %d after nextnonce", a.Nonce, a.NC)
	}
}

func TestChoose(t *testing.T) {
	all := strength
	for _, tt := range []struct {
		name    string
		values  []string
		allowed []string
		realm   string
		want    string // algorithm, "": ErrNoChallenge
	}{
		{"only MD5", []string{`Digest realm="r", nonce="n"`}, all, "", MD5},
		{"strongest of two fields", []string{`Digest realm="r",nonce="n",algorithm=MD5`, `Digest realm="r",nonce="n",algorithm=sha-256`}, all, "", SHA256},
		{"strongest of one field", []string{`Digest realm="r", nonce="n", algorithm=MD5, Digest realm="r", nonce="m", algorithm=SHA-512-256`}, all, "", SHA512256},
		{"AKA over all", []string{`Digest realm="r",nonce="n",algorithm=SHA-256`, `Digest realm="r",nonce="n",algorithm=akav1-md5`}, all, "", AKAv1MD5},
		{"no downgrade", []string{`Digest realm="r",nonce="n",algorithm=MD5`}, []string{AKAv1MD5}, "", ""},
		{"other realm", []string{`Digest realm="x",nonce="n"`}, all, "r", ""},
		{"unknown algorithm", []string{`Digest realm="r",nonce="n",algorithm=MD5-sess`}, all, "", ""},
		{"unknown qop", []string{`Digest realm="r",nonce="n",qop="secret"`}, all, "", ""},
		{"empty nonce", []string{`Digest realm="r",nonce=""`}, all, "", ""},
		{"other scheme beside", []string{`Basic realm="r"`, `Digest realm="r",nonce="n"`}, all, "", MD5},
		{"none", nil, all, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cs, err := ParseChallenges(tt.values)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Choose(cs, tt.allowed, tt.realm)
			if tt.want == "" {
				if !errors.Is(err, ErrNoChallenge) {
					t.Errorf("chose %v, %v", c, err)
				}
			} else if c.Algorithm != tt.want {
				t.Errorf("chose %q, want %q (%v)", c.Algorithm, tt.want, err)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, v := range []string{`Digest realm="r`, `realm="r"`, `Digest realm="r",realm="s"`, `Digest nonce="n"`,
		`Digest "`, strings.Repeat("a", maxLen+1), strings.Repeat(`Digest realm="r",`, maxChallenges+1)} {
		if cs, err := ParseChallenges([]string{v}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.40q: %v, %v", v, cs, err)
		}
	}
	for _, v := range []string{"", "Basic x", `Digest nc=zz`, `Digest nc=100000000`, "Digest a=b, Digest c=d"} {
		if a, err := ParseAuthorization(v); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v, %v", v, a, err)
		}
	}
	if a := Empty("u", "r", "sip:r"); a.Verify(nil, "REGISTER", nil) {
		t.Error("an empty proof proves")
	}
}

// What a peer puts into a challenge never starts a line of its own in our request.
func FuzzChallenge(f *testing.F) {
	f.Add(`Digest realm="ims.test",nonce="abc",algorithm=AKAv1-MD5,qop="auth,auth-int",opaque="x",stale=TRUE`)
	f.Add("Digest realm=\"a\\\"\r\nb\", nonce=n== , Digest realm=x")
	f.Fuzz(func(t *testing.T, v string) {
		cs, err := ParseChallenges([]string{v})
		if err != nil {
			return
		}
		c, err := Choose(cs, strength, "")
		if err != nil {
			return
		}
		a, err := NewSession(c, "u", []byte("p")).Authorize(Request{Method: "REGISTER", URI: "sip:x"})
		if err != nil {
			t.Fatalf("chosen but not answerable: %v", err)
		}
		if strings.ContainsAny(a.String(), "\r\n") {
			t.Fatalf("line break in %q", a.String())
		}
		if _, err := ParseAuthorization(a.String()); err != nil {
			t.Fatalf("%q: %v", a.String(), err)
		}
	})
}
