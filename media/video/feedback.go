package video

import (
	"time"

	"github.com/pion/rtcp"

	"sparkle/media/video/rtp264"
)

// This file is the feedback that mends and slows streams: generic NACK (RFC 4585 §6.2.1)
// and TMMBR (RFC 5104 §4.2), both ways. Each is used only where it was negotiated.

const (
	// chased is how many missing packets are kept track of: what package rtp264's Reorder
	// lets wait. mostAsked is how many at once are worth asking for: of more a key frame is
	// the better half.
	chased, mostAsked = 64, 32
	// askPatience is how long one packet that overtook another is no loss.
	askPatience = 10 * time.Millisecond
	// minHold and maxHold bound how long a picture waits for a packet that was asked for; a
	// phone with a longer round trip is not asked.
	minHold, maxHold = 80 * time.Millisecond, 250 * time.Millisecond
	// feedbackHead is what goes before the list of a NACK: IP, UDP, RR, SDES, its own head.
	feedbackHead = 28 + 8 + 28 + 12
	// tmmbnGap keeps a storm of TMMBR from being answered one by one.
	tmmbnGap = 50 * time.Millisecond
)

// ask is what was done about a missing packet.
type ask struct {
	seq   uint16
	times uint8
	first time.Time // zero: nothing is known of it
	last  time.Time
}

// resend sends again what a phone says it misses. l.mu is held.
func (l *leg) resend(nacks []rtcp.NackPair, now time.Time) {
	t, s := &l.tx, l.stream
	if !s.pb.FbNack || t.cache == nil || !s.pb.Send || !l.live || l.tier == 0 {
		return
	}
	bps := t.limit.rate(s.key.bps)
	for i := range nacks {
		nacks[i].Range(func(seq uint16) bool {
			t.nacked++
			if b := t.cache.take(seq, now, l.ctl.rtt, bps); b != nil && l.write(b) {
				t.resent++
			}
			return true
		})
	}
}

// rates takes a TMMBR or TMMBN of the phone. l.mu is held.
func (l *leg) rates(b []byte, now time.Time) {
	kind, sender, entries, ok := parseMaxRates(b)
	if !ok || !l.stream.pb.FbTmmbr {
		return
	}
	for _, e := range entries {
		switch {
		case kind == fmtTMMBN && e.ssrc == l.tx.ssrc:
			l.ctl.recv.unsaid = 0 // it reached the phone
		case kind == fmtTMMBR && e.ssrc == l.tx.ssrc:
			e.ssrc = sender // who owns the limit, in the answer
			if l.tx.limit.take(e, l.stream.key.fps, l.stream.key.bps, now) {
				l.ctl.retier = true
			}
			l.ctl.tmmbn = true
		}
	}
	l.confirm(now)
}

// confirm answers a TMMBR with the limit that holds now (RFC 5104 §4.2.2). l.mu is held.
func (l *leg) confirm(now time.Time) {
	if l.ctl.tmmbn && now.Sub(l.ctl.tmmbnAt) >= tmmbnGap {
		l.ctl.tmmbn, l.ctl.tmmbnAt = false, now
		l.notice(putMaxRates(fmtTMMBN, l.tx.ssrc, l.tx.limit.owner))
	}
}

// askForRate asks the phone for less while much of its pictures is lost, and for more when
// nothing was for a while. True: what the phone is sent may rise again. l.mu is held.
func (l *leg) askForRate(now time.Time) (retier bool) {
	r, c := &l.rx, &l.ctl
	if l.stream.pb.FbTmmbr && l.stream.pb.Recv && l.live && r.known {
		headers := uint64(20 + 8)
		if l.stream.remote.Addr().Is6() {
			headers = 40 + 8
		}
		c.recv.step(now, r.meter.expected(), r.meter.seen-r.mended, r.bytes+r.meter.received*headers)
		if c.recv.due(now) {
			want := c.recv.limit
			if want == 0 {
				want = rateCeiling
			}
			l.notice(putMaxRates(fmtTMMBR, l.tx.ssrc, maxRate{r.ssrc, uint64(want), uint16(headers) + 12}))
		}
	}
	l.confirm(now)
	return l.tx.limit.step(l.stream.key.bps, now)
}

// chases says whether missing packets are asked for: the phone must be able to send them
// again before the picture has to go on.
func (l *leg) chases() bool {
	return l.stream.pb.FbNack && !l.stream.pb.RtcpOff && l.ctl.rtt < maxHold
}

// answered notes that a packet came; one that was asked for came because of that.
func (r *receiver) answered(seq uint16) {
	if a := &r.asks[seq%chased]; a.seq == seq && a.times > 0 {
		*a = ask{}
		r.recovered++
		r.mended++
	}
}

// chase asks for what is missing, twice at most, and gives it up when a picture has waited
// long enough. l.mu is held.
func (l *leg) chase(now time.Time) {
	r := &l.rx
	if _, waiting := r.reorder.Gap(); waiting == 0 || !r.reorder.Patient {
		return
	}
	hold := min(max(l.ctl.rtt*3/2+20*time.Millisecond, minHold), maxHold)
	missing := r.reorder.Missing(r.missing[:0])
	for _, seq := range missing {
		if a := &r.asks[seq%chased]; a.seq != seq || a.first.IsZero() {
			*a = ask{seq: seq, first: now}
		}
	}
	for {
		seq, waiting := r.reorder.Gap()
		if waiting == 0 {
			return
		}
		if now.Sub(r.asks[seq%chased].first) < hold {
			break
		}
		r.reorder.GiveUp(func(pl []byte, seq uint16, ts uint32, marker bool) {
			r.depay.Push(pl, seq, ts, marker, func(au rtp264.AccessUnit) { l.unit(au, now) })
		})
	}
	l.askForPackets(r.reorder.Missing(r.missing[:0]), now)
}

// askForPackets sends a NACK for those of missing that it is time to ask for.
func (l *leg) askForPackets(missing []uint16, now time.Time) {
	r := &l.rx
	if len(missing) > mostAsked {
		return
	}
	_, waiting := r.reorder.Gap()
	due := missing[:0]
	for _, seq := range missing {
		a := &r.asks[seq%chased]
		switch {
		case a.times == 0 && (waiting > 1 || now.Sub(a.first) >= askPatience),
			a.times == 1 && now.Sub(a.last) >= max(l.ctl.rtt, resendGap)+resendGap:
			due = append(due, seq)
		}
	}
	if len(due) == 0 || !l.affords(feedbackHead+4*len(due), now) {
		return
	}
	for _, seq := range due {
		a := &r.asks[seq%chased]
		a.times++
		a.last = now
	}
	r.nacked += uint64(len(due))
	l.notice(&rtcp.TransportLayerNack{SenderSSRC: l.tx.ssrc, MediaSSRC: r.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(due)})
}

// affords says whether the leg's share of RTCP has room for a packet of n octets: two
// seconds of it may go at once.
func (l *leg) affords(n int, now time.Time) bool {
	c := &l.ctl
	rate := float64(l.rtcpBps(now)) / 8
	if c.creditAt.IsZero() {
		c.credit = 2 * rate
	}
	c.credit = min(2*rate, c.credit+rate*max(0, now.Sub(c.creditAt).Seconds()))
	c.creditAt = now
	if c.credit < float64(n) {
		return false
	}
	c.credit -= float64(n)
	return true
}

// notice sends a packet of feedback at once, in the smallest compound there may be (RFC
// 4585 §3.1): without report blocks, since those tell of loss since the last ones.
func (l *leg) notice(p rtcp.Packet) {
	l.writeRTCP([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: l.tx.ssrc}, l.sdes(), p})
}
