package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/cdr"
	"sparkle/bridge/lab"
)

var errNoRow = errors.New("there is no such member")

// sippPhone is a SIPp that plays a scenario of testdata/sipp as a server.
type sippPhone struct {
	*lab.SIPp
	t *testing.T
}

func sippFile(scenario string) string {
	return filepath.Join("..", "..", "testdata", "sipp", scenario+".xml")
}

func startSIPp(t *testing.T, scenario, transport string) *sippPhone {
	t.Helper()
	return startSIPpAt(t, scenario, transport, 0)
}

// startSIPpAt is on a port of the test's own, 0 a spare one.
func startSIPpAt(t *testing.T, scenario, transport string, port int) *sippPhone {
	t.Helper()
	return runSIPp(t, lab.SIPpOptions{Scenario: sippFile(scenario), Transport: transport, Dir: t.TempDir(), Port: port})
}

// callWithSIPp starts a SIPp that makes calls; user is whom it dials.
func callWithSIPp(t *testing.T, scenario, transport, peer, user string, calls int) *sippPhone {
	t.Helper()
	return runSIPp(t, lab.SIPpOptions{Scenario: sippFile(scenario), Transport: transport, Dir: t.TempDir(), Peer: peer,
		Args: []string{"-s", user, "-auth_uri", user + "@sipp.example", "-m", fmt.Sprint(calls), "-r", "20"}})
}

func runSIPp(t *testing.T, o lab.SIPpOptions) *sippPhone {
	t.Helper()
	s, err := lab.StartSIPp(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return &sippPhone{s, t}
}

// needSIPp skips, or the daemon would be started for nothing.
func needSIPp(t *testing.T) {
	t.Helper()
	if _, err := lab.FindSIPp(); err != nil {
		t.Skip("NOT RUN: the real binary then has no second opinion:", err)
	}
}

// needRawSocket skips where SIPp could not play a capture.
func needRawSocket(t *testing.T) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_UDP)
	if err != nil {
		t.Skip("NOT RUN: SIPp plays captures through a raw socket, which takes root or CAP_NET_RAW:", err)
	}
	syscall.Close(fd)
}

// finish is for a server, and for a caller that has made its calls.
func (s *sippPhone) finish() {
	s.t.Helper()
	if err := s.Finish(patience); err != nil {
		s.t.Error(err)
	}
}

// trunkTo is the attachment of a daemon whose peers are phones; more are keys of it.
func trunkTo(transport, more string, phones ...*sippPhone) string {
	var targets []string
	for _, p := range phones {
		targets = append(targets, fmt.Sprintf("%q", p.Addr))
	}
	if len(targets) == 0 { // the peer only calls; nobody listens at the discard port
		targets = []string{`"127.0.0.1:9"`}
	}
	if more != "" {
		more = "    " + strings.ReplaceAll(more, "\n", "\n    ") + "\n"
	}
	return fmt.Sprintf(`
attachments:
  - name: sipp
    mode: trunk
    transport: %s
    local_addr: 127.0.0.1
    targets: [%s]
    domain: sipp.example
    impu: "sip:+15550100100@sipp.example"
    number_form: tel
    options_interval: 1h
`, transport, strings.Join(targets, ", ")) + more
}

// forTest is the same daemon for a part of the test that started it.
func (d *daemon) forTest(t *testing.T) *daemon {
	part := *d
	part.t = t
	return &part
}

func (f flow) over() []string {
	if f.transports == nil {
		return []string{"tcp"}
	}
	return f.transports
}

// TestSIPpIsCalled: a flow whose configuration is its own, or that tells its daemon to leave
// the peer alone, has a daemon to itself. The others take turns, a few daemons for all: as one
// phone has ended, the next one listens where it did.
func TestSIPpIsCalled(t *testing.T) {
	needSIPp(t)
	var turns [4][]flow
	n := 0
	for _, f := range calleeFlows {
		for _, transport := range f.over() {
			if transport == "tcp" && f.attachment == "" && f.config == "" && f.then == "" {
				turns[n%len(turns)] = append(turns[n%len(turns)], f)
				n++
				continue
			}
			t.Run(f.title()+" "+transport, func(t *testing.T) {
				t.Parallel()
				if f.raw {
					needRawSocket(t)
				}
				phones := []*sippPhone{startSIPp(t, f.scenario, transport)}
				if f.then != "" {
					phones = append(phones, startSIPp(t, f.then, transport))
				}
				d := startDaemon(t, trunkTo(transport, f.attachment, phones...)+f.config+"\n")
				d.ready()
				f.isCalled(t, d, phones...)
			})
		}
	}
	for i, flows := range turns {
		t.Run(fmt.Sprint("in turn ", i), func(t *testing.T) {
			t.Parallel()
			port, err := lab.SparePort()
			if err != nil {
				t.Fatal(err)
			}
			var d *daemon
			for _, f := range flows {
				phone := startSIPpAt(t, f.scenario, "tcp", port)
				if d == nil {
					d = startDaemon(t, trunkTo("tcp", "", phone))
					d.numbers = append(d.numbers, sippNumber)
					d.ready()
				}
				t.Run(f.title(), func(t *testing.T) {
					defer phone.Kill() // where it has not come to its end
					if f.raw {
						needRawSocket(t)
					}
					f.isCalled(t, d.forTest(t), phone)
				})
			}
		})
	}
}

