package sdp

import (
	"fmt"
	"net/netip"
	"slices"
)

// Why a call that could have had video has none (Result.WhyNoVideo).
const (
	VideoRefused       = "refused"        // port 0
	VideoInactive      = "inactive"       // accepted but neither side may send now
	VideoMissingMLine  = "missing_mline"  // the answer left the m-line out
	VideoCodecMismatch = "codec_mismatch" // no H.264 we can both do
	VideoNotOffered    = "not_offered"
)

// Result is what was agreed, from our view whoever offered.
type Result struct {
	Audio *Audio // nil: no audio (the peer dropped it but kept video)
	Video *Video // nil: WhyNoVideo says why
	// WhyNoVideo is empty while video may flow. With VideoInactive, Video is set: its
	// ports stay open.
	WhyNoVideo string
	// Held: the peer wants to hear and see nothing from us: sendonly or inactive on all
	// it has, or the old c=0.0.0.0.
	Held bool
	// Origin is that of the peer's description: its version rises when anything in it is another
	// (RFC 3264 §8), and where the rest changes somebody else has taken the call over.
	Origin Origin
	// Notes are what the peer did wrong and we forgave, for the log.
	Notes []string
}

// Remote is where the peer receives.
type Remote struct {
	Addr     netip.Addr // unspecified (0.0.0.0, ::) while an old-style hold lasts: send nothing
	Port     int
	RTCPPort int // never 0; a=rtcp or the next. We never mux, so an a=rtcp-mux means nothing
}

// Audio is an agreed audio stream. A payload type is what packets to the peer carry;
// RecvPT and DTMFRecvPT what packets from it carry, nearly always the same.
type Audio struct {
	Remote
	Codec              string // "AMR-WB", "AMR", "opus", "G722", "PCMA", "PCMU"
	RateHz             int
	PT, RecvPT         int
	OctetAlign         bool
	ModeSet            []int // modes both sides keep to, nil: all
	ModeChangePeriod   int   // of frames we send, 1 or 2
	ModeChangeNeighbor bool
	Opus               Opus // what the peer wants to be sent
	CN                 bool // both take comfort noise beside G.711, payload type 13 (RFC 3389)
	DTMFPT, DTMFRecvPT int  // 0: no telephone-event
	DTMFRateHz         int
	Ptime, MaxPtime    int  // ms the peer wants, 0: not said
	Send, Recv         bool // what we may
	AS                 int  // kbit/s, -1: absent
	RS, RR             int  // bit/s, -1: absent
}

// RTCPOff reports whether the peer wants no RTCP (b=RS:0 and b=RR:0).
func (a *Audio) RTCPOff() bool { return a.RS == 0 && a.RR == 0 }

// Video is an agreed H.264 stream.
type Video struct {
	Remote
	PT, RecvPT        int
	PacketizationMode int          // 0 or 1, of what we send
	Profile           ProfileLevel // of what we send: Constrained Baseline at the agreed level
	RecvLevel         ProfileLevel // of the most we asked for
	Width, Height     int          // of what we send: the peer's wish, else the level's usual size
	FPS               int
	BitrateBps        int    // of what we send, payload only
	Sprop             string // the peer's sprop-parameter-sets
	Send, Recv        bool   // what we may
	AVPF              bool   // RTCP feedback may be used at all
	NACK, PLI         bool
	FIR, TMMBR        bool
	TrrInt            int // ms, the least time between regular RTCP reports; 0: not said
	CVO               int // extmap id, 0: not negotiated
	AS                int // kbit/s, -1: absent
	RS, RR            int // bit/s, -1: absent
}

// RTCPOff reports whether the peer wants no RTCP (b=RS:0 and b=RR:0).
func (v *Video) RTCPOff() bool { return v.RS == 0 && v.RR == 0 }

