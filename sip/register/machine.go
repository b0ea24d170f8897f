package register

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sparkle/sip/aka"
	"sparkle/sip/digest"
	"sparkle/sip/ims"
	"sparkle/sip/reginfo"
)

// State is what a registration is in.
type State string

// The states of a registration (sip.AttachmentState).
const (
	Unregistered State = "unregistered" // not yet, no longer, or given up by the network
	Registering  State = "registering"  // the first REGISTER is on its way
	Registered   State = "registered"   // calls can be placed; a refresh may be under way
	AuthFailed   State = "auth_failed"  // our credentials are wrong: somebody must act
	Rejected     State = "rejected"     // the network does not want us: somebody must act
)

// Waits of IMS.md §1a and RFC 5626 §4.5.
const (
	longWait    = 30 * time.Minute // after 403, and after wrong credentials
	backoffBase = 30 * time.Second
	backoffMax  = 30 * time.Minute

	maxRounds  = 2 // challenges answered in one attempt
	maxResyncs = 2 // AUTS sent in one attempt
	maxForged  = 2 // challenges with a wrong MAC in a row
	maxRaises  = 2 // 423 obeyed in one attempt

	// longestRetry bounds what Retry-After and a reg event's retry-after can ask for: one wrong
	// number must not take a registration away for a year.
	longestRetry = time.Hour

	// A lost flow is replaced at once. One that is lost again within steady was not worth much
	// (a peer that closes after every answer): then it waits lossBase, and twice that, and so on.
	steady   = time.Minute
	lossBase = 5 * time.Second
)

// machine is one registration as a pure step function:
//
//	            start            2xx
//	unregistered ──▶ registering ──▶ registered ⟲ refresh; flow lost: at once
//	      ▲   ▲ 401 ⟲    │ 401 twice, 403 to a proof, AKA forged twice ──▶ auth_failed
//	      │   │          │ 403        ──▶ rejected  ───┐ 30 min; auth_failed too
//	      │   └ back-off ┴ 5xx, silence                │
//	      └────────────────────────────────────────────┘ registering
//
// It is a value: step returns the next one and what to do. Time and chance come in.
type machine struct {
	cfg *settings

	state     State
	since     time.Time
	expiresAt time.Time // of the registration, if registered
	lastErr   string
	routes    []string // Service-Route
	uris      []string // P-Associated-URI

	home   string    // P-CSCF that took the registration: calls go there as long as it stands
	homeAt time.Time // when it did so last

	pact     pact      // with the P-CSCF that this attempt is about
	standing pact      // with home
	asked    string    // P-CSCF that the REGISTER which waits went to
	offered  bool      // that had Security-Client
	verified bool      // and Security-Verify
	amended  bool      // a list that had changed was taken over in this attempt
	brokenAt time.Time // when home said last, of something else than a REGISTER, that its list has changed

	waiting  bool      // for an answer
	sent     bool      // a REGISTER left since the network last told us we are not registered
	stopping bool      // what is under way is the de-registration
	wakeAt   time.Time // zero: no timer
	retryAt  time.Time // the network does not want to hear of us before
	session  *digest.Session
	sqn      uint64        // highest accepted
	expires  time.Duration // to ask for; 423 raises it
	noPath   bool          // 420 took "path" away
	target   int           // index of the P-CSCF that the next REGISTER goes to
	tried    int           // further P-CSCFs tried in this attempt
	rounds   int
	resyncs  int
	forged   int
	raises   int
	failures int
	otherTry bool // 403 already made us try another P-CSCF
	relit    bool // a lost connection was replaced in this attempt
	losing   bool // the flow to home was lost, and no REGISTER has gone through since
	losses   int  // flows lost, each soon after the one before
}

