package sip

import (
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// raw is as much of a message as can be found without believing it: the start line and
// the header lines, unfolded, long names in lower case. It is there to answer what the
// parser refuses.
type raw struct {
	method, uri, version string // of a request; "" if the start line is none
	headers              []rawHeader
}

type rawHeader struct{ name, value string }

// longNames are the headers with a compact form (RFC 3261 7.3.3; IANA, SIP Header Fields).
var longNames = map[string]string{"a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
	"e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported", "l": "Content-Length", "m": "Contact",
	"n": "Identity-Info", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity"}

// maxRawHeaders bounds the work on a message that is nothing but headers: with so many it
// is refused.
const maxRawHeaders = 256

func readRaw(data []byte) raw {
	head, _, _ := strings.Cut(string(data), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	var r raw
	if words := strings.Fields(lines[0]); len(words) >= 3 && !strings.HasPrefix(strings.ToUpper(words[0]), "SIP/") {
		if v := words[len(words)-1]; len(v) > 4 && strings.EqualFold(v[:4], "SIP/") {
			r.method, r.uri, r.version = words[0], words[1], v
		}
	}
	for _, line := range lines[1:] {
		if len(r.headers) == maxRawHeaders {
			break
		}
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(r.headers) > 0 {
			r.headers[len(r.headers)-1].value += " " + printable(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if long := longNames[name]; long != "" {
			name = strings.ToLower(long)
		}
		r.headers = append(r.headers, rawHeader{name, printable(value)})
	}
	return r
}

// printable takes control characters out: what goes back must be one line.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' || c == 0x7f {
			return -1
		}
		return c
	}, s))
}

// tagged says whether a To has a tag: a name in quotes may look like one.
func tagged(to string) bool {
	return tagParam.MatchString(to[max(strings.LastIndexByte(to, '>'), 0):])
}

func (r raw) request() bool { return r.method != "" }

func (r raw) first(name string) string {
	for _, h := range r.headers {
		if h.name == name {
			return h.value
		}
	}
	return ""
}

var schemeRE = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)

// strange says whether the Request-URI is one of a scheme that we do not know.
func (r raw) strange() bool {
	m := schemeRE.FindStringSubmatch(r.uri)
	return m != nil && !knownScheme(m[1])
}

func knownScheme(s string) bool {
	return strings.EqualFold(s, "sip") || strings.EqualFold(s, "sips") || strings.EqualFold(s, "tel")
}

// seqMethod is the method in CSeq.
func (r raw) seqMethod() string {
	if f := strings.Fields(r.first("cseq")); len(f) == 2 {
		return f[1]
	}
	return ""
}

var (
	sentByRE = regexp.MustCompile(`(?i)^SIP\s*/\s*[0-9.]+\s*/\s*[^\s]+\s+(\[[^\]]*\]|[^\s;:,]+)\s*(?::\s*([0-9]{1,5}))?`)
	rport    = regexp.MustCompile(`(?i);\s*rport\s*(;|$)`)
	tagParam = regexp.MustCompile(`(?i);\s*tag\s*=`)
)

// sentBy is the host and port of the top Via: who sent the request (RFC 3261 18.1.1).
func (r raw) sentBy() (host string, port int, ok bool) {
	m := sentByRE.FindStringSubmatch(r.first("via"))
	if m == nil {
		return "", 0, false
	}
	port = 5060
	if m[2] != "" {
		port, _ = strconv.Atoi(m[2])
	}
	return strings.Trim(m[1], "[]"), port, true
}

// response builds an answer and the port it goes to on UDP: the one it came from if
// that was asked for (RFC 3581), else that of its sent-by. Without a Via and what else
// a response must copy (RFC 3261 8.2.6.2) there is none, nor to an ACK.
func (r raw) response(from net.Addr, status int, phrase string, extra []string) (res []byte, port int, ok bool) {
	if !r.request() || strings.EqualFold(r.method, "ACK") {
		return nil, 0, false
	}
	source, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return nil, 0, false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", status, phrase)
	vias := 0
	for _, h := range r.headers {
		if h.name != "via" {
			continue
		}
		v := h.value
		if vias++; vias == 1 {
			top, rest, more := strings.Cut(v, ",")
			m := sentByRE.FindStringSubmatch(top)
			if m == nil {
				return nil, 0, false
			}
			port = 5060
			if m[2] != "" {
				if port, err = strconv.Atoi(m[2]); err != nil || port < 1 || port > 65535 {
					return nil, 0, false
				}
			}
			top += ";received=" + source.Addr().Unmap().String()
			if rport.MatchString(top) {
				port = int(source.Port())
				top = rport.ReplaceAllString(top, ";rport="+strconv.Itoa(port)+"$1")
			}
			if v = top; more {
				v += "," + rest
			}
		}
		fmt.Fprintf(&b, "Via: %s\r\n", v)
	}
	if vias == 0 {
		return nil, 0, false
	}
	for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
		v := r.first(strings.ToLower(name))
		if v == "" {
			return nil, 0, false
		}
		if name == "To" && !tagged(v) {
			v += ";tag=" + r.tag()
		}
		fmt.Fprintf(&b, "%s: %s\r\n", name, v)
	}
	for _, line := range extra {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return []byte(b.String()), port, true
}

var tagSeed = maphash.MakeSeed()

// tag is ours in an answer without a transaction: the same in each answer to the same request
// (RFC 3261 8.2.7).
func (r raw) tag() string {
	var h maphash.Hash
	h.SetSeed(tagSeed)
	for _, name := range []string{"via", "from", "call-id", "cseq"} {
		h.WriteString(r.first(name))
		h.WriteByte(0)
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// accepts says whether the values of Accept, if there are any, let us answer with a body of a type.
func accepts(values []string, kind string) bool {
	if len(values) == 0 {
		return true
	}
	family, _, _ := strings.Cut(kind, "/")
	return slices.ContainsFunc(values, func(v string) bool {
		v, _, _ = strings.Cut(v, ";")
		v = strings.ToLower(strings.TrimSpace(v))
		return v == kind || v == family+"/*" || v == "*/*"
	})
}
