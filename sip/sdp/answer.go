package sdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Packing says which AMR payload format a side knows.
type Packing uint8

// Both is right for us; phones of a simulation may know one.
const (
	Both Packing = iota
	BandwidthEfficient
	OctetAligned
)

// Codec is one audio codec a side has.
type Codec struct {
	Name    string  // "AMR-WB", "AMR", "opus", "G722", "PCMA", "PCMU"; "CN": comfort noise beside the last two
	Packing Packing // AMR and AMR-WB
	ModeSet []int   // what we restrict an offer without mode-set to; nil: nothing
}

// AllCodecs is what the bridge has.
func AllCodecs() []Codec {
	return []Codec{{Name: "AMR-WB"}, {Name: "AMR"}, {Name: "opus"}, {Name: "G722"}, {Name: "PCMA"}, {Name: "PCMU"}, {Name: "CN"}}
}

// AnswerOptions says who answers. Addr and AudioPort are required.
type AnswerOptions struct {
	Origin    Origin     // of a new session; ignored with Previous
	Previous  *Session   // our last description of this session, offer or answer (parsed)
	Peer      Origin     // of the peer's last description of it; zero: not known
	Addr      netip.Addr // where we receive
	AudioPort int
	Codecs    []Codec // nil: AllCodecs
	NoDTMF    bool
	Video     bool // take video if it is offered, on VideoPort
	VideoPort int
	// H264 is the highest level we take, as profile-level-id. "": 42c01f.
	H264 string
	// Sizes are what we can show, preferred first; nil: by level. They go into imageattr
	// when the offer has it.
	Sizes          []Size
	Sprop          string
	VideoAS        int // kbit/s, 0: as offered
	AudioDirection Direction
	VideoDirection Direction
	NoAVPF         bool // take no RTCP feedback
	NoCVO          bool
	// AudioLines and VideoLines are further whole lines ("a=…", without line end) of
	// accepted media: preconditions of a phone, or nonsense in a test.
	AudioLines []string
	VideoLines []string
}

// Answer answers an offer (RFC 3264 §6): the first codec of the offer that we have, the
// m-lines in the offer's order and number, video only if it is wanted, never more
// direction than offered. Fewer m-lines than there were (RFC 3264 §8 forbids it) are taken from
// somebody else who has taken the call over: those he leaves out are gone. The offer's own order decides, so an offerer with EVS first
// still gets AMR-WB; and so does one with Opus or G.722 first, if it has that too: AMR-WB is
// home, those are guests. The Result is from our view.
//
// Errors are ErrBadOffer, ErrAddressFamily, ErrNoCommonCodec and ErrNoMedia: answer 488
// and the old session stands.
func Answer(offer *Session, o AnswerOptions) ([]byte, Result, error) {
	var r Result
	if offer == nil || len(offer.Media) == 0 {
		return nil, r, fmt.Errorf("%w: none", ErrBadOffer)
	}
	if o.Previous != nil && len(offer.Media) < len(o.Previous.Media) && !takenOver(o.Peer, offer.Origin) {
		return nil, r, fmt.Errorf("%w: %d m-lines where there were %d", ErrBadOffer,
			len(offer.Media), len(o.Previous.Media))
	}
	if o.Codecs == nil {
		o.Codecs = AllCodecs()
	}
	if o.H264 == "" {
		o.H264 = "42c01f"
	}
	w := writer{origin: o.Origin, addr: o.Addr}
	var video *videoAnswer
	for _, m := range offer.Media {
		switch {
		case m == offer.Audio && m.Port != 0:
			s, err := answerAudio(m, o)
			if err != nil {
				return nil, r, err
			}
			w.media = append(w.media, s)
		case m == offer.Video && m.Port != 0 && o.Video:
			video = newVideoAnswer(m, o)
			if video == nil {
				w.media = append(w.media, refused(m))
				continue
			}
			w.media = append(w.media, video.write(o))
		default:
			w.media = append(w.media, refused(m))
		}
	}
	var b []byte
	if o.Previous != nil {
		b = w.following(o.Previous)
	} else {
		b = w.bytes()
	}
	ours, err := Parse(b)
	if err != nil { // only Sprop or *Lines can be at fault
		return nil, r, fmt.Errorf("sdp: own answer: %w", err)
	}
	return finishAnswer(b, offer, ours, o, video)
}

