package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/cdr"
	"sparkle/bridge/lab"
	"sparkle/bridge/ladder"
	"sparkle/bridge/store"
	"sparkle/config"
)

// captured takes a live leg's packets and has Wireshark's dissectors judge them.
func (x *table) captured(leg string, ask func(int, ...string) string) {
	t := x.t
	t.Helper()
	ask(3, "pcap", "leg_none", "--seconds", "1")
	ask(2, "pcap", leg, "--seconds", "601")
	file := filepath.Join(t.TempDir(), "leg.pcap")
	ask(0, "pcap", leg, "--seconds", "4", "-f", file)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("tshark is not installed: nobody else has judged the capture")
		return
	}
	out, err := exec.Command(tshark, "-r", file, "-T", "fields", "-E", "separator=|", "-e", "_ws.col.Protocol", "-e", "sip.Method", "-e", "rtp.p_type", "-e", "frame.len", "-e", "frame.cap_len").Output()
	if err != nil {
		t.Fatal(err)
	}
	invites, speech, reports := 0, 0, 0
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		switch {
		case strings.HasPrefix(f[0], "SIP") && len(f) > 1 && f[1] == "INVITE":
			invites++
		case len(f) == 5 && f[2] != "": // told to be RTP by the session description
			if speech++; f[3] == f[4] {
				t.Errorf("a packet of RTP with its payload: %s", line)
			}
		case strings.Contains(f[0], "RTCP"):
			reports++
		}
	}
	if invites == 0 || speech == 0 || reports == 0 {
		t.Errorf("%d INVITE, %d RTP, %d RTCP in\n%s", invites, speech, reports, out)
	}
}

