package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab/demo"
)

// plain is the binary as people run it: looking at pictures for names is far too slow
// under the race detector, and the daemon inside is raced by all other tests.
var plain = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "sparkle-plain")
	out, err := exec.Command("go", "build", "-trimpath", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func demoCmd(t *testing.T, ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"demo"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// The whole main job in one command: what each of the eight hears and sees is judged
// here again, from the rows and not from the demo's own verdict.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := demoCmd(t, ctx, "--once", "--json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("exit: %v\n%s", err, stderr.Bytes())
	}
	var rows []demo.Row
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var r demo.Row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		rows = append(rows, r)
	}
	profiles := map[string]int{}
	var in, moving, still []string
	for _, r := range rows {
		profiles[r.Profile]++
		switch r.Profile {
		case "volte-video":
			moving = append(moving, r.Member)
		case "volte-voice", "video-488", "pstn":
			still = append(still, r.Member)
		}
	}
	in = slices.Concat(moving, still)
	want := map[string]int{"volte-video": 3, "volte-voice": 1, "video-488": 1, "pstn": 1, "busy": 1, "no-answer": 1}
	for p, n := range want {
		if profiles[p] != n {
			t.Errorf("%d of %s, want %d", profiles[p], p, n)
		}
	}
	for _, r := range rows {
		switch r.Profile {
		case "busy", "no-answer":
			outcome, status := bridge.Busy, 486
			if r.Profile == "no-answer" {
				outcome, status = bridge.NoAnswer, 487
			}
			if r.State != bridge.Idle || r.Outcome == nil || *r.Outcome != outcome || r.SIPStatus == nil || *r.SIPStatus != status ||
				r.Text == nil || r.Text.Zh == "" || r.Text.En == "" {
				t.Errorf("%s (%s): %+v", r.Member, r.Profile, r)
			}
			continue
		}
		if r.State != bridge.InConference || r.HearsSelf || !sameNames(r.Hears, but(in, r.Member)) {
			t.Errorf("%s (%s): %s, hears %v, himself %v", r.Member, r.Profile, r.State, r.Hears, r.HearsSelf)
		}
		if codec := map[string]string{"pstn": "PCMA"}[r.Profile]; r.AudioCodec == nil || *r.AudioCodec != codec && (codec != "" || *r.AudioCodec != "AMR-WB") {
			t.Errorf("%s: audio %v", r.Member, r.AudioCodec)
		}
		if r.Profile != "volte-video" {
			if r.Video != nil || r.WhyNoVideo == nil || *r.WhyNoVideo == "" {
				t.Errorf("%s: video %v, why not %v", r.Member, r.Video, r.WhyNoVideo)
			}
			continue
		}
		if r.Video == nil || r.WhyNoVideo != nil || !sameNames(r.SeesMoving, moving) || !sameNames(r.Sees, in) {
			t.Errorf("%s: video %v, sees %v moving, %v in all; want %v and %v", r.Member, r.Video, r.SeesMoving, r.Sees, moving, in)
		}
	}
}

func but(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// Ctrl-C ends it cleanly at any time: exit code 0 and no process left.
func TestDemoEndsWithCtrlC(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := demoCmd(t, ctx)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	in := 0
	for in < 6 && lines.Scan() { // until six are in
		if strings.Contains(lines.Text(), string(bridge.InConference)) {
			in++
		}
	}
	d := daemon{t: t, cmd: cmd}
	children := d.children()
	if len(children) < 3 { // serve, media, video
		t.Errorf("%d processes in the tree, want the daemon, media and video", len(children))
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to the end, so that nothing blocks
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	awaitGone(t, children)
}
