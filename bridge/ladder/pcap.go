package ladder

import (
	"cmp"
	"io"
	"net/netip"
	"regexp"
	"strings"

	"sparkle/bridge"
	"sparkle/bridge/pcap"
	"sparkle/sip"
)

// WritePcap writes the messages of a leg as a capture file. Each is a UDP datagram, also
// what went over TCP or TLS: messages are kept, not segments. Unless it is to be full,
// subscribers' digits, credentials and keys pressed are stars, byte for byte, so that
// every length still holds.
func WritePcap(w io.Writer, t bridge.LegTrace, full bool) error {
	out, err := pcap.NewWriter(w)
	if err != nil {
		return err
	}
	for _, m := range t.Messages {
		if err := WriteMessage(out, m, full); err != nil {
			return err
		}
	}
	return nil
}

// WriteMessage writes one message as WritePcap does. One of a transport that told no address
// is left out: it can be in the ladder only.
func WriteMessage(out *pcap.Writer, m sip.TraceMessage, full bool) error {
	from, err := netip.ParseAddrPort(m.Local)
	to, err2 := netip.ParseAddrPort(m.Remote)
	if cmp.Or(err, err2) != nil {
		return nil
	}
	if from.Addr().IsUnspecified() {
		from = netip.AddrPortFrom(to.Addr(), from.Port())
	}
	if !m.Sent {
		from, to = to, from
	}
	raw := string(m.Raw)
	if !full {
		raw = stars(raw)
	}
	return out.Datagram(m.At, from, to, []byte(raw))
}

var (
	// keep are the headers whose digits are counters, tokens and addresses.
	keep = regexp.MustCompile(`(?i)^(call-id|i|cseq|rseq|rack|via|v|max-forwards|content-length|l|session-expires|x|min-se|expires|p-charging-vector|timestamp|supported|k|require|allow|date|server|user-agent|content-type|c)\s*:`)
	// secret are those whose value is a credential, up to the scheme that it begins with.
	secret = regexp.MustCompile(`(?i)^(?:proxy-)?authorization\s*:\s*(?:digest\b[ \t]*)?`)
	// named is a URI as far as it may say who somebody is, hostOnly one that does not: its port
	// may have five digits too.
	named    = regexp.MustCompile(user.String() + "@?")
	hostOnly = regexp.MustCompile(`(?i)^sips?:(?:\[[0-9a-f:.]+\]|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*)(?::[0-9]{1,5})?$`)
	digits   = regexp.MustCompile(`[0-9]{5,}`)
	person   = regexp.MustCompile(`[0-9]{7,}`)
	key      = regexp.MustCompile(`(?i)(signal\s*=\s*)[0-9A-D*#]`)
)

// stars hides what says who somebody is, in place.
func stars(raw string) string {
	end := strings.Index(raw, "\r\n\r\n")
	if end < 0 {
		end = len(raw)
	}
	lines := strings.SplitAfter(raw[:end], "\n")
	held, hushed := false, false // a folded line is its header's
	for i, line := range lines {
		name := ""
		if i > 0 && line[:min(1, len(line))] != " " && line[:min(1, len(line))] != "\t" {
			held, name = keep.MatchString(line), secret.FindString(line)
			hushed = name != ""
		}
		switch {
		case hushed:
			text := strings.TrimRight(line, "\r\n")
			from := min(len(name), len(text))
			lines[i] = text[:from] + strings.Repeat("*", len(text)-from) + line[len(text):]
		case !held || i == 0:
			lines[i] = person.ReplaceAllStringFunc(named.ReplaceAllStringFunc(line, func(uri string) string {
				if hostOnly.MatchString(uri) {
					return uri
				}
				return digits.ReplaceAllStringFunc(uri, star)
			}), star)
		}
	}
	body := raw[end:]
	if !strings.Contains("\n"+strings.TrimLeft(body, "\r\n"), "\nv=0") {
		body = person.ReplaceAllStringFunc(key.ReplaceAllString(body, "${1}*"), star)
	}
	return strings.Join(lines, "") + body
}

// star keeps the ends of a number and its length.
func star(n string) string {
	front, back := len(n)-8, 4
	if front < 2 {
		front, back = min(2, len(n)/3), min(2, len(n)/3)
	}
	return n[:front] + strings.Repeat("*", len(n)-front-back) + n[len(n)-back:]
}
