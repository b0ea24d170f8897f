package sip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sparkle/sip/digest"
)

const (
	guardUser = "their-sbc"
	guardPass = "what the SBC knows"
	guardURI  = "sip:conf@carrier.example"
)

func asks(o *AttachmentOptions) { o.Challenge = Challenge{Username: guardUser, Password: guardPass} }

// told is what an owner hears: calls that he declines, and those that were refused before.
type told struct {
	calls   atomic.Int32
	called  atomic.Pointer[string] // Call-ID of the newest
	refused chan string            // status and Call-ID
}

func newTold(ua *UA) *told {
	o := &told{refused: make(chan string, 1024)}
	ua.OnIncoming(func(in Incoming, call IncomingCall) func(Event) {
		o.calls.Add(1)
		o.called.Store(&in.CallID)
		call.Reject(603, 0)
		return func(Event) {}
	})
	ua.OnRefused(func(in Incoming, status int) { o.refused <- fmt.Sprint(status, " ", in.CallID) })
	return o
}

// proof answers a 401 by its n-th challenge.
func proof(t testing.TB, res message, n int, user, password, method, uri string) string {
	t.Helper()
	values := res.head.Values("Www-Authenticate")
	if res.status() != "401" || len(values) <= n {
		t.Fatalf("%s with %q", res.start, values)
	}
	cs, err := digest.ParseChallenges(values[n : n+1])
	if err != nil || len(cs) != 1 {
		t.Fatal(values, err)
	}
	a, err := digest.NewSession(cs[0], user, []byte(password)).Authorize(digest.Request{Method: method, URI: uri})
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: " + a.String()
}

// ack acknowledges a refusal of the last request.
func (a *asker) ack(res message) {
	a.t.Helper()
	a.send([]byte(fmt.Sprintf("ACK %s SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%s-%d\r\nMax-Forwards: 70\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d ACK\r\nContent-Length: 0\r\n\r\n",
		a.uri, a.net, a.conn.LocalAddr(), a.call, a.seq, res.get("From"), res.get("To"), a.call, a.seq)))
}

// invite is an INVITE to its end.
func (a *asker) invite(extra ...string) message {
	a.t.Helper()
	res := a.ask("INVITE", append(extra, a.contact())...)
	a.ack(res)
	return res
}

// Who calls without a proof is asked for one, strongest first, and leaves nothing behind; the
// same again is asked the same. With the proof he is in, once.
func TestCallerIsChallenged(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, asks)
		owner := newTold(ua)
		a := newAsker(t, p, ua, guardURI)
		res := a.invite()
		asked := res.head.Values("Www-Authenticate")
		if res.status() != "401" || len(asked) != 2 || !strings.Contains(asked[0], "algorithm=SHA-256,") || !strings.Contains(asked[1], "algorithm=MD5,") {
			t.Fatalf("%s %q", res.start, res.order)
		}
		for _, c := range asked {
			if !strings.Contains(c, `realm="carrier.example"`) || !strings.Contains(c, `qop="auth"`) || strings.Contains(c, "stale") {
				t.Errorf("asked %s", c)
			}
		}
		a.seq-- // the same once more
		if again := a.invite(); strings.Join(again.order, "\n") != strings.Join(res.order, "\n") {
			t.Errorf("first\n%q\nthen\n%q", res.order, again.order)
		}
		for n := range asked {
			b := newAsker(t, p, ua, guardURI)
			b.call += fmt.Sprint(n)
			auth := proof(t, b.invite(), n, guardUser, guardPass, "INVITE", guardURI)
			if n > 0 { // as the grammar allows it too
				auth = strings.NewReplacer("Authorization:", "authorization :", ",", " ,\r\n\t", "realm=", "realm = ").Replace(auth)
			}
			if res := b.invite(auth); res.status() != "603" {
				t.Errorf("with %s: %s", asked[n], res.start)
			}
		}
		// That of another realm beside it does not matter.
		auth := proof(t, res, 0, guardUser, guardPass, "INVITE", guardURI)
		if res := a.invite(strings.Replace(auth, "carrier", "other", 1), "Authorization: Basic eDp5", auth); res.status() != "603" {
			t.Errorf("with several: %s", res.start)
		}
		if got := owner.calls.Load(); got != 3 {
			t.Errorf("%d calls came in, want 3", got)
		}
		// Used, it is asked for anew.
		stale := a.invite(auth)
		if c := stale.get("Www-Authenticate"); stale.status() != "401" || !strings.Contains(c, "stale=true") {
			t.Errorf("a replay: %s %s", stale.start, c)
		}
		if res := a.invite(proof(t, stale, 0, guardUser, guardPass, "INVITE", guardURI)); res.status() != "603" {
			t.Errorf("after a stale nonce: %s", res.start)
		}
		if n := len(owner.refused); n != 0 {
			t.Errorf("%d refused: %s", n, <-owner.refused)
		}
		if in := ua.Attachments()[0].Ingress; in != (IngressStats{}) {
			t.Errorf("counted %+v", in)
		}
	})
}

