package sip

import (
	"strings"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// identityOf is who sent a request: P-Asserted-Identity, tel: preferred, if the peer is
// one that asserts (RFC 3325); else From, which anybody can write.
func identityOf(req *sipgo.Request) Identity {
	var id Identity
	for _, v := range dialog.Values(req, "P-Asserted-Identity") {
		uri, ok := ims.AddrSpec(v)
		if !ok || id.Trusted && !strings.HasPrefix(strings.ToLower(uri), "tel:") {
			continue
		}
		name := displayName(v)
		if name == "" {
			name = id.Name // a tel: beside a sip: often has none
		}
		id = Identity{URI: uri, Name: name, Trusted: true}
	}
	if from := req.From(); id.URI == "" && from != nil {
		id.URI, id.Name = from.Address.String(), strings.Trim(from.DisplayName, `" `)
	}
	if n, err := ims.ParseNumber(id.URI); err == nil {
		id.Number = n.Digits()
	}
	for _, v := range dialog.Values(req, "Privacy") { // RFC 3323 4.2: tokens between semicolons
		for tag := range strings.SplitSeq(v, ";") {
			switch strings.ToLower(strings.TrimSpace(tag)) {
			case "id", "user", "header", "session":
				id.Private = true
			}
		}
	}
	for p := range strings.SplitSeq(id.URI, ";") {
		if v, ok := strings.CutPrefix(p, "verstat="); ok {
			id.Verstat, _, _ = strings.Cut(v, "@")
		}
	}
	return id
}

// displayName is the name before the angle bracket of a name-addr, unquoted.
func displayName(v string) string {
	v = strings.TrimSpace(v)
	if !strings.HasPrefix(v, `"`) {
		name, _, ok := strings.Cut(v, "<")
		if !ok {
			return ""
		}
		return strings.TrimSpace(name)
	}
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '"':
			return b.String()
		case '\\':
			if i++; i == len(v) {
				return b.String()
			}
		}
		b.WriteByte(v[i])
	}
	return b.String()
}
