package bridge_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/ims"
	"sparkle/sip/sdp"
)

// OnIncoming implements bridge.Caller.
func (n *network) OnIncoming(f func(sip.Incoming, sip.IncomingCall) func(sip.Event)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.take = f
}

// caller is a phone that calls in, on virtual time.
type caller struct {
	say      func(format string, args ...any)
	in       sip.Incoming
	refuses  bool // a re-INVITE
	mismatch bool // its picture is in a codec that nobody offered
	contact  string
	lag      time.Duration // until the bridge hears that its reply went out

	mu      sync.Mutex
	tell    func(sip.Event)
	local   *sdp.Session
	final   int
	hangup  bool
	ended   bool
	talking bool
}

// later runs f unless the call has ended by then.
func (c *caller) later(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			f()
		}
	})
}

func (c *caller) end(e sip.Ended) {
	if c.ended {
		return
	}
	c.ended = true
	e.At, e.Connected = time.Now(), c.talking
	c.tell(e)
}

func (c *caller) Ring() { c.say("<- 180") }

func (c *caller) Accept(a sip.Acceptance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != 0 {
		return
	}
	c.final = 200
	focus := ""
	if a.Focus != "" {
		focus = " isfocus"
	}
	c.say("<- 200%s%s", focus, lines(a.SDP))
	c.later(10*time.Millisecond, func() {
		if c.in.Offer == nil {
			c.tell(sip.Answer{At: time.Now(), SDP: c.answer(a.SDP), Final: true})
		}
		c.talking = true
		c.tell(sip.Connected{At: time.Now(), Contact: c.contact})
	})
}

func (c *caller) answer(offer []byte) []byte {
	s, err := sdp.Parse(offer)
	if err != nil {
		panic("the bridge's offer is not SDP: " + err.Error())
	}
	b, _, err := sdp.Answer(s, sdp.AnswerOptions{Origin: sdp.NewOrigin(time.Now()), Previous: c.local, Addr: netip.MustParseAddr("127.0.0.1"),
		AudioPort: 50100, Video: true, VideoPort: 50102, H264: "42c00c"})
	if err != nil {
		panic("the caller cannot answer: " + err.Error())
	}
	if c.mismatch && s.Video != nil && s.Video.Port != 0 {
		b = peculiar("mismatch", b)
	}
	if c.local, err = sdp.Parse(b); err != nil {
		panic(err)
	}
	return b
}

func lines(b []byte) string {
	out := ""
	for _, kind := range []string{"audio", "video"} {
		if i := bytes.Index(b, []byte("m="+kind+" ")); i >= 0 && !bytes.HasPrefix(b[i+8:], []byte("0 ")) {
			out += " " + kind
		}
	}
	return out
}

func (c *caller) Reject(status, warning int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != 0 {
		return
	}
	c.final = status
	words := ""
	if warning != 0 {
		words = fmt.Sprintf(" warning %d", warning)
	}
	c.say("<- %d%s", status, words)
	if c.tell != nil {
		c.later(5*time.Millisecond, func() { c.end(sip.Ended{By: sip.ByLocal, Status: status, Why: "rejected"}) })
	}
}

func (c *caller) Hangup(why, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hangup || c.ended {
		return
	}
	c.hangup = true
	what := "<- BYE " + reason
	e := sip.Ended{By: sip.ByLocal, Why: why}
	if c.final == 0 {
		c.final, what, e.Status = 480, "<- 480", 480
	}
	c.say("%s", what)
	c.later(20*time.Millisecond, func() { c.end(e) })
}

func (c *caller) Reply(id uint64, b []byte, _ int) {
	c.say("<- 200 to its offer%s", lines(b))
	c.later(c.lag, func() { c.tell(sip.Replied{At: time.Now(), Offer: id, Used: true}) })
}

func (c *caller) Refuse(uint64, int, int) {}

func (c *caller) Offer(b []byte, focus string) {
	if focus != "" {
		focus = " isfocus"
	}
	c.say("<- INVITE again%s%s", focus, lines(b))
	c.later(20*time.Millisecond, func() {
		e := sip.Reoffered{At: time.Now(), Status: 488}
		if !c.refuses {
			e.SDP, e.Status = c.answer(b), 200
		}
		c.tell(e)
	})
}

