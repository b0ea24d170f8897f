package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/bridge"
	"sparkle/bridge/prompts"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// engine is a media.API in memory that checks what the bridge promises: conferences
// before legs, no SetLeg of a leg that is not open, nothing left at the end.
type engine struct {
	captured []*mediapb.Captured
	mu       sync.Mutex
	down     bool
	noPort   bool
	faulty   bool // OpenLeg panics
	confs    map[string]*mediapb.Conference
	legs     map[string]*mediapb.Leg // nil value: open, not set
	inConf   map[string]string
	video    map[string]uint32 // port by leg, 0: voice
	noPic    bool              // no more video ports
	fussy    bool              // refuses every picture format
	ports    uint32
	faults   []string
	log      func(string) // of SetLeg and SetConference
	played   func(leg, prompt string)
	events   chan *mediapb.Event
	stats    map[string]*mediapb.LegStats
}

func newEngine() *engine {
	return &engine{confs: map[string]*mediapb.Conference{}, legs: map[string]*mediapb.Leg{}, inConf: map[string]string{}, video: map[string]uint32{},
		ports: 40000, events: make(chan *mediapb.Event, 100), stats: map[string]*mediapb.LegStats{}}
}

func (e *engine) enter() (func(), error) {
	e.mu.Lock()
	if e.down {
		e.mu.Unlock()
		return nil, status.Error(codes.Unavailable, "engine is down")
	}
	return e.mu.Unlock, nil
}

func (e *engine) fault(format string, args ...any) {
	e.faults = append(e.faults, fmt.Sprintf(format, args...))
}

// die forgets everything, as a killed process does.
func (e *engine) die() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = true
	clear(e.confs)
	clear(e.legs)
	clear(e.inConf)
	clear(e.video)
}

func (e *engine) revive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

func (e *engine) SetConference(_ context.Context, c *mediapb.Conference) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	e.confs[c.Id] = c
	for _, w := range c.Whispers {
		if e.log != nil {
			e.log(fmt.Sprintf("whisper %s -> %s %v", w.FromLeg, strings.Join(w.ToLegs, " "), w.Mode))
		}
	}
	return nil
}

func (e *engine) CloseConference(_ context.Context, id string) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	for l, c := range e.inConf {
		if c == id {
			e.fault("conference closed with leg %s in it", l)
		}
	}
	delete(e.confs, id)
	return nil
}

func (e *engine) OpenLeg(_ context.Context, r *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if e.faulty {
		panic("test")
	}
	if e.noPort {
		return nil, status.Error(codes.ResourceExhausted, "no ports")
	}
	if e.confs[r.Conference] == nil {
		e.fault("leg opened before its conference")
		return nil, status.Error(codes.NotFound, "no conference")
	}
	if _, ok := e.legs[r.Leg]; ok {
		e.fault("leg opened twice")
	}
	e.legs[r.Leg], e.inConf[r.Leg] = nil, r.Conference
	e.ports += 4
	out := &mediapb.OpenLegReply{AudioPort: e.ports}
	if r.Video {
		out.VideoPort = e.ports + 2
	}
	e.video[r.Leg] = out.VideoPort
	return out, nil
}

func (e *engine) OpenVideo(_ context.Context, id string) (*mediapb.OpenLegReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if _, ok := e.legs[id]; !ok {
		return nil, status.Error(codes.NotFound, "no leg")
	}
	if e.noPic {
		return nil, status.Error(codes.ResourceExhausted, "no ports")
	}
	if e.video[id] == 0 {
		e.ports += 4
		e.video[id] = e.ports + 2
	}
	return &mediapb.OpenLegReply{VideoPort: e.video[id]}, nil
}

func (e *engine) CloseVideo(_ context.Context, id string) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	e.video[id] = 0
	return nil
}

