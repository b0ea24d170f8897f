package video

import (
	"bytes"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// This file is the switched layout: who talks is seen whole, in his own stream, by everybody
// whose phone can take it as it is; nothing is encoded for them (DESIGN.md §6). The others see
// the mosaic.

// turnTo keeps c.floor, who is seen, and c.before, whom he sees. He stays until he is silent and
// somebody else talks. p.mu is held.
func (c *conference) turnTo() {
	if !c.switched {
		c.floor, c.before = nil, nil
		return
	}
	var first, second, talker *leg
	floor, before := false, false
	for _, l := range c.visible() {
		if !c.showsSource(l) {
			continue
		}
		floor, before = floor || l == c.floor, before || l == c.before
		if l == c.floor {
			continue
		}
		if first == nil {
			first = l
		} else if second == nil {
			second = l
		}
		if talker == nil && c.talking[l.id] {
			talker = l
		}
	}
	if !before {
		c.before = first
	}
	switch {
	case !floor:
		if c.floor = talker; talker == nil {
			c.floor = c.before
		}
		if c.before == c.floor {
			if c.before = first; first == c.floor {
				c.before = second
			}
		}
	case talker != nil && !c.talking[c.floor.id]:
		c.floor, c.before = talker, c.floor
	}
}

// passed is the leg whose stream l is sent as it is, nil: he sees the mosaic. want is what he
// negotiated. p.mu is held.
func (c *conference) passed(l *leg, want tierKey) *leg {
	src := c.floor
	if src == l {
		src = c.before
	}
	if src == nil || src == l || !l.takes(src.passable(), want) {
		return nil
	}
	return src
}

// passable is what there is to know of a leg's own stream.
type passable struct {
	flowing bool
	asked   bool // it can be asked for key frames
	sps     rtp264.SPS
	turned  bool // not upright
	bps     int
}

func (l *leg) passable() passable {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.rx
	return passable{r.flowing, l.stream != nil && l.stream.feedback, r.depay.SPS, r.rotate != 0 || r.mirror, r.bps}
}

// takes says whether the leg's phone can be sent a stream as it is. Both must be able to ask for
// key frames: nobody else makes them.
func (l *leg) takes(s passable, want tierKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.stream.pb
	if !s.flowing || !s.asked || !l.stream.feedback || v.PacketizationMode == 0 || s.turned && v.CvoExtension == 0 || s.sps.Profile != 66 ||
		int(s.sps.Level) > max(10, int(want.level)) || s.bps > want.bps+want.bps/4 {
		return false
	}
	_, err := h264.Fit(h264.Params{Width: s.sps.Width, Height: s.sps.Height, ProfileLevelID: v.ProfileLevelId})
	return err == nil
}

// pass has a leg's pictures go to a tier; 0: no longer. p.mu is held.
func (p *Plane) pass(key tierKey, tier uint32) {
	if l := p.sources[key.source]; l != nil {
		l.mu.Lock()
		l.rx.passTo = tier
		l.mu.Unlock()
	}
}

// passOn keeps a picture for those who are sent it as it is, until sendPassing. l.mu is held.
func (l *leg) passOn(u wire.Unit, ts uint32, now time.Time) {
	r := &l.rx
	u.ID = r.passTo
	// Its time by the phone's clock, so that it is as smooth as the phone made it.
	at := r.passAt.Add(time.Duration(int32(ts-r.passTime)) * time.Second / videoClock)
	if due := time.Unix(0, u.At); at.Sub(due).Abs() > 200*time.Millisecond {
		at, r.passAt, r.passTime = due, due, ts
	}
	u.At = at.UnixNano()
	u.Data = bytes.Clone(u.Data)
	r.passing = append(r.passing, u)
}

// sendPassing sends what passOn has kept, in order. No lock is held.
func (l *leg) sendPassing() {
	l.passMu.Lock()
	defer l.passMu.Unlock()
	l.mu.Lock()
	units := l.rx.passing
	l.rx.passing = nil
	l.mu.Unlock()
	for i := range units {
		l.p.sendToTier(&units[i])
	}
}