// dial makes a call to the house. where: conf, dialin, factory, or a URI. Words: voice,
// pcma, contact=URI, audio=PORT, video=PORT, ipv6, offerless, untrusted, private, nocodec, refuses, nameless, from=NUMBER, pai=URI,…, via=ATTACHMENT, replaces=NAME, to=URI,
// uri=URI, called=URI (Request-URI and P-Called-Party-ID, where they are not what is dialled),
// like=NAME (the number of that member).
func (h *house) dial(name, where string, words []string) error {
	h.mu.Lock()
	number := h.number[name]
	if number == "" {
		number = fmt.Sprintf("+8613900%06d", len(h.callers)+1)
		h.number[name] = number
	}
	h.mu.Unlock()
	h.net.mu.Lock()
	h.net.dialled++
	in := sip.Incoming{Attachment: "core", At: time.Now(), CallID: fmt.Sprintf("in-%d", h.net.dialled), ICID: "icid-in",
		Caller: identity("tel:" + number)}
	in.Caller.Name = name
	take := h.net.take
	h.net.mu.Unlock()
	switch where {
	case "conf":
		in.Target = h.conference().DialIn.URI
	case "dialin":
		in.Target = "tel:" + dialIn
	case "factory":
		in.Target = "sip:mmtel@conf-factory.ims.example"
	default:
		in.Target = where
	}
	in.To, in.RequestURI = in.Target, in.Target
	offer := sdp.OfferOptions{Origin: sdp.NewOrigin(time.Now()), Addr: netip.MustParseAddr("127.0.0.1"), AudioPort: 50100, Video: true, VideoPort: 50102}
	c := &caller{say: func(format string, args ...any) { h.say("%s's phone: "+format, append([]any{name}, args...)...) }}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "voice":
			offer.Video = false
		case "pcma":
			offer.AudioPort = 8
		case "audio":
			fmt.Sscan(value, &offer.AudioPort)
		case "video":
			fmt.Sscan(value, &offer.VideoPort)
		case "ipv6":
			offer.Addr = netip.MustParseAddr("::1")
		case "contact":
			c.contact = "<" + value + ">"
		case "offerless":
			offer.AudioPort = 0
		case "untrusted":
			in.Caller.Trusted = false
		case "private":
			in.Caller.Private = true
		case "refuses":
			c.refuses = true
		case "mismatch":
			c.mismatch = true
		case "nocodec":
			offer.AudioPort = 1
		case "from":
			in.Caller = identity("tel:" + value)
			in.Caller.Name = name
		case "pai":
			in.Caller = identity(strings.Split(value, ",")...)
			in.Caller.Name = name
		case "nameless":
			in.Caller.Name = ""
		case "to":
			in.To = value
		case "uri":
			in.RequestURI = value
		case "called":
			in.CalledParty = value
		case "verstat":
			in.Caller.Verstat = value
		case "diverted":
			in.Diverted = value
		case "via":
			in.Attachment = value
		case "replaces":
			in.Replaces = h.callID(value)
		case "invites":
			for n := range strings.SplitSeq(value, ",") {
				in.Recipients = append(in.Recipients, "tel:"+cmpOr(h.number[n], n))
			}
		default:
			return fmt.Errorf("no such word: %s", w)
		}
	}
	const head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
	switch offer.AudioPort {
	case 0:
	case 1:
		in.Offer = []byte(head + "m=audio 50100 RTP/AVP 96\r\na=rtpmap:96 EVS/16000\r\n")
	case 8:
		in.Offer = []byte(head + "m=audio 50100 RTP/AVP 8\r\n")
	default:
		in.Offer = sdp.Offer(offer)
	}
	c.local, _ = sdp.Parse(in.Offer)
	c.in = in
	h.mu.Lock()
	h.callers[name] = c
	h.mu.Unlock()
	tell := take(in, c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell = tell
	return nil
}

// identity is what a trusted network asserts: the number of the first URI that has one.
func identity(uris ...string) sip.Identity {
	who := sip.Identity{URI: uris[0], URIs: uris, Trusted: true}
	for _, uri := range uris {
		if n, err := ims.ParseNumber(uri); err == nil && who.Number == "" {
			who.URI, who.Number = uri, n.Digits()
		}
	}
	return who
}