// pact is the security agreement with a P-CSCF (RFC 3329). It holds for its connection: with the
// next one it is made again (§2.5), and with another P-CSCF too. TLS is all that we offer, so
// once it has been agreed on there is nothing to choose any more, and nothing goes in clear.
type pact struct {
	with  string
	list  []string // its Security-Server, field by field; nil: it has not said, or does not do it
	over  bool     // the connection is gone, or the list has changed: to be agreed on again
	never bool     // it does not know sec-agree (420)
}

// mechanism is the only one that we offer.
const mechanism = "tls"

// settings is what does not change while a machine lives.
type settings struct {
	domain     string
	realm      string // "": any
	impi       string
	algorithms []string
	password   []byte
	sim        *aka.Milenage // nil: no AKA
	targets    []string      // at least 1; "" is the only one where the transport finds its way
	expires    time.Duration
	agree      bool           // on security, by RFC 3329
	clear      bool           // REGISTERs go without TLS as long as it has not been agreed on
	chance     func() float64 // [0,1)
}

// The inputs.
type (
	start    struct{}
	wake     struct{}
	stop     struct{}
	lost     Loss
	broken   struct{ target string }      // that P-CSCF does not take what was agreed with it any more
	failure  struct{ err error }          // no answer, or it could not be sent
	notice   struct{ of reginfo.Contact } // the network tells of our binding (RFC 3680)
	response struct {
		status     int
		challenges []digest.Challenge
		badAuth    error         // challenges that did not parse, or a wrong rspauth
		granted    time.Duration // of our Contact in a 2xx
		found      bool          // our Contact is in the 2xx
		routes     []string
		uris       []string
		minExpires time.Duration
		retryAfter time.Duration
		phrase     string
		noPath     bool            // 420 lists "path"
		noAgree    bool            // 420 lists "sec-agree"
		list       []string        // Security-Server, field by field
		mechanisms []ims.Mechanism // what that says
		badList    error           // it cannot be read
	}
)

// The actions.
type (
	// send a REGISTER. proof nil: an empty Authorization; fixed: that one as it is.
	send struct {
		expires time.Duration
		proof   *digest.Session
		fixed   *digest.Authorization
		auts    string
		target  string
		brief   bool     // another P-CSCF can be tried if this one does not answer soon
		offer   bool     // Security-Client
		verify  []string // Security-Verify
		clear   bool     // without TLS
	}
	saveSQN struct{ sqn uint64 }
	done    struct{} // de-registered, or nothing to de-register
)

// step is the whole behaviour.
func (m machine) step(now time.Time, in any) (machine, []any) {
	switch in := in.(type) {
	case start: // somebody asks for it, who may have mended something
		m.otherTry = false
		return m.begin(now)
	case lost:
		return m.flowLost(now, in)
	case broken:
		return m.agreeAgain(now, in)
	case wake:
		return m.timer(now)
	case stop:
		return m.leave(now)
	case notice:
		return m.noticed(now, in.of), nil
	case failure:
		if !m.waiting {
			return m, nil
		}
		m.waiting = false
		if m.stopping {
			return m.left(now)
		}
		if errors.Is(in.err, ErrLost) && !m.relit {
			// Somebody was there: one fresh connection before any waiting.
			m.relit, m.pact.over = true, true
			return m.again(now)
		}
		return m.unreachable(now, in.err.Error(), 0)
	case response:
		if !m.waiting {
			return m, nil
		}
		m.waiting = false
		return m.answered(now, in)
	}
	panic(fmt.Sprintf("register: unknown input %T", in))
}

func (m machine) to(now time.Time, s State, why string) machine {
	if m.state != s {
		m.state, m.since = s, now
	}
	m.lastErr = why
	if s != Registered {
		m.expiresAt = time.Time{}
		m.routes, m.uris = nil, nil
		m.losing, m.standing = false, pact{}
	}
	return m
}

