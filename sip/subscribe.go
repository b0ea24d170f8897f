package sip

import (
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/confinfo"
	"sparkle/sip/dialog"
	"sparkle/sip/ims"
	"sparkle/sip/notifier"
)

// The packages we notify (RFC 6665 8.2.2), as we tell peers.
var allowEvents = dialog.Header{Name: "Allow-Events", Value: "conference, refer"}

// How long a document may be. With the lines above it, 1.5 kB where the route is long, its NOTIFY
// stays within the 8 kB that carriers take of a message, which over UDP is in fragments enough;
// over a stream within 16 KiB, what others read at once.
const (
	maxDatagramDocument = 6500
	maxStreamDocument   = 14500
)

// maxDocument is the limit for who sent a request: over UDP, or to an attachment that speaks it.
func (us *usages) maxDocument(req *sipgo.Request) int {
	if us.a.o.Transport == "udp" || strings.EqualFold(req.Transport(), "udp") {
		return maxDatagramDocument
	}
	return maxStreamDocument
}

// readSubscribe reads what is asked for; status is not 0 if it cannot be.
func readSubscribe(req *sipgo.Request) (s Subscribe, status int) {
	ev := req.GetHeaders("Event")
	switch {
	case len(ev) == 0:
		return s, 489 // RFC 6665 4.2.1.1
	case len(ev) > 1:
		return s, 400
	}
	if s.Event, _ = notifier.Package(ev[0].Value()); s.Event == "" {
		return s, 400
	}
	s.Expires = -1
	if v := first(req, "Expires"); v != "" || len(req.GetHeaders("Expires")) > 0 {
		d, err := ims.ParseSeconds(v)
		if err != nil {
			return s, 400
		}
		s.Expires = d
	}
	s.Accept = dialog.Values(req, "Accept")
	return s, 0
}

// Accepts says whether a document may be of a type, which is written in lower case.
func (s Subscribe) Accepts(kind string) bool { return accepts(s.Accept, kind) }

// available is what a refusal of a SUBSCRIBE has to say of what there is.
func (u *usage) available(status int) []dialog.Header {
	switch {
	case status == 489:
		return []dialog.Header{allowEvents}
	case status == 406 && u.name == confinfo.Event:
		return []dialog.Header{{Name: "Accept", Value: confinfo.ContentType}}
	}
	return nil
}

// subscribe asks the owner about a new subscription.
func (us *usages) subscribe(tx any, req *sipgo.Request, s Subscribe, name, id string) {
	us.a.ua.mu.Lock()
	decide := us.a.ua.subs
	us.a.ua.mu.Unlock()
	if decide == nil || name == "refer" { // refer is made by REFER only (RFC 3515 2.4.4)
		us.way.tell(tx, req, 489, []dialog.Header{allowEvents})
		return
	}
	u := us.add(tx, req, first(req, "Event"), notifier.Options{Asked: s.Expires})
	if u == nil {
		return
	}
	s.Attachment, s.At, s.CallID = us.a.o.Name, time.Now(), us.callID
	s.Target, s.By = us.meant(req), us.from(req)
	if s.Expires < 0 {
		s.Expires = time.Hour // the default of the package conference (RFC 4575 3.4)
	}
	s.MaxDocument = u.max
	u.on = decide(s, u)
}

// meant is whom a request is for: in a dialog of its own, whom the first was for.
func (us *usages) meant(req *sipgo.Request) string {
	if us.target != "" {
		return us.target
	}
	return us.a.wanted(req)
}

// from is who sent a request.
func (us *usages) from(req *sipgo.Request) Identity {
	if us.by != nil {
		return *us.by
	}
	return identityOf(req)
}

// Accept implements Subscription.
func (u *usage) Accept(expires time.Duration) { u.do(notifier.Accept{Expires: expires}) }

// Reject implements Subscription.
func (u *usage) Reject(status int) { u.do(notifier.Reject{Status: status}) }

// Notify implements Subscription.
func (u *usage) Notify(contentType string, body []byte) {
	u.do(notifier.Notify{Type: contentType, Body: body})
}

// Terminate implements Subscription.
func (u *usage) Terminate(reason, contentType string, body []byte) {
	u.do(notifier.Terminate{Reason: reason, Notify: notifier.Notify{Type: contentType, Body: body}})
}
