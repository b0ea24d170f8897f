package bridge

import (
	"slices"
	"strings"

	"sparkle/sip/ims"
)

// This file is which numbers may be called: one list for the whole server, and a limit of
// who asks. Both hold for whoever asks, an organiser, a phone by REFER or a list of
// recipients, a network that redirects. Emergency numbers are parseNumber's.

func errBlocked() *Error {
	return &Error{Kind: Forbidden, Code: "blocked_by_policy", Detail: "this server does not call the number"}
}

// mayDial holds a number to the server's list and to the prefixes of a limit, empty: none.
// The number of a URI that has none is "", which no prefix fits.
func (b *Bridge) mayDial(limit []string, number string) *Error {
	switch {
	case len(b.opt.Deny) > 0 && within(b.opt.Deny, number), !within(b.opt.Allow, number):
		return errBlocked()
	case !within(limit, number):
		return &Error{Kind: Forbidden, Code: "dial_not_allowed", Detail: "this key may not call the number"}
	}
	return nil
}

// barred says whether a URI must not be called for a phone: it leads to an emergency
// service, or to a number that mayDial forbids. What is no number is not called at all.
func (b *Bridge) barred(limit []string, uri string) bool {
	if ims.Emergency(uri, b.opt.Country) {
		return true
	}
	n := b.numberOf(parseTarget(uri))
	return n != "" && b.mayDial(limit, n) != nil
}

// within says whether a number begins with one of the prefixes; without any, all do.
func within(prefixes []string, number string) bool {
	return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p string) bool { return p != "" && strings.HasPrefix(number, p) })
}

// mayEmpower says whether an actor may give phones of a conference the right to have others
// called: one whose key is limited must not reach by them what the key itself may not call.
func mayEmpower(a Actor, c Conference) *Error {
	limit := strings.Fields(c.DialLimit)
	if len(a.DialPrefixes) == 0 || len(limit) > 0 && !slices.ContainsFunc(limit, func(p string) bool { return !within(a.DialPrefixes, p) }) {
		return nil
	}
	return &Error{Kind: Forbidden, Code: "dial_not_allowed", Detail: "phones of this conference may call more than this key"}
}