// A 401 without credentials has no transaction, and its ACK ends at the door: a flood of them
// costs nothing that stays, and does not keep the others out.
func TestChallengesLeaveNothing(t *testing.T) {
	p := newPeer(t, "udp")
	ua := newTrunk(t, p, asks, func(o *AttachmentOptions) { o.InviteRate, o.PeerRate = 0.5, 1e6 })
	owner := newTold(ua)
	a := newAsker(t, p, ua, guardURI)
	base := a.call
	for i := range 500 {
		a.call = fmt.Sprint(base, i)
		if res := a.invite(); res.status() != "401" {
			t.Fatal(res.start)
		}
	}
	newAsker(t, p, ua, guardURI).ask("OPTIONS") // behind the last ACK
	s := ua.atts[0].screen
	s.busy.mu.Lock()
	held := s.busy.total
	s.busy.mu.Unlock()
	if n := ua.Attachments()[0].Calls; held != 0 || n != 0 || owner.calls.Load() != 0 {
		t.Errorf("%d transactions, %d calls", held, n)
	}
	a.call = base
	if res := a.invite(proof(t, a.invite(), 0, guardUser, guardPass, "INVITE", guardURI)); res.status() != "603" {
		t.Errorf("after 500 without a proof: %s", res.start)
	}
}

// A wrong proof gets another 401, not stale, and is told of as calls are that are turned away;
// many are not: they are counted, and keep nobody out.
func TestWrongProof(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		var lines logLines
		ua, err := New(Options{Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: network, LocalAddr: "127.0.0.1", Domain: "carrier.example",
			Targets: []string{p.addr}, OptionsInterval: -1, InviteRate: 20, PeerRate: 1e6, Challenge: Challenge{Username: guardUser, Password: guardPass}}}},
			slog.New(slog.NewTextHandler(&lines, nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ua.Close(context.Background()) })
		owner := newTold(ua)
		a := newAsker(t, p, ua, guardURI)
		first := a.invite()
		for _, wrong := range []string{proof(t, first, 0, guardUser, "guess", "INVITE", guardURI), proof(t, first, 1, "nobody", guardPass, "INVITE", guardURI)} {
			res := a.invite(wrong, "Require: nothing") // who it is comes first
			if c := res.get("Www-Authenticate"); res.status() != "401" || c == "" || strings.Contains(c, "stale") {
				t.Errorf("%s %s", res.start, c)
			}
			if r := got(t, owner.refused); r != "401 "+a.call {
				t.Errorf("told %q", r)
			}
		}
		started := time.Now()
		for range 500 {
			if res := a.invite(proof(t, first, 0, guardUser, "guess", "INVITE", guardURI)); res.status() != "401" {
				t.Fatal(res.start)
			}
		}
		most := wrongBurst + int(time.Since(started).Seconds()) + 1
		if n := len(owner.refused); n > most {
			t.Errorf("%d of 500 told, want %d at most", n, most)
		}
		if n := ua.Attachments()[0].Ingress.Refused; n < uint64(500-most) || n > 500 {
			t.Errorf("%d counted", n)
		}
		if owner.calls.Load() != 0 {
			t.Error("a wrong proof is in")
		}
		if res := a.invite(proof(t, first, 0, guardUser, guardPass, "INVITE", guardURI)); res.status() != "603" {
			t.Errorf("the right one is answered %s", res.start)
		}
		text := lines.String()
		if n := strings.Count(text, "credentials refused"); n < 1 || n > most || !strings.Contains(text, "peer=127.0.0.1 why=\"wrong user name") {
			t.Errorf("%d lines of it in\n%s", n, text)
		}
		for _, secret := range []string{guardPass, guardUser, "response="} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in the log:\n%s", secret, text)
			}
		}
	})
}