func (h *house) conference() bridge.Conference {
	c, err := h.b.Conference(h.t.Context(), h.actor, h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// callID is that of a member's live leg.
func (h *house) callID(name string) string {
	if m := h.member(name); m.Leg != nil {
		return m.Leg.CallID
	}
	return "none"
}

// legID finds the engine's leg of a caller, who may be nobody's member yet.
func (h *house) legID(name string) string {
	h.mu.Lock()
	c := h.callers[name]
	h.mu.Unlock()
	h.mem.mu.Lock()
	defer h.mem.mu.Unlock()
	for id, r := range h.mem.legs {
		if c != nil && r.Leg.CallID == c.in.CallID {
			return id
		}
	}
	return ""
}

func (h *house) callerNamed(callID string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, c := range h.callers {
		if c.in.CallID == callID {
			return name
		}
	}
	return ""
}

func (h *house) callerOf(leg string) string {
	h.mem.mu.Lock()
	r := h.mem.legs[leg]
	h.mem.mu.Unlock()
	name := h.callerNamed(r.Leg.CallID)
	h.mu.Lock()
	defer h.mu.Unlock()
	return cmpOr(name, cmpOr(h.names[r.Leg.Member], "nobody"))
}

// press sends keys as telephone events, info the same as SIP INFO. PIN stands for the
// conference's.
func (h *house) press(how, name, keys string) error {
	if keys == "PIN" {
		keys = h.conference().PIN
	}
	if keys == "WRONG" {
		keys = "000000"
		if h.conference().PIN == keys {
			keys = "000001"
		}
	}
	leg := h.legID(name)
	if leg == "" {
		leg = h.member(name).Leg.ID
	}
	for _, key := range keys {
		if how == "info" {
			e := sip.Info{At: time.Now(), Digit: key}
			if c := h.callers[name]; c != nil {
				c.mu.Lock()
				c.tell(e)
				c.mu.Unlock()
			} else {
				c := h.net.phone(h.number[name])
				c.mu.Lock()
				c.tell(e)
				c.mu.Unlock()
			}
			continue
		}
		h.eng.events <- &mediapb.Event{Leg: leg, What: &mediapb.Event_Digit{Digit: &mediapb.Digit{Digit: string(key), DurationMs: 100}}}
	}
	synctest.Wait()
	return nil
}

func (h *house) callerDoes(name, what string) error {
	c := h.callers[name]
	if c == nil {
		return fmt.Errorf("%s has not called", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch what {
	case "bye":
		c.end(sip.Ended{By: sip.ByRemote, Q850: 16})
	case "offer", "soon": // what it has offered before; what became of the answer is told late, or soon
		if c.lag = 100 * time.Millisecond; what == "soon" {
			c.lag = 10 * time.Millisecond
		}
		c.tell(sip.Offer{At: time.Now(), ID: 1, SDP: c.in.Offer})
	case "cancel":
		c.end(sip.Ended{By: sip.ByRemote, Status: 487, Why: "cancelled"})
	default:
		return fmt.Errorf("a caller cannot %q", what)
	}
	return nil
}

// records are the call records of those who never became a member, as words.
func (h *house) records() []string {
	h.mem.mu.Lock()
	defer h.mem.mu.Unlock()
	var out []string
	for _, r := range h.mem.legs {
		if r.Leg.Member == "" {
			out = append(out, fmt.Sprintf("%s %s %s %d", r.Leg.Direction, r.Leg.State, r.Leg.Outcome, statusOf(r.Leg.SIP)))
		}
	}
	slices.Sort(out)
	return out
}

func statusOf(s *bridge.SIPResult) int {
	if s == nil {
		return 0
	}
	return s.Status
}

// A conference that is full takes nobody new, whatever way he comes; who is on its roster has
// his place.
func TestFullConference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference, func(o *bridge.Options) { o.MaxMembers = 2 })
		defer h.close()
		h.script("member ann voice", "member bob voice", "policy open", "referrers any")
		if err := h.add("cyn", "voice"); code(err) != "conference_full" {
			t.Errorf("a third row: %v", err)
		}
		for _, tt := range []struct{ lines, want string }{
			{"dial guest conf", "guest's phone: <- 486"},
			{"dial ann conf", "ann: connected"},
			{"refer ann invite tel:+8613700000009", "ann's REFER: <- 603 to REFER"},
			{"policy pin\ndial late conf\nafter 5s\npress late PIN", "late hears: full"},
		} {
			if got := h.script(append(strings.Split(tt.lines, "\n"), "after 1s")...); !strings.Contains(got, tt.want) {
				t.Errorf("%s: no %q in\n%s", tt.lines, tt.want, got)
			}
		}
		h.script("after 20s", "caller ann bye", "after 1s")
	})
}

