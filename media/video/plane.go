package video

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sparkle/media/layout"
	"sparkle/media/mediapb"
	"sparkle/media/tap"
	"sparkle/media/video/wire"
)

// maxPreviews bounds previews that wait for an answer; one more is ErrDown.
const maxPreviews = 16

// Plane is the video side of an engine. Its methods may be called from any
// goroutine; none waits for the video process but Preview and WaitUp.
type Plane struct {
	opt      Options
	box      *outbox
	pid      atomic.Int64
	restarts atomic.Uint64
	sprop    atomic.Pointer[string]
	up       chan struct{} // closed when a video process was ready for the first time
	upOnce   sync.Once
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex // guards all below
	closed   bool
	confs    map[string]*conference
	legs     map[string]*leg
	sources  map[uint32]*leg
	tiers    map[uint32]*tier
	lastID   uint32
	previews map[uint32]chan []byte
	rooms    map[string]wire.Room
}

// conference is who is in one conference's picture.
type conference struct {
	id      string
	on      bool
	legs    []*leg // in the order in which they became present, then the others
	tiers   map[tierKey]*tier
	talking map[string]bool
	spoke   map[string]int64 // when a leg spoke last, by turn number
	turn    int64

	pressure pressure

	switched      bool // who talks is seen whole (switched.go)
	floor, before *leg
}

// New starts the video side and its video process.
func New(opt Options) (*Plane, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt.defaults()
	p, ctx := newPlane(opt)
	p.wg.Go(func() { p.supervise(ctx) })
	p.wg.Go(func() { p.beat(ctx) })
	return p, nil
}

// newPlane is a Plane in which nothing happens by itself.
func newPlane(opt Options) (*Plane, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &Plane{opt: opt, box: newOutbox(), up: make(chan struct{}), cancel: cancel,
		confs: map[string]*conference{}, legs: map[string]*leg{}, sources: map[uint32]*leg{}, tiers: map[uint32]*tier{},
		previews: map[uint32]chan []byte{}, rooms: map[string]wire.Room{}}, ctx
}

// Close ends the video process and every stream, and waits for all goroutines.
func (p *Plane) Close() {
	p.mu.Lock()
	p.closed = true
	legs := make([]*leg, 0, len(p.legs))
	for _, l := range p.legs {
		legs = append(legs, l)
	}
	p.mu.Unlock()
	for _, l := range legs {
		p.CloseLeg(l.id)
	}
	p.cancel()
	p.wg.Wait()
}

// WaitUp waits until a video process has been ready once; Sprop is known then.
func (p *Plane) WaitUp(ctx context.Context) error {
	select {
	case <-p.up:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrDown, ctx.Err())
	}
}

// Sprop is the sprop-parameter-sets of what a usual handset's tier (240x320, level
// 1.2) is sent, "" before the first video process is ready.
func (p *Plane) Sprop() string {
	if s := p.sprop.Load(); s != nil {
		return *s
	}
	return ""
}

// SetConference opens a conference or changes whether it has a picture, and whether that is
// the talker's own where a phone can take it (switched), or the mosaic.
func (p *Plane) SetConference(id string, on, switched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	c := p.confs[id]
	if c == nil {
		c = &conference{id: id, tiers: map[tierKey]*tier{}, talking: map[string]bool{}, spoke: map[string]int64{}}
		p.confs[id] = c
	}
	if c.on != on || c.switched != switched {
		c.on, c.switched = on, switched
		p.rebuild(c)
	}
}

// CloseConference closes a conference and its legs. Unknown: nothing happens.
func (p *Plane) CloseConference(id string) {
	p.mu.Lock()
	c := p.confs[id]
	if c == nil {
		p.mu.Unlock()
		return
	}
	legs := slices.Clone(c.legs)
	p.mu.Unlock()
	for _, l := range legs {
		p.CloseLeg(l.id)
	}
	p.mu.Lock()
	delete(p.confs, id)
	delete(p.rooms, id)
	p.mu.Unlock()
	p.box.closeConference(id)
}

// OpenLeg brings a leg into a conference; sock is the Plane's from here on, also
// when an error is returned. It carries nothing until SetLeg.
func (p *Plane) OpenLeg(conf, id string, sock Sockets) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.confs[conf]
	var err error
	switch {
	case p.closed:
		err = ErrClosed
	case c == nil:
		err = fmt.Errorf("%w: conference %s", ErrUnknown, conf)
	case p.legs[id] != nil:
		err = fmt.Errorf("video: leg %s is open already", id)
	case (sock.RTP == nil) != (sock.RTCP == nil):
		err = fmt.Errorf("video: leg %s has one socket of two", id)
	}
	if err != nil {
		sock.close()
		return err
	}
	p.lastID++
	l := newLeg(p, id, conf, p.lastID, sock)
	p.legs[id] = l
	p.sources[l.source] = l
	c.legs = append(c.legs, l)
	l.read()
	return nil
}

