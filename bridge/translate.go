package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// This file is where a session description becomes streams and words: the only one
// that knows both sdp and mediapb.

// DSCP of what we send: EF for voice, AF41 for video (IMS.md §5.5).
const (
	DSCPAudio = 46
	DSCPVideo = 34
)

// makeOffer writes our offer, the first or one that follows, and remembers it.
func (l *leg) makeOffer(now time.Time) ([]byte, error) {
	b, s, err := l.draftOffer(now, l.wantsPic)
	if err == nil {
		l.local = s
	}
	return b, err
}

// draftOffer writes an offer with video or without, in the places of the last description.
func (l *leg) draftOffer(now time.Time, video bool) ([]byte, *sdp.Session, error) {
	addr, err := netip.ParseAddr(l.profile.LocalIP)
	if err != nil {
		return nil, nil, fmt.Errorf("media address: %w", err)
	}
	b := sdp.Offer(sdp.OfferOptions{
		Origin: sdp.NewOrigin(now), Addr: addr, AudioPort: l.audio,
		Video: video && l.video != 0, VideoPort: l.video, Previous: l.local,
		AVPF: sdp.AVPF(l.profile.VideoAVPF), Opus: l.profile.OfferOpus, G711: l.profile.OfferG711, Sprop: l.sprop,
	})
	s, err := sdp.Parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("own offer: %w", err)
	}
	return b, s, nil
}

// answerOffer answers an offer of the peer; on an error nothing has changed.
func (l *leg) answerOffer(now time.Time, offer *sdp.Session, video bool) ([]byte, sdp.Result, error) {
	b, own, res, err := l.draftAnswer(now, l.local, offer, video)
	if err == nil {
		l.local = own
	}
	return b, res, err
}

// draftAnswer writes an answer that follows our description before.
func (l *leg) draftAnswer(now time.Time, before, offer *sdp.Session, video bool) ([]byte, *sdp.Session, sdp.Result, error) {
	addr, err := netip.ParseAddr(l.profile.LocalIP)
	if err != nil {
		return nil, nil, sdp.Result{}, fmt.Errorf("media address: %w", err)
	}
	var peer sdp.Origin
	if l.agreed != nil {
		peer = l.agreed.Origin
	}
	b, res, err := sdp.Answer(offer, sdp.AnswerOptions{
		Origin: sdp.NewOrigin(now), Previous: before, Peer: peer, Addr: addr, AudioPort: l.audio,
		Video: video && l.video != 0, VideoPort: l.video, Sprop: l.sprop,
		NoAVPF: sdp.AVPF(l.profile.VideoAVPF) == sdp.PlainAVP,
	})
	if err != nil {
		return nil, nil, res, err
	}
	own, err := sdp.Parse(b)
	if err != nil {
		return nil, nil, res, fmt.Errorf("own answer: %w", err)
	}
	return b, own, res, nil
}

// settled is what became of an offer of ours: what the phone answered to it, or, where an
// UPDATE came in between (local), the last of both sides.
func (b *Bridge) settled(offer *sdp.Session, theirs, local []byte, offered bool) (own *sdp.Session, res sdp.Result, err error) {
	own = offer
	if local != nil {
		if own, err = sdp.Parse(local); err != nil {
			return offer, res, fmt.Errorf("own description: %w", err)
		}
	}
	s, err := b.parse(theirs)
	switch {
	case err != nil:
	case offered:
		res, err = sdp.Agreed(s, own)
	default:
		res, err = sdp.Negotiate(own, s)
	}
	if res.WhyNoVideo == sdp.VideoNotOffered && offer.Video != nil && offer.Video.Port != 0 {
		res.WhyNoVideo = sdp.VideoRefused // in between
	}
	return own, res, err
}

