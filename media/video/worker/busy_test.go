package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/wire"
)

// slowEncoder takes its time for each picture.
type slowEncoder time.Duration

func (e slowEncoder) Encode(*yuv.Image, int64) ([]byte, bool, error) {
	time.Sleep(time.Duration(e))
	return []byte{0, 0, 1, 0x65}, true, nil
}
func (slowEncoder) ForceKeyFrame() {}
func (slowEncoder) Close()         {}

// A room says how much of its time it is busy: all of it, when encoding takes longer than
// there is between two pictures.
func TestRoomsSayHowBusyTheyAre(t *testing.T) {
	for _, tt := range []struct{ takes, least, most time.Duration }{
		{100 * time.Millisecond, 9 * time.Second, 10 * time.Second},
		{10 * time.Millisecond, 1400 * time.Millisecond, 1600 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &worker{opt: options(), out: make(chan []byte, 1024), ctx: t.Context()}
			w.opt.FPS = 15
			w.opt.encoder = func(h264.Params) (encoder, error) { return slowEncoder(tt.takes), nil }
			r := newRoom(w, "c")
			go r.run()
			r.post(message{set: &wire.Conference{ID: "c", Tiers: []wire.Tier{{ID: 1, Width: 240, Height: 320, FPS: 15}}}})
			time.Sleep(10 * time.Second)
			if busy := r.stats.Load().Busy; busy < tt.least || busy > tt.most {
				t.Errorf("busy %v of 10 s with encodings of %v", busy, tt.takes)
			}
			close(r.gone)
			<-r.done
		})
	}
}

// countingEncoder makes a key frame of the first picture and where one is wanted.
type countingEncoder struct{ key bool }

func (e *countingEncoder) Encode(*yuv.Image, int64) ([]byte, bool, error) {
	key := e.key
	e.key = false
	return []byte{0, 0, 1, 0x61}, key, nil
}
func (e *countingEncoder) ForceKeyFrame() { e.key = true }
func (*countingEncoder) Close()           {}

// Key frames come unasked as often as the tier wants, and on request at most every 500 ms.
func TestKeyFrameIntervals(t *testing.T) {
	for _, tt := range []struct {
		every time.Duration
		asks  bool // at each picture
		want  uint64
	}{
		{0, false, 1}, {2 * time.Second, false, 5}, {time.Second, false, 10}, {0, true, 19},
	} {
		r, w := roomOf(t)
		w.opt.encoder = func(h264.Params) (encoder, error) { return &countingEncoder{key: true}, nil }
		r.set(wire.Conference{ID: "c", Tiers: []wire.Tier{{ID: 1, Width: 240, Height: 320, FPS: 15, KeyEvery: tt.every}}})
		for i := range 150 { // 10 s
			if tt.asks {
				r.take(message{key: 1})
			}
			r.tick(time.Unix(1000, 0).Add(time.Duration(i) * time.Second / 15))
		}
		if r.count.Keys != tt.want {
			t.Errorf("every %v, asked for all the time %v: %d key frames in 10 s, want %d", tt.every, tt.asks, r.count.Keys, tt.want)
		}
	}
}
