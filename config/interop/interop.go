// Package interop writes the page that a carrier asks for before it connects us: what an
// attachment does on the wire. All of it comes from the configuration, from the INVITE and
// the offer that the same code would send, and from the code's own constants.
package interop

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sparkle/bridge"
	"sparkle/bridge/ladder"
	"sparkle/config"
	"sparkle/media/video/rtp264"
	"sparkle/sip"
	"sparkle/sip/digest"
	"sparkle/sip/sdp"
)

// called is the number in the specimen: one that nobody has.
const called = "+15550123"

// Write writes one page for each attachment of a configuration, in Markdown.
func Write(w io.Writer, cfg config.File, userAgent string) error {
	var b strings.Builder
	for i, o := range cfg.SIP(userAgent).Attachments {
		if i > 0 {
			b.WriteString("\n")
		}
		if err := sheet(&b, cfg, cfg.Attachments[i], o, userAgent); err != nil {
			return fmt.Errorf("attachment %s: %w", o.Name, err)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// page collects the rows of a table.
type page struct{ b *strings.Builder }

func (p page) row(question, format string, args ...any) {
	fmt.Fprintf(p.b, "| %s | %s |\n", question, strings.ReplaceAll(fmt.Sprintf(format, args...), "|", `\|`))
}

func (p page) section(title string) { fmt.Fprintf(p.b, "\n## %s\n\n| | |\n|---|---|\n", title) }

func sheet(b *strings.Builder, cfg config.File, a config.Attachment, o sip.AttachmentOptions, userAgent string) error {
	media := cfg.Bridge().LocalIP(a.LocalAddr)
	addr, err := netip.ParseAddr(media)
	if err != nil {
		return fmt.Errorf("media address: %w", err)
	}
	port := cfg.Media.PortMin
	offer := sdp.Offer(sdp.OfferOptions{Origin: sdp.Origin{Username: "-", SessionID: 1, Version: 1}, Addr: addr, AudioPort: cmp.Or(port, 40000),
		Video: cfg.Video.Enabled, VideoPort: cmp.Or(port, 40000) + 2, AVPF: sdp.AVPF(o.VideoAVPF), Opus: o.OfferOpus, G711: o.OfferG711,
		QoS: o.Preconditions == "active" || o.Preconditions == "required"})
	invite, o, err := sip.Specimen(o, userAgent, called, offer)
	if err != nil {
		return err
	}
	start, headers, _ := ladder.Split(invite)
	header := func(name string) string {
		for _, h := range headers {
			if strings.EqualFold(h.Name, name) {
				return h.Value
			}
		}
		return ""
	}
	p := page{b}
	fmt.Fprintf(b, "# Interconnection sheet: %s\n\n%s, %s, generated from the configuration. RFC 3261 user agent and conference focus (B2BUA: nothing is copied between legs).\n",
		a.Name, userAgent, map[string]string{sip.ModeUE: "registers with a P-CSCF", sip.ModeTrunk: "static peering", sip.ModeAS: "application server over ISC"}[o.Mode])

	p.section("Transport")
	local := "any free port"
	if o.LocalPort != 0 {
		local = "port " + strconv.Itoa(o.LocalPort)
	}
	p.row("SIP transport", "%s, %s", strings.ToUpper(o.Transport), family(o.LocalAddr))
	p.row("Our SIP address", "%s, %s; advertised in Via and Contact", o.LocalAddr, local)
	var peers, trusted []string
	for _, t := range o.Peers {
		peers = append(peers, strings.TrimSpace(t.Host+" "+t.Transport)+limits(t))
	}
	for _, t := range o.TrustPeers {
		trusted = append(trusted, t.String())
	}
	p.row("Your addresses", "%s; names by NAPTR, SRV, A and AAAA (RFC 3263)", strings.Join(peers, ", "))
	p.row("SIP is accepted from", "these%s; everything else is dropped unread", also(trusted))
	p.row("TLS", "%s", tlsWords(o))
	p.row("Security agreement (RFC 3329)", "%s", agreementWords(o))
	p.row("MTU", "SIP over UDP may be larger than an MTU and comes in IP fragments; RTP payloads are at most %d bytes", rtp264.MaxPayload)
	p.row("DSCP", "SIP %s, audio RTP %d, video RTP %d", marked(o.DSCP), bridge.DSCPAudio, bridge.DSCPVideo)
	if o.KeepAlive > 0 && o.Transport != "udp" {
		p.row("Keep-alive", "CRLF CRLF every %v (RFC 5626)", o.KeepAlive)
	}

	p.section("Identity and numbers")
	p.row("Home domain", "%s", o.Domain)
	p.row("Called number", "E.164, global form: `%s`", strings.TrimSuffix(strings.TrimPrefix(start, "INVITE "), " SIP/2.0"))
	for _, name := range []string{"P-Asserted-Identity", "P-Preferred-Identity", "P-Preferred-Service", "Accept-Contact", "P-Charging-Vector", "P-Access-Network-Info"} {
		if v := header(name); v != "" {
			p.row(name, "`%s`", v)
		}
	}
	if o.Untrusted {
		p.row("Asserted identities", "not believed, nor sent: you are outside our trust domain (RFC 3325)")
	} else {
		p.row("Asserted identities", "believed from the addresses above only")
	}
	if o.Mode == sip.ModeTrunk {
		p.row("Your requests are authenticated", "%s", asked(o))
	}
	if o.Mode == sip.ModeUE {
		p.row("Registration", "digest %s; expires %v asked for, what is granted counts; reg event (RFC 3680) %s", strings.Join(o.Auth.Algorithms, ", "), o.Expires,
			map[string]string{sip.RegEventOff: "not subscribed", sip.RegEventTry: "subscribed, not needed", sip.RegEventRequired: "subscribed and needed"}[o.RegEvent])
	} else {
		asks := "none; yours are answered"
		if o.OptionsInterval > 0 {
			asks = fmt.Sprintf("every %v, answered too", o.OptionsInterval)
		}
		p.row("Registration", "none; OPTIONS %s", asks)
	}
	p.row("Emergency numbers", "never called%s", country(cfg.Calls.Country))

	p.section("Signalling")
	p.row("Methods", "%s", strings.Join(sip.Methods(), ", "))
	p.row("Supported, in INVITE", "%s", header("Supported"))
	p.row("Understood in Require", "%s", strings.Join(sip.OptionTags(), ", "))
	p.row("Event packages", "%s", strings.Join(sip.EventPackages(), ", "))
	p.row("Bodies", "%s", strings.Join(sip.Bodies(), ", "))
	p.row("100rel and PRACK (RFC 3262)", "supported in both directions, not required of you")
	p.row("UPDATE (RFC 3311)", "supported in both directions")
	p.row("Preconditions (RFC 3312)", "%s", map[string]string{"off": "not offered", "passive": "supported, not offered", "active": "offered, local resources are ready", "required": "required of the called party"}[o.Preconditions])
	if se := header("Session-Expires"); se != "" {
		p.row("Session timer (RFC 4028)", "Session-Expires %s s, Min-SE %s s; refresh by UPDATE where allowed, else re-INVITE", se, header("Min-SE"))
	} else {
		p.row("Session timer (RFC 4028)", "not asked for")
	}
	p.row("Early media", "P-Early-Media: %s; never passed into a conference", header("P-Early-Media"))
	p.row("Forking", "every early dialog by its tag; the first 2xx wins, others get ACK and BYE")
	p.row("No answer", "CANCEL after %v of ringing, %v without any sign", cfg.Calls.RingTimeout, cfg.Calls.SetupTimeout)

	p.section("Load and failure")
	p.row("New calls a second", "%s, paced before the INVITE", atMost(o.CPS))
	p.row("Calls at once", "%s", atMost(float64(o.MaxCalls)))
	p.row("INVITEs taken", "%g a second, shared by the peers that send, then 503 with Retry-After", o.InviteRate)
	wait := "4 s on UDP, 6 s on TCP and TLS"
	if o.Failover > 0 {
		wait = o.Failover.String()
	}
	if o.Mode != sip.ModeUE {
		p.row("Failover of an INVITE", "no answer in %s, connection error%s; never after a 18x", wait, codes(o.FailoverOn))
	}
	longest := "no limit"
	if o.MaxDuration > 0 {
		longest = o.MaxDuration.String()
	}
	p.row("Longest call", "%s, then BYE", longest)
	if o.FollowRedirect {
		p.row("300, 301, 302", "followed within your network, at most three times; 305 and 380 are final")
	} else {
		p.row("3xx", "final: the organiser is told where it points")
	}
	p.row("Your overload", "503 with Retry-After is obeyed, `oc` in Via (RFC 7339, loss) too")

	p.section("Media")
	ports := "any free UDP port"
	if cfg.Media.PortMin != 0 {
		ports = fmt.Sprintf("UDP %d to %d", cfg.Media.PortMin, cfg.Media.PortMax)
	}
	other := ""
	if ip := cfg.Bridge().OtherIP(media); ip != "" {
		other = fmt.Sprintf("; where a phone wants the other family (488 with Warning 301, or its own offer): %s, %s", ip, family(ip))
	}
	p.row("Our RTP address", "%s, %s, %s; RTP even, RTCP odd%s", media, family(media), ports, other)
	for _, line := range strings.Split(string(offer), "\r\n") {
		if strings.HasPrefix(line, "m=") {
			p.row("", "**%s**", strings.Fields(line[2:])[0])
		}
		if m := rtpmap.FindStringSubmatch(line); m != nil {
			p.row("payload type "+m[1], "%s %s", m[2], fmtp(string(offer), m[1]))
		}
	}
	p.row("Packet time", "%s ms, at most %s ms", attribute(string(offer), "ptime"), attribute(string(offer), "maxptime"))
	p.row("DTMF", "telephone-event (RFC 4733); INFO with application/dtmf-relay is read")
	if cfg.Video.Enabled {
		p.row("Video feedback", "%s", map[string]string{"capneg": "AVPF by capability negotiation (RFC 5939), m-line RTP/AVP", "plain_avpf": "RTP/AVPF", "avp": "none, RTP/AVP"}[o.VideoAVPF])
	} else {
		p.row("Video", "not offered")
	}
	p.row("SRTP", "not supported")
	from := "from the signalled address and port only"
	switch o.Latch {
	case sip.LatchStrict:
		from = "from the signalled address, there from the port it first comes from"
	case sip.LatchNAT:
		var nat []string
		for _, pre := range o.NATPrefixes {
			nat = append(nat, pre.String())
		}
		from = "from the signalled address, or after three packets in a row of one stream from " + strings.Join(nat, ", ") + "; then sent there"
	}
	p.row("Media is accepted", "%s; a leg without RTP and RTCP for %v ends", from, cfg.Media.Timeout)

	p.section("Records")
	if cfg.Charging.Enabled {
		p.row("Charging records", "one for every leg, failed ones too, with icid, ioi, times, status, bytes and packets; numbers %s", cfg.Charging.Numbers)
	} else {
		p.row("Charging records", "none kept")
	}
	p.row("Traces", "SIP ladder of a leg with UTC milliseconds, numbers masked unless asked otherwise")

	fmt.Fprintf(b, "\n## An INVITE of ours\n\n```\n%s\n```\n", strings.TrimRight(strings.ReplaceAll(invite, "\r\n", "\n"), "\n"))
	return nil
}

var rtpmap = regexp.MustCompile(`^a=rtpmap:(\d+) (\S+)`)

func fmtp(offer, pt string) string {
	for line := range strings.Lines(offer) {
		if v, ok := strings.CutPrefix(line, "a=fmtp:"+pt+" "); ok {
			return "`" + strings.TrimSpace(v) + "`"
		}
	}
	return ""
}

func attribute(offer, name string) string {
	for line := range strings.Lines(offer) {
		if v, ok := strings.CutPrefix(line, "a="+name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "-"
}

func family(addr string) string {
	if ip, err := netip.ParseAddr(addr); err == nil && ip.Is6() && !ip.Is4In6() {
		return "IPv6"
	}
	return "IPv4"
}

func also(trusted []string) string {
	if len(trusted) == 0 {
		return ""
	}
	return " and " + strings.Join(trusted, ", ")
}

func limits(t sip.Target) string {
	var s []string
	if t.CPS > 0 {
		s = append(s, fmt.Sprintf("%g calls a second", t.CPS))
	}
	if t.MaxCalls > 0 {
		s = append(s, fmt.Sprintf("%d at once", t.MaxCalls))
	}
	if s == nil {
		return ""
	}
	return " (" + strings.Join(s, ", ") + ")"
}

func tlsWords(o sip.AttachmentOptions) string {
	used := o.Transport == "tls"
	for _, t := range o.Peers {
		used = used || t.Transport == "tls"
	}
	switch {
	case !used:
		return "not used here"
	case o.TLS.CertFile != "" && o.TLS.CAFile != "":
		return "1.2 or newer, mutual: each side's certificate and the name in it are verified"
	case o.TLS.CertFile != "":
		return "1.2 or newer; your certificate is verified, ours is shown"
	}
	return "1.2 or newer; your certificate is verified, we have none: you cannot connect to us"
}

// asked is what proves a peer of a trunk.
func asked(o sip.AttachmentOptions) string {
	if o.Challenge.Username == "" {
		return "by your address, and over TLS by your certificate; no digest is asked for"
	}
	var algorithms []string
	for _, a := range digest.Servable() {
		if slices.Contains(o.Challenge.Algorithms, a) {
			algorithms = append(algorithms, a)
		}
	}
	return fmt.Sprintf("by your address, and by digest: 401 to INVITE, SUBSCRIBE and REFER outside a dialog, realm `%s`, %s, qop auth; in a dialog, and OPTIONS, not",
		o.Challenge.Realm, strings.Join(algorithms, " and "))
}

func agreementWords(o sip.AttachmentOptions) string {
	const without = "; ipsec-3gpp is not supported"
	switch {
	case o.Mode != sip.ModeUE:
		return "none: we do not register"
	case o.SecurityAgreement != sip.AgreeTLS:
		return "not offered: use TLS as it is, or a VPN" + without
	case o.Clear != "":
		return "`Security-Client: tls` in every REGISTER; as long as you have not agreed they come over " + strings.ToUpper(o.Clear) +
			", without credentials, to and from the port before TLS's, and Security-Server in your 401 or 494 is required; your list is repeated as Security-Verify, over TLS, in all requests but ACK and CANCEL" + without
	}
	return "`Security-Client: tls` in every REGISTER, over TLS from the start; your Security-Server is repeated as Security-Verify in all requests but ACK and CANCEL; without one we go on over TLS" + without
}

func marked(dscp int) string {
	if dscp == 0 {
		return "as the system marks"
	}
	return strconv.Itoa(dscp)
}

func country(c string) string {
	if c == "" {
		return " (those of every country)"
	}
	return " (those of " + c + ")"
}

func atMost(n float64) string {
	if n < 0 {
		return "no limit of ours"
	}
	return fmt.Sprintf("%g at most", n)
}

// codes are a list's further words, none if it is empty.
func codes(on []int) string {
	var b strings.Builder
	for _, n := range on {
		b.WriteString(", " + strconv.Itoa(n))
	}
	return b.String()
}
