package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sparkle/bridge"
	"sparkle/bridge/lab"
)

// Handsets in bulk, through the whole of a daemon and real SIP: each leg is accounted for, with
// every codec, with frames in silence, whether we place the calls or somebody else does.
func TestLoadJudgesWhatComesBack(t *testing.T) {
	t.Parallel()
	if code, _, stderr := sparkle(t, "load", "--codec", "speex", "--calls", "1"); code == 0 || !strings.Contains(stderr, "--codec") {
		t.Errorf("an unknown codec: exit code %d, %s", code, stderr)
	}
	port, err := lab.SparePort()
	if err != nil {
		t.Fatal(err)
	}
	core := fmt.Sprintf("127.0.0.1:%d", port)
	d := startDaemon(t, noPictures+fmt.Sprintf(`
attachments:
  - {name: load, mode: trunk, local_addr: 127.0.0.1, targets: [%q], domain: %q, impu: "tel:+15550100100", options_interval: 1s, offer_opus: true, offer_g711: true}
`, core, lab.DefaultDomain))
	for _, tt := range []struct {
		codec, quiet string
		place        bool
		mode         int // of what comes back, -1: none
	}{
		{"pcmu", "dtx", false, -1}, // first: the attachment is not up before the core is
		{"amr-wb/12.65", "dtx", true, 2},
		{"amr-wb/23.85", "frames", true, 8},
		{"opus", "dtx", true, -1},
	} {
		const calls = 6
		args := []string{"load", "--listen", core, "--calls", fmt.Sprint(calls), "--talkers", "2", "--codec", tt.codec, "--quiet", tt.quiet,
			"--duration", "1s", "--onsets", "2", "--json"}
		if tt.place {
			args = append(args, "--place", "--url", d.url, "--config", d.file)
		} else {
			placed := make(chan error, 1)
			go func() {
				var numbers []bridge.MemberSpec
				for i := range calls {
					numbers = append(numbers, bridge.MemberSpec{Number: fmt.Sprintf("+%d", 8613900000000+i), Name: "X"})
				}
				_, err := placeCalls(t.Context(), d.api, "elsewhere", numbers)
				placed <- err
			}()
			defer func() {
				if err := <-placed; err != nil {
					t.Error(err)
				}
			}()
		}
		code, stdout, stderr := sparkle(t, args...)
		if code != 0 {
			t.Fatalf("%s: exit code %d\n%s%s", tt.codec, code, stdout, stderr)
		}
		legs, lines := 0, bufio.NewScanner(strings.NewReader(stdout))
		var sum loadSummary
		var frames uint64
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
			frames += l.Frames
			if l.Frames == 0 || l.Gaps > l.Missing || l.Missing > 0 && l.Gaps == 0 || l.Late > l.Frames {
				t.Errorf("%s: %s", tt.codec, lines.Text())
			}
			if n := l.Frames + l.Missing; tt.codec == "pcmu" && (n < 40 || n > 60) { // a frame a tick, come or not
				t.Errorf("%s: %d frames came or are missing in a second: %s", tt.codec, n, lines.Text())
			}
			if tt.mode >= 0 && !slices.Equal(l.Modes, []int{tt.mode}) {
				t.Errorf("%s: modes %v came back to leg %d", tt.codec, l.Modes, l.Leg)
			}
		}
		if legs != calls || sum.Legs != calls || sum.Frames != frames || sum.DelayP50 <= 0 {
			t.Errorf("%s: %d legs, and %+v", tt.codec, legs, sum)
		}
		if sum.CPU["control"] <= 0 || sum.CPU["media"] <= 0 {
			t.Errorf("%s: CPU time of the processes: %v", tt.codec, sum.CPU)
		}
	}
}
