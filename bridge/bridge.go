package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"sparkle/bridge/fault"
	"sparkle/media"
	"sparkle/media/mediapb"
	"sparkle/sip"
)

// Bridge is the conference server's core. Its methods may be called from anywhere.
//
// The media engine counts as up until MediaDown is called.
type Bridge struct {
	caller Caller
	media  media.API
	store  Store
	bills  Charger
	tracer Tracer
	traced *traced
	log    *slog.Logger
	opt    Options
	hub    *hub
	counts *counts
	totals *totals

	ctx    context.Context // of everything the rooms do; ends last
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines that end with ctx or by themselves

	mediaDown atomic.Bool
	draining  atomic.Bool // no call begins any more
	stats     atomic.Pointer[mediapb.SnapshotReply]
	legRoom   sync.Map // live leg id -> *room
	ports     sync.Map // netip.AddrPort of each RTP and RTCP port of a leg
	mediaUp   chan struct{}

	mu      sync.Mutex
	rooms   map[string]*room
	closing bool
	pins    map[string]string // PIN -> conference id
	aliases map[string]string // alias -> conference id

	lobby   *room // where callers are who have not said yet which conference they want; not in rooms
	guesses *guesses
}

// How often the engine's figures and the attachments' states are read.
const (
	qualityEvery    = 2 * time.Second
	attachmentEvery = time.Second
	eventsRetry     = 500 * time.Millisecond
	aliveEvery      = 3 * time.Second // and what a crash may leave out of a record
)

// New builds a bridge and restores what the store has: conferences, rosters and
// switches. Legs that were live when the last process stopped are closed in history.
// Run must be called for events of the engine to be heard; Close ends everything.
func New(d Deps) (*Bridge, error) {
	if d.Caller == nil || d.Media == nil || d.Store == nil {
		return nil, errors.New("bridge: Caller, Media and Store are required")
	}
	if err := d.Options.Validate(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	now := time.Now()
	b := &Bridge{
		caller: d.Caller, media: d.Media, store: d.Store, bills: d.Charger, tracer: d.Tracer, traced: newTraced(), log: d.Log, opt: d.Options.withDefaults(),
		hub: newHub(now), counts: newCounts(), totals: newTotals(),
		rooms: map[string]*room{}, mediaUp: make(chan struct{}, 1),
		pins: map[string]string{}, aliases: map[string]string{}, guesses: newGuesses(),
	}
	saved, err := d.Store.Load(context.Background())
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	last := map[string]*LastOutcome{}
	for _, rec := range saved.Live {
		abandoned(&rec.Leg, saved.Alive.UTC(), now.UTC())
		rec.Recovered = true
		last[rec.Leg.Member] = OutcomeOf(rec.Leg)
		b.store.QueueLeg(rec)
		b.charge(rec)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for _, c := range saved.Conferences {
		for i := range c.Members {
			if o := last[c.Members[i].ID]; o != nil {
				c.Members[i].LastOutcome = o
			}
		}
		if c.Conference.AdHoc { // its calls ended with the last process
			if err := d.Store.DropConference(b.ctx, c.Conference.ID); err != nil {
				d.Log.Warn("an ad-hoc conference stays in the store", "conference_id", c.Conference.ID, "err", err)
			}
			continue
		}
		if err := b.restoreNames(&c.Conference); err != nil {
			b.cancel()
			return nil, fmt.Errorf("bridge: %w", err)
		}
		b.store.QueueSeq(c.Conference.ID, c.Seq+seqBlock)
		b.rooms[c.Conference.ID] = newRoom(b, c.Conference, c.Seq, c.Members)
	}
	b.lobby = newRoom(b, Conference{ID: "lobby", Type: VideoConference}, 0, nil)
	b.lobby.post(func(time.Time) { b.lobby.mute = true })
	d.Caller.OnIncoming(b.onIncoming)
	d.Caller.OnRefused(b.onRefused)
	d.Caller.SetOurs(func(attachment, target, to string) bool { return b.addressed(attachment, target, to).status == 0 })
	d.Caller.OnRefer(b.onRefer)
	d.Caller.OnSubscribe(b.onSubscribe)
	return b, nil
}

// Run hears the engine and watches the attachments until ctx ends. It does not end
// calls: Close does.
func (b *Bridge) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(fault.Lasting(b.log, "engine events", func() { b.hearEngine(ctx) }))
	quality, attachments, alive := time.NewTicker(qualityEvery), time.NewTicker(attachmentEvery), time.NewTicker(aliveEvery)
	defer alive.Stop()
	defer quality.Stop()
	defer attachments.Stop()
	known := b.Attachments(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-quality.C:
			fault.Run(b.log, "quality", func() { b.readQuality(ctx) })
		case now := <-alive.C:
			for range b.legRoom.Range { // with calls only: an idle server does not write
				b.store.QueueAlive(now)
				break
			}
		case now := <-attachments.C:
			fault.Run(b.log, "attachments", func() { known = b.watchAttachments(ctx, now, known) })
		}
	}
}

