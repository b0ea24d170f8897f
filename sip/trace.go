package sip

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// TraceMessage is a message as it was on the wire: every one, repeats, 100s and the ACKs
// of refusals too.
type TraceMessage struct {
	At            time.Time
	Sent          bool
	Transport     string // UDP, TCP, TLS
	Local, Remote string // ip:port
	Raw           []byte // not to be changed; numbers are in it
}

// Trace returns the messages of a call by its Call-ID, live or ended within traceKeep, in
// order, and how many in their middle were dropped for want of room. They are in memory
// only.
func (ua *UA) Trace(callID string) (messages []TraceMessage, dropped int) {
	return ua.traces.of(callID)
}

// What the record may take. A call with re-INVITEs for hours keeps its beginning and its
// end; when all calls together have too much, the one that began first goes, ended ones
// before live ones.
const (
	traceKeep     = time.Hour // after the end
	traceMessages = 200       // of one call
	traceFirst    = 60        // of these, from its beginning
	traceBytes    = 256 << 10 // of one call
	traceTotal    = 32 << 20
	traceCalls    = 5000
	traceUnknown  = 64 // messages of calls that are not known yet
)

// traces is the record of the UA's calls.
type traces struct {
	mu      sync.Mutex
	calls   map[string]*traced
	order   []string // Call-IDs as they began
	bytes   int
	unknown []unknownMessage // newest last
}

type traced struct {
	messages []TraceMessage
	bytes    int
	dropped  int
	ended    time.Time // zero: live
}

type unknownMessage struct {
	callID string
	TraceMessage
}

func newTraces() *traces { return &traces{calls: map[string]*traced{}} }

// begin starts the record of a call with what has been seen of it: its INVITE came before
// it was a call.
func (t *traces) begin(callID string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if c := t.calls[callID]; c != nil {
		c.ended = time.Time{}
		return
	}
	t.calls[callID] = &traced{}
	t.order = append(t.order, callID)
	for len(t.order) > traceCalls && t.evict(callID) {
	}
	t.unknown = slices.DeleteFunc(t.unknown, func(u unknownMessage) bool {
		if u.callID == callID {
			t.add(callID, u.TraceMessage)
		}
		return u.callID == callID
	})
}

// end says that a call is over: its record may go after traceKeep.
func (t *traces) end(callID string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.calls[callID]; c != nil {
		c.ended = now
	}
}

