package media

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/g711"
	"sparkle/media/codec/opus"
	"sparkle/media/dtmf"
	"sparkle/media/jitter"
	"sparkle/media/latch"
	"sparkle/media/mediapb"
	"sparkle/media/mix"
	"sparkle/media/payload"
	"sparkle/media/port"
	"sparkle/media/rtp"
	"sparkle/media/tap"
)

// leg is one phone's audio on its worker.
type leg struct {
	id    string
	entry *legEntry
	pair  *port.Pair
	slot  int // of the worker
	room  *room
	born  int64

	// Wanted, by SetLeg.
	present, muted, deaf, held bool
	st                         *stream
	kind                       coderKind
	own                        *coder
	dec                        *decoder
	jb                         *jitter.Buffer

	// By relink.
	aside  bool   // not in the room's mix: whispers
	ducked bool   // hears the room 12 dB down
	extra  []*leg // hears these too
	turns  bool   // one of these three is about to change

	// In.
	rtpGate, rtcpGate latch.Gate
	rx                rtp.Source
	rtpIn             rtp.Packet
	rxPackets         uint64 // of all sources
	started           bool   // MediaStarted was told
	mispacked         bool   // MediaNote was told
	digits            dtmf.Receiver
	piece             piece
	frames            [payload.MaxFrames]amr.Frame
	frameBuf          [payload.MaxFrames][amr.MaxBytes]byte
	dropped, stranger uint64
	rxBytes           uint64
	concealed         uint64

	taken [2]uint64 // twice the worker's beat in which RTP and RTCP were read, and 1: all of it

	// The tick's.
	cur         frame           // what is due
	past        past            // what was due before and has not been decoded
	speech      bool            // cur is speech that somebody might hear
	pcm         [frameLen]int16 // decoded and faded, valid while decoded
	decoded     bool
	ends        bool // pcm is the last of a stream whose decoder is gone
	fades       bool // it is heard in this tick for the last time
	gone        bool // it was removed
	way         way  // how it was served last
	via         *leg // whose frames it is passed
	quietly     bool // it heard nobody in the last tick
	follows     bool // G.722: its decoder has heard all of the shared encoder
	sidAt       uint64
	fwd         encoded // cur, as others are passed it
	fwdTick     uint64  // tick+1 that fwd is of
	loud        amr.Loudness
	lastLevel   float32 // of the last frame of speech, dBov
	probed      int     // frames that were decoded to check loud
	probeAt     uint64  // tick of the next
	chosen      bool    // one of the loudest
	contributes bool
	gain        float32 // in the mix, now
	hearGain    float32
	duck        float32
	opusLevel   [2]float32 // of its last Opus frame that was decoded, dBov: noise, voice
	wasActive   bool       // the Opus frame before was called a voice by its sender
	ownTick     uint64     // tick+1 when own was last used
	player      player
	prompted    bool // was played to: from then on it is sent silence between sounds
	detector    mix.Detector
	agc         mix.AGC // room.agc
	talks       bool
	smooth      float32 // dBov
	hush        float32 // of its silence, dBov, where it says so

	tap   *tap.Tap // copies of its packets go there; nil: nowhere
	local [2]netip.AddrPort

	// Out.
	ssrc    uint32
	seq     uint16
	tsBase  uint32
	mode    int
	limit   int // highest mode the peer asked for
	raise   int // ticks without loss
	wish    wish
	spurt   bool // the last frame sent was speech
	tx      [12 + frameMax + 4]byte
	msg     message // tx, queued
	txCount uint64
	txBytes uint64
	refused uint64
	remote  [2]netip.AddrPort // where RTP and RTCP go, and as the kernel wants it
	to      [2]sockaddr
	rtcp    rtcpState

	lastRx  atomic.Int64 // ns of the engine's clock, RTP or valid RTCP; 0: never
	reports atomic.Bool  // it sends RTCP
	lag     atomic.Int64 // ns of the engine's clock that it is heard at less the phone's wall clock when it was said; 0: not known
	talking atomic.Bool
	level   atomic.Int32 // tenths of dBov
}

