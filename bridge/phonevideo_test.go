package bridge_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// This file is what phones do about video: in their answers, on their own, and when asked.

// videoWords adds to a connected leg what a plain picture or none does not say.
func videoWords(l bridge.Leg) (s string) {
	m := l.Media
	plain := m.VideoReason == nil && m.VideoState == bridge.VideoNegotiated || m.VideoState == bridge.VideoRefused ||
		m.VideoState == bridge.VideoNone || m.VideoState == bridge.VideoRemoved
	if !plain {
		s += " video " + string(m.VideoState)
		if m.VideoReason != nil {
			s += ": " + *m.VideoReason
		}
	}
	if m.WhyNoAudio != nil {
		s += " no audio: " + *m.WhyNoAudio
	}
	if l.CSAccess {
		s += " cs"
	}
	if c := l.Change; c != nil {
		s += fmt.Sprintf(" <%s %s", c.To, c.State)
		if c.Status != 0 {
			s += " " + strconv.Itoa(c.Status)
		}
		s += ">"
	}
	return s
}

// ports are the m-lines of a reply, and the Warning of a refusal.
func ports(r reply) (s string) {
	if r.warning != 0 {
		s += fmt.Sprintf(" warning %d,", r.warning)
	}
	for line := range strings.SplitSeq(string(r.sdp), "\r\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "m=") {
			on := " on"
			if f[1] == "0" {
				on = " 0"
			}
			s += " " + f[0][2:] + on
		}
	}
	return s
}

func takesVideo(fate string) bool {
	switch fate {
	case "video", "early", "inactive", "cameraoff", "notshown", "mismatch", "heldvideo":
		return true
	}
	return false
}

// peculiar makes of a good answer one of the others of IMS.md §3.
func peculiar(fate string, b []byte) []byte {
	s := string(b)
	i := strings.Index(s, "m=video")
	direct := func(dir string) []byte {
		return []byte(s[:i] + strings.Replace(s[i:], "a=sendrecv", "a="+dir, 1))
	}
	switch fate {
	case "inactive":
		return direct("inactive")
	case "cameraoff":
		return direct("recvonly")
	case "notshown":
		return direct("sendonly")
	case "mismatch": // a codec that nobody offered
		return []byte(s[:i] + "m=video 50002 RTP/AVP 34\r\na=rtpmap:34 H263/90000\r\n")
	case "heldvideo":
		return []byte(strings.ReplaceAll(s, "a=sendrecv", "a=sendonly"))
	}
	return b
}

// newOffer is an offer of the phone after its last description.
func (c *call) newOffer(what string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := sdp.OfferOptions{Addr: netip.MustParseAddr("127.0.0.1"), AudioPort: 50000, VideoPort: 50002, Previous: c.local}
	o.Video = strings.HasPrefix(what, "add") || what == "inactive" || what == "dropaudio" || what == "family" || what == "cameraoff"
	all := sdp.SendRecv
	if strings.HasSuffix(what, "held") || what == "inactive" {
		all = sdp.Inactive
	}
	o.AudioDirection, o.VideoDirection = all, all
	if what == "cameraoff" {
		o.VideoDirection = sdp.RecvOnly
	}
	if strings.HasPrefix(what, "srvcc") { // the media gateway of another network
		o.Addr, o.AudioPort = netip.MustParseAddr("127.0.0.9"), 60000
	}
	s := string(sdp.Offer(o))
	line := func(kind string, f func(string) string) {
		i := strings.Index(s, "m="+kind)
		end := strings.Index(s[i:], "\r\n") + i
		s = s[:i] + f(s[i:end]) + s[end:]
	}
	off := func(m string) string {
		f := strings.Fields(m)
		f[1] = "0"
		return strings.Join(f, " ")
	}
	switch what {
	case "srvcc", "srvcc1":
		line("audio", func(string) string { return "m=audio 60000 RTP/AVP 99 102" })
		for _, pt := range []string{"97", "98", "100", "101"} {
			for _, a := range []string{"rtpmap", "fmtp"} {
				if i := strings.Index(s, "a="+a+":"+pt); i >= 0 {
					s = s[:i] + s[i+strings.Index(s[i:], "\r\n")+2:]
				}
			}
		}
	case "dropaudio":
		line("audio", off)
	case "dropall", "dropallheld":
		line("audio", off)
	case "family":
		s = strings.ReplaceAll(s, "IN IP4 127.0.0.1", "IN IP6 2001:db8::7")
	case "fewer":
		s = s[:strings.Index(s, "m=video")]
	}
	if what == "srvcc1" || what == "takenover" { // somebody else, who knows nothing of a picture
		i := strings.Index(s, "o=")
		s = s[:i] + "o=other 9 1 IN IP4 127.0.0.9" + s[i+strings.Index(s[i:], "\r\n"):strings.Index(s, "m=video")]
	}
	before := c.local
	if what != "family" && what != "fewer" && !strings.HasPrefix(what, "dropall") { // those are refused: the old one stands
		own, err := sdp.Parse([]byte(s))
		if err != nil {
			panic(err)
		}
		c.local = own
	}
	return c.offer([]byte(s), before)
}

