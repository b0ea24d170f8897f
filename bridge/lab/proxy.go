package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge/lab/wire"
)

// Users of our own URIs in Route headers tell what the sender followed.
const (
	routeEdge    = ""     // the P-CSCF's address, as configured
	routeDialog  = "d"    // our Record-Route
	routeService = "orig" // with "-" and the subscriber: our Service-Route
)

// ownRoutes takes our own entries off the top of the route set and returns them.
func (c *Core) ownRoutes(m *wire.Message) []wire.URI {
	var out []wire.URI
	for {
		v := m.Get("Route")
		if v == "" {
			return out
		}
		a, err := wire.ParseAddr(v)
		if err != nil {
			return out
		}
		u, err := wire.ParseURI(a.URI)
		if err != nil {
			return out
		}
		if ap, ok := u.AddrPort(); !ok || ap != c.ep.Addr() {
			return out
		}
		m.Pop("Route")
		out = append(out, u)
	}
}

// inDialog passes a request within a dialog on. It must have come here by the
// dialog's own route set (RFC 3261 §12.2.1.1), not by the Service-Route.
func (c *Core) inDialog(tx *wire.ServerTx) {
	m := tx.Req.Clone()
	own := c.ownRoutes(m)
	if len(own) == 0 {
		c.refuse(tx, 403, "in-dialog request without the dialog's Route")
		return
	}
	for _, u := range own {
		if u.User != routeDialog {
			c.refuse(tx, 403, "in-dialog request does not use the Record-Route")
			return
		}
	}
	to, err := c.nextHop(m)
	if err != nil {
		c.refuse(tx, 404, err.Error())
		return
	}
	c.forward(tx, m, to)
}

// ack passes the ACK of a 2xx on, as stateless as RFC 3261 §16.11.
func (c *Core) ack(m *wire.Message, _ wire.Target) {
	m = m.Clone()
	if len(c.ownRoutes(m)) == 0 {
		c.log.Debug("ACK dropped: not routed through us", "call_id", m.Get("Call-ID"))
		return
	}
	to, err := c.nextHop(m)
	if err != nil || !decrement(m) {
		return
	}
	m.Prepend("Via", c.ep.Via(to.Proto, wire.Branch()))
	if err := c.ep.Send(m, to); err != nil {
		c.log.Debug("ACK not sent", "err", err)
	}
}

// nextHop is where the remaining Route, or else the request URI, leads. A registered
// contact is reached over the connection it registered on.
func (c *Core) nextHop(m *wire.Message) (wire.Target, error) {
	uri := m.URI
	if v := m.Get("Route"); v != "" {
		a, err := wire.ParseAddr(v)
		if err != nil {
			return wire.Target{}, err
		}
		uri = a.URI
	}
	u, err := wire.ParseURI(uri)
	if err != nil {
		return wire.Target{}, err
	}
	ap, ok := u.AddrPort()
	if !ok {
		return wire.Target{}, fmt.Errorf("no literal address in %s", uri)
	}
	t := wire.Target{Proto: strings.ToUpper(orDefault(u.Params["transport"], "udp")), Addr: ap}
	if l := c.byAddr[ap]; len(l) > 0 {
		return l[len(l)-1].target(), nil
	}
	return t, nil
}

// target is the flow a contact registered on, or its address once that is gone.
func (b *binding) target() wire.Target {
	if b.flow.Proto == "UDP" || b.flow.Alive() {
		return b.flow
	}
	return wire.Target{Proto: "TCP", Addr: b.addr}
}

// caller finds who sends an initial request: a trunk peer (nil, true), or the
// registered contact whose flow it came on. Several identities may share a flow; the
// one that the request names is meant.
func (c *Core) caller(tx *wire.ServerTx) (*binding, bool) {
	found := c.byFlow[tx.From]
	if len(found) == 0 {
		found = c.reconnected(tx)
	}
	if len(found) == 0 {
		return nil, c.trunk(tx.From)
	}
	for _, name := range []string{"P-Preferred-Identity", "From"} {
		a, err := wire.ParseAddr(tx.Req.Get(name))
		if err != nil {
			continue
		}
		key, err := userKey(a.URI)
		if err != nil {
			continue
		}
		for _, b := range found {
			if b.sub == c.subs[key] {
				return b, true
			}
		}
	}
	return found[0], true
}

// reconnected finds contacts whose TCP connection broke and was replaced by this one.
func (c *Core) reconnected(tx *wire.ServerTx) []*binding {
	a, err := wire.ParseAddr(tx.Req.Get("Contact"))
	if err != nil || tx.From.Proto != "TCP" {
		return nil
	}
	u, err := wire.ParseURI(a.URI)
	if err != nil {
		return nil
	}
	ap, _ := u.AddrPort()
	var found []*binding
	for _, b := range c.byAddr[ap] {
		if b.contact == a.URI && b.flow.Proto == "TCP" && !b.flow.Alive() {
			found = append(found, b)
		}
	}
	return found
}

