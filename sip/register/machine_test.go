package register

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sparkle/sip/aka"
	"sparkle/sip/digest"
	"sparkle/sip/reginfo"
)

const (
	testK   = "465b5ce8b199b49faa5f0a2ee238a6bc"
	testOPc = "cd63cb71954a9f4e48a5994e37a02baf"
)

func sim(t testing.TB) *aka.Milenage {
	t.Helper()
	m, err := aka.NewHex(testK, "", testOPc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newMachine(t testing.TB, algorithms ...string) machine {
	return machine{state: Unregistered, cfg: &settings{domain: "ims.test", realm: "ims.test", impi: "u@ims.test",
		algorithms: algorithms, password: []byte("pw"), sim: sim(t), targets: []string{"0"}, expires: 600000 * time.Second,
		chance: func() float64 { return 0 }}}
}

var (
	epoch   = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	granted = response{status: 200, granted: time.Hour, found: true, routes: []string{"<sip:orig@scscf;lr>"}, uris: []string{"tel:+1"}}
)

func md5Challenge(nonce string, stale bool) response {
	return response{status: 401, challenges: []digest.Challenge{{Realm: "ims.test", Nonce: nonce,
		Algorithm: digest.MD5, QOP: []string{"auth"}, Stale: stale}}}
}

func akaChallenge(t testing.TB, sqn uint64, forge bool) response {
	v := sim(t).Vector([16]byte{byte(sqn)}, sqn, [2]byte{0x80})
	if forge {
		v.AUTN[15] ^= 1
	}
	return response{status: 401, challenges: []digest.Challenge{{Realm: "ims.test", Nonce: v.Nonce(),
		Algorithm: digest.AKAv1MD5, QOP: []string{"auth"}}}}
}

// describe writes what a step led to: "registered sends(proof) wakes 30m".
func describe(m machine, acts []any, now time.Time) string {
	var b strings.Builder
	b.WriteString(string(m.state))
	if m.home == "1" && m.state == Registered && !m.held() {
		b.WriteString(" at 1")
	}
	if m.held() {
		b.WriteString(", held")
	}
	for _, a := range acts {
		switch a := a.(type) {
		case send:
			kind := "nothing"
			switch {
			case a.auts != "":
				kind = "auts"
			case a.fixed != nil:
				kind = "empty response"
			case a.proof != nil:
				kind = "proof"
			}
			fmt.Fprintf(&b, ", sends %s for %ds to %s", kind, a.expires/time.Second, a.target)
			if a.brief {
				b.WriteString(" soon")
			}
			if a.clear {
				b.WriteString(" in clear")
			}
			if a.offer {
				b.WriteString(" offering")
			}
			if a.verify != nil {
				fmt.Fprintf(&b, " verifying %q", a.verify)
			}
		case saveSQN:
			fmt.Fprintf(&b, ", saves %d", a.sqn)
		case done:
			b.WriteString(", done")
		}
	}
	if !m.wakeAt.IsZero() {
		fmt.Fprintf(&b, ", wakes in %v", m.wakeAt.Sub(now))
	}
	return b.String()
}

// Every row of IMS.md §1a, "Failures of REGISTER", and the good way. chance is 0: a
// refresh comes exactly at its time, a back-off is half of its longest.
func ended(event string, retry time.Duration) notice {
	return notice{reginfo.Contact{State: "terminated", Event: event, RetryAfter: retry}}
}

func active(event string, expires time.Duration) notice {
	return notice{reginfo.Contact{State: "active", Event: event, Expires: expires}}
}

// flow is the loss of the flow to a P-CSCF, so long after the last input; before: it is old news.
func flow(target string, after time.Duration, mute bool) lost {
	return lost{Target: target, At: epoch.Add(after), Mute: mute, Why: "lost"}
}

func TestMachine(t *testing.T) {
	type in = any
	md5, akaV1 := []string{digest.MD5}, []string{digest.AKAv1MD5}
	sent := "registering, sends nothing for 600000s to 0"
	proof := "registering, sends proof for 600000s to 0"
	longGrant := granted
	longGrant.granted = 600000 * time.Second
	for _, tt := range []struct {
		name    string
		alg     []string
		targets int
		in      []in
		want    []string
	}{
		{"open network", md5, 1, []in{start{}, granted}, []string{sent, "registered, wakes in 50m0s"}},
		{"long lifetime", md5, 1, []in{start{}, longGrant}, []string{sent, "registered, wakes in 166h30m0s"}},
		{"short lifetime", md5, 1, []in{start{}, response{status: 200, found: true, granted: 540 * time.Second}},
			[]string{sent, "registered, wakes in 4m30s"}},
		{"MD5", md5, 1, []in{start{}, md5Challenge("a", false), granted}, []string{sent, proof, "registered, wakes in 50m0s"}},
		{"wrong password", md5, 1, []in{start{}, md5Challenge("a", false), md5Challenge("b", false)},
			[]string{sent, proof, "auth_failed, wakes in 30m0s"}},
		{"stale once", md5, 1, []in{start{}, md5Challenge("a", false), md5Challenge("b", true), granted},
			[]string{sent, proof, proof, "registered, wakes in 50m0s"}},
		{"stale for ever", md5, 1, []in{start{}, md5Challenge("a", true), md5Challenge("b", true), md5Challenge("c", true)},
			[]string{sent, proof, proof, "auth_failed, wakes in 30m0s"}},
		{"downgrade", akaV1, 1, []in{start{}, md5Challenge("a", false)}, []string{sent, "auth_failed, wakes in 30m0s"}},
		{"nonsense challenge", md5, 1, []in{start{}, response{status: 401, badAuth: errors.New("x")}},
			[]string{sent, "unregistered, wakes in 30s"}},
		{"AKA", akaV1, 1, []in{start{}, akaChallenge(t, 7, false), granted},
			[]string{sent, "registering, saves 7, sends proof for 600000s to 0", "registered, wakes in 50m0s"}},
		{"AKA, second vector", akaV1, 1, []in{start{}, akaChallenge(t, 7, false), akaChallenge(t, 8, false), granted},
			[]string{sent, "registering, saves 7, sends proof for 600000s to 0", "registering, saves 8, sends proof for 600000s to 0", "registered, wakes in 50m0s"}},
		{"AKA, wrong for ever", akaV1, 1, []in{start{}, akaChallenge(t, 7, false), akaChallenge(t, 8, false), akaChallenge(t, 9, false)},
			[]string{sent, "registering, saves 7, sends proof for 600000s to 0", "registering, saves 8, sends proof for 600000s to 0", "auth_failed, wakes in 30m0s"}},
		{"AKA out of step", akaV1, 1, []in{start{}, akaChallenge(t, 0, false), akaChallenge(t, 33, false), granted},
			[]string{sent, "registering, sends auts for 600000s to 0", "registering, saves 33, sends proof for 600000s to 0", "registered, wakes in 50m0s"}},
		{"AKA never in step", akaV1, 1, []in{start{}, akaChallenge(t, 0, false), akaChallenge(t, 0, false), akaChallenge(t, 0, false)},
			[]string{sent, "registering, sends auts for 600000s to 0", "registering, sends auts for 600000s to 0", "unregistered, wakes in 30s"}},
		{"AKA forged once", akaV1, 1, []in{start{}, akaChallenge(t, 7, true), akaChallenge(t, 8, false), granted},
			[]string{sent, "registering, sends empty response for 600000s to 0", "registering, saves 8, sends proof for 600000s to 0", "registered, wakes in 50m0s"}},
		{"AKA forged twice", akaV1, 1, []in{start{}, akaChallenge(t, 7, true), akaChallenge(t, 8, true)},
			[]string{sent, "registering, sends empty response for 600000s to 0", "auth_failed, wakes in 30s"}},
		{"403 to our proof", md5, 1, []in{start{}, md5Challenge("a", false), response{status: 403}}, []string{sent, proof, "auth_failed, wakes in 30m0s"}},
		{"403", md5, 1, []in{start{}, response{status: 403}, wake{}}, []string{sent, "rejected, wakes in 30m0s", "registering, sends nothing for 600000s to 0"}},
		{"403, another P-CSCF once", md5, 2, []in{start{}, response{status: 403}, response{status: 403}},
			[]string{sent, "registering, sends nothing for 600000s to 1", "rejected, wakes in 30m0s"}},
		{"404", md5, 1, []in{start{}, response{status: 404}}, []string{sent, "rejected, wakes in 30s"}},
		{"480", md5, 1, []in{start{}, response{status: 480}}, []string{sent, "rejected, wakes in 30s"}},
		{"420 path", md5, 1, []in{start{}, response{status: 420, noPath: true}, response{status: 420, noPath: true}},
			[]string{sent, sent, "unregistered, wakes in 30s"}},
		{"423", md5, 1, []in{start{}, response{status: 423, minExpires: 700000 * time.Second}, granted},
			[]string{sent, "registering, sends nothing for 700000s to 0", "registered, wakes in 50m0s"}},
		{"423 without sense", md5, 1, []in{start{}, response{status: 423, minExpires: time.Second}},
			[]string{sent, "unregistered, wakes in 30s"}},
		{"494", md5, 1, []in{start{}, response{status: 494}}, []string{sent, "rejected, wakes in 30m0s"}},
		{"305 next", md5, 2, []in{start{}, response{status: 305}}, []string{sent, "registering, sends nothing for 600000s to 1"}},
		{"503, all P-CSCFs", md5, 2, []in{start{}, response{status: 503}, response{status: 500}},
			[]string{sent, "registering, sends nothing for 600000s to 1", "unregistered, wakes in 30s"}},
		{"503 Retry-After", md5, 2, []in{start{}, response{status: 503, retryAfter: 17 * time.Second}},
			[]string{sent, "unregistered, wakes in 17s"}},
		{"a lost connection is replaced at once, a second time it waits", md5, 1,
			[]in{start{}, failure{ErrLost}, failure{ErrLost}}, []string{sent, sent, "unregistered, wakes in 30s"}},
		{"silence", md5, 1, []in{start{}, failure{errors.New("timeout")}}, []string{sent, "unregistered, wakes in 30s"}},
		{"200 without us", md5, 1, []in{start{}, response{status: 200}}, []string{sent, "unregistered, wakes in 30s"}},
		{"200 for no time", md5, 1, []in{start{}, response{status: 200, found: true}}, []string{sent, "unregistered, wakes in 30s"}},
		{"200 with wrong rspauth", md5, 1, []in{start{}, md5Challenge("a", false), response{status: 200, found: true, granted: time.Hour, badAuth: errors.New("x")}},
			[]string{sent, proof, "unregistered, wakes in 30s"}},
		{"600", md5, 1, []in{start{}, response{status: 600}}, []string{sent, "unregistered, wakes in 30s"}},
		{"refresh with the old nonce", md5, 1, []in{start{}, md5Challenge("a", false), granted, wake{}, granted},
			[]string{sent, proof, "registered, wakes in 50m0s", "registered, sends proof for 600000s to 0, wakes in 10m0s", "registered, wakes in 50m0s"}},
		{"refresh, new nonce", md5, 1, []in{start{}, md5Challenge("a", false), granted, wake{}, md5Challenge("b", true), granted},
			[]string{sent, proof, "registered, wakes in 50m0s", "registered, sends proof for 600000s to 0, wakes in 10m0s",
				"registered, sends proof for 600000s to 0, wakes in 10m0s", "registered, wakes in 50m0s"}},
		{"expires while the refresh waits for its answer", md5, 1, []in{start{}, granted, wake{}, wake{}, granted},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 600000s to 0, wakes in 10m0s", "registering",
				"registered, wakes in 50m0s"}},
		// 10 minutes are left when the refresh fails: back-offs of half of 60, 120 … s, and then the end
		{"refresh fails until expiry", md5, 1, []in{start{}, granted, wake{}, failure{errors.New("x")}, wake{}, failure{errors.New("x")},
			wake{}, failure{errors.New("x")}, wake{}, failure{errors.New("x")}, wake{}},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 600000s to 0, wakes in 10m0s", "registered, wakes in 30s",
				"registered, sends nothing for 600000s to 0, wakes in 9m30s", "registered, wakes in 1m0s", "registered, sends nothing for 600000s to 0, wakes in 8m30s",
				"registered, wakes in 2m0s", "registered, sends nothing for 600000s to 0, wakes in 6m30s", "registered, wakes in 4m0s",
				"registered, sends nothing for 600000s to 0, wakes in 2m30s"}},
		{"Retry-After for ever", md5, 1, []in{start{}, response{status: 503, retryAfter: 1e6 * time.Hour}}, []string{sent, "unregistered, wakes in 1h0m0s"}},
		{"Retry-After is longer than the registration", md5, 1, []in{start{}, granted, wake{}, response{status: 503, retryAfter: 12 * time.Minute}, wake{}, wake{}},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 600000s to 0, wakes in 10m0s", "registered, wakes in 10m0s",
				"unregistered, wakes in 2m0s", sent}},
		{"probation for ever", md5, 1, []in{start{}, granted, ended("probation", 1e6*time.Hour)},
			[]string{sent, "registered, wakes in 50m0s", "unregistered, wakes in 1h0m0s"}},
		{"an admin tries again after 403", md5, 1, []in{start{}, response{status: 403}, start{}, granted}, []string{sent, "rejected, wakes in 30m0s", sent, "registered, wakes in 50m0s"}},
		{"an admin tries again after a wrong password", md5, 1, []in{start{}, md5Challenge("a", false), md5Challenge("b", false), start{}},
			[]string{sent, proof, "auth_failed, wakes in 30m0s", sent}},
		{"an admin tries again where the network rejected", md5, 1, []in{start{}, granted, ended("rejected", 0), start{}},
			[]string{sent, "registered, wakes in 50m0s", "rejected", sent}},
		{"flow lost", md5, 2, []in{start{}, granted, flow("0", 0, false), granted},
			[]string{sent, "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 0 soon, wakes in 1h0m0s", "registered, wakes in 50m0s"}},
		{"flow lost, nobody at the other end", md5, 2, []in{start{}, granted, flow("0", 0, false), failure{errors.New("refused")}, granted},
			[]string{sent, "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 0 soon, wakes in 1h0m0s",
				"registered, held, sends nothing for 600000s to 1, wakes in 1h0m0s", "registered at 1, wakes in 50m0s"}},
		{"mute", md5, 2, []in{start{}, granted, flow("0", 0, true), granted, flow("0", 0, true), flow("1", 0, true), wake{}},
			[]string{sent, "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 1 soon, wakes in 1h0m0s", "registered at 1, wakes in 50m0s",
				"registered at 1, wakes in 50m0s", "registered at 1, wakes in 5s", "registered, held, sends nothing for 600000s to 0 soon, wakes in 59m55s"}},
		{"a peer that closes after each answer", md5, 1, []in{start{}, granted, flow("0", 0, false), granted, flow("0", 0, false), flow("0", 0, false), wake{}, granted, flow("0", 0, false),
			wake{}, granted, flow("0", time.Minute, false)},
			[]string{sent, "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 0, wakes in 1h0m0s", "registered, wakes in 50m0s", "registered, wakes in 5s", "registered, wakes in 5s",
				"registered, held, sends nothing for 600000s to 0, wakes in 59m55s", "registered, wakes in 50m0s", "registered, wakes in 10s",
				"registered, held, sends nothing for 600000s to 0, wakes in 59m50s", "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 0, wakes in 59m0s"}},
		{"flow lost, nobody anywhere", md5, 1, []in{start{}, granted, flow("0", 0, false), failure{errors.New("x")}},
			[]string{sent, "registered, wakes in 50m0s", "registered, held, sends nothing for 600000s to 0, wakes in 1h0m0s", "unregistered, wakes in 30s"}},
		{"flow lost while the refresh waits", md5, 2, []in{start{}, granted, wake{}, flow("0", 0, false), failure{errors.New("x")}, granted},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 600000s to 0, wakes in 10m0s", "registered, held, wakes in 10m0s",
				"registered, held, sends nothing for 600000s to 1, wakes in 10m0s", "registered at 1, wakes in 50m0s"}},
		{"an old flow", md5, 1, []in{start{}, granted, flow("0", -time.Second, false)}, []string{sent, "registered, wakes in 50m0s", "registered, wakes in 50m0s"}},
		// until another has taken it the registration is where it was, and ends there
		{"a refresh is refused for a while", md5, 2, []in{start{}, granted, wake{}, response{status: 503, retryAfter: time.Minute}, wake{}, stop{}},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 600000s to 0, wakes in 10m0s", "registered, wakes in 1m0s",
				"registered, sends nothing for 600000s to 1, wakes in 9m0s", "registered, sends nothing for 0s to 0"}},
		{"network deactivates", md5, 1, []in{start{}, granted, ended("deactivated", 0), wake{}},
			[]string{sent, "registered, wakes in 50m0s", "unregistered, wakes in 0s", sent}},
		{"network puts on probation", md5, 1, []in{start{}, granted, ended("probation", 42*time.Second), wake{}},
			[]string{sent, "registered, wakes in 50m0s", "unregistered, wakes in 42s", sent}},
		{"network rejects", md5, 1, []in{start{}, granted, ended("rejected", 0)}, []string{sent, "registered, wakes in 50m0s", "rejected"}},
		{"network expires", md5, 1, []in{start{}, granted, ended("expired", 0)}, []string{sent, "registered, wakes in 50m0s", "unregistered, wakes in 30s"}},
		{"somebody unregistered us", md5, 1, []in{start{}, granted, ended("unregistered", 0)}, []string{sent, "registered, wakes in 50m0s", "unregistered, wakes in 30s"}},
		{"network shortens", md5, 1, []in{start{}, granted, active("shortened", 600*time.Second), wake{}},
			[]string{sent, "registered, wakes in 50m0s", "registered, wakes in 5m0s", "registered, sends nothing for 600000s to 0, wakes in 5m0s"}},
		{"network has refreshed", md5, 1, []in{start{}, granted, active("refreshed", 7200*time.Second)},
			[]string{sent, "registered, wakes in 50m0s", "registered, wakes in 1h50m0s"}},
		{"active without a time is no news", md5, 1, []in{start{}, granted, active("registered", 0)},
			[]string{sent, "registered, wakes in 50m0s", "registered, wakes in 50m0s"}},
		{"a notice while a REGISTER is out is older than its answer", md5, 1, []in{start{}, ended("rejected", 0), granted}, []string{sent, "registering", "registered, wakes in 50m0s"}},
		{"the notice of our own de-registration", md5, 1, []in{start{}, granted, stop{}, ended("unregistered", 0), response{status: 200}},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 0s to 0", "registered", "unregistered, done"}},
		{"de-registers", md5, 1, []in{start{}, md5Challenge("a", false), granted, stop{}, md5Challenge("b", true), response{status: 200}},
			[]string{sent, proof, "registered, wakes in 50m0s", "registered, sends proof for 0s to 0", "registered, sends proof for 0s to 0", "unregistered, done"}},
		{"stopped before anything", md5, 1, []in{stop{}}, []string{"unregistered, done"}},
		{"stopped when rejected", md5, 1, []in{start{}, response{status: 403}, stop{}}, []string{sent, "rejected, wakes in 30m0s", "unregistered, done"}},
		{"nobody answers the de-registration", md5, 1, []in{start{}, granted, stop{}, failure{errors.New("x")}},
			[]string{sent, "registered, wakes in 50m0s", "registered, sends nothing for 0s to 0", "unregistered, done"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.alg...)
			m.cfg.targets = []string{"0", "1", "2"}[:tt.targets]
			play(t, m, tt.in, tt.want)
		})
	}
}

