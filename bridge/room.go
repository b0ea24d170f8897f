package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sparkle/bridge/fault"
	"sparkle/media/mediapb"
)

// View is a conference as it was after some moment's work. It is immutable.
type View struct {
	Conference Conference   `json:"conference"`
	Members    []Member     `json:"members"` // in order of joining the roster
	Whisper    *WhisperSpec `json:"whisper"`
	Seq        uint64       `json:"seq"`
	legs       []Leg        // live ones with their timelines, by id
}

func (v *View) member(id string) (Member, bool) {
	for _, m := range v.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// room is the owner of one conference. Only the goroutine in run touches the fields
// below own; others post to the mailbox, or read the last View without waiting.
//
//	API ── do ──┐                       ┌─ view (atomic) ── API reads, metrics
//	SIP events ─┼─> mailbox ─> run ─────┼─ events ─> hub ── SSE
//	media ──────┘   (one batch at once) ├─ mediaWork ─> engine
//	                                    └─ Store.Queue…
type room struct {
	b       *Bridge
	id      string
	owner   string
	limit   []string // prefixes of what its phones may have called; empty: no limit
	log     *slog.Logger
	view    atomic.Pointer[View]
	work    *mediaWork
	change  chan struct{} // cap 1: held by the one API call that is changing what is durable
	waiting atomic.Int32  // API calls waiting for change
	drained chan struct{} // closed when closing, and the last leg has ended
	stopped chan struct{} // closed when run has returned

	mu   sync.Mutex
	mail []func(time.Time) // what must not be lost, in order; bounded by the legs' dialogs and API calls
	shut bool              // run returns when the mail is done
	wake chan struct{}     // cap 1

	// own:
	conf      Conference
	members   []*member
	legs      map[string]*leg // live, of members and of those just removed
	whisper   *WhisperSpec
	seq       uint64
	seqMark   uint64 // a restart begins here; always ahead of seq
	events    []routed
	acks      []chan struct{}
	about     *leg // whom the job is about, for a fault in it; nil: nobody, or not known
	dirty     bool // the view is old
	mediaOpen bool
	opening   int // legs that the engine is opening, also those that have ended meanwhile
	mediaDown bool
	closing   bool
	mute      bool // deleted: nothing is published any more
	// Who is notified of the conference (RFC 4575).
	watchers  []*watcher
	notifying bool // a timer will call notifyAll
	anons     int  // names given to those who have none

	creator  string // member id, of who made the conference by phone
	expired  bool   // an ad-hoc conference that is being deleted
	levels   []talker
	talkedAt time.Time
}

// member is a roster row and what goes with it.
type member struct {
	Member
	muted bool // as wanted; a listener is muted besides
	leg   *leg // live, or nil
	// recall is the media to call back with when the engine is up again, "" not at all:
	// set when a member lost his call through no fault of his.
	recall string
	lostBy string // the attachment of that call
	// rejoins is when that is to be, zero: at once. Then it is because the network lost his
	// call, and once only.
	rejoins time.Time
	// confirm is whether he had to press 1 when he was called last: when called back he must again.
	confirm bool
	uri     string // he was referred to by it; "" not
	hidden  bool   // who brought him in wants others not to be shown who he is (RFC 5364)
	anon    int    // number of his anonymous URI; 0: none yet
	// prefixes limit the numbers of who had him called last: a redirection keeps to them.
	prefixes []string
}

// seqBlock sequence numbers are reserved on disk at once, so that they never go back
// and not every event is a write.
const seqBlock = 1024

// maxWaiting API calls may queue for one conference; the next is answered 503.
const maxWaiting = 64

func newRoom(b *Bridge, c Conference, seq uint64, members []Member) *room {
	r := &room{
		b: b, id: c.ID, owner: c.Owner, limit: strings.Fields(c.DialLimit), log: b.log.With("conference_id", c.ID),
		work: newMediaWork(b.ctx, b.media, b.log), change: make(chan struct{}, 1),
		drained: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1),
		conf: c, legs: map[string]*leg{}, seq: seq, seqMark: seq + seqBlock,
	}
	for _, m := range members {
		r.members = append(r.members, &member{Member: m, muted: m.Muted})
	}
	r.mediaDown = b.mediaDown.Load()
	r.refresh()
	go fault.Safely(r.log, "conference", r.run)()
	return r
}

