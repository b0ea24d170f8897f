package register

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
	"sparkle/sip/ims"
)

// exchange sends one REGISTER and turns what comes back into the machine's next input.
func (c *Client) exchange(ctx context.Context, s send) any {
	req, proof, err := c.request(s)
	if err != nil {
		return failure{err}
	}
	patience := answerCap
	if s.brief {
		patience = briefCap
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := c.send(ctx, req)
	if err != nil {
		return failure{fmt.Errorf("no answer to REGISTER: %w", err)}
	}
	if resp == nil {
		return failure{fmt.Errorf("no answer to REGISTER")}
	}
	r := c.read(resp)
	if r.status >= 200 && r.status < 300 && s.proof != nil && s.auts == "" && proof.Response != "" {
		if h := resp.GetHeader("Authentication-Info"); h != nil {
			r.badAuth = s.proof.Confirm(proof, h.Value(), resp.Body())
		}
	}
	return r
}

// request builds the REGISTER of IMS.md §1a.
func (c *Client) request(s send) (*sip.Request, digest.Authorization, error) {
	var home, impu, contact sip.Uri
	uri := "sip:" + c.opt.Domain
	var proof digest.Authorization
	for _, p := range []struct {
		s string
		u *sip.Uri
	}{{uri, &home}, {c.opt.IMPU, &impu}, {c.opt.Contact, &contact}} {
		if err := sip.ParseUri(p.s, p.u); err != nil {
			return nil, proof, fmt.Errorf("REGISTER: %w", err)
		}
	}
	c.mu.Lock()
	c.cseq++
	cseq := c.cseq
	noPath := c.m.noPath
	c.mu.Unlock()

	req := sip.NewRequest(sip.REGISTER, home)
	add := func(name, value string) { req.AppendHeader(sip.NewHeader(name, value)) }
	transport, target := c.via.UriParams.GetOr("transport", "udp"), s.target
	if s.clear && target != "" {
		transport, target = c.opt.Clear(target)
	}
	transport = strings.ToUpper(transport)
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: transport,
		Host: c.via.Host, Port: c.via.Port, Params: sip.NewParams()}
	via.Params.Add("branch", sip.GenerateBranch())
	via.Params.Add("rport", "")
	req.AppendHeader(via)
	if target != "" {
		add("Route", fmt.Sprintf("<sip:%s;transport=%s;lr>", target, strings.ToLower(transport)))
		req.SetDestination(target)
	}
	req.SetTransport(transport)
	forwards := sip.MaxForwardsHeader(70)
	req.AppendHeader(&forwards)
	from := &sip.FromHeader{Address: impu, Params: sip.NewParams()}
	from.Params.Add("tag", c.fromTag)
	req.AppendHeader(from)
	req.AppendHeader(&sip.ToHeader{Address: *impu.Clone(), Params: sip.NewParams()})
	id := sip.CallIDHeader(c.callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: cseq, MethodName: sip.REGISTER})
	params := strings.TrimPrefix(c.opt.ContactParams, ";")
	if c.opt.Outbound {
		params += ";reg-id=1"
	}
	add("Contact", "<"+c.opt.Contact+">;"+params)
	add("Expires", strconv.FormatInt(int64(s.expires/time.Second), 10))
	switch {
	case noPath:
	case c.opt.Outbound:
		add("Supported", "path, outbound")
	default:
		add("Supported", "path")
	}
	if s.offer {
		add("Security-Client", mechanism) // without q: whose preference counts is the server's (RFC 3329 §2.3.1)
	}
	Verify(req, s.verify, s.offer)
	if c.opt.AccessNetwork != "" && s.proof != nil && s.auts == "" {
		add("P-Access-Network-Info", c.opt.AccessNetwork)
	}
	if c.opt.UserAgent != "" {
		add("User-Agent", c.opt.UserAgent)
	}

	var err error
	switch {
	case s.fixed != nil:
		proof = *s.fixed
	case s.proof != nil:
		if proof, err = s.proof.Authorize(digest.Request{Method: "REGISTER", URI: uri}); err != nil {
			return nil, proof, err
		}
		proof.AUTS = s.auts
	default:
		proof = digest.Empty(c.opt.IMPI, c.opt.Domain, uri)
	}
	if s.fixed != nil || s.proof != nil || !c.opt.BareFirst {
		add("Authorization", proof.String())
	}
	length := sip.ContentLengthHeader(0)
	req.AppendHeader(&length)
	return req, proof, nil
}

// Verify says in a request to a P-CSCF what was agreed with it: its list, as it came, and that the
// request must not be taken without an agreement (RFC 3329 §2.3.1). offer: that there is to be one
// is said without a list too. What an earlier Verify said of the same request is gone.
func Verify(req *sip.Request, list []string, offer bool) {
	for req.RemoveHeader("Security-Verify") {
	}
	for _, field := range list {
		req.AppendHeader(sip.NewHeader("Security-Verify", field))
	}
	for _, name := range []string{"Require", "Proxy-Require"} {
		tags := slices.DeleteFunc(values(req, name), func(v string) bool { return v == secAgree })
		for req.RemoveHeader(name) {
		}
		if offer || len(list) > 0 {
			tags = append(tags, secAgree)
		}
		for _, v := range tags {
			req.AppendHeader(sip.NewHeader(name, v))
		}
	}
}

