package bridge

import (
	"fmt"
	"slices"
	"time"

	"sparkle/bridge/fault"
	"sparkle/sip"
	"sparkle/sip/confinfo"
)

// watcher is who is notified of a conference (RFC 4575). Its conference's goroutine
// owns it.
type watcher struct {
	sub    sip.Subscription
	member string // as whom he may
	entity string // what it calls the conference
	feed   confinfo.Feed
}

// maxSubscription is the longest time that is granted; maxSubscribers of one conference.
const (
	maxSubscription = time.Hour
	maxSubscribers  = 500
)

// maxEntity is the longest URI by which documents call somebody: all of him has to fit into one.
const maxEntity = 256

// onSubscribe decides on a SUBSCRIBE. The answer is given by the conference.
func (b *Bridge) onSubscribe(in sip.Subscribe, sub sip.Subscription) func(sip.SubscriptionEvent) {
	none := func(sip.SubscriptionEvent) {}
	var r *room
	if r = b.named(parseTarget(in.Target)); r == nil && in.CallID != "" {
		r, _ = b.legOf(in.CallID)
	}
	switch {
	case in.Event != confinfo.Event:
		sub.Reject(489)
		return none
	case !in.Accepts(confinfo.ContentType):
		sub.Reject(406)
		return none
	case r == nil:
		sub.Reject(404)
		return none
	}
	s := &watcher{sub: sub, entity: r.view.Load().Conference.DialIn.URI, feed: confinfo.Feed{Max: in.MaxDocument}}
	if s.entity == "" {
		s.entity = in.Target
	}
	if !r.post(func(now time.Time) { r.subscribe(now, s, in) }) {
		sub.Reject(404)
		return none
	}
	return func(e sip.SubscriptionEvent) {
		r.post(func(now time.Time) { r.onSubscription(now, s, e) })
	}
}

// subscribe: members only, by their call or by an asserted identity, and as long as they are.
func (r *room) subscribe(now time.Time, s *watcher, in sip.Subscribe) {
	m := r.speaker(in.CallID, in.By)
	if m == nil {
		m = r.listedAs(asserted(in.By))
	}
	switch {
	case r.closing:
		s.sub.Reject(404)
		return
	case m == nil:
		s.sub.Reject(403)
		return
	case len(r.watchers) >= maxSubscribers:
		s.sub.Reject(503)
		return
	}
	s.member = m.ID
	expires := min(in.Expires, maxSubscription)
	s.sub.Accept(expires)
	full := s.feed.Full(now, r.info(s.entity))
	if expires <= 0 { // he only wants to know once
		s.sub.Terminate("timeout", confinfo.ContentType, full)
		return
	}
	s.sub.Notify(confinfo.ContentType, full)
	r.watchers = append(r.watchers, s)
	r.notifyAll(now) // what did not fit into the first document is due later
}

func (r *room) onSubscription(now time.Time, s *watcher, e sip.SubscriptionEvent) {
	i := slices.Index(r.watchers, s)
	switch e.(type) {
	case sip.SubscriptionRefreshed:
		r.dismiss()
		if slices.Contains(r.watchers, s) {
			s.sub.Notify(confinfo.ContentType, s.feed.Full(now, r.info(s.entity)))
			r.notifyAll(now)
		}
	case sip.SubscriptionGone:
		if i >= 0 {
			r.watchers = slices.Delete(r.watchers, i, i+1)
		}
	}
}

