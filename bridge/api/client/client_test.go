package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sparkle/bridge"
	"sparkle/bridge/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// say answers every request alike and notes what was asked.
type say struct {
	status int
	ctype  string
	body   string
	header http.Header
	asked  *http.Request
	sent   string
}

func (s *say) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.asked, s.sent = r, string(b)
	for k, v := range s.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", s.ctype)
	w.WriteHeader(s.status)
	io.WriteString(w, s.body)
}

func start(t *testing.T, h http.Handler, key string) *Client {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = api.NewHTTPServer(h, slog.New(slog.DiscardHandler))
	ts.Start()
	t.Cleanup(ts.Close)
	c, err := New(ts.URL, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestRequests(t *testing.T) {
	s := &say{status: 200, ctype: "application/json", body: `{"items":[],"results":[]}`}
	c := start(t, s, "spk_x")
	ctx := t.Context()
	muted := true
	for _, tt := range []struct {
		do         func() error
		want, sent string
	}{
		{func() error { _, err := c.CreateConference(ctx, "Monday", "video"); return err }, "POST /v1/conferences", `{"name":"Monday","type":"video"}`},
		{func() error { _, err := c.Conferences(ctx); return err }, "GET /v1/conferences?limit=200", ""},
		{func() error { _, err := c.Conference(ctx, "a/b"); return err }, "GET /v1/conferences/a%2Fb", ""},
		{func() error { _, err := c.RenameConference(ctx, "c", "n"); return err }, "PATCH /v1/conferences/c", `{"name":"n"}`},
		{func() error { return c.DeleteConference(ctx, "c") }, "DELETE /v1/conferences/c", ""},
		{func() error { _, err := c.AddMember(ctx, "c", bridge.MemberSpec{Number: "+1"}); return err }, "POST /v1/conferences/c/members", `{"number":"+1"}`},
		{func() error {
			_, err := c.AddMembers(ctx, "c", []bridge.MemberSpec{{Number: "+1", Name: "n", Role: "host"}})
			return err
		}, "POST /v1/conferences/c/members", `[{"name":"n","number":"+1","role":"host"}]`},
		{func() error { _, err := c.Members(ctx, "c"); return err }, "GET /v1/conferences/c/members", ""},
		{func() error { _, err := c.Member(ctx, "c", "m"); return err }, "GET /v1/conferences/c/members/m", ""},
		{func() error { _, err := c.UpdateMember(ctx, "c", "m", api.MemberPatch{Muted: &muted}); return err }, "PATCH /v1/conferences/c/members/m", `{"muted":true}`},
		{func() error { return c.RemoveMember(ctx, "c", "m") }, "DELETE /v1/conferences/c/members/m", ""},
		{func() error {
			_, err := c.Call(ctx, "c", bridge.CallRequest{Targets: "all", Media: "audio", RingTimeout: 45e9})
			return err
		}, "POST /v1/conferences/c/calls", `{"media":"audio","ring_timeout_s":45,"targets":"all"}`},
		{func() error { _, err := c.Call(ctx, "c", bridge.CallRequest{Members: []string{"m"}}); return err }, "POST /v1/conferences/c/calls", `{"targets":["m"]}`},
		{func() error { return c.Hangup(ctx, "c", "m") }, "DELETE /v1/conferences/c/members/m/leg", ""},
		{func() error { return c.HangupAll(ctx, "c") }, "POST /v1/conferences/c/hangup", ""},
		{func() error {
			return c.SetWhisper(ctx, "c", bridge.WhisperSpec{From: "console", To: []string{"m"}, Mode: "coach"})
		}, "PUT /v1/conferences/c/whisper", `{"from":"console","to":["m"],"mode":"coach"}`},
		{func() error { return c.EndWhisper(ctx, "c") }, "DELETE /v1/conferences/c/whisper", ""},
		{func() error { _, err := c.Legs(ctx, "c", "m"); return err }, "GET /v1/conferences/c/members/m/legs?limit=200", ""},
		{func() error { _, err := c.Preview(ctx, "c"); return err }, "GET /v1/conferences/c/preview.jpg", ""},
		{func() error { _, err := c.Attachments(ctx); return err }, "GET /v1/attachments", ""},
		{func() error { return c.Register(ctx, "a b") }, "POST /v1/attachments/a%20b/register", ""},
		{func() error { _, err := c.WhoAmI(ctx); return err }, "GET /v1/sessions", ""},
		{func() error { return c.Logout(ctx) }, "DELETE /v1/sessions", ""},
		{func() error { return c.Ready(ctx) }, "GET /readyz", ""},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.want, err)
			continue
		}
		if got := s.asked.Method + " " + s.asked.URL.RequestURI(); got != tt.want || s.sent != tt.sent {
			t.Errorf("got %s %s\nwant %s %s", got, s.sent, tt.want, tt.sent)
		}
		if s.asked.Header.Get("Authorization") != "Bearer spk_x" && tt.want != "GET /readyz" {
			t.Errorf("%s: no key", tt.want)
		}
	}
}