// logLines is where a log goes.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Who is asked, and who is not.
func TestWhoIsChallenged(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, asks)
		newTold(ua)
		for _, tt := range []struct {
			method string
			tag    string
			extra  []string
			before string // without a proof
			after  string // with one
		}{
			{"INVITE", "", nil, "401", "603"},
			{"INVITE", "t", nil, "481", ""},
			{"REFER", "", []string{"Refer-To: <tel:+15550123>"}, "401", "403"}, // nobody takes it
			{"REFER", "t", []string{"Refer-To: <tel:+15550123>"}, "481", ""},
			{"SUBSCRIBE", "", []string{"Event: conference"}, "401", "489"},
			{"SUBSCRIBE", "t", []string{"Event: conference"}, "481", ""},
			{"NOTIFY", "", nil, "481", ""},
			{"OPTIONS", "", nil, "200", ""},
			{"BYE", "t", nil, "481", ""},
			{"BYE", "", nil, "481", ""},
			{"UPDATE", "", nil, "481", ""},
			{"INFO", "", nil, "481", ""},
			{"CANCEL", "", nil, "481", ""},
			{"PUBLISH", "", nil, "405", ""},
			{"INVITE", "", []string{"Require: nothing"}, "401", "420"}, // who it is comes first
			{"INVITE", "", []string{"Authorization: Digest realm=\"carrier.example"}, "400", ""},
		} {
			a := newAsker(t, p, ua, guardURI)
			a.tag = tt.tag
			extra := append(tt.extra, a.contact())
			res := a.ask(tt.method, extra...)
			if a.ack(res); res.status() != tt.before {
				t.Errorf("%s %q: %s, want %s", tt.method, tt.extra, res.start, tt.before)
			}
			if tt.after != "" && res.status() == "401" {
				res = a.ask(tt.method, append(extra, proof(t, res, 0, guardUser, guardPass, tt.method, guardURI))...)
				if a.ack(res); res.status() != tt.after {
					t.Errorf("%s %q with a proof: %s, want %s", tt.method, tt.extra, res.start, tt.after)
				}
			}
		}
		// What is asked for is in the proof: that of a REFER is none for an INVITE, that of one
		// conference none for another.
		a := newAsker(t, p, ua, guardURI)
		res := a.invite()
		if res := a.invite(proof(t, res, 0, guardUser, guardPass, "REFER", guardURI)); res.status() != "401" {
			t.Errorf("the proof of a REFER: %s", res.start)
		}
		if res := a.invite(proof(t, res, 0, guardUser, guardPass, "INVITE", "sip:other@carrier.example")); res.status() != "400" {
			t.Errorf("the proof of another conference: %s", res.start)
		}
		if res := a.invite(proof(t, res, 0, guardUser, guardPass, "INVITE", "sip:conf@127.0.0.1:5060;transport=udp")); res.status() != "603" {
			t.Errorf("our address in place of our domain: %s", res.start)
		}
	})
}

