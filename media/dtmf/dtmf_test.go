package dtmf

import (
	"encoding/binary"
	"os"
	"testing"
)

// Presses as phones send them, with what gets lost on the way.
func TestPress(t *testing.T) {
	for _, tt := range []struct {
		name string
		hold uint16
		want int // packets
	}{{"short", 160, 3}, {"100 ms", 800, 7}, {"odd length", 1000, 9}, {"nothing", 0, 3}} {
		for lost := range 7 { // every packet before this one
			p := Press{Digit: '5', Volume: 10, Step: 160, Hold: tt.hold}
			var r Receiver
			var b [Size]byte
			packets, digits, longest := 0, 0, uint16(0)
			for {
				n, marker := p.Next(b[:])
				if n == 0 {
					break
				}
				if marker != (packets == 0) {
					t.Errorf("%s: marker %v on packet %d", tt.name, marker, packets)
				}
				if packets++; packets <= lost {
					continue
				}
				e, first, err := r.Take(1234, b[:n])
				if err != nil {
					t.Fatal(err)
				}
				if first {
					digits++
				}
				longest = e.Duration
			}
			if packets != tt.want {
				t.Errorf("%s: %d packets, want %d", tt.name, packets, tt.want)
			}
			if lost < tt.want && (digits != 1 || longest != tt.hold) {
				t.Errorf("%s, %d lost: %d digits, %d ticks", tt.name, lost, digits, longest)
			}
		}
	}
	none := Press{Digit: 'x', Step: 160, Hold: 800}
	if n, _ := none.Next(make([]byte, Size)); n != 0 {
		t.Error("x was sent")
	}
}

// A key held for ten seconds at 16 kHz has three timestamps and is one digit.
func TestHeldKeyIsOneDigit(t *testing.T) {
	var r Receiver
	digits := 0
	take := func(ts uint32, e Event) {
		var b [Size]byte
		Put(b[:], e)
		if _, first, _ := r.Take(ts, b[:]); first {
			digits++
		}
	}
	ts := uint32(0xfffff000)
	for range 2 {
		for d := 320; d <= 0xffff; d += 320 {
			take(ts, Event{Digit: '7', Duration: uint16(d)})
		}
		take(ts, Event{Digit: '7', Duration: 0xffff})
		ts += 0xffff
	}
	take(ts, Event{Digit: '7', Duration: 320})
	take(ts, Event{Digit: '7', Duration: 640, End: true})
	if digits != 1 {
		t.Errorf("%d digits, want 1", digits)
	}
	take(ts+640, Event{Digit: '7', Duration: 320}) // pressed again
	if digits != 2 {
		t.Errorf("%d digits, want 2", digits)
	}
}

func TestPackets(t *testing.T) {
	for _, name := range []string{"dtmf-end-only", "dtmf-dup-end"} {
		b, err := os.ReadFile("testdata/" + name + ".bin")
		if err != nil {
			t.Fatal(err)
		}
		var r Receiver
		digits := ""
		for len(b) > 2 {
			n := 2 + int(binary.BigEndian.Uint16(b))
			if e, first, err := r.Take(binary.BigEndian.Uint32(b[6:]), b[14:n]); err != nil {
				t.Fatal(err)
			} else if first {
				digits += string(e.Digit)
			}
			b = b[n:]
		}
		if digits != "5" {
			t.Errorf("%s: %q", name, digits)
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	var r Receiver
	var b [Size]byte
	ts := uint32(0)
	if n := testing.AllocsPerRun(100, func() {
		p := Press{Digit: '#', Step: 320, Hold: 1600}
		for {
			n, _ := p.Next(b[:])
			if n == 0 {
				break
			}
			r.Take(ts, b[:n])
		}
		ts += 9999
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTake(b *testing.B) {
	var r Receiver
	p := []byte{1, 10, 1, 0x40}
	b.ReportAllocs()
	for b.Loop() {
		r.Take(77, p)
	}
}

func TestOneDigitAPress(t *testing.T) {
	var r Receiver
	var got []byte
	press := func(ts uint32, d byte, packets ...Event) {
		for _, e := range packets {
			e.Digit = d
			var b [Size]byte
			Put(b[:], e)
			if e, first, err := r.Take(ts, b[:]); err != nil {
				t.Fatal(err)
			} else if first {
				got = append(got, e.Digit)
			}
		}
	}
	press(100, '1', Event{}, Event{Duration: 320}, Event{Duration: 640, End: true}, Event{Duration: 640, End: true})
	press(5000, '1', Event{Duration: 640, End: true}) // only the end came
	press(9000, '#', Event{Duration: 160})
	press(100, '1', Event{End: true}) // a late repeat
	if string(got) != "11#" {
		t.Errorf("got %q", got)
	}
}

func TestParse(t *testing.T) {
	for i := range 256 {
		e, err := Parse([]byte{byte(i), 0x8a, 1, 2})
		if (err == nil) != (i < 16) {
			t.Errorf("event %d: %v", i, err)
		}
		if err == nil && (e.Digit != keys[i] || !e.End || e.Volume != 10 || e.Duration != 258) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if _, err := Parse([]byte{1, 2, 3}); err != ErrShort {
		t.Error(err)
	}
	if Put(make([]byte, 4), Event{Digit: 'x'}) != 0 {
		t.Error("x is a digit")
	}
}

func FuzzTake(f *testing.F) {
	f.Add(uint32(1), []byte{1, 0x80, 0, 1})
	f.Fuzz(func(t *testing.T, ts uint32, p []byte) {
		var r Receiver
		_, first, err := r.Take(ts, p)
		if _, again, _ := r.Take(ts, p); again || first != (err == nil) {
			t.Error("twice the same digit")
		}
	})
}
