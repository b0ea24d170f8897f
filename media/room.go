package media

import (
	"slices"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/opus"
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
	agc        bool
	legs       []*leg
	whispers   []whisper
	shared     []*group
	tx         *sender // the worker's
	turns      bool    // some leg turns, or is gone: relink after the tick
	pair       bool    // two legs of one codec and nothing else wanted: see route

	talkers [64]*leg
	alone   int    // ticks that the only voice has been the only one
	hushed  int    // ticks that nobody has been heard
	host    *leg   // who was heard last
	hiss    int    // how loud his silence is, by his own account: what the others hear of it
	voices  []*leg // who is heard in this tick, asides not among them; cap: all legs
	sum     [frameLen]int32
	mix     [frameLen]int16 // sum, limited
	one     [frameLen]int16
	sound   [frameLen]int32 // what one leg is played

	// hist is what the room heard in the last two ticks, newest first, for encoders that
	// have to be primed; valid in tick histAt. Frames that were only passed on leave it
	// old: before is what becomes of it (recall) when they are decoded after all.
	hist   [2][frameLen]int16
	histAt uint64
	before [2][frameLen]int32
}

// whisper in the words of the API.
type whisper struct {
	from    string
	to      []string
	private bool
}

// group is an encoder for all legs that hear the same in the same form.
type group struct {
	c    *coder
	mode int
	used uint64 // tick+1 of its last frame, 0: never
}

func newRoom(id string, o Options, tx *sender) *room {
	return &room{id: id, maxTalkers: o.MaxTalkers, agc: o.AGC, tx: tx}
}

// setWhispers changes who whispers to whom. Somebody who is heard and is concerned fades out
// first, where he is heard now, and comes in where he is heard then.
func (r *room) setWhispers(w []whisper) {
	for _, l := range r.legs {
		if l.gain > 0 && (speaks(r.whispers, l.id) || speaks(w, l.id)) {
			l.turns, r.turns = true, true
		}
	}
	if r.whispers = w; !r.turns {
		r.relink()
	}
}

