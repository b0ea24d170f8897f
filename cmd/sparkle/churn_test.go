package main

import (
	"errors"
	"math"
	"testing"
	"time"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/churn"
)

// The load of the bench, for two seconds: every call is made as SIPp's scenario has it,
// and 200 calls at once leave at the attachment's pace.
func TestCallsUnderLoad(t *testing.T) {
	t.Parallel()
	if _, err := lab.FindSIPp(); err != nil {
		t.Skip("NOT RUN:", err)
	}
	rows := map[string]churn.Row{}
	s := churn.Suite{Program: program, Dir: t.TempDir(), Rate: 10, For: 2 * time.Second}
	// How even the pace is is the bench's to judge, on a machine that does nothing else.
	if err := s.Run(t.Context(), func(r churn.Row) { rows[r.Case] = r }); err != nil && !errors.Is(err, churn.ErrPace) {
		t.Error(err)
	}
	for name, calls := range map[string]int{"calls-out": 20, "calls-in": 10} {
		if r := rows[name]; r.Calls != calls || r.Failed != 0 || r.SetupP50 <= 0 || r.ControlCPU <= 0 || r.MediaCPU <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := rows["call-all"]; r.Calls != 200 || r.Failed != 0 || math.Abs(r.InviteRate-r.Limit) > r.Limit/10 {
		t.Errorf("%+v", r)
	}
}
