package churn

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Row is one measured case, and one line of `sparkle bench --json`. What a case does not
// measure is absent. Times are in milliseconds.
type Row struct {
	Case    string  `json:"case"`
	About   string  `json:"about,omitempty"`
	Rate    float64 `json:"calls_per_s,omitempty"` // placed
	Seconds float64 `json:"seconds,omitempty"`     // until the last call had ended
	Calls   int     `json:"calls"`
	Failed  int     `json:"failed"`
	// Why says of those that failed how often which outcome, or code of the API, there was.
	Why map[string]int `json:"why,omitempty"`

	SetupP50 float64 `json:"setup_p50_ms,omitempty"`
	SetupP99 float64 `json:"setup_p99_ms,omitempty"`
	SetupMax float64 `json:"setup_max_ms,omitempty"`

	ControlCPU float64 `json:"control_cpu_ms_per_call,omitempty"`
	MediaCPU   float64 `json:"media_cpu_ms_per_call,omitempty"`

	Limit          float64 `json:"limit_per_s,omitempty"`
	InviteRate     float64 `json:"invites_per_s,omitempty"` // at the peer
	WorstSecondPct float64 `json:"worst_second_pct,omitempty"`

	Error string `json:"error,omitempty"`
}

func ms(d time.Duration) float64 { return round(float64(d)/1e6, 3) }

func round(v float64, places int) float64 {
	p := math.Pow(10, float64(places))
	return math.Round(v*p) / p
}

// failures is an error if a call failed.
func failures(r Row) error {
	if r.Failed == 0 {
		return nil
	}
	var why []string
	for _, k := range slices.Sorted(maps.Keys(r.Why)) {
		why = append(why, fmt.Sprintf("%d× %s", r.Why[k], k))
	}
	return fmt.Errorf("churn: %d of %d calls failed: %s", r.Failed, r.Calls, strings.Join(why, ", "))
}

// Table prints rows for people, each as it comes.
type Table struct {
	W      io.Writer
	headed bool
}

// Row prints one.
func (t *Table) Row(r Row) {
	if !t.headed {
		t.headed = true
		fmt.Fprintf(t.W, "\n%-10s %6s %7s %6s | %-23s | %-16s | %-22s\n", "calls", "calls", "a s", "failed",
			"set-up, ms", "CPU ms a call", "INVITEs at the peer")
		fmt.Fprintf(t.W, "%-10s %6s %7s %6s | %7s %7s %7s | %8s %7s | %8s %13s\n", "", "", "", "",
			"p50", "p99", "max", "control", "media", "a s", "worst second")
	}
	pace := fmt.Sprintf("%8s %13s", "-", "-")
	if r.InviteRate > 0 {
		pace = fmt.Sprintf("%8.3f %+12.2f%%", r.InviteRate, r.WorstSecondPct)
	}
	fmt.Fprintf(t.W, "%-10s %6d %7s %6d | %7s %7s %7s | %8s %7s | %s  %s\n", r.Case, r.Calls, cell(cmp.Or(r.Rate, r.Limit), 0), r.Failed,
		cell(r.SetupP50, 1), cell(r.SetupP99, 1), cell(r.SetupMax, 1), cell(r.ControlCPU, 2), cell(r.MediaCPU, 2), pace, r.About)
	if r.Error != "" {
		fmt.Fprintf(t.W, "%-10s ! %s\n", "", r.Error)
	}
}

func cell(v float64, places int) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", places, v)
}
