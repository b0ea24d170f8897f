// Package ladder shows the SIP messages of a leg as people read them: one line a message
// with its time, its direction and what matters in it. Unless it is to be whole, no
// number of a subscriber is in it.
package ladder

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

// Ladder is what a leg said and heard, over all its INVITEs, in order of time.
type Ladder struct {
	Leg      string    `json:"leg_id"`
	Full     bool      `json:"full"`
	Dropped  int       `json:"dropped"` // messages from the middle that are no longer there
	Messages []Message `json:"messages"`
}

// Message is one rung.
type Message struct {
	At        time.Time `json:"at"`
	OffsetMs  float64   `json:"offset_ms"` // since the first message
	Direction string    `json:"direction"` // sent | received
	Transport string    `json:"transport"`
	Local     string    `json:"local"`
	Remote    string    `json:"remote"`
	StartLine string    `json:"start_line"`
	CallID    string    `json:"call_id"`
	ICID      string    `json:"icid,omitempty"`
	CSeq      string    `json:"cseq"`
	Headers   []Header  `json:"headers"` // those that matter, in the order they came
	SDP       []string  `json:"sdp"`     // a line for each m-line
	Raw       string    `json:"raw,omitempty"`
}

// Header is one header field.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// New makes a ladder. full has the messages whole, with every number.
func New(t bridge.LegTrace, full bool) Ladder {
	l := Ladder{Leg: t.Leg, Full: full, Dropped: t.Dropped, Messages: []Message{}}
	for _, m := range t.Messages {
		e := read(m, full)
		e.OffsetMs = float64(m.At.Sub(t.Messages[0].At).Microseconds()) / 1000
		l.Messages = append(l.Messages, e)
	}
	return l
}

// shown are the headers of interest, by their long name in lower case. A true one holds
// counters and tokens, not numbers of subscribers.
var shown = map[string]bool{
	"supported": true, "require": true, "unsupported": true, "proxy-require": true, "allow-events": true,
	"rseq": true, "rack": true, "session-expires": true, "min-se": true, "retry-after": true, "expires": true, "min-expires": true,
	"reason": false, "warning": false, "p-early-media": true, "privacy": true, "event": true, "subscription-state": true,
	"refer-to": false, "referred-by": false, "replaces": false, "refer-sub": true, "diversion": false, "history-info": false,
	"p-asserted-identity": false, "p-preferred-identity": false, "p-served-user": false, "p-access-network-info": false,
	"contact": false, "www-authenticate": false, "proxy-authenticate": false, "content-type": true,
}

var compact = map[string]string{"i": "call-id", "k": "supported", "x": "session-expires", "m": "contact", "c": "content-type",
	"r": "refer-to", "b": "referred-by", "o": "event", "u": "allow-events", "l": "content-length", "f": "from", "t": "to", "v": "via"}

// read takes out of a message what is shown of it. It never fails: what cannot be read is
// not shown.
func read(m sip.TraceMessage, full bool) Message {
	mask := Mask
	if full {
		mask = func(s string) string { return s }
	}
	start, headers, body := Split(string(m.Raw))
	e := Message{At: m.At.UTC(), Direction: "received", Transport: m.Transport, Local: m.Local, Remote: m.Remote,
		StartLine: mask(start), Headers: []Header{}, SDP: summarise(body)}
	if m.Sent {
		e.Direction = "sent"
	}
	if full {
		e.Raw = string(m.Raw)
	}
	for _, h := range headers {
		name := strings.ToLower(h.Name)
		if long := compact[name]; long != "" {
			name = long
		}
		switch plain, wanted := shown[name]; {
		case name == "call-id":
			e.CallID = h.Value
		case name == "cseq":
			e.CSeq = h.Value
		case name == "p-charging-vector":
			e.ICID = param(h.Value, "icid-value")
		case wanted && plain:
			e.Headers = append(e.Headers, h)
		case wanted:
			e.Headers = append(e.Headers, Header{h.Name, mask(h.Value)})
		}
	}
	return e
}

// Split takes a message apart: start line, headers with folded lines joined, body.
func Split(raw string) (start string, headers []Header, body string) {
	head, body, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok {
		head, body, _ = strings.Cut(raw, "\n\n")
	}
	for i, line := range strings.Split(strings.ReplaceAll(head, "\r\n", "\n"), "\n") {
		switch {
		case i == 0:
			start = line
		case line != "" && (line[0] == ' ' || line[0] == '\t') && len(headers) > 0:
			headers[len(headers)-1].Value += " " + strings.TrimSpace(line)
		default:
			if name, value, ok := strings.Cut(line, ":"); ok {
				headers = append(headers, Header{strings.TrimSpace(name), strings.TrimSpace(value)})
			}
		}
	}
	return start, headers, body
}

func param(v, name string) string {
	for p := range strings.SplitSeq(v, ";") {
		if k, x, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.Trim(strings.TrimSpace(x), `"`)
		}
	}
	return ""
}

// user is the part of a URI in which a number is, and what a caller may call himself.
var user = regexp.MustCompile(`(?i)\b(sips?:|tel:)([^@;>?\s",]+)`)

