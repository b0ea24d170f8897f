package ims

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrSyntax is wrapped by the errors of all parsers here, with the header's name.
var ErrSyntax = errors.New("malformed header")

func bad(name string) error { return fmt.Errorf("%s: %w", name, ErrSyntax) }

// ParseRSeq reads RSeq: 1 … 2^32-1 (RFC 3262 §7.1).
func ParseRSeq(v string) (uint32, error) {
	n, ok := number(v, 1<<32-1)
	if !ok || n == 0 {
		return 0, bad("RSeq")
	}
	return uint32(n), nil
}

// RAck names the reliable provisional response a PRACK acknowledges (RFC 3262 §7.2).
type RAck struct {
	RSeq   uint32
	CSeq   uint32
	Method string
}

// String is the header value.
func (r RAck) String() string { return fmt.Sprintf("%d %d %s", r.RSeq, r.CSeq, r.Method) }

// ParseRAck reads RAck.
func ParseRAck(v string) (RAck, error) {
	f := strings.Fields(v)
	if len(f) != 3 {
		return RAck{}, bad("RAck")
	}
	rseq, ok1 := number(f[0], 1<<32-1)
	cseq, ok2 := number(f[1], 1<<31-1)
	if !ok1 || !ok2 || rseq == 0 {
		return RAck{}, bad("RAck")
	}
	return RAck{uint32(rseq), uint32(cseq), f[2]}, nil
}

// maxSeconds bounds what a peer may have us add to a clock: 10 years.
const maxSeconds = 10 * 365 * 86400

// SessionExpires is RFC 4028 §4. Refresher is "uac", "uas" or "".
type SessionExpires struct {
	Interval  time.Duration
	Refresher string
}

// String is the header value.
func (s SessionExpires) String() string {
	v := fmt.Sprint(int(s.Interval / time.Second))
	if s.Refresher != "" {
		v += ";refresher=" + s.Refresher
	}
	return v
}

// ParseSessionExpires reads Session-Expires (x).
func ParseSessionExpires(v string) (SessionExpires, error) {
	parts := splitOn(v, ';')
	if len(parts) == 0 {
		return SessionExpires{}, bad("Session-Expires")
	}
	n, ok := number(parts[0], maxSeconds)
	if !ok || n == 0 {
		return SessionExpires{}, bad("Session-Expires")
	}
	s := SessionExpires{Interval: time.Duration(n) * time.Second}
	switch r := strings.ToLower(params(parts[1:])["refresher"]); r {
	case "uac", "uas":
		s.Refresher = r
	}
	return s, nil
}

// ParseSeconds reads Min-SE, Min-Expires, Expires: seconds, parameters ignored.
func ParseSeconds(v string) (time.Duration, error) {
	parts := splitOn(v, ';')
	if len(parts) == 0 {
		return 0, bad("seconds")
	}
	n, ok := number(parts[0], 1<<32-1)
	if !ok {
		return 0, bad("seconds")
	}
	return time.Duration(min(n, maxSeconds)) * time.Second, nil
}

// ParseRetryAfter reads Retry-After: "120 (maintenance);duration=60".
func ParseRetryAfter(v string) (time.Duration, error) {
	v, _, _ = strings.Cut(v, ";")
	v, _, _ = strings.Cut(v, "(")
	d, err := ParseSeconds(v)
	if err != nil {
		return 0, bad("Retry-After")
	}
	return d, nil
}

// Reason is one value of a Reason header (RFC 3326): protocol "SIP", "Q.850",
// "RELEASE_CAUSE" (TS 24.229 §7.2A.18).
type Reason struct {
	Protocol string
	Cause    int // 0: not said
	Text     string
}

// String is the header value.
func (r Reason) String() string {
	v := r.Protocol
	if r.Cause != 0 {
		v += fmt.Sprintf(";cause=%d", r.Cause)
	}
	if r.Text != "" {
		v += ";text=" + quote(r.Text)
	}
	return v
}

// ParseReasons reads all Reason fields of a message. What does not parse is left out:
// a reason is a hint.
func ParseReasons(values []string) []Reason {
	var out []Reason
	for _, v := range SplitAll(values) {
		parts := splitOn(v, ';')
		if len(parts) == 0 || strings.Contains(parts[0], "=") {
			continue
		}
		p := params(parts[1:])
		n, _ := number(p["cause"], 999)
		out = append(out, Reason{Protocol: strings.ToUpper(parts[0]), Cause: int(n), Text: p["text"]})
	}
	return out
}

