package rtp

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBrokenPackets(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		size int // of the payload
	}{
		{"ok-control", nil, 160},
		{"short-0", ErrShort, 0},
		{"short-1", ErrShort, 0},
		{"short-11", ErrShort, 0},
		{"header-only", nil, 0},
		{"version-0", ErrVersion, 0},
		{"version-1", ErrVersion, 0},
		{"version-3", ErrVersion, 0},
		{"csrc-15-none", ErrShort, 0},
		{"ext-len-ffff", ErrShort, 0},
		{"ext-onebyte-overrun", nil, 160}, // the header is sound; elements are their reader's
		{"ext-len0", nil, 160},
		{"pad-all", nil, 0},
		{"pt-72-rtcp-clash", nil, 160}, // an RTP port of its own: no clash, but nobody's payload type
	} {
		var p Packet
		if err := p.Parse(file(t, "rtp/"+tt.name)); err != tt.err || err == nil && len(p.Payload) != tt.size {
			t.Errorf("%s: %v with %d octets, want %v with %d", tt.name, err, len(p.Payload), tt.err, tt.size)
		}
	}
}

func TestOddStreams(t *testing.T) {
	for _, tt := range []struct {
		name             string
		expected, lost   uint64
		rejected, starts int
	}{
		{"seq-wrap", 12, 0, 0, 0},
		{"seq-jump-30000", 4, 0, 1, 1}, // 30001 to 30004 after the restart
		{"ts-backward", 10, 0, 0, 0},
		{"ts-jump-1h", 2, 0, 0, 0},
		{"dup-x100", 1, 0, 0, 0},
		{"reorder-reverse", 1, 0, 0, 0}, // nothing before the first packet was expected
	} {
		s := Source{Clock: 8000}
		rejected, starts := 0, 0
		at := time.Duration(0)
		for b := file(t, "rtp/"+tt.name); len(b) > 2; at += 20 * time.Millisecond {
			n := 2 + int(binary.BigEndian.Uint16(b))
			var p Packet
			if err := p.Parse(b[2:n]); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			switch s.Add(&p, at) {
			case Rejected:
				rejected++
			case Restarted:
				starts++
			}
			b = b[n:]
		}
		if s.expected() != tt.expected || s.Lost() != tt.lost || rejected != tt.rejected || starts != tt.starts {
			t.Errorf("%s: %d expected, %d lost, %d rejected, %d restarts, want %+v", tt.name, s.expected(), s.Lost(), rejected, starts, tt)
		}
		if j := s.Jitter(); j > 10*time.Second {
			t.Errorf("%s: jitter %v", tt.name, j)
		}
	}
}

// Of broken RTCP nothing is believed that would change our state: no report block, no
// sender's time; and reading it ends.
func TestBrokenRTCP(t *testing.T) {
	for _, tt := range []struct {
		name    string
		packets int // at most
	}{
		{"len-ffff", 0}, {"rc31-none", 0}, {"len0-loop", 300}, {"sdes-noend", 1}, {"nack-flood", 1},
		{"pli-flood", 1}, {"remb-max", 1}, {"twcc-trunc", 1}, {"xr-bad", 1},
	} {
		n := 0
		for b := file(t, "rtcp/"+tt.name); ; n++ {
			r, rest, ok := Next(b)
			if !ok {
				break
			}
			if len(r.Blocks) > 0 || r.NTP != 0 {
				t.Errorf("%s: believed %+v", tt.name, r)
			}
			b = rest
		}
		if n > tt.packets {
			t.Errorf("%s: %d packets, want at most %d", tt.name, n, tt.packets)
		}
	}
}

// A stream that dries up but for one packet has lost nearly all: the octet of the report
// must not wrap to none.
func TestFractionOfNearlyAllDoesNotWrap(t *testing.T) {
	s := Source{Clock: 8000}
	b := make([]byte, ReportSize)
	feed(&s, 1, 2)
	PutReport(b, Sender{SSRC: 9}, &s, "c", time.Time{}, 0)
	feed(&s, 2500)
	PutReport(b, Sender{SSRC: 9}, &s, "c", time.Time{}, 0)
	if got := b[8+4]; got < 254 {
		t.Errorf("fraction lost %d/256 of 2,498 packets but one", got)
	}
	s.expectedPrior, s.receivedPrior = s.expected()-10, s.Received // ten expected, none came
	PutReport(b, Sender{SSRC: 9}, &s, "c", time.Time{}, 0)
	if got := b[8+4]; got != 255 {
		t.Errorf("fraction lost %d/256 of everything", got)
	}
}

func BenchmarkParseAndAdd(b *testing.B) {
	raw := file(b, "rtp/ok-control")
	s := Source{Clock: 8000}
	var p Packet
	var seq uint16
	b.ReportAllocs()
	for b.Loop() {
		if p.Parse(raw) == nil {
			p.Seq, p.Timestamp = seq, uint32(seq)*160
			s.Add(&p, time.Duration(seq)*20*time.Millisecond)
		}
		seq++
	}
}
