package media

import (
	"slices"
	"testing"
	"time"

	"sparkle/media/mediapb"
	"sparkle/media/payload"
	"sparkle/media/rtp"
)

// The mode that a phone is asked for follows what is lost of its stream, within its set.
func TestModeIsAskedForByLoss(t *testing.T) {
	s := &stream{kind: coderKind{codec: wb}, modes: 1<<0 | 1<<2 | 1<<5 | 1<<8}
	rx, w := rtp.Source{Clock: 16000}, newWish
	w.heard = 8
	seq, now := uint16(0), time.Hour
	var asked []uint8
	run := func(d time.Duration, loss int) []uint8 { // of 100 packets
		asked = asked[:0]
		for end := now + d; now < end; now += 20 * time.Millisecond {
			if seq++; int(seq)%100 >= loss {
				rx.Add(&rtp.Packet{SSRC: 1, Seq: seq, Timestamp: uint32(seq) * 320}, now)
			}
			if now%time.Second == 0 {
				if w.step(s, &rx, int64(now)); len(asked) == 0 || asked[len(asked)-1] != w.cmr {
					asked = append(asked, w.cmr)
				}
			}
		}
		return asked
	}
	for _, tt := range []struct {
		d    time.Duration
		loss int
		want []uint8
	}{
		{10 * time.Second, 0, []uint8{15}},
		{20 * time.Second, 2, []uint8{15}},
		{6 * time.Second, 10, []uint8{15, 5}}, // one step below what it sends
		{20 * time.Second, 10, []uint8{2, 0}},
		{20 * time.Second, 10, []uint8{0}}, // there is no lower one
		{20 * time.Second, 2, []uint8{0}},  // neither bad nor good
		{12 * time.Second, 0, []uint8{0}},  // ten seconds without, and the five that the window forgets in
		{10 * time.Second, 0, []uint8{2}},
		{30 * time.Second, 0, []uint8{5, 15}}, // the highest is no wish
	} {
		if got := run(tt.d, tt.loss); !slices.Equal(got, tt.want) {
			t.Errorf("%d %% lost for %v: asked for %v, want %v", tt.loss, tt.d, got, tt.want)
		}
	}
	w, rx = newWish, rtp.Source{Clock: 16000} // comfort noise: a lost packet is 3 %
	for i := range 200 {
		now += 160 * time.Millisecond
		if seq++; i%30 != 29 {
			rx.Add(&rtp.Packet{SSRC: 1, Seq: seq, Timestamp: uint32(seq) * 2560}, now)
		}
		w.step(s, &rx, int64(now))
	}
	if w.cmr != payload.NoRequest {
		t.Errorf("asked for %d in a pause", w.cmr)
	}
}

// A phone whose packets get lost is asked for less in what it hears, and nobody else is,
// though all hear the same.
func TestAWishIsOfOneLeg(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	a.join("c", "talker", wb, 500)
	x := a.join("c", "x", wb, 300)
	y := a.join("c", "y", wb, 0)
	set := a.join("c", "set", wb, 400, func(l *mediapb.Leg) { l.Audio.ModeSet = []uint32{0, 1, 2}; l.Audio.OctetAlign = true })
	set.mode = 2
	x.drop = func(n int) bool { return n%10 == 0 }
	set.drop = x.drop
	a.run(5 * time.Second)
	if got := x.asked[len(x.asked)-1]; got != 7 {
		t.Errorf("who loses 10 %% of mode 8 is asked for %d, want 7", got)
	}
	if got := set.asked[len(set.asked)-1]; got != 1 {
		t.Errorf("who loses 10 %% of mode 2 of a set of three is asked for %d, want 1", got)
	}
	for _, cmr := range y.asked {
		if cmr != payload.NoRequest {
			t.Fatalf("who loses nothing is asked for %d", cmr)
		}
	}
	x.drop, set.drop = nil, nil
	a.run(27 * time.Second)
	if got := x.asked[len(x.asked)-1]; got != payload.NoRequest {
		t.Errorf("27 s after the last loss x is still asked for %d", got)
	}
	x.leg.Audio.ModeSet = []uint32{2}
	x.mode = 2
	x.drop = func(n int) bool { return n%10 == 0 }
	x.update()
	a.run(8 * time.Second)
	if got := x.asked[len(x.asked)-1]; got != 2 && got != payload.NoRequest {
		t.Errorf("a set of one is asked for %d", got)
	}
}

// steps checks that modes change to a neighbour and every second frame only.
func (p *phone) steps(t *testing.T) (changes int) {
	t.Helper()
	last, at := uint8(15), uint32(0)
	for i, ft := range p.fts {
		if ft > 8 {
			continue
		}
		frame := p.packets[i].Timestamp / 320
		if last != 15 && ft != last {
			changes++
			if d := int(ft) - int(last); d != 1 && d != -1 {
				t.Errorf("%s is sent mode %d after %d", p.leg.Id, ft, last)
			}
			if at != 0 && (frame-at)%2 != 0 {
				t.Errorf("%s is sent another mode %d frames after the last change", p.leg.Id, frame-at)
			}
			at = frame
		}
		last = ft
	}
	return changes
}

// Who is encoded for starts with the second lowest mode and, when that gets through, is
// brought to the highest in steps that every peer can take.
func TestModesStartLowAndRise(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	a.join("c", "x", wb, 500)
	a.join("c", "y", wb, 300)
	a.run(time.Second)
	z := a.join("c", "z", wb, 0)
	a.run(2 * time.Second)
	if z.fts[0] != 1 {
		t.Errorf("begins with mode %d, want the second lowest", z.fts[0])
	}
	if n := z.steps(t); n != 7 || z.fts[len(z.fts)-1] != 8 {
		t.Errorf("%d steps to mode %d", n, z.fts[len(z.fts)-1])
	}
	if z.fts[20] != 1 || z.fts[50] != 8 {
		t.Errorf("mode %d after 400 ms and %d after a second", z.fts[20], z.fts[50])
	}
}

// A peer whose description says how modes may change is not passed frames that change
// otherwise: its own encoder makes them.
func TestFramesOfAnotherModeArePassedToWhoTakesThem(t *testing.T) {
	for _, strict := range []bool{true, false} {
		a := newAir(t, Options{})
		a.set(confC())
		x := a.join("c", "x", wb, 500)
		y := a.join("c", "y", wb, 0, func(l *mediapb.Leg) {
			if strict {
				l.Audio.ModeChangePeriod, l.Audio.ModeChangeNeighbor = 2, true
			}
		})
		a.join("c", "z", wb, 0)
		a.run(2 * time.Second)
		y.fts, y.packets = nil, nil
		for _, mode := range []int{2, 8, 0, 4} {
			x.mode = mode
			a.run(500 * time.Millisecond)
		}
		if strict {
			y.steps(t)
			y.hears(x)
		} else if y.fts[len(y.fts)-1] != 4 {
			t.Errorf("mode %d, want x's own frames", y.fts[len(y.fts)-1])
		}
	}
}
