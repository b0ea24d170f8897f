package interop

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sparkle/config"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

func write(t *testing.T, text string) string {
	t.Helper()
	cfg, err := config.Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Write(&b, cfg, "Sparkle/test"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	trunk = "attachments:\n  - {name: t, mode: trunk, local_addr: 192.0.2.10, local_port: 5070, targets: ['203.0.113.7:5060'], domain: example.net, impu: 'tel:+15550100'%s}\n"
	ue    = "attachments:\n  - {name: u, mode: ue, local_addr: '2001:db8::1', targets: ['[2001:db8::5]:5060'], domain: ims.example, impi: a@ims.example, impu: 'sip:a@ims.example', auth: {password: x}%s}\n"
)

// A row says what the configuration says, and something else when that does.
func TestPageFollowsTheConfiguration(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		has, not   []string
	}{
		{"trunk", fmt.Sprintf(trunk, ""), []string{"SIP transport | TCP, IPv4", "192.0.2.10, port 5070", "| P-Asserted-Identity |", "OPTIONS every 30s", "H264/90000", "UDP 40000 to 49999",
			"replaces, precondition |", "Session-Expires 1800 s"}, []string{"P-Preferred-Identity", "mutual"}},
		{"ue", fmt.Sprintf(ue, ""), []string{"TCP, IPv6", "| P-Preferred-Identity |", "digest SHA-512-256, SHA-256, MD5"}, []string{"PCMA", "P-Access-Network-Info", "P-Asserted-Identity", "Failover of an INVITE"}},
		{"udp", fmt.Sprintf(trunk, ", transport: udp, offer_g711: true, offer_opus: true"), []string{"SIP transport | UDP", "PCMA/8000", "PCMU/8000", "G722/8000", "opus/48000/2", "CN/8000"}, []string{"CRLF"}},
		{"limits", fmt.Sprintf(trunk, ", cps: 5, max_calls: 30, dscp: 24, failover_timer: 2s, failover_on: [500, 503], trust_peers: [203.0.113.0/29]"),
			[]string{"5 at most, paced", "| 30 at most", "SIP 24,", "no answer in 2s", "500, 503; never", "these and 203.0.113.0/29"}, nil},
		{"preconditions off", fmt.Sprintf(trunk, ", preconditions: 'off'"), []string{"100rel, timer, replaces |", "| not offered"}, []string{"replaces, precondition |"}},
		{"preconditions active", fmt.Sprintf(trunk, ", preconditions: active"), []string{"local resources are ready", "a=curr:qos local sendrecv"}, nil},
		{"session timer", fmt.Sprintf(trunk, ", session_expires: 600s, min_se: 120s"), []string{"Session-Expires 600 s, Min-SE 120 s"}, nil},
		{"no video", "video: {enabled: false}\n" + fmt.Sprintf(trunk, ""), []string{"| Video | not offered"}, []string{"H264", "m=video"}},
		{"avp", fmt.Sprintf(trunk, ", video_avpf: avp"), []string{"none, RTP/AVP |"}, []string{"a=tcap"}},
		{"elsewhere", "calls: {country: DE, ring_timeout: 90s}\nmedia: {local_ip: 192.0.2.11, port_min: 20000, port_max: 20999, timeout: 45s}\ncdr: {numbers: masked}\n" + fmt.Sprintf(trunk, ""),
			[]string{"those of DE", "CANCEL after 1m30s", "192.0.2.11, IPv4, UDP 20000 to 20999", "for 45s ends", "numbers masked"}, nil},
		{"both families", "media: {other_ip: '2001:db8::11'}\n" + fmt.Sprintf(trunk, ""), []string{"192.0.2.10, IPv4, UDP 40000", "Warning 301, or its own offer): 2001:db8::11, IPv6"}, nil},
		{"latch off", fmt.Sprintf(trunk, ""), []string{"from the signalled address and port only;"}, nil},
		{"latch strict", fmt.Sprintf(trunk, ", latch: strict"), []string{"there from the port it first comes from;"}, []string{"port only"}},
		{"latch nat", fmt.Sprintf(trunk, ", latch: nat, nat_prefixes: [100.64.0.0/10]"), []string{"of one stream from 100.64.0.0/10;"}, []string{"port only"}},
		{"no trust", fmt.Sprintf(trunk, ", trusted: false"), []string{"| Asserted identities | not believed"}, []string{"| believed"}},
		{"trust", fmt.Sprintf(trunk, ""), []string{"| Asserted identities | believed"}, nil},
		{"no challenge", fmt.Sprintf(trunk, ""), []string{"no digest is asked for"}, []string{"401"}},
		{"challenge", fmt.Sprintf(trunk, ", challenge: {username: peer-of-ours, password: s3cret}"), []string{"401 to INVITE, SUBSCRIBE and REFER outside a dialog, realm `example.net`, SHA-256 and MD5, qop auth"},
			[]string{"no digest", "s3cret", "peer-of-ours"}},
		{"challenge of one kind", fmt.Sprintf(trunk, ", challenge: {username: peer, password: s3cret, realm: pbx, algorithms: [MD5]}"), []string{"realm `pbx`, MD5, qop"}, []string{"SHA"}},
		{"no agreement", fmt.Sprintf(ue, ""), []string{"| Security agreement (RFC 3329) | not offered"}, []string{"Security-Verify"}},
		{"an agreement over TLS", fmt.Sprintf(ue, ", security_agreement: tls, transport: tls"), []string{"SIP transport | TLS", "over TLS from the start", "[2001:db8::5]:5060;"}, []string{"port before"}},
		{"an agreement that begins in clear", fmt.Sprintf(ue, ", security_agreement: tls, transport: udp, local_port: 5060"),
			[]string{"SIP transport | TLS", "they come over UDP, without credentials", "[2001:db8::5]:5061;", "port 5061;", "CRLF CRLF"}, []string{"from the start"}},
		{"no agreement of a trunk", fmt.Sprintf(trunk, ""), []string{"| Security agreement (RFC 3329) | none"}, nil},
		{"reg event off", fmt.Sprintf(ue, ", reg_event: 'off'"), []string{"(RFC 3680) not subscribed"}, nil},
		{"reg event", fmt.Sprintf(ue, ", reg_event: required"), []string{"(RFC 3680) subscribed and needed"}, nil},
		{"as", strings.Replace(fmt.Sprintf(trunk, ", failover_timer: 3s"), "mode: trunk", "mode: as", 1), []string{"| Failover of an INVITE | no answer in 3s"}, nil},
		{"no records", "cdr: {enabled: false}\n" + fmt.Sprintf(trunk, ""), []string{"| none kept"}, nil},
		{"numbers", fmt.Sprintf(trunk, ", peer_domain: their.example"), []string{"`sip:+15550123@their.example;user=phone`", "orig-ioi=example.net", "PCMA/8000"}, nil},
		{"tel numbers, and peers that are not asked", fmt.Sprintf(trunk, ", number_form: tel, offer_g711: false, options_interval: 0s, failover_on: []"),
			[]string{"`tel:+15550123`", "none; yours are answered", "connection error; never"}, []string{"PCMA"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := write(t, tt.text)
			for _, s := range tt.has {
				if !strings.Contains(page, s) {
					t.Errorf("lacks %q:\n%s", s, page)
				}
			}
			for _, s := range tt.not {
				if strings.Contains(page, s) {
					t.Errorf("has %q:\n%s", s, page)
				}
			}
		})
	}
}

