package lab

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/sdp"
)

// notedMedia notes what a handset asks of its media.
type notedMedia struct {
	Silent
	mu    sync.Mutex
	notes []string
}

func (m *notedMedia) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, s)
}

func (m *notedMedia) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.notes, " ")
}

func (m *notedMedia) Loss(p float64) { m.note("loss") }
func (m *notedMedia) Start(r sdp.Result, video bool) error {
	if video {
		m.note("start+video:" + r.Audio.Codec)
	} else {
		m.note("start:" + r.Audio.Codec)
	}
	return nil
}
func (m *notedMedia) Update(r sdp.Result) error {
	s := "update"
	if r.Held {
		s += ":held"
	}
	if r.Video == nil {
		s += ":voice"
	}
	m.note(s)
	return nil
}
func (m *notedMedia) SendDTMF(d rune) { m.note(string(d)) }
func (m *notedMedia) Close()          { m.note("close"); m.Silent.Close() }

func TestMediaFollowsTheCall(t *testing.T) {
	c := startCore(t, CoreOptions{})
	m := &notedMedia{}
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: Lossy,
		Media: func(HandsetOptions) (Media, error) { return m, nil }})
	if h.Media() != nil {
		t.Error("media before any call")
	}
	u, l := connect(t, c, h, "tcp", videoOffer)
	if err := h.SendDTMF("1#"); err != nil {
		t.Fatal(err)
	}
	if err := h.SendDTMF("x"); err == nil {
		t.Error("there is no key x")
	}
	l.do("UPDATE", func(m *wire.Message) {
		withSDP(m, []byte(strings.ReplaceAll(string(videoOffer), "a=sendrecv", "a=inactive")))
	})
	u.status("UPDATE", 200)
	if !h.Calls()[0].Held {
		t.Error("the history does not show the hold")
	}
	l.do("UPDATE", func(m *wire.Message) {
		withSDP(m, []byte(strings.Replace(string(videoOffer), "m=video 49154", "m=video 0", 1)))
	})
	u.status("UPDATE", 200)
	l.do("BYE", nil)
	u.status("BYE", 200)
	const want = "loss start+video:AMR-WB 1 # update:held update:voice close"
	waitUntil(t, "the media is closed", func() bool { return strings.HasSuffix(m.said(), "close") })
	if got := m.said(); got != want {
		t.Errorf("media was asked for %q, want %q", got, want)
	}
	if h.Media() != Media(m) {
		t.Error("the last call's media is not there to be asked")
	}
	for name, err := range map[string]error{"hold": h.Hold(false), "dtmf": h.SendDTMF("1"), "hang up": h.HangUp(), "answer": h.Answer()} {
		if !errors.Is(err, ErrNoCall) {
			t.Errorf("%s without a call: %v", name, err)
		}
	}
}

func TestMediaThatCannotOpen(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001",
		Media: func(HandsetOptions) (Media, error) { return nil, errors.New("no camera") }})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	got := u.final("INVITE")
	if got.Status != 488 || !strings.Contains(got.Get("Warning"), "no camera") {
		t.Errorf("%d %s", got.Status, got.Get("Warning"))
	}
	l.failed(got)
}

