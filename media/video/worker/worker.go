// Package worker is what a video process does: it decodes the members' pictures,
// composes the mosaic and encodes it once per tier. It talks to the media process
// over one connection (package wire) and touches nothing else: no file, no network.
//
//	conn ─ reader ─→ room inbox ─→ room loop: decode → compose → encode ─→ writer ─→ conn
//
// One goroutine reads and hands messages to rooms; each conference is a room with
// one goroutine that owns its decoders, canvases and encoders; one goroutine writes.
//
//   - A room's inbox holds 256 messages. When it is full the reader waits: the other
//     end's queue then fills, drops the oldest pictures and asks for key frames.
//   - The writer's queue holds 256 messages. When it is full rooms wait for the media
//     process, which always reads; if it does not, the watchdog there ends us.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/video/mosaic"
	"sparkle/media/video/rtp264"
	"sparkle/media/video/wire"
)

// Options is how a worker works.
type Options struct {
	FPS   int           // pictures composed per second, 1..30
	Fonts *mosaic.Fonts // for name plates
	Log   *slog.Logger
	// Sandbox and Lacking go into the Hello.
	Sandbox, Lacking []string

	encoder func(h264.Params) (encoder, error) // nil: package h264's
}

// stuck is how long a room may be without progress before it fails the watchdog.
const stuck = 1500 * time.Millisecond

type worker struct {
	opt   Options
	out   chan []byte
	rooms map[string]*room // the reader's
	src   map[uint32]*room // whose inbox a source's pictures go to; the reader's
	tier  map[uint32]*room // the reader's
	ctx   context.Context
	wg    sync.WaitGroup
}

// Run serves one connection until it ends or ctx does; it then closes conn, has no
// goroutine left and returns why (nil for an orderly end).
func Run(ctx context.Context, conn io.ReadWriteCloser, opt Options) error {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{opt: opt, out: make(chan []byte, 256), rooms: map[string]*room{}, src: map[uint32]*room{}, tier: map[uint32]*room{}, ctx: ctx}
	hello, err := w.hello()
	if err != nil {
		cancel()
		conn.Close()
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	w.wg.Go(func() {
		defer cancel()
		w.write(conn)
	})
	w.send(wire.AppendJSON(nil, wire.TypeHello, hello))
	err = w.read(conn)
	cancel()
	conn.Close()
	w.wg.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// hello proves that the codecs work before anybody relies on them.
func (w *worker) hello() (wire.Hello, error) {
	h := wire.Hello{PID: os.Getpid(), Sandbox: w.opt.Sandbox, Lacking: w.opt.Lacking}
	var err error
	if h.Encoder, err = h264.Probe(); err != nil {
		return h, err
	}
	enc, err := h264.NewEncoder(h264.Params{Width: 240, Height: 320, FPS: 15, BitrateBps: 384_000, ProfileLevelID: "42c00c"})
	if err != nil {
		return h, err
	}
	defer enc.Close()
	au, _, err := enc.Encode(yuv.New(240, 320), 0)
	if err != nil {
		return h, err
	}
	h.Sprop = rtp264.Sprop(au)
	return h, nil
}

func (w *worker) newEncoder(p h264.Params) (encoder, error) {
	if w.opt.encoder != nil {
		return w.opt.encoder(p)
	}
	return h264.NewEncoder(p)
}

// send queues a message for the other end.
func (w *worker) send(b []byte) {
	select {
	case w.out <- b:
	case <-w.ctx.Done():
	}
}

func (w *worker) write(conn io.Writer) {
	for {
		select {
		case b := <-w.out:
			if _, err := conn.Write(b); err != nil {
				return
			}
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *worker) read(conn io.Reader) error {
	r := wire.Reader{R: conn}
	for {
		t, body, err := r.Next()
		if err != nil {
			return err
		}
		if err := w.take(t, body); err != nil {
			return err
		}
	}
}

func (w *worker) take(t wire.Type, body []byte) error {
	switch t {
	case wire.TypeConference, wire.TypeClose:
		var c wire.Conference
		if err := wire.ParseJSON(body, &c); err != nil {
			return err
		}
		if t == wire.TypeClose {
			w.close(c.ID)
			return nil
		}
		w.set(c)
	case wire.TypeUnit:
		u, err := wire.ParseUnit(body)
		if err != nil {
			return err
		}
		if r := w.src[u.ID]; r != nil {
			u.Data = append(r.buffer(len(u.Data)), u.Data...)
			r.post(message{unit: &u})
		}
	case wire.TypeKeyFrame:
		id, _, err := wire.ParseID(body)
		if err != nil {
			return err
		}
		if r := w.tier[id]; r != nil {
			r.post(message{key: id})
		}
	case wire.TypePreview:
		var p wire.Preview
		if err := wire.ParseJSON(body, &p); err != nil {
			return err
		}
		if r := w.rooms[p.Conference]; r != nil {
			r.post(message{preview: &p})
		} else {
			w.send(wire.AppendID(nil, wire.TypeJPEG, p.ID, nil))
		}
	case wire.TypePing:
		id, _, err := wire.ParseID(body)
		if err != nil {
			return err
		}
		w.pong(id)
	default:
		return fmt.Errorf("%w: type %d", wire.ErrMessage, t)
	}
	return nil
}

func (w *worker) set(c wire.Conference) {
	r := w.rooms[c.ID]
	if r == nil {
		r = newRoom(w, c.ID)
		w.rooms[c.ID] = r
		w.wg.Go(r.run)
	}
	w.forget(r)
	for _, t := range c.Tiles {
		if t.Source != 0 {
			w.src[t.Source] = r
		}
	}
	for _, t := range c.Tiers {
		w.tier[t.ID] = r
	}
	r.post(message{set: &c})
}

func (w *worker) forget(r *room) {
	for id, o := range w.src {
		if o == r {
			delete(w.src, id)
		}
	}
	for id, o := range w.tier {
		if o == r {
			delete(w.tier, id)
		}
	}
}

func (w *worker) close(id string) {
	if r := w.rooms[id]; r != nil {
		w.forget(r)
		delete(w.rooms, id)
		close(r.gone)
		<-r.done
	}
}

// pong answers a ping if every room makes progress. A room that hangs in a codec
// keeps us silent, and the other end ends us.
func (w *worker) pong(id uint32) {
	now := time.Now()
	p := wire.Pong{ID: id, Rooms: map[string]wire.Room{}}
	for name, r := range w.rooms {
		if now.Sub(time.Unix(0, r.alive.Load())) > stuck {
			w.opt.Log.Error("a conference's picture hangs", "conference", name)
			return
		}
		p.Rooms[name] = *r.stats.Load()
	}
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		p.CPUms = (ru.Utime.Nano() + ru.Stime.Nano()) / 1e6
	}
	w.send(wire.AppendJSON(nil, wire.TypePong, p))
}