// takenOver: a description is not of the session that was before, but another's, as of the network's
// gateway that a call was handed over to (IMS.md §3 row 16).
func takenOver(before, now Origin) bool {
	return before != Origin{} && (now.Username != before.Username || now.SessionID != before.SessionID)
}

// finishAnswer works out what our own answer agrees to.
func finishAnswer(b []byte, offer, ours *Session, o AnswerOptions, video *videoAnswer) ([]byte, Result, error) {
	var r Result
	var err error
	if m := offer.Audio; m != nil && m.Port != 0 {
		if r.Audio, err = agreeAudio(&r, ours.Media[m.Index], m, ErrBadOffer); err != nil {
			return nil, r, err
		}
	}
	switch m := offer.Video; {
	case m == nil || m.Port == 0:
		r.WhyNoVideo = VideoNotOffered
	case !o.Video:
		r.WhyNoVideo = VideoRefused
	case video == nil:
		r.WhyNoVideo = VideoCodecMismatch
	default:
		a := ours.Media[m.Index]
		r.agreeVideo(a, m, &pair{&a.Payloads[0], video.f}, video.avpf && !o.NoAVPF)
	}
	if err := r.settle(offer); err != nil {
		return nil, r, err
	}
	return b, r, nil
}

// eventOf is the telephone-event that an offer has for a codec's clock. One that knows only
// the other clock (baresip: 8000 beside AMR-WB) can be understood too, and its user's keys
// are worth more than RFC 4733 §2.1's preference.
func eventOf(m *Media, rateHz int) (ev *Format) {
	for i := range m.Payloads {
		e := &m.Payloads[i]
		if e.Name != "telephone-event" || e.Fault != "" {
			continue
		}
		if e.RateHz == rateHz {
			return e
		}
		if ev == nil && e.RateHz == 8000 {
			ev = e
		}
	}
	return ev
}

func answerAudio(m *Media, o AnswerOptions) (string, error) {
	if _, err := remoteOf(m, o.Addr, ErrBadOffer); err != nil {
		return "", fmt.Errorf("audio: %w", err)
	}
	f, codec := pick(m, o.Codecs)
	if f == nil {
		return "", ErrNoCommonCodec
	}
	var dtmf *Format
	if !o.NoDTMF {
		dtmf = eventOf(m, f.RateHz)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "m=audio %d %s %d", o.AudioPort, m.Proto, f.PT)
	if dtmf != nil {
		fmt.Fprintf(&b, " %d", dtmf.PT)
	}
	cn := comfortNoise(m, f)
	if !slices.ContainsFunc(o.Codecs, func(c Codec) bool { return c.Name == "CN" }) {
		cn = nil
	}
	if cn != nil {
		fmt.Fprintf(&b, " %d", cn.PT)
	}
	fmt.Fprintf(&b, "\r\nb=AS:%d\r\nb=RS:600\r\nb=RR:2000\r\n", codecAS(f.Name, o.Addr))
	fmt.Fprintf(&b, "a=rtpmap:%d %s/%d", f.PT, f.Name, f.RateHz)
	if f.Name == "opus" { // whatever is sent (RFC 7587 §7)
		b.WriteString("/2")
	}
	b.WriteString("\r\n")
	if s := fmtpOf(f, codec); s != "" {
		fmt.Fprintf(&b, "a=fmtp:%d %s\r\n", f.PT, s)
	}
	if dtmf != nil {
		fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/%d\r\na=fmtp:%d 0-15\r\n", dtmf.PT, dtmf.RateHz, dtmf.PT)
	}
	if cn != nil {
		fmt.Fprintf(&b, "a=rtpmap:%d CN/8000\r\n", cn.PT)
	}
	b.WriteString("a=ptime:20\r\na=maxptime:240\r\n")
	finishMedia(&b, m, o.AudioLines, o.AudioDirection)
	return b.String(), nil
}

// finishMedia writes what ends both kinds: preconditions, extra lines, the direction.
func finishMedia(b *bytes.Buffer, offer *Media, lines []string, local Direction) {
	if len(lines) == 0 {
		b.WriteString(qosAnswer(offer))
	}
	for _, l := range lines {
		b.WriteString(strings.Trim(l, "\r\n") + "\r\n")
	}
	d := AnswerDirection(offer.Direction, local)
	if offer.Addr.IsUnspecified() {
		d = Inactive
	}
	fmt.Fprintf(b, "a=%s\r\n", d)
}

