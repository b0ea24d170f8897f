//go:build !cgo

package amr

import "errors"

// Available says whether this build has the codecs.
const Available = false

var errNoCgo = errors.New("amr: this build has no AMR codecs (it was built without cgo)")

// Encoder has the state of one outgoing stream.
type Encoder struct{}

// NewEncoder fails: this build has no AMR.
func NewEncoder(wide, dtx bool) (*Encoder, error) { return nil, errNoCgo }

// Encode gives nothing to send.
func (*Encoder) Encode(mode int, pcm []int16, dst []byte) Frame { return Frame{Type: NoData} }

// Close does nothing.
func (*Encoder) Close() {}

type decoder struct{}

func (*decoder) open(wide bool) error                               { return errNoCgo }
func (*decoder) run(wide bool, in *[64]byte, pcm []int16, bad bool) { clear(pcm) }
func (*decoder) close(wide bool)                                    {}