// Mask hides the digits of subscribers in a text of a message: those of URIs from five
// digits on (an extension is somebody too), others from seven on.
func Mask(s string) string {
	s = user.ReplaceAllStringFunc(s, func(uri string) string {
		scheme, rest, _ := strings.Cut(uri, ":")
		if digits := strings.Trim(rest, "+"); len(digits) >= 5 && len(digits) < 7 && strings.Trim(digits, "0123456789") == "" {
			return scheme + ":" + rest[:len(rest)-4] + "****"
		}
		return scheme + ":" + bridge.MaskNumbers(rest)
	})
	return bridge.MaskNumbers(s)
}

// summarise is a description in a line for each of its media; nil if the body has none.
func summarise(body string) []string {
	i := strings.Index("\n"+body, "\nv=0")
	if i < 0 {
		return []string{}
	}
	out := []string{}
	conn, direction := "", ""
	var cur *media
	flush := func() {
		if cur != nil {
			out = append(out, cur.String())
		}
	}
	for line := range strings.Lines(body[i:]) {
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 2 || line[1] != '=' {
			continue
		}
		v := line[2:]
		switch line[0] {
		case 'm':
			flush()
			cur = &media{head: v, conn: conn, direction: direction, codecs: map[string]string{}}
			if f := strings.Fields(v); len(f) > 3 {
				cur.payloads = f[3:]
				cur.head = strings.Join(f[:3], " ")
			}
		case 'c':
			if f := strings.Fields(v); len(f) == 3 && cur == nil {
				conn = f[2]
			} else if len(f) == 3 {
				cur.conn = f[2]
			}
		case 'a':
			name, value, _ := strings.Cut(v, ":")
			switch name {
			case "sendrecv", "sendonly", "recvonly", "inactive":
				if cur == nil {
					direction = name
				} else {
					cur.direction = name
				}
				continue
			}
			if cur != nil {
				cur.attribute(name, value)
			}
		}
	}
	flush()
	return out
}

// media is an m-line on its way to a summary.
type media struct {
	head, conn, direction string
	payloads              []string
	codecs                map[string]string // by payload type
	notes                 []string
}

func (m *media) attribute(name, value string) {
	pt, rest, _ := strings.Cut(value, " ")
	switch name {
	case "rtpmap":
		m.codecs[pt] = strings.TrimSuffix(rest, "/1") + m.codecs[pt]
	case "fmtp":
		var keep []string
		for p := range strings.SplitSeq(rest, ";") {
			if p = strings.TrimSpace(p); !strings.HasPrefix(p, "sprop-") && p != "" {
				keep = append(keep, p)
			}
		}
		m.codecs[pt] += "(" + strings.Join(keep, ";") + ")"
	case "curr", "des", "conf", "ptime", "acfg", "pcfg":
		m.notes = append(m.notes, name+" "+value)
	}
}

func (m *media) String() string {
	var codecs []string
	for _, pt := range m.payloads {
		codecs = append(codecs, strings.TrimSpace(pt+" "+m.codecs[pt]))
	}
	direction := m.direction
	if direction == "" {
		direction = "sendrecv"
	}
	s := fmt.Sprintf("%s at %s %s: %s", m.head, m.conn, direction, strings.Join(codecs, ", "))
	if len(m.notes) > 0 {
		s += " | " + strings.Join(m.notes, ", ")
	}
	return s
}

// WriteText writes the ladder as text.
func (l Ladder) WriteText(w io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "leg %s, %d messages", l.Leg, len(l.Messages))
	if l.Dropped > 0 {
		fmt.Fprintf(b, ", %d more from the middle were dropped", l.Dropped)
	}
	b.WriteString("; times are UTC\n")
	last := ""
	for i, m := range l.Messages {
		if m.CallID != last {
			last = m.CallID
			fmt.Fprintf(b, "\nCall-ID %s", m.CallID)
			if k := slices.IndexFunc(l.Messages[i:], func(x Message) bool { return x.ICID != "" && x.CallID == m.CallID }); k >= 0 {
				fmt.Fprintf(b, ", icid %s", l.Messages[i+k].ICID)
			}
			fmt.Fprintf(b, "\n%-24s  %9s  us %-22s  peer %s (%s)\n", "", "", m.Local, m.Remote, m.Transport)
		}
		arrow := "<────"
		if m.Direction == "sent" {
			arrow = "────>"
		}
		fmt.Fprintf(b, "%s  %+9.3f  %s %s   [%s]\n", m.At.Format("2006-01-02 15:04:05.000Z"), m.OffsetMs/1000, arrow, m.StartLine, m.CSeq)
		const indent = "                                          "
		for _, h := range m.Headers {
			fmt.Fprintf(b, "%s%s: %s\n", indent, h.Name, h.Value)
		}
		for _, s := range m.SDP {
			fmt.Fprintf(b, "%sSDP %s\n", indent, s)
		}
		if m.Raw != "" {
			for line := range strings.Lines(m.Raw) {
				fmt.Fprintf(b, "%s| %s\n", indent, strings.TrimRight(line, "\r\n"))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
