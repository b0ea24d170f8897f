// Package conceal covers lost frames of codecs that have no concealment of their own: the
// last period of the voice is repeated and fades, much as ITU-T G.711 Appendix I does it, and
// goes over into the next frame that came. Nothing in it steps: not where the loss begins, not
// from one period to the next, not where it ends. There is no delay, no clock, and nothing is
// allocated.
package conceal

import "math"

// maxRate is the highest sample rate.
const maxRate = 16000

// Concealer has the state of one stream. It is not safe for concurrent use.
type Concealer struct {
	// past is the last 30 ms that came, the newest sample last: the longest period, and
	// what it is looked for with.
	past [maxRate * 30 / 1000]int16
	// period is what is repeated. Its end goes over into what was before its beginning.
	period [maxRate * 15 / 1000]int16
	n      int     // samples of period
	at     int     // the next of them
	step   float32 // from where what came would have gone on to where it was
	lost   int     // samples in a row that were made up
}

// Came takes a frame that came, of at least 5 ms at rateHz (8000 or 16000). The first after a
// loss begins as what was made up would have gone on.
func (c *Concealer) Came(pcm []int16, rateHz int) {
	if c.lost > 0 {
		blend := pcm[:rateHz/200]
		for i, v := range blend {
			w := float32(i+1) / float32(len(blend)+1)
			blend[i] = int16(float32(v)*w + c.next(rateHz)*(1-w))
		}
		c.lost = 0
	}
	past := c.past[:rateHz*30/1000]
	if keep := len(past) - len(pcm); keep > 0 {
		copy(past, past[len(pcm):])
		copy(past[keep:], pcm)
	} else {
		copy(past, pcm[-keep:])
	}
}

// Lost makes up a frame in place of one that was lost.
func (c *Concealer) Lost(pcm []int16, rateHz int) {
	if c.lost == 0 {
		c.begin(rateHz)
	}
	for i := range pcm {
		pcm[i] = int16(c.next(rateHz))
	}
}

// begin finds the period and closes it to a ring.
func (c *Concealer) begin(rateHz int) {
	past := c.past[:rateHz*30/1000]
	n := len(past)
	c.n = pitch(past, rateHz)
	quarter := c.n / 4
	copy(c.period[:c.n], past[n-c.n:])
	for i := range quarter {
		w := float32(i+1) / float32(quarter+1)
		end, before := float32(past[n-quarter+i]), float32(past[n-c.n-quarter+i])
		c.period[c.n-quarter+i] = int16(end*(1-w) + before*w)
	}
	c.at, c.step = 0, float32(past[n-1])-float32(past[n-c.n-1])
}

// next is one more sample: at full level for 10 ms, then less, none after 60.
func (c *Concealer) next(rateHz int) float32 {
	v := float32(c.period[c.at])
	if quarter := c.n / 4; c.lost < quarter {
		v += c.step * float32(quarter-c.lost) / float32(quarter+1)
	}
	if c.at++; c.at == c.n {
		c.at = 0
	}
	gain := 1 - (float32(c.lost)*100/float32(rateHz)-1)/5
	c.lost++
	return min(max(v*max(min(gain, 1), 0), math.MinInt16), math.MaxInt16)
}

// pitch is the lag, 5 to 15 ms in samples, at which the last 10 ms resemble most what was
// before. A voice that is higher has one that is a multiple of its period.
func pitch(past []int16, rateHz int) int {
	window := past[len(past)-rateHz/100:]
	like := func(lag, stride int) float32 {
		before := past[len(past)-len(window)-lag:]
		var xy, yy float32
		for i := 0; i < len(window); i += stride {
			x, y := float32(window[i]), float32(before[i])
			xy += x * y
			yy += y * y
		}
		if xy <= 0 {
			return 0
		}
		return xy * xy / (yy + 1)
	}
	// Roughly at 4 kHz, then to the sample.
	stride := rateHz / 4000
	low, high := rateHz/200, rateHz*15/1000
	rough, best := low, float32(-1)
	for lag := low; lag <= high; lag += stride {
		if v := like(lag, stride); v > best {
			rough, best = lag, v
		}
	}
	lag, best := rough, float32(-1)
	for l := max(rough-stride+1, low); l < min(rough+stride, high+1); l++ {
		if v := like(l, 1); v > best {
			lag, best = l, v
		}
	}
	return lag
}