// frame is what a tick gets from the jitter buffer; bits are the buffer's.
type frame struct {
	verdict jitter.Verdict
	ft      uint8
	bad     bool
	bits    []byte
}

// past are the last frames of speech that were not decoded, oldest first: a decoder that
// is needed after all has heard them first. Where there were more, it begins anew: what it
// remembers of another moment makes a blast of the frames of this one.
type past struct {
	frames [3]struct {
		ft   uint8
		bad  bool
		n    int
		data [frameMax]byte
	}
	at, n int
	torn  bool // there were others, since the last frame that was decoded
}

// forget drops them: there is a pause after them.
func (p *past) forget() { p.torn, p.n = p.torn || p.n > 0, 0 }

func (p *past) put(f *frame) {
	i := (p.at + p.n) % len(p.frames)
	if p.n == len(p.frames) {
		p.at, p.torn = (p.at+1)%len(p.frames), true
	} else {
		p.n++
	}
	x := &p.frames[i]
	x.ft, x.bad, x.n = f.ft, f.bad, copy(x.data[:], f.bits)
}

// newest is the last of them that has anything in it, nil if there is none.
func (p *past) newest() []byte {
	for i := p.n - 1; i >= 0; i-- {
		if x := &p.frames[(p.at+i)%len(p.frames)]; x.n > 0 {
			return x.data[:x.n]
		}
	}
	return nil
}

// fd is the socket of RTP (0) or RTCP (1).
func (l *leg) fd(rtcp int32) int {
	if rtcp == 1 {
		return l.pair.RTCP
	}
	return l.pair.RTP
}

func newLeg(id string, pair *port.Pair, now int64) *leg {
	l := &leg{
		id: id, pair: pair, born: now,
		ssrc: rand.Uint32(), seq: uint16(rand.Uint32()), tsBase: rand.Uint32(),
		duck: 1, lastLevel: mix.Silent, smooth: mix.Silent, hush: mix.Silent, wish: newWish,
	}
	l.level.Store(-1270)
	l.local = [2]netip.AddrPort{netip.AddrPortFrom(pair.IP, pair.Port), netip.AddrPortFrom(pair.IP, pair.Port+1)}
	for i := range l.frames {
		l.frames[i].Bits = l.frameBuf[i][:]
	}
	l.rtcp.init(now)
	return l
}

// since is the leg's own time, which the jitter buffer and the meters count in.
func (l *leg) since(now int64) time.Duration { return time.Duration(now - l.born) }

// apply takes what SetLeg wants; the coders are in place.
func (l *leg) apply(p *plan, now int64) {
	old := l.st
	l.present, l.muted, l.deaf, l.held, l.st = p.present, p.muted, p.deaf, p.held, p.stream
	if l.st == nil {
		l.spurt = false
		return
	}
	var who, control latch.Policy
	if l.st.remote.IsValid() {
		who = latch.Policy{Want: l.st.remote, AnyPort: l.st.anyPort, Prefixes: l.st.prefixes, Own: l.pair.IP, Version: l.st.version, Live: l.present}
		control = who
		control.Want = l.st.rtcpTo
	}
	l.rtpGate.Set(who, l.since(now))
	l.rtcpGate.Set(control, l.since(now))
	l.aim()
	switch {
	case old == nil || old.kind.codec != l.st.kind.codec:
		if old != nil && old.clock != l.st.clock {
			l.ssrc = rand.Uint32() // another clock is another source (RFC 7160 §4.1)
			l.txCount, l.txBytes = 0, 0
		}
		l.mode, l.limit, l.raise, l.spurt = l.st.initialMode(), l.st.topMode(), 0, false
		l.wish = newWish
		l.rx.Clock = l.st.clock
	case old.modes != l.st.modes:
		l.mode, l.limit, l.raise = l.st.initialMode(), l.st.topMode(), 0
		l.wish = newWish
	}
}

