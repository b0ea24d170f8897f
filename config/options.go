package config

import (
	"net/netip"
	"path/filepath"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/cdr"
	"sparkle/media"
	"sparkle/sip"
)

// SIP is the file's part for the user agent.
func (f File) SIP(userAgent string) sip.Options {
	o := sip.Options{UserAgent: userAgent}
	for _, a := range f.Attachments {
		o.Attachments = append(o.Attachments, a.options(f.DataDir))
	}
	return o
}

func (a Attachment) options(dataDir string) sip.AttachmentOptions {
	sqn := a.Auth.SQNFile
	if sqn == "" && a.Auth.K != "" {
		sqn = filepath.Join(dataDir, a.Name+".sqn")
	}
	a, begun := a.Sealed()
	o := sip.AttachmentOptions{
		SecurityAgreement: a.Agreement, Clear: begun,
		Name: a.Name, Mode: a.Mode, Transport: a.Transport, LocalAddr: a.LocalAddr, LocalPort: a.LocalPort,
		Domain: a.Domain, PeerDomain: a.PeerDomain, IMPI: a.IMPI, IMPU: a.IMPU, DNS: a.DNS, TLS: sip.TLSOptions(a.TLS),
		Auth: sip.Auth{Algorithms: a.Auth.Algorithms, Password: a.Auth.Password, K: a.Auth.K, OP: a.Auth.OP,
			OPc: a.Auth.OPc, SQNFile: sqn, Realm: a.Auth.Realm, BareFirst: a.Auth.BareFirst, Outbound: a.Auth.Outbound}, Challenge: a.Challenge.options(),
		Expires: a.Expires, RegEvent: a.RegEvent, RegState: a.RegState, OrigRoute: a.OrigRoute, Untrusted: !a.Trusted, HideCaller: a.HideCaller,
		OptionsInterval: a.OptionsEvery, Preconditions: a.Preconditions, VideoAVPF: a.VideoAVPF, Latch: a.Latch,
		OfferG711: a.OfferG711, OfferOpus: a.OfferOpus, NumberForm: a.NumberForm, PANI: a.PANI, MaxCalls: a.MaxCalls, CPS: a.CPS,
		SessionExpires: a.SessionExp, MinSE: a.MinSE, MaxDuration: a.MaxDuration, IsFocus: a.IsFocus,
		PeerRate: a.PeerRate, InviteRate: a.InviteRate,
		KeepAlive: a.KeepAlive, Failover: a.Failover, FailoverOn: a.FailoverOn, FollowRedirect: a.Redirect, DSCP: a.DSCP,
	}
	if o.FailoverOn == nil { // an empty list means none, too
		o.FailoverOn = []int{}
	}
	// 0 is "none" in the file and "as usual" in the options.
	if o.MaxCalls == 0 {
		o.MaxCalls = -1
	}
	if o.CPS == 0 {
		o.CPS = -1
	}
	if o.MaxDuration == 0 {
		o.MaxDuration = -1
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = -1
	}
	if o.OptionsInterval == 0 {
		o.OptionsInterval = -1
	}
	for _, t := range a.Targets {
		o.Peers = append(o.Peers, sip.Target{Host: t.Host, Transport: t.Transport, Priority: t.Priority, Weight: t.Weight,
			CPS: t.CPS, MaxCalls: t.MaxCalls})
	}
	o.TrustPeers, o.NATPrefixes = prefixes(a.TrustPeers), prefixes(a.NATPrefixes)
	return o
}

func (c Challenge) options() sip.Challenge {
	return sip.Challenge{Username: c.Username, Password: c.Password, Realm: c.Realm, Algorithms: c.Algorithms}
}

// prefixes are address ranges that were checked on load.
func prefixes(list []string) (out []netip.Prefix) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Bridge is the file's part for conferences.
func (f File) Bridge() bridge.Options {
	return bridge.Options{
		RingTimeout: f.Calls.RingTimeout, SetupTimeout: f.Calls.SetupTimeout, RetryAudioOnDecline: f.Calls.RetryAudio,
		Allow: f.Calls.Allow, Deny: f.Calls.Deny, Country: f.Calls.Country, CallingCode: f.Calls.CallingCode,
		MediaIP: f.Media.LocalIP, OtherMediaIP: f.Media.OtherIP, NoVideo: !f.Video.Enabled,
		DialIn: f.Inbound.DialIn, FactoryURIs: f.Inbound.FactoryURIs, Domain: f.domain(),
	}
}

// CDR is the file's part for charging records.
func (f File) CDR() cdr.Options {
	o := cdr.Options{
		Dir: filepath.Join(f.DataDir, "cdr"), Masked: f.Charging.Numbers == "masked",
		MaxBytes: int64(f.Charging.MaxMB) << 20, Keep: time.Duration(f.Charging.KeepDays) * 24 * time.Hour,
		Identities: map[string]string{},
	}
	for _, a := range f.Attachments {
		o.Identities[a.Name] = a.IMPU
	}
	return o
}

// Engine is the file's part for the media process.
func (f File) Engine() media.Options {
	return media.Options{
		PortMin: uint16(f.Media.PortMin), PortMax: uint16(f.Media.PortMax), MediaTimeout: f.Media.Timeout,
		Realtime: f.Media.Realtime, PlainSockets: !f.Media.IOUring, MaxTalkers: f.Media.MaxTalkers, AGC: f.Media.AGC,
	}
}

// domain is that of the conferences' URIs, "" if there is none to take.
func (f File) domain() string {
	if f.Inbound.Domain == "" && len(f.Attachments) > 0 {
		return f.Attachments[0].Domain
	}
	return f.Inbound.Domain
}
