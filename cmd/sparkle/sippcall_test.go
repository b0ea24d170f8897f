package main

import (
	"cmp"
	"fmt"
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
	// referredNumber is whom they have called.
	referredNumber = "+8613800138002"

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
	{scenario: "uac-refreshes", outcome: bridge.Left, legs: staysIn, timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uac-refresh", steps: []step{joined, secondRefresh, hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"dialing", "connected " + seesUs, "ended hung_up"}, timeline: []string{"UPDATE", "UPDATE", "BYE"}},
	{scenario: "uac-expires", outcome: bridge.Dropped, legs: []string{"dialing", "connected " + seesUs, "ended dropped"}},
	{scenario: "uac-glare", steps: []step{joined, afterGlare, hangUpWhoever}, outcome: bridge.HungUp,
		legs: []string{"dialing", "connected " + seesUs, "ended hung_up"}, timeline: []string{"INVITE", "491", "491", "BYE"}},
	{scenario: "uac-subscribe", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: staysIn},
	{scenario: "uac-refer", then: "uas-video", transports: []string{"tcp", "udp"}, steps: []step{referred(bridge.HungUp)}, outcome: bridge.Left, legs: staysIn,
		timeline: []string{"INVITE", "REFER", "NOTIFY", "REFER", "NOTIFY", "BYE"}},
	{scenario: "uac-refer-busy", then: "uas-busy", steps: []step{referred(bridge.Busy)}, outcome: bridge.Left, legs: staysIn,
		timeline: []string{"INVITE", "REFER", "NOTIFY", "BYE"}},
	{scenario: "uac-refer-sos", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: staysIn},
	{scenario: "uac-rtp-stop", config: "media: {port_min: 0, port_max: 0, realtime: false, timeout: 5s}", outcome: bridge.Dropped,
		legs: []string{"dialing", "connected PCMA not_offered", "ended dropped"}, timeline: []string{"audio flows", "audio stalled", "BYE"}},
}

// A carrier's server takes its call over by another one: the member stays in, and has two
// legs.
func TestSIPpTakesOver(t *testing.T) {
	t.Parallel()
	needSIPp(t)
	x, user := callable(callableDaemon(t, "tcp", ""), bridge.JoinOpen)
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

// referred waits for the end of whom the caller had called.
func referred(want bridge.Outcome) step {
	return func(x *dialled) {
		x.t.Helper()
		var id string
		eventually(x.t, "who was referred to in the conference", func() error {
			var err error
			id, err = x.row(func(m bridge.Member) bool { return m.Number == referredNumber })
			return err
		})
		x.ended(x.conference, id, want)
	}
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

// alone says that a flow cannot share a daemon: its configuration is its own, there is a
// phone that it calls, or its PIN must be nobody else's.
func (f flow) alone() bool { return f.config != "" || f.then != "" || f.join == bridge.JoinPIN }

// TestSIPpCalls starts one daemon for all flows that can share it: each calls a conference
// of its own.
func TestSIPpCalls(t *testing.T) {
	needSIPp(t)
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			shared := callableDaemon(t, transport, "")
			for _, f := range callerFlows {
				if !slices.Contains(f.over(), transport) {
					continue
				}
				t.Run(cmp.Or(f.name, f.scenario), func(t *testing.T) {
					t.Parallel()
					d := shared.forTest(t)
					var phones []*sippPhone
					if f.then != "" {
						phones = append(phones, startSIPp(t, f.then, transport))
					}
					if f.alone() {
						d = callableDaemon(t, transport, f.config, phones...)
					}
					if len(phones) > 0 {
						d.ready()
					}
					f.calls(t, d, transport)
					for _, p := range phones {
						p.finish()
					}
				})
			}
		})
	}
}

func (f flow) calls(t *testing.T, d *daemon, transport string) {
	if f.raw {
		needRawSocket(t)
	}
	x, user := callable(d, cmp.Or(f.join, bridge.JoinOpen))
	x.watch()
	caller := callWithSIPp(t, f.scenario, transport, x.sipAddr(), cmp.Or(f.dials, user), 1)
	for _, s := range f.steps {
		s(x)
	}
	if err := caller.Wait(patience); err != nil {
		t.Error(err)
	}
	if slices.Equal(f.members, staysOut) {
		x.keptOut(f, fmt.Sprintf("1-%d@127.0.0.1", caller.PID())) // as SIPp names its first call
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

// callableDaemon has a trunk whose peers call. Their sessions may be short, and they may
// speak PCMA.
func callableDaemon(t *testing.T, transport, config string, phones ...*sippPhone) *daemon {
	t.Helper()
	d := startDaemon(t, trunkTo(transport, shortSession+"\noffer_g711: true", phones...)+config+"\n"+inboundKeys+"\n")
	d.numbers = append(d.numbers, sippNumber, referredNumber)
	return d
}

// callable is a conference that can be called; user is that of its URI.
func callable(d *daemon, join bridge.JoinPolicy) (x *dialled, user string) {
	d.t.Helper()
	x = &dialled{daemon: d, conference: d.conference(bridge.VideoConference)}
	refers := bridge.ReferAny
	p := api.ConferencePatch{JoinPolicy: &join, WhoMayRefer: &refers}
	if join == bridge.JoinPIN {
		pin := sippPIN
		p.Pin = &pin
	}
	c, err := d.api.UpdateConference(d.t.Context(), x.conference, p)
	if err != nil {
		d.t.Fatal(err)
	}
	user, _, ok := strings.Cut(strings.TrimPrefix(c.DialIn.URI, "sip:"), "@")
	if !ok {
		d.t.Fatalf("the conference has no URI: %+v", c.DialIn)
	}
	return x, user
}

// keptOut: nobody has joined, and the record says why.
func (x *dialled) keptOut(f flow, callID string) {
	x.t.Helper()
	all, err := x.api.Members(x.t.Context(), x.conference)
	if err != nil || len(all) > 0 {
		x.t.Errorf("members %+v, %v: nobody was let in", all, err)
	}
	if f.outcome == "" {
		return
	}
	r := x.record(func(r cdr.Record) bool { return r.CallID == callID })
	if r.Outcome != string(f.outcome) || r.SIPStatus != f.status || r.Direction != "inbound" {
		x.t.Errorf("the record is %+v, want %s with %d", r, f.outcome, f.status)
	}
}
