package main

import (
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
	"sparkle/bridge/lab"
)

// sippPhone is a SIPp that plays a scenario of testdata/sipp as a server.
type sippPhone struct {
	*lab.SIPp
	t *testing.T
}

func sippFile(scenario string) string {
	return filepath.Join("..", "..", "testdata", "sipp", scenario+".xml")
}

func startSIPp(t *testing.T, scenario, transport string, args ...string) *sippPhone {
	t.Helper()
	s, err := lab.StartSIPp(lab.SIPpOptions{Scenario: sippFile(scenario), Transport: transport, Dir: t.TempDir(), Args: args})
	if errors.Is(err, lab.ErrNoSIPp) {
		t.Skip("NOT RUN: sipp is not installed (Debian package sip-tester); the real binary then has no second opinion")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return &sippPhone{s, t}
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
    options_interval: 1h
`, transport, strings.Join(targets, ", ")) + more
}

// dialled is a daemon with one member whose phone SIPp plays.
type dialled struct {
	*daemon
	conference, member string
	seen               *sightings
}

// sightings is what the event stream says of a conference's legs and members, repetitions
// left out.
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
	for {
		e, err := stream.Next()
		if err != nil {
			return
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
		return string(l.State) + " " + mediaOf(l.Media)
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
func (s *sightings) check(t *testing.T, legs []string) {
	t.Helper()
	var gotLegs, gotMembers []string
	want := memberStates(legs)
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
