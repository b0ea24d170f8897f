package media

import (
	"fmt"
	"net/netip"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/opus"
	"sparkle/media/jitter"
	"sparkle/media/mediapb"
	"sparkle/media/port"
)

// plan is everything SetLeg changes of a leg, made outside the worker: it holds the
// allocations (coders, decoder), so that the worker only swaps pointers.
type plan struct {
	present, muted, deaf, held bool
	stream                     *stream // nil: nothing is received or sent
	kind                       coderKind

	// fresh are the coders and the decoder for a kind the leg did not have; after the
	// worker took them, old are the ones it gave back.
	fresh, old coders
	jb         *jitter.Buffer // goes with fresh
}

// coders is what a leg brings into its conference: its own encoder, one for the
// conference's shared ones (a group has at least one leg, so one per leg is enough),
// and its decoder.
type coders struct {
	own, shared *coder
	dec         *decoder
}

func (c *coders) free() {
	c.own.close()
	c.shared.close()
	c.dec.close()
	*c = coders{}
}

func (p *plan) free()    { p.fresh.free() }
func (p *plan) freeOld() { p.old.free() }

// stream is the negotiated audio of a leg. It is immutable.
type stream struct {
	kind       coderKind
	clock      int // Hz
	step       uint32
	pt, recvPT uint8
	octetAlign bool
	modes      uint16 // bit per allowed mode
	// How the mode of what is sent may change (mode-change-period=2, mode-change-neighbor=1):
	// our encoders always keep to it, others' frames are asked only where the peer wants it.
	everySecond, neighbor bool
	dtmfPT, dtmfRecvPT    uint8  // 0: none
	dtmfRate              uint32 // Hz
	remote                netip.AddrPort
	rtcpTo                netip.AddrPort
	anyPort               bool
	prefixes              []netip.Prefix // latch nat: where the peer may be too
	version               uint64         // of the peer's description
	send, recv            bool
	rtcpOff               bool
	silence               *silence // what it is sent while nobody is heard
	rs, rr                uint32   // b=RS and b=RR; both 0 without rtcpOff: not said
}

// coderKind is a codec as encoders see it: legs of one kind may share one.
type coderKind struct {
	codec mediapb.AudioStream_Codec
	dtx   bool // may send nothing in silence; G.711: comfort noise (RFC 3389)
	// opus is of Opus. Its encoder's own DTX stays off: the mix knows better than a detector
	// whether anybody is to be heard, which a tone is, and music.
	opus opus.Params
}

// ptCN is the payload type of comfort noise at 8 kHz (RFC 3551 §6).
const ptCN = 13

func (k coderKind) wide() bool { return k.codec == mediapb.AudioStream_AMR_WB }
func (k coderKind) amr() bool {
	return k.codec == mediapb.AudioStream_AMR_WB || k.codec == mediapb.AudioStream_AMR
}
func (k coderKind) isOpus() bool { return k.codec == mediapb.AudioStream_OPUS }
func (k coderKind) isG722() bool { return k.codec == mediapb.AudioStream_G722 }

// law says whether it is G.711.
func (k coderKind) law() bool {
	return k.codec == mediapb.AudioStream_PCMU || k.codec == mediapb.AudioStream_PCMA
}

// narrow says whether its samples are at 8 kHz, half of the mix's.
func (k coderKind) narrow() bool { return k.law() || k.codec == mediapb.AudioStream_AMR }

// sidType is the type of its frames of comfort noise.
func (k coderKind) sidType() uint8 {
	switch {
	case !k.amr():
		return ftComfort
	case k.wide():
		return amr.SIDWide
	}
	return amr.SIDNarrow
}

// sidEvery is how many frames lie between two updates of comfort noise (TS 26.093,
// TS 26.193 §5.1), and between two signs of life of what has no rule for it.
func (k coderKind) sidEvery() uint64 {
	if k.amr() {
		return 8
	}
	return 20
}

