// Package doctor examines a machine and its way to the carrier before a daemon has to live
// there: every finding says what was seen and, if it is not well, what to do.
package doctor

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"sparkle/config"
)

// Level of a finding.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it runs, and something will hurt
	Fail Level = "fail" // calls will not work
)

// Finding is one line of the report.
type Finding struct {
	Check string `json:"check"` // what was looked at: "dns carrier", "port http"
	Level Level  `json:"level"`
	What  string `json:"what"`         // what was seen
	Do    string `json:"do,omitempty"` // what to do; empty if it is well
}

// report collects findings in order.
type report struct{ findings []Finding }

func (r *report) ok(check, format string, args ...any) {
	r.findings = append(r.findings, Finding{check, OK, fmt.Sprintf(format, args...), ""})
}

func (r *report) warn(check, do, format string, args ...any) {
	r.findings = append(r.findings, Finding{check, Warn, fmt.Sprintf(format, args...), do})
}

func (r *report) fail(check, do, format string, args ...any) {
	r.findings = append(r.findings, Finding{check, Fail, fmt.Sprintf(format, args...), do})
}

// Examine looks at everything that cfg needs. It sends DNS queries and one OPTIONS to
// each address of each target, writes a file into data_dir and removes it, and binds
// ports for a moment. Ports that a running daemon of this configuration has are well.
func Examine(ctx context.Context, cfg config.File) []Finding {
	r := &report{}
	r.running(ctx, cfg)
	up := r.findings[0].What != notRunning
	r.machine(cfg)
	r.dataDir(cfg)
	r.ports(cfg, up)
	r.codecs(cfg)
	r.certificates(cfg, time.Now())
	if len(cfg.Attachments) == 0 {
		r.warn("attachments", "add one under attachments: see README, Connect to your core", "none: every call is refused")
	}
	// Peers that do not answer take their time; all are asked at once.
	each := make([]report, len(cfg.Attachments))
	var wg sync.WaitGroup
	for i, a := range cfg.Attachments {
		wg.Go(func() { each[i].attachment(ctx, a) })
	}
	wg.Wait()
	for _, e := range each {
		r.findings = append(r.findings, e.findings...)
	}
	return r.findings
}

// Faulty are the findings of a configuration that cannot be loaded.
func Faulty(faults config.Faults) []Finding {
	r := &report{}
	for _, f := range faults {
		r.fail("config", "correct the file; `sparkle config example` explains every key", "%s", f)
	}
	return r.findings
}

const notRunning = "no daemon answers; ports are examined as for a first start"

// running asks whether a daemon of this configuration is there already.
func (r *report) running(ctx context.Context, cfg config.File) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	scheme := "http"
	if cfg.HTTP.TLSCertFile != "" {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+reachable(cfg.HTTP.Listen)+"/readyz", nil)
	if err != nil {
		r.ok("daemon", notRunning)
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.ok("daemon", notRunning)
		return
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4096)) // a short answer is still one
	text := strings.TrimSpace(string(body))
	switch {
	case !strings.Contains(text, `"status"`):
		r.ok("daemon", notRunning) // somebody else: the port's check says so
	case res.StatusCode == http.StatusOK:
		r.ok("daemon", "runs and is ready at %s", cfg.HTTP.Listen)
	default:
		r.warn("daemon", "see `sparkle attachments` and the log", "runs at %s and cannot place calls: %s", cfg.HTTP.Listen, text)
	}
}

// Worst is the worst level among findings.
func Worst(fs []Finding) Level {
	worst := OK
	for _, f := range fs {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// WriteText writes a line for each finding, and what to do below those that need it.
func WriteText(w io.Writer, fs []Finding) error {
	var b strings.Builder
	count := map[Level]int{}
	for _, f := range fs {
		count[f.Level]++
		fmt.Fprintf(&b, "%-4s  %-24s  %s\n", f.Level, f.Check, f.What)
		if f.Do != "" {
			fmt.Fprintf(&b, "      %-24s  -> %s\n", "", f.Do)
		}
	}
	fmt.Fprintf(&b, "%d ok, %d to look at, %d wrong\n", count[OK], count[Warn], count[Fail])
	_, err := io.WriteString(w, b.String())
	return err
}
