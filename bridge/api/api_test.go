package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"sparkle/bridge"
)

// The main job through the API, every answer held against the contract.
func TestMainJob(t *testing.T) {
	h := newHouse(t)
	cookie := h.login(t, "organiser")
	do := func(method, path, body string, want int) answer {
		t.Helper()
		a := h.ask(t, "", method, path, body, "Cookie", cookie)
		if a.status != want {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, want, a.body)
		}
		return a
	}
	if a := do("POST", "/v1/conferences", `{"name":"Monday","type":"video"}`, 201); a.header.Get("Location") != "/v1/conferences/conf_001" {
		t.Errorf("Location %q", a.header.Get("Location"))
	}
	if a := do("POST", "/v1/conferences/conf_001/members", `{"number":"+8613800138001","name":"王芳","role":"host"}`, 201); !strings.Contains(string(a.body), `"leg":null`) {
		t.Errorf("one member: %s", a.body)
	}
	var rows MemberResults
	a := do("POST", "/v1/conferences/conf_001/members", `[{"number":"+8613800138002"},{"number":"abc"},{"number":"+8613800138001"}]`, 201)
	if err := json.Unmarshal(a.body, &rows); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		status int
		code   string
	}{{201, ""}, {422, "number_invalid"}, {409, "member_exists"}} {
		r := rows.Results[i]
		if r.Status != want.status || (r.Error == nil) != (want.code == "") || (r.Member == nil) != (want.code != "") || r.Error != nil && r.Error.Code != want.code {
			t.Errorf("row %d: %+v, want %+v", i, r, want)
		}
	}
	if a := do("POST", "/v1/conferences/conf_001/calls", `{"targets":"all","media":"audio","ring_timeout_s":45}`, 202); !strings.Contains(string(a.body), `"outcome":null`) {
		t.Errorf("a live leg's outcome is not null: %s", a.body)
	}
	if r := h.calls[0]; r.Targets != "all" || r.Media != "audio" || r.RingTimeout.Seconds() != 45 {
		t.Errorf("the bridge was asked %+v", r)
	}
	do("POST", "/v1/conferences/conf_001/calls", `{"targets":["mbr_001"]}`, 202)
	if r := h.calls[1]; r.Targets != "" || len(r.Members) != 1 || r.Members[0] != "mbr_001" {
		t.Errorf("the bridge was asked %+v", r)
	}
	do("GET", "/v1/conferences/conf_001/members", "", 200)
	do("PATCH", "/v1/conferences/conf_001/members/mbr_001", `{"muted":true}`, 200)
	if a := do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{"media":"video"}`, 202); !strings.Contains(string(a.body), `"media_change":{"to":"video","state":"asking"`) {
		t.Errorf("asked for video: %s", a.body)
	}
	if a := do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{"media":"video"}`, 429); a.header.Get("Retry-After") != "42" || !strings.Contains(string(a.body), `"code":"upgrade_too_soon"`) {
		t.Errorf("asked again: Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
	}
	do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{"media":"audio"}`, 202)
	do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{"media":"smoke"}`, 422)
	do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{}`, 422)
	do("DELETE", "/v1/conferences/conf_001/members/mbr_001/leg", "", 204)
	do("PATCH", "/v1/conferences/conf_001/members/mbr_001/leg", `{"media":"video"}`, 409)
	if a := do("GET", "/v1/conferences/conf_001/members/mbr_001", "", 200); !strings.Contains(string(a.body), `"last_outcome":{"outcome":"cancelled"`) {
		t.Errorf("after hang-up: %s", a.body)
	}
	do("PUT", "/v1/conferences/conf_001/whisper", `{"from":"console","to":["mbr_001"],"mode":"coach"}`, 200)
	do("DELETE", "/v1/conferences/conf_001/whisper", "", 204)
	do("POST", "/v1/conferences/conf_001/hangup", "", 204)
	do("PATCH", "/v1/conferences/conf_001", `{"name":"Tuesday"}`, 200)
	do("DELETE", "/v1/conferences/conf_001/members/mbr_002", "", 204)
	if a := do("GET", "/v1/attachments", "", 200); strings.Contains(string(a.body), "13800138000") || !strings.Contains(string(a.body), `"name":"ims"`) {
		t.Errorf("attachments: %s", a.body)
	}
	do("POST", "/v1/attachments/ims/register", "", 403) // an administrator's
	do("GET", "/v1/sessions", "", 200)
	do("DELETE", "/v1/conferences/conf_001", "", 204)
	do("GET", "/v1/conferences/conf_001", "", 404)
	do("DELETE", "/v1/sessions", "", 204)
	do("GET", "/v1/sessions", "", 401)
}

// The shape of the answers that programs outside rely on, byte for byte.
func TestGoldenAnswers(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	h.ask(t, "admin", "POST", "/v1/conferences/conf_001/calls", `{"targets":"all"}`)
	h.ask(t, "admin", "DELETE", "/v1/conferences/conf_001/members/mbr_002/leg", "")
	for _, tt := range []struct{ file, path string }{
		{"members.json", "/v1/conferences/conf_001/members"},
		{"attachments.json", "/v1/attachments"},
		{"not_found.json", "/v1/conferences/nope"},
	} {
		a := h.ask(t, "admin", "GET", tt.path, "", "X-Request-Id", "golden")
		var v any
		if err := json.Unmarshal(a.body, &v); err != nil {
			t.Fatal(err)
		}
		got, _ := json.MarshalIndent(v, "", "  ")
		got = append(got, '\n')
		name := "testdata/" + tt.file
		if os.Getenv("REWRITE") != "" {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s (REWRITE=1 takes it over):\n%s", tt.path, got)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	big := `{"name":"` + strings.Repeat("x", 1<<20) + `","type":"video"}`
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	many := "[" + strings.Repeat(`{"number":"+861"},`, 500) + `{"number":"+861"}]`
	const c, m = "/v1/conferences", "/v1/conferences/conf_001/members"
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		code, pointer            string
		header                   []string
	}{
		{"not JSON", "POST", c, `{"name":`, 400, "malformed_json", "", nil},
		{"two values", "POST", c, `{"name":"a","type":"video"}{}`, 400, "malformed_json", "", nil},
		{"empty body", "POST", c, "", 400, "malformed_json", "", []string{"Content-Type", "application/json"}},
		{"not UTF-8", "POST", c, "{\"name\":\"\xff\",\"type\":\"video\"}", 400, "malformed_json", "", nil},
		{"too deep", "POST", c, deep, 400, "json_too_deep", "", nil},
		{"too big", "POST", c, big, 413, "body_too_large", "", nil},
		{"form", "POST", c, "name=a", 415, "content_type_unsupported", "", []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"latin1", "POST", c, "{}", 415, "content_type_unsupported", "", []string{"Content-Type", "application/json; charset=latin1"}},
		{"no name", "POST", c, `{"type":"video"}`, 422, "name_required", "/name", nil},
		{"empty name", "POST", c, `{"name":"","type":"video"}`, 422, "name_required", "/name", nil},
		{"odd type", "POST", c, `{"name":"a","type":"opera"}`, 422, "type_invalid", "/type", nil},
		{"no type", "POST", c, `{"name":"a"}`, 422, "type_invalid", "/type", nil},
		{"unknown field", "POST", c, `{"name":"a","type":"video","colour":"red"}`, 422, "field_unknown", "/colour", nil},
		{"an array", "POST", c, `[]`, 422, "request_invalid", "", nil},
		{"null", "POST", c, `null`, 422, "request_invalid", "", nil},
		{"member is text", "POST", m, `"+861"`, 422, "request_invalid", "", nil},
		{"no rows", "POST", m, `[]`, 422, "request_invalid", "", nil},
		{"501 rows", "POST", m, many, 422, "request_invalid", "", nil},
		{"row without number", "POST", m, `[{"number":"+861"},{"name":"x"}]`, 422, "number_invalid", "/1/number", nil},
		{"number is a number", "POST", m, `{"number":861}`, 422, "number_invalid", "/number", nil},
		{"bad number", "POST", m, `{"number":"abc"}`, 422, "number_invalid", "/number", nil},
		{"there already", "POST", m, `{"number":"+8613800138001"}`, 409, "member_exists", "/number", nil},
		{"mute is text", "PATCH", m + "/mbr_001", `{"muted":"yes"}`, 422, "request_invalid", "/muted", nil},
		{"role", "PATCH", m + "/mbr_001", `{"role":"king"}`, 422, "role_invalid", "/role", nil},
		{"targets", "POST", c + "/conf_001/calls", `{"targets":"everyone"}`, 422, "targets_invalid", "/targets", nil},
		{"no targets", "POST", c + "/conf_001/calls", `{}`, 422, "targets_invalid", "/targets", nil},
		{"ring timeout", "POST", c + "/conf_001/calls", `{"targets":"all","ring_timeout_s":1e9}`, 422, "ring_timeout_s_invalid", "/ring_timeout_s", nil},
		{"half a second", "POST", c + "/conf_001/calls", `{"targets":"all","ring_timeout_s":1.5}`, 422, "ring_timeout_s_invalid", "/ring_timeout_s", nil},
		{"whisper to nobody", "PUT", c + "/conf_001/whisper", `{"from":"console","to":[],"mode":"coach"}`, 422, "to_invalid", "/to", nil},
		{"no conference", "GET", c + "/nope", "", 404, "conference_not_found", "", nil},
		{"no member", "GET", m + "/nope", "", 404, "member_not_found", "", nil},
		{"no route", "GET", "/v1/nothing", "", 404, "route_not_found", "", nil},
		{"root file", "GET", "/etc/passwd", "", 404, "route_not_found", "", nil},
		{"wrong method", "PUT", c, `{}`, 405, "method_not_allowed", "", nil},
		{"odd method", "BREW", c, "", 405, "method_not_allowed", "", nil},
		{"limit 0", "GET", c + "?limit=0", "", 400, "parameter_invalid", "", nil},
		{"limit 201", "GET", c + "?limit=201", "", 400, "parameter_invalid", "", nil},
		{"limit text", "GET", c + "?limit=ten", "", 400, "parameter_invalid", "", nil},
		{"long cursor", "GET", c + "?cursor=" + strings.Repeat("x", 300), "", 400, "parameter_invalid", "", nil},
		{"odd key", "POST", c, `{"name":"a","type":"video"}`, 400, "idempotency_key_invalid", "", []string{"Idempotency-Key", "a b"}},
		{"events of nothing", "GET", "/v1/events?conference=nope", "", 404, "conference_not_found", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := h.ask(t, "admin", tt.method, tt.path, tt.body, tt.header...)
			p := a.problem(t)
			if a.status != tt.status || p.Code != tt.code || p.Status != tt.status {
				t.Fatalf("%d %s, want %d %s: %s", a.status, p.Code, tt.status, tt.code, a.body)
			}
			if tt.pointer != "" && (p.Errors == nil || (*p.Errors)[0].Pointer != tt.pointer) {
				t.Errorf("errors %s, want pointer %q", a.body, tt.pointer)
			}
			if deref(p.RequestId) != a.header.Get("X-Request-Id") || deref(p.RequestId) == "" {
				t.Errorf("request id %q in the body, %q in the header", deref(p.RequestId), a.header.Get("X-Request-Id"))
			}
		})
	}
	if a := h.ask(t, "admin", "PUT", c, `{}`); a.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
	if h.created != 1 {
		t.Errorf("%d conferences made by bad requests", h.created-1)
	}
}

func TestErrorsOfTheBridge(t *testing.T) {
	h := newHouse(t)
	for _, tt := range []struct {
		err    error
		status int
		code   string
		retry  bool
	}{
		{&bridge.Error{Kind: bridge.Invalid, Code: "x_invalid"}, 422, "x_invalid", false},
		{&bridge.Error{Kind: bridge.Missing, Code: "x_not_found"}, 404, "x_not_found", false},
		{&bridge.Error{Kind: bridge.Conflict, Code: "x_exists"}, 409, "x_exists", false},
		{&bridge.Error{Kind: bridge.Forbidden, Code: "dial_not_allowed"}, 403, "dial_not_allowed", false},
		{&bridge.Error{Kind: bridge.Unavailable, Code: "media_down"}, 503, "media_down", true},
		{&bridge.Error{Kind: bridge.Full, Code: "storage_full"}, 507, "storage_full", false},
		{&bridge.Error{Kind: bridge.Full, Code: "ports_full"}, 503, "ports_full", true},
		{fmt.Errorf("wrapped: %w", &bridge.Error{Kind: bridge.Conflict, Code: "deep"}), 409, "deep", false},
		{errors.New("secret path /var/lib"), 500, "internal", false},
	} {
		h.err = tt.err
		a := h.ask(t, "admin", "POST", "/v1/conferences", `{"name":"a","type":"video"}`)
		if p := a.problem(t); a.status != tt.status || p.Code != tt.code || (a.header.Get("Retry-After") != "") != tt.retry {
			t.Errorf("%v: %d %s, Retry-After %q", tt.err, a.status, p.Code, a.header.Get("Retry-After"))
		}
		if strings.Contains(string(a.body), "/var/lib") {
			t.Errorf("an internal error leaks: %s", a.body)
		}
	}
}

func TestAllTargetsDownIs503(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	h.down = true
	a := h.ask(t, "admin", "POST", "/v1/conferences/conf_001/calls", `{"targets":"all"}`)
	if p := a.problem(t); a.status != 503 || p.Code != "attachment_down" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	h.down = false
	if a := h.ask(t, "admin", "POST", "/v1/conferences/conf_001/calls", `{"targets":"all"}`); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = h.ask(t, "admin", "POST", "/v1/conferences/conf_001/calls", `{"targets":"all"}`)
	if a.status != 202 || !strings.Contains(string(a.body), "member_in_call") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	h := newHouse(t)
	h.panics = true
	a := h.ask(t, "admin", "POST", "/v1/conferences", `{"name":"a","type":"video"}`, "X-Request-Id", "find-me", "Idempotency-Key", "k")
	if p := a.problem(t); a.status != 500 || p.Code != "internal" || *p.RequestId != "find-me" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h.panics = false
	if a := h.ask(t, "admin", "POST", "/v1/conferences", `{"name":"a","type":"video"}`, "Idempotency-Key", "k"); a.status != 201 {
		t.Errorf("the same again: %d %s", a.status, a.body)
	}
	h.server.Close()
	if log := h.log.String(); !strings.Contains(log, `"request":"find-me"`) || !strings.Contains(log, "told to") {
		t.Errorf("log: %s", log)
	}
}

func TestPages(t *testing.T) {
	h := newHouse(t)
	for range 5 {
		h.ask(t, "admin", "POST", "/v1/conferences", `{"name":"a","type":"audio"}`)
	}
	path, seen := "/v1/conferences?limit=2", 0
	for range 4 {
		a := h.ask(t, "admin", "GET", path, "")
		var p struct {
			Items []bridge.Conference
			Next  string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &p); err != nil {
			t.Fatal(err)
		}
		seen += len(p.Items)
		link := a.header.Get("Link")
		if (link == "") != (p.Next == "") {
			t.Errorf("Link %q, next %q", link, p.Next)
		}
		if link == "" {
			break
		}
		path = strings.TrimPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<")
	}
	if seen != 5 {
		t.Errorf("%d of 5 by following Link", seen)
	}
}

func TestPreviewAndETags(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	a := h.ask(t, "admin", "GET", "/v1/conferences/conf_001/preview.jpg", "")
	if a.status != 200 || a.header.Get("Content-Type") != "image/jpeg" || string(a.body) != string(h.jpeg) ||
		a.header.Get("Cache-Control") != "no-store" || a.header.Get("Last-Modified") == "" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	for _, path := range []string{"/v1/conferences/conf_001/preview.jpg", "/v1/conferences/conf_001"} {
		tag := h.ask(t, "admin", "GET", path, "").header.Get("ETag")
		if a := h.ask(t, "admin", "GET", path, "", "If-None-Match", `"x", W/`+tag); a.status != 304 || len(a.body) != 0 || a.header.Get("ETag") != tag {
			t.Errorf("%s with its tag: %d", path, a.status)
		}
	}
	h.jpeg = []byte("another")
	tag := a.header.Get("ETag")
	if a := h.ask(t, "admin", "GET", "/v1/conferences/conf_001/preview.jpg", "", "If-None-Match", tag); a.status != 200 {
		t.Errorf("a new picture: %d", a.status)
	}
}

func TestHealth(t *testing.T) {
	h := newHouse(t)
	for path, want := range map[string]string{"/livez": `"ok"`, "/readyz": `"ok"`, "/metrics": "up 1", "/openapi.yaml": "openapi: 3.0.3", "/console/x": "pages of /console/x"} {
		if a := h.ask(t, "", "GET", path, ""); a.status != 200 || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %.80s", path, a.status, a.body)
		}
	}
	if a := h.ask(t, "", "GET", "/", ""); a.status != http.StatusFound || a.header.Get("Location") != "/console/" {
		t.Errorf("/: %d %s", a.status, a.header.Get("Location"))
	}
	if a := h.ask(t, "", "GET", "/console/", ""); !strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Error("the console has no CSP")
	}
	if a := h.ask(t, "", "GET", "/metrics", "", "X-Forwarded-For", "203.0.113.5"); a.status != 401 {
		t.Errorf("metrics through a proxy: %d", a.status)
	}
	h.ready = map[string]string{"attachment ims": "auth_failed"}
	if a := h.ask(t, "", "GET", "/readyz", ""); a.status != 503 || !strings.Contains(string(a.body), "auth_failed") {
		t.Errorf("not ready: %d %s", a.status, a.body)
	}
}
