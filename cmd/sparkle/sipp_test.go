package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sparkle/bridge"
)

// flow is one scenario of testdata/sipp against the real binary. Its attachment is a
// trunk whose peer SIPp plays.
type flow struct {
	name       string // "" the scenario's
	scenario   string // without .xml
	then       string // the scenario of a second target, which the first, or the caller, sends us to
	transports []string
	attachment string // more keys of it, a line each
	config     string // more of the file
	raw        bool   // SIPp plays a capture: that takes a raw socket
	call       bridge.CallRequest
	steps      []step // what the organiser does meanwhile

	outcome bridge.Outcome
	status  int // 0: none
	q850    int
	// legs is what the event stream says of the leg, in order, repetitions left out: its
	// state, with the media while it is connected or held, and the outcome at the end.
	// What it says of the member follows from that, and is checked too.
	legs     []string
	timeline []string // words that the leg's timeline has, in this order
	text     string   // words of the sentence that the outcome has; "" any

	// Of calls that SIPp makes:
	dials   string                // whom; "" the conference, by its own URI
	join    bridge.JoinPolicy     // of the conference; "" open
	kind    bridge.ConferenceType // of the conference; "" video
	before  step                  // what is so before they call
	lasts   time.Duration         // their calls; 0: less than patience
	members []string              // the member's states, where they do not follow from legs; [""]: there is none
}

// step is something the organiser does, or sees, during a call.
type step func(*dialled)

const (
	seesUs  = "AMR-WB H264"    // 42c00c
	hearsUs = "AMR-WB refused" // the phone said m=video 0
)

var (
	takesVideo = []string{"dialing", "ringing", "connected " + seesUs, "ended hung_up"}
	takesVoice = []string{"dialing", "ringing", "connected " + hearsUs, "ended hung_up"}
)

func hangUp(x *dialled) {
	x.await(x.conference, x.member, "the conference", in)
	x.hangNow()
}

// hangNow is for a phone in whatever state.
func (x *dialled) hangNow() {
	x.t.Helper()
	if err := x.api.Hangup(x.t.Context(), x.conference, x.member); err != nil {
		x.t.Error(err)
	}
}

func cancel(x *dialled) {
	x.await(x.conference, x.member, "ringing", ringing)
	x.hangNow()
}

