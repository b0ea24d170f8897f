package ims_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab/ims/hss"
	"sparkle/sip"
	"sparkle/sip/sdp"
)

// came is a call that came to one of our user agents through the core.
type came struct {
	placed
	in   sip.Incoming
	call sip.IncomingCall
}

// answering has a user agent hand out the calls that come in.
func answering(t *testing.T, ua *sip.UA) <-chan *came {
	t.Helper()
	calls := make(chan *came, 16) // more than a test has
	ua.OnIncoming(func(in sip.Incoming, call sip.IncomingCall) func(sip.Event) {
		c := &came{placed: placed{t: t, events: make(chan sip.Event, 1024)}, in: in, call: call}
		calls <- c
		return func(e sip.Event) { c.events <- e }
	})
	return calls
}

func next(t *testing.T, calls <-chan *came) *came {
	t.Helper()
	select {
	case c := <-calls:
		return c
	case <-within(t).Done():
		t.Fatal("no call comes in")
		return nil
	}
}

// accept answers with voice.
func (c *came) accept() {
	c.t.Helper()
	offer, err := sdp.Parse(c.in.Offer)
	if err != nil {
		c.t.Fatal(err)
	}
	answer, _, err := sdp.Answer(offer, sdp.AnswerOptions{Origin: sdp.NewOrigin(time.Unix(1e9, 0)), Addr: netip.MustParseAddr("127.0.0.1"), AudioPort: 40010})
	if err != nil {
		c.t.Fatal(err)
	}
	c.call.Accept(sip.Acceptance{SDP: answer})
}

// A number that is registered by us is called through the core, by tel: and to whom it
// belongs: the caller is who the P-CSCF says he is, and either side may end the call.
func TestIsCalled(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			from, to := subscribe(t, akaAuth, transport), subscribe(t, md5Auth, transport)
			caller, callee := from.registered(t), to.registered(t)
			calls := answering(t, callee)
			for _, byCallee := range []bool{true, false} {
				p := place(t, caller, to.number)
				c := next(t, calls)
				if c.in.Caller.URI != from.IMPUs[0] || c.in.Caller.Number != from.number || !c.in.Caller.Trusted || c.in.ICID == "" {
					t.Errorf("called by %+v, icid %q", c.in.Caller, c.in.ICID)
				}
				if c.in.To != "tel:"+to.number {
					t.Errorf("%q was dialled, want tel:%s", c.in.To, to.number)
				}
				c.call.Ring()
				until[sip.Ringing](p)
				c.accept()
				until[sip.Connected](p)
				until[sip.Connected](&c.placed)
				first, second := p, &c.placed
				if byCallee {
					first, second = second, first
					c.call.Hangup("hung_up", `SIP;cause=200;text="done"`)
				} else {
					p.call.Hangup("hung_up", `SIP;cause=200;text="done"`)
				}
				if e := until[sip.Ended](first); e.By != sip.ByLocal || !e.Connected {
					t.Errorf("who hung up: %+v", e)
				}
				if e := until[sip.Ended](second); e.By != sip.ByRemote || !e.Connected {
					t.Errorf("who was left: %+v", e)
				}
			}
		})
	}
}

func TestRefusesAndIsCancelled(t *testing.T) {
	from, to := subscribe(t, akaAuth, "tcp"), subscribe(t, akaAuth, "tcp")
	caller := from.registered(t)
	calls := answering(t, to.registered(t))
	p := place(t, caller, to.number)
	next(t, calls).call.Reject(486, 0)
	if e := until[sip.Ended](p); e.Status != 486 {
		t.Errorf("refused: %+v", e)
	}
	p = place(t, caller, to.number)
	c := next(t, calls)
	c.call.Ring()
	until[sip.Ringing](p)
	p.call.Hangup("cancelled", `SIP;cause=487;text="cancelled"`)
	if e := until[sip.Ended](p); e.Status != 487 {
		t.Errorf("cancelled: %+v", e)
	}
	if e := until[sip.Ended](&c.placed); e.By != sip.ByRemote || e.Connected {
		t.Errorf("cancelled call: %+v", e)
	}
}

