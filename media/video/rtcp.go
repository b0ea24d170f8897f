package video

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/pion/rtcp"

	"sparkle/media/latch"
	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

// control is a leg's RTCP side. Guarded by the leg's mu.
type control struct {
	gate     latch.Gate
	cname    string
	due      time.Time
	firSeq   uint8
	firFor   time.Time // needSince of the request that has that number
	retier   bool      // the phone set another limit to what it is sent
	tmmbn    bool      // which is still to be confirmed
	tmmbnAt  time.Time
	recv     receiveRate
	credit   float64 // octets of feedback that may be sent now
	creditAt time.Time
	lastSR   uint32 // middle bits of the phone's last NTP time
	lastSRAt time.Time
	txLoss   float32
	rtt      time.Duration
}

// rtcpInterval is the longest time between two reports (IMS.md §5.4).
const rtcpInterval = 5 * time.Second

// askAfter are the times at which a key frame is asked for again (IMS.md §5.3).
var askAfter = []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}

// stopped says whether a socket's error is its end.
func stopped(err error) bool { return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) }

// readRTCP receives reports until the socket is closed.
func (l *leg) readRTCP() {
	buf := make([]byte, 2048)
	for {
		n, from, err := l.sock.RTCP.ReadFromUDPAddrPort(buf)
		if err != nil {
			if stopped(err) {
				return
			}
			continue
		}
		l.tapped(false, true, l.sock.RTCP, from, buf[:n])
		l.mu.Lock()
		key := l.report(buf[:n], from, time.Now())
		tier, retier := l.tier, l.ctl.retier
		l.ctl.retier = false
		l.mu.Unlock()
		if retier {
			l.p.retier(l)
		} else if key && tier != 0 {
			l.p.keyFrame(tier)
		}
	}
}

// report takes one RTCP datagram; true: the phone wants a key frame. l.mu is held.
func (l *leg) report(b []byte, from netip.AddrPort, now time.Time) (key bool) {
	s := l.stream
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if s == nil || l.closed {
		l.rx.dropped++
		return false
	}
	if !l.ctl.gate.May(from) {
		l.rx.stranger++
		return false
	}
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		l.rx.dropped++
		return false
	}
	// Others are behind the same NAT: the phone is who sends its RTP too.
	if l.ctl.gate.NAT() && from != s.rtcp && (len(b) < 8 || binary.BigEndian.Uint32(b[4:]) != l.rx.ssrc) || !l.ctl.gate.Control(from, l.since(now)) {
		l.rx.stranger++
		return false
	}
	l.rx.lastAny, l.rx.reported = now, true
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			if l.rx.known && p.SSRC == l.rx.ssrc {
				l.ctl.lastSR, l.ctl.lastSRAt = uint32(p.NTPTime>>16), now
				l.rx.srNTP, l.rx.srTime = p.NTPTime, p.RTPTime
			}
			l.reports(p.Reports, now)
		case *rtcp.ReceiverReport:
			l.reports(p.Reports, now)
		case *rtcp.PictureLossIndication:
			if p.MediaSSRC == l.tx.ssrc {
				l.tx.askedBy++
				key = true
			}
		case *rtcp.FullIntraRequest:
			for _, f := range p.FIR {
				// A repeated sequence number is the same request (RFC 5104 §4.3.1.2).
				if f.SSRC == l.tx.ssrc && int(f.SequenceNumber) != l.tx.lastFIR {
					l.tx.lastFIR = int(f.SequenceNumber)
					l.tx.askedBy++
					key = true
				}
			}
		case *rtcp.TransportLayerNack:
			if p.MediaSSRC == l.tx.ssrc {
				l.resend(p.Nacks, now)
			}
		case *rtcp.RawPacket:
			l.rates(*p, now)
		}
	}
	return key
}

func (l *leg) reports(rs []rtcp.ReceptionReport, now time.Time) {
	for _, r := range rs {
		if r.SSRC != l.tx.ssrc {
			continue
		}
		l.ctl.txLoss = float32(r.FractionLost) / 256
		if l.tx.loss.report(r.LastSequenceNumber, r.TotalLost, l.stream.key.bps, now) {
			l.ctl.retier = true
		}
		if r.LastSenderReport != 0 { // RFC 3550 §6.4.1
			rtt := int32(uint32(ntp(now)>>16) - r.LastSenderReport - r.Delay)
			if rtt >= 0 && rtt < 10<<16 {
				l.ctl.rtt = time.Duration(rtt) * time.Second / 65536
			}
		}
	}
}

