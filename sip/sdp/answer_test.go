package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	pion "github.com/pion/sdp/v3"
)

func describe(r Result) string {
	way := func(s, r bool) string {
		b := []byte("--")
		if s {
			b[0] = 's'
		}
		if r {
			b[1] = 'r'
		}
		return string(b)
	}
	var parts []string
	if a := r.Audio; a != nil {
		name := a.Codec
		if a.OctetAlign {
			name += "/oa"
		}
		parts = append(parts, name+" "+way(a.Send, a.Recv))
	}
	if v := r.Video; v != nil {
		parts = append(parts, fmt.Sprintf("%d %s %dx%d", v.PT, way(v.Send, v.Recv), v.Width, v.Height))
	}
	if r.WhyNoVideo != "" {
		parts = append(parts, r.WhyNoVideo)
	}
	if r.Held {
		parts = append(parts, "held")
	}
	return strings.Join(parts, "; ")
}

func phone() AnswerOptions {
	return AnswerOptions{Origin: Origin{SessionID: 1, Version: 1}, Addr: netip.MustParseAddr("198.51.100.7"), AudioPort: 40000,
		Codecs: []Codec{{Name: "AMR-WB"}}, Video: true, VideoPort: 40002, H264: "42c00c", Sizes: []Size{{240, 320}}}
}

// The bridge and a phone come to the same view of what the phone answered.
func TestBridgeAndPhoneAgree(t *testing.T) {
	for _, tt := range []struct {
		name              string
		offer             func(*OfferOptions)
		phone             func(*AnswerOptions)
		bridge, phoneSees string
	}{
		{"video phone", nil, nil, "AMR-WB sr; 115 sr 240x320", "AMR-WB sr; 115 sr 240x320"},
		{"voice phone", nil, func(o *AnswerOptions) { o.Video = false }, "AMR-WB sr; refused", "AMR-WB sr; refused"},
		{"AMR phone", nil, func(o *AnswerOptions) { o.Codecs, o.Video = []Codec{{Name: "AMR", ModeSet: []int{0, 2, 4, 7}}}, false }, "AMR sr; refused", "AMR sr; refused"},
		{"octet-aligned phone", nil, func(o *AnswerOptions) { o.Codecs[0].Packing, o.Video = OctetAligned, false }, "AMR-WB/oa sr; refused", "AMR-WB/oa sr; refused"},
		{"landline", func(o *OfferOptions) { o.G711 = true }, func(o *AnswerOptions) { o.Codecs, o.Video = []Codec{{Name: "PCMA"}}, false }, "PCMA sr; refused", "PCMA sr; refused"},
		{"Opus phone", func(o *OfferOptions) { o.Opus = true }, func(o *AnswerOptions) { o.Codecs, o.Video = []Codec{{Name: "opus"}}, false }, "opus sr; refused", "opus sr; refused"},
		{"desk phone", func(o *OfferOptions) { o.G711 = true }, func(o *AnswerOptions) { o.Codecs, o.Video = []Codec{{Name: "G722"}}, false }, "G722 sr; refused", "G722 sr; refused"},
		{"VGA phone", nil, func(o *AnswerOptions) { o.H264, o.Sizes = "42c01e", []Size{{480, 640}} }, "AMR-WB sr; 114 sr 480x640", "AMR-WB sr; 114 sr 480x640"},
		{"camera off", nil, func(o *AnswerOptions) { o.VideoDirection = RecvOnly }, "AMR-WB sr; 115 s- 240x320", "AMR-WB sr; 115 -r 240x320"},
		{"plain AVPF", func(o *OfferOptions) { o.AVPF = PlainAVPF }, nil, "AMR-WB sr; 115 sr 240x320", "AMR-WB sr; 115 sr 240x320"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, p := videoOffer(), phone()
			if tt.offer != nil {
				tt.offer(&o)
			}
			if tt.phone != nil {
				tt.phone(&p)
			}
			offer := parse(t, Offer(o))
			b, theirs, err := Answer(offer, p)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := Negotiate(offer, parse(t, b))
			if err != nil {
				t.Fatalf("%v in\n%s", err, b)
			}
			if describe(ours) != tt.bridge || describe(theirs) != tt.phoneSees {
				t.Errorf("bridge: %s\nphone:  %s\nwant:   %s\n        %s\n%s", describe(ours), describe(theirs), tt.bridge, tt.phoneSees, b)
			}
			if again, err := Agreed(offer, parse(t, b)); err != nil || !reflect.DeepEqual(again, theirs) {
				t.Errorf("the phone's own answer read again: %+v, %v\nwant %+v", again, err, theirs)
			}
			if v := ours.Video; v != nil && (!v.AVPF || !v.PLI || v.CVO != 4 || theirs.Video.PLI != v.PLI || theirs.Video.CVO != 4) {
				t.Errorf("feedback: bridge %+v, phone %+v\n%s", v, theirs.Video, b)
			}
			if a, p := ours.Audio, theirs.Audio; a.DTMFPT != p.DTMFPT || a.DTMFPT == 0 || fmt.Sprint(a.ModeSet) != fmt.Sprint(p.ModeSet) {
				t.Errorf("audio: bridge %+v, phone %+v", a, p)
			}
			if err := new(pion.SessionDescription).Unmarshal(b); err != nil {
				t.Errorf("a second parser refuses it: %v\n%s", err, b)
			}
		})
	}
}

