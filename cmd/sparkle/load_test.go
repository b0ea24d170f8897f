package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sparkle/bridge/lab"
)

// Handsets in bulk, through the whole of a daemon and real SIP: each leg is accounted for.
func TestLoadPlacesCallsAndJudgesWhatComesBack(t *testing.T) {
	for _, codec := range []string{"amr-wb/12.65", "opus"} {
		t.Run(codec, func(t *testing.T) { loadPlacesCalls(t, codec) })
	}
	if code, _, stderr := sparkle(t, "load", "--codec", "speex", "--calls", "1"); code == 0 || !strings.Contains(stderr, "--codec") {
		t.Errorf("an unknown codec: exit code %d, %s", code, stderr)
	}
}

func loadPlacesCalls(t *testing.T, codec string) {
	t.Parallel()
	port, err := lab.SparePort()
	if err != nil {
		t.Fatal(err)
	}
	core := fmt.Sprintf("127.0.0.1:%d", port)
	d := startDaemon(t, noPictures+fmt.Sprintf(`
attachments:
  - {name: load, mode: trunk, local_addr: 127.0.0.1, targets: [%q], domain: %q, impu: "tel:+15550100100", options_interval: 1s, offer_opus: true}
`, core, lab.DefaultDomain))
	const calls = 6
	code, stdout, stderr := sparkle(t, "load", "--listen", core, "--calls", fmt.Sprint(calls), "--talkers", "2", "--codec", codec,
		"--duration", "2s", "--onsets", "4", "--place", "--json", "--url", d.url, "--config", d.file, "--pid", fmt.Sprint(d.cmd.Process.Pid))
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	legs, lines := 0, bufio.NewScanner(strings.NewReader(stdout))
	var sum loadSummary
	for lines.Scan() {
		var l struct {
			loadLeg
			Legs int `json:"legs"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		if l.Legs > 0 {
			if err := json.Unmarshal(lines.Bytes(), &sum); err != nil {
				t.Fatal(err)
			}
			continue
		}
		legs++
		if l.Frames == 0 {
			t.Errorf("nothing came back to leg %d", l.Leg)
		}
	}
	if legs != calls || sum.Legs != calls || sum.Frames == 0 || sum.DelayP50 <= 0 {
		t.Errorf("%d legs, and %+v", legs, sum)
	}
	if sum.CPU["control"] <= 0 || sum.CPU["media"] <= 0 {
		t.Errorf("CPU time of the processes: %v", sum.CPU)
	}
}
