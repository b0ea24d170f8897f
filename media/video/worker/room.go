package worker

import (
	"bytes"
	"image/jpeg"
	"sync/atomic"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/mosaic"
	"sparkle/media/video/wire"
)

const (
	// holdLast is how long the last good picture of a source stays before its avatar.
	holdLast = 2 * time.Second
	// brokenFor is how long pictures after a loss are not shown for want of a key frame. It
	// has been asked for four times by then: some phones cannot be asked and never send one,
	// but renew their pictures piece by piece.
	brokenFor = 5 * time.Second
	// keyGap is the least time between two key frames of a tier: requests of many
	// legs within it are one.
	keyGap = 500 * time.Millisecond
	// askGap is the least time between two reports that a source needs a key frame.
	askGap = 500 * time.Millisecond
	// maxSources bounds the decoders of one conference.
	maxSources = 64
	// maxWaiting bounds the pictures of a source that are not due yet.
	maxWaiting = 16
	// previewWidth and previewHeight are the canvas of a preview nobody else watches.
	previewWidth, previewHeight = 640, 480
)

// message is one thing to do; exactly one field is set.
type message struct {
	set     *wire.Conference
	unit    *wire.Unit
	key     uint32
	preview *wire.Preview
}

// source is one member's camera.
type source struct {
	dec      *h264.Decoder
	own      *yuv.Image  // the decoder's last picture, if that is what is shown
	waiting  []wire.Unit // that are not due yet, in order
	broken   time.Time   // since when something is missing in the pictures; zero: nothing is
	upright  *yuv.Image  // a rotated copy, when CVO says so
	turned   *yuv.Image  // scratch for mirror
	shown    *yuv.Image  // what the tile shows: own, upright or turned
	gen      uint64
	at       time.Time // of the last picture
	w, h     int       // as reported
	asked    time.Time
	reported bool
}

// encoder is what a room needs of a h264.Encoder.
type encoder interface {
	Encode(m *yuv.Image, ms int64) (au []byte, key bool, err error)
	ForceKeyFrame()
	Close()
}

// tier is one encoding.
type tier struct {
	want    wire.Tier
	enc     encoder
	due     time.Time // of the next picture
	lastKey time.Time
	wantKey bool
	broken  bool // the encoder refused: said once
}

// room is one conference. Only run touches it, but for the atomics and the inbox.
type room struct {
	w     *worker
	id    string
	inbox chan message
	free  chan []byte // buffers of decoded units, to be used again
	gone  chan struct{}
	done  chan struct{}
	alive atomic.Int64 // UnixNano of the last sign of progress
	stats atomic.Pointer[wire.Room]

	conf     wire.Conference
	sources  map[uint32]*source
	tiers    map[uint32]*tier
	canvases map[[2]int]*mosaic.Canvas
	tiles    []mosaic.Tile
	count    wire.Room
}

func newRoom(w *worker, id string) *room {
	r := &room{w: w, id: id, inbox: make(chan message, 256), free: make(chan []byte, 64), gone: make(chan struct{}), done: make(chan struct{}),
		sources: map[uint32]*source{}, tiers: map[uint32]*tier{}, canvases: map[[2]int]*mosaic.Canvas{}}
	r.alive.Store(time.Now().UnixNano())
	r.stats.Store(&wire.Room{})
	return r
}

// post hands a message over; it waits while the inbox is full.
func (r *room) post(m message) {
	select {
	case r.inbox <- m:
	case <-r.done:
	}
}

// buffer is an empty buffer for n octets.
func (r *room) buffer(n int) []byte {
	select {
	case b := <-r.free:
		if cap(b) >= n {
			return b[:0]
		}
	default:
	}
	return make([]byte, 0, n+n/2)
}

func (r *room) run() {
	defer close(r.done)
	defer r.release()
	period := time.Second / time.Duration(r.w.opt.FPS)
	next := time.Now().Add(period)
	timer := time.NewTimer(period)
	defer timer.Stop()
	for {
		var began time.Time
		select {
		case m := <-r.inbox:
			began = time.Now()
			r.take(m)
		case <-timer.C:
			began = time.Now()
			r.tick(began)
			if next = next.Add(period); next.Before(began) { // late: skip, do not catch up
				next = began.Add(period)
			}
			timer.Reset(time.Until(next))
		case <-r.gone:
			return
		case <-r.w.ctx.Done():
			return
		}
		now := time.Now()
		r.count.Busy += now.Sub(began)
		r.alive.Store(now.UnixNano())
	}
}

func (r *room) release() {
	for _, s := range r.sources {
		s.dec.Close()
	}
	for _, t := range r.tiers {
		t.close()
	}
}

func (t *tier) close() {
	if t.enc != nil {
		t.enc.Close()
		t.enc = nil
	}
}

