package rtp264

const (
	// reorderSlots bounds what waits. It divides 65536, so that the slots stay in step when
	// sequence numbers wrap.
	reorderSlots = 64
	// reorderDepth is how far ahead a packet may be where nothing is sent again.
	reorderDepth = 16
	// patience is how many packets may wait for a missing one: two pictures' worth on
	// a phone's 240x320 stream, about 130 ms.
	patience = 6
)

// Reorder puts packets back into sequence. A packet that is next goes through at
// once; one that is early waits until the gap fills or six packets wait, then the gap is
// given up. Late and repeated packets are dropped. Payloads are copied only when they have
// to wait. The zero value is ready; not safe for concurrent use.
type Reorder struct {
	// Patient is for a sender that was asked to send again what is missing: a key frame is a
	// burst, so as many packets may wait as there is room for, and the owner says by GiveUp
	// when it has been long enough.
	Patient bool
	Late    uint64 // packets dropped because their place had passed or was taken
	started bool
	next    uint16
	newest  uint16 // of those that wait
	slots   [reorderSlots]slot
	waiting int
}

type slot struct {
	full    bool
	seq     uint16
	ts      uint32
	marker  bool
	payload []byte
}

// jump is a distance in sequence numbers that no reordering explains: the sender
// began anew.
const jump = 1000

// Push takes one packet and calls out for every packet that is in order now.
func (r *Reorder) Push(payload []byte, seq uint16, ts uint32, marker bool, out func(payload []byte, seq uint16, ts uint32, marker bool)) {
	if !r.started {
		r.started, r.next = true, seq
	}
	ahead := int16(seq - r.next)
	if ahead > jump || ahead < -jump {
		r.Flush(out)
		r.next, ahead = seq, 0
	}
	switch {
	case ahead < 0:
		r.Late++
		return
	case ahead == 0:
		out(payload, seq, ts, marker)
		r.next++
	default:
		for int(ahead) >= r.depth() { // no room that far ahead: give up the oldest gap
			if r.waiting > 0 {
				r.skip(out)
			} else {
				r.next = seq - uint16(r.depth()-1)
			}
			ahead = int16(seq - r.next)
		}
		if ahead <= 0 {
			r.Push(payload, seq, ts, marker, out) // the skip made it next
			return
		}
		s := &r.slots[seq%reorderSlots]
		if s.full {
			r.Late++
			return
		}
		*s = slot{full: true, seq: seq, ts: ts, marker: marker, payload: append(s.payload[:0], payload...)}
		if r.waiting++; r.waiting == 1 || int16(seq-r.newest) > 0 {
			r.newest = seq
		}
		if r.waiting >= patience && !r.Patient {
			r.skip(out)
		}
	}
	r.drain(out)
}

func (r *Reorder) depth() int {
	if r.Patient {
		return reorderSlots
	}
	return reorderDepth
}

// Gap is the packet that others wait for, and how many do; 0: none does.
func (r *Reorder) Gap() (seq uint16, waiting int) { return r.next, r.waiting }

// Missing appends the packets that others wait for to list, oldest first.
func (r *Reorder) Missing(list []uint16) []uint16 {
	if r.waiting == 0 {
		return list
	}
	for seq := r.next; seq != r.newest; seq++ {
		if s := &r.slots[seq%reorderSlots]; !s.full || s.seq != seq {
			list = append(list, seq)
		}
	}
	return list
}

// GiveUp goes on without the packets that are due, as skip does when too many wait.
func (r *Reorder) GiveUp(out func(payload []byte, seq uint16, ts uint32, marker bool)) {
	if r.waiting > 0 {
		r.skip(out)
	}
}

// skip gives up the packets that are due and goes on to the next that is there.
func (r *Reorder) skip(out func([]byte, uint16, uint32, bool)) {
	for range reorderSlots {
		r.next++
		if s := &r.slots[r.next%reorderSlots]; s.full && s.seq == r.next {
			break
		}
	}
	r.drain(out)
}

func (r *Reorder) drain(out func([]byte, uint16, uint32, bool)) {
	for r.waiting > 0 {
		s := &r.slots[r.next%reorderSlots]
		if !s.full || s.seq != r.next {
			return
		}
		s.full = false
		r.waiting--
		r.next++
		out(s.payload, s.seq, s.ts, s.marker)
	}
}

// Flush gives up every gap and puts out what waits.
func (r *Reorder) Flush(out func([]byte, uint16, uint32, bool)) {
	for r.waiting > 0 {
		r.skip(out)
	}
}

// Reset forgets what waits: another source begins.
func (r *Reorder) Reset() {
	for i := range r.slots {
		r.slots[i].full = false
	}
	r.started, r.waiting = false, 0
}
