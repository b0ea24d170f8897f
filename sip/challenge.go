package sip

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
)

// Challenge is the proof that a trunk asks of who begins something; without a Username it asks
// for none.
type Challenge struct {
	Username, Password string
	Realm              string   // "": the attachment's domain
	Algorithms         []string // of digest.Servable; empty: SHA-256 and MD5
}

// ChallengeFault is one thing wrong with a Challenge.
type ChallengeFault struct{ Key, Text string }

// Faults are what is wrong with it on an attachment of a mode; no text shows the password.
func (c Challenge) Faults(mode string) (all []ChallengeFault) {
	if c.Username == "" && c.Password == "" && c.Realm == "" && len(c.Algorithms) == 0 {
		return nil
	}
	bad := func(key, format string, args ...any) {
		all = append(all, ChallengeFault{key, fmt.Sprintf(format, args...)})
	}
	if mode != ModeTrunk {
		bad("", "goes with mode trunk, not %s", mode)
	}
	switch {
	case c.Username == "":
		bad("username", "is empty: whose proof is asked for?")
	case strings.ContainsFunc(c.Username, func(r rune) bool { return r < ' ' || r == ':' || r == 0x7f }):
		bad("username", "%q: no colon may be in it, nor a control character", c.Username)
	}
	if c.Password == "" {
		bad("password", "is empty: what is to be proven?")
	}
	if strings.ContainsAny(c.Realm, "\"\\\r\n") {
		bad("realm", "%q cannot stand between quotes", c.Realm)
	}
	for i, alg := range c.Algorithms {
		key := fmt.Sprintf("algorithms[%d]", i)
		if !slices.Contains(digest.Servable(), alg) {
			bad(key, "%q is none of %s", alg, strings.Join(digest.Servable(), ", "))
		} else if slices.Index(c.Algorithms, alg) < i {
			bad(key, "%s is named twice", alg)
		}
	}
	return all
}

// guard is what stands before a trunk that asks for a proof: 401 to an INVITE, SUBSCRIBE or REFER
// outside a dialog (RFC 3261 22.2). It is asked beside the source address, not in place of it.
//
// Without credentials, or with a nonce that is too old, the answer is given at the front door,
// without a transaction, as RFC 3261 26.3.2.4 advises: nothing is kept, nothing sent again, and
// the ACK ends there. A repetition gets the same answer; a CANCEL for it finds nothing.
//
// After a wrong proof it is 401 again, without stale: who is at fault is the client, who must
// not try the same again (RFC 3261 22.1, 22.2), and carriers' SBCs end there. 403 would say that
// no proof is of use (21.4.4), also to who has two passwords to try. Each wrong one costs a hash;
// those of INVITEs are turned away as calls are, with a record, up to wrongRate, and above that at
// the front door. All are in the log, and above it in IngressStats.Refused.
//
// Requests inside a dialog are not asked, nor is OPTIONS, by which peers see whether we live. A
// dialog was begun by who proved himself, or by us; its tags are a secret between both ends; and a
// peer that cannot prove itself in a BYE or a refresh would lose its calls by it. The ACK and the
// CANCEL cannot be asked (22.1).
type guard struct {
	server   *digest.Server
	recorded *limiter

	mu   sync.Mutex
	said time.Time // when the last line went to the log
	more int       // wrong ones since
}

// How many calls with a wrong proof a second are recorded, and how many at once.
const wrongRate, wrongBurst = 1, 10

// newGuard is nil where no proof is asked for.
func newGuard(c Challenge) *guard {
	if c.Username == "" {
		return nil
	}
	return &guard{
		server:   digest.NewServer(digest.ServerOptions{Realm: c.Realm, Username: c.Username, Password: c.Password, Algorithms: c.Algorithms}, time.Now()),
		recorded: &limiter{rate: wrongRate, burst: wrongBurst, m: map[netip.Addr]*bucket{}}}
}

// begins says whether a request can begin something.
func begins(req *sipgo.Request) bool {
	switch req.Method {
	case sipgo.INVITE, sipgo.SUBSCRIBE, sipgo.REFER:
		return !req.To().Params.Has("tag")
	}
	return false
}

// unproven is what the front door answers to a request that begins something; 0 lets it pass.
func (a *attachment) unproven(req *sipgo.Request, from netip.Addr) verdict {
	if a.guard == nil {
		return verdict{}
	}
	now := time.Now()
	res, _ := a.check(now, req, from)
	switch res {
	case digest.Wrong, digest.Malformed, digest.Elsewhere:
		a.suspect(now, from, res)
	}
	if res == digest.Wrong && req.IsInvite() && a.guard.recorded.spend(now, netip.Addr{}, 0) {
		return verdict{} // onRequest turns it away
	}
	return a.demand(now, req, from, res)
}