func TestSilentCountsPackets(t *testing.T) {
	m, err := NewSilent(HandsetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := m.(*Silent)
	defer s.Close()
	ip, audio, video, err := s.Open()
	if err != nil || audio%2 != 0 || video%2 != 0 {
		t.Fatalf("%s %d %d %v", ip, audio, video, err)
	}
	for _, port := range []int{audio, video, video} {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(ip), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	waitUntil(t, "the packets arrive", func() bool { a, v := s.Packets(); return a == 1 && v == 2 })
}

func TestTheUserAnswersAndDeclines(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &Script{Never: true, Codecs: volte, EarlyMedia: true}})
	u, route := caller(t, c, "tcp")

	l := u.invite(h.Number(), videoOffer, route, nil)
	early := u.status("INVITE", 183)
	if early.Get("P-Early-Media") != "sendonly" || early.Get("RSeq") != "" || len(early.Body) == 0 {
		t.Errorf("early media: %s", early.Bytes())
	}
	u.status("INVITE", 180)
	if err := h.Answer(); err != nil {
		t.Fatal(err)
	}
	l.follow(u.status("INVITE", 200))
	l.ack()
	if _, err := h.WaitState(testContext(t), Connected); err != nil {
		t.Fatal(err)
	}
	l.do("INFO", func(m *wire.Message) {
		m.Add("Content-Type", "application/dtmf-relay")
		m.Body = []byte("Signal=5\r\n")
	})
	u.status("INFO", 200)
	if got := h.Calls()[0].Infos; len(got) != 1 || !strings.Contains(got[0], "Signal=5") {
		t.Errorf("INFO %q", got)
	}
	if err := h.HangUp(); err != nil {
		t.Fatal(err)
	}
	u.reply(u.request("BYE"), 200)

	l = u.invite(h.Number(), videoOffer, route, nil)
	u.status("INVITE", 180)
	if err := h.HangUp(); err != nil {
		t.Fatal(err)
	}
	got := u.final("INVITE")
	if got.Status != 486 || !strings.Contains(got.Get("Reason"), "User decline") {
		t.Errorf("%d %s", got.Status, got.Get("Reason"))
	}
	l.failed(got)
}

// An INVITE without a description: the handset offers, the ACK answers.
func TestOfferlessInvite(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: VolteVoice})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), nil, route, nil)
	ok := l.follow(u.status("INVITE", 200))
	u.send(withSDP(l.message("ACK", 1), voiceAnswer(t, ok.Body)))
	call, err := h.WaitState(testContext(t), Connected)
	if err != nil || call.Agreed.Audio == nil || call.Agreed.Audio.Codec != "AMR-WB" {
		t.Errorf("%+v %v", call.Agreed, err)
	}
}

// Our own re-INVITE meets one of the other side: it is refused 491 and sent again.
func TestGlare(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Transport: "tcp"})
	u, l := connect(t, c, h, "tcp", videoOffer)
	done := make(chan error, 1)
	go func() { done <- h.Hold(false) }()
	re := u.request("INVITE")
	l.do("INVITE", func(m *wire.Message) { withSDP(m, videoOffer) })
	if got := u.final("INVITE"); got.Status != 491 {
		t.Errorf("re-INVITE into ours answered %d, want 491", got.Status)
	}
	u.reply(re, 491)
	answerReinvite(u, true)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := h.Calls()[0].State; got != Connected {
		t.Errorf("the call is %s", got)
	}
	// A refusal of the hold leaves the call as it was.
	go func() { done <- h.Resume() }()
	u.reply(u.request("INVITE"), 488)
	if err := <-done; err == nil || h.Calls()[0].State != Connected {
		t.Errorf("refused re-INVITE: %v, call %s", err, h.Calls()[0].State)
	}
	// 481 ends it.
	go func() { done <- h.Resume() }()
	u.reply(u.request("INVITE"), 481)
	if err := <-done; err == nil {
		t.Error("a lost dialog is no error")
	}
	if call, err := h.WaitState(testContext(t), Ended); err != nil || call.By != ByDialogLos {
		t.Errorf("%+v %v", call, err)
	}
}

func TestParseProfile(t *testing.T) {
	for _, p := range Profiles() {
		if _, s, err := ParseProfile(string(p)); err != nil || s.Validate() != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, s, err := ParseProfile("lossy=0.25"); err != nil || s.Lossy != 0.25 {
		t.Errorf("%v %v", s.Lossy, err)
	}
	for _, bad := range []string{"", "toaster", "slow=x", "slow=-1s", "lossy=2", "lossy=x", "lossy=0.1x", "lossy=NaN", "busy=1s"} {
		if _, _, err := ParseProfile(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNumbers(t *testing.T) {
	got, err := Numbers("+8613800139999", 2, VolteVoice)
	if err != nil || got[1].Number != "+8613800140000" || got[1].Profile != VolteVoice {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := Numbers("abc", 1, VolteVoice); err == nil {
		t.Error("abc is a number")
	}
}
