package media

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"sparkle/media/jitter"
	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

// syncTicks is how often a leg's delay is looked at for its pictures: a few times a second.
const syncTicks = 10

// rtcpState is the RTCP of one leg: when to send, and what the peer's reports said.
type rtcpState struct {
	next   int64
	cname  string
	buf    [rtp.ReportSize + 8]byte // and a BYE
	txLoss float32
	rtt    time.Duration
}

func (s *rtcpState) init(now int64) {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var name [16]byte
	for i := range name { // random per leg: a host name would tell who shares a server (RFC 7022)
		name[i] = letters[rand.IntN(len(letters))]
	}
	s.cname = string(name[:])
	s.next = now + int64(time.Second)
}

// interval is the time to the next report.
func (l *leg) interval() int64 {
	const octets = 28 + 76 // UDP/IP and a usual report
	bps := l.st.rs + l.st.rr
	if bps > 0 {
		bps = max(1, rtp.Share(l.st.rs, l.st.rr, l.present && l.st.send, l.st.recv))
	}
	return int64(rtp.Interval(bps, octets, 0, rand.Float64()))
}

// synchronise works out what pictures need to go with the sound: when it is heard by our clock
// less when it was said by the phone's.
func (l *leg) synchronise(now int64) {
	lag := int64(0)
	if ntp, ts, ok := l.rx.Reported(); ok && l.st != nil && l.st.recv && l.jb != nil {
		if at, ok := l.jb.Plays(ts, l.since(now)+jitter.Frame); ok {
			lag = l.born + int64(at) - rtp.Wall(ntp)
		}
	}
	l.lag.Store(lag)
}

// control asks the phone for another mode where it is time, and sends the report that is due.
func (l *leg) control(w *worker, now int64) {
	if w.tick%syncTicks == uint64(l.ssrc%syncTicks) {
		l.synchronise(now)
	}
	if l.st != nil && l.kind.amr() && now >= l.wish.next {
		l.wish.next = now + int64(time.Second)
		l.wish.step(l.st, &l.rx, now)
	}
	if l.st == nil || l.st.rtcpOff || now < l.rtcp.next || !l.remote[1].IsValid() {
		return
	}
	l.rtcp.next = now + l.interval()
	l.sendReport(w, now, false)
}

// bye tells the peer that the stream ends.
func (l *leg) bye(w *worker, now int64) {
	if l.st != nil && !l.st.rtcpOff && l.remote[1].IsValid() {
		l.sendReport(w, now, true)
	}
}

// rtpTime is the timestamp that what is sent at now has or would have: not that of the last
// frame, which in a pause or on hold was sent long ago (RFC 3550 §6.4.1).
func (l *leg) rtpTime(w *worker, now int64) uint32 {
	since := (now - w.deadline) * int64(l.st.clock) / int64(time.Second) // negative before the tick
	return l.tsBase + uint32(w.tick)*l.st.step + uint32(int32(since))
}

// sendReport sends a compound packet: SR or RR, SDES with CNAME, BYE.
func (l *leg) sendReport(w *worker, now int64, bye bool) {
	b := l.rtcp.buf[:]
	me := rtp.Sender{SSRC: l.ssrc, Timestamp: l.rtpTime(w, now), Packets: uint32(l.txCount), Octets: uint32(l.txBytes)}
	n := rtp.PutReport(b, me, &l.rx, l.rtcp.cname, time.Now(), l.since(now))
	if bye {
		n += rtp.PutBye(b[n:], l.ssrc)
	}
	l.tap.Put(true, true, l.local[1], l.remote[1], b[:n])
	if !sendTo(l.pair.RTCP, b[:n], &l.to[1]) {
		l.refused++
	}
}

// onRTCP takes one datagram of the RTCP socket. A BYE does not end a leg: anybody on
// the path could forge it, and signalling says when a call ends.
func (l *leg) onRTCP(_ *worker, b []byte, from netip.AddrPort, whole bool, now int64) {
	l.tap.Put(false, true, l.local[1], from, b)
	if l.st == nil || !l.rtcpGate.May(from) {
		l.stranger++
		return
	}
	if !whole || !validRTCP(b) {
		l.dropped++
		return
	}
	// Others are behind the same NAT: the phone is who sends its RTP too.
	nat := l.rtcpGate.NAT()
	if nat && from != l.st.rtcpTo && binary.BigEndian.Uint32(b[4:]) != l.rx.SSRC || !l.rtcpGate.Control(from, l.since(now)) {
		l.stranger++
		return
	}
	if nat {
		l.aim()
	}
	l.lastRx.Store(now)
	if !l.reports.Load() {
		l.reports.Store(true)
	}
	for {
		r, rest, ok := rtp.Next(b)
		if !ok {
			return
		}
		b = rest
		if r.Type == rtp.TypeSR {
			l.rx.OnSR(r.SSRC, r.NTP, r.Timestamp, l.since(now))
		}
		for i := range len(r.Blocks) / 24 {
			if block := r.Block(i); block.SSRC == l.ssrc {
				l.heard(block)
			}
		}
	}
}

// heard takes the peer's report on what we send.
func (l *leg) heard(r rtp.Block) {
	l.rtcp.txLoss = float32(r.Fraction)
	if rtt, ok := r.RTT(time.Now()); ok {
		l.rtcp.rtt = rtt
	}
}

// typeXR is the highest packet type that a compound may have (RFC 3611).
const typeXR = 207

// validRTCP checks a compound packet as a whole (RFC 3550 A.2), including that every
// report block that is counted is there.
func validRTCP(b []byte) bool {
	if len(b) < 8 || b[1] != rtp.TypeSR && b[1] != rtp.TypeRR {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 || b[1] < rtp.TypeSR || b[1] > typeXR {
			return false
		}
		size := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if size > len(b) {
			return false
		}
		blocks := 24 * int(b[0]&0x1f)
		switch {
		case b[1] == rtp.TypeSR && size < 28+blocks, b[1] == rtp.TypeRR && size < 8+blocks:
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
	cmr                                            uint8
	talking, wide                                  bool
}

func (l *leg) stats(now int64) legStats {
	s := legStats{
		at: max(now, 1), packets: l.rxPackets, bytes: l.rxBytes, lost: l.rx.Lost(),
		dropped: l.dropped, stranger: l.stranger, concealed: l.concealed,
		txPackets: l.txCount, txBytes: l.txBytes, refused: l.refused, lastRx: uint64(l.lastRx.Load()),
		jitter: l.rx.Jitter(), rtt: l.rtcp.rtt, loss: float32(l.rx.Loss()), txLoss: l.rtcp.txLoss,
		cmr: l.wish.cmr, level: float32(l.level.Load()) / 10, talking: l.talking.Load(), wide: !l.kind.narrow(),
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
		PlayoutMs: ms(s.playout), TxRefused: s.refused, Cmr: uint32(s.cmr),
	}
	if s.lastRx != 0 {
		a.LastRx = e.wall(int64(s.lastRx))
	}
	if s.packets > 0 {
		a.Mos = float32(rtp.MOS(s.wide, float64(s.loss), s.rtt/2+s.playout+40*time.Millisecond))
	}
	return &mediapb.LegStats{Id: le.id, Conference: le.re.id, Audio: a, Talking: s.talking, LevelDbov: s.level}
}
