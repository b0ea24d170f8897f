package sip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sparkle/sip/digest"
)

// Modes of an attachment.
const (
	ModeUE    = "ue"    // registers with a P-CSCF
	ModeTrunk = "trunk" // static peering, watched with OPTIONS
	ModeAS    = "as"    // application server and media server inside the core (ISC, Mr)
)

// Values of AttachmentOptions.SecurityAgreement.
const (
	AgreeOff = "off"
	AgreeTLS = "tls"
)

// Where an attachment's phones may send media from (IMS.md §5.5).
const (
	LatchOff    = "off"    // the signalled address and port
	LatchStrict = "strict" // any port of it at first
	LatchNAT    = "nat"    // configured prefixes too, for who proves himself
)

// Options are the room's.
type Options struct {
	Attachments []AttachmentOptions
	UserAgent   string // product name in User-Agent; "Sparkle"

	// T1 and T2 are those of RFC 3261 for what dialogs repeat themselves: 2xx and ACK.
	// 0: 500 ms and 4 s. (sipgo's transactions have process-wide timers.)
	T1, T2 time.Duration
}

// AttachmentOptions describe one connection to a carrier.
type AttachmentOptions struct {
	Name      string
	Mode      string // ue | trunk | as
	Transport string // tcp (default) | udp | tls
	LocalAddr string // IP to bind; "": the one that routes to the first target
	LocalPort int    // 0: any
	Domain    string // home domain: ours
	// PeerDomain is that of the numbers we call, in sip: URIs; "": Domain.
	PeerDomain string
	IMPI       string // private identity: the digest's username; ue only
	IMPU       string // public identity, sip: or tel:; on a trunk the number asserted
	Auth       Auth   // ue; on a trunk only where the peer challenges
	Challenge  Challenge
	Targets    []string // ParseTarget's forms: P-CSCFs, trunk peers or S-CSCFs, best first
	Peers      []Target // the long form; Targets come before these
	DNS        []string // name servers, host:port; none: the system's
	TLS        TLSOptions
	// SecurityAgreement is what a ue offers its P-CSCF by RFC 3329: off (default), then what is
	// configured is used and nothing said of it, or tls, with Transport tls.
	SecurityAgreement string
	// Clear is the transport, tcp or udp, of REGISTERs to a P-CSCF that has not agreed to TLS yet (TS
	// 33.203 Annex O); "": they go over TLS too. Nothing else goes over it, nor is taken. Its port is
	// the one before TLS's (RFC 3261 19.1.2: 5060 and 5061), the peer's as ours.
	Clear string

	TrustPeers []netip.Prefix // who may send to us besides the targets

	RegState   string // as: of the user we call for, in P-Served-User: unreg (default, a PSI) | reg
	OrigRoute  string // as: how an S-CSCF is told that a call originates: param (;orig, default) | user (orig@)
	Untrusted  bool   // not in our trust domain: what it asserts is not believed, and it is told nothing (RFC 3325)
	HideCaller bool   // Privacy: id, From anonymous

	Expires         time.Duration // of the registration asked for; 600 000 s
	RegEvent        string        // ue: off (default) | try | required: RFC 3680
	OptionsInterval time.Duration // trunk keep-alive; 30 s, negative: never ask, always up
	KeepAlive       time.Duration // CRLF CRLF on streams (RFC 5626 3.5.1); 120 s, negative: none. A P-CSCF that has ponged must go on
	Failover        time.Duration // a peer that says nothing for so long is left; 0: 4 s on UDP, 6 s on streams
	FailoverOn      []int         // final answers that send a call to the next peer; nil: 503, empty: none
	FollowRedirect  bool          // a 3xx to who belongs to the same network is followed, see redirect
	DSCP            int           // of SIP, 0 to 63; 0: the system's

	Preconditions string         // off | passive (default) | active: in our offers | required: of the callee too (RFC 3312)
	Latch         string         // where media may come from: off (default) | strict | nat; carried for the bridge
	NATPrefixes   []netip.Prefix // nat: besides the signalled address
	VideoAVPF     string         // capneg | plain_avpf | avp; carried for the bridge
	OfferG711     bool           // carried for the bridge
	OfferOpus     bool           // carried for the bridge
	NumberForm    string         // tel (default on ue) | sip (default on trunk)
	PANI          string         // P-Access-Network-Info; "": none. Not in a REGISTER without proof
	IsFocus       bool           // tell phones that they are in a conference (Invite.Focus)

	SessionExpires time.Duration // RFC 4028; 1800 s, negative: no session timer
	MinSE          time.Duration // 90 s
	MaxDuration    time.Duration // of an answered call; 24 h, negative: no limit

	MaxCalls int     // live calls at once, the others wait; 1000, negative: no limit
	CPS      float64 // new calls a second, the others wait their turn; 20, negative: no limit
	PeerRate float64 // messages a second taken from one peer address, twice that in a burst; 2000
	// InviteRate is how many new INVITEs a second are taken from a peer address that is alone,
	// twice that in a burst; several share it equally, and have a quarter more together. What is
	// above is answered 503 with Retry-After. 200
	InviteRate float64
}

