package media

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"sparkle/media/mediapb"
)

// ntpEpoch is 1900 counted from 1970, in seconds (RFC 3550 §4).
const ntpEpoch = 2208988800

// RTCP packet types (RFC 3550 §12.1).
const (
	rtcpSR   = 200
	rtcpRR   = 201
	rtcpSDES = 202
	rtcpBYE  = 203
	rtcpXR   = 207 // the highest we may meet in a compound
)

// rtcpState is the RTCP of one leg: when to send, and what the peer's reports said.
type rtcpState struct {
	next   int64
	cname  [16]byte
	buf    [128]byte
	lsr    uint32 // middle of the NTP time of the peer's last SR
	lsrAt  int64
	txLoss float32
	rtt    time.Duration
}

func (s *rtcpState) init(now int64) {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	for i := range s.cname { // random per leg: a host name would tell who shares a server (RFC 7022)
		s.cname[i] = letters[rand.IntN(len(letters))]
	}
	s.next = now + int64(time.Second)
}

// interval is the time to the next report: what the peer's b=RS/RR pays for, not more
// often than 1.5 s, and at most 5 s so that the far end knows we live (IMS.md §5.4);
// spread, so that many legs do not report in step.
func (l *leg) interval() int64 {
	wait := 2500 * time.Millisecond
	if bps := l.st.rtcpBps; bps > 0 {
		const bits = (28 + 76) * 8 // UDP/IP and a usual report
		wait = time.Duration(float64(bits) / float64(bps) * float64(time.Second))
	}
	wait = min(max(wait, 1500*time.Millisecond), 4*time.Second)
	return int64(float64(wait) * (0.8 + 0.4*rand.Float64()))
}

// control sends the report that is due.
func (l *leg) control(now int64) {
	if l.st == nil || l.st.rtcpOff || now < l.rtcp.next || !l.st.rtcpTo.IsValid() {
		return
	}
	l.rtcp.next = now + l.interval()
	l.sendReport(now, false)
}

// bye tells the peer that the stream ends.
func (l *leg) bye(now int64) {
	if l.st != nil && !l.st.rtcpOff && l.st.rtcpTo.IsValid() {
		l.sendReport(now, true)
	}
}

// sendReport sends a compound packet: SR or RR, SDES with CNAME, BYE.
func (l *leg) sendReport(now int64, bye bool) {
	b := l.rtcp.buf[:]
	wall := time.Now().UnixNano()
	n := 8
	b[0], b[1] = 0x80, rtcpRR
	binary.BigEndian.PutUint32(b[4:], l.ssrc)
	if l.txCount > 0 {
		b[1] = rtcpSR
		binary.BigEndian.PutUint32(b[8:], uint32(wall/1e9+ntpEpoch))
		binary.BigEndian.PutUint32(b[12:], uint32(uint64(wall%1e9)<<32/1e9))
		binary.BigEndian.PutUint32(b[16:], l.lastTS)
		binary.BigEndian.PutUint32(b[20:], uint32(l.txCount))
		binary.BigEndian.PutUint32(b[24:], uint32(l.txBytes))
		n = 28
	}
	if l.rx.have {
		b[0] |= 1
		fraction, lost := l.rx.report()
		binary.BigEndian.PutUint32(b[n:], l.rx.ssrc)
		binary.BigEndian.PutUint32(b[n+4:], uint32(lost)&0xffffff|uint32(fraction)<<24)
		binary.BigEndian.PutUint32(b[n+8:], l.rx.highest())
		binary.BigEndian.PutUint32(b[n+12:], uint32(l.rx.jitter))
		var lsr, dlsr uint32
		if l.rtcp.lsrAt != 0 {
			lsr, dlsr = l.rtcp.lsr, uint32((now-l.rtcp.lsrAt)*65536/1e9)
		}
		binary.BigEndian.PutUint32(b[n+16:], lsr)
		binary.BigEndian.PutUint32(b[n+20:], dlsr)
		n += 24
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n/4-1))

	d := b[n:]
	clear(d[:28])
	d[0], d[1] = 0x81, rtcpSDES
	binary.BigEndian.PutUint16(d[2:], 28/4-1)
	binary.BigEndian.PutUint32(d[4:], l.ssrc)
	d[8], d[9] = 1, byte(len(l.rtcp.cname)) // CNAME
	copy(d[10:], l.rtcp.cname[:])           // then at least one zero, to the next word
	n += 28
	if bye {
		d := b[n:]
		d[0], d[1] = 0x81, rtcpBYE
		binary.BigEndian.PutUint16(d[2:], 1)
		binary.BigEndian.PutUint32(d[4:], l.ssrc)
		n += 8
	}
	if !sendTo(l.pair.RTCP, b[:n], &l.st.toRTCP) {
		l.refused++
	}
}

