package video

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"sparkle/media/latch"
	"sparkle/media/mediapb"
	mrtp "sparkle/media/rtp"
	"sparkle/media/tap"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

const (
	// undecodable is how long packets may come without a picture before it is said.
	undecodable = 10 * time.Second
	videoClock  = 90000
)

// leg is one phone's video. The first group is guarded by the Plane's mutex, the
// second never changes, the third is guarded by mu.
type leg struct {
	name                             string
	present, muted, videoMuted, held bool
	off, saidOff                     bool // its video has given way to CPU pressure

	p      *Plane
	id     string
	conf   string
	source uint32 // under which the video process knows its pictures
	sock   Sockets
	own    netip.Addr // of the sockets
	wg     sync.WaitGroup

	passMu sync.Mutex // keeps pictures that are passed on in order; taken before all others

	tap atomic.Pointer[tap.Tap] // copies of its packets go there; nil: nowhere

	mu     sync.Mutex
	closed bool
	stream *stream
	live   bool // present, so media flows
	away   bool // gives no sign of life: is sent nothing
	tier   uint32
	tx     sender
	rx     receiver
	ctl    control
}

// sender is our stream to the phone.
type sender struct {
	pack    rtp264.Packetizer
	ssrc    uint32
	seq     uint16
	base    uint32 // RTP timestamp of the epoch
	epoch   time.Time
	waitKey bool // nothing is sent before a key frame
	passed  bool // what is sent is another leg's stream
	buf     []byte
	packets uint64
	octets  uint64 // payload
	bytes   uint64 // datagrams
	refused uint64
	keys    uint64
	askedBy uint64 // key-frame requests of the phone
	lastFIR int    // its sequence number, -1: none yet
	limit   sendLimit
	loss    lossLimit
	cache   *cache // nil: no NACK was negotiated
	nacked  uint64 // packets that the phone asked for again
	resent  uint64 // of these
}

// receiver is the phone's stream to us.
type receiver struct {
	gate      latch.Gate
	reorder   rtp264.Reorder
	depay     rtp264.Depacketizer
	meter     meter
	ssrc      uint32
	known     bool // ssrc is set
	newSSRC   uint32
	newCount  int
	first     time.Time // packet since the remote was set
	last      time.Time // RTP
	lastAny   time.Time // RTP or RTCP
	started   bool      // MediaStarted was sent
	reported  bool      // RTCP came
	stalled   bool
	bytes     uint64
	dropped   uint64
	stranger  uint64
	passTo    uint32 // the tier that is sent the stream as it is, 0: none
	passing   []wire.Unit
	passAt    time.Time // of RTP time passTime
	passTime  uint32
	turned    bool // its orientation changed: it may have to be passed on no more
	bps       int  // of the last second
	bpsAt     time.Time
	bpsBytes  uint64
	srNTP     uint64 // of its last sender report, 0: none
	srTime    uint32
	lag       time.Duration // Plane.Heard
	rotate    uint8
	mirror    bool
	width     int
	height    int
	shown     bool // the video process is to have its pictures
	fresh     bool // its decoder there is new and has seen nothing
	flowing   bool // a picture came out of the decoder
	hopeless  bool // undecodable was said
	needSince time.Time
	needTries int
	needSets  []byte // the peer's sprop, to go before the first key frame
	asked     uint64
	lastAsk   time.Time
	asks      [chased]ask // of missing packets, by sequence number
	missing   [chased]uint16
	nacked    uint64 // packets that were asked for again
	recovered uint64 // of these
	mended    uint64 // since the stream began
}

func newLeg(p *Plane, id, conf string, source uint32, sock Sockets) *leg {
	var seed [16]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	l := &leg{p: p, id: id, conf: conf, source: source, sock: sock}
	l.tx = sender{ssrc: binary.BigEndian.Uint32(seed[0:]), seq: binary.BigEndian.Uint16(seed[4:]) & 0x7fff,
		base: binary.BigEndian.Uint32(seed[6:]), epoch: time.Now(), lastFIR: -1, buf: make([]byte, 0, 1600)}
	if sock.RTP != nil {
		l.own = sock.RTP.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	}
	l.ctl.cname = hex.EncodeToString(seed[10:]) // random per leg, no host name (IMS.md §5.4)
	return l
}

