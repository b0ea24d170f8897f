package bridge_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sparkle/sip"
	"sparkle/sip/sdp"
)

// network is a Caller whose phones do what their fate says, on virtual time.
type network struct {
	mu    sync.Mutex
	up    bool
	other bool              // preconditions are off or active
	spare bool              // there is a second attachment, "spare", at another address
	fate  map[string]string // by number
	calls []*call
	live  map[string]*call // by number
	busy  atomic.Bool

	faulty  atomic.Bool // MediaProfile panics
	take    func(sip.Incoming, sip.IncomingCall) func(sip.Event)
	dialled int

	overTCP   bool // "core" has no UDP socket
	registers int  // how often it was asked to register

	refused   func(sip.Incoming, int)
	ours      func(attachment, target, to string) bool
	refer     func(sip.Refer, sip.Referral)
	subscribe func(sip.Subscribe, sip.Subscription) func(sip.SubscriptionEvent)
}

func newNetwork() *network {
	return &network{up: true, fate: map[string]string{}, live: map[string]*call{}}
}

func (n *network) Attachments() []sip.AttachmentState {
	n.mu.Lock()
	defer n.mu.Unlock()
	state := "down"
	if n.up {
		state = "up"
	}
	out := []sip.AttachmentState{{Name: "core", Mode: "trunk", State: state, Up: n.up, Identity: "sip:+8613800001234@ims.example", LocalAddr: "127.0.0.1:5060"}}
	if !n.overTCP {
		out[0].UDPAddr = out[0].LocalAddr
	}
	if n.spare {
		out = append(out, sip.AttachmentState{Name: "spare", Mode: "trunk", State: "up", Up: true, Identity: "tel:+8613800001235", LocalAddr: "127.0.0.2:5060"})
	}
	return out
}

func (n *network) MediaProfile(name string) (sip.MediaProfile, bool) {
	if n.faulty.Load() {
		panic("test")
	}
	if name == "spare" {
		return sip.MediaProfile{LocalIP: "127.0.0.2"}, true
	}
	return sip.MediaProfile{LocalIP: "127.0.0.1", OfferG711: true, Passive: !n.other}, true
}

func (n *network) SetBusy(busy bool) { n.busy.Store(busy) }

// Register implements bridge.Caller: "core" registers, "spare" does not.
func (n *network) Register(name string) error {
	switch name {
	case "core":
		n.mu.Lock()
		defer n.mu.Unlock()
		n.registers++
		return nil
	case "spare":
		return sip.ErrNotRegistering
	}
	return sip.ErrUnknownAttachment
}

func (n *network) SetOurs(f func(attachment, target, to string) bool) { n.ours = f }
func (n *network) OnRefused(f func(sip.Incoming, int))                { n.refused = f }

func (n *network) setUp(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = up
}

func (n *network) phone(number string) *call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live[number]
}

func (n *network) invites() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.calls)
}

func (n *network) Invite(i sip.Invite) (sip.Call, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return nil, sip.ErrAttachmentDown
	}
	if n.fate[i.Number] == "faulty" {
		panic("test")
	}
	fate, bySpare, both := strings.Cut(n.fate[i.Number], "|") // by "core", and by "spare"
	if both && i.Attachment == "spare" {
		fate = bySpare
	}
	c := &call{icid: fmt.Sprintf("icid-%d", len(n.calls)), n: n, inv: i, fate: fate, said: i.Offer, replies: map[uint64]reply{}}
	n.calls = append(n.calls, c)
	n.live[i.Number] = c
	c.at(5*time.Millisecond, c.start)
	return c, nil
}

type reply struct {
	sdp     []byte
	status  int
	warning int
}