func (t *traces) record(m TraceMessage) {
	callID := callIDOf(m.Raw)
	if callID == "" {
		return
	}
	m.Raw = bytes.Clone(m.Raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls[callID] != nil {
		t.add(callID, m)
		return
	}
	if len(t.unknown) == traceUnknown {
		t.unknown = slices.Delete(t.unknown, 0, 1)
	}
	t.unknown = append(t.unknown, unknownMessage{callID, m})
}

func (t *traces) add(callID string, m TraceMessage) {
	c := t.calls[callID]
	c.messages = append(c.messages, m)
	c.overtaken()
	c.bytes += len(m.Raw)
	t.bytes += len(m.Raw)
	for len(c.messages) > 1 && (len(c.messages) > traceMessages || c.bytes > traceBytes) {
		i := min(traceFirst, len(c.messages)/2)
		gone := len(c.messages[i].Raw)
		c.messages = slices.Delete(c.messages, i, i+1)
		c.bytes -= gone
		t.bytes -= gone
		c.dropped++
	}
	for t.bytes > traceTotal && t.evict(callID) {
	}
}

// overtaken puts a request of ours before its answer: sipgo tells of a message only when it
// has been written, and a peer next door may have answered by then.
func (c *traced) overtaken() {
	last := len(c.messages) - 1
	m := c.messages[last]
	if !m.Sent || bytes.HasPrefix(m.Raw, []byte("SIP/")) {
		return
	}
	branch, at := topBranch(m.Raw), last
	for i := last - 1; i >= 0 && i >= last-4 && branch != ""; i-- {
		if r := c.messages[i]; !r.Sent && bytes.HasPrefix(r.Raw, []byte("SIP/")) && topBranch(r.Raw) == branch {
			at = i
		}
	}
	if at < last && !bytes.HasPrefix(m.Raw, []byte("ACK ")) && !bytes.HasPrefix(m.Raw, []byte("CANCEL ")) {
		m.At = c.messages[at].At
		c.messages = slices.Insert(slices.Delete(c.messages, last, last+1), at, m)
	}
}

// topBranch is the branch of a message's first Via, "" if it has none.
func topBranch(raw []byte) string {
	for line := range bytes.Lines(raw) {
		name, v, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if name = bytes.TrimSpace(name); !ok || !bytes.EqualFold(name, []byte("Via")) && !bytes.EqualFold(name, []byte("v")) {
			continue
		}
		_, v, _ = bytes.Cut(v, []byte("branch="))
		if end := bytes.IndexAny(v, ";, \t"); end >= 0 {
			v = v[:end]
		}
		return string(v)
	}
	return ""
}

// evict drops the oldest record that is not keep's.
func (t *traces) evict(keep string) bool {
	pick := -1
	for i, id := range t.order {
		if id == keep {
			continue
		}
		if pick < 0 {
			pick = i
		}
		if !t.calls[id].ended.IsZero() {
			pick = i
			break
		}
	}
	if pick < 0 {
		return false
	}
	t.drop(pick)
	return true
}

func (t *traces) drop(i int) {
	id := t.order[i]
	t.bytes -= t.calls[id].bytes
	delete(t.calls, id)
	t.order = slices.Delete(t.order, i, i+1)
}

func (t *traces) expire(now time.Time) {
	for i := 0; i < len(t.order); {
		if end := t.calls[t.order[i]].ended; !end.IsZero() && now.Sub(end) > traceKeep {
			t.drop(i)
			continue
		}
		i++
	}
}

func (t *traces) of(callID string) ([]TraceMessage, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.calls[callID]
	if c == nil {
		return nil, 0
	}
	return slices.Clone(c.messages), c.dropped
}

// received is what passed the front door.
func (t *traces) received(info sipgo.TransportReadProps, data []byte) {
	t.record(TraceMessage{At: time.Now(), Transport: upper(info.Transport), Local: addr(info.LocalAddr), Remote: addr(info.RemoteAddr), Raw: data})
}

// replied is what the front door answered by itself.
func (t *traces) replied(info sipgo.TransportReadProps, data []byte) {
	t.record(TraceMessage{At: time.Now(), Sent: true, Transport: upper(info.Transport), Local: addr(info.LocalAddr), Remote: addr(info.RemoteAddr), Raw: data})
}

func addr(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func upper(s string) string { return string(bytes.ToUpper([]byte(s))) }

// callIDOf finds the Call-ID in a message's bytes; "" if there is none.
func callIDOf(raw []byte) string {
	for line := range bytes.Lines(raw) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return ""
		}
		name, v, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		if name = bytes.TrimRight(name, " \t"); bytes.EqualFold(name, []byte("Call-ID")) || bytes.EqualFold(name, []byte("i")) {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}

// wire hears what sipgo writes, which is the process's and not a UA's: everybody's records
// are asked. A Call-ID is unique in the world.
var wire tap

type tap struct {
	mu  sync.RWMutex
	all []*traces
}

func (w *tap) join(t *traces) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, t)
}

func (w *tap) leave(t *traces) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = slices.DeleteFunc(w.all, func(x *traces) bool { return x == t })
}

// SIPTraceRead implements sipgo's tracer. What is read is recorded behind the front door.
func (w *tap) SIPTraceRead(string, string, string, []byte) {}

// SIPTraceWrite implements sipgo's tracer.
func (w *tap) SIPTraceWrite(transport, local, remote string, b []byte) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, t := range w.all {
		t.record(TraceMessage{At: time.Now(), Sent: true, Transport: transport, Local: local, Remote: remote, Raw: b})
	}
}
