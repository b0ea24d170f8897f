package media

import (
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tickTime  = 20 * time.Millisecond
	lateLimit = 5 * time.Millisecond
	lateKept  = 3000 // ticks: a minute
	inboxSize = 256
)

// worker is one audio thread: it owns the conferences on it, their legs, and the
// reading of their sockets. Nobody else touches them; others post functions, which
// run between ticks.
type worker struct {
	index int
	e     *Engine
	// inbox holds commands. Full: the caller waits, a tick at most.
	inbox    chan func()
	bell     bell          // rung for each
	done     chan struct{} // closed when run has returned
	poll     *poller
	rx       *reader
	tx       *sender
	received int // packets, since the last tick
	beats    uint64
	asked    []unix.EpollEvent // sockets that the reader was asked for
	more     []unix.EpollEvent // sockets that have more
	rooms    []*room
	slots    []*leg // by what epoll tells; nil: free
	realtime atomic.Bool

	tick     uint64 // number of the next tick; RTP timestamps follow it
	deadline int64  // of the next tick, ns of the engine's clock
	stats    workerStats
	late     [lateKept]int32 // µs, a ring
	lateN    int             // ever written
}

type workerStats struct {
	ticks, lateTicks, skipped uint64
	encodes, saved, decodes   uint64
}

func newWorker(e *Engine, index int) (*worker, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	b, err := newBell()
	if err != nil {
		p.close()
		return nil, err
	}
	return &worker{
		index: index, e: e, poll: p, rx: newReader(e.opt), bell: b, tx: newSender(e.opt),
		asked: make([]unix.EpollEvent, rxReady), more: make([]unix.EpollEvent, 0, rxReady),
		inbox: make(chan func(), inboxSize), done: make(chan struct{}), tick: 1,
		deadline: e.clock() + int64(tickTime),
	}, nil
}

// do runs f on the worker between ticks and waits for it.
func (w *worker) do(f func()) error {
	if w.e.manual {
		f()
		return nil
	}
	ran := make(chan struct{})
	select {
	case w.inbox <- func() { f(); close(ran) }:
		w.bell.ring()
	case <-w.done:
		return errClosed
	}
	select {
	case <-ran:
		return nil
	case <-w.done:
		return errClosed
	}
}

// post runs f before whatever do is given later.
func (w *worker) post(f func()) {
	if w.e.manual {
		f()
		return
	}
	select {
	case w.inbox <- f:
		w.bell.ring()
	case <-w.done:
	}
}

// run is the thread. granted hears whether real-time priority was given.
func (w *worker) run(granted chan<- error) {
	defer close(w.done)
	runtime.LockOSThread() // never unlocked: a thread with SCHED_FIFO must end with us
	punctual()
	if w.e.opt.Realtime {
		err := goRealtime()
		w.realtime.Store(err == nil)
		granted <- err
	}
	w.deadline = w.e.clock() + int64(tickTime)
	for {
		select {
		case <-w.e.stop:
			w.commands()
			return
		default:
		}
		// Much to receive is received in two halves: the second is what delays the tick.
		if w.received > crowded {
			w.wait(w.deadline - int64(tickTime)/2)
			w.receive(w.e.clock())
		}
		w.wait(w.deadline)
		now := w.e.clock()
		w.received = 0
		w.receive(now)
		w.onDeadline(now)
	}
}

// crowded is how many packets a tick may find waiting before it takes them in two halves.
const crowded = 256

// wait sleeps until an instant of the engine's clock and runs the commands that come
// meanwhile.
func (w *worker) wait(until int64) {
	for w.bell.wait(until) {
		w.commands()
	}
}

// onDeadline runs the tick that is due and sets the next deadline. A tick that is so
// late that others should have run is not followed by a burst of them: they are
// skipped, counted, and timestamps jump over them.
func (w *worker) onDeadline(now int64) {
	late := now - w.deadline
	w.late[w.lateN%lateKept] = int32(min(max(late, 0)/1000, 1<<30))
	w.lateN++
	if late > int64(lateLimit) {
		w.stats.lateTicks++
	}
	if skip := late / int64(tickTime); skip > 0 {
		w.stats.skipped += uint64(skip)
		w.tick += uint64(skip)
		w.deadline += skip * int64(tickTime)
	}
	for _, r := range w.rooms {
		r.tick(w, w.tick, now)
	}
	w.tx.flush()
	w.stats.ticks++
	w.tick++
	w.deadline += int64(tickTime)
}

// step is the loop of a test that has its own clock: one beat, and the tick if due.
func (w *worker) step(now int64) {
	w.receive(now)
	if now >= w.deadline {
		w.onDeadline(now)
	}
}

