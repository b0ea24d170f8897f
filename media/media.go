// Package media is the engine: legs' streams in, mixes out. In 3GPP words it is
// the MRFP; the bridge (MRFC) tells it what is wanted with plain data (package
// mediapb) and hears what happened. The same Engine runs inside a test and, as
// `sparkle media`, in a process of its own.
//
// An audio worker is one locked thread with an absolute schedule:
//
//	every 5 ms  epoll → recvmmsg → source check → parse → unpack → jitter buffer
//	            commands from the inbox (SetLeg, OpenLeg, …)
//	every 20 ms each conference in one straight pass:
//	            pull → decode who speaks → choose talkers → mix → encode → pack → send
//
// The pass takes no lock, makes no garbage and writes no log. Encoders, decoders,
// jitter buffers and sockets are made by the caller of SetLeg and OpenLeg (plan) and
// only swapped in by the worker. Who hears the same in the same codec and mode shares
// one encode (group); talkers, whisperers and their targets have their own encoder,
// primed with what they heard last.
//
// Who owns what: a worker owns its rooms, their legs, coders, meters and socket reads;
// Engine's maps (mutex) say which leg is where; a legEntry's mutex puts commands on one
// leg in order; the reporter goroutine turns notes and levels into events; each
// subscriber owns its list of events; the video side (Pictures) has its own sockets and
// goroutines and never runs on a worker.
//
// What is bounded, and what happens when it is full:
//
//	inbox        256 commands   the caller waits, at most a beat (5 ms)
//	notes        1024           dropped, counted in events_lost: the reporter is stuck
//	events       256 Levels, 65,536 others per reader: oldest Levels go; then the
//	             reader is cut off with RESOURCE_EXHAUSTED
//	socket       what a beat does not take (64 packets) waits in the kernel, which drops
//	jitter       640 ms; later packets replace the schedule (package jitter)
//	a late tick  is counted; ticks missed altogether are skipped, not caught up
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
	OpenVideo(ctx context.Context, leg string) (*mediapb.OpenLegReply, error)
	CloseVideo(ctx context.Context, leg string) error
	CloseLeg(ctx context.Context, id string) (*mediapb.LegStats, error)
	Play(context.Context, *mediapb.PlayRequest) error
	Preview(ctx context.Context, conference string, quality int) (*mediapb.PreviewReply, error)
	Snapshot(context.Context) (*mediapb.SnapshotReply, error)
	// Events calls f, in order, for everything that happens until ctx ends or the
	// engine is gone; it then returns why.
	Events(ctx context.Context, f func(*mediapb.Event)) error
}