// aim has packets go to whom the gates listen.
func (l *leg) aim() {
	l.rtcpGate.Follow(l.rtpGate.Host())
	for i, a := range [2]netip.AddrPort{l.rtpGate.To(), l.rtcpGate.To()} {
		if a != l.remote[i] {
			l.remote[i], l.to[i] = a, sockaddr{}
			if a.IsValid() {
				l.to[i] = toSockaddr(a)
			}
		}
	}
}

// audible says whether anybody is to hear the leg.
func (l *leg) audible() bool {
	return l.present && !l.held && l.st != nil && l.st.recv && (!l.muted || l.aside)
}

// mayEncode says whether the leg is sent audio at all: while it is present, and from
// its first sound on, since a phone in a menu takes silence between two prompts for a
// dead line.
func (l *leg) mayEncode() bool {
	return (l.present || l.prompted) && l.st != nil && l.st.send && l.own != nil
}

func (l *leg) isSpeech(ft uint8) bool {
	switch {
	case !l.kind.amr():
		return ft != ftComfort
	case l.kind.wide():
		return ft < amr.SIDWide || ft == amr.SpeechLost
	}
	return ft < amr.SIDNarrow
}

// onRTP takes one datagram of the RTP socket.
func (l *leg) onRTP(w *worker, b []byte, from netip.AddrPort, whole bool, now int64) {
	l.tap.Put(false, false, l.local[0], from, b)
	if l.st == nil || !l.rtpGate.May(from) {
		l.stranger++
		return
	}
	h := &l.rtpIn
	if err := h.Parse(b); err != nil || !whole {
		l.dropped++
		return
	}
	s := l.st
	digit := s.isKey(h.Type)
	comfort := h.Type == ptCN && s.kind.law() && len(h.Payload) > 0
	if !digit && !comfort && h.Type != s.recvPT && h.Type != s.pt {
		l.dropped++
		return
	}
	if !l.rtpGate.Take(from, h.SSRC, h.Seq, l.since(now)) {
		l.stranger++
		return
	}
	if l.rtpGate.NAT() {
		l.aim()
	}
	if digit {
		l.lastRx.Store(now)
		l.rx.AddEvent(h, l.since(now)) // not counted, each key press would look like ten losses
		l.onDigit(w, h, now)
		return
	}
	n := 1
	if !comfort {
		n = l.unpack(h.Payload)
	}
	if n == 0 {
		l.dropped++
		if l.kind.amr() && !l.mispacked && l.packsOtherwise(h.Payload) {
			l.mispacked = true
			w.note(note{what: noteMispacked, leg: l, at: now})
		}
		return
	}
	l.lastRx.Store(now)
	l.rxBytes += uint64(len(b))
	l.rxPackets++
	switch l.rx.Add(h, l.since(now)) {
	case rtp.Restarted:
		l.jb.Reset()
	case rtp.Rejected:
		return
	}
	if !s.recv {
		return
	}
	if !l.started {
		l.started = true
		w.note(note{what: noteStarted, leg: l, at: now})
	}
	at := l.since(now)
	switch {
	case comfort: // RFC 3389: the level, and a spectrum that we have no use for
		l.jb.Push(h.Timestamp, at, ftComfort, false, true, h.Payload[:1])
		return
	case s.kind.isOpus():
		l.pushOpus(h, at)
		return
	}
	if !s.kind.amr() {
		l.pushOctets(h.Payload, h.Timestamp, at)
		return
	}
	for i := range n {
		f := &l.frames[i]
		ts := h.Timestamp + uint32(i)*s.step
		switch {
		case f.Type == amr.NoData:
			// A hole in an aggregate: nothing to store; speech around it makes it a loss.
		default:
			if int(f.Type) <= s.topMode() {
				l.wish.heard = f.Type
			}
			l.jb.Push(ts, at, f.Type, f.Bad, !l.isSpeech(f.Type), f.Bits)
		}
	}
}

// piece is the beginning of a frame of G.711 or G.722 whose rest is in the next packet.
type piece struct {
	ts  uint32
	n   int
	buf [octetsOf20ms]byte
}

