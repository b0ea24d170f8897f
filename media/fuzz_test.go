package media

import (
	"testing"
	"time"
)

// Whatever a leg's own peer sends, a leg survives it, and the next good frame is heard.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0x80, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3}, true)
	f.Add([]byte{0xb1, 101, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 0x80, 1, 0}, true)
	f.Add([]byte{0x81, 201, 0, 7, 0, 0, 0, 1}, false)
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, false)
	f.Add([]byte{0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 203, 0xff, 0xff}, false)
	a := newAir(f, Options{})
	a.set(confC())
	p := a.join("c", "l", pcma, 500)
	w := a.e.workers[0]
	l := a.e.legs["l"].leg.Load()
	f.Fuzz(func(t *testing.T, b []byte, rtp bool) {
		a.now += int64(beatTime)
		if rtp {
			l.onRTP(w, b, addrOf(p.rtp), true, a.now)
		} else {
			l.onRTCP(w, b, addrOf(p.rtcp), true, a.now)
			if len(b) > 0 && validRTCP(b) && len(b)%4 != 0 {
				t.Errorf("valid RTCP of %d octets", len(b))
			}
		}
		w.onDeadline(a.now)
		for len(a.e.notes) > 0 {
			<-a.e.notes
		}
		if d := l.jb.Depth(); d < 0 || d > time.Second {
			t.Errorf("playout %v", d)
		}
	})
}
