// Package load puts a media engine under a load that is known to the frame, and says
// what that costs: simulated phones that speak RTP but no SIP, driven by one thread.
//
//	generator thread, every 2 ms (a phase): ┌ sendmmsg: the frames of that phase's legs ─→ engine
//	                                        └ recvmmsg: what the engine sent to another phase ←─
//
// The phones of a conference are spread over ten phases of 2 ms, as real phones are not
// in step with each other either; within its phase each sends every 20 ms by an absolute
// deadline. The legs of one phase share a socket and are told apart by the engine's
// port. Payloads are encoded once, beforehand: the generator costs a few microseconds a
// packet and allocates nothing while it runs.
//
// What is measured, and how:
//
//   - missing: frames that a leg should have been sent and was not. A step of more than
//     one frame in the RTP timestamp after a speech frame is missing frames (a skipped
//     tick makes these); after comfort noise it is silence, unless the sequence number
//     jumps too. A leg that hears nothing at all misses everything.
//   - late: frames that arrived more than 20 ms after the leg's schedule, which is the
//     earliest arrival so far carried on by RTP timestamps.
//   - delay: from the instant before the system call that sends a talker's first packet
//     after silence, to the kernel's receive timestamp (SO_TIMESTAMPNS) of the first
//     frame of speech, and a loud one, that a listener in his conference gets. It holds the jitter buffer, the wait for the
//     tick, talk detection, mixing, encoding and sending; not the codecs' look-ahead nor
//     the packetisation in the phones. Talkers of all phases take turns, so the phase
//     between phone and tick, which is luck, is sampled evenly.
//   - CPU: the process's CPU clock (ns), system time included. On loopback the kernel
//     delivers a packet within the sender's system call, so the engine pays for the
//     receiving side's softirq as well; with a network card it would pay the driver.
//   - memory: growth of the engine's resident set from before the first leg.
package load

import (
	"errors"
	"fmt"
	"time"

	"sparkle/media"
)

// Options is audio conferences under load.
type Options struct {
	API media.API
	// PID is the engine's process, for its CPU time and memory; 0 is this process.
	PID  int
	Legs int // 2..MaxLegs
	// Talkers speak at once, and every Turn the next ones; the others are in DTX or,
	// where the codec has none, send silence. 0..Legs.
	// Of each conference.
	Talkers int
	// Room is how many legs share a conference; 0: all are in one. Legs is a multiple.
	Room int
	// Always has phones that do not talk send frames of quiet noise, not comfort noise.
	// Codecs without DTX do that anyway.
	Always bool
	// Joining is how many of Legs, the last, join while it is counted; the others are judged.
	Joining int
	Turn    time.Duration // 0: 2 s
	Codec   Codec
	Warm    time.Duration // before anything is counted; 0: 1.5 s
	Window  time.Duration // counted; 0: 6 s
	// Onsets is how often speech after silence is timed, one each half second, after the
	// window. 0: not at all.
	Onsets int
	// Realtime asks for SCHED_FIFO for the generator's thread, below the engine's; that
	// it is refused is no error.
	Realtime bool
	// Pinned keeps the generator's thread on a core.
	Pinned bool
	Core   int
	// Conference is the id to use, numbered where there are several; "": "load".
	Conference string
}

// MaxLegs that one generator drives.
const MaxLegs = 4000

// Validate reports every fault.
func (o Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("load: "+format, args...)) }
	if o.API == nil {
		bad("no engine")
	}
	if o.PID < 0 {
		bad("pid %d", o.PID)
	}
	if o.Legs < 2 || o.Legs > MaxLegs {
		bad("%d legs, want 2..%d", o.Legs, MaxLegs)
	}
	if o.Room < 0 || o.Room == 1 || o.Room > 0 && o.Legs%o.Room != 0 {
		bad("%d legs do not fill conferences of %d", o.Legs, o.Room)
	}
	if o.Talkers < 0 || o.Talkers > o.Legs || o.Room > 0 && o.Talkers > o.Room {
		bad("%d talkers of %d legs in conferences of %d", o.Talkers, o.Legs, o.Room)
	}
	if o.Joining < 0 || o.Joining > 0 && o.Joining > o.Legs-2 {
		bad("%d of %d legs join", o.Joining, o.Legs)
	}
	if err := o.Codec.validate(); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"turn", o.Turn}, {"warm", o.Warm}, {"window", o.Window}} {
		if d.d != 0 && (d.d < frameTime || d.d > time.Hour) {
			bad("%s %v, want %v..1h", d.name, d.d, frameTime)
		}
	}
	if o.Onsets < 0 || o.Onsets > 10000 {
		bad("%d onsets", o.Onsets)
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Turn, 2*time.Second)
	set(&o.Warm, 1500*time.Millisecond)
	set(&o.Window, 6*time.Second)
	if o.Conference == "" {
		o.Conference = "load"
	}
	if o.Room == 0 {
		o.Room = o.Legs
	}
	return o
}

// Result is what came of it. Durations are wall clock.
type Result struct {
	Window time.Duration // that was counted
	// Frames that arrived in the window at all legs, Missing that should have, Late that
	// arrived too late to be played on time, Lost is the part of Missing that the network
	// lost (sequence numbers), Reordered came behind a later one.
	Frames, Missing, Late, Lost, Reordered uint64
	// Spread is how much later than its leg's schedule a frame arrived.
	Spread Histogram
	// Delay from onset to first speech frame, one per onset and listener. Onsets that a
	// listener was not quiet for are not timed; Unheard were never answered.
	Delay   Histogram
	Onsets  int
	Unheard uint64

	CPU      time.Duration // of the engine's process in the window
	RSSBase  int64         // octets, before the first leg
	RSSAfter int64
	Engine   EngineDelta

	// The generator's own: how late it ran, what it cost, what it dropped itself.
	GenLate     Histogram
	GenCPU      time.Duration
	GenRefused  uint64 // packets that the kernel would not take
	GenOverflow uint64 // packets that did not fit into our receive buffers: they are in Missing, but are not the engine's fault
	GenRealtime bool
	Sent        uint64 // packets, in the window
	RTCP        uint64 // packets that came, in all
}

// EngineDelta is the engine's own account: counters of the window, lateness since it
// started.
type EngineDelta struct {
	Ticks, LateTicks, SkippedTicks                   uint64
	Encodes, Decodes, SharedEncodes                  uint64
	LateP50ms, LateP99ms, LateMaxms                  float64
	Realtime                                         bool
	RxLost, RxLate, RxDropped, RxStranger, TxRefused uint64 // of all legs, since they opened
}

// frameTime is the length of every codec's frame here.
const frameTime = 20 * time.Millisecond
