package sip

import (
	"slices"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/body"
	"sparkle/sip/ims"
	"sparkle/sip/notifier"
)

// referExpires is how long a REFER's subscription lasts: longer than a call can ring.
const referExpires = 5 * time.Minute

// readRefer reads what is asked for; status is not 0 if it cannot be, or not by us.
func readRefer(req *sipgo.Request) (r Refer, status int) {
	to := req.GetHeaders("Refer-To")
	if len(to) != 1 { // RFC 3515 2.4.2
		return r, 400
	}
	what, err := ims.ParseReferTo(to[0].Value())
	if err != nil {
		return r, 400
	}
	r.Method, r.URIs = what.Method, []string{what.URI}
	if what.CID != "" {
		if r.Method, r.URIs, r.Hidden, err = referList(req, what.CID); err != nil {
			return r, 400
		}
	}
	if r.Method != "INVITE" && r.Method != "BYE" {
		return r, 501
	}
	if what.Replaces != "" {
		rep, err := ims.ParseReplaces(what.Replaces)
		if err != nil {
			return r, 400
		}
		r.Replaces = rep.String()
	}
	r.ReferredBy, _ = ims.AddrSpec(first(req, "Referred-By"))
	sub, _, _ := strings.Cut(first(req, "Refer-Sub"), ";")
	r.Silent = strings.EqualFold(strings.TrimSpace(sub), "false") // RFC 4488 4
	return r, 0
}

// referList is the list of URIs in a REFER's body that cid names (RFC 5368 5). All of it
// is to be done alike.
func referList(req *sipgo.Request, cid string) (method string, uris, hidden []string, err error) {
	parts, err := bodyParts(req)
	if err != nil {
		return "", nil, nil, err
	}
	i := slices.IndexFunc(parts, func(p body.Part) bool { return p.ID == cid && p.Type == body.ResourceLists })
	if i < 0 {
		return "", nil, nil, body.ErrSyntax
	}
	list, err := body.ParseList(parts[i].Data)
	if err != nil {
		return "", nil, nil, err
	}
	for i := range list {
		uri, _, _ := strings.Cut(list[i].URI, "?") // headers in there are not acted on
		uri, m := ims.CutMethod(uri)
		if m == "" {
			m = "INVITE"
		}
		if method != "" && m != method {
			return "", nil, nil, body.ErrSyntax
		}
		method, list[i].URI = m, uri
	}
	if uris, hidden = body.URIs(list); len(uris) == 0 {
		return "", nil, nil, body.ErrSyntax
	}
	return method, uris, hidden, nil
}

// bodyParts takes the body of a message apart.
func bodyParts(m sipgo.Message) ([]body.Part, error) {
	return body.Parse(body.Header{Type: first(m, "Content-Type"), Disposition: first(m, "Content-Disposition"),
		ID: first(m, "Content-Id"), Encoding: first(m, "Content-Transfer-Encoding")}, m.Body())
}

// refer asks the owner about a REFER.
func (us *usages) refer(tx any, req *sipgo.Request, r Refer) {
	us.a.ua.mu.Lock()
	decide := us.a.ua.refer
	us.a.ua.mu.Unlock()
	if decide == nil {
		status := 403
		if us.callID != "" {
			status = 603
		}
		us.way.tell(tx, req, status, nil)
		return
	}
	// The id tells the REFERs of one dialog apart (RFC 3515 2.4.6).
	ev := "refer;id=" + strconv.FormatUint(uint64(req.CSeq().SeqNo), 10)
	u := us.add(tx, req, ev, notifier.Options{Implicit: true, Silent: r.Silent, Asked: -1})
	if u == nil {
		return
	}
	r.Attachment, r.At, r.CallID = us.a.o.Name, time.Now(), us.callID
	r.Target, r.By = us.meant(req), us.from(req)
	decide(r, referral{u})
}

// referral is how a REFER is answered.
type referral struct{ u *usage }

// Accept implements Referral.
func (r referral) Accept() {
	r.u.do(notifier.Accept{Expires: referExpires})
	r.u.do(notifier.Notify{Type: notifier.FragType, Body: notifier.Frag(100, "Trying")})
}

// Reject implements Referral.
func (r referral) Reject(status int) { r.u.do(notifier.Reject{Status: status}) }

// Progress implements Referral.
func (r referral) Progress(status int, phrase string) {
	doc := notifier.Notify{Type: notifier.FragType, Body: notifier.Frag(status, phrase)}
	if status < 200 {
		r.u.do(doc)
		return
	}
	r.u.do(notifier.Terminate{Reason: "noresource", Notify: doc})
}