// describe says in the API's words what was agreed.
func describe(res sdp.Result, fallback string) Media {
	var m Media
	if res.Audio == nil {
		why := reasonRemoved
		m.WhyNoAudio = &why
	}
	if a := res.Audio; a != nil {
		m.Audio = &AudioMedia{Codec: a.Codec, Payload: a.PT}
		if a.Codec == "AMR" || a.Codec == "AMR-WB" {
			m.Audio.Mode = "bandwidth-efficient"
			if a.OctetAlign {
				m.Audio.Mode = "octet-align"
			}
		}
	}
	if v := res.Video; v != nil && res.WhyNoVideo == "" {
		m.Video = &VideoMedia{Codec: "H264", Profile: v.Profile.String(), Width: v.Width, Height: v.Height}
		return m
	}
	why := res.WhyNoVideo
	if fallback != "" {
		why = fallback
	}
	if why == "" {
		why = sdp.VideoNotOffered
	}
	m.WhyNoVideo = &why
	return m
}

func mediaWords(m Media) string {
	s := "no audio"
	if m.Audio != nil {
		s = m.Audio.Codec
	}
	if m.Video != nil {
		return fmt.Sprintf("%s, H264 %s %dx%d", s, m.Video.Profile, m.Video.Width, m.Video.Height)
	}
	if m.WhyNoVideo != nil {
		s += ", no video: " + *m.WhyNoVideo
	}
	return s
}

var audioCodecs = map[string]mediapb.AudioStream_Codec{
	"AMR": mediapb.AudioStream_AMR, "AMR-WB": mediapb.AudioStream_AMR_WB,
	"PCMU": mediapb.AudioStream_PCMU, "PCMA": mediapb.AudioStream_PCMA,
	"opus": mediapb.AudioStream_OPUS, "G722": mediapb.AudioStream_G722,
}

// mediaLeg is the engine's half of a leg: present only once connected, so that
// nothing is sent to a phone that only rings, and let in.
func mediaLeg(l *leg) *mediapb.Leg {
	out := &mediapb.Leg{Id: l.ID, Present: l.ConnectedAt != nil && l.door == nil}
	if a := l.agreed.Audio; a != nil {
		out.Audio = &mediapb.AudioStream{
			Remote: remote(a.Remote, l.profile, l.agreed.Origin.Version), Codec: audioCodecs[a.Codec],
			PayloadType: uint32(a.PT), ReceivePayloadType: new(uint32(a.RecvPT)), OctetAlign: a.OctetAlign,
			DtmfPayloadType: uint32(a.DTMFPT), ReceiveDtmfPayloadType: new(uint32(a.DTMFRecvPT)), DtmfRateHz: uint32(a.DTMFRateHz),
			Send: a.Send, Recv: a.Recv, Dtx: a.Codec != "opus" || a.Opus.DTX, ComfortNoise: a.CN,
			Fec: a.Opus.FEC, MaxBitrateBps: uint32(a.Opus.MaxBitrate), MaxPlaybackHz: uint32(a.Opus.MaxPlayback),
			RtcpRsBps: rtcpShare(a.RS, a.AS, senders), RtcpRrBps: rtcpShare(a.RR, a.AS, receivers),
			RtcpOff: a.RTCPOff(), Dscp: DSCPAudio, ModeChangePeriod: uint32(a.ModeChangePeriod), ModeChangeNeighbor: a.ModeChangeNeighbor,
		}
		for _, mode := range a.ModeSet {
			out.Audio.ModeSet = append(out.Audio.ModeSet, uint32(mode))
		}
	}
	// A video stream has a peer or is none; in an old-style hold it has none for a while.
	if v := l.agreed.Video; v != nil && remote(v.Remote, l.profile, l.agreed.Origin.Version) != nil {
		out.Video = &mediapb.VideoStream{
			Remote: remote(v.Remote, l.profile, l.agreed.Origin.Version), PayloadType: uint32(v.PT),
			ReceivePayloadType: new(uint32(v.RecvPT)), PacketizationMode: uint32(v.PacketizationMode),
			ProfileLevelId: v.Profile.String(), Width: uint32(v.Width), Height: uint32(v.Height), Fps: uint32(v.FPS),
			BitrateBps: uint32(v.BitrateBps), SpropIn: v.Sprop, Send: v.Send, Recv: v.Recv, FbPli: v.PLI, FbFir: v.FIR,
			CvoExtension: uint32(v.CVO), RtcpRsBps: rtcpShare(v.RS, v.AS, senders), RtcpRrBps: rtcpShare(v.RR, v.AS, receivers),
			RtcpOff: v.RTCPOff(), Dscp: DSCPVideo, FbNack: v.NACK, FbTmmbr: v.TMMBR, TrrIntMs: uint32(v.TrrInt),
		}
	}
	return out
}

