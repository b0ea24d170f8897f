package media

import (
	"context"
	"log/slog"
	"net"
	"time"

	"sparkle/media/mediapb"
	"sparkle/media/tap"
)

// Pictures is the video side of an engine. Its methods may be called from anywhere,
// do not block on a video process, and never run on an audio worker.
type Pictures interface {
	// SetConference says whether a conference has a picture, and whether that is the talker's own
	// where a phone can take it, else the mosaic.
	SetConference(id string, on, switched bool)
	CloseConference(id string)
	// OpenLeg announces a leg; rtp and rtcp are nil for a voice leg, which is drawn as
	// an avatar. The callee owns and closes them, also when it returns an error.
	OpenLeg(conference, leg string, rtp, rtcp *net.UDPConn) error
	// OpenVideo gives sockets to a leg that has none; it owns them like OpenLeg. CloseVideo
	// takes a leg's sockets away: it is a voice leg again. The last statistics; nil: it was.
	OpenVideo(leg string, rtp, rtcp *net.UDPConn) error
	CloseVideo(leg string) *mediapb.StreamStats
	// SetLeg gives the whole wanted state. An error names what cannot be used; then
	// nothing has changed.
	SetLeg(leg string, l *mediapb.Leg) error
	// CloseLeg answers with the last statistics; nil for a voice leg.
	CloseLeg(leg string) *mediapb.StreamStats
	// Tap has copies of a leg's packets go to t; nil: no longer.
	Tap(leg string, t *tap.Tap)
	// Talking says who talks now.
	Talking(conference string, legs []string)
	// Heard says how long after its phone's wall clock, as its sender reports have it, a leg's
	// sound is heard by ours, so that its pictures can wait for it; 0: that is not known.
	Heard(leg string, lag time.Duration)
	// Preview is what the phones see, as JPEG, and when it was composed.
	Preview(ctx context.Context, conference string, quality int) ([]byte, time.Time, error)
	// LegStats is nil for a voice leg, RoomStats for a conference without video.
	LegStats(leg string) *mediapb.StreamStats
	RoomStats(conference string) *mediapb.VideoRoomStats
	// Sprop is sprop-parameter-sets of what is sent, "" if not known.
	Sprop() string
	Close()
}

// PictureDeps is what an engine gives to its video side.
type PictureDeps struct {
	Emit func(*mediapb.Event) // never blocks
	Log  *slog.Logger
}
