package lab

import (
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/sdp"
)

// caller is a registered ue with the route its requests need.
func caller(t *testing.T, c *Core, proto string) (*registrant, []string) {
	t.Helper()
	r := newUE(t, c, proto).subscriber("+15550100", Auth{Algorithm: SHA256, Password: "x"})
	r.join()
	return r, append([]string{"<sip:" + c.Addr().String() + ";transport=" + proto + ";lr>"}, r.routes...)
}

func TestProfiles(t *testing.T) {
	ctx := testContext(t)
	for _, tt := range []struct {
		profile Profile
		offer   []byte
		status  int
		codec   string
		video   bool
		why     string
		header  string // part of Reason or Warning
	}{
		{VolteVideo, videoOffer, 200, "AMR-WB", true, "", ""},
		{VolteVoice, videoOffer, 200, "AMR-WB", false, sdp.VideoRefused, ""},
		{PSTN, videoOffer, 200, "PCMA", false, sdp.VideoRefused, ""},
		{Lossy, videoOffer, 200, "AMR-WB", true, "", ""},
		{Busy, videoOffer, 486, "", false, "", "Q.850;cause=17"},
		{Declines, videoOffer, 603, "", false, "", "Q.850;cause=21"},
		{Video488, videoOffer, 488, "", false, "", "304 "},
		{Video488, voiceOffer, 200, "AMR-WB", false, sdp.VideoNotOffered, ""},
		{Unreachable, videoOffer, 480, "", false, "", "Q.850;cause=20"},
	} {
		for _, transport := range []string{"udp", "tcp"} {
			name := string(tt.profile) + "/" + transport
			if len(tt.offer) == len(voiceOffer) {
				name += "/voice"
			}
			t.Run(name, func(t *testing.T) {
				c := startCore(t, CoreOptions{})
				h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Name: "陈晨", Profile: tt.profile, Transport: transport})
				u, route := caller(t, c, "tcp")
				l := u.invite(h.Number(), tt.offer, route, nil)
				got := u.final("INVITE")
				if got.Status != tt.status {
					t.Fatalf("INVITE answered %d %s, want %d", got.Status, got.Get("Warning"), tt.status)
				}
				if !strings.Contains(got.Get("Reason")+got.Get("Warning"), tt.header) {
					t.Errorf("Reason %q, Warning %q: want %q in them", got.Get("Reason"), got.Get("Warning"), tt.header)
				}
				if got.Status != 200 {
					l.failed(got)
					return
				}
				l.follow(got)
				l.ack()
				checkAnswer(t, tt.offer, got.Body, tt.codec, tt.why)
				call, err := h.WaitState(ctx, Connected)
				if err != nil {
					t.Fatal(err)
				}
				if call.Video != tt.video || call.Agreed.Audio.Codec != tt.codec {
					t.Errorf("the handset agreed to %s, video %v", call.Agreed.Audio.Codec, call.Video)
				}
				if want := "<" + u.impu + ">"; call.From != want {
					t.Errorf("caller %q, want the asserted %q", call.From, want)
				}
				all := strings.Join(call.Headers, "\n")
				if !strings.Contains(all, "P-Charging-Vector: icid-value=") || strings.Contains(all, "\nRoute:") || !strings.Contains(all, "Max-Forwards: 69") {
					t.Errorf("headers at the handset:\n%s", all)
				}
				l.do("BYE", nil)
				if got := u.final("BYE"); got.Status != 200 {
					t.Errorf("BYE answered %d", got.Status)
				}
				if call, err = h.WaitState(ctx, Ended); err != nil || call.By != ByCaller {
					t.Errorf("ended by %q, %v", call.By, err)
				}
			})
		}
	}
}

