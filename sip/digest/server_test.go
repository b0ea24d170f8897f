package digest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var dawn = time.Unix(1_700_000_000, 0)

const (
	peer  = "192.0.2.7"
	user  = "peer"
	pass  = "s3cret"
	realm = "our.example"
	uri   = "sip:conf@our.example"
)

func newServer(algorithms ...string) *Server {
	return NewServer(ServerOptions{Realm: realm, Username: user, Password: pass, Algorithms: algorithms}, dawn)
}

func is(want string) func(string) bool { return func(uri string) bool { return uri == want } }

// check is Check of an INVITE from peer.
func check(s *Server, now time.Time, values ...string) (Result, Proof) {
	return s.Check(now, peer, values, Request{Method: "INVITE", URI: uri, Body: []byte("v=0")}, is(uri))
}

// proves answers a challenge as a client does.
func proves(t testing.TB, c Challenge, username, password string, r Request) string {
	t.Helper()
	read, err := ParseChallenges([]string{c.String()})
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewSession(read[0], username, []byte(password)).Authorize(r)
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

var invite = Request{Method: "INVITE", URI: uri, Body: []byte("v=0")}

// What a server is shown, and what it makes of it.
func TestServerChecks(t *testing.T) {
	s := newServer(MD5, SHA256)
	cs := s.Challenges(dawn, peer, "one", false)
	if len(cs) != 2 || cs[0].Algorithm != SHA256 || cs[1].Algorithm != MD5 || cs[0].Realm != realm || cs[0].Stale || !slices.Equal(cs[0].QOP, []string{"auth"}) {
		t.Fatalf("challenges %+v", cs)
	}
	sha, md := cs[0], cs[1]
	other := sha
	other.Realm = "other.example"
	strong := sha
	strong.Algorithm = SHA512256
	whole := sha
	whole.QOP = []string{"auth-int"}
	old, oldSHA := md, sha
	old.QOP, oldSHA.QOP = nil, nil
	forged := sha
	forged.Nonce = strings.Repeat("00", nonceLen)
	short := sha
	short.Nonce = "abc"
	stranger := sha
	stranger.Nonce = newServer(SHA256).Challenges(dawn, peer, "one", false)[0].Nonce
	elsewhere := sha
	elsewhere.Nonce = s.Challenges(dawn, "192.0.2.8", "one", false)[0].Nonce
	right := proves(t, sha, user, pass, invite)
	if got, _ := s.Check(dawn, "192.0.2.8", []string{proves(t, elsewhere, user, pass, invite)}, invite, is(uri)); got != Right {
		t.Errorf("at the address that it was made for: %v", got)
	}
	bare := md
	bare.Algorithm = ""
	for _, tt := range []struct {
		name   string
		values []string
		want   Result
	}{
		{"nothing", nil, Missing},
		{"SHA-256", []string{right}, Right},
		{"MD5", []string{proves(t, md, user, pass, invite)}, Right},
		{"MD5, unsaid", []string{proves(t, bare, user, pass, invite)}, Right},
		{"MD5 without qop (RFC 2069)", []string{proves(t, old, user, pass, invite)}, Right},
		{"SHA-256 without qop", []string{proves(t, oldSHA, user, pass, invite)}, Wrong},
		{"an algorithm that was not asked for", []string{proves(t, strong, user, pass, invite)}, Wrong},
		{"a qop that was not asked for", []string{proves(t, whole, user, pass, invite)}, Wrong},
		{"another password", []string{proves(t, sha, user, "x", invite)}, Wrong},
		{"another user", []string{proves(t, sha, "nobody", pass, invite)}, Wrong},
		{"another method", []string{proves(t, sha, user, pass, Request{Method: "REFER", URI: uri})}, Wrong},
		{"another URI", []string{proves(t, sha, user, pass, Request{Method: "INVITE", URI: "sip:other@our.example"})}, Elsewhere},
		{"another URI in the header only", []string{strings.Replace(right, uri, "sip:other@our.example", 1)}, Wrong},
		{"another realm", []string{proves(t, other, user, pass, invite)}, Missing},
		{"another realm before ours", []string{proves(t, other, user, pass, invite), right}, Right},
		{"another scheme", []string{"Basic cGVlcjpzM2NyZXQ=", `Bearer x="`}, Missing},
		{"another scheme before ours", []string{"Basic cGVlcjpzM2NyZXQ=", right}, Right},
		{"a wrong one before ours", []string{proves(t, sha, user, "x", invite), right}, Right},
		{"who it is only", []string{Empty(user, realm, uri).String()}, Missing},
		{"malformed", []string{`Digest realm="` + realm}, Malformed},
		{"malformed nc", []string{strings.Replace(right, "nc=00000001", "nc=-1", 1)}, Malformed},
		{"malformed before ours", []string{`Digest realm="` + realm, right}, Right},
		{"a nonce that nobody made", []string{proves(t, forged, user, pass, invite)}, Stale},
		{"a nonce that is none", []string{proves(t, short, user, pass, invite)}, Stale},
		{"a nonce of another process", []string{proves(t, stranger, user, pass, invite)}, Stale},
		{"a nonce for another address", []string{proves(t, elsewhere, user, pass, invite)}, Stale},
		{"a nonce of nobody and no password", []string{proves(t, forged, user, "x", invite)}, Wrong},
		{"too many", append(slices.Repeat([]string{"Basic x"}, maxProofs), right), Missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := check(s, dawn, tt.values...); got != tt.want {
				t.Errorf("%v, want %v: %q", got, tt.want, tt.values)
			}
		})
	}
}

