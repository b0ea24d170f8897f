package video

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sparkle/media/mediapb"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// stage is a switched conference whose phones send when they are told.
type stage struct {
	t      *testing.T
	p      *Plane
	phones map[string]*phone
	seq    map[string]uint16
	now    time.Time
}

func newStage(t *testing.T, ids string, change func(id string, v *mediapb.VideoStream)) *stage {
	s := &stage{t: t, p: idlePlane(t, nil), phones: map[string]*phone{}, seq: map[string]uint16{}, now: time.Now()}
	s.p.SetConference("c", true, true)
	for _, c := range ids {
		id := string(c)
		ph := handset(t, id, 0)
		sock := Sockets{udp(t), udp(t)}
		ph.to, ph.toC = local(sock.RTP), local(sock.RTCP)
		if err := s.p.OpenLeg("c", id, sock); err != nil {
			t.Fatal(err)
		}
		want := ph.wants()
		if change != nil {
			change(id, want.Video)
		}
		if err := s.p.SetLeg(id, want); err != nil {
			t.Fatal(err)
		}
		s.phones[id] = ph
		s.leg(id).news(source(s.leg(id)), s.now) // its pictures can be decoded
	}
	return s
}

func (s *stage) leg(id string) *leg {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.legs[id]
}

// shoot has a phone send a picture, with its parameter sets if it is a key frame.
func (s *stage) shoot(id string, key bool, text string, cvo ...byte) {
	s.t.Helper()
	s.now = s.now.Add(time.Second / 15)
	payloads := [][]byte{append([]byte{0x61, 0x9a}, text...)}
	if key {
		payloads = [][]byte{smallSPS, {0x68, 0xce, 0x3c, 0x80}, append([]byte{0x65, 0x88}, text...)}
	}
	l := s.leg(id)
	var pkt rtp.Packet
	for i, pl := range payloads {
		s.seq[id]++
		seq := s.seq[id]
		h := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 114, SequenceNumber: seq, Timestamp: uint32(seq) * 6000, SSRC: uint32(id[0]), Marker: i == len(payloads)-1}, Payload: pl}
		if key {
			h.Timestamp = uint32(seq-uint16(i)) * 6000
		}
		if len(cvo) > 0 && h.Marker {
			_ = h.SetExtension(4, cvo)
		}
		b, err := h.Marshal()
		if err != nil {
			s.t.Fatal(err)
		}
		l.mu.Lock()
		l.receive(b, local(s.phones[id].rtp), s.now, &pkt)
		turned := l.rx.turned
		l.rx.turned = false
		l.mu.Unlock()
		l.sendPassing()
		if turned {
			s.p.retier(l)
		}
	}
}

// sees is what a phone has been sent since the last call.
func (s *stage) sees(id string) (texts []string) {
	var d rtp264.Depacketizer
	for _, b := range came(s.t, s.phones[id].rtp) {
		var h rtp.Packet
		if err := h.Unmarshal(b); err != nil {
			s.t.Fatal(err)
		}
		d.Push(h.Payload, h.SequenceNumber, h.Timestamp, h.Marker, func(au rtp264.AccessUnit) {
			i := bytes.LastIndex(au.Data, []byte{0, 0, 1})
			text := string(au.Data[i+5:])
			if ext := h.GetExtension(4); len(ext) > 0 {
				text += fmt.Sprint(" turned ", ext[0])
			}
			texts = append(texts, text)
		})
	}
	return texts
}

// asked is what a phone was asked for since the last beat.
func (s *stage) asked(id string) bool {
	l := s.leg(id)
	s.now = s.now.Add(time.Second)
	l.mu.Lock()
	l.askForKey(s.now)
	l.mu.Unlock()
	return len(heard(s.t, s.phones[id].rtcp)) > 0
}