// checkAnswer judges an answer with the offerer's rules.
func checkAnswer(t *testing.T, offer, answer []byte, codec, why string) {
	t.Helper()
	o, err := sdp.Parse(offer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := sdp.Parse(answer)
	if err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	r, err := sdp.Negotiate(o, a)
	if err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	if r.Audio == nil || r.Audio.Codec != codec || r.WhyNoVideo != why {
		t.Errorf("audio %+v, no video because %q; want %s, %q", r.Audio, r.WhyNoVideo, codec, why)
	}
}

func TestNoAnswerIsCancelled(t *testing.T) {
	for _, proto := range []string{"udp", "tcp"} {
		t.Run(proto, func(t *testing.T) {
			c := startCore(t, CoreOptions{})
			h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: NoAnswer})
			u, route := caller(t, c, proto)
			l := u.invite(h.Number(), videoOffer, route, nil)
			// 180 is unreliable here only if the caller does not require 100rel.
			u.status("INVITE", 180)
			l.cancel()
			if got := u.final("CANCEL"); got.Status != 200 {
				t.Errorf("CANCEL answered %d", got.Status)
			}
			got := u.final("INVITE")
			if got.Status != 487 {
				t.Errorf("INVITE answered %d, want 487", got.Status)
			}
			l.failed(got)
			call, err := h.WaitState(testContext(t), Ended)
			if err != nil || call.By != ByCancel || call.Status != 487 || !strings.Contains(call.Reason, "ring timeout") {
				t.Errorf("%+v %v", call, err)
			}
		})
	}
}

func TestLateAnswerCrossesCancel(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &Script{Never: true, LateOK: true, Codecs: volte, Video: true}})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	u.status("INVITE", 180)
	l.cancel()
	l.follow(u.status("INVITE", 200))
	l.ack()
	if _, err := h.WaitState(testContext(t), Connected); err != nil {
		t.Fatal(err)
	}
	l.do("BYE", nil)
	if got := u.final("BYE"); got.Status != 200 {
		t.Errorf("BYE answered %d", got.Status)
	}
}

func TestHandsetHangsUp(t *testing.T) {
	s, err := HangsUpAfter.Script()
	if err != nil {
		t.Fatal(err)
	}
	s.HangUp = 50 * time.Millisecond
	for _, proto := range []string{"udp", "tcp"} {
		t.Run(proto, func(t *testing.T) {
			c := startCore(t, CoreOptions{})
			h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: HangsUpAfter, Script: &s})
			u, route := caller(t, c, proto)
			l := u.invite(h.Number(), videoOffer, route, nil)
			l.follow(u.status("INVITE", 200))
			l.ack()
			bye := u.request("BYE")
			if !strings.Contains(bye.Get("Reason"), "RELEASE_CAUSE;cause=1") {
				t.Errorf("Reason %q", bye.Get("Reason"))
			}
			u.reply(bye, 200)
			if call, err := h.WaitState(testContext(t), Ended); err != nil || call.By != ByHandset {
				t.Errorf("%+v %v", call, err)
			}
		})
	}
}

// The PRACK flow of IMS.md §2.3, with the caller's bearer ready from the start and not.
func TestReliableRingingWithPreconditions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		offer []byte
		owed  bool // the caller still owes an UPDATE
	}{
		{"active, ready", qosOffer("sendrecv"), false},
		{"active, not ready", qosOffer("none"), true},
		{"passive", videoOffer, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCore(t, CoreOptions{})
			h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: Preconditions})
			u, route := caller(t, c, "tcp")
			l := u.invite(h.Number(), tt.offer, route, nil)
			first := l.follow(u.status("INVITE", 183))
			if !first.Has("Require", "100rel") || first.Get("RSeq") != "1" || !strings.Contains(string(first.Body), "a=curr:qos local none") {
				t.Fatalf("183: %s", first.Bytes())
			}
			l.do("PRACK", func(m *wire.Message) { m.Add("RAck", "9 1 INVITE") })
			if got := u.final("PRACK"); got.Status != 481 {
				t.Errorf("PRACK of nothing answered %d, want 481", got.Status)
			}
			l.do("PRACK", func(m *wire.Message) { m.Add("RAck", "1 1 INVITE") })
			if got := u.final("PRACK"); got.Status != 200 {
				t.Fatalf("PRACK answered %d", got.Status)
			}
			if tt.owed {
				if rung := h.Calls()[0].Rang; !rung.IsZero() {
					t.Error("it rang before the bearers were up")
				}
				l.do("UPDATE", func(m *wire.Message) {
					m.Add("Content-Type", "application/sdp")
					m.Body = qosOffer("sendrecv")
				})
				if got := u.final("UPDATE"); got.Status != 200 || !strings.Contains(string(got.Body), "a=curr:qos remote sendrecv") {
					t.Fatalf("UPDATE answered %d\n%s", got.Status, got.Body)
				}
			}
			ringing := u.status("INVITE", 180)
			if ringing.Get("RSeq") != "2" {
				t.Errorf("180 has RSeq %q", ringing.Get("RSeq"))
			}
			l.do("PRACK", func(m *wire.Message) { m.Add("RAck", "2 1 INVITE") })
			ok := l.follow(u.status("INVITE", 200))
			if len(ok.Body) != 0 {
				t.Errorf("the 200 repeats the answer that was given reliably:\n%s", ok.Body)
			}
			l.ack()
			call, err := h.WaitState(testContext(t), Connected)
			if err != nil || call.Pracks != 2 || !call.Video {
				t.Errorf("%+v %v", call, err)
			}
		})
	}
}

