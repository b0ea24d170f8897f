package sip

import (
	"slices"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/body"
	"sparkle/sip/dialog"
	"sparkle/sip/digest"
)

// verdict is what the front handler says of a request: 0 lets it pass.
type verdict struct {
	status int
	header dialog.Header      // what the status must carry
	ask    []digest.Challenge // of a 401: the strongest first
	usual  bool               // no refusal: an answer to OPTIONS, a 401 to who was not asked before
}

// headers are what an answer of this verdict has besides those that every answer has.
func (v verdict) headers() []dialog.Header {
	var hs []dialog.Header
	if v.header.Name != "" {
		hs = append(hs, v.header)
	}
	for _, c := range v.ask { // a field for each (RFC 8760 2.4)
		hs = append(hs, dialog.Header{Name: "WWW-Authenticate", Value: c.String()})
	}
	if v.status == 200 {
		hs = append(hs, dialog.Header{Name: "Allow", Value: allow}, dialog.Header{Name: "Accept", Value: accepted},
			dialog.Header{Name: "Supported", Value: strings.Join(known, ", ")}, allowEvents)
	}
	return hs
}

// single are the headers every request has exactly once (RFC 3261 8.1.1).
var single = []string{"From", "To", "Call-ID", "CSeq"}

// malformed checks what whoever touches a request must be able to rely on.
func malformed(req *sipgo.Request) verdict {
	for _, name := range single {
		if len(req.GetHeaders(name)) != 1 {
			return verdict{status: 400}
		}
	}
	for _, name := range []string{"Max-Forwards", "Content-Length", "Content-Type"} {
		if len(req.GetHeaders(name)) > 1 {
			return verdict{status: 400}
		}
	}
	seq, id, from := req.CSeq(), req.CallID(), req.From()
	switch {
	case req.Via() == nil, seq == nil, id == nil || *id == "", from == nil, req.To() == nil:
		return verdict{status: 400}
	case !strings.EqualFold(req.SipVersion, "SIP/2.0"):
		return verdict{status: 505}
	case seq.MethodName != req.Method || seq.SeqNo >= 1<<31:
		return verdict{status: 400}
	}
	return verdict{}
}

// validate checks a request before anything looks into it. Its rows are in the order
// of RFC 3261 8.2.
func validate(req *sipgo.Request) verdict {
	if v := malformed(req); v.status != 0 {
		return v
	}
	switch {
	case !slices.Contains(methods, string(req.Method)):
		return verdict{status: 405, header: dialog.Header{Name: "Allow", Value: allow}}
	case req.IsAck():
		return verdict{} // nothing may answer it
	case req.MaxForwards() != nil && req.MaxForwards().Val() == 0 && req.Method != sipgo.OPTIONS:
		return verdict{status: 483}
	}
	// An emergency call (RFC 5031) is the owner's to refuse, and to record.
	sos := req.IsInvite() && strings.HasPrefix(strings.ToLower(req.Recipient.String()), "urn:service:sos")
	if !sos && !knownScheme(req.Recipient.Scheme) {
		return verdict{status: 416}
	}
	if unknown := unsupported(req); req.Method != sipgo.CANCEL && len(unknown) > 0 {
		return verdict{status: 420, header: dialog.Header{Name: "Unsupported", Value: strings.Join(unknown, ", ")}}
	}
	if enc := first(req, "Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") && len(req.Body()) > 0 &&
		req.Method != sipgo.BYE && req.Method != sipgo.CANCEL { // those end a call whatever they say about it
		return verdict{status: 415, header: dialog.Header{Name: "Accept-Encoding", Value: "identity"}}
	}
	if v := unreadable(req); v.status != 0 {
		return v
	}
	if req.IsInvite() && !accepts(dialog.Values(req, "Accept"), body.SDP) {
		return verdict{status: 406}
	}
	return verdict{}
}

// known are the option tags that a request may require of us.
var known = []string{"100rel", "timer", "replaces", "precondition", "norefersub", "multiple-refer", "recipient-list-invite"}

// unsupported are the option tags a request requires and we do not know.
func unsupported(req *sipgo.Request) []string {
	return slices.DeleteFunc(dialog.Values(req, "Require"), func(tag string) bool {
		return slices.Contains(known, strings.ToLower(tag))
	})
}

// accepted are the types of bodies we read, as we tell peers.
const accepted = body.SDP + ", multipart/mixed, " + body.ResourceLists

// unreadable says what is wrong with the body of an INVITE or REFER (RFC 3261 8.2.3); that of
// other requests is their reader's to refuse. In a multipart, parts that we do not know are passed over as long as there is one that we do
// and nobody says they must be handled: networks add what concerns others.
func unreadable(req *sipgo.Request) verdict {
	if !req.IsInvite() && req.Method != sipgo.REFER || len(req.Body()) == 0 {
		return verdict{}
	}
	unknown := verdict{status: 415, header: dialog.Header{Name: "Accept", Value: accepted}}
	if first(req, "Content-Type") == "" {
		return unknown
	}
	parts, err := bodyParts(req)
	if err != nil {
		return verdict{status: 400}
	}
	understood := 0
	for _, p := range parts {
		switch {
		case p.Type == body.SDP, p.Type == body.ResourceLists:
			understood++
		case p.Handling == "required":
			return unknown
		case p.Handling == "optional" && len(parts) == 1:
			understood++ // it says itself that it may be passed over
		}
	}
	if understood == 0 {
		return unknown
	}
	if _, err := body.Recipients(parts); err != nil {
		return verdict{status: 400}
	}
	return verdict{}
}

// recipients are the URIs of an INVITE's recipient list (RFC 5366), and those that are hidden;
// nil if it has none.
func recipients(req *sipgo.Request) (all, hidden []string) {
	parts, err := bodyParts(req)
	if err != nil {
		return nil, nil // unreadable has refused it
	}
	list, _ := body.Recipients(parts)
	return body.URIs(list)
}
