package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sparkle/bridge"
)

const anyConf = `{"name":"a","type":"video"}`

func TestIdempotencyKey(t *testing.T) {
	h := newHouse(t)
	post := func(as, key, body string) answer {
		return h.ask(t, as, "POST", "/v1/conferences", body, "Idempotency-Key", key)
	}
	first := post("admin", "k1", anyConf)
	again := post("admin", "k1", anyConf)
	if first.status != 201 || again.status != 201 || !bytes.Equal(first.body, again.body) || h.created != 1 ||
		again.header.Get("Location") != first.header.Get("Location") || again.header.Get("Content-Type") != "application/json" ||
		again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%d %s\n%d %s %v, %d made", first.status, first.body, again.status, again.body, again.header, h.created)
	}
	if a := post("admin", "k1", `{"name":"b","type":"video"}`); a.status != 422 || a.problem(t).Code != "idempotency_key_reused" {
		t.Errorf("another body: %d %s", a.status, a.body)
	}
	if a := post("organiser", "k1", anyConf); a.status != 201 || h.created != 2 {
		t.Errorf("another account's key is another key: %d", a.status)
	}
	if a := post("admin", "k2", anyConf); a.status != 201 || h.created != 3 {
		t.Errorf("another key: %d", a.status)
	}
	h.err = &bridge.Error{Kind: bridge.Unavailable, Code: "media_down"}
	if a := post("admin", "k3", anyConf); a.status != 503 {
		t.Errorf("%d", a.status)
	}
	h.err = &bridge.Error{Kind: bridge.Conflict, Code: "x"}
	if a := post("admin", "k3", anyConf); a.status != 409 {
		t.Errorf("a 503 is not kept: %d", a.status)
	}
	h.err = nil
	if a := post("admin", "k3", anyConf); a.status != 409 || a.header.Get("Idempotency-Replayed") == "" {
		t.Errorf("a 409 is: %d", a.status)
	}
}

func TestIdempotencyInProgress(t *testing.T) {
	h := newHouse(t)
	h.block, h.entered = make(chan struct{}), make(chan struct{})
	done := make(chan answer)
	go func() { done <- h.ask(t, "admin", "POST", "/v1/conferences", anyConf, "Idempotency-Key", "k") }()
	<-h.entered
	if a := h.ask(t, "admin", "POST", "/v1/conferences", anyConf, "Idempotency-Key", "k"); a.status != 409 || a.problem(t).Code != "idempotency_in_progress" {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(h.block)
	if a := <-done; a.status != 201 {
		t.Errorf("%d", a.status)
	}
}

func TestIdempotencyForgets(t *testing.T) {
	m := newIdempotency()
	enter := func(i int, now time.Time, size int) {
		e := &idemEntry{key: idemKey{"a", "/", fmt.Sprint(i)}, at: now}
		if _, err := m.begin(e); err != nil {
			t.Fatal(err)
		}
		w := &tee{ResponseWriter: &sinkWriter{}, status: 201}
		w.body.Write(make([]byte, size))
		m.end(e, w, true)
	}
	now := time.Now()
	for i := range idemMax + 100 {
		enter(i, now, 10)
	}
	if m.order.Len() != idemMax || len(m.byKey) != idemMax || m.bytes != 10*idemMax {
		t.Errorf("%d entries, %d keys, %d bytes", m.order.Len(), len(m.byKey), m.bytes)
	}
	for i := range 40 {
		enter(1_000_000+i, now, 1<<20)
	}
	if m.bytes > idemBytes {
		t.Errorf("%d bytes kept", m.bytes)
	}
	enter(2_000_000, now.Add(idemTTL), 1)
	if m.order.Len() != 1 || m.bytes != 1 {
		t.Errorf("a day later: %d entries, %d bytes", m.order.Len(), m.bytes)
	}
}

type sinkWriter struct{ sink }

func (*sinkWriter) Header() http.Header { return http.Header{} }

// stream opens the event stream and returns its lines.
func (h *house) stream(t testing.TB, header ...string) (*bufio.Scanner, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", h.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := h.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return bufio.NewScanner(res.Body), res
}

func message(t testing.TB, s *bufio.Scanner) string {
	t.Helper()
	var lines []string
	for s.Scan() {
		if s.Text() == "" {
			break
		}
		lines = append(lines, s.Text())
	}
	return strings.Join(lines, "\n")
}

func TestEvents(t *testing.T) {
	h := newHouse(t)
	s, _ := h.stream(t, "Authorization", "Bearer "+h.keys["admin"])
	if m := message(t, s); m != "retry: 2000" {
		t.Errorf("first %q", m)
	}
	if m := message(t, s); !strings.HasPrefix(m, "id: e0\nevent: snapshot\ndata: {\"id\":\"e0\"") {
		t.Errorf("snapshot %q", m)
	}
	h.events <- bridge.Event{ID: "e7", Seq: 7, Time: at, Type: "member.updated", Conference: "conf_001", Member: "mbr_001", Data: []byte("{\"name\":\"a\\nid: x\"}")}
	want := "id: e7\nevent: member.updated\n" +
		`data: {"id":"e7","seq":7,"time":"2026-11-23T21:00:00Z","type":"member.updated","conference_id":"conf_001","member_id":"mbr_001","data":{"name":"a\nid: x"}}`
	if m := message(t, s); m != want {
		t.Errorf("got  %q\nwant %q", m, want)
	}
	h.stream(t, "Authorization", "Bearer "+h.keys["admin"], "Last-Event-ID", "e7")
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.after) != 2 || h.after[0] != "" || h.after[1] != "e7" {
		t.Errorf("resumed after %q", h.after)
	}
}

