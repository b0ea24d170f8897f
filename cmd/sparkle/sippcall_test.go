package main

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/cdr"
)

const (
	// sippPIN is the PIN of every conference here; media/pin-amrwb.pcap and the scenarios
	// type it.
	sippPIN = "246813"
	// sippNumber is whom SIPp's callers are asserted to be.
	sippNumber = "+8613800138001"

	sharedNumber = "+8675586000000"
	inboundKeys  = `inbound: {dial_in: ["` + sharedNumber + `"], factory_uris: ["sip:mmtel@sipp.example"]}`
)

var (
	staysIn  = []string{"dialing", "connected AMR-WB H264", "ended left"}
	staysOut = []string{""}
)

// callerFlows are those in which SIPp calls.
var callerFlows = []flow{
	{scenario: "uac-video", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: staysIn},
	{scenario: "uac-voice", steps: []step{hangUpWhoever}, outcome: bridge.HungUp, legs: []string{"dialing", "connected AMR-WB not_offered", "ended hung_up"}},
	{scenario: "uac-bearer", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: []string{"dialing", "connected AMR-WB not_offered", "ended left"},
		timeline: []string{"INVITE", "183", "PRACK", "UPDATE", "200", "BYE"}},
	{scenario: "uac-late-offer", outcome: bridge.Left, legs: staysIn},
	{scenario: "uac-cancel", outcome: bridge.Cancelled, status: 487, legs: []string{"dialing", "ended cancelled"}},
	{scenario: "uac-488", outcome: bridge.MediaIncompatible, status: 488, legs: []string{"dialing", "ended media_incompatible"}},
	{scenario: "uac-unknown", dials: "nobody", members: staysOut, outcome: bridge.NotFound, status: 404},
	{scenario: "uac-stranger", join: bridge.JoinListed, members: staysOut, outcome: bridge.NotAllowed, status: 403},
	{scenario: "uac-sos", members: staysOut, outcome: bridge.NotAllowed, status: 403},
	{scenario: "uac-replaces-nobody", members: staysOut},
	{scenario: "uac-420", members: staysOut},
	{scenario: "uac-422", members: staysOut},

	{scenario: "uac-pin", raw: true, join: bridge.JoinPIN, steps: []step{hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"connected AMR-WB not_offered", "ended hung_up"}, members: []string{"in_conference", "idle"},
		timeline: []string{"the PIN is right", "BYE"}},
	{name: "PIN by INFO", scenario: "uac-pin-info", join: bridge.JoinPIN, steps: []step{hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"connected " + seesUs, "ended hung_up"}, members: []string{"in_conference", "idle"},
		timeline: []string{"the PIN is right", "BYE"}},
	{name: "shared number", scenario: "uac-pin-info", dials: sharedNumber, join: bridge.JoinPIN, steps: []step{hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"connected " + seesUs, "ended hung_up"}, members: []string{"in_conference", "idle"},
		timeline: []string{"the PIN is right", "goes to its conference", "INVITE", "BYE"}},
	{scenario: "uac-pin-wrong", join: bridge.JoinPIN, members: staysOut, outcome: bridge.HungUp,
		legs: []string{"dialing", "connected AMR-WB not_offered", "ended hung_up"}},

	{scenario: "uac-hold", outcome: bridge.Left,
		legs: []string{"dialing", "connected " + seesUs, "held " + seesUs, "connected " + seesUs, "ended left"}},
	{scenario: "uac-update", outcome: bridge.Left,
		legs: []string{"dialing", "connected " + seesUs, "connected AMR-WB removed", "connected " + seesUs, "ended left"}},
	{scenario: "uac-reoffer", outcome: bridge.Left, legs: []string{"dialing", "connected " + seesUs, "connected " + hearsUs, "ended left"}},
	{scenario: "uac-srvcc", outcome: bridge.Left, legs: []string{"dialing", "connected " + seesUs, "connected AMR removed", "ended left"}},
	{scenario: "uac-refreshes", attachment: shortSession, outcome: bridge.Left, legs: staysIn, timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uac-refresh", attachment: shortSession, steps: []step{joined, secondRefresh, hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"dialing", "connected " + seesUs, "ended hung_up"}, timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uac-expires", attachment: shortSession, outcome: bridge.Dropped, legs: []string{"dialing", "connected " + seesUs, "ended dropped"}},
	{scenario: "uac-glare", attachment: shortSession, steps: []step{joined, afterGlare, hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"dialing", "connected " + seesUs, "ended hung_up"}, timeline: []string{"INVITE", "491", "491", "BYE"}},
	{scenario: "uac-rtp-stop", attachment: "offer_g711: true", config: "media: {port_min: 0, port_max: 0, realtime: false, timeout: 5s}", outcome: bridge.Dropped,
		legs: []string{"dialing", "connected PCMA not_offered", "ended dropped"}, timeline: []string{"audio flows", "audio stalled", "BYE"}},
}

