package console

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func get(t *testing.T, h http.Handler, method, path, encoding string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Accept-Encoding", encoding)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := w.Result()
	var body io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		body = z
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func TestPages(t *testing.T) {
	assets, err := load(fstest.MapFS{
		"index.html":         {Data: []byte("<!doctype html>" + strings.Repeat("start ", 100))},
		"assets/main-abc.js": {Data: []byte(strings.Repeat("let a;", 100))},
		".gitignore":         {Data: []byte("app/")},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := serve(assets)
	for _, tt := range []struct {
		method, path string
		status       int
		cache, body  string
	}{
		{"GET", "/", 200, "no-store", "start"},
		{"GET", "/index.html", 200, "no-store", "start"},
		{"GET", "/conferences/conf_1", 200, "no-store", "start"}, // the page routes by itself
		{"GET", "/assets/main-abc.js", 200, "public, max-age=31536000, immutable", "let a;"},
		{"GET", "/assets/gone.js", 404, "", "not found"},
		{"GET", "/../../etc/passwd", 200, "no-store", "start"},
		{"GET", "/.gitignore", 404, "", "not found"},
		{"POST", "/", 405, "", "not allowed"},
	} {
		for _, enc := range []string{"", "gzip"} {
			res, body := get(t, h, tt.method, tt.path, enc)
			if res.StatusCode != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("%s %s (%s): %d %q", tt.method, tt.path, enc, res.StatusCode, body)
			}
			if tt.status == 200 && (res.Header.Get("Cache-Control") != tt.cache || res.Header.Get("Content-Security-Policy") == "") {
				t.Errorf("%s %s: headers %v", tt.method, tt.path, res.Header)
			}
		}
	}
}

// What is embedded answers whether or not the pages were built.
func TestHandlerAlwaysAnswers(t *testing.T) {
	h, err := Handler("/console/")
	if err != nil {
		t.Fatal(err)
	}
	res, body := get(t, h, "GET", "/console/", "")
	if res.StatusCode != 200 || !strings.Contains(body, "<html") {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if !Built() && !strings.Contains(body, "make web") {
		t.Errorf("the stub does not say what to do: %q", body)
	}
}