// originate takes a request that opens a dialog (or stands alone) from its caller to
// the number it is for.
func (c *Core) originate(tx *wire.ServerTx, u wire.URI) {
	b, ok := c.caller(tx)
	if !ok {
		c.refuse(tx, 403, "neither registered nor a trunk peer")
		return
	}
	m := tx.Req.Clone()
	own := c.ownRoutes(m)
	if b != nil {
		if why := b.routeFault(own); why != "" {
			c.refuse(tx, 403, why)
			return
		}
		b.identify(m, c.o.Domain)
	}
	if m.Get("Route") != "" {
		c.refuse(tx, 403, "Route leads elsewhere")
		return
	}
	callee := c.callee(u)
	switch {
	case callee == nil:
		c.refuse(tx, 404, "")
		return
	case len(callee.bindings) == 0:
		r := tx.Req.Reply(480, "", wire.Token(4))
		r.Add("Reason", `Q.850;cause=20;text="Subscriber absent"`)
		tx.Respond(r)
		return
	}
	c.charge(m)
	t := callee.bindings[len(callee.bindings)-1]
	m.Set("P-Called-Party-ID", "<"+m.URI+">")
	m.URI = t.contact
	to := t.target()
	c.recordRoute(m, tx.From.Proto, to.Proto)
	c.forward(tx, m, to)
}

// routeFault checks the preloaded route of a registered caller: the P-CSCF, then its
// Service-Route (TS 24.229 §5.1.2A.1).
func (b *binding) routeFault(own []wire.URI) string {
	want, _ := wire.ParseURI(b.serviceRoute)
	switch {
	case len(own) == 0 || own[0].User != routeEdge:
		return "top Route is not the P-CSCF"
	case len(own) != 2 || !strings.HasPrefix(own[1].User, routeService) || own[1].User != want.User:
		return "Route does not follow the Service-Route"
	}
	return ""
}

// identify replaces what a phone says about itself by what the network knows
// (TS 24.229 §5.2.6.3): a preferred identity counts only if it is registered.
func (b *binding) identify(m *wire.Message, domain string) {
	ids := b.sub.identities(domain)
	id := ids[0]
	if a, err := wire.ParseAddr(m.Get("P-Preferred-Identity")); err == nil {
		for _, k := range ids {
			if strings.EqualFold(a.URI, k) {
				id = k
			}
		}
	}
	m.Del("P-Preferred-Identity")
	m.Del("P-Preferred-Service")
	m.Del("P-Asserted-Identity")
	m.Del("P-Access-Network-Info")
	m.Add("P-Asserted-Identity", "<"+id+">")
	if tel := "tel:" + b.sub.number; b.sub.number != "" && id != tel {
		m.Add("P-Asserted-Identity", "<"+tel+">")
	}
}

// charge gives a call its charging identifier, unless a trunk brought one.
func (c *Core) charge(m *wire.Message) {
	if m.Get("P-Charging-Vector") == "" {
		m.Add("P-Charging-Vector", fmt.Sprintf("icid-value=%s;icid-generated-at=%s;orig-ioi=%s",
			wire.Token(12), c.ep.Addr().Addr(), c.o.Domain))
	}
}

func (c *Core) callee(u wire.URI) *subscriber {
	if n := u.Number(); n != "" {
		return c.subs[n]
	}
	return c.subs[strings.ToLower(u.User+"@"+u.Host)]
}

// recordRoute keeps us in the dialog, with an entry for each side where the two use
// different transports (RFC 5658 §5).
func (c *Core) recordRoute(m *wire.Message, from, to string) {
	m.Prepend("Record-Route", "<"+c.ep.URI(routeDialog, ";transport="+strings.ToLower(from)+";lr")+">")
	if to != from {
		m.Prepend("Record-Route", "<"+c.ep.URI(routeDialog, ";transport="+strings.ToLower(to)+";lr")+">")
	}
}

// decrement lowers Max-Forwards; false means the request has come too far.
func decrement(m *wire.Message) bool {
	n, err := strconv.Atoi(strings.TrimSpace(orDefault(m.Get("Max-Forwards"), "70")))
	if err != nil || n <= 0 {
		return false
	}
	m.Set("Max-Forwards", strconv.Itoa(n-1))
	return true
}

// relay is one forwarded request of a stateful proxy (RFC 3261 §16).
type relay struct {
	c         *Core
	tx        *wire.ServerTx
	out       *wire.ClientTx
	timerC    *wire.Timer
	cancelled bool
}

func (c *Core) forward(tx *wire.ServerTx, m *wire.Message, to wire.Target) {
	if !decrement(m) {
		c.refuse(tx, 483, "")
		return
	}
	r := &relay{c: c, tx: tx}
	if m.Method == "INVITE" {
		tx.Respond(tx.Req.Reply(100, "", ""))
		tx.OnCancel = r.cancel
		r.armC()
	}
	r.out = c.ep.Request(m, to, r.response)
}

// armC bounds how long a callee may ring (RFC 3261 §16.8).
func (r *relay) armC() {
	r.timerC.Stop()
	r.timerC = r.c.ep.After(r.c.timerC, func() { r.out.Cancel("") })
}

func (r *relay) cancel(m *wire.Message) {
	r.cancelled = true
	r.out.Cancel(m.Get("Reason"))
}

func (r *relay) response(m *wire.Message, err error) {
	if err != nil {
		r.timerC.Stop()
		status := 408
		switch {
		case r.cancelled:
			status = 487
		case errors.Is(err, wire.ErrTransport) && r.tx.Req.Method == "INVITE" && r.tx.Req.ToTag() == "":
			status = 480 // the phone is gone
		case errors.Is(err, wire.ErrTransport):
			status = 500
		}
		r.c.refuse(r.tx, status, "")
		return
	}
	if m.Status == 100 {
		return
	}
	if m.Status < 200 && r.tx.Req.Method == "INVITE" {
		r.armC()
	} else {
		r.timerC.Stop()
	}
	up := m.Clone()
	up.Pop("Via")
	r.tx.Respond(up)
}

// ringLimit is for tests that cannot wait for timer C.
func (c *Core) ringLimit(d time.Duration) { _ = c.ep.Do(func() { c.timerC = d }) }
