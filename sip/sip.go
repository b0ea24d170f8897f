// Package sip is the user agent: it registers with a carrier's IMS core, places
// calls and keeps their dialogs. sipgo carries messages and transactions; dialogs
// are our own (package dialog) because IMS needs more than its helpers give.
//
// It knows nothing of media: session descriptions pass through as bytes that the
// bridge makes and reads with package sdp.
package sip

import (
	"errors"
	"net/netip"
	"time"
)

// Errors a caller branches on. Everything else ends in a call's Ended event.
var (
	ErrAttachmentDown    = errors.New("sip: attachment is down")
	ErrUnknownAttachment = errors.New("sip: no such attachment")
	ErrNotRegistering    = errors.New("sip: this attachment does not register")
	ErrBadNumber         = errors.New("sip: not a phone number")
	ErrClosed            = errors.New("sip: closed")
)

// Invite is one outgoing call attempt: one INVITE and all its forks.
type Invite struct {
	Attachment string // "" for the first that is up
	Number     string // E.164 with +
	Offer      []byte // the session description, offered in the INVITE
	Video      bool   // the offer has video: feature tags say so
	// Focus is the user part of our Contact where the attachment tells phones that they are in
	// a conference (AttachmentOptions.IsFocus): its own URI is Contact (RFC 4579 5.2).
	Focus     string
	Passive   bool // preconditions (RFC 3312) as MediaProfile.Passive, whatever the attachment says: the network refused its way (580)
	OtherForm bool // of the number's URI: sip: where the attachment has tel:, or the other way round (after 416)
	// Routes replace the attachment's own, byte for byte: what an S-CSCF wants to see again
	// of a session that we continue (Incoming.Routes).
	Routes     []string
	Replaces   string // the call of the peer's that this one takes over (RFC 3891), a header value; "" none
	ReferredBy string // URI of who had him called (RFC 3892); "" none
	// MayCall says whether the call may be redirected to a URI, which the network has named
	// and the attachment would follow (AttachmentOptions.FollowRedirect): number is E.164 with
	// +, or "" if the URI is none of a number. Emergency numbers are not asked about. nil: it
	// may. It is called from the call's goroutine and must not block.
	MayCall      func(uri, number string) bool
	SetupTimeout time.Duration // INVITE to first 18x or 2xx; 0: 60 s
	RingTimeout  time.Duration // first 180 to final answer; 0: 60 s
	// OnEvent is called in order, from the call's own goroutine. It must not block.
	OnEvent func(Event)
}

// Event is what happens to a call. Exactly one Ended comes, and it comes last.
type Event interface{ isEvent() }

