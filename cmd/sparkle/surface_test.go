package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab"
)

// scrape reads the metrics page with Prometheus' own parser.
func (d *daemon) scrape() map[string]*dto.MetricFamily {
	d.t.Helper()
	a := d.ask("GET", "/metrics", "", "", nil)
	if a.status != http.StatusOK {
		d.t.Fatalf("/metrics: %d %s", a.status, a.body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(a.body))
	if err != nil {
		d.t.Fatalf("/metrics does not parse: %v\n%s", err, a.body)
	}
	return families
}

// sum adds up a family's series that have all the labels given ("name=value").
func sum(f *dto.MetricFamily, labels ...string) (total float64) {
series:
	for _, m := range f.GetMetric() {
		for _, want := range labels {
			found := false
			for _, l := range m.GetLabel() {
				found = found || l.GetName()+"="+l.GetValue() == want
			}
			if !found {
				continue series
			}
		}
		total += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return total
}

// One call of a handset that talks shows in the metrics, the picture and the log; the
// page names nobody.
func TestMetricsTellOfACall(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	viewer := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, viewer)
	x.hears(viewer, 50)
	var page map[string]*dto.MetricFamily
	eventually(t, "the call in the metrics", func() error {
		page = x.scrape()
		for _, want := range []struct {
			name  string
			min   float64
			label []string
		}{
			{"sparkle_build_info", 1, nil},
			{"sparkle_conferences", 1, []string{"type=video"}},
			{"sparkle_members", 2, []string{"state=in_conference"}},
			{"sparkle_legs", 1, []string{"state=connected", "media=video"}},
			{"sparkle_legs", 1, []string{"state=connected", "media=audio"}},
			{"sparkle_leg_setup_seconds", 2, nil},
			{"sparkle_rtp_packets_total", 50, []string{"dir=rx", "kind=audio"}},
			{"sparkle_rtp_packets_total", 50, []string{"dir=tx", "kind=audio"}},
			{"sparkle_rtp_packets_total", 1, []string{"dir=tx", "kind=video"}},
			{"sparkle_media_up", 1, nil},
			{"sparkle_mixer_ticks_total", 50, nil},
			{"sparkle_audio_encodes_total", 50, nil},
			{"sparkle_audio_decodes_total", 25, nil},
			{"sparkle_video_frames_encoded", 1, nil},
			{"sparkle_attachments", 1, []string{"mode=ue", "state=registered"}},
			{"sparkle_attachments_up", 1, nil},
			{"go_goroutines", 1, nil},
			{"process_cpu_seconds_total", 0, nil},
		} {
			f := page[want.name]
			if f == nil || f.GetHelp() == "" {
				return fmt.Errorf("%s is missing or has no help", want.name)
			}
			if got := sum(f, want.label...); got < want.min {
				return fmt.Errorf("%s%v is %v, want at least %v", want.name, want.label, got, want.min)
			}
		}
		return nil
	})
	for name, f := range page {
		for _, number := range x.numbers {
			if strings.Contains(f.String(), number[len(number)-8:]) {
				t.Errorf("%s names a phone number", name)
			}
		}
	}
	b, err := x.api.Preview(t.Context(), x.conference)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jpeg.Decode(bytes.NewReader(b)); err != nil {
		t.Errorf("the preview is no JPEG: %v", err)
	}
	if err := x.api.HangupAll(t.Context(), x.conference); err != nil {
		t.Fatal(err)
	}
	for _, m := range x.members {
		x.ended(x.conference, m, bridge.HungUp)
	}
	eventually(t, "the end in the metrics", func() error {
		if got := sum(x.scrape()["sparkle_leg_outcomes_total"], "outcome=hung_up"); got != 2 {
			return fmt.Errorf("%v legs were hung up, want 2", got)
		}
		return nil
	})
}

// `config print` shows what is in force and no secret, wherever it came from.
func TestConfigPrintHidesSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secrets := []string{"pass-0f3b", "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100", "file-77aa", "peer-51d0"}
	fileSecret := filepath.Join(dir, "password")
	file := filepath.Join(dir, "sparkle.yaml")
	entry := `
  - {name: %s, mode: ue, local_addr: 127.0.0.1, targets: ["127.0.0.1:5060"], domain: ims.test, impi: a@ims.test, impu: "sip:a@ims.test", auth: {%s}}`
	text := "data_dir: " + dir + "\ncalls: {ring_timeout: 17s}\nattachments:" +
		fmt.Sprintf(entry, "one", "password: "+secrets[0]) +
		fmt.Sprintf(entry, "two", `k: "`+secrets[1]+`", opc: "`+secrets[2]+`"`) +
		fmt.Sprintf(entry, "three", "password_file: "+fileSecret) +
		strings.Replace(fmt.Sprintf(entry, "four", "}, challenge: {username: peer, password: "+secrets[4]), "mode: ue", "mode: trunk", 1) + "\n"
	if err := errors.Join(os.WriteFile(fileSecret, []byte(secrets[3]), 0o600), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := sparkle(t, "config", "print", file)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, s := range secrets {
		if strings.Contains(stdout, s) {
			t.Errorf("the secret %s is printed", s)
		}
	}
	for _, want := range []string{"ring_timeout: 17s", "setup_timeout: 1m0s", "password: '[redacted]'", "opc: '[redacted]'", "password_file: " + fileSecret, "name: three", "username: peer"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
}

// A key of the command line works beside the running daemon, and only for its scopes.
func TestAPIKeyFromTheCommandLine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, noPictures)
	reader := d.client(d.apiKey("reader", "--scopes", "conf:read"))
	writer := d.client(d.apiKey("writer"))
	c, err := writer.CreateConference(t.Context(), "by key", bridge.VideoConference)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := writer.WhoAmI(t.Context()); err != nil || who.Via != "apikey" {
		t.Errorf("the key is %+v, %v", who, err)
	}
	if _, err := reader.Conferences(t.Context()); err != nil {
		t.Errorf("a reader may not read: %v", err)
	}
	_, err = reader.CreateConference(t.Context(), "no", bridge.VideoConference)
	if client.Code(err) != "scope_missing" {
		t.Errorf("a reader may write: %v", err)
	}
	if got, err := d.api.Conference(t.Context(), c.ID); err != nil || got.Name != "by key" {
		t.Errorf("the administrator sees %+v, %v", got, err)
	}
	if code, _, stderr := sparkle(t, "apikey", "new", "x", "--config", d.file, "--scopes", "everything"); code == 0 || stderr == "" {
		t.Errorf("an unknown scope: exit code %d, %q", code, stderr)
	}
}

