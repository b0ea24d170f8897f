package video

import (
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sparkle/media/mediapb"
	mrtp "sparkle/media/rtp"
)

// A picture waits for its sound: by the phone's sender reports it is due when what was said
// with it is heard (IMS.md §5.4).
func TestPicturesWaitForTheirSound(t *testing.T) {
	const ms = time.Millisecond
	phone := time.Unix(1_700_000_000, 0) // its wall clock at start; ours has another
	for _, tt := range []struct {
		name   string
		report time.Duration // of the phone's clock, when the report's RTP time was; -1: no report
		heard  time.Duration // after it was said; 0: not known
		path   time.Duration // of the picture
		wait   time.Duration
	}{
		{"no jitter", 0, 40 * ms, 30 * ms, 10 * ms},
		{"150 ms of audio jitter", 0, 190 * ms, 30 * ms, 160 * ms},
		{"the picture is later than its sound", 0, 60 * ms, 200 * ms, 0},
		{"an older report", -90 * time.Second, 190 * ms, 30 * ms, 160 * ms},
		{"a report of what is to come", 700 * ms, 190 * ms, 30 * ms, 160 * ms},
		{"more than is waited for", 0, 900 * ms, 30 * ms, mostAhead},
		{"clocks that do not belong together", 0, time.Hour, 30 * ms, 0},
		{"and the other way", 0, -time.Hour, 30 * ms, 0},
		{"sound without a report", 0, 0, 30 * ms, 0},
		{"pictures without a report", -1, 190 * ms, 30 * ms, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, p := bare(t, nil)
			p.legs = map[string]*leg{"l": l}
			var pkt rtp.Packet
			l.receive(packet(1, 7, 0x65, 0x88, 9), peer, start, &pkt)
			if tt.report != -1 {
				b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: 7, NTPTime: mrtp.NTP(phone.Add(tt.report)), RTPTime: 12000 + uint32(int32(tt.report*90/ms))}})
				if err != nil {
					t.Fatal(err)
				}
				l.report(b, peerC, start)
			}
			if tt.heard != 0 {
				p.Heard("l", start.Sub(phone)+tt.heard)
			}
			drain(t, p.box)
			// Taken at start by the phone's clock: RTP time 12000.
			now := start.Add(tt.path)
			l.receive(packet(2, 7, 0x61, 0x88, 9), peer, now, &pkt)
			_, units := drain(t, p.box)
			if len(units) != 1 {
				t.Fatalf("%d pictures", len(units))
			}
			if wait := time.Unix(0, units[0].At).Sub(now); (wait - tt.wait).Abs() > ms {
				t.Errorf("it waits %v, want %v", wait, tt.wait)
			}
		})
	}
}

// Another stream has other timestamps: its own report is waited for.
func TestAReportIsOfOneStream(t *testing.T) {
	l, _ := bare(t, func(v *mediapb.VideoStream) {})
	l.rx.srNTP, l.rx.lag = mrtp.NTP(start), 100*time.Millisecond
	if l.rx.takeSSRC(9); !l.rx.due(0, start).Equal(start) {
		t.Error("a picture waits by the report of another stream")
	}
}