// calleeFlows are those in which SIPp is the phone that is called.
var calleeFlows = []flow{
	{scenario: "uas-video", transports: []string{"tcp", "udp"}, steps: []step{hangUp}, outcome: bridge.HungUp, legs: takesVideo},
	{scenario: "uas-voice", steps: []step{hangUp}, outcome: bridge.HungUp, legs: takesVoice},
	{scenario: "uas-488", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "ringing", "connected AMR-WB rejected_488", "ended hung_up"},
		timeline: []string{"488", "INVITE", "200"}},
	{scenario: "uas-301", config: "media: {port_min: 0, port_max: 0, realtime: false, other_ip: '::1'}", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp,
		legs: takesVoice, timeline: []string{"488", "trying the other: 488 Not Acceptable Here; 301", "INVITE", "200"}},
	{scenario: "uas-416", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp, legs: takesVoice, timeline: []string{"416", "INVITE", "200"}},
	{scenario: "uas-403", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "ringing", "connected AMR-WB rejected_403", "ended hung_up"},
		timeline: []string{"403", "voice only: 403 Forbidden; Video service not subscribed", "INVITE", "200"}},
	{scenario: "uas-380", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "ringing", "connected AMR-WB rejected_380", "ended hung_up"},
		timeline: []string{"380", "voice only: 380 Alternative Service; no video here", "INVITE", "200"}},
	{scenario: "uas-503", attachment: "failover_on: []", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "ringing", "connected AMR-WB rejected_503", "ended hung_up"},
		timeline: []string{"503", "INVITE", "200"}},
	{scenario: "uas-prack-ring", steps: []step{hangUp}, outcome: bridge.HungUp, legs: takesVideo, timeline: []string{"180", "PRACK", "200"}},
	{scenario: "uas-prack", steps: []step{hangUp}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "early_media", "ringing", "connected " + seesUs, "ended hung_up"},
		timeline: []string{"183", "PRACK", "180"}},
	{scenario: "uas-precondition", transports: []string{"tcp", "udp"}, steps: []step{hangUp}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "early_media", "ringing", "connected " + hearsUs, "ended hung_up"},
		timeline: []string{"183", "PRACK", "UPDATE", "180"}},
	{scenario: "uas-precondition-update", steps: []step{hangUp}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "early_media", "ringing", "connected " + hearsUs, "ended hung_up"},
		timeline: []string{"183", "PRACK", "UPDATE", "180"}},
	{scenario: "uas-precondition-active", attachment: "preconditions: active", steps: []step{hangUp}, outcome: bridge.HungUp,
		legs:     []string{"dialing", "early_media", "ringing", "connected " + hearsUs, "ended hung_up"},
		timeline: []string{"183", "PRACK", "UPDATE", "180"}},
	{scenario: "uas-early-media", attachment: "offer_g711: true", steps: []step{hangUp}, outcome: bridge.HungUp,
		legs: []string{"dialing", "early_media", "ringing", "connected PCMA refused cs", "ended hung_up"}},

	{scenario: "uas-busy", outcome: bridge.Busy, status: 486, q850: 17, legs: []string{"dialing", "ended busy"}},
	{scenario: "uas-declines", outcome: bridge.Declined, status: 603, legs: []string{"dialing", "ringing", "ended declined"}},
	{scenario: "uas-unknown", outcome: bridge.NotFound, status: 404, legs: []string{"dialing", "ended not_found"}},
	{scenario: "uas-unavailable", outcome: bridge.Unreachable, status: 480, q850: 20, legs: []string{"dialing", "ended unreachable"}},
	{scenario: "uas-timeout", outcome: bridge.Unreachable, status: 408, legs: []string{"dialing", "ended unreachable"}},
	{scenario: "uas-silent", config: "calls: {setup_timeout: 5s}", outcome: bridge.Unreachable, status: 487,
		legs: []string{"dialing", "ended unreachable"}, timeline: []string{"100", "CANCEL", "487"}},
	{scenario: "uas-nothing", transports: []string{"udp"}, config: "calls: {setup_timeout: 5s}", outcome: bridge.NetworkError, legs: []string{"dialing", "ended network_error"},
		text: "did not respond"},
	{scenario: "uas-moved-follow", attachment: "follow_redirect: true", steps: []step{hangUp, oneLeg}, outcome: bridge.HungUp, legs: takesVoice,
		timeline: []string{"302", "INVITE", "200"}},
	{scenario: "uas-moved", outcome: bridge.Unreachable, status: 302, legs: []string{"dialing", "ended unreachable"}},
	{scenario: "uas-overload", then: "uas-video", steps: []step{hangUp, firstTargetSuspended}, outcome: bridge.HungUp, legs: takesVideo},

	{name: "the organiser gives up", scenario: "uas-cancel", steps: []step{cancel}, outcome: bridge.Cancelled, status: 487,
		legs: []string{"dialing", "ringing", "ended cancelled"}, timeline: []string{"CANCEL", "487"}},
	{name: "nobody answers", scenario: "uas-cancel", call: bridge.CallRequest{RingTimeout: time.Second}, outcome: bridge.NoAnswer, status: 487,
		legs: []string{"dialing", "ringing", "ended no_answer"}, timeline: []string{"CANCEL", "487"}},
	{scenario: "uas-cancel-race", transports: []string{"tcp", "udp"}, steps: []step{cancel}, outcome: bridge.Cancelled,
		legs: []string{"dialing", "ringing", "ended cancelled"}, timeline: []string{"CANCEL", "200", "ACK", "BYE"}},

	{scenario: "uas-bye", outcome: bridge.Left, q850: 16, legs: []string{"dialing", "ringing", "connected " + seesUs, "ended left"}},
	{scenario: "uas-bye-lost", outcome: bridge.Dropped, legs: []string{"dialing", "ringing", "connected " + seesUs, "ended dropped"}, text: "connection was lost"},
	{scenario: "uas-bye-merged", outcome: bridge.Left, legs: []string{"dialing", "ringing", "connected " + seesUs, "ended left"}, text: "a conference of their own"},
	{scenario: "uas-rtp-stop", attachment: "offer_g711: true", config: "media: {port_min: 0, port_max: 0, realtime: false, timeout: 5s}", outcome: bridge.Dropped,
		legs:     []string{"dialing", "ringing", "connected PCMA refused cs", "ended dropped"},
		timeline: []string{"audio flows", "audio stalled", "BYE"}},

	{scenario: "uas-hold", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "held " + seesUs, "connected " + seesUs, "ended left"}},
	{scenario: "uas-hold-old", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "held AMR-WB inactive", "connected " + seesUs, "ended left"}},
	{scenario: "uas-update", outcome: bridge.Left,
		legs:     []string{"dialing", "ringing", "connected " + seesUs, "connected AMR-WB removed", "connected " + seesUs, "ended left"},
		timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uas-adds-video", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + hearsUs, "connected " + seesUs, "ended left"}},
	{scenario: "uas-upgrade", steps: []step{askForVideo, seen("connected " + seesUs), hangUp}, outcome: bridge.HungUp,
		legs: []string{"dialing", "ringing", "connected " + hearsUs, "connected " + seesUs, "ended hung_up"}},
	{scenario: "uas-upgrade-prack", steps: []step{askForVideo, seen("connected " + seesUs), hangUp}, outcome: bridge.HungUp,
		legs: []string{"dialing", "ringing", "connected " + hearsUs, "connected " + seesUs, "ended hung_up"}, timeline: []string{"183", "PRACK", "UPDATE", "ACK", "BYE"}},
	{scenario: "uas-upgrade-declined", steps: []step{askForVideo, said("603"), hangUp}, outcome: bridge.HungUp, legs: takesVoice},
	{scenario: "uas-late-offer", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "connected " + hearsUs, "ended left"}},
	{scenario: "uas-srvcc", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "connected AMR removed cs", "ended left"}},

	{scenario: "uas-srvcc-line", outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "connected AMR removed cs", "ended left"}},
	{scenario: "uas-refresh", attachment: shortSession, steps: []step{secondRefresh, hangUp}, outcome: bridge.HungUp, legs: takesVideo,
		timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uas-refreshes", attachment: shortSession, outcome: bridge.Left,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "ended left"}, timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uas-expires", attachment: shortSession, outcome: bridge.Dropped,
		legs: []string{"dialing", "ringing", "connected " + seesUs, "ended dropped"}},
	{scenario: "uas-glare", attachment: shortSession, steps: []step{afterGlare, hangUp}, outcome: bridge.HungUp, legs: takesVideo,
		timeline: []string{"INVITE", "491", "491", "BYE"}},

	{scenario: "uas-fork-rings", steps: []step{hangUp}, outcome: bridge.HungUp, legs: takesVideo},
	{scenario: "uas-fork-answers", transports: []string{"tcp", "udp"}, steps: []step{secondForkEnded, hangUp}, outcome: bridge.HungUp, legs: takesVideo,
		timeline: []string{"200", "ACK", "200", "ACK", "BYE", "BYE"}},

	{scenario: "uas-dtmf", raw: true, outcome: bridge.Left, legs: []string{"dialing", "ringing", "connected " + hearsUs, "ended left"},
		timeline: []string{"a key", "a key", "a key", "BYE"}},
	{name: "presses 1", scenario: "uas-dtmf", raw: true, call: bridge.CallRequest{AnswerConfirm: &yes}, outcome: bridge.Left,
		legs:     []string{"dialing", "ringing", "ringing answered", "connected " + hearsUs, "ended left"},
		timeline: []string{"is to press 1", "a key", "pressed 1", "state connected", "a key", "a key", "BYE"}},
	{name: "presses 1 by INFO", scenario: "uas-dtmf-info", call: bridge.CallRequest{AnswerConfirm: &yes}, outcome: bridge.Left,
		legs:     []string{"dialing", "ringing", "ringing answered", "connected " + hearsUs, "ended left"},
		timeline: []string{"is to press 1", "a key by INFO", "pressed 1", "state connected", "BYE"}},
	{name: "a mailbox", scenario: "uas-voice", call: bridge.CallRequest{AnswerConfirm: &yes}, outcome: bridge.HungUp,
		steps:    []step{said("asked again"), said("asked again", "asked again"), said("not_confirmed")},
		legs:     []string{"dialing", "ringing", "ringing answered", "ended hung_up"},
		timeline: []string{"is to press 1", "asked again", "asked again", "ending: not_confirmed", "BYE"}},
	{scenario: "uas-dtmf-info", outcome: bridge.Left, legs: []string{"dialing", "ringing", "connected " + hearsUs, "ended left"},
		timeline: []string{"a key by INFO", "a key by INFO", "BYE"}},
}

