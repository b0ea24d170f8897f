package load

import (
	"encoding/binary"
	"math"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/rtp"
)

func TestHistogramAgainstSorting(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Mean() != 0 || h.Min() != 0 {
		t.Error("an empty histogram is not zero")
	}
	var all []time.Duration
	var sum time.Duration
	for i := range 5000 {
		d := time.Duration(i*i) * 17 * time.Nanosecond // 0..425 ms, most of them short
		all = append(all, d)
		sum += d
		h.Add(d)
	}
	slices.Sort(all)
	for _, p := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(int(math.Ceil(p*float64(len(all)))), 1)-1]
		if got := h.Quantile(p); got < want || got > want+histStep {
			t.Errorf("Quantile(%v) = %v, want %v to the next 50 µs", p, got, want)
		}
	}
	if h.Count() != 5000 || h.Max() != all[4999] || h.Min() != 0 || h.Mean() != sum/5000 {
		t.Errorf("%d, max %v, min %v, mean %v", h.Count(), h.Max(), h.Min(), h.Mean())
	}
}

func TestHistogramBeyondItsEnds(t *testing.T) {
	var h Histogram
	h.Add(-time.Second)
	h.Add(time.Hour)
	if h.Min() != -time.Second || h.Max() != time.Hour || h.Count() != 2 {
		t.Errorf("%v, %v, %d", h.Min(), h.Max(), h.Count())
	}
	if q := h.Quantile(1); q < time.Second || q > time.Hour {
		t.Errorf("Quantile(1) = %v", q)
	}
}

func TestScript(t *testing.T) {
	o := Options{Legs: 10, Talkers: 3, Turn: 100 * time.Millisecond, Warm: 200 * time.Millisecond, Window: time.Second, Onsets: 4}
	s := newScript(o.withDefaults())
	if s.warm != 10 || s.end != 60 {
		t.Errorf("window is [%d,%d), want [10,60)", s.warm, s.end)
	}
	spoke := map[int]bool{}
	started := map[int]int{}
	for n := range s.over {
		talking := 0
		for i := range o.Legs {
			if s.talks(i, o.Legs, n) {
				talking++
				if n < s.end {
					spoke[i] = true
				} else if !s.talks(i, o.Legs, n-1) {
					started[i]++
				}
			}
		}
		switch {
		case n < s.end && talking != 3:
			t.Fatalf("frame %d: %d talk, want 3", n, talking)
		case n >= s.end && talking > 1, n >= s.end && n < s.firstTry && talking > 0:
			t.Fatalf("frame %d: %d talk among the onsets", n, talking)
		}
	}
	if len(spoke) != 10 {
		t.Errorf("only %d of 10 had a turn", len(spoke))
	}
	if len(started) != 4 {
		t.Errorf("%d different talkers in 4 onsets", len(started))
	}
	none := newScript(Options{Legs: 2, Room: 2, Talkers: 2, Turn: frameTime, Warm: frameTime, Window: frameTime})
	for n := range none.over {
		if which, _ := none.onset(n); which >= 0 {
			t.Errorf("frame %d belongs to an onset, there are none", n)
		}
		if n < none.end && (!none.talks(0, 2, n) || !none.talks(1, 2, n)) {
			t.Errorf("frame %d: not all talk", n)
		}
	}
}

// packets for one leg: sequence number, frame number, whether speech, ms of arrival.
type arrival struct {
	seq    uint16
	frame  uint32
	speech bool
	ms     int64
}

