package ims_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// handset is a phone of the lab that is a subscriber of the core.
func handset(t *testing.T, p lab.Profile, edit func(*lab.HandsetOptions, *lab.Script)) *lab.Handset {
	t.Helper()
	c := network(t)
	s, err := p.Script()
	if err != nil {
		t.Fatal(err)
	}
	s.Ring, s.Answer = 10*time.Millisecond, 20*time.Millisecond
	o := lab.HandsetOptions{Number: number(), Name: string(p), Profile: p, Script: &s}
	if edit != nil {
		edit(&o, &s)
	}
	h, err := c.AddHandset(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// offer is a video offer; nothing is sent to its ports: these calls are about signalling.
func offer() []byte {
	return sdp.Offer(sdp.OfferOptions{Origin: sdp.NewOrigin(time.Unix(1e9, 0)), Addr: netip.MustParseAddr("127.0.0.1"),
		AudioPort: 40000, Video: true, VideoPort: 40002, G711: true})
}

// placed is a call of ours through the core.
type placed struct {
	t      *testing.T
	call   sip.Call
	events chan sip.Event // cap: more than a call has
	ladder []string
}

func place(t *testing.T, ua *sip.UA, number string) *placed {
	t.Helper()
	p := &placed{t: t, events: make(chan sip.Event, 1024)}
	var err error
	p.call, err = ua.Invite(sip.Invite{Number: number, Video: true, Offer: offer(), OnEvent: func(e sip.Event) { p.events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until is the next event of a kind; others on the way are passed over.
func until[E sip.Event](p *placed) E {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-p.events:
			if m, ok := e.(sip.Message); ok {
				p.ladder = append(p.ladder, m.Summary)
			}
			if e, ok := e.(E); ok {
				return e
			}
			if e, ok := e.(sip.Ended); ok {
				p.t.Fatalf("ended %+v\n%q", e, p.ladder)
			}
		case <-timeout:
			p.t.Fatalf("waited in vain for %T\n%q", *new(E), p.ladder)
		}
	}
}

func (p *placed) hangUp() sip.Ended {
	p.t.Helper()
	p.call.Hangup("hung_up", `SIP;cause=200;text="done"`)
	e := until[sip.Ended](p)
	if !e.Connected || e.By != sip.ByLocal || e.Why != "hung_up" {
		p.t.Errorf("ended %+v", e)
	}
	return e
}

// header is the value of a header as the handset got it.
func header(c lab.Call, name string) string {
	for _, h := range c.Headers {
		if v, ok := strings.CutPrefix(h, name+": "); ok {
			return v
		}
	}
	return ""
}

// A telephone number of the home network, dialled as tel:, rings the phone that is
// registered for it. What the P-CSCF adds is there: who calls, and the charging id.
func TestCalls(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		for _, profile := range []lab.Profile{lab.VolteVideo, lab.VolteVoice, lab.Preconditions} {
			t.Run(transport+" "+string(profile), func(t *testing.T) {
				a := subscribe(t, akaAuth, transport)
				ua := a.registered(t)
				h := handset(t, profile, func(o *lab.HandsetOptions, _ *lab.Script) { o.Transport = transport })
				p := place(t, ua, h.Number())
				until[sip.Connected](p)
				c, err := h.WaitState(within(t), lab.Connected)
				if err != nil {
					t.Fatal(err)
				}
				if want := "<" + a.IMPUs[0] + ">"; header(c, "P-Asserted-Identity") != want {
					t.Errorf("P-Asserted-Identity %q, want %q", header(c, "P-Asserted-Identity"), want)
				}
				if pcv := header(c, "P-Charging-Vector"); !strings.Contains(pcv, "icid-value=") {
					t.Errorf("P-Charging-Vector %q", pcv)
				}
				if header(c, "P-Preferred-Identity") != "" {
					t.Error("P-Preferred-Identity has left the P-CSCF")
				}
				if profile == lab.Preconditions && (c.Pracks == 0 || !slices.Contains(p.ladder, "PRACK")) {
					t.Errorf("%d PRACKs: %q", c.Pracks, p.ladder)
				}
				p.hangUp()
				c, err = h.WaitState(within(t), lab.Ended)
				if err != nil || c.By != lab.ByCaller {
					t.Errorf("the phone's call ended by %q, %v", c.By, err)
				}
			})
		}
	}
}

func TestPhoneHangsUp(t *testing.T) {
	ua := subscribe(t, akaAuth, "tcp").registered(t)
	h := handset(t, lab.HangsUpAfter, func(_ *lab.HandsetOptions, s *lab.Script) { s.HangUp = 50 * time.Millisecond })
	p := place(t, ua, h.Number())
	until[sip.Connected](p)
	if e := until[sip.Ended](p); e.By != sip.ByRemote || !e.Connected || e.ReleaseCause != 1 {
		t.Errorf("ended %+v", e)
	}
}

// Refusals come through the core as the phone gave them, and those of the core itself.
func TestRefusals(t *testing.T) {
	ua := subscribe(t, akaAuth, "tcp").registered(t)
	for _, tt := range []struct {
		profile lab.Profile
		status  int
		q850    int
	}{
		{lab.Busy, 486, 17}, {lab.Declines, 603, 21}, {lab.Video488, 488, 0},
	} {
		t.Run(string(tt.profile), func(t *testing.T) {
			h := handset(t, tt.profile, nil)
			if e := until[sip.Ended](place(t, ua, h.Number())); e.Status != tt.status || e.Q850 != tt.q850 || e.Connected {
				t.Errorf("ended %+v", e)
			}
		})
	}
	t.Run("phone is off", func(t *testing.T) {
		h := handset(t, lab.VolteVideo, nil)
		if err := h.PowerOff(); err != nil {
			t.Fatal(err)
		}
		if e := until[sip.Ended](place(t, ua, h.Number())); e.Status != 480 {
			t.Errorf("ended %+v", e)
		}
	})
	t.Run("no such number", func(t *testing.T) {
		if e := until[sip.Ended](place(t, ua, number())); e.Status != 404 && e.Status != 604 {
			t.Errorf("ended %+v", e)
		}
	})
}

func TestCancels(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			ua := subscribe(t, akaAuth, transport).registered(t)
			h := handset(t, lab.NoAnswer, nil)
			p := place(t, ua, h.Number())
			until[sip.Ringing](p)
			p.call.Hangup("cancelled", `SIP;cause=487;text="cancelled"`)
			if e := until[sip.Ended](p); e.Status != 487 || e.Connected || !e.WasRinging || e.By != sip.ByLocal {
				t.Errorf("ended %+v", e)
			}
			c, err := h.WaitState(within(t), lab.Ended)
			if err != nil || c.By != lab.ByCancel {
				t.Errorf("the phone's call ended by %q, %v", c.By, err)
			}
		})
	}
}

// A phone that was called through one registration is called through the next one too:
// nothing of a call outlives it, neither here nor in the core.
func TestCallsInARow(t *testing.T) {
	ua := subscribe(t, md5Auth, "tcp").registered(t)
	h := handset(t, lab.VolteVideo, func(o *lab.HandsetOptions, _ *lab.Script) { o.Auth = &lab.Auth{Password: "geheim"} })
	for i := range 5 {
		p := place(t, ua, h.Number())
		until[sip.Connected](p)
		p.hangUp()
		if _, err := h.WaitState(within(t), lab.Ended); err != nil {
			t.Fatal(fmt.Errorf("call %d: %w", i, err))
		}
	}
	if n := ua.Attachments()[0].Calls; n != 0 {
		t.Errorf("%d calls live", n)
	}
}
