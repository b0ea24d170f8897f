// Package sdp is session descriptions as IMS phones and carriers write them: a
// typed model, a bounded parser, our offer, and the offer/answer rules of RFC 3264
// for AMR, AMR-WB, Opus, G.722, G.711, telephone-event and H.264 (TS 26.114, IMS.md §2.1, §5).
//
// It has no state and no clock: what must survive between two descriptions (session
// id, version, slots) is in the last description sent, which the caller passes back.
package sdp

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Errors a caller branches on. They come wrapped with what was wrong.
var (
	ErrSyntax        = errors.New("sdp: malformed")               // Parse: not a description we can trust
	ErrTooLarge      = errors.New("sdp: too large")               // Parse: over one of the limits
	ErrBadAnswer     = errors.New("sdp: unacceptable answer")     // Negotiate: nonsense for what we offered
	ErrBadOffer      = errors.New("sdp: unacceptable offer")      // Answer: nonsense, nothing to answer
	ErrNoCommonCodec = errors.New("sdp: no common audio codec")   // 488, Warning 305
	ErrAddressFamily = errors.New("sdp: other address family")    // 488, Warning 301
	ErrNoMedia       = errors.New("sdp: no medium is left in it") // every m-line has port 0
)

// Direction is who may send, as the describing side says it (RFC 3264 §5.1).
// The zero value is SendRecv, as in SDP.
type Direction uint8

// The bits are what is forbidden: 1 receiving, 2 sending.
const (
	SendRecv Direction = 0
	SendOnly Direction = 1
	RecvOnly Direction = 2
	Inactive Direction = 3
)

// Send reports whether the describing side may send.
func (d Direction) Send() bool { return d&2 == 0 }

// Recv reports whether the describing side may receive.
func (d Direction) Recv() bool { return d&1 == 0 }

// Reverse is the same flow described by the other side.
func (d Direction) Reverse() Direction { return (d&1)<<1 | (d&2)>>1 }

// String is the SDP attribute.
func (d Direction) String() string {
	return [...]string{"sendrecv", "sendonly", "recvonly", "inactive"}[d&3]
}

// AnswerDirection is what we answer to an offer when we want local. It never
// promises more than the offer allows (RFC 3264 §6.1).
func AnswerDirection(offer, local Direction) Direction { return offer.Reverse() | local }

// Origin is the o= line.
type Origin struct {
	Username  string // "-" if empty
	SessionID uint64
	Version   uint64
	Addr      string // as written
}

// Session is one session description. Media holds every m-line in order; Audio and
// Video point to the first of their kind with a port, else to the first of their kind,
// else are nil.
type Session struct {
	Origin Origin
	Name   string
	Addr   netip.Addr // session-level c=, zero if there is none
	AS     int        // session-level b=AS in kbit/s, -1: absent
	Media  []*Media
	Audio  *Media
	Video  *Media

	raw []byte
}

// Bytes is the description as it was parsed.
func (s *Session) Bytes() []byte { return s.raw }

// Attribute is an a= line; Value is empty for a property.
type Attribute struct{ Key, Value string }

// Media is one m-line with what follows it. Session-level values have been applied.
type Media struct {
	Index     int    // which m-line, from 0
	Kind      string // "audio", "video", "message", …
	Port      int    // 0: refused or removed
	Ports     int    // of "port/count", 1 if not written
	Proto     string // "RTP/AVP", "RTP/AVPF", …
	Formats   []string
	Addr      netip.Addr // zero only if the port is 0 and no c= was there
	Direction Direction
	Payloads  []Format          // RTP only, in order of preference
	AS        int               // kbit/s, -1: absent
	TIAS      int               // bit/s, -1: absent
	RS, RR    int               // bit/s, -1: absent
	Ptime     int               // ms, 0: not said
	MaxPtime  int               // ms, 0: not said
	RTCPPort  int               // a=rtcp, 0: Port + 1
	Feedback  []Feedback        // that of AVPF's attribute capabilities too
	CVO       int               // extmap id of urn:3gpp:video-orientation, 0: none
	Images    map[int]ImageAttr // by payload type, -1: "*"
	TCap      map[int]string    // RFC 5939 transport capabilities
	ACap      map[int]Attribute // and attribute capabilities
	PCfg      []PotentialConfig // offered
	AVPF      *PotentialConfig  // the first of them that is RTP/AVPF and needs nothing we do not know
	ACfg      *PotentialConfig  // chosen, in an answer
	QoS       []Attribute       // curr, des, conf (RFC 3312), in order
	Attrs     []Attribute       // every attribute, in order, unparsed
	framesize map[int][2]int    // a=framesize of older handsets
}

// RTP reports whether the m-line is plain RTP, with or without feedback.
func (m *Media) RTP() bool { return m.Proto == "RTP/AVP" || m.Proto == "RTP/AVPF" }

// Held reports whether its writer does not want to hear or see us: sendonly,
// inactive, or the old c=0.0.0.0.
func (m *Media) Held() bool {
	return m.Port != 0 && (!m.Direction.Recv() || m.Addr.IsUnspecified())
}

// Feedback is one a=rtcp-fb line. PT is -1 for "*".
type Feedback struct {
	PT    int
	Value string // "nack pli", "ccm fir", "trr-int 5000"
}

// Size is a picture size in pixels.
type Size struct{ Width, Height int }

// ImageAttr is a=imageattr (RFC 6236): what its writer sends and can receive,
// preferred first. Ranges are represented by their largest member.
type ImageAttr struct{ Send, Recv []Size }

