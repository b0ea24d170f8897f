package media

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/codec/amr"
	"sparkle/media/mediapb"
	"sparkle/media/mix"
)

const (
	wb   = mediapb.AudioStream_AMR_WB
	opu  = mediapb.AudioStream_OPUS
	g7   = mediapb.AudioStream_G722
	nb   = mediapb.AudioStream_AMR
	pcma = mediapb.AudioStream_PCMA
	pcmu = mediapb.AudioStream_PCMU
)

func readNow(fd int, b []byte) int {
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		return -1
	}
	return n
}

func octets(l *mediapb.Leg) { l.Audio.OctetAlign = true }

// Two tones at a time: speech codecs do not carry more of them within 3 dB.
func TestEveryoneHearsTheOthersAndNotThemselves(t *testing.T) {
	type leg struct {
		codec  mediapb.AudioStream_Codec
		change func(*mediapb.Leg)
	}
	be := func(*mediapb.Leg) {}
	for name, legs := range map[string][]leg{
		"wide":         {{wb, be}, {wb, octets}, {wb, be}},
		"narrow":       {{nb, be}, {nb, octets}, {nb, be}},
		"mixed":        {{wb, octets}, {nb, octets}, {pcma, be}},
		"mixed again":  {{wb, be}, {pcmu, be}, {nb, be}},
		"many in G711": {{pcma, be}, {pcmu, be}, {pcma, be}, {pcmu, be}, {pcmu, be}, {pcma, be}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAir(t, Options{})
			a.set(&mediapb.Conference{Id: "c"})
			var p []*phone
			for i, l := range legs {
				hz := []float64{440, 700, 1100, 1700, 2100, 2600}[i]
				p = append(p, a.join("c", fmt.Sprintf("%v %.0f", l.codec, hz), l.codec, hz, l.change))
			}
			a.run(2 * time.Second)
			for i, x := range p {
				x.hears(slices.Delete(slices.Clone(p), i, i+1)...)
				if s := a.stats(x.leg.Id); s.Audio.RxLost != 0 || s.Audio.RxDropped != 0 || !s.Talking {
					t.Errorf("%s: %v", x.leg.Id, s)
				}
			}
		})
	}
}

func (a *air) three() (x, y, z *phone) {
	a.set(&mediapb.Conference{Id: "c"})
	x = a.join("c", "x", wb, 440)
	y = a.join("c", "y", wb, 700)
	z = a.join("c", "z", nb, 1100, octets)
	a.run(time.Second)
	x.hears(y, z)
	return x, y, z
}

func TestSwitches(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(l *mediapb.Leg)
		// who hears whom when y is set so
		x, y func(x, y, z *phone) []*phone
	}{
		{"muted", func(l *mediapb.Leg) { l.Muted = true },
			func(x, y, z *phone) []*phone { return []*phone{z} }, func(x, y, z *phone) []*phone { return []*phone{x, z} }},
		{"deaf", func(l *mediapb.Leg) { l.Deaf = true },
			func(x, y, z *phone) []*phone { return []*phone{y, z} }, func(x, y, z *phone) []*phone { return nil }},
		{"held", func(l *mediapb.Leg) { l.Held = true },
			func(x, y, z *phone) []*phone { return []*phone{z} }, func(x, y, z *phone) []*phone { return nil }},
		{"not present", func(l *mediapb.Leg) { l.Present = false },
			func(x, y, z *phone) []*phone { return []*phone{z} }, func(x, y, z *phone) []*phone { return nil }},
		{"recvonly", func(l *mediapb.Leg) { l.Audio.Recv = false },
			func(x, y, z *phone) []*phone { return []*phone{z} }, func(x, y, z *phone) []*phone { return []*phone{x, z} }},
		{"sendonly", func(l *mediapb.Leg) { l.Audio.Send = false },
			func(x, y, z *phone) []*phone { return []*phone{y, z} }, func(x, y, z *phone) []*phone { return nil }},
		{"no audio", func(l *mediapb.Leg) { l.Audio = nil },
			func(x, y, z *phone) []*phone { return []*phone{z} }, func(x, y, z *phone) []*phone { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAir(t, Options{})
			x, y, z := a.three()
			audio := y.leg.Audio
			tt.set(y.leg)
			y.update()
			a.run(1200 * time.Millisecond)
			x.hears(tt.x(x, y, z)...)
			y.hears(tt.y(x, y, z)...)
			// And back.
			audio.Recv, audio.Send = true, true
			y.leg = &mediapb.Leg{Id: "y", Present: true, Audio: audio}
			y.update()
			a.run(time.Second)
			x.hears(y, z)
			y.hears(x, z)
		})
	}
}

