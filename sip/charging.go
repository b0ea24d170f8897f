package sip

import (
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
	"sparkle/sip/ims"
)

// maxCharging bounds what a peer may have us keep of one charging value.
const maxCharging = 200

// chargedBy tells what a message says about charging, if that is new. Our own
// P-Access-Network-Info is the attachment's, and says nothing of the phone.
func (c *call) chargedBy(m sipgo.Message, ours bool) {
	now := c.charging
	for _, v := range dialog.Values(m, "P-Charging-Vector") {
		if pcv, err := ims.ParseChargingVector(v); err == nil {
			set(&now.OrigIOI, pcv.OrigIOI)
			set(&now.TermIOI, pcv.TermIOI)
		}
	}
	if hs := m.GetHeaders("P-Access-Network-Info"); len(hs) > 0 && !ours {
		set(&now.AccessNetwork, hs[0].Value())
	}
	if now != c.charging {
		c.charging = now
		now.At = time.Now()
		c.tell(now)
	}
}

// set keeps an old value where there is no new one.
func set(to *string, v string) {
	if v != "" && len(v) <= maxCharging {
		*to = v
	}
}
