package media

import (
	"sparkle/media/codec/amr"
	"sparkle/media/codec/opus"
	"sparkle/media/jitter"
)

// way is how a leg comes by what it is sent in a tick, cheapest first:
//
//	               hears nobody ──────────────> silence: nothing, or comfort noise made once
//	hears one whose frames it can take ───────> pass: those frames, untouched
//	hears what everybody hears ───────────────> shared: one encode for all of them
//	hears something else (talks itself, is
//	whispered or played to, a gain moves) ────> own: its own encoder
//
// A leg may begin to be passed somebody's frames where it heard nobody before, or where
// that one begins to talk and no one else does: its decoder has nothing to go on from; or
// where one has talked alone for a while and is between two syllables. Once it hears more
// than that one it is encoded for, primed with what it heard, until one of these comes
// again. So a decoder is handed from one encoder to another only where that is not heard.
//
// Two legs of one codec with nothing else wanted are passed each other's frames all the
// time, comfort noise and loss included: the B2BUA case (DESIGN §5).
//
// G.722 is another matter: it is ADPCM, and a decoder that is handed from one encoder to
// another is off by 10 dB and more for the first syllable. So its legs are never passed
// frames, nor silence made before: they are encoded for in every tick, which costs a tenth
// of what AMR-WB does. They share one encoder while they hear what everybody hears. One
// that leaves it takes a copy of its state along, and comes back while all is silent, when
// the two differ by nothing that is heard.
type way uint8

const (
	wayNone way = iota
	waySilence
	wayPass
	wayShared // from here on somebody's frames have to be decoded
	wayOwn
)

// isPair says whether the room is two legs that can be passed each other's frames.
func (r *room) isPair() bool {
	if len(r.legs) != 2 || r.agc {
		return false
	}
	a, b := r.legs[0], r.legs[1]
	return a.present && b.present && !a.aside && !b.aside && a.kind == b.kind && a.jb != nil && b.jb != nil
}

// wants are the gains the leg is to hear the room with, in all and under something else.
func (l *leg) wants() (target, duck float32) {
	target, duck = 1, 1
	if l.deaf || l.held || !l.present {
		target = 0
	}
	if l.ducked || l.player.active() {
		duck = duckGain
	}
	return target, duck
}

// route decides what l is sent in this tick.
func (r *room) route(l *leg, n uint64) way {
	l.quietly = l.way <= waySilence
	if !l.mayEncode() {
		l.via = nil
		return wayNone
	}
	l.stepMode(n)
	target, duck := l.wants()
	if l.kind.isG722() {
		return r.steady(l, n, target == 1 && duck == 1 && len(l.extra) == 0 && !l.player.active())
	}
	if l.player.active() || l.duck != duck || target != 0 && (duck != 1 || len(l.extra) > 0) {
		l.via = nil
		return wayOwn
	}
	if target == 0 {
		l.via = nil
		if l.hearGain == 0 {
			return waySilence
		}
		return wayOwn // fades out
	}
	source, others := r.source(l)
	if l.via != nil && others == 0 && l.via.chosen {
		return wayPass // it pauses: its comfort noise, if any
	}
	if others == 0 {
		l.via, l.hearGain = nil, 1 // there is nothing to fade in
		if r.pair {
			if x := r.other(l); x.chosen && l.takes(x, n) {
				l.via = x
				return wayPass
			}
		}
		return waySilence
	}
	if others == 1 && (l.via == source || l.quietly || source.gain == 0 || r.dips(source)) && l.takes(source, n) {
		l.via, l.hearGain = source, 1
		return wayPass
	}
	l.via = nil
	if l.hearGain == 1 && !(l.speech && (l.chosen || l.gain > 0) && !l.aside) {
		return wayShared
	}
	return wayOwn
}

// steady is route for G.722. plain: there is nothing for this leg alone.
func (r *room) steady(l *leg, n uint64, plain bool) way {
	l.via = nil
	silence := len(r.voices) == 0
	g := r.running(l.kind, n)
	plain = plain && l.hearGain == 1 && l.duck == 1 && !(l.speech && (l.chosen || l.gain > 0) && !l.aside)
	switch {
	case plain && l.follows && (g != nil || silence):
		return wayShared
	case plain && silence && r.hushed >= g722Rest:
		l.follows = true
		return wayShared
	case l.follows && g != nil:
		l.own.g722.Copy(g.c.g722)
	}
	l.follows = false
	return wayOwn
}

