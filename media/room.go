package media

import (
	"sparkle/media/codec/amr"
	"sparkle/media/jitter"
	"sparkle/media/mix"
)

const (
	// talkerEdge keeps the chosen talkers from changing at every syllable.
	talkerEdge = 6 // dB
	// rampLen is how long a gain takes to change, without a click.
	rampLen = frameLen / 2
	// duckGain is the room under a whisper: 12 dB down.
	duckGain = 0.25
)

// room is one conference on its worker.
type room struct {
	id         string
	maxTalkers int
	legs       []*leg
	whispers   []whisper
	shared     []*group

	sum     [frameLen]int32 // what the room hears
	mix     [frameLen]int16 // sum, limited
	hist    [2][frameLen]int16
	talkers [64]*leg
	one     [frameLen]int16
	sound   [frameLen]int32 // what one leg is played
}

// whisper in the words of the API.
type whisper struct {
	from    string
	to      []string
	private bool
}

// group is an encoder for all legs that hear the same in the same form.
type group struct {
	c       *coder
	mode    int
	silence bool
	used    uint64 // tick+1 of its last frame, 0: never
}

func newRoom(id string, maxTalkers int) *room { return &room{id: id, maxTalkers: maxTalkers} }

func (r *room) setWhispers(w []whisper) {
	r.whispers = w
	r.relink()
}

func (r *room) find(id string) *leg {
	for _, l := range r.legs {
		if l.id == id {
			return l
		}
	}
	return nil
}

// relink works out who hears whom besides the room, after legs or whispers changed.
func (r *room) relink() {
	for _, l := range r.legs {
		l.aside, l.ducked, l.extra = false, false, l.extra[:0]
	}
	for _, w := range r.whispers {
		from := r.find(w.from)
		if from == nil {
			continue // not in a call: the room goes on as ever
		}
		from.aside = true
		for _, id := range w.to {
			to := r.find(id)
			if to == nil || to == from {
				continue
			}
			to.ducked = true
			to.extra = append(to.extra, from)
			if w.private {
				to.aside = true
				from.extra = append(from.extra, to)
			}
		}
	}
}

// apply gives a leg its plan; what the leg no longer needs goes into p.old.
func (r *room) apply(l *leg, p *plan, now int64) {
	if p.kind != l.kind {
		p.old = coders{own: l.own, dec: l.dec}
		for i, g := range r.shared {
			if g.c.kind == l.kind && (p.old.shared == nil || g.used < r.shared[r.slotOf(p.old.shared)].used) {
				p.old.shared = r.shared[i].c
			}
		}
		if p.old.shared != nil {
			i := r.slotOf(p.old.shared)
			r.shared = append(r.shared[:i], r.shared[i+1:]...)
		}
		l.own, l.dec, l.kind, l.jb = p.fresh.own, p.fresh.dec, p.kind, p.jb
		l.ownTick = 0
		if p.fresh.shared != nil {
			r.shared = append(r.shared, &group{c: p.fresh.shared})
		}
		p.fresh = coders{}
	}
	l.apply(p, now)
}

func (r *room) slotOf(c *coder) int {
	for i, g := range r.shared {
		if g.c == c {
			return i
		}
	}
	return -1
}

// tick makes one 20 ms frame for everybody: pull, decide who talks, decode those, mix,
// encode, send. No lock, no allocation, no log.
func (r *room) tick(w *worker, n uint64, now int64) {
	for _, l := range r.legs {
		r.pull(w, l, now)
	}
	r.choose()
	clear(r.sum[:])
	for _, l := range r.legs {
		l.contributes = l.fade()
		if l.contributes && !l.aside {
			mix.Add(r.sum[:], l.pcm[:])
		}
	}
	mix.Out(r.mix[:], r.sum[:])
	for _, l := range r.legs {
		sounds := r.play(w, l, now)
		if l.mayEncode() {
			r.hear(w, l, n, sounds)
		} else {
			l.spurt, l.hearGain = false, 0
		}
		l.control(now)
	}
	r.hist[1] = r.hist[0]
	r.hist[0] = r.mix
}

// pull takes the frame that is due and decodes it if anybody might hear it.
func (r *room) pull(w *worker, l *leg, now int64) {
	l.decoded = false
	if l.jb == nil {
		l.quiet()
		return
	}
	v, ft, bad, frame := l.jb.Pop(l.since(now))
	if v == jitter.Conceal {
		ft = amr.NoData
		l.concealed++
	}
	// Silence costs nothing: comfort noise is not decoded (MEDIA.md §7), nor is who is
	// not to be heard.
	speech := v == jitter.Conceal || v == jitter.Play && l.isSpeech(ft)
	if !speech || !l.audible() && l.gain == 0 {
		l.quiet()
		return
	}
	l.dec.decode(ft, bad, frame, &l.pcm)
	w.stats.decodes++
	l.decoded = true
	l.measure()
}

