package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/api/client"
	"sparkle/bridge/cdr"
	"sparkle/sip/confinfo"
)

const (
	// sippPIN is the PIN of every conference here; media/pin-amrwb.pcap and the scenarios
	// type it.
	sippPIN = "246813"
	// sippNumber is whom SIPp's callers are asserted to be.
	sippNumber = "+8613800138001"
	// factoryUser is that of the conference factory.
	factoryUser = "mmtel"

	sharedNumber = "+8675586000000"
	inboundKeys  = `inbound: {dial_in: ["` + sharedNumber + `"], factory_uris: ["sip:` + factoryUser + `@sipp.example"]}`
)

// asksForProof has a trunk ask who calls for one, in the only way that SIPp 3.6.1 can answer.
const asksForProof = "challenge: {username: sipp, password: the-right-one, algorithms: [MD5]}"

// referredNumbers are whom they have called: the first by REFER, all by a list.
var referredNumbers = []string{"+8613800138002", "+8613800138003"}

var (
	staysIn  = []string{"dialing", "connected AMR-WB H264", "ended left"}
	staysOut = []string{""}

	hungUpHere = []string{"dialing", "connected AMR-WB H264", "ended hung_up"}
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
	{scenario: "uac-full", before: fill, members: staysOut, outcome: bridge.Busy, status: 486},
	{scenario: "uac-sos", members: staysOut, outcome: bridge.NotAllowed, status: 403},
	{scenario: "uac-replaces-nobody", members: staysOut, outcome: bridge.NotFound, status: 481},
	{scenario: "uac-420", members: staysOut, outcome: bridge.NetworkError, status: 420},
	{scenario: "uac-422", members: staysOut, outcome: bridge.NetworkError, status: 422},

	{scenario: "uac-challenged", attachment: asksForProof, transports: []string{"tcp", "udp"}, outcome: bridge.Left,
		legs: []string{"dialing", "connected AMR-WB not_offered", "ended left"}, timeline: []string{"INVITE", "200", "ACK", "BYE"}},
	{scenario: "uac-challenged-wrong", attachment: asksForProof, transports: []string{"tcp", "udp"}, members: staysOut, outcome: bridge.NotAllowed, status: 401},

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
		legs: []string{"connected AMR-WB not_offered"}}, // which its record says, and no event

	{scenario: "uac-audio-only", kind: bridge.AudioConference, outcome: bridge.Left,
		legs: []string{"dialing", "connected AMR-WB conference_is_audio", "ended left"}},
	{scenario: "uac-cancel-late", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: staysIn, timeline: []string{"INVITE", "200", "ACK", "BYE"}},
	{scenario: "uac-no-ack", lasts: 50 * time.Second, outcome: bridge.NetworkError, legs: []string{"dialing", "ended network_error"}},
	{scenario: "uac-no-prack", lasts: 50 * time.Second, outcome: bridge.NetworkError, status: 504, legs: []string{"dialing", "ended network_error"}},
	{scenario: "uac-hold-old", outcome: bridge.Left,
		legs: []string{"dialing", "connected " + seesUs, "held AMR-WB inactive", "connected " + seesUs, "ended left"}},
	{scenario: "uac-hold", outcome: bridge.Left,
		legs: []string{"dialing", "connected " + seesUs, "held " + seesUs, "connected " + seesUs, "ended left"}},
	{scenario: "uac-update", outcome: bridge.Left,
		legs: []string{"dialing", "connected " + seesUs, "connected AMR-WB removed", "connected " + seesUs, "ended left"}},
	{scenario: "uac-reoffer", outcome: bridge.Left, legs: []string{"dialing", "connected " + seesUs, "connected " + hearsUs, "ended left"}},
	{scenario: "uac-srvcc", outcome: bridge.Left, legs: []string{"dialing", "connected " + seesUs, "connected AMR removed cs", "ended left"}},
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
	{scenario: "uac-refer-silent", then: "uas-video", transports: []string{"tcp", "udp"}, outcome: bridge.HungUp,
		steps: []step{hangUpReferred(referredNumbers[0]), hangUpCaller}, legs: hungUpHere, timeline: []string{"INVITE", "REFER", "200", "BYE"}},
	{scenario: "uac-refer-list", then: "uas-video", transports: []string{"tcp", "udp"}, steps: []step{referred(bridge.HungUp, referredNumbers...)},
		outcome: bridge.Left, legs: staysIn, timeline: []string{"INVITE", "REFER", "NOTIFY", "REFER", "NOTIFY", "BYE"}},
	{scenario: "uac-refer-replaces", then: "uas-replaces", outcome: bridge.HungUp,
		steps: []step{hangUpReferred(referredNumbers[0]), hangUpCaller}, legs: hungUpHere, timeline: []string{"INVITE", "REFER", "NOTIFY", "BYE"}},
	{scenario: "uac-watch-481", transports: []string{"tcp", "udp"}, outcome: bridge.Left, legs: staysIn,
		timeline: []string{"SUBSCRIBE", "NOTIFY", "481", "SUBSCRIBE", "NOTIFY", "BYE"}},
	{scenario: "uac-recipients-420", dials: factoryUser, members: staysOut, outcome: bridge.NetworkError, status: 420},
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
		t.Fatalf("legs %+v, %v", legs, err)
	}
	if err := inOrder(x.timeline(), []string{"takes over", "INVITE", "200", "BYE"}); err != nil {
		t.Error(err)
	}
	for i, outcome := range []bridge.Outcome{bridge.Left, bridge.HungUp} { // the newest first
		l := legs[i]
		flow{outcome: outcome, legs: []string{"connected AMR-WB H264"}}.bills(t, x.record(func(r cdr.Record) bool { return r.Leg == l.ID && !r.Superseded }),
			cdr.Record{Conference: x.conference, Member: x.member, Direction: "inbound", CallID: l.CallID, ICID: l.ICID})
	}
	x.seen.mu.Lock()
	defer x.seen.mu.Unlock()
	if want := []string{"ringing", "in_conference", "idle"}; !slices.Equal(x.seen.members, want) {
		t.Errorf("the member was %q: he was in throughout, by one call or the other", x.seen.members)
	}
}

