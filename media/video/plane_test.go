package video

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"sparkle/media/codec/yuv"
	"sparkle/media/layout"
	"sparkle/media/mediapb"
	"sparkle/media/video/mosaic"
)

// middle is the middle of the picture part of a tile.
func middle(n, i, w, h int) (x, y int) {
	r := layout.Tiles(nil, n, w, h)[i]
	return r.X + r.W/2, r.Y + r.H*2/5
}

// Two phones of two colours and a voice leg: each phone sees both colours in the
// right tiles and an avatar in the third, through the whole chain.
func testEverybodyIsSeen(t *testing.T, opt Options) {
	p, ev := plane(t, opt)
	p.SetConference("c", true, false)
	a := join(t, p, "c", "Alice", 60, nil)
	b := join(t, p, "c", "Bob", 200, func(l *mediapb.Leg, _ *phone) { l.Video.PacketizationMode = 0 })
	if err := p.OpenLeg("c", "Carol", Sockets{}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetLeg("Carol", &mediapb.Leg{Id: "Carol", Name: "Carol", Present: true, Muted: true}); err != nil {
		t.Fatal(err)
	}
	for _, ph := range []*phone{a, b} {
		eventually(t, 10*time.Second, ph.id+" sees both colours", func() bool {
			ax, ay := middle(3, 0, 240, 320)
			bx, by := middle(3, 1, 240, 320)
			return near(ph.at(ax, ay), 60) && near(ph.at(bx, by), 200)
		})
		// the avatar's disc is neither of them, and brighter than the tile behind it
		r := layout.Tiles(nil, 3, 240, 320)[2]
		disc, back := ph.at(r.X+r.W/2-20, r.Y+r.H*2/5), ph.at(r.X+4, r.Y+8)
		if disc < back+20 {
			t.Errorf("%s: no avatar for the voice leg: disc %d, behind it %d", ph.id, disc, back)
		}
	}
	b.mu.Lock()
	if b.types[28] > 0 || b.types[24] > 0 {
		t.Errorf("mode 0 was sent packets of types %v", b.types)
	}
	b.mu.Unlock()
	a.mu.Lock()
	if a.types[24] == 0 {
		t.Errorf("mode 1 was sent no STAP-A with parameter sets: %v", a.types)
	}
	a.mu.Unlock()
	eventually(t, 5*time.Second, "statistics", func() bool {
		s := p.Snapshot()
		la, r := s.Legs["Alice"], s.Rooms["c"]
		return la.RxPackets > 5 && la.TxPackets > 5 && la.Width == 240 && la.Height == 320 && la.RxLost == 0 &&
			p.LegStats("Alice").GetRxPackets() >= la.RxPackets && p.LegStats("Carol") == nil && p.RoomStats("c").GetTiles() == 3 &&
			r.Tiles == 3 && r.Tiers == 2 && r.FramesEncoded > 5 && r.FramesComposed > 5 && s.Legs["Carol"] == nil
	})
	if n := ev.count(func(e *mediapb.Event) bool { return e.GetMediaStarted() != nil }); n != 2 {
		t.Errorf("%d MediaStarted, want 2", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	data, _, err := p.Preview(ctx, "c", 80)
	if err != nil {
		t.Fatal(err)
	}
	if img, err := jpeg.Decode(bytes.NewReader(data)); err != nil || img.Bounds().Dx() != 240 {
		t.Errorf("preview: %v", err)
	}
	if dir := os.Getenv("SPARKLE_PNG_DIR"); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, "preview.jpg"), data, 0o600)
	}
	if p.Sprop() == "" {
		t.Error("no sprop")
	}
	if s := p.CloseLeg("Alice"); s.GetTxPackets() == 0 {
		t.Error("no last statistics")
	}
	eventually(t, 3*time.Second, "BYE", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, r := range a.reports {
			if _, ok := r.(*rtcp.Goodbye); ok {
				return true
			}
		}
		return false
	})
}

func TestEverybodyIsSeenInProcess(t *testing.T) { testEverybodyIsSeen(t, inProcess()) }
func TestEverybodyIsSeenFromChild(t *testing.T) { testEverybodyIsSeen(t, childProcess()) }