// Media goes neither to another address family, which the Warning says, nor to a port of
// ours: one of SIP, or another leg's (IMS.md §5.5).
func TestOffersOfOthersAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		defer h.close()
		h.script("policy open", "dial ann conf", "after 1s")
		leg := h.eng.ports // of ann's leg: RTP and RTCP of audio, then of video
		for i, tt := range []struct{ words, want string }{
			{"ipv6", "<- 488 warning 301"},
			{"audio=5060", "<- 488"},
			{"video=5060", "<- 488"},
			{fmt.Sprint("audio=", leg), "<- 488"},
			{fmt.Sprint("audio=", leg+2), "<- 488"},
			{fmt.Sprint("video=", leg+1), "<- 488"},
			{fmt.Sprint("video=", leg-1), "<- 488"}, // its RTCP
			{fmt.Sprint("audio=", leg-2, " video=", leg+4), "<- 200 isfocus audio video"},
		} {
			name := fmt.Sprint("c", i)
			if got := h.script("dial "+name+" conf "+tt.words, "after 1s"); !strings.Contains(got+"\n", name+"'s phone: "+tt.want+"\n") {
				t.Errorf("%s: no %q in\n%s", tt.words, tt.want, got)
			}
		}
		h.script("caller ann bye", "caller c7 bye", "after 1s")
		if got := h.script(fmt.Sprint("dial late conf audio=", leg), "after 1s"); !strings.Contains(got, "<- 200") {
			t.Errorf("a port of ours no more:\n%s", got)
		}
		h.net.mu.Lock()
		h.net.overTCP = true
		h.net.mu.Unlock()
		if got := h.script("dial tcp conf audio=5060", "after 1s"); !strings.Contains(got, "<- 200") {
			t.Errorf("where SIP is spoken over TCP only:\n%s", got)
		}
		h.script("caller late bye", "caller tcp bye", "after 1s")
	})
}

// The organiser sees of a caller what the network knows: whether his number is proven, and
// whom he had dialled.
func TestCallerAsTheNetworkKnowsHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for _, l := range []string{"policy open", "dial ann conf verstat=TN-Validation-Failed diverted=tel:+8613800009999", "after 1s"} {
			if err := h.run(l); err != nil {
				t.Fatal(err)
			}
		}
		l := h.member("ann").Leg
		if l == nil || l.Verstat != "TN-Validation-Failed" || l.DivertedFrom != "tel:+8613800009999" {
			t.Errorf("%+v", l)
		}
		if err := h.run("caller ann bye"); err != nil {
			t.Error(err)
		}
		h.wait(time.Second)
	})
}

// What a caller says of himself, and no trusted network, is marked wherever it is shown, and gives
// him, and whose number he shows, no right.
func TestUnverifiedCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.script("policy open", "referrers any", "member bob voice", "dial Chairman conf from=+8613900000001 untrusted", "dial ann conf", "after 1s")
		if m := h.member("Chairman"); !m.Unverified || m.Leg == nil || !m.Leg.Unverified || m.Number != "" {
			t.Errorf("member %+v", m)
		}
		if m := h.member("ann"); m.Unverified || m.Leg.Unverified {
			t.Errorf("asserted, and yet %+v", m)
		}
		if m := h.member("bob"); m.Unverified {
			t.Errorf("on the roster, and yet %+v", m)
		}
		for name, want := range map[string]string{"Chairman": "未验证? Chairman", "ann": "ann"} {
			id := h.legID(name)
			h.eng.mu.Lock()
			if got := h.eng.legs[id].GetName(); got != want {
				t.Errorf("on the tile of %s stands %q", name, got)
			}
			h.eng.mu.Unlock()
		}
		got := h.script("subscribe ann once", "subscribe real outside by=tel:+8613900000001", "refer real invite bob outside by=tel:+8613900000001",
			"dial Nobody factory untrusted", "caller Chairman bye", "caller ann bye", "after 1s")
		for _, want := range []string{"sip:anon-1@ims.example (未验证? Chairman)", "(ann)", "real's SUBSCRIBE: <- 403", "real's REFER: <- 403"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		marked := map[string]bool{}
		for _, r := range h.bills.records {
			marked[r.Leg.CallID] = r.Leg.Unverified
		}
		if want := map[string]bool{h.callers["Chairman"].in.CallID: true, h.callers["ann"].in.CallID: false, h.callers["Nobody"].in.CallID: true}; !maps.Equal(marked, want) {
			t.Errorf("records say %v, want %v", marked, want)
		}
	})
}