// fill leaves no room in a conference.
func fill(x *dialled) {
	x.t.Helper()
	var rows []bridge.MemberSpec
	for i := range 500 {
		rows = append(rows, bridge.MemberSpec{Number: fmt.Sprintf("+86137%08d", i)})
	}
	if _, err := x.api.AddMembers(x.t.Context(), x.conference, rows); err != nil {
		x.t.Fatal(err)
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
func referred(want bridge.Outcome, numbers ...string) step {
	return func(x *dialled) {
		x.t.Helper()
		if len(numbers) == 0 {
			numbers = referredNumbers[:1]
		}
		for _, n := range numbers {
			x.ended(x.conference, x.numbered(n), want)
		}
	}
}

// hangUpReferred waits until whom the caller had called is in, and hangs up.
func hangUpReferred(numbers ...string) step {
	return func(x *dialled) {
		x.t.Helper()
		for _, n := range numbers {
			other := *x
			other.member = x.numbered(n)
			hangUp(&other)
			x.ended(x.conference, other.member, bridge.HungUp)
		}
	}
}

// numbered waits for the row of a number.
func (x *dialled) numbered(number string) (id string) {
	x.t.Helper()
	eventually(x.t, "who was referred to in the conference", func() error {
		var err error
		id, err = x.row(func(m bridge.Member) bool { return m.Number == number })
		return err
	})
	return id
}

// made waits for the conference that a phone makes, to which the watched events belong.
func made(x *dialled) {
	x.t.Helper()
	eventually(x.t, "a conference of the factory", func() error {
		all, err := x.api.Conferences(x.t.Context())
		if i := slices.IndexFunc(all, func(c bridge.Conference) bool { return c.AdHoc && c.InRoom > 0 }); i >= 0 {
			x.conference = all[i].ID
			return nil
		}
		return errors.Join(errNoRow, err)
	})
}

func hangUpWhoever(x *dialled) { joined(x); hangUp(x) }

// hangUpCaller is for a caller who is not alone.
func hangUpCaller(x *dialled) {
	x.t.Helper()
	x.member = x.numbered(sippNumber)
	hangUp(x)
}

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
func (f flow) alone() bool {
	return f.attachment != "" || f.config != "" || f.then != "" || f.join == bridge.JoinPIN
}

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
						d = callableTrunk(t, transport, f.attachment, f.config, phones...)
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

// TestSIPpFactory: a phone makes a conference and brings others along, in each order that
// handsets do it in. The conference ends with its last call.
func TestSIPpFactory(t *testing.T) {
	needSIPp(t)
	for _, f := range []flow{
		{scenario: "uac-factory", steps: []step{said("INVITE", "REFER", "NOTIFY", "SUBSCRIBE", "NOTIFY", "a key by INFO")}},
		{scenario: "uac-factory-watch", steps: []step{said("INVITE", "SUBSCRIBE", "NOTIFY", "REFER", "NOTIFY", "a key by INFO")}},
		{scenario: "uac-recipients"},
	} {
		for _, transport := range []string{"tcp", "udp"} {
			t.Run(f.scenario+" "+transport, func(t *testing.T) {
				t.Parallel()
				f.makesConference(t, transport)
			})
		}
	}
}

func (f flow) makesConference(t *testing.T, transport string) {
	phone := startSIPp(t, "uas-video", transport)
	d := callableDaemon(t, transport, f.config, phone)
	d.ready()
	x := &dialled{daemon: d}
	x.watch()
	caller := callWithSIPp(t, f.scenario, transport, x.sipAddr(), factoryUser, 1)
	made(x)
	x.member = x.numbered(sippNumber)
	for _, s := range f.steps {
		s(x)
	}
	others := referredNumbers[:1]
	if f.scenario == "uac-recipients" {
		others = referredNumbers
	}
	for _, n := range others {
		x.await(x.conference, x.numbered(n), "the conference", in)
	}
	x.hangNow()
	f.outcome, f.legs, f.timeline = bridge.HungUp, hungUpHere, []string{"INVITE", "200", "BYE"}
	x.holds(f, x.ended(x.conference, x.member, f.outcome))
	if err := caller.Wait(patience); err != nil {
		t.Error(err)
	}
	if err := x.api.HangupAll(t.Context(), x.conference); err != nil {
		t.Error(err)
	}
	x.isGone()
	phone.finish()
}

// isGone waits until the conference is no more.
func (x *dialled) isGone() {
	x.t.Helper()
	eventually(x.t, "the conference's end", func() error {
		_, err := x.api.Conference(x.t.Context(), x.conference)
		if client.Code(err) == "conference_not_found" {
			return nil
		}
		return fmt.Errorf("the conference is still there: %w", err)
	})
}

// TestSIPpWatchesToTheEnd: whoever watches a conference hears of every change, not too
// often, and of its end, within his call and in a dialog of its own.
func TestSIPpWatchesToTheEnd(t *testing.T) {
	needSIPp(t)
	t.Run("within the call", func(t *testing.T) {
		for _, transport := range []string{"tcp", "udp"} {
			t.Run(transport, func(t *testing.T) {
				t.Parallel()
				x, user := callable(callableTrunk(t, transport, "max_calls: 1", patientMedia), bridge.JoinOpen)
				x.watch()
				caller := callWithSIPp(t, "uac-watch", transport, x.sipAddr(), user, 1)
				joined(x)
				if err := callWithSIPp(t, "uac-busy", transport, x.sipAddr(), user, 1).Wait(patience); err != nil {
					t.Error("a call more than the trunk has lines:", err)
				}
				told := x.notified(1)
				for n := 2; n <= 11; n++ {
					muted := n%2 == 0
					if _, err := x.api.UpdateMember(t.Context(), x.conference, x.member, api.MemberPatch{Muted: &muted}); err != nil {
						t.Fatal(err)
					}
					at := x.notified(n)
					// From when it is due to the wire is a moment, longer for the one before maybe.
					if gap := at.Sub(told); gap < confinfo.MinInterval-time.Second/2 {
						t.Errorf("document %d came %v after the one before", n, gap)
					}
					told = at
				}
				x.endsWith(caller)
			})
		}
	})
	t.Run("outside", func(t *testing.T) {
		t.Parallel()
		phone := startSIPp(t, "uas-video", "udp")
		d := callableDaemon(t, "udp", "", phone)
		d.ready()
		x, user := callable(d, bridge.JoinOpen)
		x.watch()
		caller := callWithSIPp(t, "uac-outside", "udp", x.sipAddr(), user, 1)
		x.member = x.numbered(sippNumber)
		x.await(x.conference, x.numbered(referredNumbers[0]), "the conference", in)
		x.said("a key by INFO") // it has seen the document
		x.endsWith(caller)
		phone.finish()
	})
}

// patientMedia keeps a phone in that sends nothing for a minute.
const patientMedia = "media: {port_min: 0, port_max: 0, realtime: false, timeout: 2m}"

// notified waits for the nth NOTIFY within the call to be answered, and says when it was
// sent.
func (x *dialled) notified(n int) (at time.Time) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("NOTIFY %d", n), func() error {
		legs, err := x.api.Legs(x.t.Context(), x.conference, x.member)
		if err != nil || len(legs) == 0 {
			return errors.Join(errNoRow, err)
		}
		sent := 0
		for _, e := range legs[0].Timeline {
			if e.What == "sip_sent" && strings.Contains(e.Text, "NOTIFY") {
				sent++
				at = e.At
			}
		}
		if sent < n {
			return fmt.Errorf("%d of them", sent)
		}
		return nil
	})
	return at
}