// What an integrator asks: how the attachment is, what a leg said, what is charged.
func TestToolsOfAnIntegrator(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	answers := n.handset("+8613800138001", lab.VolteVoice, false)
	busy := n.handset("+8613800138002", lab.Busy, false)
	// A silent phone, for longer than a leg may be silent.
	x := convene(n, bridge.AudioConference, noPictures+"media: {port_min: 0, port_max: 0, realtime: false, timeout: 90s}\n", answers)
	missed := x.invite(x.conference, busy.Number(), "busy")
	x.call(x.conference, bridge.CallRequest{Members: []string{missed}})
	x.ended(x.conference, missed, bridge.Busy)
	ask := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := sparkle(t, append(args, "--url", x.url, "--config", x.file)...)
		if code != want {
			t.Fatalf("sparkle %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
		}
		return stdout
	}

	if out := ask(0, "attachments"); !strings.Contains(out, "registered, calls can be placed") || strings.Contains(out, "15550100100") {
		t.Errorf("attachments:\n%s", out)
	}
	var states []bridge.Attachment
	if err := json.Unmarshal([]byte(ask(0, "attachments", "lab", "-o", "json")), &states); err != nil || len(states) != 1 || states[0].State != "registered" {
		t.Errorf("attachments as JSON: %+v, %v", states, err)
	}
	ask(3, "attachments", "nowhere")
	ask(0, "attachments", "register", "lab")
	ask(3, "attachments", "register", "nowhere")
	ask(2, "attachments", "-o", "xml")
	ask(2, "trace", "--no-such-flag")
	ask(3, "trace", "leg_none")

	legs := map[string]string{}
	for _, m := range []string{x.members[0], missed} {
		ls, err := x.api.Legs(t.Context(), x.conference, m)
		if err != nil || len(ls) != 1 {
			t.Fatalf("legs %+v, %v", ls, err)
		}
		legs[m] = ls[0].ID
	}
	out := ask(0, "trace", legs[x.members[0]])
	at := 0
	for _, want := range []string{"────> INVITE", "Session-Expires", "SDP audio", "AMR-WB/16000", "<──── SIP/2.0 180", "<──── SIP/2.0 200", "────> ACK"} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("no %q in its place:\n%s", want, out)
		}
		at += i
	}
	if strings.Contains(out, "13800138001") || strings.Contains(out, "15550100100") {
		t.Errorf("numbers in a ladder:\n%s", out)
	}
	file := filepath.Join(x.dir, "leg.pcap")
	ask(0, "trace", legs[x.members[0]], "-o", "pcap", "-f", file)
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "SIP/2.0 200 OK") || strings.Contains(string(b), "13800138001") {
		t.Errorf("capture: %v, %d bytes", err, len(b))
	}
	var l ladder.Ladder
	if err := json.Unmarshal([]byte(ask(0, "trace", legs[missed], "-o", "json", "--full")), &l); err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range l.Messages {
		words = append(words, m.Direction+" "+strings.Join(strings.Fields(strings.TrimPrefix(m.StartLine, "SIP/2.0 "))[:1], ""))
	}
	if got := strings.Join(words, ", "); !strings.HasPrefix(got, "sent INVITE, received 100") || !strings.HasSuffix(got, "received 486, sent ACK") {
		t.Errorf("the busy leg: %s", got)
	}
	if !strings.Contains(l.Messages[0].Raw, "+8613800138002") {
		t.Errorf("a full trace is not whole: %s", l.Messages[0].Raw)
	}
	reader := x.client(x.apiKey("reader", "--scopes", "conf:read"))
	if _, err := reader.Trace(t.Context(), legs[missed], true); client.Code(err) != "scope_missing" {
		t.Errorf("a reader sees numbers: %v", err)
	}
	if _, err := reader.CDRs(t.Context(), 0); client.Code(err) != "scope_missing" {
		t.Errorf("a reader sees charging records: %v", err)
	}

	x.captured(legs[x.members[0]], ask)
	if err := reader.Capture(t.Context(), legs[x.members[0]], time.Second, true, io.Discard); client.Code(err) != "scope_missing" {
		t.Errorf("a reader hears what is said: %v", err)
	}

	admin := x.client(x.apiKey("billing", "--scopes", "admin"))
	records, err := admin.CDRs(t.Context(), 0)
	if err != nil || len(records) != 1 {
		t.Fatalf("charging records %+v, %v", records, err)
	}
	if r := records[0]; r.Leg != legs[missed] || r.Outcome != "busy" || r.SIPStatus != 486 || r.Called != "+8613800138002" || r.Calling != "sip:+15550100100@"+n.core.Domain() ||
		r.ICID == "" || r.CallID != l.Messages[0].CallID || r.Start.IsZero() || !r.Answer.IsZero() || r.Duration != 0 {
		t.Errorf("record of a failed attempt %+v", r)
	}
	if err := x.api.Hangup(t.Context(), x.conference, x.members[0]); err != nil {
		t.Fatal(err)
	}
	x.ended(x.conference, x.members[0], bridge.HungUp)
	eventually(t, "the record of the call", func() error {
		records, err = admin.CDRs(t.Context(), 1)
		if err == nil && len(records) == 0 {
			err = os.ErrNotExist
		}
		return err
	})
	if r := records[0]; r.Outcome != "hung_up" || r.Audio != "AMR-WB" || r.AudioTxPackets == 0 || r.AudioTxBytes == 0 || r.Duration <= 0 || r.Ring.IsZero() {
		t.Errorf("record of a call %+v", r)
	}
	x.stop()

	code, table, stderr := sparkle(t, "cdr", "export", "--config", x.file, "-o", "csv", "--from", "1h")
	rows, err := csv.NewReader(strings.NewReader(table)).ReadAll()
	if code != 0 || err != nil || len(rows) != 3 || len(rows[0]) != len(cdr.Columns()) {
		t.Errorf("export: exit code %d, %v, %d rows %s", code, err, len(rows), stderr)
	}
	if code, none, _ := sparkle(t, "cdr", "export", "--config", x.file, "-o", "jsonl", "--to", "1h"); code != 0 || none != "" {
		t.Errorf("nothing was to be exported: %d, %s", code, none)
	}
	if files, _ := filepath.Glob(filepath.Join(x.dir, "data", "cdr", "*.part")); len(files) != 0 {
		t.Errorf("a clean end leaves %s", files)
	}
}

