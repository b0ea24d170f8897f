package load

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	phases    = 10
	phaseTime = frameTime / phases

	// An onset's course, in frames: a short word, then silence until the engine's own
	// encoder has fallen silent too (its hangover is 8 frames), then the next.
	onsetEvery = 25
	onsetTalk  = 5
	onsetQuiet = 60 // before the first
)

// script is what happens when, in frames from the start.
type script struct {
	room             int // legs of a conference
	talkers, turn    int // frames of a turn
	warm, end        int // the window is [warm, end)
	onsets, firstTry int // frame of the first onset
	over             int
}

func newScript(o Options) script {
	frames := func(d time.Duration) int { return max(1, int(d/frameTime)) }
	s := script{room: o.Room, talkers: o.Talkers, turn: frames(o.Turn), onsets: o.Onsets}
	s.begin(frames(o.Warm), frames(o.Window))
	return s
}

// begin makes the window the next n frames after frame at.
func (s *script) begin(at, n int) {
	s.warm, s.end = at, at+n
	s.over = s.end + 5 // the last frames come back
	if s.onsets > 0 {
		s.firstTry = s.end + onsetQuiet
		s.over = s.firstTry + s.onsets*onsetEvery
	}
}

// onset is which onset frame n belongs to and its place in it; -1: none.
func (s *script) onset(n int) (which, at int) {
	if s.onsets == 0 || n < s.firstTry || n >= s.over {
		return -1, 0
	}
	return (n - s.firstTry) / onsetEvery, (n - s.firstTry) % onsetEvery
}

// turnShift is by how many frames a conference changes its talkers before the next one does:
// people do not all take turns at one instant.
const turnShift = 37

// talks says whether phone i of total speaks in frame n.
func (s *script) talks(i, total, n int) bool {
	if n < s.end {
		first := (n + i/s.room*turnShift) / s.turn * s.talkers % s.room
		return (i%s.room-first+s.room)%s.room < s.talkers
	}
	which, at := s.onset(n)
	return which >= 0 && at < onsetTalk && i == onsetTalker(which, total)
}

// onsetTalker takes a phone of another phase each time.
func onsetTalker(which, total int) int { return which * 7 % total }

// mark is what the generator's thread saw at an instant of the script.
type mark struct {
	cpu, own time.Duration
	at       int64
}

// generator is the phones and the thread that plays them.
type generator struct {
	codec    Codec
	mat      *material
	script   script
	pid      int
	realtime bool
	pinned   bool
	core     int

	media, control [phases]*socket
	phones         []phone
	byPort         []atomic.Int32 // engine's port → phone + 1; 0: none
	live           bool           // phones come and go: Phones
	joining        int            // so many, the last, come late and are not judged
	begin          atomic.Int64   // frames of the window that is to begin, once

	n       int // frame
	onsetAt int64
	talker  int // of this onset, -1: none
	res     *Result
	start   mark
	stop    atomic.Bool
	reached chan struct{} // closed when the window begins
	ended   chan struct{} // closed when the window ends
	done    chan struct{} // closed when run has returned
}

