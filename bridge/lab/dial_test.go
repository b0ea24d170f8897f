package lab

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A handset calls another one through the core, and each can do in the call what it can in
// one that came in.
func TestHandsetDials(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			ctx := testContext(t)
			c := startCore(t, CoreOptions{})
			ann := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Name: "Ann", Transport: transport})
			bob := addHandset(t, c, HandsetOptions{Number: "+8613800138002", Name: "Bob", Profile: VolteVoice})
			if err := c.AddService("sip:mmtel@conf-factory.example", bob.IMPU()); err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{bob.Number(), "sip:+8613800138002@" + c.Domain() + ";user=phone", "sip:mmtel@conf-factory.example"} {
				if err := ann.Dial(ctx, to); err != nil {
					t.Fatal(err)
				}
				mine, err := ann.WaitState(ctx, Connected)
				if err != nil {
					t.Fatal(err)
				}
				his, err := bob.WaitState(ctx, Connected)
				if err != nil {
					t.Fatal(err)
				}
				if !mine.Placed || mine.Status != 200 || mine.Agreed.Audio == nil || mine.Agreed.Audio.Codec != "AMR-WB" || mine.Video ||
					mine.CallID != his.CallID || his.Placed || !strings.Contains(his.From, ann.Number()) || !strings.Contains(his.To, strings.TrimPrefix(to, "+")) {
					t.Errorf("caller %+v\ncallee %+v", mine, his)
				}
				if err := ann.Hold(false); err != nil {
					t.Error("the caller holds:", err)
				}
				if err := ann.Resume(); err != nil {
					t.Error("the caller resumes:", err)
				}
				who, other := ann, bob
				if strings.HasPrefix(to, "+") {
					who, other = bob, ann
				}
				if err := who.HangUp(); err != nil {
					t.Error(err)
				}
				if end, err := other.WaitState(ctx, Ended); err != nil || end.By != ByCaller || !strings.Contains(end.Reason, "User ends call") {
					t.Errorf("%+v, %v", end, err)
				}
				if end, err := who.WaitState(ctx, Ended); err != nil || end.By != ByHandset {
					t.Errorf("%+v, %v", end, err)
				}
			}
		})
	}
}

// What is dialled may be busy, nobody's, or ring until the caller has had enough.
func TestHandsetDialsInVain(t *testing.T) {
	ctx := testContext(t)
	c := startCore(t, CoreOptions{})
	ann := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Name: "Ann"})
	rings := addHandset(t, c, HandsetOptions{Number: "+8613800138002", Name: "Bob", Profile: NoAnswer})
	addHandset(t, c, HandsetOptions{Number: "+8613800138003", Name: "Cyn", Profile: Busy})
	off := addHandset(t, c, HandsetOptions{Number: "+8613800138004", Name: "Dan", Profile: Unreachable})
	for to, want := range map[string]string{"+8613800138003": "486", "+8613800138009": "404", off.Number(): "480", "sip:": "dial"} {
		if err := ann.Dial(ctx, to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", to, err, want)
		}
	}
	if err := off.Dial(ctx, ann.Number()); err == nil || !strings.Contains(err.Error(), "not registered") {
		t.Errorf("a phone that is off dials: %v", err)
	}
	short, cancel := context.WithCancelCause(ctx)
	enough := errors.New("enough")
	go func() {
		_, _ = rings.WaitState(ctx, Ringing)
		cancel(enough)
	}()
	if err := ann.Dial(short, rings.Number()); !errors.Is(err, enough) {
		t.Error(err)
	}
	if end, err := rings.WaitState(ctx, Ended); err != nil || end.By != ByCancel {
		t.Errorf("%+v, %v", end, err)
	}
	if end, err := ann.WaitState(ctx, Ended); err != nil || end.Status != 487 {
		t.Errorf("%+v, %v", end, err)
	}
	go func() {
		_, _ = rings.WaitState(ctx, Ringing)
		_ = ann.HangUp()
	}()
	if err := ann.Dial(ctx, rings.Number()); err == nil || !strings.Contains(err.Error(), "487") {
		t.Error(err)
	}
}

// A phone offers what it can speak, with the keys at those clock rates.
func TestDialledOffer(t *testing.T) {
	ctx := testContext(t)
	c := startCore(t, CoreOptions{})
	gateway := addHandset(t, c, HandsetOptions{Number: "+8613800138001", Name: "Ann", Profile: PSTN})
	bob := addHandset(t, c, HandsetOptions{Number: "+8613800138002", Name: "Bob", Script: &Script{}})
	if err := gateway.Dial(ctx, bob.Number()); err != nil {
		t.Fatal(err)
	}
	call, err := bob.WaitState(ctx, Connected)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(call.Offer, "AMR") || strings.Contains(call.Offer, "event/16000") || !strings.Contains(call.Offer, "telephone-event/8000") ||
		strings.Contains(call.Offer, "m=video") || call.Agreed.Audio.Codec != "PCMA" {
		t.Errorf("agreed %s of\n%s", call.Agreed.Audio.Codec, call.Offer)
	}
}
