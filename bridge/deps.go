package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sparkle/media"
	"sparkle/sip"
	"sparkle/sip/ims"
)

// Caller is what the bridge needs of the user agent; *sip.UA has it.
type Caller interface {
	// Invite places a call and returns at once; what becomes of it comes as events.
	Invite(sip.Invite) (sip.Call, error)
	// Attachments are all configured attachments, in their order of preference.
	Attachments() []sip.AttachmentState
	// Register has one register again at once: sip.ErrUnknownAttachment, or
	// sip.ErrNotRegistering for one that does not.
	Register(attachment string) error
	// MediaProfile says how to describe media to the peers of one attachment.
	MediaProfile(attachment string) (sip.MediaProfile, bool)
	// OnIncoming sets who takes calls that come in.
	OnIncoming(func(sip.Incoming, sip.IncomingCall) func(sip.Event))
	// SetOurs sets who says which addresses are served here: what a core has by way of us for
	// others goes on.
	SetOurs(func(attachment, target, to string) bool)
	// OnRefused sets who hears of calls that came in and were refused before that.
	OnRefused(func(in sip.Incoming, status int))
	// SetBusy says whether calls that come would be refused, for those who ask beforehand.
	SetBusy(busy bool)
	// OnRefer sets who decides on REFER, OnSubscribe on SUBSCRIBE.
	OnRefer(func(sip.Refer, sip.Referral))
	OnSubscribe(func(sip.Subscribe, sip.Subscription) func(sip.SubscriptionEvent))
}

// Store keeps what must survive a restart. Put and Drop return when the write is
// durable, with an *Error of kind Full (storage_full) or Unavailable
// (storage_unavailable) when it is not. Queue methods do not block: they are for
// what a call in progress has to say, and a broken disk must not be heard.
type Store interface {
	// Load returns everything a restart needs.
	Load(context.Context) (Saved, error)
	// PutConference makes or changes a conference. seq is the first event sequence
	// number that a later start may use.
	PutConference(ctx context.Context, c Conference, seq uint64) error
	// DropConference forgets a conference and its roster. Leg history stays.
	DropConference(ctx context.Context, id string) error
	// PutMembers makes or changes members, all or none.
	PutMembers(ctx context.Context, m ...Member) error
	DropMember(ctx context.Context, id string) error
	// QueueLeg writes the newest state of a leg soon; a later one replaces it.
	QueueLeg(LegRecord)
	// QueueAudit writes an audit row soon.
	QueueAudit(AuditRecord)
	// QueueSeq writes the sequence number that a later start begins after.
	QueueSeq(conference string, seq uint64)
	// QueueAlive notes that this process, with calls, lived at a time.
	QueueAlive(at time.Time)
	// Legs pages through a member's legs, newest first, with those still queued.
	Legs(ctx context.Context, conference, member string, limit int, cursor string) (items []Leg, next string, err error)
	// Healthy is nil while writes succeed.
	Healthy() error
}

// Charger keeps a charging record of every leg that has ended. It does not block.
type Charger interface {
	Charge(LegRecord)
}

// Saved is what a store gives back after a restart.
type Saved struct {
	Conferences []SavedConference
	// Live are the legs that had not ended when the last process stopped writing.
	Live []LegRecord
	// Alive is when a process with calls was last known to live; zero: not known.
	Alive time.Time
}

// SavedConference is one conference with its roster in order of joining it. State
// fields that are not durable (State, counts, Leg) are empty.
type SavedConference struct {
	Conference Conference
	Seq        uint64
	Members    []Member
}

// LegRecord is a leg as history keeps it: with the number, which outlives the member.
type LegRecord struct {
	Leg    Leg
	Number string // of the phone; where a caller has none, his URI
	// AccessNetwork is P-Access-Network-Info. It may say where a subscriber is: it is for
	// charging only, and not kept in history.
	AccessNetwork string
	// Dialled is the Request-URI of a call that came in; not kept in history either.
	Dialled string
	// Calling is whom a call of ours was from; "": as configured. Not kept in history.
	Calling string
	// Superseded: the record is of an INVITE of the leg that another one followed.
	Superseded bool
	// Recovered: the process that had the leg ended without a goodbye.
	Recovered bool
}

