package video

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/mediapb"
	"sparkle/media/video/mosaic"
	"sparkle/media/video/wire"
	"sparkle/media/video/worker"
)

const (
	// helloLimit is how long a video process may take to say that it is ready.
	helloLimit = 10 * time.Second
	// firstRetry is the wait before a dead video process is started again; it doubles
	// up to lastRetry while processes die young.
	firstRetry = 20 * time.Millisecond
	lastRetry  = 5 * time.Second
	young      = 3 * time.Second
	// cpuAhead is how much CPU time a video process may use before its limit has to be
	// moved on by the watchdog: a runaway that also fools the watchdog ends there.
	cpuAhead = 120 * time.Second
)

// childEnv carries childOptions to a video process, as JSON.
const childEnv = "SPARKLE_VIDEO"

type childOptions struct {
	FPS         int      `json:"fps"`
	Fonts       []string `json:"fonts"`
	MemoryBytes uint64   `json:"memory"`
}

// life is one run of a video process.
type life struct {
	conn     io.ReadWriteCloser
	pid      int // 0: in this process
	kill     func()
	wait     func() error // after it the process is gone
	lastPong atomic.Int64 // UnixNano of the last Hello or Pong
	ready    atomic.Bool
}

// supervise keeps a video process running until ctx ends.
func (p *Plane) supervise(ctx context.Context) {
	// PDEATHSIG is tied to the thread that starts the child: keep this one.
	runtime.LockOSThread()
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		why := p.live(ctx)
		if ctx.Err() != nil {
			return
		}
		p.restarts.Add(1)
		p.opt.Log.Warn("video process ended", "why", why)
		p.opt.Emit(&mediapb.Event{At: time.Now().UnixNano(), What: &mediapb.Event_VideoProcess{
			VideoProcess: &mediapb.VideoProcess{State: "down", Pid: int32(p.pid.Swap(0)), Why: why.Error()}}})
		if time.Since(began) > young {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// live starts a video process and serves it until it ends; it returns why.
func (p *Plane) live(ctx context.Context) error {
	l, err := p.start()
	if err != nil {
		return err
	}
	l.lastPong.Store(time.Now().UnixNano())
	p.replay()
	ended := make(chan error, 2) // both pumps report once
	stop := make(chan struct{})
	var pumps sync.WaitGroup
	pumps.Go(func() { ended <- p.readChild(l) })
	pumps.Go(func() { ended <- p.writeChild(l, stop) })

	why := p.watch(ctx, l, ended)
	close(stop)
	l.conn.Close()
	l.kill()
	if err := l.wait(); err != nil && !errors.Is(why, errSilent) {
		why = fmt.Errorf("%w (%v)", why, err)
	}
	pumps.Wait()
	p.failPreviews()
	return why
}

var errSilent = errors.New("no sign of progress: killed")

// watch pings the process and returns when it is gone or has to go.
func (p *Plane) watch(ctx context.Context, l *life, ended <-chan error) error {
	beat := time.NewTicker(min(p.opt.Watchdog/4, 500*time.Millisecond))
	defer beat.Stop()
	for n := uint32(1); ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return fmt.Errorf("connection ended: %w", err)
		case now := <-beat.C:
			limit := p.opt.Watchdog
			if !l.ready.Load() {
				limit = max(limit, helloLimit)
			}
			if now.Sub(time.Unix(0, l.lastPong.Load())) > limit {
				return errSilent
			}
			if l.ready.Load() {
				p.box.setPing(n)
			}
		}
	}
}

func (p *Plane) start() (*life, error) {
	if p.opt.InProcess {
		return p.startHere(), nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "video child")
	defer theirs.Close()
	ours := os.NewFile(uintptr(fds[0]), "video")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	opts, err := json.Marshal(childOptions{FPS: p.opt.FPS, Fonts: p.opt.Fonts, MemoryBytes: p.opt.MemoryBytes})
	if err != nil {
		conn.Close()
		return nil, err
	}
	cmd := exec.Command(p.opt.Command[0], p.opt.Command[1:]...)
	cmd.ExtraFiles = []*os.File{theirs} // fd 3
	cmd.Stderr = os.Stderr
	// Nothing of our environment is its business: secrets live there.
	cmd.Env = []string{childEnv + "=" + string(opts), "MALLOC_ARENA_MAX=2", "GOMEMLIMIT=512MiB",
		"LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	return &life{conn: conn, pid: cmd.Process.Pid, kill: func() { _ = cmd.Process.Kill() }, wait: cmd.Wait}, nil
}

// startHere runs the worker in this process.
func (p *Plane) startHere() *life {
	a, b := net.Pipe()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- worker.Run(ctx, b, worker.Options{FPS: p.opt.FPS, Fonts: mosaic.LoadFonts(p.opt.Fonts, p.opt.Log), Log: p.opt.Log})
	}()
	return &life{conn: a, kill: cancel, wait: func() error { return <-done }}
}

func (p *Plane) writeChild(l *life, stop <-chan struct{}) error {
	var buf []byte
	for {
		if buf = p.box.take(buf[:0]); len(buf) == 0 {
			select {
			case <-p.box.wake:
			case <-stop:
				return nil
			}
			continue
		}
		if _, err := l.conn.Write(buf); err != nil {
			return err
		}
	}
}

func (p *Plane) readChild(l *life) error {
	r := wire.Reader{R: l.conn}
	for {
		t, body, err := r.Next()
		if err != nil {
			return err
		}
		if err := p.fromChild(l, t, body); err != nil {
			return err
		}
	}
}

// fromChild takes one message. What the video process says is not trusted: it
// decodes what strangers send.
func (p *Plane) fromChild(l *life, t wire.Type, body []byte) error {
	switch t {
	case wire.TypeHello:
		var h wire.Hello
		if err := wire.ParseJSON(body, &h); err != nil {
			return err
		}
		l.lastPong.Store(time.Now().UnixNano())
		l.ready.Store(true)
		p.pid.Store(int64(l.pid))
		p.sprop.Store(&h.Sprop)
		p.upOnce.Do(func() { close(p.up) })
		p.opt.Log.Info("video process ready", "pid", l.pid, "encoder", h.Encoder, "sandbox", h.Sandbox, "lacking", h.Lacking)
		p.opt.Emit(&mediapb.Event{At: time.Now().UnixNano(), What: &mediapb.Event_VideoProcess{
			VideoProcess: &mediapb.VideoProcess{State: "up", Pid: int32(l.pid)}}})
	case wire.TypeEncoded:
		u, err := wire.ParseUnit(body)
		if err != nil {
			return err
		}
		p.sendToTier(&u)
	case wire.TypeSource:
		var s wire.Source
		if err := wire.ParseJSON(body, &s); err != nil {
			return err
		}
		p.sourceNews(s)
	case wire.TypeJPEG:
		id, jpeg, err := wire.ParseID(body)
		if err != nil {
			return err
		}
		p.gotPreview(id, jpeg)
	case wire.TypePong:
		var pong wire.Pong
		if err := wire.ParseJSON(body, &pong); err != nil {
			return err
		}
		l.lastPong.Store(time.Now().UnixNano())
		p.pong(pong, time.Now())
		if l.pid != 0 {
			cpu := uint64((time.Duration(pong.CPUms)*time.Millisecond + cpuAhead) / time.Second)
			// Best effort: without it only the watchdog is left.
			_ = unix.Prlimit(l.pid, unix.RLIMIT_CPU, &unix.Rlimit{Cur: cpu, Max: unix.RLIM_INFINITY}, nil)
		}
	default:
		return fmt.Errorf("%w: type %d", wire.ErrMessage, t)
	}
	return nil
}
