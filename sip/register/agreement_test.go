package register

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
	"sparkle/sip/ims"
)

// saying is an answer with a Security-Server.
func saying(r response, fields ...string) response {
	r.list = fields
	r.mechanisms, r.badList = ims.ParseMechanisms(fields)
	return r
}

func TestAgreement(t *testing.T) {
	type in = any
	const (
		off = iota
		tls
		clear // of what begins in clear
	)
	m401 := md5Challenge("a", false)
	again := md5Challenge("b", true)
	wanted := response{status: 494, phrase: "Security Agreement Required"}
	silence := failure{errors.New("silence")}
	const (
		list    = "ipsec-3gpp;q=0.1;alg=hmac-md5-96, tls;q=0.2"
		first   = "registering, sends nothing for 600000s to 0 offering"
		naked   = "registering, sends nothing for 600000s to 0 in clear offering"
		proven  = "registering, sends proof for 600000s to 0 offering verifying "
		up      = "registered, wakes in 50m0s"
		refresh = "registered, sends proof for 600000s to 0 offering verifying "
		left    = ", wakes in 10m0s"
	)
	for _, tt := range []struct {
		name    string
		how     int
		targets int
		in      []in
		want    []string
		why     string // part of the last error
	}{
		{"a list in the 401", tls, 1, []in{start{}, saying(m401, "tls"), granted}, []string{first, proven + `["tls"]`, up}, ""},
		{"in clear until then", clear, 1, []in{start{}, saying(m401, "tls"), granted}, []string{naked, proven + `["tls"]`, up}, ""},
		{"several mechanisms, in several fields, as they came", tls, 1, []in{start{}, saying(m401, list, "digest;d-alg=MD5"), granted},
			[]string{first, proven + `["` + list + `" "digest;d-alg=MD5"]`, up}, ""},
		{"the P-CSCF prefers what we do not have", clear, 1, []in{start{}, saying(m401, "ipsec-3gpp;q=0.9, tls;q=0.1"), granted},
			[]string{naked, proven + `["ipsec-3gpp;q=0.9, tls;q=0.1"]`, up}, ""},
		{"494 before the 401", tls, 1, []in{start{}, saying(wanted, "tls"), m401, granted},
			[]string{first, first + ` verifying ["tls"]`, proven + `["tls"]`, up}, ""},
		{"421 before the 401, in clear", clear, 1, []in{start{}, saying(response{status: 421}, "tls"), saying(m401, "tls"), granted},
			[]string{naked, first + ` verifying ["tls"]`, proven + `["tls"]`, up}, ""},
		{"a later list replaces an earlier one", tls, 1, []in{start{}, saying(wanted, "tls"), saying(m401, "tls;q=0.3"), granted},
			[]string{first, first + ` verifying ["tls"]`, proven + `["tls;q=0.3"]`, up}, ""},

		{"no list, over TLS: it does no agreement", tls, 1, []in{start{}, m401, granted, wake{}, granted},
			[]string{first, "registering, sends proof for 600000s to 0 offering", up, "registered, sends proof for 600000s to 0 offering" + left, up}, ""},
		{"no list, in clear: kept from us", clear, 1, []in{start{}, m401}, []string{naked, "rejected, wakes in 30m0s"}, "no Security-Server"},
		{"200 in clear", clear, 1, []in{start{}, granted}, []string{naked, "rejected, wakes in 30m0s"}, "without TLS"},
		{"420 over TLS: it does no agreement", tls, 1, []in{start{}, response{status: 420, noAgree: true}, m401, granted, wake{}},
			[]string{first, "registering, sends nothing for 600000s to 0", "registering, sends proof for 600000s to 0", up, "registered, sends proof for 600000s to 0" + left}, ""},
		{"420, and at the next connection it is asked again", tls, 1, []in{start{}, response{status: 420, noAgree: true}, granted, flow("0", 0, false), response{status: 420, noAgree: true}, granted},
			[]string{first, "registering, sends nothing for 600000s to 0", up, "registered, held, sends nothing for 600000s to 0 offering, wakes in 1h0m0s", "registered, held, sends nothing for 600000s to 0, wakes in 1h0m0s", up}, ""},
		{"420 for ever", tls, 1, []in{start{}, response{status: 420, noAgree: true}, response{status: 420, noAgree: true}},
			[]string{first, "registering, sends nothing for 600000s to 0", "unregistered, wakes in 30s"}, "420"},
		{"420 in clear", clear, 1, []in{start{}, response{status: 420, noAgree: true}}, []string{naked, "rejected, wakes in 30m0s"}, "set transport tls"},

		{"IPsec only", tls, 1, []in{start{}, saying(m401, "ipsec-3gpp;alg=hmac-md5-96", "ipsec-3gpp;alg=hmac-sha-1-96")},
			[]string{first, "rejected, wakes in 30m0s"}, "no security mechanism in common (RFC 3329): the P-CSCF has ipsec-3gpp, we have tls"},
		{"IPsec only, in a 494", clear, 1, []in{start{}, saying(wanted, "ipsec-3gpp;q=0.1")}, []string{naked, "rejected, wakes in 30m0s"}, "in common"},
		{"IPsec only, another P-CSCF has TLS", tls, 2, []in{start{}, saying(m401, "ipsec-3gpp"), saying(m401, "tls"), granted},
			[]string{first, "registering, sends nothing for 600000s to 1 offering", `registering, sends proof for 600000s to 1 offering verifying ["tls"]`, "registered at 1, wakes in 50m0s"}, ""},
		{"IPsec only at all of them", tls, 2, []in{start{}, saying(m401, "ipsec-3gpp"), saying(m401, "ipsec-3gpp")},
			[]string{first, "registering, sends nothing for 600000s to 1 offering", "rejected, wakes in 30m0s"}, "in common"},
		{"a list that cannot be read", tls, 1, []in{start{}, saying(m401, "tls;;\x01")}, []string{first, "rejected, wakes in 30m0s"}, "cannot be read"},
		{"a list without end", clear, 1, []in{start{}, saying(m401, strings.Repeat("tls, ", 100000))}, []string{naked, "rejected, wakes in 30m0s"}, "cannot be read"},
		{"a list without end in a 494", tls, 1, []in{start{}, saying(wanted, strings.Repeat("tls, ", 100000))}, []string{first, "rejected, wakes in 30m0s"}, "cannot be read"},
		{"494 without a list", tls, 1, []in{start{}, wanted}, []string{first, "rejected, wakes in 30m0s"}, "does not say of which kind"},

		{"494 where it is off", off, 1, []in{start{}, saying(wanted, "ipsec-3gpp;q=0.9, tls")},
			[]string{"registering, sends nothing for 600000s to 0", "rejected, wakes in 30m0s"}, "set security_agreement: tls"},
		{"421 where it is off, for IPsec", off, 1, []in{start{}, saying(response{status: 421}, "ipsec-3gpp")},
			[]string{"registering, sends nothing for 600000s to 0", "rejected, wakes in 30m0s"}, "it has ipsec-3gpp, and only tls is done here"},
		{"494 where it is off, for what it does not say", off, 1, []in{start{}, wanted},
			[]string{"registering, sends nothing for 600000s to 0", "rejected, wakes in 30m0s"}, "of which kind"},
		{"a list where it is off", off, 1, []in{start{}, saying(m401, "ipsec-3gpp", "\x00"), granted},
			[]string{"registering, sends nothing for 600000s to 0", "registering, sends proof for 600000s to 0", up}, ""},

		{"refresh", tls, 1, []in{start{}, saying(m401, list), granted, wake{}, granted}, []string{first, proven + `["` + list + `"]`, up, refresh + `["` + list + `"]` + left, up}, ""},
		{"a refresh over TLS, where it began in clear", clear, 1, []in{start{}, saying(m401, "tls"), granted, wake{}, saying(again, "tls"), granted},
			[]string{naked, proven + `["tls"]`, up, refresh + `["tls"]` + left, refresh + `["tls"]` + left, up}, ""},
		{"the list has changed at a refresh: from the beginning, once", clear, 1, []in{start{}, saying(m401, "tls"), granted, wake{}, saying(wanted, "tls;q=1"), saying(again, "tls;q=1"), granted},
			[]string{naked, proven + `["tls"]`, up, refresh + `["tls"]` + left, `registered, sends nothing for 600000s to 0 offering verifying ["tls;q=1"]` + left,
				refresh + `["tls;q=1"]` + left, up}, ""},
		{"the list has changed under the proof", tls, 1, []in{start{}, saying(m401, "tls"), saying(wanted, "tls;q=1"), saying(m401, "tls;q=1"), granted},
			[]string{first, proven + `["tls"]`, `registering, sends nothing for 600000s to 0 offering verifying ["tls;q=1"]`, proven + `["tls;q=1"]`, up}, ""},
		{"the list changes all the time", tls, 1, []in{start{}, saying(m401, "tls"), granted, wake{}, saying(wanted, "tls;q=1"), saying(wanted, "tls;q=0.5")},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, `registered, sends nothing for 600000s to 0 offering verifying ["tls;q=1"]` + left,
				"rejected, wakes in 30m0s"}, "does not take the list of security mechanisms that it gave itself"},
		{"the list has no TLS any more", tls, 1, []in{start{}, saying(m401, "tls"), granted, wake{}, saying(wanted, "ipsec-3gpp")},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, "rejected, wakes in 30m0s"}, "in common"},
		{"each attempt may find a list that has changed", tls, 1, []in{start{}, saying(m401, "tls"), granted, wake{}, saying(wanted, "tls;q=1"), granted, wake{}, saying(wanted, "tls")},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, `registered, sends nothing for 600000s to 0 offering verifying ["tls;q=1"]` + left, up,
				`registered, sends nothing for 600000s to 0 offering verifying ["tls;q=1"]` + left, `registered, sends nothing for 600000s to 0 offering verifying ["tls"]` + left}, ""},

		{"a call is told that the list has changed", tls, 1, []in{start{}, saying(m401, "tls"), granted, broken{"0"}, saying(again, "tls;q=1"), granted, broken{"0"}, time.Minute, broken{"0"}},
			[]string{first, proven + `["tls"]`, up, "registered, held, sends nothing for 600000s to 0 offering, wakes in 1h0m0s", `registered, held, sends proof for 600000s to 0 offering verifying ["tls;q=1"], wakes in 1h0m0s`,
				up, up, "registered, held, sends nothing for 600000s to 0 offering, wakes in 59m0s"}, ""},
		{"the same where it began in clear: never again in clear", clear, 1, []in{start{}, saying(m401, "tls"), granted, broken{"0"}},
			[]string{naked, proven + `["tls"]`, up, "registered, held, sends nothing for 600000s to 0 offering, wakes in 1h0m0s"}, ""},
		{"of another P-CSCF", tls, 2, []in{start{}, saying(m401, "tls"), granted, broken{"1"}}, []string{first, proven + `["tls"]`, up, up}, ""},
		{"of the one that has the registration, while another is to be asked", tls, 2,
			[]in{start{}, saying(m401, "tls"), granted, wake{}, response{status: 503, retryAfter: time.Minute}, broken{"0"}},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, "registered, wakes in 1m0s", "registered, held, sends nothing for 600000s to 0 offering" + left}, ""},
		{"of another P-CSCF, or without an agreement", tls, 2, []in{start{}, m401, granted, broken{"0"}, broken{"1"}},
			[]string{first, "registering, sends proof for 600000s to 0 offering", up, up, up}, ""},
		{"while a REGISTER waits", tls, 1, []in{start{}, broken{"0"}, granted}, []string{first, "registering", up}, ""},

		{"another P-CSCF begins anew", clear, 2, []in{start{}, saying(m401, "tls"), silence, saying(m401, "tls;q=1"), granted},
			[]string{naked, proven + `["tls"]`, "registering, sends nothing for 600000s to 1 in clear offering", `registering, sends proof for 600000s to 1 offering verifying ["tls;q=1"]`,
				"registered at 1, wakes in 50m0s"}, ""},
		{"the next after a refresh that failed", tls, 2, []in{start{}, saying(m401, "tls"), granted, wake{}, response{status: 503}, saying(again, "tls;q=1"), granted},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, "registered, sends proof for 600000s to 1 offering" + left,
				`registered, sends proof for 600000s to 1 offering verifying ["tls;q=1"]` + left, "registered at 1, wakes in 50m0s"}, ""},
		{"a new attempt after the end of a registration begins anew", clear, 1, []in{start{}, saying(m401, "tls"), granted, ended("deactivated", 0), wake{}},
			[]string{naked, proven + `["tls"]`, up, "unregistered, wakes in 0s", naked}, ""},
		{"with a connection ends its agreement, but TLS stays", clear, 1, []in{start{}, saying(m401, "tls"), granted, flow("0", 0, false), saying(again, "tls"), granted},
			[]string{naked, proven + `["tls"]`, up, "registered, held, sends proof for 600000s to 0 offering, wakes in 1h0m0s",
				`registered, held, sends proof for 600000s to 0 offering verifying ["tls"], wakes in 1h0m0s`, up}, ""},
		{"what is taken over the next connection without a new list has the old one", tls, 1, []in{start{}, saying(m401, "tls"), granted, flow("0", 0, false), granted, wake{}},
			[]string{first, proven + `["tls"]`, up, "registered, held, sends proof for 600000s to 0 offering, wakes in 1h0m0s", up, refresh + `["tls"]` + left}, ""},
		{"a connection that is lost under a REGISTER", clear, 1, []in{start{}, saying(m401, "tls"), failure{ErrLost}, saying(again, "tls"), granted},
			[]string{naked, proven + `["tls"]`, "registering, sends proof for 600000s to 0 offering", proven + `["tls"]`, up}, ""},
		{"TLS that cannot be had is in clear neither", clear, 1, []in{start{}, saying(m401, "tls"), silence, wake{}, m401},
			[]string{naked, proven + `["tls"]`, "unregistered, wakes in 30s", naked, "rejected, wakes in 30m0s"}, "no Security-Server"},
		{"a password that is wrong", clear, 1, []in{start{}, saying(m401, "tls"), md5Challenge("b", false)}, []string{naked, proven + `["tls"]`, "auth_failed, wakes in 30m0s"}, "password"},

		{"de-registers", clear, 1, []in{start{}, saying(m401, "tls"), granted, stop{}, saying(again, "tls"), response{status: 200}},
			[]string{naked, proven + `["tls"]`, up, `registered, sends proof for 0s to 0 offering verifying ["tls"]`, `registered, sends proof for 0s to 0 offering verifying ["tls"]`, "unregistered, done"}, ""},
		{"de-registers with who has the registration", tls, 2, []in{start{}, saying(m401, "tls"), granted, wake{}, response{status: 503}, saying(again, "tls;q=1"), stop{}},
			[]string{first, proven + `["tls"]`, up, refresh + `["tls"]` + left, "registered, sends proof for 600000s to 1 offering" + left,
				`registered, sends proof for 600000s to 1 offering verifying ["tls;q=1"]` + left, `registered, sends proof for 0s to 0 offering verifying ["tls"]`}, ""},
		{"the list has changed at the end", tls, 1, []in{start{}, saying(m401, "tls"), granted, stop{}, saying(wanted, "tls;q=1"), saying(wanted, "tls;q=1")},
			[]string{first, proven + `["tls"]`, up, `registered, sends proof for 0s to 0 offering verifying ["tls"]`, `registered, sends nothing for 0s to 0 offering verifying ["tls;q=1"]`, "unregistered, done"}, ""},
		{"the end where nothing is in common", tls, 1, []in{start{}, saying(m401, "tls"), granted, stop{}, saying(wanted, "ipsec-3gpp")},
			[]string{first, proven + `["tls"]`, up, `registered, sends proof for 0s to 0 offering verifying ["tls"]`, "unregistered, done"}, ""},
		{"who has only asked in clear is not registered", clear, 1, []in{start{}, stop{}}, []string{naked, "unregistered, done"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, digest.MD5)
			m.cfg.targets = []string{"0", "1"}[:tt.targets]
			m.cfg.agree, m.cfg.clear = tt.how != off, tt.how == clear
			m = play(t, m, tt.in, tt.want)
			if !strings.Contains(m.lastErr, tt.why) || (tt.why == "") != (m.lastErr == "") && m.state == Rejected {
				t.Errorf("says %q, want %q in it", m.lastErr, tt.why)
			}
		})
	}
}

