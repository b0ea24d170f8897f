package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/register"
)

// newRegistrar makes the registration of a ue attachment; nothing is sent yet.
func newRegistrar(a *attachment) (*register.Client, error) {
	o := a.o
	ro := register.Options{
		Domain: o.Domain, IMPI: o.IMPI, IMPU: o.IMPU, Contact: a.contactURI(), Targets: a.addrs(),
		ContactParams: register.FeatureTags + ";" + instance(o.IMPI),
		Algorithms:    o.Auth.Algorithms, Password: o.Auth.Password, Realm: o.Auth.Realm, BareFirst: o.Auth.BareFirst, Outbound: o.Auth.Outbound,
		K: o.Auth.K, OP: o.Auth.OP, OPc: o.Auth.OPc,
		Expires: o.Expires, AccessNetwork: o.PANI, UserAgent: a.ua.o.UserAgent,
		Agree: o.SecurityAgreement == AgreeTLS,
	}
	if o.Clear != "" {
		ro.Clear = a.inClear
	}
	if path := o.Auth.SQNFile; path != "" {
		sqn, err := loadSQN(path)
		if err != nil {
			return nil, err
		}
		ro.SQN, ro.SaveSQN = sqn, func(n uint64) error { return saveSQN(path, n) }
	}
	return register.New(ro, a.sendRegister, a.log)
}

// loadSQN reads the highest AKA sequence number accepted so far; no file is 0.
func loadSQN(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sqn_file: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 48)
	if err != nil {
		return 0, fmt.Errorf("sqn_file %s: not a sequence number", path)
	}
	return n, nil
}

// saveSQN replaces the file whole, so that a crash leaves the old number or the new.
func saveSQN(path string, n uint64) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".sqn-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when the rename worked
	_, err = f.WriteString(strconv.FormatUint(n, 10) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// register keeps the attachment registered until ctx ends, and de-registers then.
func (a *attachment) register(ctx context.Context) {
	done := make(chan struct{})
	go a.safely(func() {
		defer close(done)
		a.lasting(func() { _ = a.reg.Run(ctx) })() // nil: it ends with ctx only
	})()
	var answers <-chan subAnswer
	var notifies <-chan notify
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	look := time.NewTicker(flowCheck)
	defer look.Stop()
	home := ""
	if a.events != nil {
		answers, notifies = a.events.answers, a.events.notifies
	}
	for {
		clock.Stop()
		wake := a.restUntil()
		if a.events != nil && ctx.Err() == nil {
			if at := a.events.sub.Next(); !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
				wake = at
			}
		}
		if !wake.IsZero() {
			clock.Reset(max(time.Until(wake), 0))
		}
		now := time.Now()
		select {
		case <-a.reg.Changed():
			r := a.reg.State()
			up := r.State == register.Registered
			if a.events != nil && ctx.Err() == nil {
				if up && home != r.Target { // the subscription went by the other P-CSCF
					a.events.registered(ctx, false)
				}
				a.events.registered(ctx, up)
			}
			if up {
				home = r.Target
			}
		case <-look.C:
			a.checkFlow()
			continue
		case <-a.poke:
		case in := <-answers:
			a.events.answered(ctx, in)
		case in := <-notifies:
			if ctx.Err() == nil { // de-registering: that the network tells of it is no news
				a.events.notified(ctx, in)
			}
		case <-clock.C:
			if a.events != nil && ctx.Err() == nil {
				a.events.on(ctx, func(s register.Subscription) (register.Subscription, *register.Ask) { return s.Wake(now) })
			}
		case <-done:
			a.follow()
			return
		}
		a.follow()
	}
}

// follow takes over what has become of the registration.
func (a *attachment) follow() {
	if target := a.reg.State().Target; target != "" {
		if t := a.known(target); t != nil {
			a.current.Store(t)
		}
	}
	a.update(a.report)
	a.dispatch() // a flow that is back is no change of state
}

