package cdr

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
)

var t0 = time.Date(2026, 11, 25, 18, 7, 0, 123_000_000, time.UTC)

func ended(id string) bridge.LegRecord {
	ring, answer, end := t0.Add(2*time.Second), t0.Add(5*time.Second), t0.Add(65*time.Second+500*time.Millisecond)
	why := "refused"
	return bridge.LegRecord{Number: "+8613800138001", AccessNetwork: "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1", Leg: bridge.Leg{
		ID: id, Member: "mbr_1", Conference: "conf_1", State: bridge.Ended, Direction: "outbound", Attachment: "core",
		Outcome: bridge.Left, SIP: &bridge.SIPResult{Status: 0, Q850: 16}, StartedAt: t0, RingingAt: &ring, ConnectedAt: &answer, EndedAt: &end,
		Media:  bridge.Media{Audio: &bridge.AudioMedia{Codec: "AMR-WB", Mode: "23.85", Payload: 97}, WhyNoVideo: &why},
		CallID: "abc@192.0.2.10", ICID: "icid-1", Charging: &bridge.Charging{OrigIOI: "home", TermIOI: "away"},
		Usage: &bridge.Usage{Audio: bridge.StreamUsage{RxPackets: 3000, RxBytes: 219000, TxPackets: 3001, TxBytes: 219073}},
	}}
}