var yes = true

// shortSession lets peers have sessions that a test can see the end of.
const shortSession = "min_se: 4s"

func oneLeg(x *dialled) {
	legs, err := x.api.Legs(x.t.Context(), x.conference, x.member)
	if err != nil || len(legs) != 1 {
		x.t.Errorf("%d legs, %v: one call is one leg, however many INVITEs it took", len(legs), err)
	}
}

func firstTargetSuspended(x *dialled) {
	as, err := x.api.Attachments(x.t.Context())
	if err != nil || len(as) != 1 {
		x.t.Fatalf("attachments: %v, %v", as, err)
	}
	if !strings.Contains(as[0].LastError, "503") {
		x.t.Errorf("attachment is %+v: nothing of the peer that asked to be left alone", as[0])
	}
}

// said waits until the newest leg's timeline has the words in this order.
func (x *dialled) said(words ...string) {
	x.t.Helper()
	eventually(x.t, strings.Join(words, ", ")+" in the timeline", func() error {
		return inOrder(x.timeline(), words)
	})
}

func secondRefresh(x *dialled)  { x.said("UPDATE", "200", "UPDATE", "200") }
func said(words ...string) step { return func(x *dialled) { x.said(words...) } }

// seen waits until the events have said this of the leg.
func seen(words string) step {
	return func(x *dialled) {
		eventually(x.t, words, func() error {
			x.seen.mu.Lock()
			defer x.seen.mu.Unlock()
			if !slices.Contains(x.seen.legs, words) {
				return fmt.Errorf("%q", x.seen.legs)
			}
			return nil
		})
	}
}

func askForVideo(x *dialled) {
	x.await(x.conference, x.member, "the conference", in)
	if _, err := x.api.AskForVideo(x.t.Context(), x.conference, x.member); err != nil {
		x.t.Error(err)
	}
}

func secondForkEnded(x *dialled) {
	x.said("200", "ACK", "200", "ACK", "BYE", "200")
}
func afterGlare(x *dialled) { x.said("491", "491", "INVITE", "200", "INVITE", "200", "ACK") }

// timeline is that of the newest leg, as text.
func (x *dialled) timeline() []string {
	legs, err := x.api.Legs(x.t.Context(), x.conference, x.member)
	if err != nil || len(legs) == 0 {
		return nil
	}
	var out []string
	for _, e := range legs[0].Timeline {
		out = append(out, e.What+" "+e.Text)
	}
	return out
}

// inOrder says which of the words does not come after the ones before it.
func inOrder(lines, words []string) error {
	i := 0
	for _, l := range lines {
		if i < len(words) && strings.Contains(l, words[i]) {
			i++
		}
	}
	if i < len(words) {
		return fmt.Errorf("no %q (%d of %q) in\n%s", words[i], i, words, strings.Join(lines, "\n"))
	}
	return nil
}
