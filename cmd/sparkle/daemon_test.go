package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
)

// program is the real binary, built once for all tests, with the race detector if the
// tests have it.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sparkle-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "sparkle")
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	// The tests wait more than they work: more of them than processors at a time, unless
	// somebody said how many.
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", fmt.Sprint(max(4, runtime.NumCPU()))) // a number, and the flag is there
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

const (
	adminPassword = "correct horse battery staple"
	patience      = 30 * time.Second // for what takes a second on an idle machine
)

// daemon is a `sparkle serve` with a directory of its own. A test may start it again.
type daemon struct {
	t    *testing.T
	dir  string // of the configuration, the data and the log
	file string
	url  string // http://127.0.0.1:port
	api  *client.Client

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended

	numbers []string // called or invited: they must not be in the log
	pardons []string // messages of level ERROR that the test provokes
	dead    bool     // killed or stopped by the test
}

// base is what all configurations of tests have in common: no fixed port, and no
// priority that a test machine may refuse.
const base = `
http: {listen: "127.0.0.1:0"}
`

// anyPorts is the media process of a test that says nothing about it.
const anyPorts = "media: {port_min: 0, port_max: 0, realtime: false}\n"

// fewPictures and noPictures keep many daemons on a small machine from being busy with
// mosaics that nobody looks at.
const (
	fewPictures = "video: {fps: 5}\n"
	noPictures  = "video: {enabled: false}\n"
)

// newDaemon writes the configuration, base and more, and starts nothing. Without a word
// about video in more there are few pictures. Its directory
// has a short name: it holds a Unix socket.
func newDaemon(t *testing.T, more string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "spk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, dir: dir, file: filepath.Join(dir, "sparkle.yaml")}
	if raceEnabled {
		// Some ten times slower, and beside other tests, a mosaic's 0.5 s may pass without a
		// picture: the watchdog is right, and the tests that are about it look at what it does.
		d.pardons = []string{"a conference's picture hangs"}
	}
	if !strings.Contains(more, "video:") {
		more += fewPictures
	}
	if !strings.Contains(more, "media:") {
		more += anyPorts
	}
	text := fmt.Sprintf("data_dir: %q", filepath.Join(dir, "data")) + base + more
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// startDaemon is a daemon that runs, with a client that is logged in. When the test
// ends it is stopped and held to its promises (see stop).
func startDaemon(t *testing.T, more string) *daemon {
	t.Helper()
	d := newDaemon(t, more)
	d.start()
	return d
}

func (d *daemon) logPath() string { return filepath.Join(d.dir, "log") }

// start runs the program until it says where its console is, and logs in.
func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(program, "serve", "--config", d.file)
	d.cmd.Env = append(os.Environ(), "SPARKLE_ADMIN_PASSWORD="+adminPassword)
	d.cmd.Stderr = log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.done, d.dead = make(chan struct{}), false
	said := make(chan string, 1)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if url, ok := strings.CutPrefix(lines.Text(), "Console: "); ok {
				said <- strings.TrimSuffix(url, "/console/")
			}
		}
		_ = d.cmd.Wait() // ProcessState has it
	}()
	d.t.Cleanup(d.stop)
	select {
	case d.url = <-said:
	case <-d.done:
		d.t.Fatalf("the daemon ended at once: %v\n%s", d.cmd.ProcessState, d.logTail())
	case <-time.After(patience):
		d.t.Fatalf("the daemon does not say where its console is\n%s", d.logTail())
	}
	d.api = d.client("")
	if _, err := d.api.Login(d.t.Context(), "admin", adminPassword); err != nil {
		d.t.Fatal(err)
	}
}

// client is one of its own, with an API key or not logged in.
func (d *daemon) client(key string) *client.Client {
	d.t.Helper()
	c, err := client.New(d.url, key)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// stop ends the daemon as an operator does and checks that it ended well: exit code 0,
// no child left behind, nothing in the log that somebody would have to act on, and no
// phone number in it.
func (d *daemon) stop() {
	d.t.Helper()
	if d.dead {
		return
	}
	d.dead = true
	children := d.children()
	_ = d.cmd.Process.Signal(syscall.SIGHUP)  // which ends nothing
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself; the exit code tells
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Errorf("SIGTERM does not end the daemon: %s", stacks(d))
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("exit code %d (%v), want 0", code, d.cmd.ProcessState)
	}
	awaitGone(d.t, children)
	d.checkLog()
	if d.t.Failed() {
		d.t.Logf("the daemon's log ends:\n%s", d.logTail())
	}
}

// stacks has a daemon that hangs tell where.
func stacks(d *daemon) string {
	_ = d.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-d.done:
	case <-time.After(5 * time.Second):
	}
	return d.logTail()
}

// kill is kill -9, and waits.
func (d *daemon) kill() {
	d.dead = true
	_ = d.cmd.Process.Kill()
	<-d.done
}

func (d *daemon) logTail() string {
	b, _ := os.ReadFile(d.logPath())
	return string(b[max(0, len(b)-6000):])
}

// logLine is what tests read of a log line.
type logLine struct{ Time, Level, Msg, Process, Err string }

