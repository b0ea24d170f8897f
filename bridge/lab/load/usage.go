package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the CPU time, user and system, that a process (0: this one) has taken since it
// started, in nanoseconds of the scheduler's account.
func CPU(pid int) (time.Duration, error) {
	id := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if pid != 0 {
		id = ^int32(pid)<<3 | 2 // clock_getcpuclockid(3): CPUCLOCK_SCHED of a process
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("load: CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS is the resident set of a process (0: this one), in octets.
func RSS(pid int) (int64, error) {
	name := "/proc/self/statm"
	if pid != 0 {
		name = fmt.Sprintf("/proc/%d/statm", pid)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("load: %w", err)
	}
	return parseStatm(b)
}

// parseStatm reads the second field of /proc/PID/statm: resident pages (proc(5)).
func parseStatm(b []byte) (int64, error) {
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, fmt.Errorf("load: statm %q", b)
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil || pages < 0 {
		return 0, fmt.Errorf("load: statm %q", b)
	}
	return pages * int64(os.Getpagesize()), nil
}
