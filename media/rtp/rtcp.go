package rtp

import (
	"encoding/binary"
	"math"
	"time"
)

// RTCP packet types (RFC 3550 §12.1, RFC 4585 §6.1).
const (
	TypeSR   = 200
	TypeRR   = 201
	TypeSDES = 202
	TypeBYE  = 203
	TypeRTPF = 205
	TypePSFB = 206
)

// NTP is a wall-clock time as RTCP writes it.
func NTP(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// Wall is the wall-clock time that RTCP writes as ntp, in nanoseconds since the Unix epoch.
func Wall(ntp uint64) int64 {
	const since1900 = 2208988800
	return (int64(ntp>>32)-since1900)*1e9 + int64(ntp&0xffffffff*1e9>>32)
}

// Share is the part of RTCP's bandwidth, in bit/s, that one of the two ends of a call may
// use: rs and rr are b=RS and b=RR (RFC 3556). A sender has RS and a receiver RR for
// himself, unless senders are more of the members than RS is of the sum: then all share
// the sum (RFC 3556 §2, RFC 3550 §6.3.1).
func Share(rs, rr uint32, sends, peerSends bool) uint32 {
	senders := uint32(0)
	for _, s := range []bool{sends, peerSends} {
		if s {
			senders++
		}
	}
	switch sum := uint64(rs) + uint64(rr); {
	case uint64(senders)*sum > 2*uint64(rs):
		return uint32(sum / 2)
	case sends:
		return rs / senders
	default:
		return rr / (2 - senders)
	}
}

// Interval is the time to the next regular report: what bps bit/s pay for reports of so
// many octets with headers, 0 if that is not known; not more often than every 1.5 s, or
// than least (trr-int, RFC 4585 §3.4), and at least every 5 s whatever was said, so that
// the far end knows that we live (IMS.md §5.4). spread is random in 0..1: many legs must
// not report in step.
func Interval(bps uint32, octets int, least time.Duration, spread float64) time.Duration {
	wait := 2500 * time.Millisecond
	if bps > 0 {
		wait = time.Duration(float64(octets*8) / float64(bps) * float64(time.Second))
	}
	wait = min(max(wait, 1500*time.Millisecond, least), 5*time.Second)
	return time.Duration(float64(wait) * (0.8 + 0.2*spread))
}

// Sender is what a sender report says of our own stream.
type Sender struct {
	SSRC      uint32
	Timestamp uint32 // RTP time of now
	Packets   uint32
	Octets    uint32 // of payload
}

// ReportSize is room enough for PutReport.
const ReportSize = 28 + 24 + 8 + 2 + 64 + 4

// PutReport writes a compound packet into b (at least ReportSize): SR, or RR while
// nothing was sent, about src if anything came from it, and the CNAME, at most 64
// octets. It returns the length.
func PutReport(b []byte, me Sender, src *Source, cname string, now time.Time, at time.Duration) int {
	n := 8
	b[1] = TypeRR
	if me.Packets > 0 {
		b[1] = TypeSR
		binary.BigEndian.PutUint64(b[8:], NTP(now))
		binary.BigEndian.PutUint32(b[16:], me.Timestamp)
		binary.BigEndian.PutUint32(b[20:], me.Packets)
		binary.BigEndian.PutUint32(b[24:], me.Octets)
		n = 28
	}
	b[0] = 0x80
	binary.BigEndian.PutUint32(b[4:], me.SSRC)
	if src != nil && src.valid {
		b[0] |= 1
		n += src.putBlock(b[n:], at)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n/4-1))
	return n + putCNAME(b[n:], me.SSRC, cname)
}

func (s *Source) putBlock(b []byte, at time.Duration) int {
	expected := s.expected()
	fraction := share(expected-s.expectedPrior, s.Received-s.receivedPrior)
	s.expectedPrior, s.receivedPrior = expected, s.Received
	binary.BigEndian.PutUint32(b, s.SSRC)
	lost := uint32(min(s.lost(), 0x7fffff))
	binary.BigEndian.PutUint32(b[4:], min(uint32(fraction*256), 255)<<24|lost)
	binary.BigEndian.PutUint32(b[8:], s.cycles+uint32(s.maxSeq))
	binary.BigEndian.PutUint32(b[12:], uint32(s.jitter))
	var lsr, dlsr uint32
	if s.haveSR {
		lsr, dlsr = s.lastSR, uint32((at-s.lastSRAt)*65536/time.Second)
	}
	binary.BigEndian.PutUint32(b[16:], lsr)
	binary.BigEndian.PutUint32(b[20:], dlsr)
	return 24
}

