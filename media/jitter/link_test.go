package jitter

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wire is a simulated path: what one phone sends and how it arrives.
type wire struct {
	name   string
	frames int
	pauses bool // 1.5 s speech, 1.5 s DTX with SID frames
	loss   float64
	drift  float64 // length of the phone's second
	delay  func(i int, r *rand.Rand) time.Duration

	concealed int           // at most, beyond the lost ones
	early     time.Duration // mean delay in the second sixth, at most
	late      time.Duration // mean delay in the last sixth, at most
}

func none(int, *rand.Rand) time.Duration { return 0 }

func spread(d time.Duration) func(int, *rand.Rand) time.Duration {
	return func(_ int, r *rand.Rand) time.Duration { return time.Duration(r.Float64() * float64(d)) }
}

const ms = time.Millisecond

// wires: delays are those of the buffer alone; the tick comes 17 ms after a frame.
var wires = []wire{
	{"clean", 3000, false, 0, 1, none, 10, 20 * ms, 20 * ms},
	{"1% lost", 6000, false, 0.01, 1, none, 20, 40 * ms, 40 * ms},
	{"10% lost", 6000, false, 0.1, 1, none, 40, 60 * ms, 60 * ms},
	{"jitter 60", 6000, false, 0, 1, spread(60 * ms), 60, 80 * ms, 80 * ms},
	{"jitter 60, 5% lost", 6000, false, 0.05, 1, spread(60 * ms), 60, 100 * ms, 100 * ms},
	{"jitter 150", 6000, false, 0, 1, spread(150 * ms), 240, 180 * ms, 180 * ms},
	{"one stall of 300 ms", 6000, false, 0, 1, func(i int, _ *rand.Rand) time.Duration {
		if i >= 1100 && i < 1115 {
			return time.Duration(1115-i) * Frame
		}
		return 0
	}, 30, 100 * ms, 40 * ms},
	{"jitter comes and goes", 6000, false, 0, 1, func(i int, r *rand.Rand) time.Duration {
		if i > 2000 && i < 4000 {
			return spread(100*ms)(i, r)
		}
		return spread(3*ms)(i, r)
	}, 60, 40 * ms, 40 * ms},
	{"path gets shorter", 6000, false, 0, 1, func(i int, _ *rand.Rand) time.Duration {
		if i < 2000 {
			return 80 * ms
		}
		return 0
	}, 15, 100 * ms, 40 * ms},
	{"fast clock", 30000, false, 0, 0.9997, spread(4 * ms), 20, 50 * ms, 50 * ms},
	{"slow clock", 30000, false, 0, 1.0003, spread(4 * ms), 30, 40 * ms, 40 * ms},
	{"pauses", 6000, true, 0, 1, none, 0, 40 * ms, 40 * ms},
	{"pauses, 10% lost", 6000, true, 0.1, 1, none, 60, 60 * ms, 60 * ms},
	{"pauses, jitter 60", 6000, true, 0, 1, spread(60 * ms), 20, 90 * ms, 90 * ms},
	{"pauses, jitter comes and goes", 6000, true, 0, 1, func(i int, r *rand.Rand) time.Duration {
		if i > 2000 && i < 4000 {
			return spread(100*ms)(i, r)
		}
		return spread(3*ms)(i, r)
	}, 60, 40 * ms, 40 * ms},
	{"pauses, fast clock", 30000, true, 0, 0.9997, spread(4 * ms), 5, 40 * ms, 40 * ms},
	{"pauses, slow clock", 30000, true, 0, 1.0003, spread(4 * ms), 5, 40 * ms, 40 * ms},
}

type frame struct {
	index  int
	at     time.Duration
	silent bool
}

func (w wire) send(rng *rand.Rand) (sent []frame, speech, lost int) {
	for i := range w.frames {
		talk, sid := true, false
		if w.pauses {
			p := i % 150
			talk = p < 75
			sid = p == 75 || p >= 78 && (p-78)%8 == 0 // SID_FIRST, SID_UPDATE
		}
		if !talk && !sid {
			continue
		}
		if talk {
			speech++
		}
		if rng.Float64() < w.loss {
			if talk {
				lost++
			}
			continue
		}
		at := time.Duration(float64(i)*float64(Frame)*w.drift) + w.delay(i, rng)
		sent = append(sent, frame{i, at, !talk})
	}
	slices.SortStableFunc(sent, func(a, b frame) int { return cmp.Compare(a.at, b.at) }) // the order of arrival
	return sent, speech, lost
}