// ntp is a time in NTP format (RFC 3550 §4).
func ntp(t time.Time) uint64 {
	ns := uint64(t.UnixNano())
	sec := ns/1e9 + 2208988800
	return sec<<32 | (ns%1e9)<<32/1e9
}

// beat does what is due on a leg: retries, reports, stalls.
func (l *leg) beat(now time.Time) {
	l.mu.Lock()
	var events []*mediapb.Event
	turned := false
	if l.stream != nil && !l.closed {
		l.askForKey(now)
		l.chase(now)
		turned = l.askForRate(now)
		if now.After(l.ctl.due) {
			l.sendReport(now)
		}
		events = l.stalls(now)
		turned = turned || l.gone(now) != l.away || len(events) > 0
		l.away = l.gone(now)
	}
	if now.Sub(l.rx.bpsAt) >= time.Second {
		l.rx.bps = int(float64(l.rx.bytes-l.rx.bpsBytes) * 8 / now.Sub(l.rx.bpsAt).Seconds())
		l.rx.bpsAt, l.rx.bpsBytes = now, l.rx.bytes
	}
	passing := len(l.rx.passing) > 0 // a packet that was given up has let it through
	l.mu.Unlock()
	if passing {
		l.sendPassing()
	}
	l.emit(now, events)
	if turned {
		l.p.retier(l)
	}
}

// goneAfter is how long a phone may give no sign of itself on its video ports before it is
// sent no pictures: nobody looks at them, and they cost its radio (IMS.md §3 row 17).
const goneAfter = 60 * time.Second

// gone says whether nothing at all comes from the phone: no picture and no report. One
// that was asked for no reports cannot be gone, nor can one that may say nothing.
func (l *leg) gone(now time.Time) bool {
	return l.live && !l.stream.pb.RtcpOff && now.Sub(l.rx.lastAny) > goneAfter
}

// stalls finds out that a source is silent or that nothing of it can be decoded.
func (l *leg) stalls(now time.Time) (events []*mediapb.Event) {
	r := &l.rx
	if !l.live || !l.stream.pb.Recv {
		return nil
	}
	silent := now.Sub(r.last)
	if silent > time.Second && silent < l.p.opt.Stall && r.known && r.shown && r.needSince.IsZero() && r.lastAsk.Before(r.last.Add(time.Second)) {
		// At 1, 2 and 4 s of silence: there is nothing to ask for at once.
		r.needSince, r.needTries = r.last, 1
	}
	if silent > l.p.opt.Stall && !r.stalled {
		r.stalled = true
		events = append(events, &mediapb.Event{What: &mediapb.Event_MediaStalled{MediaStalled: &mediapb.MediaStalled{Kind: "video", SilentMs: silent.Milliseconds()}}},
			videoState("stalled", r.width, r.height))
		r.flowing = false
	}
	if r.shown && !r.flowing && !r.hopeless && !r.stalled && !r.first.IsZero() && now.Sub(r.first) > undecodable && silent < time.Second {
		r.hopeless = true
		r.needSince = time.Time{}
		r.needKey(now)
		events = append(events, videoState("undecodable", 0, 0))
	}
	return events
}

// askForKey sends a PLI or FIR when a key frame is owed: at once, then after 1, 2
// and 4 s. Without negotiated feedback nothing is sent; the phone's own key frames
// have to do.
func (l *leg) askForKey(now time.Time) {
	r := &l.rx
	if r.needSince.IsZero() || !r.known || !r.shown || !l.stream.feedback {
		return
	}
	if r.needTries >= len(askAfter) {
		if now.Sub(r.needSince) > 8*time.Second { // whatever is wrong now is news again
			r.needSince = time.Time{}
		}
		return
	}
	if now.Sub(r.needSince) < askAfter[r.needTries] || now.Sub(r.lastAsk) < 500*time.Millisecond {
		return
	}
	r.needTries++
	r.lastAsk = now
	r.asked++
	// FIR where the decoder is new or has shown nothing yet, PLI where a picture is damaged
	// (RFC 5104 §3.5.1); each where the other was not negotiated.
	var p rtcp.Packet = &rtcp.PictureLossIndication{SenderSSRC: l.tx.ssrc, MediaSSRC: r.ssrc}
	if l.stream.pb.FbFir && (!r.flowing || r.fresh || !l.stream.pb.FbPli) {
		if l.ctl.firFor != r.needSince { // the same request keeps its number (RFC 5104 §4.3.1.2)
			l.ctl.firFor = r.needSince
			l.ctl.firSeq++
		}
		p = &rtcp.FullIntraRequest{SenderSSRC: l.tx.ssrc, MediaSSRC: r.ssrc, FIR: []rtcp.FIREntry{{SSRC: r.ssrc, SequenceNumber: l.ctl.firSeq}}}
	}
	l.writeRTCP(append(l.compound(now), p))
}

