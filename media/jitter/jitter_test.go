package jitter

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

type packet struct {
	ts uint32
	at time.Duration
	n  int
}

// link sends frames through loss and jitter, and counts what comes out.
type result struct{ played, concealed, silence, wrong int }

func run(t *testing.T, b *Buffer, frames int, lost float64, jitter time.Duration, seed uint64, drift float64) result {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	var sent []packet
	for i := range frames {
		if rng.Float64() < lost {
			continue
		}
		at := time.Duration(float64(i)*float64(Frame)*drift) + time.Duration(rng.Float64()*float64(jitter))
		sent = append(sent, packet{ts: uint32(i)*320 + 0xffffff00, at: at, n: i})
	}
	var r result
	last := -1
	for tick := range frames + 20 {
		now := time.Duration(tick)*Frame + 3*time.Millisecond
		for j := 0; j < len(sent); j++ {
			if p := sent[j]; p.at <= now {
				b.Push(p.ts, p.at, byte(p.n), false, false, []byte{byte(p.n), byte(p.n >> 8)})
				sent = append(sent[:j], sent[j+1:]...)
				j--
			}
		}
		switch v, kind, _, data := b.Pop(now); v {
		case Play:
			n := int(data[0]) | int(data[1])<<8
			if n <= last || byte(n) != kind {
				r.wrong++
			}
			last = n
			r.played++
		case Conceal:
			r.concealed++
		default:
			r.silence++
		}
	}
	return r
}

func TestCleanLink(t *testing.T) {
	b := New(320, 61)
	r := run(t, b, 1000, 0, 0, 1, 1)
	if r.played != 1000 || r.wrong != 0 || r.concealed > 10 {
		t.Errorf("%+v", r)
	}
	if b.Depth() > MinDepth+time.Millisecond {
		t.Errorf("depth %v on a quiet link", b.Depth())
	}
}

func TestLossAndJitter(t *testing.T) {
	for _, tt := range []struct {
		lost      float64
		jitter    time.Duration
		maxMissed float64 // beyond the loss
	}{
		{0.01, 0, 0.005}, {0.10, 0, 0.005}, {0, 20 * time.Millisecond, 0.03}, {0, 60 * time.Millisecond, 0.03},
		{0.05, 60 * time.Millisecond, 0.03}, {0, 100 * time.Millisecond, 0.04},
	} {
		for seed := range uint64(5) {
			b := New(320, 61)
			r := run(t, b, 3000, tt.lost, tt.jitter, seed, 1)
			if r.wrong != 0 {
				t.Errorf("%+v seed %d: %d frames out of order", tt, seed, r.wrong)
			}
			missed := 1 - float64(r.played)/3000
			if missed > tt.lost+0.02+tt.maxMissed {
				t.Errorf("%+v seed %d: %.1f %% missed: %+v late %d", tt, seed, 100*missed, r, b.Late)
			}
			if d := b.Depth(); d > tt.jitter+40*time.Millisecond {
				t.Errorf("%+v seed %d: depth %v", tt, seed, d)
			}
		}
	}
}

func TestPauseIsNoLoss(t *testing.T) {
	b := New(320, 61)
	now := time.Duration(0)
	concealed, played := 0, 0
	at := func(i int, silent bool) {
		b.Push(uint32(i)*320, now, 0, false, silent, []byte{1})
	}
	for i := range 500 {
		switch {
		case i < 50 || i >= 300:
			at(i, false)
		case (i-50)%8 == 0: // SID
			at(i, true)
		}
		switch v, _, _, _ := b.Pop(now + time.Millisecond); v {
		case Conceal:
			concealed++
		case Play:
			played++
		}
		now += Frame
	}
	if concealed > 1 || played < 275 {
		t.Errorf("%d concealed, %d played", concealed, played)
	}
}

// Whatever the phase of a phone's clock against the mix's, a word begins with the margin
// that the words after it need: the mix waits a moment rather than run dry in the word.
func TestAWordBeginsWithItsMargin(t *testing.T) {
	for phase := time.Duration(0); phase < Frame; phase += time.Millisecond / 2 {
		b := New(320, 61)
		rng := rand.New(rand.NewPCG(uint64(phase), 9))
		type packet struct {
			at     time.Duration
			n      int
			silent bool
		}
		var due []packet
		spoken, played, concealed := 0, 0, 0
		for n := range 1000 {
			now := time.Duration(n) * Frame
			for len(due) > 0 && due[0].at <= now {
				b.Push(uint32(due[0].n)*320, due[0].at, byte(due[0].n), false, due[0].silent, []byte{1})
				due = due[1:]
			}
			if word := n%50 >= 40; word || n%50%8 == 0 {
				if word {
					spoken++
				}
				due = append(due, packet{now + phase + time.Duration(rng.Int64N(int64(2*time.Millisecond))), n, !word})
			}
			switch v, _, _, _ := b.Pop(now); {
			case v == Conceal:
				concealed++
			case v == Play && !b.quiet:
				played++
			}
			if delay := time.Duration(int64(n)-b.next+1) * Frame; b.playing && !b.quiet && delay > 3*Frame {
				t.Fatalf("phase %v: %v late at %d", phase, delay, n)
			}
		}
		if concealed > 0 || spoken-played > 3 {
			t.Errorf("phase %v: %d frames of %d played, %d concealed, %+v", phase, played, spoken, concealed, b.Counters)
		}
	}
}

