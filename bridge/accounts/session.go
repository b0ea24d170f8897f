package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alexedwards/argon2id"
)

// slideAfter: a session's end is moved on at most so often, so that a page which
// polls does not write to the database with every request.
const slideAfter = time.Minute

// Login checks a password and begins a session; the token is for the cookie and is
// kept nowhere. remote is the caller's address, for the throttle. ErrWrong is for a
// wrong password and an unknown account alike, after the same work; each failure
// makes the next answer for that account and that address later, and when it would
// be too late the answer is *ThrottledError at once.
func (a *Accounts) Login(ctx context.Context, name, password, remote string) (token string, p Principal, err error) {
	attempt, err := a.throttle.begin(ctx, name, remote)
	if err != nil {
		return "", Principal{}, err
	}
	ok, acct, err := a.check(ctx, name, password)
	if err != nil {
		return "", Principal{}, err
	}
	if !ok {
		if err := attempt.failed(ctx); err != nil {
			return "", Principal{}, err
		}
		return "", Principal{}, ErrWrong
	}
	attempt.succeeded()

	now := time.Now()
	token, hash := newSecret("")
	p = Principal{
		Account: acct.ID, Name: acct.Name, Role: acct.Role, Via: "session", ID: newID("sess_"),
		Scopes: acct.Role.Scopes(), Expires: now.Add(a.o.SessionTTL).UTC(),
	}
	if _, err := a.db.ExecContext(ctx, `INSERT INTO sessions (id, token_hash, account_id, created_at, expires_at)
		VALUES (?, ?, ?, ?, ?)`, p.ID, hash, p.Account, now.UnixNano(), p.Expires.UnixNano()); err != nil {
		return "", Principal{}, fmt.Errorf("begin session: %w", err)
	}
	// Dead rows go when a new one comes: no goroutine for it, and no growth.
	if _, err := a.db.ExecContext(ctx, `DELETE FROM sessions WHERE expires_at <= ?`, now.UnixNano()); err != nil {
		a.log.Warn("expired sessions not deleted", "err", err)
	}
	return token, p, nil
}

func (a *Accounts) check(ctx context.Context, name, password string) (ok bool, acct Account, err error) {
	var hash string
	err = a.db.QueryRowContext(ctx, `SELECT id, name, role, password FROM accounts WHERE name = ?`, name).
		Scan(&acct.ID, &acct.Name, &acct.Role, &hash)
	unknown := errors.Is(err, sql.ErrNoRows)
	if err != nil && !unknown {
		return false, Account{}, fmt.Errorf("look up account: %w", err)
	}
	if unknown {
		hash = a.dummy
	}
	if err := a.enter(ctx); err != nil {
		return false, Account{}, err
	}
	defer a.leave()
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, Account{}, fmt.Errorf("check password of %s: %w", acct.ID, err)
	}
	return match && !unknown, acct, nil
}

// Session says whose token it is and moves the session's end on. ErrUnknown if it is
// none, or over.
func (a *Accounts) Session(ctx context.Context, token string) (Principal, error) {
	p := Principal{Via: "session"}
	var expires int64
	now := time.Now()
	err := a.db.QueryRowContext(ctx, `SELECT s.id, s.expires_at, a.id, a.name, a.role FROM sessions s
		JOIN accounts a ON a.id = s.account_id WHERE s.token_hash = ? AND s.expires_at > ?`, hashOf(token), now.UnixNano()).
		Scan(&p.ID, &expires, &p.Account, &p.Name, &p.Role)
	if errors.Is(err, sql.ErrNoRows) {
		return Principal{}, ErrUnknown
	} else if err != nil {
		return Principal{}, fmt.Errorf("look up session: %w", err)
	}
	p.Scopes = p.Role.Scopes()
	p.Expires = time.Unix(0, expires).UTC()
	if end := now.Add(a.o.SessionTTL).UTC(); end.Sub(p.Expires) >= slideAfter {
		// A disk that refuses writes must not lock anybody out before the time.
		if _, err := a.db.ExecContext(ctx, `UPDATE sessions SET expires_at = ? WHERE id = ?`, end.UnixNano(), p.ID); err != nil {
			a.log.Warn("session not prolonged", "session", p.ID, "err", err)
		} else {
			p.Expires = end
		}
	}
	return p, nil
}

// Logout ends the session of the token; one that is over already is no error.
func (a *Accounts) Logout(ctx context.Context, token string) error {
	ids, err := a.ids(ctx, `DELETE FROM sessions WHERE token_hash = ? RETURNING id`, hashOf(token))
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	a.revoked(ids...)
	return nil
}

func (a *Accounts) endSessions(ctx context.Context, account string) error {
	ids, err := a.ids(ctx, `DELETE FROM sessions WHERE account_id = ? RETURNING id`, account)
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	a.revoked(ids...)
	return nil
}

// Watch returns a channel that is closed when the principal's session or key is
// revoked here (logout, password change, deletion). Expiry, and what another process
// did, Still tells. The caller calls stop when it has heard enough.
func (a *Accounts) Watch(p Principal) (gone <-chan struct{}, stop func()) {
	c := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watchers[p.ID] == nil {
		a.watchers[p.ID] = map[chan struct{}]struct{}{}
	}
	a.watchers[p.ID][c] = struct{}{}
	return c, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers[p.ID], c)
		if len(a.watchers[p.ID]) == 0 {
			delete(a.watchers, p.ID)
		}
	}
}

func (a *Accounts) revoked(ids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		for c := range a.watchers[id] {
			close(c)
		}
		delete(a.watchers, id)
	}
}

// Still reports whether the principal's session or key is good still, without
// prolonging it. ErrUnknown if not.
func (a *Accounts) Still(ctx context.Context, p Principal) error {
	q, args := `SELECT 1 FROM sessions WHERE id = ? AND expires_at > ?`, []any{p.ID, time.Now().UnixNano()}
	if p.Via == "apikey" {
		q, args = `SELECT 1 FROM api_keys WHERE id = ?`, []any{p.ID}
	}
	var one int
	err := a.db.QueryRowContext(ctx, q, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnknown
	}
	return err
}
