package sip

import (
	"bytes"
	"strings"
)

// tidied are the headers whose blanks tidy takes out: those that sipgo reads as what they
// are. Anything else it keeps as it came.
var tidied = map[string]bool{"via": true, "from": true, "to": true, "contact": true, "route": true, "record-route": true,
	"cseq": true, "refer-to": true, "referred-by": true}

// tidy takes the blanks and line folds out of a message that the grammar allows around
// separators (RFC 3261 25.1: SEMI, EQUAL, SLASH …) and sipgo 1.7 does not: to it the From of
// "tag = x" has no tag, and "SIP / 2.0 / UDP" another transport. And it writes compact names in
// full (7.3.3), of which sipgo knows six. Nothing else changes; a message without either, which
// is nearly every one, comes back as it is.
func tidy(msg []byte) []byte {
	end := bytes.Index(msg, []byte("\r\n\r\n"))
	if end < 0 {
		return msg
	}
	var out []byte // nil as long as nothing changed
	done := 0      // msg up to here is in out
	line := bytes.Index(msg, []byte("\r\n"))
	for at := line + 2; at < end+2; {
		stop := at // end of the field, continuation lines included
		for {
			n := bytes.Index(msg[stop:], []byte("\r\n"))
			stop += n
			if stop >= end || msg[stop+2] != ' ' && msg[stop+2] != '\t' {
				break
			}
			stop += 2
		}
		field := msg[at:stop]
		if colon := bytes.IndexByte(field, ':'); colon > 0 {
			name := strings.ToLower(string(bytes.TrimRight(field[:colon], " \t")))
			if long := longNames[name]; long != "" {
				out = append(append(out, msg[done:at]...), long...)
				done, name = at+colon, strings.ToLower(long)
			}
			if tidied[name] {
				value := strings.TrimSpace(string(field[colon+1:]))
				if v := squeeze(name, value); v != value {
					out = append(out, msg[done:at+colon+1]...)
					out = append(append(out, ' '), v...)
					done = stop
				}
			}
		}
		at = stop + 2
	}
	if out == nil {
		return msg
	}
	return append(out, msg[done:]...)
}

// squeeze takes the blanks around separators out of one value. What is quoted or in angle
// brackets is left alone but for its folds.
func squeeze(name, v string) string {
	if !strings.ContainsAny(v, " \t") {
		return v
	}
	if name == "cseq" {
		return strings.Join(strings.Fields(v), " ")
	}
	separators := ";=,"
	if name == "via" {
		separators = ";=,/:"
	}
	b := make([]byte, 0, len(v))
	quoted, angle := false, false
	blank := -1 // where in b the run of blanks before this begins, -1 none
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		switch {
		case quoted:
			if c == '\\' && i+1 < len(v) {
				b = append(b, c)
				i++
				c = v[i]
			} else if c == '"' {
				quoted = false
			}
		case angle:
			angle = c != '>'
		case c == ' ' || c == '\t':
			if blank < 0 {
				blank = len(b)
			}
			if blank > 0 && strings.IndexByte(separators, b[blank-1]) >= 0 {
				continue // after a separator
			}
		case strings.IndexByte(separators, c) >= 0 && blank >= 0:
			b = b[:blank] // before one
		case c == '"':
			quoted = true
		case c == '<':
			angle = true
		}
		if quoted || angle || c != ' ' && c != '\t' {
			blank = -1
		}
		b = append(b, c)
	}
	return string(b)
}
