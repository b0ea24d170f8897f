package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sparkle/bridge"
)

const (
	heartbeat = 15 * time.Second
	// writeLimit: a reader that takes none of an event for so long is gone; its
	// queue in the bridge is bounded and its stream ends there, too.
	writeLimit = 10 * time.Second
)

// events is the stream GET /v1/events (server-sent events, HTML §9.2).
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = r.URL.Query().Get("last_event_id")
	}
	conference := r.URL.Query().Get("conference")
	if len(after) > 128 || strings.ContainsAny(after, "\r\n\x00") || len(conference) > 64 {
		s.error(w, r, fail(http.StatusBadRequest, "parameter_invalid", "last event id or conference is too long"))
		return
	}
	p := *callOf(ctx).principal
	gone, stop := s.Accounts.Watch(p)
	defer stop()
	sub, err := s.Service.Subscribe(ctx, actor(ctx), conference, after)
	if err != nil {
		s.error(w, r, err)
		return
	}
	defer sub.Close()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // the server's own limits are for requests that end
	send := func(text string) bool {
		rc.SetWriteDeadline(time.Now().Add(writeLimit)) // without deadlines (a test's recorder) the write just is not limited
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	if r.Method == http.MethodHead {
		return
	}
	if !send("retry: 2000\n\n") {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-sub.C:
			if !ok || !send(format(e)) {
				return
			}
		case <-beat.C:
			if !s.valid(ctx, p) || !send(": beat\n\n") {
				return
			}
		case <-gone:
			return
		case <-stopping(ctx):
			return
		case <-ctx.Done():
			return
		}
	}
}

// format is one message. JSON has no raw line breaks, so data is one line.
func format(e bridge.Event) string {
	if len(e.Data) == 0 {
		e.Data = json.RawMessage("{}")
	}
	b, err := json.Marshal(e)
	if err != nil { // Data is not JSON
		panic(fmt.Sprintf("event %s of type %s cannot be encoded: %v", e.ID, e.Type, err))
	}
	if e.ID == "" {
		return fmt.Sprintf("event: %s\ndata: %s\n\n", e.Type, b)
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, b)
}