// Handsets put their feedback into attribute capabilities of the configuration that has it (RFC
// 5939; IMS.md §2.1): it counts with that, and what else the configuration needs must be known.
func TestCapabilities(t *testing.T) {
	const lines = "a=tcap:1 RTP/AVPF RTP/SAVPF\r\na=acap:1 rtcp-fb:* nack pli\r\na=acap:2 rtcp-fb:* ccm fir\r\na=acap:3 crypto:1 x\r\n"
	for _, tt := range []struct{ pcfg, acfg string }{
		{"1 t=1 a=1,2", "1 t=1 a=1,2"},
		{"1 t=1 a=1,[2]", "1 t=1 a=1,2"},
		{"1 t=1 a=1,[2,3]", "1 t=1 a=1,2"},
		{"1 t=1 a=[3],1,2", "1 t=1 a=1,2"},
		{"1 t=1 a=1,3|2,1", "1 t=1 a=2,1"},
		{"1 t=2 a=3\r\na=pcfg:7 t=1 a=1,2", "7 t=1 a=1,2"},
		{"1 t=1", "1 t=1"},
		{"1 t=1 a=1,3", ""},
		{"1 t=1 a=1,9", ""},
		{"1 t=1 a=-m:1,2", ""},
		{"1 t=1 +x=1", ""},
		{"1 t=1 a=,", ""},
	} {
		offer := parse(t, append(answer(goodAudio+"|m=video 40002 RTP/AVP 115|a=rtpmap:115 H264/90000|a=fmtp:115 profile-level-id=42C00C"),
			lines+"a=pcfg:"+tt.pcfg+"\r\n"...))
		b, r, err := Answer(offer, AnswerOptions{Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154})
		if err != nil {
			t.Fatal(err)
		}
		_, acfg, _ := strings.Cut(string(b), "a=acfg:")
		acfg, _, _ = strings.Cut(acfg, "\r\n")
		fb := strings.Contains(tt.acfg, "a=")
		if acfg != tt.acfg || r.Video.AVPF != (acfg != "") || r.Video.PLI != fb || r.Video.FIR != fb || strings.Contains(string(b), "a=rtcp-fb:* nack pli") != fb {
			t.Errorf("%s: %q, %+v\n%s", tt.pcfg, acfg, r.Video, b)
		}
	}
}