func TestReceiverJudges(t *testing.T) {
	for _, tt := range []struct {
		name                                   string
		in                                     []arrival
		frames, missing, lost, late, reordered uint64
	}{
		{"whole", []arrival{{1, 1, true, 0}, {2, 2, true, 20}, {3, 3, true, 40}}, 3, 0, 0, 0, 0},
		{"wraps", []arrival{{65535, math.MaxUint32 / 320, true, 0}, {0, math.MaxUint32/320 + 1, true, 20}}, 2, 0, 0, 0, 0},
		{"skipped tick", []arrival{{1, 1, true, 0}, {2, 4, true, 60}}, 2, 2, 0, 0, 0},
		{"lost packet", []arrival{{1, 1, true, 0}, {3, 3, true, 40}}, 2, 1, 1, 0, 0},
		{"silence", []arrival{{1, 1, false, 0}, {2, 9, false, 160}, {3, 12, true, 220}}, 3, 0, 0, 0, 0},
		{"lost comfort noise", []arrival{{1, 1, false, 0}, {3, 17, false, 320}}, 2, 1, 1, 0, 0},
		{"late", []arrival{{1, 1, true, 0}, {2, 2, true, 41}, {3, 3, true, 40}}, 3, 0, 0, 1, 0},
		{"not yet late", []arrival{{1, 1, true, 0}, {2, 2, true, 40}}, 2, 0, 0, 0, 0},
		{"late against a better schedule", []arrival{{1, 1, true, 15}, {2, 2, true, 20}, {3, 3, true, 61}}, 3, 0, 0, 1, 0},
		{"out of order", []arrival{{1, 1, true, 0}, {3, 3, true, 40}, {2, 2, true, 41}}, 2, 1, 1, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r receiver
			c := AMRWB(8)
			last := int64(0)
			for _, a := range tt.in {
				if v := r.take(&c, c.pt, packet(c, a), a.ms*1e6, true); !v.ok || v.speech != a.speech {
					t.Fatalf("packet %v: %+v", a, v)
				}
				last = a.ms * 1e6
			}
			r.finish(len(tt.in), last)
			if r.frames != tt.frames || r.missing != tt.missing || r.lost != tt.lost || r.late != tt.late || r.reordered != tt.reordered {
				t.Errorf("frames %d, missing %d, lost %d, late %d, reordered %d; want %d %d %d %d %d",
					r.frames, r.missing, r.lost, r.late, r.reordered, tt.frames, tt.missing, tt.lost, tt.late, tt.reordered)
			}
		})
	}
}

// packet is a as the engine would send it: bandwidth-efficient, CMR 15, F 0, then FT.
func packet(c Codec, a arrival) []byte {
	b := make([]byte, rtp.HeaderSize+2)
	rtp.PutHeader(b, false, c.pt, a.seq, a.frame*c.step, 1)
	ft := byte(8)
	if !a.speech {
		ft = 9
	}
	b[12], b[13] = 0xf0|ft>>1, ft<<7
	return b
}

func TestAnEndWithoutFramesIsMissing(t *testing.T) {
	c := AMRWB(8)
	var never receiver
	never.finish(300, 0)
	if never.missing != 300 {
		t.Errorf("a deaf leg misses %d of 300", never.missing)
	}
	for _, tt := range []struct {
		speech bool
		want   uint64
	}{{true, 8}, {false, 0}} {
		var r receiver
		r.take(&c, c.pt, packet(c, arrival{1, 1, tt.speech, 0}), 0, true)
		r.finish(300, 200e6)
		if r.missing != tt.want {
			t.Errorf("speech %v, then nothing for ten frames: %d missing, want %d", tt.speech, r.missing, tt.want)
		}
	}
}

func TestReceiverRefusesWhatIsNotAFrame(t *testing.T) {
	c := AMRWB(8)
	good := packet(c, arrival{1, 1, true, 0})
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:11], "version": append([]byte{0}, good[1:]...), "type": append([]byte{0x80, 97}, good[2:]...),
	} {
		var r receiver
		if v := r.take(&c, c.pt, b, 0, true); v.ok || r.frames != 0 {
			t.Errorf("%s was counted", name)
		}
	}
	var r receiver
	if v := r.take(&c, c.pt, good[:12], 0, true); v.speech {
		t.Error("no payload is speech")
	}
}