// Auth is how an attachment proves who it is. K, OP and OPc are hexadecimal.
type Auth struct {
	Algorithms []string // MD5, SHA-256, SHA-512-256, AKAv1-MD5, AKAv2-MD5; empty: those of digest.Answerable
	Password   string
	K, OP, OPc string
	SQNFile    string // where the AKA sequence number is kept over restarts
	Realm      string // ue: whose challenges to a REGISTER, and within our calls, are answered; "": the domain's, "*": anybody's to a REGISTER
	BareFirst  bool   // ue: no Authorization in the first REGISTER
	Outbound   bool   // ue: reg-id in Contact, and Supported: outbound (RFC 5626)
}

// Validate names everything that is wrong, not only the first.
func (o Options) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, a := range o.Attachments {
		if a.Name != "" && seen[a.Name] {
			errs = append(errs, fmt.Errorf("attachments[%d]: name %q is taken", i, a.Name))
		}
		seen[a.Name] = true
		if err := a.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("attachments[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// Validate names everything that is wrong with one attachment.
func (a AttachmentOptions) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(key, v string, words ...string) {
		if v != "" && !slices.Contains(words, v) {
			bad("%s: %q is none of %s", key, v, strings.Join(words, ", "))
		}
	}
	if a.Name == "" {
		bad("name: missing")
	}
	if a.Mode != ModeUE && a.Mode != ModeTrunk && a.Mode != ModeAS {
		bad("mode: %q is none of ue, trunk, as", a.Mode)
	}
	oneOf("transport", a.Transport, "tcp", "udp", "tls")
	oneOf("preconditions", a.Preconditions, "off", "passive", "active", "required")
	oneOf("latch", a.Latch, LatchOff, LatchStrict, LatchNAT)
	if (a.Latch == LatchNAT) != (len(a.NATPrefixes) > 0) {
		bad("nat_prefixes: they go with latch nat")
	}
	oneOf("video_avpf", a.VideoAVPF, "capneg", "plain_avpf", "avp")
	oneOf("regstate", a.RegState, "reg", "unreg")
	oneOf("orig_route", a.OrigRoute, "param", "user")
	oneOf("reg_event", a.RegEvent, RegEventOff, RegEventTry, RegEventRequired)
	oneOf("number_form", a.NumberForm, "tel", "sip")
	errs = append(errs, a.agreementFaults()...)
	if a.LocalAddr != "" {
		ip, err := netip.ParseAddr(a.LocalAddr)
		switch {
		case err != nil:
			bad("local_addr: %q is not an IP address", a.LocalAddr)
		case ip.IsUnspecified():
			bad("local_addr: name one address: peers are told it in Via and Contact")
		}
	}
	if a.LocalPort < 0 || a.LocalPort > 65535 {
		bad("local_port: %d is no port", a.LocalPort)
	}
	if a.Domain == "" || strings.ContainsAny(a.Domain, " <>\"@;,\r\n") {
		bad("domain: %q is no domain", a.Domain)
	}
	if strings.ContainsAny(a.PeerDomain, " <>\"@;,\r\n") {
		bad("peer_domain: %q is no domain", a.PeerDomain)
	}
	if len(a.Targets)+len(a.Peers) == 0 {
		bad("targets: none")
	}
	for _, s := range a.Targets {
		if _, err := ParseTarget(s); err != nil {
			bad("targets: %w", err)
		}
	}
	for _, t := range a.Peers {
		if err := t.validate(); err != nil {
			bad("targets: %w", err)
		}
		if a.Mode == ModeUE && t.Transport != "" && t.Transport != cmp.Or(a.Transport, "tcp") {
			bad("targets: %q: a ue has one transport", t.Host)
		}
	}
	if (a.TLS.CertFile == "") != (a.TLS.KeyFile == "") {
		bad("tls: a certificate and its key go together")
	}
	for _, n := range a.FailoverOn {
		if n != 500 && n != 502 && n != 503 && n != 504 {
			bad("failover_on: %d is none of 500, 502, 503, 504", n)
		}
	}
	if a.Failover < 0 {
		bad("failover_timer: %v is negative", a.Failover)
	}
	if a.DSCP < 0 || a.DSCP > 63 {
		bad("dscp: %d is not from 0 to 63", a.DSCP)
	}
	if a.IMPU != "" && !validIdentity(a.IMPU) {
		bad("impu: %q is neither sip:user@domain nor tel:+number", a.IMPU)
	}
	for _, alg := range a.Auth.Algorithms {
		if err := digest.Usable(alg, a.Auth.Password != "", a.Auth.K != ""); err != nil {
			bad("auth: algorithms: %w", err)
		}
	}
	if a.Mode == ModeUE {
		if a.IMPI == "" {
			bad("impi: missing")
		}
		if a.IMPU == "" {
			bad("impu: missing")
		}
		if a.Auth.Password == "" && a.Auth.K == "" {
			bad("auth: neither password nor k")
		}
	}
	if a.Mode == ModeTrunk && a.Auth.K != "" {
		bad("auth: k belongs to ue; a trunk peer's challenge is answered with password")
	}
	if a.Auth.K != "" && a.Auth.OP == "" && a.Auth.OPc == "" {
		bad("auth: k needs op or opc")
	}
	if strings.ContainsAny(a.Auth.Realm, "\"\\\r\n") {
		bad("auth: realm %q cannot stand between quotes", a.Auth.Realm)
	}
	for _, f := range a.Challenge.Faults(a.Mode) {
		bad("challenge: %s %s", f.Key, f.Text)
	}
	if a.InviteRate < 0 {
		bad("invite_rate: %v is negative", a.InviteRate)
	}
	if a.PeerRate < 0 {
		bad("peer_rate: %v is negative", a.PeerRate)
	}
	return errors.Join(errs...)
}

// agreementFaults is what is wrong with the security agreement.
func (a AttachmentOptions) agreementFaults() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	agree := a.SecurityAgreement == AgreeTLS
	switch {
	case a.SecurityAgreement != "" && a.SecurityAgreement != AgreeOff && !agree:
		bad("security_agreement: %q is none of off, tls", a.SecurityAgreement)
	case agree && a.Mode != ModeUE:
		bad("security_agreement: it is made by registering, which is what a ue does")
	case agree && a.Transport != "tls":
		bad("security_agreement: tls goes with transport tls, not %q", cmp.Or(a.Transport, "tcp"))
	case a.Clear != "" && !agree:
		bad("clear: nothing leads from %s to tls but a security_agreement", a.Clear)
	case a.Clear != "" && a.Clear != "udp" && a.Clear != "tcp":
		bad("clear: %q is none of udp, tcp", a.Clear)
	}
	if a.Clear == "" {
		return errs
	}
	if a.LocalPort == 1 {
		bad("local_port: there is no port before 1 for %s", a.Clear)
	}
	peers := slices.Clone(a.Peers)
	for _, s := range a.Targets {
		if t, err := ParseTarget(s); err == nil {
			peers = append(peers, t)
		}
	}
	for _, t := range peers {
		if _, port := t.hostPort(); port == "1" {
			bad("targets: %q: there is no port before 1 for %s", t.Host, a.Clear)
		}
	}
	return errs
}

