package sdp

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	pion "github.com/pion/sdp/v3"
)

var us = netip.MustParseAddr("192.0.2.10")

func videoOffer() OfferOptions {
	return OfferOptions{Origin: Origin{SessionID: 3973450001, Version: 3973450001}, Addr: us, AudioPort: 49152,
		Video: true, VideoPort: 49154, Sprop: "Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg=="}
}

func parse(t testing.TB, b []byte) *Session {
	t.Helper()
	s, err := Parse(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return s
}

// answer makes a description out of lines; "/" separates them.
func answer(lines string) []byte {
	return []byte("v=0\r\no=- 5 5 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n" +
		strings.ReplaceAll(lines, "|", "\r\n") + "\r\n")
}

func TestOfferIsTheSpecifiedOne(t *testing.T) {
	want, err := os.ReadFile("testdata/offer-video.sdp")
	if err != nil {
		t.Fatal(err)
	}
	if got := Offer(videoOffer()); string(got) != string(want) {
		t.Errorf("offer is\n%s\nwant\n%s", got, want)
	}
}

func TestOfferVariants(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		name      string
		change    func(*OfferOptions)
		has, lack []string
	}{
		{"audio only", func(o *OfferOptions) { o.Video = false }, []string{"b=AS:41\r\nt=0 0"}, []string{"m=video"}},
		{"IPv6", func(o *OfferOptions) { o.Addr = v6 }, []string{"c=IN IP6 2001:db8::1", "b=AS:49", "b=AS:1009"}, []string{"IP4"}},
		{"plain AVPF", func(o *OfferOptions) { o.AVPF = PlainAVPF }, []string{"m=video 49154 RTP/AVPF", "a=rtcp-fb:* nack pli"}, []string{"tcap", "pcfg"}},
		{"AVP", func(o *OfferOptions) { o.AVPF = PlainAVP }, []string{"m=video 49154 RTP/AVP 114"}, []string{"tcap", "rtcp-fb"}},
		{"G.711 last", func(o *OfferOptions) { o.G711 = true }, []string{"101 102 9 8 0 13\r\nb=AS:80", "a=rtpmap:8 PCMA/8000", "a=rtpmap:9 G722/8000", "a=rtpmap:13 CN/8000"}, []string{"opus"}},
		{"Opus after AMR-WB", func(o *OfferOptions) { o.Opus = true }, []string{"RTP/AVP 97 98 103 99 100 101 102 104\r\nb=AS:41",
			"a=rtpmap:103 opus/48000/2\r\na=fmtp:103 maxplaybackrate=16000;", "a=rtpmap:104 telephone-event/48000"}, []string{"PCMA"}},
		{"no sprop", func(o *OfferOptions) { o.Sprop = "" }, []string{"packetization-mode=1\r\na=imageattr:114"}, []string{"sprop"}},
		{"hold", func(o *OfferOptions) { o.AudioDirection, o.VideoDirection = SendOnly, Inactive }, []string{"a=sendonly", "a=inactive"}, []string{"a=sendrecv"}},
		{"preconditions", func(o *OfferOptions) { o.QoS = true }, []string{"a=curr:qos local sendrecv"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := videoOffer()
			tt.change(&o)
			got := string(Offer(o))
			for _, s := range tt.has {
				if !strings.Contains(got, s) {
					t.Errorf("lacks %q:\n%s", s, got)
				}
			}
			for _, s := range tt.lack {
				if strings.Contains(got, s) {
					t.Errorf("has %q:\n%s", s, got)
				}
			}
			parse(t, []byte(got))
			if err := new(pion.SessionDescription).Unmarshal([]byte(got)); err != nil {
				t.Errorf("a second parser refuses it: %v", err)
			}
		})
	}
}