// hearEngine listens to the engine's events, and again when that breaks.
func (b *Bridge) hearEngine(ctx context.Context) {
	b.forgetStale(ctx)
	for {
		err := b.media.Events(ctx, b.onMedia)
		if ctx.Err() != nil {
			return
		}
		b.log.Debug("the engine's events ended", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-b.mediaUp:
		case <-time.After(eventsRetry):
		}
	}
}

// forgetStale closes conferences that the engine still has from a control process
// before this one: their dialogs are gone with it.
func (b *Bridge) forgetStale(ctx context.Context) {
	s, err := b.media.Snapshot(ctx)
	if err != nil {
		return // it is not up yet, so it has none
	}
	for _, c := range s.Conferences {
		stays := func(err error) {
			b.log.Warn("a stale conference stays in the engine", "conference_id", c.Id, "err", err)
		}
		r := b.find(c.Id)
		if c.Id == b.lobby.id {
			r = b.lobby
		}
		if r != nil {
			r.post(func(time.Time) { // in its own order: it may just be opening the conference
				if !r.mediaOpen {
					r.work.closeConference(c.Id, stays)
				}
			})
		} else if err := b.media.CloseConference(ctx, c.Id); err != nil {
			stays(err)
		}
	}
}

// onMedia is one event of the engine.
func (b *Bridge) onMedia(e *mediapb.Event) {
	r := b.find(e.Conference)
	if v, ok := b.legRoom.Load(e.Leg); r == nil && ok {
		r = v.(*room)
	}
	if r != nil {
		r.post(func(now time.Time) { r.onMedia(now, e) })
	}
}

// MediaDown says that the engine has died: every leg ends, and who was in a conference
// is called back once it is up again. Calling it twice changes nothing.
func (b *Bridge) MediaDown() {
	if b.mediaDown.Swap(true) {
		return
	}
	b.caller.SetBusy(true)
	b.log.Error("the media engine is down")
	for _, r := range append(b.all(), b.lobby) {
		r.post(r.mediaLost)
	}
}

// MediaUp says that an engine, with nothing in it, is there again.
func (b *Bridge) MediaUp() {
	if !b.mediaDown.Swap(false) {
		return
	}
	b.caller.SetBusy(b.draining.Load())
	b.log.Info("the media engine is up")
	select {
	case b.mediaUp <- struct{}{}:
	default:
	}
	for _, r := range append(b.all(), b.lobby) {
		r.post(r.mediaBack)
	}
}

// Drain lets no call begin any more, in or out, and returns when the last one has ended, or ctx.
// It cannot be taken back: Close is to follow.
func (b *Bridge) Drain(ctx context.Context) error {
	b.drain()
	t := time.NewTicker(drainLook)
	defer t.Stop()
	for {
		live := 0
		for range b.legRoom.Range {
			live++
		}
		if live == 0 {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("bridge: %d calls are left: %w", live, ctx.Err())
		}
	}
}

// drainLook is how often Drain looks who is left.
const drainLook = 100 * time.Millisecond

func (b *Bridge) drain() {
	b.draining.Store(true)
	b.caller.SetBusy(true)
}

