package accounts

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// The delay after the n-th failure in a row is firstDelay * 2^(n-1), at most maxDelay.
// Whoever would wait longer than maxWait is refused at once instead, so that guesses
// do not pile up as waiting requests. Failures are forgotten after forgetAfter.
const (
	firstDelay  = 250 * time.Millisecond
	maxDelay    = time.Minute
	maxWait     = 5 * time.Second
	spacing     = 100 * time.Millisecond // between any two attempts, so that parallel ones cannot outrun the count
	forgetAfter = 15 * time.Minute
	maxTracked  = 10_000 // accounts and addresses each; of a sample the longest quiet goes
)

// throttle slows guessing down, per address and per account: an address that tries
// many accounts and an account that many addresses try. It never locks: an address
// from which an account was logged into before is not delayed by others' guesses.
type throttle struct {
	mu    sync.Mutex
	track map[string]*tally
}

// tally counts one account's or address's failures in a row. Attempts take turns:
// next is when the next one may begin, so parallel guesses wait in a line.
type tally struct {
	fails int
	next  time.Time
	last  time.Time
	known map[string]struct{} // of an account: addresses that had the password; at most 16
}

type attempt struct {
	t             *throttle
	account, addr string
	trusted       bool
}

// begin waits for its turn.
func (t *throttle) begin(ctx context.Context, account, remote string) (attempt, error) {
	a := attempt{t: t, account: "n:" + strings.ToLower(account), addr: "a:" + network(remote)}
	now := time.Now()
	t.mu.Lock()
	byName, byAddr := t.of(a.account, now), t.of(a.addr, now)
	_, a.trusted = byName.known[a.addr]
	at := byAddr.next
	if !a.trusted && byName.next.After(at) {
		at = byName.next
	}
	wait := max(0, at.Sub(now))
	if wait <= maxWait {
		// The next attempt comes after this one's failure would have been paid for.
		turn := now.Add(wait)
		byAddr.next = turn.Add(max(spacing, delay(byAddr.fails)))
		if !a.trusted {
			byName.next = turn.Add(max(spacing, delay(byName.fails)))
		}
	}
	t.mu.Unlock()
	if wait > maxWait {
		return attempt{}, &ThrottledError{After: wait}
	}
	return a, pause(ctx, wait)
}

// failed counts the failure and holds the answer back: by at most maxWait, after
// that it is the next attempt that is refused.
func (a attempt) failed(ctx context.Context) error {
	now := time.Now()
	a.t.mu.Lock()
	var d time.Duration
	keys := []string{a.addr, a.account}
	if a.trusted {
		keys = keys[:1]
	}
	for _, key := range keys {
		y := a.t.of(key, now)
		y.fails++
		y.last = now
		k := delay(y.fails)
		if next := now.Add(k); next.After(y.next) {
			y.next = next
		}
		d = max(d, k)
	}
	a.t.mu.Unlock()
	return pause(ctx, min(d, maxWait))
}

// succeeded forgives the account. The address pays on: else one good account of its
// own would let it guess others' for free.
func (a attempt) succeeded() {
	now := time.Now()
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	y := a.t.of(a.account, now)
	y.fails, y.next, y.last = 0, time.Time{}, now
	if len(y.known) >= 16 {
		clear(y.known)
	}
	if y.known == nil {
		y.known = map[string]struct{}{}
	}
	y.known[a.addr] = struct{}{}
}

// of finds or makes a tally; t.mu is held.
func (t *throttle) of(key string, now time.Time) *tally {
	if y := t.track[key]; y != nil {
		if now.Sub(y.last) > forgetAfter && now.After(y.next) {
			y.fails = 0
		}
		return y
	}
	if t.track == nil {
		t.track = map[string]*tally{}
	}
	if len(t.track) >= 2*maxTracked {
		t.evict(now)
	}
	y := &tally{last: now}
	t.track[key] = y
	return y
}

// evict makes room: of a few at random (a map is walked from a random place) the
// forgotten ones go, else the longest quiet one.
func (t *throttle) evict(now time.Time) {
	const sample = 16
	var oldest string
	n := 0
	for k, y := range t.track {
		if now.Sub(y.last) > forgetAfter && now.After(y.next) {
			delete(t.track, k)
		} else if oldest == "" || y.last.Before(t.track[oldest].last) {
			oldest = k
		}
		if n++; n == sample {
			break
		}
	}
	if len(t.track) >= 2*maxTracked {
		delete(t.track, oldest)
	}
}

func delay(fails int) time.Duration {
	if fails <= 0 {
		return 0
	}
	return min(maxDelay, firstDelay<<min(fails-1, 16))
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// network is the address without port; of IPv6 the /64, which one host has whole.
func network(remote string) string {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		remote = ap.Addr().String()
	}
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return remote
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // 64 fits every IPv6 address
	return p.String()
}