// checkLog holds every line to being JSON (a panic or a race is not), to not being an
// error, and to hiding numbers.
func (d *daemon) checkLog() {
	d.t.Helper()
	b, err := os.ReadFile(d.logPath())
	if err != nil {
		d.t.Error(err)
	}
	for line := range bytes.Lines(b) {
		var l logLine
		if err := json.Unmarshal(line, &l); err != nil {
			d.t.Errorf("log line is not JSON: %.300s", line)
			continue
		}
		if l.Level == "ERROR" && !d.pardoned(l.Msg) {
			d.t.Errorf("logged as an error: %s", line)
		}
		for _, n := range d.numbers {
			if bytes.Contains(line, []byte(n[len(n)-8:])) {
				d.t.Errorf("a phone number is in the log: %s", line)
			}
		}
	}
}

func (d *daemon) pardoned(msg string) bool {
	for _, p := range d.pardons {
		if strings.Contains(msg, p) {
			return true
		}
	}
	return false
}

// process is one, told from a later one with the same id by when it started.
type process struct {
	pid   int
	role  string // its second argument: media, video
	began string
}

var statLine = regexp.MustCompile(`^\d+ \(.*\) (\S) (\d+) (?:\S+ ){17}(\d+) `)

// statOf reads /proc/PID/stat: state, parent and start time.
func statOf(pid int) (state string, parent int, began string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	m := statLine.FindSubmatch(b)
	if m == nil {
		return "", 0, ""
	}
	parent, _ = strconv.Atoi(string(m[2]))
	return string(m[1]), parent, string(m[3])
}

func (p process) alive() bool {
	state, _, began := statOf(p.pid)
	return began == p.began && state != "" && state != "Z" && state != "X"
}

// children are all processes below the daemon.
func (d *daemon) children() []process {
	d.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		d.t.Fatalf("no /proc on %s: %v", runtime.GOOS, err)
	}
	byParent := map[int][]process{}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if state, parent, began := statOf(pid); state != "" && state != "Z" {
			p := process{pid: pid, began: began}
			if args, _ := os.ReadFile(filepath.Join(dir, "cmdline")); len(args) > 0 {
				if words := strings.Split(string(args), "\x00"); len(words) > 1 {
					p.role = words[1]
				}
			}
			byParent[parent] = append(byParent[parent], p)
		}
	}
	var all []process
	for queue := []int{d.cmd.Process.Pid}; len(queue) > 0; queue = queue[1:] {
		for _, p := range byParent[queue[0]] {
			all = append(all, p)
			queue = append(queue, p.pid)
		}
	}
	return all
}

// child waits for a running child by its role; but is one that it must not be.
func (d *daemon) child(role string, but process) process {
	d.t.Helper()
	var found process
	eventually(d.t, "a "+role+" process", func() error {
		for _, p := range d.children() {
			if p.role == role && p != but {
				found = p
				return nil
			}
		}
		return fmt.Errorf("there are %v", d.children())
	})
	return found
}

func awaitGone(t *testing.T, ps []process) {
	t.Helper()
	for _, p := range ps {
		eventually(t, "the end of child "+p.role, func() error {
			if p.alive() {
				return fmt.Errorf("process %d (%s) still runs", p.pid, p.role)
			}
			return nil
		})
	}
}

// eventually polls until ok has nothing to say any more.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
		<-tick.C
	}
}

// ready waits until calls can be placed.
func (d *daemon) ready() {
	d.t.Helper()
	eventually(d.t, "readiness", func() error { return d.api.Ready(context.Background()) })
}

// conference makes one.
func (d *daemon) conference(kind bridge.ConferenceType) string {
	d.t.Helper()
	c, err := d.api.CreateConference(d.t.Context(), "e2e", kind)
	if err != nil {
		d.t.Fatal(err)
	}
	return c.ID
}

// invite adds a member and has the log watched for the number.
func (d *daemon) invite(conference, number, name string) string {
	d.t.Helper()
	d.numbers = append(d.numbers, number)
	m, err := d.api.AddMember(d.t.Context(), conference, bridge.MemberSpec{Number: number, Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return m.ID
}

// call calls members, all of whom must get a leg.
func (d *daemon) call(conference string, r bridge.CallRequest) {
	d.t.Helper()
	results, err := d.api.Call(d.t.Context(), conference, r)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, x := range results {
		if x.Error != nil {
			d.t.Fatalf("call of %s: %s", x.Member, x.Error.Code)
		}
	}
}

// await waits until a member is as told, and fails with how it is instead.
func (d *daemon) await(conference, member, what string, ok func(bridge.Member) bool) bridge.Member {
	d.t.Helper()
	var m bridge.Member
	eventually(d.t, what, func() error {
		var err error
		if m, err = d.api.Member(context.Background(), conference, member); err != nil {
			return err
		}
		if !ok(m) {
			text, _ := json.Marshal(m)
			return errors.New(string(text))
		}
		return nil
	})
	return m
}

func in(m bridge.Member) bool      { return m.State == bridge.InConference }
func ringing(m bridge.Member) bool { return m.Leg != nil && m.Leg.State == bridge.Ringing }
func over(m bridge.Member) bool    { return m.State == bridge.Idle && m.LastOutcome != nil }

// ended waits for a leg's end and checks the outcome.
func (d *daemon) ended(conference, member string, want bridge.Outcome) bridge.LastOutcome {
	d.t.Helper()
	m := d.await(conference, member, "the end of the leg", over)
	o := *m.LastOutcome
	if o.Outcome != want {
		d.t.Errorf("outcome %q (SIP %+v, %q), want %q", o.Outcome, o.SIP, o.Text.En, want)
	}
	if o.Text.En == "" || o.Text.Zh == "" {
		d.t.Errorf("outcome %q has no sentence: %+v", o.Outcome, o.Text)
	}
	return o
}
