package ims

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sparkle/bridge/lab/wire"
)

// errPort says that a port was taken by somebody else.
var errPort = errors.New("port in use")

// process is one Kamailio with its workers.
type process struct {
	name string
	log  string // file
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// run starts Kamailio with NAME.cfg of the directory.
func run(dir, name string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// -DD: in the foreground, without a session of its own, so that its workers are in our
	// process group; -m, -M: little shared and private memory, in MB.
	p.cmd = exec.Command("kamailio", "-f", filepath.Join(dir, name+".cfg"), "-DD", "-E", "-m", "32", "-M", "8", "-w", dir, "-Y", dir)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own, which Ctrl-C does not reach: we say when it ends. If we die, its
	// first process is asked to end and takes the workers along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }() // how it ended is in its log
	return p, nil
}

// stop asks for the end, and waits; workers that outlive their first process are killed.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // ESRCH: nobody is left
	<-p.done
}

// ended says why a process ended that should run.
func (p *process) ended() error {
	text, _ := os.ReadFile(p.log)
	err := fmt.Errorf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, tail(text, 15))
	if bytes.Contains(text, []byte(syscall.EADDRINUSE.Error())) {
		return fmt.Errorf("%w: %w", errPort, err)
	}
	return err
}

func tail(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// await returns when all three answer OPTIONS and both Diameter peers are there.
func (c *Core) await(ctx context.Context) error {
	for i, to := range []netip.AddrPort{c.at.SCSCF, c.at.ICSCF, c.at.PCSCF} {
		if err := c.procs[i].await(ctx, to); err != nil {
			return err
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(c.hss.Peers()) < 2 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("only %v of I- and S-CSCF came to the HSS: %w", c.hss.Peers(), context.Cause(ctx))
		}
	}
	return nil
}

// await asks with OPTIONS until there is an answer.
func (p *process) await(ctx context.Context, to netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 2048)
	for {
		_, _ = conn.Write(options(conn.LocalAddr().String(), to)) // refused until the socket is there
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := conn.Read(buf); err == nil && bytes.HasPrefix(buf[:n], []byte("SIP/2.0 200 ")) {
			return nil
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-p.done:
			pause.Stop()
			return p.ended()
		case <-ctx.Done():
			pause.Stop()
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, context.Cause(ctx), tail(text, 15))
		}
	}
}

func options(from string, to netip.AddrPort) []byte {
	m := &wire.Message{Method: "OPTIONS", URI: "sip:" + to.String()}
	m.Add("Via", "SIP/2.0/UDP "+from+";branch="+wire.Branch())
	m.Add("Max-Forwards", "70")
	m.Add("From", "<sip:lab@"+from+">;tag="+wire.Token(4))
	m.Add("To", "<"+m.URI+">")
	m.Add("Call-ID", wire.Token(8))
	m.Add("CSeq", "1 OPTIONS")
	return m.Bytes()
}