// A re-offer keeps slots and numbers; the version rises only when something changed.
func TestReoffer(t *testing.T) {
	o := videoOffer()
	o.Previous = parse(t, Offer(o))
	if got := parse(t, Offer(o)); got.Origin != o.Previous.Origin {
		t.Errorf("unchanged, but %+v", got.Origin)
	}
	o.Video = false
	down := parse(t, Offer(o))
	if len(down.Media) != 2 || down.Video.Port != 0 || down.Origin.Version != o.Previous.Origin.Version+1 ||
		down.Origin.SessionID != o.Previous.Origin.SessionID {
		t.Errorf("video off:\n%s", down.Bytes())
	}
	o.Previous, o.Video = down, true
	if up := parse(t, Offer(o)); len(up.Media) != 2 || up.Video.Port != 49154 || up.Origin.Version != down.Origin.Version+1 {
		t.Errorf("video on fills the slot:\n%s", up.Bytes())
	}
	voice := o
	voice.Previous, voice.Video = nil, false
	voice.Previous = parse(t, Offer(voice))
	voice.Video = true
	if up := parse(t, Offer(voice)); len(up.Media) != 2 || up.Video == nil || up.Video.Port == 0 {
		t.Errorf("upgrade:\n%s", up.Bytes())
	}
}

func TestNewOrigin(t *testing.T) {
	if o := NewOrigin(time.Unix(0, 0)); o.SessionID != 2208988800 || o.Version != o.SessionID {
		t.Errorf("%+v", o)
	}
}

// The answer never promises more than the offer allows (RFC 3264 §6.1).
func TestAnswerDirection(t *testing.T) {
	for _, tt := range []struct {
		name               string
		offer, local, want Direction
	}{
		{"both talk", SendRecv, SendRecv, SendRecv},
		{"peer holds us", SendOnly, SendRecv, RecvOnly},
		{"peer only listens", RecvOnly, SendRecv, SendOnly},
		{"peer is inactive", Inactive, SendRecv, Inactive},
		{"both hold", SendOnly, SendOnly, Inactive},
		{"we hold a talking peer", SendRecv, SendOnly, SendOnly},
		{"we listen to a listener", RecvOnly, RecvOnly, Inactive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := AnswerDirection(tt.offer, tt.local); got != tt.want {
				t.Errorf("AnswerDirection(%v, %v) = %v, want %v", tt.offer, tt.local, got, tt.want)
			}
		})
	}
}

const (
	goodAudio = "m=audio 40000 RTP/AVP 97 101|b=AS:41|b=RS:0|b=RR:0|a=rtpmap:97 AMR-WB/16000/1|a=fmtp:97 mode-set=0,1,2;mode-change-period=2|a=rtpmap:101 telephone-event/16000|a=ptime:20"
	goodVideo = "m=video 40002 RTP/AVPF 115|b=AS:512|a=acfg:1 t=1|a=rtpmap:115 H264/90000|a=fmtp:115 profile-level-id=42C00C;packetization-mode=1;sprop-parameter-sets=Z0LADA==|a=imageattr:115 send [x=240,y=320] recv [x=240,y=320]|a=rtcp-fb:* trr-int 5000|a=rtcp-fb:* nack pli|a=rtcp-fb:* ccm fir|a=extmap:4 urn:3gpp:video-orientation"
)

func TestNegotiate(t *testing.T) {
	r, err := Negotiate(parse(t, Offer(videoOffer())), parse(t, answer(goodAudio+"|"+goodVideo)))
	if err != nil {
		t.Fatal(err)
	}
	a, v := r.Audio, r.Video
	if a == nil || a.Codec != "AMR-WB" || a.PT != 97 || a.OctetAlign || len(a.ModeSet) != 3 || a.ModeChangePeriod != 2 ||
		a.DTMFPT != 101 || a.DTMFRateHz != 16000 || !a.Send || !a.Recv || !a.RTCPOff() ||
		a.Addr != netip.MustParseAddr("198.51.100.7") || a.Port != 40000 || a.RTCPPort != 40001 {
		t.Errorf("audio %+v", a)
	}
	if v == nil || v.PT != 115 || v.PacketizationMode != 1 || v.Profile.String() != "42c00c" || v.Width != 240 || v.Height != 320 ||
		v.FPS != 15 || v.BitrateBps != 384000 || !v.AVPF || !v.PLI || !v.FIR || v.NACK || v.TMMBR || v.TrrInt != 5000 || v.CVO != 4 ||
		v.Sprop != "Z0LADA==" || !v.Send || !v.Recv || v.RTCPOff() || v.RS != -1 {
		t.Errorf("video %+v", v)
	}
	if r.WhyNoVideo != "" || r.Held || len(r.Notes) != 0 || r.Origin.Version == 0 {
		t.Errorf("%+v", r)
	}
}

