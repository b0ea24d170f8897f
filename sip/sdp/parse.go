package sdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of Parse. A real IMS offer has 2 kB, 2 m-lines and 60 attributes.
const (
	MaxSize       = 64 << 10
	MaxLine       = 16 << 10
	MaxMedia      = 32
	MaxAttributes = 1000

	maxSprop = 1024
)

// Parse reads a description. It is strict about what would hurt us (version, origin,
// addresses, ports, payload numbers, sizes) and passes over what it does not know: the
// order of lines, times, keys, unknown media, attributes and line types. Errors are
// ErrSyntax or ErrTooLarge and name the line.
//
// pion/sdp is not used here: it refuses whole descriptions for an m=image line or an
// unknown transport, which RFC 3264 §6 wants mirrored with port 0.
func Parse(b []byte) (*Session, error) {
	switch {
	case len(b) > MaxSize:
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	case len(b) == 0:
		return nil, fmt.Errorf("%w: empty", ErrSyntax)
	case bytes.IndexByte(b, 0) >= 0:
		return nil, fmt.Errorf("%w: NUL octet", ErrSyntax)
	}
	p := parser{s: &Session{AS: -1, raw: bytes.Clone(b)}}
	n := 0
	for line := range strings.SplitSeq(string(b), "\n") {
		n++
		line = strings.TrimRight(line, "\r")
		if line == "" {
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.s, nil
}

// parser is the state between lines. m is nil before the first m-line.
type parser struct {
	s         *Session
	m         *Media
	lines     int
	attrs     int
	origin    bool
	direction Direction // session level
	session   []Attribute
}

func (p *parser) line(line string) error {
	if len(line) > MaxLine {
		return fmt.Errorf("%w: %d bytes in one line", ErrTooLarge, len(line))
	}
	if len(line) < 2 || line[1] != '=' {
		return fmt.Errorf("%w: no type=value", ErrSyntax)
	}
	p.lines++
	value := line[2:]
	if p.lines == 1 {
		if line[0] != 'v' {
			return fmt.Errorf("%w: does not begin with v=", ErrSyntax)
		}
		if strings.TrimSpace(value) != "0" {
			return fmt.Errorf("%w: unknown version", ErrSyntax)
		}
		return nil
	}
	switch line[0] {
	case 'o':
		return p.originLine(value)
	case 's':
		p.s.Name = value
	case 'c':
		return p.connection(value)
	case 'b':
		p.bandwidth(value)
	case 'm':
		return p.media(value)
	case 'a':
		return p.attribute(value)
	}
	return nil // i u e p t r z k and what is not ours to know
}

func (p *parser) originLine(v string) error {
	f := strings.Fields(v)
	if len(f) != 6 {
		return fmt.Errorf("%w: o= has %d of 6 fields", ErrSyntax, len(f))
	}
	if p.origin {
		return fmt.Errorf("%w: second o=", ErrSyntax)
	}
	id, err1 := strconv.ParseUint(f[1], 10, 64)
	ver, err2 := strconv.ParseUint(f[2], 10, 64)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%w: o= id or version is no number", ErrSyntax)
	}
	p.origin = true
	p.s.Origin = Origin{Username: f[0], SessionID: id, Version: ver, Addr: f[5]}
	return nil
}

func (p *parser) connection(v string) error {
	f := strings.Fields(v)
	if len(f) != 3 || f[0] != "IN" {
		return fmt.Errorf("%w: c= is not IN, family, address", ErrSyntax)
	}
	a, err := parseAddr(f[1], f[2])
	if err != nil {
		return err
	}
	if p.m == nil {
		p.s.Addr = a
	} else {
		p.m.Addr = a
	}
	return nil
}

// parseAddr takes what media can be sent to, and 0.0.0.0 and :: that mean hold. Names
// are refused: resolving what a peer writes is a way to make us ask strangers.
func parseAddr(family, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%w: c= has no plain IP address", ErrSyntax)
	}
	if family != "IP4" && family != "IP6" || a.Is4() != (family == "IP4") {
		return a, fmt.Errorf("%w: c= family and address differ", ErrSyntax)
	}
	if a.Is4In6() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return a, fmt.Errorf("%w: c= is not a unicast address", ErrSyntax)
	}
	return a, nil
}