type (
	// Queued says that the INVITE waits for its turn: the attachment sends no more than
	// its limits allow. Trying follows, or Ended. Timers start when the INVITE leaves.
	Queued struct {
		At    time.Time
		Ahead int       // calls before it
		Until time.Time // when it is to leave; zero: when another call ends
	}
	// Trying says that the INVITE left; CallID names it in traces.
	Trying struct {
		At     time.Time
		CallID string
		ICID   string
		// Identity is whom the call is from: what is asserted or preferred, also where the
		// callee is not to see it.
		Identity string
	}
	// Ringing is the first 180 of any fork.
	Ringing struct{ At time.Time }
	// Answer is a session description from the far end. Final: it is the binding
	// answer of the dialog that won; until then it is early media of one fork.
	Answer struct {
		At         time.Time
		SDP        []byte
		Final      bool
		EarlyMedia string // P-Early-Media of the response (RFC 5009): inactive, gated, sendrecv ...; "" none
		// Local is what we said last to that far end, as it was given to the UA, if UPDATEs came
		// after the answer to the INVITE: SDP goes with it, not with Invite.Offer. Offered: SDP is
		// then the far end's offer, and Local what was replied. nil: there were none.
		Local   []byte
		Offered bool
	}
	// Connected says that the INVITE was answered with a 2xx, and that acknowledged. It follows
	// the final Answer. Contact is the far end's whole Contact value with its feature tags, Server
	// its Server or User-Agent; "" unknown.
	Connected struct {
		At              time.Time
		Contact, Server string
	}
	// Offer is a re-INVITE or UPDATE of the far end with a session description, or
	// without one (SDP nil: we are to offer). Reply with Call.Reply within 2 s; nobody
	// replying is answered 488.
	//
	// Early: it is an UPDATE before the final answer to our INVITE, or re-INVITE. Nothing is
	// settled by it until then, when Answer or Reoffered tells what is: another fork may answer,
	// or a re-INVITE be refused and what was before stand. Local is then what we said last in
	// that dialog, nil for what we offered in that INVITE.
	Offer struct {
		At    time.Time
		ID    uint64
		SDP   []byte
		Early bool
		Local []byte
	}
	// Reoffered ends what Call.Offer began: SDP is the far end's answer, or nil and
	// the status that refused it. The call goes on either way. Status 491: an offer of the
	// far end came between and was answered, so ours is stale and a new one may be made.
	//
	// With Offer it ends what was replied to the Offer with that ID, which had no description: SDP
	// is the answer in the far end's ACK, or nil where there was none, or where there is no use for
	// a reply any more, as in Replied; that may come before it was replied to.
	Reoffered struct {
		At     time.Time
		Offer  uint64
		SDP    []byte
		Status int
		// As in Answer.
		Local   []byte
		Offered bool
	}
	// Refreshed is a description of the far end that nobody asked for: it answered a re-INVITE by
	// which the UA only kept the session alive, with another one than before. It holds from now
	// on, against Local, which is what the UA had offered again.
	Refreshed struct {
		At         time.Time
		SDP, Local []byte
	}
	// Replied ends an Offer with a description that was not refused by Call.Refuse. Used: our
	// answer has gone out, and what was agreed in it holds from now on. Otherwise nothing has
	// changed, and no answer to it is wanted any more, or counts if it was given: the far end has
	// cancelled its offer (487), or it was refused because there was no answer in time.
	Replied struct {
		At    time.Time
		Offer uint64
		Used  bool
	}
	// Info is an INFO with DTMF (application/dtmf-relay), a digit each.
	Info struct {
		At    time.Time
		Digit rune
	}
	// Charging is what billing wants to know of the call, as far as it has been said: by our
	// INVITE, and by what the peer sends (RFC 7315). It comes when something is new.
	Charging struct {
		At            time.Time
		OrigIOI       string // inter operator identifiers of P-Charging-Vector
		TermIOI       string
		AccessNetwork string // P-Access-Network-Info of the far end; it may say where a subscriber is
	}
	// Message is one line of the ladder: what was sent or received. For traces.
	Message struct {
		At      time.Time
		Sent    bool
		Summary string // "INVITE", "183 Session Progress", "PRACK" …; no numbers
	}
	// Ended is the end, whatever it was.
	Ended struct {
		At         time.Time
		By         By
		Connected  bool // it had been answered
		WasRinging bool
		Progressed bool   // a provisional response above 100 came: another way could ring him twice
		Status     int    // SIP status of the final answer, 0 if there was none
		Phrase     string // its reason phrase
		Q850       int    // of a Reason header, 0 if none
		SIPCause   int    // of Reason: SIP
		// ReleaseCause is that of Reason: RELEASE_CAUSE, which handsets put into BYE:
		// 1 the user ended the call, 2 RTP time-out, 3 bearer loss …; 0 if none.
		ReleaseCause int
		ReasonText   string // of a Reason header, or else what a refusal's body says in plain text; one line
		Reason       string // all values of Reason (RFC 3326) as they came, joined by ", "
		Warning      string // all values of Warning (RFC 3261 20.43) as they came, joined by ", "
		RetryAfter   time.Duration
		Target       string // of a 3xx that was not followed: the URI it points to
		// AltService is the type of a 380's alternative service (TS 24.229 7.6): "emergency"
		// …; "" none.
		AltService string
		Why        string // local reason: "setup_timeout", "ring_timeout", "no_response", "cancelled", "hung_up", "no_sdp", "transport", …
	}
)

// By says who ended a call.
type By string

const (
	ByRemote  By = "remote"  // the far end: a final answer or BYE
	ByLocal   By = "local"   // we were told to (Call.Hangup)
	ByTimeout By = "timeout" // one of our timers
	ByNetwork By = "network" // no transport, no response
)

func (Queued) isEvent()    {}
func (Trying) isEvent()    {}
func (Ringing) isEvent()   {}
func (Answer) isEvent()    {}
func (Connected) isEvent() {}
func (Offer) isEvent()     {}
func (Refreshed) isEvent() {}
func (Reoffered) isEvent() {}
func (Replied) isEvent()   {}
func (Info) isEvent()      {}
func (Charging) isEvent()  {}
func (Message) isEvent()   {}
func (Ended) isEvent()     {}

