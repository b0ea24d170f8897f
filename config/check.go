package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sparkle/sip"
	"sparkle/sip/digest"
)

var (
	countryCode  = regexp.MustCompile(`^[A-Z]{2}$`)
	e164         = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	numberPrefix = regexp.MustCompile(`^\+[1-9][0-9]{0,14}$`)
	callingCode  = regexp.MustCompile(`^\+[1-9][0-9]{0,2}$`)
	simpleName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	domainName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

// check adds a fault for every value that cannot work. It opens nothing, files have been read: that a port
// is in use or a target does not answer is for the daemon to say.
func (l *loader) check(c *File) {
	if c.DataDir == "" {
		l.fault("data_dir", "is empty")
	}
	l.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	l.hostPort("http.listen", c.HTTP.Listen, true)
	if (c.HTTP.TLSCertFile == "") != (c.HTTP.TLSKeyFile == "") {
		l.fault("http.tls_cert_file", "a certificate and its key go together")
	}
	if c.Calls.Drain != 0 {
		l.between("calls.drain_timeout", c.Calls.Drain, time.Second, 24*time.Hour)
	}
	l.between("calls.ring_timeout", c.Calls.RingTimeout, 5*time.Second, 3*time.Minute)
	l.between("calls.setup_timeout", c.Calls.SetupTimeout, 5*time.Second, 3*time.Minute)
	if c.Calls.Country != "" && !countryCode.MatchString(c.Calls.Country) {
		l.fault("calls.country", "%q is not two letters such as CN", c.Calls.Country)
	}
	if c.Calls.CallingCode != "" && !callingCode.MatchString(c.Calls.CallingCode) {
		l.fault("calls.calling_code", "%q is not a country's calling code such as +86", c.Calls.CallingCode)
	}
	l.prefixes("calls.allow", c.Calls.Allow)
	l.prefixes("calls.deny", c.Calls.Deny)
	l.inbound(&c.Inbound)
	l.media(&c.Media)
	if c.Video.FPS < 1 || c.Video.FPS > 30 {
		l.fault("video.fps", "%d is not from 1 to 30", c.Video.FPS)
	}
	l.between("video.stall", c.Video.Stall, 3*time.Second, 5*time.Minute)
	l.oneOf("cdr.numbers", c.Charging.Numbers, "full", "masked")
	if c.Charging.MaxMB < 1 || c.Charging.MaxMB > 1024 {
		l.fault("cdr.max_mb", "%d is not from 1 to 1024", c.Charging.MaxMB)
	}
	if c.Charging.KeepDays < 0 {
		l.fault("cdr.keep_days", "%d is negative", c.Charging.KeepDays)
	}
	seen := map[string]bool{}
	for i := range c.Attachments {
		a, key := &c.Attachments[i], fmt.Sprintf("attachments[%d]", i)
		switch {
		case !simpleName.MatchString(a.Name):
			l.fault(key+".name", "%q is not a name: letters, digits, - _ .", a.Name)
		case seen[a.Name]:
			l.fault(key+".name", "%q is another attachment's", a.Name)
		}
		seen[a.Name] = true
		l.attachment(a, key)
	}
}

func (l *loader) prefixes(key string, list []string) {
	for i, p := range list {
		if !numberPrefix.MatchString(p) {
			l.fault(fmt.Sprintf("%s[%d]", key, i), "%q is not the beginning of a number: + and 1 to 15 digits", p)
		}
	}
}

func (l *loader) inbound(in *Inbound) {
	for i, n := range in.DialIn {
		if !e164.MatchString(n) {
			l.fault(fmt.Sprintf("inbound.dial_in[%d]", i), "%q is not a number with + and country code", n)
		}
	}
	for i, u := range in.FactoryURIs {
		if user, domain, at := strings.Cut(strings.TrimPrefix(u, "sip:"), "@"); !strings.HasPrefix(u, "sip:") || !at || user == "" || !domainName.MatchString(domain) {
			l.fault(fmt.Sprintf("inbound.factory_uris[%d]", i), "%q is not a URI such as sip:conference@factory.example", u)
		}
	}
	if in.Domain != "" && !domainName.MatchString(in.Domain) {
		l.fault("inbound.domain", "%q is not a domain", in.Domain)
	}
}

func (l *loader) media(m *Media) {
	if m.LocalIP != "" {
		l.concreteIP("media.local_ip", m.LocalIP)
	}
	if m.OtherIP != "" {
		l.concreteIP("media.other_ip", m.OtherIP)
		if strings.Contains(m.OtherIP, ":") == strings.Contains(m.LocalIP, ":") && m.LocalIP != "" {
			l.fault("media.other_ip", "%q is of the same IP family as media.local_ip", m.OtherIP)
		}
	}
	switch {
	case m.PortMin == 0 && m.PortMax == 0:
	case m.PortMin < 1024 || m.PortMin > 65535:
		l.fault("media.port_min", "%d is not from 1024 to 65535", m.PortMin)
	case m.PortMax > 65535:
		l.fault("media.port_max", "%d is above 65535", m.PortMax)
	case m.PortMax-m.PortMin < 3:
		l.fault("media.port_max", "a video leg needs four ports: %d to %d has fewer", m.PortMin, m.PortMax)
	}
	l.between("media.timeout", m.Timeout, 5*time.Second, time.Hour)
	if m.MaxTalkers < 2 || m.MaxTalkers > 64 {
		l.fault("media.max_talkers", "%d is not from 2 to 64", m.MaxTalkers)
	}
}

func (l *loader) attachment(a *Attachment, key string) {
	l.oneOf(key+".mode", a.Mode, "ue", "trunk", "as")
	l.oneOf(key+".transport", a.Transport, "tcp", "udp", "tls")
	l.concreteIP(key+".local_addr", a.LocalAddr)
	if a.LocalPort < 0 || a.LocalPort > 65535 {
		l.fault(key+".local_port", "%d is not a port", a.LocalPort)
	}
	if len(a.Targets) == 0 {
		l.fault(key+".targets", "is empty: which host:port is the core at?")
	}
	for i := range a.Targets {
		l.target(a, i, fmt.Sprintf("%s.targets[%d]", key, i))
	}
	for i, s := range a.DNS {
		l.hostPort(fmt.Sprintf("%s.dns[%d]", key, i), s, false)
	}
	if (a.TLS.CertFile == "") != (a.TLS.KeyFile == "") {
		l.fault(key+".tls", "a certificate and its key go together")
	}
	if len(a.TLS.PeerNames) > 0 && a.TLS.CAFile == "" {
		l.fault(key+".tls.peer_names", "goes with ca_file: without it no certificate is asked for")
	}
	for i, p := range a.TrustPeers {
		if _, err := netip.ParsePrefix(p); err != nil {
			l.fault(fmt.Sprintf("%s.trust_peers[%d]", key, i), "%q is not an address range such as 192.0.2.0/24", p)
		}
	}
	if !domainName.MatchString(a.Domain) {
		l.fault(key+".domain", "%q is not a domain", a.Domain)
	}
	if a.PeerDomain != "" && !domainName.MatchString(a.PeerDomain) {
		l.fault(key+".peer_domain", "%q is not a domain", a.PeerDomain)
	}
	if !strings.HasPrefix(a.IMPU, "sip:") && !strings.HasPrefix(a.IMPU, "tel:+") {
		l.fault(key+".impu", "%q is neither a sip: nor a tel:+ identity", a.IMPU)
	}
	l.oneOf(key+".regstate", a.RegState, "unreg", "reg")
	l.oneOf(key+".orig_route", a.OrigRoute, "param", "user")
	l.oneOf(key+".reg_event", a.RegEvent, "required", "try", "off")
	l.oneOf(key+".number_form", a.NumberForm, "tel", "sip")
	l.oneOf(key+".preconditions", a.Preconditions, "off", "passive", "active", "required")
	l.latch(a, key)
	l.agreement(a, key)
	l.oneOf(key+".video_avpf", a.VideoAVPF, "capneg", "plain_avpf", "avp")
	l.between(key+".min_se", a.MinSE, 3*time.Second, time.Hour)
	l.between(key+".session_expires", a.SessionExp, max(a.MinSE, 3*time.Second), 24*time.Hour)
	if a.MaxDuration != 0 {
		l.between(key+".max_duration", a.MaxDuration, time.Minute, 30*24*time.Hour)
	}
	if a.KeepAlive != 0 {
		l.between(key+".keep_alive", a.KeepAlive, 5*time.Second, time.Hour)
	}
	if a.Failover != 0 {
		l.between(key+".failover_timer", a.Failover, 500*time.Millisecond, 30*time.Second)
	}
	for i, n := range a.FailoverOn {
		if n != 500 && n != 502 && n != 503 && n != 504 {
			l.fault(fmt.Sprintf("%s.failover_on[%d]", key, i), "%d is none of 500, 502, 503, 504: other answers are the phone's or final", n)
		}
	}
	if a.DSCP < 0 || a.DSCP > 63 {
		l.fault(key+".dscp", "%d is not from 0 to 63", a.DSCP)
	}
	if a.MaxCalls < 0 {
		l.fault(key+".max_calls", "%d is negative", a.MaxCalls)
	}
	if a.PeerRate < 10 {
		l.fault(key+".peer_rate", "%v: at least 10", a.PeerRate)
	}
	if a.InviteRate < 1 {
		l.fault(key+".invite_rate", "%v: at least 1", a.InviteRate)
	}
	if a.CPS < 0 {
		l.fault(key+".cps", "%v is negative", a.CPS)
	}
	for i, alg := range a.Auth.Algorithms {
		if err := digest.Usable(alg, a.Auth.Password != "" || a.Auth.PasswordFile != "", a.Auth.K != "" || a.Auth.KFile != ""); err != nil {
			l.fault(fmt.Sprintf("%s.auth.algorithms[%d]", key, i), "%v", err)
		}
	}
	l.challenge(a, key+".challenge")
	if a.Mode == "ue" {
		if a.IMPI == "" {
			l.fault(key+".impi", "is empty: mode ue registers with it")
		}
		l.between(key+".expires", a.Expires, 30*time.Second, 1000000*time.Second)
		l.auth(&a.Auth, key+".auth")
	} else if a.OptionsEvery != 0 {
		l.between(key+".options_interval", a.OptionsEvery, time.Second, time.Hour)
	}
}

// challenge checks the proof that is asked for.
func (l *loader) challenge(a *Attachment, key string) {
	c := a.Challenge.options()
	if a.Challenge.PasswordFile != "" && c.Password == "" {
		c.Password = "in the file" // and what is wrong with that has been said
	}
	for _, f := range c.Faults(a.Mode) {
		l.fault(strings.TrimSuffix(key+"."+f.Key, "."), "%s", f.Text)
	}
}

// agreement checks what is offered to a P-CSCF by RFC 3329, and that there is a port for TLS where
// it begins without.
func (l *loader) agreement(a *Attachment, key string) {
	l.oneOf(key+".security_agreement", a.Agreement, sip.AgreeOff, sip.AgreeTLS)
	if a.Agreement != sip.AgreeTLS {
		return
	}
	if a.Mode != "ue" {
		l.fault(key+".security_agreement", "tls is agreed on by registering, which mode %s does not; transport: tls is all it needs", a.Mode)
		return
	}
	if a.Transport == "tls" {
		return
	}
	if a.LocalPort == 65535 {
		l.fault(key+".local_port", "security_agreement has TLS on the next port, and there is none behind 65535")
	}
	for i, t := range a.Targets {
		if _, port, err := net.SplitHostPort(t.Host); err == nil && port == "65535" {
			l.fault(fmt.Sprintf("%s.targets[%d]", key, i), "security_agreement has TLS on the next port, and there is none behind 65535")
		}
	}
}

// latch checks where media may come from.
func (l *loader) latch(a *Attachment, key string) {
	l.oneOf(key+".latch", a.Latch, sip.LatchOff, sip.LatchStrict, sip.LatchNAT)
	switch nat := a.Latch == sip.LatchNAT; {
	case nat && len(a.NATPrefixes) == 0:
		l.fault(key+".nat_prefixes", "is empty: which addresses are the phones behind NAT seen at?")
	case !nat && len(a.NATPrefixes) > 0:
		l.fault(key+".nat_prefixes", "goes with latch: nat, not %s", a.Latch)
	}
	ours, _ := netip.ParseAddr(a.LocalAddr) // checked by itself
	for i, s := range a.NATPrefixes {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			l.fault(fmt.Sprintf("%s.nat_prefixes[%d]", key, i), "%q is not an address range such as 203.0.113.0/24", s)
		case ours.IsValid() && p.Addr().Is4() != ours.Is4():
			l.fault(fmt.Sprintf("%s.nat_prefixes[%d]", key, i), "%s cannot be reached from local_addr %s", s, a.LocalAddr)
		case p.Bits() == 0:
			l.fault(fmt.Sprintf("%s.nat_prefixes[%d]", key, i), "%s is everybody: name the ranges that phones come from", s)
		}
	}
}

