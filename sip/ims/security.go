package ims

import (
	"slices"
	"strconv"
	"strings"
)

// Mechanism is one value of Security-Client, Security-Server or Security-Verify (RFC 3329 §2.2).
type Mechanism struct {
	Name   string            // lower case: tls, ipsec-3gpp, digest …
	Params map[string]string // names and values in lower case, without q
	Q      int               // preference in thousandths; 0: not said
}

// What a list of mechanisms may have: a P-CSCF says one or a few, and who copies the list into
// each of his requests copies what it says.
const (
	maxMechanisms = 32
	maxSecurity   = 4096 // octets of all fields
)

// ParseMechanisms reads all fields of one of the Security headers, in order.
func ParseMechanisms(fields []string) ([]Mechanism, error) {
	size := 0
	for _, f := range fields {
		if size += len(f); size > maxSecurity || strings.ContainsFunc(f, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, bad("security mechanisms")
		}
	}
	values := SplitAll(fields)
	if len(values) > maxMechanisms {
		return nil, bad("security mechanisms")
	}
	var out []Mechanism
	for _, v := range values {
		parts := splitOn(v, ';')
		if len(parts) == 0 || !isToken(parts[0]) {
			return nil, bad("security mechanism")
		}
		m := Mechanism{Name: strings.ToLower(parts[0]), Params: params(parts[1:])}
		for k, v := range m.Params {
			m.Params[k] = strings.ToLower(v)
		}
		if f, err := strconv.ParseFloat(m.Params["q"], 64); err == nil && f >= 0 && f <= 1 {
			m.Q = int(f*1000 + 0.5)
		}
		delete(m.Params, "q")
		out = append(out, m)
	}
	return out, nil
}

// Choose is the mechanism that the server prefers among those known: the one with the highest q
// (RFC 3329 §2.3.1). That two have the same is an error of the server's; then its order counts.
func Choose(server []Mechanism, known ...string) (best Mechanism, ok bool) {
	for _, m := range server {
		if slices.Contains(known, m.Name) && (!ok || m.Q > best.Q) {
			best, ok = m, true
		}
	}
	return best, ok
}

// isToken is RFC 3261 §25.1.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-.!%*_+`'~", r)
	})
}
