package bridge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sparkle/bridge/fault"
	"sparkle/media"
	"sparkle/media/mediapb"
)

// mediaTimeout is for one call to the engine; it answers in microseconds or is stuck.
const mediaTimeout = 3 * time.Second

// mediaWork talks to the engine for one conference, in order and off the
// conference's goroutine, so that a stuck engine does not stop the organiser. Its
// list is not bounded by itself but by the legs: each has at most an open, a set (a
// newer one replaces one that waits) and a close in it.
type mediaWork struct {
	api  media.API
	log  *slog.Logger
	ctx  context.Context // ends calls under way
	wake chan struct{}   // cap 1
	done chan struct{}

	mu     sync.Mutex
	jobs   []func(context.Context)
	sets   map[string]*mediapb.Leg // waiting SetLegs, newest state
	conf   *waitingConf            // waiting SetConference, nil if none
	closed bool
}

// waitingConf is the newest wanted state of the conference in one queued SetConference.
type waitingConf struct{ want *mediapb.Conference }

func newMediaWork(ctx context.Context, api media.API, log *slog.Logger) *mediaWork {
	w := &mediaWork{api: api, log: log, ctx: ctx, wake: make(chan struct{}, 1), done: make(chan struct{}), sets: map[string]*mediapb.Leg{}}
	go fault.Safely(log, "media work", w.run)()
	return w
}

// run does the jobs until close and the list is empty.
func (w *mediaWork) run() {
	defer close(w.done)
	for {
		w.mu.Lock()
		jobs, closed := w.jobs, w.closed
		w.jobs = nil
		w.mu.Unlock()
		if len(jobs) == 0 {
			if closed {
				return
			}
			<-w.wake
			continue
		}
		for _, job := range jobs {
			ctx, cancel := context.WithTimeout(w.ctx, mediaTimeout)
			fault.Run(w.log, "media work", func() { job(ctx) })
			cancel()
		}
	}
}

func (w *mediaWork) kick() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *mediaWork) do(job func(context.Context)) {
	w.mu.Lock()
	w.jobs = append(w.jobs, job)
	w.mu.Unlock()
	w.kick()
}

// setLeg sends the newest wanted state of a leg; failed hears of an error, and what was sent.
func (w *mediaWork) setLeg(l *mediapb.Leg, failed func(*mediapb.Leg, error)) {
	w.mu.Lock()
	_, waiting := w.sets[l.Id]
	w.sets[l.Id] = l
	w.mu.Unlock()
	if waiting {
		return
	}
	w.do(func(ctx context.Context) {
		w.mu.Lock()
		newest := w.sets[l.Id]
		delete(w.sets, l.Id)
		w.mu.Unlock()
		if err := w.api.SetLeg(ctx, newest); err != nil {
			failed(newest, err)
		}
	})
}

// setConference sends the newest wanted state of the conference.
func (w *mediaWork) setConference(c *mediapb.Conference, failed func(error)) {
	w.mu.Lock()
	slot := w.conf
	if slot != nil {
		slot.want = c
		w.mu.Unlock()
		return
	}
	slot = &waitingConf{want: c}
	w.conf = slot
	w.mu.Unlock()
	w.do(func(ctx context.Context) {
		w.mu.Lock()
		if w.conf == slot {
			w.conf = nil
		}
		newest := slot.want
		w.mu.Unlock()
		if err := w.api.SetConference(ctx, newest); err != nil {
			failed(err)
		}
	})
}

// closeConference closes it. A later setConference comes after it, and is not joined
// to one from before.
func (w *mediaWork) closeConference(id string, failed func(error)) {
	w.mu.Lock()
	w.conf = nil
	w.mu.Unlock()
	w.do(func(ctx context.Context) {
		if err := w.api.CloseConference(ctx, id); err != nil {
			failed(err)
		}
	})
}

// close waits until every job is done, or given up because ctx of newMediaWork ended.
func (w *mediaWork) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.kick()
	<-w.done
}