// play gives a machine its inputs and compares what each leads to. It returns the machine.
func play(t *testing.T, m machine, inputs []any, want []string) machine {
	t.Helper()
	now := epoch
	for i, in := range inputs {
		switch l := in.(type) {
		case wake:
			now = m.wakeAt
		case time.Duration: // time passes, and nothing else
			now = now.Add(l)
			continue
		case lost: // it says how long after the last input, or before
			ago := l.At.Sub(epoch)
			now = now.Add(max(ago, 0))
			l.At = now.Add(min(ago, 0))
			in = l
		}
		var acts []any
		m, acts = m.step(now, in)
		got := describe(m, acts, now)
		if got != want[0] {
			t.Fatalf("step %d (%T): %s\nwant %s", i+1, in, got, want[0])
		}
		want = want[1:]
	}
	return m
}

// A registration whose refreshes fail ends when it expires, not earlier, not later.
func TestExpiry(t *testing.T) {
	m, _ := newMachine(t, digest.MD5).step(epoch, start{})
	m, _ = m.step(epoch, granted)
	for now := m.wakeAt; ; now = m.wakeAt {
		m, _ = m.step(now, wake{})
		if want := now.Before(epoch.Add(time.Hour)); (m.state == Registered) != want {
			t.Fatalf("%v after the start: %s", now.Sub(epoch), m.state)
		}
		if m.state != Registered {
			if len(m.routes) != 0 || !m.expiresAt.IsZero() {
				t.Errorf("keeps %v until %v", m.routes, m.expiresAt)
			}
			return
		}
		m, _ = m.step(now, failure{errors.New("silence")})
	}
}

