package dialog

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/body"
)

// Phrase is the reason phrase we send with a status.
func Phrase(status int) string {
	if p, ok := phrases[status]; ok {
		return p
	}
	return "Refused"
}

var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 380: "Alternative Service",
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	406: "Not Acceptable", 408: "Request Timeout", 413: "Request Entity Too Large",
	415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension", 422: "Session Interval Too Small",
	480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
	483: "Too Many Hops", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
	489: "Bad Event", 491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented",
	503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported",
	580: "Precondition Failure", 600: "Busy Everywhere", 603: "Decline", 606: "Not Acceptable",
}

func tagOf(p sip.HeaderParams) string { t, _ := p.Get("tag"); return t }

func toTag(m sip.Message) string {
	if h := m.To(); h != nil {
		return tagOf(h.Params)
	}
	return ""
}

func fromTag(m sip.Message) string {
	if h := m.From(); h != nil {
		return tagOf(h.Params)
	}
	return ""
}

// branch names the transaction of a request or response.
func branch(m sip.Message) string {
	if v := m.Via(); v != nil {
		b, _ := v.Params.Get("branch")
		return b
	}
	return ""
}

// Values returns the elements of a comma-separated header, wherever the sender put
// its commas and line breaks. Commas inside quotes and angle brackets do not separate.
func Values(m sip.Message, name string) []string {
	var vs []string
	for _, h := range m.GetHeaders(name) {
		vs = append(vs, splitList(h.Value())...)
	}
	return vs
}

func splitList(s string) []string {
	var vs []string
	start, quoted, angle := 0, false, 0
	cut := func(end int) {
		if v := strings.TrimSpace(s[start:end]); v != "" {
			vs = append(vs, v)
		}
	}
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '\\' && quoted:
			i++
		case ch == '"':
			quoted = !quoted
		case quoted:
		case ch == '<':
			angle++
		case ch == '>' && angle > 0:
			angle--
		case ch == ',' && angle == 0:
			cut(i)
			start = i + 1
		}
	}
	cut(len(s))
	return vs
}

// lists says whether a comma-separated header of tokens has this one.
func lists(m sip.Message, name, token string) bool {
	return slices.ContainsFunc(Values(m, name), func(v string) bool { return strings.EqualFold(v, token) })
}

// value is the first value of a header, "" if there is none.
func value(m sip.Message, name string) string {
	if hs := m.GetHeaders(name); len(hs) > 0 {
		return strings.TrimSpace(hs[0].Value())
	}
	return ""
}

// AddrSpec takes the URI out of a name-addr or addr-spec value.
func AddrSpec(v string) string {
	quoted := false
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] == '\\' && quoted:
			i++
		case v[i] == '"':
			quoted = !quoted
		case v[i] == '<' && !quoted:
			if end := strings.IndexByte(v[i:], '>'); end > 0 {
				return v[i+1 : i+end]
			}
			return ""
		}
	}
	uri, _, _ := strings.Cut(v, ";") // without brackets, parameters are the header's
	return strings.TrimSpace(uri)
}

// Params parses ";a=b;c="d;e"" into lower-case names; the part before the first ; is
// under "".
func Params(v string) map[string]string {
	ps := map[string]string{}
	start, quoted := 0, false
	put := func(end int) {
		part := strings.TrimSpace(v[start:end])
		if start == 0 {
			ps[""] = part
			return
		}
		name, val, _ := strings.Cut(part, "=")
		val = strings.TrimSpace(val)
		if len(val) >= 2 && val[0] == '"' && val[len(val)-1] == '"' {
			val = strings.ReplaceAll(val[1:len(val)-1], `\"`, `"`)
		}
		ps[strings.ToLower(strings.TrimSpace(name))] = val
	}
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] == '\\' && quoted:
			i++
		case v[i] == '"':
			quoted = !quoted
		case v[i] == ';' && !quoted:
			put(i)
			start = i + 1
		}
	}
	put(len(v))
	return ps
}

// seconds reads a delta-seconds value with parameters or a comment behind it.
func seconds(v string) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	end := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		v = v[:end]
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// readReasons fills in what Reason, Warning and Retry-After tell (RFC 3326).
func (e *Ended) readReasons(m sip.Message) {
	reasons := Values(m, "Reason")
	e.Reason = strings.Join(reasons, ", ")
	for _, v := range reasons {
		ps := Params(v)
		cause, _ := strconv.Atoi(ps["cause"])
		switch strings.ToUpper(ps[""]) {
		case "Q.850":
			e.Q850 = cause
		case "SIP":
			e.SIPCause = cause
		case "RELEASE_CAUSE": // what handsets put into their BYE
			e.ReleaseCause = cause
		}
		if t := ps["text"]; t != "" && e.ReasonText == "" {
			e.ReasonText = t
		}
	}
	e.Warning = strings.Join(Values(m, "Warning"), ", ")
	var text string
	e.AltService, text = bodyWords(m)
	e.ReasonText = cmp.Or(e.ReasonText, text)
	e.RetryAfter, _ = seconds(value(m, "Retry-After"))
}

