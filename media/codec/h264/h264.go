// Package h264 decodes and encodes H.264 for phones: Constrained Baseline out,
// anything that Constrained Baseline decoders meet in.
//
// Decoding is libavcodec's, linked dynamically: it is the fastest here and puts
// out concealed pictures when slices are lost. Encoding is openh264's, loaded at
// run time (dlopen, RTLD_LOCAL|RTLD_DEEPBIND) and not linked: the lab's handsets
// bring a statically linked, older openh264 into the same binary and the symbols
// of the two must not mix. A missing library is an error of NewEncoder and Probe.
//
// An access unit is one picture in Annex B form: NAL units, each behind a start
// code. Nothing here checks a stream's declared size before the decoder sees it:
// package rtp264 does. Decode untrusted streams in a sandboxed process only.
package h264

import (
	"errors"
	"fmt"
	"strconv"
)

// ErrUnavailable says that this build or this machine lacks the codec.
var ErrUnavailable = errors.New("h264: codec not available")

// ErrStream says that an access unit could not be decoded. The decoder can go on
// with the next one; a key frame mends it.
var ErrStream = errors.New("h264: broken stream")

// MaxWidth and MaxHeight bound the pictures that a Decoder puts out.
const (
	MaxWidth  = 1920
	MaxHeight = 1088
)

// MaxUnit bounds the octets of one access unit given to a Decoder.
const MaxUnit = 4 << 20

// Params is what an encoder is made for.
type Params struct {
	Width, Height int // luma samples, even, 16..1920 x 16..1088
	FPS           int // 1..30
	BitrateBps    int // target, and close to the ceiling over a second
	// ProfileLevelID as in SDP (RFC 6184 §8.1), six hex digits; "" is 42c01f. Only
	// its level counts: what comes out is always Constrained Baseline.
	ProfileLevelID string
	// MaxSlice bounds the octets of one NAL unit so that it fits a single packet
	// (packetization-mode 0); 0: one slice per picture.
	MaxSlice int
}

// Level is level_idc times ten as the standard's names have it (12 is level 1.2),
// and 9 for level 1b.
type Level int

// levels are Table A-1's limits: macroblocks per second and frame, kbit/s.
var levels = []struct {
	level          Level
	mbps, fs, kbps int
}{
	{10, 1485, 99, 64}, {9, 1485, 99, 128}, {11, 3000, 396, 192}, {12, 6000, 396, 384},
	{13, 11880, 396, 768}, {20, 11880, 396, 2000}, {21, 19800, 792, 4000}, {22, 20250, 1620, 4000},
	{30, 40500, 1620, 10000}, {31, 108000, 3600, 14000}, {32, 216000, 5120, 20000},
	{40, 245760, 8192, 20000}, {41, 245760, 8192, 50000}, {42, 522240, 8704, 50000},
	{50, 589824, 22080, 135000}, {51, 983040, 36864, 240000}, {52, 2073600, 36864, 240000},
}

// ParseLevel reads the level of a profile-level-id. Level 1b is 0x0b with
// constraint_set3_flag in the Baseline and Main profiles.
func ParseLevel(profileLevelID string) (Level, error) {
	if profileLevelID == "" {
		return 31, nil
	}
	v, err := strconv.ParseUint(profileLevelID, 16, 32)
	if err != nil || len(profileLevelID) != 6 {
		return 0, fmt.Errorf("h264: profile-level-id %q is not six hex digits", profileLevelID)
	}
	level := Level(v & 0xff)
	if level == 11 && v>>8&0x10 != 0 {
		level = 9
	}
	for _, l := range levels {
		if l.level == level {
			return level, nil
		}
	}
	return 0, fmt.Errorf("h264: profile-level-id %q has no known level", profileLevelID)
}

// Fit returns p with frame rate and bit rate lowered to what its level allows, or
// an error when the level cannot carry the picture size at all (Table A-1).
func Fit(p Params) (Params, error) {
	level, err := ParseLevel(p.ProfileLevelID)
	if err != nil {
		return p, err
	}
	if p.Width < 16 || p.Height < 16 || p.Width > MaxWidth || p.Height > MaxHeight || p.Width%2 != 0 || p.Height%2 != 0 {
		return p, fmt.Errorf("h264: cannot encode %dx%d", p.Width, p.Height)
	}
	mbs := ((p.Width + 15) / 16) * ((p.Height + 15) / 16)
	for _, l := range levels {
		if l.level != level {
			continue
		}
		if mbs > l.fs {
			return p, fmt.Errorf("h264: %dx%d is too large for %q", p.Width, p.Height, p.ProfileLevelID)
		}
		p.FPS = min(max(p.FPS, 1), 30, max(1, l.mbps/mbs))
		p.BitrateBps = min(max(p.BitrateBps, 32_000), l.kbps*1000)
	}
	return p, nil
}

// ceiling is the most that the rate may rise to: a quarter above the target, but
// never above the level's limit, else the encoder declares a higher level.
func ceiling(bps int, level Level) int {
	for _, l := range levels {
		if l.level == level {
			return min(bps+bps/4, l.kbps*1000)
		}
	}
	return bps
}
