package media

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Main is `sparkle media`: an engine of its own process, served on a Unix socket. It
// returns when ctx ends, on SIGTERM or SIGINT, or when its parent dies.
func Main(ctx context.Context, socket string, opt Options) error {
	if err := opt.Validate(); err != nil {
		return err
	}
	if socket == "" {
		return fmt.Errorf("media: no socket")
	}
	parent := os.Getppid()
	// StartChild asked for SIGKILL already, which nothing can hold up; anybody else who
	// started us may not have asked for anything, and may be gone.
	var sig int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&sig)), 0, 0, 0); err != nil || sig == 0 {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
			return fmt.Errorf("media: PDEATHSIG: %w", err)
		}
	}
	if os.Getppid() != parent {
		return fmt.Errorf("media: the parent has gone")
	}
	// The tick's thread sleeps in a system call and needs a P at once when it wakes:
	// more Ps than cores leave one idle. The heap is small and the tick makes no
	// garbage, so collecting seldom costs little memory.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2 + opt.withDefaults().Workers)
	debug.SetGCPercent(400)

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	e, err := New(opt)
	if err != nil {
		return err
	}
	defer e.Close()
	return Serve(ctx, socket, e)
}
