// Package wire is the lab's own SIP: messages, sockets and transactions. It shares
// nothing with the daemon's stack on purpose, so that a mistake of one shows up
// against the other instead of hiding on both sides.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of one message. A real handset's video INVITE is about 3 kB.
const (
	MaxMessage = 65535
	maxHeaders = 256
)

// ErrMessage is what every parse error is.
var ErrMessage = errors.New("bad SIP message")

// Header is one header line; Name is in its long form.
type Header struct{ Name, Value string }

// Message is a request (Method and URI set) or a response (Status set). Headers keep
// their order and, except for list headers of routing, their exact value.
type Message struct {
	Method  string
	URI     string
	Status  int
	Phrase  string
	Headers []Header
	Body    []byte
}

// longName expands compact forms and settles the spelling of what the lab looks up.
var longName = map[string]string{
	"v": "Via", "f": "From", "t": "To", "m": "Contact", "i": "Call-ID",
	"l": "Content-Length", "c": "Content-Type", "k": "Supported", "r": "Refer-To",
	"b": "Referred-By", "s": "Subject", "e": "Content-Encoding", "o": "Event",
	"u": "Allow-Events", "a": "Accept-Contact", "x": "Session-Expires",
}

// listed headers come apart at their commas when a message is parsed, since a proxy
// takes their values off one by one.
var listed = map[string]bool{"via": true, "route": true, "record-route": true, "service-route": true, "path": true}

// Parse reads one message, of a datagram or a stream's frame. Bytes after the body
// that Content-Length announces are dropped (RFC 3261 §18.3); a body shorter than
// announced is an error.
func Parse(data []byte) (*Message, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", ErrMessage, len(data))
	}
	head, body, ok := cutHead(data)
	if !ok {
		return nil, fmt.Errorf("%w: headers do not end", ErrMessage)
	}
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	m := &Message{}
	if err := m.parseStart(lines[0]); err != nil {
		return nil, err
	}
	if err := m.parseHeaders(lines[1:]); err != nil {
		return nil, err
	}
	for _, name := range []string{"From", "To", "Call-ID", "CSeq", "Via"} {
		if m.Get(name) == "" {
			return nil, fmt.Errorf("%w: no %s", ErrMessage, name)
		}
	}
	if seq, method := m.CSeq(); method == "" || seq >= 1<<31 || m.Method != "" && method != m.Method {
		return nil, fmt.Errorf("%w: CSeq %q", ErrMessage, m.Get("CSeq"))
	}
	if l := m.Values("Content-Length"); len(l) > 1 {
		return nil, fmt.Errorf("%w: %d Content-Lengths", ErrMessage, len(l))
	}
	if l := m.Get("Content-Length"); l != "" {
		n, err := strconv.Atoi(l)
		if err != nil || n < 0 || n > len(body) {
			return nil, fmt.Errorf("%w: Content-Length %q with %d bytes of body", ErrMessage, l, len(body))
		}
		body = body[:n]
	}
	m.Del("Content-Length")
	m.Body = bytes.Clone(body)
	return m, nil
}

// cutHead splits at the first empty line; bare LF is tolerated.
func cutHead(data []byte) (head, body []byte, ok bool) {
	for i := 0; i < len(data); i++ {
		if data[i] != '\n' {
			continue
		}
		rest := data[i+1:]
		switch {
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return data[:i], rest[2:], true
		case bytes.HasPrefix(rest, []byte("\n")):
			return data[:i], rest[1:], true
		}
	}
	return nil, nil, false
}

func (m *Message) parseStart(line string) error {
	line = strings.TrimSuffix(line, "\r")
	a, rest, ok := strings.Cut(line, " ")
	if !ok {
		return fmt.Errorf("%w: start line %.60q", ErrMessage, line)
	}
	if a == "SIP/2.0" {
		code, phrase, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(code)
		if err != nil || n < 100 || n > 699 {
			return fmt.Errorf("%w: status %.20q", ErrMessage, code)
		}
		m.Status, m.Phrase = n, phrase
		return nil
	}
	uri, version, ok := strings.Cut(rest, " ")
	if !ok || version != "SIP/2.0" || a == "" || uri == "" {
		return fmt.Errorf("%w: start line %.60q", ErrMessage, line)
	}
	m.Method, m.URI = a, uri
	return nil
}

func (m *Message) parseHeaders(lines []string) error {
	for _, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		if line[0] == ' ' || line[0] == '\t' { // folded
			if len(m.Headers) == 0 {
				return fmt.Errorf("%w: a folded line without a header", ErrMessage)
			}
			m.Headers[len(m.Headers)-1].Value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return fmt.Errorf("%w: header %.60q", ErrMessage, line)
		}
		if l, short := longName[strings.ToLower(name)]; short {
			name = l
		}
		m.Headers = append(m.Headers, Header{name, strings.TrimSpace(value)})
		if len(m.Headers) > maxHeaders {
			return fmt.Errorf("%w: more than %d headers", ErrMessage, maxHeaders)
		}
	}
	m.splitListed()
	return nil
}

