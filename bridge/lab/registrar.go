package lab

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge/lab/wire"
)

// subscriber is one row of the HSS with what is registered for it.
type subscriber struct {
	impi, impu string
	number     string // "" if the IMPU holds none
	auth       Auth
	sim        *vectors // AKA's network side
	challenges map[string]*challenge
	wrong      int // wrong proofs in a row
	bindings   []*binding
}

// challenge is a nonce that was given out.
type challenge struct {
	password []byte // RES with AKA
	nc       uint64 // highest seen
	stale    bool
}

// binding is one registered contact.
type binding struct {
	sub          *subscriber
	contact      string // URI
	value        string // the Contact value with its feature tags
	addr         netip.AddrPort
	flow         wire.Target
	serviceRoute string
	until        time.Time
	expiry       *wire.Timer
}

// userKey is what subscribers are found by: the number, or else the URI without
// parameters.
func userKey(uri string) (string, error) {
	u, err := wire.ParseURI(uri)
	if err != nil {
		return "", err
	}
	if n := u.Number(); n != "" {
		return n, nil
	}
	return strings.ToLower(u.User + "@" + u.Host), nil
}

// AddSubscriber provisions an identity: impi is the digest username, impu a sip: or
// tel: URI that others call. A subscriber that is there already is replaced and its
// registration forgotten.
func (c *Core) AddSubscriber(impi, impu string, auth Auth) error {
	if err := auth.Validate(); err != nil {
		return fmt.Errorf("subscriber %s: %w", impi, err)
	}
	if impi == "" || strings.ContainsAny(impi, "\" \r\n") {
		return fmt.Errorf("subscriber: bad private identity %q", impi)
	}
	key, err := userKey(impu)
	if err != nil {
		return fmt.Errorf("subscriber %s: %w", impi, err)
	}
	u, _ := wire.ParseURI(impu)
	s := &subscriber{impi: impi, impu: impu, number: u.Number(), auth: auth, challenges: map[string]*challenge{}}
	if auth.Algorithm == AKAv1 {
		if s.sim, err = newVectors(auth); err != nil {
			return fmt.Errorf("subscriber %s: %w", impi, err)
		}
	}
	return c.ep.Do(func() {
		if old := c.subs[key]; old != nil {
			c.dropAll(old)
		}
		c.subs[key] = s
	})
}

// AddService has a URI, of a service or a conference factory, lead to the subscriber with
// the public identity impu (TS 23.228 §5.4.12).
func (c *Core) AddService(uri, impu string) error {
	key, err := userKey(uri)
	if err != nil {
		return fmt.Errorf("service %s: %w", uri, err)
	}
	owner, err := userKey(impu)
	if err != nil {
		return fmt.Errorf("service %s: %w", uri, err)
	}
	doErr := c.ep.Do(func() {
		if s := c.subs[owner]; s != nil {
			c.subs[key] = s
		} else {
			err = fmt.Errorf("service %s: no subscriber %s", uri, impu)
		}
	})
	return cmp.Or(doErr, err)
}

// Registered says whether a public identity has a contact now.
func (c *Core) Registered(impu string) bool {
	key, err := userKey(impu)
	yes := false
	if err == nil {
		_ = c.ep.Do(func() { s := c.subs[key]; yes = s != nil && len(s.bindings) > 0 })
	}
	return yes
}

// Contacts are the registered Contact values of a public identity, feature tags and
// all.
func (c *Core) Contacts(impu string) []string {
	var out []string
	if key, err := userKey(impu); err == nil {
		_ = c.ep.Do(func() {
			if s := c.subs[key]; s != nil {
				for _, b := range s.bindings {
					out = append(out, b.value)
				}
			}
		})
	}
	return out
}

// Deregister drops an identity's contacts as an operator's command would. The phone is
// not told.
func (c *Core) Deregister(impu string) error {
	key, err := userKey(impu)
	if err != nil {
		return err
	}
	return c.ep.Do(func() {
		if s := c.subs[key]; s != nil {
			c.dropAll(s)
		}
	})
}