func (c *call) Refuse(id uint64, status, warning int) {
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.asks != nil && c.asks.id == id {
			c.asks = nil
		}
		c.replies[id] = reply{nil, status, warning}
	}()
}

// Offer is a re-INVITE of ours. The user of the phone makes up his mind in 20 s where he
// is asked; the phone itself answers at once.
func (c *call) Offer(b []byte, _ string) {
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		offer, err := sdp.Parse(b)
		if err != nil {
			panic("the bridge's offer is not SDP: " + err.Error())
		}
		c.offers = append(c.offers, ports(reply{sdp: b}))
		wait := 20 * time.Millisecond
		if offer.Video != nil && offer.Video.Port != 0 {
			wait = 20 * time.Second
		}
		c.at(wait, func() { c.decide(offer, 0) })
	}()
}

// refreshed answers a refresh with another description than before: edit changes its last. Of
// ours, what it has refused is not offered again.
func (c *call) refreshed(edit func(string) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own, err := sdp.Parse(c.said)
	if err != nil {
		panic(err)
	}
	if c.local.Video == nil || c.local.Video.Port == 0 {
		own.Video.Port = 0
	}
	theirs := []byte(edit(string(c.local.Bytes())))
	if s, err := sdp.Parse(theirs); err == nil {
		c.local = s
	}
	c.tell(sip.Refreshed{At: time.Now(), SDP: theirs, Local: own.Bytes()})
}

// remotes is where the engine sends a leg's media.
func (e *engine) remotes(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := ""
	for _, r := range []*mediapb.Remote{e.legs[id].GetAudio().GetRemote(), e.legs[id].GetVideo().GetRemote()} {
		if r != nil {
			s += fmt.Sprintf(" %s:%d", r.Ip, r.Port)
		}
	}
	return s
}

// decide answers our offer; answers is the Offer without description that we replied to with it.
func (c *call) decide(offer *sdp.Session, answers uint64) {
	e := sip.Reoffered{At: time.Now(), Status: 200}
	takes := true
	switch c.reacts {
	case "novideo":
		takes = false
	case "nonsense":
		e.SDP = []byte("v=7")
		c.tell(e)
		return
	case "silent":
		return
	case "", "accepts", "mismatch":
	case "glare": // our offer is stale: the phone's came between
		c.reacts = ""
		e.Status = 491
		c.tell(e)
		return
	default:
		e.Status, _ = strconv.Atoi(c.reacts)
		c.tell(e)
		return
	}
	b, _, err := sdp.Answer(offer, sdp.AnswerOptions{Origin: sdp.NewOrigin(time.Now()), Previous: c.local, Addr: netip.MustParseAddr("127.0.0.1"),
		AudioPort: 50000, Video: takes, VideoPort: 50002, H264: "42c00c"})
	if err != nil {
		panic("the phone cannot answer: " + err.Error())
	}
	if c.reacts == "mismatch" && offer.Video != nil && offer.Video.Port != 0 {
		b = peculiar("mismatch", b)
	}
	if c.local, err = sdp.Parse(b); err != nil {
		panic(err)
	}
	e.SDP, e.Offer = b, answers
	c.tell(e)
}

