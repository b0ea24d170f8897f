package video

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sparkle/media/mediapb"
	"sparkle/media/video/wire"
)

// sourceOf is whose pictures the tile of a leg shows; 0: the avatar.
func sourceOf(p *Plane, conf, leg string) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.confs[conf].wanted().Tiles {
		if t.Leg == leg {
			return t.Source
		}
	}
	return 0
}

// A phone that holds the call sends music and a picture of its own: neither comes into the
// conference (IMS.md §3 row 6).
func TestAHeldPhoneIsAnAvatar(t *testing.T) {
	p := idlePlane(t, nil)
	p.SetConference("c", true, false)
	ph := join(t, p, "c", "a", 0, nil)
	for _, held := range []bool{false, true, false} {
		want := ph.wants()
		want.Held, want.Video.Send = held, !held // a=sendonly
		if err := p.SetLeg("a", want); err != nil {
			t.Fatal(err)
		}
		if shown := sourceOf(p, "c", "a") != 0; shown == held {
			t.Errorf("held %v: its picture is shown: %v", held, shown)
		}
	}
}

// A decoder that begins needs a key frame whatever was seen before: FIR; a damaged picture
// wants PLI (IMS.md §5.3, RFC 5104 §3.5.1).
func TestWhichKeyFrameRequest(t *testing.T) {
	p := idlePlane(t, nil)
	p.SetConference("c", true, false)
	ph := handset(t, "a", 0)
	sock := Sockets{udp(t), udp(t)}
	if err := p.OpenLeg("c", "a", sock); err != nil {
		t.Fatal(err)
	}
	want := ph.wants()
	set := func(change func()) func() {
		return func() {
			change()
			if err := p.SetLeg("a", want); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(func() {})()
	l := p.legs["a"]
	l.mu.Lock()
	l.rx.known, l.rx.ssrc = true, 77
	l.mu.Unlock()
	now := time.Now()
	flows := func() { l.news(wire.Source{ID: l.source, Width: 240, Height: 320}, now) }
	damaged := func() { l.news(wire.Source{ID: l.source, Width: 240, Height: 320, NeedKey: true}, now) }
	for _, tt := range []struct {
		name string
		does func()
		want string
	}{
		{"a new leg", func() { l.mu.Lock(); l.rx.needKey(now); l.mu.Unlock() }, "FIR"},
		{"a damaged picture", func() { flows(); damaged() }, "PLI"},
		{"the tile was taken away", set(func() { want.VideoMuted = true }), ""},
		{"pictures of nobody's tile", damaged, ""},
		{"the tile is back", set(func() { want.VideoMuted = false }), "FIR"},
		{"another damaged picture", func() { flows(); damaged() }, "PLI"},
		{"another video process", func() { flows(); p.replay() }, "FIR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now = now.Add(20 * time.Second)
			l.mu.Lock()
			l.rx.needSince = time.Time{}
			l.mu.Unlock()
			tt.does()
			l.mu.Lock()
			l.askForKey(now)
			l.mu.Unlock()
			got := ""
			for _, r := range heard(t, ph.rtcp) {
				switch r.(type) {
				case *rtcp.PictureLossIndication:
					got += "PLI"
				case *rtcp.FullIntraRequest:
					got += "FIR"
				}
			}
			if got != tt.want {
				t.Errorf("asked by %q, want %q", got, tt.want)
			}
		})
	}
}

// Who cannot ask for key frames is sent one every 2 s, and every second while his own
// pictures cannot be decoded (IMS.md §5.3).
func TestKeyFramesUnasked(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*mediapb.VideoStream)
		hopeless bool
		want     time.Duration
	}{
		{"feedback", nil, false, 0},
		{"feedback, undecodable", nil, true, 0},
		{"no feedback", func(v *mediapb.VideoStream) { v.FbPli, v.FbFir = false, false }, false, 2 * time.Second},
		{"no feedback, undecodable", func(v *mediapb.VideoStream) { v.FbPli, v.FbFir = false, false }, true, time.Second},
		{"feedback without RTCP", func(v *mediapb.VideoStream) { v.RtcpOff = true }, false, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, _ := bare(t, tt.change)
			other, _ := bare(t, nil)
			if tt.hopeless {
				l.rx.first, l.rx.last = start, start.Add(11*time.Second)
				l.stalls(start.Add(11 * time.Second))
			}
			w := (&tier{legs: []*leg{other, l}}).wire()
			if w.KeyEvery != tt.want {
				t.Errorf("a key frame every %v, want %v", w.KeyEvery, tt.want)
			}
		})
	}
}

// The orientation byte is 0000CFRR (3GPP TS 26.114 §7.4.5): it goes on with each picture until
// another comes, and not beyond the stream.
func TestOrientationIsReadAndKept(t *testing.T) {
	l, p := bare(t, func(v *mediapb.VideoStream) { v.CvoExtension = 4 })
	var pkt rtp.Packet
	send := func(seq uint16, ssrc uint32, cvo ...byte) {
		h := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 114, SequenceNumber: seq, Timestamp: uint32(seq) * 6000, SSRC: ssrc, Marker: true}, Payload: []byte{0x65, 0x88, 9}}
		if len(cvo) > 0 {
			if err := h.SetExtension(4, cvo); err != nil {
				t.Fatal(err)
			}
		}
		b, err := h.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		l.receive(b, peer, start, &pkt)
	}
	send(1, 7)
	send(2, 7, 1)
	send(3, 7)
	send(4, 7, 8|3) // back camera
	send(5, 7, 4|2)
	send(6, 7, 0)
	send(7, 7, 4|1)
	for seq := range uint16(4) { // another stream, taken at its third packet
		send(1000+seq, 8)
	}
	want := []string{"0", "1", "1", "3", "2m", "0", "1m", "0", "0"}
	var got []string
	_, units := drain(t, p.box)
	for _, u := range units {
		s := strconv.Itoa(int(u.Rotate))
		if u.Mirror {
			s += "m"
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("turned by %v, want %v", got, want)
	}
}
