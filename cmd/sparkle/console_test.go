package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sparkle/bridge/console"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/phone"
)

// An organiser at work in a real browser, against the real daemon and the eight phones of
// the demo: logs in, creates, invites, calls all, watches everybody's state come true and
// hangs up all. With SPARKLE_SCREENSHOT set it leaves the README's picture there.
func TestConsoleInABrowser(t *testing.T) {
	if !console.Built() {
		t.Skip("the console is not built: make web")
	}
	for _, need := range []string{"node", "chromium"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed: make test installs what it can", need)
		}
	}
	script, err := filepath.Abs("../../bridge/console/web/e2e/real.mjs")
	if err != nil {
		t.Fatal(err)
	}
	n := startNetwork(t)
	roster := lab.DemoRoster()
	if _, err := n.core.AddRoster(roster, demo.Phones(roster, phone.Options{})); err != nil {
		t.Fatal(err)
	}
	// A short ringing, so that the phone which nobody answers comes to its end too.
	ue := strings.Replace(n.ue(), "calls: {setup_timeout: 5s}", "calls: {ring_timeout: 12s}", 1)
	d := startDaemon(t, ue+"video: {fps: 15}\n")
	d.ready()
	type member struct {
		Name    string `json:"name"`
		Number  string `json:"number"`
		Expect  string `json:"expect"`
		Outcome string `json:"outcome,omitempty"`
		Video   *bool  `json:"video,omitempty"`
	}
	var members []member
	for _, h := range roster {
		m := member{Name: h.Name, Number: h.Number, Expect: "in_conference"}
		switch h.Profile {
		case lab.Busy:
			m.Expect, m.Outcome = "idle", "busy"
		case lab.NoAnswer:
			m.Expect, m.Outcome = "idle", "no_answer"
		default:
			video := h.Profile == lab.VolteVideo
			m.Video = &video
		}
		members = append(members, m)
		d.numbers = append(d.numbers, h.Number)
	}
	people, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", script)
	cmd.Env = append(os.Environ(), "BASE_URL="+d.url, "ACCOUNT=admin", "PASSWORD="+adminPassword,
		"MEMBERS="+string(people), "HANGUP=1", "SCREENSHOT="+os.Getenv("SPARKLE_SCREENSHOT"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
