package sip

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// parts is a multipart body; each part is "headers\n\nbody".
func parts(ps ...string) string {
	var b strings.Builder
	for _, p := range ps {
		h, body, _ := strings.Cut(p, "\n\n")
		b.WriteString("--xx\r\n" + strings.ReplaceAll(h, "\n", "\r\n") + "\r\n\r\n" + body + "\r\n")
	}
	return b.String() + "--xx--\r\n"
}

const (
	sdpPart  = "Content-Type: application/sdp\n\n" + offerSDP
	listPart = "Content-Type: application/resource-lists+xml\nContent-Disposition: recipient-list\n\n" +
		`<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists" xmlns:cp="urn:ietf:params:xml:ns:copycontrol"><list>` +
		`<entry uri="tel:+15550123" cp:copyControl="to"/><entry uri="sip:b@h" cp:copyControl="bcc"/></list></resource-lists>`
	multipart = "Content-Type: multipart/mixed;boundary=\"xx\""
)

// What an INVITE may carry (RFC 3261 8.2.3, RFC 5366): a list of whom the conference is to
// call reaches the owner beside the offer.
func TestBodies(t *testing.T) {
	list := []string{"tel:+15550123", "sip:b@h"}
	for _, tt := range []struct {
		name   string
		extra  []string
		status string
		offer  string
		list   []string
	}{
		{"description", []string{"\n" + offerSDP}, "603", offerSDP, nil},
		{"nothing", nil, "603", "", nil},
		{"list", []string{multipart, "Require: recipient-list-invite", "\n" + parts(sdpPart, listPart)}, "603", offerSDP, list},
		{"list alone", []string{"Content-Type: application/resource-lists+xml", "Content-Disposition: recipient-list", "\n" + strings.SplitN(listPart, "\n\n", 2)[1]},
			"603", "", list},
		{"what concerns others", []string{multipart, "\n" + parts("Content-Type: application/pidf+xml\n\n<x/>", sdpPart)}, "603", offerSDP, nil},
		{"what must be handled", []string{multipart, "\n" + parts("Content-Type: application/isup\nContent-Disposition: signal;handling=required\n\nx", sdpPart)}, "415", "", nil},
		{"broken list", []string{multipart, "\n" + parts(sdpPart, strings.Replace(listPart, "</list>", "", 1))}, "400", "", nil},
		{"broken multipart", []string{multipart, "\nno boundary"}, "400", "", nil},
		{"compressed", []string{"Content-Type: application/sdp", "Content-Encoding: gzip", "\nx"}, "415", "", nil},
		{"another type", []string{"Content-Type: text/plain", "\nx"}, "415", "", nil},
		{"another type that need not be", []string{"Content-Type: text/plain", "Content-Disposition: render;handling=optional", "\nx"}, "603", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t, "tcp")
			ua := newTrunk(t, p)
			k := take(t, ua)
			a := newAsker(t, p, ua, "sip:factory@carrier.example")
			if tt.status == "603" {
				go func() {
					in, call := k.next()
					var hidden []string
					if tt.list != nil {
						hidden = tt.list[1:]
					}
					if string(in.Offer) != tt.offer || !reflect.DeepEqual(in.Recipients, tt.list) || !reflect.DeepEqual(in.Hidden, hidden) {
						t.Errorf("offer %q, recipients %q, hidden %q", in.Offer, in.Recipients, in.Hidden)
					}
					call.Reject(603, 0)
				}()
			}
			res := a.ask("INVITE", append([]string{a.contact()}, tt.extra...)...)
			if res.status() != tt.status {
				t.Errorf("%s, want %s", res.start, tt.status)
			}
			if tt.status == "415" && res.get("Accept") == "" && res.get("Accept-Encoding") == "" {
				t.Errorf("415 says nothing: %q", res.order)
			}
		})
	}
}

// What is compressed is not read as if it were not (RFC 3261 8.2.3), whatever request it is in;
// a BYE ends the call all the same, and an encoding of nothing is none.
func TestEncodedBodies(t *testing.T) {
	p := newPeer(t, "tcp")
	ua := newTrunk(t, p)
	_, ev := place(t, ua)
	inv := connect(t, p, ev)
	sdp, digit := "Content-Type: application/sdp", "Content-Type: application/dtmf-relay"
	for i, tt := range []struct {
		method, status string
		extra          []string
	}{
		{"UPDATE", "415", []string{p.contact(), sdp, "Content-Encoding: gzip", "\nx"}},
		{"UPDATE", "415", []string{p.contact(), sdp, "e: gzip", "\nx"}},
		{"UPDATE", "200", []string{p.contact(), "Content-Encoding: gzip"}},
		{"PRACK", "415", []string{"RAck: 1 1 INVITE", sdp, "Content-Encoding: gzip", "\nx"}},
		{"PRACK", "481", []string{"RAck: 1 1 INVITE"}},
		{"INFO", "415", []string{digit, "Content-Encoding: gzip", "\nSignal=5\r\n"}},
		{"INFO", "200", []string{digit, "Content-Encoding: Identity", "\nSignal=5\r\n"}},
		{"INFO", "200", []string{digit, "\nSignal=5\r\n"}},
		{"BYE", "200", []string{"Content-Type: text/plain", "Content-Encoding: gzip", "\nx"}},
	} {
		inv.write(p.inDialog(inv, "a", tt.method, 10+i, tt.extra...))
		res := p.expect("SIP/2.0")
		if res.status() != tt.status || res.get("Cseq") != fmt.Sprint(10+i, " ", tt.method) {
			t.Errorf("%s %q: %s to %s, want %s", tt.method, tt.extra, res.start, res.get("Cseq"), tt.status)
		}
		if tt.status == "415" && res.get("Accept-Encoding") != "identity" {
			t.Errorf("%s: 415 says nothing: %q", tt.method, res.order)
		}
	}
}

// The same SUBSCRIBE by another way is not a second subscription (RFC 3261 8.2.2.2).
func TestMergedSubscribe(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p)
	onSubscribe(ua, func(sub Subscription) { sub.Accept(0); sub.Notify("x/y", nil) })
	a := newAsker(t, p, ua, "sip:c@carrier.example")
	if res := a.ask("SUBSCRIBE", a.contact(), "Event: conference"); res.status() != "200" {
		t.Fatal(res.start)
	}
	b := *a
	b.tag, b.seq = "", a.seq-1
	b.knocker = knock(t, "udp", ua.Attachments()[0].LocalAddr)
	b.send([]byte(fmt.Sprintf("SUBSCRIBE sip:c@carrier.example SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKother\r\nMax-Forwards: 70\r\n"+
		"From: \"Ann\" <sip:ann@home.example>;tag=peer\r\nTo: <sip:c@carrier.example>\r\nCall-ID: %s\r\nCSeq: 1 SUBSCRIBE\r\n%s\r\nEvent: conference\r\nContent-Length: 0\r\n\r\n",
		b.conn.LocalAddr(), b.call, b.contact())))
	if m := b.receive(); m.status() != "482" {
		t.Error(m.start)
	}
	a.notified("terminated;reason=timeout", 200)
}
