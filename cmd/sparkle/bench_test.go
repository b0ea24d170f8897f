package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sparkle/bridge/lab/churn"
	"sparkle/bridge/lab/load"
)

func TestBenchNamesItsCases(t *testing.T) {
	var out, faults bytes.Buffer
	if code := run(t.Context(), []string{"bench", "--only", "conf-dtx,nope", "--window", "1ms"}, &out, &faults); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	for _, want := range []string{`"nope"`, "conf-dtx", "mosaic", "window"} {
		if !strings.Contains(faults.String(), want) {
			t.Errorf("%q is not in %q", want, faults.String())
		}
	}
	if out.Len() > 0 {
		t.Errorf("measured anyhow: %q", out.String())
	}
}

// What make bench counts, waits for and starts is done in five minutes.
func TestTheBenchTakesFiveMinutes(t *testing.T) {
	media, calls := (&load.Suite{}).Takes(), (&churn.Suite{}).Takes()
	t.Logf("media %v, calls %v", media, calls)
	if sum := media + calls; sum > 5*time.Minute {
		t.Errorf("%v, want at most 5m", sum)
	}
}
