package churn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sparkle/bridge/api/client"
	"sparkle/bridge/lab/load"
)

// daemon is a `sparkle serve` whose only attachment is a trunk to SIPp.
type daemon struct {
	api  *client.Client
	url  string // http://127.0.0.1:port
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  string        // the file
}

const (
	account  = "admin"
	password = "no secret: it lives as long as one measurement"
	// startLimit is how long a daemon may take to be ready, and to end.
	startLimit = 20 * time.Second
)

// nobody is a peer that only calls: the discard port.
const nobody = "127.0.0.1:9"

// startDaemon starts one and returns when it can place calls. attachment are more keys of
// the trunk, a line each.
func (s *Suite) startDaemon(ctx context.Context, dir, peer, attachment string) (*daemon, error) {
	config := fmt.Sprintf(`
data_dir: %q
log: {level: warn}
http: {listen: "127.0.0.1:0"}
media: {port_min: 0, port_max: 0, realtime: false, timeout: 1h}
attachments:
  - name: sipp
    mode: trunk
    transport: tcp
    local_addr: 127.0.0.1
    targets: [%q]
    domain: sipp.example
    impu: "sip:+15550100100@sipp.example"
    options_interval: 1h
    max_calls: 2000
`, filepath.Join(dir, "data"), peer)
	for line := range strings.Lines(attachment) {
		config += "    " + strings.TrimSpace(line) + "\n"
	}
	file := filepath.Join(dir, "sparkle.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("churn: %w", err)
	}
	d := &daemon{done: make(chan struct{}), log: filepath.Join(dir, "log")}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, fmt.Errorf("churn: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(s.Program, "serve", "--config", file)
	if s.Profile != "" {
		d.cmd.Args = append(d.cmd.Args, "--cpu-profile", s.Profile+"."+filepath.Base(dir))
	}
	d.cmd.Env = append(os.Environ(), "SPARKLE_ADMIN_PASSWORD="+password)
	d.cmd.Stderr = log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("churn: %w", err)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("churn: %w", err)
	}
	said := make(chan string, 1) // the one address that a daemon tells
	go func() {
		defer close(d.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if url, ok := strings.CutPrefix(lines.Text(), "Console: "); ok {
				select {
				case said <- strings.TrimSuffix(url, "/console/"):
				default:
				}
			}
		}
		_ = d.cmd.Wait() // ProcessState has it
	}()
	if err := d.open(ctx, said, peer); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// open logs in and waits until calls can be placed, if there is somebody to call.
func (d *daemon) open(ctx context.Context, said <-chan string, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case d.url = <-said:
		var err error
		if d.api, err = client.New(d.url, ""); err != nil {
			return err
		}
	case <-d.done:
		return errors.New("churn: the daemon ended at once")
	case <-ctx.Done():
		return errors.New("churn: the daemon does not start")
	}
	if _, err := d.api.Login(ctx, account, password); err != nil {
		return fmt.Errorf("churn: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for calls := peer != nobody; ; {
		err := d.api.Ready(ctx)
		if err == nil || !calls {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return errors.New("churn: the daemon ended")
		case <-ctx.Done():
			return fmt.Errorf("churn: the daemon is not ready: %w", err)
		}
	}
}

// close ends it as an operator does. The error has what it logged, if it should not have.
func (d *daemon) close() error {
	if d.api != nil {
		d.api.Close()
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself; the exit code tells
	clock := time.NewTimer(startLimit)
	defer clock.Stop()
	var err error
	select {
	case <-d.done:
	case <-clock.C:
		err = errors.New("churn: the daemon does not end")
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 && err == nil {
		err = fmt.Errorf("churn: the daemon ended with %v", d.cmd.ProcessState)
	}
	log, _ := os.ReadFile(d.log)
	if i := bytes.Index(log, []byte(`"level":"ERROR"`)); i >= 0 || err != nil {
		err = errors.Join(err, fmt.Errorf("churn: the daemon's log ends: %s", log[max(0, len(log)-1000):]))
	}
	return err
}

// process is one of the daemon's.
type process struct {
	name string // control, media, video
	pid  int
}

// processes are the daemon and its children, which know their role by their second word.
func (d *daemon) processes() []process {
	all := []process{{"control", d.cmd.Process.Pid}}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for i := 0; i < len(all); i++ {
		for _, dir := range dirs {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			if parent(dir) != all[i].pid {
				continue
			}
			args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			if words := strings.Split(string(args), "\x00"); len(words) > 1 {
				all = append(all, process{words[1], pid})
			}
		}
	}
	return all
}

// parent reads /proc/PID/stat (proc(5)): the fourth field, after a name that may hold
// anything.
func parent(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "stat"))
	_, rest, ok := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 2 {
		return -1
	}
	pid, err := strconv.Atoi(f[1])
	if err != nil {
		return -1
	}
	return pid
}

// cpu is what each process has taken since it started, by name.
func (d *daemon) cpu() (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for _, p := range d.processes() {
		t, err := load.CPU(p.pid)
		if err != nil {
			return nil, err
		}
		out[p.name] += t
	}
	return out, nil
}
