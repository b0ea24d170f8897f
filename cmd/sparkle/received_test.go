package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sparkle/bridge"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/phone"
)

// What a leg receives from the daemon is AMR-WB and H.264 to a judge who knows neither
// us nor our decoders: ffmpeg decodes both without a word of complaint.
func TestFFmpegJudgesWhatALegReceived(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed: make test installs it", need)
		}
	}
	n := startNetwork(t)
	roster := lab.DemoRoster()[:2] // two that have video
	phones, err := n.core.AddRoster(roster, demo.Phones(roster, phone.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, n.ue()+"video: {fps: 15}\n")
	d.ready()
	c := d.conference(bridge.VideoConference)
	for _, h := range phones {
		m := d.invite(c, h.Number(), h.Name())
		d.call(c, bridge.CallRequest{Members: []string{m}})
		d.await(c, m, "the conference", in)
	}
	p := phones[0].Media().(*phone.Phone)
	eventually(t, "half a cycle of speech and two seconds of pictures", func() error {
		if s := p.Stats(); s.AudioReceived < 150 || s.Frames < 30 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	dir := t.TempDir()
	if err := p.DumpTo(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ name, want string }{
		{"heard.awb", "codec_name=amr_wb"},
		{"seen.h264", "codec_name=h264,width=240,height=320"},
	} {
		path := filepath.Join(dir, f.name)
		out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "compact=p=0:s=,", path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), f.want) {
			t.Errorf("ffprobe %s: %v: %s", f.name, err, out)
		}
		if f.name == "heard.awb" {
			// Debian's decoder of AMR-WB has no comfort noise and says so of each SID frame:
			// it is asked only whether the speech decodes to sound.
			out, err = exec.Command("ffmpeg", "-v", "quiet", "-i", path, "-f", "s16le", "-").Output()
			if err != nil && len(out) == 0 || len(out) < 16000 {
				t.Errorf("ffmpeg makes %d octets of %s: %v", len(out), f.name, err)
			}
			continue
		}
		out, err = exec.Command("ffmpeg", "-v", "error", "-i", path, "-f", "null", "-").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("ffmpeg complains of %s: %v: %s", f.name, err, out)
		}
	}
}