// The page promises nothing that the code does not do.
func TestPageNamesOnlyWhatThereIs(t *testing.T) {
	page := write(t, fmt.Sprintf(trunk, ", offer_g711: true"))
	row := func(question string) string {
		m := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(question) + ` \| (.*) \|$`).FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("no row %q", question)
		}
		return m[1]
	}
	for m := range strings.SplitSeq(row("Methods"), ", ") {
		if !slices.Contains(sip.Methods(), m) {
			t.Errorf("method %s", m)
		}
	}
	for tag := range strings.SplitSeq(row("Supported, in INVITE"), ", ") {
		if !slices.Contains(sip.OptionTags(), tag) {
			t.Errorf("we offer %s and would answer 420 to it", tag)
		}
	}
	// The offer on the page is one that our own answerer takes whole.
	_, offer, _ := strings.Cut(page, "\n\nv=0")
	offer, _, _ = strings.Cut("v=0"+offer, "\n```")
	s, err := sdp.Parse([]byte(strings.ReplaceAll(offer, "\n", "\r\n") + "\r\n"))
	if err != nil || len(s.Media) != 2 {
		t.Fatalf("the offer on the page: %v, %+v", err, s)
	}
	for _, m := range s.Media {
		for _, pt := range m.Formats {
			if !strings.Contains(page, "| payload type "+pt+" |") && pt != "0" && pt != "8" {
				t.Errorf("payload type %s has no row", pt)
			}
		}
	}
	for _, word := range []string{"EVS", "HEVC", "H265", "MSRP", "STIR", "BFCP", "gruu", "outbound"} {
		if strings.Contains(page, word) {
			t.Errorf("the page names %s", word)
		}
	}
}

// An INVITE of a sheet has an address wherever one belongs, the best peer's in an application
// server's Route.
func TestSpecimensHaveNoEmptyHosts(t *testing.T) {
	empty := regexp.MustCompile(`(?i)(sips?:([^@>;\s]*@)?[;>:])|(@[;>\s])|(SIP/2\.0/[A-Z]+ [;:])`)
	as := func(peers string) string {
		return strings.Replace(strings.Replace(fmt.Sprintf(trunk, ""), "mode: trunk", "mode: as", 1), "['203.0.113.7:5060']", peers, 1)
	}
	for _, tt := range []struct{ name, text, route string }{
		{"ue", fmt.Sprintf(ue, ""), ""},
		{"trunk", fmt.Sprintf(trunk, ""), ""},
		{"as", as("['203.0.113.7:5060']"), "<sip:203.0.113.7:5060;transport=tcp;lr;orig>"},
		{"as of IPv6", strings.Replace(as("['[2001:db8::5]:5060']"), "192.0.2.10", "'2001:db8::1'", 1), "<sip:[2001:db8::5]:5060;transport=tcp;lr;orig>"},
		{"as of a name", as("[{host: later.example, priority: 2}, {host: scscf.example, transport: udp, priority: 1}]"), "<sip:scscf.example;transport=udp;lr;orig>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := write(t, tt.text)
			if found := empty.FindString(page); found != "" {
				t.Errorf("%q in\n%s", found, page)
			}
			if tt.route != "" && !strings.Contains(page, "Route: "+tt.route) {
				t.Errorf("no Route %s in\n%s", tt.route, page)
			}
		})
	}
}