// The stream ends with its session, with the bridge's subscription (slow reader) and
// with the server; each time the subscription is given back.
func TestEventsEnd(t *testing.T) {
	for name, end := range map[string]func(h *house, cookie string){
		"logout": func(h *house, cookie string) { h.ask(t, "", "DELETE", "/v1/sessions", "", "Cookie", cookie) },
		"slow":   func(h *house, _ string) { close(h.events) },
		"password": func(h *house, _ string) {
			if err := h.accounts.SetPassword(context.Background(), "admin", "another one"); err != nil {
				t.Error(err)
			}
		},
		"shutdown": func(h *house, _ string) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := h.server.Shutdown(ctx); err != nil {
				t.Errorf("shutdown with a stream open: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			cookie := h.login(t, "admin")
			s, _ := h.stream(t, "Cookie", cookie)
			message(t, s)
			message(t, s)
			end(h, cookie)
			if s.Scan() {
				t.Errorf("after the end: %q", s.Text())
			}
			<-h.closed
		})
	}
}

// A session that runs out ends its stream at the next heartbeat; until then there is
// a comment each 15 seconds. On virtual time, without sockets.
func TestEventsBeatAndExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, f := newAccounts(t), newFake()
		if _, err := a.Create(t.Context(), "wang", password, "organiser"); err != nil {
			t.Fatal(err)
		}
		handler, err := NewHandler(Deps{Service: f, Accounts: a, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		token, p, err := a.Login(t.Context(), "wang", password, "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://conf.example/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(&http.Cookie{Name: CookieName, Value: token})
		w := &flushed{header: http.Header{}}
		start := time.Now()
		handler.ServeHTTP(w, r)
		if took := time.Since(start); took < p.Expires.Sub(start) || took > p.Expires.Sub(start)+heartbeat {
			t.Errorf("ended after %v, the session after %v", took, p.Expires.Sub(start))
		}
		if beats, want := strings.Count(w.body.String(), ": beat\n\n"), int(12*time.Hour/heartbeat)-1; beats != want {
			t.Errorf("%d beats, want %d", beats, want)
		}
		<-f.closed
	})
}

type flushed struct {
	header http.Header
	body   bytes.Buffer
}

func (w *flushed) Header() http.Header         { return w.header }
func (w *flushed) Write(b []byte) (int, error) { return w.body.Write(b) }
func (w *flushed) WriteHeader(int)             {}
func (w *flushed) Flush()                      {}

