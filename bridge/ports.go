package bridge

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"sparkle/sip/sdp"
)

// This file keeps media away from ourselves: a peer that names a port of ours, of SIP or of
// another leg, would have us send to ourselves, and be believed to be somebody else (IMS.md
// §5.5). On one machine a phone has the same address, and ports of its own.

// parse reads a peer's description.
func (b *Bridge) parse(description []byte) (*sdp.Session, error) {
	s, err := sdp.Parse(description)
	if err != nil {
		return nil, err
	}
	for _, m := range []*sdp.Media{s.Audio, s.Video} {
		if m == nil || m.Port == 0 {
			continue
		}
		for _, port := range []int{m.Port, cmp.Or(m.RTCPPort, m.Port+1)} {
			if b.owns(m.Addr, port) {
				return nil, fmt.Errorf("%w: %s to our own port %d", sdp.ErrBadOffer, m.Kind, port)
			}
		}
	}
	return s, nil
}

// owns says whether a port is ours: where SIP is spoken, or where a leg receives.
func (b *Bridge) owns(addr netip.Addr, port int) bool {
	at := netip.AddrPortFrom(addr, uint16(port))
	if _, ok := b.ports.Load(at); ok {
		return true
	}
	for _, a := range b.caller.Attachments() {
		if h, err := netip.ParseAddrPort(a.UDPAddr); err == nil && h == at {
			return true
		}
	}
	return false
}

// LocalIP is where media is received for an attachment that is at this address: at what is
// configured, of two addresses at that of the same family.
func (o Options) LocalIP(attachment string) string {
	for _, ip := range []string{o.MediaIP, o.OtherMediaIP} {
		if ip != "" && isIPv6(ip) == isIPv6(attachment) {
			return ip
		}
	}
	return cmp.Or(o.MediaIP, attachment)
}

// OtherIP is an address of ours for media that is of the other IP family than ip; "" there is none.
func (o Options) OtherIP(ip string) string {
	for _, other := range []string{o.MediaIP, o.OtherMediaIP} {
		if other != "" && isIPv6(other) != isIPv6(ip) {
			return other
		}
	}
	return ""
}

func isIPv6(ip string) bool { return strings.Contains(ip, ":") }

// portsOf are a leg's, RTP and RTCP.
func portsOf(l *leg) (all []netip.AddrPort) {
	addr, err := netip.ParseAddr(l.profile.LocalIP)
	if err != nil {
		return nil
	}
	for _, port := range []int{l.audio, l.video} {
		if port != 0 {
			all = append(all, netip.AddrPortFrom(addr, uint16(port)), netip.AddrPortFrom(addr, uint16(port+1)))
		}
	}
	return all
}

func (b *Bridge) holdPorts(l *leg) {
	for _, p := range portsOf(l) {
		b.ports.Store(p, struct{}{})
	}
}

func (b *Bridge) freePorts(l *leg) {
	for _, p := range portsOf(l) {
		b.ports.Delete(p)
	}
}
