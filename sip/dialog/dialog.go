// Package dialog decides what a call says next. It holds the INVITE with all its
// forks, the dialog that won, 100rel, preconditions, session timers and glare as one
// state machine that sends nothing, arms nothing and reads no clock:
//
//	Step(now, input) → actions      Next() → when to call Step(now, Tick{}) again
//
//	idle ─Start→ calling ─1xx→ proceeding ─2xx→ confirmed ─BYE→ ended ─64·T1→ done
//	                │              │ Hangup, timers: CANCEL      ▲
//	                └──────────────┴── failure, 487, timeout ────┘
//
// A call that comes in (NewIncoming) is the same machine from confirmed on; before, see
// incoming. Ended is told once; after it the machine lives on until nothing can come
// back: a 2xx that arrives late is still acknowledged and its dialog ended with BYE, and
// a subscription made in the dialog goes on. A Call belongs to one goroutine.
package dialog

import (
	"cmp"
	"time"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
)

// Header is one header field as it goes on the wire.
type Header struct{ Name, Value string }

// Options say who calls whom and how. Zero durations take the defaults named.
type Options struct {
	CallID  string
	From    string   // our name-addr without tag: "<sip:+15550100@ims.example>"
	FromTag string   // of every fork of this call
	Seq     uint32   // CSeq number of its first INVITE; 1
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

	// Preconditions puts those of a side that is ready into our offer (RFC 3312), where
	// precondition is among Supported; RequirePreconditions makes the callee know them.
	Preconditions, RequirePreconditions bool

	SessionExpires time.Duration // RFC 4028: what we ask for; 0: no session timer
	MinSE          time.Duration // the least we accept; 90 s
	MaxDuration    time.Duration // of a call that was answered; 0: no limit

	ID   func() string  // fresh unguessable tokens for branches
	Rand func() float64 // [0,1), for the wait after glare; nil: 0.5

	// Redirect says whether a 3xx to uri is followed, and with which Request-URI; nil: none is.
	Redirect func(uri string) (target string, ok bool)

	// Authorize adds credentials to a request that is repeated, for a challenge in res, of realm
	// only unless that is empty: then the INVITE is repeated, and of whose realm a challenge to it
	// must be is for Authorize to know. It returns that challenge, or says why it cannot.
	Authorize func(req *sip.Request, res *sip.Response, realm string) (digest.Challenge, error)
	// Realm is the one whose challenges inside the dialog of a call that goes out are answered;
	// "": none is, for they may come from whoever was called, who is owed no proof. A challenge
	// to the INVITE that was answered takes its place.
	Realm string
}

// timer names one deadline of a call.
type timer int

const (
	timerSetup    timer = iota // no 18x, no 2xx
	timerRing                  // rings too long
	timerGrace                 // nobody confirms our CANCEL: tell Ended anyway
	timerLinger                // late 2xx may come until here
	timerReply                 // the bridge does not reply to an offer
	timerResend                // 2xx of ours to a re-INVITE: send again (RFC 3261 13.3.1.4)
	timerNoAck                 // 64·T1 of that
	timerGlare                 // our re-INVITE again after 491
	timerReoffer               // our re-INVITE has waited long enough
	timerRefresh               // session timer: our turn
	timerExpire                // session timer: nobody refreshed
	timerPrack                 // no PRACK yet: our 18x again (RFC 3262 3)
	timerNoPrack               // 64·T1 of that
	timerQoS                   // the peer's resources do not come
	timerQoSAgain              // our UPDATE for them again after 491
	timerOther                 // nobody tells what to answer to a request of another usage
	timerLongest               // the call has lasted as long as it may
	timerCount
)

// reofferLimit is how long a person may think about a re-INVITE: handsets ask their
// user for up to 60 s.
const reofferLimit = 70 * time.Second

// Call is one call: the INVITE, its forks, and the dialog that won.
type Call struct {
	o   Options
	now time.Time
	out []Action
	at  [timerCount]time.Time

	in         *incoming    // of a call that comes in; nil of one that goes out
	invite     *sip.Request // ours
	inviteSDP  []byte       // its description
	seq        uint32       // CSeq of the INVITE
	proceeding bool         // a provisional response came: CANCEL is allowed
	rang       bool
	progressed bool             // a provisional response above 100 came
	connected  bool             // Connected was told
	forks      map[string]*fork // early and confirmed dialogs by remote tag
	winner     *fork

	triedAuth, tried420, tried421, tried422 bool
	realm                                   string              // whose challenges inside the dialog are answered
	unanswered                              map[string]unproven // our requests inside the dialog, by branch, as long as there is one
	visited                                 []string            // Request-URIs before a 3xx, in the form of bare

	hang       *hang // we want it over
	cancelSent bool
	ended      bool
	byes       []string // branches of our BYEs that have no final answer yet

	said        []byte // last description that left, without its version: see version
	saidVersion uint64
	localSDP    []byte // last description of ours that stands
	remoteSDP   []byte // and of the peer's
	reoffer     *reoffer
	queued      *Propose // an offer that waits for the one in flight; the newest wins
	reAck       *sip.Request
	refresh     uint32 // CSeq of our refreshing UPDATE, 0 if none is out

	peer    *peerOffer
	offerID uint64

	session   time.Duration // agreed session interval, 0: none
	weRefresh bool
	alone     bool // the peer agreed to none: what we refresh cannot expire

	usages  int               // other than the call (RFC 5057)
	asks    map[uint32]uint64 // ID of our requests in them by CSeq
	others  []other           // the peer's, oldest first
	otherID uint64
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
	return &Call{o: o, seq: cmp.Or(o.Seq, 1), forks: map[string]*fork{}, localSDP: o.Offer, asks: map[uint32]uint64{},
		realm: o.Realm, unanswered: map[string]unproven{}}
}