// call is one phone's side of a call.
type call struct {
	n         *network
	inv       sip.Invite
	fate      string
	mu        sync.Mutex
	ended     bool
	connected bool
	ringing   bool
	local     *sdp.Session
	hangup    string
	icid      string
	left      bool // its INVITE
	replies   map[uint64]reply
	nextOffer uint64
	said      []byte        // our newest description: what a refresh offers again
	asks      *asked        // its offer that waits for our reply
	lag       time.Duration // until the bridge hears that its reply went out
	reacts    string        // to our offers: see Offer
	offers    []string      // of ours within the call, in words
}

// at runs f later, unless the call has ended by then.
func (c *call) at(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			f()
		}
	})
}

// tell is called with mu held: that keeps the events in order.
func (c *call) tell(e sip.Event) { c.inv.OnEvent(e) }

func (c *call) end(e sip.Ended) {
	if c.ended {
		return
	}
	c.ended = true
	e.At, e.Connected, e.WasRinging = time.Now(), c.connected, c.ringing
	c.n.mu.Lock()
	if c.n.live[c.inv.Number] == c {
		delete(c.n.live, c.inv.Number)
	}
	c.n.mu.Unlock()
	c.tell(e)
}

func (c *call) start() {
	if c.fate == "queued" { // the carrier's limits make it wait, and then there is no line
		c.tell(sip.Queued{At: time.Now(), Ahead: 3, Until: time.Now().Add(2 * time.Second)})
		c.at(3*time.Second, func() { c.end(sip.Ended{By: sip.ByNetwork, Why: "no_line"}) })
		return
	}
	c.left = true
	c.tell(sip.Trying{At: time.Now(), CallID: "call-" + c.inv.Number[len(c.inv.Number)-2:], ICID: c.icid, Identity: "sip:us@ims.example"})
	c.tell(sip.Message{At: time.Now(), Sent: true, Summary: "INVITE"})
	final := func(after time.Duration, status int, phrase string, q850 int) {
		c.at(after, func() { c.end(sip.Ended{By: sip.ByRemote, Status: status, Phrase: phrase, Q850: q850}) })
	}
	fate, arg, _ := strings.Cut(c.fate, "=")
	if fate == "form" { // knows numbers in a sip: URI only, and no video
		if !c.inv.OtherForm {
			final(200*time.Millisecond, 416, "Unsupported URI Scheme", 0)
			return
		}
		fate, arg = "video-status", "488"
	}
	if fate == "qos" { // takes voice, with preconditions as it likes them
		if c.inv.Video || !c.inv.Passive {
			final(200*time.Millisecond, 580, "Precondition Failure", 0)
			return
		}
		fate = "voice"
	}
	if fate == "video-status" { // refuses video as a whole, takes voice
		if c.inv.Video {
			var code int
			fmt.Sscan(arg, &code)
			final(200*time.Millisecond, code, "No Video", 0)
			return
		}
		fate = "voice"
	}
	if fate == "family" { // reaches nobody but by IPv6, there by arg
		if !strings.Contains(string(c.inv.Offer), "IN IP6") {
			c.at(200*time.Millisecond, func() {
				c.end(sip.Ended{By: sip.ByRemote, Status: 488, Phrase: "Not Acceptable Here", Warning: `301 phone "Incompatible network address formats"`})
			})
			return
		}
		if arg == "never" {
			c.at(200*time.Millisecond, func() {
				c.end(sip.Ended{By: sip.ByRemote, Status: 488, Phrase: "Not Acceptable Here", Warning: `301 phone "x"`})
			})
			return
		}
		if fate = arg; arg == "novideo" {
			if fate = "voice"; c.inv.Video {
				final(200*time.Millisecond, 488, "No Video", 0)
				return
			}
		}
	}
	switch fate {
	case "status":
		var code int
		fmt.Sscan(arg, &code)
		final(200*time.Millisecond, code, "Refused", 0)
		return
	case "redirected": // to arg, unless whoever had him called may not call that
		c.at(200*time.Millisecond, func() {
			e := sip.Ended{By: sip.ByRemote, Status: 302, Phrase: "Moved Temporarily"}
			if !c.inv.MayCall("tel:"+arg, arg) {
				e.Target = "tel:" + arg
			}
			c.end(e)
		})
		return
	case "overload": // arg is its Retry-After
		var seconds int
		fmt.Sscan(arg, &seconds)
		c.at(200*time.Millisecond, func() {
			c.end(sip.Ended{By: sip.ByRemote, Status: 503, Phrase: "Service Unavailable", RetryAfter: time.Duration(seconds) * time.Second})
		})
		return
	case "mute", "setup", "progress": // rings nowhere: no final answer, or a late one
		e := sip.Ended{By: sip.ByNetwork, Why: "no_response"}
		if fate == "setup" {
			e = sip.Ended{By: sip.ByTimeout, Status: 487, Why: "setup_timeout"}
		} else if fate == "progress" { // somebody out there had it
			e = sip.Ended{By: sip.ByRemote, Status: 503, Phrase: "Service Unavailable", Progressed: true}
		}
		c.at(6*time.Second, func() { c.end(e) })
		return
	case "busy":
		final(500*time.Millisecond, 486, "Busy Here", 17)
		return
	case "unreachable":
		final(time.Second, 480, "Temporarily Unavailable", 20)
		return
	case "silent":
		c.at(32*time.Second, func() { c.end(sip.Ended{By: sip.ByNetwork, Why: "no_response"}) })
		return
	case "video-text": // its user wants no video call
		if c.inv.Video {
			c.at(200*time.Millisecond, func() {
				c.end(sip.Ended{By: sip.ByRemote, Status: 603, Phrase: "Decline", ReasonText: "Video call declined"})
			})
			return
		}
	case "emergency":
		c.at(200*time.Millisecond, func() {
			c.end(sip.Ended{By: sip.ByRemote, Status: 380, Phrase: "Alternative Service", AltService: "emergency"})
		})
		return
	case "hint403", "body403", "488text":
		if c.inv.Video {
			e := map[string]sip.Ended{
				"hint403": {Status: 403, Phrase: "Forbidden", Warning: `399 as.example "video service not subscribed"`},
				"body403": {Status: 403, Phrase: "Forbidden", ReasonText: "Video not subscribed"},
				"488text": {Status: 488, Phrase: "Not Acceptable Here", Warning: `399 sbc.example "H.264 off for +8613800138000"`},
			}[fate]
			e.By = sip.ByRemote
			c.at(200*time.Millisecond, func() { c.end(e) })
			return
		}
	case "early":
		c.at(100*time.Millisecond, func() { c.tell(sip.Answer{At: time.Now(), SDP: c.answer("video")}) })
	}
	c.at(time.Second, func() {
		c.ringing = true
		c.tell(sip.Ringing{At: time.Now()})
	})
	switch fate {
	case "no-answer":
		c.at(time.Second+c.inv.RingTimeout, func() {
			c.end(sip.Ended{By: sip.ByTimeout, Status: 487, Phrase: "Request Terminated", Why: "ring_timeout"})
		})
	case "declines":
		final(3*time.Second, 603, "Decline", 21)
	case "leaves":
		c.at(3*time.Second, func() { c.pickUp("video") })
		c.at(8*time.Second, func() { c.end(sip.Ended{By: sip.ByRemote, Q850: 16}) })
	default:
		c.at(3*time.Second, func() { c.pickUp(fate) })
	}
}

