//go:build !cgo

package opus

import "errors"

// Available says whether this build has the codec.
const Available = false

var errNoCgo = errors.New("opus: this build has no Opus (it was built without cgo)")

// Encoder has the state of one outgoing stream.
type Encoder struct{}

// NewEncoder fails: this build has no Opus.
func NewEncoder(Params) (*Encoder, error) { return nil, errNoCgo }

// Encode gives nothing to send.
func (*Encoder) Encode(pcm []int16, dst []byte) int { return 0 }

// Close does nothing.
func (*Encoder) Close() {}

type decoder struct{}

func (*decoder) open() error                                  { return errNoCgo }
func (*decoder) run(packet []byte, pcm []int16, fec bool) int { return -1 }
func (*decoder) close()                                       {}