func errDraining() *Error {
	return &Error{Kind: Unavailable, Code: "shutting_down", Detail: "the server is shutting down and begins no call"}
}

// Close hangs up every call, waits for the goodbyes (at most Options.CloseTimeout, or
// until ctx ends) and a second for the engine, and ends every goroutine. Events end; the store stays open.
func (b *Bridge) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return nil
	}
	b.closing = true
	b.mu.Unlock()
	b.drain()
	ctx, cancel := context.WithTimeout(ctx, b.opt.CloseTimeout)
	defer cancel()
	rooms := append(b.all(), b.lobby)
	for _, r := range rooms {
		r.post(func(now time.Time) { r.shutdown(now, "shutdown") })
	}
	late := 0
	for _, r := range rooms {
		select {
		case <-r.drained:
		case <-ctx.Done():
			late++
			r.post(r.abandon)
		}
	}
	stuck := time.AfterFunc(time.Second, fault.Safely(b.log, "close", b.cancel)) // an engine that does not close legs is not waited for
	defer stuck.Stop()
	for _, r := range rooms {
		r.post(func(time.Time) { b.store.QueueSeq(r.id, r.seq) })
		r.stop()
	}
	b.cancel()
	b.wg.Wait() // deleted conferences
	b.hub.close()
	if late > 0 {
		return fmt.Errorf("bridge: %d conferences still had calls after %v", late, b.opt.CloseTimeout)
	}
	return nil
}

// shutdown hangs up everybody; drained is closed when the last has gone.
func (r *room) shutdown(now time.Time, why string) {
	r.closing = true
	r.endSubscriptions()
	for _, m := range r.members {
		m.recall = ""
	}
	for _, l := range sortedLegs(r.legs) {
		r.hangup(now, l, why)
	}
}

// charge hands an ended leg to whoever keeps charging records.
func (b *Bridge) charge(r LegRecord) {
	if b.bills != nil {
		b.bills.Charge(r)
	}
}

// abandon ends the legs whose goodbye was not answered in time.
func (r *room) abandon(now time.Time) {
	for _, l := range sortedLegs(r.legs) {
		v := ownEnd(l.ConnectedAt != nil, "shutdown")
		if l.verdict != nil {
			v = *l.verdict
		}
		r.endLeg(now, l, v, nil)
	}
}

func (b *Bridge) find(id string) *room {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rooms[id]
}

// all rooms, sorted by id.
func (b *Bridge) all() []*room {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*room, 0, len(b.rooms))
	for _, r := range b.rooms {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y *room) int {
		if x.id < y.id {
			return -1
		}
		return 1
	})
	return out
}

// attachment picks one that is up, and not among those tried: home, or else the first. It says how
// to describe media to it. Home is the one that somebody is to be called by before others: where
// the phone is that asks for it, or where he was in before; another network may not know whom
// it means. "": none.
func (b *Bridge) attachment(home string, tried ...string) (sip.AttachmentState, sip.MediaProfile, *Error) {
	if b.draining.Load() {
		return sip.AttachmentState{}, sip.MediaProfile{}, errDraining()
	}
	if b.mediaDown.Load() {
		return sip.AttachmentState{}, sip.MediaProfile{}, &Error{Kind: Unavailable, Code: "media_down", Detail: "the media service is restarting"}
	}
	all := b.caller.Attachments()
	if i := slices.IndexFunc(all, func(a sip.AttachmentState) bool { return a.Name == home }); i > 0 {
		all = slices.Concat(all[i:i+1], all[:i], all[i+1:])
	}
	for _, a := range all {
		if !a.Up || slices.Contains(tried, a.Name) {
			continue
		}
		p, ok := b.caller.MediaProfile(a.Name)
		if !ok {
			continue
		}
		p.LocalIP = b.opt.LocalIP(p.LocalIP)
		return a, p, nil
	}
	return sip.AttachmentState{}, sip.MediaProfile{}, &Error{Kind: Unavailable, Code: "attachment_down",
		Detail: "no connection to a carrier is up; see GET /v1/attachments"}
}

// newID makes a sortable id: "leg_" and a ULID.
func newID(prefix string) string { return prefix + "_" + ulid.Make().String() }
