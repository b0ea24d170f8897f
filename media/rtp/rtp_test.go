package rtp

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
	pion "github.com/pion/rtp"
)

func TestParse(t *testing.T) {
	ok := []byte{0x80, 0xe0, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 0xaa, 0xbb}
	with := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(ok)) }
	for _, tt := range []struct {
		name    string
		b       []byte
		err     error
		payload []byte
	}{
		{"plain", ok, nil, []byte{0xaa, 0xbb}},
		{"header only", ok[:12], nil, []byte{}},
		{"empty", nil, ErrShort, nil},
		{"11 octets", ok[:11], ErrShort, nil},
		{"version 1", with(func(b []byte) []byte { b[0] = 0x40; return b }), ErrVersion, nil},
		{"version 3", with(func(b []byte) []byte { b[0] = 0xc0; return b }), ErrVersion, nil},
		{"15 CSRCs, none there", with(func(b []byte) []byte { b[0] = 0x8f; return b }), ErrShort, nil},
		{"one CSRC", with(func(b []byte) []byte { b[0] = 0x81; return append(b[:12], 0, 0, 0, 1, 5) }), nil, []byte{5}},
		{"extension without room", with(func(b []byte) []byte { b[0] = 0x90; return b }), ErrShort, nil},
		{"extension too long", with(func(b []byte) []byte { b[0] = 0x90; return append(b[:12], 0xbe, 0xde, 0xff, 0xff) }), ErrShort, nil},
		{"extension", with(func(b []byte) []byte { b[0] = 0x90; return append(b[:12], 0xbe, 0xde, 0, 1, 0x40, 1, 0, 0, 7) }), nil, []byte{7}},
		{"padding", with(func(b []byte) []byte { b[0] = 0xa0; return append(b[:12], 9, 0, 0, 3) }), nil, []byte{9}},
		{"all padding", with(func(b []byte) []byte { b[0] = 0xa0; return append(b[:12], 0, 0, 0, 4) }), nil, []byte{}},
		{"padding too long", with(func(b []byte) []byte { b[0] = 0xa0; return append(b[:12], 0, 0, 0, 5) }), ErrPadding, nil},
		{"padding of none", with(func(b []byte) []byte { b[0] = 0xa0; return append(b[:12], 0) }), ErrPadding, nil},
		{"RTCP", with(func(b []byte) []byte { b[1] = 200; return b }), ErrRTCP, nil},
	} {
		var p Packet
		if err := p.Parse(tt.b); err != tt.err || err == nil && !bytes.Equal(p.Payload, tt.payload) {
			t.Errorf("%s: %v, payload %x", tt.name, err, p.Payload)
		}
	}
	var p Packet
	if p.Parse(ok); p.Seq != 7 || p.Timestamp != 9 || p.SSRC != 0x01020304 || !p.Marker || p.Type != 0x60 {
		t.Errorf("%+v", p)
	}
	var h [HeaderSize]byte
	PutHeader(h[:], true, 0x60, 7, 9, 0x01020304)
	if !bytes.Equal(h[:], ok[:12]) {
		t.Errorf("header %x", h)
	}
}

// pion reads the same from what we accept.
func FuzzParse(f *testing.F) {
	f.Add([]byte{0x90, 0x60, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x40, 1, 0, 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if p.Parse(b) != nil {
			return
		}
		var h pion.Header
		if n, err := h.Unmarshal(b); err == nil && p.ExtProfile == 0 {
			if h.SequenceNumber != p.Seq || h.SSRC != p.SSRC || h.Timestamp != p.Timestamp || n > len(b) {
				t.Errorf("pion reads %+v, we %+v", h, p)
			}
		}
	})
}

func feed(s *Source, seqs ...uint16) (verdicts []Verdict) {
	for i, q := range seqs {
		verdicts = append(verdicts, s.Add(&Packet{SSRC: 1, Seq: q, Timestamp: uint32(i) * 160}, time.Duration(i)*20*time.Millisecond))
	}
	return verdicts
}

func TestLossAcrossWrapReorderAndDuplicates(t *testing.T) {
	s := Source{Clock: 8000}
	feed(&s, 65533, 65534, 0, 65535, 1, 3, 3, 4) // 2 is lost, 3 came twice: RFC 3550 counts both
	if s.expected() != 8 || s.Received != 8 || s.Lost() != 0 {
		t.Errorf("expected %d received %d lost %d", s.expected(), s.Received, s.Lost())
	}
	feed(&s, 10)
	if s.Lost() != 5 {
		t.Errorf("lost %d, want 5", s.Lost())
	}
}

