package video

import (
	"sync"

	"sparkle/media/video/wire"
)

const (
	// maxUnits and maxOctets bound the pictures that wait for the video process: about
	// a second of sixteen sources.
	maxUnits  = 256
	maxOctets = 8 << 20
)

// outbox is what waits for the video process. Nobody ever waits to put something in:
//
//   - Pictures: when full, the oldest is dropped and its source has to bring a key
//     frame before anything of it is taken again.
//   - Wanted states: one per conference, the newest wins.
//   - Key-frame wishes: one per tier.
//   - Previews: the caller bounds them.
type outbox struct {
	mu      sync.Mutex
	wake    chan struct{} // capacity 1: there is something
	confs   map[string]wire.Conference
	closes  map[string]bool
	keys    map[uint32]bool
	asks    []wire.Preview
	ping    uint32
	units   [][]byte
	from    []uint32 // the source of each unit
	octets  int
	needKey map[uint32]bool
	spare   [][]byte
	dropped uint64
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), confs: map[string]wire.Conference{}, closes: map[string]bool{},
		keys: map[uint32]bool{}, needKey: map[uint32]bool{}}
}

func (o *outbox) kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) setConference(c wire.Conference) {
	o.mu.Lock()
	delete(o.closes, c.ID)
	o.confs[c.ID] = c
	o.mu.Unlock()
	o.kick()
}

func (o *outbox) closeConference(id string) {
	o.mu.Lock()
	delete(o.confs, id)
	o.closes[id] = true
	o.mu.Unlock()
	o.kick()
}

func (o *outbox) keyFrame(tier uint32) {
	o.mu.Lock()
	o.keys[tier] = true
	o.mu.Unlock()
	o.kick()
}

func (o *outbox) preview(p wire.Preview) {
	o.mu.Lock()
	o.asks = append(o.asks, p)
	o.mu.Unlock()
	o.kick()
}

func (o *outbox) setPing(id uint32) {
	o.mu.Lock()
	o.ping = id
	o.mu.Unlock()
	o.kick()
}

// unit takes a copy of a picture. False: it was not taken, the source must send a
// key frame.
func (o *outbox) unit(u *wire.Unit) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.needKey[u.ID] {
		if !u.Key {
			o.dropped++
			return false
		}
		delete(o.needKey, u.ID)
	}
	for len(o.units) > 0 && (len(o.units) >= maxUnits || o.octets+len(u.Data) > maxOctets) {
		victim := o.from[0]
		o.needKey[victim] = true
		o.dropWhere(func(from uint32) bool { return from == victim }) // what builds on it is worth nothing
		if victim == u.ID && !u.Key {
			o.dropped++
			return false
		}
		if victim == u.ID {
			delete(o.needKey, victim)
		}
	}
	var b []byte
	if n := len(o.spare); n > 0 {
		b, o.spare = o.spare[n-1], o.spare[:n-1]
	}
	b = wire.AppendUnit(b[:0], wire.TypeUnit, u)
	o.units, o.from = append(o.units, b), append(o.from, u.ID)
	o.octets += len(b)
	o.kick()
	return true
}

func (o *outbox) dropWhere(is func(uint32) bool) {
	keep := 0
	for i, b := range o.units {
		if is(o.from[i]) {
			o.octets -= len(b)
			o.dropped++
			o.recycle(b)
			continue
		}
		o.units[keep], o.from[keep] = b, o.from[i]
		keep++
	}
	clear(o.units[keep:])
	o.units, o.from = o.units[:keep], o.from[:keep]
}

func (o *outbox) recycle(b []byte) {
	if len(o.spare) < 64 && cap(b) <= 256<<10 {
		o.spare = append(o.spare, b)
	}
}

// await takes no more pictures of a source before a key frame.
func (o *outbox) await(source uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.needKey[source] = true
	o.dropWhere(func(from uint32) bool { return from == source })
}

// forget drops what is kept about a source that is gone.
func (o *outbox) forget(source uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.needKey, source)
	o.dropWhere(func(from uint32) bool { return from == source })
}

// restart empties the box for a new video process, which starts from these states.
func (o *outbox) restart(confs []wire.Conference) {
	o.mu.Lock()
	o.dropWhere(func(uint32) bool { return true })
	clear(o.confs)
	clear(o.closes)
	clear(o.keys)
	o.ping = 0 // previews stay: their callers still wait
	for _, c := range confs {
		o.confs[c.ID] = c
	}
	o.mu.Unlock()
	o.kick()
}

// take moves what waits into b as messages: states first, so that pictures find
// their conference, and pictures until b is large. It returns b, empty if nothing
// waits.
func (o *outbox) take(b []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.closes {
		b = wire.AppendJSON(b, wire.TypeClose, wire.Conference{ID: id})
	}
	for _, c := range o.confs {
		b = wire.AppendJSON(b, wire.TypeConference, c)
	}
	for id := range o.keys {
		b = wire.AppendID(b, wire.TypeKeyFrame, id, nil)
	}
	for _, p := range o.asks {
		b = wire.AppendJSON(b, wire.TypePreview, p)
	}
	if o.ping != 0 {
		b = wire.AppendID(b, wire.TypePing, o.ping, nil)
	}
	clear(o.closes)
	clear(o.confs)
	clear(o.keys)
	o.asks, o.ping = nil, 0
	n := 0
	for n < len(o.units) && len(b) < 64<<10 {
		b = append(b, o.units[n]...)
		o.octets -= len(o.units[n])
		o.recycle(o.units[n])
		n++
	}
	o.units = append(o.units[:0], o.units[n:]...)
	o.from = append(o.from[:0], o.from[n:]...)
	if len(o.units) > 0 {
		o.kick()
	}
	return b
}
