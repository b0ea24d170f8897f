package sip_test

import (
	"context"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sparkle/bridge/lab"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// The lab has a SIP stack of its own: what its handsets accept is a second opinion on
// what we send. One registration each way of proving, one call to every profile.
func TestAgainstTheLab(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) { callTheLab(t, transport) })
	}
}

const (
	labK   = "465b5ce8b199b49faa5f0a2ee238a6bc" // TS 35.208 set 1
	labOPc = "cd63cb71954a9f4e48a5994e37a02baf"
)

func callTheLab(t *testing.T, transport string) {
	core, err := lab.StartCore(lab.CoreOptions{T1: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(core.Close)
	impu := "sip:+15550100@" + core.Domain()
	if err := core.AddSubscriber("sparkle@"+core.Domain(), impu, lab.Auth{Algorithm: lab.AKAv1, K: unhex(labK), OPc: unhex(labOPc)}); err != nil {
		t.Fatal(err)
	}
	profiles := []struct {
		profile string
		status  int // 0: it answers
	}{
		{"volte-video", 0}, {"volte-voice", 0}, {"pstn", 0}, {"100rel+preconditions", 0},
		{"busy", 486}, {"declines", 603}, {"video-488", 488}, {"unreachable", 480},
	}
	for i, p := range profiles {
		profile, script, err := lab.ParseProfile(p.profile)
		if err != nil {
			t.Fatal(err)
		}
		script.Ring, script.Answer = 10*time.Millisecond, 20*time.Millisecond
		if _, err := core.AddHandset(lab.HandsetOptions{Number: number(i), Name: p.profile, Profile: profile, Script: &script, Transport: transport}); err != nil {
			t.Fatal(err)
		}
	}
	ua, err := sip.New(sip.Options{Attachments: []sip.AttachmentOptions{{
		Name: "lab", Mode: sip.ModeUE, Transport: transport, Domain: core.Domain(), IMPI: "sparkle@" + core.Domain(), IMPU: impu,
		Auth: sip.Auth{K: labK, OPc: labOPc}, Targets: []string{core.Addr().String()}, CPS: 200,
	}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close(context.Background()) })
	deadline := time.Now().Add(10 * time.Second)
	for !ua.Attachments()[0].Up {
		if time.Now().After(deadline) {
			t.Fatalf("not registered: %+v", ua.Attachments()[0])
		}
		<-time.After(5 * time.Millisecond)
	}
	offer := offerOf(t)
	for i, p := range profiles {
		t.Run(p.profile, func(t *testing.T) {
			events := make(chan sip.Event, 1024)
			call, err := ua.Invite(sip.Invite{Number: number(i), Video: true, OnEvent: func(e sip.Event) { events <- e },
				Offer: offer})
			if err != nil {
				t.Fatal(err)
			}
			var ladder []string
			connected := false
			timeout := time.After(15 * time.Second)
			for {
				select {
				case e := <-events:
					switch e := e.(type) {
					case sip.Message:
						ladder = append(ladder, e.Summary)
					case sip.Connected:
						connected = true
						call.Hangup("hung_up", `SIP;cause=200;text="done"`)
					case sip.Ended:
						if e.Status != p.status || e.Connected != (p.status == 0) || connected != e.Connected {
							t.Errorf("ended %+v\n%q\nthe core counts %v", e, ladder, core.Counters())
						}
						if p.profile == "100rel+preconditions" && !slices.Contains(ladder, "PRACK") {
							t.Errorf("no PRACK in %q", ladder)
						}
						return
					}
				case <-timeout:
					t.Fatalf("the call hangs: %q", ladder)
				}
			}
		})
	}
	if err := ua.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if core.Registered(impu) {
		t.Error("still registered after Close")
	}
}

func number(i int) string { return "+1555010000" + string(rune('0'+i)) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func offerOf(t *testing.T) []byte {
	return sdp.Offer(sdp.OfferOptions{Origin: sdp.NewOrigin(time.Unix(1e9, 0)), Addr: netip.MustParseAddr("127.0.0.1"),
		AudioPort: 40000, Video: true, VideoPort: 40002, G711: true})
}
