//go:build cgo

package amr

/*
#cgo pkg-config: opencore-amrwb opencore-amrnb vo-amrwbenc
#cgo noescape E_IF_encode
#cgo nocallback E_IF_encode
#cgo noescape D_IF_decode
#cgo nocallback D_IF_decode
#cgo noescape Encoder_Interface_Encode
#cgo nocallback Encoder_Interface_Encode
#cgo noescape Decoder_Interface_Decode
#cgo nocallback Decoder_Interface_Decode
#include <opencore-amrwb/dec_if.h>
#include <vo-amrwbenc/enc_if.h>
#include <opencore-amrnb/interf_dec.h>
#include <opencore-amrnb/interf_enc.h>
*/
import "C"

import (
	"errors"
	"unsafe"
)

// Available says whether this build has the codecs.
const Available = true

// Encoder has the state of one outgoing stream. It is not safe for concurrent use.
type Encoder struct {
	wide  bool
	dtx   C.int
	state unsafe.Pointer
	in    [320]int16 // AMR's encoder writes into its input, so it gets a copy
	out   [64]byte
}

// NewEncoder makes an encoder. With dtx it sends SID and NoData frames in silence.
func NewEncoder(wide, dtx bool) (*Encoder, error) {
	e := &Encoder{wide: wide}
	if dtx {
		e.dtx = 1
	}
	if wide {
		e.state = C.E_IF_init()
	} else {
		e.state = C.Encoder_Interface_init(e.dtx)
	}
	if e.state == nil {
		return nil, errors.New("amr: no memory for an encoder")
	}
	return e, nil
}

// Encode encodes one frame of pcm, FrameSamples long, at a speech mode and puts its bits
// into dst (at least MaxBytes). A frame of type NoData is not to be sent. A wrong length
// or mode gives NoData: the caller's bug must not become the phone's noise.
func (e *Encoder) Encode(mode int, pcm []int16, dst []byte) Frame {
	if e.state == nil || len(pcm) != FrameSamples(e.wide) || mode < 0 || mode > TopMode(e.wide) || len(dst) < MaxBytes {
		return Frame{Type: NoData}
	}
	copy(e.in[:], pcm)
	var n C.int
	if e.wide {
		n = C.E_IF_encode(e.state, C.int(mode), (*C.short)(&e.in[0]), (*C.uchar)(&e.out[0]), e.dtx)
	} else {
		n = C.Encoder_Interface_Encode(e.state, C.enum_Mode(mode), (*C.short)(&e.in[0]), (*C.uchar)(&e.out[0]), 0)
	}
	if n < 1 || int(n) > len(e.out) {
		return Frame{Type: NoData}
	}
	ft := e.out[0] >> 3 & 15
	size := Bytes(e.wide, ft)
	if size <= 0 || size > int(n)-1 {
		return Frame{Type: NoData}
	}
	copy(dst, e.out[1:1+size])
	return Frame{Type: ft, Bits: dst[:size]}
}

// Close frees the encoder; it may be called twice.
func (e *Encoder) Close() {
	if e.state == nil {
		return
	}
	if e.wide {
		C.E_IF_exit(e.state)
	} else {
		C.Encoder_Interface_exit(e.state)
	}
	e.state = nil
}

type decoder struct{ state unsafe.Pointer }

func (d *decoder) open(wide bool) error {
	if wide {
		d.state = C.D_IF_init()
	} else {
		d.state = C.Decoder_Interface_init()
	}
	if d.state == nil {
		return errors.New("amr: no memory for a decoder")
	}
	return nil
}

// run decodes in, which begins with the table-of-contents octet and is as long as the
// longest frame; bad asks for the codec's own concealment.
func (d *decoder) run(wide bool, in *[64]byte, pcm []int16, bad bool) {
	if d.state == nil {
		clear(pcm)
		return
	}
	bfi := C.int(0)
	if bad {
		bfi = 1
	}
	if wide {
		C.D_IF_decode(d.state, (*C.uchar)(&in[0]), (*C.short)(&pcm[0]), bfi)
	} else {
		C.Decoder_Interface_Decode(d.state, (*C.uchar)(&in[0]), (*C.short)(&pcm[0]), bfi)
	}
}

func (d *decoder) close(wide bool) {
	if d.state == nil {
		return
	}
	if wide {
		C.D_IF_exit(d.state)
	} else {
		C.Decoder_Interface_exit(d.state)
	}
	d.state = nil
}
