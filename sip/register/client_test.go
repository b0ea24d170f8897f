package register

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"sparkle/sip/aka"
	"sparkle/sip/digest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registrar is a scripted home network. It reads what really goes over the wire: each
// request is written and parsed again.
type registrar struct {
	t        *testing.T
	sim      *aka.Milenage // nil: digest with algorithm
	alg      string
	password []byte
	sqn      uint64
	nonce    string
	grant    int
	faults   []func(req *sip.Request) (*sip.Response, error) // first, one a request
	requests []*sip.Request
	at       []time.Time
	bound    bool
}

func (r *registrar) send(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	msg, err := sip.ParseMessage([]byte(req.String()))
	if err != nil {
		r.t.Errorf("not a SIP message: %v\n%s", err, req)
		return nil, err
	}
	parsed := msg.(*sip.Request)
	r.requests, r.at = append(r.requests, parsed), append(r.at, time.Now())
	if len(r.faults) > 0 {
		f := r.faults[0]
		r.faults = r.faults[1:]
		if f != nil {
			return f(parsed)
		}
	}
	return r.answer(parsed), nil
}

func reply(req *sip.Request, status int, phrase string, headers ...string) *sip.Response {
	resp := sip.NewResponseFromRequest(req, status, phrase, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		resp.AppendHeader(sip.NewHeader(headers[i], headers[i+1]))
	}
	return resp
}

func (r *registrar) challenge(req *sip.Request) *sip.Response {
	c := digest.Challenge{Realm: "ims.test", Algorithm: r.alg, QOP: []string{"auth"}}
	if r.sim != nil {
		r.sqn += 32
		v := r.sim.Vector([16]byte{byte(r.sqn >> 5)}, r.sqn, [2]byte{0x80})
		c.Nonce, r.password = v.Nonce(), aka.PasswordV1(v.XRES)
		if r.alg == digest.AKAv2MD5 {
			r.password = aka.PasswordV2(v.XRES, v.IK, v.CK)
		}
	} else {
		c.Nonce = fmt.Sprintf("nonce%d", len(r.requests))
	}
	r.nonce = c.Nonce
	return reply(req, 401, "Unauthorized", "WWW-Authenticate", c.String())
}

func (r *registrar) answer(req *sip.Request) *sip.Response {
	a, err := digest.ParseAuthorization(req.GetHeader("Authorization").Value())
	if err != nil {
		r.t.Error(err)
	}
	if a.AUTS != "" {
		rand, _, _ := aka.ParseNonce(a.Nonce)
		ms, err := r.sim.Resync(rand, unbase64(r.t, a.AUTS))
		if err != nil || !a.Verify(nil, "REGISTER", nil) {
			r.t.Errorf("bad resynchronisation: %v", err)
		}
		r.sqn = ms
		return r.challenge(req)
	}
	if a.Nonce == "" || a.Nonce != r.nonce || !a.Verify(r.password, "REGISTER", nil) {
		return r.challenge(req)
	}
	if a.Username != "u@ims.test" || a.URI != "sip:ims.test" {
		r.t.Errorf("proof is for %s %s", a.Username, a.URI)
	}
	if req.GetHeader("Expires").Value() == "0" {
		r.bound = false
		return reply(req, 200, "OK")
	}
	r.bound = true
	return reply(req, 200, "OK",
		"Contact", "<sip:other@192.0.2.9:5060>;expires=9", "Contact",
		fmt.Sprintf(`<sip:u@192.0.2.10:5062;transport=tcp>;+sip.instance="<urn:x,y>";expires=%d`, r.grant),
		"Service-Route", "<sip:orig@scscf1.ims.test:6060;lr>, <sip:b@c;lr>",
		"P-Associated-URI", `<sip:+8613800138000@ims.test>, "x, y" <tel:+8613800138000>`,
		"Authentication-Info", a.Info(r.password, nil))
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Error(err)
	}
	return b
}

func options() Options {
	return Options{Domain: "ims.test", IMPI: "u@ims.test", IMPU: "sip:+8613800138000@ims.test",
		Contact: "sip:u@192.0.2.10:5062;transport=tcp", Password: "secret", UserAgent: "Sparkle/1",
		Targets: []string{"192.0.2.1:5060", "192.0.2.2:5060"}}
}

