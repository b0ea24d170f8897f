// Package video is the video side of the media engine: it receives the members'
// H.264, has a video process decode it, draw everybody into one mosaic and encode
// that once per tier, and sends the result to each leg in his own RTP stream.
//
//	phone ─RTP→ leg: source check → reorder → access units ─→ outbox ═╗ socket pair
//	                                                                  ║ (package wire)
//	phone ←RTP─ leg: packetise ← tier's legs ← child reader ←═════════╝ video process:
//	                                                                    decode, compose, encode
//
// In the switched layout a talker's access units go from his leg to the others' as they are
// (switched.go); the video process only sees them for the mosaic of those who cannot take them.
//
// Who owns what. A Plane's mutex guards who is in which conference and tier; a leg's mutex
// guards its streams, and no two legs' are held at once; the outbox's mutex guards what waits
// for the video process. They are taken in this order, and no I/O but a UDP send happens under
// any. Goroutines: two readers per leg with sockets, one beat (RTCP, retries, stalls), one
// supervisor with a reader and a writer per life of the video process. Close ends them all
// and waits.
//
// The video process is one for all conferences of this engine. It may die or hang
// at any moment: nothing here waits for it. What it should know is kept here and
// told to its successor, with a key frame asked of every source.
package video

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"sparkle/media/mediapb"
)

// Options is what a Plane needs.
type Options struct {
	// Command starts the video process: the executable and its arguments, as
	// ["/proc/self/exe", "video"]. It is not looked at when InProcess is set.
	Command []string
	// InProcess runs the worker in this process, over a pipe: for unit tests only, as
	// a broken stream can then end us.
	InProcess bool
	// FPS is how often the mosaic is composed per second, 1..30; 0: 15.
	FPS int
	// Fonts are the font files to try for name plates; nil: Debian's CJK fonts.
	Fonts []string
	// MemoryBytes bounds the address space that a video process may take beyond what
	// it has when it starts; 0: 2 GiB.
	MemoryBytes uint64
	// Watchdog is how long a video process may be silent before it is killed; 0: 2 s.
	Watchdog time.Duration
	// Stall is how long a source may send nothing before it is reported; 0: 10 s.
	Stall time.Duration
	// Emit gets the events, in no promised order across legs. It must not block or
	// call back. Nil: nobody wants them.
	Emit func(*mediapb.Event)
	// Log may be nil.
	Log *slog.Logger
}

// Validate names every fault of the options.
func (o *Options) Validate() error {
	var errs []error
	if !o.InProcess && len(o.Command) == 0 {
		errs = append(errs, errors.New("video.command: missing"))
	}
	if o.FPS < 0 || o.FPS > 30 {
		errs = append(errs, fmt.Errorf("video.fps: %d is not 1 to 30", o.FPS))
	}
	if o.MemoryBytes != 0 && o.MemoryBytes < 256<<20 {
		errs = append(errs, fmt.Errorf("video.memory: %d octets are too few, at least 256 MiB", o.MemoryBytes))
	}
	if o.Watchdog < 0 || o.Watchdog > 0 && o.Watchdog < 200*time.Millisecond {
		errs = append(errs, fmt.Errorf("video.watchdog: %v is below 200 ms", o.Watchdog))
	}
	if o.Stall < 0 {
		errs = append(errs, fmt.Errorf("video.stall: %v is negative", o.Stall))
	}
	return errors.Join(errs...)
}

func (o *Options) defaults() {
	if o.FPS == 0 {
		o.FPS = 15
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 2 << 30
	}
	if o.Watchdog == 0 {
		o.Watchdog = 2 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = 10 * time.Second
	}
	if o.Emit == nil {
		o.Emit = func(*mediapb.Event) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Sockets are a leg's video sockets, bound; the Plane closes them. The zero value is
// a leg without video.
type Sockets struct{ RTP, RTCP *net.UDPConn }

var (
	// ErrUnknown says that there is no such conference or leg.
	ErrUnknown = errors.New("video: unknown conference or leg")
	// ErrInvalid names a field of a leg's video stream that cannot be used.
	ErrInvalid = errors.New("video: invalid stream")
	// ErrDown says that no video process answers right now.
	ErrDown = errors.New("video: no video process")
	// ErrClosed says that the Plane is closed.
	ErrClosed = errors.New("video: closed")
)