func TestWhisper(t *testing.T) {
	for _, mode := range []mediapb.Whisper_Mode{mediapb.Whisper_PRIVATE, mediapb.Whisper_COACH} {
		t.Run(mode.String(), func(t *testing.T) {
			a := newAir(t, Options{})
			x, y, z := a.three()
			a.set(&mediapb.Conference{Id: "c", Whispers: []*mediapb.Whisper{{FromLeg: "x", ToLegs: []string{"y"}, Mode: mode}}})
			a.run(time.Second)
			if db := y.level(x.toneHz, 400*time.Millisecond); db < -3 || db > 3 {
				t.Errorf("target hears the whisper at %.1f dB", db)
			}
			if db := y.level(z.toneHz, 400*time.Millisecond); db < -15 || db > -9 {
				t.Errorf("target hears the room at %.1f dB, want 12 down", db)
			}
			if mode == mediapb.Whisper_PRIVATE {
				z.hears() // neither the whisperer nor the answer
			} else {
				z.hears(y)
			}
			x.hears(y, z)
			a.set(&mediapb.Conference{Id: "c"})
			a.run(time.Second)
			x.hears(y, z)
			y.hears(x, z)
			z.hears(x, y)
		})
	}
}

func TestJoinAndLeave(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	v := a.join("c", "v", pcma, 1500)
	a.run(time.Second)
	x.hears(y, z, v)
	v.hears(x, y, z)
	last, err := a.e.CloseLeg(t.Context(), "v")
	if err != nil || last.Audio.RxPackets == 0 || last.Audio.TxPackets == 0 {
		t.Errorf("last statistics %v, %v", last, err)
	}
	v.off = true
	a.run(time.Second)
	x.hears(y, z)
	z.hears(x, y)
	if again, err := a.e.CloseLeg(t.Context(), "v"); err != nil || again.Id != "" {
		t.Errorf("closing again: %v, %v; want empty", again, err)
	}
}

func TestListenersShareOneEncode(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	x, y := a.join("c", "x", wb, 600), a.join("c", "y", wb, 1000)
	var rest []*phone
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		rest = append(rest, a.join("c", id, wb, 0))
	}
	oa := a.join("c", "f", wb, 0, octets)
	a.run(time.Second)
	before := a.engine()
	a.run(time.Second)
	after := a.engine()
	for _, p := range append(rest, oa) {
		p.hears(x, y)
	}
	x.hears(y)
	y.hears(x)
	// One for six listeners, whatever they pack it into; each of the talkers hears one
	// other and is passed his frames.
	if n := after.Encodes - before.Encodes; n != 50 {
		t.Errorf("%d encodes in 50 ticks, want 50", n)
	}
	if n := after.SharedEncodesSaved - before.SharedEncodesSaved; n != 250 {
		t.Errorf("%d encodes saved, want 250", n)
	}
	// Comfort noise is not decoded.
	if n := after.Decodes - before.Decodes; n != 100 {
		t.Errorf("%d decodes, want 100: only two talk", n)
	}
}

// While one talks, and when nobody does, nothing is encoded, and next to nothing decoded.
func TestOneTalkerIsPassedOn(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	x := a.join("c", "x", wb, 600)
	rest := []*phone{a.join("c", "a", wb, 0), a.join("c", "b", wb, 0), a.join("c", "c", wb, 0, octets)}
	other := a.join("c", "d", pcma, 0)
	a.run(time.Second)
	for _, p := range append(rest, other) {
		p.hears(x)
	}
	x.hears()
	if err := a.e.SetLeg(t.Context(), &mediapb.Leg{Id: "d"}); err != nil { // it needed its own codec
		t.Fatal(err)
	}
	x.toneHz = 0
	a.run(time.Second)
	x.toneHz = 600
	a.run(200 * time.Millisecond)
	before := a.engine()
	a.run(time.Second)
	x.toneHz = 0
	a.run(time.Second)
	after := a.engine()
	if n := after.Encodes - before.Encodes; n != 0 {
		t.Errorf("%d encodes in 100 ticks, want none", n)
	}
	if n := after.Decodes - before.Decodes; n > 30 {
		t.Errorf("%d decodes in 100 ticks, want a few to check how loud it is", n)
	}
}