func TestJumpsRestart(t *testing.T) {
	s := Source{Clock: 8000}
	got := feed(&s, 1, 2, 30000, 3, 40000, 40001, 40002)
	want := []Verdict{OK, OK, Rejected, OK, Rejected, Restarted, OK}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("packet %d: %v, want %v", i, got[i], want[i])
		}
	}
	if s.Add(&Packet{SSRC: 2, Seq: 9}, time.Second) != Rejected || s.Add(&Packet{SSRC: 2, Seq: 10}, time.Second) != Restarted {
		t.Error("a new SSRC is no restart with its second packet")
	}
}

// Of two sources that send at once the first goes on being heard.
func TestTwoSourcesAtOnce(t *testing.T) {
	s := Source{Clock: 8000}
	for i := range uint16(100) {
		at := time.Duration(i) * 20 * time.Millisecond
		if v := s.Add(&Packet{SSRC: 1, Seq: i}, at); v != OK {
			t.Fatalf("packet %d of the first source: %v", i, v)
		}
		if v := s.Add(&Packet{SSRC: 2, Seq: 500 + i}, at); v != Rejected {
			t.Fatalf("packet %d of the second source: %v", i, v)
		}
	}
	if s.Received != 100 || s.Lost() != 0 {
		t.Errorf("%d received, %d lost", s.Received, s.Lost())
	}
}

func TestJitterOfASteadyStreamIsNone(t *testing.T) {
	s := Source{Clock: 16000}
	for i := range 200 {
		s.Add(&Packet{SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * 320}, time.Duration(i)*20*time.Millisecond)
	}
	if s.Jitter() > time.Millisecond {
		t.Errorf("jitter %v", s.Jitter())
	}
	for i := 200; i < 600; i++ { // every other packet 10 ms late: mean |D| is 10 ms
		late := time.Duration(i%2) * 10 * time.Millisecond
		s.Add(&Packet{SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * 320}, time.Duration(i)*20*time.Millisecond+late)
	}
	if j := s.Jitter(); j < 9*time.Millisecond || j > 11*time.Millisecond {
		t.Errorf("jitter %v, want 10ms", j)
	}
}

func TestLossWindowForgets(t *testing.T) {
	s := Source{Clock: 8000}
	add := func(i int) {
		s.Add(&Packet{SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * 160}, time.Duration(i)*20*time.Millisecond)
	}
	for i := range 500 {
		if i%10 != 3 {
			add(i)
		}
	}
	if l := s.Loss(); math.Abs(l-0.1) > 0.02 {
		t.Errorf("loss %v, want 0.1", l)
	}
	for i := 500; i < 1000; i++ {
		add(i)
	}
	if l := s.Loss(); l != 0 {
		t.Errorf("loss %v ten seconds later", l)
	}
}