func (f flow) title() string { return cmp.Or(f.name, f.scenario) }

func (f flow) isCalled(t *testing.T, d *daemon, phones ...*sippPhone) {
	x := &dialled{daemon: d, conference: d.conference(bridge.VideoConference)}
	x.member = d.invite(x.conference, sippNumber, "SIPp")
	x.watch()
	if f.call.Targets == "" {
		f.call.Targets = "all"
	}
	d.call(x.conference, f.call)
	for _, s := range f.steps {
		s(x)
	}
	o := x.ended(x.conference, x.member, f.outcome)
	x.holds(f, o)
	for _, p := range phones {
		if err := p.Finish(patience); err != nil {
			t.Error(err)
		}
	}
}

// sipAddr is where the daemon's only attachment listens.
func (d *daemon) sipAddr() string {
	d.t.Helper()
	as, err := d.api.Attachments(d.t.Context())
	if err != nil || len(as) != 1 || as[0].LocalAddr == "" {
		d.t.Fatalf("attachments: %+v, %v", as, err)
	}
	return as[0].LocalAddr
}

// dialled is a daemon with one member whose phone SIPp plays.
type dialled struct {
	*daemon
	conference, member string
	seen               *sightings
}

// sightings is what the event stream says of a conference's legs and members, repetitions
// left out, and not of whoever was referred to.
type sightings struct {
	mu      sync.Mutex
	legs    []string
	members []string
}

// watch reads the event stream of the conference until the test ends.
func (x *dialled) watch() {
	x.t.Helper()
	stream, err := x.api.Events(x.t.Context(), x.conference, "")
	if err != nil {
		x.t.Fatal(err)
	}
	x.seen = &sightings{}
	done := make(chan struct{})
	go func() { defer close(done); x.seen.read(stream) }()
	x.t.Cleanup(func() { stream.Close(); <-done })
}

func (s *sightings) read(stream *client.Stream) {
	referred := map[string]bool{} // members
	for {
		e, err := stream.Next()
		if err != nil {
			return
		}
		for _, n := range referredNumbers {
			if strings.HasPrefix(e.Type, "member.") && bytes.Contains(e.Data, []byte(n)) {
				referred[e.Member] = true
			}
		}
		if referred[e.Member] {
			continue
		}
		s.mu.Lock()
		switch e.Type {
		case "leg.updated", "leg.ended":
			s.legs = note(s.legs, legWords(e))
		case "member.updated":
			s.members = note(s.members, memberWords(e))
		}
		s.mu.Unlock()
	}
}

func note(all []string, s string) []string {
	if n := len(all); n > 0 && all[n-1] == s {
		return all
	}
	return append(all, s)
}

// legWords is a leg's state in an event: "connected AMR-WB H264", "ended busy".
func legWords(e bridge.Event) string {
	var l bridge.Leg
	if err := json.Unmarshal(e.Data, &l); err != nil {
		return err.Error()
	}
	switch l.State {
	case bridge.Ended:
		return "ended " + string(l.Outcome)
	case bridge.Connected, bridge.Held:
		words := string(l.State) + " " + mediaOf(l.Media)
		if l.CSAccess {
			words += " cs"
		}
		return words
	}
	if l.AwaitingConfirm {
		return string(l.State) + " answered"
	}
	return string(l.State)
}

// mediaOf is the audio codec, and that of video or why there is none.
func mediaOf(m bridge.Media) string {
	audio, video := "none", "?"
	if m.Audio != nil {
		audio = m.Audio.Codec
	}
	switch {
	case m.Video != nil && m.WhyNoVideo == nil:
		video = m.Video.Codec
	case m.Video == nil && m.WhyNoVideo != nil:
		video = *m.WhyNoVideo
	}
	return audio + " " + video
}

func memberWords(e bridge.Event) string {
	var m bridge.Member
	if err := json.Unmarshal(e.Data, &m); err != nil {
		return err.Error()
	}
	return string(m.State)
}

// memberStates is how a member looks during a leg that goes through these states.
func memberStates(legs []string) []string {
	var out []string
	for _, l := range legs {
		word, _, _ := strings.Cut(l, " ")
		switch bridge.LegState(word) {
		case bridge.Dialing, bridge.Ringing, bridge.EarlyMedia:
			out = note(out, string(bridge.MemberRings))
		case bridge.Connected, bridge.Held:
			out = note(out, string(bridge.InConference))
		case bridge.Ended:
			out = note(out, string(bridge.Idle))
		}
	}
	return out
}

