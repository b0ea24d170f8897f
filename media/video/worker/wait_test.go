package worker

import (
	"bytes"
	"testing"
	"time"

	"sparkle/media/video/wire"
)

// A picture is shown at the tick that is nearest to when it is due, in order, and none waits
// for ever.
func TestPicturesAreShownWhenTheyAreDue(t *testing.T) {
	r, w := roomOf(t)
	w.opt.FPS = 15
	units, good := scene(t, 60)
	start := time.Unix(1000, 0)
	period := time.Second / 15
	shows := func(i int) bool {
		r.gather(start)
		shown := r.tiles[0].Picture
		return shown != nil && bytes.Equal(shown.Y, good[i].Y)
	}
	send := func(i int, due time.Time, now time.Time) {
		r.arrive(&wire.Unit{ID: 1, Key: i == 0, At: due.UnixNano(), Data: bytes.Clone(units[i])}, now)
	}
	send(0, start, start)
	if !shows(0) {
		t.Fatal("a picture that is due is not decoded")
	}
	now := start
	for i := 1; i < 30; i++ { // 150 ms ahead of their sound: shown at the second tick after
		now = now.Add(period)
		r.tick(now.Add(-time.Millisecond))
		send(i, now.Add(150*time.Millisecond), now)
		if want := max(0, i-2); !shows(want) {
			t.Fatalf("picture %d is not shown when %d comes", want, i)
		}
	}
	// The sound has caught up: what is due comes after what waits.
	send(30, now, now)
	if !shows(27) {
		t.Error("a picture overtook those that wait")
	}
	r.tick(now.Add(3 * period))
	if !shows(30) || len(r.sources[1].waiting) != 0 {
		t.Errorf("%d pictures wait on", len(r.sources[1].waiting))
	}
	for i := 31; i < 60; i++ { // nobody ticks
		send(i, now.Add(time.Hour), now)
	}
	if n := len(r.sources[1].waiting); n > maxWaiting || !shows(59-n) {
		t.Errorf("%d pictures wait, at most %d may", n, maxWaiting)
	}
}
