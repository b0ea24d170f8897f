// Package confinfo writes the documents of the conference event package (RFC 4575):
// who is in a conference, and how. It is pure: a Feed is told what is, and when, and says
// which document a subscriber is to get.
package confinfo

import (
	"encoding/xml"
	"slices"
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
	fullEvery   = 10              // each tenth tells the full state, so that a lost update is not for ever
)

// Feed is what one subscriber has been sent. The zero Feed has sent nothing.
//
// A document says no more than fits, and the next ones the rest: then the full state is a full
// document, whose users are partial, and partial ones behind it. What the subscriber has put
// together so far is told; every document is a step from there to what is.
type Feed struct {
	Max int // length of a document in bytes, unless one user alone is longer; 0: no limit

	told    State
	count   int    // of users, as told: with the first document of all
	last    string // user told last by documents that could not tell all; "" none
	sent    uint32 // documents; the version of the newest
	filling bool   // the full state is being told
	full    int    // documents that it took
	partial int    // documents since it was told
	at      time.Time
}

// Full is the first document of the full state now: the first of all, and whenever the
// subscriber asks anew. What it leaves out Next has.
func (f *Feed) Full(now time.Time, s State) []byte {
	doc, _ := f.begin(now, s)
	return doc
}

func (f *Feed) begin(now time.Time, s State) (doc []byte, left bool) {
	f.told, f.last = State{}, ""
	f.filling, f.full, f.partial = true, 0, 0
	return f.write(now, document{State: "full", Description: describe(s), Conference: count(s)}, s, f.owed(s))
}

// Next is the document that is due now, nil if nothing has changed or it is too early. wait
// says how long it is to the next one that is known to come, 0: none is.
func (f *Feed) Next(now time.Time, s State) (doc []byte, wait time.Duration) {
	owed := f.owed(s)
	d := document{State: "partial"}
	if f.told.Subject != s.Subject || f.told.MaxUsers != s.MaxUsers {
		d.Description = describe(s)
	}
	if f.count != len(s.Users) {
		d.Conference = count(s)
	}
	switch {
	case len(owed) == 0 && d.Description == nil && d.Conference == nil:
		return nil, 0
	case now.Sub(f.at) < MinInterval:
		return nil, f.at.Add(MinInterval).Sub(now)
	}
	var left bool
	if f.partial >= (fullEvery-1)*f.full {
		doc, left = f.begin(now, s)
	} else {
		doc, left = f.write(now, d, s, owed)
	}
	if left {
		wait = MinInterval
	}
	return doc, wait
}

// owed is what is to be said of users: of those who are gone, then of those who are, from behind
// the one that was told last, so that all have their turn whatever changes at the front.
func (f *Feed) owed(s State) []change {
	old := map[string]User{}
	for _, u := range f.told.Users {
		old[u.Entity] = u
	}
	var are []change
	from := 0
	for _, u := range s.Users {
		was, ok := old[u.Entity]
		delete(old, u.Entity)
		if !ok || !same(was, u) {
			are = append(are, change{User: u})
		}
		if u.Entity == f.last {
			from = len(are)
		}
	}
	var out []change
	for _, u := range f.told.Users { // in order
		if _, gone := old[u.Entity]; gone {
			out = append(out, change{u, true})
		}
	}
	return append(append(out, are[from:]...), are[:from]...)
}

// change is a user to be told of, or that he is gone.
type change struct {
	User
	gone bool
}

// write makes the document d of s with as much of owed as fits, the first at least; left says
// that there is more.
func (f *Feed) write(now time.Time, d document, s State, owed []change) (doc []byte, left bool) {
	f.sent++
	d.Entity, d.Version = s.Entity, f.sent
	list := &users{State: "partial"}
	d.Users = list
	size := len(encode(d))
	n := 0
	for _, c := range owed {
		u := userOf(c)
		size += len(marshal(u))
		if f.Max > 0 && size > f.Max && n > 0 {
			break
		}
		list.User = append(list.User, u)
		n++
	}
	left = n < len(owed)
	switch {
	case d.State == "full" && !left:
		list.State = "" // all of them
	case n == 0:
		d.Users = nil
	}
	f.remember(s, owed[:n])
	switch {
	case !left:
		f.last = ""
	case !owed[n-1].gone:
		f.last = owed[n-1].Entity
	}
	if f.filling {
		f.full++
		f.filling = !f.knowsAll(s)
	} else {
		f.partial++
	}
	f.at = now
	return encode(d), left
}

// remember is what the subscriber makes of a document.
func (f *Feed) remember(s State, said []change) {
	place := map[string]int{}
	for i, u := range f.told.Users {
		place[u.Entity] = i
	}
	gone := map[string]bool{}
	for _, c := range said {
		i, ok := place[c.Entity]
		c.Roles, c.Media = slices.Clone(c.Roles), slices.Clone(c.Media)
		switch {
		case c.gone:
			gone[c.Entity] = true
		case ok:
			f.told.Users[i] = c.User
		default:
			f.told.Users = append(f.told.Users, c.User)
		}
	}
	f.told.Users = slices.DeleteFunc(f.told.Users, func(u User) bool { return gone[u.Entity] })
	f.told.Subject, f.told.MaxUsers, f.count = s.Subject, s.MaxUsers, len(s.Users)
}

// knowsAll says that the subscriber has heard of every user, if not the newest of each.
func (f *Feed) knowsAll(s State) bool {
	known := map[string]bool{}
	for _, u := range f.told.Users {
		known[u.Entity] = true
	}
	return !slices.ContainsFunc(s.Users, func(u User) bool { return !known[u.Entity] })
}

func describe(s State) *description {
	return &description{Subject: s.Subject, Max: s.MaxUsers}
}

func count(s State) *conferenceState {
	return &conferenceState{Count: len(s.Users), Active: len(s.Users) > 0}
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

func userOf(u change) user {
	if u.gone {
		return user{Entity: u.Entity, State: "deleted", Endpoint: []endpoint{{Entity: u.Entity, State: "deleted", Status: Disconnected}}}
	}
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

// encode has no white space between the elements: it would be a third of a long document.
func encode(d document) []byte { return append([]byte(xml.Header), marshal(d)...) }

func marshal(v any) []byte {
	b, err := xml.Marshal(v)
	if err != nil {
		panic("confinfo: a document cannot be written: " + err.Error()) // our types always can
	}
	return b
}
