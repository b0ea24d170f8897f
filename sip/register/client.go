// Package register keeps one public identity registered with an IMS core the way a
// phone does (TS 24.229 §5.1.1, IMS.md §1a; without IPsec). The behaviour is a pure step
// function (machine.go, agreement.go); Client drives it with a clock and a transport.
package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/aka"
	"sparkle/sip/digest"
	"sparkle/sip/reginfo"
)

// FeatureTags are the Contact parameters of an MMTEL client with video.
const FeatureTags = `+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel";audio;video`

// deregisterCap is how long de-registration may hold up an exit; answerCap is timer F.
const (
	deregisterCap = 5 * time.Second
	answerCap     = 32 * time.Second
	briefCap      = 4 * time.Second // where a flow was lost and there is another P-CSCF
)

// Options says who registers where.
type Options struct {
	Domain        string   // home domain: the Request-URI
	IMPI          string   // private identity: the digest user name
	IMPU          string   // public identity, a SIP URI
	Contact       string   // our SIP URI, with address, port and transport
	ContactParams string   // "": FeatureTags
	Targets       []string // P-CSCFs, host:port; empty: the send function finds its way
	Algorithms    []string // allowed (digest constants); empty: those of digest.Answerable
	Realm         string   // a challenge's must be this; "": Domain; "*": any
	Password      string   // digest
	K, OP, OPc    string   // AKA: 32 hex digits each, OP or OPc
	SQN           uint64   // AKA: the highest accepted so far
	// SaveSQN keeps an accepted sequence number; it is called before the number is used.
	// An error is logged and does not stop the registration.
	SaveSQN func(uint64) error
	Expires time.Duration // to ask for; 0: 600000 s
	// Agree offers the security mechanism tls (RFC 3329). Contact is that of a TLS socket then.
	Agree bool
	// Clear says over what and to which address a REGISTER to a target goes as long as TLS has not
	// been agreed on with it; nil: over TLS as well. With Agree only.
	Clear func(target string) (transport, addr string)
	// BareFirst leaves Authorization out of the first REGISTER: some trunks want that.
	BareFirst bool
	// Outbound asks for RFC 5626: reg-id 1 in Contact, whose instance is ContactParams' to name.
	Outbound      bool
	AccessNetwork string // P-Access-Network-Info of what has a proof, "": none (TS 24.229 §5.1.1.2: not unprotected)
	UserAgent     string
}

// Validate names the first thing that is wrong.
func (o Options) Validate() error {
	for _, f := range []struct{ name, v string }{
		{"domain", o.Domain}, {"impi", o.IMPI}, {"impu", o.IMPU}, {"contact", o.Contact}} {
		if f.v == "" {
			return fmt.Errorf("register: %s is empty", f.name)
		}
		if strings.ContainsAny(f.v, "\r\n\"<> ") {
			return fmt.Errorf("register: %s has a character that cannot stand there", f.name)
		}
	}
	for _, f := range []struct{ name, v string }{{"impu", o.IMPU}, {"contact", o.Contact}, {"domain", "sip:" + o.Domain}} {
		var u sip.Uri
		if err := sip.ParseUri(f.v, &u); err != nil || u.Scheme != "sip" && u.Scheme != "sips" || u.Host == "" {
			return fmt.Errorf("register: %s is not a SIP URI", f.name)
		}
	}
	if o.Expires < 0 || o.Expires > 0 && o.Expires < time.Second {
		return errors.New("register: expires is below 1 s")
	}
	if o.K == "" && o.Password == "" {
		return errors.New("register: neither a password nor K is given")
	}
	if o.Clear != nil && !o.Agree {
		return errors.New("register: nothing leads from clear to TLS but an agreement")
	}
	if o.SQN > aka.SQNMask {
		return errors.New("register: SQN has more than 48 bits")
	}
	for _, a := range o.Algorithms {
		if err := digest.Usable(a, o.Password != "", o.K != ""); err != nil {
			return fmt.Errorf("register: %w", err)
		}
	}
	if o.K != "" {
		if _, err := aka.NewHex(o.K, o.OP, o.OPc); err != nil {
			return err
		}
	}
	return nil
}

// ErrLost is what a SendFunc's error wraps when the connection broke before the answer.
var ErrLost = errors.New("register: connection lost")

// SendFunc sends one REGISTER and returns its final response. It may complete headers
// that only the transport knows (Via). A retransmission is its business.
type SendFunc func(ctx context.Context, req *sip.Request) (*sip.Response, error)