// read starts the readers of a leg's sockets, if it has any.
func (l *leg) read() {
	if l.sock.RTP != nil {
		l.wg.Go(l.readRTP)
		l.wg.Go(l.readRTCP)
	}
}

func (s Sockets) close() {
	if s.RTP != nil {
		s.RTP.Close()
	}
	if s.RTCP != nil {
		s.RTCP.Close()
	}
}

// OpenVideo gives sockets to a leg that has none, as OpenLeg does; the leg keeps its
// place. It carries no video until SetLeg.
func (p *Plane) OpenVideo(id string, sock Sockets) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.legs[id]
	var err error
	switch {
	case p.closed:
		err = ErrClosed
	case l == nil:
		err = fmt.Errorf("%w: leg %s", ErrUnknown, id)
	case l.sock.RTP != nil:
		err = fmt.Errorf("video: leg %s has sockets", id)
	case sock.RTP == nil || sock.RTCP == nil:
		err = fmt.Errorf("video: leg %s gets one socket of two", id)
	}
	if err != nil {
		sock.close()
		return err
	}
	p.replace(l, sock)
	return nil
}

// CloseVideo takes a leg's sockets away: it is a voice leg from here on. The last
// statistics; nil if it is unknown or was one before.
func (p *Plane) CloseVideo(id string) *mediapb.StreamStats {
	p.mu.Lock()
	l := p.legs[id]
	if l == nil || l.sock.RTP == nil {
		p.mu.Unlock()
		return nil
	}
	p.rebuild(p.replace(l, Sockets{}))
	p.mu.Unlock()
	stats := l.close()
	p.box.forget(l.source)
	return stats
}

// replace puts a leg with other sockets and no stream in the place of l: sockets never
// change, and neither do streams that begin anew. p.mu is held.
func (p *Plane) replace(l *leg, sock Sockets) *conference {
	p.lastID++
	n := newLeg(p, l.id, l.conf, p.lastID, sock)
	n.name, n.present, n.muted, n.videoMuted, n.held = l.name, l.present, l.muted, l.videoMuted, l.held
	n.live = n.present
	l.mu.Lock()
	n.rx.lag = l.rx.lag
	l.mu.Unlock()
	n.tap.Store(l.tap.Load())
	delete(p.sources, l.source)
	p.legs[l.id], p.sources[n.source] = n, n
	c := p.confs[l.conf]
	c.legs[slices.Index(c.legs, l)] = n
	n.read()
	return c
}

// Tap has copies of a leg's packets go to t; nil: no longer. An unknown leg has none.
func (p *Plane) Tap(id string, t *tap.Tap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.legs[id]; l != nil {
		l.tap.Store(t)
	}
}

// SetLeg gives a leg its whole wanted state; it may be repeated. Legs without a
// video stream are told too: they are drawn as avatars. Errors: ErrUnknown,
// ErrInvalid naming the field; then nothing has changed.
func (p *Plane) SetLeg(id string, want *mediapb.Leg) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.legs[id]
	if l == nil {
		return fmt.Errorf("%w: leg %s", ErrUnknown, id)
	}
	s, err := newStream(want.GetVideo(), p.opt.FPS, l.sock.RTP != nil)
	if err != nil {
		return err
	}
	c := p.confs[l.conf]
	appeared := want.GetPresent() && !l.present
	l.name, l.present = want.GetName(), want.GetPresent()
	l.muted = want.GetMuted() || want.GetHeld()
	l.videoMuted, l.held = want.GetVideoMuted(), want.GetHeld()
	l.set(s, l.present, time.Now())
	if appeared { // tiles are in the order of joining
		i := slices.Index(c.legs, l)
		c.legs = slices.Delete(c.legs, i, i+1)
		at := slices.IndexFunc(c.legs, func(o *leg) bool { return !o.present })
		if at < 0 {
			at = len(c.legs)
		}
		c.legs = slices.Insert(c.legs, at, l)
	}
	p.rebuild(c)
	return nil
}

// CloseLeg ends a leg, closes its sockets and returns its last statistics, nil if it
// is unknown or never had sockets.
func (p *Plane) CloseLeg(id string) *mediapb.StreamStats {
	p.mu.Lock()
	l := p.legs[id]
	if l == nil {
		p.mu.Unlock()
		return nil
	}
	delete(p.legs, id)
	delete(p.sources, l.source)
	if c := p.confs[l.conf]; c != nil {
		if i := slices.Index(c.legs, l); i >= 0 {
			c.legs = slices.Delete(c.legs, i, i+1)
		}
		delete(c.talking, id)
		delete(c.spoke, id)
		p.rebuild(c)
	}
	p.mu.Unlock()
	stats := l.close()
	p.box.forget(l.source)
	return stats
}