// qosAnswer: our side never waits for a bearer, and asks to hear when theirs is up
// (RFC 3312 §5, RFC 4032). Nothing if the offer has no preconditions.
func qosAnswer(offer *Media) string {
	status, seen := "none", false
	for _, q := range offer.QoS {
		f := strings.Fields(q.Value)
		if q.Key == "curr" && len(f) == 3 && f[0] == "qos" {
			seen = true
			if f[1] == "local" && isDirection(f[2]) {
				status = f[2]
			}
		}
	}
	if !seen {
		return ""
	}
	s := "a=curr:qos local sendrecv\r\na=curr:qos remote " + status + "\r\n" +
		"a=des:qos mandatory local sendrecv\r\na=des:qos mandatory remote sendrecv\r\n"
	if status != "sendrecv" {
		s += "a=conf:qos remote sendrecv\r\n"
	}
	return s
}

func isDirection(s string) bool { return s == "none" || s == "send" || s == "recv" || s == "sendrecv" }

// pick is the first format of the offer that one of our codecs is, but AMR-WB before the other
// wideband codecs.
func pick(m *Media, codecs []Codec) (*Format, Codec) {
	f, c := first(m, codecs)
	if f != nil && (f.Name == "opus" || f.Name == "G722") {
		i := slices.IndexFunc(codecs, func(c Codec) bool { return c.Name == "AMR-WB" })
		if i >= 0 {
			if home, c := first(m, codecs[i:i+1]); home != nil {
				return home, c
			}
		}
	}
	return f, c
}

func first(m *Media, codecs []Codec) (*Format, Codec) {
	for i := range m.Payloads {
		f := &m.Payloads[i]
		if !speech(*f) {
			continue
		}
		for _, c := range codecs {
			if c.Name != f.Name {
				continue
			}
			if c.Packing == Both || (c.Packing == OctetAligned) == f.AMR.OctetAlign || f.RateHz == 8000 && f.Name[0] == 'P' {
				return f, c
			}
		}
	}
	return nil, Codec{}
}

// comfortNoise is the CN that m has for G.711 (RFC 3389), nil beside another codec.
func comfortNoise(m *Media, f *Format) *Format {
	if f.Name != "PCMA" && f.Name != "PCMU" {
		return nil
	}
	for i := range m.Payloads {
		if c := &m.Payloads[i]; c.Name == "CN" && c.RateHz == 8000 && c.PT == ptCN && c.Fault == "" {
			return c
		}
	}
	return nil
}

// fmtpOf is the fmtp of an answered format; "": none.
func fmtpOf(f *Format, c Codec) string {
	if f.Name == "opus" {
		return opusFmtp
	}
	return amrFmtp(f, c)
}

// amrFmtp repeats what RFC 4867 §8.3.1 wants repeated: the packing and the mode-set.
func amrFmtp(f *Format, c Codec) string {
	if f.Name != "AMR" && f.Name != "AMR-WB" {
		return ""
	}
	var parts []string
	if f.AMR.OctetAlign {
		parts = append(parts, "octet-align=1")
	}
	set := f.AMR.ModeSet
	if set == nil {
		set = c.ModeSet
	}
	if set != nil {
		s := make([]string, len(set))
		for i, m := range set {
			s[i] = strconv.Itoa(m)
		}
		parts = append(parts, "mode-set="+strings.Join(s, ","))
	}
	if f.AMR.ChangePeriod == 2 {
		parts = append(parts, "mode-change-period=2")
	}
	if f.AMR.ChangeNeighbor {
		parts = append(parts, "mode-change-neighbor=1")
	}
	return strings.Join(append(parts, "mode-change-capability=2", "max-red=220"), ";")
}

func codecAS(name string, a netip.Addr) int {
	as := map[string]int{"AMR-WB": 41, "AMR": 29, "opus": 41, "G722": 80, "PCMA": 80, "PCMU": 80}[name]
	if a.Is6() {
		as += 8
	}
	return as
}

// videoAnswer is the video format that will be answered.
type videoAnswer struct {
	m     *Media
	f     *Format
	level int
	avpf  bool
	acfg  *PotentialConfig
}