// RTCP goes to a=rtcp, or beside RTP: we never take up a=rtcp-mux, whoever offers (RFC 5761 §5.1.1).
func TestWhereRTCPGoes(t *testing.T) {
	for _, tt := range []struct {
		lines        string
		audio, video int
	}{
		{"", 40001, 40003},
		{"|a=rtcp-mux", 40001, 40003},
		{"|a=rtcp:50001", 50001, 50001},
		{"|a=rtcp:50001 IN IP4 198.51.100.7|a=rtcp-mux", 50001, 50001},
		{"|a=rtcp-mux|a=rtcp:50001", 50001, 50001},
	} {
		s := parse(t, answer(goodAudio+tt.lines+"|"+goodVideo+tt.lines))
		answered, err := Negotiate(parse(t, Offer(videoOffer())), s)
		if err != nil {
			t.Fatal(err)
		}
		o := phone()
		o.Addr = videoOffer().Addr
		own, offered, err := Answer(s, o)
		if err != nil {
			t.Fatal(err)
		}
		for who, r := range map[string]Result{"their answer": answered, "their offer": offered} {
			if r.Audio.RTCPPort != tt.audio || r.Video.RTCPPort != tt.video {
				t.Errorf("%s with %q: audio %d, video %d, want %d, %d", who, tt.lines, r.Audio.RTCPPort, r.Video.RTCPPort, tt.audio, tt.video)
			}
		}
		if strings.Contains(string(own), "mux") {
			t.Errorf("our answer takes up rtcp-mux:\n%s", own)
		}
	}
}