// target checks one target and takes a SIP URI in host apart.
func (l *loader) target(a *Attachment, i int, key string) {
	t := &a.Targets[i]
	got, err := sip.ParseTarget(t.Host)
	if err != nil {
		l.fault(key, "%v", err)
		return
	}
	if t.short {
		t.Priority = i
	}
	t.Host = got.Host
	if t.Transport == "" {
		t.Transport = got.Transport
	}
	if t.Transport != "" {
		if l.oneOf(key+".transport", t.Transport, "udp", "tcp", "tls"); a.Mode == "ue" && t.Transport != a.Transport {
			l.fault(key+".transport", "%q: mode ue has one transport, %s", t.Transport, a.Transport)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"priority", t.Priority}, {"weight", t.Weight}} {
		if n.value < 0 || n.value > 65535 {
			l.fault(key+"."+n.name, "%d is not from 0 to 65535", n.value)
		}
	}
	if t.CPS < 0 {
		l.fault(key+".cps", "%v is negative", t.CPS)
	}
	if t.MaxCalls < 0 {
		l.fault(key+".max_calls", "%d is negative", t.MaxCalls)
	}
}

func (l *loader) auth(a *Auth, key string) {
	if a.Password == "" && a.K == "" && a.PasswordFile == "" && a.KFile == "" {
		l.fault(key, "neither password nor k: there is nothing to answer a challenge with")
	}
	if a.K+a.KFile != "" && (a.OP+a.OPFile == "") == (a.OPc+a.OPcFile == "") {
		l.fault(key, "k needs either op or opc")
	}
	if strings.ContainsAny(a.Realm, "\"\\\r\n") {
		l.fault(key+".realm", "%q cannot stand between quotes", a.Realm)
	}
	for _, s := range []struct {
		name, value string
		octets      int
	}{{"k", a.K, 16}, {"op", a.OP, 16}, {"opc", a.OPc, 16}} {
		if b, err := hex.DecodeString(s.value); s.value != "" && (err != nil || len(b) != s.octets) {
			l.fault(key+"."+s.name, "is not %d hex digits", 2*s.octets) // never the value
		}
	}
}

func (l *loader) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		l.fault(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

func (l *loader) between(key string, d, lo, hi time.Duration) {
	if d < lo || d > hi {
		l.fault(key, "%v is not from %v to %v", d, lo, hi)
	}
}

func (l *loader) hostPort(key, value string, anyPort bool) {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		l.fault(key, "%q is not host:port", value)
		return
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 || n == 0 && !anyPort {
		l.fault(key, "%q is not a port", port)
	}
}

// concreteIP refuses names and 0.0.0.0: what we bind is also what we tell the peer.
func (l *loader) concreteIP(key, value string) {
	ip, err := netip.ParseAddr(value)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		l.fault(key, "%q is not a concrete IP address of this machine", value)
	}
}
