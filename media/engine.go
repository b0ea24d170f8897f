package media

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sparkle/media/mediapb"
	"sparkle/media/port"
)

// Engine mixes conferences. It implements API and is safe for concurrent use. Make
// one with New, end it with Close.
type Engine struct {
	opt      Options
	pool     *port.Pool
	hub      *hub
	workers  []*worker
	pictures Pictures // nil: none
	started  time.Time
	clock    func() int64 // monotonic, ns

	notes   chan note // cap 1024: from workers; full: counted in notesLost, dropped
	stop    chan struct{}
	wg      sync.WaitGroup
	manual  bool // a test steps the workers itself
	lost    atomic.Uint64
	closing sync.Once

	silenceMu sync.Mutex
	silences  map[coderKind]*silence

	mu     sync.Mutex
	closed bool
	rooms  map[string]*roomEntry
	legs   map[string]*legEntry
}

var _ API = (*Engine)(nil)

// roomEntry is what the API side knows of a conference.
type roomEntry struct {
	id   string
	w    *worker
	room *room // the worker's

	mu     sync.Mutex // serialises commands on this conference
	closed bool
	video  bool

	// The reporter's:
	talking []string
}

// legEntry is what the API side knows of a leg.
type legEntry struct {
	id   string
	re   *roomEntry
	leg  atomic.Pointer[leg] // the worker's, but for its atomics; nil until complete
	pair *port.Pair
	vid  *port.Pair // nil: voice

	mu     sync.Mutex // serialises commands on this leg
	closed bool
	kind   coderKind     // of the coders it has
	tapped chan struct{} // closed with the leg; nil: nobody captures

	// Guarded by Engine.mu:
	seen *mediapb.StreamStats // of video streams that have been closed; nil: none

	// The reporter's:
	watch    watch
	watchAt  int64 // since when a sign of life is expected
	stalled  bool
	lastTalk bool
	lastDBov float32
	lag      time.Duration // that the pictures were told
}

// New starts an engine. Its workers run until Close.
func New(opt Options) (*Engine, error) { return newEngine(opt, nil) }

// newEngine with a clock makes an engine that runs only when step is called.
func newEngine(opt Options, clock func() int64) (*Engine, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	e := &Engine{
		opt: opt, hub: newHub(), started: time.Now(), clock: clock, manual: clock != nil,
		notes: make(chan note, 1024), stop: make(chan struct{}),
		rooms: map[string]*roomEntry{}, legs: map[string]*legEntry{}, silences: map[coderKind]*silence{},
	}
	popt := port.Options{Min: opt.PortMin, Max: opt.PortMax, Quarantine: opt.PortQuarantine}
	if clock == nil {
		e.clock = monotonic
	} else {
		popt.Now = func() time.Time { return time.Unix(0, clock()) }
	}
	var err error
	if e.pool, err = port.NewPool(popt); err != nil {
		return nil, err
	}
	for i := range opt.Workers {
		w, err := newWorker(e, i)
		if err != nil {
			for _, w := range e.workers {
				w.close()
			}
			return nil, fmt.Errorf("media: worker: %w", err)
		}
		e.workers = append(e.workers, w)
	}
	if opt.Pictures != nil {
		e.pictures, err = opt.Pictures(PictureDeps{Emit: e.hub.publish, Log: opt.Log})
		if err != nil {
			for _, w := range e.workers {
				w.close()
			}
			return nil, fmt.Errorf("media: video: %w", err)
		}
	}
	if !e.manual {
		e.start()
	}
	return e, nil
}

func (e *Engine) start() {
	var errs []error
	if e.opt.Realtime {
		errs = append(errs, relaxTimers())
	}
	granted := make(chan error, len(e.workers))
	for _, w := range e.workers {
		e.wg.Go(func() { w.run(granted) })
	}
	if e.opt.Realtime {
		for range e.workers {
			errs = append(errs, <-granted)
		}
		e.lacks(append(errs, lockMemory())...)
	}
	e.wg.Go(e.report)
}

// lacks says, in one line, what the kernel refused of what keeps the tick punctual.
func (e *Engine) lacks(refused ...error) {
	if err := errors.Join(refused...); err != nil {
		e.opt.Log.Warn("audio runs without full real-time priority: ticks may be late under load", "err", err)
	}
}

// Close ends every leg with an RTCP BYE, gives all ports back and waits for all
// goroutines. Calls then answer UNAVAILABLE.
func (e *Engine) Close() {
	e.closing.Do(func() {
		e.mu.Lock()
		e.closed = true
		var rooms []string
		for id := range e.rooms {
			rooms = append(rooms, id)
		}
		e.mu.Unlock()
		for _, id := range rooms {
			_ = e.closeRoom(id)
		}
		close(e.stop)
		e.wg.Wait()
		for _, w := range e.workers {
			w.close()
		}
		if e.pictures != nil {
			e.pictures.Close()
		}
		e.hub.close()
	})
}

