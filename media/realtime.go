package media

import (
	"fmt"
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

// sleepUntil sleeps until an absolute instant of monotonic.
func sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}