// We answer what phones re-offer (IMS.md §3 rows 6, 7, 15, 16).
func TestAnswerReoffer(t *testing.T) {
	prev := parse(t, Offer(videoOffer()))
	moved := strings.ReplaceAll(goodAudio, "40000", "50000") + "|c=IN IP4 203.0.113.5"
	for _, tt := range []struct {
		name, offer, want string
		has               []string
		err               error
	}{
		{"hold", goodAudio + "|a=sendonly|" + goodVideo + "|a=sendonly", "AMR-WB -r; 115 -r 240x320; held", []string{"a=recvonly"}, nil},
		{"hold inactive", goodAudio + "|a=inactive|" + goodVideo + "|a=inactive", "AMR-WB --; 115 -- 240x320; inactive; held", []string{"a=inactive"}, nil},
		{"old hold", goodAudio + "|c=IN IP4 0.0.0.0|" + goodVideo + "|c=IN IP4 0.0.0.0", "AMR-WB --; 115 -- 240x320; inactive; held", []string{"a=inactive", "c=IN IP4 192.0.2.10"}, nil},
		{"resume", goodAudio + "|" + goodVideo, "AMR-WB sr; 115 sr 240x320", []string{"a=sendrecv"}, nil},
		{"voice only", goodAudio + "|m=video 0 RTP/AVP 115", "AMR-WB sr; not_offered", []string{"m=video 0 RTP/AVP 115"}, nil},
		{"new address", moved + "|m=video 0 RTP/AVP 115", "AMR-WB sr; not_offered", nil, nil},
		{"more m-lines", goodAudio + "|" + goodVideo + "|m=image 5000 udptl t38|m=foo 9 X y", "AMR-WB sr; 115 sr 240x320", []string{"m=image 0 udptl t38\r\nm=foo 0 X y\r\n"}, nil},
		{"EVS first", "m=audio 40000 RTP/AVP 96 97|a=rtpmap:96 EVS/16000|a=rtpmap:97 AMR-WB/16000|m=video 0 RTP/AVP 1", "AMR-WB sr; not_offered", []string{"RTP/AVP 97\r\n"}, nil},
		{"Opus first", "m=audio 40000 RTP/AVP 111 97|a=rtpmap:111 opus/48000/2|a=rtpmap:97 AMR-WB/16000|m=video 0 RTP/AVP 1", "AMR-WB sr; not_offered", []string{"RTP/AVP 97\r\n"}, nil},
		{"G.722 first", "m=audio 40000 RTP/AVP 9 97|a=rtpmap:97 AMR-WB/16000|m=video 0 RTP/AVP 1", "AMR-WB sr; not_offered", []string{"RTP/AVP 97\r\n"}, nil},
		{"Opus before G.711", "m=audio 40000 RTP/AVP 111 0 110|a=rtpmap:111 OPUS/48000/2|a=fmtp:111 minptime=10;useinbandfec=1|a=rtpmap:110 telephone-event/48000|m=video 0 RTP/AVP 1",
			"opus sr; not_offered", []string{"RTP/AVP 111 110\r\nb=AS:41", "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 maxplaybackrate=16000;", "useinbandfec=1", "usedtx=1"}, nil},
		{"Opus of one channel", "m=audio 40000 RTP/AVP 111 0|a=rtpmap:111 opus/48000|m=video 0 RTP/AVP 1", "PCMU sr; not_offered", nil, nil},
		{"G.711 first", "m=audio 40000 RTP/AVP 0 111|a=rtpmap:111 opus/48000/2|m=video 0 RTP/AVP 1", "PCMU sr; not_offered", []string{"RTP/AVP 0\r\n"}, nil},
		{"comfort noise", "m=audio 40000 RTP/AVP 8 13|m=video 0 RTP/AVP 1", "PCMA sr; not_offered", []string{"RTP/AVP 8 13\r\n", "a=rtpmap:13 CN/8000"}, nil},
		{"comfort noise beside AMR-WB", "m=audio 40000 RTP/AVP 97 13|a=rtpmap:97 AMR-WB/16000|m=video 0 RTP/AVP 1", "AMR-WB sr; not_offered", []string{"RTP/AVP 97\r\n"}, nil},
		{"audio dropped", "m=audio 0 RTP/AVP 97|" + goodVideo, "115 sr 240x320", nil, nil},
		{"preconditions", goodAudio + "|a=curr:qos local none|a=curr:qos remote none|a=des:qos mandatory local sendrecv|m=video 0 RTP/AVP 1", "AMR-WB sr; not_offered", []string{"a=curr:qos local sendrecv", "a=curr:qos remote none", "a=conf:qos remote sendrecv"}, nil},
		{"all dropped", "m=audio 0 RTP/AVP 97|m=video 0 RTP/AVP 1", "", nil, ErrNoMedia},
		{"no codec", "m=audio 40000 RTP/AVP 18|m=video 0 RTP/AVP 1", "", nil, ErrNoCommonCodec},
		{"fewer m-lines", goodAudio, "", nil, ErrBadOffer},
		{"loopback", goodAudio + "|c=IN IP4 127.0.0.1|m=video 0 RTP/AVP 1", "", nil, ErrBadOffer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, r, err := Answer(parse(t, answer(tt.offer)), AnswerOptions{Previous: prev, Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154})
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				if s, _ := StatusOf(err); s != 488 {
					t.Errorf("status %d", s)
				}
				return
			}
			if got := describe(r); got != tt.want {
				t.Errorf("%s\nwant %s\n%s", got, tt.want, b)
			}
			ours := parse(t, b)
			if again, err := Agreed(parse(t, answer(tt.offer)), ours); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("read again: %+v, %v\nwant %+v", again, err, r)
			}
			if ours.Origin.SessionID != prev.Origin.SessionID || ours.Origin.Version != prev.Origin.Version+1 {
				t.Errorf("origin %+v", ours.Origin)
			}
			for _, s := range tt.has {
				if !strings.Contains(string(b), s) {
					t.Errorf("lacks %q:\n%s", s, b)
				}
			}
		})
	}
}