// until waits in virtual time for a state.
func until(t *testing.T, c *Client, want State) {
	t.Helper()
	for end := time.After(10 * time.Hour); c.State().State != want; {
		select {
		case <-c.Changed():
		case <-end:
			t.Fatalf("%s, want %s: %s", c.State().State, want, c.State().LastError)
		}
	}
}

// TestLife registers with each algorithm, refreshes for a day, and leaves.
func TestLife(t *testing.T) {
	for _, alg := range []string{digest.MD5, digest.SHA256, digest.SHA512256, digest.AKAv1MD5, digest.AKAv2MD5} {
		t.Run(alg, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, r := options(), &registrar{t: t, alg: alg, password: []byte("secret"), grant: 3600}
				var saved []uint64
				if digest.IsAKA(alg) {
					r.sim = sim(t)
					o.Password, o.K, o.OPc, o.SQN = "", testK, testOPc, 5000 // the network lags: resynchronisation
					o.Algorithms = []string{alg}
					o.SaveSQN = func(n uint64) error { saved = append(saved, n); return nil }
				}
				c, err := New(o, r.send, nil)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- c.Run(ctx) }()
				until(t, c, Registered)
				s := c.State()
				if s.Identity != "sip:+8613800138000@ims.test" || len(s.AssociatedURIs) != 2 || len(s.ServiceRoutes) != 2 ||
					s.ServiceRoutes[0] != "<sip:orig@scscf1.ims.test:6060;lr>" || s.Expires.Sub(s.Since) != time.Hour {
					t.Errorf("snapshot %+v", s)
				}
				<-time.After(24 * time.Hour)
				if s := c.State(); s.State != Registered || time.Until(s.Expires) < 9*time.Minute {
					t.Errorf("after a day: %+v", s)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if r.bound || c.State().State != Unregistered {
					t.Errorf("still registered: %v %s", r.bound, c.State().State)
				}
				checkRequests(t, r)
				if digest.IsAKA(alg) && (len(saved) == 0 || saved[0] <= 5000) {
					t.Errorf("saved %v", saved)
				}
			})
		})
	}
}

// checkRequests: one Call-ID and tag, rising CSeq, new branches, our headers.
func checkRequests(t *testing.T, r *registrar) {
	t.Helper()
	branches := map[string]bool{}
	for i, q := range r.requests {
		if q.CSeq().SeqNo != uint32(i+1) || q.CallID().Value() != r.requests[0].CallID().Value() ||
			q.From().Params.GetOr("tag", "") != r.requests[0].From().Params.GetOr("tag", "") || q.To().Params.Has("tag") {
			t.Errorf("request %d breaks the sequence:\n%s", i, q)
		}
		branch := q.Via().Params.GetOr("branch", "")
		if branches[branch] || !strings.HasPrefix(branch, "z9hG4bK") {
			t.Errorf("branch %q again", branch)
		}
		branches[branch] = true
	}
	text := r.requests[0].String()
	for _, want := range []string{"REGISTER sip:ims.test SIP/2.0\r\n", "Via: SIP/2.0/TCP 192.0.2.10:5062;", "Max-Forwards: 70",
		"Route: <sip:192.0.2.1:5060;transport=tcp;lr>", "Expires: 600000", "Supported: path", "User-Agent: Sparkle/1", "Content-Length: 0",
		`Contact: <sip:u@192.0.2.10:5062;transport=tcp>;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel";audio;video`,
		`Authorization: Digest username="u@ims.test",realm="ims.test",uri="sip:ims.test",nonce="",response=""`} {
		if !strings.Contains(text, want) {
			t.Errorf("first REGISTER lacks %q:\n%s", want, text)
		}
	}
}

// Silence: the next P-CSCF, then back-off; when the network is back, so are we.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(*sip.Request) (*sip.Response, error) { return nil, errors.New("silence") }
		r := &registrar{t: t, alg: digest.MD5, password: []byte("secret"), grant: 600,
			faults: []func(*sip.Request) (*sip.Response, error){silent, silent, silent}}
		c, err := New(options(), r.send, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		until(t, c, Registered)
		if got := r.requests[1].GetHeader("Route").Value(); !strings.Contains(got, "192.0.2.2") {
			t.Errorf("second try to %s", got)
		}
		if d := r.at[2].Sub(r.at[1]); d < 30*time.Second || d > 60*time.Second {
			t.Errorf("backed off %v", d)
		}
		cancel()
		<-ended
	})
}

