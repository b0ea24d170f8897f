package confinfo

import (
	"encoding/xml"
	"flag"
	"fmt"
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
			want[u.Entity] = userOf(u)
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