// What a refusal of video says stays in the history of the leg that goes on by voice.
func TestWhyVideoWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		h.script("member warned 488text", "member body body403", "call all", "after 5s")
		for name, want := range map[string]string{
			"warned": `trying voice only: 488 Not Acceptable Here; 399 sbc.example "H.264 off for +86138****8000"`,
			"body":   "trying voice only: 403 Forbidden; Video not subscribed",
		} {
			l := h.member(name).Leg
			if l == nil || l.State != bridge.Connected {
				t.Fatalf("%s: %+v", name, l)
			}
			legs, _, err := h.b.Legs(t.Context(), h.actor, h.conf, h.member(name).ID, 0, "")
			if err != nil || !slices.ContainsFunc(legs[0].Timeline, func(e bridge.TimelineEntry) bool { return strings.Contains(e.Text, want) }) {
				t.Errorf("%s: %v, no %q in\n%+v", name, err, want, legs[0].Timeline)
			}
		}
		h.script("hangup all", "after 1s")
	})
}

// A caller's video that is not wanted here is not refused by him, and nothing he fell back from.
func TestCallersVideoThatIsNotWanted(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind bridge.ConferenceType
		none bool // the server has no video
		dial string
		want string
	}{
		{"an audio conference", bridge.AudioConference, false, "dial ann conf", "conference_is_audio"},
		{"an audio conference by the shared number", bridge.AudioConference, false, "dial ann dialin", "conference_is_audio"},
		{"a server without video", bridge.VideoConference, true, "dial ann conf", "no_capacity"},
		{"the same by the shared number", bridge.VideoConference, true, "dial ann dialin", "no_capacity"},
		{"a caller without video", bridge.AudioConference, false, "dial ann conf voice", "not_offered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, tt.kind, func(o *bridge.Options) { o.NoVideo = tt.none })
				defer h.close()
				lines := []string{"policy open", tt.dial, "after 6s"}
				if strings.Contains(tt.dial, "dialin") {
					lines = append(lines, "press ann PIN", "after 1s")
				}
				h.script(lines...)
				l := h.member("ann").Leg
				if l == nil || l.Media.WhyNoVideo == nil || *l.Media.WhyNoVideo != tt.want || l.Media.VideoState != bridge.VideoNone {
					t.Fatalf("%+v", l)
				}
				if n := h.b.Stats().VideoFallback; len(n) > 0 {
					t.Errorf("fell back: %v", n)
				}
				h.script("caller ann bye", "after 1s")
			})
		})
	}
}

// Who is reached over a circuit-switched network says so in his Contact, in either direction
// and whether there was talk of video or not (IMS.md §3 row 14).
func TestCircuitSwitchedAccess(t *testing.T) {
	for _, tt := range []struct {
		kind bridge.ConferenceType
		line string
		want bool
	}{
		{bridge.VideoConference, "member ann pstn", true},
		{bridge.AudioConference, "member ann pstn", true},
		{bridge.AudioConference, "member ann voice", false},
		{bridge.VideoConference, "dial ann conf voice pcma contact=sip:mgcf1.ims.example", true},
		{bridge.VideoConference, "dial ann conf voice contact=sip:mgcf1.ims.example", false}, // AMR-WB
		{bridge.VideoConference, "dial ann conf voice pcma contact=sip:+8613900000001@192.0.2.1", false},
	} {
		t.Run(string(tt.kind)+" "+tt.line, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, tt.kind)
				defer h.close()
				h.script("policy open", tt.line, "call all", "after 5s")
				if l := h.member("ann").Leg; l == nil || l.CSAccess != tt.want {
					t.Errorf("%+v", l)
				}
				h.script("hangup all", "after 1s")
			})
		})
	}
}

// engine is something the engine finds out.
func (h *house) engine(name, what string) error {
	switch what {
	case "noports", "ports":
		h.eng.mu.Lock()
		h.eng.noPic = what == "noports"
		h.eng.mu.Unlock()
		return nil
	case "fussy", "easy": // it refuses whatever is to be sent, or does not
		h.eng.mu.Lock()
		h.eng.fussy = what == "fussy"
		h.eng.mu.Unlock()
		return nil
	}
	l := h.member(name).Leg
	if l == nil {
		return fmt.Errorf("%s has no leg", name)
	}
	h.eng.events <- &mediapb.Event{Conference: h.conf, Leg: l.ID, What: &mediapb.Event_VideoState{
		VideoState: &mediapb.VideoState{State: what, Width: 240, Height: 320}}}
	return nil
}

