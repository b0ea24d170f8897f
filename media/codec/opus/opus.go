// Package opus encodes and decodes Opus speech (RFC 6716), mono, 20 ms a frame at 16 kHz,
// with Debian's libopus, and takes its packets apart without it.
//
// The wrapper is our own and thin, as amr's is: hraban/opus, which could be had, wants
// libopusfile too or a build tag that everybody would have to know of, and hides the
// in-band FEC of a 16 kHz decoder behind allocations. The library is asked for 16 kHz, the
// mix's rate: whatever bandwidth a packet has, it comes out at that rate and in mono, and
// costs half of what 48 kHz would.
package opus

import (
	"errors"
	"fmt"
)

const (
	// FrameSamples are 20 ms at 16 kHz.
	FrameSamples = 320
	// FrameTicks are 20 ms of the RTP clock, which is 48 kHz whatever is sent (RFC 7587 §4.1).
	FrameTicks = 960
	// MaxBytes is the largest packet of 20 ms that is taken: 256 kbit/s. We ask for a tenth
	// of that; the format allows 1275 octets.
	MaxBytes = 640
	// QuietBytes is the size up to which a packet has a header and no sound: the sender has
	// gone silent (DTX).
	QuietBytes = 2
)

// Bitrate is what we send where the peer sets no limit, bit/s: wideband speech with
// room for FEC (RFC 7587 §3.1.1 has 16 to 20 kbit/s without).
const Bitrate = 24000

// Bandwidth is the highest audio band that is encoded.
type Bandwidth uint8

// The bands that 16 kHz has (RFC 6716 §2): up to 8, 6 and 4 kHz.
const (
	Wide Bandwidth = iota
	Medium
	Narrow
)

// Params are what an encoder is made for. The zero value is wideband at Bitrate.
type Params struct {
	DTX        bool // sends nothing in silence but a frame every 400 ms
	FEC        bool // every frame has the one before it once more, coarser
	Band       Bandwidth
	BitrateBps int // 0: Bitrate; else 6000 to Bitrate
}

func (p Params) validate() error {
	if p.BitrateBps != 0 && (p.BitrateBps < 6000 || p.BitrateBps > Bitrate) {
		return fmt.Errorf("opus: %d bit/s, want 6000 to %d", p.BitrateBps, Bitrate)
	}
	if p.Band > Narrow {
		return errors.New("opus: no such bandwidth")
	}
	return nil
}
