package digest

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Request is what a proof is about: URI is exactly what stands in the request line.
type Request struct {
	Method string
	URI    string
	Body   []byte // counts with qop=auth-int only
}

// Authorization is an Authorization or Proxy-Authorization value.
type Authorization struct {
	Username  string
	Realm     string
	Nonce     string
	URI       string
	Response  string
	Algorithm string // "": not written, means MD5
	Opaque    string
	QOP       string // "", "auth", "auth-int"
	CNonce    string
	NC        uint32
	AUTS      string // base64, AKA resynchronisation only
	hasOpaque bool
}

// Empty is the Authorization of a first REGISTER: it names the private identity and
// proves nothing (TS 24.229 §5.1.1.2.1).
func Empty(username, realm, uri string) Authorization {
	return Authorization{Username: username, Realm: realm, URI: uri}
}

// String is the header value.
func (a Authorization) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Digest username=%s,realm=%s,uri=%s,nonce=%s,response=%s", quote(a.Username),
		quote(a.Realm), quote(a.URI), quote(a.Nonce), quote(a.Response))
	if a.Algorithm != "" {
		b.WriteString(",algorithm=" + a.Algorithm)
	}
	if a.Opaque != "" || a.hasOpaque {
		b.WriteString(",opaque=" + quote(a.Opaque))
	}
	if a.QOP != "" {
		fmt.Fprintf(&b, ",qop=%s,cnonce=%s,nc=%08x", a.QOP, quote(a.CNonce), a.NC)
	}
	if a.AUTS != "" {
		b.WriteString(",auts=" + quote(a.AUTS))
	}
	return b.String()
}

// ParseAuthorization reads an Authorization or Proxy-Authorization value.
func ParseAuthorization(v string) (Authorization, error) {
	ss, err := parseSchemes(v)
	if err != nil {
		return Authorization{}, err
	}
	if len(ss) != 1 || !strings.EqualFold(ss[0].name, "Digest") {
		return Authorization{}, fmt.Errorf("%w: not one Digest", ErrSyntax)
	}
	s := ss[0]
	a := Authorization{Username: s.get("username"), Realm: s.get("realm"), Nonce: s.get("nonce"),
		URI: s.get("uri"), Response: s.get("response"), Opaque: s.get("opaque"),
		QOP: strings.ToLower(s.get("qop")), CNonce: s.get("cnonce"), AUTS: s.get("auts")}
	_, a.hasOpaque = s.params["opaque"]
	if alg := s.get("algorithm"); alg != "" {
		a.Algorithm = canonical(alg)
	}
	if nc, ok := s.params["nc"]; ok {
		n, err := strconv.ParseUint(nc, 16, 32)
		if err != nil {
			return a, fmt.Errorf("%w: nc", ErrSyntax)
		}
		a.NC = uint32(n)
	}
	return a, nil
}

func hashOf(algorithm string) (func() hash.Hash, bool) {
	switch algorithm {
	case "", MD5, AKAv1MD5, AKAv2MD5:
		return md5.New, true
	case SHA256:
		return sha256.New, true
	case SHA512256:
		return sha512.New512_256, true
	}
	return nil, false
}

func hexHash(h func() hash.Hash, parts ...[]byte) string {
	s := h()
	for i, p := range parts {
		if i > 0 {
			s.Write([]byte{':'})
		}
		s.Write(p)
	}
	return hex.EncodeToString(s.Sum(nil))
}

// response is RFC 7616 §3.4.1 for method ("" for rspauth). ok is false for an
// algorithm or qop we do not know.
func (a Authorization) response(password []byte, method string, body []byte) (string, bool) {
	h, ok := hashOf(a.Algorithm)
	if !ok {
		return "", false
	}
	ha1 := hexHash(h, []byte(a.Username), []byte(a.Realm), password)
	a2 := [][]byte{[]byte(method), []byte(a.URI)}
	switch a.QOP {
	case "", "auth":
	case "auth-int":
		a2 = append(a2, []byte(hexHash(h, body)))
	default:
		return "", false
	}
	ha2 := hexHash(h, a2...)
	if a.QOP == "" {
		return hexHash(h, []byte(ha1), []byte(a.Nonce), []byte(ha2)), true
	}
	return hexHash(h, []byte(ha1), []byte(a.Nonce), fmt.Appendf(nil, "%08x", a.NC),
		[]byte(a.CNonce), []byte(a.QOP), []byte(ha2)), true
}

