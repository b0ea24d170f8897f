package ims_test

import (
	"context"
	"testing"
	"time"

	"sparkle/bridge/lab/ims/hss"
	"sparkle/sip"
)

// Each way of proving, over each transport: in through P-, I- and S-CSCF, and out again.
func TestRegisters(t *testing.T) {
	for _, algorithm := range []string{akaAuth, md5Auth} {
		for _, transport := range []string{"tcp", "udp"} {
			t.Run(algorithm+" "+transport, func(t *testing.T) {
				a := subscribe(t, algorithm, transport)
				ua := a.registered(t)
				s := ua.Attachments()[0]
				if s.Identity != a.IMPUs[0] || !core.HSS().Registered(a.IMPUs[0]) {
					t.Errorf("registered as %q, known to the HSS: %v", s.Identity, core.HSS().Registered(a.IMPUs[0]))
				}
				if left := time.Until(s.Expires); left < 50*time.Minute || left > time.Hour {
					t.Errorf("granted %v, want an hour as the network has it", left)
				}
				if err := ua.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				a.asked(t, "SAR of a user who leaves", 1, sar(5))
				if core.HSS().Registered(a.IMPUs[0]) {
					t.Error("still registered after Close")
				}
			})
		}
	}
}

// The registration is refreshed at half of what was granted.
func TestRefreshes(t *testing.T) {
	a := subscribe(t, md5Auth, "tcp")
	a.o.Expires = 4 * time.Second
	ua := a.registered(t)
	first := ua.Attachments()[0].Expires
	a.asked(t, "SAR of a refresh", 2, sar(2))
	if s := ua.Attachments()[0]; s.State != "registered" || !s.Expires.After(first) {
		t.Errorf("after two refreshes %+v, first until %v", s, first)
	}
}

func TestWrongKey(t *testing.T) {
	for _, algorithm := range []string{akaAuth, md5Auth} {
		t.Run(algorithm, func(t *testing.T) {
			a := subscribe(t, algorithm, "tcp")
			if algorithm == akaAuth {
				a.o.Auth.K = "00112233445566778899aabbccddeeff"
			} else {
				a.o.Auth.Password = "falsch"
			}
			ua := a.attach(t)
			s := awaitState(t, ua, "auth_failed")
			if s.Up || s.LastError == "" || core.HSS().Registered(a.IMPUs[0]) {
				t.Errorf("%+v, known to the HSS: %v", s, core.HSS().Registered(a.IMPUs[0]))
			}
		})
	}
}

// An identity that the home network does not know, and one that is not this user's.
func TestUnknownIdentity(t *testing.T) {
	a := subscribe(t, akaAuth, "tcp")
	for name, edit := range map[string]func(*account){
		"private": func(a *account) { a.o.IMPI = "nobody@" + core.Domain() },
		"public":  func(a *account) { a.o.IMPU = "sip:nobody@" + core.Domain() },
	} {
		t.Run(name, func(t *testing.T) {
			b := *a
			edit(&b)
			awaitState(t, b.attach(t), "rejected")
		})
	}
}

// The network has lost count of the SIM's sequence numbers: AUTS puts it right.
func TestResynchronises(t *testing.T) {
	a := subscribe(t, akaAuth, "tcp")
	a.o.Auth.SQNFile = t.TempDir() + "/sqn"
	ua := a.registered(t)
	if err := ua.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := core.HSS().SetSQN(a.IMPI, 0); err != nil {
		t.Fatal(err)
	}
	a.registered(t)
	a.asked(t, "MAR with AUTS", 1, func(r hss.Request) bool { return r.Name == "MAR" && r.Resync && r.Result == 2001 })
}

// The home network takes a registration away (RTR): the number is not reached any more.
func TestNetworkDeregisters(t *testing.T) {
	a := subscribe(t, akaAuth, "tcp")
	a.registered(t)
	caller := subscribe(t, akaAuth, "tcp").registered(t)
	if err := core.HSS().Deregister(within(t), a.IMPI); err != nil {
		t.Fatal(err)
	}
	if e := until[sip.Ended](place(t, caller, a.number)); e.Status != 480 {
		t.Errorf("ended %+v", e)
	}
}
