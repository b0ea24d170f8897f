package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"sparkle/bridge/accounts"
)

// authorize finds out who asks and whether they may. It returns nil and no error for
// an open route.
func (s *server) authorize(r *http.Request, op operation) (*accounts.Principal, error) {
	if op.scope == scopeNone {
		// Logging somebody in from a foreign page is an attack too.
		return nil, s.sameOrigin(r)
	}
	if op.scope == scopeLocal && isLocal(r) {
		return nil, nil
	}
	p, err := s.principal(r)
	if err != nil {
		return nil, err
	}
	switch {
	case op.scope == scopeAny, op.scope == scopeLocal, p.Has(accounts.Scope(op.scope)):
		return p, nil
	}
	return nil, fail(http.StatusForbidden, "scope_missing", "this needs the scope "+op.scope)
}

// principal takes the API key if there is one, else the cookie. A cookie goes along
// with whatever page asks, so then the origin must be ours.
func (s *server) principal(r *http.Request) (*accounts.Principal, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, key, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, fail(http.StatusUnauthorized, "unauthenticated", "want Authorization: Bearer and an API key")
		}
		p, err := s.Accounts.APIKey(r.Context(), strings.TrimSpace(key))
		if errors.Is(err, accounts.ErrUnknown) {
			return nil, fail(http.StatusUnauthorized, "key_unknown", "no such API key")
		}
		return &p, err
	}
	c, err := r.Cookie(CookieName)
	if err != nil || c.Value == "" {
		return nil, fail(http.StatusUnauthorized, "unauthenticated", "log in, or send an API key")
	}
	if err := s.sameOrigin(r); err != nil {
		return nil, err
	}
	p, err := s.Accounts.Session(r.Context(), c.Value)
	if errors.Is(err, accounts.ErrUnknown) {
		return nil, fail(http.StatusUnauthorized, "session_expired", "the session is over; log in again")
	}
	return &p, err
}

// sameOrigin refuses a request that another site's page makes a browser send and
// that would change something (Sec-Fetch-Site, else Origin against Host).
func (s *server) sameOrigin(r *http.Request) error {
	if err := s.cross.Check(r); err != nil {
		return fail(http.StatusForbidden, "cross_origin", "a page of another origin may not do this")
	}
	return nil
}

// isLocal: the connection is from this machine, and not a proxy's for somebody else.
func isLocal(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	ip := net.ParseIP(remoteOf(r))
	return ip != nil && ip.IsLoopback()
}

// sessionCookie carries a token; the empty one ends it. The cookie lasts as long as
// the browser runs and at most as the session does, which slides on the server.
func sessionCookie(secure bool, token string) *http.Cookie {
	c := &http.Cookie{
		Name: CookieName, Value: token, Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	}
	if token == "" {
		c.MaxAge = -1
	}
	return c
}

func sessionOf(p *accounts.Principal) Session {
	s := Session{Account: p.Account, Name: p.Name, Role: SessionRole(p.Role), Via: SessionVia(p.Via), Scopes: []Scope{}}
	for _, sc := range p.Scopes {
		s.Scopes = append(s.Scopes, string(sc))
	}
	if !p.Expires.IsZero() {
		t := p.Expires
		s.ExpiresAt = &t
	}
	return s
}

// isLocalProxyTLS: a proxy on this machine took the TLS off and says so.
func isLocalProxyTLS(r *http.Request) bool {
	ip := net.ParseIP(remoteOf(r))
	return ip != nil && ip.IsLoopback() && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// valid asks, within a moment, whether a stream's caller is one still. A database that
// does not answer is no reason to cut the stream.
func (s *server) valid(ctx context.Context, p accounts.Principal) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return !errors.Is(s.Accounts.Still(ctx, p), accounts.ErrUnknown)
}