// flowLost is RFC 5626 §4.4: what the P-CSCF has for us does not come any more, and what we
// have for it may be lost. One that says nothing is not asked again if there is another.
func (m machine) flowLost(now time.Time, l lost) (machine, []any) {
	if m.state != Registered || m.stopping || m.losing || l.Target != m.home || l.At.Before(m.homeAt) {
		return m, nil
	}
	m.losing, m.lastErr, m.standing.over = true, l.Why, true
	if m.waiting {
		return m, nil // for the answer to a refresh: if it comes, all is well
	}
	if i := slices.Index(m.cfg.targets, m.home); i >= 0 {
		m.target = i
	}
	if l.Mute {
		m.target = (m.target + 1) % len(m.cfg.targets)
	}
	if now.Sub(m.homeAt) >= steady {
		m.losses = 0
	}
	m.losses++
	if m.losses == 1 {
		return m.begin(now)
	}
	m.retryAt = time.Time{}
	return m.pause(now, min(lossBase<<min(m.losses-2, 10), backoffMax)), nil
}

// held says that calls had better wait: the flow was lost, or what was agreed on security does not
// hold any more, and that is being mended.
func (m machine) held() bool { return (m.losing || m.standing.over) && m.waiting }

// begin starts an attempt: first registration or refresh.
func (m machine) begin(now time.Time) (machine, []any) {
	if m.waiting || m.stopping {
		return m, nil
	}
	if m.state != Registered {
		m = m.to(now, Registering, m.lastErr)
	}
	if m.expires == 0 {
		m.expires = m.cfg.expires
	}
	m.rounds, m.resyncs, m.forged, m.raises, m.tried = 0, 0, 0, 0, 0
	m.relit, m.amended, m.pact = false, false, m.standing
	return m.transmit(send{proof: m.session})
}

// transmit sends with the current lifetime and target.
func (m machine) transmit(s send) (machine, []any) {
	s.expires, s.target = m.expires, m.cfg.targets[m.target]
	s.brief = m.losing && m.tried+1 < len(m.cfg.targets)
	if m.stopping {
		s.expires = 0
		if m.state == Registered { // who has the registration ends it
			s.target = m.home
		}
	}
	p := m.with(s.target)
	if s.offer = m.cfg.agree && (!p.never || p.over); !p.over {
		s.verify = p.list
	}
	if s.clear = m.cfg.clear && p.list == nil; s.clear { // nor does what we can prove
		s.proof, s.fixed, s.auts = nil, nil, ""
	}
	m.asked, m.offered, m.verified = s.target, s.offer, s.verify != nil
	m.waiting, m.sent, m.wakeAt = true, m.sent || !s.clear, time.Time{}
	if m.state == Registered && !m.stopping { // it may end before the answer comes
		m.wakeAt = m.expiresAt
	}
	return m, []any{s}
}

// timer: a registration that could not be refreshed ends at its expiry; otherwise it
// is time for the next attempt.
func (m machine) timer(now time.Time) (machine, []any) {
	if m.stopping || m.wakeAt.IsZero() || now.Before(m.wakeAt) {
		return m, nil
	}
	if m.waiting { // for the answer to a refresh that came too late: calls are refused until it is here
		m.wakeAt = time.Time{}
		return m.to(now, Registering, "the registration expired before its refresh was answered"), nil
	}
	if m = m.expire(now); now.Before(m.retryAt) {
		m.wakeAt = m.retryAt
		return m, nil
	}
	return m.begin(now)
}

func (m machine) expire(now time.Time) machine {
	if m.state == Registered && !now.Before(m.expiresAt) {
		m = m.to(now, Unregistered, m.lastErr)
	}
	return m
}

// leave begins the de-registration, if the network may know us.
func (m machine) leave(now time.Time) (machine, []any) {
	if m.stopping {
		return m, nil
	}
	m.stopping, m.waiting = true, false
	if !m.sent {
		return m.left(now)
	}
	m.rounds, m.resyncs, m.forged, m.raises, m.amended = 0, 0, 0, 0, false
	return m.transmit(send{proof: m.session})
}