// run works the mail off, batch by batch.
func (r *room) run() {
	defer close(r.stopped)
	for {
		r.mu.Lock()
		mail, shut := r.mail, r.shut
		r.mail = nil
		r.mu.Unlock()
		if len(mail) == 0 {
			if shut {
				return
			}
			<-r.wake
			continue
		}
		now := time.Now()
		for _, f := range mail {
			r.about = nil
			if !fault.Run(r.log, "conference", func() { f(now) }) && r.about != nil {
				r.loseLeg(now, r.about)
			}
		}
		if !fault.Run(r.log, "conference", func() { r.flush(now) }) {
			r.events, r.dirty = r.events[:0], false
		}
	}
}

// loseLeg ends the leg that a fault of ours was about: nothing that is said of it can be
// believed any more. Its member is told; all others of the conference go on.
func (r *room) loseLeg(now time.Time, l *leg) {
	v := &verdict{outcome: NetworkError, text: Text{Zh: "服务器内部错误，呼叫失败", En: "An error of the server's ended the call."}}
	if l.ConnectedAt != nil {
		v.outcome, v.text.Zh = Dropped, "服务器内部错误，通话掉线"
	}
	if !l.over && fault.Run(r.log, "leg", func() { r.hang(now, l, "internal", `SIP;cause=500;text="internal error"`, v) }) {
		return
	}
	if fault.Run(r.log, "leg", func() { r.endLeg(now, l, *v, nil) }) && !r.has(l) {
		return
	}
	l.dead = true
	delete(r.legs, l.ID)
	r.b.legRoom.Delete(l.ID)
	if m := r.member(l.Member); m != nil && m.leg == l {
		m.leg, m.State = nil, Idle
	}
	r.dirty = true
}

func (r *room) has(l *leg) bool { return r.legs[l.ID] == l }

