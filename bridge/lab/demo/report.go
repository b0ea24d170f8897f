package demo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
)

// Row is what became of one member, as `sparkle demo --json` prints it.
type Row struct {
	Member     string             `json:"member"` // his name
	Number     string             `json:"number"`
	Profile    string             `json:"profile"`
	State      bridge.MemberState `json:"state"`
	Outcome    *bridge.Outcome    `json:"outcome"` // of the last leg that ended; null for those who are in
	Text       *bridge.Text       `json:"text"`
	SIPStatus  *int               `json:"sip_status"`
	AudioCodec *string            `json:"audio_codec"`
	Video      *bridge.VideoMedia `json:"video"`
	WhyNoVideo *string            `json:"why_no_video"`
	Hears      []string           `json:"hears"` // names, from the audio that the handset received
	Sees       []string           `json:"sees"`  // names, from the pictures: moving tiles, then name tiles
	HearsSelf  bool               `json:"hears_self"`
	SeesMoving []string           `json:"sees_moving"`
	SeesNamed  []string           `json:"sees_named"`
	Faults     []string           `json:"faults"` // what did not hold; empty when all is well
}

// judge asks every handset what it heard and saw since from, and compares that with what
// must be.
func (d *Demo) judge(from time.Time) []Row {
	in := d.expected()
	var all []string
	for _, h := range d.phones {
		all = append(all, h.Name())
	}
	rows := make([]Row, len(d.phones))
	var wg sync.WaitGroup
	for i, h := range d.phones {
		r := &rows[i]
		*r = d.row(h)
		if !slices.Contains(in, h) {
			d.checkOut(h, r)
			continue
		}
		wg.Go(func() { // looking at pictures takes seconds
			listen(h, from, all, r)
			d.checkIn(h, in, r)
		})
	}
	wg.Wait()
	return rows
}

func (d *Demo) row(h *lab.Handset) Row {
	m := d.members[h.Number()]
	r := Row{Member: h.Name(), Number: h.Number(), Profile: string(h.Profile()), State: m.State,
		Hears: []string{}, Sees: []string{}, SeesMoving: []string{}, SeesNamed: []string{}, Faults: []string{}}
	if m.Leg != nil {
		if a := m.Leg.Media.Audio; a != nil {
			r.AudioCodec = &a.Codec
		}
		r.Video, r.WhyNoVideo = m.Leg.Media.Video, m.Leg.Media.WhyNoVideo
	} else if o := m.LastOutcome; o != nil {
		r.Outcome, r.Text = &o.Outcome, &o.Text
		if o.SIP != nil {
			r.SIPStatus = &o.SIP.Status
		}
	}
	return r
}

func (r *Row) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// want is what a profile must end up with.
var want = map[lab.Profile]struct {
	codec string
	why   string
}{
	lab.VolteVideo: {"AMR-WB", ""},
	lab.VolteVoice: {"AMR-WB", "refused"},
	lab.Video488:   {"AMR-WB", "rejected_488"},
	lab.PSTN:       {"PCMA", "refused"},
}

func (d *Demo) checkIn(h *lab.Handset, in []*lab.Handset, r *Row) {
	if r.State != bridge.InConference {
		r.fault("is %s, not in the conference", r.State)
		return
	}
	w := want[h.Profile()]
	if r.AudioCodec == nil || *r.AudioCodec != w.codec {
		r.fault("audio is not %s", w.codec)
	}
	var others, video, voice []string
	for _, o := range in {
		if o != h {
			others = append(others, o.Name())
		}
		if o.Profile() == lab.VolteVideo {
			video = append(video, o.Name())
		} else {
			voice = append(voice, o.Name())
		}
	}
	if !same(r.Hears, others) {
		r.fault("hears %v, want %v", r.Hears, others)
	}
	if r.HearsSelf {
		r.fault("hears himself")
	}
	if h.Profile() != lab.VolteVideo {
		if r.Video != nil || r.WhyNoVideo == nil || *r.WhyNoVideo != w.why {
			r.fault("why_no_video is not %q", w.why)
		}
		return
	}
	if r.Video == nil {
		r.fault("has no video")
	}
	if !same(r.SeesMoving, video) {
		r.fault("sees moving %v, want %v", r.SeesMoving, video)
	}
	for _, name := range voice {
		if !slices.Contains(r.SeesNamed, name) {
			r.fault("does not see the name tile of %s", name)
		}
	}
	for _, name := range r.SeesNamed {
		if !slices.Contains(video, name) && !slices.Contains(voice, name) {
			r.fault("sees a tile of %s, who is not in", name)
		}
	}
}