// choose picks who is heard: the loudest maxTalkers of those who talk.
func (r *room) choose() {
	n := 0
	for _, l := range r.legs {
		l.chosen = false
		if !l.decoded || !l.talks || !l.audible() {
			continue
		}
		if l.aside {
			l.chosen = true
			continue
		}
		// Insertion into the few kept, loudest first.
		i := n
		for i > 0 && r.talkers[i-1].rank() < l.rank() {
			i--
		}
		if i >= r.maxTalkers {
			continue
		}
		if n < r.maxTalkers {
			n++
		}
		copy(r.talkers[i+1:n], r.talkers[i:n-1])
		r.talkers[i] = l
	}
	for _, l := range r.talkers[:n] {
		l.chosen = true
	}
}

// play makes the next frame of the sound a leg is played, in r.sound, and says whether
// there is one. The sound goes on also while nothing may be sent: its end is an event
// that somebody waits for.
func (r *room) play(w *worker, l *leg, now int64) bool {
	if !l.player.active() {
		return false
	}
	if s := l.player.frame(&r.sound); s != nil {
		w.note(note{what: notePlayEnded, leg: l, at: now, id: s.id})
	}
	return true
}

// hear makes and sends what one leg hears: the room without itself, whispers, and the
// sound in r.sound.
func (r *room) hear(w *worker, l *leg, n uint64, sounds bool) {
	target := float32(1)
	if l.deaf || l.held || !l.present {
		target = 0
	}
	duck := float32(1)
	if l.ducked || sounds {
		duck = duckGain
	}
	l.stepMode(n)
	self := l.contributes && !l.aside
	if !sounds && l.hearGain == target && l.duck == duck && (target == 0 || !self && !l.ducked && len(l.extra) == 0) {
		g := r.group(w, l, n, target == 0)
		l.send(g.c, n)
		return
	}
	var acc [frameLen]int32
	copy(acc[:], r.sum[:])
	if self {
		for i, v := range &l.pcm {
			acc[i] -= int32(v)
		}
	}
	scale(acc[:], l.duck, duck)
	for _, x := range l.extra {
		if x.contributes {
			mix.Add(acc[:], x.pcm[:])
		}
	}
	scale(acc[:], l.hearGain, target)
	if sounds {
		for i, v := range &r.sound {
			acc[i] += v
		}
	}
	if l.ownTick != n { // it listened to a shared encoder until now, or to nothing
		r.prime(w, l.own, l.mode, l.hearGain == 0)
	}
	l.hearGain, l.duck = target, duck
	mix.Out(r.one[:], acc[:])
	l.own.encode(l.mode, &r.one)
	w.stats.encodes++
	l.ownTick = n + 1
	l.send(l.own, n)
}

// prime lets an encoder hear what its listeners heard last, so that its first frame
// goes on where the other encoder's ended: no click.
func (r *room) prime(w *worker, c *coder, mode int, silence bool) {
	last, newest := &r.hist[1], &r.hist[0]
	if silence {
		last, newest = &silent, &silent
	}
	c.encode(mode, last)
	c.encode(mode, newest)
	w.stats.encodes += 2
}

var silent [frameLen]int16

// group encodes the room, or silence, once for all legs of a kind and mode.
func (r *room) group(w *worker, l *leg, n uint64, silence bool) *group {
	var spare *group
	for _, g := range r.shared {
		if g.c.kind != l.kind {
			continue
		}
		if g.used != 0 && g.mode == l.mode && g.silence == silence && g.used > n-1 {
			if g.used == n+1 {
				w.stats.saved++
				return g
			}
			spare = g // this one, it ran in the last tick
			break
		}
		if g.used != n+1 && (spare == nil || g.used < spare.used) {
			spare = g
		}
	}
	// One shared encoder came with every leg, and each group has a leg: spare is set.
	g := spare
	if g.used != n || g.mode != l.mode || g.silence != silence {
		r.prime(w, g.c, l.mode, silence)
		g.mode, g.silence = l.mode, silence
	}
	pcm := &r.mix
	if silence {
		pcm = &silent
	}
	g.c.encode(g.mode, pcm)
	w.stats.encodes++
	g.used = n + 1
	return g
}

// scale multiplies by a gain that moves from one value to another in rampLen samples.
func scale(pcm []int32, from, to float32) {
	if from == 1 && to == 1 {
		return
	}
	step := (to - from) / rampLen
	for i := range pcm {
		g := to
		if i < rampLen {
			g = from + step*float32(i+1)
		}
		pcm[i] = int32(float32(pcm[i]) * g)
	}
}