// used is the same for what has passed the front door: its proof is good once.
func (a *attachment) used(req *sipgo.Request, from netip.Addr) verdict {
	if a.guard == nil || !begins(req) {
		return verdict{}
	}
	now := time.Now()
	res, proof := a.check(now, req, from)
	if res == digest.Right && !a.guard.server.Use(proof) {
		if a.merged(req) {
			return verdict{status: 482} // the same by another way, and so is its proof
		}
		res = digest.Stale
	}
	return a.demand(now, req, from, res)
}

// merged says whether the same request came by another way (RFC 3261 8.2.2.2).
func (a *attachment) merged(req *sipgo.Request) bool {
	key := inviteKey(req)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.merging[key] || a.usages.began(key)
}

func (a *attachment) check(now time.Time, req *sipgo.Request, from netip.Addr) (digest.Result, digest.Proof) {
	var values []string
	for _, h := range req.GetHeaders("Authorization") {
		values = append(values, h.Value())
	}
	return a.guard.server.Check(now, from.String(), values, digest.Request{Method: string(req.Method), URI: req.Recipient.String(), Body: req.Body()},
		func(uri string) bool { return a.sameResource(uri, req.Recipient.String()) })
}

// demand is what is answered to a request with credentials of which this became.
func (a *attachment) demand(now time.Time, req *sipgo.Request, from netip.Addr, res digest.Result) verdict {
	switch res {
	case digest.Right:
		return verdict{}
	case digest.Malformed, digest.Elsewhere: // RFC 7616 3.4.6
		return verdict{status: 400}
	}
	branch, _ := req.Via().Params.Get("branch")
	key := string(req.Method) + "\x00" + branch + "\x00" + inviteKey(req)
	return verdict{status: 401, ask: a.guard.server.Challenges(now, from.String(), key, res == digest.Stale), usual: res != digest.Wrong}
}

// suspect notes that somebody has tried and failed: at once in the log, and no more than a line a
// second.
func (a *attachment) suspect(now time.Time, from netip.Addr, res digest.Result) {
	g := a.guard
	g.mu.Lock()
	g.more++
	n, quiet := g.more, now.Sub(g.said) < time.Second
	if !quiet {
		g.said, g.more = now, 0
	}
	g.mu.Unlock()
	if quiet {
		return
	}
	why := map[digest.Result]string{digest.Wrong: "wrong user name, password or algorithm",
		digest.Malformed: "Authorization cannot be read", digest.Elsewhere: "its uri is not the Request-URI"}[res]
	a.log.Warn("credentials refused", "peer", from, "why", why, "refused", n)
}

// sameResource says whether the URI that a proof is about asks for what the Request-URI does.
// Proxies on the way put an address in place of a name and add or take parameters (RFC 7616
// 3.4.6); whom it is for they leave, and a proof for one is none for another:
//
//	the same user, or telephone number as tel: or sip:
//	and the same host, or both of them us
func (a *attachment) sameResource(proven, asked string) bool {
	who, at := addressee(proven)
	whom, where := addressee(asked)
	if who != whom {
		return false
	}
	return at == where || a.ours(at) && a.ours(where) || validNumber(who) && (at == "" || where == "")
}

// ours says whether a host is one that we are called by.
func (a *attachment) ours(host string) bool {
	return strings.EqualFold(host, a.host) || strings.EqualFold(host, a.o.Domain)
}

// addressee is whom a URI is for and at which host: "" where it has none, as of a tel: URI.
func addressee(uri string) (who, host string) {
	if n := numberOf(uri); n != "" {
		who = n
	}
	uri, _, _ = strings.Cut(uri, "?")
	scheme, rest, _ := strings.Cut(uri, ":")
	switch strings.ToLower(scheme) {
	case "sip", "sips":
	case "tel":
		if who == "" {
			who, _, _ = strings.Cut(rest, ";") // a local one
		}
		return who, ""
	default:
		return strings.ToLower(uri), ""
	}
	user := ""
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, rest = rest[:at], rest[at+1:]
	}
	if who == "" {
		user, _, _ = strings.Cut(user, ":")
		if plain, err := url.PathUnescape(user); err == nil {
			user = plain
		}
		who = user
	}
	host, _, _ = strings.Cut(rest, ";")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return who, strings.ToLower(strings.Trim(host, "[]"))
}