// Who has no number is in the records by what his network asserts, hidden from others or not, let in
// or not, and by his From where nothing is asserted.
func TestCallersWithoutNumberAreOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.script("policy open", "dial in conf pai=sip:alice@ims.example private", "dial from conf pai=sip:bob@elsewhere.example untrusted",
			"dial number conf pai=sip:carl@ims.example,tel:+8613900000099", "dial out tel:+8610123456 pai=sip:dan@ims.example", "after 1s")
		want := map[string]string{"in": "sip:alice@ims.example", "from": "sip:bob@elsewhere.example", "number": "+8613900000099", "out": "sip:dan@ims.example"}
		h.mem.mu.Lock()
		for _, r := range h.mem.legs { // a crash now must not lose it
			if name := h.callerNamed(r.Leg.CallID); r.Number != want[name] {
				t.Errorf("kept of %s: %q", name, r.Number)
			}
		}
		h.mem.mu.Unlock()
		h.script("caller in bye", "caller from bye", "caller number bye", "after 1s")
		for _, r := range h.bills.records {
			name := h.callerNamed(r.Leg.CallID)
			if r.Number != want[name] {
				t.Errorf("charged of %s: %q", name, r.Number)
			}
			delete(want, name)
		}
		if len(want) > 0 {
			t.Errorf("no record of %v", want)
		}
	})
}

// Who is refused, or never says the PIN, leaves a call record and no row; and the PIN is
// in no log.
func TestRefusedCallersAreOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.VideoConference)
		for _, line := range []string{"dial a tel:+8610123456", "dial b urn:service:sos", "dial c conf", "after 1s", "press c WRONG", "after 60s", "policy allow_listed", "dial d conf", "after 1s"} {
			if err := h.run(line); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"inbound ended hung_up 0", "inbound ended not_allowed 403", "inbound ended not_allowed 403", "inbound ended not_found 404"}
		if got := h.records(); !slices.Equal(got, want) {
			t.Errorf("records %q, want %q", got, want)
		}
		if n := h.conference().Members; n != 0 {
			t.Errorf("%d members", n)
		}
		pin := h.conference().PIN
		h.close()
		if strings.Contains(h.logs.String(), pin) {
			t.Error("the PIN is in the log")
		}
		for _, r := range h.mem.legs {
			if s := fmt.Sprint(r.Leg.Timeline); strings.Contains(s, "00000") || strings.Contains(s, pin) {
				t.Error("what was typed is in the timeline")
			}
		}
	})
}

// An emergency call is refused wherever the emergency service is named, whoever else is named too;
// and its record says so.
func TestEmergencyCallsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		h.script("policy open", "dial ann conf", "after 1s")
		for _, where := range []string{"uri", "called", "to"} {
			for _, sos := range []string{"urn:service:sos", "URN:service:sos.police", "tel:110", "sip:112@ims.example;user=phone"} {
				for _, words := range []string{"", " replaces=ann"} {
					name := fmt.Sprint("caller", len(h.callers))
					if got := h.script("dial "+name+" conf "+where+"="+sos+words, "after 1s"); !strings.Contains(got, name+"'s phone: <- 403") {
						t.Errorf("%s in %s%s:\n%s", sos, where, words, got)
						continue
					}
					if r := h.bills.records[len(h.bills.records)-1]; r.Dialled != sos || r.Leg.SIP.Status != 403 {
						t.Errorf("%s in %s%s: the record says %q, %d", sos, where, words, r.Dialled, r.Leg.SIP.Status)
					}
				}
			}
		}
		h.script("caller ann bye", "after 1s")
	})
}

// Wrong PINs are limited per caller, whatever number he shows, and per conference.
func TestGuessesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		guess := func(name string, words ...string) int {
			if err := h.dial(name, "conf", words); err != nil {
				t.Fatal(err)
			}
			h.wait(time.Second)
			for range 3 {
				if h.callers[name].final == 200 {
					h.press("press", name, "WRONG")
				}
				h.wait(time.Second)
			}
			h.wait(10 * time.Second)
			return h.callers[name].final
		}
		taken := func(prefix string, n int, words func(int) []string) int {
			for i := range n {
				if guess(fmt.Sprint(prefix, i), words(i)...) == 403 {
					return i
				}
			}
			return n
		}
		if n := taken("same", 8, func(int) []string { return []string{"from=+8613912345678"} }); n != 4 {
			t.Errorf("one caller had %d calls, want 4 of three guesses less two", n)
		}
		if n := taken("forged", 8, func(int) []string { return []string{"untrusted"} }); n != 4 {
			t.Errorf("forged numbers had %d calls, want 4", n)
		}
		if n := taken("many", 12, func(int) []string { return nil }); n != 4 {
			t.Errorf("many callers had %d calls, want 4: 30 guesses in all", n)
		}
		h.wait(11 * time.Minute)
		if guess("later") != 200 {
			t.Error("the limit never ends")
		}
	})
}