func (m machine) left(now time.Time) (machine, []any) {
	m.wakeAt, m.sent = time.Time{}, false
	return m.to(now, Unregistered, ""), []any{done{}}
}

func (m machine) answered(now time.Time, r response) (machine, []any) {
	r.retryAfter = min(r.retryAfter, longestRetry)
	if r.status == 401 || r.status == 407 {
		return m.challenged(now, r)
	}
	why := fmt.Sprintf("%d %s", r.status, r.phrase)
	if r.status == 421 || r.status == 494 {
		return m.agreementWanted(now, r, why)
	}
	if m.stopping {
		return m.left(now)
	}
	switch {
	case r.status >= 200 && r.status < 300:
		return m.accepted(now, r)
	case r.status == 403:
		m.sent = false
		state := Rejected
		if m.rounds > 0 { // it refused our proof: Kamailio's S-CSCF does so at the first wrong one
			state = AuthFailed
		}
		return m.refused(now, state, why, r.retryAfter)
	case r.status == 404 || r.status == 480:
		m.sent = false
		m.failures++
		return m.to(now, Rejected, why).pause(now, max(m.backoff(), r.retryAfter)), nil
	case r.status == 420 && r.noPath && !m.noPath:
		m.noPath = true
		return m.transmit(send{proof: m.session})
	case r.status == 420 && r.noAgree && m.offered:
		if m.cfg.clear {
			return m.refused(now, Rejected, why+": the P-CSCF knows no security agreement (RFC 3329), and without one nothing leads to TLS: set transport tls", 0)
		}
		m.pact = pact{with: m.asked, never: true}
		return m.transmit(send{proof: m.session})
	case r.status == 423 && r.minExpires > m.expires && m.raises < maxRaises:
		m.raises++
		m.expires = r.minExpires
		return m.transmit(send{proof: m.session})
	case r.status == 305 || r.status == 408 || r.status >= 500 && r.status < 600:
		return m.unreachable(now, why, r.retryAfter)
	}
	return m.failed(now, why, r.retryAfter), nil
}

// refused ends an attempt that only somebody can mend, after another P-CSCF was asked once.
func (m machine) refused(now time.Time, s State, why string, retryAfter time.Duration) (machine, []any) {
	m.session = nil
	switch {
	case m.stopping:
		return m.left(now)
	case !m.otherTry && len(m.cfg.targets) > 1:
		m.otherTry = true
		m.target = (m.target + 1) % len(m.cfg.targets)
		return m.again(now)
	}
	return m.to(now, s, why).pause(now, max(longWait, retryAfter)), nil
}

// noticed is the table of IMS.md §1a for what the network tells of a registration. While
// a REGISTER waits for its answer, that answer is newer.
func (m machine) noticed(now time.Time, c reginfo.Contact) machine {
	if m.state != Registered || m.waiting || m.stopping {
		return m
	}
	if c.State != "terminated" {
		if c.Expires > 0 { // shortened, created, registered, refreshed: the end moves
			m.expiresAt = now.Add(c.Expires)
			m.wakeAt, m.retryAt = now.Add(refreshAfter(c.Expires, m.cfg.chance())), time.Time{}
		}
		return m
	}
	why := "the network ended the registration: " + c.Event
	m.sent = false
	switch c.Event {
	case "deactivated": // register again at once, but not all at once
		return m.to(now, Unregistered, why).pause(now, time.Duration(m.cfg.chance()*float64(5*time.Second)))
	case "probation":
		wait := min(c.RetryAfter, longestRetry)
		if wait <= 0 {
			wait = m.backoff()
		}
		return m.to(now, Unregistered, why).pause(now, wait)
	case "rejected": // until somebody acts
		m = m.to(now, Rejected, why)
		m.wakeAt, m.session = time.Time{}, nil
		return m
	}
	m.failures++
	return m.to(now, Unregistered, why).pause(now, m.backoff())
}

