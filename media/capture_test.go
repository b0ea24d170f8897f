package media

import (
	"context"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

// What a leg sends and receives is copied, both ways, RTP by its headers and RTCP whole,
// until nobody wants it or the leg is closed.
func TestCapture(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x := a.join("c", "x", pcmu, 440)
	a.join("c", "y", pcmu, 700)
	ctx, cancel := context.WithCancel(t.Context())
	var got []*mediapb.CapturedPacket
	done := make(chan error, 1)
	begin := func(payload bool) {
		t.Helper()
		got = nil
		go func() {
			done <- a.e.Capture(ctx, &mediapb.CaptureRequest{Leg: "x", Payload: payload}, func(c *mediapb.Captured) { got = append(got, c.Packets...) })
		}()
		le := a.e.findLeg("x")
		deadline := time.Now().Add(10 * time.Second)
		for {
			le.mu.Lock()
			on := le.tapped != nil && le.leg.Load().tap != nil
			le.mu.Unlock()
			if on {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the capture does not begin")
			}
			runtime.Gosched()
		}
	}
	begin(false)
	if err := a.e.Capture(t.Context(), &mediapb.CaptureRequest{Leg: "x"}, nil); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second capture of one leg: %v", err)
	}
	if err := a.e.Capture(t.Context(), &mediapb.CaptureRequest{Leg: "nobody"}, nil); status.Code(err) != codes.NotFound {
		t.Errorf("a capture of no leg: %v", err)
	}
	a.run(3 * time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	count := map[[2]bool]int{}
	for _, p := range got {
		count[[2]bool{p.Sent, p.Rtcp}]++
		if !p.Rtcp && (len(p.Data) != rtp.HeaderSize || p.Length != rtp.HeaderSize+160) {
			t.Fatalf("%d of %d octets of RTP were kept", len(p.Data), p.Length)
		}
		if p.Rtcp && int(p.Length) != len(p.Data) {
			t.Fatalf("%d of %d octets of RTCP were kept", len(p.Data), p.Length)
		}
		if want := addrOf(x.rtp).String(); !p.Rtcp && p.Remote != want {
			t.Fatalf("a packet with %s, want %s", p.Remote, want)
		}
	}
	if in, out := count[[2]bool{false, false}], count[[2]bool{true, false}]; in < 140 || in > 150 || out < 140 || out > 150 {
		t.Errorf("%d packets received and %d sent in 3 s, want 150 each", in, out)
	}
	if count[[2]bool{true, true}] == 0 {
		t.Error("no RTCP")
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	begin(true)
	a.run(200 * time.Millisecond)
	if _, err := a.e.CloseLeg(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the leg was closed: %v", err)
	}
	if len(got) == 0 || int(got[0].Length) != len(got[0].Data) {
		t.Errorf("%d packets with payload", len(got))
	}
}
