package lab

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"sparkle/bridge/lab/wire"
)

// Digest algorithms of a subscriber.
const (
	MD5    = "MD5"
	SHA256 = "SHA-256"
	AKAv1  = "AKAv1-MD5"
)

// Auth is how a subscriber proves itself: a password, or a SIM's secrets.
type Auth struct {
	Algorithm string // MD5, SHA256 or AKAv1; "" is MD5
	Password  string // MD5 and SHA256
	K         []byte // AKAv1: 16 bytes
	OPc       []byte // AKAv1: 16 bytes
	AMF       []byte // AKAv1: 2 bytes; nil is 80 00
	SQN       uint64 // AKAv1: the network's sequence number before the first challenge
}

// Validate says what is missing.
func (a Auth) Validate() error {
	switch a.Algorithm {
	case "", MD5, SHA256:
		if a.Password == "" {
			return errors.New("auth: no password")
		}
	case AKAv1:
		if len(a.K) != 16 || len(a.OPc) != 16 {
			return errors.New("auth: K and OPc are 16 bytes each")
		}
		if a.AMF != nil && len(a.AMF) != 2 {
			return errors.New("auth: AMF is 2 bytes")
		}
	default:
		return fmt.Errorf("auth: algorithm %q is not one of MD5, SHA-256, AKAv1-MD5", a.Algorithm)
	}
	return nil
}

func (a Auth) algorithm() string {
	if a.Algorithm == "" {
		return MD5
	}
	return a.Algorithm
}

// proof is what a digest is computed over (RFC 7616 §3.4, qop auth or none). The
// password is binary with AKA: RES (RFC 3310 §3.4).
type proof struct {
	algorithm, username, realm, method, uri string
	nonce, nc, cnonce, qop                  string
	password                                []byte
}

func (p proof) hash() hash.Hash {
	if p.algorithm == SHA256 {
		return sha256.New()
	}
	return md5.New()
}

func (p proof) hex(parts ...[]byte) string {
	h := p.hash()
	for i, b := range parts {
		if i > 0 {
			h.Write([]byte{':'})
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// response is the digest; with method "" it is what the server shows in rspauth.
func (p proof) response() string {
	ha1 := p.hex([]byte(p.username), []byte(p.realm), p.password)
	ha2 := p.hex([]byte(p.method), []byte(p.uri))
	if p.qop == "" {
		return p.hex([]byte(ha1), []byte(p.nonce), []byte(ha2))
	}
	return p.hex([]byte(ha1), []byte(p.nonce), []byte(p.nc), []byte(p.cnonce), []byte(p.qop), []byte(ha2))
}

func sameProof(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(strings.ToLower(a)), []byte(strings.ToLower(b))) == 1
}

// digestParams reads `Digest a="b", c=d` of Authorization and WWW-Authenticate. It
// answers nil for another scheme.
func digestParams(v string) wire.Params {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(v), " ")
	if !ok || !strings.EqualFold(scheme, "Digest") {
		return nil
	}
	p := wire.Params{}
	for _, s := range wire.SplitList(rest) {
		k, val, _ := strings.Cut(s, "=")
		p[strings.ToLower(strings.TrimSpace(k))] = strings.Trim(strings.TrimSpace(val), `"`)
	}
	return p
}
