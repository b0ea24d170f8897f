package sip

import (
	"fmt"
	"testing"
	"time"
)

// What a message costs: 50 calls a second have about 600.
func BenchmarkTraceRecord(b *testing.B) {
	tr := newTraces()
	now := time.Now()
	raw := make([][]byte, 1000)
	for i := range raw {
		id := fmt.Sprint("call", i)
		tr.begin(id, now)
		raw[i] = traceOf(id, "INVITE x SIP/2.0", "b", 2500)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tr.record(TraceMessage{At: now, Sent: true, Raw: raw[i%len(raw)]})
		i++
	}
}
