package lab

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab/wire"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

var testSIM = Auth{Algorithm: AKAv1, K: []byte("0123456789abcdef"), OPc: []byte("fedcba9876543210"), SQN: 64}

func TestRegistrationByEachAlgorithm(t *testing.T) {
	for _, tt := range []struct {
		name  string
		proto string
		auth  Auth
	}{
		{"MD5 over UDP", "udp", Auth{Algorithm: MD5, Password: "geheim"}},
		{"SHA-256 over TCP", "tcp", Auth{Algorithm: SHA256, Password: "geheim"}},
		{"AKA over TCP", "tcp", testSIM},
		{"AKA over UDP", "udp", testSIM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCore(t, CoreOptions{MaxExpires: 300 * time.Second})
			r := newUE(t, c, tt.proto).subscriber("+15550100", tt.auth)
			challenge := r.register(600, "")
			if challenge.Status != 401 || !strings.Contains(challenge.Get("WWW-Authenticate"), "algorithm="+tt.auth.Algorithm) {
				t.Fatalf("first answer %d %s", challenge.Status, challenge.Get("WWW-Authenticate"))
			}
			if c.Registered(r.impu) {
				t.Error("registered without proof")
			}
			ok := r.register(600, r.proof(challenge, nil, 1))
			if ok.Status != 200 || !c.Registered(r.impu) {
				t.Fatalf("second answer %d, registered %v", ok.Status, c.Registered(r.impu))
			}
			if got := ok.Get("Contact"); !strings.HasSuffix(got, ";expires=300") || !strings.Contains(got, r.contact("me")) || !strings.Contains(got, ";video") {
				t.Errorf("Contact %q: want ours, its tags, and 300 s granted", got)
			}
			if sr := ok.Values("Service-Route"); len(sr) != 1 || !strings.Contains(sr[0], c.Addr().String()+";lr") {
				t.Errorf("Service-Route %q", sr)
			}
			if ids := ok.Values("P-Associated-URI"); len(ids) != 2 || ids[0] != "<"+r.impu+">" || ids[1] != "<tel:+15550100>" {
				t.Errorf("P-Associated-URI %q", ids)
			}
			if ok.Get("Path") == "" || !strings.Contains(ok.Get("Authentication-Info"), `rspauth="`) {
				t.Errorf("Path %q, Authentication-Info %q", ok.Get("Path"), ok.Get("Authentication-Info"))
			}
			// Refresh with the same nonce and the next nc, then leave.
			refresh := digestNext(r, challenge, 2, ok)
			if got := r.register(600, refresh); got.Status != 200 {
				t.Errorf("refresh answered %d", got.Status)
			}
			if got := r.register(600, refresh); got.Status != 401 {
				t.Errorf("a replayed proof answered %d, want 401", got.Status)
			}
			r.seq++
			off := r.register(0, r.proof(r.register(0, ""), nil, 1))
			if off.Status != 200 || c.Registered(r.impu) || off.Get("Contact") != "" {
				t.Errorf("de-registration answered %d, registered %v", off.Status, c.Registered(r.impu))
			}
		})
	}
}

// digestNext proves once more to the same challenge; a SIM has used it up, so its RES
// is computed anew.
func digestNext(r *registrant, challenge *wire.Message, nc int, _ *wire.Message) string {
	if r.auth.Algorithm == AKAv1 {
		r.sqn = 0
	}
	return r.proof(challenge, nil, nc)
}

func TestWrongProofIsChallengedOnceMoreThenForbidden(t *testing.T) {
	c := startCore(t, CoreOptions{})
	r := newUE(t, c, "udp").subscriber("+15550100", Auth{Algorithm: SHA256, Password: "right"})
	again := r.register(600, r.proof(r.register(600, ""), []byte("wrong"), 1))
	if again.Status != 401 || strings.Contains(again.Get("WWW-Authenticate"), "stale") {
		t.Fatalf("first wrong proof answered %d %s, want a fresh 401", again.Status, again.Get("WWW-Authenticate"))
	}
	if got := r.register(600, r.proof(again, []byte("wrong"), 1)); got.Status != 403 {
		t.Errorf("second wrong proof answered %d, want 403", got.Status)
	}
	if c.Registered(r.impu) {
		t.Error("registered with a wrong password")
	}
}

func TestRegistrarRefuses(t *testing.T) {
	c := startCore(t, CoreOptions{MinExpires: 60 * time.Second})
	r := newUE(t, c, "udp").subscriber("+15550100", Auth{Password: "x"})
	t.Run("interval too brief", func(t *testing.T) {
		got := r.register(30, r.proof(r.register(30, ""), nil, 1))
		if got.Status != 423 || got.Get("Min-Expires") != "60" {
			t.Errorf("%d, Min-Expires %q", got.Status, got.Get("Min-Expires"))
		}
	})
	t.Run("made-up nonce", func(t *testing.T) {
		ch := r.register(600, "")
		ch.Set("WWW-Authenticate", strings.Replace(ch.Get("WWW-Authenticate"), `nonce="`, `nonce="0`, 1))
		if got := r.register(600, r.proof(ch, nil, 1)); got.Status != 401 || !strings.Contains(got.Get("WWW-Authenticate"), "stale=true") {
			t.Errorf("%d %q, want 401 stale", got.Status, got.Get("WWW-Authenticate"))
		}
	})
	t.Run("somebody else's identity", func(t *testing.T) {
		if got := r.register(600, `Digest username="other@x",realm="`+c.Domain()+`",nonce="",response="",uri="sip:`+c.Domain()+`"`); got.Status != 403 {
			t.Errorf("%d, want 403", got.Status)
		}
	})
	t.Run("unknown user", func(t *testing.T) {
		u := *r
		u.impu = "sip:+19999@" + c.Domain()
		if got := u.register(600, ""); got.Status != 403 {
			t.Errorf("%d, want 403", got.Status)
		}
	})
}

// A SIM that is ahead of the network sends AUTS and gets a challenge it can use.
func TestAKAResynchronises(t *testing.T) {
	c := startCore(t, CoreOptions{})
	r := newUE(t, c, "tcp").subscriber("+15550100", testSIM)
	r.sqn = 1 << 20
	first := r.proof(r.register(600, ""), nil, 1)
	if !strings.Contains(first, "auts=") {
		t.Fatalf("the SIM took an old challenge: %s", first)
	}
	second := r.register(600, first)
	if second.Status != 401 {
		t.Fatalf("AUTS answered %d", second.Status)
	}
	if got := r.register(600, r.proof(second, nil, 1)); got.Status != 200 {
		t.Errorf("after resynchronisation %d, want 200", got.Status)
	}
}

func TestBindingsExpire(t *testing.T) {
	c := startCore(t, CoreOptions{MaxExpires: time.Second})
	r := newUE(t, c, "udp").subscriber("+15550100", Auth{Password: "x"})
	r.join()
	waitUntil(t, "the binding expires", func() bool { return !c.Registered(r.impu) })
}

// waitUntil polls a condition that nobody announces.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}