func (e *engine) SetLeg(_ context.Context, l *mediapb.Leg) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	if _, ok := e.legs[l.Id]; !ok {
		e.fault("leg set that is not open")
		return status.Error(codes.NotFound, "no leg")
	}
	if a := l.Audio; a != nil && (a.Remote == nil && (a.Send || a.Recv) || a.Remote != nil && netip.MustParseAddr(a.Remote.Ip).IsUnspecified()) {
		e.fault("audio to nowhere: %v", a.Remote)
		return status.Error(codes.InvalidArgument, "audio.remote")
	}
	if l.Video != nil && e.video[l.Id] == 0 {
		e.fault("video of a leg that has no video port")
	}
	if l.Video != nil && e.fussy {
		return status.Error(codes.InvalidArgument, "media: video: sizes like that are not encoded")
	}
	e.legs[l.Id] = l
	if e.log != nil {
		e.log(legWords(l))
	}
	return nil
}

func legWords(l *mediapb.Leg) string {
	s := l.Name
	flag := func(on bool, word string) {
		if on {
			s += " " + word
		}
	}
	if a := l.Audio; a != nil {
		s += " " + a.Codec.String()
	}
	if v := l.Video; v != nil {
		s += fmt.Sprintf(" H264 %dx%d", v.Width, v.Height)
	}
	flag(l.Present, "present")
	flag(l.Muted, "muted")
	flag(l.VideoMuted, "video_muted")
	flag(l.Deaf, "deaf")
	flag(l.Held, "held")
	return s
}

// Play plays on virtual time.
// Capture plays what the test has put into captured.
func (e *engine) Capture(ctx context.Context, r *mediapb.CaptureRequest, f func(*mediapb.Captured)) error {
	for _, c := range e.captured {
		f(c)
	}
	<-ctx.Done()
	return nil
}

func (e *engine) Play(_ context.Context, p *mediapb.PlayRequest) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	l, ok := e.legs[p.Leg]
	if !ok || l == nil {
		e.fault("sound for a leg that is not set")
		return status.Error(codes.NotFound, "no leg")
	}
	if e.played == nil {
		return nil
	}
	e.played(p.Leg, promptName(p.Pcm))
	if len(p.Pcm) > 0 {
		time.AfterFunc(prompts.Length(p.Pcm), func() {
			e.events <- &mediapb.Event{Leg: p.Leg, What: &mediapb.Event_PlayEnded{PlayEnded: &mediapb.PlayEnded{Id: p.Id}}}
		})
	}
	return nil
}

func promptName(pcm []byte) string {
	for _, n := range prompts.All() {
		for _, l := range []prompts.Language{prompts.Chinese, prompts.English, prompts.Both} {
			if bytes.Equal(pcm, prompts.PCM(n, l)) {
				return string(n) + " " + string(l)
			}
		}
	}
	return "silence"
}

func (e *engine) CloseLeg(_ context.Context, id string) (*mediapb.LegStats, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if _, ok := e.legs[id]; !ok {
		return &mediapb.LegStats{}, nil
	}
	delete(e.legs, id)
	delete(e.inConf, id)
	delete(e.video, id)
	if s := e.stats[id]; s != nil {
		return s, nil
	}
	return &mediapb.LegStats{Id: id, Audio: &mediapb.StreamStats{RxPackets: 50, TxPackets: 51, Mos: 4.1}}, nil
}

func (e *engine) Preview(context.Context, string, int) (*mediapb.PreviewReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	return &mediapb.PreviewReply{Jpeg: []byte("jpeg"), At: 1}, nil
}

func (e *engine) Snapshot(context.Context) (*mediapb.SnapshotReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	out := &mediapb.SnapshotReply{Engine: &mediapb.EngineStats{Ticks: 7}}
	for id := range e.confs {
		out.Conferences = append(out.Conferences, &mediapb.ConferenceStats{Id: id})
	}
	for id := range e.legs {
		s := e.stats[id]
		if s == nil {
			s = &mediapb.LegStats{Id: id, Audio: &mediapb.StreamStats{RxPackets: 10, Mos: 4.2}}
		}
		out.Legs = append(out.Legs, s)
	}
	return out, nil
}

