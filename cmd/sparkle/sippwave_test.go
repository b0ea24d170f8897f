package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"sparkle/bridge"
	"sparkle/bridge/cdr"
)

// A hundred phones are called at once, all take it, and all are hung up at once.
func TestSIPpWave(t *testing.T) {
	t.Parallel()
	needSIPp(t)
	phones := startSIPp(t, "uas-voice", "tcp")
	d := startDaemon(t, trunkTo("tcp", "cps: 50", phones))
	d.ready()
	conference := d.conference(bridge.VideoConference)
	const n = 100
	var rows []bridge.MemberSpec
	for i := range n {
		rows = append(rows, bridge.MemberSpec{Number: fmt.Sprintf("+86138001%05d", i), Name: "SIPp"})
	}
	stream, err := d.api.Events(t.Context(), conference, "")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := d.api.AddMembers(t.Context(), conference, rows); err != nil {
		t.Fatal(err)
	}
	d.call(conference, bridge.CallRequest{Targets: "all"})
	all := func(what string, ok func(bridge.Member) bool) {
		t.Helper()
		eventually(t, what, func() error {
			members, err := d.api.Members(t.Context(), conference)
			if err != nil {
				return err
			}
			got := 0
			for _, m := range members {
				if ok(m) {
					got++
				}
			}
			if got != n {
				return fmt.Errorf("%d of %d", got, n)
			}
			return nil
		})
	}
	all("everybody in the conference", in)
	if err := d.api.HangupAll(t.Context(), conference); err != nil {
		t.Fatal(err)
	}
	all("everybody hung up", func(m bridge.Member) bool { return over(m) && m.LastOutcome.Outcome == bridge.HungUp })
	phones.finish()
	// Each leg's end is an event, each a record; the events come without a gap.
	ended := map[string]bool{}
	for seq := uint64(0); len(ended) < n; {
		e, err := stream.Next()
		if err != nil {
			t.Fatalf("%d legs ended, then %v", len(ended), err)
		}
		if seq != 0 && e.Seq != 0 && e.Seq != seq+1 {
			t.Errorf("event %d (%s) after %d", e.Seq, e.Type, seq)
		}
		if seq = max(seq, e.Seq); e.Type == "leg.ended" {
			ended[e.Leg] = true
		}
	}
	x := &dialled{daemon: d}
	f := flow{outcome: bridge.HungUp, legs: takesVoice}
	for leg := range ended {
		r := x.record(func(r cdr.Record) bool { return r.Leg == leg })
		f.bills(t, r, cdr.Record{Conference: conference, Member: r.Member, Direction: "outbound", CallID: r.CallID})
	}
}

// Twenty phones call a conference within a second, each of its own number, with PRACK and UPDATE,
// and hang up: what is heard of each, in its events, its outcome and its record, is of that one.
func TestSIPpWaveOfCallers(t *testing.T) {
	t.Parallel()
	needSIPp(t)
	f := callerFlows[slices.IndexFunc(callerFlows, func(f flow) bool { return f.scenario == "uac-bearer" })]
	for _, transport := range f.over() {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			f.wave(t, transport)
		})
	}
}

func (f flow) wave(t *testing.T, transport string) {
	const n = 20
	x, user := callable(callableDaemon(t, transport, ""), bridge.JoinOpen)
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("+861380013800%d", i+1)) // as SIPp numbers its calls
	}
	x.numbers = append(x.numbers, want...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stream, err := x.api.Events(ctx, x.conference, "")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := callWithSIPp(t, f.scenario, transport, x.sipAddr(), user, n).Wait(patience); err != nil {
		t.Fatal(err)
	}
	legs, rows := map[string][]string{}, map[string][]string{} // what is said of each
	for ended := 0; ended < n; {
		e, err := stream.Next()
		if err != nil {
			t.Fatalf("%d legs ended, then %v", ended, err)
		}
		switch e.Type {
		case "leg.ended":
			ended++
			fallthrough
		case "leg.updated":
			legs[e.Leg] = note(legs[e.Leg], legWords(e))
		case "member.updated":
			rows[e.Member] = note(rows[e.Member], memberWords(e))
		}
	}
	members, err := x.api.Members(t.Context(), x.conference)
	if err != nil {
		t.Fatal(err)
	}
	var called []string
	for _, m := range members {
		called = append(called, m.Number)
		if !over(m) || m.LastOutcome.Outcome != f.outcome {
			t.Errorf("%s is %s, %+v", m.Number, m.State, m.LastOutcome)
		}
		x.member = m.ID
		if err := inOrder(x.timeline(), f.timeline); err != nil {
			t.Error(err)
		}
		x.charged(f)
	}
	slices.Sort(called)
	slices.Sort(want)
	if !slices.Equal(called, want) {
		t.Errorf("%q called, want %q", called, want)
	}
	for leg, said := range legs {
		if !slices.Equal(said, f.legs) {
			t.Errorf("the events say of leg %s %q, want %q", leg, said, f.legs)
		}
	}
	for member, said := range rows {
		if full := memberStates(f.legs); len(said) < len(full)-1 || !slices.Equal(said, full[:len(said)]) { // the last may come behind the leg's
			t.Errorf("the events say of member %s %q, want %q", member, said, full)
		}
	}
	if len(legs) != n || len(rows) != n {
		t.Errorf("events of %d legs of %d members", len(legs), len(rows))
	}
}
