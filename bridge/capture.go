package bridge

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
)

// MediaPacket is one RTP or RTCP datagram of a leg. Data may be shorter than Length.
type MediaPacket struct {
	At            time.Time
	Sent, RTCP    bool
	Local, Remote netip.AddrPort
	Length        int
	Data          []byte
}

// CaptureMedia calls f with a leg's packets, some at a time, until ctx ends or the leg does,
// and then returns how many could not be copied in time. Without payload of RTP there are
// the headers only; with it what was said can be heard. Either is audited. One capture of a leg
// at a time.
func (b *Bridge) CaptureMedia(ctx context.Context, a Actor, leg string, payload bool, f func([]MediaPacket)) (lost uint64, err error) {
	v, ok := b.legRoom.Load(leg)
	if !ok || !mine(a, v.(*room).owner) {
		return 0, &Error{Kind: Missing, Code: "leg_not_found", Detail: "there is no such live leg: only those can be captured"}
	}
	action := "leg.capture"
	if payload {
		action = "leg.capture_payload"
	}
	defer func() { b.audit(a, action, leg, err) }()
	err = b.media.Capture(ctx, &mediapb.CaptureRequest{Leg: leg, Payload: payload}, func(c *mediapb.Captured) {
		lost = c.Lost
		packets := make([]MediaPacket, 0, len(c.Packets))
		for _, p := range c.Packets {
			local, err := netip.ParseAddrPort(p.Local)
			if err != nil {
				continue
			}
			remote, err := netip.ParseAddrPort(p.Remote)
			if err != nil {
				continue // to a peer that has no address yet
			}
			packets = append(packets, MediaPacket{At: time.Unix(0, p.At), Sent: p.Sent, RTCP: p.Rtcp,
				Local: local, Remote: remote, Length: int(p.Length), Data: p.Data})
		}
		f(packets)
	})
	switch status.Code(err) {
	case codes.OK:
		return lost, nil
	case codes.AlreadyExists:
		return lost, &Error{Kind: Conflict, Code: "capture_running", Detail: "the leg is being captured by somebody else"}
	case codes.NotFound:
		return lost, &Error{Kind: Missing, Code: "leg_not_found", Detail: "the leg has ended"}
	}
	return lost, &Error{Kind: Unavailable, Code: "media_down", Detail: "the media service cannot capture now"}
}
