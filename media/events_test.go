package media

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

func (a *air) count(match func(*mediapb.Event) bool) int {
	n := 0
	for _, ev := range a.events {
		if match(ev) {
			n++
		}
	}
	return n
}

func TestSilentLegIsReportedOnceAndAgainWhenItReturns(t *testing.T) {
	a := newAir(t, Options{MediaTimeout: 20 * time.Second})
	x, _, z := a.three()
	dead := func(ev *mediapb.Event) bool { return ev.GetMediaStalled().GetLegDead() && ev.Leg == "x" }
	back := func(ev *mediapb.Event) bool { return ev.GetMediaResumed() != nil && ev.Leg == "x" }
	started := func(ev *mediapb.Event) bool { return ev.GetMediaStarted().GetKind() == "audio" }
	if n := a.count(started); n != 3 {
		t.Errorf("%d legs started, want 3", n)
	}
	x.off, z.off = true, true
	z.leg.Audio.Send, z.leg.Audio.Recv = false, false // it holds us
	z.update()
	a.run(19 * time.Second)
	if n := a.count(dead); n != 0 {
		t.Fatalf("dead after 19 s")
	}
	a.run(30 * time.Second)
	if n := a.count(dead); n != 1 {
		t.Errorf("%d reports of a dead leg, want 1", n)
	}
	if n := a.count(func(ev *mediapb.Event) bool { return ev.GetMediaStalled() != nil && ev.Leg != "x" }); n != 0 {
		t.Errorf("%d reports of others: one sends, one is held", n)
	}
	// RTCP alone is life.
	rr := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	if _, err := x.rtcp.WriteToUDPAddrPort(rr, x.toRTCP); err != nil {
		t.Fatal(err)
	}
	a.run(time.Second)
	if n := a.count(back); n != 1 {
		t.Errorf("%d returns, want 1", n)
	}
	a.run(25 * time.Second)
	if n := a.count(dead); n != 2 {
		t.Errorf("%d reports after the second silence, want 2", n)
	}
}

// Who is in from his first plan on has as long to be heard of as everybody.
func TestLifeIsExpectedFromTheAnswerOn(t *testing.T) {
	a := newAir(t, Options{MediaTimeout: 20 * time.Second})
	a.set(confC())
	a.join("c", "mute", wb, 0).off = true
	dead := func() int {
		return a.count(func(ev *mediapb.Event) bool { return ev.GetMediaStalled().GetLegDead() })
	}
	a.run(19 * time.Second)
	if n := dead(); n != 0 {
		t.Errorf("dead %d times within 19 s of a time-out of 20 s", n)
	}
	a.run(2 * time.Second)
	if n := dead(); n != 1 {
		t.Errorf("dead %d times after 21 s, want once", n)
	}
}

// A phone that has dropped its audio is watched by its video (IMS.md §3 row 18).
func TestLifeOfAVideoLeg(t *testing.T) {
	for _, tt := range []struct {
		name       string
		send, recv bool
		off        bool // RTCP
		dead       int
	}{
		{"both ways", true, true, false, 1},
		{"camera off, sends RTCP", true, false, false, 1},
		{"camera off, no RTCP", true, false, true, 0},
		{"inactive, no RTCP", false, false, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &gallery{socks: map[string][]*net.UDPConn{}}
			a := newAir(t, Options{MediaTimeout: 20 * time.Second, Pictures: func(PictureDeps) (Pictures, error) { return g, nil }})
			a.set(&mediapb.Conference{Id: "c", Video: true})
			x := a.join("c", "x", wb, 0)
			if _, err := a.e.OpenVideo(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := x.rtcp.WriteToUDPAddrPort([]byte{0x80, rtp.TypeRR, 0, 1, 0, 0, 0, byte(x.ssrc)}, x.toRTCP); err != nil {
				t.Fatal(err)
			}
			a.run(time.Second)
			x.leg.Audio, x.off = nil, true
			x.leg.Video = &mediapb.VideoStream{Send: tt.send, Recv: tt.recv, RtcpOff: tt.off}
			if err := a.e.SetLeg(t.Context(), x.leg); err != nil {
				t.Fatal(err)
			}
			dead := func() int {
				return a.count(func(ev *mediapb.Event) bool { return ev.GetMediaStalled().GetLegDead() })
			}
			g.heard = func() int64 { return a.e.wall(a.e.clock()) }
			a.run(30 * time.Second)
			if n := dead(); n != 0 {
				t.Fatalf("dead %d times while its video comes", n)
			}
			last := a.e.clock()
			g.heard = func() int64 { return a.e.wall(last) }
			a.run(25 * time.Second)
			if n := dead(); n != tt.dead {
				t.Errorf("dead %d times, want %d", n, tt.dead)
			}
		})
	}
}

