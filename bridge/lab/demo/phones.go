package demo

import (
	"slices"
	"time"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/phone"
)

// Phones gives every handset of a roster its own speaker, camera, ears and eyes, while
// there are different speakers: the ones after phone.Speakers share them.
func Phones(roster []lab.HandsetOptions) lab.MediaFactory {
	var names []string
	for _, h := range roster[:min(len(roster), phone.Speakers)] {
		names = append(names, h.Name)
	}
	return func(h lab.HandsetOptions) (lab.Media, error) {
		i := slices.IndexFunc(roster, func(o lab.HandsetOptions) bool { return o.Number == h.Number })
		p, err := phone.New(phone.Options{Speaker: max(i, 0) % phone.Speakers, Names: names})
		if err != nil {
			return nil, err // not p: a nil *Phone is no nil Media
		}
		return p, nil
	}
}

// listen asks a handset in a call what it heard and saw since from, all being the names
// it might have.
func listen(h *lab.Handset, from time.Time, all []string, r *Row) {
	p, ok := h.Media().(*phone.Phone)
	if !ok {
		r.fault("has no media")
		return
	}
	for _, heard := range p.Heard(from) {
		if heard.Who == h.Name() {
			r.HearsSelf = true
			continue
		}
		r.Hears = append(r.Hears, heard.Who)
	}
	if h.Profile() != lab.VolteVideo {
		return
	}
	seen := p.Seen(from, all)
	r.SeesMoving = append(r.SeesMoving, seen.Moving...)
	r.SeesNamed = append(r.SeesNamed, seen.Named...)
	r.Sees = append(r.Sees, seen.Moving...)
	r.Sees = append(r.Sees, without(seen.Named, seen.Moving)...)
}