// pion is the second opinion of what we write, and its packets of what we read.
func TestReportsAgreeWithPion(t *testing.T) {
	s := Source{Clock: 8000}
	feed(&s, 1, 2, 4)
	now := time.Unix(1700000000, 500e6)
	s.OnSR(1, NTP(now), 0, 0)
	b := make([]byte, ReportSize+8)
	n := PutReport(b, Sender{SSRC: 77, Timestamp: 1234, Packets: 10, Octets: 600}, &s, "abc", now, time.Second)
	n += PutBye(b[n:], 77)
	all, err := rtcp.Unmarshal(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	sr := all[0].(*rtcp.SenderReport)
	if sr.SSRC != 77 || sr.PacketCount != 10 || sr.OctetCount != 600 || sr.RTPTime != 1234 || len(sr.Reports) != 1 ||
		sr.Reports[0].TotalLost != 1 || sr.Reports[0].FractionLost != 64 || sr.Reports[0].LastSequenceNumber != 4 || sr.Reports[0].Delay != 65536 {
		t.Errorf("%+v", sr)
	}
	if c := all[1].(*rtcp.SourceDescription).Chunks[0]; c.Items[0].Text != "abc" || c.Source != 77 {
		t.Errorf("%+v", c)
	}
	if _, ok := all[2].(*rtcp.Goodbye); !ok {
		t.Errorf("%T", all[2])
	}
	n = PutReport(b, Sender{SSRC: 77}, nil, "", now, 0)
	if all, err = rtcp.Unmarshal(b[:n]); err != nil {
		t.Fatal(err)
	}
	if rr, ok := all[0].(*rtcp.ReceiverReport); !ok || len(rr.Reports) != 0 {
		t.Errorf("%+v", all[0])
	}

	peer, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 5, Reports: []rtcp.ReceptionReport{{SSRC: 77, FractionLost: 128,
		TotalLost: 9, LastSenderReport: uint32(NTP(now) >> 16), Delay: 65536}}}})
	if err != nil {
		t.Fatal(err)
	}
	r, rest, ok := Next(peer)
	if !ok || len(rest) != 0 || r.Type != TypeRR || len(r.Blocks) != 24 {
		t.Fatalf("%+v", r)
	}
	blk := r.Block(0)
	rtt, ok := blk.RTT(now.Add(1100 * time.Millisecond))
	if blk.Fraction != 0.5 || blk.Lost != 9 || !ok || rtt < 99*time.Millisecond || rtt > 101*time.Millisecond {
		t.Errorf("%+v, rtt %v", blk, rtt)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte{0x81, 201, 0, 7, 0, 0, 0, 1})
	f.Add([]byte{0x80, 200, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := 0; ; n++ {
			r, rest, ok := Next(b)
			if !ok {
				return
			}
			for i := range len(r.Blocks) / 24 {
				r.Block(i).RTT(time.Time{})
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

func TestMOSFallsWithLossAndDelay(t *testing.T) {
	for _, wide := range []bool{false, true} {
		best := MOS(wide, 0, 50*time.Millisecond)
		if best < 4 || MOS(wide, 0.05, 50*time.Millisecond) >= best-0.3 || MOS(wide, 0, 500*time.Millisecond) >= best-0.3 || MOS(wide, 1, time.Second) > 1.5 {
			t.Errorf("wide %v: best %.2f, 5%% %.2f, 500 ms %.2f", wide, best, MOS(wide, 0.05, 50*time.Millisecond), MOS(wide, 0, 500*time.Millisecond))
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	s := Source{Clock: 8000}
	raw := []byte{0x80, 0x60, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 0xaa}
	b := make([]byte, ReportSize)
	now := time.Now()
	var p Packet
	if n := testing.AllocsPerRun(100, func() {
		p.Parse(raw)
		s.Add(&p, 0)
		PutReport(b, Sender{SSRC: 1, Packets: 1}, &s, "c", now, 0)
		Next(b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A key press shares the stream's sequence numbers: it is no loss, and its standing
// timestamp is no jitter.
func TestEventsAreNoLossAndNoJitter(t *testing.T) {
	s := Source{Clock: 16000}
	for i := range 300 {
		at := time.Duration(i) * 20 * time.Millisecond
		p := Packet{SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * 320}
		if i >= 100 && i < 110 {
			p.Timestamp = 100 * 320
			s.AddEvent(&p, at)
			continue
		}
		s.Add(&p, at)
	}
	if s.Lost() != 0 || s.Jitter() > time.Millisecond {
		t.Errorf("lost %d, jitter %v", s.Lost(), s.Jitter())
	}
}

// RFC 3556 §2 with RFC 3550 §6.3.1, for two.
func TestShareOfRTCP(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rs, rr     uint32
		sends, too bool
		want       uint32
	}{
		{"audio, both talk: all share the sum", 600, 2000, true, true, 1300},
		{"audio, we listen: senders are more than RS's part", 600, 2000, false, true, 1300},
		{"audio on hold: receivers only", 600, 2000, false, false, 1000},
		{"video, both send", 8000, 6000, true, true, 7000},
		{"video, we alone send", 8000, 6000, true, false, 8000},
		{"video, the phone alone sends", 8000, 6000, false, true, 6000},
		{"nothing for receivers", 4000, 0, true, true, 2000},
		{"nothing for receivers, and we are one", 4000, 0, false, true, 0},
		{"nothing at all", 0, 0, true, true, 0},
		{"a great deal", 1 << 31, 1 << 31, true, true, 1 << 31},
	} {
		if got := Share(tt.rs, tt.rr, tt.sends, tt.too); got != tt.want {
			t.Errorf("%s: %d bit/s, want %d", tt.name, got, tt.want)
		}
	}
}

// Whatever is said of bandwidth, a report goes out every 5 s, and no flood of them.
func TestIntervalOfReports(t *testing.T) {
	for _, tt := range []struct {
		bps      uint32
		octets   int
		least    time.Duration
		from, to time.Duration
	}{
		{0, 104, 0, 2 * time.Second, 2500 * time.Millisecond},
		{1, 104, 0, 4 * time.Second, 5 * time.Second},
		{1 << 31, 104, 0, 1200 * time.Millisecond, 1500 * time.Millisecond},
		{416, 104, 0, 1600 * time.Millisecond, 2 * time.Second},
		{1 << 31, 104, 5 * time.Second, 4 * time.Second, 5 * time.Second},
		{1 << 31, 104, time.Hour, 4 * time.Second, 5 * time.Second},
	} {
		lo, hi := Interval(tt.bps, tt.octets, tt.least, 0), Interval(tt.bps, tt.octets, tt.least, 1)
		if lo != tt.from || hi != tt.to {
			t.Errorf("%d bit/s, %d octets, at least %v: %v to %v, want %v to %v", tt.bps, tt.octets, tt.least, lo, hi, tt.from, tt.to)
		}
	}
}