// Causes picks what the outcome table wants out of reasons: the first of each kind, and
// the first text.
func Causes(rs []Reason) (q850, sip, release int, text string) {
	for _, r := range rs {
		switch {
		case r.Protocol == "Q.850" && q850 == 0:
			q850 = r.Cause
		case r.Protocol == "SIP" && sip == 0:
			sip = r.Cause
		case r.Protocol == "RELEASE_CAUSE" && release == 0:
			release = r.Cause
		}
		if text == "" {
			text = r.Text
		}
	}
	return q850, sip, release, text
}

// Warning is one value of a Warning header (RFC 3261 §20.43).
type Warning struct {
	Code  int
	Agent string
	Text  string
}

// String is the header value.
func (w Warning) String() string { return fmt.Sprintf("%03d %s %s", w.Code, w.Agent, quote(w.Text)) }

// ParseWarnings reads all Warning fields; what does not parse is left out.
func ParseWarnings(values []string) []Warning {
	var out []Warning
	for _, v := range SplitAll(values) {
		code, rest, _ := strings.Cut(v, " ")
		agent, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, ok := number(code, 999); ok && n >= 100 {
			out = append(out, Warning{int(n), agent, unquote(strings.TrimSpace(text))})
		}
	}
	return out
}

// ChargingVector is P-Charging-Vector (RFC 7315 §5.6). ICID names the call to billing.
type ChargingVector struct {
	ICID        string
	GeneratedAt string
	OrigIOI     string
	TermIOI     string
}

// String is the header value.
func (c ChargingVector) String() string {
	v := "icid-value=" + quote(c.ICID)
	for _, p := range []struct{ k, v string }{
		{"icid-generated-at", c.GeneratedAt}, {"orig-ioi", c.OrigIOI}, {"term-ioi", c.TermIOI}} {
		if p.v != "" {
			v += ";" + p.k + "=" + p.v
		}
	}
	return v
}

// ParseChargingVector reads P-Charging-Vector; without an icid it is worth nothing.
func ParseChargingVector(v string) (ChargingVector, error) {
	p := params(splitOn(v, ';'))
	c := ChargingVector{p["icid-value"], p["icid-generated-at"], p["orig-ioi"], p["term-ioi"]}
	if c.ICID == "" {
		return c, bad("P-Charging-Vector")
	}
	return c, nil
}

// AddrSpec is the URI of a name-addr or addr-spec: `"Bob" <tel:+1>;x` gives `tel:+1`.
// ok is false if there is none.
func AddrSpec(v string) (uri string, ok bool) {
	quoted := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == '<':
			uri, _, ok = strings.Cut(v[i+1:], ">")
			return uri, ok && strings.Contains(uri, ":")
		}
	}
	uri, _, _ = strings.Cut(strings.TrimSpace(v), ";") // addr-spec: parameters are the header's
	return uri, strings.Contains(uri, ":") && !strings.ContainsAny(uri, "\" \t")
}

// ParseAddrs reads P-Asserted-Identity, P-Associated-URI, Path …: the URIs of all
// fields in order. What is no address is left out.
func ParseAddrs(values []string) []string {
	var out []string
	for _, v := range SplitAll(values) {
		if u, ok := AddrSpec(v); ok {
			out = append(out, u)
		}
	}
	return out
}

// AssertedNumber is the caller's number of P-Asserted-Identity, tel: preferred
// (IMS.md §4.1).
func AssertedNumber(values []string) (Number, bool) {
	var found Number
	for _, u := range ParseAddrs(values) {
		n, err := ParseNumber(u)
		if err != nil {
			continue
		}
		if strings.HasPrefix(strings.ToLower(u), "tel:") {
			return n, true
		}
		if found == "" {
			found = n
		}
	}
	return found, found != ""
}

// EarlyMedia is P-Early-Media (RFC 5009).
type EarlyMedia struct {
	Supported bool
	Gated     bool
	Direction string // of the first media line: sendrecv, sendonly, recvonly, inactive, ""
}

// ParseEarlyMedia reads P-Early-Media. Unknown words are skipped.
func ParseEarlyMedia(v string) EarlyMedia {
	var e EarlyMedia
	for _, w := range Split(v) {
		switch w = strings.ToLower(w); w {
		case "supported":
			e.Supported = true
		case "gated":
			e.Gated = true
		case "sendrecv", "sendonly", "recvonly", "inactive":
			if e.Direction == "" {
				e.Direction = w
			}
		}
	}
	return e
}
