package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// ownerOf is the process that has a UDP port of this machine open, by /proc/net/udp (proc_net(5))
// and the sockets of the processes that we may look at; 0: none.
func ownerOf(port int) (pid int) {
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0
	}
	inode := socketInode(table, port)
	if inode == "" {
		return 0
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && to == "socket:["+inode+"]" {
			pid, _ = strconv.Atoi(strings.Split(f, "/")[2])
			return pid
		}
	}
	return 0
}

// socketInode is the inode of the socket bound to a port, "" if there is none.
func socketInode(table []byte, port int) string {
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sl local remote st queues timer retransmits uid timeout inode
		if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return f[9]
		}
	}
	return ""
}
