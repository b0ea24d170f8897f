// Package mix has the arithmetic of the tick: sums, limiting, levels, who talks. 16 kHz
// mono int16 in frames of any length. Nothing here allocates, locks or keeps time.
package mix

import "math"

// Add adds a frame to a sum. int32 holds 65,536 full-scale talkers.
func Add(sum []int32, pcm []int16) {
	pcm = pcm[:len(sum)]
	for i, v := range pcm {
		sum[i] += int32(v)
	}
}

// Out writes a sum as samples, limited.
func Out(out []int16, sum []int32) {
	out = out[:len(sum)]
	for i, v := range sum {
		if uint32(v+knee) > 2*knee {
			v = int32(Limit(v))
		}
		out[i] = int16(v)
	}
}

// knee is where limiting begins: 6 dB below full scale.
const knee = 16384

// Limit bends what is above the knee towards full scale instead of cutting it, so that
// ten talkers at once stay intelligible: y = knee + r·x/(x+r) with r the room above the
// knee, which is smooth at the knee and never reaches 32,768.
func Limit(v int32) int16 {
	if v <= knee && v >= -knee {
		return int16(v)
	}
	const room = 32767 - knee
	if v > 0 {
		x := int64(v - knee)
		return int16(knee + room*x/(x+room))
	}
	x := -int64(v) - knee
	return int16(-knee - room*x/(x+room))
}

// MaxRMS is the highest RMS that Ceiling lets through, 9 dB below full scale: a voice is at -26,
// a shout into the phone at -12.
const MaxRMS = 32768 * 0.35

// Ceiling keeps what a decoder makes of octets that are no voice, which may be full scale, from
// being heard so loud. Its gain falls at once, with a short ramp, and comes back by 3 dB a frame.
// The zero value is ready.
type Ceiling struct{ down float32 } // 1 less the gain

// Hold holds a frame of 20 ms to MaxRMS, and to less with a gain below 1.
func (c *Ceiling) Hold(pcm []int16, gain float32) {
	var sum int64
	for _, v := range pcm {
		sum += int64(v) * int64(v)
	}
	want := gain
	if limit := MaxRMS * MaxRMS * float64(len(pcm)); float64(sum) > limit {
		want *= float32(math.Sqrt(limit / float64(sum)))
	}
	was := 1 - c.down
	want = min(want, was*1.41)
	if was == 1 && want == 1 {
		return
	}
	const ramp = 8 // samples, half a millisecond
	step := (want - was) / ramp
	for i := range pcm {
		g := want
		if i < ramp {
			g = was + step*float32(i+1)
		}
		pcm[i] = int16(float32(pcm[i]) * g)
	}
	c.down = 1 - want
}

// Silent is the level of digital silence.
const Silent = -127

// Level is a frame's loudness in dBov: 0 for a full-scale square wave, Silent for none.
func Level(pcm []int16) float32 {
	var sum int64
	for _, v := range pcm {
		sum += int64(v) * int64(v)
	}
	if sum == 0 || len(pcm) == 0 {
		return Silent
	}
	db := 10 * math.Log10(float64(sum)/float64(len(pcm))/(32768*32768))
	return float32(max(db, Silent))
}

// Detector decides from levels whether somebody talks. It follows the noise, so that a
// fan is no talker.
type Detector struct {
	noise float32 // dBov, 0: not started
	hang  int
}

const (
	above    = 9   // dB over the noise is talk
	floor    = -62 // below this nothing is talk
	loud     = -35 // above this everything is
	hangover = 15  // frames, 300 ms: between words
)

// Step takes the level of one frame and says whether its sender talks.
func (d *Detector) Step(level float32) bool {
	if d.noise == 0 {
		d.noise = max(min(level, -40), -80)
	}
	if level < d.noise {
		d.noise += (level - d.noise) * 0.25
	} else {
		d.noise += min((level-d.noise)*0.002, 0.05)
	}
	d.noise = max(d.noise, -90)
	if level > loud || level > floor && level > d.noise+above {
		d.hang = hangover
		return true
	}
	if d.hang > 0 {
		d.hang--
		return true
	}
	return false
}

// Voice says whether the frame of the last Step was talk itself, and no hangover.
func (d *Detector) Voice() bool { return d.hang == hangover }

// Hush tells the detector how loud the sender's silence is, dBov, by his own account.
func (d *Detector) Hush(level float32) { d.noise = max(min(level, -40), -90) }

// Quiet tells the detector of a frame that was not sent: the sender's own detector has
// said that he is silent (DTX).
func (d *Detector) Quiet() bool {
	if d.hang > 0 {
		d.hang--
	}
	return d.hang > 0
}