// pushOctets takes a packet of G.711 or G.722, where a sample, or two, is an octet and a tick of
// RTP's clock: packets of 10, 30 or any number of milliseconds are frames as well. A frame of
// which a part was lost is lost.
func (l *leg) pushOctets(b []byte, ts uint32, at time.Duration) {
	p := &l.piece
	if p.n > 0 && ts != p.ts+uint32(p.n) {
		p.n = 0
	}
	for len(b) > 0 {
		if p.n == 0 && len(b) >= octetsOf20ms {
			l.jb.Push(ts, at, ftSpeech, false, false, b[:octetsOf20ms])
			b, ts = b[octetsOf20ms:], ts+octetsOf20ms
			continue
		}
		if p.n == 0 {
			p.ts = ts
		}
		k := copy(p.buf[p.n:], b)
		p.n += k
		b, ts = b[k:], ts+uint32(k)
		if p.n == octetsOf20ms {
			l.jb.Push(p.ts, at, ftSpeech, false, false, p.buf[:])
			p.n = 0
		}
	}
}

// pushOpus takes what a packet has for each 20 ms. One without sound begins a pause.
func (l *leg) pushOpus(h *rtp.Packet, at time.Duration) {
	_ = l.dec.framer.Each(h.Payload, h.Timestamp, func(f opus.Frame) { // Check has seen it
		if len(f.Packet) <= opus.QuietBytes {
			l.jb.Push(f.Timestamp, at, ftComfort, false, true, f.Packet)
			return
		}
		l.jb.Push(f.Timestamp, at, ftSpeech, false, false, f.Packet)
		for i := range opus.Long(f.Packet) - 1 {
			l.jb.Push(f.Timestamp+uint32(i+1)*opus.FrameTicks, at, ftMore, false, false, nil)
		}
	})
}

// unpack checks a payload and says how many frames it has, of G.711 and G.722 how many
// milliseconds; 0: malformed. The peer's
// mode request is obeyed on the way.
func (l *leg) unpack(body []byte) int {
	s := l.st
	switch {
	case s.kind.isOpus():
		if l.dec.framer.Check(body) != nil {
			return 0
		}
		return 1
	case !s.kind.amr():
		const octetsOfMS = octetsOf20ms / 20
		if len(body)%octetsOfMS != 0 || len(body) > payload.MaxFrames*octetsOf20ms {
			return 0
		}
		return len(body) / octetsOfMS
	}
	for i := range l.frames {
		l.frames[i].Bits = l.frameBuf[i][:]
	}
	cmr, n, err := s.format().Unpack(body, &l.frames)
	if err != nil {
		return 0
	}
	switch {
	case cmr == payload.NoRequest:
		l.limit = s.topMode()
	case cmr < 16 && s.modes>>cmr&1 == 1:
		l.limit = int(cmr)
	}
	return n
}

// packsOtherwise says whether a payload that cannot be read makes sense in the format that was
// not agreed (IMS.md §5.1).
func (l *leg) packsOtherwise(body []byte) bool {
	f := l.st.format()
	f.OctetAligned = !f.OctetAligned
	_, _, err := f.Unpack(body, &l.frames)
	return err == nil
}

func (l *leg) onDigit(w *worker, h *rtp.Packet, now int64) {
	d, first, err := l.digits.Take(h.Timestamp, h.Payload)
	if err != nil {
		l.dropped++
		return
	}
	if first {
		w.note(note{what: noteDigit, leg: l, at: now, digit: d.Digit, ms: uint32(d.Duration) * 1000 / l.st.dtmfRate})
	}
}

// law is the leg's half of G.711.
func (l *leg) law() g711.Law {
	if l.kind.codec == mediapb.AudioStream_PCMA {
		return g711.PCMA
	}
	return g711.PCMU
}

// measure takes the level of a frame and decides whether that is talk.
func (l *leg) measure(v float32) {
	l.lastLevel = v
	if v > l.smooth {
		l.smooth += (v - l.smooth) * 0.6 // up at once: a first word must be heard
	} else {
		l.smooth += (v - l.smooth) * 0.1
	}
	l.talks = l.detector.Step(v)
	l.tell()
}