// check waits until all that is wanted has been seen: nothing less, nothing more.
// Without members, they follow from legs.
func (s *sightings) check(t *testing.T, legs, members []string) {
	t.Helper()
	var gotLegs, gotMembers []string
	want := members
	if want == nil {
		want = memberStates(legs)
	}
	eventually(t, "the leg's last event", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		gotLegs, gotMembers = slices.Clone(s.legs), slices.Clone(s.members)
		if n, m := len(gotLegs), len(gotMembers); n == 0 || m == 0 || !strings.HasPrefix(gotLegs[n-1], "ended") || gotMembers[m-1] != string(bridge.Idle) {
			return fmt.Errorf("legs %q, members %q", gotLegs, gotMembers)
		}
		return nil
	})
	if !slices.Equal(gotLegs, legs) {
		t.Errorf("the events say of the leg   %q\nwant                         %q", gotLegs, legs)
	}
	if !slices.Equal(gotMembers, want) {
		t.Errorf("the events say of the member %q\nwant                         %q", gotMembers, want)
	}
}

// holds holds an ended call to what the flow says.
func (x *dialled) holds(f flow, o bridge.LastOutcome) {
	t := x.t
	t.Helper()
	var got bridge.SIPResult
	if o.SIP != nil {
		got = *o.SIP
	}
	if got.Status != f.status || got.Q850 != f.q850 {
		t.Errorf("SIP %+v, want status %d and Q.850 %d", got, f.status, f.q850)
	}
	if !strings.Contains(o.Text.En, f.text) {
		t.Errorf("the outcome says %q, want %q", o.Text.En, f.text)
	}
	x.seen.check(t, f.legs, f.members)
	x.charged(f)
	if err := inOrder(x.timeline(), f.timeline); err != nil {
		t.Error(err)
	}
}

// charged holds the call's charging record to what the flow says.
func (x *dialled) charged(f flow) {
	t := x.t
	t.Helper()
	legs, err := x.api.Legs(t.Context(), x.conference, x.member)
	if err != nil || len(legs) == 0 {
		t.Fatalf("legs %v, %v", legs, err)
	}
	l := legs[0]
	f.bills(t, x.record(func(r cdr.Record) bool { return r.Leg == l.ID && !r.Superseded }), cdr.Record{Conference: x.conference, Member: x.member,
		Direction: l.Direction, CallID: l.CallID, ICID: l.ICID})
}

// bills holds a record to what the flow says, and to who it was.
func (f flow) bills(t *testing.T, r, want cdr.Record) {
	t.Helper()
	want.Outcome, want.SIPStatus, want.Q850, want.Attachment = string(f.outcome), f.status, f.q850, "sipp"
	for _, w := range f.legs {
		said := strings.Fields(w)
		if len(said) < 3 {
			continue
		}
		want.Audio, want.Video, want.WhyNoVideo = said[1], said[2], ""
		if want.Video != "H264" {
			want.Video, want.WhyNoVideo = "", want.Video
		}
	}
	got := cdr.Record{Outcome: r.Outcome, SIPStatus: r.SIPStatus, Q850: r.Q850, Conference: r.Conference, Member: r.Member,
		Attachment: r.Attachment, Direction: r.Direction, CallID: r.CallID, ICID: r.ICID, Audio: r.Audio, Video: r.Video, WhyNoVideo: r.WhyNoVideo}
	if want.Audio == "" { // what had been agreed by then is not said of the leg
		got.Audio, got.Video, got.WhyNoVideo = "", "", ""
	}
	if want.ICID == "" { // nobody has told it
		got.ICID = ""
	}
	if got != want {
		t.Errorf("the charging record has %+v\nwant                         %+v", got, want)
	}
	if r.Calling == "" || r.Called == "" || r.CallID == "" || r.ICID == "" {
		t.Errorf("the charging record does not say who called whom: %+v", r)
	}
	rang, connected := slices.Contains(f.legs, "ringing"), want.Audio != "" || slices.Contains(f.legs, "ringing answered")
	if r.Start.IsZero() || r.End.Before(r.Start.Time) || r.Ring.IsZero() == rang || r.Answer.IsZero() == connected {
		t.Errorf("the charging record's times are %v, %v, %v, %v; rang %v, connected %v", r.Start, r.Ring, r.Answer, r.End, rang, connected)
	}
	if connected && (r.Duration <= 0 || r.Answer.Before(r.Start.Time) || r.End.Before(r.Answer.Time)) {
		t.Errorf("the charging record has %v s from %v to %v", r.Duration, r.Answer, r.End)
	}
}

// record waits for a charging record, as the API tells of it.
func (x *dialled) record(ok func(cdr.Record) bool) (found cdr.Record) {
	x.t.Helper()
	seen := uint64(0)
	eventually(x.t, "the charging record", func() error {
		for {
			page, err := x.api.CDRs(x.t.Context(), seen)
			if err != nil || len(page) == 0 {
				return fmt.Errorf("it is not in those up to %d: %w", seen, err)
			}
			for _, r := range page {
				if seen = r.Seq; ok(r) {
					found = r
					return nil
				}
			}
		}
	})
	return found
}