// Loss on the way in is no gap on the way out, whatever the codec: a packet for each tick,
// none of them empty.
func TestAPairIsSentAPacketEveryTick(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, pcmu} {
		a := newAir(t, Options{})
		a.set(confC())
		x, y := a.join("c", "x", codec, 600), a.join("c", "y", codec, 900)
		a.run(time.Second)
		x.drop = func(n int) bool { return n%9 == 0 || n%40 < 4 }
		y.packets = nil
		a.run(2 * time.Second)
		if n := len(y.packets); n < 98 {
			t.Errorf("%v: %d packets in 100 ticks", codec, n)
		}
		for i := 1; i < len(y.packets); i++ {
			if step := y.packets[i].Timestamp - y.packets[i-1].Timestamp; step != uint32(a.e.legs["y"].leg.Load().st.step) {
				t.Errorf("%v: a step of %d between two packets", codec, step)
				break
			}
		}
		x.hears(y)
		if e := a.engine(); e.Encodes != 0 {
			t.Errorf("%v: %d encodes between two phones of one codec", codec, e.Encodes)
		}
	}
}

// Who stops listening to a shared encoder must not hear that: no sample jumps further
// than the tones themselves move.
func TestNoClickBetweenEncoders(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	x := a.join("c", "x", wb, 400)
	y := a.join("c", "y", wb, 0)
	a.run(time.Second)
	y.hears(x)
	from := len(y.heard)
	steepest := 0.0
	for i := from - 8000; i < from; i++ {
		steepest = max(steepest, abs(y.heard[i]-y.heard[i-1]))
	}
	for range 6 { // y says something now and then
		y.toneHz = 3000 // x's ear, not y's, gets it
		a.run(200 * time.Millisecond)
		y.toneHz = 0
		a.run(800 * time.Millisecond)
	}
	for i := from; i < len(y.heard); i++ {
		if d := abs(y.heard[i] - y.heard[i-1]); d > 2*steepest {
			t.Fatalf("click of %.0f at sample %d, the tone's own steps are %.0f", d, i-from, steepest)
		}
	}
}

func abs(v float64) float64 { return max(v, -v) }

func TestSilenceIsDTX(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	x := a.join("c", "x", wb, 500)
	y := a.join("c", "y", wb, 0)
	a.run(time.Second)
	x.toneHz = 0
	a.run(2 * time.Second)
	y.packets, y.fts = nil, nil
	a.run(1600 * time.Millisecond)
	if n := len(y.packets); n < 9 || n > 11 {
		t.Errorf("%d packets in 1.6 s of silence, want 10 SIDs", n)
	}
	for i, ft := range y.fts {
		if ft != 9 || y.packets[i].Marker {
			t.Errorf("frame type %d, marker %v in silence; want SID, none", ft, y.packets[i].Marker)
		}
	}
	ts := y.packets[len(y.packets)-1].Timestamp
	seq := y.packets[len(y.packets)-1].Seq
	x.toneHz = 500
	at := a.now
	a.run(time.Second)
	y.hears(x)
	marked := false
	for i, h := range y.packets {
		if h.Marker {
			marked = true
			if y.fts[i] == 9 || int32(h.Timestamp-ts) <= 0 || int32(h.Timestamp-ts) > int32((a.now-at)*16/1e6)+16000 {
				t.Errorf("talk spurt starts with frame type %d at timestamp +%d", y.fts[i], h.Timestamp-ts)
			}
		}
	}
	if !marked {
		t.Error("no marker at the start of the talk spurt")
	}
	if last := y.packets[len(y.packets)-1].Seq; last-seq > 60 {
		t.Errorf("sequence numbers ran on by %d: they count packets sent", last-seq)
	}
}

func TestModeRequestIsObeyedPerLeg(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	a.join("c", "x", wb, 500)
	y := a.join("c", "y", wb, 300)
	z := a.join("c", "z", wb, 0)
	set := a.join("c", "set", wb, 0, func(l *mediapb.Leg) { l.Audio.ModeSet = []uint32{0, 1, 2} })
	y.cmr = 2
	set.off = true
	a.run(400 * time.Millisecond)
	if ft := set.fts[len(set.fts)-1]; ft != 0 {
		t.Errorf("a set of three starts at mode %d, want its lowest", ft)
	}
	a.run(600 * time.Millisecond)
	if ft := y.fts[len(y.fts)-1]; ft != 2 {
		t.Errorf("mode %d to who asked for 2", ft)
	}
	if ft := z.fts[len(z.fts)-1]; ft != 8 {
		t.Errorf("mode %d to who asked for nothing, want 8", ft)
	}
	a.run(time.Second)
	if ft := set.fts[len(set.fts)-1]; ft != 2 {
		t.Errorf("mode %d after 2 s without loss, want the set's highest", ft)
	}
	for _, ft := range set.fts {
		if ft > 2 && ft != 9 {
			t.Fatalf("mode %d is outside the mode-set", ft)
		}
	}
}