// SetConference implements API.
func (e *Engine) SetConference(_ context.Context, c *mediapb.Conference) error {
	if c.GetId() == "" {
		return invalid("id", "is empty")
	}
	if c.Video && e.pictures == nil {
		return invalid("video", "this engine has no video")
	}
	for i, w := range c.Whispers {
		if w.FromLeg == "" || len(w.ToLegs) == 0 || slices.Contains(w.ToLegs, w.FromLeg) {
			return invalid(fmt.Sprintf("whispers[%d]", i), "needs a leg it comes from and other legs it goes to")
		}
	}
	re, err := e.openRoom(c.Id)
	if err != nil {
		return err
	}
	re.mu.Lock()
	defer re.mu.Unlock()
	if re.closed {
		return status.Errorf(codes.Aborted, "media: conference %s is being closed", c.Id)
	}
	whispers := make([]whisper, 0, len(c.Whispers))
	for _, w := range c.Whispers {
		whispers = append(whispers, whisper{w.FromLeg, slices.Clone(w.ToLegs), w.Mode == mediapb.Whisper_PRIVATE})
	}
	if err := re.w.do(func() { re.room.setWhispers(whispers) }); err != nil {
		return err
	}
	if e.pictures != nil {
		e.pictures.SetConference(c.Id, c.Video, c.Layout == mediapb.Conference_SWITCHED)
	}
	re.video = c.Video
	return nil
}

// openRoom finds or makes a conference, on the worker with the fewest.
func (e *Engine) openRoom(id string) (*roomEntry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if re := e.rooms[id]; re != nil {
		return re, nil
	}
	count := make([]int, len(e.workers))
	for _, re := range e.rooms {
		count[re.w.index]++
	}
	w := e.workers[0]
	for _, x := range e.workers {
		if count[x.index] < count[w.index] {
			w = x
		}
	}
	re := &roomEntry{id: id, w: w, room: newRoom(id, e.opt, w.tx)}
	e.rooms[id] = re
	w.post(func() { w.rooms = append(w.rooms, re.room) })
	return re, nil
}

// CloseConference implements API.
func (e *Engine) CloseConference(_ context.Context, id string) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return errClosed
	}
	return e.closeRoom(id)
}

func (e *Engine) closeRoom(id string) error {
	e.mu.Lock()
	re := e.rooms[id]
	delete(e.rooms, id)
	var legs []string
	for _, le := range e.legs {
		if le.re == re {
			legs = append(legs, le.id)
		}
	}
	e.mu.Unlock()
	if re == nil {
		return nil
	}
	re.mu.Lock()
	re.closed = true
	re.mu.Unlock()
	for _, l := range legs {
		e.closeLeg(l)
	}
	err := re.w.do(func() {
		re.w.rooms = slices.DeleteFunc(re.w.rooms, func(r *room) bool { return r == re.room })
	})
	if e.pictures != nil {
		e.pictures.CloseConference(id)
	}
	return err
}

// OpenLeg implements API.
func (e *Engine) OpenLeg(_ context.Context, r *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	if r.GetLeg() == "" {
		return nil, invalid("leg", "is empty")
	}
	ip, err := netip.ParseAddr(r.LocalIp)
	if err != nil {
		return nil, invalid("local_ip", err.Error())
	}
	if r.Video && e.pictures == nil {
		return nil, invalid("video", "this engine has no video")
	}
	le := &legEntry{id: r.Leg}
	le.mu.Lock() // until it is complete
	defer le.mu.Unlock()
	if err := e.register(le, r.Conference); err != nil {
		return nil, err
	}
	reply, err := e.openLeg(le, ip, r.Video)
	if err != nil {
		le.closed = true
		e.mu.Lock()
		delete(e.legs, le.id)
		e.mu.Unlock()
		return nil, err
	}
	return reply, nil
}

func (e *Engine) register(le *legEntry, conference string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return errClosed
	case e.rooms[conference] == nil:
		return status.Errorf(codes.NotFound, "media: no conference %q", conference)
	case e.legs[le.id] != nil:
		return status.Errorf(codes.AlreadyExists, "media: leg %q exists", le.id)
	case len(e.legs) >= e.opt.MaxLegs:
		return status.Errorf(codes.ResourceExhausted, "media: %d legs are the limit", e.opt.MaxLegs)
	}
	le.re = e.rooms[conference]
	e.legs[le.id] = le
	return nil
}