// Verify is the registrar's check of a proof. It takes the same time whether the first
// or the last digit is wrong. Whether the nonce is one of ours, its age, nc and the URI
// are the caller's to check.
func (a Authorization) Verify(password []byte, method string, body []byte) bool {
	want, ok := a.response(password, method, body)
	return ok && a.Response != "" && subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(a.Response))) == 1
}

// Session answers the requests of one challenge: it counts nc. It is safe for
// concurrent use.
type Session struct {
	challenge Challenge
	username  string
	password  []byte
	mu        sync.Mutex
	nonce     string
	nc        uint32
}

// NewSession begins to use a challenge. password is what the algorithm wants: text, or
// what AKA made of the challenge.
func NewSession(c Challenge, username string, password []byte) *Session {
	return &Session{challenge: c, username: username, password: slices.Clone(password), nonce: c.Nonce}
}

// Authorize makes the proof for one request.
func (s *Session) Authorize(r Request) (Authorization, error) {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Authorization{}, fmt.Errorf("digest: cnonce: %w", err)
	}
	return s.authorize(r, hex.EncodeToString(random[:]))
}

func (s *Session) authorize(r Request, cnonce string) (Authorization, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.challenge
	a := Authorization{Username: s.username, Realm: c.Realm, Nonce: s.nonce, URI: r.URI,
		Opaque: c.Opaque, hasOpaque: c.hasOpaque, Algorithm: c.Algorithm}
	if c.Algorithm == MD5 && !c.hasAlg {
		a.Algorithm = "" // some old registrars know only what they wrote
	}
	switch {
	case slices.Contains(c.QOP, "auth"):
		a.QOP = "auth"
	case slices.Contains(c.QOP, "auth-int"):
		a.QOP = "auth-int"
	case len(c.QOP) > 0:
		return a, fmt.Errorf("%w: qop %.16q", ErrNoChallenge, c.QOP[0])
	}
	if a.QOP != "" {
		s.nc++
		a.NC, a.CNonce = s.nc, cnonce
	}
	var ok bool
	if a.Response, ok = a.response(s.password, r.Method, r.Body); !ok {
		return a, fmt.Errorf("%w: algorithm %.16q", ErrNoChallenge, a.Algorithm)
	}
	return a, nil
}

// Confirm reads Authentication-Info of the answer to a: rspauth, if there, must prove
// that the network knows the password too, and nextnonce becomes the nonce. body is the
// answer's.
func (s *Session) Confirm(a Authorization, info string, body []byte) error {
	ss, err := parseSchemes("Digest " + info)
	if err != nil {
		return err
	}
	if len(ss) != 1 {
		return fmt.Errorf("%w: Authentication-Info", ErrSyntax)
	}
	p := ss[0].params
	if got, ok := p["rspauth"]; ok {
		want, known := a.response(s.password, "", body)
		if !known || subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(got))) != 1 {
			return fmt.Errorf("digest: rspauth is wrong: the network does not know our password")
		}
	}
	if next := p["nextnonce"]; next != "" && !IsAKA(s.challenge.Algorithm) {
		s.mu.Lock()
		s.nonce, s.nc = next, 0
		s.mu.Unlock()
	}
	return nil
}

// Info is a server's Authentication-Info for a proof it accepted.
func (a Authorization) Info(password, body []byte) string {
	rsp, _ := a.response(password, "", body)
	if a.QOP == "" {
		return "rspauth=" + quote(rsp)
	}
	return fmt.Sprintf("qop=%s,rspauth=%s,cnonce=%s,nc=%08x", a.QOP, quote(rsp), quote(a.CNonce), a.NC)
}

// Verify parses an Authorization value and checks it: what a registrar does in one call.
func Verify(header string, password []byte, r Request) (Authorization, bool, error) {
	a, err := ParseAuthorization(header)
	if err != nil {
		return a, false, err
	}
	return a, a.Verify(password, r.Method, r.Body), nil
}
