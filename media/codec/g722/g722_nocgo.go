//go:build !cgo

package g722

import "errors"

// Available says whether this build has the codec.
const Available = false

var errNoCgo = errors.New("g722: this build has no G.722 (it was built without cgo)")

// Encoder has the state of one outgoing stream.
type Encoder struct{}

// NewEncoder fails: this build has no G.722.
func NewEncoder() (*Encoder, error) { return nil, errNoCgo }

// Encode gives nothing to send.
func (*Encoder) Encode(pcm []int16, dst []byte) int { return 0 }

// Copy does nothing.
func (*Encoder) Copy(*Encoder) {}

// Close does nothing.
func (*Encoder) Close() {}

type decoder struct{}

func (*decoder) open() error                         { return errNoCgo }
func (*decoder) run(octets []byte, pcm []int16) bool { return false }
func (*decoder) close()                              {}