// quiet is measure for a tick without speech. Comfort noise of G.711 says how loud the
// silence is (RFC 3389 §3), and so does AMR's.
func (l *leg) quiet() {
	if c := &l.cur; c.verdict == jitter.Play && c.ft == l.kind.sidType() {
		switch {
		case l.kind.law() && len(c.bits) > 0:
			l.hush = -float32(c.bits[0] & 0x7f)
			l.detector.Hush(l.hush)
		case l.kind.amr():
			if level, ok := amr.NoiseLevel(l.kind.wide(), c.bits); ok {
				l.hush = level
			}
		}
	}
	l.talks = l.detector.Quiet()
	l.smooth = max(l.smooth-1.5, l.hush)
	l.tell()
}

func (l *leg) tell() {
	// Few change from one tick to the next, and a store is a locked instruction.
	if talking := l.talks && l.audible(); talking != l.talking.Load() {
		l.talking.Store(talking)
	}
	if level := int32(l.smooth * 10); level != l.level.Load() {
		l.level.Store(level)
	}
}

func (l *leg) rank() float32 {
	if l.gain > 0 {
		return l.smooth + talkerEdge
	}
	return l.smooth
}

// fade brings the decoded frame to the gain that choose wants and says whether
// anything of it is heard.
func (l *leg) fade() bool {
	target := float32(0)
	if l.chosen {
		target = 1
	}
	if !l.decoded {
		l.gain = 0 // the decoder's next frame starts from nothing: it needs its ramp
		return false
	}
	if l.gain == 1 && target == 1 {
		return true
	}
	if l.gain == 0 && target == 0 {
		return false
	}
	step := (target - l.gain) / rampLen
	for i := range l.pcm {
		g := target
		if i < rampLen {
			g = l.gain + step*float32(i+1)
		}
		l.pcm[i] = int16(float32(l.pcm[i]) * g)
	}
	l.gain = target
	return true
}

// stepMode moves the encoder's mode towards what the peer takes: every second frame
// and to a neighbour only, as the most timid peer wants it (IMS.md §5.1). Up it goes when
// half a second got through without much loss.
func (l *leg) stepMode(n uint64) {
	if !l.kind.amr() || l.mode == l.limit || n&1 == 1 {
		return
	}
	if l.mode < l.limit {
		if l.rtcp.txLoss > lossHigh {
			l.raise = 0
			return
		}
		if l.raise += 2; l.raise < 25 {
			return
		}
	}
	if l.mode = l.st.stepMode(l.mode, l.limit); l.mode == l.limit {
		l.raise = 0
	}
}

// send sends a frame. NO_DATA is not sent, but who was in the middle of speech hears of
// the silence first.
func (l *leg) send(e *encoded, n uint64) {
	ts := l.tsBase + uint32(n)*l.st.step
	b := l.tx[:]
	speech := l.isSpeech(e.ft)
	var size int
	if e.ft == amr.NoData && !e.lost {
		if !l.spurt || !l.kind.dtx {
			return
		}
		e = &l.st.silence.sid[0]
	}
	pt := l.st.pt
	if e.ft == l.kind.sidType() {
		l.sidAt = n + l.kind.sidEvery()
		if l.kind.law() {
			pt = ptCN
		}
	}
	switch {
	case l.kind.amr():
		size = copy(b[12:], e.payload(l.kind.wide(), l.st.octetAlign))
		b[12] |= l.wish.cmr << 4
	case e.lost:
		l.seq++
		return
	default:
		size = copy(b[12:], e.bits)
	}
	rtp.PutHeader(b, speech && !l.spurt, pt, l.seq, ts, l.ssrc)
	l.spurt = speech
	l.seq++
	l.tap.Put(true, false, l.local[0], l.remote[0], b[:12+size])
	l.room.tx.send(l, 12+size)
}

// sent accounts for a packet of n octets that the kernel took, or did not take.
func (l *leg) sent(n int, taken bool) {
	if taken {
		l.txCount++
		l.txBytes += uint64(n - rtp.HeaderSize)
	} else {
		l.refused++
	}
}
