package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/phone"
)

// dialledInto is a network whose handsets speak with voices of their own and call a daemon
// that takes calls at its number and at a factory.
func dialledInto(t *testing.T, names ...string) (*daemon, []*lab.Handset) {
	t.Helper()
	n := startNetwork(t)
	factory, impu := "sip:mmtel@conf-factory."+n.core.Domain(), "sip:+15550100100@"+n.core.Domain()
	if err := n.core.AddService(factory, impu); err != nil {
		t.Fatal(err)
	}
	var roster []lab.HandsetOptions
	for i, name := range names {
		roster = append(roster, lab.HandsetOptions{Number: fmt.Sprintf("+1555010000%d", i+1), Name: name, Profile: lab.VolteVoice})
	}
	phones, err := n.core.AddRoster(roster, demo.Phones(roster, phone.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, n.ue()+noPictures+fmt.Sprintf("inbound: {dial_in: [\"+15550100100\"], factory_uris: [%q]}\n", factory))
	for _, p := range phones {
		d.numbers = append(d.numbers, p.Number())
	}
	d.ready()
	return d, phones
}

// dials is within the tests' patience.
func dials(t *testing.T, h *lab.Handset, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Dial(ctx, to); err != nil {
		t.Fatal(err)
	}
}

// hearEachOther waits until every phone has recognised the voices of all others, and has
// its own in nothing that it heard.
func hearEachOther(t *testing.T, phones []*lab.Handset) {
	t.Helper()
	began := time.Now()
	for _, h := range phones {
		p := h.Media().(*phone.Phone)
		eventually(t, h.Name()+" hearing the others", func() error {
			heard := p.Heard(began)
			for _, other := range phones {
				is := slices.ContainsFunc(heard, func(x phone.Heard) bool { return x.Who == other.Name() })
				switch {
				case other == h && is:
					t.Fatalf("%s hears himself: %+v", h.Name(), heard)
				case other != h && !is:
					return fmt.Errorf("heard %+v; %+v", heard, p.Stats())
				}
			}
			t.Logf("%s heard %+v", h.Name(), heard)
			return nil
		})
	}
}

func (d *daemon) rowOf(conference, number string) string {
	d.t.Helper()
	return (&dialled{daemon: d, conference: conference}).numbered(number)
}

// A phone calls the shared number, types the PIN of a conference and is in: who is there
// hears it, and it hears him. He was called himself and had to press 1.
func TestHandsetDialsIn(t *testing.T) {
	t.Parallel()
	d, phones := dialledInto(t, "Ann", "Bob")
	ann, bob := phones[0], phones[1]
	conf := d.conference(bridge.AudioConference)
	c, err := d.api.Conference(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	her := d.invite(conf, ann.Number(), ann.Name())
	yes := true
	d.call(conf, bridge.CallRequest{Targets: "all", AnswerConfirm: &yes})
	d.await(conf, her, "the answer", func(m bridge.Member) bool {
		return m.State == bridge.MemberRings && m.Leg != nil && m.Leg.AwaitingConfirm
	})
	// His ACK may still be on its way to her.
	eventually(t, "Ann's key", func() error { return ann.SendDTMF("1") })
	d.await(conf, her, "the conference", in)

	dials(t, bob, "+15550100100")
	if err := bob.SendDTMF(c.PIN); err != nil {
		t.Fatal(err)
	}
	his := d.rowOf(conf, bob.Number())
	d.await(conf, his, "the conference", in)
	hearEachOther(t, phones)
	if err := bob.HangUp(); err != nil {
		t.Fatal(err)
	}
	d.ended(conf, his, bridge.Left)
	if err := d.api.Hangup(t.Context(), conf, her); err != nil {
		t.Fatal(err)
	}
	d.ended(conf, her, bridge.HungUp)
}

// A phone calls the factory and is in a conference of its own; who is called into it and
// who dials in by its PIN are heard by all, and it ends with the last call.
func TestHandsetsMeetAtTheFactory(t *testing.T) {
	t.Parallel()
	d, phones := dialledInto(t, "Ann", "Bob", "Cyn")
	ann, bob, cyn := phones[0], phones[1], phones[2]
	domain := ann.IMPU()[len("sip:"+ann.Number()+"@"):]
	dials(t, ann, "sip:mmtel@conf-factory."+domain)
	x := &dialled{daemon: d}
	made(x)
	policy := bridge.JoinListed
	c, err := d.api.UpdateConference(t.Context(), x.conference, api.ConferencePatch{JoinPolicy: &policy})
	if err != nil {
		t.Fatal(err)
	}
	d.call(x.conference, bridge.CallRequest{Members: []string{d.invite(x.conference, bob.Number(), bob.Name())}})
	d.invite(x.conference, cyn.Number(), cyn.Name())
	dials(t, cyn, "+15550100100")
	if err := cyn.SendDTMF(c.PIN); err != nil {
		t.Fatal(err)
	}
	for _, h := range phones {
		d.await(x.conference, d.rowOf(x.conference, h.Number()), h.Name()+" in the conference", in)
	}
	hearEachOther(t, phones)
	for _, h := range phones {
		if err := h.HangUp(); err != nil {
			t.Error(err)
		}
	}
	x.isGone()
}