// next reads events until one is of a type, and wants seq to rise by one each.
func next(t *testing.T, s *client.Stream, last *uint64, kinds ...string) bridge.Event {
	t.Helper()
	for {
		e, err := s.Next()
		if err != nil {
			t.Fatalf("event stream: %v, waiting for %v", err, kinds)
		}
		if e.Type == "talkers" || e.Conference == "" {
			continue
		}
		if *last != 0 && e.Seq != *last+1 {
			t.Errorf("event %s has seq %d after %d", e.Type, e.Seq, *last)
		}
		*last = e.Seq
		for _, k := range kinds {
			if e.Type == k {
				return e
			}
		}
	}
}

// The stream begins with a snapshot; who comes back with the last id gets what was
// missed, in order and once; an id that is not known any more begins anew.
func TestEventsResume(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	busy := n.handset("+8613800138007", lab.Busy, false)
	d := startDaemon(t, n.ue()+noPictures)
	d.ready()
	conference := d.conference(bridge.VideoConference)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, err := d.api.Events(ctx, conference, "")
	if err != nil {
		t.Fatal(err)
	}
	begin, err := first.Next()
	if err != nil || begin.Type != "snapshot" {
		t.Fatalf("first event %+v, %v", begin, err)
	}
	m := d.invite(conference, busy.Number(), "王芳")
	var seq uint64
	added := next(t, first, &seq, "member.added")
	if added.Member != m {
		t.Errorf("added %+v, want %s", added, m)
	}
	first.Close()

	// While nobody listens: a whole call.
	d.call(conference, bridge.CallRequest{Targets: "all"})
	d.ended(conference, m, bridge.Busy)
	again, err := d.api.Events(ctx, conference, added.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	over := next(t, again, &seq, "leg.ended")
	var leg bridge.Leg
	if err := json.Unmarshal(over.Data, &leg); err != nil || leg.Outcome != bridge.Busy || leg.Member != m {
		t.Errorf("the missed end is %s, %v", over.Data, err)
	}
	// And it goes on live.
	if err := d.api.RemoveMember(ctx, conference, m); err != nil {
		t.Fatal(err)
	}
	next(t, again, &seq, "member.removed")

	unknown, err := d.api.Events(ctx, conference, "01AAAAAAAAAAAAAAAAAAAAAAAA")
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Close()
	if e, err := unknown.Next(); err != nil || e.Type != "snapshot" {
		t.Errorf("after an unknown id: %+v, %v; want a snapshot", e, err)
	}
}

// With video switched off a conference of type video works, by voice, and no video
// process runs.
func TestVoiceOnlyDaemon(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	listener := n.handset("+15550100007", lab.PSTN, false)
	phone := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, noPictures, talker, listener, phone)
	x.unaffected()
	m := x.await(x.conference, x.members[2], "the conference", in)
	if m.Leg.Media.Video != nil || m.Leg.Media.Audio == nil || m.Leg.Media.Audio.Codec != "AMR-WB" {
		t.Errorf("media is %+v, want voice", m.Leg.Media)
	}
	if call := phone.Calls()[0]; call.HadVideo {
		t.Errorf("the phone was offered video:\n%s", call.Offer)
	}
	for _, p := range x.children() {
		if p.role == "video" {
			t.Errorf("a video process runs: %+v", p)
		}
	}
}
