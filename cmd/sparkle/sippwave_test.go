package main

import (
	"fmt"
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
