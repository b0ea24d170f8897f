package phone

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/media/codec/amr"
	"sparkle/sip/sdp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o Options) (p *Phone, audio, video int) {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	_, audio, video, err = p.Open()
	if err != nil {
		t.Fatal(err)
	}
	if audio%2 != 0 || video%2 != 0 {
		t.Errorf("odd ports %d, %d", audio, video)
	}
	return p, audio, video
}

func result(codec string, audio, video, mode int) sdp.Result {
	remote := func(port int) sdp.Remote {
		return sdp.Remote{Addr: netip.MustParseAddr("127.0.0.1"), Port: port, RTCPPort: port + 1}
	}
	rate, pt := 8000, 8
	switch codec {
	case "AMR-WB":
		rate, pt = 16000, 97
	case "AMR":
		pt = 99
	case "opus":
		rate, pt = 48000, 103
	case "G722":
		pt = 9
	}
	return sdp.Result{
		Audio: &sdp.Audio{Remote: remote(audio), Codec: codec, RateHz: rate, PT: pt, RecvPT: pt, DTMFPT: 101, DTMFRecvPT: 101,
			DTMFRateHz: rate, Opus: sdp.Opus{FEC: true, DTX: true}, Send: true, Recv: true, RS: -1, RR: -1},
		Video: &sdp.Video{Remote: remote(video), PT: 114, RecvPT: 114, PacketizationMode: mode, BitrateBps: 150_000,
			Send: true, Recv: true, AVPF: true, PLI: true, FIR: true, CVO: 4, RS: -1, RR: -1},
	}
}

// until polls a condition; a real call takes real time.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Two phones call each other: each hears and sees the other and not himself, and what
// they received is valid for ffprobe.
func TestTwoPhones(t *testing.T) {
	for _, tt := range []struct {
		codec string
		mode  int
		loss  float64
	}{{"AMR-WB", 1, 0}, {"AMR", 0, 0.02}, {"PCMA", 1, 0}, {"opus", 1, 0.02}, {"G722", 1, 0}} {
		t.Run(tt.codec, func(t *testing.T) {
			t.Parallel()
			names := []string{"甲", "乙", "丙"}
			a, aAudio, aVideo := open(t, Options{Speaker: 0, Names: names})
			b, bAudio, bVideo := open(t, Options{Speaker: 2, Names: names})
			a.Loss(tt.loss)
			if err := a.Start(result(tt.codec, bAudio, bVideo, tt.mode), true); err != nil {
				t.Skipf("SKIPPED: %v", err)
			}
			if err := b.Start(result(tt.codec, aAudio, aVideo, tt.mode), true); err != nil {
				t.Fatal(err)
			}
			a.SendDTMF('5')
			hears := func(p *Phone, who string) bool {
				return slices.ContainsFunc(p.Heard(time.Time{}), func(h Heard) bool { return h.Who == who })
			}
			until(t, 2*Cycle, "both hear each other", func() bool { return hears(a, "丙") && hears(b, "甲") })
			if hears(a, "甲") || a.HearsSelf(time.Time{}) || hears(a, "乙") {
				t.Errorf("a hears %+v", a.Heard(time.Time{}))
			}
			until(t, 10*time.Second, "both see each other move", func() bool {
				return slices.Equal(a.Seen(time.Time{}, nil).Moving, []string{"丙"}) &&
					slices.Equal(b.Seen(time.Time{}, nil).Moving, []string{"甲"})
			})
			if s := a.Stats(); s.AudioReceived == 0 || s.Frames == 0 || s.Refused != 0 {
				t.Errorf("%+v", s)
			}
			dir := t.TempDir()
			if err := a.DumpTo(dir); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"heard.wav": "pcm_s16le", "seen.h264": "h264", "seen.png": "png"}
			switch tt.codec {
			case "AMR-WB":
				want["heard.awb"] = "amr_wb"
			case "AMR":
				want["heard.amr"] = "amr_nb"
			}
			for file, codec := range want {
				if got := probe(t, filepath.Join(dir, file)); got != codec {
					t.Errorf("ffprobe says %s is %q, want %q", file, got, codec)
				}
			}
		})
	}
}