// endsWith deletes the conference, and wants the caller's SIPp to be content with how
// that was told.
func (x *dialled) endsWith(caller *sippPhone) {
	x.t.Helper()
	if err := x.api.DeleteConference(x.t.Context(), x.conference); err != nil {
		x.t.Fatal(err)
	}
	if err := caller.Wait(patience); err != nil {
		x.t.Error(err)
	}
	x.isGone()
	id := fmt.Sprintf("1-%d@127.0.0.1", caller.PID())
	flow{outcome: bridge.HungUp, legs: hungUpHere}.bills(x.t, x.record(func(r cdr.Record) bool { return r.CallID == id }),
		cdr.Record{Conference: x.conference, Member: x.member, Direction: "inbound", CallID: id})
}

func (f flow) calls(t *testing.T, d *daemon, transport string) {
	if f.raw {
		needRawSocket(t)
	}
	x, user := callableAs(d, cmp.Or(f.kind, bridge.VideoConference), cmp.Or(f.join, bridge.JoinOpen))
	x.watch()
	if f.before != nil {
		f.before(x)
	}
	caller := callWithSIPp(t, f.scenario, transport, x.sipAddr(), cmp.Or(f.dials, user), 1)
	for _, s := range f.steps {
		s(x)
	}
	if err := caller.Wait(cmp.Or(f.lasts, patience)); err != nil {
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
	return callableTrunk(t, transport, "", config, phones...)
}

// callableTrunk is the same with more keys of its attachment, a line each.
func callableTrunk(t *testing.T, transport, more, config string, phones ...*sippPhone) *daemon {
	t.Helper()
	d := startDaemon(t, trunkTo(transport, strings.TrimSpace(shortSession+"\noffer_g711: true\n"+more), phones...)+config+"\n"+inboundKeys+"\n")
	d.numbers = append(append(d.numbers, sippNumber), referredNumbers...)
	return d
}

// callable is a conference that can be called; user is that of its URI.
func callable(d *daemon, join bridge.JoinPolicy) (x *dialled, user string) {
	d.t.Helper()
	return callableAs(d, bridge.VideoConference, join)
}

func callableAs(d *daemon, kind bridge.ConferenceType, join bridge.JoinPolicy) (x *dialled, user string) {
	d.t.Helper()
	x = &dialled{daemon: d, conference: d.conference(kind)}
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
	if err != nil || slices.ContainsFunc(all, func(m bridge.Member) bool { return m.Number == sippNumber }) {
		x.t.Errorf("members %+v, %v: nobody was let in", all, err)
	}
	x.seen.mu.Lock()
	if len(x.seen.legs) > 0 {
		x.t.Errorf("the events say %q of who is nobody", x.seen.legs)
	}
	x.seen.mu.Unlock()
	if f.outcome == "" {
		return
	}
	r := x.record(func(r cdr.Record) bool { return r.CallID == callID })
	f.bills(x.t, r, cdr.Record{Conference: r.Conference, Direction: "inbound", CallID: callID})
}