// Negotiate reads an answer to our offer (RFC 3264 §6, §7). Whatever is wrong with video
// leaves a voice call (IMS.md §3). Errors are ErrBadAnswer, ErrAddressFamily,
// ErrNoCommonCodec or ErrNoMedia.
func Negotiate(offer, answer *Session) (Result, error) {
	var r Result
	if offer == nil || answer == nil {
		return r, fmt.Errorf("%w: none", ErrBadAnswer)
	}
	if len(answer.Media) > len(offer.Media) {
		return r, fmt.Errorf("%w: %d m-lines for %d", ErrBadAnswer, len(answer.Media), len(offer.Media))
	}
	if len(answer.Media) < len(offer.Media) {
		r.note("answer has %d m-lines, offer %d", len(answer.Media), len(offer.Media))
	}
	for i, m := range answer.Media {
		if m.Kind != offer.Media[i].Kind {
			return r, fmt.Errorf("%w: m-line %d is %.16q for %q", ErrBadAnswer, i+1, m.Kind, offer.Media[i].Kind)
		}
		if m.Port != 0 && offer.Media[i].Port == 0 {
			return r, fmt.Errorf("%w: m-line %d was not offered", ErrBadAnswer, i+1)
		}
	}
	var audioErr error
	if o := offer.Audio; o != nil && o.Port != 0 {
		if a := at(answer, o); a == nil || a.Port == 0 {
			r.note("audio refused")
		} else {
			r.Audio, audioErr = agreeAudio(&r, o, a, ErrBadAnswer)
		}
	}
	if audioErr != nil {
		return r, audioErr
	}
	r.negotiateVideo(offer, answer)
	return r, r.settle(answer)
}

// Agreed reads an answer of ours to the peer's offer, which Answer wrote: what the two agree
// to. Errors are those of Answer.
func Agreed(offer, answer *Session) (Result, error) {
	var r Result
	if offer == nil || answer == nil || len(offer.Media) != len(answer.Media) {
		return r, fmt.Errorf("%w: its answer has other m-lines", ErrBadOffer)
	}
	var err error
	if m := offer.Audio; m != nil && m.Port != 0 && answer.Media[m.Index].Port != 0 {
		if r.Audio, err = agreeAudio(&r, answer.Media[m.Index], m, ErrBadOffer); err != nil {
			return r, err
		}
	}
	switch m := offer.Video; {
	case m == nil || m.Port == 0:
		r.WhyNoVideo = VideoNotOffered
	case answer.Media[m.Index].Port == 0:
		r.WhyNoVideo = VideoRefused
	default:
		a := answer.Media[m.Index]
		r.agreeVideo(a, m, samePair(a, m), a.Proto == "RTP/AVPF" || m.accepted(a))
	}
	return r, r.settle(offer)
}

// samePair is the format that an answer of ours has taken from an offer.
func samePair(ours, theirs *Media) *pair {
	for i := range theirs.Payloads {
		if f := &theirs.Payloads[i]; len(ours.Payloads) > 0 && f.PT == ours.Payloads[0].PT && usableH264(f) {
			return &pair{&ours.Payloads[0], f}
		}
	}
	return nil
}