// Call is one outgoing call. Its methods may be called from anywhere, any number of
// times, and do not block; what they lead to comes as events.
type Call interface {
	// Hangup ends the call in the way its state needs: CANCEL, BYE, or both when a
	// 200 crosses the CANCEL. reason goes into a Reason header ("SIP;cause=200;text=…"),
	// why into Ended.Why.
	Hangup(why, reason string)
	// Reply answers an Offer: with a session description, or with a status to refuse it.
	Reply(id uint64, sdp []byte, status int)
	// Refuse refuses an Offer with a status and a Warning (RFC 3261 20.43), 0 for none: 301
	// the other address family, 305 no common format … The old session stands.
	Refuse(id uint64, status, warning int)
	// Offer sends a re-INVITE with a session description. focus is as in Acceptance, from now
	// on; "": our Contact stays.
	Offer(sdp []byte, focus string)
}

// AttachmentState is what an organiser may see of an attachment. Identities are whole:
// who shows them masks them.
type AttachmentState struct {
	Name      string
	Mode      string // ue | trunk | as
	State     string // registering | registered | auth_failed | rejected | unregistered | up | down | suspended
	Up        bool   // calls can be placed
	Since     time.Time
	Identity  string // IMPU or trunk identity
	Expires   time.Time
	LastError string
	LocalAddr string
	UDPAddr   string  // where SIP is spoken over UDP: no media may go there; "" nowhere
	Calls     int     // live; those queued too
	Queued    int     // INVITEs waiting for their turn
	CPS       float64 // limit; 0: none
	MaxCalls  int     // limit; 0: none
	Targets   []TargetState
	Reg       *RegistrationState // ue only
	Presence  int                // as: users registered as the core tells
	Ingress   IngressStats       // in what Attachments returns; not in what OnAttachment tells
}

// TargetState is one peer of an attachment.
type TargetState struct {
	Addr      string // ip:port
	Name      string // as configured, "" where that is the address
	Transport string // udp | tcp | tls
	State     string // unknown | up | down | suspended; of a P-CSCF in_use | standby
	Until     time.Time
	RTT       time.Duration // of the last OPTIONS; 0: none was answered
	Calls     int
	CPS       float64 // limit; 0: none of its own
	MaxCalls  int     // limit; 0: none of its own
	Priority  int     // lower first
	Weight    int
}

// RegistrationState is the registration of a ue attachment.
type RegistrationState struct {
	PCSCF           string
	Expires         time.Time
	ServiceRoutes   int
	Identities      []string
	RegEvent        string // off | none | pending | active | refused
	RegEventExpires time.Time
}

// MediaProfile is how media is described to the peers of an attachment. The UA only
// carries it: it is configured with the attachment and used by the bridge.
type MediaProfile struct {
	LocalIP   string // concrete local address for RTP, the same family as signalling
	OfferG711 bool   // G.722, PCMA and PCMU last in the offer
	OfferOpus bool   // Opus after AMR-WB
	VideoAVPF string // capneg | plain_avpf | avp; "": capneg
	Passive   bool   // preconditions are known, and none of ours are offered
	AnyPort   bool   // media may come from any port of the signalled address: latch strict
	// NATPrefixes are where phones' media may come from besides: latch nat.
	NATPrefixes []netip.Prefix
}

// Incoming is a call that comes in: an INVITE outside any dialog that passed the front
// door. Nothing in it has been believed that its peer may not say.
type Incoming struct {
	Attachment string
	At         time.Time
	CallID     string
	ICID       string // of P-Charging-Vector; made here if the peer gave none
	Target     string // whom the caller wants: CalledParty where a core calls us by our Contact, else RequestURI
	RequestURI string // as it came
	// CalledParty is P-Called-Party-ID (RFC 7315 4.2) of a peer that may say it; "" none.
	CalledParty string
	To          string   // URI of To: what was dialled first
	Caller      Identity // who calls
	Diverted    string   // who was dialled before the call was diverted here; "" nobody
	Offer       []byte   // nil: the answer of ours is to be an offer
	Supported   []string // the caller's option tags
	Recipients  []string // URIs of a recipient list (RFC 5366), whom a factory is to invite
	Hidden      []string // those of them whom others must not be shown (RFC 5364: bcc, anonymize)
	// Replaces is the Call-ID of the call, live and ours, that this one takes over (RFC
	// 3891); "" none. One that names no call of ours never gets here: it is answered 481.
	Replaces string
	// Of a call over ISC (TS 24.229 §5.7): for whom the core asks us, in which case (orig,
	// term) and whether that user is registered; and the Route behind our own, byte for byte:
	// the S-CSCF's token by which it knows the session again.
	ServedUser, SesCase, RegState string
	Routes                        []string
	// ReferredBy is the URI of Referred-By (RFC 3892), unproven; "" none.
	ReferredBy string
}