// A caller whose half of the preconditions never comes gets 580.
func TestPreconditionsNotMet(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 20 * time.Millisecond})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: Preconditions})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	l.follow(u.status("INVITE", 183))
	l.do("PRACK", func(m *wire.Message) { m.Add("RAck", "1 1 INVITE") })
	got := u.final("INVITE")
	if got.Status != 580 {
		t.Errorf("%d, want 580", got.Status)
	}
	l.failed(got)
}

func qosOffer(local string) []byte {
	q := "a=curr:qos local " + local + "\na=curr:qos remote none\na=des:qos mandatory local sendrecv\na=des:qos optional remote sendrecv\n"
	return crlf(offerVideo + q + videoPart + q)
}

func TestReliable183IsRepeatedUntilPRACKAndGivenUp(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 5 * time.Millisecond})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Profile: Preconditions})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	for range 3 {
		if got := u.status("INVITE", 183); got.Get("RSeq") != "1" {
			t.Errorf("RSeq %q", got.Get("RSeq"))
		}
	}
	got := u.final("INVITE")
	if got.Status != 504 {
		t.Errorf("without PRACK: %d, want 504", got.Status)
	}
	l.failed(got)
}

func TestForksAndASecondAnswer(t *testing.T) {
	c := startCore(t, CoreOptions{})
	s := Script{Ring: 20 * time.Millisecond, Codecs: volte, Video: true, Forks: 2, ForkLate: true}
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &s})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	tags := map[string]bool{}
	for range 3 {
		tags[u.status("INVITE", 180).ToTag()] = true
	}
	if len(tags) != 3 {
		t.Errorf("rang with %d tags, want 3", len(tags))
	}
	won := l.follow(u.status("INVITE", 200))
	l.ack()
	other := &leg{u: l.u, invite: l.invite, seq: 1}
	late := other.follow(u.expect("the other phone's 200", func(m *wire.Message) bool {
		return m.Status == 200 && m.ToTag() != won.ToTag()
	}))
	if !tags[late.ToTag()] {
		t.Error("the late answer has a tag that never rang")
	}
	other.ack()
	other.do("BYE", nil)
	if got := u.final("BYE"); got.Status != 200 {
		t.Errorf("BYE of the fork answered %d", got.Status)
	}
	call, err := h.WaitState(testContext(t), Connected)
	if err != nil || call.ForkByes != 1 {
		t.Errorf("%d forks ended, %v", call.ForkByes, err)
	}
}

func TestAnswerIsRepeatedUntilACK(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 20 * time.Millisecond})
	s := Script{Codecs: volte, Video: true, DropACK: 1}
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &s})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, nil)
	l.follow(u.status("INVITE", 200))
	l.ack() // overheard
	u.status("INVITE", 200)
	l.ack()
	if _, err := h.WaitState(testContext(t), Connected); err != nil {
		t.Fatal(err)
	}
}

func TestAnswerWithoutACKEndsInBYE(t *testing.T) {
	c := startCore(t, CoreOptions{T1: 5 * time.Millisecond})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, route := caller(t, c, "tcp")
	u.invite(h.Number(), videoOffer, route, nil)
	u.status("INVITE", 200)
	u.reply(u.request("BYE"), 200)
	if call, err := h.WaitState(testContext(t), Ended); err != nil || call.By != ByNoACK {
		t.Errorf("%+v %v", call, err)
	}
}

// connect calls h and returns the connected leg.
func connect(t *testing.T, c *Core, h *Handset, proto string, offer []byte) (*registrant, *leg) {
	t.Helper()
	u, route := caller(t, c, proto)
	l := u.invite(h.Number(), offer, route, nil)
	l.follow(u.status("INVITE", 200))
	l.ack()
	if _, err := h.WaitState(testContext(t), Connected); err != nil {
		t.Fatal(err)
	}
	return u, l
}