func TestDuplicatesJumpsAndReset(t *testing.T) {
	b := New(160, 4)
	if !b.Push(1000, 0, 1, false, false, []byte{1, 2, 3, 4, 5, 6}) || b.Push(1000, 0, 1, false, false, nil) {
		t.Error("duplicate not seen")
	}
	if v, _, _, d := b.Pop(time.Second); v != Play || len(d) != 4 {
		t.Errorf("%v %x", v, d)
	}
	b.Push(1000+160*5000, time.Second, 2, false, false, []byte{9}) // a jump
	if b.Resyncs != 1 {
		t.Errorf("%d resyncs", b.Resyncs)
	}
	if v, k, _, _ := b.Pop(2 * time.Second); v != Play || k != 2 {
		t.Errorf("after a jump: %v %d", v, k)
	}
	b.Push(3, 2*time.Second, 3, false, false, nil) // far back
	if b.Resyncs != 2 {
		t.Errorf("%d resyncs", b.Resyncs)
	}
}

func TestZeroAllocations(t *testing.T) {
	b := New(320, 61)
	data := make([]byte, 60)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		b.Push(uint32(i)*320, time.Duration(i)*Frame, 0, false, false, data)
		b.Pop(time.Duration(i)*Frame + time.Millisecond)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever comes, frames are played in order, whole, and once; the next new stream begins
// only where the buffer says so.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{16, 16, 16, 2, 18, 22, 16, 1, 16, 16, 16})
	f.Add([]byte{16, 24, 24, 3, 19, 19, 19, 19, 16, 48, 32, 0, 0, 0, 16})
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := New(320, 8)
		var ts, last uint32
		var resyncs uint64
		now, have := time.Duration(0), false
		for _, op := range ops {
			switch op & 3 {
			case 0:
				ts += 320
			case 1:
				ts += uint32(op) << 20
			case 2:
				ts -= uint32(op) * 320
			}
			b.Push(ts, now, op, op&4 != 0, op&8 != 0, binary.BigEndian.AppendUint32(nil, ts))
			if op&16 == 0 {
				continue
			}
			for range op >> 5 { // the link is silent for a while
				now += Frame
				b.Pop(now)
				have = false
			}
			v, _, _, data := b.Pop(now)
			now += Frame
			if v != Play {
				continue
			}
			if len(data) != 4 {
				t.Fatalf("played %x", data)
			}
			got := binary.BigEndian.Uint32(data)
			if have && resyncs == b.Resyncs && int32(got-last) <= 0 {
				t.Fatalf("played %d after %d", got, last)
			}
			last, have, resyncs = got, true, b.Resyncs
			if d := b.Depth(); d < MinDepth || d > MaxDepth {
				t.Fatalf("depth %v", d)
			}
		}
	})
}

func BenchmarkPushPop(b *testing.B) {
	buf := New(320, 61)
	data := make([]byte, 60)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		buf.Push(uint32(i)*320, time.Duration(i)*Frame, 0, false, false, data)
		buf.Pop(time.Duration(i)*Frame + time.Millisecond)
		i++
	}
}

// A phone that sends each frame twice, in two packets (max-red), is no phone whose packets
// are late: the delay stays what the path needs. Where packets get lost it becomes what the
// second copy needs.
func TestRedundancyIsNoJitter(t *testing.T) {
	for _, loss := range []int{0, 10} {
		b := New(320, 61)
		concealed, rng := 0, rand.New(rand.NewPCG(1, 2))
		for i := range int64(2000) {
			now := time.Duration(i) * Frame
			if rng.IntN(100) >= loss {
				if i > 0 {
					b.Push(uint32(i-1)*320, now, 8, false, false, []byte{1})
				}
				b.Push(uint32(i)*320, now, 8, false, false, []byte{1})
			}
			if v, _, _, _ := b.Pop(now + Frame/2); v == Conceal && i > 1000 {
				concealed++
			}
		}
		if loss == 0 && (b.Depth() > MinDepth+Frame/2 || b.Late != 0 || b.Duplicate != 1999) {
			t.Errorf("depth %v, %d late, %d twice", b.Depth(), b.Late, b.Duplicate)
		}
		if loss == 10 && (concealed > 25 || b.Depth() > 3*Frame) { // 1 % of 1000 are two lost in a row
			t.Errorf("%d of 1000 frames concealed with every frame sent twice and 10 %% lost, depth %v", concealed, b.Depth())
		}
	}
}