// post hands f to the room's goroutine; false if that has ended.
func (r *room) post(f func(now time.Time)) bool {
	r.mu.Lock()
	if r.shut {
		r.mu.Unlock()
		return false
	}
	r.mail = append(r.mail, f)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

// errFault is the answer to an API call whose job in a conference failed.
var errFault = errors.New("bridge: a fault of ours, which is in the log")

// do runs f on the room's goroutine and returns when its effects can be seen.
func (r *room) do(f func(now time.Time)) error {
	ack, done := make(chan struct{}), false
	if !r.post(func(now time.Time) {
		defer func() { r.acks = append(r.acks, ack) }()
		f(now)
		done = true
	}) {
		return errNoConference()
	}
	<-ack // run does all its mail before it returns
	if !done {
		return errFault
	}
	return nil
}

// lock serialises changes of what is durable: plan, write, apply. The disk is waited
// for here, by the API's goroutine, and never by the room's.
func (r *room) lock(ctx context.Context) (unlock func(), err error) {
	if r.waiting.Add(1) > maxWaiting {
		r.waiting.Add(-1)
		return nil, &Error{Kind: Unavailable, Code: "conference_busy", Detail: "too many changes are waiting for this conference"}
	}
	defer r.waiting.Add(-1)
	select {
	case r.change <- struct{}{}:
		return func() { <-r.change }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stop ends the goroutines when all mail is done.
func (r *room) stop() {
	r.mu.Lock()
	r.shut = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	<-r.stopped
	r.work.close()
}

// flush makes what a batch has changed visible: view first, then events, then answers.
func (r *room) flush(now time.Time) {
	defer func() {
		for _, a := range r.acks {
			close(a)
		}
		clear(r.acks)
		r.acks = r.acks[:0]
	}()
	if len(r.legs)+r.opening == 0 && r.mediaOpen {
		r.mediaOpen = false
		r.work.closeConference(r.id, func(err error) {
			r.log.Warn("media did not close the conference", "err", err)
		})
	}
	if r.dirty {
		before := r.conf
		r.count()
		if r.conf != before {
			r.emit(now, "conference.updated", "", "", r.conf)
		}
		if r.seq+seqBlock/4 > r.seqMark && !r.mute {
			r.seqMark = r.seq + seqBlock
			r.b.store.QueueSeq(r.id, r.seqMark)
		}
		r.refresh()
		fault.Run(r.log, "conference notice", func() { r.notifyAll(now) })
		r.dirty = false
	}
	if len(r.events) > 0 {
		r.b.hub.publish(now, r.events)
		r.events = r.events[:0]
	}
	if r.closing && len(r.legs)+r.opening == 0 {
		select {
		case <-r.drained:
		default:
			close(r.drained)
		}
	}
}

// count fills in what a conference says of its members.
func (r *room) count() {
	r.conf.Members, r.conf.Ringing, r.conf.InRoom = len(r.members), 0, 0
	for _, m := range r.members {
		switch m.State {
		case MemberRings:
			r.conf.Ringing++
		case InConference:
			r.conf.InRoom++
		}
	}
	r.conf.State = "idle"
	if r.conf.Ringing+r.conf.InRoom > 0 {
		r.conf.State = "active"
	}
}

// refresh replaces the view.
func (r *room) refresh() {
	r.count()
	v := &View{Conference: r.conf, Seq: r.seq, Members: make([]Member, len(r.members))}
	if r.whisper != nil {
		w := *r.whisper
		w.To = slices.Clone(w.To)
		v.Whisper = &w
	}
	for i, m := range r.members {
		v.Members[i] = m.public()
	}
	for _, l := range r.legs {
		v.legs = append(v.legs, l.public(true))
	}
	r.view.Store(v)
}

// public is the member as others see it: a copy that shares nothing that changes.
func (m *member) public() Member {
	out := m.Member
	out.Muted = m.muted || m.Role == roleListener
	if m.leg != nil {
		l := m.leg.public(false)
		out.Leg = &l
	}
	return out
}

// emit adds an event; data is the whole new object.
func (r *room) emit(now time.Time, kind, member, leg string, data any) {
	r.dirty = true
	if r.mute {
		return
	}
	e := Event{Time: now.UTC(), Type: kind, Conference: r.id, Member: member, Leg: leg, Data: encode(data)}
	if kind != "talkers" {
		r.seq++
		e.Seq = r.seq
	}
	r.events = append(r.events, routed{Event: e, owner: r.owner})
}

func encode(data any) json.RawMessage {
	b, err := json.Marshal(data)
	if err != nil {
		panic("bridge: an event's data cannot be encoded: " + err.Error()) // our types always can
	}
	return b
}

func (r *room) emitMember(now time.Time, m *member, kind string) {
	leg := ""
	if m.leg != nil {
		leg = m.leg.ID
	}
	r.emit(now, kind, m.ID, leg, m.public())
}

// emitWhisper: the data is {"whisper": …}, null when it has ended.
func (r *room) emitWhisper(now time.Time) {
	r.emit(now, "whisper.updated", "", "", map[string]*WhisperSpec{"whisper": r.whisper})
}

func (r *room) member(id string) *member {
	for _, m := range r.members {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// pushConference tells the engine what the conference is to be. One that is down hears it
// with the first leg after it is up again.
func (r *room) pushConference() {
	if r.mediaDown {
		return
	}
	c := &mediapb.Conference{Id: r.id, Video: r.conf.Type == VideoConference && !r.b.opt.NoVideo && r != r.b.lobby}
	if r.conf.Layout == LayoutSwitched {
		c.Layout = mediapb.Conference_SWITCHED
	}
	if w := r.whisper; w != nil {
		if from := r.member(w.From); from != nil && from.leg != nil {
			pw := &mediapb.Whisper{FromLeg: from.leg.ID}
			if w.Mode == "coach" {
				pw.Mode = mediapb.Whisper_COACH
			}
			for _, id := range w.To {
				if m := r.member(id); m != nil && m.leg != nil {
					pw.ToLegs = append(pw.ToLegs, m.leg.ID)
				}
			}
			c.Whispers = []*mediapb.Whisper{pw}
		}
	}
	r.mediaOpen = true
	r.work.setConference(c, func(err error) {
		r.log.Warn("media refused the conference", "err", err)
	})
}

// endWhisperOf takes a member who is no longer in out of the whisper.
func (r *room) endWhisperOf(now time.Time, m *member) {
	w := r.whisper
	if w == nil || w.From != m.ID && !slices.Contains(w.To, m.ID) {
		return
	}
	to := slices.DeleteFunc(slices.Clone(w.To), func(id string) bool { return id == m.ID })
	if w.From == m.ID || len(to) == 0 {
		r.whisper = nil
	} else {
		r.whisper = &WhisperSpec{From: w.From, To: to, Mode: w.Mode}
	}
	r.emitWhisper(now)
	if len(r.legs) > 0 {
		r.pushConference()
	}
}