// Legs that want the same share one encoding; others get their own.
func TestTiersAreShared(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	var phones []*phone
	for i := range 4 {
		phones = append(phones, join(t, p, "c", fmt.Sprint("P", i), 0, func(l *mediapb.Leg, _ *phone) {
			l.Video.BitrateBps = uint32(384_000 + i*20_000) // the same rate class
			if i == 3 {
				l.Video.ProfileLevelId, l.Video.Width, l.Video.Height, l.Video.BitrateBps = "42c01f", 640, 480, 800_000
			}
		}))
	}
	for _, ph := range phones {
		eventually(t, 10*time.Second, "pictures for "+ph.id, func() bool { n, _ := ph.counts(); return n >= 15 })
	}
	eventually(t, 3*time.Second, "counters", func() bool { return p.Snapshot().Rooms["c"].FramesEncoded > 0 })
	r := p.Snapshot().Rooms["c"]
	sent, _ := phones[0].counts()
	if r.Tiers != 2 {
		t.Errorf("%d tiers, want 2", r.Tiers)
	}
	if r.FramesEncoded > uint64(sent+15)*2+10 {
		t.Errorf("%d pictures encoded for 4 legs that saw %d: more than one encode per tier", r.FramesEncoded, sent)
	}
	for _, ph := range phones[1:] {
		p.CloseLeg(ph.id)
	}
	eventually(t, 3*time.Second, "one tier left", func() bool { return p.Snapshot().Rooms["c"].Tiers == 1 })
}

// Many requests for a key frame are one, and never more than two a second.
func TestKeyFrameRequestsAreMerged(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	ph := join(t, p, "c", "A", 0, nil)
	eventually(t, 10*time.Second, "pictures", func() bool { n, _ := ph.counts(); return n > 5 })
	_, before := ph.counts()
	began := time.Now()
	ph.mu.Lock()
	ssrc := ph.ssrc
	ph.mu.Unlock()
	pli, err := rtcp.Marshal([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: ssrc}})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 2*time.Second {
		<-tick.C
		if _, err := ph.rtcp.WriteToUDPAddrPort(pli, ph.toC); err != nil {
			t.Fatal(err)
		}
	}
	_, after := ph.counts()
	if got, limit := after-before, int(time.Since(began)/(500*time.Millisecond))+1; got < 2 || got > limit {
		t.Errorf("%d key frames in %v of a PLI storm, want 2 to %d", got, time.Since(began), limit)
	}
	if n := p.Snapshot().Legs["A"].KeyframeRequestsRx; n < 50 {
		t.Errorf("%d requests counted", n)
	}
}

// A leg without feedback gets key frames every two seconds; one with it does not.
func TestPeriodicKeyFramesWithoutFeedback(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	with := join(t, p, "c", "with", 0, nil)
	without := join(t, p, "c", "without", 0, func(l *mediapb.Leg, _ *phone) {
		l.Video.FbPli, l.Video.FbFir, l.Video.BitrateBps = false, false, 200_000
	})
	eventually(t, 12*time.Second, "three periods", func() bool { _, k := without.counts(); return k >= 4 })
	if _, k := with.counts(); k > 2 {
		t.Errorf("%d key frames for a leg that asked for none, want at most 2", k)
	}
}

// kill -9 of the video process: pictures flow again within a second, and nothing
// that the engine calls waits meanwhile.
func TestKilledChildComesBack(t *testing.T) {
	p, ev := plane(t, childProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 80, nil)
	b := join(t, p, "c", "B", 180, nil)
	bx, by := middle(2, 1, 240, 320)
	eventually(t, 10*time.Second, "A sees B", func() bool { return near(a.at(bx, by), 180) })
	eventually(t, 3*time.Second, "pid", func() bool { return p.Snapshot().PID > 0 })
	for round := range 3 {
		pid := p.Snapshot().PID
		a.mu.Lock()
		a.maxGap = 0
		a.mu.Unlock()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for time.Since(began) < 200*time.Millisecond { // while there is no child
			t0 := time.Now()
			p.Talking("c", []string{"A"})
			p.Talking("c", nil)
			p.SetConference("c", true, false)
			p.Snapshot()
			if d := time.Since(t0); d > 100*time.Millisecond {
				t.Errorf("calls took %v while the process was dead", d)
			}
		}
		eventually(t, 10*time.Second, "another process", func() bool { s := p.Snapshot(); return s.PID > 0 && s.PID != pid })
		seen, _ := a.counts()
		eventually(t, 10*time.Second, "pictures after the kill", func() bool {
			n, _ := a.counts()
			return n > seen+15 && near(a.at(bx, by), 180)
		})
		a.mu.Lock()
		gap := a.maxGap
		a.mu.Unlock()
		t.Logf("round %d: picture frozen for %v", round, gap)
		if limit := time.Second * slow; gap > limit {
			t.Errorf("picture frozen for %v, want at most %v", gap, limit)
		}
	}
	b.close()
	if n := ev.count(func(e *mediapb.Event) bool { return e.GetVideoProcess().GetState() == "down" }); n != 3 {
		t.Errorf("%d down events, want 3", n)
	}
	if n := ev.count(func(e *mediapb.Event) bool { return e.GetVideoProcess().GetState() == "up" }); n != 4 {
		t.Errorf("%d up events, want 4", n)
	}
}