// secAgree is the option tag.
const secAgree = "sec-agree"

// values are all fields of a header, unparsed.
func values(m sip.Message, name string) []string {
	var out []string
	for _, h := range m.GetHeaders(name) {
		out = append(out, h.Value())
	}
	return out
}

// read takes out of a final response what the machine decides on.
func (c *Client) read(resp *sip.Response) response {
	r := response{status: resp.StatusCode, phrase: resp.Reason}
	r.challenges, r.badAuth = challenges(resp)
	if r.status >= 200 && r.status < 300 {
		r.badAuth = nil
		r.granted, r.found = c.granted(resp)
		r.routes = ims.SplitAll(values(resp, "Service-Route"))
		r.uris = ims.ParseAddrs(values(resp, "P-Associated-URI"))
	}
	if v := values(resp, "Min-Expires"); len(v) > 0 {
		r.minExpires, _ = ims.ParseSeconds(v[0])
	}
	if v := values(resp, "Retry-After"); len(v) > 0 {
		r.retryAfter, _ = ims.ParseRetryAfter(v[0])
	}
	r.list = values(resp, "Security-Server")
	r.mechanisms, r.badList = ims.ParseMechanisms(r.list)
	for _, v := range values(resp, "Unsupported") {
		r.noAgree = r.noAgree || ims.Has(v, secAgree)
		r.noPath = r.noPath || ims.Has(v, "path") || ims.Has(v, "outbound") // the one needs the other
	}
	return r
}

func challenges(resp *sip.Response) ([]digest.Challenge, error) {
	return digest.ParseChallenges(append(values(resp, "WWW-Authenticate"), values(resp, "Proxy-Authenticate")...))
}

// granted is the lifetime of our own binding among all the registrar lists.
func (c *Client) granted(resp *sip.Response) (time.Duration, bool) {
	def := time.Duration(-1)
	if v := values(resp, "Expires"); len(v) > 0 {
		if d, err := ims.ParseSeconds(v[0]); err == nil {
			def = d
		}
	}
	for _, v := range ims.SplitAll(values(resp, "Contact")) {
		raw, ok := ims.AddrSpec(v)
		if !ok || !c.same(raw) {
			continue
		}
		_, after, _ := strings.Cut(v, ">")
		if !strings.Contains(v, "<") {
			_, after, _ = strings.Cut(v, ";")
		}
		for p := range strings.SplitSeq(after, ";") {
			if k, val, ok := strings.Cut(strings.TrimSpace(p), "="); ok && strings.EqualFold(k, "expires") {
				d, err := ims.ParseSeconds(strings.Trim(val, `"`))
				return d, err == nil
			}
		}
		return def, def >= 0
	}
	return 0, false
}

// same compares a listed Contact with ours: user, host and port (RFC 3261 §19.1.4 as
// far as registrars keep it; some drop or add parameters).
func (c *Client) same(raw string) bool {
	var u sip.Uri
	if err := sip.ParseUri(raw, &u); err != nil {
		return false
	}
	port := func(p int) int {
		if p == 0 {
			return 5060
		}
		return p
	}
	return u.User == c.via.User && sameHost(u.Host, c.via.Host) && port(u.Port) == port(c.via.Port)
}

func sameHost(a, b string) bool {
	a, b = strings.Trim(a, "[]"), strings.Trim(b, "[]")
	if x, y := net.ParseIP(a), net.ParseIP(b); x != nil && y != nil {
		return x.Equal(y)
	}
	return strings.EqualFold(a, b)
}

// Authorize adds to req, the repetition of a request that was answered 401 or 407, the
// proof the challenge asks for, with the credentials of the registration. The digest URI
// is the request's exactly. A new CSeq number and branch are the caller's to set. It returns
// the challenge that it has answered, one of realm; "": of Options.Realm, as for REGISTER. Errors:
// digest.ErrNoChallenge, aka.ErrMAC, aka.ErrSync, or a malformed challenge.
func (c *Client) Authorize(req *sip.Request, resp *sip.Response, realm string) (ch digest.Challenge, err error) {
	challengeName, name := "WWW-Authenticate", "Authorization"
	if resp.StatusCode == 407 {
		challengeName, name = "Proxy-Authenticate", "Proxy-Authorization"
	}
	cs, err := digest.ParseChallenges(values(resp, challengeName))
	if err != nil {
		return ch, err
	}
	c.mu.Lock()
	cfg := c.cfg
	c.mu.Unlock()
	ch, err = digest.Choose(cs, cfg.algorithms, cmp.Or(realm, cfg.realm))
	if err != nil {
		return ch, err
	}
	password := cfg.password
	if digest.IsAKA(ch.Algorithm) {
		c.mu.Lock()
		p, _, err := akaPassword(cfg.sim, ch, c.m.sqn)
		if err == nil {
			c.m.sqn = p.sqn
		}
		c.mu.Unlock()
		if err != nil {
			return ch, err
		}
		c.save(p.sqn)
		password = p.password
	}
	uri := req.Recipient.String()
	a, err := digest.NewSession(ch, c.opt.IMPI, password).Authorize(
		digest.Request{Method: req.Method.String(), URI: uri, Body: req.Body()})
	if err != nil {
		return ch, err
	}
	for req.RemoveHeader(name) {
	}
	req.AppendHeader(sip.NewHeader(name, a.String()))
	return ch, nil
}