// RFC 5626 §4.5: doubling from 30 s to 30 minutes, 50 to 100 % of it.
func TestBackoff(t *testing.T) {
	for _, chance := range []float64{0, 1} {
		m := newMachine(t, digest.MD5)
		m.cfg.chance = func() float64 { return chance }
		now := epoch
		for _, full := range []time.Duration{60, 120, 240, 480, 960, 1800, 1800} {
			m, _ = m.step(now, start{})
			m, _ = m.step(now, failure{errors.New("x")})
			want := time.Duration(float64(full*time.Second) * (0.5 + 0.5*chance))
			if got := m.wakeAt.Sub(now); got != want {
				t.Errorf("chance %v: waits %v, want %v", chance, got, want)
			}
			now = m.wakeAt
		}
	}
}

func TestRefreshAfter(t *testing.T) {
	for _, tt := range []struct {
		granted time.Duration
		chance  float64
		want    time.Duration
	}{
		{600000 * time.Second, 0, 599400 * time.Second}, {1201 * time.Second, 0, 601 * time.Second},
		{1200 * time.Second, 0, 600 * time.Second}, {54 * time.Second, 0, 27 * time.Second},
		{1200 * time.Second, 1, 540 * time.Second}, {time.Second, 0, time.Second},
	} {
		if got := refreshAfter(tt.granted, tt.chance); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.granted, got, tt.want)
		}
	}
}

