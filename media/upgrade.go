package media

import (
	"context"
	"net"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sparkle/media/mediapb"
	"sparkle/media/port"
)

// Video that comes and goes in a call: the ports of a leg follow what is negotiated.

// videoPair opens a pair and makes connections of it for the video side.
func (e *Engine) videoPair(ip netip.Addr) (*port.Pair, *net.UDPConn, *net.UDPConn, error) {
	pair, err := e.pool.OpenPair(ip)
	if err != nil {
		return nil, nil, nil, err
	}
	rtp, rtcp, err := pair.Conns()
	if err != nil {
		pair.Close()
		return nil, nil, nil, err
	}
	return pair, rtp, rtcp, nil
}

// OpenVideo implements API.
func (e *Engine) OpenVideo(_ context.Context, id string) (*mediapb.OpenLegReply, error) {
	if e.pictures == nil {
		return nil, invalid("video", "this engine has no video")
	}
	le := e.findLeg(id)
	if le == nil {
		return nil, status.Errorf(codes.NotFound, "media: no leg %q", id)
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.closed {
		return nil, status.Errorf(codes.NotFound, "media: no leg %q", id)
	}
	if le.vid == nil {
		pair, rtp, rtcp, err := e.videoPair(le.pair.IP)
		if err != nil {
			return nil, portError(err)
		}
		if err := e.pictures.OpenVideo(id, rtp, rtcp); err != nil {
			pair.Close()
			return nil, status.Errorf(codes.Unavailable, "media: video: %v", err)
		}
		le.vid = pair
	}
	return &mediapb.OpenLegReply{AudioPort: uint32(le.pair.Port), VideoPort: uint32(le.vid.Port), Sprop: e.pictures.Sprop()}, nil
}

// CloseVideo implements API.
func (e *Engine) CloseVideo(_ context.Context, id string) error {
	le := e.findLeg(id)
	if le == nil {
		return nil
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.closed || le.vid == nil {
		return nil
	}
	seen := addUp(e.pictures.CloseVideo(id), le.seen)
	le.vid.Close()
	le.vid = nil
	e.mu.Lock()
	le.seen = seen
	e.mu.Unlock()
	return nil
}

// video is a leg's video statistics with those of its streams before.
func (e *Engine) video(le *legEntry, now *mediapb.StreamStats) *mediapb.StreamStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return addUp(now, le.seen)
}

// addUp is s, the newer, with what was counted before it.
func addUp(s, before *mediapb.StreamStats) *mediapb.StreamStats {
	switch {
	case before == nil:
		return s
	case s == nil:
		return proto.Clone(before).(*mediapb.StreamStats)
	}
	s.RxPackets += before.RxPackets
	s.RxBytes += before.RxBytes
	s.RxLost += before.RxLost
	s.RxStranger += before.RxStranger
	s.TxPackets += before.TxPackets
	s.TxBytes += before.TxBytes
	return s
}
