package media

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const schedFIFO = 1

// goRealtime gives the calling thread SCHED_FIFO, so that no ordinary process delays
// the tick (RELIABILITY.md §0.4: 28 ms late at p99 without). Needs CAP_SYS_NICE or
// RLIMIT_RTPRIO. Priority 20 leaves room above for the kernel's own threads.
func goRealtime() error {
	param := struct{ priority int32 }{20}
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedFIFO, uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return fmt.Errorf("SCHED_FIFO: %w", errno)
	}
	return nil
}

// timerSlack is how much later than they ask the process's ordinary threads may wake. Go's
// monitor thread asks to sleep 20 µs, all through every tick; with the kernel's 50 µs of
// slack that was a tenth of the CPU time of a process that passes packets on.
const timerSlack = time.Millisecond

// relaxTimers gives timerSlack to all threads of the process; those made later inherit it,
// SCHED_FIFO knows none. Needs CAP_SYS_NICE.
func relaxTimers() error {
	threads, err := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		e := os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", strconv.AppendInt(nil, int64(timerSlack), 10), 0)
		if !errors.Is(e, os.ErrNotExist) { // it has ended meanwhile
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	return nil
}

// punctual takes the slack from the calling thread again.
func punctual() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// lockMemory keeps the process out of swap. Only what is mapped now is locked: future
// mappings locked too would make a large heap's growth fail at RLIMIT_MEMLOCK.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// monotonic is the clock of ticks, in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// bell is what a worker sleeps on: until an instant, or until somebody rings.
type bell struct{ event, poll int }

func newBell() (bell, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return bell{}, fmt.Errorf("eventfd: %w", err)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		unix.Close(event)
		return bell{}, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		unix.Close(event)
		unix.Close(poll)
		return bell{}, fmt.Errorf("epoll: %w", err)
	}
	return bell{event, poll}, nil
}

func (b bell) ring() {
	one := uint64(1)
	// Full only after 2^64 rings that nobody heard.
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(b.event), uintptr(unsafe.Pointer(&one)), 8)
}

// wait returns true when rung, false when monotonic has come to until. One long sleep in
// a call that the scheduler knows of costs an idle worker a third of what short ones do:
// each wake-up keeps Go's monitor thread polling for a while.
func (b bell) wait(until int64) bool {
	var ev unix.EpollEvent
	for {
		left := until - monotonic()
		if left <= 0 {
			return false
		}
		ts := unix.NsecToTimespec(left)
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(b.poll), uintptr(unsafe.Pointer(&ev)), 1,
			uintptr(unsafe.Pointer(&ts)), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0: // older than Linux 5.11: without the bell
			ts = unix.NsecToTimespec(until)
			_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME,
				uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
			return false
		case n == 1:
			var count uint64
			_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(b.event), uintptr(unsafe.Pointer(&count)), 8)
			return true
		}
	}
}

func (b bell) close() {
	unix.Close(b.event)
	unix.Close(b.poll)
}
