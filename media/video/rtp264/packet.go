package rtp264

import "fmt"

// MaxPayload is the largest RTP payload that we send: room for IPv6, GTP and ESP
// headers below 1400 octets (IMS.md §5.2).
const MaxPayload = 1200

// Packetizer cuts access units into RTP payloads. Mode 0 sends single NAL units
// only; mode 1 puts the parameter sets into one STAP-A and cuts what is too large
// into FU-A. It keeps its buffers and is not safe for concurrent use.
type Packetizer struct {
	Mode       int // packetization-mode: 0 or 1
	MaxPayload int // 0: MaxPayload
	buf        []byte
	nals       [][]byte
}

// ErrTooLarge is returned for a NAL unit that mode 0 cannot carry: it is larger than one
// payload may be.
var ErrTooLarge = fmt.Errorf("rtp264: NAL unit too large for packetization-mode 0")

// MaxSlice is what an encoder for mode 0 is given as the limit of a slice, whose size it
// only guesses: openh264 was seen to make one of 1224 octets with a limit of 1200.
const MaxSlice = MaxPayload - 50

// Packetize calls send for each payload of the access unit (Annex B), in order;
// last is true for the one that carries the marker bit. The payload is valid inside
// the call only. It stops at the first error, send's or ErrTooLarge.
func (p *Packetizer) Packetize(annexB []byte, send func(payload []byte, last bool) error) error {
	limit := p.MaxPayload
	if limit <= 0 {
		limit = MaxPayload
	}
	p.nals = p.nals[:0]
	Split(annexB, func(nal []byte) bool {
		if nal[0]&0x1f != TypeAUD {
			p.nals = append(p.nals, nal)
		}
		return true
	})
	for i := 0; i < len(p.nals); i++ {
		nal := p.nals[i]
		if p.Mode == 1 && isSet(nal) {
			if n := p.aggregate(i, limit); n > 1 {
				if err := send(p.buf, i+n == len(p.nals)); err != nil {
					return err
				}
				i += n - 1
				continue
			}
		}
		last := i == len(p.nals)-1
		switch {
		case len(nal) <= limit:
			if err := send(nal, last); err != nil {
				return err
			}
		case p.Mode == 0:
			return fmt.Errorf("%w: %d octets", ErrTooLarge, len(nal))
		default:
			if err := p.fragment(nal, limit, last, send); err != nil {
				return err
			}
		}
	}
	return nil
}

func isSet(nal []byte) bool { t := nal[0] & 0x1f; return t == TypeSPS || t == TypePPS }

// aggregate puts the parameter sets from index i on into one STAP-A in p.buf and
// says how many they were.
func (p *Packetizer) aggregate(i, limit int) int {
	p.buf = append(p.buf[:0], typeSTAPA)
	n, nri := 0, byte(0)
	for _, nal := range p.nals[i:] {
		if !isSet(nal) || len(p.buf)+2+len(nal) > limit {
			break
		}
		p.buf = append(append(p.buf, byte(len(nal)>>8), byte(len(nal))), nal...)
		nri = max(nri, nal[0]&0x60)
		n++
	}
	p.buf[0] |= nri
	return n
}

// fragment sends a NAL unit as FU-A, in pieces of nearly equal size so that the
// last is no crumb.
func (p *Packetizer) fragment(nal []byte, limit int, last bool, send func([]byte, bool) error) error {
	body := nal[1:]
	pieces := (len(body) + limit - 3) / (limit - 2)
	for k := range pieces {
		from, to := k*len(body)/pieces, (k+1)*len(body)/pieces
		head := nal[0] & 0x1f
		if k == 0 {
			head |= 0x80
		}
		if k == pieces-1 {
			head |= 0x40
		}
		p.buf = append(append(p.buf[:0], nal[0]&0xe0|typeFUA, head), body[from:to]...)
		if err := send(p.buf, last && k == pieces-1); err != nil {
			return err
		}
	}
	return nil
}