// Talking says who talks in a conference now: they get a frame, and a place on the
// canvas when it is full.
func (p *Plane) Talking(conf string, legs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.confs[conf]
	if c == nil {
		return
	}
	now := make(map[string]bool, len(legs))
	changed := len(legs) != len(c.talking)
	c.turn++
	for _, id := range legs {
		now[id] = true
		c.spoke[id] = c.turn
		changed = changed || !c.talking[id]
	}
	if !changed {
		return
	}
	if c.talking = now; c.switched {
		p.rebuild(c)
	} else {
		p.tell(c)
	}
}

// Heard says how long after its phone's wall clock a leg's sound is heard by ours (media.Pictures):
// its pictures wait for that. 0: it is not known. An unknown leg has none.
func (p *Plane) Heard(id string, lag time.Duration) {
	p.mu.Lock()
	l := p.legs[id]
	p.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		l.rx.lag = lag
		l.mu.Unlock()
	}
}

// Preview is the picture that the phones of a conference see, as JPEG of the given
// quality (1..100, else 75), and when it was made. Errors: ErrUnknown, ErrDown.
func (p *Plane) Preview(ctx context.Context, conf string, quality int) ([]byte, time.Time, error) {
	p.mu.Lock()
	if p.confs[conf] == nil {
		p.mu.Unlock()
		return nil, time.Time{}, fmt.Errorf("%w: conference %s", ErrUnknown, conf)
	}
	if len(p.previews) >= maxPreviews {
		p.mu.Unlock()
		return nil, time.Time{}, ErrDown
	}
	p.lastID++
	id, answer := p.lastID, make(chan []byte, 1)
	p.previews[id] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.previews, id)
		p.mu.Unlock()
	}()
	p.box.preview(wire.Preview{ID: id, Conference: conf, Quality: quality})
	select {
	case jpeg := <-answer:
		if len(jpeg) == 0 {
			return nil, time.Time{}, ErrDown
		}
		return jpeg, time.Now(), nil
	case <-ctx.Done():
		return nil, time.Time{}, fmt.Errorf("%w: %w", ErrDown, ctx.Err())
	}
}

func (p *Plane) gotPreview(id uint32, jpeg []byte) {
	p.mu.Lock()
	answer := p.previews[id]
	delete(p.previews, id)
	p.mu.Unlock()
	if answer != nil {
		answer <- slices.Clone(jpeg) // capacity 1, and sent to once
	}
}

func (p *Plane) failPreviews() {
	p.mu.Lock()
	for id, answer := range p.previews {
		delete(p.previews, id)
		answer <- nil
	}
	p.mu.Unlock()
}

// Snapshot is what a Plane knows, for metrics and the API.
type Snapshot struct {
	Legs     map[string]*mediapb.StreamStats    // of legs with sockets
	Rooms    map[string]*mediapb.VideoRoomStats // of conferences
	PID      int                                // of the video process, 0: none or in this process
	Restarts uint64
	Dropped  uint64 // access units that never reached the video process
}

// Snapshot reads all counters.
func (p *Plane) Snapshot() Snapshot {
	p.box.mu.Lock()
	dropped := p.box.dropped
	p.box.mu.Unlock()
	p.mu.Lock()
	legs := make([]*leg, 0, len(p.legs))
	for _, l := range p.legs {
		legs = append(legs, l)
	}
	s := Snapshot{Legs: map[string]*mediapb.StreamStats{}, Rooms: map[string]*mediapb.VideoRoomStats{},
		PID: int(p.pid.Load()), Restarts: p.restarts.Load(), Dropped: dropped}
	for id, c := range p.confs {
		s.Rooms[id] = p.roomStats(c)
	}
	p.mu.Unlock()
	now := time.Now()
	for _, l := range legs {
		if l.sock.RTP != nil {
			s.Legs[l.id] = l.statistics(now)
		}
	}
	return s
}

// LegStats is a leg's counters, nil for an unknown leg or one without sockets.
func (p *Plane) LegStats(id string) *mediapb.StreamStats {
	p.mu.Lock()
	l := p.legs[id]
	p.mu.Unlock()
	if l == nil || l.sock.RTP == nil {
		return nil
	}
	return l.statistics(time.Now())
}

// RoomStats is a conference's counters, nil for an unknown one and for one without
// a mosaic.
func (p *Plane) RoomStats(id string) *mediapb.VideoRoomStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.confs[id]
	if c == nil || !c.on {
		return nil
	}
	return p.roomStats(c)
}

