package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
)

// soundMax is the longest sound: what fits into one gRPC message of the default size.
const soundMax = 2 * time.Minute

// Play implements API.
func (e *Engine) Play(_ context.Context, r *mediapb.PlayRequest) error {
	if r.GetLeg() == "" {
		return invalid("leg", "is empty")
	}
	s, err := newSound(r)
	if err != nil {
		return err
	}
	le := e.findLeg(r.Leg)
	if le == nil {
		return status.Errorf(codes.NotFound, "media: no leg %q", r.Leg)
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.closed {
		return status.Errorf(codes.NotFound, "media: no leg %q", r.Leg)
	}
	now := e.clock()
	return le.re.w.do(func() {
		l := le.leg.Load()
		l.prompted = l.prompted || s != nil
		if old := l.player.start(s); old != nil {
			le.re.w.note(note{what: notePlayEnded, leg: l, at: now, id: old.id, cut: true})
		}
	})
}

// sound is what a leg is played. Only pos changes, on the worker.
type sound struct {
	id   string
	pcm  []int16 // at the mix's rate, never empty
	loop bool
	pos  int
}

// newSound is nil for a request to stop.
func newSound(r *mediapb.PlayRequest) (*sound, error) {
	n := len(r.Pcm) / 2
	switch {
	case len(r.Pcm)%2 != 0:
		return nil, invalid("pcm", fmt.Sprintf("%d octets are not whole samples", len(r.Pcm)))
	case n > int(soundMax/tickTime)*frameLen:
		return nil, invalid("pcm", fmt.Sprintf("is longer than %v", soundMax))
	case n == 0:
		return nil, nil
	}
	s := &sound{id: r.Id, loop: r.Loop, pcm: make([]int16, n)}
	for i := range s.pcm {
		s.pcm[i] = int16(binary.LittleEndian.Uint16(r.Pcm[2*i:]))
	}
	return s, nil
}

// left is how many samples are still to come; a loop has no end.
func (s *sound) left() int {
	if s.loop {
		return frameLen + rampLen
	}
	return len(s.pcm) - s.pos
}

// next is the sample at pos, and moves on.
func (s *sound) next() float32 {
	v := s.pcm[s.pos]
	if s.pos++; s.loop && s.pos == len(s.pcm) {
		s.pos = 0
	}
	return float32(v)
}

// player lets a leg hear sounds, one at a time. Each comes in and goes out under a
// ramp, also where it is cut or replaced: no click. The worker's.
type player struct {
	now    *sound // nil: none
	fresh  bool   // now has not been heard yet
	fading *sound // was cut: goes out in the next frame
}

// start plays s, or nothing, from the next frame on, and returns what it cut.
func (p *player) start(s *sound) (cut *sound) {
	cut = p.now
	if cut != nil && !p.fresh {
		p.fading = cut
	}
	p.now, p.fresh = s, s != nil
	return cut
}

func (p *player) active() bool { return p.now != nil || p.fading != nil }

// frame makes 20 ms of it and returns the sound that ended with them by itself.
func (p *player) frame(out *[frameLen]int32) (ended *sound) {
	clear(out[:])
	if s := p.fading; s != nil {
		p.fading = nil
		for i := range min(rampLen, s.left()) {
			out[i] += int32(s.next() * float32(rampLen-1-i) / rampLen)
		}
	}
	s := p.now
	if s == nil {
		return nil
	}
	for i := range min(frameLen, s.left()) {
		gain := float32(min(s.left()-1, rampLen)) / rampLen
		if p.fresh && i < rampLen {
			gain *= float32(i+1) / rampLen
		}
		out[i] += int32(s.next() * gain)
	}
	p.fresh = false
	if s.left() == 0 {
		p.now = nil
		return s
	}
	return nil
}
