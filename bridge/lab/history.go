package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sparkle/sip/sdp"
)

// CallState is how far a handset's call is.
type CallState string

// offered → ringing → answered (200 sent) → connected (ACK came) → ended.
const (
	Offered   CallState = "offered"
	Ringing   CallState = "ringing"
	Answered  CallState = "answered"
	Connected CallState = "connected"
	Ended     CallState = "ended"
)

// How a call ended, as the handset saw it.
const (
	ByCaller    = "caller"    // BYE from the other side
	ByHandset   = "handset"   // BYE from the handset
	ByCancel    = "cancelled" // CANCEL, answered 487
	ByRefusal   = "refused"   // a final failure from the handset
	ByNoACK     = "no_ack"    // the 200 was never acknowledged
	BySession   = "session"   // the session timer ran out
	ByClose     = "closed"    // the lab ended
	ByDialogLos = "lost"      // the other side no longer knew the dialog
)

// Call is one call attempt at a handset: what was offered, when what happened, how it
// ended. It is a copy; times are zero for what did not happen.
type Call struct {
	CallID  string
	From    string // the caller's asserted identity, else From
	To      string // who was called, as the caller wrote it
	Placed  bool   // by the handset: Offer is ours, Answer and Headers are of the 2xx
	Headers []string
	State   CallState
	Held    bool // by us or them

	Offer     string // session description of the INVITE
	Answer    string // ours
	HadVideo  bool   // the offer had video with a port
	Video     bool   // video is agreed now
	Agreed    sdp.Result
	Reoffers  []string // session descriptions offered to us later
	Reanswers []string // what came back to ours
	Updates   int      // UPDATE requests received
	Pracks    int      // PRACKs that matched
	ACKs      int
	ForkByes  int // BYEs that ended other forks
	Infos     []string

	Invited, Rang, AnsweredAt, ConnectedAt, EndedAt time.Time

	By     string // how it ended, see above
	Status int    // the final status we gave the INVITE
	Reason string // Reason header of the BYE or CANCEL
	Ladder []string
	Media  Media // nil when none was opened; ask its concrete type what was heard
}

// ErrNoCall says that a handset has no call to act on.
var ErrNoCall = errors.New("handset: no such call now")

// publish makes a call's state visible and wakes who waits.
func (h *Handset) publish(k *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := k.view
	c.Headers, c.Ladder = slices.Clone(c.Headers), slices.Clone(c.Ladder)
	c.Reoffers, c.Reanswers, c.Infos = slices.Clone(c.Reoffers), slices.Clone(c.Reanswers), slices.Clone(c.Infos)
	if k.index < 0 {
		k.index = h.dropped + len(h.calls)
		h.calls = append(h.calls, Call{})
		if len(h.calls) > maxHistory {
			h.calls = slices.Delete(h.calls, 0, 1)
			h.dropped++
		}
	}
	if i := k.index - h.dropped; i >= 0 {
		h.calls[i] = c
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// maxHistory bounds what a handset under load remembers.
const maxHistory = 1000

// Calls are the handset's calls so far, oldest first, at most the last 1000.
func (h *Handset) Calls() []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// Wait blocks until ok says yes to the handset's calls, or ctx ends.
func (h *Handset) Wait(ctx context.Context, ok func([]Call) bool) error {
	for {
		h.mu.Lock()
		calls, changed := slices.Clone(h.calls), h.changed
		h.mu.Unlock()
		if ok(calls) {
			return nil
		}
		select {
		case <-changed:
		case <-h.done:
			return fmt.Errorf("handset %s is closed", h.o.Number)
		case <-ctx.Done():
			last := "no call"
			if len(calls) > 0 {
				c := calls[len(calls)-1]
				last = fmt.Sprintf("last call is %s (by %q, status %d): %v", c.State, c.By, c.Status, c.Ladder)
			}
			return fmt.Errorf("handset %s: %w; %s", h.o.Number, context.Cause(ctx), last)
		}
	}
}

// WaitState waits until the newest call is in a state and returns that call. For
// states before Ended, calls that have ended do not count: a new one is waited for.
func (h *Handset) WaitState(ctx context.Context, s CallState) (Call, error) {
	var got Call
	err := h.Wait(ctx, func(calls []Call) bool {
		if len(calls) == 0 {
			return false
		}
		got = calls[len(calls)-1]
		return got.State == s
	})
	return got, err
}
