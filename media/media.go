// Package media is the engine: legs' streams in, mixes out. In 3GPP words it is
// the MRFP; the bridge (MRFC) tells it what is wanted with plain data (package
// mediapb) and hears what happened. The same Engine runs inside a test and, as
// `sparkle media`, in a process of its own.
//
// # The loop
//
// An audio worker is one locked thread. It sleeps until its next tick, by an absolute
// schedule, or until a command comes; then, every 20 ms, in one straight pass:
//
//	sockets ──> epoll, io_uring ──> source check ──> parse, unpack ──> jitter buffer
//	                                                                       │ pull: one frame a leg
//	    ┌── comfort noise, nothing: no further <───────────────────────────┤
//	    │                                          level, before decoding  │
//	    │      choose: the loudest few who talk <──────────────────────────┘
//	    │      route: what each leg is sent, the cheapest that will do
//	    │        ├─ hears nobody ─────────────> silence, made once for all
//	    │        ├─ hears one it can take ────> that one's frames, untouched
//	    │        ├─ hears what all hear ──────> one encode of the mix for all of a kind
//	    │        └─ hears something of its own> its own encode
//	    └────> pack once per format ──> header ──> io_uring: a tick's packets in one call
//
// Who talks is decided from the frames themselves: comfort noise is silence, AMR-WB has its
// gains (amr.Loudness), G.711 its samples, Opus its sender's own judgement. A leg is decoded only while it is heard in a
// mix, and for a frame now and then to check the estimate; its last three frames are kept,
// so that a decoder that is needed after all starts as if it had heard them: anew, if it had
// not heard those before. An encoder
// that takes over from another, or from frames passed on, is primed with what its
// listeners heard last: see route.go for where that may happen.
//
// While nobody is heard, everybody hears how quiet it is where the last one who was heard is, as
// his comfort noise tells (room.hiss): made beforehand in steps of 3 dB, not decoded, and encoded
// for nobody but G.722.
//
// Whatever ends, fades: a leg that is removed, a stream that breaks off or changes its codec or
// its source is heard for one tick more, in which what it said last goes on and ramps down
// (room.end). A whisper turns the same way.
//
// The pass takes no lock, makes no garbage and writes no log. Encoders, decoders, jitter
// buffers and sockets are made by the caller of SetLeg and OpenLeg (plan) and only
// swapped in by the worker. A conference lives on one worker.
//
// # Where each microsecond goes
//
// Of a leg that listens in a large conference, per tick: 3 to 4 µs are the kernel's, to
// send one packet (most of that the receiver's half, on loopback); some 0.5 µs are ours: the
// look at its jitter buffer, the choice, copying 60 octets and a header. A leg that sends
// costs 1.4 µs more to receive and 0.5 to parse, buffer and judge. A decode is 25 to 35 µs,
// an encode 135 to 160 (AMR-WB, MEDIA.md §1; Opus takes half, G.722 a tenth of that): so three talkers who talk at once cost 3
// decodes and 4 encodes, and one talker none at all where all have his codec.
//
// # Who owns what
//
// A worker owns its rooms, their legs, coders, meters and socket reads; Engine's maps
// (mutex) say which leg is where; a legEntry's mutex puts commands on one leg in order; the
// reporter goroutine turns notes and levels into events; each subscriber owns its list of
// events; the video side (Pictures) has its own sockets and goroutines and never runs on a
// worker.
//
// What is bounded, and what happens when it is full:
//
//	inbox        256 commands   the caller waits, at most a tick
//	notes        1024           dropped, counted in events_lost: the reporter is stuck
//	events       256 Levels, 65,536 others per reader: oldest Levels go; then the
//	             reader is cut off with RESOURCE_EXHAUSTED
//	socket       what a tick does not take (65 packets) waits in the kernel, which drops
//	receives     256 sockets in one call; more are read by the next, at once
//	sends        1024 in one call; more go in the next, at once
//	jitter       640 ms; later packets replace the schedule (package jitter)
//	a late tick  is counted; ticks missed altogether are skipped, not caught up
//
// Where io_uring is not allowed, sockets are read with recvmmsg and written to one by one.
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
	// Capture calls f with copies of a leg's packets until ctx ends, then returns nil, or the
	// leg is closed or gone.
	Capture(ctx context.Context, r *mediapb.CaptureRequest, f func(*mediapb.Captured)) error
	// Events calls f, in order, for everything that happens until ctx ends or the
	// engine is gone; it then returns why.
	Events(ctx context.Context, f func(*mediapb.Event)) error
}
