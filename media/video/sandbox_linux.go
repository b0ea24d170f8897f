package video

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// forbidden are the system calls that a video process never needs once it runs: all
// that make or use sockets, start programs, look into other processes, or change
// the system. They fail with EPERM. Reading, writing, memory and threads stay.
var forbidden = []string{
	"socket", "socketpair", "connect", "accept", "accept4", "bind", "listen", "sendto", "sendmsg", "sendmmsg",
	"recvfrom", "recvmsg", "recvmmsg", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
	"mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "open_by_handle_at", "bpf", "perf_event_open",
	"init_module", "finit_module", "delete_module", "kexec_load", "reboot", "keyctl", "add_key", "request_key",
	"userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "pidfd_getfd", "memfd_create",
}

// confine gives up what the process does not need and says what is in force and
// what could not be had. Nothing missing is fatal: the process is still another one.
func confine(memory uint64) (have, lacking []string) {
	try := func(what string, err error) {
		if err != nil {
			lacking = append(lacking, what+": "+err.Error())
		} else {
			have = append(have, what)
		}
	}
	try("nice", reniceAll(10))
	limit := func(what string, resource int, n uint64) {
		try(what, unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n}))
	}
	limit("rlimit core", unix.RLIMIT_CORE, 0)
	limit("rlimit files", unix.RLIMIT_NOFILE, 64)
	// The limit counts reserved addresses, of which Go, and the race detector still
	// more, take plenty: it is what we have now and then some.
	if now, err := addressSpace(); err != nil {
		try("rlimit memory", err)
	} else {
		limit("rlimit memory", unix.RLIMIT_AS, now+memory)
	}
	// The parent moves this one on while the watchdog is content.
	try("rlimit cpu", unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: uint64(cpuAhead.Seconds()), Max: unix.RLIM_INFINITY}))
	try("no new privileges, landlock files", landlock.V1.RestrictPaths())
	try("landlock network", landlock.V4.RestrictNet())
	try("seccomp", seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: forbidden, Action: seccomp.ActionErrno}},
	}}))
	return have, lacking
}

// reniceAll lowers every thread there is: Linux has a nice value per thread, and
// new threads take their maker's.
func reniceAll(nice int) error {
	dir, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range dir {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One call sets policy and nice value: the media process's real-time priority,
		// should we have been started by such a thread, must not be ours.
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(nice)}
		err = unix.SchedSetAttr(tid, &attr, 0)
		if err == unix.ENOSYS || err == unix.EPERM {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
		}
		if err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// addressSpace is the octets of address space that we have reserved.
func addressSpace() (uint64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	pages, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("statm: %w", err)
	}
	return pages * uint64(os.Getpagesize()), nil
}