// Snapshot is what others may know of a registration.
type Snapshot struct {
	State          State
	Since          time.Time
	Expires        time.Time // zero unless registered
	LastError      string
	ServiceRoutes  []string // Route values for requests outside dialogs, in order, as raw name-addr
	AssociatedURIs []string // identities we may use, the default first
	Identity       string   // the default: first associated URI, else the IMPU
	Target         string   // P-CSCF that has the registration, or is asked for one; "" without Options.Targets
	Held           bool     // the flow to it, or the security agreement, was lost and is being made anew: calls had better wait
}

// Client is one registration. Run drives it; the other methods may be called from
// anywhere.
type Client struct {
	opt     Options
	cfg     *settings
	send    SendFunc
	log     *slog.Logger
	via     sip.Uri // the Contact's, for Via
	callID  string
	fromTag string
	changed chan struct{}
	kick    chan struct{}
	losses  chan lost   // cap 1: one is enough to act on
	breaks  chan broken // cap 1: there is none while breaking
	notices chan notice // cap 16: what the network tells; more at once is a loop of its, and dropped

	mu       sync.Mutex
	m        machine
	breaking bool // what is in breaks has not been dealt with
	cseq     uint32
}

// New checks the options; nothing is sent before Run. log nil: no log.
func New(opt Options, send SendFunc, log *slog.Logger) (*Client, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if opt.Expires == 0 {
		opt.Expires = 600000 * time.Second
	}
	if opt.ContactParams == "" {
		opt.ContactParams = FeatureTags
	}
	cfg := &settings{domain: opt.Domain, realm: opt.Realm, impi: opt.IMPI, algorithms: opt.Algorithms,
		password: []byte(opt.Password), targets: targetsOf(opt.Targets), expires: opt.Expires,
		agree: opt.Agree, clear: opt.Clear != nil, chance: rand.Float64}
	switch opt.Realm {
	case "":
		cfg.realm = opt.Domain
	case "*":
		cfg.realm = ""
	}
	if opt.K != "" {
		sim, err := aka.NewHex(opt.K, opt.OP, opt.OPc)
		if err != nil {
			return nil, err
		}
		cfg.sim = sim
	}
	if len(cfg.algorithms) == 0 {
		cfg.algorithms = digest.Answerable(opt.K != "")
	}
	c := &Client{opt: opt, cfg: cfg, send: send, log: log, changed: make(chan struct{}, 1), kick: make(chan struct{}, 1), losses: make(chan lost, 1), breaks: make(chan broken, 1), notices: make(chan notice, 16),
		callID: sip.GenerateTagN(24), fromTag: sip.GenerateTagN(12),
		m: machine{cfg: cfg, state: Unregistered, since: time.Now(), sqn: opt.SQN}}
	if err := sip.ParseUri(opt.Contact, &c.via); err != nil {
		return nil, fmt.Errorf("register: contact: %w", err)
	}
	return c, nil
}

// targetsOf are the P-CSCFs; "" where the transport knows the way.
func targetsOf(list []string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	return slices.Clone(list)
}

// Run registers, keeps registered, and when ctx ends de-registers, which takes at most
// 5 s. It returns nil then. Call it once.
func (c *Client) Run(ctx context.Context) error {
	c.input(ctx, start{})
	for ctx.Err() == nil {
		clock := time.NewTimer(time.Hour)
		if at := c.wakeAt(); at.IsZero() {
			clock.Stop()
		} else {
			clock.Reset(time.Until(at))
		}
		select {
		case <-clock.C:
			c.input(ctx, wake{})
		case <-c.kick:
			c.input(ctx, start{})
		case l := <-c.losses:
			c.input(ctx, l)
		case b := <-c.breaks:
			c.input(ctx, b)
		case n := <-c.notices:
			c.input(ctx, n)
		case <-ctx.Done():
		}
		clock.Stop()
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterCap)
	defer cancel()
	c.input(end, stop{})
	return nil
}

// Refresh registers again at once: after a lost connection, when an operator has mended
// something, or when the network says so (reg event).
func (c *Client) Refresh() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Loss says that the flow to a P-CSCF was lost (RFC 5626 §4.4).
type Loss struct {
	Target string // as in Options.Targets; one that does not have the registration does not count
	At     time.Time
	Mute   bool // it is connected, or may be, and says nothing
	Why    string
}

// Lose registers again at once, there or at the next P-CSCF; a flow that is lost again soon
// has to wait.
func (c *Client) Lose(l Loss) {
	select {
	case c.losses <- lost(l):
	default:
	}
}

// Disagree says that a P-CSCF answered something else than a REGISTER with 494 (RFC 3329 §2.3.1):
// it has another list of security mechanisms now, and is registered with anew. The result says
// whether it is, or somebody is already in its stead: Held until then.
func (c *Client) Disagree(target string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := broken{target}
	if !c.breaking && c.m.mayAgreeAgain(time.Now(), b) {
		c.breaking = true
		c.breaks <- b // does not wait: nobody else sends, and the last one has been taken
	}
	return c.breaking || c.m.held()
}