// g722Rest is how many ticks of silence it takes until nothing is left in G.722's
// encoders of what was said.
const g722Rest = 10

// running is the shared encoder of a kind without modes that ran in the last tick, nil
// if none did.
func (r *room) running(k coderKind, n uint64) *group {
	for _, g := range r.shared {
		if g.c.kind == k && g.used == n {
			return g
		}
	}
	return nil
}

// dips says whether x has talked alone for a while and is between two syllables.
func (r *room) dips(x *leg) bool {
	return r.alone >= aloneFor && r.voices[0] == x && x.lastLevel < x.smooth-dipDepth
}

const (
	aloneFor = 25 // ticks
	dipDepth = 10 // dB
)

// source is how many l hears in this tick, and one of them.
func (r *room) source(l *leg) (one *leg, others int) {
	for _, v := range r.voices {
		if v != l {
			one = v
			if others++; others > 1 {
				break
			}
		}
	}
	return one, others
}

// other is the other leg of a pair.
func (r *room) other(l *leg) *leg {
	if r.legs[0] == l {
		return r.legs[1]
	}
	return r.legs[0]
}

// takes says whether the frame that x has in this tick may go to l as it is.
func (l *leg) takes(x *leg, n uint64) bool {
	switch {
	case !x.chosen || x.kind.codec != l.kind.codec || l.room.agc && x.agc.Active():
		return false
	case l.kind.isOpus(): // a peer that set a limit is encoded for; a longer frame is not ours to time
		p := l.kind.opus
		return p.BitrateBps == 0 && p.Band == opus.Wide && x.cur.ft != ftMore && opus.Long(x.cur.bits) == 1
	case !l.kind.amr():
		return true
	case !l.kind.dtx:
		return false // x may fall silent at any time
	case x.cur.verdict != jitter.Play || !x.isSpeech(x.cur.ft) || x.cur.ft == amr.SpeechLost:
		return true
	}
	mode := int(x.cur.ft)
	if mode != l.mode && (l.st.everySecond && n&1 == 1 || l.st.neighbor && l.st.stepMode(l.mode, mode) != mode) {
		return false // its SDP says how modes may change, and x's phone knows nothing of it
	}
	return l.st.modes>>mode&1 == 1 && mode <= l.limit
}

// pass sends l the frame of the leg it hears. A frame that was lost is said to be lost: a
// gap would look like a pause.
func (l *leg) pass(n uint64) {
	x := l.via
	if x.cur.verdict == jitter.Silence {
		if !l.kind.dtx || n >= l.sidAt+2*l.kind.sidEvery() { // nor is there comfort noise
			l.sendSilence(n)
		}
		return
	}
	e := x.forward(n)
	if e.ft == ftComfort && !l.kind.amr() && !l.kind.dtx { // it did not take comfort noise
		l.sendSilence(n)
		return
	}
	if l.kind.amr() && e.ft <= 8 && l.isSpeech(e.ft) {
		l.mode = int(e.ft) // from where an encoder would go on
	}
	l.send(e, n)
}

// forward is the leg's frame of this tick, as it goes to whoever hears only this leg.
func (l *leg) forward(n uint64) *encoded {
	if l.fwdTick == n+1 {
		return &l.fwd
	}
	l.fwdTick = n + 1
	c := &l.cur
	switch {
	case c.verdict != jitter.Conceal:
		l.fwd.set(c.ft, c.bits)
		l.fwd.bad = c.bad
	case l.kind.isOpus(): // a number is left out: the peer's decoder has FEC and concealment of its own
		l.fwd.set(amr.NoData, nil)
		l.fwd.lost = true
	case !l.kind.amr(): // once more what was heard last, while that is fresh
		l.fwd.set(ftSpeech, l.st.silence.frames[0].bits)
		if last := l.past.newest(); last != nil {
			l.fwd.set(ftSpeech, last)
		}
	case l.kind.wide():
		l.fwd.set(amr.SpeechLost, nil)
	default:
		l.fwd.set(amr.NoData, nil)
		l.fwd.lost = true
	}
	return &l.fwd
}
