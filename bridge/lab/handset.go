package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sparkle/bridge/lab/wire"
)

// HandsetOptions of AddHandset.
type HandsetOptions struct {
	Number    string       // E.164 with +
	Name      string       // whose phone it is
	Profile   Profile      // "" is volte-video
	Script    *Script      // nil: what the profile does
	Transport string       // "udp" or "tcp", towards the core; "" is udp
	Media     MediaFactory // nil: NewSilent
	MaxCalls  int          // at a time, more are answered 486; 0 is 1
	Auth      *Auth        // nil: a SIM of its own, AKAv1-MD5
}

// Validate reports every fault.
func (o HandsetOptions) Validate() error {
	var errs []error
	if u, err := wire.ParseURI("tel:" + o.Number); err != nil || len(o.Number) < 4 || len(o.Number) > 16 ||
		o.Number[0] != '+' || u.Number() != o.Number {
		errs = append(errs, fmt.Errorf("number %q is not E.164 with +", o.Number))
	}
	if _, err := o.Profile.Script(); err != nil {
		errs = append(errs, err)
	}
	if o.Script != nil {
		errs = append(errs, o.Script.Validate())
	}
	if o.Transport != "" && o.Transport != "udp" && o.Transport != "tcp" {
		errs = append(errs, fmt.Errorf("transport %q is neither udp nor tcp", o.Transport))
	}
	if o.MaxCalls < 0 {
		errs = append(errs, fmt.Errorf("max_calls %d", o.MaxCalls))
	}
	if o.Auth != nil {
		errs = append(errs, o.Auth.Validate())
	}
	if strings.ContainsAny(o.Name, "\"\r\n") {
		errs = append(errs, fmt.Errorf("name %q holds a quote or line break", o.Name))
	}
	return errors.Join(errs...)
}

// Network is where a handset registers: a Core, or a core that is not the lab's.
type Network struct {
	Addr   netip.AddrPort // of the P-CSCF, UDP and TCP
	Domain string         // home domain
	T1     time.Duration  // RFC 3261 timer T1; 0 is 500 ms
	Log    *slog.Logger   // nil: no log
}

// Handset is a simulated phone. Its methods may be called from anywhere.
type Handset struct {
	o    HandsetOptions
	s    Script
	home Network
	auth Auth
	log  *slog.Logger
	ep   *wire.Endpoint
	wg   sync.WaitGroup // media being closed
	done chan struct{}  // closed when Close begins
	once sync.Once

	mu      sync.Mutex
	calls   []Call
	dropped int
	changed chan struct{} // closed at the next change

	// Owned by the endpoint's loop.
	live map[string]*call // by Call-ID and local tag
	reg  registration
}

// AddHandset makes a phone with a subscriber of its own and, unless its script is off,
// registers it. It returns when it can be called.
func (c *Core) AddHandset(o HandsetOptions) (*Handset, error) {
	h, err := c.addHandset(o)
	if err != nil {
		return nil, fmt.Errorf("handset %s: %w", o.Number, err)
	}
	return h, nil
}

func (c *Core) addHandset(o HandsetOptions) (*Handset, error) {
	if o.Auth == nil {
		sim := NewSIM()
		o.Auth = &sim
	}
	h, err := newHandset(Network{Addr: c.Addr(), Domain: c.o.Domain, T1: c.o.T1, Log: c.log}, o)
	if err != nil {
		return nil, err
	}
	if err := c.AddSubscriber(h.IMPI(), h.IMPU(), h.auth); err != nil {
		h.Close()
		return nil, err
	}
	if err := h.join(); err != nil {
		h.Close()
		return nil, err
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.handsets = append(c.handsets, h)
	}
	c.mu.Unlock()
	if closed {
		h.Close()
		return nil, errors.New("the core is closed")
	}
	return h, nil
}

// NewHandset makes a phone of a network that knows its subscriber already: IMPI, IMPU and
// o.Auth, which must not be nil. Unless its script is off it registers; it returns when it
// can be called. The caller closes it.
func NewHandset(n Network, o HandsetOptions) (*Handset, error) {
	if o.Auth == nil {
		return nil, fmt.Errorf("handset %s: no secrets", o.Number)
	}
	h, err := newHandset(n, o)
	if err != nil {
		return nil, fmt.Errorf("handset %s: %w", o.Number, err)
	}
	if err := h.join(); err != nil {
		h.Close()
		return nil, fmt.Errorf("handset %s: %w", o.Number, err)
	}
	return h, nil
}