// A process that hangs is killed by the watchdog, and the next one serves.
func TestStoppedChildIsReplaced(t *testing.T) {
	opt := childProcess()
	opt.Watchdog = 700 * time.Millisecond * slow
	p, _ := plane(t, opt)
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 90, nil)
	eventually(t, 20*time.Second, "pictures", func() bool { n, _ := a.counts(); return n > 5 })
	pid := p.Snapshot().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "another process", func() bool { s := p.Snapshot(); return s.PID > 0 && s.PID != pid })
	n, _ := a.counts()
	eventually(t, 20*time.Second, "pictures", func() bool { m, _ := a.counts(); return m > n+5 })
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the stopped process is still there: %v", err)
	}
}

func TestStrangersAreDropped(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 0, nil)
	stranger := udp(t)
	defer stranger.Close()
	for range 20 {
		_, _ = stranger.WriteToUDPAddrPort([]byte{0x80, 114, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0x65, 1, 2, 3}, a.to)
		_, _ = stranger.WriteToUDPAddrPort([]byte{0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9}, a.toC)
	}
	eventually(t, 3*time.Second, "strangers counted", func() bool { return p.Snapshot().Legs["A"].RxStranger >= 40 })
	if s := p.Snapshot().Legs["A"]; s.RxPackets != 0 || s.KeyframeRequestsRx != 0 {
		t.Errorf("a stranger was heard: %v", s)
	}
	_ = stranger.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, _, err := stranger.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("a stranger was answered with %d octets", n)
	}
}

// Loss makes us ask for a key frame, and the picture mends.
func TestLossIsMended(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 100, func(_ *mediapb.Leg, ph *phone) { ph.lose = func(n int) bool { return n > 10 && n%9 == 0 } })
	eventually(t, 15*time.Second, "requests and pictures", func() bool {
		s := p.Snapshot().Legs["A"]
		n, _ := a.counts()
		return s.KeyframeRequestsTx >= 2 && s.RxLost > 2 && s.RxLoss > 0 && n > 20
	})
	x, y := middle(1, 0, 240, 320)
	eventually(t, 5*time.Second, "A's own picture", func() bool { return near(a.at(x, y), 100) })
}

// A phone held sideways is shown upright.
func TestRotationIsApplied(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 200, func(l *mediapb.Leg, ph *phone) {
		l.Video.CvoExtension = 4
		ph.cvo, ph.w, ph.h = 1, 320, 240 // 90 degrees
	})
	r := layout.Tiles(nil, 1, 240, 320)[0]
	// Upright it is a portrait picture: it reaches high up in the tile, where a
	// landscape one would leave a bar.
	eventually(t, 10*time.Second, "portrait", func() bool { return near(a.at(r.X+r.W/2, r.Y+20), 200) })
}

