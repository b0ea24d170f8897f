package api

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Answers are kept for idemTTL, at most idemMax of them and idemBytes of bodies; when
// either is full the oldest finished one goes.
const (
	idemTTL   = 24 * time.Hour
	idemMax   = 10_000
	idemBytes = 32 << 20
)

// idempotency remembers the answers of POSTs by their Idempotency-Key, per account
// and path (draft-ietf-httpapi-idempotency-key-header). In memory: a restart forgets.
type idempotency struct {
	mu    sync.Mutex
	byKey map[idemKey]*list.Element
	order list.List // of *idemEntry, oldest first
	bytes int
}

type idemKey struct{ account, path, key string }

type idemEntry struct {
	key    idemKey
	body   [sha256.Size]byte
	at     time.Time
	done   bool
	status int
	header http.Header
	answer []byte
}

func newIdempotency() *idempotency { return &idempotency{byKey: map[idemKey]*list.Element{}} }

// do answers from memory or asks next and remembers. A handler that panics, or that
// answers 5xx, is forgotten: the same request may work later.
func (m *idempotency) do(w http.ResponseWriter, r *http.Request, account, key string, body []byte, next http.Handler) error {
	if key == "" || len(key) > 255 || strings.ContainsFunc(key, func(c rune) bool { return c < '!' || c > '~' }) {
		return fail(http.StatusBadRequest, "idempotency_key_invalid", "Idempotency-Key: want 1 to 255 visible ASCII characters")
	}
	e := &idemEntry{key: idemKey{account, r.URL.Path, key}, body: sha256.Sum256(body), at: time.Now()}
	old, err := m.begin(e)
	if err != nil {
		return err
	}
	if old != nil {
		for k, v := range old.header {
			w.Header()[k] = slices.Clone(v)
		}
		w.Header().Set("Idempotency-Replayed", "true")
		w.WriteHeader(old.status)
		w.Write(old.answer)
		return nil
	}
	t := &tee{ResponseWriter: w}
	finished := false
	defer func() { m.end(e, t, finished) }()
	next.ServeHTTP(t, r)
	finished = true
	return nil
}

// begin returns the finished entry of the same request, or enters e.
func (m *idempotency) begin(e *idemEntry) (*idemEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for el := m.order.Front(); el != nil; {
		next := el.Next()
		old := el.Value.(*idemEntry)
		if e.at.Sub(old.at) < idemTTL {
			break
		}
		if old.done {
			m.remove(el)
		}
		el = next
	}
	if el := m.byKey[e.key]; el != nil {
		old := el.Value.(*idemEntry)
		switch {
		case old.body != e.body:
			return nil, fail(http.StatusUnprocessableEntity, "idempotency_key_reused", "this key was used with another body")
		case !old.done:
			return nil, fail(http.StatusConflict, "idempotency_in_progress", "the first request with this key is still running")
		}
		return old, nil
	}
	m.byKey[e.key] = m.order.PushBack(e)
	m.shrink()
	return nil, nil
}

func (m *idempotency) end(e *idemEntry, t *tee, finished bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.byKey[e.key]
	if !finished || t.status >= 500 || t.status == 0 {
		m.remove(el)
		return
	}
	e.done, e.status, e.answer = true, t.status, t.body.Bytes()
	e.header = http.Header{}
	for _, k := range []string{"Content-Type", "Location", "Cache-Control"} {
		if v := t.Header()[k]; v != nil {
			e.header[k] = slices.Clone(v)
		}
	}
	m.bytes += len(e.answer)
	m.shrink()
}

// shrink drops the oldest finished entries until the bounds hold. Those still running
// are bounded by the connections.
func (m *idempotency) shrink() {
	for el := m.order.Front(); el != nil && (m.order.Len() > idemMax || m.bytes > idemBytes); {
		next := el.Next()
		if el.Value.(*idemEntry).done {
			m.remove(el)
		}
		el = next
	}
}

func (m *idempotency) remove(el *list.Element) {
	e := el.Value.(*idemEntry)
	m.order.Remove(el)
	delete(m.byKey, e.key)
	m.bytes -= len(e.answer)
}

// tee writes through and keeps a copy.
type tee struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (t *tee) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *tee) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	t.body.Write(b)
	return t.ResponseWriter.Write(b)
}

func (t *tee) Unwrap() http.ResponseWriter { return t.ResponseWriter }