// The examples of RFC 7616 §3.9.1 and RFC 2617 §3.5 from the server's side: their nonces are not
// ours, so what is right of them is stale.
func TestServerAndPublishedExamples(t *testing.T) {
	for _, tt := range []struct{ realm, password, header string }{
		{"http-auth@example.org", "Circle of Life", `Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5, ` +
			`nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, ` +
			`response="8ca523f5e9506fed4657c9700eebdbec", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`},
		{"http-auth@example.org", "Circle of Life", `Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=SHA-256, ` +
			`nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, ` +
			`response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`},
		{"testrealm@host.com", "Circle Of Life", `Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", ` +
			`uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"`},
	} {
		s := NewServer(ServerOptions{Realm: tt.realm, Username: "Mufasa", Password: tt.password, Algorithms: Servable()}, dawn)
		r := Request{Method: "GET"}
		if got, _ := s.Check(dawn, peer, []string{tt.header}, r, is("/dir/index.html")); got != Stale {
			t.Errorf("%v of %s", got, tt.header)
		}
		worse := strings.Replace(tt.header, `response="`, `response="0`, 1)
		if got, _ := s.Check(dawn, peer, []string{worse}, r, is("/dir/index.html")); got != Wrong {
			t.Errorf("%v of %s", got, worse)
		}
	}
}

// The same request is asked the same thing again, another one another, and so another address.
func TestServerAsksTheSameAgain(t *testing.T) {
	s := newServer(MD5)
	ask := func(now time.Time, peer, request string) string {
		return s.Challenges(now, peer, request, false)[0].String()
	}
	first := ask(dawn, peer, "one")
	if again := ask(dawn.Add(32*time.Second), peer, "one"); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if ask(dawn, peer, "two") == first || ask(dawn, "192.0.2.8", "one") == first {
		t.Error("a nonce for two")
	}
	if stale := s.Challenges(dawn, peer, "one", true)[0].String(); !strings.Contains(stale, "stale=true") {
		t.Errorf("stale: %s", stale)
	}
}

// A nonce is good for a while, whatever the wall clock does, and then stale: the client gets in
// with a new one.
func TestNoncesAge(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		want  Result
	}{{0, Right}, {generation - 1, Right}, {2*generation - 1, Right}, {2 * generation, Stale}, {1000 * generation, Stale}, {-time.Hour, Right}} {
		s := newServer(SHA256)
		proof := proves(t, s.Challenges(dawn, peer, "one", false)[0], user, pass, invite)
		if got, _ := check(s, dawn.Add(tt.after), proof); got != tt.want {
			t.Errorf("after %v: %v, want %v", tt.after, got, tt.want)
		}
	}
	// Given out at the end of a generation it lives as long as one.
	s := newServer(SHA256)
	at := dawn.Add(generation - 1)
	proof := proves(t, s.Challenges(at, peer, "one", false)[0], user, pass, invite)
	for _, tt := range []struct {
		at   time.Time
		want Result
	}{{dawn.Add(generation), Right}, {dawn.Add(2*generation - 1), Right}, {dawn.Add(2 * generation), Stale}} {
		if got, _ := check(s, tt.at, proof); got != tt.want {
			t.Errorf("at %v: %v, want %v", tt.at.Sub(dawn), got, tt.want)
		}
	}
}