func TestBadStreamsAreRefused(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	if err := p.OpenLeg("nowhere", "x", Sockets{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown conference: %v", err)
	}
	if err := p.OpenLeg("c", "v", Sockets{udp(t), nil}); err == nil {
		t.Error("half a pair of sockets: no error")
	}
	if err := p.OpenLeg("c", "v", Sockets{udp(t), udp(t)}); err != nil {
		t.Fatal(err)
	}
	if err := p.OpenLeg("c", "v", Sockets{}); err == nil {
		t.Error("a leg twice: no error")
	}
	if err := p.SetLeg("nobody", &mediapb.Leg{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown leg: %v", err)
	}
	good := func() *mediapb.VideoStream {
		return &mediapb.VideoStream{Remote: &mediapb.Remote{Ip: "127.0.0.1", Port: 9}, PayloadType: 114, ProfileLevelId: "42c00c", Width: 240, Height: 320}
	}
	if err := p.SetLeg("v", &mediapb.Leg{Video: good()}); err != nil {
		t.Fatal(err)
	}
	forgiven := good()
	forgiven.SpropIn = "nonsense"
	if err := p.SetLeg("v", &mediapb.Leg{Video: forgiven}); err != nil {
		t.Errorf("a bad sprop costs the picture: %v", err)
	}
	for name, spoil := range map[string]func(*mediapb.VideoStream){
		"no remote":      func(v *mediapb.VideoStream) { v.Remote = nil },
		"0.0.0.0":        func(v *mediapb.VideoStream) { v.Remote.Ip = "0.0.0.0" },
		"multicast":      func(v *mediapb.VideoStream) { v.Remote.Ip = "224.0.0.1" },
		"port 0":         func(v *mediapb.VideoStream) { v.Remote.Port = 0 },
		"payload type":   func(v *mediapb.VideoStream) { v.PayloadType = 128 },
		"mode 2":         func(v *mediapb.VideoStream) { v.PacketizationMode = 2 },
		"profile":        func(v *mediapb.VideoStream) { v.ProfileLevelId = "42c0" },
		"too large":      func(v *mediapb.VideoStream) { v.Width, v.Height = 640, 480 },
		"odd":            func(v *mediapb.VideoStream) { v.Width = 241 },
		"tiny":           func(v *mediapb.VideoStream) { v.Width, v.Height = 2, 2 },
		"CVO id":         func(v *mediapb.VideoStream) { v.CvoExtension = 15 },
		"DSCP":           func(v *mediapb.VideoStream) { v.Dscp = 64 },
		"huge":           func(v *mediapb.VideoStream) { v.Width, v.Height, v.ProfileLevelId = 4000, 4000, "42c034" },
		"port too large": func(v *mediapb.VideoStream) { v.Remote.Port = 70000 },
	} {
		v := good()
		spoil(v)
		if err := p.SetLeg("v", &mediapb.Leg{Video: v}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if err := p.OpenLeg("c", "voice", Sockets{}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetLeg("voice", &mediapb.Leg{Video: good()}); !errors.Is(err, ErrInvalid) {
		t.Errorf("video without sockets: %v", err)
	}
	if _, _, err := p.Preview(context.Background(), "nowhere", 0); !errors.Is(err, ErrUnknown) {
		t.Errorf("preview of nothing: %v", err)
	}
	p.CloseLeg("nobody")
	p.CloseConference("nowhere")
	p.CloseConference("c")
	if s := p.Snapshot(); len(s.Legs)+len(s.Rooms) != 0 {
		t.Errorf("after closing: %v", s)
	}
}

func TestOptionsNameEveryFault(t *testing.T) {
	o := Options{FPS: 31, MemoryBytes: 1, Watchdog: 1, Stall: -1}
	err := o.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"command", "fps", "memory", "watchdog", "stall"} {
		if !bytes.Contains([]byte(err.Error()), []byte("video."+key)) {
			t.Errorf("%s is not in: %v", key, err)
		}
	}
}

func TestWrongCommandIsToldAndSurvived(t *testing.T) {
	ev := &events{}
	p, err := New(Options{Command: []string{"/nonexistent/sparkle", "video"}, Emit: ev.add})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.SetConference("c", true, false)
	eventually(t, 5*time.Second, "down events", func() bool {
		return ev.count(func(e *mediapb.Event) bool { return e.GetVideoProcess().GetState() == "down" }) >= 2
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := p.Preview(ctx, "c", 0); !errors.Is(err, ErrDown) {
		t.Errorf("preview: %v, want ErrDown", err)
	}
}

// Every name of six can be read in the picture that a phone decodes at 240x320:
// its plate looks like that name's rendering and not like another's.
func TestNamesAreReadableAfterTheCodec(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	names := []string{"Alice", "王小明", "Bob", "李雷", "Carol", "Dave"}
	ph := join(t, p, "c", "leg0", 70, func(l *mediapb.Leg, _ *phone) { l.Name = names[0] })
	for i, n := range names[1:] {
		id := fmt.Sprint("leg", i+1)
		if err := p.OpenLeg("c", id, Sockets{}); err != nil {
			t.Fatal(err)
		}
		if err := p.SetLeg(id, &mediapb.Leg{Id: id, Name: n, Present: true}); err != nil {
			t.Fatal(err)
		}
	}
	var tiles []mosaic.Tile
	for i, n := range names {
		tiles = append(tiles, mosaic.Tile{Leg: fmt.Sprint(i), Name: n})
	}
	fonts := mosaic.LoadFonts(nil, nil)
	if fonts.CJK == "" {
		t.Log("no CJK font here: the Chinese names are boxes")
	}
	want := mosaic.NewCanvas(240, 320, fonts).Compose(tiles)
	rects := layout.Tiles(nil, len(names), 240, 320)
	const strip = 22
	window := func(m *yuv.Image, i int) yuv.Image {
		r := rects[i]
		return m.Sub(r.X+4, r.Y+r.H-strip+2, 60, strip-4)
	}
	eventually(t, 10*time.Second, "six tiles", func() bool {
		n, _ := ph.counts()
		return n > 40 && seesColour(ph, 6, 0, 70)
	})
	ph.mu.Lock()
	defer ph.mu.Unlock()
	for i := range names {
		got := window(ph.picture, i)
		for j := range names {
			ref := window(want, j)
			psnr := yuv.PSNR(&got, &ref)
			if i == j && psnr < 24 {
				t.Errorf("plate of %s: %.1f dB", names[i], psnr)
			}
			if i != j && psnr > 20 && (fonts.CJK != "" || i+j != 4) {
				t.Errorf("plate of %s looks like %s: %.1f dB", names[i], names[j], psnr)
			}
		}
	}
	if dir := os.Getenv("SPARKLE_PNG_DIR"); dir != "" {
		f, err := os.Create(filepath.Join(dir, "decoded.png"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_ = png.Encode(f, ph.picture.Full())
	}
}

// Nobody watches: nothing is composed or encoded, but a preview works.
func TestNothingIsComposedForNobody(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 120, func(l *mediapb.Leg, _ *phone) { l.Video.Send = false })
	eventually(t, 10*time.Second, "A's pictures decoded", func() bool { return p.Snapshot().Legs["A"].Width == 240 })
	eventually(t, 5*time.Second, "a preview", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		data, _, err := p.Preview(ctx, "c", 0)
		if err != nil {
			return false
		}
		img, err := jpeg.Decode(bytes.NewReader(data))
		return err == nil && img.Bounds().Dx() == 640
	})
	if r := p.Snapshot().Rooms["c"]; r.FramesEncoded != 0 || r.Tiers != 0 {
		t.Errorf("encoded %d pictures for nobody", r.FramesEncoded)
	}
	if n, _ := a.counts(); n != 0 {
		t.Errorf("a leg that wants nothing was sent %d pictures", n)
	}
}

// A re-INVITE moves the phone's address and its packetization mode; turning the
// conference's video off stops everything, and on again brings it back.
func TestALiveLegCanChange(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 0, nil)
	eventually(t, 10*time.Second, "pictures", func() bool { n, _ := a.counts(); return n > 5 })
	moved := join(t, p, "c", "spare", 0, func(l *mediapb.Leg, _ *phone) { l.Present = false })
	if n, _ := moved.counts(); n != 0 {
		t.Errorf("a leg that is not present was sent %d pictures", n)
	}
	v := &mediapb.VideoStream{Remote: &mediapb.Remote{Ip: "127.0.0.1", Port: uint32(local(moved.rtp).Port()), RtcpPort: uint32(local(moved.rtcp).Port())},
		PayloadType: 114, PacketizationMode: 0, ProfileLevelId: "42c00c", Width: 240, Height: 320, Fps: 15, BitrateBps: 256_000, Send: true, Recv: true}
	if err := p.SetLeg("A", &mediapb.Leg{Id: "A", Name: "A", Present: true, Video: v}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "pictures at the new address", func() bool { n, _ := moved.counts(); return n > 5 })
	moved.mu.Lock()
	if moved.types[28]+moved.types[24] != 0 {
		t.Errorf("mode 0 was sent types %v", moved.types)
	}
	moved.mu.Unlock()
	p.SetConference("c", false, false)
	eventually(t, 5*time.Second, "no tier", func() bool { return p.Snapshot().Rooms["c"].Tiers == 0 })
	p.SetConference("c", true, false)
	n, _ := moved.counts()
	eventually(t, 5*time.Second, "pictures again", func() bool { m, _ := moved.counts(); return m > n+5 })
	if err := p.SetLeg("A", &mediapb.Leg{Id: "A", Name: "A", Present: true}); err != nil { // m=video 0
		t.Fatal(err)
	}
	if r := p.RoomStats("c"); r.Tiers != 0 || r.Tiles != 1 {
		t.Errorf("after the phone dropped its video: %v", r)
	}
}
