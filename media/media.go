// Package media is the engine: legs' streams in, mixes out. In 3GPP words it is
// the MRFP; the bridge (MRFC) tells it what is wanted with plain data (package
// mediapb) and hears what happened. The same Engine runs inside a test and, as
// `sparkle media`, in a process of its own.
package media

import (
	"context"

	"sparkle/media/mediapb"
)

// API is what a bridge needs of an engine; *Engine has it directly, *Client has it
// over gRPC on a Unix socket. Errors are gRPC status errors in both cases. See
// media.proto for what each call promises.
type API interface {
	SetConference(context.Context, *mediapb.Conference) error
	CloseConference(ctx context.Context, id string) error
	OpenLeg(context.Context, *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error)
	SetLeg(context.Context, *mediapb.Leg) error
	CloseLeg(ctx context.Context, id string) (*mediapb.LegStats, error)
	Preview(ctx context.Context, conference string, quality int) (*mediapb.PreviewReply, error)
	Snapshot(context.Context) (*mediapb.SnapshotReply, error)
	// Events calls f, in order, for everything that happens until ctx ends or the
	// engine is gone; it then returns why.
	Events(ctx context.Context, f func(*mediapb.Event)) error
}