func TestProblemsAreErrors(t *testing.T) {
	s := &say{status: 409, ctype: "application/problem+json", body: `{"type":"urn:x","title":"Conflict","status":409,"code":"member_exists","detail":"is there"}`}
	c := start(t, s, "k")
	_, err := c.Members(t.Context(), "c")
	var e *Error
	if Code(err) != "member_exists" || !errors.As(err, &e) || e.Status != 409 || !strings.Contains(err.Error(), "is there") {
		t.Errorf("got %v", err)
	}
	s.status, s.ctype, s.body = 502, "text/html", "<h1>proxy</h1>"
	if _, err := c.Members(t.Context(), "c"); Code(err) != "http_502" {
		t.Errorf("got %v", err)
	}
	s.status, s.ctype, s.body = 200, "application/json", `{"items":`
	if _, err := c.Members(t.Context(), "c"); err == nil || Code(err) != "" {
		t.Errorf("half an answer: %v", err)
	}
	s.status, s.header = 302, http.Header{"Location": {"http://127.0.0.1:1/"}}
	if _, err := c.Members(t.Context(), "c"); Code(err) != "http_302" {
		t.Errorf("a key must not follow a redirect: %v", err)
	}
	s.status, s.body, s.ctype = 503, `{"status":"not_ready","checks":{"ims":"auth_failed"}}`, "application/json"
	if err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "auth_failed") {
		t.Errorf("ready: %v", err)
	}
}

func TestLoginKeepsTheCookie(t *testing.T) {
	s := &say{status: 201, ctype: "application/json", body: `{"account":"acct_1","role":"admin"}`, header: http.Header{"Set-Cookie": {api.CookieName + "=tok; Path=/; HttpOnly; Secure"}}}
	c := start(t, s, "")
	if who, err := c.Login(t.Context(), "admin", "p"); err != nil || who.Account != "acct_1" {
		t.Fatalf("%+v, %v", who, err)
	}
	if _, err := c.Members(t.Context(), "c"); err != nil || s.asked.Header.Get("Cookie") != api.CookieName+"=tok" {
		t.Errorf("cookie %q, %v", s.asked.Header.Get("Cookie"), err)
	}
	s.header = nil
	if _, err := c.Login(t.Context(), "admin", "p"); err == nil {
		t.Error("a login without a cookie is no login")
	}
}

func TestPagesAreFollowed(t *testing.T) {
	var asked []string
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		next := map[string]string{"": "b", "b": "c"}[r.URL.Query().Get("cursor")]
		body := `{"items":[{"id":"x"}]`
		if next != "" {
			body += `,"next_cursor":"` + next + `"`
		}
		io.WriteString(w, body+"}")
	}), "k")
	all, err := c.Conferences(t.Context())
	if err != nil || len(all) != 3 || strings.Join(asked, " ") != "limit=200 cursor=b&limit=200 cursor=c&limit=200" {
		t.Errorf("%d items by %q, %v", len(all), asked, err)
	}
}

func TestEventStream(t *testing.T) {
	hold := make(chan struct{})
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "retry: 2000\n\n: beat\n\nid: e1\nevent: snapshot\ndata: {\"id\":\"e1\",\"type\":\"snapshot\",\ndata: \"data\":{}}\n\n")
		io.WriteString(w, "data: {\"id\":\""+r.Header.Get("Last-Event-ID")+"\",\"conference_id\":\""+r.URL.Query().Get("conference")+"\"}\n\n")
		http.NewResponseController(w).Flush()
		if r.URL.Query().Get("conference") == "held" {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	}), "k")
	s, err := c.Events(t.Context(), "c", "e9")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if e, err := s.Next(); err != nil || e.ID != "e1" || e.Type != "snapshot" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := s.Next(); err != nil || e.ID != "e9" || e.Conference != "c" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := s.Next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	// Close ends a Next that waits.
	defer close(hold)
	held, err := c.Events(t.Context(), "held", "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := held.Next(); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error)
	go func() { _, err := held.Next(); ended <- err }()
	held.Close()
	if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNewRefusesOddAddresses(t *testing.T) {
	for _, base := range []string{"", "localhost:80", "ftp://a", "http://", "://"} {
		if _, err := New(base, ""); err == nil {
			t.Errorf("%q was taken", base)
		}
	}
}
