package api

import (
	"net/http"
	"strings"
	"testing"
)

// Who may do what: every route of the contract by role, with the status of success
// where it is allowed. A new route without a row fails.
var matrix = map[string]struct {
	body                             string
	nobody, viewer, organiser, admin int
}{
	"POST /v1/sessions":                          {`{"account":"viewer","password":"` + password + `"}`, 201, 201, 201, 201},
	"GET /v1/sessions":                           {"", 401, 200, 200, 200},
	"DELETE /v1/sessions":                        {"", 401, 204, 204, 204},
	"POST /v1/conferences":                       {`{"name":"x","type":"audio"}`, 401, 403, 201, 201},
	"GET /v1/conferences":                        {"", 401, 200, 200, 200},
	"GET /v1/conferences/{c}":                    {"", 401, 200, 404, 200},
	"PATCH /v1/conferences/{c}":                  {`{"name":"y"}`, 401, 403, 404, 200},
	"DELETE /v1/conferences/{c}":                 {"", 401, 403, 404, 204},
	"POST /v1/conferences/{c}/members":           {`{"number":"+8613800138009"}`, 401, 403, 404, 201},
	"GET /v1/conferences/{c}/members":            {"", 401, 200, 404, 200},
	"GET /v1/conferences/{c}/members/{m}":        {"", 401, 200, 404, 200},
	"PATCH /v1/conferences/{c}/members/{m}":      {`{"muted":true}`, 401, 403, 404, 200},
	"DELETE /v1/conferences/{c}/members/{m}":     {"", 401, 403, 404, 204},
	"DELETE /v1/conferences/{c}/members/{m}/leg": {"", 401, 403, 404, 204},
	"PATCH /v1/conferences/{c}/members/{m}/leg":  {`{"media":"video"}`, 401, 403, 404, 409},
	"GET /v1/conferences/{c}/members/{m}/legs":   {"", 401, 200, 404, 200},
	"POST /v1/conferences/{c}/calls":             {`{"targets":"all"}`, 401, 403, 404, 202},
	"POST /v1/conferences/{c}/hangup":            {"", 401, 403, 404, 204},
	"PUT /v1/conferences/{c}/whisper":            {`{"from":"console","to":["mbr_001"],"mode":"private"}`, 401, 403, 404, 200},
	"DELETE /v1/conferences/{c}/whisper":         {"", 401, 403, 404, 204},
	"GET /v1/conferences/{c}/preview.jpg":        {"", 401, 200, 404, 200},
	"GET /v1/events":                             {"", 401, 200, 200, 200},
	"GET /v1/legs/{leg}/trace":                   {"", 401, 200, 404, 200},
	"GET /v1/legs/{leg}/pcap":                    {"", 401, 200, 404, 200},
	"GET /v1/cdrs":                               {"", 401, 403, 403, 200},
	"GET /v1/attachments":                        {"", 401, 200, 200, 200},
	"POST /v1/attachments/{name}/register":       {"", 401, 403, 403, 202},
	"GET /livez":                                 {"", 200, 200, 200, 200},
	"GET /readyz":                                {"", 200, 200, 200, 200},
	"GET /metrics":                               {"", 401, 200, 200, 200},
	"GET /openapi.yaml":                          {"", 200, 200, 200, 200},
}

func TestRouteRoleMatrix(t *testing.T) {
	ops, err := operations()
	if err != nil {
		t.Fatal(err)
	}
	for route := range matrix {
		if _, ok := ops[route]; !ok {
			t.Errorf("%s has a row and is not in openapi.yaml", route)
		}
	}
	for route := range ops {
		row, ok := matrix[route]
		if !ok {
			t.Errorf("%s has no row: who may do it?", route)
			continue
		}
		t.Run(route, func(t *testing.T) {
			method, path, _ := strings.Cut(route, " ")
			path = strings.NewReplacer("{c}", "conf_001", "{m}", "mbr_001", "{leg}", "leg_1", "{name}", "ims").Replace(path)
			for role, want := range map[string]int{"": row.nobody, "viewer": row.viewer, "organiser": row.organiser, "admin": row.admin} {
				h := newHouse(t) // a fresh one: half of the routes change something
				h.seed(t, "admin")
				close(h.events) // so that a stream ends
				h.after = nil
				if path == "/v1/events" {
					path = "/v1/events?last_event_id=e1"
				}
				// a proxy's header takes the machine's own privileges away
				if a := h.ask(t, role, method, path, row.body, "X-Forwarded-For", "203.0.113.1"); a.status != want {
					t.Errorf("as %q: %d, want %d: %.200s", role, a.status, want, a.body)
				}
			}
		})
	}
}

