package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoSIPp says that SIPp is not installed (Debian package sip-tester).
var ErrNoSIPp = errors.New("lab: sipp is not installed (Debian package sip-tester)")

// SIPpOptions are one run of SIPp: a second implementation, run as a program of its own.
type SIPpOptions struct {
	Scenario  string   // the file
	Transport string   // tcp or udp, one socket for all calls
	Peer      string   // host:port it calls; "" for a server
	Dir       string   // for what it writes; must exist
	Args      []string // more of its own options
	Port      int      // it listens on; 0: a spare one
	// Limit ends it, with an exit code that is not 0, whatever it waits for; 0: 60 s.
	Limit time.Duration
}

// SIPp is a SIPp process. Its methods may be called from one goroutine.
type SIPp struct {
	Addr string // host:port it listens on

	o    SIPpOptions
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	stop sync.Once
}

// FindSIPp is the program's path, or ErrNoSIPp.
func FindSIPp() (string, error) {
	bin, err := exec.LookPath("sipp")
	if err != nil {
		return "", ErrNoSIPp
	}
	return bin, nil
}

// StartSIPp starts SIPp on a port of 127.0.0.1 and returns when that is open. A
// port that somebody else was faster to take costs another try.
func StartSIPp(o SIPpOptions) (*SIPp, error) {
	bin, err := FindSIPp()
	if err != nil {
		return nil, err
	}
	mode := map[string]string{"tcp": "t1", "udp": "u1"}[o.Transport]
	if mode == "" {
		return nil, fmt.Errorf("lab: sipp: transport %q is neither tcp nor udp", o.Transport)
	}
	file, err := filepath.Abs(o.Scenario)
	if err != nil {
		return nil, fmt.Errorf("lab: sipp: %w", err)
	}
	if o.Limit == 0 {
		o.Limit = time.Minute
	}
	said := ""
	for range 5 {
		port := o.Port
		if port == 0 {
			if port, err = SparePort(); err != nil {
				return nil, err
			}
		}
		s := &SIPp{Addr: fmt.Sprintf("127.0.0.1:%d", port), o: o, done: make(chan struct{})}
		args := []string{"-sf", file, "-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", fmt.Sprint(port), "-t", mode, "-nostdin",
			"-timeout", fmt.Sprint(int(o.Limit / time.Second)), "-trace_err", "-error_file", s.errorFile()}
		args = append(args, o.Args...)
		if o.Peer != "" {
			args = append(args, o.Peer)
		}
		s.cmd = exec.Command(bin, args...)
		s.cmd.Dir = filepath.Dir(file) // what a scenario plays is beside it, and SIPp looks nowhere else
		s.cmd.Env = append(os.Environ(), "TERM=dumb")
		if err := s.cmd.Start(); err != nil {
			return nil, fmt.Errorf("lab: sipp: %w", err)
		}
		go func() { defer close(s.done); _ = s.cmd.Wait() }() // ProcessState has it
		if s.listens(port) {
			return s, nil
		}
		s.Kill()
		said = s.Errors()
	}
	return nil, fmt.Errorf("lab: sipp does not start: no free port, or a scenario it cannot read\n%s", said)
}

// listens waits until the kernel lists the port as open; false: SIPp has ended, or will
// never open it.
func (s *SIPp) listens(port int) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	// A client over TCP opens no port; it has started once it is connected or done.
	if s.o.Peer != "" && s.o.Transport == "tcp" {
		return true
	}
	want := fmt.Sprintf(": 0100007F:%04X ", port)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		b, _ := os.ReadFile("/proc/net/" + s.o.Transport)
		if strings.Contains(string(b), want) {
			return true
		}
		select {
		case <-s.done:
			return false
		case <-tick.C:
		}
	}
	return false
}

// PID is its process id.
func (s *SIPp) PID() int { return s.cmd.Process.Pid }

// Done is closed when it has ended.
func (s *SIPp) Done() <-chan struct{} { return s.done }

// Kill is for a SIPp that is not waited for. It may have ended.
func (s *SIPp) Kill() {
	s.stop.Do(func() { _ = s.cmd.Process.Kill() })
	<-s.done
}

// Finish asks SIPp to end when the calls under way have, waits that long, and wants it
// content: exit code 0 is every call (an OPTIONS too, which is one for SIPp) as the
// scenario has it.
func (s *SIPp) Finish(patience time.Duration) error {
	_ = s.cmd.Process.Signal(syscall.SIGUSR1) // SIPp's own word for a soft end
	return s.Wait(patience)
}

// Wait waits for the end that SIPp finds itself.
func (s *SIPp) Wait(patience time.Duration) error {
	clock := time.NewTimer(patience)
	defer clock.Stop()
	select {
	case <-s.done:
	case <-clock.C:
		s.Kill()
		return fmt.Errorf("sipp waits for something that never came\n%s", s.Errors())
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("sipp ended with %v\n%s", s.cmd.ProcessState, s.Errors())
	}
	return nil
}

func (s *SIPp) errorFile() string { return filepath.Join(s.o.Dir, "sipp-errors") }

// Errors is what it complained of.
func (s *SIPp) Errors() string {
	b, _ := os.ReadFile(s.errorFile())
	return string(b[max(0, len(b)-4000):])
}
