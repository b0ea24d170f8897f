// Package bridge is the conference server's core: conferences, members and legs,
// who is in, who hears and sees whom, and why a leg ended. It drives a Caller (sip)
// and a media.API with plain data and knows nothing of HTTP.
package bridge

import (
	"encoding/json"
	"time"
)

// MemberState is what the organiser sees (DESIGN §3).
type MemberState string

const (
	Idle         MemberState = "idle"          // 空闲
	MemberRings  MemberState = "ringing"       // 振铃中
	InConference MemberState = "in_conference" // 会议中
)

// LegState: dialing → ringing | early_media → connected (⇄ held) → ended.
type LegState string

const (
	Dialing    LegState = "dialing"
	Ringing    LegState = "ringing"
	EarlyMedia LegState = "early_media"
	Connected  LegState = "connected"
	Held       LegState = "held"
	Ended      LegState = "ended"
)

// Outcome is why a leg ended; empty while it lives.
type Outcome string

const (
	Busy              Outcome = "busy"
	NoAnswer          Outcome = "no_answer"
	Declined          Outcome = "declined"
	Unreachable       Outcome = "unreachable"
	NotFound          Outcome = "not_found"
	NotAllowed        Outcome = "not_allowed"
	Blocked           Outcome = "blocked"
	MediaIncompatible Outcome = "media_incompatible"
	Cancelled         Outcome = "cancelled"
	NetworkError      Outcome = "network_error"
	Left              Outcome = "left"    // the member hung up
	HungUp            Outcome = "hung_up" // we did
	Dropped           Outcome = "dropped" // media or network lost
)

// MarshalJSON writes null for a leg that still lives: the contract has the key always.
func (o Outcome) MarshalJSON() ([]byte, error) {
	if o == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(o))
}

// Text is one plain sentence in the console's languages.
type Text struct {
	Zh string `json:"zh"`
	En string `json:"en"`
}

// SIPResult is what the network said last.
type SIPResult struct {
	Status int    `json:"status"`
	Reason string `json:"reason,omitempty"`
	Q850   int    `json:"q850,omitempty"`
	// Warning is all of Warning as it came, Text that of a Reason header, or else of the
	// body: for admins.
	Warning string `json:"warning,omitempty"`
	Text    string `json:"text,omitempty"`
	// Header is all of Reason as it came (RFC 3326); SIPCause and ReleaseCause are its causes of
	// the protocols SIP and RELEASE_CAUSE.
	Header       string `json:"reason_header,omitempty"`
	SIPCause     int    `json:"sip_cause,omitempty"`
	ReleaseCause int    `json:"release_cause,omitempty"`
	// RedirectedTo is the URI of a 3xx that was not followed.
	RedirectedTo string `json:"redirected_to,omitempty"`
}

// LastOutcome is the outcome of the newest ended leg.
type LastOutcome struct {
	Outcome Outcome    `json:"outcome"`
	Reason  string     `json:"reason,omitempty"` // finer than the outcome: number_changed, ended_early, removed …
	SIP     *SIPResult `json:"sip"`
	Text    Text       `json:"text"`
	At      time.Time  `json:"at"`
	Retry   *Retry     `json:"retry,omitempty"`
}

// Retry says of an ended leg whether another call is worth it (IMS.md §6), which is for
// whoever reads it to place: nothing redials by itself.
type Retry struct {
	How    string `json:"how"`               // no | audio | later | fix
	AfterS int    `json:"after_s,omitempty"` // of later: the network said, not before so many seconds
}

// ConferenceType: "video" or "audio".
type ConferenceType string

const (
	VideoConference ConferenceType = "video"
	AudioConference ConferenceType = "audio"
)