// set takes the leg's new stream. A changed remote starts reception anew; a changed
// tier is rebuild's business. p.mu is held.
func (l *leg) set(s *stream, live bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.stream
	if s != nil && (old == nil || old.remote != s.remote || old.rtcp != s.rtcp || old.pb.PayloadType != s.pb.PayloadType || old.recvPT != s.recvPT) {
		r := &l.rx
		r.known, r.first, r.newCount = false, time.Time{}, 0
		r.last, r.lastAny, r.stalled, r.flowing, r.hopeless = now, now, false, false, false
		r.needSets = rtp264.ParseSprop(s.pb.SpropIn)
		l.away = false
		l.tx.limit, l.tx.loss, l.ctl.recv = sendLimit{}, lossLimit{}, receiveRate{}
		l.setDSCP(s)
	}
	if s != nil && s.pb.FbNack && l.tx.cache == nil {
		l.tx.cache = &cache{}
	}
	if s != nil && live && !l.live {
		l.rx.last, l.rx.lastAny = now, now
	}
	l.stream, l.live = s, live
	l.gates(now)
}

func (l *leg) setDSCP(s *stream) {
	tos := int(s.pb.Dscp) << 2
	for _, c := range []*net.UDPConn{l.sock.RTP, l.sock.RTCP} {
		// Best effort: a kernel that refuses it still sends.
		if s.remote.Addr().Is4() {
			_ = ipv4.NewConn(c).SetTOS(tos)
		} else {
			_ = ipv6.NewConn(c).SetTrafficClass(tos)
		}
	}
}

func (l *leg) receives() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream != nil && l.stream.pb.Recv
}

// hasVideo says whether the leg is in the conference with a video stream.
func (l *leg) hasVideo() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream != nil && l.live && (l.stream.pb.Recv || l.stream.pb.Send)
}

// keyEvery is how often the phone is sent a key frame unasked; 0: it can ask for one.
func (l *leg) keyEvery() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stream == nil || l.stream.feedback:
		return 0
	case l.rx.hopeless:
		return keyPeriodUndecodable
	}
	return keyPeriod
}

func (l *leg) profile() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream.pb.ProfileLevelId
}

// wantsTier is the tier that the leg should be in, if any.
func (l *leg) wantsTier() (tierKey, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil || !l.live || l.away || !l.stream.pb.Send {
		return tierKey{}, false
	}
	key := l.stream.key
	key.bps = within(key.bps, min(l.tx.limit.rate(key.bps), l.tx.loss.rate(key.bps)))
	return key, key.bps > 0
}

func (l *leg) leaveTier() {
	l.mu.Lock()
	l.tier = 0
	l.mu.Unlock()
}

// joinTier puts the leg into a tier; true if it was not in it.
func (l *leg) joinTier(id uint32, passed bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tier == id {
		return false
	}
	l.tier, l.tx.waitKey, l.tx.passed = id, true, passed
	l.tx.pack.Mode = int(l.stream.pb.PacketizationMode)
	return true
}

// send packetises one encoded picture for this leg.
func (l *leg) send(u *wire.Unit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.tier != u.ID || l.stream == nil {
		return
	}
	t := &l.tx
	if u.Damaged && !u.Key {
		t.waitKey = true
	}
	if t.waitKey && !u.Key {
		return
	}
	t.waitKey = false
	if u.Key {
		t.keys++
	}
	ts, now := t.timestamp(time.Unix(0, u.At)), time.Now()
	err := t.pack.Packetize(u.Data, func(payload []byte, last bool) error {
		// How pictures are to be turned is in the last packet of a key frame, and of every
		// picture of another phone, which may be turned at any time (TS 26.114 §7.4.5). The
		// mosaic is upright.
		l.sendPacket(payload, ts, last, last && (u.Key || t.passed), orientation(u), now)
		return nil
	})
	if err != nil { // the encoder made a slice that mode 0 cannot carry: only a new picture helps
		t.refused++
		t.waitKey = true
		l.p.box.keyFrame(l.tier)
	}
}