func (r *room) take(m message) {
	switch {
	case m.set != nil:
		r.set(*m.set)
	case m.unit != nil:
		r.arrive(m.unit, time.Now())
	case m.preview != nil:
		r.preview(m.preview)
	default:
		if t := r.tiers[m.key]; t != nil {
			t.wantKey = true
		}
	}
}

// set takes the wanted state: decoders and encoders that nobody wants any more go.
func (r *room) set(c wire.Conference) {
	r.conf = c
	live := map[uint32]bool{}
	for _, t := range c.Tiles {
		live[t.Source] = true
	}
	for id, s := range r.sources {
		if !live[id] {
			s.dec.Close()
			delete(r.sources, id)
		}
	}
	tiers, sizes := map[uint32]*tier{}, map[[2]int]bool{{previewWidth, previewHeight}: true}
	for _, want := range c.Tiers {
		t := r.tiers[want.ID]
		if t == nil {
			t = &tier{want: want}
		}
		delete(r.tiers, want.ID)
		t.want = want // an id's encoding never changes, only KeyEvery may
		tiers[want.ID] = t
		sizes[[2]int{want.Width, want.Height}] = true
	}
	for _, t := range r.tiers {
		t.close()
	}
	r.tiers = tiers
	for size := range r.canvases {
		if !sizes[size] {
			delete(r.canvases, size)
		}
	}
	r.publish()
}

// arrive decodes a picture that is due, and has another wait. None is shown before a tick.
func (r *room) arrive(u *wire.Unit, now time.Time) {
	s := r.source(u.ID)
	switch {
	case s == nil:
	case len(s.waiting) == 0 && u.At <= now.UnixNano():
		r.decode(s, u, now)
	default:
		if s.waiting = append(s.waiting, *u); len(s.waiting) > maxWaiting {
			r.decodeDue(s, s.waiting[0].At, now)
		}
		return
	}
	r.recycle(u.Data)
}

// decodeDue decodes what waits and is due by then.
func (r *room) decodeDue(s *source, then int64, now time.Time) {
	n := 0
	for n < len(s.waiting) && s.waiting[n].At <= then {
		r.decode(s, &s.waiting[n], now)
		r.recycle(s.waiting[n].Data)
		n++
	}
	s.waiting = append(s.waiting[:0], s.waiting[n:]...)
}

// recycle keeps a unit's buffer for another.
func (r *room) recycle(b []byte) {
	select {
	case r.free <- b:
	default:
	}
}

// source is the decoder of a source, nil if there are too many.
func (r *room) source(id uint32) *source {
	s := r.sources[id]
	if s != nil || len(r.sources) >= maxSources {
		return s
	}
	dec, err := h264.NewDecoder()
	if err != nil {
		r.w.opt.Log.Error("no decoder", "conference", r.id, "err", err)
		return nil
	}
	s = &source{dec: dec}
	r.sources[id] = s
	return s
}

// decode shows one access unit to its decoder.
func (r *room) decode(s *source, u *wire.Unit, now time.Time) {
	img, err := s.dec.Decode(u.Data)
	if err != nil {
		r.count.DecodeErrors++
	}
	if s.spoiled(u, img, err, now) {
		r.ask(u.ID, s, now)
		return
	}
	if img, err = s.orient(img, int(u.Rotate)*90, u.Mirror); err != nil {
		r.count.DecodeErrors++
		return
	}
	s.shown, s.at = img, now
	s.gen++
	if !s.reported || s.w != img.Width || s.h != img.Height {
		s.reported, s.w, s.h = true, img.Width, img.Height
		r.w.send(wire.AppendJSON(nil, wire.TypeSource, wire.Source{ID: u.ID, Width: s.w, Height: s.h}))
	}
}

// spoiled says whether a picture is none to be shown: there is none, something is missing in
// it, or it is predicted from one where that is so. Only a key frame mends that, and of one
// the decoder knows better than the packets: what is missing may have been before it.
func (s *source) spoiled(u *wire.Unit, img *yuv.Image, err error, now time.Time) bool {
	bad := err != nil || img != nil && s.dec.Damaged() || u.Damaged && !u.Key
	switch {
	case bad && s.broken.IsZero():
		s.broken = now
	case u.Key && !bad && img != nil:
		s.broken = time.Time{}
	}
	return img == nil || !s.broken.IsZero() && now.Sub(s.broken) < brokenFor
}

// ask reports that a source needs a key frame, now and then.
func (r *room) ask(id uint32, s *source, now time.Time) {
	if now.Sub(s.asked) < askGap {
		return
	}
	s.asked = now
	r.w.send(wire.AppendJSON(nil, wire.TypeSource, wire.Source{ID: id, Width: s.w, Height: s.h, NeedKey: true}))
}

