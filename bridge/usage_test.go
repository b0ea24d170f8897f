package bridge_test

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
	"sparkle/sip"
)

// OnRefer implements bridge.Caller.
func (n *network) OnRefer(f func(sip.Refer, sip.Referral)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refer = f
}

// OnSubscribe implements bridge.Caller.
func (n *network) OnSubscribe(f func(sip.Subscribe, sip.Subscription) func(sip.SubscriptionEvent)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subscribe = f
}

// referrer says what becomes of its REFER.
type referrer struct{ say func(string, ...any) }

func (r referrer) Accept()                          { r.say("<- 202") }
func (r referrer) Reject(status int)                { r.say("<- %d to REFER", status) }
func (r referrer) Progress(status int, what string) { r.say("<- NOTIFY %d %s", status, what) }

// refer is a REFER of a phone: NAME invite|bye WHO,WHO [by=URI,…] [via=ATTACHMENT] [outside]. WHO is a
// name, a number or a URI.
func (h *house) refer(name, method string, who string, words []string) error {
	r := sip.Refer{Attachment: "core", At: time.Now(), Method: strings.ToUpper(method), By: h.identityOf(name),
		Target: h.conference().DialIn.URI, ReferredBy: "tel:" + h.number[name]}
	r.CallID = h.callIDOf(name)
	hidden := false
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "by":
			r.By = identity(strings.Split(value, ",")...)
		case "via":
			r.Attachment = value
		case "outside":
			r.CallID = ""
		case "untrusted":
			r.By.Trusted = false
		case "hidden": // all who are named
			hidden = true
		}
	}
	for w := range strings.SplitSeq(who, ",") {
		if n := h.number[w]; n != "" {
			w = "sip:" + n + "@ims.example;user=phone"
		}
		r.URIs = append(r.URIs, w)
		if hidden {
			r.Hidden = append(r.Hidden, w)
		}
	}
	h.net.refer(r, referrer{func(format string, args ...any) { h.say(name+"'s REFER: "+format, args...) }})
	return nil
}

// identityOf is what the network asserts of somebody outside any call.
func (h *house) identityOf(name string) sip.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.callers[name]; c != nil {
		return c.in.Caller
	}
	return identity("tel:" + h.number[name])
}

func (h *house) callIDOf(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.callers[name]; c != nil {
		return c.in.CallID
	}
	if n := h.number[name]; n != "" {
		return "call-" + n[len(n)-2:]
	}
	return "none"
}

// adopt makes the newest ad-hoc conference the house's, and hears of it.
func (h *house) adopt() error {
	admin := bridge.Actor{Account: "root", Admin: true}
	h.actor = admin
	all, _, err := h.b.Conferences(h.t.Context(), admin, 1, "")
	if err != nil || len(all) == 0 || !all[0].AdHoc {
		return fmt.Errorf("no ad-hoc conference: %v", err)
	}
	h.conf = all[0].ID
	h.say("conference: %s %s, owner %s", all[0].Type, all[0].JoinPolicy, all[0].Owner)
	members, _ := h.b.Members(h.t.Context(), admin, h.conf)
	h.mu.Lock()
	for _, m := range members {
		h.names[m.ID], h.ids[m.Name] = m.Name, m.ID
	}
	h.mu.Unlock()
	sub, err := h.b.Subscribe(h.t.Context(), admin, h.conf, "")
	if err != nil {
		return err
	}
	h.follow(sub)
	return nil
}

// watch is a SUBSCRIBE to the house's conference.
type watch struct {
	keep  func() // it was accepted
	say   func(string, ...any)
	docs  []string
	times []time.Time
	tell  func(sip.SubscriptionEvent)
}

func (w *watch) Accept(expires time.Duration) { w.keep(); w.say("<- 200, %v", expires) }
func (w *watch) Reject(status int)            { w.say("<- %d to SUBSCRIBE", status) }
func (w *watch) Notify(kind string, b []byte) {
	if kind != "application/conference-info+xml" {
		w.say("<- NOTIFY of type %s", kind)
	}
	w.docs, w.times = append(w.docs, string(b)), append(w.times, time.Now())
	w.say("<- NOTIFY %s", infoWords(b))
}
func (w *watch) Terminate(reason, kind string, b []byte) {
	w.say("<- NOTIFY terminated %s %s", reason, infoWords(b))
}