// wantSees compares what each phone was sent, and how many encodings there are.
func (s *stage) wantSees(what string, encodings int, want map[string][]string) {
	s.t.Helper()
	for id := range s.phones {
		if got := s.sees(id); !slices.Equal(got, want[id]) {
			s.t.Errorf("%s: %s is sent %q, want %q", what, id, got, want[id])
		}
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if n := len(s.p.confs["c"].wanted().Tiers); n != encodings {
		s.t.Errorf("%s: %d encodings, want %d", what, n, encodings)
	}
}

// Who talks is seen whole, in his own stream, and sees who talked before.
func TestTheTalkersStreamIsPassedOn(t *testing.T) {
	s := newStage(t, "abc", nil)
	// Nothing is known of their streams yet: all see the mosaic.
	s.wantSees("nothing is known", 1, nil)
	for _, id := range []string{"a", "b", "c"} {
		s.shoot(id, true, "first of "+id)
		s.p.retier(s.leg(id))
	}
	s.wantSees("the first", 0, nil)
	s.p.Talking("c", []string{"b"})
	if !s.asked("b") || !s.asked("a") {
		t.Error("who is seen from now on is not asked for a key frame")
	}
	s.shoot("b", false, "no beginning")
	s.wantSees("no key frame has come", 0, nil)
	s.shoot("b", true, "b1")
	s.shoot("b", false, "b2")
	s.shoot("a", true, "a1")
	s.shoot("c", true, "c1")
	s.wantSees("b talks", 0, map[string][]string{"a": {"b1", "b2"}, "c": {"b1", "b2"}, "b": {"a1"}})
	s.p.Talking("c", []string{"b", "c"})
	s.shoot("b", false, "b3")
	s.wantSees("c butts in", 0, map[string][]string{"a": {"b3"}, "c": {"b3"}})
	s.p.Talking("c", []string{"c"})
	s.shoot("b", true, "b4")
	s.shoot("c", true, "c2")
	s.wantSees("c talks on", 0, map[string][]string{"a": {"c2"}, "b": {"c2"}, "c": {"b4"}})
	// A phone that lost a picture asks, and who is seen is asked.
	pli := marshal(t, &rtcp.PictureLossIndication{MediaSSRC: s.leg("a").tx.ssrc})
	l := s.leg("a")
	s.asked("c")
	l.mu.Lock()
	key, tier := l.report(pli, local(s.phones["a"].rtcp), s.now), l.tier
	l.mu.Unlock()
	if s.p.keyFrame(tier); !key || !s.asked("c") {
		t.Error("a request for a key frame is not passed on")
	}
	// Damage is not passed on.
	s.shoot("c", true, "c3")
	s.seq["c"]++
	s.shoot("c", false, "torn")
	s.shoot("c", false, "on it")
	s.shoot("c", true, "c4")
	for range 8 { // what waits for the lost packet goes on without it
		s.shoot("c", false, ".")
	}
	if got := s.sees("a"); slices.Contains(got, "torn") || slices.Contains(got, "on it") || !slices.Contains(got, "c4") {
		t.Errorf("a is sent %q", got)
	}
	s.sees("b")
	// Who is seen leaves: the others see who was seen before.
	s.p.CloseLeg("c")
	delete(s.phones, "c")
	s.shoot("b", true, "b5")
	s.shoot("a", true, "a5")
	s.wantSees("c is gone", 0, map[string][]string{"a": {"b5"}, "b": {"a5"}})
	s.p.SetConference("c", true, false)
	s.shoot("b", true, "b6")
	s.wantSees("the mosaic again", 1, nil)
}

// A phone that cannot take the talker's stream as it is sees the mosaic.
func TestWhoCannotTakeAStreamSeesTheMosaic(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*mediapb.VideoStream)
		talker func(*stage)
		passed bool
	}{
		{"alike", nil, nil, true},
		{"mode 0", func(v *mediapb.VideoStream) { v.PacketizationMode = 0 }, nil, false},
		{"it cannot ask", func(v *mediapb.VideoStream) { v.FbPli, v.FbFir = false, false }, nil, false},
		{"the talker cannot be asked", nil, func(s *stage) { s.leg("a").stream.feedback = false }, false},
		{"a lower level", func(v *mediapb.VideoStream) { v.ProfileLevelId, v.Width, v.Height = "42c00b", 144, 176 }, nil, false},
		{"less rate", func(v *mediapb.VideoStream) { v.BitrateBps = 64_000 }, func(s *stage) { s.leg("a").rx.bps = 300_000 }, false},
		{"sideways", nil, func(s *stage) { s.shoot("a", true, "turned", 1) }, false},
		{"sideways, and it can turn it", func(v *mediapb.VideoStream) { v.CvoExtension = 4 }, func(s *stage) { s.shoot("a", true, "turned", 1) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, "ab", func(id string, v *mediapb.VideoStream) {
				if id == "a" {
					v.CvoExtension = 4
				} else if tt.change != nil {
					tt.change(v)
				}
			})
			s.shoot("a", true, "first")
			s.p.retier(s.leg("a"))
			s.p.Talking("c", []string{"a"})
			if tt.talker != nil {
				tt.talker(s)
				s.p.retier(s.leg("a"))
			}
			s.sees("b")
			s.shoot("a", true, "picture")
			want := []string(nil)
			if tt.passed {
				if want = []string{"picture"}; s.leg("a").rx.rotate != 0 {
					want = []string{"picture turned 1"}
				} else if s.leg("b").stream.pb.CvoExtension != 0 {
					want = []string{"picture turned 0"}
				}
			}
			if got := s.sees("b"); !slices.Equal(got, want) {
				t.Errorf("b is sent %q, want %q", got, want)
			}
		})
	}
}

func source(l *leg) wire.Source { return wire.Source{ID: l.source, Width: 240, Height: 320} }

// smallSPS is a real encoder's: Constrained Baseline level 1.2, 240x320.
var smallSPS = []byte{0x67, 0x42, 0xc0, 0x0c, 0x8c, 0x8d, 0x41, 0xe1, 0x49, 0x00, 0xf0, 0x88, 0x46, 0xa0}

// The same with real phones and codecs: B sees A whole, from edge to edge.
func TestSwitchedFromPhoneToPhone(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, true)
	level := func(l *mediapb.Leg, _ *phone) { l.Video.ProfileLevelId = "42c00d" }
	a := join(t, p, "c", "A", 80, level)
	b := join(t, p, "c", "B", 180, level)
	c := join(t, p, "c", "C", 0, level) // sends nothing
	whole := func(ph *phone, luma byte) bool {
		return near(ph.at(4, 160), luma) && near(ph.at(235, 160), luma) && near(ph.at(120, 315), luma)
	}
	for _, tt := range []struct {
		talks string
		a, b  byte // what they see
		c     byte
	}{{"A", 180, 80, 80}, {"B", 180, 80, 180}} {
		p.Talking("c", []string{tt.talks})
		eventually(t, 10*time.Second, tt.talks+" is seen", func() bool { return whole(a, tt.a) && whole(b, tt.b) && whole(c, tt.c) })
	}
	if r := p.RoomStats("c"); r.Tiers != 2 {
		t.Errorf("%v", r)
	}
}
