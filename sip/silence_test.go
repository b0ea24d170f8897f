package sip

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/register"
)

// The network grants ten minutes and then says nothing more. Calls go on being placed
// as long as the registration stands, and are refused from its expiry on, whatever the
// refresh is doing at that moment; when the network is back, so are we. No socket: this
// is an hour of waiting.
func TestRegistrarFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var silent atomic.Bool
		send := func(ctx context.Context, req *sipgo.Request) (*sipgo.Response, error) {
			if silent.Load() {
				select {
				case <-time.After(32 * time.Second): // 64·T1
					return nil, sipgo.ErrTransactionTimeout
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			res := sipgo.NewResponseFromRequest(req, 200, "OK", nil)
			if req.GetHeader("Expires") == nil || req.GetHeader("Expires").Value() != "0" {
				res.AppendHeader(sipgo.NewHeader("Contact", req.GetHeader("Contact").Value()+";expires=600"))
			}
			return res, nil
		}
		reg, err := register.New(register.Options{Domain: realm, IMPI: impi, IMPU: "sip:+15550100@ims.example",
			Contact: "sip:u@127.0.0.1:5060;transport=tcp", Targets: []string{"127.0.0.1:5060"}, Password: secret}, send, nil)
		if err != nil {
			t.Fatal(err)
		}
		ua := &UA{log: slog.New(slog.DiscardHandler)}
		a := bareAttachment(ua, AttachmentOptions{Name: "ue", Mode: ModeUE, Transport: "udp", MaxCalls: 1})
		a.reg, a.state = reg, AttachmentState{Name: "ue", State: "registering"}
		a.setTargets([]*target{{hop: "udp/127.0.0.1:5060"}})
		defer a.cancel()
		ua.atts = []*attachment{a}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); a.register(ctx) }()
		synctest.Wait()
		s := ua.Attachments()[0]
		if !s.Up || s.State != "registered" {
			t.Fatalf("attachment %+v", s)
		}
		silent.Store(true)
		expires := s.Expires
		<-time.After(time.Until(expires) - time.Second)
		if s = ua.Attachments()[0]; !s.Up || s.LastError == "" {
			t.Errorf("a second before its expiry: %+v", s)
		}
		if _, err := ua.pick("ue"); err != nil {
			t.Errorf("a call is refused though we are registered: %v", err)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if s = ua.Attachments()[0]; s.Up || s.State == "registered" || s.LastError == "" {
			t.Errorf("a second after its expiry: %+v", s)
		}
		for _, name := range []string{"", "ue"} {
			if _, err := ua.Invite(Invite{Attachment: name, Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
				t.Errorf("Invite on %q: %v, want ErrAttachmentDown", name, err)
			}
		}
		<-time.After(20 * time.Minute)
		silent.Store(false)
		<-time.After(31 * time.Minute) // the longest back-off
		synctest.Wait()
		if s = ua.Attachments()[0]; !s.Up {
			t.Errorf("the network is back: %+v", s)
		}
		cancel()
		<-done
		if s = ua.Attachments()[0]; s.Up || s.State != "unregistered" {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// The connection is cut between the challenge and the answer: a new one is opened at
// once, not after the half minute of back-off. Cut while registered, it is opened by
// the next call.
func TestConnectionCutMidRegistration(t *testing.T) {
	p := newPeer(t, "tcp")
	took := make(chan time.Duration, 1)
	var n atomic.Int32
	var cut time.Time
	p.registers(func(reg message) {
		switch n.Add(1) {
		case 1:
			reg.write(answer(reg, 401, "Unauthorized", "r", "WWW-Authenticate: "+challenge))
			return
		case 2:
			cut = time.Now()
			p.drop()
			return
		case 3:
			took <- time.Since(cut)
		}
		reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
	})
	ua := newUA(t, Options{Attachments: []AttachmentOptions{{Name: "ue", Mode: ModeUE, Transport: "tcp", LocalAddr: "127.0.0.1",
		Domain: realm, IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}, Targets: []string{p.addr}}},
		T1: 50 * time.Millisecond})
	if d := <-took; d > 5*time.Second {
		t.Errorf("the next REGISTER came after %v", d)
	}
	p.drop()
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	inv.write(answer(inv, 486, "Busy Here", "x"))
	p.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
	if err := ua.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