// AuditRecord says who did what. Target is an id; numbers are not in it.
type AuditRecord struct {
	At        time.Time
	Actor     string // account id
	ActorName string
	Via       string
	Remote    string
	Action    string // "conference.create", "member.call" …
	Target    string
	Result    string // "ok" or an error code
}

// Deps is what a Bridge is built from.
type Deps struct {
	Caller  Caller
	Media   media.API
	Store   Store
	Tracer  Tracer       // nil: legs have no traces
	Charger Charger      // nil: no charging records
	Log     *slog.Logger // nil: discards
	Options Options
}

// Options are the bridge's part of the configuration. The zero value works.
type Options struct {
	// RingTimeout is how long a phone rings when the request does not say. 0: 60 s.
	RingTimeout time.Duration
	// SetupTimeout is how long the network may stay silent. 0: 60 s.
	SetupTimeout time.Duration
	// MaxMembers of one conference. 0: 500.
	MaxMembers int
	// MaxConferences in all. 0: 1000.
	MaxConferences int
	// Country is an ISO 3166 code (CN): which numbers are emergency numbers. "": those
	// of every country.
	Country string
	// CallingCode (+86) completes numbers that are typed without one; "": they are refused.
	CallingCode string
	// Allow and Deny are prefixes of the numbers (E.164) that may be called, and must not be,
	// whoever asks; Deny wins. Allow empty: all.
	Allow, Deny []string
	// RetryAudioOnDecline calls once more by voice where a video call was declined as one:
	// 600, or 480, 486 or 603 that says "video".
	RetryAudioOnDecline bool
	// NoVideo makes every leg a voice leg, also in conferences of type video.
	NoVideo bool
	// DialIn are numbers (E.164) that all conferences share: the PIN says which is meant.
	DialIn []string
	// FactoryURIs are where a phone makes a conference by itself.
	FactoryURIs []string
	// Domain of the conferences' own URIs; "": they have none to show.
	Domain string
	// MediaIP is the local address for media, "" the attachment's; OtherMediaIP one of the other IP
	// family, "" none: for attachments, and for phones, that have no other.
	MediaIP, OtherMediaIP string
	// CloseTimeout caps how long Close waits for BYEs. 0: 5 s.
	CloseTimeout time.Duration
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var errs []error
	if o.RingTimeout < 0 || o.RingTimeout > maxRingTimeout {
		errs = append(errs, fmt.Errorf("ring_timeout %v: want 0 to %v", o.RingTimeout, maxRingTimeout))
	}
	if o.SetupTimeout < 0 || o.SetupTimeout > maxRingTimeout {
		errs = append(errs, fmt.Errorf("setup_timeout %v: want 0 to %v", o.SetupTimeout, maxRingTimeout))
	}
	if o.MaxMembers < 0 || o.MaxMembers > 5000 {
		errs = append(errs, fmt.Errorf("max_members %d: want 0 to 5000", o.MaxMembers))
	}
	if o.MaxConferences < 0 {
		errs = append(errs, fmt.Errorf("max_conferences %d: want 0 or more", o.MaxConferences))
	}
	if o.Country != "" && len(o.Country) != 2 {
		errs = append(errs, fmt.Errorf("country %q: want two letters", o.Country))
	}
	if o.CallingCode != "" && !ims.ValidCallingCode(o.CallingCode) {
		errs = append(errs, fmt.Errorf("calling_code %q: want + and one to three digits", o.CallingCode))
	}
	if o.CloseTimeout < 0 {
		errs = append(errs, fmt.Errorf("close_timeout %v: want 0 or more", o.CloseTimeout))
	}
	return errors.Join(errs...)
}

const maxRingTimeout = 5 * time.Minute

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.RingTimeout, 60*time.Second)
	set(&o.SetupTimeout, 60*time.Second)
	set(&o.CloseTimeout, 5*time.Second)
	if o.MaxMembers == 0 {
		o.MaxMembers = 500
	}
	if o.MaxConferences == 0 {
		o.MaxConferences = 1000
	}
	return o
}