// The AUTS we send lets the network catch up.
func TestResync(t *testing.T) {
	m := newMachine(t, digest.AKAv1MD5)
	m.sqn = 99
	m, _ = m.step(epoch, start{})
	c := akaChallenge(t, 5, false)
	_, acts := m.step(epoch, c)
	auts, err := base64.StdEncoding.DecodeString(acts[0].(send).auts)
	if err != nil {
		t.Fatal(err)
	}
	rand, _, _ := aka.ParseNonce(c.challenges[0].Nonce)
	if got, err := sim(t).Resync(rand, auts); err != nil || got != 99 {
		t.Errorf("network learns %d, %v", got, err)
	}
}

// Whatever comes, in whatever order, the machine never stops without a timer, and after
// stop it always comes to an end.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 4, 1, 5, 2, 4, 7, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		inputs := []any{start{}, md5Challenge("a", true), wake{}, failure{errors.New("x")}, granted, response{status: 403},
			response{status: 503}, response{status: 423, minExpires: 10}, akaChallenge(t, 3, false), akaChallenge(t, 3, true), response{status: 180}, flow("0", time.Hour, true)}
		m, now := newMachine(t, digest.MD5, digest.AKAv1MD5), epoch
		m, _ = m.step(now, start{})
		for _, b := range script {
			in := inputs[int(b)%len(inputs)]
			if _, ok := in.(wake); ok && !m.wakeAt.IsZero() {
				now = m.wakeAt
			}
			m, _ = m.step(now, in)
			if !m.waiting && m.wakeAt.IsZero() {
				t.Fatalf("%s: neither waits nor wakes after %T", m.state, in)
			}
			if m.state == Registered && now.After(m.expiresAt) && !m.waiting {
				t.Fatalf("registered after expiry")
			}
		}
		m, acts := m.step(now, stop{})
		for range 10 {
			if slices.Contains(acts, any(done{})) {
				return
			}
			m, acts = m.step(now, md5Challenge("z", true))
		}
		t.Fatal("never done")
	})
}