// Agreed is the list of the P-CSCF that has the registration, for Verify; nil: there is none. It
// is not to be changed.
func (c *Client) Agreed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.standing.list
}

// Notice takes what the network tells of our binding (RFC 3680).
func (c *Client) Notice(r reginfo.Contact) {
	select {
	case c.notices <- notice{r}:
	default:
		c.log.Warn("reg event dropped: too many at once")
	}
}

// Same says whether a contact URI is ours.
func (c *Client) Same(uri string) bool { return c.same(uri) }

// SetTargets replaces the P-CSCFs: their name has moved in the DNS. If the one in use is
// not among them any more the result is true: register again, unless somebody must act first.
// Until that has gone through, a registration that stands is still with the old one. No target at
// all changes nothing.
func (c *Client) SetTargets(targets []string) (moved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(targets) == 0 || slices.Equal(targets, c.opt.Targets) {
		return false
	}
	used := c.cfg.targets[c.m.target]
	cfg := *c.cfg
	cfg.targets = slices.Clone(targets)
	c.cfg, c.m.cfg = &cfg, &cfg
	c.opt.Targets = cfg.targets
	c.m.target = max(slices.Index(targets, used), 0)
	return targets[c.m.target] != used && c.m.state != Rejected && c.m.state != AuthFailed
}

// Changed has a value after the state or anything else of the Snapshot has changed.
// Several changes may come as one.
func (c *Client) Changed() <-chan struct{} { return c.changed }

// State is the registration now.
func (c *Client) State() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Snapshot{State: c.m.state, Since: c.m.since, Expires: c.m.expiresAt, LastError: c.m.lastErr,
		ServiceRoutes: slices.Clone(c.m.routes), AssociatedURIs: slices.Clone(c.m.uris), Identity: c.opt.IMPU}
	if len(s.AssociatedURIs) > 0 {
		s.Identity = s.AssociatedURIs[0]
	}
	if s.Target = c.cfg.targets[c.m.target]; c.m.state == Registered {
		s.Target = c.m.home
	}
	s.Held = c.breaking || c.m.held()
	return s
}

func (c *Client) wakeAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.wakeAt
}

// input steps the machine and carries out what it wants, until it waits. A send blocks;
// its answer is the next input.
func (c *Client) input(ctx context.Context, in any) {
	for in != nil {
		c.mu.Lock()
		before := c.m
		next, acts := c.m.step(time.Now(), in)
		c.m = next
		if _, ok := in.(broken); ok {
			c.breaking = false
			c.tell() // who waits for it waits no longer, or for the machine
		}
		c.mu.Unlock()
		c.report(before, next)
		in = nil
		for _, a := range acts {
			switch a := a.(type) {
			case saveSQN:
				c.save(a.sqn)
			case send:
				in = c.exchange(ctx, a)
			case done:
			}
		}
	}
}

func (c *Client) save(sqn uint64) {
	if c.opt.SaveSQN == nil {
		return
	}
	if err := c.opt.SaveSQN(sqn); err != nil {
		c.log.Error("cannot keep the AKA sequence number", "err", err)
	}
}

// tell tells watchers that something has changed.
func (c *Client) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// report tells watchers and the log what changed.
func (c *Client) report(a, b machine) {
	if a.state == b.state && a.lastErr == b.lastErr && a.expiresAt.Equal(b.expiresAt) && a.target == b.target && a.home == b.home && a.held() == b.held() &&
		slices.Equal(a.standing.list, b.standing.list) &&
		slices.Equal(a.routes, b.routes) && slices.Equal(a.uris, b.uris) {
		return
	}
	c.tell()
	if b.cfg.agree && b.state == Registered && (a.state != Registered || !slices.Equal(a.standing.list, b.standing.list)) {
		c.log.Info("security agreement", "with", b.home, "list", b.standing.list) // none: it does none, and has TLS
	}
	if a.state == b.state {
		if b.lastErr != "" && a.lastErr != b.lastErr {
			c.log.Warn("registration cannot be refreshed", "why", b.lastErr)
		}
		return
	}
	level := slog.LevelInfo
	switch b.state {
	case AuthFailed, Rejected:
		level = slog.LevelError
	case Unregistered:
		if b.lastErr != "" {
			level = slog.LevelWarn
		}
	}
	c.log.Log(context.Background(), level, "registration "+string(b.state), "why", b.lastErr, "expires", b.expiresAt)
}