// maxBytes is the size of its largest frame.
func (k coderKind) maxBytes() int {
	if k.isOpus() {
		return opus.MaxBytes
	}
	return octetsOf20ms
}

// newPlan checks m and makes what a leg with coders of kind have needs anew. Errors
// are INVALID_ARGUMENT and name the field.
func newPlan(m *mediapb.Leg, pair *port.Pair, have coderKind) (*plan, error) {
	p := &plan{present: m.Present, muted: m.Muted, deaf: m.Deaf, held: m.Held}
	a := m.Audio
	if a == nil {
		return p, nil
	}
	s, err := newStream(a, pair)
	if err != nil {
		return nil, err
	}
	p.stream, p.kind = s, s.kind
	if s.kind == have {
		return p, nil
	}
	if p.fresh.own, err = newCoder(s.kind); err == nil {
		if p.fresh.shared, err = newCoder(s.kind); err == nil {
			p.fresh.dec, err = newDecoder(s.kind)
		}
	}
	if err != nil {
		p.free()
		return nil, invalid("audio.codec", err.Error())
	}
	p.jb = jitter.New(s.step, s.kind.maxBytes())
	return p, nil
}

func newStream(a *mediapb.AudioStream, pair *port.Pair) (*stream, error) {
	s := &stream{
		kind: coderKind{codec: a.Codec}, clock: 8000, octetAlign: a.OctetAlign,
		send: a.Send, recv: a.Recv, rtcpOff: a.RtcpOff, rs: a.RtcpRsBps, rr: a.RtcpRrBps,
	}
	top := 0 // highest mode
	switch a.Codec {
	case mediapb.AudioStream_AMR_WB:
		s.clock, top = 16000, 8
	case mediapb.AudioStream_AMR:
		top = 7
	case mediapb.AudioStream_PCMU, mediapb.AudioStream_PCMA:
		s.kind.dtx = a.ComfortNoise
	case mediapb.AudioStream_G722: // its clock is 8000 by an old mistake (RFC 3551 §4.5.2)
	case mediapb.AudioStream_OPUS:
		s.clock = 48000
		s.kind.dtx, s.kind.opus = a.Dtx, opusParams(a)
	default:
		return nil, invalid("audio.codec", fmt.Sprintf("%v is not known", a.Codec))
	}
	if len(a.ModeSet) > 0 && !s.kind.amr() {
		return nil, invalid("audio.mode_set", fmt.Sprintf("%v has no modes", a.Codec))
	}
	s.step = uint32(s.clock / 50)
	if s.kind.amr() {
		s.kind.dtx = a.Dtx
		s.everySecond, s.neighbor = a.ModeChangePeriod == 2, a.ModeChangeNeighbor
		if a.ModeChangePeriod > 2 {
			return nil, invalid("audio.mode_change_period", fmt.Sprintf("%d is neither 1 nor 2", a.ModeChangePeriod))
		}
		for _, mode := range a.ModeSet {
			if mode > uint32(top) {
				return nil, invalid("audio.mode_set", fmt.Sprintf("mode %d is above %d", mode, top))
			}
			s.modes |= 1 << mode
		}
		if s.modes == 0 {
			s.modes = 1<<(top+1) - 1
		}
	}
	if err := s.setTypes(a); err != nil {
		return nil, err
	}
	s.dtmfRate = a.DtmfRateHz
	if s.dtmfRate == 0 {
		s.dtmfRate = uint32(s.clock)
	}
	return s, s.setRemote(a.Remote, pair)
}

// setTypes takes the payload types, of what is sent and of what comes.
func (s *stream) setTypes(a *mediapb.AudioStream) (err error) {
	if s.pt, s.dtmfPT, err = payloadTypes("audio.", a.PayloadType, a.DtmfPayloadType); err != nil {
		return err
	}
	speech, keys := a.PayloadType, a.DtmfPayloadType
	if a.ReceivePayloadType != nil {
		speech = *a.ReceivePayloadType
	}
	if a.ReceiveDtmfPayloadType != nil {
		keys = *a.ReceiveDtmfPayloadType
	}
	s.recvPT, s.dtmfRecvPT, err = payloadTypes("audio.receive_", speech, keys)
	return err
}

