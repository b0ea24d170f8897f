package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/bridge/prompts"
	"sparkle/media/mediapb"
)

// engine is a media.API in memory that checks what the bridge promises: conferences
// before legs, no SetLeg of a leg that is not open, nothing left at the end.
type engine struct {
	captured []*mediapb.Captured
	mu       sync.Mutex
	down     bool
	noPort   bool
	faulty   bool // OpenLeg panics
	confs    map[string]*mediapb.Conference
	legs     map[string]*mediapb.Leg // nil value: open, not set
	inConf   map[string]string
	video    map[string]uint32 // port by leg, 0: voice
	noPic    bool              // no more video ports
	fussy    bool              // refuses every picture format
	ports    uint32
	faults   []string
	log      func(string) // of SetLeg and SetConference
	played   func(leg, prompt string)
	events   chan *mediapb.Event
	stats    map[string]*mediapb.LegStats
}

func newEngine() *engine {
	return &engine{confs: map[string]*mediapb.Conference{}, legs: map[string]*mediapb.Leg{}, inConf: map[string]string{}, video: map[string]uint32{},
		ports: 40000, events: make(chan *mediapb.Event, 100), stats: map[string]*mediapb.LegStats{}}
}

func (e *engine) enter() (func(), error) {
	e.mu.Lock()
	if e.down {
		e.mu.Unlock()
		return nil, status.Error(codes.Unavailable, "engine is down")
	}
	return e.mu.Unlock, nil
}

func (e *engine) fault(format string, args ...any) {
	e.faults = append(e.faults, fmt.Sprintf(format, args...))
}

// die forgets everything, as a killed process does.
func (e *engine) die() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = true
	clear(e.confs)
	clear(e.legs)
	clear(e.inConf)
	clear(e.video)
}

func (e *engine) revive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

func (e *engine) SetConference(_ context.Context, c *mediapb.Conference) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	e.confs[c.Id] = c
	for _, w := range c.Whispers {
		if e.log != nil {
			e.log(fmt.Sprintf("whisper %s -> %s %v", w.FromLeg, strings.Join(w.ToLegs, " "), w.Mode))
		}
	}
	return nil
}

func (e *engine) CloseConference(_ context.Context, id string) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	for l, c := range e.inConf {
		if c == id {
			e.fault("conference closed with leg %s in it", l)
		}
	}
	delete(e.confs, id)
	return nil
}

func (e *engine) OpenLeg(_ context.Context, r *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if e.faulty {
		panic("test")
	}
	if e.noPort {
		return nil, status.Error(codes.ResourceExhausted, "no ports")
	}
	if e.confs[r.Conference] == nil {
		e.fault("leg opened before its conference")
		return nil, status.Error(codes.NotFound, "no conference")
	}
	if _, ok := e.legs[r.Leg]; ok {
		e.fault("leg opened twice")
	}
	e.legs[r.Leg], e.inConf[r.Leg] = nil, r.Conference
	e.ports += 4
	out := &mediapb.OpenLegReply{AudioPort: e.ports}
	if r.Video {
		out.VideoPort = e.ports + 2
	}
	e.video[r.Leg] = out.VideoPort
	return out, nil
}

func (e *engine) OpenVideo(_ context.Context, id string) (*mediapb.OpenLegReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if _, ok := e.legs[id]; !ok {
		return nil, status.Error(codes.NotFound, "no leg")
	}
	if e.noPic {
		return nil, status.Error(codes.ResourceExhausted, "no ports")
	}
	if e.video[id] == 0 {
		e.ports += 4
		e.video[id] = e.ports + 2
	}
	return &mediapb.OpenLegReply{VideoPort: e.video[id]}, nil
}

func (e *engine) CloseVideo(_ context.Context, id string) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	e.video[id] = 0
	return nil
}

