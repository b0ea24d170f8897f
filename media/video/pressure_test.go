package video

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sparkle/media/mediapb"
	"sparkle/media/video/wire"
)

// idlePlane is a Plane without a video process and without a beat.
func idlePlane(t *testing.T, change func(*Options)) *Plane {
	opt := inProcess()
	if change != nil {
		change(&opt)
	}
	opt.defaults()
	p, _ := newPlane(opt)
	t.Cleanup(p.Close)
	return p
}

// A machine that gets slower and faster again: the conference's video gives way in the order
// of DESIGN.md §6, the newest members first, and comes back. On virtual time.
func TestVideoGivesWayUnderPressure(t *testing.T) {
	var log bytes.Buffer
	var events []string
	p := idlePlane(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Emit = func(e *mediapb.Event) { events = append(events, e.Leg+" "+e.GetVideoState().GetState()) }
	})
	p.SetConference("c", true, false)
	for i := range 4 {
		join(t, p, "c", fmt.Sprint("leg", i), 0, nil)
	}
	// What the video process would do now, and in which time: each decoded source costs 1,
	// each composed and encoded megapixel 2 of a thousand on a machine of speed 1.
	told := func() wire.Conference {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.confs["c"].wanted()
	}
	words := func() string {
		c, seen := told(), 0
		for _, tile := range c.Tiles {
			if tile.Source != 0 {
				seen++
			}
		}
		s := fmt.Sprint(seen, " seen")
		for _, tier := range c.Tiers {
			s += fmt.Sprintf(" %dx%d@%d", tier.Width, tier.Height, tier.FPS)
		}
		return s
	}
	now, busy := time.Unix(1000, 0), time.Duration(0)
	run := func(d time.Duration, speed float64) {
		for end := now.Add(d); now.Before(end); now = now.Add(500 * time.Millisecond) {
			cost := 0.0
			for _, tile := range told().Tiles {
				if tile.Source != 0 {
					cost += 0.05
				}
			}
			for _, tier := range told().Tiers {
				cost += float64(tier.Width*tier.Height*tier.FPS) / (240 * 320 * 15) * 0.2
			}
			busy += time.Duration(min(1, cost/speed) * float64(500*time.Millisecond))
			p.pong(wire.Pong{Rooms: map[string]wire.Room{"c": {Busy: busy}}}, now)
		}
	}
	for _, tt := range []struct {
		what  string
		d     time.Duration
		speed float64
		want  string
	}{
		{"room enough", 20 * time.Second, 1, "4 seen 240x320@15"},
		{"a short peak", 3 * time.Second, 0.1, "4 seen 240x320@15"},
		{"room again", 20 * time.Second, 1, "4 seen 240x320@15"},
		{"rate", 60 * time.Second, 0.4, "4 seen 240x320@7"},
		{"size", 60 * time.Second, 0.3, "4 seen 120x160@7"},
		{"the newest off", 60 * time.Second, 0.24, "3 seen 120x160@7"},
		{"all off", 60 * time.Second, 0.001, "0 seen"},
		{"back", 10 * time.Minute, 1, "4 seen 240x320@15"},
	} {
		if run(tt.d, tt.speed); words() != tt.want {
			t.Fatalf("%s: %s, want %s", tt.what, words(), tt.want)
		}
		if tt.what == "the newest off" {
			if c := told(); c.Tiles[3].Source != 0 || c.Tiles[2].Source == 0 {
				t.Errorf("another one's video is off: %+v", c.Tiles)
			}
			if r := p.RoomStats("c"); r.Reduced != "off" || r.Load < 0.5 {
				t.Errorf("statistics: %v", r)
			}
			if got := strings.Join(events, ", "); got != "leg3 overload" {
				t.Errorf("events %q", got)
			}
		}
	}
	if n := strings.Count(log.String(), "video gives way"); n < 6 {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
	if r := p.RoomStats("c"); r.Reduced != "" {
		t.Errorf("statistics: %v", r)
	}
}

// A step back that turns out too early is put off longer each time.
func TestPressureDoesNotSwing(t *testing.T) {
	var p pressure
	now, busy, changes := time.Unix(1000, 0), time.Duration(0), 0
	for range 600 { // 20 minutes of what is too much at full rate and little at half of it
		now = now.Add(loadEvery)
		if p.step == 0 {
			busy += loadEvery
		} else {
			busy += loadEvery * 2 / 5
		}
		if p.sample(now, busy) {
			changes++
		}
	}
	if changes > 26 {
		t.Errorf("%d changes in 20 minutes", changes)
	}
}