// sendReport sends a compound report and sets when the next is due.
func (l *leg) sendReport(now time.Time) {
	n := l.writeRTCP(l.compound(now))
	trr := time.Duration(l.stream.pb.TrrIntMs) * time.Millisecond
	l.ctl.due = now.Add(rtp.Interval(l.rtcpBps(now), n+28, trr, rand.Float64()))
}

// rtcpBps is how much RTCP we may send, in bit/s.
func (l *leg) rtcpBps(now time.Time) uint32 {
	v := l.stream.pb
	if v.RtcpRsBps == 0 && v.RtcpRrBps == 0 { // nothing was said: 5 % of the stream, half of them ours
		return uint32(l.stream.key.bps / 40)
	}
	return max(1, rtp.Share(v.RtcpRsBps, v.RtcpRrBps, l.tier != 0, now.Sub(l.rx.last) < 2*rtcpInterval))
}

// compound is SR or RR with SDES (RFC 3550 §6.1).
func (l *leg) compound(now time.Time) []rtcp.Packet {
	var reports []rtcp.ReceptionReport
	if l.rx.known {
		r := rtcp.ReceptionReport{SSRC: l.rx.ssrc, FractionLost: l.rx.meter.fraction(), TotalLost: uint32(min(l.rx.meter.lost(), 1<<23-1)),
			LastSequenceNumber: l.rx.meter.highest(), Jitter: uint32(l.rx.meter.jitter), LastSenderReport: l.ctl.lastSR}
		if l.ctl.lastSR != 0 {
			r.Delay = uint32(now.Sub(l.ctl.lastSRAt).Seconds() * 65536)
		}
		reports = append(reports, r)
	}
	var head rtcp.Packet = &rtcp.ReceiverReport{SSRC: l.tx.ssrc, Reports: reports}
	if l.tx.packets > 0 {
		head = &rtcp.SenderReport{SSRC: l.tx.ssrc, NTPTime: ntp(now), RTPTime: l.tx.timestamp(now),
			PacketCount: uint32(l.tx.packets), OctetCount: uint32(l.tx.octets), Reports: reports}
	}
	return []rtcp.Packet{head, l.sdes()}
}

func (l *leg) sdes() rtcp.Packet {
	return &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{Source: l.tx.ssrc,
		Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: l.ctl.cname}}}}}
}

func (l *leg) goodbye() {
	l.writeRTCP(append(l.compound(time.Now()), &rtcp.Goodbye{Sources: []uint32{l.tx.ssrc}}))
}

// writeRTCP sends packets as one datagram and says how large it was.
func (l *leg) writeRTCP(ps []rtcp.Packet) int {
	if l.stream.pb.RtcpOff { // both b=RS and b=RR are 0 (RFC 3556): not even a report
		return 0
	}
	b, err := rtcp.Marshal(ps)
	if err != nil {
		panic("video: our own RTCP does not marshal: " + err.Error())
	}
	to := l.ctl.gate.To()
	l.tapped(true, true, l.sock.RTCP, to, b)
	if _, err := l.sock.RTCP.WriteToUDPAddrPort(b, to); err != nil {
		l.tx.refused++
	}
	return len(b)
}

// statistics reads the leg's counters.
func (l *leg) statistics(now time.Time) *mediapb.StreamStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, t := &l.rx, &l.tx
	s := &mediapb.StreamStats{
		RxPackets: r.meter.received, RxBytes: r.bytes, RxLost: r.meter.lost(), RxLate: r.reorder.Late,
		RxDropped: r.dropped + r.depay.Stats.Refused, RxStranger: r.stranger,
		RxJitterMs: float32(r.meter.jitter / (videoClock / 1000)), RxLoss: r.meter.recent(now),
		TxPackets: t.packets, TxBytes: t.bytes, TxLoss: l.ctl.txLoss, RttMs: float32(l.ctl.rtt.Seconds() * 1000), TxRefused: t.refused,
		NacksRx: t.nacked, Resent: t.resent, NacksTx: r.nacked, Recovered: r.recovered, RxLimitBps: uint32(l.ctl.recv.limit),
		KeyframesSent: t.keys, KeyframeRequestsRx: t.askedBy, KeyframeRequestsTx: r.asked,
		Width: uint32(r.width), Height: uint32(r.height),
	}
	if t.limit.set {
		s.TxLimitBps = uint32(t.limit.allowed)
	}
	if r.started || r.reported {
		s.LastRx = r.lastAny.UnixNano()
	}
	return s
}
