package media

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
	"sparkle/media/tap"
)

// gallery is a video side that only keeps sockets.
type gallery struct {
	socks map[string][]*net.UDPConn
	heard func() int64 // the last sign of life on a video stream; nil: none ever
	lag   time.Duration
}

func (g *gallery) SetConference(string, bool, bool)         {}
func (g *gallery) CloseConference(string)                   {}
func (g *gallery) SetLeg(string, *mediapb.Leg) error        { return nil }
func (g *gallery) Heard(_ string, lag time.Duration)        { g.lag = lag }
func (g *gallery) Talking(string, []string)                 {}
func (g *gallery) Sprop() string                            { return "sets" }
func (g *gallery) Close()                                   {}
func (g *gallery) RoomStats(string) *mediapb.VideoRoomStats { return nil }
func (g *gallery) Preview(context.Context, string, int) ([]byte, time.Time, error) {
	return nil, time.Time{}, nil
}
func (g *gallery) OpenLeg(_, leg string, rtp, rtcp *net.UDPConn) error {
	if rtp == nil {
		return nil
	}
	return g.OpenVideo(leg, rtp, rtcp)
}
func (g *gallery) Tap(string, *tap.Tap) {}

func (g *gallery) OpenVideo(leg string, rtp, rtcp *net.UDPConn) error {
	g.socks[leg] = []*net.UDPConn{rtp, rtcp}
	return nil
}
func (g *gallery) CloseVideo(leg string) *mediapb.StreamStats {
	s := g.LegStats(leg)
	for _, c := range g.socks[leg] {
		c.Close()
	}
	delete(g.socks, leg)
	return s
}
func (g *gallery) CloseLeg(leg string) *mediapb.StreamStats { return g.CloseVideo(leg) }
func (g *gallery) LegStats(leg string) *mediapb.StreamStats {
	if g.socks[leg] == nil {
		return nil
	}
	s := &mediapb.StreamStats{RxPackets: 10, TxPackets: 20}
	if g.heard != nil {
		s.LastRx = g.heard()
	}
	return s
}

// A leg's video ports come and go in the call; what its streams carried is not forgotten.
func TestVideoPortsComeAndGo(t *testing.T) {
	g := &gallery{socks: map[string][]*net.UDPConn{}}
	a := newAir(t, Options{Pictures: func(PictureDeps) (Pictures, error) { return g, nil }})
	a.set(&mediapb.Conference{Id: "c", Video: true})
	a.join("c", "x", pcma, 0)
	ctx := t.Context()
	if _, err := a.e.OpenVideo(ctx, "nobody"); status.Code(err) != codes.NotFound {
		t.Errorf("video for nobody: %v", err)
	}
	if err := a.e.CloseVideo(ctx, "nobody"); err != nil {
		t.Errorf("none to close: %v", err)
	}
	for round := range uint64(3) {
		first, err := a.e.OpenVideo(ctx, "x")
		if err != nil || first.VideoPort == 0 || first.VideoPort%2 != 0 || first.Sprop != "sets" {
			t.Fatalf("%v, %v", first, err)
		}
		if again, err := a.e.OpenVideo(ctx, "x"); err != nil || again.VideoPort != first.VideoPort {
			t.Errorf("asked again: %v, %v", again, err)
		}
		if n := a.stats("x").Video.GetRxPackets(); n != 10*(round+1) {
			t.Errorf("round %d: %d packets in all", round, n)
		}
		if err := a.e.CloseVideo(ctx, "x"); err != nil || len(g.socks) != 0 {
			t.Errorf("%v, %d pairs are open", err, len(g.socks))
		}
		if n := a.stats("x").Video.GetTxPackets(); n != 20*(round+1) {
			t.Errorf("round %d, closed: %d packets in all", round, n)
		}
	}
	if s, err := a.e.CloseLeg(ctx, "x"); err != nil || s.Video.GetTxPackets() != 60 {
		t.Errorf("last figures %v, %v", s.GetVideo(), err)
	}
	if _, err := a.e.OpenVideo(ctx, "x"); status.Code(err) != codes.NotFound {
		t.Errorf("video for a leg that is gone: %v", err)
	}
}