// Whatever answers come: nothing that proves who we are goes in clear, nothing goes in clear to a
// P-CSCF that we are registered with, and a list is said only to whom it is of.
func FuzzAgreement(f *testing.F) {
	f.Add([]byte{0, 1, 2}, true)
	f.Add([]byte{6, 0, 1, 7, 2, 8, 9, 3, 4, 5, 1}, true)
	f.Fuzz(func(t *testing.T, script []byte, clear bool) {
		m, now := newMachine(t, digest.MD5), epoch
		m.cfg.targets = []string{"0", "1"}
		m.cfg.agree, m.cfg.clear = true, clear
		inputs := []any{md5Challenge("a", true), "list", granted, failure{errors.New("x")}, failure{ErrLost}, wake{}, response{status: 494}, broken{"0"}, flow("0", time.Hour, true),
			response{status: 420, noAgree: true}, response{status: 503}, "494", "ipsec"}
		m, acts := m.step(now, start{})
		to, said := "", map[string]string{}
		look := func() {
			for _, a := range acts {
				s, ok := a.(send)
				if !ok {
					continue
				}
				to = s.target
				if s.clear && (!clear || s.proof != nil || s.fixed != nil || s.auts != "" || s.verify != nil || m.state == Registered && s.target == m.home) {
					t.Fatalf("in clear: %+v", s)
				}
				if !s.clear && clear && !slices.Contains([]string{"0", "1"}, said[s.target]) {
					t.Fatalf("over TLS to %s, which has not said that it has TLS", s.target)
				}
				if s.verify != nil && (len(s.verify) != 1 || s.verify[0] != "tls;by="+s.target) {
					t.Fatalf("to %s: %q", s.target, s.verify)
				}
			}
		}
		look()
		for _, b := range script {
			in := inputs[int(b)%len(inputs)]
			switch in {
			case wake{}:
				if !m.wakeAt.IsZero() {
					now = m.wakeAt
				}
			case "list":
				in, said[to] = saying(md5Challenge("a", true), "tls;by="+to), to
			case "494":
				in, said[to] = saying(response{status: 494}, "tls;by="+to), to
			case "ipsec":
				in = saying(response{status: 494}, "ipsec-3gpp")
			}
			m, acts = m.step(now, in)
			look()
			if !m.waiting && m.wakeAt.IsZero() {
				t.Fatalf("%s: neither waits nor wakes after %T", m.state, in)
			}
			if clear && m.state == Registered && m.standing.list == nil {
				t.Fatal("registered without TLS")
			}
		}
		m, acts = m.step(now, stop{})
		for range 10 {
			if slices.Contains(acts, any(done{})) {
				return
			}
			m, acts = m.step(now, saying(response{status: 494}, "tls"))
		}
		t.Fatal("never done")
	})
}