// IMS.md §3 rows 1-8 and 14, and what phones get wrong.
func TestNegotiateTable(t *testing.T) {
	pcma := "m=audio 40000 RTP/AVP 8|a=rtpmap:8 PCMA/8000"
	for _, tt := range []struct {
		name, answer, want string
		err                error
	}{
		{"video port 0", goodAudio + "|m=video 0 RTP/AVP 114", "AMR-WB sr; refused", nil},
		{"m-line missing", goodAudio, "AMR-WB sr; missing_mline", nil},
		{"video inactive", goodAudio + "|" + goodVideo + "|a=inactive", "AMR-WB sr; 115 -- 240x320; inactive", nil},
		{"camera off", goodAudio + "|" + goodVideo + "|a=recvonly", "AMR-WB sr; 115 s- 240x320", nil},
		{"does not show", goodAudio + "|" + goodVideo + "|a=sendonly", "AMR-WB sr; 115 -r 240x320", nil},
		{"hold", goodAudio + "|a=sendonly|" + goodVideo + "|a=sendonly", "AMR-WB -r; 115 -r 240x320; held", nil},
		{"old hold", goodAudio + "|c=IN IP4 0.0.0.0|" + goodVideo + "|c=IN IP4 0.0.0.0", "AMR-WB --; 115 -- 240x320; inactive; held", nil},
		{"High profile only", goodAudio + "|m=video 40002 RTP/AVP 114|a=rtpmap:114 H264/90000|a=fmtp:114 profile-level-id=64001f", "AMR-WB sr; codec_mismatch", nil},
		{"H.263", goodAudio + "|m=video 40002 RTP/AVP 34", "AMR-WB sr; codec_mismatch", nil},
		{"SRTP video", goodAudio + "|m=video 40002 RTP/SAVP 114", "AMR-WB sr; codec_mismatch", nil},
		{"42E0 is 42C0", goodAudio + "|m=video 40002 RTP/AVP 114|a=rtpmap:114 H264/90000|a=fmtp:114 profile-level-id=42E01F", "AMR-WB sr; 114 sr 480x640", nil},
		{"larger than its level says", goodAudio + "|m=video 40002 RTP/AVP 115|a=rtpmap:115 H264/90000|a=fmtp:115 profile-level-id=42800d;max-fs=3600;max-mbps=108000;max-br=14000", "AMR-WB sr; 115 sr 240x320", nil},
		{"a thread of a picture", goodAudio + "|m=video 40002 RTP/AVP 114|a=rtpmap:114 H264/90000|a=fmtp:114 profile-level-id=42e01f|a=imageattr:114 recv [x=16,y=640] [x=2000,y=16] [x=480,y=1200] [x=320,y=240]", "AMR-WB sr; 114 sr 320x240", nil},
		{"a thread in framesize", goodAudio + "|m=video 40002 RTP/AVP 114|a=rtpmap:114 H264/90000|a=fmtp:114 profile-level-id=42e01f|a=framesize:114 8-8", "AMR-WB sr; 114 sr 480x640", nil},
		{"plain Baseline", goodAudio + "|m=video 40002 RTP/AVP 115|a=rtpmap:115 H264/90000|a=fmtp:115 profile-level-id=42000d", "AMR-WB sr; 115 sr 240x320", nil},
		{"CS breakout", pcma + "|m=video 0 RTP/AVP 114", "PCMA sr; refused", nil},
		{"octet-aligned", "m=audio 40000 RTP/AVP 98|a=rtpmap:98 AMR-WB/16000|a=fmtp:98 octet-align=1|m=video 0 RTP/AVP 114", "AMR-WB/oa sr; refused", nil},
		{"other payload type", "m=audio 40000 RTP/AVP 110|a=rtpmap:110 AMR/8000|m=video 0 RTP/AVP 114", "AMR sr; refused", nil},
		{"two codecs, first counts", "m=audio 40000 RTP/AVP 99 97|a=rtpmap:99 AMR/8000|a=rtpmap:97 AMR-WB/16000|m=video 0 RTP/AVP 114", "AMR sr; refused", nil},
		{"crc is not ours", "m=audio 40000 RTP/AVP 98|a=rtpmap:98 AMR-WB/16000|a=fmtp:98 crc=1|m=video 0 RTP/AVP 114", "", ErrNoCommonCodec},
		{"nonsense mode-set", "m=audio 40000 RTP/AVP 97|a=rtpmap:97 AMR-WB/16000|a=fmtp:97 mode-set=99|m=video 0 RTP/AVP 114", "", ErrNoCommonCodec},
		{"EVS only", "m=audio 40000 RTP/AVP 97|a=rtpmap:97 EVS/16000|m=video 0 RTP/AVP 114", "", ErrNoCommonCodec},
		{"SRTP audio", "m=audio 40000 RTP/SAVP 97|a=rtpmap:97 AMR-WB/16000", "", ErrNoCommonCodec},
		{"all refused", "m=audio 0 RTP/AVP 97|m=video 0 RTP/AVP 114", "", ErrNoMedia},
		{"wrong order", goodVideo + "|" + goodAudio, "", ErrBadAnswer},
		{"too many m-lines", goodAudio + "|" + goodVideo + "|m=text 0 RTP/AVP 1", "", ErrBadAnswer},
		{"loopback", goodAudio + "|c=IN IP4 127.0.0.1", "", ErrBadAnswer},
		{"low port", "m=audio 22 RTP/AVP 97|a=rtpmap:97 AMR-WB/16000", "", ErrBadAnswer},
		{"IPv6", goodAudio + "|c=IN IP6 2001:db8::9", "", ErrAddressFamily},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := videoOffer()
			o.G711 = true
			r, err := Negotiate(parse(t, Offer(o)), parse(t, answer(tt.answer)))
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got := describe(r); err == nil && got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
	if _, err := Negotiate(nil, nil); !errors.Is(err, ErrBadAnswer) {
		t.Error(err)
	}
}