// A call that was let in is not asked again, and the same INVITE by another way is the same one,
// whose proof it has.
func TestChallengedCall(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		p := newPeer(t, network)
		ua := newTrunk(t, p, asks)
		k := take(t, ua)
		c := newCaller(t, p, ua)
		c.request("INVITE", "i1", 1, "", "\n"+offerSDP)
		res := p.expect("401")
		c.request("ACK", "i1", 1, tagIn(res))
		auth := proof(t, res, 0, guardUser, guardPass, "INVITE", "sip:conf@"+c.ua)
		c.request("INVITE", "i2", 2, "", auth, "\n"+offerSDP)
		p.expect("100")
		_, call := k.next()
		c.request("INVITE", "other way", 2, "", auth, "\n"+offerSDP)
		res = p.expect("482")
		c.request("ACK", "other way", 2, tagIn(res))
		call.Accept(Acceptance{SDP: []byte(answerSDP)})
		ok := p.expect("200")
		c.request("ACK", "a2", 2, tagIn(ok))
		next[Connected](k.events)
		c.request("INVITE", "i3", 3, tagIn(ok), "\n"+offerSDP)
		offer := next[Offer](k.events)
		call.Reply(offer.ID, []byte(answerSDP), 200)
		for ok = p.expect("200"); !strings.Contains(ok.get("Cseq"), "3 INVITE"); {
			ok = p.expect("200")
		}
		c.request("ACK", "a3", 3, tagIn(ok))
		next[Replied](k.events)
		c.request("BYE", "b4", 4, tagIn(ok))
		p.expect("200")
		next[Ended](k.events)
		// The record of the call begins with how it was let in.
		messages, _ := ua.Trace("in@caller")
		var starts []string
		for _, m := range messages {
			line, _, _ := strings.Cut(string(m.Raw), "\r\n")
			method, rest, _ := strings.Cut(line, " ")
			if method == "SIP/2.0" {
				method, _, _ = strings.Cut(rest, " ")
			}
			starts = append(starts, map[bool]string{true: "> ", false: "< "}[m.Sent]+method)
		}
		if want := "< INVITE, > 401, < ACK, < INVITE, > 100,"; !strings.HasPrefix(strings.Join(starts, ", "), want) {
			t.Errorf("the record is %q, want %q first", starts, want)
		}
	})
}

// Our own user agent, which answers challenges itself, gets in at one that asks for a proof, by the
// strongest algorithm, and with another password it does not.
func TestTrunkToTrunk(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for _, tt := range []struct {
			algorithms []string
			password   string
			status     int
			want       string
		}{
			{nil, guardPass, 603, "SHA-256"},
			{[]string{"MD5", "SHA-512-256"}, guardPass, 603, "SHA-512-256"},
			{[]string{"MD5"}, guardPass, 603, "MD5"},
			{nil, "guess", 401, "SHA-256"},
		} {
			t.Run(fmt.Sprint(tt.algorithms, tt.status), func(t *testing.T) {
				asking := newTrunk(t, newPeer(t, network), asks, func(o *AttachmentOptions) { o.Challenge.Algorithms = tt.algorithms })
				owner := newTold(asking)
				asked := newTrunk(t, newPeer(t, network), func(o *AttachmentOptions) {
					o.Targets, o.IMPI, o.Auth = []string{asking.Attachments()[0].LocalAddr}, guardUser, Auth{Password: tt.password}
				})
				_, ev := place(t, asked)
				if e := next[Ended](ev); e.Status != tt.status || e.Connected {
					t.Errorf("ended %+v", e)
				}
				id := ""
				if tt.status == 401 {
					_, id, _ = strings.Cut(got(t, owner.refused), " ")
				} else if id = *owner.called.Load(); len(owner.refused) != 0 || owner.calls.Load() != 1 {
					t.Errorf("%d calls, %d refused", owner.calls.Load(), len(owner.refused))
				}
				var proofs []string
				messages, _ := asked.Trace(id)
				for _, m := range messages {
					if _, after, ok := strings.Cut(string(m.Raw), "algorithm="); ok && m.Sent && strings.HasPrefix(string(m.Raw), "INVITE") {
						alg, _, _ := strings.Cut(after, ",")
						proofs = append(slices.DeleteFunc(proofs, func(p string) bool { return p == alg }), alg) // over UDP it may come again
					}
				}
				if len(proofs) != 1 || proofs[0] != tt.want {
					t.Errorf("proven by %q, want %s", proofs, tt.want)
				}
			})
		}
	})
}