// Step takes one input and returns what is to be done, in order.
func (c *Call) Step(now time.Time, in Input) []Action {
	c.now, c.out = now, nil
	switch in := in.(type) {
	case Start:
		if c.in != nil {
			c.startIncoming()
		} else if c.invite == nil && !c.ended {
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
		switch {
		case c.in != nil && c.in.tx == in.Tx:
			c.onCancelled(in)
		case c.peer != nil && c.peer.tx == in.Tx:
			// Its 487 has been sent already, and whatever we said crossed it.
			p := c.peer
			c.peer = nil
			if p.res != nil {
				c.restore(p.before)
			}
			c.stop(timerReply, timerResend, timerNoAck)
			c.lapse(p, 487)
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
	case Ask:
		c.onAsk(in)
	case Tell:
		c.onTell(in)
	case Use:
		c.usages = max(in.Usages, 0)
	case Ring:
		c.onRing()
	case Accept:
		c.onAccept(in)
	case Reject:
		c.onReject(in)
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
	return c.ended && len(c.byes) == 0 && c.peer == nil && c.at[timerLinger].IsZero() &&
		c.usages == 0 && len(c.asks) == 0 && len(c.others) == 0
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
	e.WasRinging, e.Progressed = c.rang, c.progressed
	old := c.at
	c.dropPeerOffer()
	c.at = [timerCount]time.Time{timerLinger: old[timerLinger], timerOther: old[timerOther]}
	if c.peer != nil { // our 2xx to its INVITE: BYE has to wait for its ACK
		c.at[timerResend], c.at[timerNoAck] = old[timerResend], old[timerNoAck]
	}
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
		if c.in == nil {
			c.linger()
		}
		c.endHung(Ended{})
	case timerReply:
		if p := c.peer; p != nil && p.res == nil {
			c.lapse(p, 488)
			c.refuse(488, 0)
		}
	case timerResend:
		c.resend2xx()
	case timerNoAck:
		c.noAck()
	case timerGlare:
		c.sendReoffer()
	case timerReoffer:
		c.giveUpReoffer()
	case timerRefresh:
		c.refreshSession()
	case timerExpire:
		c.expired()
	case timerPrack:
		c.resend1xx()
	case timerNoPrack:
		c.refuseInvite(504, nil, Ended{By: "network", Why: "no_prack"})
	case timerQoS:
		if c.in == nil {
			c.hangUp(hang{"timeout", "precondition_timeout", `SIP;cause=487;text="preconditions not met"`})
			return
		}
		c.refuseInvite(580, nil, Ended{By: "timeout", Why: "precondition_timeout"})
	case timerQoSAgain:
		for _, f := range c.forks {
			if e := c.unsettled(f); e != nil && e.owes {
				c.sendQoS(f, e)
			}
		}
	case timerOther:
		c.otherLate()
	case timerLongest:
		c.byeAndEnd(c.winner, hang{"timeout", "max_duration", `SIP;cause=200;text="maximum duration"`})
	}
}

// up notes that the call has been answered.
func (c *Call) up(e Connected) {
	c.connected = true
	if c.o.MaxDuration > 0 {
		c.arm(timerLongest, c.o.MaxDuration)
	}
	c.emit(e)
}

// GivenUp says that the call has ended or somebody wants it to.
func (c *Call) GivenUp() bool { return c.ended || c.hang != nil }

// Settled says that Ended was told and no BYE of ours waits for its answer; what is
// left is the watch for late answers.
func (c *Call) Settled() bool { return c.ended && len(c.byes) == 0 && c.peer == nil }

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

// Match is what there is of one dialog of a call, for a Replaces that names it.
type Match struct {
	Found     bool
	Confirmed bool
	Incoming  bool // the peer called
	Ended     bool
}

// Match finds the dialog with this remote tag.
func (c *Call) Match(remoteTag string) Match {
	f := c.forks[remoteTag]
	if f == nil {
		return Match{}
	}
	return Match{Found: true, Confirmed: f == c.winner, Incoming: c.in != nil, Ended: c.ended || f.gone}
}