func TestCallersWeDoNotKnow(t *testing.T) {
	h := newHouse(t)
	for name, header := range map[string][]string{
		"no such key":    {"Authorization", "Bearer spk_" + strings.Repeat("A", 43)},
		"basic":          {"Authorization", "Basic YWRtaW46YWRtaW4="},
		"empty bearer":   {"Authorization", "Bearer "},
		"a JWT":          {"Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."},
		"odd cookie":     {"Cookie", CookieName + "=AAAA"},
		"empty cookie":   {"Cookie", CookieName + "="},
		"another cookie": {"Cookie", "session=" + h.keys["admin"]},
	} {
		a := h.ask(t, "", "GET", "/v1/conferences", "", header...)
		if a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if a := h.ask(t, "", "GET", "/v1/conferences?key="+h.keys["admin"]+"&access_token="+h.keys["admin"], ""); a.status != 401 {
		t.Errorf("a key in the URL: %d", a.status)
	}
}

func TestWrongPasswordAndUnknownAccountLookAlike(t *testing.T) {
	h := newHouse(t)
	body := func(account string) string {
		a := h.ask(t, "", "POST", "/v1/sessions", `{"account":"`+account+`","password":"wrong wrong"}`, "X-Request-Id", "same")
		if a.status != 401 || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d", account, a.status)
		}
		return string(a.body)
	}
	if a, b := body("admin"), body("nobody"); a != b {
		t.Errorf("they differ:\n%s%s", a, b)
	}
}

func TestSessionCookie(t *testing.T) {
	h := newHouse(t)
	login := `{"account":"admin","password":"` + password + `"}`
	c := h.ask(t, "", "POST", "/v1/sessions", login).header.Get("Set-Cookie")
	if !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || strings.Contains(c, "Secure") || !strings.Contains(c, "Path=/") {
		t.Errorf("plain: %s", c)
	}
	if c := h.ask(t, "", "POST", "/v1/sessions", login, "X-Forwarded-Proto", "https").header.Get("Set-Cookie"); !strings.Contains(c, "Secure") {
		t.Errorf("behind a TLS proxy: %s", c)
	}
	cookie := h.login(t, "admin")
	if a := h.ask(t, "", "DELETE", "/v1/sessions", "", "Cookie", cookie); !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout leaves the cookie: %v", a.header)
	}
	if a := h.ask(t, "", "GET", "/v1/sessions", "", "Cookie", cookie); a.status != 401 || a.problem(t).Code != "session_expired" {
		t.Errorf("after logout: %d", a.status)
	}
}

// A page of another site can make a browser send the cookie; it gets nothing changed.
func TestCrossSiteRequestsAreRefused(t *testing.T) {
	h := newHouse(t)
	cookie := h.login(t, "admin")
	host := strings.TrimPrefix(h.url, "http://")
	body := `{"name":"a","type":"video"}`
	for _, tt := range []struct {
		name   string
		header []string
		want   int
	}{
		{"no browser", nil, 201},
		{"our page", []string{"Sec-Fetch-Site", "same-origin"}, 201},
		{"our page, old browser", []string{"Origin", "http://" + host}, 201},
		{"foreign page", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"}, 403},
		{"foreign page, old browser", []string{"Origin", "http://evil.example"}, 403},
		{"sandboxed page", []string{"Origin", "null"}, 403},
		{"sister site", []string{"Sec-Fetch-Site", "same-site"}, 403},
	} {
		a := h.ask(t, "", "POST", "/v1/conferences", body, append(tt.header, "Cookie", cookie)...)
		if a.status != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, a.status, tt.want)
		}
	}
	login := `{"account":"admin","password":"` + password + `"}`
	if a := h.ask(t, "", "POST", "/v1/sessions", login, "Origin", "http://evil.example"); a.status != 403 {
		t.Errorf("login from a foreign page: %d", a.status)
	}
	if a := h.ask(t, "admin", "POST", "/v1/conferences", body, "Origin", "http://tools.example"); a.status != 201 {
		t.Errorf("an API key goes along with nobody's page: %d", a.status)
	}
	if a := h.ask(t, "admin", "GET", "/v1/conferences", "", "Origin", "http://evil.example"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS is open")
	}
}

func TestHosts(t *testing.T) {
	h := newHouse(t, func(d *Deps) { d.Hosts = []string{"conf.example"} })
	for host, want := range map[string]int{
		"conf.example": 200, "CONF.example:8443": 200, "127.0.0.1:80": 200, "[::1]:80": 200, "localhost": 200,
		"evil.example": http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest,
	} {
		if a := h.ask(t, "", "GET", "/livez", "", "Host", host); a.status != want {
			t.Errorf("%s: %d, want %d", host, a.status, want)
		}
	}
}
