package ims_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sparkle/sip"
)

// subscribed starts a user agent that may call only once the core tells of its registration.
func subscribed(t *testing.T, a *account) *sip.UA {
	t.Helper()
	a.o.RegEvent = sip.RegEventRequired
	ua := a.registered(t)
	eventually(t, "the reg event", func() error {
		if s := ua.Attachments()[0]; !s.Up || s.Reg == nil || s.Reg.RegEvent != "active" {
			return fmt.Errorf("%+v, %+v", s, s.Reg)
		}
		return nil
	})
	return ua
}

// The subscription to one's own registration (RFC 3680) through P- and S-CSCF: both
// identities that register together are ours. It ends with the registration.
func TestRegEvent(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			a := subscribe(t, akaAuth, transport)
			s := subscribed(t, a).Attachments()[0]
			if s.Reg.RegEventExpires.IsZero() || s.Reg.ServiceRoutes != 1 || len(s.Reg.Identities) != 2 {
				t.Errorf("%+v", s.Reg)
			}
		})
	}
}

// The home network takes a registration away, and the phone that watches it hears of that at
// once: it takes no more calls for registered. Kamailio gives no reason (RFC 3680 wants one
// for each contact), so it is registered again only after a back-off of half a minute or
// more, which sip/register tests in virtual time.
func TestHearsOfDeregistration(t *testing.T) {
	a := subscribe(t, akaAuth, "tcp")
	ua := subscribed(t, a)
	if err := core.HSS().Deregister(within(t), a.IMPI); err != nil {
		t.Fatal(err)
	}
	s := awaitState(t, ua, "unregistered")
	if s.Up || !strings.Contains(s.LastError, "network ended the registration") {
		t.Errorf("%+v", s)
	}
	if _, err := ua.Invite(sip.Invite{Number: number(), Offer: offer()}); !errors.Is(err, sip.ErrAttachmentDown) {
		t.Errorf("a call is placed all the same: %v", err)
	}
}

// Who does not watch his registration learns of its end at the refresh, and is back by it.
func TestIsBackByTheRefresh(t *testing.T) {
	a := subscribe(t, akaAuth, "tcp")
	a.o.Expires = 4 * time.Second
	ua := a.registered(t)
	if err := core.HSS().Deregister(within(t), a.IMPI); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next registration", func() error {
		if !core.HSS().Registered(a.IMPUs[0]) || !ua.Attachments()[0].Up {
			return errors.New("it has not come")
		}
		return nil
	})
	calls := answering(t, ua)
	p := place(t, subscribe(t, akaAuth, "tcp").registered(t), a.number)
	next(t, calls).accept()
	until[sip.Connected](p)
	p.hangUp()
}