func infoWords(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	var d struct {
		State   string `xml:"state,attr"`
		Version int    `xml:"version,attr"`
		Users   []struct {
			Entity string `xml:"entity,attr"`
			State  string `xml:"state,attr"`
			Name   string `xml:"display-text"`
			Status string `xml:"endpoint>status"`
			Media  []struct {
				Type   string `xml:"type"`
				Status string `xml:"status"`
			} `xml:"endpoint>media"`
		} `xml:"users>user"`
	}
	if err := xml.Unmarshal(b, &d); err != nil {
		return "not XML: " + err.Error()
	}
	s := fmt.Sprintf("%s v%d", d.State, d.Version)
	for _, u := range d.Users {
		s += fmt.Sprintf("; %s (%s) %s", u.Entity, u.Name, u.Status)
		if u.State == "deleted" {
			s += " deleted"
		}
		for _, m := range u.Media {
			s += " " + m.Type + " " + m.Status
		}
	}
	return s
}

// subscribe: NAME [EXPIRES] [words].
func (h *house) subscribe(name string, words []string) error {
	in := sip.Subscribe{Attachment: "core", At: time.Now(), CallID: h.callIDOf(name), Target: h.conference().DialIn.URI,
		By: h.identityOf(name), Event: "conference", Expires: 2 * time.Hour}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "outside":
			in.CallID = ""
		case "untrusted":
			in.By.Trusted = false
		case "by":
			in.By = identity(strings.Split(value, ",")...)
		case "once":
			in.Expires = 0
		case "event":
			in.Event = value
		case "accept":
			in.Accept = []string{value}
		default:
			return fmt.Errorf("no such word %s", w)
		}
	}
	w := &watch{say: func(format string, args ...any) { h.say(name+"'s SUBSCRIBE: "+format, args...) }}
	w.keep = func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.watches[name] = w
	}
	w.tell = h.net.subscribe(in, w)
	return nil
}

// A phone that was called knows its conference by our Contact: outside the call, what it asks
// of that is asked of the conference (IMS.md §2.1, §4.2).
func TestContactOfACallIsTheConference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		for _, line := range []string{"member a voice", "call all", "after 5s"} {
			if err := h.run(line); err != nil {
				t.Fatal(err)
			}
		}
		uri := "sip:" + h.net.phone(h.number["a"]).inv.Focus + "@127.0.0.1:5060;transport=tcp"
		who := identity("tel:" + h.number["a"])
		var said []string
		say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
		h.net.subscribe(sip.Subscribe{Attachment: "core", At: time.Now(), Target: uri, By: who, Event: "conference"}, &watch{keep: func() {}, say: say})
		synctest.Wait()
		h.net.refer(sip.Refer{Attachment: "core", At: time.Now(), Target: uri, By: who, Method: "BYE", URIs: []string{"tel:+8613900000999"}}, referrer{say})
		synctest.Wait()
		if s := strings.Join(said, "\n"); !strings.Contains(s, "<- 200, 0s") || strings.Contains(s, "404 to SUBSCRIBE") || !strings.Contains(s, "403 to REFER") {
			t.Errorf("%s", s)
		}
	})
}

