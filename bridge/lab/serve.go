package lab

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Subscriber is an identity for somebody outside: the daemon, or a SIPp that
// registers.
type Subscriber struct {
	IMPI string
	IMPU string
	Auth Auth
}

// ServeOptions are what `sparkle lab` runs with.
type ServeOptions struct {
	Core        CoreOptions
	Subscribers []Subscriber
	Handsets    []HandsetOptions // none: DemoRoster
	Media       MediaFactory     // for handsets that bring none; nil is NewSilent
	Out         io.Writer        // what was started is printed here; nil: nowhere
	// Ready is called once everything answers; it may be nil.
	Ready func(*Core, []*Handset)
}

// Validate reports every fault.
func (o ServeOptions) Validate() error {
	errs := []error{o.Core.Validate()}
	for _, s := range o.Subscribers {
		if err := s.Auth.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("subscriber %s: %w", s.IMPI, err))
		}
	}
	seen := map[string]bool{}
	for _, h := range o.Handsets {
		if err := h.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("handset %s: %w", h.Number, err))
		}
		if seen[h.Number] {
			errs = append(errs, fmt.Errorf("handset %s is there twice", h.Number))
		}
		seen[h.Number] = true
	}
	return errors.Join(errs...)
}

// Serve runs a core with handsets until ctx ends; then it closes all and returns nil.
func Serve(ctx context.Context, o ServeOptions) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	c, err := StartCore(o.Core)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, s := range o.Subscribers {
		if err := c.AddSubscriber(s.IMPI, s.IMPU, s.Auth); err != nil {
			return err
		}
	}
	roster := o.Handsets
	if roster == nil {
		roster = DemoRoster()
	}
	hs, err := c.AddRoster(roster, o.Media)
	if err != nil {
		return err
	}
	if o.Out != nil {
		if err := c.describe(o.Out, o.Subscribers, hs); err != nil {
			return err
		}
	}
	if o.Ready != nil {
		o.Ready(c, hs)
	}
	<-ctx.Done()
	return nil
}

// describe prints what is there, and the configuration of a daemon that is to use it.
func (c *Core) describe(w io.Writer, subs []Subscriber, hs []*Handset) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# IMS core  %s  (UDP and TCP), domain %s\n", c.Addr(), c.Domain())
	for _, h := range hs {
		fmt.Fprintf(&b, "# handset   %-16s %-22s %s\n", h.Number(), h.Profile(), h.Name())
	}
	if len(subs)+len(c.peers) == 0 {
		b.WriteString("# nobody may connect: --subscriber adds who registers, --trunk who need not\n")
	} else {
		b.WriteString("# The daemon's configuration:\nattachments:\n")
	}
	for i, s := range subs {
		b.WriteString(s.Attachment("lab"+nth(i), c.Addr(), c.Domain()))
	}
	for i, p := range c.peers {
		fmt.Fprintf(&b, "  - name: trunk%s\n    mode: trunk   # or as\n    local_addr: %q\n    local_port: %d\n    targets: [%q]\n    domain: %q\n    impu: tel:+15550100100\n    offer_g711: true\n",
			nth(i), p.prefix.Addr(), p.port, c.Addr(), c.Domain())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// nth tells names apart: the first has no number.
func nth(i int) string {
	if i == 0 {
		return ""
	}
	return strconv.Itoa(i + 1)
}

// Attachment is a daemon's that registers as the subscriber, in its configuration's YAML; more
// are lines of it.
func (s Subscriber) Attachment(name string, core netip.AddrPort, domain string, more ...string) string {
	auth := fmt.Sprintf("{algorithms: [%s], password: %q}", s.Auth.algorithm(), s.Auth.Password)
	if s.Auth.Algorithm == AKAv1 {
		auth = fmt.Sprintf("{algorithms: [%s], k: %q, opc: %q}", AKAv1, hex.EncodeToString(s.Auth.K), hex.EncodeToString(s.Auth.OPc))
	}
	tail := ""
	for _, line := range append(more, "offer_g711: true") {
		tail += "    " + line + "\n"
	}
	return fmt.Sprintf(`  - name: %s
    mode: ue
    local_addr: %q
    targets: [%q]
    domain: %q
    impi: %q
    impu: %q
    auth: %s
%s`, name, core.Addr(), core, domain, s.IMPI, s.IMPU, auth, tail)
}

// ParseHandset reads "number,profile[,name]", a flag's value. The profile may carry a
// figure (ParseProfile).
func ParseHandset(v string) (HandsetOptions, error) {
	f := strings.SplitN(v, ",", 3)
	if len(f) < 2 {
		return HandsetOptions{}, fmt.Errorf("handset %q: want number,profile[,name]", v)
	}
	p, s, err := ParseProfile(strings.TrimSpace(f[1]))
	if err != nil {
		return HandsetOptions{}, fmt.Errorf("handset %q: %w", v, err)
	}
	o := HandsetOptions{Number: strings.TrimSpace(f[0]), Profile: p, Script: &s}
	o.Name = o.Number
	if len(f) == 3 {
		o.Name = strings.TrimSpace(f[2])
	}
	if err := o.Validate(); err != nil {
		return o, fmt.Errorf("handset %q: %w", v, err)
	}
	return o, nil
}

// ParseSubscriber reads "impi,impu,md5|sha-256,password" or
// "impi,impu,akav1-md5,K,OPc" with K and OPc in hex, a flag's value.
func ParseSubscriber(v string) (Subscriber, error) {
	f := strings.Split(v, ",")
	bad := func(why string) (Subscriber, error) { return Subscriber{}, fmt.Errorf("subscriber: %s", why) }
	if len(f) < 4 {
		return bad("want impi,impu,algorithm,secret")
	}
	s := Subscriber{IMPI: f[0], IMPU: f[1]}
	switch strings.ToUpper(f[2]) {
	case MD5, SHA256:
		if len(f) != 4 {
			return bad("a password holds no comma here")
		}
		s.Auth = Auth{Algorithm: strings.ToUpper(f[2]), Password: f[3]}
	case strings.ToUpper(AKAv1):
		if len(f) != 5 {
			return bad("akav1-md5 wants K,OPc")
		}
		k, err1 := hex.DecodeString(f[3])
		opc, err2 := hex.DecodeString(f[4])
		if err1 != nil || err2 != nil {
			return bad("K and OPc are 32 hex digits each")
		}
		s.Auth = Auth{Algorithm: AKAv1, K: k, OPc: opc}
	default:
		return bad(fmt.Sprintf("algorithm %q is not one of md5, sha-256, akav1-md5", f[2]))
	}
	if _, err := userKey(s.IMPU); err != nil {
		return bad(err.Error())
	}
	return s, s.Auth.Validate()
}
