package load

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sparkle/sip/sdp"
)

// Phones are the voices of many simulated handsets, driven by one thread as Run's are, for
// calls that somebody else sets up: each call takes one with Open.
type Phones struct {
	g    *generator
	mu   sync.Mutex
	free []int
	up   int
	seen chan struct{} // cap 1: up has changed
}

// PhonesOptions of NewPhones.
type PhonesOptions struct {
	Calls    int // at once, 1..MaxLegs
	Talkers  int // speak at once, and every Turn the next ones
	Turn     time.Duration
	Codec    Codec
	Always   bool // the others send frames of quiet noise, not comfort noise
	Onsets   int  // as Options.Onsets
	Realtime bool
	Core     int // that the thread keeps to; below 0: any
}

// NewPhones starts the thread. Close ends it.
func NewPhones(o PhonesOptions) (*Phones, error) {
	if o.Calls < 1 || o.Calls > MaxLegs {
		return nil, fmt.Errorf("load: %d calls, want 1..%d", o.Calls, MaxLegs)
	}
	if o.Talkers < 0 || o.Talkers > o.Calls {
		return nil, fmt.Errorf("load: %d talkers in %d calls", o.Talkers, o.Calls)
	}
	if err := o.Codec.validate(); err != nil {
		return nil, err
	}
	m, err := newMaterial(o.Codec, o.Always)
	if err != nil {
		return nil, err
	}
	g, err := newGenerator(Options{Legs: o.Calls, Room: o.Calls, Talkers: o.Talkers, Turn: o.Turn, Codec: o.Codec, Onsets: o.Onsets,
		Realtime: o.Realtime, Pinned: o.Core >= 0, Core: o.Core, Warm: time.Hour, Window: time.Hour}.withDefaults(), m)
	if err != nil {
		return nil, err
	}
	g.live = true
	g.script.begin(1<<40, 1) // not before Measure
	p := &Phones{g: g, seen: make(chan struct{}, 1)}
	for i := range o.Calls {
		p.free = append(p.free, o.Calls-1-i)
	}
	go g.run()
	return p, nil
}

// Close ends the thread and closes the sockets.
func (p *Phones) Close() {
	p.g.stop.Store(true)
	<-p.g.done
	p.g.close()
}

// Up is how many calls there are, and a channel that tells, perhaps once for several, when
// that has changed.
func (p *Phones) Up() (int, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.seen
}

func (p *Phones) add(n int) {
	p.up += n
	select {
	case p.seen <- struct{}{}:
	default:
	}
}

// LegResult is what came back to one phone in the window.
type LegResult struct {
	Frames, Missing, Late, Lost, Gaps uint64
	Modes                             []int // of AMR-WB, of the speech that came
	// Of onsets that this phone heard begin; 0 where it heard none.
	DelayMean, DelayMax time.Duration
}

// Measure counts for a window and then, with onsets, times them. It may be called once.
// Legs are those that were up at the end.
func (p *Phones) Measure(window time.Duration, pids []int) (r *Result, legs []LegResult, cpu []time.Duration, err error) {
	g := p.g
	if g.begin.Swap(int64(max(window/frameTime, 1))) != 0 {
		return nil, nil, nil, errors.New("load: is being measured")
	}
	account := func() (out []time.Duration, err error) {
		for _, pid := range pids {
			c, err := CPU(pid)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
		return out, nil
	}
	<-g.reached
	from, err := account()
	if err != nil {
		return nil, nil, nil, err
	}
	<-g.ended
	if cpu, err = account(); err != nil {
		return nil, nil, nil, err
	}
	for i := range cpu {
		cpu[i] -= from[i]
	}
	<-g.done
	for i := range g.phones {
		ph := &g.phones[i]
		if !ph.on.Load() {
			continue
		}
		x := &ph.rx
		l := LegResult{Frames: x.frames, Missing: x.missing, Late: x.late, Lost: x.lost, Gaps: x.gaps, DelayMax: time.Duration(x.delayMax)}
		for mode := range 16 {
			if x.modes>>mode&1 == 1 {
				l.Modes = append(l.Modes, mode)
			}
		}
		if x.delays > 0 {
			l.DelayMean = time.Duration(x.delaySum / int64(x.delays))
		}
		if x.armed {
			g.res.Unheard++
		}
		legs = append(legs, l)
	}
	for i := range phases {
		g.res.GenOverflow += g.media[i].overflow()
	}
	return g.res, legs, cpu, nil
}

// Engine is the process that the phones' media comes from: the one that has the socket they
// send to. 0: no call is up, or it is on another machine, or another user's.
func (p *Phones) Engine() int {
	for i := range p.g.byPort {
		if p.g.byPort[i].Load() != 0 {
			return ownerOf(i)
		}
	}
	return 0
}

// Voice is one call's media; it is a lab.Media.
type Voice struct {
	p  *Phones
	i  int
	up bool
	at int // the engine's port
}

// ErrFull says that all phones are in a call.
var ErrFull = errors.New("load: all phones are in a call")

// Voice takes a phone for a call.
func (p *Phones) Voice() (*Voice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		return nil, ErrFull
	}
	i := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return &Voice{p: p, i: i}, nil
}

// Open says where the phone receives. It has no video: that port is RTP's too, and the
// phone refuses video.
func (v *Voice) Open() (ip string, audioPort, videoPort int, err error) {
	s := v.p.g.media[v.i%phases]
	return "127.0.0.1", int(s.port), int(s.port), nil
}

// Start begins to send and receive.
func (v *Voice) Start(r sdp.Result, _ bool) error {
	a := r.Audio
	switch {
	case a == nil:
		return errors.New("load: the call has no audio")
	case a.Codec != v.p.g.codec.SDP().Name || a.OctetAlign:
		return fmt.Errorf("load: %s was agreed on (octet-aligned: %v), the load is %s", a.Codec, a.OctetAlign, v.p.g.codec.Name)
	case !a.Addr.Is4() || a.Port < 1 || a.Port > 65535:
		return fmt.Errorf("load: media at %v:%d", a.Addr, a.Port)
	}
	ph := &v.p.g.phones[v.i]
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	if !v.up {
		ph.to = sockaddr(netip.AddrPortFrom(a.Addr, uint16(a.Port)))
		ph.live = uint8(a.PT)
		v.at, v.up = a.Port, true
		v.p.g.byPort[a.Port].Store(int32(v.i + 1))
		ph.on.Store(true)
		v.p.add(1)
	}
	return nil
}

// Update implements lab.Media; nothing that can change matters here.
func (v *Voice) Update(sdp.Result) error { return nil }

// SendDTMF implements lab.Media; the phone has no keys.
func (v *Voice) SendDTMF(rune) {}

// Close gives the phone back. Its next call counts from where this one ended.
func (v *Voice) Close() {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	if v.up {
		v.p.g.phones[v.i].on.Store(false)
		v.p.g.byPort[v.at].Store(0)
		v.p.add(-1)
	}
	v.p.free = append([]int{v.i}, v.p.free...)
}
