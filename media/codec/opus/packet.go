package opus

import "errors"

// ErrPacket is for octets that are no Opus packet (RFC 6716 §3.4), or one we do not take.
var ErrPacket = errors.New("opus: malformed packet")

const (
	maxFrames = 48   // RFC 6716 §3.2.5: 120 ms of frames of 2.5
	maxFrame  = 1275 // octets of a frame
)

// ticksOf is how long one frame of a packet lasts, in ticks of 48 kHz, by its TOC octet
// (RFC 6716 §3.1, table 2).
func ticksOf(toc byte) int {
	switch config := toc >> 3; {
	case config < 12: // SILK
		return [...]int{480, 960, 1920, 2880}[config&3]
	case config < 16: // hybrid
		return 480 << (config & 1)
	default: // CELT
		return 120 << (config & 3)
	}
}

// Active says whether a packet has sound that may be a voice: SILK and hybrid frames begin
// with a voice activity flag that the sender's own detector set (RFC 6716 §4.2.3), one for
// every 20 ms. CELT frames have none, and are called active. Of a packet of several frames
// only the first is looked at.
func Active(packet []byte) bool {
	if len(packet) <= QuietBytes {
		return false
	}
	toc := packet[0]
	if toc>>3 >= 16 || toc&3 != 0 {
		return true
	}
	flags := max(ticksOf(toc)/FrameTicks, 1)
	for i := range flags { // the first bits of the range coder, each of even odds, are plain bits
		if packet[1]&(0x80>>i) != 0 {
			return true
		}
	}
	if toc&4 == 0 {
		return false
	}
	side := packet[1] << (flags + 1) // past the middle's FEC flag
	return side>>(8-flags) != 0
}

// HasFEC says whether a packet of one frame has the frame before it once more (RFC 6716
// §4.2.3): Decoder.Recover makes something of that.
func HasFEC(packet []byte) bool {
	if len(packet) <= QuietBytes || packet[0]>>3 >= 16 || packet[0]&3 != 0 {
		return false
	}
	return packet[1]&(0x80>>max(ticksOf(packet[0])/FrameTicks, 1)) != 0
}

// Long says how many frames of 20 ms there are in a packet of one frame: 1, 2 or 3.
func Long(packet []byte) int {
	if len(packet) == 0 {
		return 1
	}
	return max(ticksOf(packet[0])/FrameTicks, 1)
}

// Framer cuts the packets of a stream, of 2.5 to 120 ms, into packets of 20 ms, and joins
// shorter ones to such, without decoding any. Frames of 40 and 60 ms, which SILK has, stay
// whole. The zero value is ready; it is not safe for concurrent use.
type Framer struct {
	frames [maxFrames][]byte // of the packet at hand
	n      int

	// What is put together: frames of the same TOC shorter than 20 ms.
	toc  byte
	ts   uint32 // of the first
	have int    // so many frames
	lens [8]int
	data [MaxBytes]byte
	size int
	out  [MaxBytes]byte
}

// Check says whether Each will take a packet.
func (f *Framer) Check(packet []byte) error { return f.parse(packet) }

// take reads a packet stamped ts.
func (f *Framer) take(packet []byte, ts uint32) error {
	f.n = 0
	if err := f.parse(packet); err != nil {
		return err
	}
	toc := packet[0] &^ 3
	ticks := ticksOf(toc)
	// Not the next of what there is a part of: that part is lost.
	if f.have > 0 && (toc != f.toc || ts != f.ts+uint32(f.have*ticks)) {
		f.have = 0
	}
	if f.have == 0 {
		f.toc, f.ts, f.size = toc, ts, 0
	}
	return nil
}

// Frame is a packet with one frame of 20 ms or more, or several that last 20 ms.
type Frame struct {
	Timestamp uint32
	Packet    []byte // valid until the next call
}