// settle ends both Negotiate and Answer with what holds for the whole session.
func (r *Result) settle(peer *Session) error {
	r.Origin = peer.Origin
	if r.Audio == nil && r.Video == nil {
		return ErrNoMedia
	}
	r.Held = true
	if r.Audio != nil && !peer.Audio.Held() || r.Video != nil && !peer.Video.Held() {
		r.Held = false
	}
	return nil
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// at is the m-line of s in the slot of m, nil if s has no such.
func at(s *Session, m *Media) *Media {
	if m.Index < len(s.Media) {
		return s.Media[m.Index]
	}
	return nil
}

// remoteOf checks where the peer wants its media. local is our address: only who is on
// loopback himself may be sent to loopback. bad is the error for what makes no sense.
func remoteOf(m *Media, local netip.Addr, bad error) (Remote, error) {
	r := Remote{Addr: m.Addr, Port: m.Port, RTCPPort: m.RTCPPort}
	switch {
	case m.Addr.Is4() != local.Is4() && !m.Addr.IsUnspecified():
		return r, fmt.Errorf("%w: %v", ErrAddressFamily, m.Addr)
	case m.Addr.IsLoopback() && !local.IsLoopback():
		return r, fmt.Errorf("%w: media to loopback", bad)
	case m.Port < 1024:
		return r, fmt.Errorf("%w: media to port %d", bad, m.Port)
	case m.Ports > 1:
		return r, fmt.Errorf("%w: %d ports", bad, m.Ports)
	case !m.RTP():
		return r, fmt.Errorf("%w: transport %.16q", ErrNoCommonCodec, m.Proto)
	}
	if r.RTCPPort == 0 {
		r.RTCPPort = min(m.Port+1, 65535)
	}
	return r, nil
}

// flows says who may send, from our view.
func flows(ours, theirs *Media) (send, recv bool) {
	if theirs.Addr.IsUnspecified() {
		return false, false
	}
	return ours.Direction.Send() && theirs.Direction.Recv(), ours.Direction.Recv() && theirs.Direction.Send()
}

func agreeAudio(r *Result, ours, theirs *Media, bad error) (*Audio, error) {
	rem, err := remoteOf(theirs, ours.Addr, bad)
	if err != nil {
		return nil, fmt.Errorf("audio: %w", err)
	}
	for _, f := range theirs.Payloads {
		g := sameAudio(ours, f)
		if g == nil {
			continue
		}
		if g.PT != f.PT {
			r.note("payload type %d answered as %d", g.PT, f.PT)
		}
		return newAudio(rem, ours, theirs, *g, f), nil
	}
	return nil, ErrNoCommonCodec
}

// newAudio joins our format g and their f of one codec.
func newAudio(rem Remote, ours, theirs *Media, g, f Format) *Audio {
	a := &Audio{Remote: rem, Codec: f.Name, RateHz: f.RateHz, PT: f.PT, RecvPT: g.PT,
		Ptime: theirs.Ptime, MaxPtime: theirs.MaxPtime, AS: theirs.AS, RS: theirs.RS, RR: theirs.RR}
	if f.Name == "AMR" || f.Name == "AMR-WB" {
		a.OctetAlign = f.AMR.OctetAlign
		a.ModeSet = commonModes(g.AMR.ModeSet, f.AMR.ModeSet)
		a.ModeChangePeriod = f.AMR.ChangePeriod
		a.ModeChangeNeighbor = f.AMR.ChangeNeighbor
	}
	a.Opus = f.Opus
	a.CN = comfortNoise(ours, &g) != nil && comfortNoise(theirs, &f) != nil
	if ev, ours := eventFor(ours, theirs, f.RateHz); ev != nil {
		a.DTMFPT, a.DTMFRecvPT, a.DTMFRateHz = ev.PT, ours.PT, ev.RateHz
	}
	a.Send, a.Recv = flows(ours, theirs)
	return a
}

// commonModes: nil means all. Disjoint sets cannot be honoured; the peer's wins because
// what we send is what it must decode.
func commonModes(ours, theirs []int) []int {
	if ours == nil || theirs == nil {
		if theirs == nil {
			return slices.Clone(ours)
		}
		return slices.Clone(theirs)
	}
	var both []int
	for _, m := range theirs {
		if slices.Contains(ours, m) {
			both = append(both, m)
		}
	}
	if both == nil {
		return slices.Clone(theirs)
	}
	return both
}

// sameAudio finds the format of m that is f: the same codec and clock and, for AMR,
// exactly the same packing (RFC 4867 §8.3.1). The same payload type is preferred.
func sameAudio(m *Media, f Format) *Format {
	if !speech(f) {
		return nil
	}
	var other *Format
	for i := range m.Payloads {
		g := &m.Payloads[i]
		if !speech(*g) || g.Name != f.Name || g.RateHz != f.RateHz || g.AMR.OctetAlign != f.AMR.OctetAlign {
			continue
		}
		if g.PT == f.PT {
			return g
		}
		if other == nil {
			other = g
		}
	}
	return other
}

// speech reports whether f is a codec we speak, in a packing we write.
func speech(f Format) bool {
	if f.Fault != "" {
		return false
	}
	switch f.Name {
	case "AMR", "AMR-WB":
		return f.AMR.plain()
	case "PCMA", "PCMU", "G722":
		return f.RateHz == 8000
	case "opus":
		return true
	}
	return false
}

// eventFor finds telephone-event on both sides, of the codec's clock if there is one:
// digits count in the same timestamps. A peer that knows only the other clock can still
// be understood.
func eventFor(ours, theirs *Media, rateHz int) (ev, our *Format) {
	for i := range theirs.Payloads {
		f := &theirs.Payloads[i]
		g := sameEvent(ours, f)
		if g == nil {
			continue
		}
		if f.RateHz == rateHz {
			return f, g
		}
		if ev == nil {
			ev, our = f, g
		}
	}
	return ev, our
}

// sameEvent is the telephone-event of m with f's clock, f's payload type preferred.
func sameEvent(m *Media, f *Format) (same *Format) {
	if f.Name != "telephone-event" || f.Fault != "" {
		return nil
	}
	for i := range m.Payloads {
		g := &m.Payloads[i]
		if g.Name == f.Name && g.RateHz == f.RateHz && (same == nil || g.PT == f.PT) {
			same = g
		}
	}
	return same
}