// A network that swallows everything holds up neither start nor exit.
func TestHangingSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		hang := func(ctx context.Context, _ *sip.Request) (*sip.Response, error) { <-ctx.Done(); return nil, ctx.Err() }
		c, err := New(options(), hang, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		until(t, c, Unregistered)
		<-time.After(40 * time.Second) // into the second P-CSCF's timeout
		cancel()
		cancelled := time.Now()
		<-ended
		if d := time.Since(cancelled); d > 5*time.Second {
			t.Errorf("exit took %v (%v after the start)", d, time.Since(began))
		}
	})
}

// Wrong password: one alarm, nothing more for half an hour; Refresh tries at once.
func TestWrongPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &registrar{t: t, alg: digest.SHA256, password: []byte("other"), grant: 600}
		c, err := New(options(), r.send, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		until(t, c, AuthFailed)
		<-time.After(29 * time.Minute)
		if len(r.requests) != 2 {
			t.Errorf("%d requests in 29 minutes", len(r.requests))
		}
		r.password = []byte("secret")
		c.Refresh()
		until(t, c, Registered)
		cancel()
		<-ended
		if !strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "secret") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestAuthorizeInvite(t *testing.T) {
	o := options()
	strict, err := New(o, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Realm = "*"
	c, err := New(o, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Who is called can ask as well: only the realm that is configured gets an answer (unless any is).
	for realm, want := range map[string]bool{"proxy": false, o.Domain: true} {
		resp := sip.NewResponse(407, "x")
		resp.AppendHeader(sip.NewHeader("Proxy-Authenticate", digest.Challenge{Realm: realm, Nonce: "n", Algorithm: digest.MD5}.String()))
		if _, err := strict.Authorize(sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "x"}), resp, ""); (err == nil) != want {
			t.Errorf("realm %s: %v", realm, err)
		}
	}
	for _, tt := range []struct {
		status    int
		ask, give string
	}{{401, "WWW-Authenticate", "Authorization"}, {407, "Proxy-Authenticate", "Proxy-Authorization"}} {
		var uri sip.Uri
		if err := sip.ParseUri("tel:+15550123;phone-context=+1", &uri); err != nil {
			t.Fatal(err)
		}
		req := sip.NewRequest(sip.INVITE, uri)
		req.SetBody([]byte("v=0"))
		ch := digest.Challenge{Realm: "proxy", Nonce: "n", Algorithm: digest.MD5, QOP: []string{"auth-int"}}
		resp := sip.NewResponse(tt.status, "x")
		resp.AppendHeader(sip.NewHeader(tt.ask, ch.String()))
		for range 2 { // the second replaces the first
			if got, err := c.Authorize(req, resp, ""); err != nil || got.Realm != "proxy" {
				t.Fatal(got, err)
			}
		}
		hs := req.GetHeaders(tt.give)
		if len(hs) != 1 {
			t.Fatalf("%d %s", len(hs), tt.give)
		}
		a, ok, err := digest.Verify(hs[0].Value(), []byte("secret"), digest.Request{Method: "INVITE", Body: []byte("v=0")})
		if err != nil || !ok || a.URI != "tel:+15550123;phone-context=+1" {
			t.Errorf("%d: %v %v %s", tt.status, ok, err, hs[0])
		}
	}
	if _, err := c.Authorize(sip.NewRequest(sip.INVITE, sip.Uri{}), sip.NewResponse(401, "x"), ""); !errors.Is(err, digest.ErrNoChallenge) {
		t.Errorf("no challenge: %v", err)
	}
}

func TestOptionsValidate(t *testing.T) {
	if err := options().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no domain": func(o *Options) { o.Domain = "" }, "no impi": func(o *Options) { o.IMPI = "" },
		"impu": func(o *Options) { o.IMPU = "tel:+1" }, "injection": func(o *Options) { o.Contact = "sip:a@b>\r\nX: y" },
		"contact": func(o *Options) { o.Contact = "nonsense" }, "no secret": func(o *Options) { o.Password = "" },
		"bad K": func(o *Options) { o.K = "12" }, "no OP": func(o *Options) { o.K = testK },
		"algorithm": func(o *Options) { o.Algorithms = []string{"ROT13"} }, "AKA without K": func(o *Options) { o.Algorithms = []string{digest.AKAv1MD5} },
		"expires": func(o *Options) { o.Expires = time.Millisecond }, "sqn": func(o *Options) { o.SQN = 1 << 48 },
	} {
		o := options()
		spoil(&o)
		if _, err := New(o, nil, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
