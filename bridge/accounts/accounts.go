// Package accounts knows who may ask: accounts with roles and passwords (argon2id),
// sessions and API keys. It keeps them in the bridge's SQLite database (migration
// 0002_accounts.sql) and slows down whoever guesses passwords.
package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"github.com/oklog/ulid/v2"

	"sparkle/bridge"
)

// Role of an account; it decides the scopes of its sessions.
type Role string

const (
	Admin     Role = "admin"     // everything, everywhere
	Organiser Role = "organiser" // the own conferences
	Viewer    Role = "viewer"    // reads all conferences, changes nothing
)

// Scope is a right that an operation of the API asks for (x-scope in openapi.yaml).
type Scope string

const (
	ConfRead      Scope = "conf:read"
	ConfWrite     Scope = "conf:write"
	CallDial      Scope = "call:dial"
	MemberWhisper Scope = "member:whisper"
	AdminScope    Scope = "admin" // implies every other
)

var allScopes = []Scope{ConfRead, ConfWrite, CallDial, MemberWhisper, AdminScope}

// Scopes that a role's sessions have.
func (r Role) Scopes() []Scope {
	switch r {
	case Admin:
		return slices.Clone(allScopes)
	case Organiser:
		return []Scope{ConfRead, ConfWrite, CallDial, MemberWhisper}
	case Viewer:
		return []Scope{ConfRead}
	}
	return nil
}

// Errors that callers branch on.
var (
	ErrWrong   = errors.New("wrong account or password") // login; says not which
	ErrUnknown = errors.New("unknown or expired")        // session, key or account
	ErrExists  = errors.New("name is taken")
)

// ThrottledError: too many failures from there or for that account; try again after After.
type ThrottledError struct{ After time.Duration }

func (e *ThrottledError) Error() string { return fmt.Sprintf("too many failures, wait %v", e.After) }

// Options are the accounts' part of the configuration.
type Options struct {
	// SessionTTL: a session ends so long after its last use. 0: 12 hours.
	SessionTTL time.Duration
	// HashMemoryKiB is argon2id's memory per password check. 0: 65536 (64 MiB).
	HashMemoryKiB uint32
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var errs []error
	if o.SessionTTL != 0 && (o.SessionTTL < time.Minute || o.SessionTTL > 30*24*time.Hour) {
		errs = append(errs, fmt.Errorf("session_ttl %v: want 1m to 720h", o.SessionTTL))
	}
	if o.HashMemoryKiB != 0 && (o.HashMemoryKiB < 8 || o.HashMemoryKiB > 1<<20) {
		errs = append(errs, fmt.Errorf("hash_memory_kib %d: want 8 to 1048576", o.HashMemoryKiB))
	}
	return errors.Join(errs...)
}

// Principal is a caller that has shown who it is.
type Principal struct {
	Account string // id
	Name    string // of the account
	Role    Role
	Via     string // session | apikey
	ID      string // of the session or key
	Scopes  []Scope
	// DialPrefixes limits the numbers that may be called; empty: no limit.
	DialPrefixes []string
	Expires      time.Time // of the session; zero for a key
}

// Has reports whether the principal has the scope; admin has all.
func (p Principal) Has(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, AdminScope)
}

// Actor is the principal as the bridge knows it. A viewer sees every conference,
// and what it may do to them the API has already refused by scope; so it reads as
// an admin does.
func (p Principal) Actor(remote string) bridge.Actor {
	readsAll := p.Role == Viewer && !slices.ContainsFunc(p.Scopes, func(s Scope) bool { return s != ConfRead })
	return bridge.Actor{
		Account: p.Account, Name: p.Name, Via: p.Via, Remote: remote,
		Admin: p.Has(AdminScope) || readsAll, DialPrefixes: p.DialPrefixes,
	}
}

// Accounts is safe for concurrent use. It owns no goroutine; the database is the caller's.
type Accounts struct {
	db     *sql.DB
	o      Options
	params argon2id.Params
	dummy  string // hash of nothing, checked for unknown accounts: same time, same answer
	log    *slog.Logger

	throttle throttle
	hashing  chan struct{} // cap 2: argon2id takes a core and 64 MiB each; others wait

	mu       sync.Mutex
	watchers map[string]map[chan struct{}]struct{} // by session or key id; closed when it is revoked
}

