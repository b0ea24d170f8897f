package video

import (
	"fmt"
	"net/netip"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/mediapb"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// rateClasses are the bit rates that tiers have: legs that want nearly the same
// share one encoding.
var rateClasses = []int{64_000, 96_000, 128_000, 192_000, 256_000, 384_000, 512_000, 768_000, 1_000_000, 1_500_000, 2_000_000}

// keyPeriod is the time between key frames for a phone that cannot ask for one;
// keyPeriodUndecodable for one whose own pictures cannot be decoded either (IMS.md §5.3).
const keyPeriod, keyPeriodUndecodable = 2 * time.Second, time.Second

// tierKey is what makes two legs share an encoding.
type tierKey struct {
	source                        uint32 // whose stream is passed on as it is, and nothing else; 0: the mosaic
	width, height, fps, bps, mode int
	level                         h264.Level
}

// tier is one encoding of a conference's mosaic, or the stream of one of its legs, and the legs
// it goes to.
type tier struct {
	id      uint32
	key     tierKey
	profile string
	legs    []*leg // replaced whole, never changed: sendToTier reads it without the lock
}

func (t *tier) wire() wire.Tier {
	w := wire.Tier{ID: t.id, Width: t.key.width, Height: t.key.height, FPS: t.key.fps, BitrateBps: t.key.bps, Profile: t.profile}
	if t.key.mode == 0 {
		w.MaxSlice = rtp264.MaxSlice
	}
	for _, l := range t.legs {
		if every := l.keyEvery(); every != 0 && (w.KeyEvery == 0 || every < w.KeyEvery) {
			w.KeyEvery = every
		}
	}
	return w
}

// stream is a leg's negotiated video stream, checked.
type stream struct {
	pb       *mediapb.VideoStream
	recvPT   uint8 // what comes, beside pb.PayloadType
	remote   netip.AddrPort
	rtcp     netip.AddrPort
	anyPort  bool
	prefixes []netip.Prefix // latch nat
	key      tierKey
	feedback bool // key frames can be asked for, both ways
}

// newStream checks a VideoStream and picks its tier: size as the peer wants it, rate
// and frame rate within the level (H.264 Table A-1). Nil for nil.
func newStream(v *mediapb.VideoStream, maxFPS int, sockets bool) (*stream, error) {
	if v == nil {
		return nil, nil
	}
	bad := func(field string, format string, args ...any) (*stream, error) {
		return nil, fmt.Errorf("%w: video.%s: %s", ErrInvalid, field, fmt.Sprintf(format, args...))
	}
	if !sockets {
		return bad("remote", "the leg was opened without video sockets")
	}
	ip, err := netip.ParseAddr(v.GetRemote().GetIp())
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		return bad("remote.ip", "%q", v.GetRemote().GetIp())
	}
	port, rtcp := v.GetRemote().GetPort(), v.GetRemote().GetRtcpPort()
	if port == 0 || port > 65535 || rtcp > 65535 {
		return bad("remote.port", "%d, RTCP %d", port, rtcp)
	}
	if rtcp == 0 {
		rtcp = min(port+1, 65535)
	}
	recvPT := v.PayloadType
	if v.ReceivePayloadType != nil {
		recvPT = *v.ReceivePayloadType
	}
	if v.PayloadType > 127 {
		return bad("payload_type", "%d", v.PayloadType)
	}
	if recvPT > 127 {
		return bad("receive_payload_type", "%d", recvPT)
	}
	if v.PacketizationMode > 1 {
		return bad("packetization_mode", "%d", v.PacketizationMode)
	}
	if v.CvoExtension > 14 {
		return bad("cvo_extension", "%d is not a one-byte extension", v.CvoExtension)
	}
	if v.Dscp > 63 {
		return bad("dscp", "%d", v.Dscp)
	}
	level, err := h264.ParseLevel(v.ProfileLevelId)
	if err != nil {
		return bad("profile_level_id", "%q", v.ProfileLevelId)
	}
	s := &stream{pb: v, recvPT: uint8(recvPT), remote: netip.AddrPortFrom(ip.Unmap(), uint16(port)), rtcp: netip.AddrPortFrom(ip.Unmap(), uint16(rtcp)),
		anyPort: v.GetRemote().GetAnyPort(), feedback: (v.FbPli || v.FbFir) && !v.RtcpOff}
	for _, x := range v.GetRemote().GetNatPrefixes() {
		prefix, err := netip.ParsePrefix(x)
		if err != nil {
			return bad("remote.nat_prefixes", "%v", err)
		}
		s.prefixes = append(s.prefixes, prefix)
	}
	p := h264.Params{Width: int(v.Width), Height: int(v.Height), FPS: int(v.Fps), BitrateBps: int(v.BitrateBps), ProfileLevelID: v.ProfileLevelId}
	if p.Width == 0 && p.Height == 0 {
		p.Width, p.Height = 240, 320
	}
	if p.Width < 32 || p.Height < 32 {
		return bad("width", "%dx%d is too small", p.Width, p.Height)
	}
	if p.FPS == 0 || p.FPS > maxFPS {
		p.FPS = maxFPS
	}
	if p.BitrateBps == 0 {
		p.BitrateBps = 384_000
	}
	if p, err = h264.Fit(p); err != nil {
		return bad("width", "%v", err)
	}
	class := rateClasses[0]
	for _, c := range rateClasses {
		if c <= p.BitrateBps {
			class = c
		}
	}
	s.key = tierKey{width: p.Width, height: p.Height, fps: p.FPS, bps: class, mode: int(v.PacketizationMode), level: level}
	return s, nil
}