// newHandset opens the sockets; nothing is registered.
func newHandset(n Network, o HandsetOptions) (*Handset, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Profile == "" {
		o.Profile = VolteVideo
	}
	if o.Transport == "" {
		o.Transport = "udp"
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = 1
	}
	if o.Media == nil {
		o.Media = NewSilent
	}
	if n.Log == nil {
		n.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handset{
		o: o, home: n, auth: *o.Auth, log: n.Log.With("handset", o.Name), done: make(chan struct{}),
		changed: make(chan struct{}), live: map[string]*call{},
	}
	h.s, _ = o.Profile.Script()
	if o.Script != nil {
		h.s = *o.Script
	}
	started := make(chan struct{})
	var err error
	h.ep, err = wire.Listen(wire.Options{
		Addr: netip.AddrPortFrom(n.Addr.Addr(), 0).String(), Log: h.log, T1: n.T1,
		Accept:  func(*wire.Message, wire.Target) bool { <-started; return true },
		Request: h.request, Ack: h.ack, Trace: h.trace,
	})
	if err != nil {
		return nil, err
	}
	close(started)
	return h, nil
}

// join registers, unless the phone is off.
func (h *Handset) join() error {
	if err := h.newUSIM(); err != nil {
		return err
	}
	if h.s.Off {
		return nil
	}
	return h.PowerOn()
}

// Number is the handset's phone number.
func (h *Handset) Number() string { return h.o.Number }

// Name is whose phone it is.
func (h *Handset) Name() string { return h.o.Name }

// Profile is what it was added as.
func (h *Handset) Profile() Profile { return h.o.Profile }

// Addr is the handset's own SIP address, UDP and TCP.
func (h *Handset) Addr() netip.AddrPort { return h.ep.Addr() }

// IMPI is the subscriber's private identity.
func (h *Handset) IMPI() string { return IMPI(h.o.Number, h.home.Domain) }

// IMPU is the public identity that registers.
func (h *Handset) IMPU() string { return IMPU(h.o.Number, h.home.Domain) }

// IMPI is the private identity of a handset with a number, IMPU the public one.
func IMPI(number, domain string) string { return strings.TrimPrefix(number, "+") + "@" + domain }

// IMPU is the public identity of a handset with a number.
func IMPU(number, domain string) string { return "sip:" + number + "@" + domain }

// Media is the newest call's media, nil before the first.
func (h *Handset) Media() Media {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.calls) - 1; i >= 0; i-- {
		if m := h.calls[i].Media; m != nil {
			return m
		}
	}
	return nil
}

// Close drops the handset as a flat battery would, without a BYE, and waits for all it
// had running.
func (h *Handset) Close() {
	h.once.Do(func() {
		_ = h.ep.Do(func() {
			h.reg.timer.Stop()
			for _, k := range h.live {
				k.end(ByClose)
			}
		})
		close(h.done)
		h.ep.Close()
		h.wg.Wait()
	})
}

// SetScript changes what the handset does with calls to come.
func (h *Handset) SetScript(s Script) error {
	if err := s.Validate(); err != nil {
		return err
	}
	return h.ep.Do(func() { h.s = s })
}

// toCore is where a handset's own requests go.
func (h *Handset) toCore() wire.Target {
	return wire.Target{Proto: strings.ToUpper(h.o.Transport), Addr: h.home.Addr}
}

// contact is the handset's Contact URI.
func (h *Handset) contact() string {
	user := h.o.Number
	if h.s.Gateway {
		user = "mgcf-" + strings.TrimPrefix(user, "+")
	}
	return h.ep.URI(user, ";transport="+h.o.Transport)
}

// contactValue is Contact with the feature tags of what the phone can do
// (TS 24.229 §5.1.1.2).
func (h *Handset) contactValue() string {
	v := "<" + h.contact() + ">"
	if h.s.Gateway {
		return v
	}
	v += `;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel";audio`
	if h.s.Video {
		v += ";video"
	}
	return v
}

// registration is the phone's side of its own registration; the loop owns it.
type registration struct {
	callID, tag string
	seq         uint32
	usim        usim
	timer       *wire.Timer
	auth        wire.Params // the last challenge, for the next request
	nc          uint32
	wait        chan error // who waits for the running attempt, nil if nobody
	tries       int
	expires     int
	routes      []string // Service-Route: where calls of ours begin (RFC 3608); nil: not registered
}

// PowerOn registers and waits for it.
func (h *Handset) PowerOn() error { return h.registerNow(3600) }