// speaks says whether a leg is heard otherwise than by the room.
func speaks(w []whisper, id string) bool {
	return slices.ContainsFunc(w, func(w whisper) bool {
		return w.from == id || w.private && slices.Contains(w.to, id)
	})
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
	r.voices = slices.Grow(r.voices[:0], len(r.legs))
	if !slices.Contains(r.legs, r.host) {
		r.host = nil
	}
	for _, l := range r.legs {
		l.aside, l.ducked, l.turns, l.extra = false, false, false, l.extra[:0]
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
	for _, l := range r.legs { // the others go on as they went: who joins in silence changes nothing
		if l.via != nil && (l.via.aside || !slices.Contains(r.legs, l.via)) {
			l.via = nil
		}
	}
}

// apply gives a leg its plan; what the leg no longer needs goes into p.old.
func (r *room) apply(w *worker, l *leg, p *plan, now int64) {
	if p.kind != l.kind {
		r.end(w, l)
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
		l.follows = false
		l.past.n, l.past.torn = 0, false
		l.loud, l.probed = amr.Loudness{}, 0
		l.opusLevel, l.wasActive = [2]float32{mix.Silent, mix.Silent}, false
		l.hush = mix.Silent
		if p.fresh.shared != nil {
			r.shared = append(r.shared, &group{c: p.fresh.shared})
		}
		p.fresh = coders{}
		l.via = nil
		for _, x := range r.legs { // frames of another codec cannot go on as they went
			if x.via == l {
				x.via = nil
			}
		}
	}
	l.apply(p, now)
}

// end keeps what goes on for a frame after the last that was heard of l, before it loses its
// decoder, for the next tick to fade out.
func (r *room) end(w *worker, l *leg) {
	if l.gain == 0 || l.ends {
		return
	}
	passed := r.histAt != w.tick
	l.cur = frame{verdict: jitter.Conceal, ft: amr.NoData}
	r.decode(w, l)
	if passed {
		r.recall()
		r.histAt = w.tick
	}
	l.ends = true
}

func (r *room) slotOf(c *coder) int {
	for i, g := range r.shared {
		if g.c == c {
			return i
		}
	}
	return -1
}

// tick makes one 20 ms frame for everybody: pull, decide who talks, decide what each leg
// is sent, decode and mix if anybody needs that, encode, send. No lock, no allocation, no
// log.
func (r *room) tick(w *worker, n uint64, now int64) {
	r.pair = r.isPair()
	passed := r.histAt != n
	for _, l := range r.legs {
		r.pull(w, l, n, now)
	}
	r.choose()
	r.gather()
	mixed := false
	for _, l := range r.legs {
		l.way = r.route(l, n)
		mixed = mixed || l.way >= wayShared
	}
	if mixed {
		r.mixdown(w, n)
		if passed {
			r.recall()
		}
	}
	for _, l := range r.legs {
		sounds := r.play(w, l, now)
		switch l.way {
		case wayNone:
			l.spurt, l.hearGain = false, 0
		case waySilence:
			l.sendSilence(n)
		case wayPass:
			l.pass(n)
		case wayShared:
			l.send(&r.group(w, l, n).c.out, n)
		case wayOwn:
			r.hear(w, l, n, sounds)
		}
		l.control(w, now)
	}
	r.close(n, mixed)
}

// pull takes the frame that is due and judges how loud it is, if anybody might hear it.
// That needs no decoding: AMR-WB carries its gains, G.711 its samples, Opus what its
// sender thought (opusLoudness). AMR and G.722 are decoded, and so is AMR-WB until the estimate was compared with what decoding gives, and for a frame
// now and then afterwards.
func (r *room) pull(w *worker, l *leg, n uint64, now int64) {
	l.decoded, l.speech, l.contributes, l.fades = false, false, false, l.turns
	if l.ends {
		l.decoded, l.speech, l.fades = true, true, true
		l.quiet()
		return
	}
	if l.jb == nil {
		l.cur.verdict = jitter.Silence
		l.quiet()
		return
	}
	c := &l.cur
	c.verdict, c.ft, c.bad, c.bits = l.jb.Pop(l.since(now))
	if c.verdict == jitter.Conceal {
		c.ft, c.bits = amr.NoData, nil
		if ft, next := l.jb.Next(); l.kind.isOpus() && ft == ftSpeech && opus.HasFEC(next) && opus.Long(next) == 1 {
			c.ft, c.bits = ftAhead, next
		} else {
			l.concealed++
		}
	}
	if c.verdict == jitter.Silence && l.gain > 0 {
		// It broke off in a word: its source or its timestamps are others from now on, or
		// nothing comes. What was heard last fades out.
		c.verdict, c.ft, c.bad, c.bits = jitter.Conceal, amr.NoData, false, nil
		l.speech, l.fades = true, true
		l.quiet()
		return
	}
	// Silence costs nothing: comfort noise is not decoded (MEDIA.md §7), nor is who is
	// not to be heard.
	switch {
	case c.verdict == jitter.Silence || c.verdict == jitter.Play && !l.isSpeech(c.ft):
		l.past.forget()
		l.quiet()
	case !l.audible() && l.gain == 0:
		l.past.put(c)
		l.quiet()
	default:
		l.speech = true
		l.measure(r.loudness(w, l, n))
		if r.agc && (l.decoded || l.kind.law() && c.verdict == jitter.Play) { // not by an estimate
			l.agc.Step(l.lastLevel, l.detector.Voice())
		}
	}
}

// fading is the level of a frame that nothing is known about: the last one's, and less
// with every further one.
func (l *leg) fading() float32 { return max(l.lastLevel-3, mix.Silent) }

// loudness is the level of the leg's frame, dBov.
func (r *room) loudness(w *worker, l *leg, n uint64) float32 {
	c := &l.cur
	switch {
	case c.verdict == jitter.Conceal:
		return l.fading()
	case l.kind.law():
		return l.law().Level(c.bits)
	case l.kind.isOpus():
		return r.opusLoudness(w, l, n)
	case !l.kind.wide():
		r.decode(w, l)
		return mix.Level(l.pcm[:])
	case c.bad || c.ft > 8:
		return l.fading()
	}
	guess := l.loud.Step(c.ft, c.bits)
	heard := l.gain > 0
	switch {
	case l.past.torn && l.past.n < len(l.past.frames): // too little for a decoder that begins anew
		return guess
	case l.probed < firstProbes:
		l.probed++
	case r.pair: // nothing hangs on it
		return guess
	case r.agc && !l.agc.Sure():
	case heard && r.histAt == n: // it was mixed and most likely will be
	case heard && n+probeEvery >= l.probeAt+probeHeard:
	case n >= l.probeAt:
	default:
		return guess
	}
	r.decode(w, l)
	level := mix.Level(l.pcm[:])
	l.loud.Calibrate(level, guess)
	l.probeAt = n + probeEvery + uint64(l.slot%16)
	return level
}

// opusLoudness is loudness of Opus. Its frames say whether their sender's detector found a
// voice (opus.Active), not how loud. So one that starts or stops to be a voice is decoded,
// which costs a third of what AMR-WB does, and so is a voice that is not heard yet: it may
// have to be. Noise, and a voice whose frames are passed on, is taken to go on as loud as
// it was, and decoded now and then: a tone is no voice to a detector, and is heard.
func (r *room) opusLoudness(w *worker, l *leg, n uint64) float32 {
	voice, heard := 0, l.gain > 0
	if l.cur.ft == ftMore && l.wasActive || l.cur.ft != ftMore && opus.Active(l.cur.bits) {
		voice = 1
	}
	guess := l.opusLevel[voice]
	turned := l.wasActive != (voice == 1)
	l.wasActive = voice == 1
	switch {
	case l.probed < firstProbes:
		l.probed++
	case turned, r.agc && !l.agc.Sure(), heard && r.histAt == n, voice == 1 && !heard, n >= l.probeAt:
	default:
		return guess
	}
	r.decode(w, l)
	l.opusLevel[voice] = mix.Level(l.pcm[:])
	l.probeAt = n + probeHeard
	return l.opusLevel[voice]
}

// firstProbes frames of a stream are decoded, whoever hears them. Afterwards one is every
// probeEvery ticks, and every probeHeard while the leg's frames are passed on: the end of
// a steady tone must not be imagined.
const (
	firstProbes = 10
	probeEvery  = 100
	probeHeard  = 12
)

// choose picks who is heard: the loudest maxTalkers of those who talk.
func (r *room) choose() {
	n := 0
	for _, l := range r.legs {
		l.chosen = false
		if !l.talks || l.fades || !l.audible() {
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
	if r.pair { // all there is goes through, a fan too
		for _, l := range r.legs {
			l.chosen = l.chosen || l.audible() && !l.fades
		}
	}
}

// gather lists whose frames of this tick are to be heard: who was chosen, and for one
// frame more who no longer is, to fade out.
func (r *room) gather() {
	var last *leg
	if len(r.voices) == 1 {
		last = r.voices[0]
	}
	r.voices = r.voices[:0]
	for _, l := range r.legs {
		if !l.speech || !l.chosen && l.gain == 0 {
			l.gain = 0 // the decoder's next frame starts from nothing: it needs its ramp
			continue
		}
		if !l.aside {
			r.voices = append(r.voices, l)
		}
	}
	r.hushed++
	if n := len(r.voices); n > 0 {
		r.hushed, r.host = 0, r.voices[n-1]
	}
	r.hiss = 0
	if h := r.host; h != nil && !h.speech && h.audible() && !h.aside {
		r.hiss = hissOf(h.hush)
	}
	if len(r.voices) == 1 && r.voices[0] == last {
		r.alone++
	} else {
		r.alone = 0
	}
}

// decode makes l.pcm of the frame that is due, after those that were not decoded when
// they were: the decoder must have heard what came before.
func (r *room) decode(w *worker, l *leg) {
	if l.past.torn {
		l.dec.restart()
	}
	for i := range l.past.n {
		p := &l.past.frames[(l.past.at+i)%len(l.past.frames)]
		l.dec.decode(p.ft, p.bad, p.data[:p.n], &r.one)
		w.stats.decodes++
		if age := l.past.n - 1 - i; age < len(r.before) && l.gain > 0 {
			mix.Add(r.before[age][:], r.one[:])
		}
	}
	l.past.n, l.past.torn = 0, false
	l.dec.decode(l.cur.ft, l.cur.bad, l.cur.bits, &l.pcm)
	w.stats.decodes++
	l.decoded = true
}

// mixdown decodes who is to be heard and sums up.
func (r *room) mixdown(w *worker, n uint64) {
	clear(r.sum[:])
	for _, l := range r.legs {
		if !l.speech || !l.chosen && l.gain == 0 {
			continue
		}
		if !l.decoded {
			r.decode(w, l)
		}
		if r.agc {
			l.agc.Apply(l.pcm[:])
		}
		l.contributes = l.fade()
		if l.contributes && !l.aside {
			mix.Add(r.sum[:], l.pcm[:])
		}
	}
	mix.Out(r.mix[:], r.sum[:])
	if len(r.voices) == 0 && r.hiss > 0 { // of those who are encoded for in silence as well
		hiss(&r.mix, r.hiss, n)
	}
}

// recall makes hist, after ticks in which frames were passed on, of what was gathered of them.
func (r *room) recall() {
	mix.Out(r.hist[0][:], r.before[0][:])
	mix.Out(r.hist[1][:], r.before[1][:])
}

// close keeps what the next tick has to know of this one.
func (r *room) close(n uint64, mixed bool) {
	for _, l := range r.legs {
		if l.speech && !l.decoded {
			l.past.put(&l.cur)
		}
		l.ends = false
	}
	switch {
	case mixed:
		r.hist[1] = r.hist[0]
		r.hist[0] = r.mix
		r.histAt = n + 1
	case len(r.voices) == 0:
		if r.histAt == n || r.histAt == 0 {
			r.hist[1] = r.hist[0]
			r.hist[0] = silent
			r.histAt = n + 1
		} else { // it was passed on: who encodes next starts from silence
			r.hist = [2][frameLen]int16{}
			r.histAt = n + 1
		}
	default:
		r.passed(n)
	}
	if !mixed {
		for _, l := range r.voices {
			l.gain = 0
			if l.chosen {
				l.gain = 1
			}
		}
	}
	if r.turns {
		r.turns = false
		r.legs = slices.DeleteFunc(r.legs, func(l *leg) bool { return l.gone })
		r.relink()
	}
}

// passed moves before on by a tick in which frames were passed on. What was decoded of them,
// to know how loud they are, is in it; decode adds the others where it catches up with them.
func (r *room) passed(n uint64) {
	if r.histAt == n { // the tick before was mixed
		for i, v := range &r.hist[0] {
			r.before[0][i] = int32(v)
		}
	}
	r.before[1] = r.before[0]
	clear(r.before[0][:])
	for _, l := range r.voices {
		if l.decoded {
			mix.Add(r.before[0][:], l.pcm[:])
		}
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

// hear makes and sends what one leg alone hears: the room without itself, whispers, and
// the sound in r.sound.
func (r *room) hear(w *worker, l *leg, n uint64, sounds bool) {
	target, duck := l.wants()
	var acc [frameLen]int32
	copy(acc[:], r.sum[:])
	if l.contributes && !l.aside {
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
	if l.ownTick != n && !l.kind.isG722() { // it listened to a shared encoder until now, or to nothing
		r.prime(w, l.own, l.mode, l.quietly || l.hearGain == 0)
	}
	l.hearGain, l.duck = target, duck
	mix.Out(r.one[:], acc[:])
	l.own.encode(l.mode, &r.one)
	w.stats.encodes++
	l.ownTick = n + 1
	l.send(&l.own.out, n)
}

// prime lets an encoder hear what its listeners heard last, so that its first frame
// goes on where the other encoder's ended: no click. After silence one frame of it does.
func (r *room) prime(w *worker, c *coder, mode int, silence bool) {
	if silence {
		c.encode(mode, &silent)
		w.stats.encodes++
		return
	}
	c.encode(mode, &r.hist[1])
	c.encode(mode, &r.hist[0])
	w.stats.encodes += 2
}

var silent [frameLen]int16

// group encodes the room once for all legs of a kind and mode.
func (r *room) group(w *worker, l *leg, n uint64) *group {
	var spare *group
	for _, g := range r.shared {
		if g.c.kind != l.kind {
			continue
		}
		if g.used != 0 && g.mode == l.mode && g.used > n-1 {
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
	if (g.used != n || g.mode != l.mode) && !l.kind.isG722() {
		r.prime(w, g.c, l.mode, l.quietly)
		g.mode = l.mode
	}
	g.c.encode(g.mode, &r.mix)
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