// again repeats the attempt at another P-CSCF from its beginning.
func (m machine) again(now time.Time) (machine, []any) {
	m.rounds, m.resyncs, m.forged, m.raises, m.amended = 0, 0, 0, 0, false
	if m.state != Registered {
		m = m.to(now, Registering, m.lastErr)
	}
	return m.transmit(send{proof: m.session})
}

func (m machine) accepted(now time.Time, r response) (machine, []any) {
	switch {
	case r.badAuth != nil:
		return m.failed(now, r.badAuth.Error(), 0), nil
	case m.cfg.clear && m.with(m.asked).list == nil:
		// Whoever said so, calls would have to go in clear as well.
		return m.refused(now, Rejected, "the registration was taken without TLS, which is not what was asked for", 0)
	case !r.found || r.granted <= 0:
		m.sent = false
		if m.state == Registered {
			m = m.to(now, Unregistered, "")
		}
		return m.failed(now, "200 without our Contact", 0), nil
	}
	m = m.to(now, Registered, "")
	m.expiresAt = now.Add(r.granted)
	m.routes, m.uris = r.routes, r.uris
	m.failures, m.otherTry, m.losing = 0, false, false
	m.home, m.homeAt = m.cfg.targets[m.target], now
	m.standing = m.with(m.asked)
	m.standing.over = false
	m.wakeAt = now.Add(refreshAfter(r.granted, m.cfg.chance()))
	return m, nil
}

// refreshAfter is TS 24.229 §5.1.1.4: 600 s before the end, or at half of what is short;
// up to a tenth earlier, so that a thousand bridges do not come at once.
func refreshAfter(granted time.Duration, chance float64) time.Duration {
	d := granted / 2
	if granted > 1200*time.Second {
		d = granted - 600*time.Second
	}
	return max(d-time.Duration(float64(d)*0.1*chance), time.Second)
}

// challenged answers a 401 or decides that it cannot be answered.
func (m machine) challenged(now time.Time, r response) (machine, []any) {
	m, err := m.agreed(r)
	if err != nil {
		return m.refused(now, Rejected, err.Error(), 0)
	}
	if r.badAuth != nil {
		return m.giveUp(now, r.badAuth.Error())
	}
	c, err := digest.Choose(r.challenges, m.cfg.algorithms, m.cfg.realm)
	if err != nil {
		return m.credentialsFailed(now, err.Error())
	}
	if digest.IsAKA(c.Algorithm) {
		return m.challengedAKA(now, c)
	}
	if m.rounds >= maxRounds || m.rounds > 0 && !c.Stale {
		return m.credentialsFailed(now, "the network did not accept our password")
	}
	m.rounds++
	m.session = digest.NewSession(c, m.cfg.impi, m.cfg.password)
	return m.transmit(send{proof: m.session})
}

// challengedAKA is TS 24.229 §5.1.1.5.1 and .3: a SIM answers what is genuine and fresh,
// says nothing to what is forged, and helps a network that has lost count.
func (m machine) challengedAKA(now time.Time, c digest.Challenge) (machine, []any) {
	if m.rounds >= maxRounds {
		return m.credentialsFailed(now, "the network did not accept our AKA response")
	}
	p, auts, err := akaPassword(m.cfg.sim, c, m.sqn)
	switch {
	case errors.Is(err, aka.ErrSync):
		if m.resyncs++; m.resyncs > maxResyncs {
			return m.giveUp(now, err.Error())
		}
		return m.transmit(send{proof: digest.NewSession(c, m.cfg.impi, nil),
			auts: base64.StdEncoding.EncodeToString(auts[:])})
	case err != nil:
		if m.forged++; m.forged >= maxForged {
			return m.forgeries(now, err.Error())
		}
		empty := digest.Empty(m.cfg.impi, c.Realm, "sip:"+m.cfg.domain)
		empty.Nonce, empty.Algorithm = c.Nonce, c.Algorithm
		return m.transmit(send{fixed: &empty})
	}
	m.rounds++
	m.forged = 0
	m.sqn = p.sqn
	m.session = digest.NewSession(c, m.cfg.impi, p.password)
	m, acts := m.transmit(send{proof: m.session})
	return m, slices.Insert(acts, 0, any(saveSQN{p.sqn})) // kept before it is used
}

