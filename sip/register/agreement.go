package register

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sparkle/sip/ims"
)

// The security agreement (RFC 3329 §2.3.1; TS 24.229 §5.1.1.2.4, §5.1.1.4.4, §5.1.1.5; TS 33.203
// Annex O), as a part of the machine:
//
//	REGISTER, Security-Client: tls        ──▶  P-CSCF      over TLS, or in clear (settings.clear)
//	401 or 494, Security-Server: a list   ◀──
//	REGISTER, Security-Verify: that list  ──▶              over TLS, as everything from here on
//
// Who could change the list on its way in clear cannot change the copy, and the P-CSCF compares.

// with is what was agreed with a P-CSCF; nothing if it is another than that of this attempt and
// than the one that has the registration.
func (m machine) with(target string) pact {
	for _, p := range []pact{m.pact, m.standing} {
		if p.with == target {
			return p
		}
	}
	return pact{with: target}
}

// agreed takes over the list of an answer.
//
// A P-CSCF that sends none does no agreement. Over TLS that is well: what would have been agreed on is
// there, with a certificate that names the P-CSCF, and nobody between has kept a list from us.
// In clear somebody may have, and we go no further.
func (m machine) agreed(r response) (machine, error) {
	switch {
	case !m.cfg.agree:
		return m, nil
	case r.badList != nil:
		return m, fmt.Errorf("Security-Server cannot be read: %w", r.badList)
	case len(r.list) == 0 && m.cfg.clear && m.with(m.asked).list == nil:
		return m, errors.New("no Security-Server in the answer: the P-CSCF knows no security agreement (RFC 3329), or somebody keeps it from us; nothing goes on in clear")
	case len(r.list) == 0:
		return m, nil
	}
	if _, ok := ims.Choose(r.mechanisms, mechanism); !ok {
		return m, fmt.Errorf("no security mechanism in common (RFC 3329): the P-CSCF has %s, we have %s", names(r.mechanisms), mechanism)
	}
	m.pact = pact{with: m.asked, list: r.list}
	return m, nil
}

// agreementWanted is 494 and 421: there was none, or the P-CSCF has another list than the one that
// it gave. That is taken over once in an attempt, which begins again.
func (m machine) agreementWanted(now time.Time, r response, why string) (machine, []any) {
	switch {
	case !m.cfg.agree:
		why += ": the network wants a security agreement (RFC 3329), which is off"
		if _, ok := ims.Choose(r.mechanisms, mechanism); ok {
			return m.refused(now, Rejected, why+": set security_agreement: tls", 0)
		} else if len(r.mechanisms) > 0 {
			return m.refused(now, Rejected, fmt.Sprintf("%s; it has %s, and only %s is done here", why, names(r.mechanisms), mechanism), 0)
		}
		return m.refused(now, Rejected, why+"; it does not say of which kind", 0)
	case r.badList == nil && len(r.list) == 0:
		return m.refused(now, Rejected, why+": the network wants a security agreement (RFC 3329) and does not say of which kind", 0)
	case m.verified && m.amended:
		return m.refused(now, Rejected, why+": the P-CSCF does not take the list of security mechanisms that it gave itself", 0)
	case m.verified:
		m.amended, m.session = true, nil
	}
	m, err := m.agreed(r)
	if err != nil {
		return m.refused(now, Rejected, why+": "+err.Error(), 0)
	}
	m.rounds, m.resyncs, m.forged = 0, 0, 0
	return m.transmit(send{proof: m.session})
}

// agreeAgain registers anew where something else than a REGISTER was answered 494: the list has
// changed since. A P-CSCF that says so again soon is in disorder, and is not asked all the time.
func (m machine) agreeAgain(now time.Time, b broken) (machine, []any) {
	if !m.mayAgreeAgain(now, b) {
		return m, nil
	}
	m.brokenAt, m.standing.over, m.session = now, true, nil
	if i := slices.Index(m.cfg.targets, m.home); i >= 0 {
		m.target = i
	}
	return m.begin(now)
}

func (m machine) mayAgreeAgain(now time.Time, b broken) bool {
	return m.state == Registered && !m.waiting && !m.stopping && b.target == m.home && m.standing.list != nil &&
		(m.brokenAt.IsZero() || now.Sub(m.brokenAt) >= steady)
}

// names are what a list offers, for a sentence.
func names(ms []ims.Mechanism) string {
	var out []string
	for _, m := range ms {
		if !slices.Contains(out, m.Name) {
			out = append(out, m.Name)
		}
	}
	return strings.Join(out, ", ")
}