// Identity is who somebody says to be.
type Identity struct {
	URI     string   // sip: or tel:; of several that are asserted, a telephone number first
	Number  string   // E.164 with + if URI is a telephone number
	URIs    []string // all that are asserted, URI among them; nil unless Trusted
	Name    string   // display name
	Trusted bool     // asserted by a trusted peer (P-Asserted-Identity, RFC 3325); otherwise no more than From
	Private bool     // Privacy: id; others must not be shown it
	Verstat string   // of a tel URI (RFC 8224 by 3GPP): TN-Validation-Passed …; "" none
}

// IncomingCall is how a call that comes in is answered. Its events are those of a
// Call: Connected follows the ACK, Answer comes before it where the offer was ours.
// Before a final answer, Hangup refuses the call with 480.
type IncomingCall interface {
	Call
	// Ring says 180, once; more does nothing.
	Ring()
	// Accept says 200 with a session description: the answer to Incoming.Offer, or an offer.
	Accept(Acceptance)
	// Reject ends the call with a final response of 300 to 699, and a Warning as in Refuse.
	Reject(status, warning int)
}

// Acceptance is the 200 of an incoming call.
type Acceptance struct {
	SDP []byte
	// Focus is the user part of our Contact, which then has ;isfocus: the conference's own
	// URI is Contact (RFC 4579 5.2). "": the attachment's.
	Focus string
}

// Refer is a REFER (RFC 3515) that passed the front door: within a call, or to the URI of
// a conference outside any.
type Refer struct {
	Attachment string
	At         time.Time
	CallID     string // of the call of ours in whose dialog it came; "" outside any
	Target     string // Request-URI: outside a call, the conference that is meant
	By         Identity
	ReferredBy string   // URI of Referred-By (RFC 3892), unproven; "" none
	Method     string   // INVITE or BYE: what Refer-To asks to be done
	URIs       []string // to whom: one, or those of a list (RFC 5368), without method and headers
	Hidden     []string // those of a list whom others must not be shown (RFC 5364: bcc, anonymize)
	Replaces   string   // of the call that is asked for (RFC 3891), a header value; "" none
	Silent     bool     // no NOTIFY is wanted (RFC 4488)
}

// Referral is how a REFER is answered. Its methods do not block; what no longer fits
// changes nothing.
type Referral interface {
	// Accept says 202 and, unless it is silent, that the work has begun: NOTIFY with
	// "SIP/2.0 100 Trying" (message/sipfrag).
	Accept()
	// Reject ends it with a final response of 300 to 699.
	Reject(status int)
	// Progress tells the referrer what became of it so far. A final status ends the
	// subscription.
	Progress(status int, phrase string)
}

// Subscribe is a SUBSCRIBE (RFC 6665) to an event package that we notify: conference (RFC
// 4575). Refreshes and ends of it come as events.
type Subscribe struct {
	Attachment string
	At         time.Time
	CallID     string // of the call of ours in whose dialog it came; "" outside any
	Target     string // Request-URI: the conference that is meant
	By         Identity
	Event      string
	Accept     []string      // types of documents; empty: the package's default
	Expires    time.Duration // as asked for
	// MaxDocument is how long a document may be, in bytes; 0: not limited. One that is longer
	// is not sent, and ends the subscription.
	MaxDocument int
}

// Subscription is how a SUBSCRIBE is answered, and what is notified. Its methods do not
// block.
type Subscription interface {
	// Accept says 200 with the time granted. A NOTIFY must follow at once: Notify it.
	Accept(expires time.Duration)
	// Reject ends it with a final response of 300 to 699.
	Reject(status int)
	// Notify sends a document. One NOTIFY is out at a time, the others wait in order; the
	// caller keeps to the package's rate.
	Notify(contentType string, body []byte)
	// Terminate sends the last NOTIFY, with a document or none, and the reason of
	// Subscription-State: noresource, deactivated, timeout ...
	Terminate(reason, contentType string, body []byte)
}

// SubscriptionEvent is what happens to a subscription: SubscriptionRefreshed any number
// of times, SubscriptionGone once and last, after Terminate too.
type SubscriptionEvent interface{ isSubscriptionEvent() }

type (
	// SubscriptionRefreshed has been answered; the full state must be notified again.
	SubscriptionRefreshed struct{ Expires time.Duration }
	// SubscriptionGone: the peer ended it, its time ran out, or a NOTIFY could not be sent or
	// was answered 481, 408 or not at all.
	SubscriptionGone struct{ Why string } // unsubscribed | expired | notify_failed | terminated | shutdown
)

func (SubscriptionRefreshed) isSubscriptionEvent() {}
func (SubscriptionGone) isSubscriptionEvent()      {}
