package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"sparkle/bridge"
)

// Stream is one connection to the event stream. Not safe for concurrent use.
type Stream struct {
	body   io.ReadCloser
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// Events opens the stream of one conference, or with "" of all the caller may see.
// after resumes behind that event id; "" begins with a snapshot. The caller closes it.
func (c *Client) Events(ctx context.Context, conference, after string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	q := url.Values{}
	if conference != "" {
		q.Set("conference", conference)
	}
	h := http.Header{"Accept": {"text/event-stream"}}
	if after != "" {
		h.Set("Last-Event-ID", after)
	}
	res, err := c.send(ctx, "GET", "/v1/events?"+q.Encode(), nil, h)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Stream{body: res.Body, lines: bufio.NewScanner(res.Body), cancel: cancel}
	s.lines.Buffer(make([]byte, 64<<10), maxAnswer) // a snapshot of many big rosters is one line
	return s, nil
}

// Next waits for an event. io.EOF: the server ended the stream, connect again with
// the last id.
func (s *Stream) Next() (e bridge.Event, err error) {
	var data strings.Builder
	for s.lines.Scan() {
		line := s.lines.Text()
		switch {
		case line == "" && data.Len() > 0:
			if err := json.Unmarshal([]byte(data.String()), &e); err != nil {
				return e, fmt.Errorf("event: %w", err)
			}
			return e, nil
		case strings.HasPrefix(line, "data:"):
			if data.Len() > 0 {
				data.WriteByte('\n')
			}
			data.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "data:"), " "))
		}
	}
	if err := s.lines.Err(); err != nil {
		return e, fmt.Errorf("event stream: %w", err)
	}
	return e, io.EOF
}

// Close ends the stream; a Next that waits returns an error.
func (s *Stream) Close() error {
	s.cancel()
	return s.body.Close()
}
