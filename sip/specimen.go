package sip

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"sparkle/sip/dialog"
)

// Methods are those that we take.
func Methods() []string { return slices.Clone(methods) }

// OptionTags are those that a peer may require of us.
func OptionTags() []string { return slices.Clone(known) }

// Bodies are the types of bodies that we read in an INVITE or REFER.
func Bodies() []string { return strings.Split(accepted, ", ") }

// EventPackages are those that a peer may subscribe to.
func EventPackages() []string { return strings.Split(allowEvents.Value, ", ") }

// Specimen is an INVITE as an attachment of these options would write it, and the options
// with their defaults: for papers. Nothing is opened or sent. What is random in it is "…";
// the Route of a ue is not there, for it comes with the registration.
func Specimen(o AttachmentOptions, userAgent, number string, offer []byte) (string, AttachmentOptions, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return "", o, err
	}
	a := &attachment{ua: &UA{o: Options{UserAgent: userAgent}}, o: o, host: o.LocalAddr, port: o.LocalPort}
	if a.port == 0 {
		a.port = 5060 // any free one: the paper shows the usual
	}
	// Nobody has been looked up: the best peer has the name that it is configured with.
	best := slices.MinFunc(o.Peers, func(x, y Target) int { return x.Priority - y.Priority })
	a.current.Store(&target{conf: best, hop: hopTo(cmp.Or(best.Transport, o.Transport), best.Host)})
	const icid = "icidicidicid"
	do := a.dialogOptions(Invite{Number: number, Offer: offer, Video: strings.Contains(string(offer), "m=video")}, icid)
	do.Rand = func() float64 { return 0 }
	do.ID = func() string { return icid }
	for _, act := range dialog.New(do).Step(time.Unix(0, 0), dialog.Start{}) {
		if s, ok := act.(dialog.Send); ok {
			text := strings.NewReplacer(icid, "…", strings.TrimSuffix(do.CallID, "@"+a.host), "…", do.FromTag, "…").Replace(s.Req.String())
			return text, o, nil
		}
	}
	return "", o, fmt.Errorf("sip: no INVITE to %s", net.JoinHostPort(o.LocalAddr, strconv.Itoa(o.LocalPort)))
}