// New takes a migrated database. It fails when the options are wrong.
func New(db *sql.DB, o Options, log *slog.Logger) (*Accounts, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if o.SessionTTL == 0 {
		o.SessionTTL = 12 * time.Hour
	}
	if o.HashMemoryKiB == 0 {
		o.HashMemoryKiB = 64 * 1024
	}
	a := &Accounts{
		db: db, o: o, log: log,
		params:   argon2id.Params{Memory: o.HashMemoryKiB, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32},
		hashing:  make(chan struct{}, 2),
		watchers: map[string]map[chan struct{}]struct{}{},
	}
	var err error
	if a.dummy, err = argon2id.CreateHash(rand.Text(), &a.params); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	return a, nil
}

// EnsureAdmin makes the account "admin" if there is no account at all. Its password
// is the given one, or, if that is empty, a random one that is returned to be printed
// once. An account that exists is left as it is.
func (a *Accounts) EnsureAdmin(ctx context.Context, password string) (printed string, created bool, err error) {
	var n int
	if err := a.db.QueryRowContext(ctx, `SELECT count(*) FROM accounts`).Scan(&n); err != nil {
		return "", false, fmt.Errorf("count accounts: %w", err)
	}
	if n > 0 {
		return "", false, nil
	}
	if password == "" {
		password = strings.ToLower(rand.Text()) // 130 bits
		printed = password
	}
	if _, err := a.Create(ctx, "admin", password, Admin); err != nil {
		return "", false, err
	}
	return printed, true, nil
}

// Create makes an account and returns its id. ErrExists if the name is taken; names
// are compared without case.
func (a *Accounts) Create(ctx context.Context, name, password string, role Role) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if role.Scopes() == nil {
		return "", fmt.Errorf("role %q: want admin, organiser or viewer", role)
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", err
	}
	id := newID("acct_")
	res, err := a.db.ExecContext(ctx, `INSERT INTO accounts (id, name, role, password, created_at)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`, id, name, string(role), hash, time.Now().UnixNano())
	if err != nil {
		return "", fmt.Errorf("create account: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(ErrExists, err)
	}
	return id, nil
}

// SetPassword changes a password and ends the account's sessions.
func (a *Accounts) SetPassword(ctx context.Context, name, password string) error {
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	var id string
	err = a.db.QueryRowContext(ctx, `UPDATE accounts SET password = ? WHERE name = ? RETURNING id`, hash, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnknown
	} else if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return a.endSessions(ctx, id)
}

// Delete removes an account with its sessions and keys. Its conferences stay.
func (a *Accounts) Delete(ctx context.Context, name string) error {
	var id string
	err := a.db.QueryRowContext(ctx, `SELECT id FROM accounts WHERE name = ?`, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnknown
	} else if err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	keys, err := a.ids(ctx, `DELETE FROM api_keys WHERE account_id = ? RETURNING id`, id)
	if err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	a.revoked(keys...)
	if err := a.endSessions(ctx, id); err != nil {
		return err
	}
	if _, err := a.db.ExecContext(ctx, `DELETE FROM accounts WHERE id = ?`, id); err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	return nil
}

// Account is a row of List.
type Account struct {
	ID, Name string
	Role     Role
	Created  time.Time
}

// List returns all accounts by name.
func (a *Accounts) List(ctx context.Context) ([]Account, error) {
	rows, err := a.db.QueryContext(ctx, `SELECT id, name, role, created_at FROM accounts ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	defer rows.Close()
	var out []Account
	for rows.Next() {
		var r Account
		var at int64
		if err := rows.Scan(&r.ID, &r.Name, &r.Role, &at); err != nil {
			return nil, fmt.Errorf("list accounts: %w", err)
		}
		r.Created = time.Unix(0, at).UTC()
		out = append(out, r)
	}
	return out, rows.Err()
}

func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	if n := utf8.RuneCountInString(password); n < 8 || len(password) > 256 {
		return "", errors.New("password: want 8 characters or more, at most 256 bytes")
	}
	if err := a.enter(ctx); err != nil {
		return "", err
	}
	defer a.leave()
	h, err := argon2id.CreateHash(password, &a.params)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return h, nil
}

func (a *Accounts) enter(ctx context.Context) error {
	select {
	case a.hashing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Accounts) leave() { <-a.hashing }

// ids runs a statement that returns ids.
func (a *Accounts) ids(ctx context.Context, q string, args ...any) ([]string, error) {
	rows, err := a.db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

func checkName(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > 64 || !utf8.ValidString(name) {
		return errors.New("name: want 1 to 64 characters")
	}
	if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return errors.New("name: must not have blanks or control characters")
	}
	return nil
}

func newID(prefix string) string { return prefix + ulid.Make().String() }

// newSecret returns 256 random bits as text, and what the database keeps of it.
func newSecret(prefix string) (secret string, hash []byte) {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	secret = prefix + base64.RawURLEncoding.EncodeToString(b)
	return secret, hashOf(secret)
}

func hashOf(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}
