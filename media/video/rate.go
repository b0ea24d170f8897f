package video

import "time"

const (
	// raiseEvery is how long a rate that was lowered for the phone stays before it is
	// doubled, where the phone allows more again: its radio just had too much.
	raiseEvery = 5 * time.Second
	// lowestClass is the least a tier has. A phone that allows less is sent no pictures.
	lowestClass = 64_000
)

// sendLimit is what a phone lets us send (TMMBR, RFC 5104 §3.5.4). It is lowered at once
// and raised step by step. The zero value is no limit.
type sendLimit struct {
	set     bool
	allowed int // bit/s of pictures, by the phone's last word
	now     int // what is kept to: never above allowed
	raised  time.Time
	owner   maxRate // of TMMBN: who said so, in the phone's own figures
}

// take obeys the phone's word and says whether less may be sent than before.
func (s *sendLimit) take(m maxRate, fps, full int, now time.Time) bool {
	before := s.rate(full)
	s.owner = m
	s.allowed = m.payloadOf(fps)
	if s.now = min(before, s.allowed); !s.set || s.now < before {
		s.raised = now
	}
	s.set = true
	return s.now < before
}

// step raises what is kept to when it is time and says whether it did. full is what the
// stream has without a limit: there the limit ends.
func (s *sendLimit) step(full int, now time.Time) bool {
	if !s.set || s.now >= s.allowed || now.Sub(s.raised) < raiseEvery {
		return false
	}
	before := s.rate(full)
	s.raised = now
	s.now = min(s.allowed, max(2*s.now, lowestClass))
	return s.rate(full) > before
}

// rate is what may be sent of full bit/s.
func (s *sendLimit) rate(full int) int {
	if !s.set {
		return full
	}
	return min(s.now, full)
}

// within is the rate class of full that is not above limit; 0: not even the lowest is.
// Classes are halves, quarters and so on of full, so that phones with equal streams share
// few encodings whatever each of them asks for.
func within(full, limit int) int {
	for class := full; class > lowestClass; class /= 2 {
		if class <= limit {
			return class
		}
	}
	if limit < lowestClass {
		return 0
	}
	return min(full, lowestClass)
}

// lossLimit is what a phone is sent by what it reports as lost (RR, RFC 3550 §6.4.2): half
// after downAfter seconds of much loss, down to rateFloor, and double after upAfter seconds of
// none. Who loses much again as soon as he has more is given it later each time. It has no
// clock. The zero value is no limit.
type lossLimit struct {
	now        int // bit/s; 0: none
	at         time.Time
	highest    uint32
	lost       uint32
	bad, clean time.Time // since when; zero: not
	raised     time.Time
	patience   time.Duration
	primed     bool
}

// maxPatience bounds how long a phone has to be without loss before it is sent more.
const maxPatience = 160 * time.Second

// report takes a report's cumulative figures: the highest sequence number and the packets
// lost. True: rate is another.
func (s *lossLimit) report(highest, lost uint32, full int, now time.Time) bool {
	since := now.Sub(s.at)
	if !s.primed || since > 15*time.Second { // the first, or it fell silent
		s.primed, s.at, s.highest, s.lost = true, now, highest, lost
		s.bad, s.clean = time.Time{}, time.Time{}
		return false
	}
	want, gone := int32(highest-s.highest), int32((lost-s.lost)<<8)>>8 // 24 bits, signed
	if since < time.Second || want >= 0 && want < fewest {
		return false
	}
	from := s.at
	s.at, s.highest, s.lost = now, highest, lost
	loss := float64(gone) / float64(want)
	if want < 0 || loss <= lossDown {
		s.bad = time.Time{}
	} else if s.bad.IsZero() {
		s.bad = from
	}
	if want < 0 || loss >= lossClean {
		s.clean = time.Time{}
	} else if s.clean.IsZero() {
		s.clean = from
	}
	before := s.rate(full)
	switch {
	case !s.bad.IsZero() && now.Sub(s.bad) >= downAfter*time.Second:
		s.bad = now
		s.now = max(before/2, min(rateFloor, full))
		if s.patience = max(s.patience, upAfter*time.Second); !s.raised.IsZero() && now.Sub(s.raised) < 3*upAfter*time.Second {
			s.patience = min(2*s.patience, maxPatience)
		}
	case !s.clean.IsZero() && now.Sub(s.clean) >= s.patience:
		if s.clean = now; s.now == 0 {
			s.patience = upAfter * time.Second
			break
		}
		s.raised = now
		if s.now *= 2; s.now >= full {
			s.now = 0
		}
	}
	return s.rate(full) != before
}

