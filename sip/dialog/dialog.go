// Package dialog decides what an outgoing call says next. It holds the INVITE with
// all its forks, the dialog that won, 100rel, session timers and glare as one state
// machine that sends nothing, arms nothing and reads no clock:
//
//	Step(now, input) → actions      Next() → when to call Step(now, Tick{}) again
//
//	idle ─Start→ calling ─1xx→ proceeding ─2xx→ confirmed ─BYE→ ended ─64·T1→ done
//	                │              │ Hangup, timers: CANCEL      ▲
//	                └──────────────┴── failure, 487, timeout ────┘
//
// Ended is told once; after it the machine lives on until nothing can come back:
// a 2xx that arrives late is still acknowledged and its dialog ended with BYE.
// A Call belongs to one goroutine.
package dialog

import (
	"cmp"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Header is one header field as it goes on the wire.
type Header struct{ Name, Value string }

// Options say who calls whom and how. Zero durations take the defaults named.
type Options struct {
	CallID  string
	From    string   // our name-addr without tag: "<sip:+15550100@ims.example>"
	FromTag string   // of every fork of this call
	To      string   // name-addr of the callee: "<tel:+15550123>"
	Target  string   // Request-URI of the INVITE
	Contact string   // our Contact value, feature tags included
	Routes  []string // preloaded Route values, in order

	Headers   []Header // further headers of the INVITE, in order
	Supported []string // option tags; one refused with 420 is left out and tried again
	Allow     string
	UserAgent string

	Transport string // UDP or TCP, for Via
	Host      string // sent-by
	Port      int

	Offer []byte // the session description in the INVITE

	Setup time.Duration // INVITE to first 18x or 2xx; 60 s
	Ring  time.Duration // first 180 (or other 18x) to final answer; 60 s
	Reply time.Duration // the bridge's time to reply to an offer of the peer; 2 s
	Grace time.Duration // from Hangup to Ended when nobody confirms a CANCEL; 5 s
	T1    time.Duration // 500 ms
	T2    time.Duration // 4 s

	SessionExpires time.Duration // RFC 4028: what we ask for; 0: no session timer
	MinSE          time.Duration // the least we accept; 90 s

	ID   func() string  // fresh unguessable tokens for branches
	Rand func() float64 // [0,1), for the wait after glare; nil: 0.5

	// Authorize adds credentials for the challenge in res to the repeated INVITE, or
	// says why it cannot. Only the INVITE is ever authorised: a challenge inside the
	// dialog comes from whoever was called, and is no reason to prove anything to him.
	Authorize func(req *sip.Request, res *sip.Response) error
}

// Input is what can happen to a call.
type Input interface{ isInput() }

type (
	// Start sends the INVITE.
	Start struct{}
	// Response is any response to a request of this call, retransmitted 2xx included.
	Response struct{ Res *sip.Response }
	// Failed says that a client transaction ended without a final response: Timeout
	// when nobody answered, otherwise because the transport broke.
	Failed struct {
		Req     *sip.Request
		Timeout bool
	}
	// Request is a request of the peer; Tx comes back in Respond. An ACK has no Tx.
	Request struct {
		Req *sip.Request
		Tx  any
	}
	// Cancelled says that the peer cancelled its re-INVITE, which has been answered 487.
	Cancelled struct{ Tx any }
	// Hangup ends the call the way its state needs.
	Hangup struct{ Why, Reason string }
	// Reply answers the peer's Offer with the same ID.
	Reply struct {
		ID      uint64
		SDP     []byte
		Status  int
		Warning int // code of a Warning header beside Status, 0: none
	}
	// Propose sends a session description of ours in a re-INVITE.
	Propose struct{ SDP []byte }
	// Resent says that the INVITE left again, with another branch, to a peer that has not
	// been heard of yet: a CANCEL waits for its first response. The caller has put that
	// branch into the request of Send.
	Resent struct{}
	// Ask sends a request of another usage (RFC 5057) in the dialog that was answered:
	// NOTIFY, REFER. Its final status comes as Asked; 0 when nobody answered.
	Ask struct {
		ID          uint64
		Method      sip.RequestMethod
		Headers     []Header
		ContentType string
		Body        []byte
	}
	// Tell answers the request that came as Other with the same ID.
	Tell struct {
		ID      uint64
		Status  int
		Headers []Header
	}
	// Ring says 180 to an incoming INVITE, reliably where both sides do 100rel.
	Ring struct{}
	// Accept says 200 to an incoming INVITE, once what precedes it has been settled
	// (PRACK, preconditions). Contact replaces Options.Contact where it is not empty.
	Accept struct {
		SDP     []byte
		Contact string
	}
	// Reject says a final response of 300 to 699 to an incoming INVITE.
	Reject struct {
		Status  int
		Headers []Header
	}
	// Tick says that the time of Next has come.
	Tick struct{}
)

func (Start) isInput()     {}
func (Response) isInput()  {}
func (Failed) isInput()    {}
func (Request) isInput()   {}
func (Cancelled) isInput() {}
func (Hangup) isInput()    {}
func (Reply) isInput()     {}
func (Propose) isInput()   {}
func (Resent) isInput()    {}
func (Ask) isInput()       {}
func (Tell) isInput()      {}
func (Ring) isInput()      {}
func (Accept) isInput()    {}
func (Reject) isInput()    {}
func (Tick) isInput()      {}

// Action is what the caller is to do, in order.
type Action interface{ isAction() }

type (
	// Send starts a client transaction; its responses come back as Response.
	Send struct{ Req *sip.Request }
	// Ack goes to the transport as it is: an ACK for a 2xx has no transaction.
	Ack struct{ Req *sip.Request }
	// Respond answers a Request through its server transaction. The same 2xx to an
	// INVITE may come again: that is its retransmission.
	Respond struct {
		Tx  any
		Res *sip.Response
	}
	// Emit tells the owner.
	Emit struct{ Event Event }
)

func (Send) isAction()    {}
func (Ack) isAction()     {}
func (Respond) isAction() {}
func (Emit) isAction()    {}

// Event is what the owner of the call hears.
type Event interface{ isEvent() }

type (
	// Ringing is the first 180 of any fork.
	Ringing struct{}
	// Answer is a session description from the far end; see sip.Answer.
	Answer struct {
		SDP   []byte
		Final bool
	}
	// Connected follows the final Answer; the ACK is on its way. Contact and Server are
	// the far end's.
	Connected struct{ Contact, Server string }
	// Offer is the peer's; it waits for a Reply. SDP nil: we are to offer.
	Offer struct {
		ID  uint64
		SDP []byte
	}
	// Reoffered is the peer's answer to an offer of ours, or the refusing status.
	Reoffered struct {
		SDP    []byte
		Status int
	}
	// Info is a DTMF digit that came in INFO.
	Info struct{ Digit rune }
	// Other is a REFER, SUBSCRIBE or NOTIFY of the peer within the dialog. It waits for
	// Tell; Options.Reply without one is answered 480. It may come after Connected only.
	Other struct {
		ID  uint64
		Req *sip.Request
	}
	// Asked is what became of Ask.
	Asked struct {
		ID     uint64
		Status int
	}
	// Ended comes once and last.
	Ended struct {
		By           string // remote | local | timeout | network
		Connected    bool
		WasRinging   bool
		Status       int
		Phrase       string
		Q850         int
		SIPCause     int
		ReleaseCause int
		ReasonText   string
		Warning      string
		RetryAfter   time.Duration
		AltService   string
		Why          string
	}
)

func (Ringing) isEvent()   {}
func (Answer) isEvent()    {}
func (Connected) isEvent() {}
func (Offer) isEvent()     {}
func (Reoffered) isEvent() {}
func (Info) isEvent()      {}
func (Other) isEvent()     {}
func (Asked) isEvent()     {}
func (Ended) isEvent()     {}

// timer names one deadline of a call.
type timer int

const (
	timerSetup   timer = iota // no 18x, no 2xx
	timerRing                 // rings too long
	timerGrace                // nobody confirms our CANCEL: tell Ended anyway
	timerLinger               // late 2xx may come until here
	timerReply                // the bridge does not reply to an offer
	timerResend               // 2xx of ours to a re-INVITE: send again (RFC 3261 13.3.1.4)
	timerNoAck                // 64·T1 of that
	timerGlare                // our re-INVITE again after 491
	timerReoffer              // our re-INVITE has waited long enough
	timerRefresh              // session timer: our turn
	timerExpire               // session timer: nobody refreshed
	timerCount
)

// reofferLimit is how long a person may think about a re-INVITE: handsets ask their
// user for up to 60 s.
const reofferLimit = 70 * time.Second

// Call is one outgoing call: the INVITE, its forks, and the dialog that won.
type Call struct {
	o   Options
	now time.Time
	out []Action
	at  [timerCount]time.Time

	invite     *sip.Request
	seq        uint32 // CSeq of the INVITE
	proceeding bool   // a provisional response came: CANCEL is allowed
	rang       bool
	connected  bool             // Connected was told
	forks      map[string]*fork // early and confirmed dialogs by remote tag
	winner     *fork

	triedAuth, tried420, tried422 bool

	hang       *hang // we want it over
	cancelSent bool
	ended      bool
	byes       int // BYE transactions that are still open

	bump     uint64 // descriptions we have made ourselves: see version
	localSDP []byte // last description of ours that stands
	reoffer  *reoffer
	queued   *Propose // an offer that waits for the one in flight; the newest wins
	reAck    *sip.Request
	refresh  uint32 // CSeq of our refreshing UPDATE, 0 if none is out

	peer    *peerOffer
	offerID uint64

	session   time.Duration // agreed session interval, 0: none
	weRefresh bool
}

type hang struct{ by, why, reason string }

// New makes a call that has not sent anything yet.
func New(o Options) *Call {
	o.Setup = cmp.Or(o.Setup, 60*time.Second)
	o.Ring = cmp.Or(o.Ring, 60*time.Second)
	o.Reply = cmp.Or(o.Reply, 2*time.Second)
	o.Grace = cmp.Or(o.Grace, 5*time.Second)
	o.T1 = cmp.Or(o.T1, 500*time.Millisecond)
	o.T2 = cmp.Or(o.T2, 4*time.Second)
	o.MinSE = cmp.Or(o.MinSE, 90*time.Second)
	if o.Rand == nil {
		o.Rand = func() float64 { return 0.5 }
	}
	return &Call{o: o, seq: 1, forks: map[string]*fork{}, localSDP: o.Offer}
}

// Step takes one input and returns what is to be done, in order.
func (c *Call) Step(now time.Time, in Input) []Action {
	c.now, c.out = now, nil
	switch in := in.(type) {
	case Start:
		if c.invite == nil && !c.ended {
			c.sendInvite(nil)
			c.arm(timerSetup, c.o.Setup)
		}
	case Response:
		c.onResponse(in.Res)
	case Failed:
		c.onFailed(in)
	case Request:
		c.onRequest(in)
	case Cancelled:
		if c.peer != nil && c.peer.tx == in.Tx && c.peer.res == nil {
			c.peer = nil // its 487 has been sent already
			c.stop(timerReply)
			c.proposeQueued()
		}
	case Hangup:
		c.hangUp(hang{"local", in.Why, in.Reason})
	case Reply:
		c.onReply(in)
	case Propose:
		c.onPropose(in)
	case Resent:
		c.proceeding = false
	case Tick:
		c.onTick()
	}
	return c.out
}

// Next is the earliest deadline; zero if there is none.
func (c *Call) Next() time.Time {
	var next time.Time
	for _, at := range c.at {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// Done says that the call can be forgotten: it has ended and nothing of it is left
// in the network that we would have to answer.
func (c *Call) Done() bool {
	return c.ended && c.byes == 0 && c.at[timerLinger].IsZero()
}

// HasEnded says that Ended was told; the machine may still be lingering.
func (c *Call) HasEnded() bool { return c.ended }

func (c *Call) arm(t timer, d time.Duration) { c.at[t] = c.now.Add(d) }
func (c *Call) stop(ts ...timer) {
	for _, t := range ts {
		c.at[t] = time.Time{}
	}
}
func (c *Call) do(a ...Action) { c.out = append(c.out, a...) }
func (c *Call) emit(e Event)   { c.do(Emit{e}) }

// end tells Ended, once, and stops everything but the watch for late answers.
func (c *Call) end(e Ended) {
	if c.ended {
		return
	}
	c.ended = true
	e.Connected = c.connected
	e.WasRinging = c.rang
	linger := c.at[timerLinger]
	c.dropPeerOffer()
	c.at = [timerCount]time.Time{timerLinger: linger}
	c.reoffer, c.queued, c.refresh = nil, nil, 0
	c.emit(e)
}

// linger keeps the call listening for late 2xx (RFC 3261 13.2.2.4).
func (c *Call) linger() {
	if until := c.now.Add(64 * c.o.T1); until.After(c.at[timerLinger]) {
		c.at[timerLinger] = until
	}
}

func (c *Call) onTick() {
	for t := timer(0); t < timerCount; t++ {
		at := c.at[t]
		if at.IsZero() || at.After(c.now) {
			continue
		}
		c.at[t] = time.Time{}
		c.fire(t)
	}
}

func (c *Call) fire(t timer) {
	switch t {
	case timerSetup:
		if c.proceeding {
			c.hangUp(hang{"timeout", "setup_timeout", `SIP;cause=487;text="setup timeout"`})
			return
		}
		// Nothing at all came back: that is the network's silence, not the callee's.
		c.hangUp(hang{"network", "no_response", `SIP;cause=487;text="setup timeout"`})
	case timerRing:
		c.hangUp(hang{"timeout", "ring_timeout", `SIP;cause=487;text="no answer"`})
	case timerGrace:
		c.linger()
		c.endHung(Ended{})
	case timerReply:
		c.refuse(488, 0)
	case timerResend:
		c.resend2xx()
	case timerNoAck:
		c.peer = nil
		c.stop(timerResend)
		c.byeAndEnd(c.winner, hang{"timeout", "no_ack", `SIP;cause=408;text="no ACK"`})
	case timerGlare:
		c.sendReoffer()
	case timerReoffer:
		c.giveUpReoffer()
	case timerRefresh:
		c.refreshSession()
	case timerExpire:
		c.byeAndEnd(c.winner, hang{"timeout", "session_expired", `SIP;cause=408;text="session timer"`})
	}
}

// GivenUp says that the call has ended or somebody wants it to.
func (c *Call) GivenUp() bool { return c.ended || c.hang != nil }

// Settled says that Ended was told and no BYE of ours waits for its answer; what is
// left is the watch for late answers.
func (c *Call) Settled() bool { return c.ended && c.byes == 0 }

// Stray makes the ACK and BYE for a 2xx that belongs to no call we still know.
func Stray(o Options, res *sip.Response) (ack, bye *sip.Request) {
	c := New(o)
	c.o.CallID, c.seq, c.ended = string(*res.CallID()), res.CSeq().SeqNo, true
	c.o.From, c.o.FromTag = value(res, "From"), fromTag(res)
	for _, a := range c.Step(time.Time{}, Response{res}) {
		switch a := a.(type) {
		case Ack:
			ack = a.Req
		case Send:
			bye = a.Req
		}
	}
	return ack, bye
}
