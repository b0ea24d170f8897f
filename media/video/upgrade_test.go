package video

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sparkle/media/mediapb"
	"sparkle/media/tap"
)

// A voice leg gets video in the call, loses it and gets it again: others see it come and
// go in its own place.
func TestVideoComesAndGoesInACall(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	b := join(t, p, "c", "B", 200, nil)
	if err := p.OpenLeg("c", "A", Sockets{}); err != nil {
		t.Fatal(err)
	}
	voice := &mediapb.Leg{Id: "A", Name: "A", Present: true}
	if err := p.SetLeg("A", voice); err != nil {
		t.Fatal(err)
	}
	if err := p.OpenVideo("nobody", Sockets{udp(t), udp(t)}); !errors.Is(err, ErrUnknown) {
		t.Errorf("video for nobody: %v", err)
	}
	if p.CloseVideo("A") != nil || p.CloseVideo("nobody") != nil {
		t.Error("figures of video that never was")
	}
	capture := tap.New(false)
	p.Tap("A", capture)
	for round, luma := range []byte{30, 150} {
		sock := Sockets{udp(t), udp(t)}
		to, toC := local(sock.RTP), local(sock.RTCP)
		if err := p.OpenVideo("A", sock); err != nil {
			t.Fatal(err)
		}
		if err := p.OpenVideo("A", Sockets{udp(t), udp(t)}); err == nil {
			t.Error("sockets twice")
		}
		a := handset(t, "A", luma)
		a.to, a.toC = to, toC
		leg := a.wants()
		if err := p.SetLeg("A", leg); err != nil {
			t.Fatal(err)
		}
		a.start()
		eventually(t, 10*time.Second, "A seen by B", func() bool { return seesColour(b, 2, 1, luma) })
		eventually(t, 10*time.Second, "B seen by A", func() bool { return seesColour(a, 2, 0, 200) })
		if len(capture.C) == 0 {
			t.Errorf("round %d: whoever captured A from before it had video sees none of it", round)
		}
		if err := p.SetLeg("A", voice); err != nil {
			t.Fatal(err)
		}
		s := p.CloseVideo("A")
		for len(capture.C) > 0 {
			<-capture.C
		}
		if s == nil || s.RxPackets == 0 || s.TxPackets == 0 {
			t.Errorf("round %d: figures of the closed stream: %v", round, s)
		}
		a.close()
		if p.LegStats("A") != nil {
			t.Error("a voice leg has video figures")
		}
		eventually(t, 10*time.Second, "an avatar in A's place", func() bool { return !seesColour(b, 2, 1, luma) && seesColour(b, 2, 0, 200) })
	}
	if err := p.SetLeg("A", (&phone{rtp: udp(t), rtcp: udp(t)}).wants()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a stream without sockets: %v", err)
	}
}

// A phone that gives no sign of itself for a minute is sent no pictures until it does
// (IMS.md §3 row 17): nobody tears anything down.
func TestWhoIsGoneIsSentNothing(t *testing.T) {
	var pkt rtp.Packet
	l, _ := bare(t, nil)
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	l.receive(packet(1, 1, 0x65, 9), peer, start, &pkt)
	at := func(d time.Duration) bool {
		l.beat(start.Add(d))
		_, sent := l.wantsTier()
		return sent
	}
	if !at(59 * time.Second) {
		t.Error("sent nothing after 59 s")
	}
	if at(61 * time.Second) {
		t.Error("still sent pictures after 61 s without anything")
	}
	rr, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
	if err != nil {
		t.Fatal(err)
	}
	l.report(rr, l.stream.rtcp, start.Add(62*time.Second))
	if !at(62 * time.Second) {
		t.Error("a report did not bring the pictures back")
	}
	l, _ = bare(t, func(v *mediapb.VideoStream) { v.RtcpOff = true })
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	if !at(100 * time.Second) {
		t.Error("a phone that was asked for no reports counts as gone")
	}
}

// A key frame is asked for 1, 2 and 4 s into a silence, and then no more (row 17).
func TestASilenceIsAskedAboutThrice(t *testing.T) {
	var pkt rtp.Packet
	l, _ := bare(t, nil)
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	l.receive(packet(1, 1, 0x65, 9), peer, start, &pkt)
	l.rx.needSince = time.Time{} // its key frame came
	var asked []time.Duration
	for d := time.Duration(0); d < 30*time.Second; d += 100 * time.Millisecond {
		before := l.rx.asked
		l.beat(start.Add(d))
		if l.rx.asked > before {
			asked = append(asked, d.Round(time.Second))
		}
	}
	if len(asked) != 3 || asked[0] != time.Second || asked[1] != 2*time.Second || asked[2] != 4*time.Second {
		t.Errorf("asked at %v", asked)
	}
}

// Both b=RS:0 and b=RR:0 mean that not one report is sent.
func TestNoRTCPWhereNoneIsWanted(t *testing.T) {
	sink := udp(t)
	defer sink.Close()
	l, _ := bare(t, func(v *mediapb.VideoStream) { v.RtcpOff = true })
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	l.stream.rtcp = local(sink)
	l.gates(start)
	l.rx.known = true
	for d := time.Duration(0); d < 20*time.Second; d += 100 * time.Millisecond {
		l.beat(start.Add(d))
	}
	l.goodbye()
	_ = sink.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, from, err := sink.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
		t.Errorf("%d octets of RTCP from %v", n, netip.AddrPort(from))
	}
}
