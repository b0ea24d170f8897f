package dialog

import (
	"time"

	"github.com/emiago/sipgo/sip"
)

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
	// Cancelled says that the peer cancelled its INVITE, or re-INVITE, which has been
	// answered 487. Req is the CANCEL, nil if it is not at hand.
	Cancelled struct {
		Tx  any
		Req *sip.Request
	}
	// Hangup ends the call the way its state needs.
	Hangup struct{ Why, Reason string }
	// Reply answers the peer's Offer with the same ID.
	Reply struct {
		ID      uint64
		SDP     []byte
		Status  int
		Warning int // code of a Warning header beside Status, 0: none
	}
	// Propose sends a session description of ours in a re-INVITE. Contact replaces
	// Options.Contact where it is not empty.
	Propose struct {
		SDP     []byte
		Contact string
	}
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
	// Use says how many other usages (RFC 5057) there are in the dialog: subscriptions.
	// While there are any the call is not Done, and Ask and Other go on after Ended.
	Use struct{ Usages int }
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
		Warning int // its code (RFC 3261 20.43); 0: none
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
func (Use) isInput()       {}
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
	// INVITE may come again: that is its retransmission. Then is told once it has gone out;
	// nil: nothing is. Where a CANCEL was faster it is not: Cancelled comes.
	Respond struct {
		Tx   any
		Res  *sip.Response
		Then Event
	}
	// ByeRefused is for the log: the far end has refused our BYE, and may go on with a call that
	// is over here.
	ByeRefused struct{ Res *sip.Response }
	// Emit tells the owner.
	Emit struct{ Event Event }
)

func (Send) isAction()       {}
func (Ack) isAction()        {}
func (Respond) isAction()    {}
func (ByeRefused) isAction() {}
func (Emit) isAction()       {}

// Event is what the owner of the call hears.
type Event interface{ isEvent() }

type (
	// Ringing is the first 180 of any fork.
	Ringing struct{}
	// Answer is a session description from the far end; see sip.Answer, of Local and
	// Offered too.
	Answer struct {
		SDP        []byte
		Final      bool
		EarlyMedia string // P-Early-Media of a 18x (RFC 5009); "" none
		Local      []byte
		Offered    bool
	}
	// Connected follows the final Answer; the ACK is on its way. Contact and Server are
	// the far end's.
	Connected struct{ Contact, Server string }
	// Offer is the peer's; it waits for a Reply. SDP nil: we are to offer. Early, Local: see
	// sip.Offer. What becomes of the Reply comes as Replied, or as Reoffered where we offered.
	Offer struct {
		ID    uint64
		SDP   []byte
		Early bool
		Local []byte
	}
	// Reoffered is the peer's answer to an offer of ours, or the refusing status. Offer, Local,
	// Offered: see sip.Reoffered.
	Reoffered struct {
		Offer   uint64
		SDP     []byte
		Status  int
		Local   []byte
		Offered bool
	}
	// Refreshed is the peer's answer to a re-INVITE that only refreshed, where it is another
	// than its description of before; see sip.Refreshed.
	Refreshed struct{ SDP, Local []byte }
	// Replied follows each Offer with a description, unless its Reply refused it or Ended comes
	// first: see sip.Replied.
	Replied struct {
		Offer uint64
		Used  bool
	}
	// Info is a DTMF digit that came in INFO.
	Info struct{ Digit rune }
	// Other is a REFER, SUBSCRIBE or NOTIFY of the peer within the dialog. It waits for
	// Tell; Options.Reply without one is answered 480. Before Connected it comes only in
	// the dialog of an incoming call; as long as Use says so it comes after Ended too.
	Other struct {
		ID  uint64
		Req *sip.Request
	}
	// Asked is what became of Ask. RetryAfter is the response's; 0: it named none.
	Asked struct {
		ID         uint64
		Status     int
		RetryAfter time.Duration
	}
	// Ended comes once, and nothing of the call itself after it: no more than Other and
	// Asked of other usages.
	Ended struct {
		By           string // remote | local | timeout | network
		Connected    bool
		WasRinging   bool
		Progressed   bool // a provisional response above 100 came: somebody beyond the next hop took it
		Status       int
		Phrase       string
		Q850         int
		SIPCause     int
		ReleaseCause int
		ReasonText   string
		Reason       string // all Reason values as they came
		Warning      string // all Warning values as they came
		RetryAfter   time.Duration
		Target       string // of a 3xx that was not followed: where it points to
		AltService   string
		Why          string
	}
)

func (Ringing) isEvent()   {}
func (Answer) isEvent()    {}
func (Connected) isEvent() {}
func (Offer) isEvent()     {}
func (Reoffered) isEvent() {}
func (Refreshed) isEvent() {}
func (Replied) isEvent()   {}
func (Info) isEvent()      {}
func (Other) isEvent()     {}
func (Asked) isEvent()     {}
func (Ended) isEvent()     {}