func TestStrangersAreNotHeardAndNotAnswered(t *testing.T) {
	a := newAir(t, Options{})
	x, y, _ := a.three()
	evil := listenUDP(t)
	defer evil.Close()
	before := a.stats("x").Audio
	for i := range 50 {
		b := make([]byte, 12+61)
		header(b, 96, x.seq+uint16(i)+1, x.ts+uint32(i+1)*320, x.ssrc) // as x, from elsewhere
		if _, err := evil.WriteToUDPAddrPort(b, x.to); err != nil {
			t.Fatal(err)
		}
		if _, err := evil.WriteToUDPAddrPort([]byte{0x80, 200, 0, 1, 0, 0, 0, 1}, x.toRTCP); err != nil {
			t.Fatal(err)
		}
	}
	a.run(time.Second)
	after := a.stats("x").Audio
	if n := after.RxStranger - before.RxStranger; n != 100 {
		t.Errorf("%d strangers counted, want 100", n)
	}
	if n := after.RxPackets - before.RxPackets; n != 50 {
		t.Errorf("%d packets taken, want x's own 50", n)
	}
	if after.RxLate != before.RxLate {
		t.Error("a stranger's packets reached the jitter buffer")
	}
	y.hears(x, a.phones[2])
	recv(evil, func(b []byte) { t.Errorf("the stranger was sent %d octets", len(b)) })
}

func TestSourcePortLatchesWhereSignallingSaysSo(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	x := a.join("c", "x", wb, 500, func(l *mediapb.Leg) { l.Audio.Remote.AnyPort = true })
	y := a.join("c", "y", wb, 0)
	own := x.rtp
	other := listenUDP(t)
	defer other.Close()
	a.run(time.Second)
	x.rtp = other // behind another port of the same address, in time
	a.run(time.Second)
	y.hears(x)
	a.run(5 * time.Second) // fixed now
	x.rtp = own
	a.run(time.Second)
	y.hears()
	x.rtp = other
	a.run(time.Second)
	y.hears(x)
	if s := a.stats("x").Audio.RxStranger; s < 45 || s > 55 {
		t.Errorf("%d strangers, want the second's 50", s)
	}
}

func TestMalformedPacketsAreCountedAndDropped(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	bad := [][]byte{
		{}, {0x80}, make([]byte, 11), make([]byte, 1900),
		{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1},             // no payload
		{0x8f, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1},          // 15 CSRCs that are not there
		{0x90, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 9, 9}, // extension beyond the end
		{0xa0, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 200},        // padding longer than the packet
		{0xa0, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0},          // padding of nothing
		{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xf4, 0x40}, // speech cut off
		{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xf6, 0x40}, // reserved frame type
		{0x80, 13, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x40, 0},    // another payload type
		{0x80, 101, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3},   // a key cut off
	}
	long := make([]byte, 2100)
	header(long, 96, 1, 1, x.ssrc)
	bad = append(bad, long)
	before := a.stats("x").Audio
	for _, b := range bad {
		x.write(b)
	}
	for _, b := range [][]byte{{}, {0x80, 200, 0, 6}, {0x81, 201, 0, 1, 0, 0, 0, 1}, {0x80, 200, 0xff, 0xff, 0, 0, 0, 1}, {0x80, 202, 0, 1, 0, 0, 0, 1}} {
		if _, err := x.rtcp.WriteToUDPAddrPort(b, x.toRTCP); err != nil {
			t.Fatal(err)
		}
	}
	a.run(time.Second)
	after := a.stats("x").Audio
	if n := after.RxDropped - before.RxDropped; n != uint64(len(bad)+5) {
		t.Errorf("%d dropped, want %d", n, len(bad)+5)
	}
	y.hears(x, z)
}