func probe(t *testing.T, file string) string {
	t.Helper()
	tool, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Skip("SKIPPED: ffprobe is not installed (apt-get install ffmpeg); nobody judged the dumps")
	}
	out, err := exec.Command(tool, "-v", "error", "-show_entries", "stream=codec_name", "-of", "default=nk=1:nw=1", file).Output() // its stderr tells of what the air lost
	if err != nil {
		t.Errorf("ffprobe %s: %v", file, err)
	}
	return strings.TrimSpace(string(out))
}

// A request for a key frame is counted, and only packets of the agreed peer are taken.
func TestRequestsAndStrangers(t *testing.T) {
	if !amr.Available {
		t.Skip("SKIPPED: this build has no codecs (it was built without cgo)")
	}
	a, aAudio, aVideo := open(t, Options{Speaker: 1})
	b, bAudio, bVideo := open(t, Options{Speaker: 3})
	if err := a.Start(result("PCMA", bAudio, bVideo, 1), true); err != nil {
		t.Fatal(err)
	}
	r := result("PCMA", aAudio, aVideo, 1)
	if err := b.Start(r, false); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "a's picture arrives", func() bool { return b.Stats().VideoReceived > 5 })
	b.video.ask(r.Video, a.video.head.SSRC)
	until(t, 5*time.Second, "the request arrives", func() bool { return a.Stats().KeyFrameRequests > 0 })
	if err := a.Update(sdp.Result{}); err != nil {
		t.Fatal(err)
	}
	// Nothing is agreed any more: everybody is a stranger.
	until(t, 5*time.Second, "strangers are refused", func() bool { return a.Stats().Refused > 10 })
	sent := a.Stats().AudioSent
	until(t, 5*time.Second, "more are refused", func() bool { return a.Stats().Refused > 20 })
	if now := a.Stats().AudioSent; now > sent+1 {
		t.Errorf("%d packets sent without an agreement", now-sent)
	}
}

func TestBadOptionsAndOrder(t *testing.T) {
	for _, o := range []Options{{Speaker: -1}, {Speaker: Speakers}, {IP: "nowhere"}, {Names: make([]string, Speakers+1)}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Start(sdp.Result{}, false) == nil || p.Update(sdp.Result{}) == nil {
		t.Error("Start and Update before Open succeeded")
	}
	p.Close()
	p.Close()
	q, _, _ := open(t, Options{})
	if err := q.Start(result("G729", 4000, 4002, 1), true); err == nil {
		t.Error("a codec that we lack was taken")
	}
}

func TestMarkWordsDiffer(t *testing.T) {
	for a := range 128 {
		for b := range a {
			if d := ones(markWord(a>>4, a&15) ^ markWord(b>>4, b&15)); d < 3 {
				t.Errorf("marks %d and %d differ in %d bits", a, b, d)
			}
		}
	}
}

func FuzzParseWAV(f *testing.F) {
	f.Add(wav([]int16{1, 2, 3}))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEdata\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pcm, err := parseWAV(b); err == nil && len(pcm) == 0 {
			t.Error("no samples and no error")
		}
	})
}

// Whatever comes to a socket is taken or refused, never a panic.
func FuzzReceive(f *testing.F) {
	f.Add(byte(0), []byte{0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5})
	f.Add(byte(1), []byte{0x80, 0xc9, 0, 1, 0, 0, 0, 1})
	f.Add(byte(2), []byte{0x80, 0xf2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x7c, 0x85, 0xff})
	f.Add(byte(3), []byte{0x81, 0xce, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Add(byte(10), []byte("\x80\xf20000000000A0")) // a broken picture: a key frame is asked for
	f.Add(byte(4), []byte{0x80, 97, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xf0, 0x44, 1, 2, 3})
	f.Fuzz(func(t *testing.T, where byte, b []byte) {
		p, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		codec := "PCMA"
		if where > 3 && amr.Available {
			codec = "AMR-WB"
		}
		r := result(codec, 4000, 4002, 1)
		r.Audio.Addr, r.Video.Addr = netip.IPv4Unspecified(), netip.IPv4Unspecified() // no socket is open: nothing may be sent
		if err := p.take(r, false); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second is a duplicate
			[]func([]byte){p.audio.receive, p.audio.control, p.video.receive, p.video.control}[where&3](b)
			p.audio.play(time.Now())
		}
	})
}
