package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// faults wants so many to have been counted, and that nothing is left of the calls.
func faults(t *testing.T, ua *UA, n uint64) {
	t.Helper()
	a := ua.Attachments()[0]
	if a.Ingress.Faults != n || a.Calls != 0 {
		t.Errorf("%d faults and %d calls, want %d and none", a.Ingress.Faults, a.Calls, n)
	}
}

// A panic in what the owner does ends one transaction or one call, never the process: the peer
// is told, nothing is left, and the next one works.
func TestFaultsOfTheOwner(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		t.Run("incoming", func(t *testing.T) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			c := newCaller(t, p, ua)
			ua.OnIncoming(func(Incoming, IncomingCall) func(Event) { panic("test") })
			c.request("INVITE", "one", 1, "")
			c.expect("100")
			res := c.expect("500")
			faults(t, ua, 1)
			c.request("ACK", "one", 1, tagIn(res))
			k := take(t, ua)
			c.request("INVITE", "two", 2, "", "\n"+offerSDP)
			c.expect("100")
			_, call := k.next()
			call.Accept(Acceptance{SDP: []byte(answerSDP)})
			res = c.expect("200")
			c.request("ACK", "ack", 2, tagIn(res))
			next[Connected](k.events)
			c.request("BYE", "bye", 3, tagIn(res))
			c.expect("200")
			next[Ended](k.events)
			faults(t, ua, 1)
		})
		t.Run("in a call that came in", func(t *testing.T) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			c := newCaller(t, p, ua)
			calls := make(chan IncomingCall, 1)
			ua.OnIncoming(func(_ Incoming, call IncomingCall) func(Event) {
				calls <- call
				return func(e Event) {
					if _, ok := e.(Connected); ok {
						panic("test")
					}
				}
			})
			c.request("INVITE", "one", 1, "", "\n"+offerSDP)
			c.expect("100")
			call := got(t, calls)
			call.Accept(Acceptance{SDP: []byte(answerSDP)})
			res := c.expect("200")
			c.request("ACK", "ack", 1, tagIn(res))
			bye := c.expect("BYE") // nobody is left connected to nobody
			if !strings.Contains(bye.get("Reason"), "cause=500") {
				t.Errorf("%q", bye.order)
			}
			bye.write(answer(bye, 200, "OK", ""))
			faults(t, ua, 1)
		})
		t.Run("in a call of ours that rings", func(t *testing.T) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			ended := make(chan Ended, 2)
			_, err := ua.Invite(Invite{Number: "+15550123", Offer: []byte(offerSDP), OnEvent: func(e Event) {
				switch e := e.(type) {
				case Ringing:
					panic("test")
				case Ended:
					ended <- e
					panic("and again")
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			inv := p.expect("INVITE")
			inv.write(answer(inv, 180, "Ringing", "a", p.contact()))
			cancel := p.expect("CANCEL")
			if e := got(t, ended); e.Why != "internal" || e.By != ByNetwork {
				t.Errorf("ended %+v", e)
			}
			cancel.write(answer(cancel, 200, "OK", "a"))
			inv.write(answer(inv, 200, "OK", "a", p.contact(), "\n"+answerSDP)) // it crossed the CANCEL
			p.expect("ACK")
			bye := p.expect("BYE")
			bye.write(answer(bye, 200, "OK", ""))
			faults(t, ua, 2)
			if len(ended) != 0 {
				t.Error("Ended came twice")
			}
		})
		t.Run("REFER in a call", func(t *testing.T) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			c := newCaller(t, p, ua)
			k := take(t, ua)
			ua.OnRefer(func(Refer, Referral) { panic("test") })
			_, tag := c.connect(k)
			c.request("REFER", "refer", 2, tag, c.contact(), "Refer-To: <sip:+15550199@carrier.example>")
			c.expect("500")
			c.request("INFO", "info", 3, tag, "Content-Type: application/dtmf-relay", "\nSignal=7\r\n")
			c.expect("200")
			if e := next[Info](k.events); e.Digit != '7' {
				t.Errorf("%c", e.Digit)
			}
			ua.OnRefer(func(_ Refer, ref Referral) { ref.Reject(403) })
			c.request("REFER", "refer2", 4, tag, c.contact(), "Refer-To: <sip:+15550199@carrier.example>")
			c.expect("403")
			c.request("BYE", "bye", 5, tag)
			c.expect("200")
			next[Ended](k.events)
			faults(t, ua, 1)
		})
		t.Run("REFER and SUBSCRIBE outside", func(t *testing.T) {
			p := newPeer(t, network)
			ua := newTrunk(t, p)
			ua.OnRefer(func(Refer, Referral) { panic("test") })
			onSubscribe(ua, func(Subscription) { panic("test") })
			a := newAsker(t, p, ua, "sip:c@carrier.example")
			for method, header := range map[string]string{"REFER": "Refer-To: <sip:+15550123@carrier.example>", "SUBSCRIBE": "Event: conference"} {
				if res := a.ask(method, a.contact(), header); res.status() != "500" {
					t.Errorf("%s: %s", method, res.start)
				}
			}
			ua.OnRefer(func(_ Refer, ref Referral) { ref.Reject(403) })
			onSubscribe(ua, func(s Subscription) { s.Reject(403) })
			for method, header := range map[string]string{"REFER": "Refer-To: <sip:+15550123@carrier.example>", "SUBSCRIBE": "Event: conference"} {
				if res := a.ask(method, a.contact(), header); res.status() != "403" {
					t.Errorf("%s: %s", method, res.start)
				}
			}
			faults(t, ua, 2)
		})
	})
}