// Each calls yield with what of a packet, stamped ts, and those before it is complete, in
// order. An error means that the packet is not to be used.
func (f *Framer) Each(packet []byte, ts uint32, yield func(Frame)) error {
	if err := f.take(packet, ts); err != nil {
		return err
	}
	ticks := ticksOf(f.toc)
	if f.n == 1 && ticks >= FrameTicks { // nearly always
		yield(Frame{ts, packet})
		return nil
	}
	for _, b := range f.frames[:f.n] {
		if ticks >= FrameTicks {
			f.out[0] = f.toc
			yield(Frame{ts, f.out[:1+copy(f.out[1:], b)]})
			ts += uint32(ticks)
			continue
		}
		if f.have == 0 {
			f.ts, f.size = ts, 0
		}
		if f.size+len(b) > MaxBytes-2-2*len(f.lens) {
			f.have = 0
			return ErrPacket
		}
		f.lens[f.have] = len(b)
		f.size += copy(f.data[f.size:], b)
		f.have++
		ts += uint32(ticks)
		if f.have*ticks == FrameTicks {
			yield(Frame{f.ts, f.join()})
			f.have = 0
		}
	}
	return nil
}

// join writes what is put together as one packet of the kind that says every length
// (RFC 6716 §3.2.5, code 3 with VBR).
func (f *Framer) join() []byte {
	f.out[0] = f.toc | 3
	f.out[1] = 0x80 | byte(f.have)
	at := 2
	for _, n := range f.lens[:f.have-1] {
		if n < 252 {
			f.out[at] = byte(n)
			at++
			continue
		}
		f.out[at] = byte(252 + n&3)
		f.out[at+1] = byte((n - 252 - n&3) / 4)
		at += 2
	}
	return f.out[:at+copy(f.out[at:], f.data[:f.size])]
}

// parse finds the frames of a packet (RFC 6716 §3.2). It takes none that lasts more than
// 120 ms, or of which 20 ms are more than MaxBytes.
func (f *Framer) parse(p []byte) error {
	if len(p) < 1 {
		return ErrPacket
	}
	b := p[1:]
	switch p[0] & 3 {
	case 0:
		f.frames[0], f.n = b, 1
	case 1:
		if len(b)%2 != 0 {
			return ErrPacket
		}
		f.frames[0], f.frames[1], f.n = b[:len(b)/2], b[len(b)/2:], 2
	case 2:
		n, rest, ok := length(b)
		if !ok || n > len(rest) {
			return ErrPacket
		}
		f.frames[0], f.frames[1], f.n = rest[:n], rest[n:], 2
	default:
		if err := f.many(b); err != nil {
			return err
		}
	}
	ticks := ticksOf(p[0])
	if f.n*ticks > 120*48 {
		return ErrPacket
	}
	per := max(FrameTicks/ticks, 1) // frames of one 20 ms
	for i := 0; i < f.n; i += per {
		size := 2 + 2*per
		for _, b := range f.frames[i:min(i+per, f.n)] {
			if len(b) > maxFrame {
				return ErrPacket
			}
			size += len(b)
		}
		if size > MaxBytes {
			return ErrPacket
		}
	}
	return nil
}

// many reads code 3: any number of frames, of one size or each of its own.
func (f *Framer) many(b []byte) error {
	if len(b) < 1 {
		return ErrPacket
	}
	head, b := b[0], b[1:]
	n := int(head & 0x3f)
	if n == 0 || n > maxFrames {
		return ErrPacket
	}
	if head&0x40 != 0 { // padding at the end
		pad := 0
		for {
			if len(b) == 0 {
				return ErrPacket
			}
			v := int(b[0])
			b = b[1:]
			if v < 255 {
				pad += v
				break
			}
			pad += 254
		}
		if pad > len(b) {
			return ErrPacket
		}
		b = b[:len(b)-pad]
	}
	if head&0x80 == 0 {
		if len(b)%n != 0 {
			return ErrPacket
		}
		for i := range n {
			f.frames[i] = b[i*len(b)/n : (i+1)*len(b)/n]
		}
		f.n = n
		return nil
	}
	var lens [maxFrames]int
	for i := range n - 1 {
		size, rest, ok := length(b)
		if !ok {
			return ErrPacket
		}
		lens[i], b = size, rest
	}
	for i := range n - 1 {
		if lens[i] > len(b) {
			return ErrPacket
		}
		f.frames[i], b = b[:lens[i]], b[lens[i]:]
	}
	f.frames[n-1], f.n = b, n
	return nil
}

// length reads the length of a frame, of one octet or two (RFC 6716 §3.2.1).
func length(b []byte) (n int, rest []byte, ok bool) {
	switch {
	case len(b) < 1:
		return 0, nil, false
	case b[0] < 252:
		return int(b[0]), b[1:], true
	case len(b) < 2:
		return 0, nil, false
	}
	return int(b[0]) + 4*int(b[1]), b[2:], true
}
