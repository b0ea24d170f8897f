package bridge

import (
	"fmt"
	"time"

	"sparkle/sip"
)

// Attachment is a connection to a carrier as the API and the events show it: the
// subscriber digits of identities are masked.
type Attachment struct {
	Name         string             `json:"name"`
	Mode         string             `json:"mode"`
	State        string             `json:"state"`
	Up           bool               `json:"up"`
	Since        *time.Time         `json:"since"`
	Identity     string             `json:"identity,omitempty"`
	Expires      *time.Time         `json:"expires"`
	LastError    string             `json:"last_error,omitempty"`
	LocalAddr    string             `json:"local_addr,omitempty"`
	Calls        int                `json:"calls"`
	Queued       int                `json:"queued"`
	CPS          float64            `json:"cps"`
	MaxCalls     int                `json:"max_calls"`
	Targets      []AttachmentTarget `json:"targets"`
	Registration *Registration      `json:"registration,omitempty"`
	Presence     int                `json:"presence,omitempty"`
	Ingress      Ingress            `json:"ingress"`
}

// Ingress counts what came to an attachment and was not taken in since it opened; see sip.IngressStats.
type Ingress struct {
	Strangers uint64 `json:"strangers"`
	Throttled uint64 `json:"throttled"`
	Held      uint64 `json:"held"`
	Malformed uint64 `json:"malformed"`
	Refused   uint64 `json:"refused"`
	Shed      uint64 `json:"shed"`
	Misled    uint64 `json:"misled"`
	Passed    uint64 `json:"passed"`
	Faults    uint64 `json:"faults"`
}

// AttachmentTarget is one peer of an attachment.
type AttachmentTarget struct {
	Address   string     `json:"address"`
	Name      string     `json:"name,omitempty"`
	Transport string     `json:"transport"`
	State     string     `json:"state"`
	Until     *time.Time `json:"until"`
	RTTMs     *float64   `json:"rtt_ms"`
	Calls     int        `json:"calls"`
	CPS       float64    `json:"cps"`
	MaxCalls  int        `json:"max_calls"`
	Priority  int        `json:"priority"`
	Weight    int        `json:"weight"`
}

// Registration is that of a ue attachment.
type Registration struct {
	PCSCF           string     `json:"p_cscf"`
	Expires         *time.Time `json:"expires"`
	ServiceRoutes   int        `json:"service_routes"`
	Identities      []string   `json:"identities"`
	RegEvent        string     `json:"reg_event"`
	RegEventExpires *time.Time `json:"reg_event_expires"`
}

// ViewAttachment is the one place where an attachment's state becomes public.
func ViewAttachment(a sip.AttachmentState) Attachment {
	out := Attachment{Name: a.Name, Mode: a.Mode, State: a.State, Up: a.Up, Since: utcOrNil(a.Since),
		Identity: MaskNumbers(a.Identity), Expires: utcOrNil(a.Expires), LastError: MaskNumbers(a.LastError), LocalAddr: a.LocalAddr,
		Calls: a.Calls, Queued: a.Queued, CPS: a.CPS, MaxCalls: a.MaxCalls, Targets: []AttachmentTarget{}, Presence: a.Presence, Ingress: Ingress(a.Ingress)}
	for _, t := range a.Targets {
		v := AttachmentTarget{Address: t.Addr, Name: t.Name, Transport: t.Transport, State: t.State, Until: utcOrNil(t.Until),
			Calls: t.Calls, CPS: t.CPS, MaxCalls: t.MaxCalls, Priority: t.Priority, Weight: t.Weight}
		if t.RTT > 0 {
			ms := round(float32(t.RTT.Seconds()*1000), 10)
			v.RTTMs = &ms
		}
		out.Targets = append(out.Targets, v)
	}
	if r := a.Reg; r != nil {
		out.Registration = &Registration{PCSCF: r.PCSCF, Expires: utcOrNil(r.Expires), ServiceRoutes: r.ServiceRoutes,
			Identities: []string{}, RegEvent: r.RegEvent, RegEventExpires: utcOrNil(r.RegEventExpires)}
		for _, id := range r.Identities {
			out.Registration.Identities = append(out.Registration.Identities, MaskNumbers(id))
		}
	}
	return out
}

func utcOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// onQueued notes that the carrier's limits make a leg wait.
func (r *room) onQueued(now time.Time, l *leg, e sip.Queued) {
	l.Queue = &LegQueue{Ahead: e.Ahead, Until: utcOrNil(e.Until)}
	text := fmt.Sprintf("%d before it; leaves when another call ends", e.Ahead)
	if !e.Until.IsZero() {
		text = fmt.Sprintf("%d before it; leaves at %s", e.Ahead, e.Until.UTC().Format("15:04:05.0Z"))
	}
	l.note(e.At, "queued", text)
	r.emitLeg(now, l, "leg.updated")
}
