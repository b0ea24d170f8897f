package bridge

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"sparkle/sip/ims"
)

// This file is what a conference is called by from outside: its URI, its alias, its PIN.

// pinLen digits make a PIN: enough for the limits of package-level guessing (see
// guesses), few enough to be typed in ten seconds.
const pinLen = 6

var pinForm = regexp.MustCompile(`^[0-9]{6}$`)

// aliasForm is a name that can stand as a SIP user part and cannot be taken for a
// conference's own.
var aliasForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,31}$`)

func newPIN() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic("bridge: no random numbers: " + err.Error())
	}
	return fmt.Sprintf("%0*d", pinLen, n)
}

// focusUser is the user part of a conference's own URI: conf-01j9zk….
func focusUser(id string) string { return strings.ToLower(strings.Replace(id, "_", "-", 1)) }

// conferenceID reads the user part of a URI that names a conference by itself: our own
// form, the id, or RFC 4240's conf=…; "" if it is none of them.
func conferenceID(user string) string {
	user = strings.ToLower(user)
	rest, ok := strings.CutPrefix(user, "conf=")
	if !ok {
		rest = user
	}
	for _, p := range []string{"conf-", "conf_"} {
		if id, ok := strings.CutPrefix(rest, p); ok {
			return "conf_" + strings.ToUpper(id)
		}
	}
	return ""
}

// dialIn is what callers of a conference dial.
func (o Options) dialIn(c Conference) DialIn {
	var d DialIn
	switch {
	case strings.HasPrefix(c.Alias, "+"):
		d.Number = c.Alias
	case len(o.DialIn) > 0:
		d.Number = o.DialIn[0]
	}
	if o.Domain != "" {
		d.URI = "sip:" + focusUser(c.ID) + "@" + o.Domain
	}
	return d
}

// cleanAlias is an alias as it is compared: a number in E.164, or a name in small letters.
func (b *Bridge) cleanAlias(s string) (string, *Error) {
	s = strings.ToLower(strings.TrimSpace(s))
	bad := func(why string) *Error {
		return &Error{Kind: Invalid, Code: "alias_invalid", Detail: why, Field: "/alias"}
	}
	switch {
	case s == "":
		return "", nil
	case strings.HasPrefix(s, "+"):
		n, err := b.parseNumber(s, "/alias")
		if err != nil {
			return "", err
		}
		return n.Digits(), nil
	case ims.Emergency(s, b.opt.Country):
		return "", bad("an emergency number is nobody's alias: who dials it wants the emergency services")
	case conferenceID(s) != "":
		return "", bad("names that begin with conf- are those that the server gives")
	case !aliasForm.MatchString(s):
		return "", bad("an alias is a number with + and country code, or letters, digits, - _ .")
	}
	return s, nil
}

func checkPolicies(c Conference) *Error {
	if !slices.Contains([]JoinPolicy{JoinOpen, JoinListed, JoinPIN}, c.JoinPolicy) {
		return &Error{Kind: Invalid, Code: "join_policy_invalid", Detail: `join_policy is "open", "allow_listed" or "pin"`, Field: "/join_policy"}
	}
	if !slices.Contains([]Referrers{ReferCreator, ReferModerators, ReferAny, ReferNone}, c.WhoMayRefer) {
		return &Error{Kind: Invalid, Code: "who_may_refer_invalid", Detail: `who_may_refer is "creator", "moderators", "any" or "none"`, Field: "/who_may_refer"}
	}
	if !slices.Contains([]Layout{LayoutMosaic, LayoutSwitched}, c.Layout) {
		return &Error{Kind: Invalid, Code: "layout_invalid", Detail: `layout is "mosaic" or "switched"`, Field: "/layout"}
	}
	return nil
}

// claim gives a conference its PIN and alias: no two have the same. A PIN of "" is made
// up. release undoes it, for when the conference cannot be written.
func (b *Bridge) claim(c *Conference) *Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.PIN == "" {
		for c.PIN == "" || b.pins[c.PIN] != "" {
			c.PIN = newPIN()
		}
	}
	if !pinForm.MatchString(c.PIN) {
		return &Error{Kind: Invalid, Code: "pin_invalid", Detail: "a PIN is six digits", Field: "/pin"}
	}
	if id := b.pins[c.PIN]; id != "" && id != c.ID {
		return &Error{Kind: Conflict, Code: "pin_taken", Detail: "choose another PIN", Field: "/pin"}
	}
	if id := b.aliases[c.Alias]; c.Alias != "" && (id != "" && id != c.ID || slices.Contains(b.opt.DialIn, c.Alias)) {
		return &Error{Kind: Conflict, Code: "alias_taken", Detail: "the alias is in use", Field: "/alias"}
	}
	b.pins[c.PIN] = c.ID
	if c.Alias != "" {
		b.aliases[c.Alias] = c.ID
	}
	return nil
}

// release frees the PIN and the alias of was that keep does not have too.
func (b *Bridge) release(was, keep Conference) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if was.PIN != keep.PIN && b.pins[was.PIN] == was.ID {
		delete(b.pins, was.PIN)
	}
	if was.Alias != keep.Alias && b.aliases[was.Alias] == was.ID {
		delete(b.aliases, was.Alias)
	}
}

// byPIN finds the conference whose PIN is given. Every conference is compared, each in
// the same time whatever digits are right: the answer's delay says nothing.
func (b *Bridge) byPIN(pin string) *room {
	var found *room
	for _, r := range b.all() {
		if subtle.ConstantTimeCompare([]byte(pin), []byte(r.view.Load().Conference.PIN)) == 1 {
			found = r
		}
	}
	return found
}

// restoreNames claims what a conference of the store is called by, and gives one from
// before there were PINs its first.
func (b *Bridge) restoreNames(c *Conference) error {
	fresh := c.PIN == ""
	if bad := b.claim(c); bad != nil {
		return bad
	}
	c.JoinPolicy, c.WhoMayRefer = cmp.Or(c.JoinPolicy, JoinPIN), cmp.Or(c.WhoMayRefer, ReferCreator)
	c.DialIn = b.opt.dialIn(*c)
	if fresh {
		return b.store.PutConference(b.ctx, *c, 0)
	}
	return nil
}
