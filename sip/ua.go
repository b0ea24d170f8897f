package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// ErrBusy says that an attachment has as many live calls as it may.
var ErrBusy = errors.New("sip: attachment has no call left")

// tuneSipgo sets what sipgo has process-wide, once, before the first socket opens: it
// may send what IMS makes, an INVITE of 3 kB over UDP in fragments, and its own log,
// which prints whole messages with their numbers, is off; what it writes is recorded for
// traces.
var tuneSipgo = sync.OnceFunc(func() {
	sipgo.UDPMTUSize = 65535
	sipgo.SetDefaultLogger(slog.New(slog.DiscardHandler))
	sipgo.SIPDebugTracer(&wire)
	sipgo.SIPDebug = true
})

// UA is the user agent: attachments and the calls on them. It owns every socket and
// goroutine of this room; Close ends them all. Its methods may be called from anywhere.
type UA struct {
	o    Options
	log  *slog.Logger
	atts []*attachment

	traces *traces

	ours atomic.Pointer[func(attachment, target, to string) bool]
	busy atomic.Bool // who asks hears that no calls are taken

	mu       sync.Mutex
	closed   bool
	watchers []func(AttachmentState)
	incoming func(Incoming, IncomingCall) func(Event)
	refused  func(Incoming, int)
	refer    func(Refer, Referral)
	subs     func(Subscribe, Subscription) func(SubscriptionEvent)
}

