package sip

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"github.com/google/uuid"

	"sparkle/sip/dialog"
)

// The methods we know, as we tell peers.
const allow = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, NOTIFY, SUBSCRIBE, REFER, INFO"

var methods = strings.Split(allow, ", ")

// mmtel is the service of voice and video calls (TS 24.173).
const (
	mmtelURN = "urn:urn-7:3gpp-service.ims.icsi.mmtel"
	mmtelTag = `+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel"`
)

// token is 96 bits nobody can guess: tags, branches, Call-IDs.
func token() string {
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

// validNumber says whether s is E.164 with +.
func validNumber(s string) bool {
	if len(s) < 4 || len(s) > 16 || s[0] != '+' || s[1] == '0' {
		return false
	}
	for _, r := range s[1:] {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

func (a *attachment) numberURI(number string, other bool) string {
	if (a.o.NumberForm == "sip") != other {
		return "sip:" + number + "@" + a.o.PeerDomain + ";user=phone"
	}
	return "tel:" + number
}

// user is the user part of our Contact.
func (a *attachment) user() string {
	s := strings.TrimPrefix(strings.TrimPrefix(a.o.IMPU, "sip:"), "tel:")
	user, _, _ := strings.Cut(s, "@")
	user, _, _ = strings.Cut(user, ";")
	return user
}

// instance is the feature tag that names us among the devices of one identity (RFC 5626 4.1): a
// UUID of a name (RFC 9562 5.5), so that it is the same after a restart.
func instance(impi string) string {
	return `+sip.instance="<urn:uuid:` + uuid.NewSHA1(uuid.NameSpaceURL, []byte("sip:"+impi)).String() + `>"`
}

func (a *attachment) uriTransport() string { return ";transport=" + a.o.Transport }

// contactURI is where requests inside our dialogs reach us. Who hides his number does so here
// too (RFC 3323 4.1); what is registered must stay what was registered.
func (a *attachment) contactURI() string {
	user := a.user()
	if a.o.HideCaller && a.o.Mode != ModeUE {
		user = "anonymous"
	}
	return "sip:" + user + "@" + net.JoinHostPort(a.host, strconv.Itoa(a.port)) + a.uriTransport()
}

// contact is our Contact in a call. Phones that are to know of it are told their conference's.
func (a *attachment) contact(video bool, focus string) string {
	if a.o.IsFocus && focus != "" {
		return a.focusContact(focus, video)
	}
	return "<" + a.contactURI() + ">" + features(video)
}

// focusContact is the Contact of a conference (RFC 4579 5.2).
func (a *attachment) focusContact(user string, video bool) string {
	return "<sip:" + user + "@" + net.JoinHostPort(a.host, strconv.Itoa(a.port)) + a.uriTransport() + ">" + features(video) + ";isfocus"
}

func features(video bool) string {
	if video {
		return ";" + mmtelTag + ";audio;video"
	}
	return ";" + mmtelTag + ";audio"
}

// dialogOptions are the INVITE of IMS.md 2.1: what a handset's own INVITE looks like,
// without what a server cannot have.
func (a *attachment) dialogOptions(inv Invite, icid string) dialog.Options {
	o := a.o
	identity, routes := a.identity()
	do := dialog.Options{
		CallID: token() + "@" + a.host, From: "<" + identity + ">", FromTag: token(),
		To: "<" + a.numberURI(inv.Number, inv.OtherForm) + ">", Target: a.numberURI(inv.Number, inv.OtherForm),
		Contact: a.contact(inv.Video, inv.Focus), Routes: routes,
		Supported: []string{"100rel", "timer", "replaces"},
		Allow:     allow, UserAgent: a.ua.o.UserAgent,
		Transport: strings.ToUpper(o.Transport), Host: a.host, Port: a.port,
		Offer: inv.Offer, Setup: inv.SetupTimeout, Ring: inv.RingTimeout,
		T1: a.ua.o.T1, T2: a.ua.o.T2,
		SessionExpires: max(o.SessionExpires, 0), MinSE: o.MinSE, MaxDuration: max(o.MaxDuration, 0),
		ID: token, Authorize: a.authorize, Realm: a.realm(),
	}
	if o.FollowRedirect {
		do.Redirect = func(uri string) (string, bool) { return a.redirect(inv, uri) }
	}
	if len(inv.Routes) > 0 {
		do.Routes = inv.Routes
	} else if o.Mode == ModeAS {
		do.Routes = []string{a.origRoute(a.target())}
	}
	if inv.Passive {
		o.Preconditions = "passive"
	}
	do.Preconditions = o.Preconditions == "active" || o.Preconditions == "required"
	do.RequirePreconditions = o.Preconditions == "required"
	if o.Preconditions != "off" {
		do.Supported = append(do.Supported, "precondition")
	}
	h := func(name, value string) { do.Headers = append(do.Headers, dialog.Header{Name: name, Value: value}) }
	if o.HideCaller { // RFC 3323, 3325: whoever believes the asserted identity keeps it to himself
		do.From = `"Anonymous" <sip:anonymous@anonymous.invalid>`
		h("Privacy", "id")
	}
	switch {
	case o.Mode != ModeUE && o.Untrusted: // nothing of this is for them
	case o.Mode == ModeTrunk, o.Mode == ModeAS:
		h("P-Asserted-Identity", "<"+identity+">")
		h("P-Charging-Vector", fmt.Sprintf("icid-value=%s;icid-generated-at=%s;orig-ioi=%s", icid, a.host, o.Domain))
		if o.Mode == ModeAS {
			h("P-Served-User", "<"+identity+">;sescase=orig;regstate="+o.RegState)
			if v := a.charging.Load(); v != nil {
				h("P-Charging-Function-Addresses", *v)
			}
		}
	default:
		h("P-Preferred-Identity", "<"+identity+">")
		h("P-Preferred-Service", mmtelURN)
		h("Accept-Contact", "*;"+mmtelTag)
	}
	if o.PANI != "" && !o.Untrusted {
		h("P-Access-Network-Info", o.PANI)
	}
	h("P-Early-Media", "supported")
	if inv.Replaces != "" { // not required: a phone that cannot take over rings, and its owner ends the other call
		h("Replaces", inv.Replaces)
	}
	if inv.ReferredBy != "" && !o.HideCaller && !o.Untrusted {
		h("Referred-By", "<"+inv.ReferredBy+">")
	}
	return do
}

// outOfDialog adds what every request of ours outside a dialog needs besides Via.
func (a *attachment) outOfDialog(req *sipgo.Request, to string) {
	identity, _ := a.identity()
	hops := sipgo.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	from, dest := new(sipgo.FromHeader), new(sipgo.ToHeader)
	_, _ = sipgo.ParseAddressValue("<"+identity+">", &from.Address, &from.Params)
	from.Params.Add("tag", token())
	_, _ = sipgo.ParseAddressValue(to, &dest.Address, &dest.Params)
	id := sipgo.CallIDHeader(token() + "@" + a.host)
	req.AppendHeader(from)
	req.AppendHeader(dest)
	req.AppendHeader(&id)
	req.AppendHeader(&sipgo.CSeqHeader{SeqNo: 1, MethodName: req.Method})
	req.AppendHeader(sipgo.NewHeader("User-Agent", a.ua.o.UserAgent))
}

// addVia puts a fresh Via with our listener's address on top.
func (a *attachment) addVia(req *sipgo.Request) {
	for req.RemoveHeader("Via") {
	}
	req.PrependHeader(a.freshVia())
}

func (a *attachment) freshVia() *sipgo.ViaHeader {
	via := &sipgo.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: strings.ToUpper(a.o.Transport),
		Host: a.host, Port: a.port, Params: sipgo.NewParams()}
	via.Params.Add("branch", sipgo.RFC3261BranchMagicCookie+token())
	via.Params.Add("rport", "")
	return via
}

func retryAfter(res *sipgo.Response) (time.Duration, bool) {
	hs := res.GetHeaders("Retry-After")
	if len(hs) == 0 {
		return 0, false
	}
	v := strings.TrimSpace(hs[0].Value())
	if i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		v = v[:i]
	}
	n, err := strconv.ParseUint(v, 10, 31)
	return time.Duration(n) * time.Second, err == nil
}

// summary is a line of the ladder. The peer's reason phrase is free text: digits are
// left out, so that no number gets into a trace, and it is cut short.
func summary(m sipgo.Message) string {
	switch m := m.(type) {
	case *sipgo.Request:
		return m.Method.String()
	case *sipgo.Response:
		phrase := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || (r >= '0' && r <= '9') {
				return -1
			}
			return r
		}, m.Reason)
		if len(phrase) > 40 {
			phrase = strings.ToValidUTF8(phrase[:40], "")
		}
		s := strings.TrimSpace(strconv.Itoa(m.StatusCode) + " " + phrase)
		if seq := m.CSeq(); seq != nil && seq.MethodName != sipgo.INVITE {
			s += " (" + seq.MethodName.String() + ")"
		}
		return s
	}
	return ""
}
