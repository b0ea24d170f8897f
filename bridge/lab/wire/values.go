package wire

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Params are the ;name=value parameters of a header or URI, names in lower case,
// quotes taken off. A parameter without a value is there with "".
type Params map[string]string

// Addr is a name-addr or addr-spec with its header parameters (RFC 3261 §20.10).
type Addr struct {
	Display string
	URI     string
	Params  Params
}

// URI is a sip:, sips: or tel: URI as far as the lab routes by it.
type URI struct {
	Scheme string
	User   string // of tel:, the number
	Host   string
	Port   int // 0: not given
	Params Params
}

// Via is one Via value.
type Via struct {
	Proto  string // UDP, TCP, TLS
	Host   string
	Port   int // 5060 where not given
	Params Params
}

// SplitList splits at commas that are outside quotes and angle brackets.
func SplitList(v string) []string { return splitOutside(v, ',') }

func splitOutside(v string, sep byte) []string {
	var out []string
	var quoted, angled bool
	start := 0
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angled = true
		case c == '>':
			angled = false
		case c == sep && !angled:
			out = appendTrimmed(out, v[start:i])
			start = i + 1
		}
	}
	return appendTrimmed(out, v[start:])
}

func appendTrimmed(out []string, s string) []string {
	if s = strings.TrimSpace(s); s != "" {
		return append(out, s)
	}
	return out
}

func parseParams(list []string) Params {
	p := Params{}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		v = strings.TrimSpace(v)
		if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		p[strings.ToLower(strings.TrimSpace(k))] = v
	}
	return p
}

// ParseAddr reads `"Name" <uri>;params` or `uri;params`.
func ParseAddr(v string) (Addr, error) {
	parts := splitOutside(v, ';')
	if len(parts) == 0 {
		return Addr{}, fmt.Errorf("%w: empty address", ErrMessage)
	}
	a := Addr{URI: parts[0], Params: parseParams(parts[1:])}
	lt := strings.LastIndexByte(parts[0], '<')
	if lt >= 0 {
		gt := strings.IndexByte(parts[0][lt:], '>')
		if gt < 0 {
			return Addr{}, fmt.Errorf("%w: address %.60q", ErrMessage, v)
		}
		a.Display = strings.Trim(strings.TrimSpace(parts[0][:lt]), `"`)
		a.URI = parts[0][lt+1 : lt+gt]
	}
	if a.URI == "" {
		return Addr{}, fmt.Errorf("%w: address %.60q", ErrMessage, v)
	}
	return a, nil
}

// ParseURI reads sip:, sips: and tel: URIs.
func ParseURI(s string) (URI, error) {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(s), ":")
	u := URI{Scheme: strings.ToLower(scheme)}
	if !ok || rest == "" {
		return u, fmt.Errorf("%w: URI %.60q", ErrMessage, s)
	}
	rest, _, _ = strings.Cut(rest, "?")
	switch u.Scheme {
	case "tel":
		parts := strings.Split(rest, ";")
		u.User, u.Params = parts[0], parseParams(parts[1:])
		return u, nil
	case "sip", "sips":
	default:
		return u, fmt.Errorf("%w: scheme of %.60q", ErrMessage, s)
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		u.User, rest = rest[:at], rest[at+1:]
	}
	parts := strings.Split(rest, ";")
	u.Params = parseParams(parts[1:])
	host, port, err := splitHostPort(parts[0])
	if err != nil {
		return u, fmt.Errorf("%w: URI %.60q", ErrMessage, s)
	}
	u.Host, u.Port = host, port
	return u, nil
}

// splitHostPort takes host, host:port, [v6] and [v6]:port; port 0 if there is none.
func splitHostPort(s string) (string, int, error) {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, ErrMessage
		}
		host, port = s[1:end], strings.TrimPrefix(s[end+1:], ":")
	} else if h, p, ok := strings.Cut(s, ":"); ok {
		host, port = h, p
	}
	if host == "" {
		return "", 0, ErrMessage
	}
	if port == "" {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return host, int(n), err
}

// AddrPort is where a sip: URI with a literal address points, port 5060 by default.
func (u URI) AddrPort() (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(u.Host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	port := u.Port
	if port == 0 {
		port = 5060
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), true
}

// Number is the phone number that a tel: URI or the user part of a sip: URI holds,
// visual separators and parameters taken off; "" if it holds none.
func (u URI) Number() string {
	user, _, _ := strings.Cut(u.User, ";")
	var b strings.Builder
	for i, c := range user {
		switch {
		case c == '+' && i == 0, c >= '0' && c <= '9':
			b.WriteRune(c)
		case c == '-' || c == '.' || c == '(' || c == ')' || c == ' ':
		default:
			return ""
		}
	}
	return b.String()
}

var slashes = regexp.MustCompile(`\s*/\s*`)

// ParseVia reads one Via value.
func ParseVia(v string) (Via, error) {
	parts := splitOutside(v, ';')
	if len(parts) == 0 {
		return Via{}, fmt.Errorf("%w: Via %.60q", ErrMessage, v)
	}
	head := slashes.ReplaceAllString(parts[0], "/") // "SIP / 2.0 / UDP" is legal
	f := strings.Fields(head)
	if len(f) != 2 || !strings.HasPrefix(f[0], "SIP/2.0/") {
		return Via{}, fmt.Errorf("%w: Via %.60q", ErrMessage, v)
	}
	host, port, err := splitHostPort(f[1])
	if err != nil {
		return Via{}, fmt.Errorf("%w: Via %.60q", ErrMessage, v)
	}
	if port == 0 {
		port = 5060
	}
	return Via{strings.ToUpper(f[0][len("SIP/2.0/"):]), host, port, parseParams(parts[1:])}, nil
}

// Token is n random bytes in hex, for tags, branches and Call-IDs.
func Token(n int) string {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic("no randomness: " + err.Error()) // crypto/rand never fails on Linux
	}
	return hex.EncodeToString(b)
}

// Branch is a new Via branch (RFC 3261 §8.1.1.7).
func Branch() string { return "z9hG4bK" + Token(8) }
