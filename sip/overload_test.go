package sip

import (
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// What a peer says of its load, read from a response as it comes.
func TestSheddingOf(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		via  string
		loss int
		for_ time.Duration
		ok   bool
	}{
		{";branch=z9hG4bK1;oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=1282321615.781", 20, time.Second, true},
		{";branch=z9hG4bK1;oc-validity=1000;oc=20;oc-algo=\"loss\"", 20, time.Second, true},
		{";branch=z9hG4bK1;oc=20;oc-algo=loss", 20, 500 * time.Millisecond, true},
		{";branch=z9hG4bK1;oc=0;oc-algo=\"loss\"", 0, 500 * time.Millisecond, true},
		{";branch=z9hG4bK1;oc=100;oc-validity=999999999", 100, time.Hour, true},
		{";branch=z9hG4bK1;oc", 0, 0, false},
		{";branch=z9hG4bK1", 0, 0, false},
		{";branch=z9hG4bK1;oc=101", 0, 0, false},
		{";branch=z9hG4bK1;oc=-1", 0, 0, false},
		{";branch=z9hG4bK1;oc=5;oc-algo=\"rate\"", 0, 0, false},
		{";branch=z9hG4bK1;oc=5;oc-validity=x", 0, 0, false},
	} {
		text := "SIP/2.0 503 Service Unavailable\r\nVia: SIP/2.0/UDP 192.0.2.1" + tt.via + "\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n" +
			"Call-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
		m, err := sipgo.NewParser().ParseSIP([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", tt.via, err)
		}
		o, ok := sheddingOf(now, m.Via())
		if ok != tt.ok || ok && (o.loss != tt.loss || o.until.Sub(now) != tt.for_) {
			t.Errorf("%s: %d %% for %v, %v", tt.via, o.loss, o.until.Sub(now), ok)
		}
	}
}
