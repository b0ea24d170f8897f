package mix

import "math"

// AGC evens out how loud a talker is: a gain of his own, from the level of his speech, so
// slow that it is not heard to move. What it never does: raise the noise between his words,
// or more of it than a quiet room has; follow a single word; click. The zero value is
// ready.
type AGC struct {
	power float64 // of his speech, mean of the last seconds, 1 is full scale
	heard int     // frames of it
	want  float32 // the gain of his speech, dB
	now   float32 // the gain that the next frame has, dB
	used  float32 // the gain that the last frame had, dB

	low   [2]float32 // the lowest levels of this window and the one before, dBov
	since int        // frames of this window
}

const (
	// agcTarget is where speech is brought, dBov; ITU-T G.169 and P.56 have -26 for a line.
	agcTarget = -24
	agcMax    = 12 // dB, up and down
	// agcNear is how far speech may be from the target and is left as it is: most phones'
	// is, and what is not touched can be passed on as it came.
	agcNear   = 3
	agcFirst  = 50   // frames of speech until it begins
	agcMemory = 150  // frames of speech that are averaged: 3 s
	agcUp     = 0.06 // dB a frame of speech: 3 dB a second
	agcDown   = 0.2
	agcPause  = 0.8 // dB a frame of silence, until nothing is raised
	agcNoise  = -55 // dBov, above which no gain brings the noise behind the speech
	agcWindow = 75  // frames; the lowest level of one or two windows is the noise
	agcAbove  = 12  // dB that speech is above the noise
	agcRamp   = 160 // samples of 16 kHz that a change takes
)

// Step tells of a frame: its level, dBov, and whether it is a voice.
func (a *AGC) Step(level float32, voice bool) {
	noise := a.noise(level)
	if !voice || level < noise+agcAbove {
		if a.now > 0 { // a word's end is in it: not at once
			a.now = max(a.now-agcPause, 0)
		}
		return
	}
	a.heard = min(a.heard+1, agcMemory)
	a.power += (math.Pow(10, float64(level)/10) - a.power) / float64(a.heard)
	if a.Sure() {
		a.steer(noise)
	}
	a.now = a.want
}

// noise is the lowest level of late, that of a sender that is silent at times not counted.
func (a *AGC) noise(level float32) float32 {
	if a.since == 0 {
		a.low = [2]float32{0, a.low[0]}
	}
	a.since = (a.since + 1) % agcWindow
	if level > -90 {
		a.low[0] = min(a.low[0], level)
	}
	return min(a.low[0], a.low[1])
}

func (a *AGC) steer(noise float32) {
	to := agcTarget - float32(10*math.Log10(max(a.power, 1e-9)))
	if near := float32(agcNear); a.want == 0 && to > -near && to < near || to > -1 && to < 1 {
		to = 0
	}
	to = min(max(to, -agcMax), agcMax, max(agcNoise-noise, 0))
	switch {
	case to > a.want:
		a.want = min(a.want+agcUp, to)
	default:
		a.want = max(a.want-agcDown, to)
	}
}

// Sure says whether it has heard enough to decide.
func (a *AGC) Sure() bool { return a.heard >= agcFirst }

// Active says whether the speech is not left as it is.
func (a *AGC) Active() bool { return a.want != 0 || a.now != 0 || a.used != 0 }

// Apply gives one frame of at least agcRamp samples its gain, limited.
func (a *AGC) Apply(pcm []int16) {
	if a.now == 0 && a.used == 0 {
		return
	}
	from, to := linear(a.used), linear(a.now)
	a.used = a.now
	step := (to - from) / agcRamp
	for i, v := range pcm {
		g := to
		if i < agcRamp {
			g = from + step*float32(i+1)
		}
		pcm[i] = Limit(int32(float32(v) * g))
	}
}

func linear(db float32) float32 { return float32(math.Pow(10, float64(db)/20)) }
