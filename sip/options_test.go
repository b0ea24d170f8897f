package sip

import (
	"strings"
	"testing"
)

// Validate names every fault with its key.
func TestValidate(t *testing.T) {
	good := AttachmentOptions{Name: "a", Mode: ModeUE, Domain: "ims.example", IMPI: "x@ims.example",
		IMPU: "sip:+15550100@ims.example", Auth: Auth{Password: "p"}, Targets: []string{"127.0.0.1:5060"}}
	if err := (Options{Attachments: []AttachmentOptions{good}}).Validate(); err != nil {
		t.Errorf("good options: %v", err)
	}
	for _, tt := range []struct {
		key  string
		edit func(*AttachmentOptions)
	}{
		{"name", func(o *AttachmentOptions) { o.Name = "" }},
		{"mode", func(o *AttachmentOptions) { o.Mode = "pbx" }},
		{"transport", func(o *AttachmentOptions) { o.Transport = "sctp" }},
		{"local_addr", func(o *AttachmentOptions) { o.LocalAddr = "0.0.0.0" }},
		{"local_addr", func(o *AttachmentOptions) { o.LocalAddr = "host" }},
		{"local_port", func(o *AttachmentOptions) { o.LocalPort = 70000 }},
		{"domain", func(o *AttachmentOptions) { o.Domain = "a b" }},
		{"targets", func(o *AttachmentOptions) { o.Targets = nil }},
		{"targets", func(o *AttachmentOptions) { o.Targets = []string{"ho st"} }},
		{"targets", func(o *AttachmentOptions) { o.Peers = []Target{{Host: "x", Transport: "sctp"}} }},
		{"targets", func(o *AttachmentOptions) { o.Peers = []Target{{Host: "x", Transport: "udp"}} }},
		{"tls", func(o *AttachmentOptions) { o.TLS.CertFile = "x" }},
		{"failover_on", func(o *AttachmentOptions) { o.FailoverOn = []int{486} }},
		{"dscp", func(o *AttachmentOptions) { o.DSCP = 64 }},
		{"targets", func(o *AttachmentOptions) { o.Targets = []string{"host:0"} }},
		{"impu", func(o *AttachmentOptions) { o.IMPU = "sip:x@y>\r\nX: z" }},
		{"impi", func(o *AttachmentOptions) { o.IMPI = "" }},
		{"auth", func(o *AttachmentOptions) { o.Auth = Auth{} }},
		{"auth", func(o *AttachmentOptions) { o.Auth = Auth{K: "00"} }},
		{"challenge", func(o *AttachmentOptions) { o.Challenge = Challenge{Username: "u", Password: "p"} }}, // of a ue
		{"challenge", func(o *AttachmentOptions) { o.Mode, o.Challenge = ModeTrunk, Challenge{Username: "u"} }},
		{"challenge", func(o *AttachmentOptions) { o.Mode, o.Challenge = ModeTrunk, Challenge{Password: "p"} }},
		{"preconditions", func(o *AttachmentOptions) { o.Preconditions = "always" }},
		{"security_agreement", func(o *AttachmentOptions) { o.SecurityAgreement = "ipsec" }},
		{"security_agreement", func(o *AttachmentOptions) { o.SecurityAgreement = AgreeTLS }},
		{"security_agreement", func(o *AttachmentOptions) { o.Mode, o.SecurityAgreement, o.Transport = ModeTrunk, AgreeTLS, "tls" }},
		{"clear", func(o *AttachmentOptions) { o.Clear = "udp" }},
		{"clear", func(o *AttachmentOptions) { o.SecurityAgreement, o.Transport, o.Clear = AgreeTLS, "tls", "tls" }},
		{"local_port", func(o *AttachmentOptions) {
			o.SecurityAgreement, o.Transport, o.Clear, o.LocalPort = AgreeTLS, "tls", "udp", 1
		}},
		{"targets", func(o *AttachmentOptions) {
			o.SecurityAgreement, o.Transport, o.Clear, o.Targets = AgreeTLS, "tls", "tcp", []string{"127.0.0.1:1"}
		}},
		{"number_form", func(o *AttachmentOptions) { o.NumberForm = "e164" }},
	} {
		o := good
		tt.edit(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), tt.key+":") {
			t.Errorf("%s: %v", tt.key, err)
		}
	}
	if err := (Options{Attachments: []AttachmentOptions{good, good}}).Validate(); err == nil {
		t.Error("two attachments may not have one name")
	}
	bad := AttachmentOptions{}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("all faults at once: %v", err)
	}
}

// A call that waits for its turn is hung up without a message.
func TestHangupWhileQueued(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p, func(o *AttachmentOptions) { o.CPS = 0.001 })
	_, first := place(t, ua)
	queued, ev := place(t, ua)
	queued.Hangup("cancelled", "")
	if e := next[Ended](ev); e.Why != "cancelled" || e.By != ByLocal {
		t.Errorf("ended %+v", e)
	}
	inv := p.expect("INVITE")
	inv.write(answer(inv, 486, "Busy Here", "a"))
	next[Ended](first)
	p.expect("ACK")
	if n := len(p.in); n != 0 {
		t.Errorf("%d more messages came", n)
	}
}