// Conference is one conference as others see it. State is "idle" while nobody is
// called or in, else "active".
type Conference struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Type      ConferenceType `json:"type"`
	State     string         `json:"state"`
	Owner     string         `json:"owner"` // account id
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	Members   int            `json:"members"`
	Ringing   int            `json:"ringing"`
	InRoom    int            `json:"in_conference"`
	// PIN lets callers in, and where conferences share a number it says which one is meant.
	PIN         string     `json:"pin"`
	Alias       string     `json:"alias"` // what may be dialled besides its URI: a number, or a name; "" none
	JoinPolicy  JoinPolicy `json:"join_policy"`
	WhoMayRefer Referrers  `json:"who_may_refer"`
	// AnswerConfirm: who is called and answers must press 1 before he is in, unless the call
	// says otherwise. Voicemail does not.
	AnswerConfirm bool `json:"answer_confirm"`
	// Rejoin: whoever was called and lost his call (Dropped, and another one is worth it) is
	// called once more.
	Rejoin bool   `json:"rejoin"`
	Layout Layout `json:"layout"`
	// DialLimit are the prefixes, separated by blanks, of the numbers that phones in it may
	// have called, by REFER or a list: those of the key that made it; "": no limit.
	DialLimit string `json:"-"`
	AdHoc     bool   `json:"ad_hoc"` // made by a phone, over the conference factory; ends with its last call
	DialIn    DialIn `json:"dial_in"`
}

// Layout is what the phones of a video conference see.
type Layout string

const (
	LayoutMosaic   Layout = "mosaic"   // everybody, in tiles
	LayoutSwitched Layout = "switched" // who talks, as his phone sends it; a phone that cannot take that as it is sees the mosaic
)

// JoinPolicy says who may call into a conference.
type JoinPolicy string

const (
	JoinOpen   JoinPolicy = "open"         // everybody
	JoinListed JoinPolicy = "allow_listed" // asserted numbers that are on the roster
	JoinPIN    JoinPolicy = "pin"          // who gives the PIN
)

// Referrers says whose REFER a conference follows: who may have others called and hung up
// from a phone.
type Referrers string

const (
	ReferCreator    Referrers = "creator"    // the phone that made it, over the factory
	ReferModerators Referrers = "moderators" // hosts, and the creator
	ReferAny        Referrers = "any"        // whoever is in
	ReferNone       Referrers = "none"
)

// DialIn is what callers dial: a telephone number, "" if there is none, and the
// conference's own URI, "" without an attachment.
type DialIn struct {
	Number string `json:"number"`
	URI    string `json:"uri"`
}

// Member is a row of the roster.
type Member struct {
	ID          string       `json:"id"`
	Conference  string       `json:"conference_id"`
	Number      string       `json:"number"` // E.164
	Name        string       `json:"name"`
	Role        string       `json:"role"` // host | speaker | listener
	State       MemberState  `json:"state"`
	Muted       bool         `json:"muted"`
	VideoMuted  bool         `json:"video_muted"`
	Deaf        bool         `json:"deaf"`
	Held        bool         `json:"held"`
	Hand        bool         `json:"hand"`
	Leg         *Leg         `json:"leg"`          // live, or null
	LastOutcome *LastOutcome `json:"last_outcome"` // or null
	CreatedAt   time.Time    `json:"created_at"`
	// Unverified: he called in, and no trusted network says who he is. Name is what he says
	// himself.
	Unverified bool `json:"unverified,omitempty"`
}