// report copies the registration's state into the attachment's.
func (a *attachment) report(s *AttachmentState) {
	r := a.reg.State()
	s.State, s.LastError, s.Identity, s.Expires = string(r.State), r.LastError, r.Identity, r.Expires
	s.Reg = &RegistrationState{PCSCF: r.Target, Expires: r.Expires, ServiceRoutes: len(r.ServiceRoutes),
		Identities: r.AssociatedURIs, RegEvent: RegEventOff}
	if a.events != nil {
		a.events.report(s)
	}
	switch until := a.rest(); {
	case until.IsZero():
	case !time.Now().Before(until):
		a.current.Load().health = health{}
	case s.State == string(register.Registered):
		s.State, s.LastError = "suspended", a.current.Load().rests()
	}
}

// sendRegister is how REGISTER leaves: to the P-CSCF it names. The response timer of
// the transaction, 64·T1, says when nobody answers.
func (a *attachment) sendRegister(ctx context.Context, req *sipgo.Request) (*sipgo.Response, error) {
	if req.Destination() == "" {
		return nil, errNoTargets
	}
	// Over its own transport: not the attachment's where there is no security agreement yet.
	res, err := a.exchange(ctx, req, hopTo(strings.ToLower(req.Transport()), req.Destination()))
	if errors.Is(err, sipgo.ErrTransactionTransport) {
		err = fmt.Errorf("%w: %w", register.ErrLost, err)
	}
	return res, err
}

// inClear is where a P-CSCF takes REGISTERs before TLS has been agreed on: target is its TLS
// address.
func (a *attachment) inClear(target string) (transport, addr string) {
	ap, err := netip.ParseAddrPort(target)
	if err != nil || ap.Port() < 2 {
		return a.o.Clear, "" // none of our targets; nothing is sent to no address
	}
	return a.o.Clear, netip.AddrPortFrom(ap.Addr(), ap.Port()-1).String()
}

// verify puts into a request what was agreed with the P-CSCF (RFC 3329 §2.3.1), in a dialog and
// outside: into all but ACK and CANCEL (§2.6), which nobody could answer 494, and which may not
// require anything (RFC 3261 §9.1, §13.2.2.4). REGISTERs have their own.
func (a *attachment) verify(req *sipgo.Request) {
	if a.o.SecurityAgreement != AgreeTLS || req.IsAck() || req.IsCancel() || req.Method == sipgo.REGISTER {
		return
	}
	register.Verify(req, a.reg.Agreed(), false)
}

// disagreed takes a 494 to anything but a REGISTER, which is register's business. It reports
// whether there will be another agreement, which calls wait for.
func (a *attachment) disagreed(res *sipgo.Response) bool {
	if a.o.SecurityAgreement != AgreeTLS || res.StatusCode != 494 || res.CSeq().MethodName == sipgo.REGISTER {
		return false
	}
	a.log.Warn("the P-CSCF does not take our security agreement any more", "method", res.CSeq().MethodName)
	return a.reg.Disagree(a.reg.State().Target)
}

// onDisagreed takes a 494 to the INVITE of a call for which there will be another agreement: the
// call is placed again once, when its turn comes after that (RFC 3329 §2.3.1). It keeps its Call-ID
// and our tag; the dialog is another, as that of a call that has not left yet. It reports whether
// it was that.
func (c *call) onDisagreed(res *sipgo.Response) bool {
	u, seq := c.unheard, res.CSeq()
	if !c.renews.Load() || c.again || res.StatusCode != 494 || u == nil || seq.MethodName != sipgo.INVITE || seq.SeqNo != u.seq || c.d.GivenUp() {
		return false
	}
	c.again, c.left, c.invited, c.tried = true, false, false, false
	c.options.Seq = u.seq + 1
	c.d = dialog.New(c.options)
	if q, waits := c.a.requeue(c); waits {
		c.tell(q)
	}
	return true
}