func (c *call) pickUp(fate string) {
	c.tell(sip.Answer{At: time.Now(), SDP: c.answer(fate), Final: true})
	c.connected = true
	contact, server := "<sip:x@192.0.2.7>;+g.3gpp.icsi-ref=\"mmtel\"", "phone/1"
	if fate == "pstn" {
		contact, server = "<sip:mgcf.example>", "MGCF"
	}
	c.tell(sip.Connected{At: time.Now(), Contact: contact, Server: server})
}

// answer is what a phone of this fate answers.
func (c *call) answer(fate string) []byte {
	if fate == "nonsense" {
		return []byte("v=0\r\nm=audio banana RTP/AVP\r\n")
	}
	offer, err := sdp.Parse(c.inv.Offer)
	if err != nil {
		panic("the bridge's offer is not SDP: " + err.Error())
	}
	o := sdp.AnswerOptions{Origin: sdp.NewOrigin(time.Now()), Addr: netip.MustParseAddr("127.0.0.1"), AudioPort: 50000,
		Video: takesVideo(fate), VideoPort: 50002, H264: "42c00c"}
	if offer.Audio.Addr.Is6() {
		o.Addr = netip.IPv6Loopback()
	}
	if fate == "pstn" {
		o.Codecs = []sdp.Codec{{Name: "PCMA"}}
	}
	b, _, err := sdp.Answer(offer, o)
	if err != nil {
		panic("the phone cannot answer: " + err.Error())
	}
	b = peculiar(fate, b)
	if c.local, err = sdp.Parse(b); err != nil {
		panic(err)
	}
	if fate == "short" { // leaves out the video m-line
		b = b[:strings.Index(string(b), "m=video")]
	}
	return b
}

