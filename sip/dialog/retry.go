package dialog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// tryAgain repeats the INVITE where the answer says how, each way once.
func (c *Call) tryAgain(res *sip.Response) bool {
	var withAuth *sip.Request
	switch res.StatusCode {
	case 401, 407:
		if c.triedAuth || c.o.Authorize == nil {
			return false
		}
		c.triedAuth = true
		withAuth = c.invite.Clone()
		withAuth.CSeq().SeqNo = c.seq + 1
		ch, err := c.o.Authorize(withAuth, res, "")
		if err != nil {
			return false
		}
		c.realm = ch.Realm
	case 420:
		refused := Values(res, "Unsupported")
		kept := slices.DeleteFunc(slices.Clone(c.o.Supported), func(tag string) bool {
			return slices.ContainsFunc(refused, func(r string) bool { return strings.EqualFold(r, tag) })
		})
		if c.tried420 || len(kept) == len(c.o.Supported) {
			return false
		}
		c.tried420, c.o.Supported = true, kept
	case 422:
		least, ok := seconds(value(res, "Min-SE"))
		if c.tried422 || !ok || least <= c.o.MinSE || c.o.SessionExpires == 0 {
			return false
		}
		c.tried422, c.o.MinSE = true, least
		c.o.SessionExpires = max(c.o.SessionExpires, least)
	case 421:
		needed := slices.DeleteFunc(Values(res, "Require"), func(tag string) bool {
			return slices.ContainsFunc(c.o.Supported, func(s string) bool { return strings.EqualFold(s, tag) })
		})
		known := !slices.ContainsFunc(needed, func(tag string) bool {
			return !slices.Contains([]string{"100rel", "timer", "precondition"}, strings.ToLower(tag))
		})
		if c.tried421 || len(needed) == 0 || !known {
			return false
		}
		c.tried421, c.o.Supported = true, slices.Concat(c.o.Supported, needed)
	case 300, 301, 302:
		if !c.redirect(res) {
			return false
		}
		c.triedAuth, c.realm, c.seq = false, c.o.Realm, c.seq+1 // what was proven was for another Request-URI
		c.sendInvite(nil)
		return true
	default:
		return false
	}
	if withAuth == nil && c.triedAuth {
		withAuth = c.invite // credentials given once stay on the repeated INVITE
	}
	c.seq++
	c.sendInvite(withAuth)
	return true
}

// maxRedirects is how many 3xx of one call are followed.
const maxRedirects = 3

// redirect takes the best Contact of a 3xx that may be followed and leads to where the call
// has not been yet (RFC 3261 8.1.3.4). To, From and Call-ID stay, the call is the same.
func (c *Call) redirect(res *sip.Response) bool {
	if c.o.Redirect == nil || len(c.visited) >= maxRedirects {
		return false
	}
	cs := Values(res, "Contact")
	cs = cs[:min(len(cs), maxContacts)]
	slices.SortStableFunc(cs, func(a, b string) int { return cmp.Compare(quality(b), quality(a)) })
	been := append(slices.Clone(c.visited), bare(c.o.Target))
	for _, v := range cs {
		if target, ok := c.o.Redirect(AddrSpec(v)); ok && !slices.Contains(been, bare(target)) {
			c.visited, c.o.Target = been, target
			c.stop(timerQoS, timerQoSAgain)
			return true
		}
	}
	return false
}

// maxContacts is how many Contacts of a 3xx are looked at.
const maxContacts = 8

// quality is the q of a Contact, 1 if it has none.
func quality(contact string) float64 {
	_, params, _ := strings.Cut(contact, ">")
	if q, err := strconv.ParseFloat(Params(params)["q"], 64); err == nil && q >= 0 && q <= 1 {
		return q
	}
	return 1
}

// bare is a URI without parameters, in lower case: enough to tell a loop.
func bare(uri string) string {
	uri, _, _ = strings.Cut(uri, ";")
	return strings.ToLower(uri)
}