// orientation is the CVO byte of a picture.
func orientation(u *wire.Unit) byte {
	b := u.Rotate & 3
	if u.Mirror {
		b |= 4
	}
	return b
}

// timestamp is the RTP time of an instant, by the wall clock: that is what pictures are stamped
// with in the video process, and what sender reports say beside it.
func (t *sender) timestamp(at time.Time) uint32 {
	return t.base + uint32(at.Round(0).Sub(t.epoch).Microseconds()*(videoClock/1000)/1000)
}

// sendPacket writes one RTP packet. l.mu is held; UDP sockets do not make us wait
// beyond the kernel's own time, and a refusal is counted.
func (l *leg) sendPacket(payload []byte, ts uint32, marker, oriented bool, orientation byte, now time.Time) {
	t := &l.tx
	b := append(t.buf[:0], 0x80, byte(l.stream.pb.PayloadType))
	if marker {
		b[1] |= 0x80
	}
	b = binary.BigEndian.AppendUint16(b, t.seq)
	b = binary.BigEndian.AppendUint32(b, ts)
	b = binary.BigEndian.AppendUint32(b, t.ssrc)
	if id := l.stream.pb.CvoExtension; id != 0 && oriented { // a one-byte header extension (RFC 8285)
		b[0] |= 0x10
		b = append(b, 0xbe, 0xde, 0, 1, byte(id<<4), orientation, 0, 0)
	}
	b = append(b, payload...)
	if t.cache != nil && l.stream.pb.FbNack {
		t.cache.put(t.seq, b, now)
	}
	t.seq++
	if l.write(b) {
		t.octets += uint64(len(payload))
	}
}

// write sends an RTP packet; l.mu is held.
func (l *leg) write(b []byte) bool {
	t := &l.tx
	to := l.rx.gate.To()
	l.tapped(true, false, l.sock.RTP, to, b)
	if _, err := l.sock.RTP.WriteToUDPAddrPort(b, to); err != nil {
		t.refused++
		return false
	}
	t.packets++
	t.bytes += uint64(len(b))
	return true
}

// tapped copies a datagram for whoever captures the leg.
func (l *leg) tapped(sent, rtcp bool, sock *net.UDPConn, remote netip.AddrPort, b []byte) {
	if t := l.tap.Load(); t != nil {
		local := sock.LocalAddr().(*net.UDPAddr).AddrPort()
		t.Put(sent, rtcp, netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), b)
	}
}

// readRTP receives until the socket is closed.
func (l *leg) readRTP() {
	buf := make([]byte, 2048)
	var pkt rtp.Packet
	for {
		n, from, err := l.sock.RTP.ReadFromUDPAddrPort(buf)
		if err != nil {
			if stopped(err) {
				return
			}
			continue // ICMP's news about something we sent
		}
		now := time.Now()
		l.tapped(false, false, l.sock.RTP, from, buf[:n])
		l.mu.Lock()
		events := l.receive(buf[:n], from, now, &pkt)
		passing, turned := len(l.rx.passing) > 0, l.rx.turned
		l.rx.turned = false
		l.mu.Unlock()
		if passing {
			l.sendPassing()
		}
		if turned {
			l.p.retier(l)
		}
		l.emit(now, events)
	}
}