func newGenerator(o Options, m *material) (*generator, error) {
	g := &generator{
		codec: o.Codec, mat: m, script: newScript(o), pid: o.PID, realtime: o.Realtime, pinned: o.Pinned, core: o.Core, joining: o.Joining,
		phones: make([]phone, o.Legs), byPort: make([]atomic.Int32, 1<<16), res: &Result{}, talker: -1,
		reached: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
	}
	for i := range g.phones {
		g.phones[i].ssrc = uint32(i + 1)
		g.phones[i].at = silenceFrames + i // comfort noise of all is not due at once
	}
	perPhase := (o.Legs + phases - 1) / phases
	for i := range phases {
		var err error
		if g.media[i], g.control[i], err = newPair(perPhase); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (g *generator) close() {
	for i := range phases {
		for _, s := range []*socket{g.media[i], g.control[i]} {
			if s != nil {
				s.close()
			}
		}
	}
}

// run plays the script to its end, or until stop. It keeps its thread to itself.
func (g *generator) run() {
	defer close(g.done)
	runtime.LockOSThread() // not unlocked: a thread with SCHED_FIFO, or a core, ends with us
	if g.realtime {
		g.res.GenRealtime = goRealtime()
	}
	if g.pinned {
		_ = pin(0, g.core) // on a machine with one core there is nothing to choose
	}
	if !g.realtime && !g.pinned {
		defer runtime.UnlockOSThread()
	}
	deadline := clock(unix.CLOCK_MONOTONIC) + int64(frameTime)
	for g.n < g.script.over && !g.stop.Load() {
		if n := g.begin.Swap(0); n > 0 {
			g.script.begin(g.n, int(n))
		}
		g.boundary()
		for phase := range phases {
			sleepUntil(deadline)
			if late := clock(unix.CLOCK_MONOTONIC) - deadline; g.counting() {
				g.res.GenLate.Add(time.Duration(late))
			}
			g.step(phase)
			deadline += int64(phaseTime)
		}
		g.n++
	}
}

func (g *generator) counting() bool { return g.n >= g.script.warm && g.n < g.script.end }

// boundary is where the window begins and ends.
func (g *generator) boundary() {
	switch g.n {
	case g.script.warm:
		g.start = g.mark()
		close(g.reached)
	case g.script.end:
		m := g.mark()
		g.res.CPU, g.res.GenCPU = m.cpu-g.start.cpu, m.own-g.start.own
		g.res.Window = time.Duration(m.at - g.start.at)
		now := clock(unix.CLOCK_REALTIME)
		for i := range g.phones {
			if g.live && !g.phones[i].on.Load() || i >= len(g.phones)-g.joining {
				continue
			}
			r := &g.phones[i].rx
			r.finish(g.script.end-g.script.warm, now)
			g.res.Frames += r.frames
			g.res.Missing += r.missing
			g.res.Lost += r.lost
			g.res.Late += r.late
			g.res.Reordered += r.reordered
		}
		close(g.ended)
	}
}

func (g *generator) mark() mark {
	m := mark{at: clock(unix.CLOCK_MONOTONIC)}
	m.cpu, _ = CPU(g.pid) // gone: the calls to it say so
	m.own = time.Duration(clock(unix.CLOCK_THREAD_CPUTIME_ID))
	return m
}

// step sends one phase's frames and reads what came for the opposite one.
func (g *generator) step(phase int) {
	s := g.media[phase]
	onset := false
	for i := phase; i < len(g.phones); i += phases {
		p := &g.phones[i]
		if (g.live || i >= len(g.phones)-g.joining) && !p.on.Load() {
			continue
		}
		talk := g.script.talks(i, len(g.phones), g.n)
		from := 0 // as the encoder began: later frames lean on what a decoder has not heard
		if g.n < g.script.end {
			from = int(p.ssrc*37) % 16 // not all say the same at once
		}
		body := p.next(&g.codec, g.mat, uint32(g.n), talk, from)
		if which, at := g.script.onset(g.n); which >= 0 && at == 0 && talk {
			onset = true
			g.talker = i
		}
		if body != nil {
			s.queue(p.head[:], body, &p.to)
		}
	}
	if onset {
		g.arm()
	}
	sent, refused := s.flush()
	if g.counting() {
		g.res.Sent += uint64(sent)
		g.res.GenRefused += uint64(refused)
	}
	g.drain((phase + phases/2) % phases)
}

// arm starts an onset's clock for every listener who is quiet; who was not answered the
// last time is counted.
func (g *generator) arm() {
	for i := range g.phones {
		r := &g.phones[i].rx
		if r.armed {
			g.res.Unheard++
		}
		r.armed = r.seen && !r.loud && i != g.talker && i/g.script.room == g.talker/g.script.room
	}
	g.res.Onsets++
	g.onsetAt = clock(unix.CLOCK_REALTIME)
}

func (g *generator) drain(phase int) {
	s := g.media[phase]
	for {
		n := s.read()
		for i := range n {
			b, from, at := s.packet(i)
			if k := g.byPort[from].Load(); k > 0 && at != 0 {
				g.take(&g.phones[k-1], b, at)
			}
		}
		if n < rxBatch {
			break
		}
	}
	for {
		n := g.control[phase].read()
		g.res.RTCP += uint64(n)
		if n < rxBatch {
			return
		}
	}
}

func (g *generator) take(p *phone, b []byte, at int64) {
	counting := g.counting()
	v := p.rx.take(&g.codec, p.pt(&g.codec), b, at, counting)
	if !v.ok {
		return
	}
	if counting && v.spread >= 0 {
		g.res.Spread.Add(time.Duration(v.spread))
	}
	if p.rx.armed && v.loud && at > g.onsetAt {
		p.rx.armed = false
		g.res.Delay.Add(time.Duration(at - g.onsetAt))
		p.rx.delays++
		p.rx.delaySum += at - g.onsetAt
		p.rx.delayMax = max(p.rx.delayMax, at-g.onsetAt)
	}
}
