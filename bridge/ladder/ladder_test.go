package ladder

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

var t0 = time.Date(2026, 11, 25, 18, 7, 0, 123_000_000, time.UTC)

const invite = "INVITE tel:+8613800138001 SIP/2.0\r\n" +
	"Via: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK7f3a91c2\r\n" +
	"From: \"13800138009\" <sip:+8613800138009@ims.example>;tag=b1a7c3\r\nTo: <tel:+8613800138001>\r\n" +
	"Call-ID: 12345678901234@192.0.2.10\r\nCSeq: 1 INVITE\r\n" +
	"P-Charging-Vector: icid-value=98765432109876;icid-generated-at=192.0.2.10\r\n" +
	"P-Asserted-Identity: <sip:+8613800138009@ims.example>, <tel:+8613800138009>\r\n" +
	"Supported: 100rel,\r\n timer\r\nSession-Expires: 1800\r\n" +
	"Authorization: Digest username=\"460001234567890@ims\"\r\n" +
	"Content-Type: application/sdp\r\n\r\n" +
	"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n" +
	"m=audio 49152 RTP/AVP 97 101\r\na=rtpmap:97 AMR-WB/16000/1\r\na=fmtp:97 mode-change-capability=2; max-red=220\r\n" +
	"a=rtpmap:101 telephone-event/16000\r\na=curr:qos local sendrecv\r\na=ptime:20\r\n" +
	"m=video 49154 RTP/AVP 114\r\na=rtpmap:114 H264/90000\r\na=fmtp:114 profile-level-id=42c00c;sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==\r\na=recvonly\r\n"

func ladderOf(full bool) Ladder {
	return New(bridge.LegTrace{Leg: "leg_1", Messages: []sip.TraceMessage{
		{At: t0, Sent: true, Transport: "TCP", Local: "192.0.2.10:5060", Remote: "198.51.100.5:5060", Raw: []byte(invite)},
		{At: t0.Add(1500 * time.Millisecond), Transport: "TCP", Local: "192.0.2.10:5060", Remote: "198.51.100.5:5060",
			Raw: []byte("SIP/2.0 183 Session Progress\r\ni: 12345678901234@192.0.2.10\r\nCSeq: 1 INVITE\r\nRequire: 100rel\r\nRSeq: 1234567\r\n" +
				"m: <sip:+8613800138001@203.0.113.9:5060>\r\nReason: Q.850;cause=16;text=\"to 13800138001\"\r\n\r\n")},
	}}, full)
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := ladderOf(false).WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const want = `leg leg_1, 2 messages; times are UTC

Call-ID 12345678901234@192.0.2.10, icid 98765432109876
                                     us 192.0.2.10:5060         peer 198.51.100.5:5060 (TCP)
2026-11-25 18:07:00.123Z     +0.000  ────> INVITE tel:+86138****8001 SIP/2.0   [1 INVITE]
                                          P-Asserted-Identity: <sip:+86138****8009@ims.example>, <tel:+86138****8009>
                                          Supported: 100rel, timer
                                          Session-Expires: 1800
                                          Content-Type: application/sdp
                                          SDP audio 49152 RTP/AVP at 192.0.2.10 sendrecv: 97 AMR-WB/16000(mode-change-capability=2;max-red=220), 101 telephone-event/16000 | curr qos local sendrecv, ptime 20
                                          SDP video 49154 RTP/AVP at 192.0.2.10 recvonly: 114 H264/90000(profile-level-id=42c00c)
2026-11-25 18:07:01.623Z     +1.500  <──── SIP/2.0 183 Session Progress   [1 INVITE]
                                          Require: 100rel
                                          RSeq: 1234567
                                          m: <sip:+86138****8001@203.0.113.9:5060>
                                          Reason: Q.850;cause=16;text="to 138****8001"
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Nobody's number and no credential is in a ladder that is not full; all of it is in a
// full one.
func TestMasking(t *testing.T) {
	var masked, full strings.Builder
	ladderOf(false).WriteText(&masked)
	ladderOf(true).WriteText(&full)
	for _, secret := range []string{"13800138001", "13800138009", "460001234567890"} {
		if strings.Contains(masked.String(), secret) {
			t.Errorf("%s shows", secret)
		}
		if !strings.Contains(full.String(), secret) {
			t.Errorf("%s is missing where everything was asked for", secret)
		}
	}
	for in, want := range map[string]string{
		"sip:10086@ims.example":      "sip:1****@ims.example",
		"<sip:192.0.2.10:5060;lr>":   "<sip:192.0.2.10:5060;lr>",
		"tel:+8613800138001;npdi":    "tel:+86138****8001;npdi",
		"sip:conf-7Gq2x@ims.example": "sip:conf-7Gq2x@ims.example",
	} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
}

var longRuns = regexp.MustCompile(`[0-9]{7,}`)

// Whatever a peer sends, a ladder is made of it, and no number of the start line shows.
func FuzzLadder(f *testing.F) {
	f.Add([]byte(invite))
	f.Add([]byte("SIP/2.0 200 OK\n\nv=0\nm=\nm=audio\na=fmtp:\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := New(bridge.LegTrace{Messages: []sip.TraceMessage{{Raw: raw}}}, false)
		var b strings.Builder
		if err := l.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		start, _, _ := Split(string(raw))
		for _, n := range longRuns.FindAllString(start, -1) {
			if strings.Contains(l.Messages[0].StartLine, n) {
				t.Errorf("start line %q", l.Messages[0].StartLine)
			}
		}
	})
}
