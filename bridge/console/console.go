// Package console is the organiser's web pages, embedded into the binary. They are
// built from web/ into dist/app (make web) and talk to the HTTP API only. Without that
// build the package still compiles and says so in the browser.
package console

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// csp lets the pages load nothing but themselves and talk to nobody but the API they
// came from. blob: is the preview picture.
const csp = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// asset is one file, ready to be sent.
type asset struct {
	body, zipped []byte
	contentType  string
	immutable    bool // its name changes with its contents
}

// Handler serves the pages. It expects to be mounted under prefix ("/console/") and
// answers every path that is no file with the start page, which routes by itself.
func Handler(prefix string) (http.Handler, error) {
	root, err := fs.Sub(dist, "dist/app")
	if err != nil {
		return nil, err
	}
	if _, err := fs.Stat(root, "index.html"); err != nil { // not built
		if root, err = fs.Sub(dist, "dist"); err != nil {
			return nil, err
		}
	}
	assets, err := load(root)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return http.StripPrefix(strings.TrimSuffix(prefix, "/"), serve(assets)), nil
}

// Built says whether the pages are in this binary.
func Built() bool {
	_, err := fs.Stat(dist, "dist/app/index.html")
	return err == nil
}

func load(root fs.FS) (map[string]asset, error) {
	assets := map[string]asset{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		a := asset{body: body, contentType: mime.TypeByExtension(path.Ext(name)), immutable: strings.HasPrefix(name, "assets/")}
		if a.contentType == "" {
			a.contentType = "application/octet-stream"
		}
		var zipped bytes.Buffer
		w, _ := gzip.NewWriterLevel(&zipped, gzip.BestCompression) // the level is valid
		if _, err := w.Write(body); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if zipped.Len() < len(body) {
			a.zipped = zipped.Bytes()
		}
		assets[name] = a
		return nil
	})
	return assets, err
}

func serve(assets map[string]asset) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		a, ok := assets[name]
		if !ok && path.Ext(name) != "" { // a missing file is not a page
			http.NotFound(w, r)
			return
		}
		if !ok {
			a = assets["index.html"]
		}
		h := w.Header()
		h.Set("Content-Type", a.contentType)
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Vary", "Accept-Encoding")
		h.Set("Cache-Control", "no-store")
		if a.immutable {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		body := a.body
		if a.zipped != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			body = a.zipped
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}
