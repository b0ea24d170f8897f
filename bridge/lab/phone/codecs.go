package phone

import (
	"sparkle/media/codec/amr"
	"sparkle/media/codec/g722"
	"sparkle/media/codec/opus"
)

// encoders is the one that a format needs; G.711 needs none.
type encoders struct {
	amr  *amr.Encoder
	opus *opus.Encoder
	g722 *g722.Encoder
}

func newEncoders(f format) (e encoders, err error) {
	switch {
	case f.amr:
		e.amr, err = amr.NewEncoder(f.wire.Wide, true)
	case f.opus:
		e.opus, err = opus.NewEncoder(f.send)
	case f.g722:
		e.g722, err = g722.NewEncoder()
	}
	return e, err
}

func (e *encoders) close() {
	if e.amr != nil {
		e.amr.Close()
	}
	if e.opus != nil {
		e.opus.Close()
	}
	if e.g722 != nil {
		e.g722.Close()
	}
	*e = encoders{}
}

// decoders is the one that a format needs.
type decoders struct {
	amr  *amr.Decoder
	opus *opus.Decoder
	g722 *g722.Decoder
}

func newDecoders(f format) (d decoders, err error) {
	switch {
	case f.amr:
		d.amr, err = amr.NewDecoder(f.wire.Wide)
	case f.opus:
		d.opus, err = opus.NewDecoder()
	case f.g722:
		d.g722, err = g722.NewDecoder()
	}
	return d, err
}

func (d *decoders) close() {
	if d.amr != nil {
		d.amr.Close()
	}
	if d.opus != nil {
		d.opus.Close()
	}
	if d.g722 != nil {
		d.g722.Close()
	}
	*d = decoders{}
}