func TestStamp(t *testing.T) {
	ts := unix.Timespec{Sec: 12, Nsec: 345}
	good := make([]byte, unix.CmsgSpace(16))
	binary.NativeEndian.PutUint64(good, uint64(unix.CmsgLen(16)))
	binary.NativeEndian.PutUint32(good[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(good[12:], unix.SO_TIMESTAMPNS)
	binary.NativeEndian.PutUint64(good[16:], uint64(ts.Sec))
	binary.NativeEndian.PutUint64(good[24:], uint64(ts.Nsec))
	if got := stamp(good); got != ts.Nano() {
		t.Errorf("stamp = %d, want %d", got, ts.Nano())
	}
	other := slices.Clone(good)
	binary.NativeEndian.PutUint32(other[12:], 99)
	if got := stamp(append(other, good...)); got != ts.Nano() {
		t.Errorf("behind another: %d", got)
	}
	long, short := slices.Clone(good), slices.Clone(good)
	binary.NativeEndian.PutUint64(long, 1<<40)
	binary.NativeEndian.PutUint64(short, 3)
	for name, b := range map[string][]byte{"none": nil, "cut": good[:20], "other": other, "long": long, "short": short} {
		if got := stamp(b); got != 0 {
			t.Errorf("%s: %d, want 0", name, got)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	for _, pid := range []int{0, os.Getpid()} {
		a, err := CPU(pid)
		if err != nil || a <= 0 {
			t.Fatalf("CPU(%d) = %v, %v", pid, a, err)
		}
		for b := a; b == a; { // the clock moves while we work
			if b, err = CPU(pid); err != nil || b < a {
				t.Fatalf("CPU(%d) = %v after %v, %v", pid, b, a, err)
			}
		}
		if rss, err := RSS(pid); err != nil || rss < 1<<20 {
			t.Errorf("RSS(%d) = %d, %v", pid, rss, err)
		}
	}
	const nobody = 1<<22 + 1 // above the largest pid_max
	if _, err := CPU(nobody); err == nil {
		t.Error("CPU of nobody")
	}
	if _, err := RSS(nobody); err == nil {
		t.Error("RSS of nobody")
	}
}

func TestParseStatm(t *testing.T) {
	if got, err := parseStatm([]byte("100 25 3 1 0 9 0\n")); err != nil || got != 25*int64(os.Getpagesize()) {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "1", "1 x", "1 -3"} {
		if _, err := parseStatm([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestFloor(t *testing.T) {
	r := Result{Sent: 100, Frames: 1000, Engine: EngineDelta{Encodes: 10, Decodes: 20}}
	got := r.floor(prices{encode: 150 * time.Microsecond, decode: 30 * time.Microsecond, send: 4 * time.Microsecond, receive: time.Microsecond})
	if want := (1500 + 600 + 4000 + 100) * time.Microsecond; got != want {
		t.Errorf("%v, want %v", got, want)
	}
	for _, c := range []Codec{PCMU(), AMRWB(2)} {
		p, err := pricesOf(c)
		if err != nil {
			t.Fatal(err)
		}
		if p.send <= 0 || p.receive <= 0 || c.amr() != (p.encode > p.decode && p.decode > 0) {
			t.Errorf("%s: %+v", c.Name, p)
		}
	}
}

// The phones of a load answer AMR-WB in one mode: what comes back has it too.
func TestACodecIsAnsweredInItsMode(t *testing.T) {
	for _, mode := range []int{2, 8} {
		if c := AMRWB(mode).SDP(); c.Name != "AMR-WB" || len(c.ModeSet) != 1 || c.ModeSet[0] != mode {
			t.Errorf("mode %d: %+v", mode, c)
		}
	}
	if c := PCMU().SDP(); c.Name != "PCMU" || c.ModeSet != nil {
		t.Errorf("%+v", c)
	}
}

// The process that has a port is found by it.
func TestOwnerOfAPort(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	if pid := ownerOf(port); pid != os.Getpid() {
		t.Errorf("process %d, want %d", pid, os.Getpid())
	}
	c.Close()
	if pid := ownerOf(port); pid != 0 {
		t.Errorf("process %d has a closed port", pid)
	}
}
