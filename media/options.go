package media

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"sparkle/media/port"
)

// Options is how an engine works. The zero value is complete: ephemeral ports, one
// worker, no real-time priority, no video.
type Options struct {
	// PortMin and PortMax bound the UDP ports of RTP and RTCP, both included. Both 0:
	// ephemeral ports.
	PortMin, PortMax uint16
	// PortQuarantine is how long a port pair rests after a leg; 0 is 10 s.
	PortQuarantine time.Duration
	// MediaTimeout is how long a leg may be without any RTP or RTCP before it is
	// reported dead; 0 is 20 s.
	MediaTimeout time.Duration
	// Workers is the number of audio threads; a conference lives on one of them. 0 is
	// one for every two cores, at least one.
	Workers int
	// Realtime asks the kernel for SCHED_FIFO and locked memory. Refused is not an
	// error: one log line and EngineStats.realtime say so.
	Realtime bool
	// MaxTalkers is how many legs are heard at once in a conference, the loudest win;
	// 0 is 8.
	MaxTalkers int
	// AGC gives each talker a slow gain of his own (mix.AGC). A voice that has one is not
	// passed on as it came but decoded and encoded.
	AGC bool
	// MaxLegs bounds the legs of the engine; 0 is 4000.
	MaxLegs int
	// PlainSockets sends and receives socket by socket also where the kernel has io_uring.
	PlainSockets bool
	// Log is where the engine writes; nil discards.
	Log *slog.Logger
	// Pictures makes the video side; nil: video streams are refused by name.
	Pictures func(PictureDeps) (Pictures, error)
}

// Validate reports every fault.
func (o Options) Validate() error {
	var errs []error
	if err := (port.Options{Min: o.PortMin, Max: o.PortMax, Quarantine: o.PortQuarantine}).Validate(); err != nil {
		errs = append(errs, err)
	}
	if o.MediaTimeout < 0 || o.MediaTimeout > 0 && o.MediaTimeout < time.Second {
		errs = append(errs, fmt.Errorf("media: media timeout %v is below 1 s", o.MediaTimeout))
	}
	if o.Workers < 0 || o.Workers > 256 {
		errs = append(errs, fmt.Errorf("media: %d workers, want 0..256", o.Workers))
	}
	if o.MaxTalkers < 0 || o.MaxTalkers > 64 {
		errs = append(errs, fmt.Errorf("media: %d talkers, want 0..64", o.MaxTalkers))
	}
	if o.MaxLegs < 0 {
		errs = append(errs, fmt.Errorf("media: %d legs", o.MaxLegs))
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.PortQuarantine == 0 {
		o.PortQuarantine = 10 * time.Second
	}
	if o.MediaTimeout == 0 {
		o.MediaTimeout = 20 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = max(1, runtime.NumCPU()/2)
	}
	if o.MaxTalkers == 0 {
		o.MaxTalkers = 8
	}
	if o.MaxLegs == 0 {
		o.MaxLegs = 4000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