// While INVITEs are refused by the thousand, calls that there are go on: every request in them
// is answered, and the PRACK, ACK, UPDATE and BYE of one that came in just before count.
func TestCallsGoOnInAFlood(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, func(o *AttachmentOptions) { o.InviteRate, o.PeerRate = 2, 1e6 })
		c := newCaller(t, p, ua)
		k := take(t, ua)
		c.request("INVITE", "one", 1, "", "Supported: 100rel", "Allow: INVITE, UPDATE, PRACK", "\n"+offerSDP)
		c.expect("100")
		_, call := k.next()
		ua.OnIncoming(func(_ Incoming, call IncomingCall) func(Event) { call.Reject(486, 0); return func(Event) {} })

		ended := make(chan Ended, 1)
		flood := knock(t, network, c.ua)
		inFlight := make(chan struct{}, 32)
		shed, stop, stopped := make(chan struct{}, 1<<16), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select { // as many at once as the socket's buffer takes
				case inFlight <- struct{}{}:
				case <-time.After(20 * time.Millisecond): // some had no answer
				case <-stop:
					return
				}
				if _, err := fmt.Fprintf(flood.conn, "INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bKflood%d\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=%d\r\nTo: <sip:x@y>\r\n"+
					"Call-ID: flood%d\r\nCSeq: 1 INVITE\r\n%s\r\nContent-Length: 0\r\n\r\n", strings.ToUpper(network), flood.conn.LocalAddr(), i, i, i, p.contact()); err != nil {
					return
				}
			}
		}()
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, err := flood.conn.Read(buf)
				if err != nil {
					return
				}
				for range strings.Count(string(buf[:n]), "SIP/2.0 503 ") {
					select {
					case shed <- struct{}{}:
					default:
					}
					select {
					case <-inFlight:
					default:
					}
				}
			}
		}()
		t.Cleanup(func() { close(stop); <-stopped })
		pressure := func() { // a hundred more have been sent away
			t.Helper()
			for len(shed) > 0 {
				<-shed
			}
			for range 100 {
				select {
				case <-shed:
				case <-time.After(patience):
					t.Fatal("the flood is not refused")
				}
			}
		}

		// heard waits for a response to a method; on UDP, where the flood crowds it out, what was
		// asked is asked again, as transactions do.
		heard := func(method, status string, ask func()) message {
			t.Helper()
			ask()
			again := time.NewTicker(200 * time.Millisecond)
			defer again.Stop()
			timeout := time.After(patience)
			for {
				select {
				case m := <-p.in:
					if strings.HasSuffix(m.get("Cseq"), " "+method) && m.status() == status {
						return m
					}
				case <-again.C:
					if network == "udp" {
						ask()
					}
				case <-timeout:
					t.Fatalf("no %s to %s came", status, method)
				}
			}
		}
		nothing := func() {}

		pressure()
		call.Ring()
		ringing := heard("INVITE", "180", nothing)
		tag := tagIn(ringing)
		pressure()
		heard("PRACK", "200", func() { c.request("PRACK", "prack", 2, tag, "RAck: "+ringing.get("Rseq")+" 1 INVITE") })
		call.Accept(Acceptance{SDP: []byte(answerSDP)})
		pressure()
		heard("INVITE", "200", nothing)
		connected := false
		for i := 0; !connected && i < 50; i++ {
			c.request("ACK", fmt.Sprint("ack", i), 1, tag)
			select {
			case e := <-k.ch:
				_, connected = e.(Connected)
			case <-time.After(200 * time.Millisecond):
			}
		}
		if !connected {
			t.Fatal("no ACK was heard")
		}
		pressure()
		go func() {
			for e := range k.ch {
				switch e := e.(type) {
				case Offer:
					call.Reply(e.ID, []byte(answerSDP), 200)
				case Ended:
					ended <- e
					return
				}
			}
		}()
		heard("UPDATE", "200", func() { c.request("UPDATE", "update", 3, tag, "\n"+offerSDP) })
		pressure()
		heard("BYE", "200", func() { c.request("BYE", "bye", 4, tag) })
		if e := got(t, ended); e.By != ByRemote || !e.Connected {
			t.Errorf("ended %+v", e)
		}
		if n := ua.Attachments()[0].Ingress.Shed; n < 500 {
			t.Errorf("%d INVITEs were sent away", n)
		}
	})
}
