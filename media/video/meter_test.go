package video

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name     string
		seqs     []uint16
		lost     uint64
		highest  uint32
		fraction uint8
	}{
		{"none", nil, 0, 0, 0},
		{"in order", []uint16{1, 2, 3}, 0, 3, 0},
		{"a hole", []uint16{1, 2, 4}, 1, 4, 64},
		{"wrap", []uint16{65534, 65535, 0, 1}, 0, 65537, 0},
		{"reordered", []uint16{1, 3, 2, 4}, 0, 4, 0},
		{"repeated", []uint16{1, 1, 1, 2}, 0, 2, 0},
		{"half", []uint16{1, 3, 5, 7, 8}, 3, 8, 96},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m meter
			for i, s := range tt.seqs {
				m.add(s, uint32(i)*6000, start.Add(time.Duration(i)*time.Second/15))
			}
			if m.lost() != tt.lost || m.highest() != tt.highest || m.received != uint64(len(tt.seqs)) {
				t.Errorf("lost %d highest %d, want %d and %d", m.lost(), m.highest(), tt.lost, tt.highest)
			}
			if f := m.fraction(); f != tt.fraction {
				t.Errorf("fraction %d, want %d", f, tt.fraction)
			}
			if m.fraction() != 0 {
				t.Error("fraction counts the same loss twice")
			}
			if m.jitter > 1 {
				t.Errorf("jitter %v of an even stream", m.jitter)
			}
			lost := m.lost()
			m.reset()
			if m.lost() != lost {
				t.Error("another stream's start forgets the loss")
			}
		})
	}
}

func TestMeterJitterAndRecentLoss(t *testing.T) {
	var m meter
	start := time.Unix(1000, 0)
	ts := uint32(1<<32 - 30_000) // wraps
	for i := range 150 {
		at := start.Add(time.Duration(i) * time.Second / 15)
		if i%2 == 1 {
			at = at.Add(10 * time.Millisecond)
		}
		if i < 75 || i%5 != 0 { // a fifth is lost from the 5th second on
			m.add(uint16(i), ts, at)
		}
		ts += 6000
	}
	if ms := m.jitter / 90; ms < 6 || ms > 12 {
		t.Errorf("jitter %.1f ms, want about 10", ms)
	}
	if r := m.recent(start.Add(10 * time.Second)); r < 0.12 || r > 0.25 {
		t.Errorf("recent loss %.2f, want about 0.2", r)
	}
	if r := m.recent(start.Add(time.Minute)); r != 0 {
		t.Errorf("recent loss a minute later %.2f, want 0", r)
	}
}
