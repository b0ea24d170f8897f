package dtmf

import "testing"

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
