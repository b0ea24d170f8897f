//go:build !cgo

package h264

import (
	"fmt"

	"sparkle/media/codec/yuv"
)

var errNoCgo = fmt.Errorf("%w: built without cgo", ErrUnavailable)

// Decoder needs cgo; here NewDecoder fails.
type Decoder struct{}

// NewDecoder fails: this build has no cgo.
func NewDecoder() (*Decoder, error) { return nil, errNoCgo }

// Decode fails.
func (*Decoder) Decode([]byte) (*yuv.Image, error) { return nil, errNoCgo }

// Damaged is false.
func (*Decoder) Damaged() bool { return false }

// Swap returns nil.
func (*Decoder) Swap(*yuv.Image) *yuv.Image { return nil }

// Close does nothing.
func (*Decoder) Close() {}

// Encoder needs cgo; here NewEncoder fails.
type Encoder struct{}

// NewEncoder fails: this build has no cgo.
func NewEncoder(Params) (*Encoder, error) { return nil, errNoCgo }

// Encode fails.
func (*Encoder) Encode(*yuv.Image, int64) ([]byte, bool, error) { return nil, false, errNoCgo }

// ForceKeyFrame does nothing.
func (*Encoder) ForceKeyFrame() {}

// SetBitrate fails.
func (*Encoder) SetBitrate(int) error { return errNoCgo }

// Close does nothing.
func (*Encoder) Close() {}

// Probe fails.
func Probe() (string, error) { return "", errNoCgo }
