// Package churn puts a whole daemon under calls that come and go: SIPp plays the phones,
// the API or SIPp places the calls, and what that costs is read from the processes.
//
//	SIPp ←SIP→ control ←gRPC→ media      signalling is complete, RTP there is none
//	             ↑ HTTP: calls, events
//
// The phones do what a VoLTE network does most: reliable 183 with preconditions, PRACK,
// UPDATE, reliable 180, PRACK, 200, and BYE two seconds later. Conferences are of type
// video, so that the INVITE is as large as real ones; the phones answer by voice.
//
// What is measured, and how:
//
//   - failed: calls that did not end as the scenario has it, by the daemon's account (a
//     leg's outcome) or by SIPp's (its exit code), and calls that the API refused.
//   - set-up: from when the API took the call, or the INVITE came, to the ACK of the 200, by
//     the daemon's account.
//   - CPU by call: CPU time of each process over the run, divided by its calls.
//   - pace: see Pace.
package churn

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sparkle/bridge/lab"
)

//go:embed sipp/*.xml
var scenarios embed.FS

// Suite is the part of `sparkle bench` that is about calls.
type Suite struct {
	Program string // the sparkle binary
	Dir     string // for what the processes write; must exist
	// Rate is how many calls a second are placed, For is how long, half of it for those that
	// come in; 0: 50 and 60 s.
	Rate int
	For  time.Duration
	Only []string // names of cases; none: all
	// Profile is where CPU profiles of the daemon go, one a case: this name, a dot and the
	// case's. "": none.
	Profile string
}

type benchCase struct {
	name, about string
	run         func(s *Suite, ctx context.Context, dir string) (Row, error)
	takes       func(s *Suite) time.Duration
}

// startUp is what a case takes beside its calls: processes, and the last call's end.
const startUp = 5 * time.Second

func cases() []benchCase {
	return []benchCase{
		{"calls-out", "placed by the API, answered by SIPp with 183, PRACK, UPDATE, 180, PRACK, 200", (*Suite).callsOut, func(s *Suite) time.Duration { return startUp + s.duration() }},
		{"calls-in", "placed by SIPp to conferences: preconditions, our 183, PRACK, UPDATE, 200", (*Suite).callsIn, func(s *Suite) time.Duration { return startUp + s.duration()/2 }},
		{"call-all", fmt.Sprintf("%d members called at once, %d a second allowed", paceMembers, paceCPS), (*Suite).callAll,
			func(*Suite) time.Duration { return startUp + paceMembers*time.Second/paceCPS }},
	}
}

// Cases are the names that Only takes.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Validate reports every fault.
func (s *Suite) Validate() error {
	var errs []error
	if s.Program == "" || s.Dir == "" {
		errs = append(errs, errors.New("churn: no program, or no directory"))
	}
	if s.Rate != 0 && (s.Rate < 1 || s.Rate > 500) {
		errs = append(errs, fmt.Errorf("churn: %d calls a second, want 1..500", s.Rate))
	}
	if s.For != 0 && (s.For < time.Second || s.For > 24*time.Hour) {
		errs = append(errs, fmt.Errorf("churn: %v, want 1s..24h", s.For))
	}
	for _, n := range s.Only {
		if !slices.Contains(Cases(), n) {
			errs = append(errs, fmt.Errorf("churn: no case %q; there are %s", n, strings.Join(Cases(), ", ")))
		}
	}
	return errors.Join(errs...)
}

// Run runs the cases in order and calls row after each. A case that fails has its error
// in the row and in Run's, and the next one is run; only the end of ctx ends Run early.
func (s *Suite) Run(ctx context.Context, row func(Row)) error {
	if err := s.Validate(); err != nil {
		return err
	}
	var errs []error
	for _, c := range cases() {
		if len(s.Only) > 0 && !slices.Contains(s.Only, c.name) {
			continue
		}
		dir := filepath.Join(s.Dir, c.name)
		err := os.Mkdir(dir, 0o700)
		var r Row
		if err == nil {
			r, err = c.run(s, ctx, dir)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Case, r.About = c.name, c.about
		if err != nil {
			r.Error = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		row(r)
	}
	return errors.Join(errs...)
}

// Takes is how long Run takes.
func (s *Suite) Takes() (sum time.Duration) {
	for _, c := range cases() {
		if len(s.Only) == 0 || slices.Contains(s.Only, c.name) {
			sum += c.takes(s)
		}
	}
	return sum
}

func (s *Suite) rate() int {
	if s.Rate != 0 {
		return s.Rate
	}
	return 50
}

func (s *Suite) duration() time.Duration {
	if s.For != 0 {
		return s.For
	}
	return time.Minute
}

// scenario writes one of ours where SIPp can read it.
func scenario(dir, name string) (file string, err error) {
	text, err := scenarios.ReadFile("sipp/" + name)
	if err != nil {
		return "", fmt.Errorf("churn: %w", err)
	}
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("churn: %w", err)
	}
	return file, nil
}

// phones starts the SIPp that answers.
func phones(dir, name string, limit time.Duration, args ...string) (*lab.SIPp, error) {
	file, err := scenario(dir, name)
	if err != nil {
		return nil, err
	}
	return lab.StartSIPp(lab.SIPpOptions{Scenario: file, Transport: "tcp", Dir: dir, Limit: limit, Args: args})
}
