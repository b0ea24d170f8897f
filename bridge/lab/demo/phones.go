package demo

import (
	"fmt"
	"time"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/phone"
)

// Phones makes handsets of a roster speak, listen, show and watch: the speaker is the
// place on the roster. Past phone.Speakers handsets, which could not be told apart, they
// only count what arrives. o is for what is the same for all.
func Phones(roster []lab.HandsetOptions, o phone.Options) lab.MediaFactory {
	speaker := map[string]int{}
	for i, h := range roster[:min(len(roster), phone.Speakers)] {
		speaker[h.Number] = i
		o.Names = append(o.Names[:i:i], h.Name)
	}
	return func(h lab.HandsetOptions) (lab.Media, error) {
		s, ok := speaker[h.Number]
		if !ok {
			return lab.NewSilent(h)
		}
		mine := o
		mine.Speaker = s
		p, err := phone.New(mine)
		if err != nil {
			return nil, fmt.Errorf("handset %s: %w", h.Name, err)
		}
		return p, nil
	}
}

// listen asks a handset what it heard and saw since from; all are the names that might
// be read in the picture.
func listen(h *lab.Handset, from time.Time, all []string, r *Row) {
	p, ok := h.Media().(*phone.Phone)
	if !ok {
		return
	}
	for _, heard := range p.Heard(from) {
		if heard.Who == h.Name() {
			r.HearsSelf = true
		} else {
			r.Hears = append(r.Hears, heard.Who)
		}
	}
	seen := p.Seen(from, all)
	r.SeesMoving = append(r.SeesMoving, seen.Moving...)
	r.SeesNamed = append(r.SeesNamed, seen.Named...)
	r.Sees = append(append(r.Sees, seen.Moving...), without(seen.Named, seen.Moving)...)
}
