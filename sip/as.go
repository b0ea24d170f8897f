package sip

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// presence are the users whom the core has told us to be registered (third-party REGISTER,
// TS 24.229 §5.4.1.7). Only their number is shown.
type presence struct {
	mu    sync.Mutex
	until map[string]time.Time // by public identity
}

// maxPresence bounds what a core can have us keep.
const maxPresence = 200000

// set notes a user until then; a time that has come means gone.
func (p *presence) set(now time.Time, user string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !until.After(now) {
		delete(p.until, user)
		return
	}
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	if _, known := p.until[user]; known || len(p.until) < maxPresence {
		p.until[user] = until
	}
}

func (p *presence) count(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for user, until := range p.until {
		if !until.After(now) {
			delete(p.until, user)
		}
	}
	return len(p.until)
}

// onThirdParty answers the S-CSCF that tells of a user's registration: To is the user,
// Expires 0 the end. What it says in a body is not needed.
func (a *attachment) onThirdParty(req *sipgo.Request, tx responder) {
	expires, err := time.Hour, error(nil)
	if v := first(req, "Expires"); v != "" {
		if expires, err = ims.ParseSeconds(v); err != nil {
			a.answer(req, tx, verdict{status: 400})
			return
		}
	}
	if a.o.Untrusted {
		a.answer(req, tx, verdict{status: 403})
		return
	}
	now := time.Now()
	a.present.set(now, req.To().Address.String(), now.Add(expires))
	a.answer(req, tx, verdict{status: 200, header: dialog.Header{Name: "Expires", Value: strconv.Itoa(int(expires / time.Second))}})
}

// servedUser reads P-Served-User (RFC 5502): for whom the core asks us, and in which case.
func servedUser(req *sipgo.Request) (uri, sescase, regstate string) {
	v := first(req, "P-Served-User")
	uri = dialog.AddrSpec(v)
	if i := strings.LastIndexByte(v, '>'); i >= 0 {
		for p := range strings.SplitSeq(v[i+1:], ";") {
			k, val, _ := strings.Cut(strings.TrimSpace(p), "=")
			switch strings.ToLower(k) {
			case "sescase":
				sescase = strings.ToLower(val)
			case "regstate":
				regstate = strings.ToLower(val)
			}
		}
	}
	return uri, sescase, regstate
}

// routesBehind are the Route values behind our own, as they came: an S-CSCF knows the
// session again by its token. The first is ours if it is a name, for it led here; what name the
// core has for us nobody tells us.
func (a *attachment) routesBehind(req *sipgo.Request) []string {
	var all []string
	for _, h := range req.GetHeaders("Route") {
		all = append(all, ims.Split(h.Value())...)
	}
	for first := true; len(all) > 0; first = false {
		us, named := a.isUs(all[0])
		if !us && !(first && named) {
			break
		}
		all = all[1:]
	}
	return all
}

// isUs says whether a Route has the address of one of our sockets; named: it has a name.
func (a *attachment) isUs(route string) (us, named bool) {
	var uri sipgo.Uri
	if sipgo.ParseUri(dialog.AddrSpec(route), &uri) != nil {
		return false, false
	}
	host := strings.Trim(uri.Host, "[]")
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false, true
	}
	local, _ := netip.ParseAddr(a.host)
	if ip.Unmap() != local.Unmap() {
		return false, false
	}
	for transport, s := range a.sockets {
		if uri.Port == s.port || uri.Port == 0 && s.port == sipgo.DefaultPort(transport) {
			return true, false
		}
	}
	return false, false
}

// origRoute tells an S-CSCF that a call originates with us, on behalf of the identity in
// P-Served-User (TS 24.229 §5.7.3).
func (a *attachment) origRoute(hop string) string {
	transport, addr := splitHop(hop, a.o.Transport)
	if a.o.OrigRoute == "user" {
		return "<sip:orig@" + addr + ";transport=" + transport + ";lr>"
	}
	return "<sip:" + addr + ";transport=" + transport + ";lr;orig>"
}

// distrust takes out of a request what only a peer in our trust domain may say (RFC 3325
// §5, RFC 7315 §4).
func distrust(req *sipgo.Request) {
	for _, name := range []string{"P-Asserted-Identity", "P-Called-Party-ID", "P-Served-User", "P-Charging-Vector", "P-Charging-Function-Addresses", "P-Access-Network-Info"} {
		for req.RemoveHeader(name) {
		}
	}
}