// server is a user agent inside the core: S-CSCF and I-CSCF send it what their rules say.
func server(t *testing.T, transport string) (*sip.UA, string) {
	t.Helper()
	c := network(t)
	ua, err := sip.New(sip.Options{Attachments: []sip.AttachmentOptions{{
		Name: "isc", Mode: sip.ModeAS, Transport: transport, LocalAddr: "127.0.0.1", Domain: c.Domain(),
		IMPU: "sip:conference@" + c.Domain(), Targets: []string{c.SCSCF().String()}, CPS: 200,
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close(context.Background()) })
	awaitState(t, ua, "up")
	return ua, "sip:" + ua.Attachments()[0].LocalAddr + ";transport=" + transport
}

// A user's initial filter criterion brings his calls to an application server of ours, which
// answers them (TS 24.229 5.7.1): originating ones whoever is called, terminating ones in
// his place.
func TestServesOverISC(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			as, uri := server(t, transport)
			calls := answering(t, as)
			for _, tt := range []struct {
				name    string
				session hss.Session
			}{{"originating", hss.Originating}, {"terminating", hss.Terminating}} {
				t.Run(tt.name, func(t *testing.T) {
					from, to := subscribe(t, akaAuth, "tcp"), subscribe(t, akaAuth, "tcp")
					served := from
					if tt.session == hss.Terminating {
						served = to
					}
					served.Filters = []hss.Filter{{Server: uri, Method: "INVITE", Session: tt.session}}
					served.set(t)
					caller := from.registered(t)
					to.registered(t)
					p := place(t, caller, to.number)
					c := next(t, calls)
					if !strings.Contains(c.in.Target, to.number) || c.in.Caller.Number != from.number || !c.in.Caller.Trusted {
						t.Errorf("%+v", c.in)
					}
					c.call.Ring()
					until[sip.Ringing](p)
					c.accept()
					until[sip.Connected](p)
					until[sip.Connected](&c.placed)
					p.hangUp()
					if e := until[sip.Ended](&c.placed); e.By != sip.ByRemote {
						t.Errorf("ended %+v", e)
					}
				})
			}
		})
	}
}

// A public service identity needs no user: the I-CSCF knows whose it is.
func TestServesPublicServiceIdentity(t *testing.T) {
	as, uri := server(t, "tcp")
	calls := answering(t, as)
	service := number()
	core.HSS().SetService(hss.Service{Identity: "tel:" + service, Server: uri})
	from := subscribe(t, akaAuth, "tcp")
	p := place(t, from.registered(t), service)
	c := next(t, calls)
	c.call.Ring()
	until[sip.Ringing](p)
	c.accept()
	until[sip.Connected](p)
	until[sip.Connected](&c.placed)
	c.call.Hangup("hung_up", `SIP;cause=200;text="done"`)
	if e := until[sip.Ended](p); e.By != sip.ByRemote || !e.Connected {
		t.Errorf("ended %+v", e)
	}
}

// The application server calls a user in the name of another, or of nobody who is registered:
// the S-CSCF runs it as that user's originating call.
func TestCallsOnBehalf(t *testing.T) {
	c := network(t)
	from, to := subscribe(t, akaAuth, "tcp"), subscribe(t, akaAuth, "tcp")
	from.registered(t)
	calls := answering(t, to.registered(t))
	ua, err := sip.New(sip.Options{Attachments: []sip.AttachmentOptions{{
		Name: "isc", Mode: sip.ModeAS, LocalAddr: "127.0.0.1", Domain: c.Domain(), IMPU: from.IMPUs[0], RegState: "reg", OrigRoute: "user",
		Targets: []string{c.SCSCF().String()}, CPS: 200,
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close(context.Background()) })
	awaitState(t, ua, "up")
	p := place(t, ua, to.number)
	k := next(t, calls)
	if k.in.Caller.Number != from.number || !k.in.Caller.Trusted {
		t.Errorf("called by %+v, want %s", k.in.Caller, from.number)
	}
	k.accept()
	until[sip.Connected](p)
	p.hangUp()
}

// The S-CSCF tells an application server of a user's registration and of its end (TS 24.229
// 5.4.1.7), if his criteria say so.
func TestThirdPartyRegister(t *testing.T) {
	as, uri := server(t, "tcp")
	a := subscribe(t, akaAuth, "tcp")
	a.Filters = []hss.Filter{{Server: uri, Method: "REGISTER"}}
	a.set(t)
	present := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d users", want), func() error {
			if n := as.Attachments()[0].Presence; n != want {
				return fmt.Errorf("there are %d", n)
			}
			return nil
		})
	}
	ua := a.registered(t)
	present(1)
	if err := ua.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	present(0)
}