// On hold a phone that sends RTCP has to go on doing so, and is sent RTCP; one that sends none,
// or may not, is left to the session timer. A phone that the organiser holds sends as ever.
func TestLifeOnHold(t *testing.T) {
	a := newAir(t, Options{MediaTimeout: 20 * time.Second})
	a.set(confC())
	held := func(l *mediapb.Leg) { l.Audio.Send, l.Audio.Recv = false, false }
	reports := a.join("c", "reports", wb, 0)
	silent := a.join("c", "silent", wb, 0, held)
	mayNot := a.join("c", "mayNot", wb, 0)
	ours := a.join("c", "ours", wb, 0)
	for _, p := range a.phones {
		p.noDTX = true
		p.codecs()
	}
	report := func(p *phone) {
		if _, err := p.rtcp.WriteToUDPAddrPort([]byte{0x80, rtp.TypeRR, 0, 1, 0, 0, 0, byte(p.ssrc)}, p.toRTCP); err != nil {
			t.Fatal(err)
		}
	}
	report(reports)
	report(mayNot)
	a.run(time.Second)
	held(reports.leg)
	held(mayNot.leg)
	mayNot.leg.Audio.RtcpOff = true
	ours.leg.Held = true
	for _, p := range a.phones {
		p.update()
		p.off = p != ours
	}
	a.run(100 * time.Millisecond)
	dead := func(want ...*phone) {
		t.Helper()
		for _, p := range a.phones {
			n := 0
			if slices.Contains(want, p) {
				n = 1
			}
			if got := a.count(func(ev *mediapb.Event) bool { return ev.Leg == p.leg.Id && ev.GetMediaStalled().GetLegDead() }); got != n {
				t.Errorf("%s was reported dead %d times, want %d", p.leg.Id, got, n)
			}
		}
	}
	for _, p := range a.phones {
		p.reports, p.packets = nil, nil
	}
	for range 9 {
		before, too := len(reports.reports), len(silent.reports)
		a.run(5 * time.Second)
		if len(reports.reports) == before || len(silent.reports) == too {
			t.Fatal("5 s on hold without a report of ours")
		}
		report(reports)
	}
	dead()
	if len(reports.packets)+len(silent.packets)+len(mayNot.packets)+len(mayNot.reports) != 0 {
		t.Errorf("on hold %d, %d and %d packets were sent, and %d reports to who wants none", len(reports.packets), len(silent.packets), len(mayNot.packets), len(mayNot.reports))
	}
	ours.off = true
	a.run(21 * time.Second)
	dead(reports, ours)
	// Called back by the phone: life is expected again from here on.
	silent.leg.Audio.Send, silent.leg.Audio.Recv = true, true
	silent.update()
	a.run(19 * time.Second)
	dead(reports, ours)
	a.run(2 * time.Second)
	dead(reports, ours, silent)
}

// press sends one key press: many packets, the end three times (RFC 4733 §2.5).
func (p *phone) press(event byte) { p.pressAs(101, event) }

func (p *phone) pressAs(pt uint8, event byte) {
	b := make([]byte, 16)
	for i := range 6 {
		header(b, pt, p.seq+uint16(i), p.ts+uint32(event)*1000, p.ssrc)
		b[12], b[13] = event, 10
		if i >= 3 {
			b[13] |= 0x80
		}
		binary.BigEndian.PutUint16(b[14:], uint16(320*(i+1)))
		p.write(b)
	}
	p.seq += 6 // a phone counts them with its speech
}

func TestDigits(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	for digit, event := range map[string]byte{"5": 5, "#": 11} {
		x.press(event)
		a.run(100 * time.Millisecond)
		if n := a.count(func(ev *mediapb.Event) bool { return ev.Leg == "x" && ev.GetDigit().GetDigit() == digit }); n != 1 {
			t.Errorf("key %s: %d digits, want 1", digit, n)
		}
	}
	if s := a.stats("x"); s.Audio.RxLost != 0 {
		t.Errorf("%d packets lost: keys are no losses", s.Audio.RxLost)
	}
	y.hears(x, z)
}

