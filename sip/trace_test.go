package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func traceOf(callID, start, branch string, size int) []byte {
	return fmt.Appendf(nil, "%s\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=%s;rport\r\ncall-id : %s\r\nX: %s\r\n\r\n", start, branch, callID, strings.Repeat("x", size))
}

func traceWords(t *traces, callID string) string {
	var out []string
	ms, dropped := t.of(callID)
	for _, m := range ms {
		first, _, _ := strings.Cut(string(m.Raw), "\r\n")
		out = append(out, first)
	}
	return fmt.Sprint(strings.Join(out, ", "), " -", dropped)
}

func TestTraceRecords(t *testing.T) {
	now := time.Now()
	tr := newTraces()
	in := func(callID, start string) { tr.record(TraceMessage{At: now, Raw: traceOf(callID, start, "b", 0)}) }
	out := func(callID, start string) {
		tr.record(TraceMessage{At: now, Sent: true, Raw: traceOf(callID, start, "b", 0)})
	}
	in("1", "INVITE x SIP/2.0") // comes before it is a call
	out("1", "SIP/2.0 100 Trying")
	in("other", "INVITE y SIP/2.0")
	tr.begin("1", now)
	out("1", "SIP/2.0 180 Ringing")
	if got, want := traceWords(tr, "1"), "INVITE x SIP/2.0, SIP/2.0 100 Trying, SIP/2.0 180 Ringing -0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	tr.begin("2", now)
	in("2", "SIP/2.0 100 Trying") // its INVITE was written before, and told of later
	out("2", "INVITE z SIP/2.0")
	in("2", "SIP/2.0 486 Busy Here")
	out("2", "ACK z SIP/2.0")
	if got, want := traceWords(tr, "2"), "INVITE z SIP/2.0, SIP/2.0 100 Trying, SIP/2.0 486 Busy Here, ACK z SIP/2.0 -0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := traceWords(tr, "other"); got != " -0" {
		t.Errorf("a call that nobody took has a record: %q", got)
	}
	tr.end("1", now)
	tr.begin("3", now.Add(traceKeep+time.Second))
	if got := traceWords(tr, "1"); got != " -0" {
		t.Errorf("kept for too long: %q", got)
	}
	if got := traceWords(tr, "2"); !strings.HasPrefix(got, "INVITE") {
		t.Errorf("a live call lost its record: %q", got)
	}
}

// No peer and no number of calls makes the record grow beyond its bounds.
func TestTraceIsBounded(t *testing.T) {
	now := time.Now()
	tr := newTraces()
	tr.begin("long", now)
	for i := range 1000 {
		tr.record(TraceMessage{At: now, Raw: traceOf("long", fmt.Sprint("INFO ", i), fmt.Sprint(i), 10)})
	}
	ms, dropped := tr.of("long")
	if len(ms) != traceMessages || dropped != 1000-traceMessages || !strings.HasPrefix(string(ms[0].Raw), "INFO 0\r") || !strings.HasPrefix(string(ms[traceMessages-1].Raw), "INFO 999\r") {
		t.Errorf("%d messages, %d dropped", len(ms), dropped)
	}
	tr.begin("big", now)
	for range 20 {
		tr.record(TraceMessage{At: now, Raw: traceOf("big", "INFO", "b", 60_000)})
	}
	if n := tr.calls["big"].bytes; n > traceBytes {
		t.Errorf("a call keeps %d bytes", n)
	}
	for i := range 400 {
		id := fmt.Sprint("call", i)
		tr.begin(id, now)
		for range 5 {
			tr.record(TraceMessage{At: now, Raw: traceOf(id, "INFO", "b", 40_000)})
		}
		if i%4 != 0 {
			tr.end(id, now)
		}
	}
	sum := 0
	for _, c := range tr.calls {
		for _, m := range c.messages {
			sum += len(m.Raw)
		}
	}
	if sum != tr.bytes || sum > traceTotal || len(tr.order) != len(tr.calls) {
		t.Errorf("%d bytes are kept, counted %d; %d calls, %d in order", sum, tr.bytes, len(tr.calls), len(tr.order))
	}
	if tr.calls["long"] == nil || tr.calls["call1"] != nil || tr.calls["call399"] == nil {
		t.Error("live calls go before ended ones, or new ones before old ones")
	}
	for i := range traceCalls + 100 { // calls that never sent anything
		tr.begin(fmt.Sprint("quiet", i), now)
	}
	if len(tr.order) > traceCalls || len(tr.calls) != len(tr.order) {
		t.Errorf("%d calls are kept", len(tr.order))
	}
	for i := range 1000 {
		tr.record(TraceMessage{Raw: traceOf(fmt.Sprint("stranger", i), "INVITE", "b", 0)})
	}
	if len(tr.unknown) > traceUnknown {
		t.Errorf("%d messages of nobody's are kept", len(tr.unknown))
	}
}
