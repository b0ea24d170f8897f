package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/fault"
)

// Accounts is what the API needs of package accounts; *accounts.Accounts has it.
type Accounts interface {
	Login(ctx context.Context, name, password, remote string) (token string, p accounts.Principal, err error)
	Logout(ctx context.Context, token string) error
	Session(ctx context.Context, token string) (accounts.Principal, error)
	APIKey(ctx context.Context, key string) (accounts.Principal, error)
	Still(ctx context.Context, p accounts.Principal) error
	Watch(p accounts.Principal) (gone <-chan struct{}, stop func())
}

// Deps are what NewHandler needs. Service, Accounts and Log are required.
type Deps struct {
	Service  Service
	Accounts Accounts
	Console  http.Handler // at /console/, asked with the prefix; nil: no pages
	Metrics  http.Handler // at /metrics; nil: 404
	CDRs     CDRs         // nil: there are no charging records
	Log      *slog.Logger
	// Hosts are the names (without port) the server answers to, against DNS
	// rebinding; IP addresses and localhost always work. Empty: any name. The
	// session cookie is bound to a name in any case.
	Hosts []string
}

// CookieName of the session.
const CookieName = "sparkle_session"

type server struct {
	Deps
	ops   map[string]operation
	mux   *http.ServeMux
	cross *http.CrossOriginProtection
	idem  *idempotency
}

// NewHandler makes the whole HTTP surface: the API, the console, health and metrics. It
// owns no goroutine. It fails only if the embedded contract is broken.
func NewHandler(d Deps) (http.Handler, error) {
	if d.Service == nil || d.Accounts == nil || d.Log == nil {
		return nil, errors.New("api: Service, Accounts and Log are required")
	}
	ops, err := operations()
	if err != nil {
		return nil, err
	}
	s := &server{Deps: d, ops: ops, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), idem: newIdempotency()}
	strict := NewStrictHandlerWithOptions(strictServer{s}, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  s.badRequest,
		ResponseErrorHandlerFunc: s.error,
	})
	HandlerWithOptions(strict, StdHTTPServerOptions{BaseRouter: s.mux, ErrorHandlerFunc: s.badRequest})
	s.mux.HandleFunc("GET /v1/events", s.events)
	s.mux.HandleFunc("GET /livez", s.livez)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.HandleFunc("GET /openapi.yaml", s.openapi)
	if d.Metrics != nil {
		s.mux.Handle("GET /metrics", d.Metrics)
	}
	if d.Console != nil {
		s.mux.Handle("GET /console/", d.Console)
		s.mux.Handle("GET /{$}", http.RedirectHandler("/console/", http.StatusFound))
	}
	return http.HandlerFunc(s.serve), nil
}

// serve does for every request what is not the single handler's business: request
// id, panics, headers, host, route, caller, origin, body, repeats.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := r.Header.Get("X-Request-Id")
	if !saneID(id) {
		id = "req_" + ulid.Make().String()
	}
	r = r.WithContext(context.WithValue(r.Context(), ctxKey{}, &call{id: id}))
	rec := &recorder{ResponseWriter: w}
	h := rec.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")

	_, pattern := s.mux.Handler(r)
	defer func() {
		if e := recover(); e != nil {
			if e == http.ErrAbortHandler {
				panic(e)
			}
			fault.Note()
			s.Log.Error("panic in a handler", "request", id, "route", pattern, "panic", fmt.Sprint(e), "stack", string(debug.Stack()))
			if rec.status != 0 { // half an answer is out: cut it off rather than pretend
				panic(http.ErrAbortHandler)
			}
			fail(http.StatusInternalServerError, "internal", "an error of ours; the log has it under the request id").write(rec, r)
		}
		s.Log.Debug("request", "request", id, "method", r.Method, "route", pattern, "status", rec.status, "took", time.Since(start))
	}()
	if err := s.route(rec, r, pattern); err != nil {
		s.error(rec, r, err)
	}
}

