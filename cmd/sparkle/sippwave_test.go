package main

import (
	"fmt"
	"testing"

	"sparkle/bridge"
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
}