// receive takes one datagram. l.mu is held. It returns events to be emitted.
func (l *leg) receive(b []byte, from netip.AddrPort, now time.Time, pkt *rtp.Packet) []*mediapb.Event {
	r, s := &l.rx, l.stream
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if s == nil || l.closed {
		r.dropped++
		return nil
	}
	if !r.gate.May(from) {
		r.stranger++
		return nil
	}
	*pkt = rtp.Packet{}
	if err := pkt.Unmarshal(b); err != nil || pkt.Version != 2 || pkt.PayloadType != s.recvPT && uint32(pkt.PayloadType) != s.pb.PayloadType || !s.pb.Recv || !l.live {
		r.dropped++
		return nil
	}
	if !r.gate.Take(from, pkt.SSRC, pkt.SequenceNumber, l.since(now)) {
		r.stranger++
		return nil
	}
	l.ctl.gate.Follow(r.gate.Host())
	if !r.known || pkt.SSRC != r.ssrc {
		if !r.takeSSRC(pkt.SSRC) {
			r.dropped++
			return nil
		}
		r.needKey(now)
	}
	var events []*mediapb.Event
	if r.first.IsZero() {
		r.first = now
	}
	if !r.started {
		r.started = true
		events = append(events, &mediapb.Event{What: &mediapb.Event_MediaStarted{MediaStarted: &mediapb.MediaStarted{Kind: "video"}}})
	}
	if r.stalled {
		r.stalled = false
		events = append(events, &mediapb.Event{What: &mediapb.Event_MediaResumed{MediaResumed: &mediapb.MediaResumed{Kind: "video"}}})
	}
	r.last, r.lastAny = now, now
	r.bytes += uint64(len(b))
	r.meter.add(pkt.SequenceNumber, pkt.Timestamp, now)
	if id := s.pb.CvoExtension; id != 0 {
		if ext := pkt.GetExtension(uint8(id)); len(ext) > 0 {
			rotate, mirror := ext[0]&3, ext[0]&4 != 0
			r.turned = r.turned || rotate != r.rotate || mirror != r.mirror
			r.rotate, r.mirror = rotate, mirror
		}
	}
	if len(pkt.Payload) == 0 {
		return events
	}
	r.answered(pkt.SequenceNumber)
	r.reorder.Patient = l.chases()
	r.reorder.Push(pkt.Payload, pkt.SequenceNumber, pkt.Timestamp, pkt.Marker, func(pl []byte, seq uint16, ts uint32, marker bool) {
		r.depay.Push(pl, seq, ts, marker, func(au rtp264.AccessUnit) { l.unit(au, now) })
	})
	l.chase(now)
	return events
}

// gates tells them whom signalling names. l.mu is held.
func (l *leg) gates(now time.Time) {
	if l.stream == nil {
		return
	}
	p := latch.Policy{Want: l.stream.remote, AnyPort: l.stream.anyPort, Prefixes: l.stream.prefixes, Own: l.own, Version: l.stream.pb.GetRemote().GetVersion(), Live: l.live}
	l.rx.gate.Set(p, l.since(now))
	p.Want = l.stream.rtcp
	l.ctl.gate.Set(p, l.since(now))
	l.ctl.gate.Follow(l.rx.gate.Host())
}

// since is the leg's own time.
func (l *leg) since(now time.Time) time.Duration { return now.Sub(l.tx.epoch) }

// takeSSRC decides about a packet of another stream: the first is taken at once, a
// later change after three packets in a row, so that a stray one changes nothing.
func (r *receiver) takeSSRC(ssrc uint32) bool {
	if r.known {
		if r.newSSRC != ssrc {
			r.newSSRC, r.newCount = ssrc, 0
		}
		if r.newCount++; r.newCount < 3 {
			return false
		}
	}
	r.ssrc, r.known, r.newCount = ssrc, true, 0
	r.reorder.Reset()
	r.depay.Reset()
	r.meter.reset()
	r.asks, r.mended = [chased]ask{}, 0
	r.rotate, r.mirror = 0, false
	r.srNTP = 0
	return true
}

// unit hands an access unit to the video process.
func (l *leg) unit(au rtp264.AccessUnit, now time.Time) {
	r := &l.rx
	if !r.shown {
		return
	}
	u := wire.Unit{ID: l.source, Key: au.Key, Damaged: au.Damaged, Rotate: r.rotate, Mirror: r.mirror, At: r.due(au.Timestamp, now).UnixNano(), Data: au.Data}
	if au.Key && len(r.needSets) > 0 {
		u.Data = append(r.needSets[:len(r.needSets):len(r.needSets)], au.Data...) // in-band sets come later and win
	}
	if r.passTo != 0 {
		l.passOn(u, au.Timestamp, now)
	}
	if !l.p.box.unit(&u) || au.Damaged && !au.Key { // whether a key frame is whole, its decoder says
		r.needKey(now)
		return
	}
	if au.Key {
		r.needSince, r.needTries = time.Time{}, 0
	}
}