// A phone that packs AMR in the other way is not heard, and that is said, once.
func TestAMRPackedOtherwiseIsSaid(t *testing.T) {
	for _, aligned := range []bool{false, true} {
		a := newAir(t, Options{})
		a.set(confC())
		x := a.join("c", "x", wb, 500, func(l *mediapb.Leg) { l.Audio.OctetAlign = aligned })
		y := a.join("c", "y", wb, 0)
		said := func(ev *mediapb.Event) bool {
			return ev.Leg == "x" && ev.GetMediaNote().GetWhat() == "amr_format_mismatch"
		}
		x.write([]byte{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff}) // is nothing in either
		a.run(time.Second)
		if n := a.count(said); n != 0 {
			t.Errorf("octet-align=%v: said %d times of a phone that packs as agreed", aligned, n)
		}
		y.toneHz = 0 // and x, which reads as it packs, is sent nothing
		x.leg.Audio.Send = false
		x.update()
		x.listen()
		x.format.OctetAligned = !aligned
		before := a.stats("x").Audio.RxDropped
		a.run(time.Second)
		if n := a.count(said); n != 1 || a.stats("x").Audio.RxDropped-before != 50 {
			t.Errorf("octet-align=%v: said %d times", aligned, n)
		}
		y.hears()
	}
}

func TestLossIsConcealedAndReported(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	x.drop = func(n int) bool { return n%10 == 0 }
	a.run(12 * time.Second)
	s := a.stats("x").Audio
	if s.RxLoss < 0.08 || s.RxLoss > 0.12 || s.RxLost < 50 || s.Concealed < 50 {
		t.Errorf("10 %% lost: loss %.2f, %d lost, %d concealed", s.RxLoss, s.RxLost, s.Concealed)
	}
	clean := a.stats("y").Audio
	if s.Mos >= clean.Mos || clean.Mos < 3.5 {
		t.Errorf("MOS %.2f with loss, %.2f without", s.Mos, clean.Mos)
	}
	y.hears(x, z)
}

func TestChangeOfALiveLeg(t *testing.T) {
	a := newAir(t, Options{})
	x, y, z := a.three()
	// Another address after a re-INVITE, same codec: the stream goes on.
	ssrc, seq := x.packets[len(x.packets)-1].SSRC, x.packets[len(x.packets)-1].Seq
	x.rtp.Close()
	x.rtp = listenUDP(t)
	x.leg.Audio.Remote.Port = uint32(addrOf(x.rtp).Port())
	x.packets = nil
	x.update()
	a.run(time.Second)
	if h := x.packets[0]; h.SSRC != ssrc || h.Seq-seq > 2 {
		t.Errorf("stream broke: %+v after seq %d", h, seq)
	}
	x.hears(y, z)
	y.hears(x, z)
	// Another codec.
	x.leg.Audio.Codec, x.leg.Audio.PayloadType = pcma, 8
	x.codecs()
	x.packets = nil
	x.update()
	a.run(time.Second)
	if h := x.packets[len(x.packets)-1]; h.SSRC == ssrc || h.Type != 8 {
		t.Errorf("new clock, old source: %+v", h)
	}
	x.hears(y, z)
	y.hears(x, z)
	// And another SSRC of the phone.
	x.ssrc, x.ts, x.seq = 99, 7, 3
	a.run(time.Second)
	y.hears(x, z)
}

func TestOnlyTheLoudestAreMixed(t *testing.T) {
	a := newAir(t, Options{MaxTalkers: 3})
	a.set(&mediapb.Conference{Id: "c"})
	for i, id := range []string{"a", "b", "c", "d", "e", "f"} {
		a.join("c", id, wb, 400+float64(i)*330)
	}
	l := a.join("c", "listener", wb, 0)
	a.run(2 * time.Second)
	n := 0
	for _, p := range a.phones[:6] {
		if l.level(p.toneHz, 400*time.Millisecond) > -6 {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d heard, want 3", n)
	}
}

// What a frame marked bad sounds like is guessed from the one before it, and before the
// first there is nothing.
func TestAFirstFrameMarkedBadIsNotLoud(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	for _, id := range []string{"x", "y", "z"} {
		a.join("c", id, wb, 0)
	}
	l := a.e.legs["x"].leg.Load()
	bits := make([]byte, amr.Bytes(true, 8))
	for i := range 10 {
		l.jb.Push(uint32(i)*320, l.since(a.now), 8, true, false, bits)
		a.now += int64(tickTime)
		a.e.workers[0].onDeadline(a.now)
	}
	if l.lastLevel != mix.Silent || l.talks || l.contributes {
		t.Errorf("level %.0f dBov, talks %v, mixed %v: nothing was said", l.lastLevel, l.talks, l.contributes)
	}
}
