package ims

import (
	"net/url"
	"strings"
)

// ReferTo is what a REFER asks for (RFC 3515 2.1).
type ReferTo struct {
	URI    string // without method and headers; "" if CID is not
	Method string // what is to be sent there, in upper case: INVITE if not said
	// Replaces is the header of that name in the URI, decoded (RFC 3891 6); "" none. Other
	// headers in there are not acted on (RFC 3261 19.1.5).
	Replaces string
	CID      string // the Content-ID of a list of URIs in the body (RFC 5368); "" none
}

// ParseReferTo reads the value of Refer-To.
func ParseReferTo(v string) (ReferTo, error) {
	r := ReferTo{Method: "INVITE"}
	uri, ok := AddrSpec(v)
	if !ok || len(Split(v)) != 1 || strings.IndexByte(uri, ':') < 1 || strings.IndexFunc(uri, notURI) >= 0 {
		return r, bad("Refer-To")
	}
	if id, isCID := cutScheme(uri, "cid"); isCID {
		id, err := url.PathUnescape(id)
		if err != nil || id == "" {
			return r, bad("Refer-To")
		}
		r.CID = id
		return r, nil
	}
	uri, headers, _ := strings.Cut(uri, "?")
	uri, method := CutMethod(uri)
	if strings.IndexByte(uri, ':') < 1 {
		return r, bad("Refer-To")
	}
	if method != "" {
		r.Method = method
	}
	r.URI = uri
	for h := range strings.SplitSeq(headers, "&") {
		name, value, _ := strings.Cut(h, "=")
		if !strings.EqualFold(name, "Replaces") {
			continue
		}
		decoded, err := url.PathUnescape(value)
		if err != nil || r.Replaces != "" || decoded == "" {
			return r, bad("Refer-To")
		}
		r.Replaces = decoded
	}
	return r, nil
}

func notURI(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"<>\\`, c) }

// CutMethod takes the parameter method out of a URI; "" if it has none. The parameters of
// a SIP URI follow its host, so one in the user part is none.
func CutMethod(uri string) (rest, method string) {
	host := strings.LastIndexByte(uri, '@') + 1
	parts := strings.Split(uri[host:], ";")
	kept := parts[:1]
	for _, p := range parts[1:] {
		if k, v, _ := strings.Cut(p, "="); strings.EqualFold(k, "method") {
			method = strings.ToUpper(v)
			continue
		}
		kept = append(kept, p)
	}
	return uri[:host] + strings.Join(kept, ";"), method
}

func cutScheme(uri, scheme string) (rest string, ok bool) {
	if len(uri) <= len(scheme) || uri[len(scheme)] != ':' || !strings.EqualFold(uri[:len(scheme)], scheme) {
		return uri, false
	}
	return uri[len(scheme)+1:], true
}

// Replaces names the dialog that a call takes over (RFC 3891 3).
type Replaces struct {
	CallID, ToTag, FromTag string
	EarlyOnly              bool
}

// ParseReplaces reads Replaces.
func ParseReplaces(v string) (Replaces, error) {
	parts := splitOn(v, ';')
	if len(parts) == 0 || strings.ContainsAny(parts[0], "= ,") && !strings.Contains(parts[0], "@") {
		return Replaces{}, bad("Replaces")
	}
	p := params(parts[1:])
	_, early := p["early-only"]
	r := Replaces{parts[0], p["to-tag"], p["from-tag"], early}
	if r.CallID == "" || r.ToTag == "" || r.FromTag == "" || strings.IndexFunc(r.String(), notWord) >= 0 {
		return Replaces{}, bad("Replaces")
	}
	return r, nil
}

// notWord is what neither a Call-ID nor a tag has: it would end the header or begin
// another parameter.
func notWord(c rune) bool { return c <= ' ' || c >= 0x7f || c == ',' }

// String is the header's value.
func (r Replaces) String() string {
	s := r.CallID + ";to-tag=" + r.ToTag + ";from-tag=" + r.FromTag
	if r.EarlyOnly {
		s += ";early-only"
	}
	return s
}
