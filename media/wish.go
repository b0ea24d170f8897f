package media

import (
	"time"

	"sparkle/media/payload"
	"sparkle/media/rtp"
)

const (
	// lossHigh is the loss at which a lower mode does better, lossLow that at which a higher
	// one may be tried (IMS.md §5.1).
	lossHigh, lossLow = 0.03, 0.01
	// lostLeast keeps one lost packet of a pause from looking like 3 %.
	lostLeast = 5
	// wishDown is how long a lower mode gets to do good before a still lower one is asked
	// for, wishUp how long it has to be good before a higher one is.
	wishDown, wishUp = 5 * time.Second, 10 * time.Second
)

// wish is the mode that a phone is asked for in each AMR frame it is sent (CMR, RFC 4867
// §4.3.1): any, unless much of what it sends is lost. It is of this leg alone, whoever's
// frames it is sent.
type wish struct {
	cmr   uint8 // of the phone's set, or payload.NoRequest
	heard uint8 // mode of the phone's last speech
	next  int64 // when step is due
	moved int64 // when cmr was changed last
	clean int64 // since when there is no loss; 0: there is
}

// newWish asks for nothing; no speech has been heard.
var newWish = wish{cmr: payload.NoRequest, heard: payload.NoRequest}

// step moves the wish by one mode of the set, by the loss of the last 5 s.
func (w *wish) step(s *stream, rx *rtp.Source, now int64) {
	lost, expected := rx.Recent()
	loss := float64(lost) / float64(max(expected, 1))
	switch {
	case loss >= lossLow:
		w.clean = 0
	case w.clean == 0:
		w.clean = now
	}
	switch {
	case loss > lossHigh && lost >= lostLeast && now-w.moved >= int64(wishDown):
		from := int(min(w.cmr, w.heard)) // NoRequest is above all modes
		if to := s.stepMode(from, 0); to != from || w.cmr == payload.NoRequest {
			w.cmr, w.moved = uint8(to), now
		}
	case w.cmr != payload.NoRequest && w.clean != 0 && now-max(w.clean, w.moved) >= int64(wishUp):
		top := s.topMode()
		if w.cmr, w.moved = uint8(s.stepMode(int(w.cmr), top)), now; int(w.cmr) == top {
			w.cmr = payload.NoRequest
		}
	}
}