// New binds the ports of all attachments and starts to register or to watch. An error
// names the attachment and what is wrong; then nothing is left open.
func New(o Options, log *slog.Logger) (*UA, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	tuneSipgo()
	if o.UserAgent == "" {
		o.UserAgent = "Sparkle"
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ua := &UA{traces: newTraces(), o: o, log: log}
	for _, ao := range o.Attachments {
		a, err := newAttachment(ua, ao.withDefaults())
		if err != nil {
			for _, open := range ua.atts {
				open.shut()
			}
			return nil, fmt.Errorf("sip: attachment %s: %w", ao.Name, err)
		}
		ua.atts = append(ua.atts, a)
	}
	wire.join(ua.traces)
	for _, a := range ua.atts {
		a.start()
	}
	return ua, nil
}

// Invite begins a call. It returns at once; what happens comes through inv.OnEvent.
// Errors: ErrClosed, ErrUnknownAttachment, ErrAttachmentDown, ErrBadNumber, ErrBusy.
func (ua *UA) Invite(inv Invite) (Call, error) {
	if !validNumber(inv.Number) {
		return nil, ErrBadNumber
	}
	if inv.OnEvent == nil {
		inv.OnEvent = func(Event) {}
	}
	a, err := ua.pick(inv.Attachment)
	if err != nil {
		return nil, err
	}
	c, err := a.invite(inv)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// pick finds the attachment asked for, or the first that is up.
func (ua *UA) pick(name string) (*attachment, error) {
	ua.mu.Lock()
	closed := ua.closed
	ua.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	known := false
	for _, a := range ua.atts {
		if name != "" && a.o.Name != name {
			continue
		}
		known = true
		if a.snapshot().Up {
			return a, nil
		}
	}
	if !known && name != "" {
		return nil, ErrUnknownAttachment
	}
	return nil, ErrAttachmentDown
}

// Attachments is what there is, in the order of the options.
func (ua *UA) Attachments() []AttachmentState {
	states := make([]AttachmentState, len(ua.atts))
	for i, a := range ua.atts {
		states[i] = a.snapshot()
	}
	return states
}

// Register has a ue attachment register again at once, whatever it waits for: somebody has
// mended something. Errors: ErrUnknownAttachment, ErrNotRegistering.
func (ua *UA) Register(name string) error {
	for _, a := range ua.atts {
		if a.o.Name != name {
			continue
		}
		if a.reg == nil {
			return ErrNotRegistering
		}
		a.reg.Refresh()
		return nil
	}
	return ErrUnknownAttachment
}

// AttachmentOptions returns an attachment's profile with its defaults filled in, and
// the address it is bound to: media belongs on the same one. "" is the attachment an
// Invite without a name would take now.
func (ua *UA) AttachmentOptions(name string) (AttachmentOptions, bool) {
	for _, a := range ua.atts {
		if a.o.Name == name || (name == "" && a.snapshot().Up) {
			return a.profile(), true
		}
	}
	if name == "" && len(ua.atts) > 0 {
		return ua.atts[0].profile(), true
	}
	return AttachmentOptions{}, false
}

// OnAttachment calls f for every change of an attachment's state, until Close. f must
// not block.
func (ua *UA) OnAttachment(f func(AttachmentState)) {
	ua.mu.Lock()
	defer ua.mu.Unlock()
	ua.watchers = append(ua.watchers, f)
}

// OnIncoming sets who takes calls that come in; without one they are answered 503. f is
// called from the call's own goroutine and must not block. It answers by call, then or
// later, and returns what the call's events go to; nil with no answer given is a 404.
func (ua *UA) OnIncoming(f func(in Incoming, call IncomingCall) func(Event)) {
	ua.mu.Lock()
	defer ua.mu.Unlock()
	ua.incoming = f
}

// SetOurs sets who says whether an address, that of a request or of its To, is served here. A
// request that came over ISC by way of this application server, with the S-CSCF's Route behind
// ours, goes on to that if it is not (TS 24.229 §5.7.4). f must not block.
func (ua *UA) SetOurs(f func(attachment, target, to string) bool) { ua.ours.Store(&f) }

// OnRefused sets who hears of an INVITE that was answered with status before anybody could take
// it: malformed, of a kind that we do not do, or naming a call to replace that there is not. f
// must not block. What is turned away without a look, above a limit, is counted in Ingress.
func (ua *UA) OnRefused(f func(in Incoming, status int)) {
	ua.mu.Lock()
	defer ua.mu.Unlock()
	ua.refused = f
}

// OnRefer sets who decides on REFER; without one it is answered 603 within a call and 403
// outside. f must not block; it answers by the Referral, then or later (a REFER left
// without an answer for 2 s is answered 480).
func (ua *UA) OnRefer(f func(Refer, Referral)) {
	ua.mu.Lock()
	defer ua.mu.Unlock()
	ua.refer = f
}

// OnSubscribe sets who decides on SUBSCRIBE; without one it is answered 489. f must not
// block; it answers by the Subscription and returns what hears of it afterwards.
func (ua *UA) OnSubscribe(f func(Subscribe, Subscription) func(SubscriptionEvent)) {
	ua.mu.Lock()
	defer ua.mu.Unlock()
	ua.subs = f
}

func (ua *UA) changed(s AttachmentState) {
	ua.mu.Lock()
	fs := ua.watchers
	ua.mu.Unlock()
	for _, f := range fs {
		f(s)
	}
}

// SetBusy says whether calls that come would be refused for now: then OPTIONS are answered 503
// with Retry-After, as the calls are by their owner, and peers with a choice go elsewhere.
func (ua *UA) SetBusy(busy bool) { ua.busy.Store(busy) }

// closeCap is how long calls may take to end by themselves in Close.
const closeCap = 5 * time.Second

// Close refuses new calls, hangs up all, de-registers and closes every socket. ctx
// cuts the waiting short; nothing is left running either way.
func (ua *UA) Close(ctx context.Context) error {
	ua.mu.Lock()
	again := ua.closed
	ua.closed = true
	ua.mu.Unlock()
	if again {
		return nil
	}
	var wg sync.WaitGroup
	for _, a := range ua.atts {
		wg.Go(a.safely(func() { a.close(ctx) }))
	}
	wg.Wait()
	wire.leave(ua.traces)
	return ctx.Err()
}