func (e *Engine) openLeg(le *legEntry, ip netip.Addr, video bool) (*mediapb.OpenLegReply, error) {
	pair, err := e.pool.OpenPair(ip)
	if err != nil {
		return nil, portError(err)
	}
	le.pair = pair
	reply := &mediapb.OpenLegReply{AudioPort: uint32(pair.Port)}
	var rtp, rtcp *net.UDPConn
	if video {
		var vid *port.Pair
		if vid, rtp, rtcp, err = e.videoPair(ip); err != nil {
			pair.Close()
			return nil, portError(err)
		}
		le.vid = vid
		reply.VideoPort, reply.Sprop = uint32(vid.Port), e.pictures.Sprop()
	}
	if e.pictures != nil {
		if err := e.pictures.OpenLeg(le.re.id, le.id, rtp, rtcp); err != nil {
			le.closePorts(pair)
			return nil, status.Errorf(codes.Unavailable, "media: video: %v", err)
		}
	}
	l := newLeg(le.id, pair, e.clock())
	var addErr error
	if err := le.re.w.do(func() { addErr = le.re.w.addLeg(le.re.room, l) }); err != nil || addErr != nil {
		if e.pictures != nil {
			e.pictures.CloseLeg(le.id)
		}
		le.closePorts(pair)
		if err == nil {
			err = status.Errorf(codes.Internal, "media: epoll: %v", addErr)
		}
		return nil, err
	}
	l.entry = le
	le.leg.Store(l)
	return reply, nil
}

// closePorts gives back the ports of a leg that could not be opened.
func (le *legEntry) closePorts(audio *port.Pair) {
	audio.Close()
	if le.vid != nil {
		le.vid.Close()
	}
}

func portError(err error) error {
	if errors.Is(err, port.ErrExhausted) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return invalid("local_ip", err.Error())
}

func (e *Engine) findLeg(id string) *legEntry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.legs[id]
}

// SetLeg implements API.
func (e *Engine) SetLeg(_ context.Context, m *mediapb.Leg) error {
	le := e.findLeg(m.GetId())
	if le == nil {
		return status.Errorf(codes.NotFound, "media: no leg %q", m.GetId())
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.closed {
		return status.Errorf(codes.NotFound, "media: no leg %q", m.Id)
	}
	if m.Video != nil && le.vid == nil {
		return invalid("video", "the leg was opened without video")
	}
	p, err := newPlan(m, le.pair, le.kind)
	if err != nil {
		return err
	}
	if p.stream != nil {
		if p.stream.silence, err = e.silenceOf(p.kind); err != nil {
			p.free()
			return invalid("audio.codec", err.Error())
		}
	}
	if m.Audio != nil {
		if err := le.pair.SetDSCP(int(m.Audio.Dscp)); err != nil {
			p.free()
			return invalid("audio.dscp", err.Error())
		}
	}
	if e.pictures != nil { // first: what it refuses must not change the audio either
		if err := e.pictures.SetLeg(m.Id, proto.Clone(m).(*mediapb.Leg)); err != nil {
			p.free()
			return invalid("video", err.Error())
		}
	}
	now := e.clock()
	if err := le.re.w.do(func() { le.re.room.apply(le.re.w, le.leg.Load(), p, now) }); err != nil {
		p.free()
		return err
	}
	p.freeOld()
	le.kind = p.kind
	e.mu.Lock()
	if le.watch == watchNothing {
		le.watchAt = now
	}
	le.watch = p.watch(m.Video)
	e.mu.Unlock()
	return nil
}

// silenceOf is what legs of a kind are sent while they hear nobody, made for the first.
func (e *Engine) silenceOf(k coderKind) (*silence, error) {
	e.silenceMu.Lock()
	defer e.silenceMu.Unlock()
	if s := e.silences[k]; s != nil {
		return s, nil
	}
	s, err := newSilence(k)
	if err == nil {
		e.silences[k] = s
	}
	return s, err
}

// CloseLeg implements API.
func (e *Engine) CloseLeg(_ context.Context, id string) (*mediapb.LegStats, error) {
	return e.closeLeg(id), nil
}

func (e *Engine) closeLeg(id string) *mediapb.LegStats {
	le := e.findLeg(id)
	if le == nil {
		return &mediapb.LegStats{}
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.closed {
		return &mediapb.LegStats{}
	}
	le.closed = true
	if le.tapped != nil {
		close(le.tapped)
		le.tapped = nil
	}
	var st legStats
	now := e.clock()
	var freed *plan
	_ = le.re.w.do(func() {
		l := le.leg.Load()
		if s := l.player.start(nil); s != nil {
			le.re.w.note(note{what: notePlayEnded, leg: l, at: now, id: s.id, cut: true})
		}
		l.bye(le.re.w, now)
		st = l.stats(now)
		freed = le.re.w.removeLeg(le.re.room, l)
	})
	if freed != nil {
		freed.freeOld()
	}
	le.pair.Close()
	out := e.legStats(le, st, now)
	if e.pictures != nil {
		out.Video = addUp(e.pictures.CloseLeg(id), le.seen)
	}
	if le.vid != nil {
		le.vid.Close()
	}
	e.mu.Lock()
	delete(e.legs, id)
	e.mu.Unlock()
	return out
}

// Preview implements API.
func (e *Engine) Preview(ctx context.Context, conference string, quality int) (*mediapb.PreviewReply, error) {
	if quality < 0 || quality > 100 {
		return nil, invalid("quality", fmt.Sprintf("%d is not in 0..100", quality))
	}
	if quality == 0 {
		quality = 75
	}
	e.mu.Lock()
	re := e.rooms[conference]
	e.mu.Unlock()
	if re == nil {
		return nil, status.Errorf(codes.NotFound, "media: no conference %q", conference)
	}
	re.mu.Lock()
	video := re.video
	re.mu.Unlock()
	if !video {
		return nil, status.Errorf(codes.FailedPrecondition, "media: conference %q has no video", conference)
	}
	jpeg, at, err := e.pictures.Preview(ctx, conference, quality)
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return nil, err
		}
		return nil, status.Errorf(codes.Unavailable, "media: preview: %v", err)
	}
	return &mediapb.PreviewReply{Jpeg: jpeg, At: at.UnixNano()}, nil
}

