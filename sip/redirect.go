package sip

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/ims"
)

// redirect says whether a call is to follow a 3xx to uri, and with which Request-URI:
//
//	tel:+number                          yes, as any number that is called here
//	sip:…@host (sips: on tls), of us     yes; a telephone number as any number
//	any other, and emergency services    no
//
// A host is of us, in the same trust realm, if it is the attachment's domain or the peer's, a
// configured target or an address within trust_peers. The INVITE goes where all do, to the P-CSCF or
// the peer that redirected, which routes by Request-URI; only a configured target that is
// named is called itself. Who is answered with a 3xx leads no call out of the network
// that its owner has a contract with, and none past the owner (Invite.MayCall).
func (a *attachment) redirect(inv Invite, uri string) (target string, ok bool) {
	if len(uri) > 256 || ims.Emergency(uri, "") {
		return "", false
	}
	number := numberOf(uri)
	if number != "" && ims.Emergency(number, "") {
		return "", false
	}
	var u sipgo.Uri
	if err := sipgo.ParseUri(uri, &u); err != nil {
		return "", false
	}
	switch strings.ToLower(u.Scheme) {
	case "tel":
		if number == "" {
			return "", false
		}
	case "sips":
		if a.o.Transport != "tls" || !a.ofUs(u) {
			return "", false
		}
	case "sip":
		if !a.ofUs(u) {
			return "", false
		}
	default:
		return "", false
	}
	if inv.MayCall != nil && !inv.MayCall(uri, number) {
		return "", false
	}
	if number != "" && a.targetOf(u) == nil {
		return a.numberURI(number, false), true
	}
	u.Headers = nil // they would become headers of the INVITE (RFC 3261 19.1.5)
	u.UriParams.Remove("method")
	return u.String(), true
}

// ofUs says whether the host of a URI is in the attachment's trust realm.
func (a *attachment) ofUs(u sipgo.Uri) bool {
	host := strings.Trim(u.Host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return a.peers.has(ip.Unmap())
	}
	return strings.EqualFold(host, a.o.Domain) || strings.EqualFold(host, a.o.PeerDomain) || slices.ContainsFunc(a.o.Peers, func(t Target) bool {
		name, _ := t.hostPort()
		return strings.EqualFold(host, name)
	})
}

// targetOf is the configured target that a URI names, nil if it names none.
func (a *attachment) targetOf(u sipgo.Uri) *target {
	host := strings.Trim(u.Host, "[]")
	port := u.Port
	if port == 0 {
		port = sipgo.DefaultPort(a.o.Transport)
	}
	if t := a.known(net.JoinHostPort(host, strconv.Itoa(port))); t != nil {
		return t
	}
	for _, t := range a.all() {
		if name, _ := t.conf.hostPort(); net.ParseIP(name) == nil && strings.EqualFold(host, name) && !strings.EqualFold(host, a.o.Domain) && !strings.EqualFold(host, a.o.PeerDomain) {
			return t
		}
	}
	return nil
}