// PotentialConfig is a pcfg or acfg (RFC 5939). Transport is the tcap number it
// names, 0 if it names none; Attributes its list of acap numbers, in Media.AVPF what of
// that is taken.
type PotentialConfig struct {
	Number     int
	Transport  int
	Attributes string
	Value      string
}

// Format is one RTP payload format. Fault is not empty when its parameters make
// no sense; such a format is never chosen.
type Format struct {
	PT       int
	Name     string // as registered: "AMR-WB", "AMR", "opus", "PCMA", "H264", "telephone-event"; "" if unmapped
	RateHz   int
	Channels int
	Fmtp     string            // as written
	Params   map[string]string // of fmtp, names in lower case
	AMR      AMR               // AMR and AMR-WB
	H264     H264              // H264
	Opus     Opus              // opus
	Fault    string
}

// Opus is the fmtp of opus (RFC 7587 §6.1): what its writer wants to be sent.
type Opus struct {
	FEC, DTX    bool // useinbandfec, usedtx
	Stereo      bool
	MaxBitrate  int // maxaveragebitrate, bit/s; 0: not said
	MaxPlayback int // maxplaybackrate, Hz; 0: not said
}

// AMR is the fmtp of AMR and AMR-WB (RFC 4867 §8).
type AMR struct {
	OctetAlign       bool
	ModeSet          []int // ascending; nil: all modes
	ChangePeriod     int   // 1 or 2
	ChangeCapability int   // 1 or 2
	ChangeNeighbor   bool
	MaxRed           int // ms, -1: absent
	CRC              bool
	RobustSorting    bool
	Interleaving     int // 0: none
}

// plain reports whether the packets are of the two kinds we can write and read.
func (a AMR) plain() bool { return !a.CRC && !a.RobustSorting && a.Interleaving == 0 }

// H264 is the fmtp of H264 (RFC 6184 §8.1).
type H264 struct {
	Profile           ProfileLevel
	PacketizationMode int
	Sprop             string
	LevelAsymmetry    bool
}

// ProfileLevel is a profile-level-id: profile_idc, constraint flags, level_idc.
type ProfileLevel [3]byte

// ParseProfileLevel reads six hex digits.
func ParseProfileLevel(s string) (ProfileLevel, error) {
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 6 {
		return ProfileLevel{}, errors.New("profile-level-id is not six hex digits")
	}
	return ProfileLevel{byte(v >> 16), byte(v >> 8), byte(v)}, nil
}

// String is six hex digits in lower case.
func (p ProfileLevel) String() string {
	const hex = "0123456789abcdef"
	var b [6]byte
	for i, v := range p {
		b[2*i], b[2*i+1] = hex[v>>4], hex[v&15]
	}
	return string(b[:])
}

// Constrained reports whether it is Constrained Baseline, however it is spelled
// (RFC 6184 table 5: 42C0, 42E0, 4D80, 58C0 …).
func (p ProfileLevel) Constrained() bool {
	if p[1]&0x0F != 0 {
		return false
	}
	switch p[0] {
	case 0x42:
		return p[1]&0x40 != 0
	case 0x4D:
		return p[1]&0x80 != 0
	case 0x58:
		return p[1]&0xC0 == 0xC0
	}
	return false
}

// Decodable reports whether a Constrained Baseline decoder may be handed the
// stream: Constrained Baseline, and plain Baseline because no phone uses its extras.
func (p ProfileLevel) Decodable() bool { return p.Constrained() || p[0] == 0x42 }

// Level ten-folds level_idc, so that 1b sorts between 1 and 1.1: 100, 105, 110, 120 …
func (p ProfileLevel) Level() int {
	if p[2] == 9 || p[2] == 11 && p[1]&0x10 != 0 && p[0] != 0x64 {
		return 105
	}
	return int(p[2]) * 10
}

// constrainedAt is Constrained Baseline at a level as Level counts it.
func constrainedAt(level int) ProfileLevel {
	if level == 105 {
		return ProfileLevel{0x42, 0xD0, 11}
	}
	return ProfileLevel{0x42, 0xC0, byte(level / 10)}
}

// levelLimits is H.264 table A-1: macroblocks a second and a frame, kbit/s.
type levelLimits struct{ level, mbps, fs, kbps int }

var levels = []levelLimits{
	{100, 1485, 99, 64}, {105, 1485, 99, 128}, {110, 3000, 396, 192}, {120, 6000, 396, 384},
	{130, 11880, 396, 768}, {200, 11880, 396, 2000}, {210, 19800, 792, 4000}, {220, 20250, 1620, 4000},
	{300, 40500, 1620, 10000}, {310, 108000, 3600, 14000}, {320, 216000, 5120, 20000},
	{400, 245760, 8192, 20000},
}

// limitsOf is the row of the highest level not above it; what is below 1 is 1.
func limitsOf(level int) levelLimits {
	got := levels[0]
	for _, l := range levels {
		if l.level <= level {
			got = l
		}
	}
	return got
}

// canonical spells codec names the way they are registered.
func canonical(name string) string {
	for _, n := range []string{"AMR-WB", "AMR", "PCMU", "PCMA", "H264", "telephone-event", "CN", "G722", "opus"} {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return name
}

// Following is s as the description that stands after a later one, tried, was refused: the
// next must have a version that nobody has seen.
func (s *Session) Following(tried *Session) *Session {
	if s == nil || tried == nil || tried.Origin.Version <= s.Origin.Version {
		return s
	}
	c := *s
	c.Origin.Version, c.raw = tried.Origin.Version, nil
	return &c
}