func TestSameResource(t *testing.T) {
	a := &attachment{host: "192.0.2.10", o: AttachmentOptions{Domain: "our.example"}}
	for _, tt := range []struct {
		proven, asked string
		want          bool
	}{
		{"sip:conf@our.example", "sip:conf@our.example", true},
		{"sip:conf@OUR.example", "sip:conf@our.example", true},
		{"sip:Conf@our.example", "sip:conf@our.example", false},
		{"sip:other@our.example", "sip:conf@our.example", false},
		{"sip:con%66@our.example", "sip:conf@our.example", true},
		{"sip:conf@our.example", "sip:conf@192.0.2.10:5060;transport=tcp", true},
		{"sip:conf@our.example:5070", "sip:conf@our.example", true},
		{"sips:conf@our.example", "sip:conf@our.example", true},
		{"sip:conf@their.example", "sip:conf@our.example", false},
		{"sip:conf@their.example", "sip:conf@their.example", true},
		{"sip:conf@our.example", "sip:conf@192.0.2.11", false},
		{"sip:conf@our.example?Replaces=x", "sip:conf@our.example", true},
		{"sip:+15550199@our.example;user=phone", "tel:+1-555-0199", true},
		{"tel:+15550199", "sip:+15550199;npdi@their.example", true},
		{"tel:+15550199", "sip:+15550198@our.example", false},
		{"tel:+15550199", "tel:+15550199;cpc=ordinary", true},
		{"tel:199;phone-context=a", "tel:199", true},
		{"tel:199", "tel:198", false},
		{"sip:our.example", "sip:192.0.2.10:5060", true},
		{"sip:our.example", "sip:conf@our.example", false},
		{"sip:[2001:db8::1]:5060", "sip:[2001:db8::1]", true},
		{"sip:a:pw@our.example", "sip:a@our.example", true},
		{"", "sip:conf@our.example", false},
		{"", "", true},
		{"tel:", "sip:our.example", false},
		{"urn:service:sos", "urn:service:SOS", true},
		{"urn:service:sos", "urn:service:sos.fire", false},
		{"tel:conf", "sip:conf@our.example", false},
		{"tel:199;phone-context=our.example", "sip:199@our.example", false},
	} {
		if got := a.sameResource(tt.proven, tt.asked); got != tt.want {
			t.Errorf("%q for %q: %v", tt.proven, tt.asked, got)
		}
	}
}

// Whatever a peer writes there is the same as itself, and as nothing that names another user.
func FuzzSameResource(f *testing.F) {
	f.Add("sip:+15550199;npdi@[2001:db8::1]:5060;user=phone?x=y")
	f.Add("tel:+1(555)0199")
	a := &attachment{host: "192.0.2.10", o: AttachmentOptions{Domain: "our.example"}}
	f.Fuzz(func(t *testing.T, uri string) {
		if !a.sameResource(uri, uri) {
			t.Errorf("%q is not itself", uri)
		}
		if a.sameResource(uri, "sip:conf@our.example") && !strings.Contains(strings.ToLower(uri), "sip") {
			t.Errorf("%q is us", uri)
		}
	})
}