// A phone that has opened its camera for a codec that nobody here can read is told that this is
// a voice call, whenever that was: asked for video, asked for an offer, come from the lobby, come
// without an offer (IMS.md §3 row 8).
func TestPhoneIsToldOfAMismatch(t *testing.T) {
	play := func(t *testing.T, h *house, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if err := h.run(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		play(t, h, "member p voice", "call all", "after 5s", "phone p mismatch", "ask p video", "after 30s")
		c := h.net.phone(h.number["p"])
		if s := strings.Join(c.offers, ";"); s != " audio on video on; audio on video 0" {
			t.Errorf("asked for video: our offers are%s", s)
		}
		if l := h.member("p").Leg; l.Media.VideoState != bridge.VideoRefused || l.Change.State != "refused" {
			t.Errorf("asked for video: %s, %+v", l.Media.VideoState, l.Change)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		play(t, h, "member p video", "call all", "after 5s", "peer p offerless")
		c := h.net.phone(h.number["p"])
		c.mu.Lock()
		c.reacts = "mismatch"
		offer, err := sdp.Parse(c.replies[c.nextOffer].sdp)
		if err != nil {
			t.Fatal(err)
		}
		c.decide(offer, c.nextOffer) // in its ACK
		c.mu.Unlock()
		h.wait(time.Second)
		if s := strings.Join(c.offers, ";"); s != " audio on video 0" {
			t.Errorf("asked for an offer: ours are then%s", s)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		play(t, h, "dial p dialin mismatch", "after 1s", "press p PIN", "after 1s")
		if s := h.take(); !strings.Contains(s, "INVITE again isfocus audio video\n") || !strings.Contains(s, "INVITE again audio\n") {
			t.Errorf("from the lobby:\n%s", s)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		play(t, h, "policy open", "dial p conf offerless mismatch", "after 1s")
		if s := h.take(); !strings.Contains(s, "<- 200 isfocus audio video\n") || !strings.Contains(s, "INVITE again audio\n") {
			t.Errorf("without an offer:\n%s", s)
		}
	})
}

// A phone that asks for an offer of ours while the organiser's wish waits after glare gets one.
// The wish is not lost: where that offer has not brought it, the phone is asked again.
func TestWishSurvivesAQuestionForAnOffer(t *testing.T) {
	for _, tt := range []struct{ asked, takes bool }{{true, false}, {true, true}, {false, false}} {
		takes := tt.takes
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference)
			defer h.close()
			for _, line := range []string{"member p video", "call all", "after 5s", "peer p voiceonly", "phone p silent", "ask p video", "after 1s"} {
				if line == "ask p video" && !tt.asked {
					continue
				}
				if err := h.run(line); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
			c := h.net.phone(h.number["p"])
			id := c.reoffer(nil)
			synctest.Wait()
			if tt.asked {
				c.mu.Lock()
				c.tell(sip.Reoffered{At: time.Now(), Status: 491})
				c.mu.Unlock()
			} else if err := h.run("ask p video"); err != nil { // it waits for the answer to the other
				t.Fatal(err)
			}
			synctest.Wait()
			c.mu.Lock()
			offer, err := sdp.Parse(c.replies[id].sdp)
			if err != nil {
				t.Fatal(err)
			}
			c.reacts = "novideo"
			if takes {
				c.reacts = "accepts"
			}
			c.decide(offer, id)
			c.reacts = "accepts"
			c.mu.Unlock()
			h.wait(time.Second)
			want := 1
			if tt.asked && !takes {
				want = 2
			}
			c.mu.Lock()
			if len(c.offers) != want {
				t.Errorf("takes it %v: our offers are%s", takes, strings.Join(c.offers, ";"))
			}
			c.mu.Unlock()
			h.wait(30 * time.Second)
			if l := h.member("p").Leg; l.Change.State != "done" || l.Media.VideoState != bridge.VideoNegotiated {
				t.Errorf("takes it %v: %+v, video %s", takes, l.Change, l.Media.VideoState)
			}
		})
	}
}

// A 580 to video is tried by voice with passive preconditions (IMS.md §3 row 10), and one to
// voice with those, unless they were passive already.
func TestRetryAfter580(t *testing.T) {
	for _, tt := range []struct {
		kind    bridge.ConferenceType
		other   bool
		fate    string
		invites int
		in      bool
	}{
		{bridge.VideoConference, true, "qos", 2, true},
		{bridge.VideoConference, false, "qos", 2, true},
		{bridge.AudioConference, true, "qos", 2, true},
		{bridge.AudioConference, false, "qos", 1, false},
		{bridge.VideoConference, true, "status=580", 2, false},
		{bridge.AudioConference, true, "status=580", 2, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, tt.kind)
			defer h.close()
			h.net.other = tt.other
			if err := h.add("p", tt.fate); err != nil {
				t.Fatal(err)
			}
			if err := h.run("call all"); err != nil {
				t.Fatal(err)
			}
			h.wait(10 * time.Second)
			if n, in := h.net.invites(), h.member("p").State == bridge.InConference; n != tt.invites || in != tt.in {
				t.Errorf("%+v: %d INVITEs, in the conference: %v", tt, n, in)
			}
		})
	}
}