// TestTorture: every case parses, or does not, or its bad part is passed over.
func TestTorture(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sdp")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	// what a bad case comes to when our bridge answers it as an offer; others do not parse
	survive := map[string]string{
		"bad-crypto-null": "no common", "bad-crypto-short": "no common", "bad-c-loopback": "loopback", "bad-m-port-22": "port 22",
		"bad-m-count": "65535 ports", "bad-m-proto-junk": "transport", "bad-rtpmap-noname": "PCMU", "bad-rtpmap-noslash": "PCMU",
		"bad-fmtp-empty": "AMR-WB", "bad-fmtp-modeset-junk": "PCMU", "bad-ptime-huge": "AMR-WB/oa", "bad-ptime-neg": "AMR-WB/oa",
		"bad-h264-pli-short": "codec_mismatch", "bad-rtpmap-dup": "AMR-WB/oa", "bad-t-garbage": "AMR-WB/oa",
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".sdp")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(b)
			want, survives := survive[name]
			if strings.HasPrefix(name, "bad-") && !survives {
				if !errors.Is(err, ErrSyntax) {
					t.Fatalf("parsed: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			addr := us
			if name == "ok-ip6" {
				addr = netip.MustParseAddr("2001:db8::10")
			}
			a, r, err := Answer(s, AnswerOptions{Addr: addr, AudioPort: 49152, Video: true, VideoPort: 49154})
			got := describe(r)
			if err != nil {
				got = err.Error()
			} else if n := len(parse(t, a).Media); n != len(s.Media) {
				t.Errorf("%d m-lines for %d", n, len(s.Media))
			}
			if strings.HasPrefix(name, "ok-") && err != nil || !strings.Contains(got, want) {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	head := "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n"
	for name, s := range map[string]string{
		"size": head + strings.Repeat("a=x\r\n", 20000), "line": head + "a=" + strings.Repeat("x", MaxLine),
		"attributes": head + strings.Repeat("a=x\r\n", MaxAttributes+1), "m-lines": head + strings.Repeat("m=x 0 y z\r\n", MaxMedia),
	} {
		if _, err := Parse([]byte(s)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	parse(t, []byte(head+strings.Repeat("a=x\r\n", MaxAttributes)+strings.Repeat("m=x 0 y z\r\n", MaxMedia-1)))
}

func TestProfileLevel(t *testing.T) {
	for _, tt := range []struct {
		s            string
		cbp, decodes bool
		level        int
	}{
		{"42c00c", true, true, 120}, {"42E01F", true, true, 310}, {"42000d", false, true, 130}, {"4d801e", true, true, 300},
		{"4d001e", false, false, 300}, {"58c00a", true, true, 100}, {"64001f", false, false, 310}, {"42d00b", true, true, 105},
	} {
		p, err := ParseProfileLevel(tt.s)
		if err != nil || p.Constrained() != tt.cbp || p.Decodable() != tt.decodes || p.Level() != tt.level {
			t.Errorf("%s: %v %v %d, %v", tt.s, p.Constrained(), p.Decodable(), p.Level(), err)
		}
	}
	for _, s := range []string{"", "42", "42c00c0", "42c00g"} {
		if _, err := ParseProfileLevel(s); err == nil {
			t.Errorf("%q taken", s)
		}
	}
}

// What parses can be answered or refused, and our answer parses; nothing panics.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.sdp")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	offer, err := Parse(Offer(videoOffer()))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("unnamed error %v", err)
			}
			return
		}
		if r, err := Negotiate(offer, s); err == nil && r.Audio == nil && r.Video == nil {
			t.Fatal("agreed on nothing")
		}
		a, r, err := Answer(s, AnswerOptions{Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154})
		if err != nil {
			return
		}
		back, err := Parse(a)
		if err != nil || len(back.Media) != len(s.Media) {
			t.Fatalf("own answer: %v\n%s", err, a)
		}
		if v := r.Video; v != nil && (v.Width < 16 || v.Height < 16 || v.FPS < 1 || v.BitrateBps < 0) {
			t.Fatalf("video %+v", v)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	o := Offer(videoOffer())
	for b.Loop() {
		if _, err := Parse(o); err != nil {
			b.Fatal(err)
		}
	}
}

// baresip offers keys of 8000 Hz beside AMR-WB of 16000: they are taken, unless there are
// such of the codec's clock.
func TestAnswerKeysOfAnotherClock(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 96 101 102\r\n" +
		"a=rtpmap:96 AMR-WB/16000\r\na=fmtp:96 octet-align=1\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"
	for _, tt := range []struct {
		more     string
		pt, rate int
	}{{"", 101, 8000}, {"a=rtpmap:102 telephone-event/16000\r\n", 102, 16000}, {"a=rtpmap:102 telephone-event/48000\r\n", 101, 8000}} {
		offer, err := Parse([]byte(head + tt.more))
		if err != nil {
			t.Fatal(err)
		}
		o := phone()
		o.Video = false
		answer, r, err := Answer(offer, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Audio.DTMFRecvPT != tt.pt || r.Audio.DTMFPT != tt.pt || r.Audio.DTMFRateHz != tt.rate {
			t.Errorf("%q: keys are %d at %d Hz, want %d at %d\n%s", tt.more, r.Audio.DTMFRecvPT, r.Audio.DTMFRateHz, tt.pt, tt.rate, answer)
		}
	}
}

// What the peer wants of Opus reaches whoever sends it, and comfort noise is agreed on only
// where both have it.
func TestWhatAGuestWants(t *testing.T) {
	o := videoOffer()
	o.Opus, o.G711, o.Video = true, true, false
	offer := parse(t, Offer(o))
	a := "m=audio 40000 RTP/AVP 103|a=rtpmap:103 opus/48000/2|a=fmtp:103 maxaveragebitrate=16000; maxplaybackrate=8000; useinbandfec=1; stereo=1"
	r, err := Negotiate(offer, parse(t, answer(a)))
	if want := (Opus{FEC: true, Stereo: true, MaxBitrate: 16000, MaxPlayback: 8000}); err != nil || r.Audio.Opus != want {
		t.Errorf("%+v, %v; want %+v", r.Audio, err, want)
	}
	bad := "m=audio 40000 RTP/AVP 103|a=rtpmap:103 opus/48000/2|a=fmtp:103 useinbandfec=yes"
	if _, err := Negotiate(offer, parse(t, answer(bad))); !errors.Is(err, ErrNoCommonCodec) {
		t.Errorf("nonsense in the parameters: %v", err)
	}
	for lines, want := range map[string]bool{"m=audio 40000 RTP/AVP 0 13": true, "m=audio 40000 RTP/AVP 0": false, "m=audio 40000 RTP/AVP 9 13": false} {
		if r, err := Negotiate(offer, parse(t, answer(lines))); err != nil || r.Audio.CN != want {
			t.Errorf("%s: comfort noise %+v, %v", lines, r.Audio, err)
		}
	}
}

// The level of what we send is the lower of both sides', and the peer's only where both allow
// levels to differ (RFC 6184 §8.2.2); its max-fs and the like never raise it.
func TestLevelThatIsSent(t *testing.T) {
	const asym = ";level-asymmetry-allowed=1"
	for _, tt := range []struct{ ours, theirs, want string }{
		{"42c00c", "42e01f", "42c00c"},
		{"42c00c" + asym, "42e01f", "42c00c"},
		{"42c00c", "42e01f" + asym, "42c00c"},
		{"42c00c" + asym, "42e01f" + asym, "42c01f"},
		{"42c01f" + asym, "42e00b" + asym, "42c00b"},
		{"42c01f", "42f00b", "42d00b"}, // 1b
		{"42c01f", "42e00c;max-mbps=108000;max-fs=3600;max-br=14000", "42c00c"},
	} {
		media := func(level string) string {
			return goodAudio + "|m=video 40002 RTP/AVP 115|a=rtpmap:115 H264/90000|a=fmtp:115 packetization-mode=1;profile-level-id=" + level
		}
		r, err := Negotiate(parse(t, answer(media(tt.ours))), parse(t, answer(media(tt.theirs))))
		if err != nil || r.Video == nil {
			t.Fatal(err, r.WhyNoVideo)
		}
		if got := r.Video.Profile.String(); got != tt.want {
			t.Errorf("we %s, they %s: %s is sent, want %s", tt.ours, tt.theirs, got, tt.want)
		}
	}
}

// A description with fewer m-lines breaks RFC 3264 §8, unless it is another's: who has taken the
// call over (IMS.md §3 row 16) knows nothing of ours. The m-lines it leaves out are gone, and what
// we offer later begins with those that there are.
func TestTakenOverWithFewerLines(t *testing.T) {
	prev := parse(t, Offer(OfferOptions{Origin: Origin{SessionID: 1, Version: 1}, Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154}))
	peer := Origin{Username: "phone", SessionID: 7, Version: 3}
	for _, tt := range []struct {
		name  string
		o     string
		peer  Origin
		media string
		err   error
	}{
		{"the same", "phone 7 4", peer, goodAudio, ErrBadOffer},
		{"another user", "msc 7 4", peer, goodAudio, nil},
		{"another session", "phone 8 1", peer, goodAudio, nil},
		{"another session, and no audio", "phone 8 1", peer, goodVideo, nil},
		{"another session, nothing left", "phone 8 1", peer, "m=audio 0 RTP/AVP 97", ErrNoMedia},
		{"nobody knows who it was before", "msc 7 4", Origin{}, goodAudio, ErrBadOffer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			offer := parse(t, []byte(strings.Replace(string(answer(tt.media)), "o=- 5 5 ", "o="+tt.o+" ", 1)))
			b, r, err := Answer(offer, AnswerOptions{Previous: prev, Peer: tt.peer, Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154})
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			ours := parse(t, b)
			if len(ours.Media) != 1 || (r.Audio != nil) != (tt.media == goodAudio) || (r.Video != nil) != (tt.media == goodVideo) || r.Origin != offer.Origin {
				t.Errorf("%+v\n%s", r, b)
			}
			if ours.Origin.SessionID != prev.Origin.SessionID || ours.Origin.Version != prev.Origin.Version+1 {
				t.Errorf("our origin is %+v", ours.Origin)
			}
			again := parse(t, Offer(OfferOptions{Previous: ours, Addr: us, AudioPort: 49152, Video: true, VideoPort: 49154}))
			if len(again.Media) != 2 || again.Media[0].Kind != ours.Media[0].Kind || again.Audio == nil || again.Audio.Port != 49152 ||
				again.Video == nil || again.Video.Port != 49154 || again.Origin.Version != ours.Origin.Version+1 {
				t.Errorf("our next offer:\n%s", again.Bytes())
			}
			voice := parse(t, Offer(OfferOptions{Previous: ours, Addr: us, AudioPort: 49152}))
			if voice.Audio == nil || voice.Audio.Port != 49152 || voice.Video != nil && voice.Video.Port != 0 || len(voice.Media) > 1 && tt.media == goodAudio {
				t.Errorf("our next offer of voice:\n%s", voice.Bytes())
			}
		})
	}
}