func (p *parser) bandwidth(v string) {
	typ, num, ok := strings.Cut(v, ":")
	n, err := strconv.Atoi(strings.TrimSpace(num))
	if !ok || err != nil || n < 0 || n > 1<<30 {
		return
	}
	if p.m == nil {
		if typ == "AS" {
			p.s.AS = n
		}
		return
	}
	switch typ {
	case "AS":
		p.m.AS = n
	case "TIAS":
		p.m.TIAS = n
	case "RS":
		p.m.RS = n
	case "RR":
		p.m.RR = n
	}
}

func (p *parser) media(v string) error {
	f := strings.Fields(v)
	if len(f) < 4 {
		return fmt.Errorf("%w: m= has %d of at least 4 fields", ErrSyntax, len(f))
	}
	if len(p.s.Media) == MaxMedia {
		return fmt.Errorf("%w: more than %d m-lines", ErrTooLarge, MaxMedia)
	}
	m := &Media{Index: len(p.s.Media), Kind: f[0], Ports: 1, Proto: f[2], Formats: f[3:],
		AS: -1, TIAS: -1, RS: -1, RR: -1, Direction: p.direction}
	port, count, ranged := strings.Cut(f[1], "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: m= port", ErrSyntax)
	}
	m.Port = int(n)
	if ranged {
		if m.Ports, err = strconv.Atoi(count); err != nil || m.Ports < 1 {
			return fmt.Errorf("%w: m= port count", ErrSyntax)
		}
	}
	if m.RTP() {
		for _, s := range m.Formats {
			pt, err := strconv.ParseUint(s, 10, 8)
			if err != nil || pt > 127 {
				return fmt.Errorf("%w: m= payload type %.8q", ErrSyntax, s)
			}
			if !slices.ContainsFunc(m.Payloads, func(g Format) bool { return g.PT == int(pt) }) {
				m.Payloads = append(m.Payloads, staticFormat(int(pt)))
			}
		}
	}
	p.m = m
	p.s.Media = append(p.s.Media, m)
	return nil
}

// staticFormat is RFC 3551 table 4 and 5 for what may come without rtpmap.
func staticFormat(pt int) Format {
	f := Format{PT: pt, Channels: 1}
	switch pt {
	case 0:
		f.Name, f.RateHz = "PCMU", 8000
	case 8:
		f.Name, f.RateHz = "PCMA", 8000
	case 9:
		f.Name, f.RateHz = "G722", 8000
	case 13:
		f.Name, f.RateHz = "CN", 8000
	case 18:
		f.Name, f.RateHz = "G729", 8000
	}
	return f
}

func (p *parser) attribute(v string) error {
	if p.attrs++; p.attrs > MaxAttributes {
		return fmt.Errorf("%w: more than %d attributes", ErrTooLarge, MaxAttributes)
	}
	key, val, _ := strings.Cut(v, ":")
	a := Attribute{Key: key, Value: strings.TrimSpace(val)}
	if p.m == nil {
		if d, ok := parseDirection(key); ok {
			p.direction = d
		}
		p.session = append(p.session, a)
		return nil
	}
	p.m.Attrs = append(p.m.Attrs, a)
	p.m.attribute(a)
	return nil
}

func parseDirection(s string) (Direction, bool) {
	switch s {
	case "sendrecv":
		return SendRecv, true
	case "sendonly":
		return SendOnly, true
	case "recvonly":
		return RecvOnly, true
	case "inactive":
		return Inactive, true
	}
	return SendRecv, false
}

// finish applies session-level values and reads formats once all lines are there.
func (p *parser) finish() error {
	s := p.s
	if !p.origin {
		return fmt.Errorf("%w: no o= line", ErrSyntax)
	}
	if len(s.Media) == 0 {
		return fmt.Errorf("%w: no m= line", ErrSyntax)
	}
	for _, m := range s.Media {
		if !m.Addr.IsValid() {
			m.Addr = s.Addr
		}
		if m.Port != 0 && m.RTP() && !m.Addr.IsValid() {
			return fmt.Errorf("%w: m-line %d has no c=", ErrSyntax, m.Index+1)
		}
		for _, a := range p.session {
			switch a.Key {
			case "tcap", "extmap": // may stand at session level
				m.attribute(a)
			}
		}
		m.chooseAVPF()
		for i := range m.Payloads {
			m.Payloads[i].finish()
		}
		s.index(m)
	}
	return nil
}

func (s *Session) index(m *Media) {
	slot := &s.Audio
	switch m.Kind {
	case "audio":
	case "video":
		slot = &s.Video
	default:
		return
	}
	if *slot == nil || (*slot).Port == 0 && m.Port != 0 {
		*slot = m
	}
}
