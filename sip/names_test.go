package sip

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// One name as target: SRV gives two peers with priorities, the second takes what the first
// turns away; the port in the record and not the default one is used.
func TestTargetByName(t *testing.T) {
	a, b := newPeer(t, "udp"), newPeer(t, "udp")
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := func(p *peer) string { _, port, _ := net.SplitHostPort(p.addr); return port }
	up, done := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: c, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, line := range []string{"_sip._udp.sbc.example. 60 IN SRV 10 1 " + port(a) + " one.example.", "_sip._udp.sbc.example. 60 IN SRV 20 1 " + port(b) + " one.example.",
			"one.example. 60 IN A 127.0.0.1"} {
			rr, err := dns.NewRR(line)
			if err != nil {
				panic(err)
			}
			if h := rr.Header(); h.Name == q.Question[0].Name && h.Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = server.Shutdown(); <-done })
	ua := newTrunk(t, a, func(o *AttachmentOptions) {
		o.Targets, o.Peers = nil, []Target{{Host: "sbc.example", Transport: "udp", CPS: 50}}
		o.DNS, o.OptionsInterval = []string{c.LocalAddr().String()}, -1
	})
	s := ua.Attachments()[0]
	if len(s.Targets) != 2 || s.Targets[0].Addr != "127.0.0.1:"+port(a) || s.Targets[0].Name != "sbc.example" || s.Targets[1].CPS != 50 {
		t.Fatalf("targets %+v", s.Targets)
	}
	_, ev := place(t, ua)
	inv := a.expect("INVITE")
	if ts := ua.Attachments()[0].Targets; ts[0].Calls != 1 || ts[1].Calls != 0 {
		t.Errorf("calls are counted at %+v", ts)
	}
	inv.write(answer(inv, 503, "Service Unavailable", "x"))
	a.expect("ACK")
	inv = b.expect("INVITE")
	if ts := ua.Attachments()[0].Targets; ts[0].Calls != 0 || ts[1].Calls != 1 {
		t.Errorf("after failover calls are counted at %+v", ts)
	}
	inv.write(answer(inv, 486, "Busy Here", "y"))
	b.expect("ACK")
	if e := next[Ended](ev); e.Status != 486 {
		t.Errorf("ended %+v", e)
	}
}
