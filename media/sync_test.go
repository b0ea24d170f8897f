package media

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

// The pictures of a phone are told when its sound is heard, by its own clock: a beep over a path
// with 150 ms of jitter is heard when they were told that it would be (IMS.md §5.4).
func TestPicturesAreToldWhenSoundIsHeard(t *testing.T) {
	g := &gallery{socks: map[string][]*net.UDPConn{}}
	a := newAir(t, Options{Pictures: func(PictureDeps) (Pictures, error) { return g, nil }})
	a.set(&mediapb.Conference{Id: "c", Video: true})
	y := a.join("c", "y", pcma, 0)
	x := a.join("c", "x", pcma, 0)
	rng := rand.New(rand.NewPCG(1, 1))
	x.delay = func(int) time.Duration { return time.Duration(rng.Int64N(int64(150 * time.Millisecond))) }
	// The phone's wall clock is a year behind.
	wall := func(at int64) time.Time { return time.Unix(1_700_000_000, at) }
	report := func(ntp uint64) {
		b := make([]byte, 28)
		b[0], b[1], b[3] = 0x80, rtp.TypeSR, 6
		binary.BigEndian.PutUint32(b[4:], x.ssrc)
		binary.BigEndian.PutUint64(b[8:], ntp)
		binary.BigEndian.PutUint32(b[16:], x.ts)
		if _, err := x.rtcp.WriteToUDPAddrPort(b, x.toRTCP); err != nil {
			t.Fatal(err)
		}
	}
	a.run(6 * time.Second)
	if g.lag != 0 {
		t.Errorf("told %v without a report", g.lag)
	}
	report(0)
	a.run(time.Second)
	if g.lag != 0 {
		t.Errorf("told %v by a phone without a clock", g.lag)
	}
	for range 3 {
		// What is said now is stamped one step after what was said last.
		report(rtp.NTP(wall(a.now - int64(20*time.Millisecond))))
		a.run(time.Second)
		lag := a.e.legs["x"].leg.Load().lag.Load()
		if told := time.Duration(lag + a.e.wall(0)); (g.lag - told).Abs() > time.Minute { // the air's clock is not that of the wall
			t.Errorf("told %v, is %v", g.lag, told)
		}
		said, n := a.now, len(y.heard)
		x.toneHz = 1000
		a.run(500 * time.Millisecond)
		x.toneHz = 0
		for n < len(y.heard) && y.heard[n] < 500 {
			n++
		}
		heard := said + int64(n-(len(y.heard)-500*16))*int64(time.Second)/16000
		want := wall(said).UnixNano() + lag
		if d := time.Duration(heard - want).Abs(); d > 25*time.Millisecond {
			t.Errorf("a beep was heard after %v, told was %v", time.Duration(heard-said), time.Duration(want-said))
		}
		if wait := time.Duration(want - said); wait < 100*time.Millisecond || wait > 250*time.Millisecond {
			t.Errorf("a beep over 150 ms of jitter waits %v", wait)
		}
		a.run(time.Second)
	}
	x.leg.Audio.Recv = false
	x.update()
	a.run(time.Second)
	if g.lag != 0 {
		t.Errorf("told %v of a phone that is not heard", g.lag)
	}
}
