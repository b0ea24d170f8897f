package reginfo

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const sample = `<?xml version="1.0"?>
<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="3" state="full">
 <registration aor="sip:+15550100@ims.example" id="a7" state="active">
  <contact id="76" state="active" event="shortened" expires="600" duration-registered="7322" q="0.8"><uri>sip:u@192.0.2.1:5060;transport=tcp</uri></contact>
  <contact id="77" state="terminated" event="probation" retry-after="30"><uri> sip:other@192.0.2.9 </uri></contact>
 </registration>
 <registration aor="tel:+15550100" id="a8" state="terminated"/>
 <x:extra xmlns:x="urn:x"/>
</reginfo>`

func TestParse(t *testing.T) {
	d, err := Parse([]byte(sample))
	if err != nil || d.Version != 3 || !d.Full || len(d.Registrations) != 2 || len(d.Registrations[0].Contacts) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	is := func(s string) func(string) bool { return func(u string) bool { return u == s } }
	c, ok := d.Find(is("sip:u@192.0.2.1:5060;transport=tcp"), is(""))
	if !ok || c.Event != "shortened" || c.Expires != 10*time.Minute {
		t.Errorf("ours: %+v, %v", c, ok)
	}
	if c, ok = d.Find(is("sip:other@192.0.2.9"), is("")); !ok || c.RetryAfter != 30*time.Second {
		t.Errorf("other: %+v, %v", c, ok)
	}
	if c, ok = d.Find(is("nobody"), is("tel:+15550100")); !ok || c.State != "terminated" {
		t.Errorf("as a whole: %+v, %v", c, ok)
	}
	if _, ok = d.Find(is("nobody"), is("sip:+15550100@ims.example")); ok {
		t.Error("a registration with contacts does not speak for one that it does not list")
	}
}

func TestMalformed(t *testing.T) {
	for _, s := range []string{"", "<reginfo/>", `<reginfo version="1"/>`, `<reginfo version="-1" state="full"/>`, `<a version="1" state="full"/>`,
		`<!DOCTYPE x [<!ENTITY a "b">]>` + sample[21:], strings.Repeat("<a>", 100), `<reginfo version="1" state="full">` + strings.Repeat("<a/>", 3000) + `</reginfo>`,
		strings.Repeat(" ", MaxSize+1)} {
		if _, err := Parse([]byte(s)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.40q: %v", s, err)
		}
	}
}

func TestOrder(t *testing.T) {
	var o Order
	for i, s := range []struct {
		version uint64
		full    bool
		want    Verdict
	}{{5, false, Gap}, {0, true, Stale}, {6, false, Use}, {6, false, Stale}, {8, false, Gap}, {9, true, Use}, {20, true, Use}, {21, false, Use}, {20, true, Stale}} {
		if got := o.Take(Document{Version: s.version, Full: s.full}); got != s.want {
			t.Errorf("document %d (version %d): %d, want %d", i, s.version, got, s.want)
		}
	}
	o = Order{}
	if o.Take(Document{Full: true}) != Use || o.Take(Document{Version: 1}) != Use {
		t.Error("version 0, then 1")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("<reginfo version='1' state='partial'><registration/></reginfo>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil && !errors.Is(err, ErrSyntax) {
			t.Errorf("error %v is not ErrSyntax", err)
		}
		d.Find(func(string) bool { return false }, func(string) bool { return true })
	})
}
