//go:build cgo

package g722

/*
#cgo pkg-config: spandsp
#cgo noescape g722_encode
#cgo nocallback g722_encode
#cgo noescape g722_decode
#cgo nocallback g722_decode
#include <stdint.h>
#include <spandsp/telephony.h>
#include <spandsp/g722.h>
#include <spandsp/private/g722.h> // for the size of an encoder's state
*/
import "C"

import "errors"

// Available says whether this build has the codec.
const Available = true

const rate = 64000

// Encoder has the state of one outgoing stream. It is not safe for concurrent use.
type Encoder struct{ state *C.g722_encode_state_t }

// NewEncoder makes an encoder.
func NewEncoder() (*Encoder, error) {
	e := &Encoder{state: C.g722_encode_init(nil, rate, 0)}
	if e.state == nil {
		return nil, errors.New("g722: no memory for an encoder")
	}
	return e, nil
}

// Encode encodes FrameSamples of pcm into dst, at least FrameBytes, and returns the octets:
// 0 for a wrong length.
func (e *Encoder) Encode(pcm []int16, dst []byte) int {
	if e.state == nil || len(pcm) != FrameSamples || len(dst) < FrameBytes {
		return 0
	}
	return int(C.g722_encode(e.state, (*C.uint8_t)(&dst[0]), (*C.int16_t)(&pcm[0]), FrameSamples))
}

// Copy makes e go on where o is.
func (e *Encoder) Copy(o *Encoder) {
	if e.state != nil && o.state != nil {
		*e.state = *o.state
	}
}

// Close frees the encoder; it may be called twice.
func (e *Encoder) Close() {
	if e.state != nil {
		C.g722_encode_free(e.state)
		e.state = nil
	}
}

type decoder struct{ state *C.g722_decode_state_t }

func (d *decoder) open() error {
	if d.state = C.g722_decode_init(nil, rate, 0); d.state == nil {
		return errors.New("g722: no memory for a decoder")
	}
	return nil
}

// run decodes FrameBytes octets into FrameSamples of pcm.
func (d *decoder) run(octets []byte, pcm []int16) bool {
	if d.state == nil {
		return false
	}
	return C.g722_decode(d.state, (*C.int16_t)(&pcm[0]), (*C.uint8_t)(&octets[0]), FrameBytes) == FrameSamples
}

func (d *decoder) close() {
	if d.state != nil {
		C.g722_decode_free(d.state)
		d.state = nil
	}
}
