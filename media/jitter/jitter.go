// Package jitter holds the frames of one leg until they are due: adaptive playout of
// 20 ms frames, 10 to 240 ms deep. It has no goroutine, no clock and no lock, and
// allocates nothing after New.
//
// Frames are found by their RTP timestamp, so reordering and duplicates cost nothing. The
// depth follows the jitter of the last seconds. It changes while nothing is said (a talk
// spurt starts as late as the jitter asks; a silent frame is left out or added), so that
// no click is heard. In speech it grows when the buffer ran dry, and shrinks, at most a
// frame a second, only for a sender that never pauses: G.711 after a stall, or a clock
// that runs fast. A frame that was lost anyway is the first to be left out.
package jitter

import "time"

// Frame is the time one frame lasts.
const Frame = 20 * time.Millisecond

const (
	slots = 32 // 640 ms: more than the deepest playout and a burst
	// MinDepth is what playout starts with and returns to on a quiet link: half a frame, since
	// the wait for the tick adds as much in the mean, and 22 ms from in to out is the goal.
	MinDepth = 10 * time.Millisecond
	// MaxDepth is 200 ms of jitter, and what twelve frames a packet need without any
	// (RFC 4867 maxptime 240).
	MaxDepth = 240 * time.Millisecond
	history  = 256                    // frames the jitter is judged by: 5 s
	resync   = slots - 2              // a timestamp so far away is a new stream
	patience = 50                     // frames of too much delay before speech is cut: 1 s
	lateFor  = 200 * time.Millisecond // of nothing but late frames: the schedule is wrong
)

// Verdict says what a tick has to do.
type Verdict uint8

const (
	Silence Verdict = iota // nothing is due: not started, or a DTX pause
	Play                   // the frame is here
	Conceal                // it should have been here
)

type slot struct {
	used   bool
	silent bool
	bad    bool
	kind   uint8
	index  int64 // of the last frame that was here, also after it was played
	n      int
	data   []byte
}

// noIndex is the index of no frame.
const noIndex = -1 << 62

// Buffer is one leg's. It is not safe for concurrent use.
type Buffer struct {
	ticks   uint32 // RTP clock ticks a frame: 320 at 16 kHz, 160 at 8 kHz
	started bool
	playing bool
	base    uint32 // timestamp of frame index 0
	next    int64  // frame index that is due
	newest  int64
	quiet   bool          // the last frame played was silence: a gap after it is no loss
	missing int           // frames in a row that were concealed
	slack   int           // frames in a row that waited longer than they had to
	lateRun int           // frames in a row that came too late
	lateAt  time.Duration // arrival of the first of them
	ring    [slots]slot

	jitter  [history]int32 // arrival against schedule, µs
	jn      int
	depth   time.Duration // wanted
	anchor  time.Duration // arrival of index 0 on an ideal link, the earliest seen
	since   int           // frames since anchor was renewed
	minNext time.Duration

	Counters
}

// Counters are for the owner to read; Reset leaves them alone.
type Counters struct {
	Late      uint64 // frames that came after their time
	Duplicate uint64
	Resyncs   uint64 // jumps of the timestamp
	Stretched uint64 // ticks that waited for a late frame: the delay grew
	Dropped   uint64 // frames left out: the delay shrank
}

// New makes a buffer for frames of ticks RTP clock ticks and at most size octets.
func New(ticks uint32, size int) *Buffer {
	b := &Buffer{ticks: ticks, depth: MinDepth}
	mem := make([]byte, slots*size)
	for i := range b.ring {
		b.ring[i].data = mem[i*size : (i+1)*size : (i+1)*size]
		b.ring[i].index = noIndex
	}
	return b
}

// Reset forgets the stream: a new SSRC, a new codec, a jump.
func (b *Buffer) Reset() {
	for i := range b.ring {
		b.ring[i].used, b.ring[i].index = false, noIndex
	}
	b.started, b.playing, b.jn, b.missing, b.quiet, b.since = false, false, 0, 0, false, 0
	b.slack, b.lateRun = 0, 0
	b.depth = MinDepth
}

// Depth is how long frames wait at present.
func (b *Buffer) Depth() time.Duration { return b.depth }

