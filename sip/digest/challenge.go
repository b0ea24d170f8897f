// Package digest is SIP digest authentication (RFC 3261 §22, RFC 7616, RFC 8760) with
// the two AKA variants (RFC 3310, RFC 4169): challenges of a network, the proof of a
// client, and the check of a registrar. Where passwords come from is the caller's.
package digest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The algorithms we know, as they are registered.
const (
	MD5       = "MD5"
	SHA256    = "SHA-256"
	SHA512256 = "SHA-512-256"
	AKAv1MD5  = "AKAv1-MD5"
	AKAv2MD5  = "AKAv2-MD5"
)

// strength orders algorithms, strongest first.
var strength = []string{AKAv2MD5, AKAv1MD5, SHA512256, SHA256, MD5}

// Errors a caller branches on.
var (
	ErrSyntax      = errors.New("digest: malformed")
	ErrNoChallenge = errors.New("digest: no challenge we may answer")
)

// maxLen bounds a header value, maxChallenges their number.
const (
	maxLen        = 8 << 10
	maxChallenges = 16
)

// Challenge is one WWW-Authenticate or Proxy-Authenticate challenge.
type Challenge struct {
	Realm     string
	Nonce     string
	Opaque    string
	Algorithm string   // as in the constants if known, else as written; MD5 if absent
	QOP       []string // lower case; empty: RFC 2069 style
	Stale     bool
	hasOpaque bool
	hasAlg    bool
}

// String is the header value.
func (c Challenge) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Digest realm=%s,nonce=%s", quote(c.Realm), quote(c.Nonce))
	if c.Opaque != "" {
		b.WriteString(",opaque=" + quote(c.Opaque))
	}
	if c.Stale {
		b.WriteString(",stale=true")
	}
	if c.Algorithm != "" {
		b.WriteString(",algorithm=" + c.Algorithm)
	}
	if len(c.QOP) > 0 {
		b.WriteString(",qop=" + quote(strings.Join(c.QOP, ",")))
	}
	return b.String()
}

// IsAKA reports whether the nonce is RAND and AUTN.
func IsAKA(algorithm string) bool { return algorithm == AKAv1MD5 || algorithm == AKAv2MD5 }

// Usable says why a client cannot answer an algorithm: it is unknown, or the secret it needs is
// missing.
func Usable(algorithm string, password, k bool) error {
	switch aka := IsAKA(algorithm); {
	case !slices.Contains(strength, algorithm):
		return fmt.Errorf("%q is none of %s", algorithm, strings.Join(strength, ", "))
	case aka && !k:
		return fmt.Errorf("%s needs k", algorithm)
	case !aka && !password:
		return fmt.Errorf("%s needs a password", algorithm)
	}
	return nil
}

// Answerable are the algorithms that a client answers who was told of none, strongest first:
// never down from AKA to a password.
func Answerable(k bool) []string {
	if k {
		return []string{AKAv2MD5, AKAv1MD5}
	}
	return []string{SHA512256, SHA256, MD5}
}

func canonical(algorithm string) string {
	for _, a := range strength {
		if strings.EqualFold(a, algorithm) {
			return a
		}
	}
	return algorithm
}

// ParseChallenges reads all challenges of header values, in order. One value may hold
// several. Other schemes than Digest are left out.
func ParseChallenges(values []string) ([]Challenge, error) {
	var out []Challenge
	for _, v := range values {
		cs, err := parseSchemes(v)
		if err != nil {
			return nil, err
		}
		for _, s := range cs {
			if !strings.EqualFold(s.name, "Digest") {
				continue
			}
			c := Challenge{Realm: s.get("realm"), Nonce: s.get("nonce"), Opaque: s.get("opaque"),
				Algorithm: MD5, Stale: strings.EqualFold(s.get("stale"), "true")}
			_, c.hasOpaque = s.params["opaque"]
			if a := s.get("algorithm"); a != "" {
				c.Algorithm, c.hasAlg = canonical(a), true
			}
			for q := range strings.SplitSeq(s.get("qop"), ",") {
				if q = strings.ToLower(strings.TrimSpace(q)); q != "" {
					c.QOP = append(c.QOP, q)
				}
			}
			if _, ok := s.params["realm"]; !ok {
				return nil, fmt.Errorf("%w: challenge without realm", ErrSyntax)
			}
			if out = append(out, c); len(out) > maxChallenges {
				return nil, fmt.Errorf("%w: more than %d challenges", ErrSyntax, maxChallenges)
			}
		}
	}
	return out, nil
}