// payloadTypes are those of one direction, where they can be told apart.
func payloadTypes(fields string, speech, keys uint32) (pt, dtmfPT uint8, err error) {
	if speech > 127 || speech >= 64 && speech <= 95 {
		return 0, 0, invalid(fields+"payload_type", fmt.Sprintf("%d is not an RTP payload type (RFC 5761 §4)", speech))
	}
	if keys > 127 || keys != 0 && keys == speech {
		return 0, 0, invalid(fields+"dtmf_payload_type", fmt.Sprintf("%d is no payload type of its own", keys))
	}
	return uint8(speech), uint8(keys), nil
}

// isKey says whether packets of a type are of telephone-event. A number that is one thing of
// ours and another of the peer's is ours: that is what it should send (RFC 3264 §6.1).
func (s *stream) isKey(pt uint8) bool {
	return s.dtmfRecvPT != 0 && pt != s.recvPT && (pt == s.dtmfRecvPT || pt == s.dtmfPT)
}

// opusParams are the peer's limits (RFC 7587 §6.1) as our encoder knows them: those that
// are none for us leave the zero value, so that most legs share one encoder.
func opusParams(a *mediapb.AudioStream) opus.Params {
	p := opus.Params{FEC: a.Fec}
	if a.MaxBitrateBps != 0 && a.MaxBitrateBps < opus.Bitrate {
		p.BitrateBps = max(int(a.MaxBitrateBps), 6000)
	}
	switch hz := a.MaxPlaybackHz; {
	case hz == 0 || hz >= 16000:
	case hz >= 12000:
		p.Band = opus.Medium
	default:
		p.Band = opus.Narrow
	}
	return p
}

// setRemote refuses what no peer can mean: sending there would hit ourselves, a group
// or nobody (IMS.md §5.5).
func (s *stream) setRemote(r *mediapb.Remote, pair *port.Pair) error {
	if r == nil {
		if s.send || s.recv {
			return invalid("audio.remote", "is missing")
		}
		return nil
	}
	ip, err := netip.ParseAddr(r.Ip)
	if err != nil {
		return invalid("audio.remote.ip", err.Error())
	}
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified() && !s.send && !s.recv: // c=0.0.0.0 is RFC 2543's hold
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return invalid("audio.remote.ip", ip.String()+" is not a host")
	case ip.Is4() != pair.IP.Is4():
		return invalid("audio.remote.ip", fmt.Sprintf("%v cannot be reached from %v", ip, pair.IP))
	case ip.IsLoopback() && !pair.IP.IsLoopback():
		return invalid("audio.remote.ip", ip.String()+" is this host")
	}
	if r.Port > 65535 || r.RtcpPort > 65535 || r.Port == 0 && (s.send || s.recv) {
		return invalid("audio.remote.port", fmt.Sprintf("%d/%d is not a port", r.Port, r.RtcpPort))
	}
	if ip == pair.IP && (uint16(r.Port) == pair.Port || uint16(r.Port) == pair.Port+1) {
		return invalid("audio.remote.port", "is the leg's own port")
	}
	if ip.IsUnspecified() || r.Port == 0 {
		return nil // on hold in the old way: nowhere to send, nobody to hear
	}
	rtcp := uint16(r.RtcpPort)
	if rtcp == 0 && r.Port < 65535 {
		rtcp = uint16(r.Port) + 1
	}
	s.remote, s.rtcpTo = netip.AddrPortFrom(ip, uint16(r.Port)), netip.AddrPortFrom(ip, rtcp)
	s.anyPort, s.version = r.AnyPort, r.Version
	for _, p := range r.NatPrefixes {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return invalid("audio.remote.nat_prefixes", err.Error())
		}
		s.prefixes = append(s.prefixes, prefix)
	}
	return nil
}
