//go:build cgo

package opus

/*
#cgo pkg-config: opus
#cgo noescape opus_encode
#cgo nocallback opus_encode
#cgo noescape opus_decode
#cgo nocallback opus_decode
#include <opus.h>

// opus_encoder_ctl takes any number of arguments, which cgo cannot call.
static int set_up(OpusEncoder *e, int bps, int band, int dtx, int fec, int complexity) {
	int bad = opus_encoder_ctl(e, OPUS_SET_BITRATE(bps));
	bad |= opus_encoder_ctl(e, OPUS_SET_MAX_BANDWIDTH(band));
	bad |= opus_encoder_ctl(e, OPUS_SET_DTX(dtx));
	bad |= opus_encoder_ctl(e, OPUS_SET_INBAND_FEC(fec));
	// The share of loss that FEC is made for; without it none is made.
	bad |= opus_encoder_ctl(e, OPUS_SET_PACKET_LOSS_PERC(fec ? 10 : 0));
	bad |= opus_encoder_ctl(e, OPUS_SET_COMPLEXITY(complexity));
	bad |= opus_encoder_ctl(e, OPUS_SET_SIGNAL(OPUS_SIGNAL_VOICE));
	return bad;
}
*/
import "C"

import (
	"errors"
	"fmt"
)

// Available says whether this build has the codec.
const Available = true

const (
	rateHz = 16000
	// complexity of 0 to 10: at 3 an encode costs half of AMR-WB's, and more is not worth
	// it at 16 kHz (MEDIA.md §2).
	complexity = 3
)

// Encoder has the state of one outgoing stream. It is not safe for concurrent use.
type Encoder struct{ state *C.OpusEncoder }

// NewEncoder makes an encoder.
func NewEncoder(p Params) (*Encoder, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if p.BitrateBps == 0 {
		p.BitrateBps = Bitrate
	}
	var bad C.int
	e := &Encoder{state: C.opus_encoder_create(rateHz, 1, C.OPUS_APPLICATION_VOIP, &bad)}
	if e.state == nil {
		return nil, fmt.Errorf("opus: encoder: error %d", bad)
	}
	band := [...]C.int{C.OPUS_BANDWIDTH_WIDEBAND, C.OPUS_BANDWIDTH_MEDIUMBAND, C.OPUS_BANDWIDTH_NARROWBAND}[p.Band]
	if C.set_up(e.state, C.int(p.BitrateBps), band, flag(p.DTX), flag(p.FEC), complexity) != C.OPUS_OK {
		e.Close()
		return nil, errors.New("opus: the encoder refuses its settings")
	}
	return e, nil
}

func flag(on bool) C.int {
	if on {
		return 1
	}
	return 0
}

// Encode encodes FrameSamples of pcm into dst and returns the octets: at most QuietBytes
// where DTX says that there is nothing to send, and 0 for a wrong length or too small a
// dst: the caller's bug must not become the phone's noise.
func (e *Encoder) Encode(pcm []int16, dst []byte) int {
	if e.state == nil || len(pcm) != FrameSamples || len(dst) < MaxBytes {
		return 0
	}
	return max(0, int(C.opus_encode(e.state, (*C.opus_int16)(&pcm[0]), FrameSamples, (*C.uchar)(&dst[0]), MaxBytes)))
}

// Close frees the encoder; it may be called twice.
func (e *Encoder) Close() {
	if e.state != nil {
		C.opus_encoder_destroy(e.state)
		e.state = nil
	}
}

type decoder struct{ state *C.OpusDecoder }

func (d *decoder) open() error {
	var bad C.int
	if d.state = C.opus_decoder_create(rateHz, 1, &bad); d.state == nil {
		return fmt.Errorf("opus: decoder: error %d", bad)
	}
	return nil
}

// run decodes into pcm and returns the samples that made, negative for a packet that is
// none. An empty packet is a lost one. With fec pcm is filled with what the packet knows
// of the one before it.
func (d *decoder) run(packet []byte, pcm []int16, fec bool) int {
	if d.state == nil {
		return -1
	}
	var p *C.uchar
	if len(packet) > 0 {
		p = (*C.uchar)(&packet[0])
	}
	return int(C.opus_decode(d.state, p, C.opus_int32(len(packet)), (*C.opus_int16)(&pcm[0]), C.int(len(pcm)), flag(fec)))
}

func (d *decoder) close() {
	if d.state != nil {
		C.opus_decoder_destroy(d.state)
		d.state = nil
	}
}
