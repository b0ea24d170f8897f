package bridge

import (
	"cmp"
	"slices"
	"strings"

	"sparkle/sip"
	"sparkle/sip/ims"
)

// This file is who somebody is by what a network says of him.

// party is whom a URI names, for comparing: a number in E.164, whatever the form of its URI, or
// user@host as RFC 3261 §19.1.4 compares them. Ports and parameters are not looked at: they tell
// how to reach him. "": nobody in particular.
func party(uri string) string {
	t := parseTarget(uri)
	if strings.HasPrefix(t.user, "+") {
		if n, err := ims.ParseNumber(t.user); err == nil {
			return n.Digits()
		}
	}
	if t.user == "" || t.host == "" || t.host == "anonymous.invalid" { // RFC 3323 §4.1.1.3
		return ""
	}
	return t.key()
}

// asserted is who a trusted network says somebody is: parties, the best known first.
func asserted(who sip.Identity) []string {
	if !who.Trusted {
		return nil
	}
	var all []string
	for _, uri := range who.URIs {
		if p := party(uri); p != "" {
			all = append(all, p)
		}
	}
	return all
}

// charged is what a caller is called in records, hidden from others or not: his number, or the URI
// that he has instead.
func charged(who sip.Identity) string { return cmp.Or(who.Number, who.URI) }

// known is the URI that a guest is asserted to be and does not hide; "" there is none.
func (m *member) known() string {
	if m.leg == nil || m.leg.visitor == nil || m.private() {
		return ""
	}
	who := m.leg.visitor.in.Caller
	if !who.Trusted || party(who.URI) == "" || len(who.URI) > maxEntity {
		return ""
	}
	return who.URI
}

// is says whether a member is one of these parties: by his number, by that of his call, or by
// what his network asserts of him there.
func (m *member) is(parties []string) bool {
	own := []string{m.Number}
	if l := m.leg; l != nil && l.visitor != nil {
		own = append(own, asserted(l.visitor.in.Caller)...)
	} else if l != nil {
		own = append(own, l.number)
	}
	return slices.ContainsFunc(own, func(p string) bool { return p != "" && slices.Contains(parties, p) })
}