// Choose picks the strongest challenge of an allowed algorithm, so that a middleman
// cannot talk us down from AKA or SHA-256 to MD5 (RFC 8760 §2.4). realm "" is any.
func Choose(cs []Challenge, allowed []string, realm string) (Challenge, error) {
	for _, a := range strength {
		for _, c := range cs {
			if c.Algorithm == a && slices.Contains(allowed, a) && (realm == "" || c.Realm == realm) && c.answerable() {
				return c, nil
			}
		}
	}
	return Challenge{}, fmt.Errorf("%w: %d offered", ErrNoChallenge, len(cs))
}

// answerable: we know one of the offered qualities of protection.
func (c Challenge) answerable() bool {
	return c.Nonce != "" && (len(c.QOP) == 0 || slices.Contains(c.QOP, "auth") || slices.Contains(c.QOP, "auth-int"))
}

// scheme is one "Name param=value, …" of a header value.
type scheme struct {
	name   string
	params map[string]string
}

func (s scheme) get(k string) string { return s.params[k] }

// parseSchemes reads a header value: token SP param *("," param), several of them
// joined with commas (RFC 7235 §2.1).
func parseSchemes(v string) ([]scheme, error) {
	if len(v) > maxLen {
		return nil, fmt.Errorf("%w: %d bytes", ErrSyntax, len(v))
	}
	var out []scheme
	for p := (cursor{s: v}); ; {
		p.skip(" \t\r\n,")
		if p.done() {
			return out, nil
		}
		word := p.token()
		if word == "" {
			return nil, fmt.Errorf("%w: no token at byte %d", ErrSyntax, p.i)
		}
		p.skip(" \t\r\n")
		if !p.take('=') {
			out = append(out, scheme{word, map[string]string{}})
			continue
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("%w: no scheme", ErrSyntax)
		}
		p.skip(" \t\r\n")
		val, err := p.value()
		if err != nil {
			return nil, err
		}
		params := out[len(out)-1].params
		k := strings.ToLower(word)
		if _, dup := params[k]; dup {
			return nil, fmt.Errorf("%w: %.16q twice", ErrSyntax, k)
		}
		params[k] = val
	}
}

// cursor walks a header value.
type cursor struct {
	s string
	i int
}

func (c *cursor) done() bool { return c.i >= len(c.s) }

func (c *cursor) skip(set string) {
	for !c.done() && strings.IndexByte(set, c.s[c.i]) >= 0 {
		c.i++
	}
}

func (c *cursor) take(b byte) bool {
	if c.done() || c.s[c.i] != b {
		return false
	}
	c.i++
	return true
}

func (c *cursor) token() string {
	start := c.i
	for !c.done() && c.s[c.i] > ' ' && c.s[c.i] < 0x7f && strings.IndexByte(`,="`, c.s[c.i]) < 0 {
		c.i++
	}
	return c.s[start:c.i]
}

// value is a token (base64 padding is let pass) or a quoted string.
func (c *cursor) value() (string, error) {
	if !c.take('"') {
		start := c.i
		for !c.done() && c.s[c.i] > ' ' && c.s[c.i] != ',' && c.s[c.i] != '"' {
			c.i++
		}
		return c.s[start:c.i], nil
	}
	var b strings.Builder
	for !c.done() {
		ch := c.s[c.i]
		c.i++
		switch ch {
		case '"':
			return b.String(), nil
		case '\\':
			if c.done() {
				continue
			}
			ch = c.s[c.i]
			c.i++
		}
		b.WriteByte(ch)
	}
	return "", fmt.Errorf("%w: open quote", ErrSyntax)
}

// quote leaves out control characters: what came from a peer must not start a new
// header line.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