// bodyWords reads what a refusal says in its body: the type of the alternative service and
// the reason beside it (TS 24.229 7.6: application/3gpp-ims+xml), or plain text.
func bodyWords(m sip.Message) (service, text string) {
	for _, p := range parts(m) {
		switch p.Type {
		case "application/3gpp-ims+xml":
			service = strings.ToLower(oneLine(element(p.Data, "type")))
			text = cmp.Or(text, oneLine(element(p.Data, "reason")))
		case "text/plain":
			text = cmp.Or(text, oneLine(string(p.Data)))
		}
	}
	return service, text
}

// element is the text of the first element of a name, wherever it is; "" if there is none.
func element(doc []byte, name string) (text string) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		if start, ok := t.(xml.StartElement); ok && start.Name.Local == name {
			if d.DecodeElement(&text, &start) != nil {
				return ""
			}
			return text
		}
	}
}

// maxWords bounds what is kept of a text that a peer wrote.
const maxWords = 200

// oneLine is the beginning of a text, fit to be shown.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > maxWords {
		s = string(r[:maxWords])
	}
	return s
}

// parts are those of a message's body; nil: it cannot be read.
func parts(m sip.Message) []body.Part {
	all, err := body.Parse(body.Header{Type: value(m, "Content-Type"), Disposition: value(m, "Content-Disposition"),
		Encoding: value(m, "Content-Transfer-Encoding")}, m.Body())
	if err != nil {
		return nil
	}
	return all
}

// SDP returns the session description a message carries, also inside multipart, and
// nil if it has none. One for an early session (RFC 3959) is not the call's.
func SDP(m sip.Message) []byte {
	for _, p := range parts(m) {
		if p.Type == body.SDP && p.Disposition != "early-session" && len(p.Data) > 0 {
			return p.Data
		}
	}
	return nil
}

// newRequest builds a request of this call up to CSeq; what is special comes behind.
func (c *Call) newRequest(m sip.RequestMethod, uri string, routes []string, to string, seq uint32) *sip.Request {
	var r sip.Uri
	// A URI that does not parse is sent as it was given to us: the peer named it.
	if err := sip.ParseUri(uri, &r); err != nil {
		r = sip.Uri{Scheme: "sip", Host: "invalid.invalid"}
	}
	req := sip.NewRequest(m, r)
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: c.o.Transport,
		Host: c.o.Host, Port: c.o.Port, Params: sip.NewParams()}
	via.Params.Add("branch", sip.RFC3261BranchMagicCookie+c.o.ID())
	via.Params.Add("rport", "")
	req.AppendHeader(via)
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	for _, v := range routes {
		req.AppendHeader(sip.NewHeader("Route", v))
	}
	appendAddress(req, "From", c.o.From, c.o.FromTag)
	appendAddress(req, "To", to, "")
	id := sip.CallIDHeader(c.o.CallID)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: m})
	return req
}

// appendAddress adds From or To as sipgo's own type: its transactions look there.
func appendAddress(req *sip.Request, name, addr, tag string) {
	var uri sip.Uri
	ps := sip.NewParams()
	display, err := sip.ParseAddressValue(addr, &uri, &ps)
	if err != nil {
		_ = sip.ParseUri(AddrSpec(addr), &uri) // an empty URI is visible in the trace
	}
	if tag != "" {
		ps.Remove("tag")
		ps.Add("tag", tag)
	}
	if name == "From" {
		req.AppendHeader(&sip.FromHeader{DisplayName: display, Address: uri, Params: ps})
		return
	}
	req.AppendHeader(&sip.ToHeader{DisplayName: display, Address: uri, Params: ps})
}

func add(req sip.Message, name, value string) {
	if value != "" {
		req.AppendHeader(sip.NewHeader(name, value))
	}
}

func setSDP(m sip.Message, sdp []byte) {
	if len(sdp) > 0 {
		ct := sip.ContentTypeHeader("application/sdp")
		m.AppendHeader(&ct)
		m.SetBody(sdp)
		return
	}
	m.SetBody(nil)
}

// inDialog builds a request inside f: its target, its route set, the next CSeq.
func (c *Call) inDialog(f *fork, m sip.RequestMethod, seq uint32) *sip.Request {
	uri, routes := f.target, f.route
	if len(routes) > 0 && !isLoose(routes[0]) {
		// A strict router of RFC 2543 wants its own address in the Request-URI, without what
		// has no place there (RFC 3261 12.2.1.1, 19.1.1).
		uri, routes = requestURI(AddrSpec(routes[0])), append(slices.Clone(routes[1:]), "<"+f.target+">")
	}
	req := c.newRequest(m, uri, routes, f.remote, seq)
	add(req, "User-Agent", c.o.UserAgent)
	return req
}

// requestURI is a URI without headers and method.
func requestURI(uri string) string {
	uri, _, _ = strings.Cut(uri, "?")
	parts := strings.Split(uri, ";")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool {
		return len(p) >= 7 && strings.EqualFold(p[:7], "method=")
	}), ";")
}

func isLoose(route string) bool {
	_, rest, ok := strings.Cut(AddrSpec(route), ";")
	if !ok {
		return false
	}
	for p := range strings.SplitSeq(rest, ";") {
		if name, _, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(name), "lr") {
			return true
		}
	}
	return false
}
