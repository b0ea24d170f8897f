// Package confinfo writes the documents of the conference event package (RFC 4575):
// who is in a conference, and how. It is pure: a Feed is told what is, and when, and says
// which document a subscriber is to get.
package confinfo

import (
	"encoding/xml"
	"strconv"
	"time"
)

// ContentType of the documents.
const ContentType = "application/conference-info+xml"

// Event is the package's name.
const Event = "conference"

// State is a conference as a subscriber may see it.
type State struct {
	Entity   string // the conference's URI
	Subject  string
	MaxUsers int // 0: not said
	Users    []User
}

// User is one participant.
type User struct {
	Entity string // how others know him: equal to what he was referred to by, or sip:anon-…
	Name   string
	Roles  []string
	Status Status
	// Method says who called: DialedIn or DialedOut; "" not said.
	Method Method
	Joined time.Time // zero: not yet
	Media  []Media
}

// Status of an endpoint (RFC 4575 §5.7.4).
type Status string

// The statuses that we use.
const (
	DialingOut    Status = "dialing-out"
	DialingIn     Status = "dialing-in"
	Alerting      Status = "alerting"
	Connected     Status = "connected"
	OnHold        Status = "on-hold"
	MutedViaFocus Status = "muted-via-focus"
	Disconnecting Status = "disconnecting"
	Disconnected  Status = "disconnected"
)

// Method is how a participant joined (RFC 4575 §5.7.6).
type Method string

// The methods that we use.
const (
	DialedIn  Method = "dialed-in"
	DialedOut Method = "dialed-out"
)

// Media is one stream of a participant. Status is its direction as the participant sees
// it: sendrecv, sendonly, recvonly, inactive.
type Media struct{ Type, Status string }

// Limits on what a subscriber is sent.
const (
	MinInterval = 5 * time.Second // between two documents
	fullEvery   = 10              // each tenth is a full one, so that a lost update is not for ever
)

// Feed is what one subscriber has been sent. The zero Feed has sent nothing.
type Feed struct {
	last    State
	sent    uint32 // documents; the version of the newest
	partial int    // partial ones since the last full one
	at      time.Time
}

// Full is a full document now: the first, and whenever the subscriber asks anew.
func (f *Feed) Full(now time.Time, s State) []byte {
	f.sent++
	f.partial, f.at, f.last = 0, now, clone(s)
	return encode(fullOf(s, f.sent))
}

// Next is the document that is due now, nil if nothing has changed or it is too early; in
// that case wait says how long.
func (f *Feed) Next(now time.Time, s State) (doc []byte, wait time.Duration) {
	d, changed := diff(f.last, s)
	switch {
	case !changed:
		return nil, 0
	case now.Sub(f.at) < MinInterval:
		return nil, f.at.Add(MinInterval).Sub(now)
	case f.partial >= fullEvery-1:
		return f.Full(now, s), 0
	}
	f.sent++
	f.partial++
	f.at, f.last = now, clone(s)
	d.Version = f.sent
	return encode(d), 0
}

func clone(s State) State {
	users := make([]User, len(s.Users))
	for i, u := range s.Users {
		u.Roles, u.Media = append([]string(nil), u.Roles...), append([]Media(nil), u.Media...)
		users[i] = u
	}
	s.Users = users
	return s
}

func fullOf(s State, version uint32) document {
	d := document{Entity: s.Entity, State: "full", Version: version, Description: describe(s), Conference: &conferenceState{Count: len(s.Users), Active: len(s.Users) > 0}, Users: &users{}}
	for _, u := range s.Users {
		d.Users.User = append(d.Users.User, userOf(u))
	}
	return d
}

func describe(s State) *description {
	return &description{Subject: s.Subject, Max: s.MaxUsers}
}