// A peer that answers with numbers of its own is sent those and sends ours (RFC 3264 §6.1);
// where it sends its own it is heard as well.
func TestRenumberedPayloadTypes(t *testing.T) {
	for _, tt := range []struct {
		name             string
		theirs, ours     [2]uint32 // speech, keys
		speech, keysSent uint8
	}{
		{"as the RFC says", [2]uint32{104, 110}, [2]uint32{97, 101}, 97, 101},
		{"its own", [2]uint32{104, 110}, [2]uint32{97, 101}, 104, 110},
		{"crossed", [2]uint32{101, 97}, [2]uint32{97, 101}, 97, 101},
		{"from number 0", [2]uint32{104, 110}, [2]uint32{0, 101}, 0, 101},
	} {
		a := newAir(t, Options{})
		a.set(confC())
		y := a.join("c", "y", pcma, 0)
		x := a.join("c", "x", wb, 500, func(l *mediapb.Leg) {
			l.Audio.PayloadType, l.Audio.DtmfPayloadType = tt.theirs[0], tt.theirs[1]
			l.Audio.ReceivePayloadType, l.Audio.ReceiveDtmfPayloadType = &tt.ours[0], &tt.ours[1]
		})
		sent := uint32(tt.speech)
		x.leg.Audio.ReceivePayloadType = &sent // of the phone's copy: what it sends
		a.run(time.Second)
		y.hears(x)
		x.pressAs(tt.keysSent, 5)
		a.run(100 * time.Millisecond)
		if n := a.count(func(ev *mediapb.Event) bool { return ev.Leg == "x" && ev.GetDigit().GetDigit() == "5" }); n != 1 {
			t.Errorf("%s: %d digits, want 1", tt.name, n)
		}
		if s := a.stats("x").Audio; s.RxDropped != 0 {
			t.Errorf("%s: %d packets dropped", tt.name, s.RxDropped)
		}
		if got := x.packets[len(x.packets)-1].Type; uint32(got) != tt.theirs[0] {
			t.Errorf("%s: it is sent payload type %d, want %d", tt.name, got, tt.theirs[0])
		}
	}
}

func TestLevels(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	levels := func(ev *mediapb.Event) bool { return ev.GetLevels() != nil }
	x.toneHz, y.toneHz, z.toneHz = 0, 0, 0
	a.run(3 * time.Second)
	a.events = nil
	a.run(5 * time.Second)
	if n := a.count(levels); n != 0 {
		t.Errorf("%d level events in silence", n)
	}
	x.toneHz = 500
	a.run(time.Second)
	if n := a.count(levels); n == 0 || n > 5 {
		t.Errorf("%d level events in a second of talk, want 1 to 5", n)
	}
	if n := a.count(func(ev *mediapb.Event) bool {
		for _, l := range ev.GetLevels().GetLevels() {
			if l.Leg == "x" && l.Talking && l.Dbov > -40 {
				return true
			}
		}
		return false
	}); n == 0 {
		t.Error("nobody told that x talks")
	}
}

// The time of the stream in a sender report is that of the report also where nothing was sent
// for a while (RFC 3550 §6.4.1): in a pause and on hold.
func TestReportsTellTheTimeOfTheStream(t *testing.T) {
	for name, change := range map[string]func(x, y *phone){
		"talk":    func(_, _ *phone) {},
		"silence": func(_, y *phone) { y.off = true },
		"hold":    func(x, _ *phone) { x.leg.Audio.Send = false },
	} {
		a := newAir(t, Options{})
		a.set(confC())
		x, y := a.join("c", "x", pcmu, 0, func(l *mediapb.Leg) { l.Audio.ComfortNoise = true }), a.join("c", "y", pcmu, 700)
		a.run(time.Second)
		change(x, y)
		last, at := x.packets[len(x.packets)-1].Timestamp, a.now
		x.update()
		x.reports = nil
		for range 400 {
			n := len(x.reports)
			a.run(20 * time.Millisecond)
			if len(x.reports) == n {
				continue
			}
			r := x.reports[n]
			want := last + uint32((a.now-at)/int64(tickTime))*160
			if d := int32(binary.BigEndian.Uint32(r[16:]) - want); r[1] != rtp.TypeSR || d < 0 || d > 160 {
				t.Errorf("%s: report of type %d whose RTP time is %d ms off", name, r[1], d/8)
			}
		}
		if len(x.reports) < 2 {
			t.Errorf("%s: %d reports in 8 s", name, len(x.reports))
		}
	}
}

