package phone

import (
	"slices"
	"sync"
	"time"
)

// Heard is a speaker who was recognised in what a handset received.
type Heard struct {
	Who     string  // his name, of Options.Names
	Speaker int     // his number
	Seconds float64 // how long he was heard
	SNRdB   float64 // how far his mark stood out, mean
}

const (
	memory   = 60 * time.Second // that a Listener remembers
	minHeard = 4                // windows of 40 ms in which somebody is recognised before he counts
	minRun   = 3                // of which in one go: tones last, harmonics glide
)

// Listener keeps what was heard, as 16 kHz mono frames of 20 ms, and recognises the
// speakers in it. It is safe for concurrent use.
type Listener struct {
	mu   sync.Mutex
	pcm  []int16     // ring of whole frames
	at   []time.Time // when each was played; zero: none yet
	next int         // frame that is written next
}

// NewListener makes one that remembers the last minute.
func NewListener() *Listener {
	n := int(memory / (20 * time.Millisecond))
	return &Listener{pcm: make([]int16, n*frame), at: make([]time.Time, n)}
}

// Feed adds one frame of 320 samples that was played at the instant at. Frames come in
// order; one of another length is ignored.
func (l *Listener) Feed(pcm []int16, at time.Time) {
	if len(pcm) != frame {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	copy(l.pcm[l.next*frame:], pcm)
	l.at[l.next] = at
	l.next = (l.next + 1) % len(l.at)
}

// PCM is what was played since an instant, at most the last minute.
func (l *Listener) PCM(since time.Time) []int16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []int16
	for i := range l.at {
		f := (l.next + i) % len(l.at)
		if at := l.at[f]; !at.IsZero() && !at.Before(since) {
			out = append(out, l.pcm[f*frame:(f+1)*frame]...)
		}
	}
	return out
}

// Heard is who spoke since an instant, by speaker number. Who is the name of names, or
// empty. To hear everybody it must reach back at least a Cycle and a turn (11 s).
func (l *Listener) Heard(since time.Time, names []string) []Heard {
	return recognise(l.PCM(since), names)
}

func recognise(pcm []int16, names []string) []Heard {
	type count struct {
		total, run, longest int
		snr                 float64
	}
	var c [Speakers]count
	var sp spectrum
	for i := 0; i+window <= len(pcm); i += hop {
		if quiet(pcm[i : i+window]) {
			for s := range c {
				c[s].run = 0
			}
			continue
		}
		sp.run(pcm[i : i+window])
		for s := range c {
			snr, ok := sp.present(s)
			if !ok {
				c[s].run = 0
				continue
			}
			c[s].total++
			c[s].snr += snr
			c[s].run++
			c[s].longest = max(c[s].longest, c[s].run)
		}
	}
	var out []Heard
	for s, c := range c {
		if c.total < minHeard || c.longest < minRun {
			continue
		}
		h := Heard{Speaker: s, Seconds: float64(c.total) * hop / rateHz, SNRdB: c.snr / float64(c.total)}
		if s < len(names) {
			h.Who = names[s]
		}
		out = append(out, h)
	}
	return slices.Clip(out)
}

// quiet spares the analysis of what nobody can hear.
func quiet(pcm []int16) bool {
	for _, v := range pcm {
		if v > 40 || v < -40 {
			return false
		}
	}
	return true
}