// reoffer is a re-INVITE of the phone; edit changes its last description.
func (c *call) reoffer(edit func(string) string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b []byte
	if edit != nil {
		b = []byte(edit(string(c.local.Bytes())))
	}
	return c.offer(b, c.local)
}

// asked is an offer of the phone: what it says, and what it goes on with should that come to
// nothing.
type asked struct {
	id     uint64
	sdp    []byte
	before *sdp.Session
}

// offer sends an offer of the phone, nil: it wants one. Who takes it back does so in the same
// moment.
func (c *call) offer(b []byte, before *sdp.Session) uint64 {
	c.nextOffer++
	a := &asked{c.nextOffer, b, before}
	c.asks = a
	c.tell(sip.Offer{At: time.Now(), ID: a.id, SDP: b})
	if c.reacts == "takesback" {
		c.reacts = ""
		c.replied(a, false)
	}
	c.at(2*time.Second, func() { // the UA does not wait longer
		if c.asks == a {
			c.replied(a, false)
		}
	})
	return a.id
}

// replied tells what became of a.
func (c *call) replied(a *asked, used bool) {
	c.asks = nil
	switch {
	case a.sdp == nil && !used:
		c.tell(sip.Reoffered{At: time.Now(), Offer: a.id, Status: 488})
	case a.sdp == nil: // told with the ACK
	default:
		if !used {
			c.local = a.before
		}
		c.tell(sip.Replied{At: time.Now(), Offer: a.id, Used: used})
	}
}

func (c *call) bye(q850 int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(sip.Ended{By: sip.ByRemote, Q850: q850})
}

func (c *call) replyTo(id uint64) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replies[id]
}

// talks: it is answered and nobody is ending it.
func (c *call) talks() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected && c.local != nil && c.hangup == ""
}

func (c *call) Hangup(why, reason string) {
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hangup != "" || c.ended {
			return
		}
		c.hangup = reason
		if c.fate == "undead" { // its goodbye is never answered
			return
		}
		time.AfterFunc(20*time.Millisecond, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			e := sip.Ended{By: sip.ByLocal, Why: why}
			if !c.connected {
				e.Status, e.Phrase = 487, "Request Terminated"
			}
			c.end(e)
		})
	}()
}

func (c *call) Reply(id uint64, b []byte, status int) {
	if c.fate == "faulty-reply" {
		panic("test")
	}
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.replies[id] = reply{b, status, 0}
		if b != nil {
			c.said = b
		}
		if a := c.asks; a != nil && a.id == id {
			c.asks = nil // whatever comes, it does not come too late any more
			used := c.reacts != "cancels"
			if !used {
				c.reacts = ""
			}
			if c.lag == 0 {
				c.replied(a, used)
				return
			}
			c.at(c.lag, func() { c.replied(a, used) })
		}
	}()
}