// mostAhead bounds how long a picture waits for its sound: the deepest jitter buffer of audio
// and a little. farthest is how much a picture's due may be off its arrival before the two
// clocks that it is worked out by are taken for unrelated.
const mostAhead, farthest = 300 * time.Millisecond, 2 * time.Second

// due is when a picture that came at now is to be shown: together with the sound of the same
// instant, which waits in a jitter buffer (IMS.md §5.4), as far as the phone's sender reports
// tell. A picture that is later than its sound is shown at once.
func (r *receiver) due(ts uint32, now time.Time) time.Time {
	if r.srNTP == 0 || r.lag == 0 {
		return now
	}
	taken := mrtp.Wall(r.srNTP) + int64(int32(ts-r.srTime))*int64(time.Second)/videoClock
	wait := time.Unix(0, taken).Add(r.lag).Sub(now)
	if wait <= 0 || wait > farthest {
		return now
	}
	return now.Add(min(wait, mostAhead))
}

// show says whether the leg's pictures are wanted: those that no tile shows are not decoded.
// One that is shown again begins anew.
func (l *leg) show(on bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.rx
	if r.shown == on {
		return
	}
	r.shown, r.flowing, r.hopeless = on, false, false
	r.first, r.needSince = time.Time{}, time.Time{}
	if on {
		l.anew(now)
	}
}

// anew is for a decoder that has just begun: it needs a key frame. l.mu is held.
func (l *leg) anew(now time.Time) {
	l.rx.fresh = true
	l.p.box.await(l.source)
	if l.rx.known {
		l.rx.needSince = time.Time{}
		l.rx.needKey(now)
	}
}

// needKey notes that the phone has to send a key frame; beat asks.
func (r *receiver) needKey(now time.Time) {
	if r.needSince.IsZero() {
		r.needSince, r.needTries = now, 0
	}
}

// news is what the decoder says about our pictures.
func (l *leg) news(s wire.Source, now time.Time) {
	l.mu.Lock()
	r := &l.rx
	var events []*mediapb.Event
	hopeless := r.hopeless
	switch {
	case !r.shown: // it was, a moment ago
	case s.NeedKey:
		r.needKey(now)
	case !r.flowing || r.width != s.Width || r.height != s.Height:
		r.flowing, r.hopeless, r.width, r.height = true, false, s.Width, s.Height
		events = append(events, videoState("flowing", s.Width, s.Height))
		fallthrough
	default:
		r.fresh = false
	}
	turned := hopeless != r.hopeless || len(events) > 0
	l.mu.Unlock()
	l.emit(now, events)
	if turned {
		l.p.retier(l)
	}
}

func videoState(state string, w, h int) *mediapb.Event {
	return &mediapb.Event{What: &mediapb.Event_VideoState{VideoState: &mediapb.VideoState{State: state, Width: uint32(w), Height: uint32(h)}}}
}

// emit sends events of this leg; no lock is held.
func (l *leg) emit(now time.Time, events []*mediapb.Event) {
	for _, e := range events {
		e.At, e.Conference, e.Leg = now.UnixNano(), l.conf, l.id
		l.p.opt.Emit(e)
	}
}

// close says goodbye, closes the sockets and waits for their readers.
func (l *leg) close() *mediapb.StreamStats {
	l.mu.Lock()
	if l.stream != nil && l.sock.RTCP != nil && !l.closed {
		l.goodbye()
	}
	l.closed = true
	l.tier = 0
	l.mu.Unlock()
	l.sock.close()
	l.wg.Wait()
	if l.sock.RTP == nil {
		return nil
	}
	return l.statistics(time.Now())
}
