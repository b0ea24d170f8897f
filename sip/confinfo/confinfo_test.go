package confinfo

import (
	"encoding/xml"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what is into the golden files")

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func conference(users ...User) State {
	return State{Entity: "sip:conf-1@ims.example", Subject: `Ops <daily> & "more"`, MaxUsers: 500, Users: users}
}

func phone(n int, s Status) User {
	return User{Entity: fmt.Sprintf("tel:+861380000000%d", n), Name: fmt.Sprintf("王芳 %d", n), Status: s, Method: DialedOut,
		Joined: t0, Media: []Media{{"audio", "sendrecv"}, {"video", "sendonly"}}}
}

// The documents of a conference's life, as they were read and found right once.
func TestGolden(t *testing.T) {
	var f Feed
	var out strings.Builder
	add := func(b []byte) { fmt.Fprintf(&out, "%s\n", b) }
	anon := User{Entity: "sip:anon-1@ims.example", Name: "Anonymous", Status: DialingIn, Method: DialedIn, Roles: []string{"host"}}
	add(f.Full(t0, conference(phone(1, DialingOut))))
	now := t0
	for _, s := range []State{
		conference(phone(1, Connected), anon),
		conference(phone(1, MutedViaFocus), anon),
		conference(anon),
		{Entity: "sip:conf-1@ims.example", Subject: "renamed", MaxUsers: 500},
	} {
		now = now.Add(MinInterval)
		doc, wait := f.Next(now, s)
		if doc == nil {
			t.Fatalf("nothing is due, wait %v", wait)
		}
		add(doc)
	}
	const file = "../../testdata/sip/confinfo.golden"
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// follower is a subscriber: it keeps what documents say, as RFC 4575 §4.5 has it.
type follower struct {
	version uint32
	users   map[string]user
	count   int
}

func (w *follower) read(t *testing.T, b []byte) document {
	t.Helper()
	var d document
	if err := xml.Unmarshal(b, &d); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if d.Version != w.version+1 {
		t.Fatalf("version %d after %d", d.Version, w.version)
	}
	w.version = d.Version
	if d.State == "full" {
		w.users = map[string]user{}
	}
	if d.Conference != nil {
		w.count = d.Conference.Count
	}
	if d.Users != nil {
		for _, u := range d.Users.User {
			if u.State == "deleted" {
				if _, ok := w.users[u.Entity]; !ok {
					t.Fatalf("%s is deleted, who was not there", u.Entity)
				}
				delete(w.users, u.Entity)
			} else {
				w.users[u.Entity] = u
			}
		}
	}
	return d
}

// Whatever happens, who follows the documents knows what is; and they are few.
func TestWhoFollowsKnows(t *testing.T) {
	var f Feed
	w := &follower{}
	s := conference()
	w.read(t, f.Full(t0, s))
	statuses := []Status{DialingOut, Alerting, Connected, OnHold}
	last, full, docs := t0, 0, 0
	for i := range 400 {
		now := t0.Add(time.Duration(i) * 700 * time.Millisecond)
		s = conference()
		for n := range (i / 3) % 7 {
			s.Users = append(s.Users, phone(n, statuses[(i/5+n)%len(statuses)]))
		}
		doc, wait := f.Next(now, s)
		if doc == nil {
			if wait > MinInterval || wait < 0 {
				t.Fatalf("wait %v", wait)
			}
			continue
		}
		if now.Sub(last) < MinInterval && docs > 0 {
			t.Fatalf("documents %v apart", now.Sub(last))
		}
		last = now
		docs++
		if w.read(t, doc).State == "full" {
			full++
		}
		want := map[string]user{}
		for _, u := range s.Users {
			want[u.Entity] = userOf(change{User: u})
		}
		for e, u := range w.users {
			if !reflect.DeepEqual(u, want[e]) {
				t.Fatalf("%s is %+v, want %+v", e, u, want[e])
			}
		}
		if len(w.users) != len(want) || w.count != len(want) {
			t.Fatalf("%d users, count %d, want %d", len(w.users), w.count, len(want))
		}
		if again, wait := f.Next(now.Add(time.Minute), s); again != nil || wait != 0 {
			t.Fatal("the same state is a document again")
		}
	}
	if docs < 40 || full != docs/fullEvery {
		t.Errorf("%d documents, %d of them full", docs, full)
	}
}

// What does not fit into one document follows in the next ones: who applies them in order has
// the roster, however many come and go meanwhile.
func TestBigConference(t *testing.T) {
	const limit = 6500
	for _, members := range []int{1, 50, 300} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(members), 7))
			s, nth := conference(), 0
			join := func() {
				u := phone(0, Alerting)
				u.Entity = fmt.Sprintf("tel:+86138%08d", nth)
				nth++
				s.Users = append(s.Users, u)
			}
			for range members {
				join()
			}
			f := Feed{Max: limit}
			w := &follower{}
			now, docs, parts, fulls := t0, 0, 0, 0
			read := func(b []byte) {
				t.Helper()
				if len(b) > limit {
					t.Fatalf("a document of %d bytes", len(b))
				}
				d := w.read(t, b)
				if docs++; d.State == "full" {
					fulls++
					if part := len(d.Users.User) < d.Conference.Count; part != (d.Users.State == "partial") {
						t.Fatalf("%d of %d users are called %q", len(d.Users.User), d.Conference.Count, d.Users.State)
					}
				}
			}
			// settle applies what comes until nothing is due any more.
			settle := func() {
				t.Helper()
				for parts = 0; ; parts++ {
					doc, wait := f.Next(now, s)
					if doc == nil && wait == 0 {
						break
					}
					if doc != nil {
						read(doc)
					}
					if parts > 200 {
						t.Fatal("it does not end")
					}
					if wait == 0 { // it says that nothing follows
						if again, wait := f.Next(now.Add(time.Hour), s); again != nil || wait != 0 {
							t.Fatal("there was more to tell")
						}
						break
					}
					now = now.Add(wait)
				}
				want := map[string]user{}
				for _, u := range s.Users {
					want[u.Entity] = userOf(change{User: u})
				}
				if !reflect.DeepEqual(w.users, want) || w.count != len(want) {
					t.Fatalf("%d users, count %d, want %d", len(w.users), w.count, len(want))
				}
			}
			read(f.Full(now, s))
			settle()
			if full := len(encode(fullOf(s))); docs < full/limit || docs > full/limit+full/limit/10+1 {
				t.Errorf("%d documents for a state of %d bytes", docs, full)
			}
			first := docs
			for round := range 300 {
				for range r.IntN(members/10 + 2) {
					join()
				}
				for range r.IntN(members/10 + 2) {
					if len(s.Users) > 0 {
						i := r.IntN(len(s.Users))
						s.Users = append(s.Users[:i:i], s.Users[i+1:]...)
					}
				}
				for range r.IntN(members/10 + 2) {
					if len(s.Users) > 0 {
						s.Users[r.IntN(len(s.Users))].Status = []Status{Alerting, Connected, OnHold}[r.IntN(3)]
					}
				}
				switch {
				case round%50 == 49: // the subscriber refreshes
					now = now.Add(time.Second)
					read(f.Full(now, s))
				case round%3 != 0:
					if doc, _ := f.Next(now, s); doc != nil {
						read(doc)
					}
					now = now.Add(MinInterval)
					continue
				}
				settle()
			}
			settle()
			// A full state of so many documents is a tenth of all, refreshes and the first besides.
			if most := docs/(fullEvery*max(first-5, 1)) + 8; fulls < 7 || fulls > most {
				t.Errorf("%d full documents of %d, want up to %d", fulls, docs, most)
			}
		})
	}
}

func fullOf(s State) document {
	d := document{Description: describe(s), Conference: count(s), Users: &users{}}
	for _, u := range s.Users {
		d.Users.User = append(d.Users.User, userOf(change{User: u}))
	}
	return d
}

// Those at the end of a long roster are told of though those at its beginning change all the time.
func TestAllHaveTheirTurn(t *testing.T) {
	s := conference()
	for n := range 100 {
		u := phone(0, Connected)
		u.Entity = fmt.Sprintf("tel:+86138%08d", n)
		s.Users = append(s.Users, u)
	}
	f := Feed{Max: 6500}
	w := &follower{}
	w.read(t, f.Full(t0, s))
	for i := range 8 {
		for n := range 40 {
			s.Users[n].Status = []Status{OnHold, Connected}[i%2]
		}
		doc, _ := f.Next(t0.Add(time.Duration(i+1)*MinInterval), s)
		w.read(t, doc)
	}
	if len(w.users) != len(s.Users) {
		t.Errorf("of %d users it knows %d", len(s.Users), len(w.users))
	}
}