// answerReinvite answers what the handset offers, with the rules of RFC 3264.
func answerReinvite(u *registrant, takeVideo bool) (offer *sdp.Session) {
	u.t.Helper()
	re := u.request("INVITE")
	offer, err := sdp.Parse(re.Body)
	if err != nil {
		u.t.Fatalf("%v\n%s", err, re.Body)
	}
	a, _ := addrOf("127.0.0.1")
	body, _, err := sdp.Answer(offer, sdp.AnswerOptions{Addr: a, AudioPort: 49152, Video: takeVideo, VideoPort: 49154})
	if err != nil {
		u.t.Fatal(err)
	}
	r := re.Reply(200, "", "")
	for _, v := range re.Values("Record-Route") {
		r.Add("Record-Route", v)
	}
	r.Add("Contact", "<"+u.contact("me")+">")
	u.send(withSDP(r, body))
	u.request("ACK")
	return offer
}

func TestHandsetChangesTheSession(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Transport: "tcp"})
	u, _ := connect(t, c, h, "tcp", videoOffer)
	version := uint64(0)
	for _, tt := range []struct {
		name  string
		do    func() error
		audio sdp.Direction
		video int // -1: port 0, else the direction
		held  bool
		flows bool
	}{
		{"hold", func() error { return h.Hold(false) }, sdp.SendOnly, int(sdp.SendOnly), false, true},
		{"hold inactive", func() error { return h.Hold(true) }, sdp.Inactive, int(sdp.Inactive), true, false},
		{"resume", h.Resume, sdp.SendRecv, int(sdp.SendRecv), false, true},
		{"video off", h.VideoOff, sdp.SendRecv, -1, false, false},
		{"video on", h.VideoOn, sdp.SendRecv, int(sdp.SendRecv), false, true},
	} {
		done := make(chan error, 1)
		go func() { done <- tt.do() }()
		o := answerReinvite(u, true)
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if o.Origin.Version <= version {
			t.Errorf("%s: o= version %d after %d", tt.name, o.Origin.Version, version)
		}
		version = o.Origin.Version
		if len(o.Media) != 2 || o.Audio.Direction != tt.audio {
			t.Errorf("%s: %d m-lines, audio %v", tt.name, len(o.Media), o.Audio.Direction)
		}
		got := -1
		if o.Video.Port != 0 {
			got = int(o.Video.Direction)
		}
		if got != tt.video {
			t.Errorf("%s: video %d, want %d", tt.name, got, tt.video)
		}
		call := h.Calls()[0]
		if call.State != Connected {
			t.Errorf("%s: the call is %s", tt.name, call.State)
		}
		if sends := call.Video && call.Agreed.Video.Send; sends != tt.flows {
			t.Errorf("%s: video is sent: %v", tt.name, sends)
		}
	}
}

func TestHandsetTakesOffersOfTheOtherSide(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, l := connect(t, c, h, "tcp", videoOffer)
	held := []byte(strings.ReplaceAll(string(videoOffer), "a=sendrecv", "a=sendonly"))
	for _, tt := range []struct {
		method string
		offer  []byte
		want   string
		status int
	}{
		{"INVITE", held, "a=recvonly", 200},
		{"UPDATE", videoOffer, "a=sendrecv", 200},
		{"UPDATE", nil, "", 200},
		{"INVITE", nil, "m=audio", 200},
		{"INVITE", []byte("v=0\r\nnonsense\r\n"), "", 488},
		{"INVITE", []byte(strings.Replace(string(videoOffer), "m=video 49154", "m=video 0", 1)), "m=video 0", 200},
	} {
		l.do(tt.method, func(m *wire.Message) {
			m.Body = tt.offer
			if tt.offer != nil {
				m.Add("Content-Type", "application/sdp")
			}
		})
		got := u.final(tt.method)
		if got.Status != tt.status || !strings.Contains(string(got.Body), tt.want) {
			t.Errorf("%s: %d\n%s", tt.method, got.Status, got.Body)
		}
		if tt.method == "INVITE" && got.Status == 200 {
			ack := l.message("ACK", l.seq)
			if tt.offer == nil {
				withSDP(ack, voiceAnswer(t, got.Body))
			}
			u.send(ack)
			waitUntil(t, "the ACK arrives", func() bool {
				n := 0
				for _, line := range h.Calls()[0].Ladder {
					if line == "<- ACK" {
						n++
					}
				}
				return n > 0 && !pendingReinvite(h)
			})
		} else if tt.method == "INVITE" {
			m := l.message("ACK", l.seq)
			m.Set("Via", got.Get("Via"))
			u.send(m)
		}
	}
	if call := h.Calls()[0]; call.State != Connected || call.Updates != 2 {
		t.Errorf("after all that the call is %s with %d updates", call.State, call.Updates)
	}
}

