package phone

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/pion/rtcp"

	"sparkle/sip/sdp"
)

// sender counts what was sent, for SR. Its owner is the goroutine that sends.
type sender struct {
	ssrc    uint32
	packets uint32
	octets  uint32
	cname   string
}

func newSender(ssrc uint32) sender {
	return sender{ssrc: ssrc, cname: strconv.FormatUint(rand.Uint64(), 36)} // no host name in it
}

func (s *sender) count(octets int) { s.packets++; s.octets += uint32(octets) }

// receiver keeps what RR says of the peer's stream (RFC 3550 A.3, A.8). Its owner guards
// it by a mutex.
type receiver struct {
	known            bool
	ssrc             uint32
	base, high       uint32 // extended sequence numbers
	got              uint32
	lastGot, lastExp uint32
	jitter           float64
	transit          float64
}

// packet accounts for one packet and says whether a new stream begins with it.
func (r *receiver) packet(ssrc uint32, seq uint16, ts uint32, rateHz int) (fresh bool) {
	now := time.Since(start).Seconds() * float64(rateHz)
	if !r.known || r.ssrc != ssrc {
		fresh = r.known
		*r = receiver{known: true, ssrc: ssrc, base: uint32(seq) + 1<<16, high: uint32(seq) + 1<<16, got: 1, transit: now - float64(ts)}
		return fresh
	}
	ext := r.high&^0xffff | uint32(seq)
	switch d := int32(ext - r.high); {
	case d < -0x8000:
		ext += 1 << 16
	case d > 0x8000:
		ext -= 1 << 16
	}
	if int32(ext-r.high) > 0 {
		r.high = ext
	}
	r.got++
	d := now - float64(ts) - r.transit
	r.transit += d
	if d < 0 {
		d = -d
	}
	if d < float64(10*rateHz) { // a wrapped or jumping timestamp is no jitter
		r.jitter += (d - r.jitter) / 16
	}
	return false
}

func (r *receiver) report() []rtcp.ReceptionReport {
	if !r.known {
		return nil
	}
	expected := r.high - r.base + 1
	lost := max(int64(expected)-int64(r.got), 0)
	exp, got := expected-r.lastExp, r.got-r.lastGot
	r.lastExp, r.lastGot = expected, r.got
	var fraction uint8
	if exp > got {
		fraction = uint8(min(255, (exp-got)*256/exp))
	}
	return []rtcp.ReceptionReport{{SSRC: r.ssrc, FractionLost: fraction, TotalLost: uint32(min(lost, 0x7fffff)),
		LastSequenceNumber: r.high, Jitter: uint32(r.jitter)}}
}

// ntp is an instant in NTP's 32.32 format.
func ntp(t time.Time) uint64 {
	return (uint64(t.Unix())+2208988800)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// compound is SR, or RR while nothing was sent, with SDES.
func compound(now time.Time, s *sender, ts uint32, reports []rtcp.ReceptionReport) ([]byte, error) {
	var first rtcp.Packet = &rtcp.ReceiverReport{SSRC: s.ssrc, Reports: reports}
	if s.packets > 0 {
		first = &rtcp.SenderReport{SSRC: s.ssrc, NTPTime: ntp(now), RTPTime: ts, PacketCount: s.packets, OctetCount: s.octets, Reports: reports}
	}
	return rtcp.Marshal([]rtcp.Packet{first, rtcp.NewCNAMESourceDescription(s.ssrc, s.cname)})
}

// report sends the audio stream's RTCP.
func (s *audioStream) report(now time.Time) {
	a := s.p.agree.Load().audio
	if a == nil || a.RTCPOff() {
		return
	}
	s.mu.Lock()
	reports := s.recv.report()
	s.mu.Unlock()
	if b, err := compound(now, &s.rtcp, s.head.Timestamp, reports); err == nil {
		s.p.send(1, b)
	}
}

// control takes the audio stream's RTCP: it only has to be well-formed.
func (s *audioStream) control(b []byte) {
	if _, err := rtcp.Unmarshal(b); err != nil {
		s.p.stats.refused.Add(1)
	}
}

// control takes the video stream's RTCP: PLI and FIR make a key frame.
func (v *videoStream) control(b []byte) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		v.p.stats.refused.Add(1)
		return
	}
	for _, pk := range packets {
		switch pk := pk.(type) {
		case *rtcp.PictureLossIndication:
			v.requested()
		case *rtcp.FullIntraRequest:
			for _, e := range pk.FIR {
				// One request is repeated with its number until it is met (RFC 5104 §4.3.1).
				if n := int32(e.SequenceNumber) + 1; e.SSRC == v.head.SSRC && v.firSeen.Swap(n) != n {
					v.requested()
				}
			}
		}
	}
}

func (v *videoStream) requested() {
	v.p.stats.keyRequests.Add(1)
	v.wantKey.Store(true)
}

// ask sends a request for a key frame: PLI, or FIR where only that was agreed.
func (v *videoStream) ask(agreed *sdp.Video, media uint32) {
	if !agreed.AVPF || agreed.RTCPOff() || !agreed.PLI && !agreed.FIR {
		return // the peer sends one every few seconds unasked
	}
	var pk rtcp.Packet = &rtcp.PictureLossIndication{SenderSSRC: v.head.SSRC, MediaSSRC: media}
	if !agreed.PLI {
		v.firSent++
		pk = &rtcp.FullIntraRequest{SenderSSRC: v.head.SSRC, FIR: []rtcp.FIREntry{{SSRC: media, SequenceNumber: v.firSent}}}
	}
	b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: v.head.SSRC}, pk})
	if err == nil && v.p.send(3, b) {
		v.p.stats.keyAsked.Add(1)
	}
}