// Push puts in the frame stamped ts that arrived at at (from any fixed point, monotonic).
// silent marks comfort noise; kind and bad come back from Pop as they are. It reports
// whether the frame was of use; data longer than the buffer's size is cut.
func (b *Buffer) Push(ts uint32, at time.Duration, kind uint8, bad, silent bool, data []byte) bool {
	if !b.started {
		b.start(ts, at)
	}
	index := b.index(ts)
	if d := index - b.newest; d > resync && !silent && !b.quiet || d < -resync || b.playing && index-b.next >= slots {
		b.restart(ts, at)
		index = 0
	}
	s := &b.ring[uint64(index)%slots]
	if s.index == index { // sent twice, as redundancy (RFC 4867 §3.7.1): it says nothing of the path
		b.Duplicate++
		return false
	}
	b.observe(index, at)
	// The first words after a pause set the schedule anew. Running dry is no pause.
	if b.quiet && b.missing == 0 && !silent && index > b.newest && index >= b.next {
		b.settle(index, at)
	}
	b.newest = max(b.newest, index)
	if b.playing && index < b.next {
		b.Late++
		if b.lateRun++; b.lateRun == 1 {
			b.lateAt = at
		}
		if at-b.lateAt < lateFor {
			return false
		}
		// Nothing but late frames, and not one burst after a stall: this phone's
		// timestamps stood still in a pause, or the path got longer for good.
		b.restart(ts, at)
		index = 0
	}
	b.lateRun = 0
	if !b.playing && index < b.next {
		b.next = index // the first packets came in the wrong order
	}
	s = &b.ring[uint64(index)%slots] // of the schedule that holds now
	s.used, s.index, s.kind, s.bad, s.silent = true, index, kind, bad, silent
	s.n = copy(s.data, data)
	return true
}

func (b *Buffer) start(ts uint32, at time.Duration) {
	b.started, b.base, b.newest, b.next = true, ts, 0, 0
	b.anchor, b.minNext = at, at
}

func (b *Buffer) restart(ts uint32, at time.Duration) {
	b.Resyncs++
	b.Reset()
	b.start(ts, at)
}

// index is the number of the frame stamped ts, the nearest: gateways stamp a few ticks
// off the grid.
func (b *Buffer) index(ts uint32) int64 {
	d := int64(int32(ts - b.base - uint32(b.newest)*b.ticks))
	half := int64(b.ticks / 2)
	if d < 0 {
		return b.newest - (half-d)/int64(b.ticks)
	}
	return b.newest + (d+half)/int64(b.ticks)
}

// observe keeps the arrival's distance from an ideal link and derives the depth: what
// all but one frame in fifty needed, plus half a frame.
func (b *Buffer) observe(index int64, at time.Duration) {
	ideal := at - time.Duration(index)*Frame
	if ideal < b.anchor {
		b.anchor = ideal
	}
	// The anchor creeps towards the smallest of the last 5 s, so that a clock that
	// drifts, or a path that got longer, does not look like jitter for ever.
	if b.since == 0 || ideal < b.minNext {
		b.minNext = ideal
	}
	if b.since++; b.since >= history {
		b.anchor, b.since = b.minNext, 0
	}
	b.jitter[b.jn%history] = int32(min(ideal-b.anchor, 2*MaxDepth) / time.Microsecond)
	b.jn++
	n := min(b.jn, history)
	// Two passes over at most 256 numbers is cheaper than keeping them sorted, and it
	// runs once every eighth frame.
	if b.jn%8 != 1 && n > 8 {
		return
	}
	allowed := n / 50
	hi, lo := int32(MaxDepth/time.Microsecond), int32(0)
	for hi-lo > 1000 {
		mid := (hi + lo) / 2
		over := 0
		for _, j := range b.jitter[:n] {
			if j > mid {
				over++
			}
		}
		if over > allowed {
			lo = mid
		} else {
			hi = mid
		}
	}
	b.depth = min(max(time.Duration(hi)*time.Microsecond+Frame/2, MinDepth), MaxDepth)
}