// A voice phone that is asked for video takes it, answers without, or refuses; the call
// goes on in any case.
func TestHandsetIsAskedForVideo(t *testing.T) {
	for _, tt := range []struct {
		upgrade, status int
		video           bool
	}{{200, 200, true}, {0, 200, false}, {603, 603, false}, {488, 488, false}, {486, 486, false}} {
		c := startCore(t, CoreOptions{})
		s, err := VolteVoice.Script()
		if err != nil {
			t.Fatal(err)
		}
		s.Upgrade = tt.upgrade
		h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &s})
		u, l := connect(t, c, h, "tcp", videoOffer)
		l.do("INVITE", func(m *wire.Message) {
			m.Body = videoOffer
			m.Add("Content-Type", "application/sdp")
		})
		got := u.final("INVITE")
		ack := l.message("ACK", l.seq)
		if got.Status >= 300 {
			ack.Set("Via", got.Get("Via"))
		}
		u.send(ack)
		video := false
		if o, err := sdp.Parse(got.Body); err == nil {
			video = o.Video != nil && o.Video.Port != 0
		}
		if got.Status != tt.status || video != tt.video || h.Calls()[0].State != Connected {
			t.Errorf("upgrade %d: answered %d, video %v, call %s", tt.upgrade, got.Status, video, h.Calls()[0].State)
		}
	}
}

func pendingReinvite(h *Handset) bool {
	pending := false
	_ = h.ep.Do(func() {
		for _, k := range h.live {
			pending = pending || k.theirRe != nil
		}
	})
	return pending
}

// voiceAnswer answers a handset's offer with audio only.
func voiceAnswer(t *testing.T, offer []byte) []byte {
	t.Helper()
	o, err := sdp.Parse(offer)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := addrOf("127.0.0.1")
	body, _, err := sdp.Answer(o, sdp.AnswerOptions{Addr: a, AudioPort: 49152})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestGarbageAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Script
		want string
	}{
		{"nonsense", Script{RawSDP: "this is not SDP"}, "this is not SDP"},
		{"no body", Script{NoSDP: true}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCore(t, CoreOptions{})
			h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Script: &tt.s})
			u, l := connect(t, c, h, "udp", videoOffer)
			if got := h.Calls()[0].Answer; got != "" {
				t.Errorf("it remembers an answer it did not give: %q", got)
			}
			l.do("BYE", nil)
			u.status("BYE", 200)
		})
	}
}

func TestSecondCallIsBusy(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, _ := connect(t, c, h, "tcp", videoOffer)
	route := append([]string{"<sip:" + c.Addr().String() + ";lr>"}, u.routes...)
	l := u.invite(h.Number(), videoOffer, route, nil)
	got := u.final("INVITE")
	if got.Status != 486 {
		t.Errorf("%d, want 486", got.Status)
	}
	l.failed(got)
	if n := len(h.Calls()); n != 1 {
		t.Errorf("%d calls in the history", n)
	}
}

func TestSessionTimerEndsTheCall(t *testing.T) {
	c := startCore(t, CoreOptions{})
	h := addHandset(t, c, HandsetOptions{Number: "+8613800138001"})
	u, route := caller(t, c, "tcp")
	l := u.invite(h.Number(), videoOffer, route, func(m *wire.Message) { m.Set("Session-Expires", "1") })
	ok := l.follow(u.status("INVITE", 200))
	if ok.Get("Session-Expires") != "1;refresher=uac" || !ok.Has("Require", "timer") {
		t.Errorf("Session-Expires %q, Require %q", ok.Get("Session-Expires"), ok.Values("Require"))
	}
	l.ack()
	bye := u.request("BYE")
	if !strings.Contains(bye.Get("Reason"), "cause=408") {
		t.Errorf("Reason %q", bye.Get("Reason"))
	}
	u.reply(bye, 200)
	if call, err := h.WaitState(testContext(t), Ended); err != nil || call.By != BySession {
		t.Errorf("%+v %v", call, err)
	}
}