func (s *server) route(w *recorder, r *http.Request, pattern string) error {
	if !s.hostAllowed(r.Host) {
		return fail(http.StatusMisdirectedRequest, "host_unknown", "this server does not go by that name")
	}
	if pattern == "" {
		return s.noRoute(w, r)
	}
	op, ok := s.ops[pattern]
	if !ok { // the console's pages
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; "+
			"base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		s.mux.ServeHTTP(w, r)
		return nil
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	p, err := s.authorize(r, op)
	if err != nil {
		return err
	}
	c := callOf(r.Context())
	c.principal, c.remote, c.secure = p, remoteOf(r), r.TLS != nil || isLocalProxyTLS(r)
	if cookie, err := r.Cookie(CookieName); err == nil {
		c.token = cookie.Value
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		s.mux.ServeHTTP(w, r)
		return nil
	}
	if op.body != nil {
		if err := checkType(r); err != nil {
			return err
		}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if op.body != nil {
		if err := checkJSON(op.body, body); err != nil {
			return err
		}
	}
	replaceBody(r, body)
	if key, ok := r.Header["Idempotency-Key"]; ok && r.Method == http.MethodPost && p != nil {
		return s.idem.do(w, r, p.Account, strings.Join(key, ","), body, s.mux)
	}
	s.mux.ServeHTTP(w, r)
	return nil
}

// noRoute turns the mux's plain answers into problems.
func (s *server) noRoute(w http.ResponseWriter, r *http.Request) error {
	h, _ := s.mux.Handler(r)
	plain := &sink{header: http.Header{}}
	h.ServeHTTP(plain, r)
	switch plain.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", plain.header.Get("Allow"))
		return fail(plain.status, "method_not_allowed", "want "+plain.header.Get("Allow"))
	case http.StatusNotFound:
		return fail(plain.status, "route_not_found", "there is nothing at this path")
	}
	w.Header().Set("Location", plain.header.Get("Location")) // a path with dots or double slashes
	w.WriteHeader(plain.status)
	return nil
}

func (s *server) badRequest(w http.ResponseWriter, r *http.Request, err error) {
	s.error(w, r, fail(http.StatusBadRequest, "parameter_invalid", err.Error()))
}

func (s *server) error(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.status == http.StatusInternalServerError && !hungUp(err) {
		s.Log.Error("request failed", "request", requestID(r.Context()), "method", r.Method, "path", r.URL.Path, "err", err)
	}
	p.write(w, r)
}

// hungUp says that whoever asked did not wait for the answer: a browser that has gone on.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func (s *server) hostAllowed(host string) bool {
	if len(s.Hosts) == 0 {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	return host == "localhost" || net.ParseIP(host) != nil ||
		slices.ContainsFunc(s.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// call is what is known of a request by now.
type call struct {
	id        string
	remote    string
	principal *accounts.Principal // nil: nobody
	token     string              // the session cookie's, if there was one
	secure    bool                // the caller's side speaks TLS
}

type ctxKey struct{}

// callOf returns the request's call; there always is one below serve.
func callOf(ctx context.Context) *call { return ctx.Value(ctxKey{}).(*call) }

func requestID(ctx context.Context) string { return callOf(ctx).id }

// actor is the caller as the bridge knows it. Routes that reach it have one.
func actor(ctx context.Context) bridge.Actor {
	c := callOf(ctx)
	return c.principal.Actor(c.remote)
}

// remoteOf is the caller's address without port.
func remoteOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// saneID: a caller's request id goes to the log and back, so it is short and plain.
func saneID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// recorder notes the status, so that the log and the panic handler know it.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// sink keeps status and header of an answer that is not sent.
type sink struct {
	header http.Header
	status int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) Write(b []byte) (int, error) { return len(b), nil }
func (w *sink) WriteHeader(status int)      { w.status = status }

// nextLink is the Link header of a page that is not the last (RFC 8288).
func nextLink(path string, limit int, cursor string) *string {
	if cursor == "" {
		return nil
	}
	l := fmt.Sprintf("<%s?%s>; rel=\"next\"", path, url.Values{"limit": {fmt.Sprint(limit)}, "cursor": {cursor}}.Encode())
	return &l
}