// An application server that does not answer a call itself continues it as another: the
// S-CSCF knows its mark again, byte for byte, and goes on with the user's next criterion.
func TestContinuesOverISC(t *testing.T) {
	as, uri := server(t, "tcp")
	calls := answering(t, as)
	from, to := subscribe(t, akaAuth, "tcp"), subscribe(t, akaAuth, "tcp")
	from.Filters = []hss.Filter{{Server: uri, Method: "INVITE", Session: hss.Originating}}
	from.set(t)
	caller := from.registered(t)
	ends := answering(t, to.registered(t))
	p := place(t, caller, to.number)
	c := next(t, calls)
	if !strings.Contains(c.in.ServedUser, from.number) || c.in.SesCase != "orig" || c.in.RegState != "reg" ||
		len(c.in.Routes) != 1 || !strings.Contains(c.in.Routes[0], "sip:iscmark@"+core.SCSCF().String()) {
		t.Errorf("served %q, %s, %s, routes %q", c.in.ServedUser, c.in.SesCase, c.in.RegState, c.in.Routes)
	}
	onward := &placed{t: t, events: make(chan sip.Event, 1024)}
	var err error
	onward.call, err = as.Invite(sip.Invite{Number: to.number, Video: true, Offer: offer(), Routes: c.in.Routes,
		OnEvent: func(e sip.Event) { onward.events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	next(t, ends).accept()
	until[sip.Connected](onward)
	c.accept()
	until[sip.Connected](p)
	p.hangUp()
	onward.hangUp()
}

// A filter has a user's calls go by way of an application server that they are not for: the core
// has them back and goes on, in the originating case and in the terminating one.
func TestPassesOnOverISC(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			as, uri := server(t, transport)
			as.SetOurs(func(attachment, target, to string) bool { return false })
			from, to := subscribe(t, akaAuth, "tcp"), subscribe(t, akaAuth, "tcp")
			from.Filters = []hss.Filter{{Server: uri, Method: "INVITE", Session: hss.Originating}}
			to.Filters = []hss.Filter{{Server: uri, Method: "INVITE", Session: hss.Terminating}}
			from.set(t)
			to.set(t)
			caller := from.registered(t)
			calls := answering(t, to.registered(t))

			p := place(t, caller, to.number)
			c := next(t, calls)
			if c.in.Caller.Number != from.number || !c.in.Caller.Trusted {
				t.Errorf("called by %+v", c.in.Caller)
			}
			c.call.Ring()
			until[sip.Ringing](p)
			c.accept()
			until[sip.Connected](p)
			until[sip.Connected](&c.placed)
			if n := as.Attachments()[0].Ingress.Passed; n != 2 {
				t.Errorf("%d requests passed on, want 2: once for who calls, once for who is called", n)
			}
			p.hangUp()
			if e := until[sip.Ended](&c.placed); e.By != sip.ByRemote {
				t.Errorf("ended %+v", e)
			}

			p = place(t, caller, to.number)
			c = next(t, calls)
			c.call.Ring()
			until[sip.Ringing](p)
			p.call.Hangup("cancelled", `SIP;cause=487;text="cancelled"`)
			if e := until[sip.Ended](p); e.Status != 487 {
				t.Errorf("cancelled: %+v", e)
			}
			if e := until[sip.Ended](&c.placed); e.By != sip.ByRemote || e.Connected {
				t.Errorf("cancelled call: %+v", e)
			}
			p = place(t, caller, to.number)
			next(t, calls).call.Reject(486, 0)
			if e := until[sip.Ended](p); e.Status != 486 {
				t.Errorf("refused: %+v", e)
			}
		})
	}
}
