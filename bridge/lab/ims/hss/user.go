package hss

import (
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// User is a subscription: one private identity and what it may be called by.
type User struct {
	IMPI  string   // the digest's user name
	IMPUs []string // sip: and tel: URIs that register together, the default one first

	// Digest MD5 with a password, or AKAv1-MD5 with a SIM's secrets.
	Password string
	K, OPc   []byte // 16 bytes each
	AMF      []byte // 2 bytes; nil is 80 00
	SQN      uint64 // before the first challenge

	Filters []Filter // in order of priority
}

// Filter is an initial filter criterion (TS 29.228 annex B): which requests of the user go
// to which application server. Empty fields match everything.
type Filter struct {
	Server  string // of the application server, a sip: URI
	Method  string // INVITE, REGISTER (the third-party REGISTER) ...
	Session Session
}

// Session is the case of TS 29.228 §B.2.3 that a Filter is for.
type Session int

// Cases.
const (
	Any         Session = iota
	Originating         // from the user
	Terminating         // to the user, registered
	Unregistered
)

// Service is a public service identity that the I-CSCF sends straight to its server (TS
// 23.228 §5.4.12).
type Service struct {
	Identity string // sip: or tel: URI
	Server   string // sip: URI
}

// Validate reports every fault.
func (u User) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u.IMPI == "" {
		bad("no private identity")
	}
	if len(u.IMPUs) == 0 {
		bad("no public identity")
	}
	for _, i := range u.IMPUs {
		if !strings.HasPrefix(i, "sip:") && !strings.HasPrefix(i, "tel:") {
			bad("public identity %q is neither sip: nor tel:", i)
		}
	}
	switch {
	case u.K == nil && u.Password == "":
		bad("neither password nor K")
	case u.K != nil && (len(u.K) != 16 || len(u.OPc) != 16):
		bad("K and OPc are 16 bytes each")
	case u.AMF != nil && len(u.AMF) != 2:
		bad("AMF is 2 bytes")
	}
	for _, f := range u.Filters {
		if !strings.HasPrefix(f.Server, "sip:") {
			bad("server %q of a filter is no sip: URI", f.Server)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("user %s: %w", u.IMPI, err)
	}
	return nil
}

// The document of User-Data (TS 29.228 annex E), as far as the lab fills it.
type (
	subscription struct {
		XMLName   xml.Name       `xml:"IMSSubscription"`
		PrivateID string         `xml:"PrivateID"`
		Profile   serviceProfile `xml:"ServiceProfile"`
	}
	serviceProfile struct {
		Identities []identity `xml:"PublicIdentity"`
		Criteria   []criteria `xml:"InitialFilterCriteria"`
	}
	identity struct {
		Identity string `xml:"Identity"`
	}
	criteria struct {
		Priority int       `xml:"Priority"`
		Trigger  *trigger  `xml:"TriggerPoint"`
		Server   appServer `xml:"ApplicationServer"`
	}
	trigger struct {
		CNF    int     `xml:"ConditionTypeCNF"`
		Points []point `xml:"SPT"`
	}
	point struct {
		Negated int    `xml:"ConditionNegated"`
		Group   int    `xml:"Group"`
		Method  string `xml:"Method,omitempty"`
		Case    *int   `xml:"SessionCase"`
	}
	appServer struct {
		Name     string `xml:"ServerName"`
		Handling int    `xml:"DefaultHandling"` // 0: the session goes on without it
	}
)

// document is the user's profile as the S-CSCF downloads it.
func (u User) document() ([]byte, error) {
	d := subscription{PrivateID: u.IMPI}
	for _, i := range u.IMPUs {
		d.Profile.Identities = append(d.Profile.Identities, identity{i})
	}
	for n, f := range u.Filters {
		d.Profile.Criteria = append(d.Profile.Criteria, criteria{Priority: n, Trigger: f.trigger(), Server: appServer{Name: f.Server}})
	}
	b, err := xml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("profile of %s: %w", u.IMPI, err)
	}
	return append([]byte(xml.Header), b...), nil
}

// trigger is "method and session case", each in a group of its own: in conjunctive normal
// form groups are joined by and.
func (f Filter) trigger() *trigger {
	t := &trigger{CNF: 1}
	if f.Method != "" {
		t.Points = append(t.Points, point{Method: f.Method})
	}
	if f.Session != Any {
		n := int(f.Session) - 1 // 0 originating, 1 terminating registered, 2 unregistered
		t.Points = append(t.Points, point{Group: len(t.Points), Case: &n})
	}
	if t.Points == nil {
		return nil // no trigger point matches all
	}
	return t
}

// has says whether an identity is the user's.
func (u User) has(impu string) bool { return slices.Contains(u.IMPUs, impu) }

// ha1 is what the home network knows of a password (RFC 7616 §3.4.2).
func (u User) ha1(realm string) string {
	return hex.EncodeToString(md5Sum(u.IMPI + ":" + realm + ":" + u.Password))
}