func (m *Message) splitListed() {
	var out []Header
	for _, h := range m.Headers {
		if !listed[strings.ToLower(h.Name)] || !strings.Contains(h.Value, ",") {
			out = append(out, h)
			continue
		}
		for _, v := range SplitList(h.Value) {
			out = append(out, Header{h.Name, v})
		}
	}
	m.Headers = out
}

// Bytes is the message as it goes out, with a Content-Length of its body.
func (m *Message) Bytes() []byte {
	var b bytes.Buffer
	if m.Method != "" {
		fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", m.Method, m.URI)
	} else {
		fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", m.Status, m.Phrase)
	}
	for _, h := range m.Headers {
		b.WriteString(h.Name)
		b.WriteString(": ")
		b.WriteString(h.Value)
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(m.Body))
	b.Write(m.Body)
	return b.Bytes()
}

// Clone is a copy that shares only the body.
func (m *Message) Clone() *Message {
	c := *m
	c.Headers = append([]Header(nil), m.Headers...)
	return &c
}

// Get is the first value of a header, "" if there is none.
func (m *Message) Get(name string) string {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Values are all values of a header, list headers taken apart.
func (m *Message) Values(name string) []string {
	var out []string
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			out = append(out, SplitList(h.Value)...)
		}
	}
	return out
}

// Has says whether a list header (Supported, Require, Allow) holds a token.
func (m *Message) Has(name, token string) bool {
	for _, v := range m.Values(name) {
		if strings.EqualFold(v, token) {
			return true
		}
	}
	return false
}

// Add appends a header line.
func (m *Message) Add(name, value string) {
	m.Headers = append(m.Headers, Header{name, value})
}

// Set replaces all lines of a header by one.
func (m *Message) Set(name, value string) {
	for i, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			m.Headers[i].Value = value
			rest := m.Headers[i+1:]
			m.Headers = m.Headers[:i+1]
			for _, o := range rest {
				if !strings.EqualFold(o.Name, name) {
					m.Headers = append(m.Headers, o)
				}
			}
			return
		}
	}
	m.Add(name, value)
}

// Prepend puts a header line before all others, so before others of its name.
func (m *Message) Prepend(name, value string) {
	m.Headers = append([]Header{{name, value}}, m.Headers...)
}

// Del removes all lines of a header.
func (m *Message) Del(name string) {
	out := m.Headers[:0]
	for _, h := range m.Headers {
		if !strings.EqualFold(h.Name, name) {
			out = append(out, h)
		}
	}
	m.Headers = out
}

// Pop removes and returns the first line of a header.
func (m *Message) Pop(name string) string {
	for i, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			m.Headers = append(m.Headers[:i:i], m.Headers[i+1:]...)
			return h.Value
		}
	}
	return ""
}

// CSeq is the sequence number and method; method is "" if the header is broken.
func (m *Message) CSeq() (uint32, string) {
	f := strings.Fields(m.Get("CSeq"))
	if len(f) != 2 {
		return 0, ""
	}
	n, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil {
		return 0, ""
	}
	return uint32(n), f[1]
}

// FromTag and ToTag are the dialog's halves of a message.
func (m *Message) FromTag() string { return addrTag(m.Get("From")) }

// ToTag is "" in a request that opens a dialog.
func (m *Message) ToTag() string { return addrTag(m.Get("To")) }

func addrTag(v string) string {
	a, err := ParseAddr(v)
	if err != nil {
		return ""
	}
	return a.Params["tag"]
}

// Reply makes the response to a request: Via, From, To, Call-ID, CSeq copied, and
// toTag added to To when it has none (RFC 3261 §8.2.6). phrase "" takes the usual one.
func (m *Message) Reply(status int, phrase, toTag string) *Message {
	if phrase == "" {
		phrase = Phrase(status)
	}
	r := &Message{Status: status, Phrase: phrase}
	for _, h := range m.Headers {
		switch strings.ToLower(h.Name) {
		case "via", "from", "call-id", "cseq":
			r.Headers = append(r.Headers, h)
		case "to":
			if toTag != "" && status > 100 && addrTag(h.Value) == "" {
				h.Value += ";tag=" + toTag
			}
			r.Headers = append(r.Headers, h)
		}
	}
	return r
}

var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 183: "Session Progress",
	199: "Early Dialog Terminated", 200: "OK", 202: "Accepted", 400: "Bad Request",
	401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	408: "Request Timeout", 415: "Unsupported Media Type", 420: "Bad Extension",
	423: "Interval Too Brief", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
	483: "Too Many Hops", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
	491: "Request Pending", 500: "Server Internal Error", 503: "Service Unavailable",
	504: "Server Time-out", 580: "Precondition Failure", 600: "Busy Everywhere", 603: "Decline",
	604: "Does Not Exist Anywhere",
}

// Phrase is the usual reason phrase of a status.
func Phrase(status int) string {
	if p, ok := phrases[status]; ok {
		return p
	}
	return "Status " + strconv.Itoa(status)
}
