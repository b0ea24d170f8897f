package reginfo

import (
	"errors"
	"slices"
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
	const aor = "sip:+15550100@ims.example"
	c, ok := d.Find(is("sip:u@192.0.2.1:5060;transport=tcp"), is(aor))
	if !ok || c.Event != "shortened" || c.Expires != 10*time.Minute {
		t.Errorf("ours: %+v, %v", c, ok)
	}
	if c, ok = d.Find(is("sip:other@192.0.2.9"), is(aor)); !ok || c.RetryAfter != 30*time.Second {
		t.Errorf("other: %+v, %v", c, ok)
	}
	if c, ok = d.Find(is("nobody"), is("tel:+15550100")); !ok || c.State != "terminated" {
		t.Errorf("as a whole: %+v, %v", c, ok)
	}
	if _, ok = d.Find(is("nobody"), is("sip:+15550100@ims.example")); ok {
		t.Error("a registration with contacts does not speak for one that it does not list")
	}
}

// Of several addresses of record only ours count, and one that is active outweighs one that is
// not, in whatever order they stand.
func TestFind(t *testing.T) {
	entry := func(aor, state, event string, expires time.Duration) Registration {
		return Registration{AOR: aor, State: state, Contacts: []Contact{{URI: "us", State: state, Event: event, Expires: expires}}}
	}
	gone, active := entry("sip:us", "terminated", "rejected", 0), entry("tel:us", "active", "registered", time.Hour)
	short, foreign := entry("sip:us", "active", "shortened", time.Minute), entry("sip:them", "terminated", "deactivated", 0)
	ours := func(aor string) bool { return strings.HasSuffix(aor, ":us") }
	for _, tt := range []struct {
		name string
		in   []Registration
		want string // event; "" nothing
	}{
		{"one that lives", []Registration{gone, active}, "registered"},
		{"all gone", []Registration{gone, entry("tel:us", "terminated", "rejected", 0)}, "rejected"},
		{"the shortest", []Registration{active, short}, "shortened"},
		{"the shortest, whatever the others do not say", []Registration{entry("tel:us", "active", "registered", 0), short}, "shortened"},
		{"nothing of ours", []Registration{foreign}, ""},
		{"ours beside another's", []Registration{foreign, active}, "registered"},
		{"as a whole", []Registration{{AOR: "sip:us", State: "terminated"}, foreign}, "unregistered"},
		{"one as a whole", []Registration{{AOR: "sip:us", State: "terminated"}, active}, "registered"},
	} {
		for range 2 {
			c, ok := Document{Registrations: tt.in}.Find(func(uri string) bool { return uri == "us" }, ours)
			if c.Event != tt.want || ok != (tt.want != "") {
				t.Errorf("%s: %+v, %v", tt.name, c, ok)
			}
			slices.Reverse(tt.in)
		}
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