// Events implements API.
func (e *Engine) Events(ctx context.Context, f func(*mediapb.Event)) error {
	s := e.hub.subscribe()
	defer e.hub.unsubscribe(s)
	return s.run(ctx, f)
}

// Snapshot implements API.
func (e *Engine) Snapshot(context.Context) (*mediapb.SnapshotReply, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, errClosed
	}
	legs := make([]*legEntry, 0, len(e.legs))
	for _, le := range e.legs {
		legs = append(legs, le)
	}
	rooms := make([]*roomEntry, 0, len(e.rooms))
	for _, re := range e.rooms {
		rooms = append(rooms, re)
	}
	e.mu.Unlock()
	slices.SortFunc(legs, func(a, b *legEntry) int { return strings.Compare(a.id, b.id) })
	slices.SortFunc(rooms, func(a, b *roomEntry) int { return strings.Compare(a.id, b.id) })

	out := &mediapb.SnapshotReply{}
	count := map[*roomEntry]*mediapb.ConferenceStats{}
	for _, re := range rooms {
		cs := &mediapb.ConferenceStats{Id: re.id}
		if e.pictures != nil {
			cs.Video = e.pictures.RoomStats(re.id)
		}
		count[re] = cs
		out.Conferences = append(out.Conferences, cs)
	}
	st := make([]legStats, len(legs))
	now := e.clock()
	es := &mediapb.EngineStats{
		Pid: int32(os.Getpid()), StartedAt: e.started.UnixNano(), Realtime: e.opt.Realtime,
		EventsLost: e.hub.lost.Load() + e.lost.Load(), PortsFree: uint32(e.pool.Free()),
	}
	var late []int32
	for _, w := range e.workers {
		var c workerStats
		buf := make([]int32, lateKept)
		err := w.do(func() {
			for i, le := range legs {
				if l := le.leg.Load(); l != nil && le.re.w == w {
					st[i] = l.stats(now)
				}
			}
			c = w.stats
			buf = buf[:copy(buf, w.late[:min(w.lateN, lateKept)])]
		})
		if err != nil {
			return nil, err
		}
		late = append(late, buf...)
		es.Ticks += c.ticks
		es.LateTicks += c.lateTicks
		es.SkippedTicks += c.skipped
		es.Encodes += c.encodes
		es.SharedEncodesSaved += c.saved
		es.Decodes += c.decodes
		es.Realtime = es.Realtime && w.realtime.Load()
	}
	if len(late) > 0 {
		slices.Sort(late)
		ms := func(q float64) float32 { return float32(late[int(q*float64(len(late)-1))]) / 1000 }
		es.LateP50Ms, es.LateP99Ms, es.LateMaxMs = ms(0.5), ms(0.99), ms(1)
	}
	for i, le := range legs {
		if st[i].at == 0 {
			continue // not complete yet
		}
		m := e.legStats(le, st[i], now)
		if e.pictures != nil {
			m.Video = e.video(le, e.pictures.LegStats(le.id))
		}
		out.Legs = append(out.Legs, m)
		if cs := count[le.re]; cs != nil {
			cs.Legs++
			if m.Talking {
				cs.Talkers++
			}
		}
	}
	out.Engine = es
	return out, nil
}

func invalid(field, why string) error {
	return status.Errorf(codes.InvalidArgument, "media: %s: %s", field, why)
}