func TestReportsToThePeerAndFromIt(t *testing.T) {
	a := newAir(t, Options{})
	x, _, _ := a.three()
	x.drop = func(n int) bool { return n%5 == 0 }
	x.reports = nil
	a.run(10 * time.Second)
	if n := len(x.reports); n < 3 || n > 7 {
		t.Fatalf("%d reports in 10 s, want one every 2 to 4 s", n)
	}
	r := x.reports[len(x.reports)-1]
	if !validRTCP(r) || r[1] != rtp.TypeSR {
		t.Fatalf("not a valid SR: %x", r)
	}
	if fraction := float64(r[28+4]) / 256; fraction < 0.15 || fraction > 0.25 {
		t.Errorf("reported loss %.2f, want 0.2", fraction)
	}
	if ssrc := binary.BigEndian.Uint32(r[28:]); ssrc != x.ssrc {
		t.Errorf("report is on source %d, want %d", ssrc, x.ssrc)
	}
	// The peer's RR: half lost, answered at once.
	rr := make([]byte, 32)
	rr[0], rr[1], rr[3] = 0x81, rtp.TypeRR, 7
	copy(rr[8:], r[4:8])
	rr[12] = 128
	binary.BigEndian.PutUint32(rr[24:], binary.BigEndian.Uint32(r[10:]))
	if _, err := x.rtcp.WriteToUDPAddrPort(rr, x.toRTCP); err != nil {
		t.Fatal(err)
	}
	a.run(20 * time.Millisecond)
	if s := a.stats("x").Audio; s.TxLoss != 0.5 || s.RttMs < 0 || s.RttMs > 5000 {
		t.Errorf("the peer's report: loss %v, rtt %v ms", s.TxLoss, s.RttMs)
	}
	// A forged BYE ends nothing; ours is sent at the end.
	if _, err := x.rtcp.WriteToUDPAddrPort([]byte{0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 203, 0, 1, 0, 0, 0, 1}, x.toRTCP); err != nil {
		t.Fatal(err)
	}
	a.run(time.Second)
	x.hears(a.phones[1], a.phones[2])
	x.reports = nil
	if _, err := a.e.CloseLeg(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	x.listen()
	if n := len(x.reports); n != 1 || x.reports[0][len(x.reports[0])-7] != rtp.TypeBYE {
		t.Errorf("no BYE at the end: %x", x.reports)
	}
}

func TestSlowReaderLosesOldLevelsOnly(t *testing.T) {
	h := newHub()
	s := h.subscribe()
	for i := range 1000 {
		h.publish(&mediapb.Event{At: int64(i), What: &mediapb.Event_Levels{Levels: &mediapb.Levels{}}})
		if i%100 == 0 {
			h.publish(&mediapb.Event{At: int64(i), What: &mediapb.Event_Digit{Digit: &mediapb.Digit{Digit: "1"}}})
		}
	}
	list, _ := s.take()
	digits, levels := 0, 0
	last := int64(-1)
	for _, ev := range list {
		if ev.At < last {
			t.Fatalf("out of order at %d", ev.At)
		}
		last = ev.At
		if ev.GetDigit() != nil {
			digits++
		} else {
			levels++
		}
	}
	if digits != 10 || levels != levelsKept || h.lost.Load() != 1000-levelsKept {
		t.Errorf("%d digits, %d levels, %d lost", digits, levels, h.lost.Load())
	}
	for range eventsKept + 1 {
		h.publish(&mediapb.Event{What: &mediapb.Event_Digit{Digit: &mediapb.Digit{}}})
	}
	if err := s.run(t.Context(), func(*mediapb.Event) {}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a reader that never reads: %v", err)
	}
	h.close()
	if err := h.subscribe().run(context.Background(), nil); status.Code(err) != codes.Unavailable {
		t.Errorf("subscribed after close: %v", err)
	}
}

// c=0.0.0.0 (RFC 2543's hold) is a leg without a peer: not even RTCP goes anywhere.
func TestOldHoldSendsNothing(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	was := x.leg.Audio.Remote
	x.leg.Audio.Remote, x.leg.Audio.Send, x.leg.Audio.Recv = &mediapb.Remote{Ip: "0.0.0.0"}, false, false
	x.update()
	x.reports, x.packets = nil, nil
	before := a.stats("x").Audio
	a.run(10 * time.Second)
	if after := a.stats("x").Audio; len(x.reports) != 0 || len(x.packets) != 0 || after.TxPackets != before.TxPackets || after.TxRefused != 0 {
		t.Errorf("%d reports, %d packets, %v", len(x.reports), len(x.packets), after)
	}
	x.leg.Audio.Remote, x.leg.Audio.Send, x.leg.Audio.Recv = was, true, true
	x.update()
	a.run(time.Second)
	x.hears(y, z)
	y.hears(x, z)
}