func (e *engine) SetLeg(_ context.Context, l *mediapb.Leg) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	if _, ok := e.legs[l.Id]; !ok {
		e.fault("leg set that is not open")
		return status.Error(codes.NotFound, "no leg")
	}
	if a := l.Audio; a != nil && (a.Remote == nil && (a.Send || a.Recv) || a.Remote != nil && netip.MustParseAddr(a.Remote.Ip).IsUnspecified()) {
		e.fault("audio to nowhere: %v", a.Remote)
		return status.Error(codes.InvalidArgument, "audio.remote")
	}
	if l.Video != nil && e.video[l.Id] == 0 {
		e.fault("video of a leg that has no video port")
	}
	if l.Video != nil && e.fussy {
		return status.Error(codes.InvalidArgument, "media: video: sizes like that are not encoded")
	}
	e.legs[l.Id] = l
	if e.log != nil {
		e.log(legWords(l))
	}
	return nil
}

func legWords(l *mediapb.Leg) string {
	s := l.Name
	flag := func(on bool, word string) {
		if on {
			s += " " + word
		}
	}
	if a := l.Audio; a != nil {
		s += " " + a.Codec.String()
	}
	if v := l.Video; v != nil {
		s += fmt.Sprintf(" H264 %dx%d", v.Width, v.Height)
	}
	flag(l.Present, "present")
	flag(l.Muted, "muted")
	flag(l.VideoMuted, "video_muted")
	flag(l.Deaf, "deaf")
	flag(l.Held, "held")
	return s
}

// Play plays on virtual time.
// Capture plays what the test has put into captured.
func (e *engine) Capture(ctx context.Context, r *mediapb.CaptureRequest, f func(*mediapb.Captured)) error {
	for _, c := range e.captured {
		f(c)
	}
	<-ctx.Done()
	return nil
}

func (e *engine) Play(_ context.Context, p *mediapb.PlayRequest) error {
	done, err := e.enter()
	if err != nil {
		return err
	}
	defer done()
	l, ok := e.legs[p.Leg]
	if !ok || l == nil {
		e.fault("sound for a leg that is not set")
		return status.Error(codes.NotFound, "no leg")
	}
	if e.played == nil {
		return nil
	}
	e.played(p.Leg, promptName(p.Pcm))
	if len(p.Pcm) > 0 {
		time.AfterFunc(prompts.Length(p.Pcm), func() {
			e.events <- &mediapb.Event{Leg: p.Leg, What: &mediapb.Event_PlayEnded{PlayEnded: &mediapb.PlayEnded{Id: p.Id}}}
		})
	}
	return nil
}

func promptName(pcm []byte) string {
	for _, n := range prompts.All() {
		for _, l := range []prompts.Language{prompts.Chinese, prompts.English, prompts.Both} {
			if bytes.Equal(pcm, prompts.PCM(n, l)) {
				return string(n) + " " + string(l)
			}
		}
	}
	return "silence"
}

func (e *engine) CloseLeg(_ context.Context, id string) (*mediapb.LegStats, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if _, ok := e.legs[id]; !ok {
		return &mediapb.LegStats{}, nil
	}
	delete(e.legs, id)
	delete(e.inConf, id)
	delete(e.video, id)
	if s := e.stats[id]; s != nil {
		return s, nil
	}
	return &mediapb.LegStats{Id: id, Audio: &mediapb.StreamStats{RxPackets: 50, TxPackets: 51, Mos: 4.1}}, nil
}

func (e *engine) Preview(context.Context, string, int) (*mediapb.PreviewReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	return &mediapb.PreviewReply{Jpeg: []byte("jpeg"), At: 1}, nil
}

func (e *engine) Snapshot(context.Context) (*mediapb.SnapshotReply, error) {
	done, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	out := &mediapb.SnapshotReply{Engine: &mediapb.EngineStats{Ticks: 7}}
	for id := range e.confs {
		out.Conferences = append(out.Conferences, &mediapb.ConferenceStats{Id: id})
	}
	for id := range e.legs {
		s := e.stats[id]
		if s == nil {
			s = &mediapb.LegStats{Id: id, Audio: &mediapb.StreamStats{RxPackets: 10, Mos: 4.2}}
		}
		out.Legs = append(out.Legs, s)
	}
	return out, nil
}

func (e *engine) Events(ctx context.Context, f func(*mediapb.Event)) error {
	for {
		select {
		case ev := <-e.events:
			f(ev)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// left is what is still open, and what was wrong.
func (e *engine) left() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.faults)
	for id := range e.legs {
		out = append(out, "leg "+id+" is still open")
	}
	for id := range e.confs {
		out = append(out, "conference "+id+" is still open")
	}
	return out
}
