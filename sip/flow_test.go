package sip

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newPCSCFs is a UA registered with the first of several P-CSCFs; their REGISTERs are answered
// 200, and come to registers besides.
func newPCSCFs(t *testing.T, edit func(*AttachmentOptions), ps ...*peer) (ua *UA, registers chan *peer) {
	t.Helper()
	registers = make(chan *peer, 64)
	o := AttachmentOptions{Name: "ue", Mode: ModeUE, Transport: ps[0].net, LocalAddr: "127.0.0.1", Domain: realm,
		IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}}
	for _, p := range ps {
		o.Targets = append(o.Targets, p.addr)
		if p.registrar.Load() == nil {
			p.registers(func(reg message) {
				registers <- p
				reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600", "Service-Route: <sip:orig@"+p.addr+";lr>"))
			})
		}
	}
	if edit != nil {
		edit(&o)
	}
	ua = newUA(t, Options{Attachments: []AttachmentOptions{o}, T1: 50 * time.Millisecond})
	select {
	case <-registers:
	default: // the peer has a registrar of its own
	}
	return ua, registers
}

func awaitPeer(t *testing.T, ch chan *peer, want *peer) {
	t.Helper()
	select {
	case p := <-ch:
		if p != want {
			t.Fatalf("REGISTER went to %s, want %s", p.addr, want.addr)
		}
	case <-time.After(patience):
		t.Fatalf("no REGISTER came to %s", want.addr)
	}
}

// callsBy wants the next call to go to p, by the route that p gave.
func callsBy(t *testing.T, ua *UA, p *peer) {
	t.Helper()
	_, ev := place(t, ua)
	inv := p.expect("INVITE")
	if r := inv.head["Route"]; len(r) != 2 || !strings.Contains(r[0], p.addr) || r[1] != "<sip:orig@"+p.addr+";lr>" {
		t.Errorf("Route %q, want those of %s", r, p.addr)
	}
	inv.write(answer(inv, 486, "Busy Here", "b"))
	p.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
}

// A P-CSCF that is gone is noticed at once, and the next one takes its place.
func TestLostPCSCFIsLeft(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua, registers := newPCSCFs(t, nil, a, b)
	a.die()
	awaitPeer(t, registers, b)
	callsBy(t, ua, b)
}

// One that has been restarted has forgotten us: it is told again.
func TestRestartedPCSCF(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	ua, registers := newPCSCFs(t, nil, a, b)
	a.drop()
	awaitPeer(t, registers, a)
	callsBy(t, ua, a)
}

// Nor is there somebody who says nothing to an INVITE; that it can be connected to means little.
func TestMutePCSCFIsLeft(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		a, b := newPeer(t, network), newPeer(t, network)
		ua, registers := newPCSCFs(t, nil, a, b)
		_, ev := place(t, ua)
		inv := a.expect("INVITE")
		awaitPeer(t, registers, b)
		callsBy(t, ua, b)
		inv.write(answer(inv, 486, "Busy Here", "b")) // late is not never
		next[Ended](ev)
	})
}

// A P-CSCF that has answered pings must go on doing so; one that never has is left alone. The
// pings are sent: what keeps a binding in a NAT alive is the point of them.
func TestPongs(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	a.pongs.Store(2)
	_, registers := newPCSCFs(t, func(o *AttachmentOptions) { o.KeepAlive = 30 * time.Millisecond }, a, b)
	awaitPeer(t, registers, b) // it has ponged no more
	if n := a.pings.Load(); n < 3 {
		t.Errorf("%d pings", n)
	}
	for b.pings.Load() < 4 {
		select {
		case p := <-registers:
			t.Fatalf("%s never ponged, and lost the registration", p.addr)
		case <-time.After(time.Millisecond):
		}
	}
}

// A refresh that fails leaves the registration, and so the calls, where they are.
func TestRefreshRefused(t *testing.T) {
	a, b := newPeer(t, "tcp"), newPeer(t, "tcp")
	refused := make(chan struct{}, 1)
	first := true
	a.registers(func(reg message) {
		if first {
			first = false
			reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600", "Service-Route: <sip:orig@"+a.addr+";lr>"))
			return
		}
		reg.write(answer(reg, 503, "Service Unavailable", "r", "Retry-After: 60"))
		refused <- struct{}{}
	})
	ua, _ := newPCSCFs(t, nil, a, b)
	changed := make(chan AttachmentState, 16)
	ua.OnAttachment(func(s AttachmentState) { changed <- s })
	ua.atts[0].reg.Refresh()
	<-refused
	if s := <-changed; s.State != "registered" || !strings.Contains(s.LastError, "503") || s.Reg.PCSCF != a.addr {
		t.Errorf("attachment %+v", s)
	}
	callsBy(t, ua, a)
}

// What a P-CSCF answers to an INVITE about its load holds for the calls after it.
func TestPCSCFIsOverloaded(t *testing.T) {
	a := newPeer(t, "tcp")
	ua, _ := newPCSCFs(t, nil, a)
	changed := make(chan AttachmentState, 16)
	ua.OnAttachment(func(s AttachmentState) { changed <- s })
	_, ev := place(t, ua)
	inv := a.expect("INVITE")
	inv.write(answer(inv, 503, "Service Unavailable", "x", "Retry-After: 1"))
	a.expect("ACK")
	next[Ended](ev)
	if s := <-changed; s.State != "suspended" || s.Targets != nil && s.Targets[0].State != "suspended" {
		t.Errorf("attachment %+v", s)
	}
	if _, err := ua.Invite(Invite{Number: "+15550123"}); !errors.Is(err, ErrAttachmentDown) {
		t.Errorf("Invite: %v, want ErrAttachmentDown", err)
	}
	if s := <-changed; s.State != "registered" || s.LastError != "" {
		t.Errorf("attachment %+v", s)
	}
	_, ev = place(t, ua)
	inv = a.expect("INVITE")
	res := answer(inv, 486, "Busy Here", "x")
	via := inv.get("Via")
	inv.write(strings.Replace(res, via, via+`;oc=100;oc-validity=60000`, 1))
	a.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
	_, ev = place(t, ua)
	if e := next[Ended](ev); e.Why != "overload" {
		t.Errorf("ended %+v", e)
	}
}

// Who has mended something does not wait until we try again by ourselves.
func TestRegisterAgain(t *testing.T) {
	p := newPeer(t, "tcp")
	var n atomic.Int32
	p.registers(func(reg message) {
		if n.Add(1) == 1 {
			reg.write(answer(reg, 403, "Forbidden", "r"))
			return
		}
		reg.write(answer(reg, 200, "OK", "r", "Contact: "+reg.get("Contact")+";expires=600"))
	})
	ua, err := New(Options{Attachments: []AttachmentOptions{{Name: "ue", Mode: ModeUE, LocalAddr: "127.0.0.1", Domain: realm,
		IMPI: impi, IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: secret}, Targets: []string{p.addr}},
		{Name: "t", Mode: ModeTrunk, LocalAddr: "127.0.0.1", Domain: realm, Targets: []string{p.addr}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ua.Close(context.Background())
	reach := func(state string) {
		t.Helper()
		for deadline := time.Now().Add(patience); ua.Attachments()[0].State != state; <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("attachment %+v, want %s", ua.Attachments()[0], state)
			}
		}
	}
	reach("rejected")
	for name, want := range map[string]error{"t": ErrNotRegistering, "nobody": ErrUnknownAttachment, "ue": nil} {
		if err := ua.Register(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	reach("registered")
}
