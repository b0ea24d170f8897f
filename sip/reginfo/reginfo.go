// Package reginfo reads application/reginfo+xml (RFC 3680 §5): what a registrar says of
// the state of our own registration. Pure, bounded, fuzzed.
package reginfo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Document is one reginfo document.
type Document struct {
	Version       uint64
	Full          bool // replaces everything known; otherwise only what changed is in it
	Registrations []Registration
}

// Registration is the state of one address of record.
type Registration struct {
	AOR      string
	State    string // init | active | terminated
	Contacts []Contact
}

// Contact is one binding.
type Contact struct {
	URI   string
	State string // active | terminated
	// Event is why: registered, created, refreshed, shortened, expired, deactivated,
	// probation, unregistered, rejected.
	Event      string
	Expires    time.Duration // zero: not said
	RetryAfter time.Duration // with probation
}

// MaxSize bounds a document in octets, maxElements its elements.
const (
	MaxSize     = 64 << 10
	maxElements = 2000
)

// ErrSyntax is wrapped by every error of Parse.
var ErrSyntax = errors.New("reginfo: malformed document")

type wire struct {
	XMLName       xml.Name `xml:"reginfo"`
	Version       *uint64  `xml:"version,attr"`
	State         string   `xml:"state,attr"`
	Registrations []struct {
		AOR      string `xml:"aor,attr"`
		State    string `xml:"state,attr"`
		Contacts []struct {
			State      string `xml:"state,attr"`
			Event      string `xml:"event,attr"`
			Expires    uint32 `xml:"expires,attr"`
			RetryAfter uint32 `xml:"retry-after,attr"`
			URI        string `xml:"uri"`
		} `xml:"contact"`
	} `xml:"registration"`
}

// Parse reads a document. Elements and attributes it does not know are passed over.
func Parse(body []byte) (Document, error) {
	if len(body) > MaxSize {
		return Document{}, fmt.Errorf("%w: %d octets", ErrSyntax, len(body))
	}
	if err := measure(body); err != nil {
		return Document{}, err
	}
	var w wire
	if err := xml.Unmarshal(body, &w); err != nil {
		return Document{}, fmt.Errorf("%w: %v", ErrSyntax, err)
	}
	if w.Version == nil {
		return Document{}, fmt.Errorf("%w: no version", ErrSyntax)
	}
	d := Document{Version: *w.Version, Full: strings.EqualFold(w.State, "full")}
	if !d.Full && !strings.EqualFold(w.State, "partial") {
		return Document{}, fmt.Errorf("%w: neither full nor partial", ErrSyntax)
	}
	for _, r := range w.Registrations {
		reg := Registration{AOR: strings.TrimSpace(r.AOR), State: strings.ToLower(r.State)}
		for _, c := range r.Contacts {
			reg.Contacts = append(reg.Contacts, Contact{URI: strings.TrimSpace(c.URI), State: strings.ToLower(c.State),
				Event: strings.ToLower(c.Event), Expires: time.Duration(c.Expires) * time.Second,
				RetryAfter: time.Duration(c.RetryAfter) * time.Second})
		}
		d.Registrations = append(d.Registrations, reg)
	}
	return d, nil
}

// measure refuses what would cost more than it may: too many elements, too deep, or a
// document type, which nobody needs here.
func measure(body []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(body))
	depth, elements := 0, 0
	for {
		t, err := dec.RawToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %v", ErrSyntax, err)
		}
		switch t.(type) {
		case xml.StartElement:
			depth++
			elements++
		case xml.EndElement:
			depth--
		case xml.Directive:
			return fmt.Errorf("%w: a document type", ErrSyntax)
		}
		if depth > 16 || elements > maxElements {
			return fmt.Errorf("%w: too large", ErrSyntax)
		}
	}
}

// Order keeps the version rule of RFC 3680 §5.1 for one subscription. The zero value has
// seen nothing.
type Order struct {
	seen bool
	last uint64
}

// Verdict is what the version of a document says.
type Verdict int

// The verdicts of Order.Take.
const (
	Use   Verdict = iota
	Stale         // older than what was seen, or the same: ignore it
	Gap           // something between was lost: ask for the full state; a full one may be used
)

// Take judges a document and remembers its version.
func (o *Order) Take(d Document) Verdict {
	was := *o
	switch {
	case was.seen && d.Version <= was.last:
		return Stale
	case !was.seen && !d.Full, was.seen && d.Version != was.last+1 && !d.Full:
		*o = Order{true, d.Version}
		return Gap
	}
	*o = Order{true, d.Version}
	return Use
}

// Find is what a document says of our contact, under addresses of record of ours: same
// decides whose a contact's URI is, ours whose an address of record. Of several, which are one
// registration (an implicit set, TS 24.229 §5.1.1.7), one that is active says that ours is, the
// shortest of them for how long. One that is terminated as a whole and lists no contact speaks for
// ours too.
func (d Document) Find(same func(contactURI string) bool, ours func(aor string) bool) (found Contact, ok bool) {
	take := func(c Contact) {
		switch {
		case !ok, found.State == "terminated" && c.State != "terminated":
		case c.State == "terminated", found.Expires > 0 && (c.Expires == 0 || c.Expires >= found.Expires):
			return
		}
		found, ok = c, true
	}
	for _, r := range d.Registrations {
		if !ours(r.AOR) {
			continue
		}
		for _, c := range r.Contacts {
			if same(c.URI) {
				take(c)
			}
		}
	}
	for _, r := range d.Registrations {
		if !ok && r.State == "terminated" && len(r.Contacts) == 0 && ours(r.AOR) {
			take(Contact{State: "terminated", Event: "unregistered"})
		}
	}
	return found, ok
}