func validIdentity(s string) bool {
	if strings.ContainsAny(s, " <>\"\r\n,") {
		return false
	}
	if rest, ok := strings.CutPrefix(s, "tel:"); ok {
		return rest != ""
	}
	rest, ok := strings.CutPrefix(s, "sip:")
	user, host, at := strings.Cut(rest, "@")
	return ok && at && user != "" && host != ""
}

// withDefaults fills in what was left out.
func (a AttachmentOptions) withDefaults() AttachmentOptions {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	set(&a.Transport, "tcp")
	set(&a.Preconditions, "passive")
	set(&a.RegEvent, RegEventOff)
	set(&a.SecurityAgreement, AgreeOff)
	set(&a.RegState, "unreg")
	set(&a.OrigRoute, "param")
	set(&a.VideoAVPF, "capneg")
	if a.Mode == ModeTrunk {
		set(&a.NumberForm, "sip")
	}
	set(&a.NumberForm, "tel")
	if len(a.Auth.Algorithms) == 0 && a.Auth.Password+a.Auth.K != "" {
		a.Auth.Algorithms = digest.Answerable(a.Auth.K != "")
	}
	if a.Challenge.Username != "" {
		set(&a.Challenge.Realm, a.Domain)
		if len(a.Challenge.Algorithms) == 0 {
			a.Challenge.Algorithms = []string{digest.SHA256, digest.MD5}
		}
	}
	dur(&a.Expires, 600000*time.Second)
	dur(&a.OptionsInterval, 30*time.Second)
	dur(&a.KeepAlive, 120*time.Second)
	set(&a.PeerDomain, a.Domain)
	if a.FailoverOn == nil {
		a.FailoverOn = []int{503}
	}
	var peers []Target
	for i, s := range a.Targets {
		if t, err := ParseTarget(s); err == nil {
			t.Priority = i // in the order given
			peers = append(peers, t)
		}
	}
	a.Peers, a.Targets = append(peers, a.Peers...), nil
	dur(&a.SessionExpires, 1800*time.Second)
	dur(&a.MinSE, 90*time.Second)
	dur(&a.MaxDuration, 24*time.Hour)
	if a.MaxCalls == 0 {
		a.MaxCalls = 1000
	}
	if a.CPS == 0 {
		a.CPS = 20
	}
	if a.InviteRate == 0 {
		a.InviteRate = 200
	}
	if a.PeerRate == 0 {
		a.PeerRate = 2000
	}
	set(&a.IMPU, "sip:sparkle@"+a.Domain)
	return a
}
