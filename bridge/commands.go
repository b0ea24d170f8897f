package bridge

import (
	"encoding/json"
	"fmt"
	"time"
)

// Actor is who asks: an account over a session or an API key. The bridge decides by
// it what is allowed and writes it into the audit.
type Actor struct {
	Account string // id
	Name    string
	Via     string // session | apikey | cli | system
	Remote  string // address, for the audit
	Admin   bool   // sees and does everything; others only their own conferences
	// DialPrefixes limits the numbers that may be called; empty: no limit.
	DialPrefixes []string
}

// Kind is a class of error; the API maps it to a status.
type Kind int

const (
	Invalid     Kind = iota + 1 // 422: the request is understood and wrong
	Missing                     // 404
	Conflict                    // 409: not in this state
	Forbidden                   // 403
	Unavailable                 // 503: not now; the same request may work later
	Full                        // 507/503: no room, no ports, disk full
	TooSoon                     // 429: it may be asked for again after Error.Retry
)

// Error is an error for the caller of a command. Code is stable and in the public
// catalogue: conference_not_found, member_not_found, leg_not_found, number_invalid,
// member_exists, attachment_down, member_in_call, name_required, type_invalid, attachment_not_found, attachment_not_registering,
// not_conference_owner, dial_not_allowed, blocked_by_policy, conference_busy, storage_full, media_down …
type Error struct {
	Kind   Kind
	Code   string
	Detail string
	Field  string        // JSON pointer of the offending field, if there is one
	Retry  time.Duration // when the same request may work; 0: unknown
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Detail) }

// ConferenceSpec makes a conference.
type ConferenceSpec struct {
	Name        string
	Type        ConferenceType
	PIN         string     // six digits; "": made up
	Alias       string     // "": none
	JoinPolicy  JoinPolicy // "": pin
	WhoMayRefer Referrers  // "": creator
	// AnswerConfirm is the default of calls: who answers must press 1.
	AnswerConfirm bool
	Rejoin        bool
	Layout        Layout // "": mosaic
}

// ConferencePatch changes what is not nil.
type ConferencePatch struct {
	Name          *string
	PIN           *string // "": another one is made up
	Alias         *string // "": none
	JoinPolicy    *JoinPolicy
	WhoMayRefer   *Referrers
	AnswerConfirm *bool
	Rejoin        *bool
	Layout        *Layout
}

// MemberSpec makes a member.
type MemberSpec struct {
	Number string // E.164, or as typed: blanks, dashes and brackets are removed, 00 is +
	Name   string // "" is the number
	Role   string // "" is speaker
}

// MemberResult is the fate of one row of an array; exactly one field is set.
type MemberResult struct {
	Member *Member
	Err    *Error
}

// MemberPatch is wanted state; nil leaves as it is. Repeating it changes nothing.
type MemberPatch struct {
	Name, Role                    *string
	Muted, VideoMuted, Deaf, Held *bool
}

// CallRequest calls members. Targets is "all", "idle", "failed" or "" with Members.
// "all" means all who are not in a call already; "failed" those idle ones whose last
// leg never connected, was dropped, or is worth another call (Retry.How is "later").
type CallRequest struct {
	Targets     string
	Members     []string
	Media       string        // "video", "audio" or "": the conference's type
	RingTimeout time.Duration // 0: the default
	// AnswerConfirm: who answers must press 1 before he is in, so that a mailbox never is.
	// nil: as the conference says.
	AnswerConfirm *bool
}

// CallResult is the fate of one target; Leg or Err.
type CallResult struct {
	Member string
	Leg    *Leg
	Err    *Error
}

// WhisperSpec: From is a member id or "console".
type WhisperSpec struct {
	From string   `json:"from"`
	To   []string `json:"to"`
	Mode string   `json:"mode"` // private | coach
}

// Preview is the picture the phones see.
type Preview struct {
	JPEG []byte
	At   time.Time
}

// Event is one entry of the event stream. Seq rises by one per conference; ID names
// the event in the whole stream and resumes it. Types: conference.created|updated|
// deleted, member.added|updated|removed, leg.updated|ended, whisper.updated,
// talkers (coalesced, never replayed), attachment.updated, snapshot.
type Event struct {
	ID         string          `json:"id"`
	Seq        uint64          `json:"seq"`
	Time       time.Time       `json:"time"`
	Type       string          `json:"type"`
	Conference string          `json:"conference_id,omitempty"`
	Member     string          `json:"member_id,omitempty"`
	Leg        string          `json:"leg_id,omitempty"`
	Data       json.RawMessage `json:"data"`
}

// Subscription delivers events until Close, or until its reader is too slow: then C
// is closed and the reader resumes by id. The first event is a snapshot, unless the
// events after AfterID could be replayed without a gap.
type Subscription struct {
	C     <-chan Event
	Close func()
}
