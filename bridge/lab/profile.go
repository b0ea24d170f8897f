package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sparkle/sip/sdp"
)

// Profile is one of the words of DESIGN §10 for how a phone behaves.
type Profile string

// The profiles.
const (
	VolteVideo    Profile = "volte-video"          // answers with AMR-WB and H.264
	VolteVoice    Profile = "volte-voice"          // answers m=video 0
	PSTN          Profile = "pstn"                 // after CS breakout: PCMA through a media gateway
	VoIP          Profile = "voip"                 // a soft phone: Opus, else G.722, else G.711 with comfort noise
	Busy          Profile = "busy"                 // 486
	NoAnswer      Profile = "no-answer"            // rings until the caller gives up
	Declines      Profile = "declines"             // rings, then 603
	Video488      Profile = "video-488"            // refuses an offer with video as a whole
	Unreachable   Profile = "unreachable"          // is not registered
	Slow          Profile = "slow"                 // rings for a while before it answers
	Preconditions Profile = "100rel+preconditions" // 183 with SDP, PRACK, qos, 180, 200
	Lossy         Profile = "lossy"                // bad radio
	HangsUpAfter  Profile = "hangs-up-after"       // answers, then leaves
)

// Profiles lists them all.
func Profiles() []Profile {
	return []Profile{VolteVideo, VolteVoice, PSTN, VoIP, Busy, NoAnswer, Declines, Video488, Unreachable, Slow, Preconditions, Lossy, HangsUpAfter}
}

// Script is what a handset does with a call. The zero value rings at once, answers at
// once with every codec and refuses video.
type Script struct {
	Off bool // does not register

	Ring   time.Duration // INVITE to 180
	NoRing bool          // sends no 180 at all
	Answer time.Duration // 180 to the final answer
	Never  bool          // no final answer until CANCEL; after 90 s, the phone's own timer, 480

	// Status is a final refusal instead of an answer: with AtOnce without ringing.
	Status  int
	Phrase  string
	Reason  string // a Reason header
	Warning string // a Warning header
	AtOnce  bool

	VideoStatus int // refuses an offer with video at once, with Warning 304

	Video   bool        // takes video
	Codecs  []sdp.Codec // audio; nil is all of sdp.AllCodecs
	Upgrade int         // what a re-INVITE that adds video gets: 200 takes it, a refusal is given as it is, 0 is m=video 0
	Gateway bool        // a media gateway answers, not a phone: other Contact, no feature tags

	Reliable      bool          // 100rel where the caller supports it: 183 with the answer
	Preconditions bool          // and qos attributes where the caller supports those
	Bearer        time.Duration // until the phone's own bearer is up; with Preconditions
	EarlyMedia    bool          // an unreliable 183 with SDP before 180

	Forks    int  // so many other phones ring too: 180 with To tags of their own
	ForkLate bool // the first of them answers as well, after the winner

	LateOK  bool    // a CANCEL is answered 200 and then the INVITE 200 as well: they crossed
	RawSDP  string  // the body of the answer instead of a good one
	NoSDP   bool    // the answer has no body
	Lossy   float64 // share of packets lost on the air, both ways
	HangUp  time.Duration
	DropACK int // so many ACKs are overheard: the 200 is repeated
}

// Validate reports what makes no sense.
func (s Script) Validate() error {
	var errs []error
	for _, d := range []time.Duration{s.Ring, s.Answer, s.Bearer, s.HangUp} {
		if d < 0 {
			errs = append(errs, errors.New("script: a duration is negative"))
			break
		}
	}
	if s.Upgrade == 200 { // the one status here that is no refusal
		s.Upgrade = 0
	}
	for _, st := range []int{s.Status, s.VideoStatus, s.Upgrade} {
		if st != 0 && (st < 300 || st > 699) {
			errs = append(errs, fmt.Errorf("script: status %d is not a refusal", st))
		}
	}
	if !(s.Lossy >= 0 && s.Lossy < 1) { // NaN too
		errs = append(errs, fmt.Errorf("script: loss %v is not in [0, 1)", s.Lossy))
	}
	if s.Forks < 0 || s.Forks > 8 {
		errs = append(errs, fmt.Errorf("script: %d forks", s.Forks))
	}
	if strings.ContainsAny(s.Phrase+s.Reason+s.Warning, "\r\n") {
		errs = append(errs, errors.New("script: a header holds a line break"))
	}
	return errors.Join(errs...)
}

// volte is the audio of a phone: no G.711.
var volte = []sdp.Codec{{Name: "AMR-WB"}, {Name: "AMR"}}

// Script is what a profile does where nothing else is said.
func (p Profile) Script() (Script, error) {
	s := Script{Ring: 50 * time.Millisecond, Answer: 150 * time.Millisecond, Codecs: volte, Video: true}
	switch p {
	case VolteVideo, "":
	case VolteVoice:
		s.Video = false
	case PSTN:
		s.Video, s.Gateway = false, true
		s.Codecs = []sdp.Codec{{Name: "PCMA"}}
	case VoIP:
		s.Video, s.Gateway = false, true
		s.Codecs = []sdp.Codec{{Name: "opus"}, {Name: "G722"}, {Name: "PCMA"}, {Name: "PCMU"}, {Name: "CN"}}
	case Busy:
		s.Status, s.AtOnce = 486, true
		s.Reason = `Q.850;cause=17;text="User busy"`
	case NoAnswer:
		s.Never = true
	case Declines:
		s.Status = 603
		s.Reason = `Q.850;cause=21;text="Call rejected"`
	case Video488:
		s.VideoStatus, s.Video = 488, false
	case Unreachable:
		s.Off = true
	case Slow:
		s.Answer = 4 * time.Second
	case Preconditions:
		s.Reliable, s.Preconditions, s.Bearer = true, true, 50*time.Millisecond
	case Lossy:
		s.Lossy = 0.03
	case HangsUpAfter:
		s.HangUp = 5 * time.Second
	default:
		return Script{}, fmt.Errorf("unknown profile %q", p)
	}
	return s, nil
}

// ParseProfile reads a profile with its figure, as flags have it: "slow=8s",
// "hangs-up-after=10s", "lossy=0.1", or just the word.
func ParseProfile(text string) (Profile, Script, error) {
	word, figure, has := strings.Cut(text, "=")
	p := Profile(word)
	if p == "" {
		return "", Script{}, errors.New("profile is empty")
	}
	s, err := p.Script()
	if err != nil || !has {
		return p, s, err
	}
	switch p {
	case Slow, HangsUpAfter:
		d, err := time.ParseDuration(figure)
		if err != nil || d < 0 {
			return p, s, fmt.Errorf("profile %s: %q is not a duration", word, figure)
		}
		if p == Slow {
			s.Answer = d
		} else {
			s.HangUp = d
		}
	case Lossy:
		if s.Lossy, err = strconv.ParseFloat(figure, 64); err != nil {
			return p, s, fmt.Errorf("profile %s: %q is not a share", word, figure)
		}
	default:
		return p, s, fmt.Errorf("profile %s takes no figure", word)
	}
	return p, s, s.Validate()
}