// roomStats reads a conference's counters. p.mu is held.
func (p *Plane) roomStats(c *conference) *mediapb.VideoRoomStats {
	r := p.rooms[c.id]
	return &mediapb.VideoRoomStats{Tiles: uint32(len(c.visible())), Tiers: uint32(len(c.tiers)),
		FramesComposed: r.Composed, FramesEncoded: r.Encoded, DecodeErrors: r.DecodeErrors,
		Restarts: p.restarts.Load(), Pid: int32(p.pid.Load()),
		Reduced: c.pressure.how(), Load: float32(c.pressure.load)}
}

// pong takes what the conferences have done, and has those give way that cannot keep up.
func (p *Plane) pong(pong wire.Pong, now time.Time) {
	var gone []*leg
	p.mu.Lock()
	for id, r := range pong.Rooms {
		c := p.confs[id]
		if c == nil {
			continue
		}
		p.rooms[id] = r
		if was := c.pressure.step; c.pressure.sample(now, r.Busy) {
			what := "video gives way to CPU pressure"
			if c.pressure.step < was {
				what = "video comes back after CPU pressure"
			}
			p.opt.Log.Warn(what, "conference", id, "load", c.pressure.load, "reduced", c.pressure.how(), "step", c.pressure.step)
			p.rebuild(c)
		}
		for _, l := range c.legs {
			if l.off && !l.saidOff {
				gone = append(gone, l)
			}
			l.saidOff = l.off
		}
	}
	p.mu.Unlock()
	for _, l := range gone {
		l.emit(now, []*mediapb.Event{videoState("overload", 0, 0)})
	}
}

// give has as many members be without video as the pressure wants, the newest first.
// p.mu is held.
func (c *conference) give() {
	n := 0
	for _, l := range c.legs {
		if l.off = false; l.hasVideo() {
			n++
		}
	}
	off := c.pressure.off(n)
	for _, l := range slices.Backward(c.legs) {
		if off > 0 && l.hasVideo() {
			l.off = true
			off--
		}
	}
}

// visible is who is drawn, in the order of joining. When there are more than fit,
// who has not talked for longest gives way.
func (c *conference) visible() []*leg {
	var out []*leg
	for _, l := range c.legs {
		if l.present {
			out = append(out, l)
		}
	}
	for len(out) > layout.MaxTiles {
		worst := len(out) - 1 // of equals the last to join
		for i := len(out) - 1; i >= 0; i-- {
			if c.spoke[out[i].id] < c.spoke[out[worst].id] {
				worst = i
			}
		}
		out = slices.Delete(out, worst, worst+1)
	}
	return out
}

// wanted is a conference's state as the video process is told. p.mu is held.
func (c *conference) wanted() wire.Conference {
	w := wire.Conference{ID: c.id}
	if !c.on {
		return w
	}
	for _, l := range c.visible() {
		t := wire.Tile{Leg: l.id, Name: l.name, Talking: c.talking[l.id] && !l.muted, Muted: l.muted}
		if c.showsSource(l) {
			t.Source = l.source
		}
		w.Tiles = append(w.Tiles, t)
	}
	for _, t := range c.tiers {
		if t.key.source == 0 {
			w.Tiers = append(w.Tiers, t.wire())
		}
	}
	return w
}

// showsSource says whether a visible leg's own pictures are seen.
func (c *conference) showsSource(l *leg) bool {
	return l.receives() && !l.videoMuted && !l.held && !l.off
}

// tell has the video process know a conference's state, and its legs whether they are in it.
// p.mu is held.
func (p *Plane) tell(c *conference) {
	w := c.wanted()
	now := time.Now()
	for _, l := range c.legs {
		l.show(slices.ContainsFunc(w.Tiles, func(t wire.Tile) bool { return t.Source == l.source }), now)
	}
	p.box.setConference(w)
}

// replay has a new video process know everything, and its decoders begin anew.
func (p *Plane) replay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var confs []wire.Conference
	now := time.Now()
	for _, c := range p.confs {
		confs = append(confs, c.wanted())
	}
	clear(p.rooms)
	p.box.restart(confs)
	for _, l := range p.legs {
		l.mu.Lock()
		l.anew(now)
		l.mu.Unlock()
	}
}

// sourceNews is what a decoder reports about a leg's pictures.
func (p *Plane) sourceNews(s wire.Source) {
	p.mu.Lock()
	l := p.sources[s.ID]
	p.mu.Unlock()
	if l != nil {
		l.news(s, time.Now())
	}
}

// beat does what is due by time: RTCP, key-frame retries, stalls.
func (p *Plane) beat(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	var legs []*leg
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			legs = legs[:0]
			p.mu.Lock()
			for _, l := range p.legs {
				if l.sock.RTP != nil {
					legs = append(legs, l)
				}
			}
			p.mu.Unlock()
			for _, l := range legs {
				l.beat(now)
			}
		}
	}
}