// register is the registrar (TS 24.229 §5.4.1, RFC 3261 §10.3).
func (c *Core) register(tx *wire.ServerTx) {
	m := tx.Req
	to, err := wire.ParseAddr(m.Get("To"))
	if err != nil {
		c.refuse(tx, 400, "")
		return
	}
	ruri, err := wire.ParseURI(m.URI)
	if err != nil || !c.ours(ruri) {
		c.refuse(tx, 403, "not the home domain "+c.o.Domain)
		return
	}
	key, err := userKey(to.URI)
	s := c.subs[key]
	if err != nil || s == nil {
		c.refuse(tx, 403, "unknown user") // HSS: DIAMETER_ERROR_USER_UNKNOWN
		return
	}
	p := digestParams(m.Get("Authorization"))
	if p != nil && p["username"] != s.impi {
		c.refuse(tx, 403, "private and public identity do not match")
		return
	}
	if p == nil || p["nonce"] == "" {
		c.challenge(tx, s, false)
		return
	}
	if auts := p["auts"]; auts != "" && s.sim != nil {
		if err := s.sim.resync(p["nonce"], auts); err != nil {
			c.refuse(tx, 403, err.Error())
			return
		}
		c.challenge(tx, s, false)
		return
	}
	ch := s.challenges[p["nonce"]]
	if ch == nil || ch.stale {
		c.challenge(tx, s, true)
		return
	}
	rspauth, ok := c.verify(m, s, ch, p)
	if !ok {
		delete(s.challenges, p["nonce"])
		if s.wrong++; s.wrong >= 2 {
			s.wrong = 0
			c.refuse(tx, 403, "wrong proof")
			return
		}
		c.challenge(tx, s, false)
		return
	}
	s.wrong = 0
	c.bind(tx, s, rspauth)
}

// ours says whether a request URI of REGISTER addresses this registrar.
func (c *Core) ours(u wire.URI) bool {
	if strings.EqualFold(u.Host, c.o.Domain) {
		return true
	}
	ap, ok := u.AddrPort()
	return ok && ap == c.ep.Addr()
}

func (c *Core) challenge(tx *wire.ServerTx, s *subscriber, stale bool) {
	for n := range s.challenges { // a phone that gave up leaves some behind
		if len(s.challenges) < 8 {
			break
		}
		delete(s.challenges, n)
	}
	nonce, ch := wire.Token(16), &challenge{password: []byte(s.auth.Password)}
	if s.sim != nil {
		var err error
		if nonce, ch.password, err = s.sim.next(); err != nil {
			c.refuse(tx, 500, err.Error())
			return
		}
	}
	s.challenges[nonce] = ch
	r := tx.Req.Reply(401, "", wire.Token(4))
	v := fmt.Sprintf(`Digest realm="%s",nonce="%s",algorithm=%s,qop="auth"`, c.o.Domain, nonce, s.auth.algorithm())
	if stale {
		v += ",stale=true"
	}
	r.Add("WWW-Authenticate", v)
	tx.Respond(r)
}