func (d *Demo) checkOut(h *lab.Handset, r *Row) {
	outcome, status := bridge.Busy, 486
	if h.Profile() == lab.NoAnswer {
		outcome, status = bridge.NoAnswer, 487
	}
	switch {
	case r.State != bridge.Idle:
		r.fault("is %s, not idle", r.State)
	case r.Outcome == nil || *r.Outcome != outcome:
		r.fault("outcome is not %s", outcome)
	case r.SIPStatus == nil || *r.SIPStatus != status:
		r.fault("SIP status is not %d", status)
	case r.Text == nil || r.Text.Zh == "" || r.Text.En == "":
		r.fault("no sentence")
	}
}

func same(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// report prints the rows and says whether all held.
func (d *Demo) report(rows []Row) bool {
	ok := true
	for _, r := range rows {
		ok = ok && len(r.Faults) == 0
	}
	if d.o.JSON {
		enc := json.NewEncoder(d.o.Out)
		for _, r := range rows {
			_ = enc.Encode(r) // a reader who has gone needs no rows
		}
		return ok
	}
	d.say("\n")
	for _, r := range rows {
		mark := "ok  "
		if len(r.Faults) > 0 {
			mark = "FAIL"
		}
		d.say("%s %s %s", mark, pad(r.Member, 10), pad(r.Profile, 12))
		if r.State == bridge.InConference {
			d.say(" hears %s", strings.Join(r.Hears, ", "))
			if r.Video != nil {
				d.say("; sees %s moving, %s by name", strings.Join(r.SeesMoving, ", "), strings.Join(without(r.SeesNamed, r.SeesMoving), ", "))
			}
		} else if r.Text != nil {
			d.say(" %s: %s %s", *r.Outcome, r.Text.Zh, r.Text.En)
		}
		d.say("\n")
		for _, f := range r.Faults {
			d.say("       %s\n", f)
		}
	}
	if ok {
		d.say("\nEverything held.\n")
	} else {
		d.say("\nNot everything held.\n")
	}
	return ok
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// draw shows the live table, in place on a terminal and on change elsewhere.
func (d *Demo) draw() {
	if d.o.JSON {
		return
	}
	var b strings.Builder
	for _, h := range d.phones {
		m := d.members[h.Number()]
		what := ""
		switch {
		case m.Leg != nil && m.Leg.Media.Audio != nil:
			what = m.Leg.Media.Audio.Codec
			if v := m.Leg.Media.Video; v != nil {
				what += fmt.Sprintf(" + %s %dx%d", v.Codec, v.Width, v.Height)
			} else if w := m.Leg.Media.WhyNoVideo; w != nil {
				what += " (no video: " + *w + ")"
			}
		case m.Leg == nil && m.LastOutcome != nil:
			what = string(m.LastOutcome.Outcome) + ": " + m.LastOutcome.Text.En
		}
		fmt.Fprintf(&b, "  %s %-16s %s %s %s\n", pad(h.Name(), 10), h.Number(), pad(string(h.Profile()), 12), pad(string(m.State), 14), what)
	}
	text := b.String()
	if text == d.drawn {
		return
	}
	if d.o.Table && d.drawn != "" {
		fmt.Fprintf(d.o.Out, "\x1b[%dA\x1b[J", strings.Count(d.drawn, "\n"))
	} else if d.drawn != "" {
		fmt.Fprintln(d.o.Out)
	}
	d.drawn = text
	fmt.Fprint(d.o.Out, text)
}

// pad fills up to n columns; Chinese characters take two.
func pad(s string, n int) string {
	w := 0
	for _, r := range s {
		w++
		if r >= 0x1100 {
			w++
		}
	}
	return s + strings.Repeat(" ", max(0, n-w))
}
