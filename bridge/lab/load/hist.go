package load

import (
	"math"
	"time"
)

const (
	histStep = 50 * time.Microsecond
	histBins = 20000 // up to a second
)

// Histogram counts durations in steps of 50 µs up to one second; what is longer counts
// as a second, and negative as zero, but Max and Min are exact. It takes 80 kB, no
// allocation, and is not safe for concurrent use. The zero value is empty.
type Histogram struct {
	bins     [histBins + 1]uint32
	n        uint64
	sum      time.Duration
	min, max time.Duration
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	if h.n == 0 || d < h.min {
		h.min = d
	}
	if h.n == 0 || d > h.max {
		h.max = d
	}
	h.n++
	h.sum += d
	h.bins[min(max(d, 0)/histStep, histBins)]++
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest; 0 when empty.
func (h *Histogram) Max() time.Duration { return h.max }

// Min is the shortest; 0 when empty.
func (h *Histogram) Min() time.Duration { return h.min }

// Mean is the average; 0 when empty.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile is the smallest duration that a share p (0..1) of all does not exceed, by the
// nearest rank, to the next step up but never above Max; 0 when empty.
func (h *Histogram) Quantile(p float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(p, 0), 1) * float64(h.n)))
	rank = max(rank, 1)
	var seen uint64
	for i, n := range &h.bins {
		seen += uint64(n)
		if seen >= rank {
			return min(time.Duration(i+1)*histStep, h.max)
		}
	}
	return h.max
}