// A carrier's server takes its call over by another one: the member stays in, and has two
// legs.
func TestSIPpTakesOver(t *testing.T) {
	t.Parallel()
	x, user := callable(t, "tcp", "", "", bridge.JoinOpen)
	x.watch()
	caller := callWithSIPp(t, "uac-replaces", "tcp", x.sipAddr(), user, 1)
	joined(x)
	if err := caller.Wait(patience); err != nil {
		t.Error(err)
	}
	x.ended(x.conference, x.member, bridge.Left)
	legs, err := x.api.Legs(t.Context(), x.conference, x.member)
	if err != nil || len(legs) != 2 || legs[1].Outcome != bridge.HungUp || legs[0].CallID != "second///"+legs[1].CallID {
		t.Errorf("legs %+v, %v", legs, err)
	}
	x.seen.mu.Lock()
	defer x.seen.mu.Unlock()
	if i := slices.Index(x.seen.members, "idle"); i != len(x.seen.members)-1 {
		t.Errorf("the member was %q: he had not left between", x.seen.members)
	}
}

// joined waits for the caller to be in, whoever he is.
func joined(x *dialled) {
	x.t.Helper()
	if x.member != "" {
		return
	}
	var id string
	eventually(x.t, "the caller in the conference", func() error {
		var err error
		id, err = x.row(func(m bridge.Member) bool { return in(m) })
		return err
	})
	x.member = id
}

func hangUpWhoever(x *dialled) { joined(x); hangUp(x) }

// row finds the member that is as told.
func (x *dialled) row(ok func(bridge.Member) bool) (string, error) {
	all, err := x.api.Members(x.t.Context(), x.conference)
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(all, ok); i >= 0 {
		return all[i].ID, nil
	}
	return "", errNoRow
}

func TestSIPpCalls(t *testing.T) {
	for _, f := range callerFlows {
		for _, transport := range f.over() {
			t.Run(cmp.Or(f.name, f.scenario)+" "+transport, func(t *testing.T) {
				t.Parallel()
				f.calls(t, transport)
			})
		}
	}
}

func (f flow) calls(t *testing.T, transport string) {
	if f.raw {
		needRawSocket(t)
	}
	x, user := callable(t, transport, f.attachment, f.config, cmp.Or(f.join, bridge.JoinOpen))
	x.watch()
	caller := callWithSIPp(t, f.scenario, transport, x.sipAddr(), cmp.Or(f.dials, user), 1)
	for _, s := range f.steps {
		s(x)
	}
	if err := caller.Wait(patience); err != nil {
		t.Error(err)
	}
	if slices.Equal(f.members, staysOut) {
		x.keptOut(f)
		return
	}
	if x.member == "" {
		eventually(t, "the caller's row", func() error {
			var err error
			x.member, err = x.row(func(m bridge.Member) bool { return m.Number == sippNumber })
			return err
		})
	}
	x.holds(f, x.ended(x.conference, x.member, f.outcome))
}

// callable is a daemon with a conference that can be called; user is that of its URI.
func callable(t *testing.T, transport, attachment, config string, join bridge.JoinPolicy, phones ...*sippPhone) (x *dialled, user string) {
	t.Helper()
	needSIPp(t)
	d := startDaemon(t, trunkTo(transport, attachment, phones...)+config+"\n"+inboundKeys+"\n")
	d.numbers = append(d.numbers, sippNumber)
	x = &dialled{daemon: d, conference: d.conference(bridge.VideoConference)}
	pin := sippPIN
	c, err := d.api.UpdateConference(t.Context(), x.conference, api.ConferencePatch{JoinPolicy: &join, Pin: &pin})
	if err != nil {
		t.Fatal(err)
	}
	user, _, ok := strings.Cut(strings.TrimPrefix(c.DialIn.URI, "sip:"), "@")
	if !ok {
		t.Fatalf("the conference has no URI: %+v", c.DialIn)
	}
	return x, user
}

// keptOut: nobody has joined, and the record says why.
func (x *dialled) keptOut(f flow) {
	x.t.Helper()
	all, err := x.api.Members(x.t.Context(), x.conference)
	if err != nil || len(all) > 0 {
		x.t.Errorf("members %+v, %v: nobody was let in", all, err)
	}
	if f.outcome == "" {
		return
	}
	r := x.record(func(r cdr.Record) bool { return r.Leg != "" })
	if r.Outcome != string(f.outcome) || r.SIPStatus != f.status || r.Direction != "inbound" {
		x.t.Errorf("the record is %+v, want %s with %d", r, f.outcome, f.status)
	}
}