// newVideoAnswer picks a format: one of our own level first, as phones do, else the
// first we can decode. nil: none.
func newVideoAnswer(m *Media, o AnswerOptions) *videoAnswer {
	own, err := ParseProfileLevel(o.H264)
	if err != nil {
		return nil
	}
	if _, err := remoteOf(m, o.Addr, ErrBadOffer); err != nil {
		return nil
	}
	v := &videoAnswer{m: m, avpf: m.Proto == "RTP/AVPF"}
	for i := range m.Payloads {
		f := &m.Payloads[i]
		if !usableH264(f) {
			continue
		}
		if v.f == nil || v.f.H264.Profile.Level() != own.Level() && f.H264.Profile.Level() == own.Level() {
			v.f = f
		}
	}
	if v.f == nil {
		return nil
	}
	v.level = limitsOf(min(own.Level(), v.f.H264.Profile.Level())).level
	if !v.avpf && !o.NoAVPF && m.AVPF != nil {
		v.avpf, v.acfg = true, m.AVPF
	}
	return v
}

func (v *videoAnswer) write(o AnswerOptions) string {
	var b bytes.Buffer
	proto, as := "RTP/AVP", o.VideoAS
	if v.avpf {
		proto = "RTP/AVPF"
	}
	if as == 0 {
		if as = v.m.AS; as <= 0 {
			as = videoAS
		}
	}
	fmt.Fprintf(&b, "m=video %d %s %d\r\nb=AS:%d\r\nb=RS:8000\r\nb=RR:6000\r\n", o.VideoPort, proto, v.f.PT, as)
	if v.acfg != nil {
		fmt.Fprintf(&b, "a=acfg:%d t=%d", v.acfg.Number, v.acfg.Transport)
		if v.acfg.Attributes != "" {
			b.WriteString(" a=" + v.acfg.Attributes)
		}
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "a=rtpmap:%d H264/90000\r\na=fmtp:%d profile-level-id=%s;packetization-mode=%d",
		v.f.PT, v.f.PT, constrainedAt(v.level), v.f.H264.PacketizationMode)
	if o.Sprop != "" {
		b.WriteString(";sprop-parameter-sets=" + o.Sprop)
	}
	b.WriteString("\r\n")
	v.images(&b, o)
	if v.avpf && !o.NoAVPF {
		v.feedback(&b)
	}
	if v.m.CVO != 0 && !o.NoCVO {
		fmt.Fprintf(&b, "a=extmap:%d %s\r\n", v.m.CVO, cvoURI)
	}
	finishMedia(&b, v.m, o.VideoLines, o.VideoDirection)
	return b.String()
}

// images writes imageattr if the offer has it: we send what they want to see.
func (v *videoAnswer) images(b *bytes.Buffer, o AnswerOptions) {
	if len(v.m.Images) == 0 {
		return
	}
	limit := limitsOf(v.level)
	send := v.m.wantedSize(v.f.PT, limit)
	sizes := slices.DeleteFunc(slices.Clone(o.Sizes), func(s Size) bool { return macroblocks(s) > limit.fs })
	if len(sizes) == 0 {
		s := (&Media{}).wantedSize(0, limit)
		sizes = []Size{s, {s.Height, s.Width}}
	} else if !slices.Contains(sizes, send) {
		send = sizes[0]
	}
	fmt.Fprintf(b, "a=imageattr:%d send [x=%d,y=%d] recv", v.f.PT, send.Width, send.Height)
	for _, s := range sizes {
		fmt.Fprintf(b, " [x=%d,y=%d]", s.Width, s.Height)
	}
	b.WriteString("\r\n")
}

func (v *videoAnswer) feedback(b *bytes.Buffer) {
	for _, what := range []string{"nack", "nack pli", "ccm fir", "ccm tmmbr"} {
		if v.m.wants(v.f.PT, what) {
			fmt.Fprintf(b, "a=rtcp-fb:* %s\r\n", what)
		}
	}
}

// StatusOf is the final response that refuses an offer for err, with the code of its
// Warning header (RFC 3261 §20.43), 0 for none.
func StatusOf(err error) (status, warning int) {
	switch {
	case errors.Is(err, ErrAddressFamily):
		return 488, 301
	case errors.Is(err, ErrNoCommonCodec), errors.Is(err, ErrNoMedia):
		return 488, 305
	case errors.Is(err, ErrTooLarge):
		return 413, 0
	}
	return 488, 0
}
