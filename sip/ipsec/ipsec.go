// Package ipsec is the security agreement of a phone with its P-CSCF (TS 33.203 §7, RFC
// 3329): what is offered and chosen in SIP, the keys out of AKA, the four security
// associations, and the netlink messages that put them into the kernel. It decides and
// encodes; it opens no socket. No attachment uses it yet: the data path needs a kernel
// with ESP and a carrier, and has been tested with neither. (TLS is agreed on by package
// register.)
package ipsec

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"sparkle/sip/ims"
)

// Mechanism is one value of Security-Client, Security-Server or Security-Verify.
type Mechanism struct {
	Alg   string // hmac-sha-1-96 | hmac-md5-96
	EAlg  string // aes-cbc | des-ede3-cbc | null
	SPIC  uint32 // of the SA to the client port
	SPIS  uint32 // of the SA to the server port
	PortC uint16 // protected client port
	PortS uint16 // protected server port
	Q     int    // preference in thousandths; 0: not said
}

// ErrSyntax is wrapped by the errors of Parse, ErrNoneInCommon by that of Choose.
var (
	ErrSyntax       = errors.New("ipsec: malformed security mechanism")
	ErrNoneInCommon = errors.New("ipsec: no security mechanism in common")
)

// String is the header value.
func (m Mechanism) String() string {
	q := ""
	if m.Q > 0 {
		q = fmt.Sprintf(";q=%d.%03d", m.Q/1000, m.Q%1000)
	}
	return fmt.Sprintf("ipsec-3gpp%s;alg=%s;ealg=%s;prot=esp;mod=trans;spi-c=%d;spi-s=%d;port-c=%d;port-s=%d",
		q, m.Alg, m.EAlg, m.SPIC, m.SPIS, m.PortC, m.PortS)
}

// Parse reads all fields of a header. Mechanisms other than ipsec-3gpp with ESP in transport
// mode are left out; one that is, and makes no sense, is an error.
func Parse(values []string) ([]Mechanism, error) {
	all, err := ims.ParseMechanisms(values)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	var out []Mechanism
	for _, one := range all {
		p := one.Params
		alg, ealg := p["alg"], cmp.Or(p["ealg"], "null")
		if one.Name != "ipsec-3gpp" || cmp.Or(p["prot"], "esp") != "esp" || cmp.Or(p["mod"], "trans") != "trans" ||
			keyNames[alg] == "" || keyNames[ealg] == "" || alg == "null" {
			continue
		}
		m := Mechanism{Alg: alg, EAlg: ealg, Q: one.Q}
		for _, n := range []struct {
			key  string
			bits int
			set  func(uint64)
		}{{"spi-c", 32, func(n uint64) { m.SPIC = uint32(n) }}, {"spi-s", 32, func(n uint64) { m.SPIS = uint32(n) }},
			{"port-c", 16, func(n uint64) { m.PortC = uint16(n) }}, {"port-s", 16, func(n uint64) { m.PortS = uint16(n) }}} {
			x, err := strconv.ParseUint(p[n.key], 10, n.bits)
			if err != nil || x == 0 || n.bits == 32 && x < 256 { // SPIs up to 255 are reserved (RFC 4303 §2.1)
				return nil, fmt.Errorf("%w: %s", ErrSyntax, n.key)
			}
			n.set(x)
		}
		out = append(out, m)
	}
	return out, nil
}

// Choose takes the server's most preferred mechanism that was offered (RFC 3329 §2.2).
func Choose(offered, server []Mechanism) (Mechanism, error) {
	best := slices.Clone(server)
	slices.SortStableFunc(best, func(a, b Mechanism) int { return b.Q - a.Q })
	for _, s := range best {
		if slices.ContainsFunc(offered, func(o Mechanism) bool { return o.Alg == s.Alg && o.EAlg == s.EAlg }) {
			return s, nil
		}
	}
	return Mechanism{}, ErrNoneInCommon
}

// keyNames are the kernel's names of algorithms.
var keyNames = map[string]string{
	"hmac-sha-1-96": "hmac(sha1)", "hmac-md5-96": "hmac(md5)",
	"aes-cbc": "cbc(aes)", "des-ede3-cbc": "cbc(des3_ede)", "null": "ecb(cipher_null)",
}

// IntegrityKey is made of IK (TS 33.203 Annex I): MD5 takes it as it is, SHA-1 with 32 zero
// bits behind it.
func IntegrityKey(alg string, ik [16]byte) []byte {
	key := slices.Clone(ik[:])
	if alg == "hmac-sha-1-96" {
		key = append(key, 0, 0, 0, 0)
	}
	return key
}

// EncryptionKey is made of CK: AES takes it as it is, triple DES its two halves and the
// first again, null none.
func EncryptionKey(ealg string, ck [16]byte) []byte {
	switch ealg {
	case "aes-cbc":
		return slices.Clone(ck[:])
	case "des-ede3-cbc":
		return append(slices.Clone(ck[:]), ck[:8]...)
	}
	return nil
}

// SA is one unidirectional security association between two protected ports.
type SA struct {
	From, To  netip.AddrPort
	SPI       uint32
	Out       bool // from us
	Alg, EAlg string
	Auth, Enc []byte
	ReqID     uint32 // ties the SA to its policy
}

// Set is the four associations after a challenge: from our client port to the server's
// and back, from our server port to their client's and back (TS 33.203 §7.1). client is
// what we offered, server what was chosen.
func Set(us, pcscf netip.Addr, client, server Mechanism, ik, ck [16]byte, reqID uint32) ([4]SA, error) {
	if us.Is4() != pcscf.Is4() {
		return [4]SA{}, errors.New("ipsec: the addresses are of two families")
	}
	auth, enc := IntegrityKey(server.Alg, ik), EncryptionKey(server.EAlg, ck)
	at := netip.AddrPortFrom
	sa := func(out bool, spi uint32, from, to netip.AddrPort, n uint32) SA {
		return SA{from, to, spi, out, server.Alg, server.EAlg, auth, enc, reqID + n}
	}
	uc, us2 := at(us, client.PortC), at(us, client.PortS)
	pc, ps := at(pcscf, server.PortC), at(pcscf, server.PortS)
	return [4]SA{
		sa(true, server.SPIS, uc, ps, 0),
		sa(false, client.SPIC, ps, uc, 1),
		sa(true, server.SPIC, us2, pc, 2),
		sa(false, client.SPIS, pc, us2, 3),
	}, nil
}