// rebuild puts every leg of a conference into the tier it needs, makes and ends
// tiers, and tells the video process. p.mu is held.
func (p *Plane) rebuild(c *conference) {
	members := map[tierKey][]*leg{}
	c.give()
	c.turnTo()
	for _, l := range c.legs {
		if key, ok := l.wantsTier(); ok && c.on && !l.off {
			if src := c.passed(l, key); src != nil {
				key = tierKey{source: src.source}
			} else {
				key = c.pressure.reduced(key)
			}
			members[key] = append(members[key], l)
		} else {
			l.leaveTier()
		}
	}
	for key, t := range c.tiers {
		if len(members[key]) == 0 {
			delete(c.tiers, key)
			delete(p.tiers, t.id)
			p.pass(key, 0)
		}
	}
	var joined []uint32
	for key, legs := range members {
		t := c.tiers[key]
		if t == nil {
			p.lastID++
			t = &tier{id: p.lastID, key: key, profile: legs[0].profile()}
			c.tiers[key] = t
			p.tiers[t.id] = t
			p.pass(key, t.id)
		}
		t.legs = legs
		for _, l := range legs {
			if l.joinTier(t.id, key.source != 0) {
				joined = append(joined, t.id)
			}
		}
	}
	p.tell(c)
	for _, id := range joined { // a joiner sees nothing before a key frame
		p.wantKey(id)
	}
}

// keyFrame has a tier begin anew for somebody.
func (p *Plane) keyFrame(tier uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wantKey(tier)
}

// wantKey is keyFrame with p.mu held.
func (p *Plane) wantKey(tier uint32) {
	t := p.tiers[tier]
	if t == nil {
		return
	}
	if src := p.sources[t.key.source]; src != nil {
		src.mu.Lock()
		src.rx.needKey(time.Now())
		src.mu.Unlock()
		return
	}
	p.box.keyFrame(tier) // the worker merges and limits
}

// retier puts a leg out of its tier or back in.
func (p *Plane) retier(l *leg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.confs[l.conf]; c != nil && p.legs[l.id] == l {
		p.rebuild(c)
	}
}

// sendToTier sends an encoded picture to every leg of its tier.
func (p *Plane) sendToTier(u *wire.Unit) {
	p.mu.Lock()
	var legs []*leg
	if t := p.tiers[u.ID]; t != nil {
		legs = t.legs
	}
	p.mu.Unlock()
	for _, l := range legs {
		l.send(u)
	}
}