// Who does not read is dropped: the write deadline ends it, and others go on.
func TestEventsStuckReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, f := newAccounts(t), newFake()
		if _, err := a.Create(t.Context(), "admin", password, "admin"); err != nil {
			t.Fatal(err)
		}
		key, err := a.NewAPIKey(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		handler, err := NewHandler(Deps{Service: f, Accounts: a, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe() // takes nothing that is not read
		l := &oneListener{c: make(chan net.Conn, 1), done: make(chan struct{})}
		l.c <- server
		srv := NewHTTPServer(handler, slog.New(slog.DiscardHandler))
		go srv.Serve(l)
		fmt.Fprintf(client, "GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", key)
		start := time.Now()
		<-f.closed
		if took := time.Since(start); took != writeLimit {
			t.Errorf("dropped after %v, want %v", took, writeLimit)
		}
		client.Close()
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type oneListener struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// Slow-loris: headers that never end cost a connection for five seconds, a body that
// never ends for thirty. Virtual time over an in-memory connection.
func TestSlowClientsAreClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		send string
		want time.Duration
	}{
		"headers": {"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: ", 5 * time.Second},
		"body":    {"POST /v1/conferences HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer KEY\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{", 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, f := newAccounts(t), newFake()
				if _, err := a.Create(t.Context(), "admin", password, "admin"); err != nil {
					t.Fatal(err)
				}
				key, err := a.NewAPIKey(t.Context(), "x")
				if err != nil {
					t.Fatal(err)
				}
				handler, err := NewHandler(Deps{Service: f, Accounts: a, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				client, server := net.Pipe()
				l := &oneListener{c: make(chan net.Conn, 1), done: make(chan struct{})}
				l.c <- server
				srv := NewHTTPServer(handler, slog.New(slog.DiscardHandler))
				go srv.Serve(l)
				start := time.Now()
				io.WriteString(client, strings.Replace(tt.send, "KEY", key, 1))
				io.Copy(io.Discard, client) // until the server closes it
				if took := time.Since(start); took > tt.want+time.Second || took < tt.want {
					t.Errorf("closed after %v, want %v", took, tt.want)
				}
				client.Close()
				srv.Close()
			})
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	h := newHouse(t)
	a := h.ask(t, "", "GET", "/livez", "", "X-Big", strings.Repeat("x", 100<<10))
	if a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", a.status)
	}
}

// The committed server code is what the contract gives.
func TestGeneratedCodeIsFresh(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the generator")
	}
	want, err := os.ReadFile("server.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile("oapi-codegen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	toStdout := filepath.Join(t.TempDir(), "conf.yaml")
	if err := os.WriteFile(toStdout, bytes.Replace(conf, []byte("output: server.gen.go\n"), nil, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.CommandContext(t.Context(), "go", "tool", "oapi-codegen", "-config", toStdout, "openapi.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("server.gen.go is not what openapi.yaml gives: go generate ./bridge/api")
	}
}

// Whatever the body, the answer is a clear one and the fault is never ours.
func FuzzBody(f *testing.F) {
	for _, s := range []string{anyConf, `{"number":"+861"}`, `[{"number":"+861"}]`, `{"targets":["a"]}`, `{"targets":"all","ring_timeout_s":5}`,
		`{"from":"console","to":["m"],"mode":"coach"}`, `{"muted":true}`, `[[[[`, `"\ud800"`, `{"name":1e999}`, `nul`, ``, `{"a":{"b":[{}]}}`, `{"~1/":0}`} {
		f.Add([]byte(s))
	}
	ops, err := operations()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for route, op := range ops {
			if op.body == nil {
				continue
			}
			if err := checkJSON(op.body, b); err != nil {
				if p := problemOf(err); p.status != 400 && p.status != 422 || p.code == "" || p.detail == "" {
					t.Errorf("%s: %+v", route, p)
				}
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{anyConf, `{"number":"+861"}`, `[{"number":"+861"},{"number":"x"}]`, `{"targets":["a"]}`, `{"targets":"all","ring_timeout_s":5e0}`, `{"name":null}`} {
		f.Add("/v1/conferences/conf_001/calls", []byte(s))
		f.Add("/v1/conferences/conf_001/members", []byte(s))
		f.Add("/v1/../v1//conferences", []byte(s))
	}
	h := newHouse(f)
	h.seed(f, "admin")
	f.Fuzz(func(t *testing.T, path string, b []byte) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://a", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = "/" + strings.TrimPrefix(path, "/")
		r.RemoteAddr = "192.0.2.1:1"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+h.keys["organiser"])
		if strings.HasPrefix(r.URL.Path, "/v1/sessions") {
			return // wrong passwords wait
		}
		w := &status{}
		h.server.Handler.ServeHTTP(w, r)
		if w.code >= 500 || w.code == 0 {
			t.Errorf("%q: %d", path, w.code)
		}
	})
}

type status struct {
	h    http.Header
	code int
}

func (w *status) Header() http.Header {
	if w.h == nil {
		w.h = http.Header{}
	}
	return w.h
}
func (w *status) Write(b []byte) (int, error) { return len(b), nil }
func (w *status) WriteHeader(c int)           { w.code = c }