// An UPDATE before the answer counts in its own early dialog: where that is answered, the
// engine gets what was agreed last; where another is, what that one answered to the INVITE.
func TestUpdateBeforeTheAnswer(t *testing.T) {
	for _, other := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference)
			defer h.close()
			if err := h.add("p", "no-answer"); err != nil {
				t.Fatal(err)
			}
			if err := h.run("call all"); err != nil {
				t.Fatal(err)
			}
			h.wait(2 * time.Second)
			c := h.net.phone(h.number["p"])
			first := c.answer("video")
			offer := strings.Replace(string(c.answer("voice")), "m=audio 50000", "m=audio 50100", 1)
			c.mu.Lock()
			c.tell(sip.Offer{At: time.Now(), ID: 1, SDP: []byte(offer), Early: true})
			c.mu.Unlock()
			h.wait(time.Second)
			c.mu.Lock()
			final := sip.Answer{At: time.Now(), SDP: []byte(offer), Local: c.replies[1].sdp, Offered: true, Final: true}
			if words := ports(c.replies[1]); words != " audio on video 0" {
				t.Errorf("the UPDATE was answered%s", words)
			}
			if other {
				final = sip.Answer{At: time.Now(), SDP: first, Final: true}
			}
			c.tell(final)
			c.connected = true
			c.tell(sip.Connected{At: time.Now()})
			c.mu.Unlock()
			h.wait(time.Second)
			l := h.member("p").Leg
			h.eng.mu.Lock()
			got := h.eng.legs[l.ID]
			h.eng.mu.Unlock()
			switch {
			case !got.GetPresent():
				t.Errorf("the engine has %v", got)
			case other:
				if got.Audio.Remote.Port != 50000 || got.Video.GetRemote().GetPort() != 50002 {
					t.Errorf("another fork answered: the engine has %v", got)
				}
			case got.Audio.Remote.Port != 50100 || got.Video != nil:
				t.Errorf("the UPDATE's fork answered: the engine has %v", got)
			}
			if s := l.Media.VideoState; !other && s != bridge.VideoRefused {
				t.Errorf("video is %s", s)
			}
		})
	}
}

// Who declined a video call as one is called by voice only where the policy says so (IMS.md
// §3 row 11); who just declined never is.
func TestRetryByVoiceAfterADeclinedVideoCall(t *testing.T) {
	for _, policy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference, func(o *bridge.Options) { o.RetryAudioOnDecline = policy })
			defer h.close()
			for name, fate := range map[string]string{"text": "video-text", "s600": "status=600", "no": "declines"} {
				if err := h.add(name, fate); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.run("call all"); err != nil {
				t.Fatal(err)
			}
			h.wait(10 * time.Second)
			want := map[bool]int{false: 3, true: 5}[policy]
			if n := h.net.invites(); n != want {
				t.Errorf("policy %v: %d INVITEs, want %d", policy, n, want)
			}
			if in := h.member("text").State == bridge.InConference; in != policy {
				t.Errorf("policy %v: in the conference by voice: %v", policy, in)
			}
			if o := h.member("no").LastOutcome; o == nil || o.Outcome != bridge.Declined {
				t.Errorf("policy %v: who declined: %+v", policy, o)
			}
		})
	}
}

