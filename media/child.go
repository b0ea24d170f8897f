package media

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// ChildOptions says how to run a media process.
type ChildOptions struct {
	Path   string   // the program; "" is this one
	Args   []string // e.g. "media", "--socket", Socket
	Env    []string // nil: ours
	Socket string   // where it will listen
	Log    *slog.Logger
	Stderr io.Writer // the child's log lines go here whole, as it wrote them; nil: os.Stderr
	// StartTimeout is how long a started process may take to answer; 0 is 10 s.
	StartTimeout time.Duration
	// OnDown is called when the process is gone or stopped answering: every leg in it is
	// lost. OnUp when one answers again, with its pid; not for the first. Both come from
	// one goroutine, in order; they delay the restart while they run.
	OnDown func(why error)
	OnUp   func(pid int)
}

// Child is a supervised media process. Client talks to it, across restarts too.
type Child struct {
	*Client
	opt    ChildOptions
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex
	pid int
}

const (
	restartMin = 50 * time.Millisecond // first retry: members wait for it
	restartMax = 5 * time.Second
	killAfter  = 3 * time.Second // from SIGTERM to SIGKILL
)

// StartChild starts a media process and returns when it answers. From then on a
// process that dies is started again, at first at once and then ever slower, until
// ctx ends or Close. The kernel kills the process when this one dies.
func StartChild(ctx context.Context, opt ChildOptions) (*Child, error) {
	if opt.Socket == "" {
		return nil, errors.New("media: child: no socket")
	}
	if opt.Path == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("media: child: %w", err)
		}
		opt.Path = exe
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Stderr == nil {
		opt.Stderr = os.Stderr
	}
	if opt.StartTimeout == 0 {
		opt.StartTimeout = 10 * time.Second
	}
	client, err := Dial(opt.Socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Child{Client: client, opt: opt, cancel: cancel, done: make(chan struct{})}
	first := make(chan error, 1)
	go c.supervise(ctx, first)
	if err := <-first; err != nil {
		cancel()
		<-c.done
		client.Close()
		return nil, fmt.Errorf("media: child: %w", err)
	}
	return c, nil
}

// PID is the running process, 0 while there is none.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

func (c *Child) setPID(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
}

// Close ends the process (SIGTERM, SIGKILL after 3 s) and waits for it.
func (c *Child) Close() error {
	c.cancel()
	<-c.done
	return c.Client.Close()
}

// supervise owns the process. It stays on one thread: PDEATHSIG is sent when the
// thread that forked dies, not the process.
func (c *Child) supervise(ctx context.Context, first chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.done)
	wait := restartMin
	up := false // it has answered once
	for {
		started := time.Now()
		err := c.run(ctx, func(pid int) {
			if !up {
				up = true
				first <- nil
				return
			}
			c.opt.Log.Info("media process is back", "pid", pid)
			if c.opt.OnUp != nil {
				c.opt.OnUp(pid)
			}
		})
		if !up {
			first <- err // the caller decides; a wrong path never gets better
			return
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			wait = restartMin
		}
		c.opt.Log.Error("media process ended", "err", err, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, restartMax)
	}
}

// run starts one process, calls ready when it answers and returns when it has ended.
func (c *Child) run(ctx context.Context, ready func(pid int)) error {
	cmd := exec.Command(c.opt.Path, c.opt.Args...)
	cmd.Env = c.opt.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// A pipe of our own: with an io.Writer Wait would also wait for grandchildren that
	// still hold it.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		r.Close()
		w.Close()
		return err
	}
	w.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		copyLines(c.opt.Stderr, r)
	}()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	pid := cmd.Process.Pid
	c.setPID(pid)
	defer func() {
		c.setPID(0)
		_ = r.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // its last words
		<-copied
		r.Close()
	}()

	answers := make(chan error, 1)
	startCtx, stop := context.WithTimeout(ctx, c.opt.StartTimeout)
	defer stop()
	go func() { answers <- c.answersAs(startCtx, pid) }()
	select {
	case err := <-exited:
		stop()
		<-answers
		return c.down(false, fmt.Errorf("ended before it answered: %w", orExit0(err)))
	case err := <-answers:
		if err != nil {
			c.end(cmd, exited)
			return c.down(false, err)
		}
	}
	ready(pid)
	select {
	case err := <-exited:
		return c.down(true, orExit0(err))
	case <-ctx.Done():
		c.end(cmd, exited)
		return ctx.Err()
	}
}

// answersAs waits until the process with this pid answers on the socket: an earlier
// one may still be there.
func (c *Child) answersAs(ctx context.Context, pid int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		s, err := c.Snapshot(try)
		cancel()
		if err == nil && int(s.Engine.GetPid()) == pid {
			return nil
		}
		c.conn.Connect()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("does not answer: %w", ctx.Err())
		}
	}
}

func (c *Child) down(wasUp bool, why error) error {
	if wasUp && c.opt.OnDown != nil {
		c.opt.OnDown(why)
	}
	return why
}

// end asks the process to end, then makes it.
func (c *Child) end(cmd *exec.Cmd, exited <-chan error) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(killAfter):
		_ = cmd.Process.Kill()
		<-exited
	}
}

func orExit0(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// copyLines passes whole lines on, so that they do not mix with ours.
func copyLines(w io.Writer, r io.Reader) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			_, _ = w.Write(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
