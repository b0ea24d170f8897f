package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// daemon is the real program, run as anybody would: a configuration file and a process.
type daemon struct {
	cmd     *exec.Cmd
	url     string // http://host:port
	logPath string
	done    chan struct{}
}

type daemonOptions struct {
	program, dir, listen, core, domain, impi, secret, password string
}

func (o daemonOptions) config() string {
	return fmt.Sprintf(`data_dir: %q
http: {listen: %q}
media: {port_min: 0, port_max: 0}
attachments:
  - name: lab
    mode: ue
    transport: tcp
    local_addr: 127.0.0.1
    targets: [%q]
    domain: %q
    impi: %q
    impu: %q
    auth: {algorithms: [SHA-256], password_file: %q}
    offer_g711: true
`, filepath.Join(o.dir, "data"), o.listen, o.core, o.domain, o.impi, "sip:"+o.impi, filepath.Join(o.dir, "password"))
}

// startDaemon returns when the daemon has printed its address.
func startDaemon(ctx context.Context, o daemonOptions) (*daemon, error) {
	file := filepath.Join(o.dir, "sparkle.yaml")
	if err := errors.Join(os.WriteFile(file, []byte(o.config()), 0o600),
		os.WriteFile(filepath.Join(o.dir, "password"), []byte(o.secret), 0o600)); err != nil {
		return nil, err
	}
	d := &daemon{logPath: filepath.Join(o.dir, "daemon.log"), done: make(chan struct{})}
	log, err := os.Create(d.logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd = exec.Command(o.program, "serve", "--config", file)
	d.cmd.Env = append(os.Environ(), "SPARKLE_ADMIN_PASSWORD="+o.password)
	d.cmd.Stderr = log
	// Ctrl-C goes to the terminal's whole process group; we say when the daemon ends. If
	// we die, so does it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	address := make(chan string, 1)
	go func() {
		defer close(d.done)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if url, ok := strings.CutPrefix(lines.Text(), "Console: "); ok {
				address <- strings.TrimSuffix(url, "/console/")
			}
		}
		_ = d.cmd.Wait() // how it ended is in its log
	}()
	select {
	case d.url = <-address:
		return d, nil
	case <-d.done:
		text, _ := os.ReadFile(d.logPath)
		return nil, fmt.Errorf("the daemon did not start:\n%s", tail(string(text), 20))
	case <-ctx.Done():
		d.stop()
		return nil, ctx.Err()
	}
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// stop asks the daemon to end, and waits: BYE and de-registration take a moment.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}