// What the machine decides is in the messages: the list byte for byte, in as many fields.
func TestAgreementOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const one, two = `tls;q=0.1,ipsec-3gpp ;Alg=hmac-md5-96`, `digest;d-ver="a,b"`
		r := &registrar{t: t, alg: digest.MD5, password: []byte("secret"), grant: 3600}
		r.faults = []func(*sip.Request) (*sip.Response, error){func(req *sip.Request) (*sip.Response, error) {
			res := r.challenge(req)
			res.AppendHeader(sip.NewHeader("Security-Server", one))
			res.AppendHeader(sip.NewHeader("Security-Server", two))
			return res, nil
		}}
		opt := options()
		opt.AccessNetwork = "IEEE-802.3"
		opt.Contact, opt.Targets = "sip:u@192.0.2.10:5062;transport=tls", []string{"192.0.2.1:5061"}
		opt.Agree, opt.Clear = true, func(target string) (string, string) { return "tcp", strings.Replace(target, "5061", "5060", 1) }
		c, err := New(opt, r.send, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		until(t, c, Registered)
		if got := c.Agreed(); !slices.Equal(got, []string{one, two}) {
			t.Errorf("agreed %q", got)
		}
		if len(r.requests) != 2 {
			t.Fatalf("%d REGISTERs", len(r.requests))
		}
		for i, want := range []struct{ via, route, verify string }{{"TCP", "<sip:192.0.2.1:5060;transport=tcp;lr>", ""}, {"TLS", "<sip:192.0.2.1:5061;transport=tls;lr>", one + "|" + two}} {
			req := r.requests[i]
			if req.Via().Transport != want.via || req.GetHeader("Route").Value() != want.route || !strings.Contains(req.GetHeader("Contact").Value(), "transport=tls") {
				t.Errorf("REGISTER #%d\n%s", i+1, req)
			}
			for name, v := range map[string]string{"Security-Client": "tls", "Require": "sec-agree", "Proxy-Require": "sec-agree", "Security-Verify": want.verify} {
				if got := strings.Join(values(req, name), "|"); got != v {
					t.Errorf("REGISTER #%d: %s %q, want %q", i+1, name, got, v)
				}
			}
		}
		if v := values(r.requests[0], "P-Access-Network-Info"); v != nil {
			t.Errorf("said in clear: %q", v)
		}
	})
}

