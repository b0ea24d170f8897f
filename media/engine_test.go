package media

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/mediapb"
)

const (
	wb   = mediapb.AudioStream_AMR_WB
	nb   = mediapb.AudioStream_AMR
	pcma = mediapb.AudioStream_PCMA
	pcmu = mediapb.AudioStream_PCMU
)

func readNow(fd int, b []byte) int {
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		return -1
	}
	return n
}

func octets(l *mediapb.Leg) { l.Audio.OctetAlign = true }

func TestEveryoneHearsTheOthersAndNotThemselves(t *testing.T) {
	a := newAir(t, Options{})
	a.set(&mediapb.Conference{Id: "c"})
	p := []*phone{
		a.join("c", "wb-be", wb, 440),
		a.join("c", "wb-oa", wb, 650, octets),
		a.join("c", "nb-be", nb, 900),
		a.join("c", "nb-oa", nb, 1250, octets),
		a.join("c", "pcma", pcma, 1700),
		a.join("c", "pcmu", pcmu, 2300),
	}
	a.run(2 * time.Second)
	for i, x := range p {
		var others []*phone
		for j, o := range p {
			if i != j {
				others = append(others, o)
			}
		}
		x.hears(others...)
	}
	for _, x := range p {
		if s := a.stats(x.leg.Id); s.Audio.RxLost != 0 || s.Audio.RxDropped != 0 || !s.Talking {
			t.Errorf("%s: %v", x.leg.Id, s)
		}
	}
}