// onRTCP takes one datagram of the RTCP socket. A BYE does not end a leg: anybody on
// the path could forge it, and signalling says when a call ends.
func (l *leg) onRTCP(_ *worker, b []byte, from netip.AddrPort, whole bool, now int64) {
	if l.st == nil || !l.rtcpGate.admit(from, now) {
		l.stranger++
		return
	}
	if !whole || !validRTCP(b) {
		l.dropped++
		return
	}
	l.lastRx.Store(now)
	for len(b) >= 4 {
		size := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		p := b[:size]
		b = b[size:]
		count := int(p[0] & 0x1f)
		blocks := p[8:]
		switch p[1] {
		case rtcpSR:
			l.rtcp.lsr, l.rtcp.lsrAt = binary.BigEndian.Uint32(p[10:]), now
			blocks = p[28:]
		case rtcpRR:
		default:
			continue
		}
		for i := 0; i < count; i++ {
			if r := blocks[24*i:]; binary.BigEndian.Uint32(r) == l.ssrc {
				l.heard(r, now)
			}
		}
	}
}

// heard takes the peer's report on what we send.
func (l *leg) heard(r []byte, now int64) {
	l.rtcp.txLoss = float32(r[4]) / 256
	lsr, dlsr := binary.BigEndian.Uint32(r[16:]), binary.BigEndian.Uint32(r[20:])
	if lsr == 0 {
		return
	}
	wall := time.Now().UnixNano()
	ntp := uint32(uint64(wall/1e9+ntpEpoch)<<16 | uint64(wall%1e9)<<16/1e9)
	// Wraps are harmless; a peer that claims to have held the report for longer than it
	// was away is not believed.
	if d := int32(ntp - lsr - dlsr); d >= 0 && d < 10*65536 {
		l.rtcp.rtt = time.Duration(d) * time.Second / 65536
	}
}

// validRTCP checks a compound packet as a whole (RFC 3550 A.2), including that every
// report block that is counted is there.
func validRTCP(b []byte) bool {
	if len(b) < 8 || b[1] != rtcpSR && b[1] != rtcpRR {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 || b[1] < rtcpSR || b[1] > rtcpXR {
			return false
		}
		size := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if size > len(b) {
			return false
		}
		blocks := 24 * int(b[0]&0x1f)
		switch {
		case b[1] == rtcpSR && size < 28+blocks, b[1] == rtcpRR && size < 8+blocks:
			return false
		}
		b = b[size:]
	}
	return true
}

// legStats is what a worker knows of a leg, copied out for the API side.
type legStats struct {
	at                                             int64
	packets, bytes, lost, late, dropped, stranger  uint64
	concealed, txPackets, txBytes, refused, lastRx uint64
	jitter, playout, rtt                           time.Duration
	loss, txLoss, level                            float32
	talking, wide                                  bool
}

func (l *leg) stats(now int64) legStats {
	s := legStats{
		at: max(now, 1), packets: l.rx.total, bytes: l.rxBytes, lost: l.rx.lostNow(),
		dropped: l.dropped, stranger: l.stranger, concealed: l.concealed,
		txPackets: l.txCount, txBytes: l.txBytes, refused: l.refused, lastRx: uint64(l.lastRx.Load()),
		jitter: l.rx.jitterTime(), rtt: l.rtcp.rtt, loss: l.rx.recentLoss(), txLoss: l.rtcp.txLoss,
		level: float32(l.level.Load()) / 10, talking: l.talking.Load(), wide: l.kind.wide(),
	}
	if l.jb != nil {
		s.late, s.playout = l.jb.Late, l.jb.Depth()
	}
	return s
}

func (e *Engine) legStats(le *legEntry, s legStats, _ int64) *mediapb.LegStats {
	ms := func(d time.Duration) float32 { return float32(d.Seconds() * 1000) }
	a := &mediapb.StreamStats{
		RxPackets: s.packets, RxBytes: s.bytes, RxLost: s.lost, RxLate: s.late, RxDropped: s.dropped,
		RxStranger: s.stranger, RxJitterMs: ms(s.jitter), RxLoss: s.loss, Concealed: s.concealed,
		TxPackets: s.txPackets, TxBytes: s.txBytes, TxLoss: s.txLoss, RttMs: ms(s.rtt),
		PlayoutMs: ms(s.playout), TxRefused: s.refused,
	}
	if s.lastRx != 0 {
		a.LastRx = e.wall(int64(s.lastRx))
	}
	if s.packets > 0 {
		a.Mos = mosOf(s.wide, s.loss, s.rtt/2+s.playout+40*time.Millisecond)
	}
	return &mediapb.LegStats{Id: le.id, Conference: le.re.id, Audio: a, Talking: s.talking, LevelDbov: s.level}
}

// mosOf estimates listening quality by the E-model (ITU-T G.107; G.107.1 for
// wideband): loss and delay each take from the rating of a clean call.
func mosOf(wide bool, loss float32, delay time.Duration) float32 {
	r, bpl := 88.2, 10.0 // AMR 12.2: Ie 5
	if wide {
		r, bpl = 93.2, 7.0 // on the 0-100 scale: AMR-WB 12.65's Ie,wb is made up by its bandwidth
	}
	d := delay.Seconds() * 1000
	id := 0.024 * d
	if d > 177.3 {
		id += 0.11 * (d - 177.3)
	}
	p := float64(loss) * 100
	r -= id + (95-5)*p/(p+bpl)
	if r <= 0 {
		return 1
	}
	return float32(math.Max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6))
}