// notifyAll sends what is due, and comes back when something was too early or did not fit.
func (r *room) notifyAll(now time.Time) {
	r.dismiss()
	if len(r.watchers) == 0 {
		return
	}
	var next time.Duration
	info := r.info("")
	for _, s := range r.watchers {
		info.Entity = s.entity
		doc, wait := s.feed.Next(now, info)
		if doc != nil {
			s.sub.Notify(confinfo.ContentType, doc)
		}
		if wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	if next > 0 && !r.notifying {
		r.notifying = true
		time.AfterFunc(next, fault.Safely(r.log, "conference notice", func() {
			r.post(func(now time.Time) {
				r.notifying = false
				r.notifyAll(now)
			})
		}))
	}
}

// dismiss ends the subscriptions of those who are no members any more: removed, or guests
// whose row went with their call.
func (r *room) dismiss() {
	r.watchers = slices.DeleteFunc(r.watchers, func(s *watcher) bool {
		gone := r.member(s.member) == nil
		if gone {
			s.sub.Terminate("rejected", "", nil)
		}
		return gone
	})
}

// endSubscriptions: the conference is gone.
func (r *room) endSubscriptions() {
	for _, s := range r.watchers {
		s.sub.Terminate("noresource", "", nil)
	}
	r.watchers = nil
}

// info is the conference as its participants may see it: who is in, or being called. Rows
// without a call are the organiser's.
func (r *room) info(entity string) confinfo.State {
	s := confinfo.State{Entity: entity, Subject: r.conf.Name, MaxUsers: r.b.opt.MaxMembers}
	for _, m := range r.members {
		l := m.leg
		if l == nil {
			continue
		}
		u := confinfo.User{Entity: r.entity(m), Name: m.shown(), Status: infoStatus(m), Method: confinfo.DialedOut}
		if l.visitor != nil {
			u.Method = confinfo.DialedIn
		}
		if m.Role == roleHost {
			u.Roles = []string{"host"}
		}
		in := l.ConnectedAt != nil && l.door == nil
		if in {
			u.Joined = *l.ConnectedAt
		}
		if a := l.agreed; a != nil && in {
			if a.Audio != nil {
				u.Media = append(u.Media, confinfo.Media{Type: "audio", Status: direction(a.Audio.Recv, a.Audio.Send)})
			}
			if a.Video != nil && a.WhyNoVideo == "" {
				u.Media = append(u.Media, confinfo.Media{Type: "video", Status: direction(a.Video.Recv, a.Video.Send)})
			}
		}
		s.Users = append(s.Users, u)
	}
	return s
}

// direction is as the participant sees it: he sends what we receive.
func direction(sends, receives bool) string {
	switch {
	case sends && receives:
		return "sendrecv"
	case sends:
		return "sendonly"
	case receives:
		return "recvonly"
	}
	return "inactive"
}

func infoStatus(m *member) confinfo.Status {
	l := m.leg
	switch {
	case l.why != "":
		return confinfo.Disconnecting
	case l.State == Dialing && l.visitor != nil:
		return confinfo.DialingIn
	case l.State == Dialing:
		return confinfo.DialingOut
	case l.State == Ringing, l.State == EarlyMedia:
		return confinfo.Alerting
	case l.held || m.Held:
		return confinfo.OnHold
	case m.muted || m.Role == roleListener:
		return confinfo.MutedViaFocus
	}
	return confinfo.Connected
}

// private: he, or who brought him in, wants others not to know who he is. The organiser does.
func (m *member) private() bool {
	return m.hidden || m.leg != nil && m.leg.visitor != nil && m.leg.visitor.in.Caller.Private
}

// anonymous: others are not shown who he is, or nobody knows.
func (m *member) anonymous() bool { return m.Number == "" && m.known() == "" || m.private() }

// entity is what the documents call a member: the URI he was referred to by, so that the
// referrer knows his own row again; his number; what his network asserts; or a name of this
// conference only.
func (r *room) entity(m *member) string {
	if m.anonymous() {
		if m.anon == 0 {
			r.anons++
			m.anon = r.anons
		}
		domain := r.b.opt.Domain
		if domain == "" {
			domain = "anonymous.invalid" // RFC 3323 §4.1.1.3
		}
		return fmt.Sprintf("sip:anon-%d@%s", m.anon, domain)
	}
	switch {
	case m.uri != "":
		return m.uri
	case m.Number != "":
		return "tel:" + m.Number
	}
	return m.known()
}