// rate is what may be sent of full bit/s.
func (s *lossLimit) rate(full int) int {
	if s.now == 0 {
		return full
	}
	return min(s.now, full)
}

const (
	// lossDown and lossClean are the loss of a second that counts as bad and as good;
	// downAfter and upAfter how long it has to be so (IMS.md §5.3).
	lossDown, lossClean = 0.05, 0.01
	downAfter, upAfter  = 5, 10 // s
	// rateFloor is the least a phone is asked for, rateCeiling what our descriptions allow
	// it (b=AS): to ask for that is to ask for nothing.
	rateFloor, rateCeiling = 192_000, 960_000
	// sayAgain is how often a wish is said, and sayGap how long its confirmation may take
	// (TMMBN), before it is said again or given up.
	sayAgain, sayGap = 4, time.Second
	// fewest packets of a second that say anything about loss.
	fewest = 10
)

// receiveRate decides what rate a phone is asked for, by what is lost of its pictures. It is
// given the counters every now and then and has no clock. The zero value asks for nothing.
type receiveRate struct {
	limit          int // bit/s, headers counted in; 0: none
	bad, clean     int // seconds in a row
	at             time.Time
	expected, seen uint64
	octets         uint64

	unsaid int // how often limit is still to be said, as the phone has not confirmed it
	saidAt time.Time
}

// step takes the counters of the stream: packets expected and those that came by
// themselves, and octets with headers. True: limit is another.
func (r *receiveRate) step(now time.Time, expected, seen, octets uint64) bool {
	if r.at.IsZero() || expected < r.expected || now.Sub(r.at) > 3*time.Second { // a new stream, or a pause
		r.bad, r.clean = 0, 0
		r.at, r.expected, r.seen, r.octets = now, expected, seen, octets
		return false
	}
	d := now.Sub(r.at)
	if d < time.Second {
		return false
	}
	want, got := expected-r.expected, seen-r.seen
	bps := int(float64(octets-r.octets) * 8 / d.Seconds())
	r.at, r.expected, r.seen, r.octets = now, expected, seen, octets
	if want < fewest {
		r.bad, r.clean = 0, 0
		return false
	}
	loss := max(0, float64(want)-float64(got)) / float64(want)
	switch {
	case loss > lossDown:
		r.bad, r.clean = r.bad+1, 0
	case loss < lossClean:
		r.bad, r.clean = 0, r.clean+1
	default:
		r.bad, r.clean = 0, 0
	}
	if r.bad >= downAfter {
		r.bad = 0
		return r.down(bps)
	}
	if r.clean >= upAfter && r.limit != 0 {
		r.clean = 0
		if r.limit += r.limit / 4; r.limit >= rateCeiling {
			r.limit = 0
		}
		r.unsaid = sayAgain
		return true
	}
	return false
}

// down asks for a quarter less than what comes, or than was asked for.
func (r *receiveRate) down(bps int) bool {
	was := r.limit
	if was == 0 {
		was = rateCeiling
	}
	want := max(rateFloor, min(bps, was)/4*3)
	if want >= was {
		return false
	}
	r.limit, r.unsaid = want, sayAgain
	return true
}

// due says whether limit is to be said to the phone now, and counts on that it is.
func (r *receiveRate) due(now time.Time) bool {
	if r.unsaid == 0 || r.unsaid < sayAgain && now.Sub(r.saidAt) < sayGap {
		return false
	}
	r.unsaid--
	r.saidAt = now
	return true
}