// A nonce count is good once (RFC 7616 §3.4), in whatever order they come, and stays used into
// the next generation.
func TestNonceCounts(t *testing.T) {
	s := newServer(MD5)
	c := s.Challenges(dawn, peer, "one", false)[0]
	client := NewSession(c, user, []byte(pass))
	var proofs []Proof
	for range 70 {
		a, err := client.Authorize(invite)
		if err != nil {
			t.Fatal(err)
		}
		res, p := check(s, dawn, a.String())
		if res != Right {
			t.Fatal(res)
		}
		proofs = append(proofs, p)
	}
	use := func(nc int, want bool) {
		t.Helper()
		if got := s.Use(proofs[nc-1]); got != want {
			t.Errorf("nc %d: %v", nc, got)
		}
	}
	use(1, true)
	use(1, false)
	use(3, true)
	use(2, true)
	use(2, false)
	use(3, false)
	use(69, true)
	use(5, false) // too far behind to be known
	use(6, true)
	use(6, false)
	s.Challenges(dawn.Add(generation), peer, "two", false) // the next begins
	use(6, false)
	use(70, true)
	use(70, false)
	s.Challenges(dawn.Add(2*generation), peer, "three", false)
	use(68, false) // forgotten, so it is none
}

// Without a count (RFC 2069) a nonce is good once.
func TestNonceWithoutCount(t *testing.T) {
	s := newServer(MD5)
	c := s.Challenges(dawn, peer, "one", false)[0]
	_, counted := check(s, dawn, proves(t, c, user, pass, invite))
	c.QOP = nil
	_, p := check(s, dawn, proves(t, c, user, pass, invite))
	if !s.Use(p) || s.Use(p) || s.Use(counted) {
		t.Error("a nonce without count is good once")
	}
}

// However many prove themselves, what is remembered has a bound, and nothing that is forgotten
// is good again.
func TestServerMemory(t *testing.T) {
	s := newServer(MD5)
	nonces := func(n int, from string) (ps []Proof) {
		for i := range n {
			c := s.Challenges(dawn, peer, fmt.Sprint(from, i), false)[0]
			p, ok := s.read(c.Nonce, peer)
			if !ok {
				t.Fatal(c.Nonce)
			}
			p.nc = 1
			ps = append(ps, p)
		}
		return ps
	}
	first := nonces(maxUsed+1, "a") // given out in one generation
	for i, p := range first {
		if ok := s.Use(p); ok != (i < maxUsed) {
			t.Fatalf("use %d: %v", i, ok)
		}
	}
	fresh := nonces(1, "b")[0] // of a new one, since that is full
	if !s.Use(fresh) || s.Use(fresh) || s.Use(first[0]) {
		t.Error("a full generation keeps its successor out, or is forgotten at once")
	}
	for _, p := range nonces(maxUsed/2, "c") {
		s.Use(p)
	}
	nonces(1, "d") // two on
	if s.Use(first[0]) || s.Use(first[maxUsed]) {
		t.Error("forgotten, and good again")
	}
	if got := len(s.now) + len(s.old); got > 2*maxUsed {
		t.Errorf("%d are remembered", got)
	}
}

// Every bit of a nonce counts.
func TestNonceIsWhole(t *testing.T) {
	s := newServer(MD5)
	c := s.Challenges(dawn, peer, "one", false)[0]
	b, err := hex.DecodeString(c.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.read(c.Nonce, peer); !ok {
		t.Fatal("its own nonce")
	}
	for i := range len(b) * 8 {
		x := slices.Clone(b)
		x[i/8] ^= 1 << (i % 8)
		if _, ok := s.read(hex.EncodeToString(x), peer); ok {
			t.Errorf("bit %d does not count", i)
		}
	}
}

// Nobody gets in, nor anything down, by what he writes into Authorization.
func FuzzServer(f *testing.F) {
	s := newServer(Servable()...)
	c := s.Challenges(dawn, peer, "one", false)[2]
	f.Add(`Digest username="peer",realm="our.example",nonce="` + c.Nonce + `",uri="sip:conf@our.example",response="00",qop=auth,nc=00000001,cnonce="x"`)
	f.Add(`Digest realm="our.example`)
	f.Add("Digest username=\"a\\\"\r\nb\", nonce=n== , nc=ffffffff")
	f.Fuzz(func(t *testing.T, v string) {
		if res, _ := check(s, dawn, v, v); res >= Elsewhere {
			t.Fatalf("%v by %q", res, v)
		}
	})
}

func BenchmarkServer(b *testing.B) {
	s := newServer(SHA256, MD5)
	c := s.Challenges(dawn, peer, "one", false)[0]
	v := proves(b, c, user, pass, invite)
	b.Run("challenge", func(b *testing.B) {
		for b.Loop() {
			s.Challenges(dawn, peer, "one", false)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			check(s, dawn, v)
		}
	})
}