// diff is the partial document that makes b of a (RFC 4575 §4.4).
func diff(a, b State) (d document, changed bool) {
	d = document{Entity: b.Entity, State: "partial"}
	if a.Subject != b.Subject || a.MaxUsers != b.MaxUsers {
		d.Description = describe(b)
	}
	if len(a.Users) != len(b.Users) {
		d.Conference = &conferenceState{Count: len(b.Users), Active: len(b.Users) > 0}
	}
	old := map[string]User{}
	for _, u := range a.Users {
		old[u.Entity] = u
	}
	list := &users{State: "partial"}
	for _, u := range b.Users {
		was, ok := old[u.Entity]
		delete(old, u.Entity)
		if !ok || !same(was, u) {
			list.User = append(list.User, userOf(u))
		}
	}
	for _, u := range a.Users { // in order
		if _, gone := old[u.Entity]; gone {
			list.User = append(list.User, user{Entity: u.Entity, State: "deleted",
				Endpoint: []endpoint{{Entity: u.Entity, State: "deleted", Status: Disconnected}}})
		}
	}
	if len(list.User) > 0 {
		d.Users = list
	}
	return d, d.Description != nil || d.Conference != nil || d.Users != nil
}

func same(a, b User) bool {
	if len(a.Media) != len(b.Media) || len(a.Roles) != len(b.Roles) {
		return false
	}
	for i := range a.Media {
		if a.Media[i] != b.Media[i] {
			return false
		}
	}
	for i := range a.Roles {
		if a.Roles[i] != b.Roles[i] {
			return false
		}
	}
	return a.Name == b.Name && a.Status == b.Status && a.Method == b.Method && a.Joined.Equal(b.Joined)
}

func userOf(u User) user {
	e := endpoint{Entity: u.Entity, Status: u.Status, Method: u.Method}
	if !u.Joined.IsZero() {
		e.Joined = &joined{When: u.Joined.UTC().Format(time.RFC3339)}
	}
	for i, m := range u.Media {
		e.Media = append(e.Media, media{ID: strconv.Itoa(i + 1), Type: m.Type, Status: m.Status})
	}
	out := user{Entity: u.Entity, State: "full", Name: u.Name, Endpoint: []endpoint{e}}
	if len(u.Roles) > 0 {
		out.Roles = &roles{u.Roles}
	}
	return out
}

// The elements, in the order of RFC 4575 §8.
type (
	document struct {
		XMLName     xml.Name         `xml:"urn:ietf:params:xml:ns:conference-info conference-info"`
		Entity      string           `xml:"entity,attr"`
		State       string           `xml:"state,attr"`
		Version     uint32           `xml:"version,attr"`
		Description *description     `xml:"conference-description"`
		Conference  *conferenceState `xml:"conference-state"`
		Users       *users           `xml:"users"`
	}
	description struct {
		Subject string `xml:"subject,omitempty"`
		Max     int    `xml:"maximum-user-count,omitempty"`
	}
	conferenceState struct {
		Count  int  `xml:"user-count"`
		Active bool `xml:"active"`
	}
	users struct {
		State string `xml:"state,attr,omitempty"`
		User  []user `xml:"user"`
	}
	user struct {
		Entity   string     `xml:"entity,attr"`
		State    string     `xml:"state,attr"`
		Name     string     `xml:"display-text,omitempty"`
		Roles    *roles     `xml:"roles"`
		Endpoint []endpoint `xml:"endpoint"`
	}
	roles struct {
		Entry []string `xml:"entry"`
	}
	endpoint struct {
		Entity string  `xml:"entity,attr"`
		State  string  `xml:"state,attr,omitempty"`
		Status Status  `xml:"status"`
		Method Method  `xml:"joining-method,omitempty"`
		Joined *joined `xml:"joining-info"`
		Media  []media `xml:"media"`
	}
	joined struct {
		When string `xml:"when"`
	}
	media struct {
		ID     string `xml:"id,attr"`
		Type   string `xml:"type"`
		Status string `xml:"status"`
	}
)

func encode(d document) []byte {
	b, err := xml.MarshalIndent(d, "", " ")
	if err != nil {
		panic("confinfo: a document cannot be written: " + err.Error()) // our types always can
	}
	return append([]byte(xml.Header), append(b, '\n')...)
}