// remote is where the peer receives; nil while an old-style hold lasts (c=0.0.0.0):
// nothing flows then, and there is no such address.
func remote(r sdp.Remote, p sip.MediaProfile, version uint64) *mediapb.Remote {
	if !r.Addr.IsValid() || r.Addr.IsUnspecified() {
		return nil
	}
	out := &mediapb.Remote{Ip: r.Addr.String(), Port: uint32(r.Port), RtcpPort: uint32(r.RTCPPort), AnyPort: p.AnyPort, Version: version}
	for _, x := range p.NATPrefixes {
		out.NatPrefixes = append(out.NatPrefixes, x.String())
	}
	return out
}

// Bits of RTCP a second for each kbit/s of media, where nothing else is said: 5 %, a quarter
// of it for senders (RFC 3556 §2).
const (
	senders   = 12.5
	receivers = 37.5
)

// rtcpShare is b=RS or b=RR in bit/s; where it is absent (-1), its share of b=AS; 0: neither
// was said.
func rtcpShare(said, as int, share float64) uint32 {
	if said >= 0 {
		return uint32(said)
	}
	return uint32(max(0, as) * int(share*10) / 10)
}

// inviteVerdict is for a call that the UA did not even begin.
func inviteVerdict(err error) verdict {
	v := verdict{outcome: NetworkError, text: Text{Zh: "呼叫未能发出", En: "The call could not be placed."}}
	switch {
	case errors.Is(err, sip.ErrAttachmentDown), errors.Is(err, sip.ErrUnknownAttachment):
		v.text = Text{Zh: "与运营商的连接已断开，呼叫未发出", En: "The connection to the carrier is down; the call was not placed."}
	case errors.Is(err, sip.ErrBadNumber):
		v = verdict{outcome: NotFound, text: Text{Zh: "号码无效", En: "The number is not valid."}}
	case errors.Is(err, sip.ErrClosed):
		v = verdict{outcome: Cancelled, text: Text{Zh: "服务器正在关闭，呼叫未发出", En: "The server is shutting down; the call was not placed."}}
	}
	return v
}

func fallbackText(o Outcome) Text {
	if o == Dropped {
		return Text{Zh: "通话中断", En: "The call was lost."}
	}
	return Text{Zh: "呼叫失败", En: "The call failed."}
}

// qualityOf is a leg's quality by the engine's figures, nil if it has none.
func qualityOf(s *mediapb.LegStats) *Quality {
	a := s.GetAudio()
	if a == nil {
		return nil
	}
	return &Quality{RxLoss: round(a.RxLoss, 1000), RxJitterMs: round(a.RxJitterMs, 10), TxLoss: round(a.TxLoss, 1000),
		RTTMs: round(a.RttMs, 10), MOS: round(a.Mos, 100), RxPackets: a.RxPackets, TxPackets: a.TxPackets,
		Strangers: a.RxStranger + s.GetVideo().GetRxStranger()}
}

// usageOf is what a leg's streams carried by the engine's figures, nil if it has none.
func usageOf(s *mediapb.LegStats) *Usage {
	if s.GetAudio() == nil {
		return nil
	}
	of := func(s *mediapb.StreamStats) StreamUsage {
		return StreamUsage{s.GetRxPackets(), s.GetRxBytes(), s.GetTxPackets(), s.GetTxBytes()}
	}
	return &Usage{Audio: of(s.Audio), Video: of(s.Video)}
}

// round keeps figures readable: a float32 loss of 0.01 is 0.009999999776482582.
func round(f float32, steps float64) float64 { return float64(int64(float64(f)*steps+0.5)) / steps }