// What is concealed is what was lost and little more, what was sent is played in order,
// and the delay follows the jitter up and down again.
func TestPlayoutFollowsTheLink(t *testing.T) {
	for _, w := range wires {
		for seed := range uint64(3) {
			sent, speech, lost := w.send(rand.New(rand.NewPCG(seed, 9)))
			b := New(320, 2)
			concealed, played, last := 0, 0, -1
			var sum [6]time.Duration
			var n [6]time.Duration
			for tick := range w.frames + 30 {
				now := time.Duration(tick)*Frame + 17*ms
				for len(sent) > 0 && sent[0].at <= now {
					f := sent[0]
					b.Push(uint32(f.index)*320-9000, f.at, 0, false, f.silent, []byte{byte(f.index), byte(f.index >> 8)})
					sent = sent[1:]
				}
				v, _, _, data := b.Pop(now)
				switch v {
				case Conceal:
					concealed++
				case Play:
					i := int(data[0]) | int(data[1])<<8
					if i <= last {
						t.Fatalf("%s, seed %d: frame %d after %d", w.name, seed, i, last)
					}
					last = i
					if !w.pauses || i%150 < 75 {
						played++
						part := i * 6 / w.frames
						sum[part] += now - time.Duration(float64(i)*float64(Frame)*w.drift)
						n[part]++
					}
				}
			}
			if over := concealed - lost; over > w.concealed {
				t.Errorf("%s, seed %d: %d concealed, %d more than lost", w.name, seed, concealed, over)
			}
			if missed := speech - lost - played; missed > max(w.concealed, 20) {
				t.Errorf("%s, seed %d: %d of %d frames came and were not played", w.name, seed, missed, speech)
			}
			if d := sum[1] / n[1]; d > w.early {
				t.Errorf("%s, seed %d: %v delay at first", w.name, seed, d)
			}
			if d := sum[5] / n[5]; d > w.late {
				t.Errorf("%s, seed %d: %v delay at last", w.name, seed, d)
			}
			if b.Resyncs != 0 {
				t.Errorf("%s, seed %d: %d resyncs", w.name, seed, b.Resyncs)
			}
		}
	}
}

// A phone whose timestamps stand still while it is silent is heard again at once, not
// when the schedule has drifted there.
func TestTimestampsThatStandStillInAPause(t *testing.T) {
	b := New(160, 4)
	now, ts := time.Duration(0), uint32(0)
	talk := func(frames int) (played int) {
		for range frames {
			b.Push(ts, now, 0, false, false, []byte{1})
			ts += 160
			if v, _, _, _ := b.Pop(now + ms); v == Play {
				played++
			}
			now += Frame
		}
		return played
	}
	if n := talk(100); n < 97 {
		t.Fatalf("%d of 100 played", n)
	}
	for range 150 { // 3 s of nothing
		b.Pop(now + ms)
		now += Frame
	}
	if n := talk(100); n < 85 {
		t.Errorf("%d of 100 played after the pause", n)
	}
}

// Stamps a few ticks off the grid are the frame they are nearest to.
func TestCrookedTimestamps(t *testing.T) {
	b := New(160, 4)
	played, step := 0, []uint32{0, 7, 0xffffffff - 9, 3}
	for i := range 200 {
		now := time.Duration(i) * Frame
		b.Push(uint32(i)*160+step[i%4], now, 0, false, false, []byte{1})
		if v, _, _, _ := b.Pop(now + ms); v == Play {
			played++
		}
	}
	if played < 198 || b.Duplicate+b.Late+b.Resyncs != 0 {
		t.Errorf("%d of 200 played, %+v", played, b.Counters)
	}
}

// As many frames a packet as there may be (RFC 4867 maxptime 240), wherever the tick falls between
// two arrivals: none is concealed, none left out.
func TestTwelveFramesAPacket(t *testing.T) {
	for phase := range 20 {
		b := New(320, 4)
		played, concealed := 0, 0
		for i := range 3000 {
			if i%12 == 11 {
				for k := range 12 {
					b.Push(uint32(i-11+k)*320, time.Duration(i)*Frame, 0, false, false, []byte{1})
				}
			}
			switch v, _, _, _ := b.Pop(time.Duration(i)*Frame + time.Duration(phase)*ms); v {
			case Play:
				played++
			case Conceal:
				concealed++
			}
		}
		if played < 3000-12 || concealed > 0 || b.Dropped > 0 {
			t.Errorf("tick %d ms after the packets: %d of 3000 played, %d concealed, %+v", phase, played, concealed, b.Counters)
		}
	}
}

// Several frames a packet arrive together; none is lost for that.
func TestAggregatedFrames(t *testing.T) {
	b := New(320, 4)
	played, concealed := 0, 0
	for i := range 600 {
		now := time.Duration(i) * Frame
		if i%3 == 2 {
			for k := range 3 {
				b.Push(uint32(i-2+k)*320, now, byte(i-2+k), false, false, []byte{1})
			}
		}
		switch v, _, _, _ := b.Pop(now + ms); v {
		case Play:
			played++
		case Conceal:
			concealed++
		}
	}
	if played < 590 || concealed > 6 {
		t.Errorf("%d of 600 played, %d concealed, %+v", played, concealed, b.Counters)
	}
}
