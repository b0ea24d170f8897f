package sip

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"sparkle/sip/dialog"
)

// mailbox is what waits for a call's goroutine: a list beside a wake-up channel, for nothing
// in it may be lost and nobody who posts may wait; its length is bounded by what the peer's
// transactions and one bridge can have outstanding.
//
// What came over the wire is read in the order it came, although sipgo takes each message in
// a goroutine of its own, the newest first as often as not. The screen, which sees every
// message in its reader's goroutine, posts responses itself; of what sipgo has to see first it
// says that it is to be expected. That is a request, which needs the transaction that sipgo
// makes of it, and the final answer to an INVITE, which sipgo acknowledges before the call may
// send the next INVITE:
//
//	screen: expect INFO 1, expect INFO 2, response 3 → sipgo: INFO 2, INFO 1 → take: 1, 2, 3
//
// What is behind an expected message waits for it, but no longer than late: should sipgo
// keep it for itself, nothing is held up for more than that.
type mailbox struct {
	wake chan struct{} // cap 1: something may be read

	mu      sync.Mutex
	letters []letter // those that came over the wire by n
	closed  bool
	last    uint64 // n of the newest arrival
	due     []due  // what sipgo has in hand, oldest first; at most maxDue
	seed    maphash.Seed
	recent  [16]uint64 // branches of the newest of them: one that comes again is sipgo's to answer
	oldest  int        // in recent
}

// letter is a dialog.Input or a word of the call's own; n is its place among the arrivals, 0
// if it did not come over the wire.
type letter struct {
	in any
	n  uint64
}

type due struct {
	n      uint64
	branch uint64
	until  time.Time
}

const (
	maxDue = 64
	late   = 500 * time.Millisecond // T1: by then a peer that has no answer says it again
)

func newMailbox() *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), seed: maphash.MakeSeed()}
}

// expect says that a message has been read that sipgo will hand over.
func (m *mailbox) expect(now time.Time, msg sipgo.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.branch(msg)
	if m.closed || b == 0 || slices.Contains(m.recent[:], b) {
		return
	}
	m.recent[m.oldest] = b
	m.oldest = (m.oldest + 1) % len(m.recent)
	m.last++
	if len(m.due) == maxDue {
		m.due = append(m.due[:0], m.due[1:]...)
	}
	m.due = append(m.due, due{m.last, b, now.Add(late)})
}

// acknowledged says whether sipgo answers res with an ACK (RFC 3261 §17.1.1.2).
func acknowledged(res *sipgo.Response) bool {
	seq := res.CSeq()
	return res.StatusCode >= 300 && seq != nil && seq.MethodName == sipgo.INVITE
}

// branch is the hash of a message's branch, 0 if it has none or shares it with the INVITE.
func (m *mailbox) branch(msg sipgo.Message) uint64 {
	if req, ok := msg.(*sipgo.Request); ok && req.IsCancel() {
		return 0
	}
	via := msg.(interface{ Via() *sipgo.ViaHeader }).Via()
	if via == nil {
		return 0
	}
	b, _ := via.Params.Get("branch")
	if b == "" {
		return 0
	}
	return maphash.String(m.seed, b)
}

// arrived takes an expected message off the list and returns its place.
func (m *mailbox) arrived(msg sipgo.Message) (n uint64) {
	if len(m.due) == 0 {
		return 0
	}
	b := m.branch(msg)
	for i, d := range m.due {
		if d.branch == b {
			m.due = append(m.due[:i], m.due[i+1:]...)
			return d.n
		}
	}
	return 0
}

// put posts. It reports whether anybody will read it.
func (m *mailbox) put(in any) bool {
	m.mu.Lock()
	open := !m.closed
	if open {
		l := letter{in: in}
		switch in := in.(type) {
		case dialog.Request:
			l.n = m.arrived(in.Req)
		case dialog.Response:
			if acknowledged(in.Res) {
				l.n = m.arrived(in.Res)
				break
			}
			m.last++
			l.n = m.last
		}
		at := slices.IndexFunc(m.letters, func(behind letter) bool { return l.n != 0 && behind.n > l.n })
		if at < 0 {
			at = len(m.letters)
		}
		m.letters = slices.Insert(m.letters, at, l)
	}
	m.mu.Unlock()
	m.knock()
	return open
}

// skip says that a request which was expected goes to nobody.
func (m *mailbox) skip(req *sipgo.Request) {
	m.mu.Lock()
	m.arrived(req)
	m.mu.Unlock()
	m.knock()
}

func (m *mailbox) knock() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns what may be read, in order. Where something has to wait, until says when to
// look again at the latest.
func (m *mailbox) take(now time.Time) (ready []letter, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.due) > 0 && !now.Before(m.due[0].until) {
		m.due = append(m.due[:0], m.due[1:]...)
	}
	ready, m.letters = m.letters, nil
	if len(m.due) == 0 {
		return ready, time.Time{}
	}
	early := func(l letter) bool { return l.n > m.due[0].n }
	if !slices.ContainsFunc(ready, early) {
		return ready, time.Time{}
	}
	all := ready
	ready = make([]letter, 0, len(all))
	for _, l := range all {
		if early(l) {
			m.letters = append(m.letters, l)
		} else {
			ready = append(ready, l)
		}
	}
	return ready, m.due[0].until
}

// has says whether something waits that f knows.
func (m *mailbox) has(f func(in any) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.letters, func(l letter) bool { return f(l.in) })
}

// close takes no more, and returns what nobody has read.
func (m *mailbox) close() []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	rest := m.letters
	m.letters, m.due = nil, nil
	return rest
}