type akaProof struct {
	password []byte
	sqn      uint64
}

// akaPassword is what a SIM makes of a challenge. auts is for aka.ErrSync.
func akaPassword(sim *aka.Milenage, c digest.Challenge, sqnMS uint64) (p akaProof, auts [14]byte, err error) {
	if sim == nil {
		return p, auts, errors.New("AKA challenge, but no key is configured")
	}
	rand, autn, err := aka.ParseNonce(c.Nonce)
	if err != nil {
		return p, auts, err
	}
	r, auts, err := sim.Check(rand, autn, sqnMS)
	if err != nil {
		return p, auts, err
	}
	p = akaProof{aka.PasswordV1(r.RES), r.SQN}
	if c.Algorithm == digest.AKAv2MD5 {
		p.password = aka.PasswordV2(r.RES, r.IK, r.CK)
	}
	return p, auts, nil
}

func (m machine) credentialsFailed(now time.Time, why string) (machine, []any) {
	m.session = nil
	if m.stopping {
		return m.left(now)
	}
	m.sent = false
	return m.to(now, AuthFailed, why).pause(now, longWait), nil
}

// forgeries: somebody plays the network, or K is wrong. A registration that stands is kept;
// otherwise somebody must look, but it goes on by itself: the first passes.
func (m machine) forgeries(now time.Time, why string) (machine, []any) {
	m, acts := m.giveUp(now, why)
	if m.state == Unregistered && !m.stopping {
		m = m.to(now, AuthFailed, why)
	}
	return m, acts
}

// giveUp ends an attempt that another try may cure.
func (m machine) giveUp(now time.Time, why string) (machine, []any) {
	m.session = nil
	if m.stopping {
		return m.left(now)
	}
	return m.failed(now, why, 0), nil
}

// unreachable: the next P-CSCF at once, unless all were tried or this one named a time.
func (m machine) unreachable(now time.Time, why string, retryAfter time.Duration) (machine, []any) {
	if m.tried++; m.tried < len(m.cfg.targets) && retryAfter == 0 {
		m.target = (m.target + 1) % len(m.cfg.targets)
		m.lastErr = why
		return m.again(now)
	}
	m.target = (m.target + 1) % len(m.cfg.targets)
	return m.failed(now, why, retryAfter), nil
}

// failed waits and tries again. A registration that stands is kept to its expiry, unless
// nobody is there any more to take a call.
func (m machine) failed(now time.Time, why string, retryAfter time.Duration) machine {
	m.failures++
	if m.state == Registered && !m.losing {
		m.lastErr = why
		m = m.expire(now)
	} else {
		m = m.to(now, Unregistered, why)
	}
	wait := m.backoff()
	m.retryAt = time.Time{}
	if retryAfter > 0 {
		wait = retryAfter
		m.retryAt = now.Add(wait)
	}
	return m.pause(now, wait)
}

// pause arms the timer; while registered it also goes off at the expiry, so that calls
// are refused from then on.
func (m machine) pause(now time.Time, wait time.Duration) machine {
	m.wakeAt = now.Add(wait)
	if m.state == Registered && m.expiresAt.Before(m.wakeAt) {
		m.wakeAt = m.expiresAt
	}
	return m
}

// backoff is RFC 5626 §4.5: min(1800 s, 30 s · 2^failures), of which 50 to 100 %.
func (m machine) backoff() time.Duration {
	w := min(float64(backoffMax), float64(backoffBase)*math.Pow(2, float64(min(m.failures, 16))))
	return time.Duration(w * (0.5 + 0.5*m.cfg.chance()))
}