// orient turns the decoder's picture upright (CVO, 3GPP TS 26.114 §7.4.5). The result stays
// as it is until the next that is shown.
func (s *source) orient(img *yuv.Image, degrees int, flip bool) (*yuv.Image, error) {
	if flip {
		s.turned = yuv.Resized(s.turned, img.Width, img.Height)
		if err := yuv.Mirror(s.turned, img); err != nil {
			return nil, err
		}
		img = s.turned
	}
	if degrees == 0 {
		if !flip {
			s.own = s.dec.Swap(s.own)
			return s.own, nil
		}
		return img, nil
	}
	w, h := img.Width, img.Height
	if degrees != 180 {
		w, h = h, w
	}
	s.upright = yuv.Resized(s.upright, w, h)
	return s.upright, yuv.Rotate(s.upright, img, degrees)
}

// tick composes every canvas that somebody watches and encodes every tier once.
func (r *room) tick(now time.Time) {
	defer r.publish()
	half := time.Second / time.Duration(2*r.w.opt.FPS)
	for _, s := range r.sources {
		r.decodeDue(s, now.Add(half).UnixNano(), now) // the nearest tick is the best that can be
	}
	if len(r.tiers) == 0 {
		return
	}
	r.gather(now)
	composed := map[[2]int]*yuv.Image{}
	for _, t := range r.tiers {
		if now.Before(t.due) || t.broken {
			continue
		}
		if t.due = t.due.Add(time.Second / time.Duration(t.want.FPS)); t.due.Before(now) {
			t.due = now.Add(time.Second/time.Duration(t.want.FPS) - time.Second/time.Duration(2*r.w.opt.FPS))
		}
		size := [2]int{t.want.Width, t.want.Height}
		img := composed[size]
		if img == nil {
			img = r.compose(size)
			composed[size] = img
		}
		r.encode(t, img, now)
	}
}

// gather makes the tiles of this moment.
func (r *room) gather(now time.Time) {
	r.tiles = r.tiles[:0]
	for _, t := range r.conf.Tiles {
		tile := mosaic.Tile{Leg: t.Leg, Name: t.Name, Talking: t.Talking, Muted: t.Muted}
		if s := r.sources[t.Source]; s != nil && s.shown != nil && now.Sub(s.at) < holdLast {
			tile.Picture, tile.Gen = s.shown, s.gen
		}
		r.tiles = append(r.tiles, tile)
	}
}

func (r *room) compose(size [2]int) *yuv.Image {
	c := r.canvases[size]
	if c == nil {
		c = mosaic.NewCanvas(size[0], size[1], r.w.opt.Fonts)
		r.canvases[size] = c
	}
	r.count.Composed++
	return c.Compose(r.tiles)
}

func (r *room) encode(t *tier, img *yuv.Image, now time.Time) {
	if t.enc == nil {
		enc, err := r.w.newEncoder(h264.Params{Width: t.want.Width, Height: t.want.Height, FPS: t.want.FPS,
			BitrateBps: t.want.BitrateBps, ProfileLevelID: t.want.Profile, MaxSlice: t.want.MaxSlice})
		if err != nil {
			t.broken = true
			r.w.opt.Log.Error("no encoder", "conference", r.id, "tier", t.want, "err", err)
			return
		}
		t.enc = enc
	}
	since := now.Sub(t.lastKey)
	if t.wantKey && since >= keyGap || t.want.KeyEvery > 0 && since >= t.want.KeyEvery {
		t.enc.ForceKeyFrame()
	}
	au, key, err := t.enc.Encode(img, now.UnixMilli())
	if err != nil {
		r.w.opt.Log.Error("encoding failed: starting the encoder anew", "conference", r.id, "err", err)
		t.close()
		t.due = now.Add(time.Second)
		return
	}
	if len(au) == 0 {
		return
	}
	r.count.Encoded++
	if key {
		t.lastKey, t.wantKey = now, false
		r.count.Keys++
	}
	r.w.send(wire.AppendUnit(nil, wire.TypeEncoded, &wire.Unit{ID: t.want.ID, Key: key, At: now.UnixNano(), Data: au}))
}

// preview answers with the largest canvas that somebody watches, composed anew.
func (r *room) preview(p *wire.Preview) {
	r.gather(time.Now())
	size := [2]int{}
	for _, t := range r.tiers {
		if t.want.Width*t.want.Height > size[0]*size[1] {
			size = [2]int{t.want.Width, t.want.Height}
		}
	}
	if size[0] == 0 {
		size = [2]int{previewWidth, previewHeight}
	}
	quality := p.Quality
	if quality < 1 || quality > 100 {
		quality = 75
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, r.compose(size).Full(), &jpeg.Options{Quality: quality}); err != nil {
		r.w.opt.Log.Error("preview", "conference", r.id, "err", err)
		b.Reset()
	}
	r.w.send(wire.AppendID(nil, wire.TypeJPEG, p.ID, b.Bytes()))
}

func (r *room) publish() {
	c := r.count
	c.Tiles, c.Tiers = uint32(len(r.conf.Tiles)), uint32(len(r.tiers))
	r.stats.Store(&c)
}