// PowerOff de-registers and waits for it; calls to the number then end 480 in the
// network.
func (h *Handset) PowerOff() error { return h.registerNow(0) }

func (h *Handset) registerNow(expires int) error {
	wait := make(chan error, 1)
	if err := h.ep.Do(func() {
		r := &h.reg
		r.timer.Stop()
		if r.callID == "" {
			r.callID, r.tag = wire.Token(8), wire.Token(4)
		}
		r.wait, r.tries, r.expires = wait, 0, expires
		h.sendRegister()
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	select {
	case err := <-wait:
		return err
	case <-h.done:
		return errors.New("closed")
	case <-ctx.Done():
		return errors.New("no answer to REGISTER")
	}
}

func (h *Handset) sendRegister() {
	r := &h.reg
	r.seq++
	r.tries++
	uri := "sip:" + h.home.Domain
	m := &wire.Message{Method: "REGISTER", URI: uri}
	m.Add("Max-Forwards", "70")
	m.Add("From", "<"+h.IMPU()+">;tag="+r.tag)
	m.Add("To", "<"+h.IMPU()+">")
	m.Add("Call-ID", r.callID)
	m.Add("CSeq", fmt.Sprintf("%d REGISTER", r.seq))
	m.Add("Contact", h.contactValue())
	m.Add("Expires", strconv.Itoa(r.expires))
	m.Add("Supported", "path")
	m.Add("Authorization", h.authorization(uri))
	h.ep.Request(m, h.toCore(), h.registerAnswer)
}

// authorization answers the last challenge, or announces the identity when there was
// none yet (TS 24.229 §5.1.1.2.2).
func (h *Handset) authorization(uri string) string {
	r := &h.reg
	p := proof{algorithm: h.auth.algorithm(), username: h.IMPI(), realm: h.home.Domain, method: "REGISTER", uri: uri}
	head := fmt.Sprintf(`Digest username="%s",realm="%s",uri="%s"`, p.username, p.realm, uri)
	if r.auth == nil {
		return head + `,nonce="",response=""`
	}
	r.nc++
	p.nonce, p.qop, p.cnonce, p.nc = r.auth["nonce"], "auth", wire.Token(8), fmt.Sprintf("%08x", r.nc)
	p.password = []byte(h.auth.Password)
	if h.auth.Algorithm == AKAv1 {
		p.password = r.usim.res
	}
	return head + fmt.Sprintf(`,nonce="%s",response="%s",algorithm=%s,qop=auth,cnonce="%s",nc=%s`,
		p.nonce, p.response(), p.algorithm, p.cnonce, p.nc)
}

func (h *Handset) registerAnswer(m *wire.Message, err error) {
	r := &h.reg
	switch {
	case err != nil:
	case m.Status < 200:
		return
	case m.Status == 401 && r.tries < 3:
		if err = h.challenged(m); err == nil {
			h.sendRegister()
			return
		}
	case m.Status == 200:
		r.routes = nil
		if r.expires > 0 {
			r.routes = append([]string{}, m.Values("Service-Route")...)
			r.timer = h.ep.After(h.granted(m)/2, func() { r.tries = 0; h.sendRegister() })
		}
	default:
		err = fmt.Errorf("REGISTER answered %d %s", m.Status, m.Phrase)
	}
	if r.wait != nil {
		r.wait <- err
		r.wait = nil
	} else if err != nil {
		h.log.Warn("registration refresh failed", "err", err)
		r.timer = h.ep.After(5*time.Second, func() { r.tries = 0; h.sendRegister() })
	}
}

func (h *Handset) challenged(m *wire.Message) error {
	p := digestParams(m.Get("WWW-Authenticate"))
	if p == nil || p["realm"] != h.home.Domain || !strings.EqualFold(p["algorithm"], h.auth.algorithm()) {
		return fmt.Errorf("challenge does not fit the subscription: %s", m.Get("WWW-Authenticate"))
	}
	if h.auth.Algorithm == AKAv1 {
		if err := h.reg.usim.answer(p["nonce"]); err != nil {
			return err
		}
	}
	h.reg.auth, h.reg.nc = p, 0
	return nil
}

// granted is the lifetime the registrar gave our contact.
func (h *Handset) granted(m *wire.Message) time.Duration {
	for _, v := range m.Values("Contact") {
		a, err := wire.ParseAddr(v)
		if err != nil || a.URI != h.contact() {
			continue
		}
		if n, err := strconv.Atoi(a.Params["expires"]); err == nil && n > 0 {
			return time.Duration(n) * time.Second
		}
	}
	return time.Hour
}