// close is called after run has returned.
func (w *worker) close() {
	w.poll.close()
	w.rx.close()
	w.bell.close()
	w.tx.close()
}

func (w *worker) commands() {
	for {
		select {
		case f := <-w.inbox:
			f()
		default:
			return
		}
	}
}

// receive takes what came on all sockets of the worker. A socket that is flooded gets a
// bounded share of each beat, and must not keep it from the tick; what does not fit waits in
// the kernel, which drops the rest.
func (w *worker) receive(now int64) {
	w.rx.begin(now)
	w.beats++
	for range 2 + 2*len(w.slots)/rxReady {
		n := w.poll.ready()
		if w.rx.ring != nil {
			w.takeFirst(n, now)
		} else {
			for _, ev := range w.poll.events[:n] {
				w.drain(ev, now)
			}
		}
		if n == 0 || w.rx.ring == nil && n < rxReady {
			return
		}
	}
}

// takeFirst takes one packet from each of the first n sockets that have some, all with one
// call. A socket that is among them again has more waiting, and is drained, once a beat.
func (w *worker) takeFirst(n int, now int64) {
	w.rx.fresh()
	asked := 0
	for _, ev := range w.poll.events[:n] {
		l := w.slots[ev.Fd]
		if l == nil {
			continue
		}
		switch l.taken[ev.Pad] {
		case 2 * w.beats: // one
			l.taken[ev.Pad] = 2*w.beats + 1
			w.more = append(w.more, ev)
		case 2*w.beats + 1: // all that it may send in a beat
		default:
			l.taken[ev.Pad] = 2 * w.beats
			w.asked[asked] = ev
			w.rx.ask(asked, l.fd(ev.Pad))
			asked++
		}
	}
	w.rx.take(asked, func(i int) { w.took(w.slots[w.asked[i].Fd], w.asked[i].Pad, i, now) })
	for _, ev := range w.more {
		w.drain(ev, now)
	}
	w.more = w.more[:0]
}

// drain reads one socket, up to 64 packets.
func (w *worker) drain(ev unix.EpollEvent, now int64) {
	l := w.slots[ev.Fd]
	if l == nil {
		return
	}
	for range 4 {
		n := w.rx.read(l.fd(ev.Pad))
		for i := range n {
			w.took(l, ev.Pad, i, now)
		}
		if n < rxBatch {
			return
		}
	}
}

// took gives the leg the i-th packet of the last call.
func (w *worker) took(l *leg, rtcp int32, i int, now int64) {
	w.received++
	b, from, whole := w.rx.packet(i)
	at := now
	if !w.e.manual {
		at = w.rx.arrival(i, now)
	}
	if rtcp == 1 {
		l.onRTCP(w, b, from, whole, at)
	} else {
		l.onRTP(w, b, from, whole, at)
	}
}

func (w *worker) addLeg(r *room, l *leg) error {
	slot := -1
	for i, s := range w.slots {
		if s == nil {
			slot = i
			break
		}
	}
	if slot < 0 {
		slot = len(w.slots)
		w.slots = append(w.slots, nil)
	}
	if err := errors.Join(stamp(l.pair.RTP), stamp(l.pair.RTCP)); err != nil {
		return err
	}
	if err := w.poll.add(l.pair.RTP, int32(slot), false); err != nil {
		return err
	}
	if err := w.poll.add(l.pair.RTCP, int32(slot), true); err != nil {
		w.poll.remove(l.pair.RTP)
		return err
	}
	w.slots[slot] = l
	l.slot, l.room = slot, r
	r.legs = append(r.legs, l)
	r.relink()
	return nil
}

// removeLeg takes a leg out and returns its coders for closing. One that is heard stays in the
// room for a tick, without them, in which the last of it fades out.
func (w *worker) removeLeg(r *room, l *leg) *plan {
	w.poll.remove(l.pair.RTP)
	w.poll.remove(l.pair.RTCP)
	w.slots[l.slot] = nil
	p := &plan{}
	r.apply(w, l, p, 0) // no stream: the coders come back in p
	if l.ends {
		l.gone, r.turns = true, true
		return p
	}
	r.legs = slices.DeleteFunc(r.legs, func(x *leg) bool { return x == l })
	r.relink()
	return p
}

// note is what a worker tells the reporter. It is copied through a channel so that
// the tick makes no garbage.
type note struct {
	what  noteKind
	leg   *leg
	at    int64
	digit byte
	ms    uint32
	id    string // of a sound
	cut   bool
}

type noteKind uint8

const (
	noteStarted noteKind = iota
	noteDigit
	noteMispacked
	notePlayEnded
)

func (w *worker) note(n note) {
	select {
	case w.e.notes <- n:
	default:
		w.e.lost.Add(1) // 1024 digits and starts unread: the reporter is stuck
	}
}