func (e *engine) Events(ctx context.Context, f func(*mediapb.Event)) error {
	for {
		select {
		case ev := <-e.events:
			f(ev)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// left is what is still open, and what was wrong.
func (e *engine) left() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.faults)
	for id := range e.legs {
		out = append(out, "leg "+id+" is still open")
	}
	for id := range e.confs {
		out = append(out, "conference "+id+" is still open")
	}
	return out
}

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

// memory is a bridge.Store in memory.
type memory struct {
	mu    sync.Mutex
	saved map[string]*bridge.SavedConference
	legs  map[string]bridge.LegRecord
	audit []bridge.AuditRecord
	alive time.Time
	err   error // of every acknowledged write
}

func newMemory() *memory {
	return &memory{saved: map[string]*bridge.SavedConference{}, legs: map[string]bridge.LegRecord{}}
}

func (s *memory) Load(context.Context) (bridge.Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := bridge.Saved{Alive: s.alive}
	for _, c := range s.saved {
		k := *c
		k.Members = slices.Clone(c.Members)
		for i := range k.Members {
			for _, l := range s.legs {
				if o := bridge.OutcomeOf(l.Leg); l.Leg.Member == k.Members[i].ID && o != nil {
					if k.Members[i].LastOutcome == nil || k.Members[i].LastOutcome.At.Before(o.At) {
						k.Members[i].LastOutcome = o
					}
				}
			}
		}
		out.Conferences = append(out.Conferences, k)
	}
	slices.SortFunc(out.Conferences, func(a, b bridge.SavedConference) int { return strings.Compare(a.Conference.ID, b.Conference.ID) })
	for _, l := range s.legs {
		if l.Leg.EndedAt == nil {
			out.Live = append(out.Live, l)
		}
	}
	return out, nil
}

func (s *memory) PutConference(_ context.Context, c bridge.Conference, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	c.State, c.Members, c.Ringing, c.InRoom = "", 0, 0, 0
	if old := s.saved[c.ID]; old != nil {
		old.Conference = c
		return nil
	}
	s.saved[c.ID] = &bridge.SavedConference{Conference: c, Seq: seq}
	return nil
}

func (s *memory) DropConference(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		delete(s.saved, id)
	}
	return s.err
}

func (s *memory) PutMembers(_ context.Context, members ...bridge.Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	seen := map[string]bool{}
	for _, m := range members {
		if s.saved[m.Conference] == nil || seen[m.Number] {
			return fmt.Errorf("member %s breaks a rule", m.ID)
		}
		seen[m.Number] = true
	}
	for _, m := range members {
		c := s.saved[m.Conference]
		m.Leg, m.LastOutcome, m.State = nil, nil, bridge.Idle
		if i := slices.IndexFunc(c.Members, func(x bridge.Member) bool { return x.ID == m.ID }); i >= 0 {
			c.Members[i] = m
		} else {
			c.Members = append(c.Members, m)
		}
	}
	return nil
}

func (s *memory) DropMember(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for _, c := range s.saved {
		c.Members = slices.DeleteFunc(c.Members, func(x bridge.Member) bool { return x.ID == id })
	}
	return nil
}

func (s *memory) QueueLeg(r bridge.LegRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.legs[r.Leg.ID] = r
}

func (s *memory) QueueAudit(r bridge.AuditRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit = append(s.audit, r)
}

func (s *memory) QueueAlive(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive = at
}

func (s *memory) QueueSeq(id string, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.saved[id]; c != nil {
		c.Seq = seq
	}
}

func (s *memory) Legs(_ context.Context, conf, member string, limit int, cursor string) ([]bridge.Leg, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bridge.Leg
	for _, r := range s.legs {
		if r.Leg.Conference == conf && r.Leg.Member == member && (cursor == "" || r.Leg.ID < cursor) {
			out = append(out, r.Leg)
		}
	}
	slices.SortFunc(out, func(a, b bridge.Leg) int { return strings.Compare(b.ID, a.ID) })
	if len(out) > limit {
		return out[:limit], out[limit-1].ID, nil
	}
	return out, "", nil
}

// ledger is a bridge.Charger in memory.
type ledger struct {
	mu      sync.Mutex
	records []bridge.LegRecord
}

func (l *ledger) Charge(r bridge.LegRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

func (s *memory) Healthy() error { return nil }
