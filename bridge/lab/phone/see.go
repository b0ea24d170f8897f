package phone

import (
	"slices"
	"sync"
	"time"

	"sparkle/media/codec/yuv"
)

// Seen is what was visible to a handset.
type Seen struct {
	Moving        []string // speakers whose picture moved, in their order; nameless ones are left out
	Speakers      []int    // the same, by number
	Named         []string // of the names asked for, those that can be read
	Frames        int      // pictures that came
	Width, Height int      // of the last one
}

const (
	lookEvery = 400 * time.Millisecond // pictures are kept so far apart
	looks     = 64                     // kept: 25 s
)

// look is a kept picture.
type look struct {
	at   time.Time
	w, h int
	y    []byte
}

// watcher keeps some of the pictures that a handset showed, and finds out on request who
// is in them: the call itself only pays for a copy now and then.
type watcher struct {
	mu     sync.Mutex
	ring   [looks]look
	next   int
	times  []time.Time // of all pictures in the last minute
	latest *yuv.Image  // for dumps
}

func newWatcher() *watcher { return &watcher{} }

func (w *watcher) feed(img *yuv.Image, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times = append(w.times, now)
	if i := slices.IndexFunc(w.times, func(t time.Time) bool { return now.Sub(t) < memory }); i > 256 {
		w.times = slices.Delete(w.times, 0, i)
	}
	last := &w.ring[(w.next+looks-1)%looks]
	if now.Sub(last.at) < lookEvery {
		return
	}
	l := &w.ring[w.next]
	w.next = (w.next + 1) % looks
	l.at, l.w, l.h = now, img.Width, img.Height
	l.y = slices.Grow(l.y[:0], img.Width*img.Height)
	for r := range img.Height {
		l.y = append(l.y, img.Y[r*img.YStride:][:img.Width]...)
	}
	w.latest = yuv.Resized(w.latest, img.Width, img.Height)
	_ = img.CopyTo(w.latest) // same size
}

// since returns copies of the kept pictures, oldest first.
func (w *watcher) since(t time.Time) (kept []look, frames int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.ring {
		l := w.ring[(w.next+i)%looks]
		if !l.at.IsZero() && !l.at.Before(t) {
			l.y = slices.Clone(l.y)
			kept = append(kept, l)
		}
	}
	for _, at := range w.times {
		if !at.Before(t) {
			frames++
		}
	}
	return kept, frames
}

const (
	minSights   = 3 // pictures in which a speaker's mark is found at one place
	minCounts   = 3 // different counters in them
	maxWatched  = 12
	namesLooked = 2 // pictures that are read for names
)

func (w *watcher) seen(since time.Time, speakers, names []string) Seen {
	kept, frames := w.since(since)
	s := Seen{Frames: frames}
	if len(kept) == 0 {
		return s
	}
	last := kept[len(kept)-1]
	s.Width, s.Height = last.w, last.h
	kept = kept[max(0, len(kept)-maxWatched):]
	var sights [Speakers]int
	var seenCounts [Speakers]uint16
	var known []sighting
	for i, l := range kept {
		// Tiles stay where they are for a while: every third picture is searched.
		light := newLuma(l.y, l.w, l.h)
		sighted := light.again(known)
		if i%3 == 0 || len(sighted) < len(known) {
			sighted = light.marks()
			known = sighted
		}
		for _, m := range sighted {
			sights[m.speaker]++
			seenCounts[m.speaker] |= 1 << m.count
		}
	}
	for sp := range Speakers {
		if sights[sp] < minSights || ones(seenCounts[sp]) < minCounts {
			continue
		}
		s.Speakers = append(s.Speakers, sp)
		if sp < len(speakers) && speakers[sp] != "" {
			s.Moving = append(s.Moving, speakers[sp])
		}
	}
	s.Named = readNames(kept[max(0, len(kept)-namesLooked):], names)
	return s
}

func ones(v uint16) (n int) {
	for ; v != 0; v &= v - 1 {
		n++
	}
	return n
}