// settle makes playout begin anew with the frame index, as late as the jitter asks, whenever
// the mix ticks; not while there is something older that is not overdue.
func (b *Buffer) settle(index int64, at time.Duration) {
	if b.newest < b.next || at > b.anchor+time.Duration(b.newest)*Frame+b.depth+Frame {
		b.next, b.playing = index, false
	}
}

// Pop gives the frame that is due at now and moves on by one frame. data is valid until the
// next Push.
func (b *Buffer) Pop(now time.Duration) (v Verdict, kind uint8, bad bool, data []byte) {
	if !b.started {
		return Silence, 0, false, nil
	}
	if !b.playing {
		// The clock of the mix and that of the phone meet here.
		if now < b.anchor+time.Duration(b.next)*Frame+b.depth-Frame/4 {
			return Silence, 0, false, nil
		}
		b.playing = true
	}
	b.catchUp(now)
	if s := b.due(); s != nil {
		s.used = false
		b.next++
		b.missing = 0
		b.quiet = s.silent
		if s.silent {
			b.shrink(now)
		}
		return Play, s.kind, s.bad, s.data[:s.n]
	}
	if b.quiet { // a DTX pause, not a loss
		if b.newest >= b.next || b.behind(now) {
			b.next++
		}
		return Silence, 0, false, nil
	}
	if b.newest < b.next { // dry: the frames are late, or the phone stopped
		if b.missing++; b.missing > 10 {
			b.quiet = true
			return Silence, 0, false, nil
		}
		if b.missing <= 3 && b.jn > 0 { // wait for them: the schedule moves back
			b.Stretched++
			return Conceal, 0, false, nil
		}
		b.next++
		return Conceal, 0, false, nil
	}
	b.missing++
	b.next++
	return Conceal, 0, false, nil
}

// Next is the frame that will be due at the next Pop, nil if it is not here yet: after a
// Conceal, what is known of the lost frame may be in it (forward error correction). It is
// valid until the next Push.
func (b *Buffer) Next() (kind uint8, data []byte) {
	if s := b.due(); b.playing && s != nil && !s.silent {
		return s.kind, s.data[:s.n]
	}
	return 0, nil
}

// Plays is when what is stamped ts is played or was, on the schedule that holds now; next is
// the time of the next Pop. False: nothing has come.
func (b *Buffer) Plays(ts uint32, next time.Duration) (time.Duration, bool) {
	if !b.started {
		return 0, false
	}
	first := b.anchor + b.depth // of index 0
	if b.playing && !b.quiet {
		first = next - time.Duration(b.next)*Frame
	}
	since := int32(ts - b.base - uint32(b.newest)*b.ticks)
	return first + time.Duration(b.newest)*Frame + time.Duration(since)*Frame/time.Duration(b.ticks), true
}

// behind says whether playout is later than the wanted depth, so that the index runs on
// through a pause.
func (b *Buffer) behind(now time.Duration) bool {
	return now >= b.anchor+time.Duration(b.next)*Frame+b.depth
}

// due is the frame to be played next, nil if it is not here.
func (b *Buffer) due() *slot {
	if s := &b.ring[uint64(b.next)%slots]; s.used && s.index == b.next {
		return s
	}
	return nil
}

// excess is how much later than wanted the next frame plays.
func (b *Buffer) excess(now time.Duration) time.Duration {
	return now - (b.anchor + time.Duration(b.next)*Frame) - b.depth
}

// shrink leaves a silent frame out when playout is more than a frame later than wanted.
func (b *Buffer) shrink(now time.Duration) {
	if b.excess(now) <= 2*Frame {
		return
	}
	if s := b.due(); s != nil && s.silent {
		s.used = false
		b.next++
		b.Dropped++
	}
}

// catchUp leaves a frame of speech out when playout has been a frame too late for a
// second, or one that was lost anyway as soon as it is too late. The frame after it has
// to be here: a cut must not become a gap.
func (b *Buffer) catchUp(now time.Duration) {
	if b.quiet || b.excess(now) < Frame+Frame/4 {
		b.slack = 0
		return
	}
	b.slack++
	s := b.due()
	if s != nil && b.slack < patience || b.newest <= b.next {
		return
	}
	b.next++
	if b.due() == nil {
		b.next--
		return
	}
	if s != nil {
		s.used = false
	}
	b.Dropped++
	b.slack = 0
}