// verify checks an Authorization and gives the rspauth that proves us in turn.
func (c *Core) verify(m *wire.Message, s *subscriber, ch *challenge, p wire.Params) (string, bool) {
	pr := proof{
		algorithm: s.auth.algorithm(), username: s.impi, realm: c.o.Domain, method: m.Method, uri: p["uri"],
		nonce: p["nonce"], nc: p["nc"], cnonce: p["cnonce"], qop: p["qop"], password: ch.password,
	}
	if p["realm"] != c.o.Domain || p["uri"] != m.URI || p["qop"] != "" && p["qop"] != "auth" {
		return "", false
	}
	// A client of MD5 may leave the algorithm out (RFC 7616 §3.4); no other may.
	if a := p["algorithm"]; !strings.EqualFold(a, pr.algorithm) && !(a == "" && pr.algorithm == MD5) {
		return "", false
	}
	if !sameProof(pr.response(), p["response"]) {
		return "", false
	}
	if pr.qop != "" {
		nc, err := strconv.ParseUint(pr.nc, 16, 32)
		if err != nil || nc <= ch.nc { // a replay
			return "", false
		}
		ch.nc = nc
	} else {
		ch.stale = true // without nc a nonce is good once
	}
	pr.method = ""
	return fmt.Sprintf(`qop=%s,rspauth="%s",cnonce="%s",nc=%s`, orDefault(pr.qop, "auth"), pr.response(), pr.cnonce, orDefault(pr.nc, "00000001")), true
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// bind changes the contacts as an authenticated REGISTER asks.
func (c *Core) bind(tx *wire.ServerTx, s *subscriber, info string) {
	m := tx.Req
	now := time.Now()
	for _, v := range m.Values("Contact") {
		if v == "*" {
			c.dropAll(s)
			continue
		}
		a, err := wire.ParseAddr(v)
		if err != nil {
			c.refuse(tx, 400, "")
			return
		}
		u, err := wire.ParseURI(a.URI)
		addr, ok := u.AddrPort()
		if err != nil || !ok {
			c.refuse(tx, 400, "Contact has no literal address")
			return
		}
		want := c.wanted(m, a)
		if want > 0 && want < c.o.MinExpires {
			r := m.Reply(423, "", wire.Token(4))
			r.Add("Min-Expires", strconv.Itoa(int(c.o.MinExpires.Seconds())))
			tx.Respond(r)
			return
		}
		for _, b := range slices.Clone(s.bindings) {
			if b.contact == a.URI {
				c.drop(b)
			}
		}
		if want == 0 {
			continue
		}
		grant := min(want, c.o.MaxExpires)
		b := &binding{sub: s, contact: a.URI, value: v, addr: addr, flow: tx.From, until: now.Add(grant)}
		b.serviceRoute = c.ep.URI("orig-"+hex.EncodeToString([]byte(s.impi)), ";lr")
		b.expiry = c.ep.After(grant, func() { c.drop(b) })
		s.bindings = append(s.bindings, b)
		c.byAddr[addr] = append(c.byAddr[addr], b)
		c.byFlow[b.flow] = append(c.byFlow[b.flow], b)
	}
	c.registered(tx, s, now, info)
}

// drop forgets one contact.
func (c *Core) drop(b *binding) {
	b.expiry.Stop()
	is := func(o *binding) bool { return o == b }
	b.sub.bindings = slices.DeleteFunc(b.sub.bindings, is)
	if l := slices.DeleteFunc(c.byAddr[b.addr], is); len(l) > 0 {
		c.byAddr[b.addr] = l
	} else {
		delete(c.byAddr, b.addr)
	}
	if l := slices.DeleteFunc(c.byFlow[b.flow], is); len(l) > 0 {
		c.byFlow[b.flow] = l
	} else {
		delete(c.byFlow, b.flow)
	}
}

func (c *Core) dropAll(s *subscriber) {
	for _, b := range slices.Clone(s.bindings) {
		c.drop(b)
	}
}

// wanted is the lifetime a contact asks for.
func (c *Core) wanted(m *wire.Message, a wire.Addr) time.Duration {
	for _, v := range []string{a.Params["expires"], m.Get("Expires")} {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			return time.Duration(n) * time.Second
		}
	}
	return c.o.MaxExpires
}

// registered is the 200 (TS 24.229 §5.4.1.2.2F).
func (c *Core) registered(tx *wire.ServerTx, s *subscriber, now time.Time, info string) {
	r := tx.Req.Reply(200, "", wire.Token(4))
	for _, b := range s.bindings {
		left := int(b.until.Sub(now).Round(time.Second).Seconds())
		a, _ := wire.ParseAddr(b.value)
		v := b.value
		if _, has := a.Params["expires"]; has { // ours counts, not what was asked
			v = "<" + b.contact + ">"
		}
		r.Add("Contact", fmt.Sprintf("%s;expires=%d", v, left))
	}
	if tx.Req.Has("Supported", "path") {
		r.Add("Path", "<"+c.ep.URI("term", ";lr")+">")
	}
	if len(s.bindings) > 0 {
		r.Add("Service-Route", "<"+s.bindings[len(s.bindings)-1].serviceRoute+">")
		for _, id := range s.identities(c.o.Domain) {
			r.Add("P-Associated-URI", "<"+id+">")
		}
	}
	r.Add("Authentication-Info", info)
	tx.Respond(r)
}

// identities are the URIs a subscriber may call with, the default one first.
func (s *subscriber) identities(domain string) []string {
	if s.number == "" {
		return []string{s.impu}
	}
	return []string{"sip:" + s.number + "@" + domain, "tel:" + s.number}
}