func putCNAME(b []byte, ssrc uint32, cname string) int {
	cname = cname[:min(len(cname), 64)]
	n := 10 + len(cname)
	n += 4 - n%4 // at least one zero ends the items
	clear(b[:n])
	b[0], b[1] = 0x81, TypeSDES
	binary.BigEndian.PutUint16(b[2:], uint16(n/4-1))
	binary.BigEndian.PutUint32(b[4:], ssrc)
	b[8], b[9] = 1, byte(len(cname))
	copy(b[10:], cname)
	return n
}

// PutBye writes a BYE into b and returns the length. It has to follow a report in the
// same datagram (RFC 3550 §6.1).
func PutBye(b []byte, ssrc uint32) int {
	b[0], b[1], b[2], b[3] = 0x81, TypeBYE, 0, 1
	binary.BigEndian.PutUint32(b[4:], ssrc)
	return 8
}

// Block is a report about a stream of ours.
type Block struct {
	SSRC     uint32  // of our stream
	Fraction float64 // lost since the last report, 0..1
	Lost     uint32
	Jitter   uint32 // clock ticks
	LSR      uint32
	DLSR     uint32
}

// Report is one packet of a compound.
type Report struct {
	Type      uint8
	Count     uint8 // RC, SC or FMT
	SSRC      uint32
	NTP       uint64 // SR: when it was made
	Timestamp uint32 // SR: the RTP time of the same instant
	Body      []byte // after the header
	Blocks    []byte // of SR and RR, 24 octets each
}

// Next takes the first packet off a compound datagram (RFC 3550 §6.1); ok is false when
// nothing valid is left. Each step consumes at least four octets, so a loop ends.
func Next(b []byte) (r Report, rest []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 2 || b[1] < 192 || b[1] > 223 {
		return r, nil, false
	}
	n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
	if n > len(b) {
		return r, nil, false
	}
	r.Type, r.Count, r.Body = b[1], b[0]&0x1f, b[4:n]
	if len(r.Body) >= 4 {
		r.SSRC = binary.BigEndian.Uint32(r.Body)
	}
	at := 4
	if r.Type == TypeSR {
		if at = 24; len(r.Body) < at {
			return r, nil, false
		}
		r.NTP = binary.BigEndian.Uint64(r.Body[4:])
		r.Timestamp = binary.BigEndian.Uint32(r.Body[12:])
	}
	if r.Type == TypeSR || r.Type == TypeRR {
		if len(r.Body) < at+24*int(r.Count) {
			return r, nil, false
		}
		r.Blocks = r.Body[at : at+24*int(r.Count)]
	}
	return r, b[n:], true
}

// Block gives the i-th of len(Blocks)/24.
func (r Report) Block(i int) Block {
	b := r.Blocks[24*i : 24*i+24]
	word := binary.BigEndian.Uint32(b[4:])
	return Block{
		SSRC: binary.BigEndian.Uint32(b), Fraction: float64(word>>24) / 256, Lost: word & 0xffffff,
		Jitter: binary.BigEndian.Uint32(b[12:]), LSR: binary.BigEndian.Uint32(b[16:]), DLSR: binary.BigEndian.Uint32(b[20:]),
	}
}

// RTT is the round trip that a block proves (RFC 3550 §6.4.1), false without an SR of ours.
func (b Block) RTT(now time.Time) (time.Duration, bool) {
	if b.LSR == 0 {
		return 0, false
	}
	d := uint32(NTP(now)>>16) - b.LSR - b.DLSR
	if d > 60<<16 { // negative or absurd: clocks were set
		return 0, false
	}
	return time.Duration(d) * time.Second / 65536, true
}

// MOS estimates listening quality by the E-model (ITU-T G.107, wideband G.107.1 with its
// R of up to 129): loss is 0..1 after concealment, delay one way. Codec impairment is that
// of AMR-WB 12.65 or better, AMR 12.2, or G.711 with concealment. A model, no measurement.
func MOS(wide bool, loss float64, delay time.Duration) float64 {
	r, ie, bpl := 93.2, 5.0, 10.0
	if wide {
		r, ie, bpl = 129.0, 9.0, 13.0
	}
	ms := float64(delay) / float64(time.Millisecond)
	r -= 0.024 * ms
	if ms > 177.3 {
		r -= 0.11 * (ms - 177.3)
	}
	top := 95.0
	if wide {
		top = 130
	}
	r -= ie + (top-ie)*100*loss/(100*loss+bpl)
	if wide {
		r *= 100.0 / 129
	}
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return math.Min(math.Max(1+0.035*r+r*(r-60)*(100-r)*7e-6, 1), 4.5)
}
