package ladder

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

const info = "INFO sip:+8613800138001@203.0.113.9:6060 SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK12345678901\r\n" +
	"From: <sip:+8613800138009@ims.example>;tag=1\r\nTo: <tel:+8613800138001>;tag=2\r\nCall-ID: 12345678901234@192.0.2.10\r\nCSeq: 2 INFO\r\n" +
	"P-Asserted-Identity:\r\n <sip:+8613800138009@ims.example>\r\nContent-Type: application/dtmf-relay\r\nContent-Length: 24\r\n\r\nSignal=5\r\nDuration=160\r\n\r\n"

func captured() bridge.LegTrace {
	m := func(after time.Duration, sent bool, local, remote, raw string) sip.TraceMessage {
		return sip.TraceMessage{At: t0.Add(after), Sent: sent, Transport: "TCP", Local: local, Remote: remote, Raw: []byte(raw)}
	}
	return bridge.LegTrace{Leg: "leg_1", Messages: []sip.TraceMessage{
		m(0, true, "192.0.2.10:40123", "198.51.100.5:6060", strings.Replace(invite, ";sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==", "", 1)),
		m(time.Second, false, "192.0.2.10:40123", "198.51.100.5:6060", "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK7f3a91c2\r\n"+
			"From: <sip:+8613800138009@ims.example>;tag=b1a7c3\r\nTo: <tel:+8613800138001>;tag=x\r\nCall-ID: 12345678901234@192.0.2.10\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"),
		m(2*time.Second, false, "[2001:db8::1]:5060", "[2001:db8::2]:5060", info),
		m(3*time.Second, true, "", "", info), // no address: it cannot be drawn
	}}
}

// Nobody's number, credential or key is in a capture, and every byte is where it was.
func TestStars(t *testing.T) {
	for _, raw := range []string{invite, info, "", "x", "SIP/2.0 200 OK\n\nbody 13800138001"} {
		got := stars(raw)
		if len(got) != len(raw) {
			t.Errorf("%d bytes became %d:\n%s", len(raw), len(got), got)
		}
		for _, s := range []string{"13800138001", "13800138009", "460001234567890", "Signal=5"} {
			if strings.Contains(got, s) {
				t.Errorf("%s shows:\n%s", s, got)
			}
		}
	}
	for _, s := range []string{"Call-ID: 12345678901234@192.0.2.10", "branch=z9hG4bK7f3a91c2", "icid-value=98765432109876", "m=audio 49152 RTP/AVP 97 101", "tel:+86138****8001"} {
		if !strings.Contains(stars(invite), s) {
			t.Errorf("%s is lost:\n%s", s, stars(invite))
		}
	}
}

// Where a message went is no number of a subscriber, whatever its port; who it went to is, also
// where he has no host.
func TestStarsOfAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"<sip:127.0.0.1:15060;lr>": "", "<sip:[2001:db8::5]:15060;lr>": "", "<sip:scscf.example:15060;lr>": "", "sips:192.0.2.1:65535": "", "<sip:mark@127.0.0.1:15060;lr>": "",
		"<sip:12345@127.0.0.1:15060>":         "<sip:1***5@127.0.0.1:15060>",
		"<sip:12345:54321@127.0.0.1:15060>":   "<sip:1***5:5***1@127.0.0.1:15060>",
		"<sip:12345>":                         "<sip:1***5>",
		"<sip:12345;phone-context=x@h:15060>": "<sip:1***5;phone-context=x@h:15060>",
		"<sip:+1-555-12345;a@h>":              "<sip:+1-555-1***5;a@h>",
		"<sip:1.555.12345;a@h>":               "<sip:1.555.1***5;a@h>",
		"<tel:12345>":                         "<tel:1***5>",
		"<sip:h1234567.example:15060>":        "<sip:h12***67.example:15060>",
	} {
		if want == "" {
			want = in
		}
		for _, name := range []string{"Route", "Record-Route", "Contact"} {
			head := "OPTIONS sip:x SIP/2.0\r\n" + name + ": "
			if got := stars(head + in + "\r\n\r\n"); got != head+want+"\r\n\r\n" {
				t.Errorf("%s became %q, want %q", in, got, want)
			}
		}
	}
}

// A peer writes his credentials as he likes: folded, in another scheme, in both fields.
func TestStarsOfCredentials(t *testing.T) {
	for _, field := range []string{
		"Authorization: Digest username=\"hush\",response=\"hush\"\r\n",
		"authorization : DIGEST username=\"x\",\r\n\tresponse=\"hush\",\r\n nonce=\"hush\"\r\n",
		"Proxy-Authorization:\r\n Digest username=\"hush\"\r\n",
		"Authorization: Basic hush\r\n",
		"Authorization: hush\r\n",
		"Authorization:Digest\tusername=hush\r\n",
	} {
		raw := strings.Replace(invite, "Content-Type:", field+"Content-Type:", 1)
		got := stars(raw)
		if strings.Contains(got, "hush") || len(got) != len(raw) || !strings.Contains(got, "\r\nContent-Type: application/sdp\r\n") {
			t.Errorf("%q is shown as\n%s", field, got)
		}
	}
}

// Wireshark's own dissectors read what we write.
func TestTsharkReadsACapture(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: nobody else has judged the capture")
	}
	file := filepath.Join(t.TempDir(), "leg.pcap")
	var b bytes.Buffer
	if err := WritePcap(&b, captured(), false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tshark, "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|",
		"-e", "frame.time_epoch", "-e", "ip.src", "-e", "ipv6.dst", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "sip.Request-Line", "-e", "sip.Status-Line",
		"-e", "sip.Call-ID", "-e", "sdp.media", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1795630020.123000000|192.0.2.10||1|1|INVITE tel:+86138****8001 SIP/2.0||12345678901234@192.0.2.10|audio 49152 RTP/AVP 97 101,video 49154 RTP/AVP 114|",
		"1795630021.123000000|198.51.100.5||1|1||SIP/2.0 200 OK|12345678901234@192.0.2.10||",
		"1795630022.123000000||2001:db8::1||1|INFO sip:+86138****8001@203.0.113.9:6060 SIP/2.0||12345678901234@192.0.2.10||",
	}
	if got := strings.TrimSpace(string(out)); got != strings.Join(want, "\n") {
		t.Errorf("tshark reads\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// Whatever a peer sends, a capture is made of it, and no length changes.
func FuzzStars(f *testing.F) {
	f.Add(invite)
	f.Add(info)
	f.Fuzz(func(t *testing.T, raw string) {
		if got := stars(raw); len(got) != len(raw) {
			t.Errorf("%d bytes became %d", len(raw), len(got))
		}
		tr := captured()
		tr.Messages[0].Raw = []byte(raw)
		if err := WritePcap(&bytes.Buffer{}, tr, false); err != nil {
			t.Error(err)
		}
	})
}
