package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
)

// problem is an error with its answer (RFC 9457).
type problem struct {
	status int
	code   string
	detail string
	fields []FieldError
	retry  time.Duration // Retry-After, if not 0
}

func (p *problem) Error() string { return p.code + ": " + p.detail }

func fail(status int, code, detail string) *problem {
	return &problem{status: status, code: code, detail: detail}
}

// problemOf is the one place where an error becomes an answer. Errors that do not
// concern the caller are 500 and say nothing; the log has them.
func problemOf(err error) *problem {
	var p *problem
	var be *bridge.Error
	var throttled *accounts.ThrottledError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &be):
		p = fail(statusOf(be), be.Code, be.Detail)
		if be.Field != "" {
			p.fields = []FieldError{{Pointer: be.Field, Detail: be.Detail}}
		}
		if p.retry = be.Retry; p.retry == 0 && p.status == http.StatusServiceUnavailable {
			p.retry = 5 * time.Second
		}
		return p
	case errors.As(err, &throttled):
		p = fail(http.StatusTooManyRequests, "login_throttled", "too many wrong passwords; try again later")
		p.retry = throttled.After
		return p
	case errors.Is(err, accounts.ErrWrong):
		return fail(http.StatusUnauthorized, "login_failed", "wrong account or password")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		p = fail(http.StatusServiceUnavailable, "timeout", "the request took too long or was given up")
		p.retry = time.Second
		return p
	}
	return fail(http.StatusInternalServerError, "internal", "an error of ours; the log has it under the request id")
}

// statusOf maps a bridge error's kind.
func statusOf(e *bridge.Error) int {
	switch e.Kind {
	case bridge.Invalid:
		return http.StatusUnprocessableEntity
	case bridge.Missing:
		return http.StatusNotFound
	case bridge.Conflict:
		return http.StatusConflict
	case bridge.Forbidden:
		return http.StatusForbidden
	case bridge.Unavailable:
		return http.StatusServiceUnavailable
	case bridge.TooSoon:
		return http.StatusTooManyRequests
	case bridge.Full:
		if e.Code == "storage_full" {
			return http.StatusInsufficientStorage
		}
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// body is the problem as JSON; r may be nil for one inside an array.
func (p *problem) body(r *http.Request) Problem {
	b := Problem{Type: "urn:sparkle:problem:" + p.code, Title: title(p.status), Status: p.status, Code: p.code}
	if p.detail != "" {
		b.Detail = &p.detail
	}
	if len(p.fields) > 0 {
		b.Errors = &p.fields
	}
	if r != nil {
		instance, id := r.URL.EscapedPath(), requestID(r.Context())
		b.Instance, b.RequestId = &instance, &id
	}
	return b
}

func title(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Error"
}

func (p *problem) write(w http.ResponseWriter, r *http.Request) {
	b, err := json.Marshal(p.body(r))
	if err != nil { // strings and ints only
		panic("a problem cannot be encoded: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retry.Seconds()))))
	}
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="sparkle"`)
	}
	w.WriteHeader(p.status)
	w.Write(append(b, '\n')) // a caller that has gone is not our concern
}