// A daemon that is killed in a call charges it at the next start, once, and nothing that
// had been charged is charged again.
func TestKilledDaemonStillCharges(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	x := convene(n, bridge.AudioConference, noPictures, n.handset("+8613800138001", lab.VolteVoice, false))
	busy := n.handset("+8613800138002", lab.Busy, false)
	missed := x.invite(x.conference, busy.Number(), "busy")
	x.call(x.conference, bridge.CallRequest{Members: []string{missed}})
	x.ended(x.conference, missed, bridge.Busy)
	dir := filepath.Join(x.dir, "data", "cdr")
	read := func() (got []string) {
		for r, err := range cdr.Read(dir, cdr.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(r.Seq, " ", r.Outcome))
		}
		return got
	}
	eventually(t, "the record of the failed attempt", func() error {
		if got := read(); len(got) != 1 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	db, err := store.Open(store.Options{Path: filepath.Join(x.dir, "data", "sparkle.db")})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call in the database", func() error { // it gathers for a while what nobody waits for
		saved, err := db.Load(t.Context())
		if err != nil {
			return err
		}
		for _, r := range saved.Live {
			if r.Leg.ConnectedAt != nil {
				return nil
			}
		}
		return fmt.Errorf("live: %d", len(saved.Live))
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	children := x.children()
	x.kill()
	awaitGone(t, children)
	for range 2 { // the second start has nothing to add
		x.start()
		eventually(t, "the record of the call that was cut off", func() error {
			if got := read(); len(got) < 2 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		x.stop()
	}
	if got := strings.Join(read(), ", "); got != "1 busy, 2 dropped" {
		t.Errorf("charged: %s", got)
	}
}

// A record may be on the disk before history has the leg's end. Killed in between, the
// next start charges nothing twice, and history says what was charged.
func TestKilledBetweenRecordAndHistory(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	cfg := config.Default()
	cfg.DataDir, cfg.Charging.Enabled = t.TempDir(), true
	now := time.Now().UTC().Truncate(time.Millisecond)
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	leg := func(id string) bridge.LegRecord {
		return bridge.LegRecord{Number: "+8613800138001", Leg: bridge.Leg{
			ID: id, Member: "mbr_" + id, Conference: "conf_1", State: bridge.Ringing, Direction: "outbound", StartedAt: now}}
	}
	with := func(f func(*store.Store, *cdr.Writer)) {
		t.Helper()
		db, err := store.Open(store.Options{Path: filepath.Join(cfg.DataDir, "sparkle.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		bills, err := openCDR(t.Context(), cfg, db, log)
		if err != nil {
			t.Fatal(err)
		}
		f(db, bills)
		if err := bills.Close(); err != nil {
			t.Fatal(err)
		}
	}
	with(func(db *store.Store, bills *cdr.Writer) {
		c := bridge.Conference{ID: "conf_1", Name: "one", Type: bridge.AudioConference, Owner: "o", CreatedAt: now, UpdatedAt: now}
		if err := db.PutConference(t.Context(), c, 0); err != nil {
			t.Fatal(err)
		}
		for i, id := range []string{"busy", "left", "cut"} {
			l := leg(id)
			if err := db.PutMembers(t.Context(), bridge.Member{ID: l.Leg.Member, Conference: c.ID, Number: fmt.Sprint("+861380013800", i), Role: "speaker", CreatedAt: now}); err != nil {
				t.Fatal(err)
			}
			db.QueueLeg(l)
		}
		busy, left := leg("busy"), leg("left")
		busy.Leg.Outcome, busy.Leg.SIP, busy.Leg.EndedAt = bridge.Busy, &bridge.SIPResult{Status: 486, Reason: "Busy Here"}, at(2*time.Second)
		left.Leg.Outcome, left.Leg.ConnectedAt, left.Leg.EndedAt = bridge.Left, at(time.Second), at(3*time.Second)
		bills.Charge(busy)
		bills.Charge(left)
	})
	for range 2 { // the second start finds nothing left to do
		with(func(db *store.Store, bills *cdr.Writer) {
			saved, err := db.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(saved.Live) != 1 || saved.Live[0].Leg.ID != "cut" { // the bridge's to end
				t.Errorf("live: %+v", saved.Live)
			}
			for _, m := range saved.Conferences[0].Members {
				switch o := m.LastOutcome; m.ID {
				case "mbr_busy":
					if o == nil || o.Outcome != bridge.Busy || o.SIP == nil || o.SIP.Status != 486 || o.At.Sub(now) != 2*time.Second {
						t.Errorf("the busy one: %+v", o)
					}
				case "mbr_left":
					if o == nil || o.Outcome != bridge.Left || o.SIP != nil || o.At.Sub(now) != 3*time.Second {
						t.Errorf("the one that left: %+v", o)
					}
				default:
					if o != nil {
						t.Errorf("the one that was cut off: %+v", o)
					}
				}
			}
			if page, _, err := bills.Page(cdr.Filter{}, 10); err != nil || len(page) != 2 {
				t.Errorf("charged %+v, %v", page, err)
			}
		})
	}
}