// A request that is sent again says what is agreed then, and nothing twice.
func TestVerifyAgain(t *testing.T) {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "tel", User: "+1"})
	req.AppendHeader(sip.NewHeader("Require", "precondition"))
	for _, list := range [][]string{{"tls"}, {"tls;q=0.1", "digest"}, nil} {
		Verify(req, list, false)
		tags := []string{"precondition"}
		if list != nil {
			tags = append(tags, "sec-agree")
		}
		if got := values(req, "Security-Verify"); !slices.Equal(got, list) {
			t.Errorf("Security-Verify %q, want %q", got, list)
		}
		if got := values(req, "Require"); !slices.Equal(got, tags) {
			t.Errorf("Require %q, want %q", got, tags)
		}
		if got := values(req, "Proxy-Require"); !slices.Equal(got, tags[1:]) {
			t.Errorf("Proxy-Require %q, want %q", got, tags[1:])
		}
	}
}

// Calls wait from the moment that the list is known not to hold any more, not only once a REGISTER is
// on its way; and not at all where none will be.
func TestHeldFromTheFirstWord(t *testing.T) {
	o := options()
	o.Agree, o.Targets = true, []string{"p"}
	sent := 0
	c, err := New(o, func(context.Context, *sip.Request) (*sip.Response, error) {
		sent++
		return nil, errors.New("nobody there")
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Disagree("p") || c.State().Held || len(c.breaks) != 0 {
		t.Error("held for an agreement that there never was")
	}
	c.m = c.m.to(time.Now(), Registered, "")
	c.m.home, c.m.standing = "p", pact{with: "p", list: []string{"tls"}}
	for _, what := range []string{"the first", "another before anything was done"} {
		if !c.Disagree("p") || !c.State().Held || len(c.breaks) != 1 {
			t.Errorf("%s: not held", what)
		}
	}
	if c.Disagree("q"); len(c.breaks) != 1 {
		t.Error("of another P-CSCF")
	}
	c.input(t.Context(), <-c.breaks)
	if sent != 1 || c.State().Held || len(c.changed) != 1 {
		t.Errorf("%d REGISTERs, %+v, %d changes told", sent, c.State(), len(c.changed))
	}

	// One that is dealt with as there is nothing to be done any more: who waited hears so.
	c.m = c.m.to(time.Now(), Registered, "")
	c.m.home, c.m.standing, c.m.brokenAt = "p", pact{with: "p", list: []string{"tls"}}, time.Time{}
	<-c.changed
	if !c.Disagree("p") {
		t.Fatal("not held")
	}
	c.m.brokenAt = time.Now()
	if c.input(t.Context(), <-c.breaks); sent != 1 || c.State().Held || len(c.changed) != 1 {
		t.Errorf("%d REGISTERs, %+v, %d changes told", sent, c.State(), len(c.changed))
	}
	if c.Disagree("p") || c.State().Held {
		t.Error("held where it is not asked again so soon")
	}
}