func open(t *testing.T, o Options) *Writer {
	t.Helper()
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func all(t *testing.T, dir string) []Record {
	t.Helper()
	var out []Record
	for r, err := range Read(dir, Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// inOrder fails unless the records' numbers are 1, 2, 3 …
func inOrder(t *testing.T, rs []Record, n int) {
	t.Helper()
	for i, r := range rs {
		if r.Seq != uint64(i)+1 {
			t.Fatalf("record %d has number %d", i, r.Seq)
		}
	}
	if len(rs) != n {
		t.Fatalf("%d records, want %d", len(rs), n)
	}
}

// The shape is a contract: mediation systems parse it.
func TestShape(t *testing.T) {
	failed := ended("leg_2")
	failed.Leg.ConnectedAt, failed.Leg.RingingAt, failed.Leg.Usage, failed.Leg.Media = nil, nil, nil, bridge.Media{}
	failed.Leg.Direction, failed.Leg.Outcome, failed.Leg.Unverified = "inbound", bridge.Busy, true
	failed.Dialled = "sip:+861066668888@ims.example"
	failed.Leg.SIP = &bridge.SIPResult{Status: 486, Reason: "=cmd|Busy, Here", Q850: 17}
	dir := t.TempDir()
	w := open(t, Options{Dir: dir, Masked: true, Identities: map[string]string{"core": "sip:+15550100@ims.example"}})
	w.Charge(ended("leg_1"))
	w.Charge(failed)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var jsonl, table bytes.Buffer
	for format, out := range map[string]*bytes.Buffer{"jsonl": &jsonl, "csv": &table} {
		enc, err := NewEncoder(out, format)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all(t, dir) {
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := enc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	const want = `{"seq":1,"v":1,"leg_id":"leg_1","conference_id":"conf_1","member_id":"mbr_1","attachment":"core","direction":"outbound","calling":"sip:+15****00@ims.example","called":"+86138****8001","call_id":"abc@192.0.2.10","icid":"icid-1","orig_ioi":"home","term_ioi":"away","access_network":"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1","start":"2026-11-25T18:07:00.123Z","ring":"2026-11-25T18:07:02.123Z","answer":"2026-11-25T18:07:05.123Z","end":"2026-11-25T18:08:05.623Z","duration_s":60.5,"outcome":"left","q850":16,"audio":"AMR-WB","audio_mode":"23.85","why_no_video":"refused","audio_rx_packets":3000,"audio_rx_bytes":219000,"audio_tx_packets":3001,"audio_tx_bytes":219073,"video_rx_packets":0,"video_rx_bytes":0,"video_tx_packets":0,"video_tx_bytes":0}
{"seq":2,"v":1,"leg_id":"leg_2","conference_id":"conf_1","member_id":"mbr_1","attachment":"core","direction":"inbound","calling":"+86138****8001","called":"sip:+8610****8888@ims.example","call_id":"abc@192.0.2.10","icid":"icid-1","orig_ioi":"home","term_ioi":"away","access_network":"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1","start":"2026-11-25T18:07:00.123Z","end":"2026-11-25T18:08:05.623Z","duration_s":0,"outcome":"busy","sip_status":486,"sip_reason":"=cmd|Busy, Here","q850":17,"audio_rx_packets":0,"audio_rx_bytes":0,"audio_tx_packets":0,"audio_tx_bytes":0,"video_rx_packets":0,"video_rx_bytes":0,"video_tx_packets":0,"video_tx_bytes":0,"calling_unverified":true}
`
	if got := jsonl.String(); got != want {
		t.Errorf("JSON:\n got %s\nwant %s", got, want)
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 3 || !slices.Equal(rows[0], Columns()) {
		t.Fatalf("CSV: %v, %d rows", err, len(rows))
	}
	for i, line := range strings.Split(strings.TrimSpace(want), "\n") {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		for j, name := range rows[0] {
			got, in := rows[i+1][j], doc[name]
			switch {
			case name == "sip_reason" && i == 1:
				if got != "'=cmd|Busy, Here" {
					t.Errorf("a spreadsheet would run %q", got)
				}
			case in == nil:
				if got != "" {
					t.Errorf("row %d: %s = %q, JSON has none", i, name, got)
				}
			case name == "duration_s":
				if got != fmt.Sprintf("%.3f", in) {
					t.Errorf("row %d: %s = %q, JSON %v", i, name, got, in)
				}
			case got != fmt.Sprint(in):
				t.Errorf("row %d: %s = %q, JSON %v", i, name, got, in)
			}
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "cdr-"+day(time.Now())+"-000000000001.jsonl")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("closed file: %v, %v", st, err)
	}
}

func TestFilter(t *testing.T) {
	dir := t.TempDir()
	w := open(t, Options{Dir: dir, MaxBytes: 1})
	for i := range 5 {
		r := ended(fmt.Sprint("leg_", i))
		at := t0.Add(time.Duration(i) * time.Hour)
		r.Leg.EndedAt = &at
		w.Charge(r)
		for w.Synced() != uint64(i)+1 { // each in a file of its own
			time.Sleep(time.Millisecond)
		}
	}
	defer w.Close()
	for _, tt := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 5}, {Filter{After: 3}, 2}, {Filter{After: 5}, 0}, {Filter{After: 99}, 0},
		{Filter{From: t0.Add(time.Hour)}, 4}, {Filter{To: t0.Add(time.Hour)}, 1},
		{Filter{Attachment: "core"}, 5}, {Filter{Attachment: "other"}, 0}, {Filter{Outcome: "busy"}, 0}, {Filter{Conference: "conf_1", Direction: "outbound"}, 5},
	} {
		items, more, err := w.Page(tt.f, 10)
		if err != nil || more || len(items) != tt.want {
			t.Errorf("%+v: %d records, more %v, %v; want %d", tt.f, len(items), more, err, tt.want)
		}
	}
	items, more, err := w.Page(Filter{After: 1}, 2)
	if err != nil || !more || len(items) != 2 || items[0].Seq != 2 {
		t.Errorf("a page: %d records, more %v, %v", len(items), more, err)
	}
}

// Files are closed by size and by day; nothing is lost or numbered twice over restarts,
// not even when everything has been collected.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	now := t0
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	o := Options{Dir: dir, MaxBytes: 2000, now: clock}
	w := open(t, o)
	write := func(n int) {
		t.Helper()
		for range n {
			before := w.Synced()
			w.Charge(ended("leg"))
			for w.Synced() == before {
				time.Sleep(time.Millisecond)
			}
		}
	}
	write(4) // about 800 bytes each: three, and one
	mu.Lock()
	now = now.Add(24 * time.Hour)
	mu.Unlock()
	write(1)
	names := func() (out []string) {
		files, err := list(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			out = append(out, strings.TrimPrefix(filepath.Base(f.path), "cdr-"))
		}
		return out
	}
	if got, want := names(), []string{"20261125-000000000001.jsonl", "20261125-000000000004.jsonl", "20261126-000000000005.jsonl.part"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	inOrder(t, all(t, dir), 5)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(); got[2] != "20261126-000000000005.jsonl" {
		t.Errorf("a clean end leaves %q", got)
	}
	for _, n := range names() {
		os.Remove(filepath.Join(dir, "cdr-"+n))
	}
	w = open(t, o)
	write(1)
	defer w.Close()
	if got := all(t, dir); len(got) != 1 || got[0].Seq != 6 {
		t.Errorf("after everything was collected the next record is %+v", got)
	}
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	w := open(t, Options{Dir: dir, Keep: time.Hour})
	w.Charge(ended("leg_1"))
	w.Close()
	var later atomic.Int64
	w = open(t, Options{Dir: dir, Keep: time.Hour, now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	defer w.Close()
	w.expire()
	inOrder(t, all(t, dir), 1)
	later.Store(int64(2 * time.Hour))
	w.expire()
	if got := all(t, dir); len(got) != 0 {
		t.Errorf("%d records are still there", len(got))
	}
}

// full is a disk with room for so many bytes; it takes what fits and refuses the rest,
// as a real one does.
type full struct {
	mu   sync.Mutex
	room int
}

type fullFile struct {
	*os.File
	d *full
}

func (f fullFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := min(len(b), f.d.room)
	f.d.room -= n
	if _, err := f.File.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A full disk blocks nobody, loses nothing and leaves no half line.
func TestDiskFull(t *testing.T) {
	dir, d := t.TempDir(), &full{room: 5000}
	w := open(t, Options{Dir: dir, open: func(path string) (file, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		return fullFile{f, d}, err
	}})
	const n = 600
	start := time.Now()
	for i := range n {
		w.Charge(ended(fmt.Sprint("leg_", i)))
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("calls waited %v for a full disk", took)
	}
	for w.Stats().Failures == 0 {
		time.Sleep(time.Millisecond)
	}
	if items, _, err := w.Page(Filter{}, 10); err != nil || uint64(len(items)) != w.Synced() {
		t.Errorf("%d records shown, %d acknowledged, %v", len(items), w.Synced(), err)
	}
	d.mu.Lock()
	d.room = 1 << 30
	d.mu.Unlock()
	for w.Stats().Waiting > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	inOrder(t, all(t, dir), n)
	if s := w.Stats(); s.Written != n || s.Dropped != 0 || s.Failures == 0 {
		t.Errorf("counted %+v", s)
	}
}

// What the disk never took comes from the database at the next start, once.
func TestReconcile(t *testing.T) {
	dir := t.TempDir()
	first := open(t, Options{Dir: dir, open: func(string) (file, error) { return nil, syscall.ENOSPC }})
	first.Charge(ended("leg_1"))
	if err := first.Close(); err == nil {
		t.Error("a record that was not written is not told of")
	}
	legs := []bridge.LegRecord{ended("leg_1"), ended("leg_2")}
	later := first.Horizon().Add(time.Minute)
	before := first.Horizon().Add(-time.Minute)
	legs[0].Leg.EndedAt, legs[1].Leg.EndedAt = &later, &before
	for range 2 {
		w := open(t, Options{Dir: dir})
		w.Reconcile(legs)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got := all(t, dir)
	inOrder(t, got, 1) // leg_2 ended before there were charging records
	if got[0].Leg != "leg_1" || !got[0].Recovered {
		t.Errorf("recovered %+v", got[0])
	}
}

// The record of an INVITE that another followed is not the end of its leg.
func TestSupersededIsNoEnd(t *testing.T) {
	dir := t.TempDir()
	w := open(t, Options{Dir: dir})
	r := ended("leg_1")
	r.Superseded, r.Calling, r.Leg.Attempts, r.Leg.Reason, r.Leg.DurationS = true, "sip:us@ims.example", 1, "media_incompatible", 7.5
	w.Charge(r)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, Options{Dir: dir})
	live := ended("leg_1")
	live.Leg.EndedAt = nil
	if legs := w.Reconcile([]bridge.LegRecord{live}); len(legs) != 0 {
		t.Errorf("ended: %+v", legs)
	}
	live = ended("leg_1") // it ended, and the record of that is missing
	later := w.Horizon().Add(time.Minute)
	live.Leg.EndedAt = &later
	w = open(t, Options{Dir: dir})
	w.Reconcile([]bridge.LegRecord{live})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := all(t, dir)
	inOrder(t, got, 2)
	if c := got[0]; !c.Superseded || c.Calling != "sip:us@ims.example" || c.Attempts != 1 || c.Reason != "media_incompatible" || c.Duration != 7.5 || c.Recovered {
		t.Errorf("superseded %+v", c)
	}
	if c := got[1]; c.Superseded || !c.Recovered {
		t.Errorf("its end %+v", c)
	}
}

const killed = "SPARKLE_CDR_TEST_DIR"

// TestMain is also the process that TestKill kills: it writes and says what is safe.
func TestMain(m *testing.M) {
	dir := os.Getenv(killed)
	if dir == "" {
		os.Exit(m.Run())
	}
	w, err := Open(Options{Dir: dir, MaxBytes: 20_000})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		w.Charge(ended(fmt.Sprint("leg_", i)))
		if i%7 == 0 {
			fmt.Println(w.Synced())
		}
		if w.Stats().Waiting > 100 {
			time.Sleep(time.Millisecond)
		}
	}
}

// kill -9 at any moment loses no acknowledged record and leaves no half line.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killed+"="+dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+37*round) * time.Millisecond) // any moment will do
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("it ended by itself: %v", err)
		}
		var safe uint64
		for line := range strings.Lines(out.String()) {
			var n uint64
			if _, err := fmt.Sscanf(line, "%d\n", &n); err == nil && strings.HasSuffix(line, "\n") {
				safe = max(safe, n)
			}
		}
		w := open(t, Options{Dir: dir})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := all(t, dir)
		inOrder(t, got, len(got))
		if uint64(len(got)) < safe {
			t.Fatalf("%d records, %d were acknowledged", len(got), safe)
		}
		files, _ := list(dir)
		for _, f := range files {
			text, err := os.ReadFile(f.path)
			if err != nil || f.part || !bytes.HasSuffix(text, []byte("\n")) {
				t.Errorf("%s ends in half a line or is not closed (%v)", filepath.Base(f.path), err)
			}
		}
	}
	if n := len(all(t, dir)); n == 0 {
		t.Fatal("nothing was ever written: the test shows nothing")
	}
}

// Files that somebody else wrote must not end the daemon or the export.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"seq":1,"leg_id":"leg_1","end":"2026-11-25T18:08:05.623Z"}` + "\n{"))
	f.Add([]byte("\n\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cdr-20261125-000000000001.jsonl.part"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for range Read(dir, Filter{}) {
		}
	})
}
