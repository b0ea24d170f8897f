package media

import (
	"fmt"
	"testing"
	"time"
)

// crowd is a conference whose phones' packets are pushed straight into the legs, so
// that only the engine's own work is measured. talkers of them talk; the rest are
// in a DTX pause.
func crowd(t testing.TB, legs, talkers int) (a *air, tick func()) {
	a = newAir(t, Options{MaxTalkers: 64})
	a.set(confC())
	for i := range legs {
		hz := 0.0
		if i < talkers {
			hz = 300 + 37*float64(i%100) // what is too high for the codec is no speech
		}
		a.join("c", fmt.Sprintf("leg%03d", i), wb, hz)
	}
	a.run(time.Second)
	w := a.e.workers[0]
	type feed struct {
		l     *leg
		ts    uint32
		frame []byte
	}
	var feeds []*feed
	for i, p := range a.phones {
		if i < talkers {
			feeds = append(feeds, &feed{l: a.e.legs[p.leg.Id].leg.Load(), ts: p.ts, frame: append([]byte(nil), p.enc.out.bits...)})
		}
	}
	return a, func() {
		a.now += int64(tickTime)
		for _, f := range feeds {
			f.ts += 320
			f.l.jb.Push(f.ts, f.l.since(a.now), 8, false, false, f.frame)
		}
		w.onDeadline(a.now)
	}
}

func TestTickDoesNotAllocate(t *testing.T) {
	_, tick := crowd(t, 8, 3)
	if n := testing.AllocsPerRun(200, tick); n != 0 {
		t.Errorf("a tick allocates %v times, want 0", n)
	}
}

func TestReceiveDoesNotAllocate(t *testing.T) {
	a, _ := crowd(t, 4, 2)
	w := a.e.workers[0]
	b := make([]byte, 12+61)
	if n := testing.AllocsPerRun(200, func() {
		for _, p := range a.phones {
			if p.toneHz > 0 {
				p.seq++
				p.ts += 320
				header(b, 96, p.seq, p.ts, p.ssrc)
				b[12], b[13] = 0xf4, 0x40
				p.write(b)
			}
		}
		a.now += int64(tickTime)
		w.receive(a.now)
	}); n > 2 { // the test's own two writes
		t.Errorf("receiving allocates %v times", n)
	}
}

func BenchmarkTick(b *testing.B) {
	for _, legs := range []int{10, 50, 200} {
		for _, talkers := range []int{3, legs} {
			b.Run(fmt.Sprintf("legs=%d/talkers=%d", legs, talkers), func(b *testing.B) {
				_, tick := crowd(b, legs, talkers)
				b.ReportAllocs()
				for b.Loop() {
					tick()
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(legs), "µs/leg")
			})
		}
	}
}