// An offer that the phone takes back, as we answer it or before, has changed nothing: neither what
// it hears nor the ports of its picture. The same offer again is as good as ever.
func TestOfferTakenBack(t *testing.T) {
	for _, tt := range []struct {
		fate, offer string
		before      []string // what the phone does before
		takes       string   // the state or the media once it means it
	}{
		{"video", "hold", nil, "held"},
		{"video", "resume", []string{"peer p hold"}, "connected"},
		{"video", "voiceonly", nil, "removed"},
		{"voice", "addvideo", nil, "negotiated"},
		{"video", "srvcc", nil, "cs"},
		{"video", "offerless", []string{"peer p voiceonly"}, ""},
	} {
		for _, when := range []string{"cancels", "takesback"} {
			t.Run(tt.offer+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(t, bridge.VideoConference)
					defer h.close()
					h.script(append([]string{"member p " + tt.fate, "call all", "after 5s"}, tt.before...)...)
					h.wait(time.Second)
					state := func() string {
						l := h.member("p").Leg
						h.eng.mu.Lock()
						defer h.eng.mu.Unlock()
						return fmt.Sprintf("%s, video %s, cs %v; the engine has %v and %v ports", l.State, l.Media.VideoState, l.CSAccess,
							h.eng.legs[l.ID], h.eng.video[l.ID] != 0)
					}
					before := state()
					h.script("phone p "+when, "peer p "+tt.offer, "after 3s")
					if got := state(); got != before {
						t.Errorf("%s\nwas %s\n is %s", tt.offer, before, got)
					}
					h.script("peer p "+tt.offer, "after 1s")
					l := h.member("p").Leg
					if got := fmt.Sprintf("%s %s cs=%v", l.State, l.Media.VideoState, l.CSAccess); !strings.Contains(strings.ReplaceAll(got, "cs=true", "cs"), tt.takes) {
						t.Errorf("%s once it means it: %s", tt.offer, got)
					}
				})
			})
		}
	}
}

// What the organiser wants while an answer of ours is on its way waits until it is known what became
// of that, and is offered then for the session that stands.
func TestWishWaitsForAnAnswerOnItsWay(t *testing.T) {
	for _, used := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.VideoConference)
			defer h.close()
			h.script("member p video", "call all", "after 5s", "peer p voiceonly", "after 1s")
			c := h.net.phone(h.number["p"])
			c.mu.Lock()
			c.lag = 500 * time.Millisecond
			c.mu.Unlock()
			if !used {
				h.script("phone p cancels")
			}
			h.script("peer p voiceonly", "ask p video", "after 100ms")
			offers := func() int {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.offers)
			}
			if n := offers(); n != 0 {
				t.Errorf("used %v: %d offers of ours while our answer is on its way", used, n)
			}
			h.wait(time.Second)
			if n := offers(); n != 1 {
				t.Errorf("used %v: %d offers of ours", used, n)
			}
			h.wait(30 * time.Second)
			if l := h.member("p").Leg; l.Change.State != "done" || l.Media.VideoState != bridge.VideoNegotiated {
				t.Errorf("used %v: %+v, video %s", used, l.Change, l.Media.VideoState)
			}
		})
	}
}

// The engine refuses the picture of before while an answer with one is on its way: the ports are that
// one's by then.
func TestPictureRefusedWhileAnAnswerIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close() // which looks for faults of the engine
		h.script("member p video", "call all", "after 5s")
		c := h.net.phone(h.number["p"])
		c.mu.Lock()
		c.lag = 500 * time.Millisecond
		c.mu.Unlock()
		h.script("engine p fussy", "peer p hold", "mute p", "after 100ms", "engine p easy", "after 1s")
		if l := h.member("p").Leg; l.State != bridge.Held || l.Media.VideoState != bridge.VideoNegotiated {
			t.Errorf("%s, video %s", l.State, l.Media.VideoState)
		}
	})
}