// The limits of the wire: documents of one subscriber are five seconds apart, versions
// rise by one, each tenth is full, and the last is told.
func TestNotifierKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		for _, line := range []string{"member a voice", "member b voice", "call all", "after 5s"} {
			if err := h.run(line); err != nil {
				t.Fatal(err)
			}
		}
		h.run("subscribe a")
		for i := range 100 {
			h.run([]string{"mute b", "unmute b"}[i%2])
			h.wait(time.Second)
		}
		h.wait(20 * time.Second)
		w := h.watches["a"]
		for i, d := range w.docs {
			if i > 0 && w.times[i].Sub(w.times[i-1]) < 5*time.Second {
				t.Errorf("document %d comes %v after the last", i, w.times[i].Sub(w.times[i-1]))
			}
			if !strings.Contains(d, fmt.Sprintf(`version="%d"`, i+1)) || strings.Contains(d, `state="full" version`) != (i%10 == 0) {
				t.Errorf("document %d is\n%s", i, d)
			}
		}
		if n := len(w.docs); n < 19 || n > 22 {
			t.Errorf("%d documents in 100 s", n)
		}
		w.tell(sip.SubscriptionRefreshed{Expires: time.Hour})
		synctest.Wait()
		if d := w.docs[len(w.docs)-1]; !strings.Contains(d, `state="full"`) {
			t.Errorf("after a refresh:\n%s", d)
		}
		w.tell(sip.SubscriptionGone{Why: "unsubscribed"})
		n := len(w.docs)
		h.run("mute b")
		h.wait(10 * time.Second)
		if len(w.docs) != n {
			t.Error("a subscriber who has gone is notified")
		}
		h.close()
	})
}

// Of a conference that is too big for one document a subscriber is told in several, at the
// package's rate, at first and when he asks anew; then he knows everybody.
func TestNotifierTellsABigConference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, bridge.AudioConference)
		defer h.close()
		const members = 300
		for i := range members { // they ring: in a call something happens every few seconds anyway
			if err := h.add(fmt.Sprintf("m%d", i), "no-answer"); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.run("call all"); err != nil {
			t.Fatal(err)
		}
		h.wait(2 * time.Second)
		if err := h.add("a", "voice"); err != nil { // he is not called
			t.Fatal(err)
		}
		w := &watch{keep: func() {}, say: func(string, ...any) {}}
		const most = 14500
		w.tell = h.net.subscribe(sip.Subscribe{Attachment: "core", At: time.Now(), Target: h.conference().DialIn.URI,
			By: h.identityOf("a"), Event: "conference", Expires: time.Hour, MaxDocument: most}, w)
		knows := func(docs []string) int {
			known := map[string]bool{}
			for i, d := range docs {
				if full := strings.Contains(d, `state="full" version`); full != (i == 0) || len(d) > most {
					t.Errorf("document %d has %d bytes, full %v", i, len(d), full)
				}
				for _, u := range strings.Split(d, "<user entity=")[1:] {
					entity, _, _ := strings.Cut(u, " ")
					known[entity] = true
				}
			}
			return len(known)
		}
		h.wait(25 * time.Second)
		first := len(w.docs)
		if n := knows(w.docs); n != members {
			t.Errorf("he knows %d of %d in %d documents", n, members, first)
		}
		w.tell(sip.SubscriptionRefreshed{Expires: time.Hour})
		h.wait(25 * time.Second)
		for i := range len(w.docs) - 1 {
			if d := w.times[i+1].Sub(w.times[i]); d != 5*time.Second && i+1 != first {
				t.Errorf("%v between two documents", d)
			}
		}
		if n := knows(w.docs[first:]); n != members {
			t.Errorf("asked anew he knows %d of %d", n, members)
		}
	})
}

// Documents call a member by the URI he was referred to by, and a guest by what his network asserts,
// unless that is so long that they could not be sent.
func TestEntityHasABound(t *testing.T) {
	for _, long := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, bridge.AudioConference)
			defer h.close()
			uri, want := "sip:+8613700000009@ims.example", "sip:+8613700000009@ims.example (+8613700000009)"
			if long {
				uri, want = uri+";x="+strings.Repeat("y", 300), "tel:+8613700000009 (+8613700000009)"
			}
			h.script("member ann voice", "policy open", "referrers any", "dial ann conf", "after 1s", "refer ann invite "+uri, "after 1s")
			guest, known := "sip:eve@ims.example", "; sip:eve@ims.example ("
			if long {
				guest, known = "sip:"+strings.Repeat("e", 300)+"@ims.example", "; sip:anon-1@ims.example ("
			}
			h.script("dial eve conf pai="+guest, "after 1s")
			got := h.script("subscribe ann", "after 1s")
			for _, want := range []string{"; " + want, known} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			h.script("caller ann bye", "caller eve bye", "after 20s")
		})
	}
}
