// Package ims is what IMS adds to SIP and sipgo does not parse: comma lists of generic
// headers, small typed headers, phone numbers, and the one table that says in words why
// a call ended. Pure functions, no state.
package ims

import (
	"strconv"
	"strings"
)

// Split splits a comma-joined header value. Commas inside quotes or angle brackets do
// not count; empty elements are dropped (RFC 3261 §7.3.1). An unclosed quote or bracket
// runs to the end.
func Split(v string) []string { return splitOn(v, ',') }

// SplitAll splits several header fields of one name into one list, in order.
func SplitAll(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, Split(v)...)
	}
	return all
}

func splitOn(v string, sep byte) []string {
	var out []string
	start := 0
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	quoted, angle := false, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == sep && !angle:
			add(v[start:i])
			start = i + 1
		}
	}
	add(v[start:])
	return out
}

// Has reports whether an option tag is in a Supported, Require or Allow value.
func Has(v, tag string) bool {
	for _, t := range Split(v) {
		if strings.EqualFold(t, tag) {
			return true
		}
	}
	return false
}

// params reads ";a=b;c" parts, names in lower case, quotes removed; the first of a
// name wins.
func params(parts []string) map[string]string {
	m := make(map[string]string, len(parts))
	for _, p := range parts {
		k, v, _ := strings.Cut(p, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		if _, dup := m[k]; !dup && k != "" {
			m[k] = unquote(strings.TrimSpace(v))
		}
	}
	return m
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// number is a decimal of at most limit; ok is false for anything else.
func number(s string, limit uint64) (n uint64, ok bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	return n, err == nil && n <= limit
}