// AudioMedia, VideoMedia, Media and Quality describe a live leg.
type AudioMedia struct {
	Codec   string `json:"codec"`          // AMR-WB, AMR, opus, G722, PCMU, PCMA
	Mode    string `json:"mode,omitempty"` // e.g. "23.85" or "octet-align"
	Payload int    `json:"payload"`
}
type VideoMedia struct {
	Codec   string `json:"codec"` // H264
	Profile string `json:"profile"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
}
type Media struct {
	Audio      *AudioMedia `json:"audio"`
	Video      *VideoMedia `json:"video"`
	WhyNoVideo *string     `json:"why_no_video"` // refused, codec_mismatch, not_offered, rejected_488 …, null with video
	WhyNoAudio *string     `json:"why_no_audio"` // removed: the phone dropped it and kept its video; null with audio
	VideoState VideoState  `json:"video_state"`
	// VideoReason says more of VideoState: WhyNoVideo, and with video camera_off,
	// not_shown, silent, undecodable, no_capacity; nil: nothing more to say.
	VideoReason *string `json:"video_reason"`
}
type Quality struct {
	RxLoss     float64 `json:"rx_loss"` // 0..1
	RxJitterMs float64 `json:"rx_jitter_ms"`
	TxLoss     float64 `json:"tx_loss"`
	RTTMs      float64 `json:"rtt_ms"`
	MOS        float64 `json:"mos"`
	RxPackets  uint64  `json:"rx_packets"`
	TxPackets  uint64  `json:"tx_packets"`
	Strangers  uint64  `json:"rx_stranger"`
}

// Charging is what P-Charging-Vector said of whose networks the call went through.
type Charging struct {
	OrigIOI string `json:"orig_ioi,omitempty"`
	TermIOI string `json:"term_ioi,omitempty"`
}

// Usage is what a leg's streams carried; bytes are those of RTP with its header.
type Usage struct {
	Audio StreamUsage `json:"audio"`
	Video StreamUsage `json:"video"`
}
type StreamUsage struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
}

// TimelineEntry is one thing that happened to a leg, in words.
type TimelineEntry struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // sip_sent, sip_received, state, media, mute, …
	Text string    `json:"text,omitempty"`
}

// Leg is one call attempt with a member.
type Leg struct {
	ID          string     `json:"id"`
	Member      string     `json:"member_id"`
	Conference  string     `json:"conference_id"`
	State       LegState   `json:"state"`
	Since       time.Time  `json:"since"`
	Direction   string     `json:"direction"` // outbound | inbound
	Attachment  string     `json:"attachment"`
	Outcome     Outcome    `json:"outcome"`              // null while it lives
	Reason      string     `json:"reason,omitempty"`     // finer than the outcome
	Attempts    int        `json:"attempts,omitempty"`   // INVITEs of ours
	DurationS   float64    `json:"duration_s,omitempty"` // from answer to end, whatever the clock was set to meanwhile
	SIP         *SIPResult `json:"sip"`
	Text        *Text      `json:"text"`
	Retry       *Retry     `json:"retry,omitempty"` // of an ended leg
	StartedAt   time.Time  `json:"started_at"`
	RingingAt   *time.Time `json:"ringing_at"`
	ConnectedAt *time.Time `json:"connected_at"`
	EndedAt     *time.Time `json:"ended_at"`
	Media       Media      `json:"media"`
	Quality     *Quality   `json:"quality"`
	// Of a call that came in: the network's judgement of the caller's number (RFC 8224 as
	// 3GPP has it), and whom he had dialled before the call was diverted here.
	Verstat      string       `json:"verstat,omitempty"`
	DivertedFrom string       `json:"diverted_from,omitempty"`
	Unverified   bool         `json:"unverified,omitempty"` // no trusted network says who calls: only his From does
	CallID       string       `json:"call_id,omitempty"`
	ICID         string       `json:"icid,omitempty"`
	Charging     *Charging    `json:"charging,omitempty"`
	Usage        *Usage       `json:"usage,omitempty"` // of an ended leg
	CSAccess     bool         `json:"cs_access"`       // reached over a circuit-switched network: never any video
	Change       *MediaChange `json:"media_change"`    // the organiser's newest wish, or null
	Queue        *LegQueue    `json:"queue,omitempty"` // while the INVITE waits for its turn
	// AwaitingConfirm: answered, and has not pressed 1 yet. State is ringing meanwhile, and
	// ConnectedAt is set.
	AwaitingConfirm bool            `json:"awaiting_confirm,omitempty"`
	Timeline        []TimelineEntry `json:"timeline,omitempty"`
}

// LegQueue says where a leg stands whose INVITE waits for its turn.
type LegQueue struct {
	Ahead int        `json:"ahead"` // calls before it when it was queued
	Until *time.Time `json:"until"` // when it is to leave; nil: when a call ends
}
