package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// KeyPrefix begins every API key, so that people and scanners know one by sight.
const KeyPrefix = "spk_"

// KeySpec describes an API key to be made.
type KeySpec struct {
	Name    string
	Account string // name of the account it acts for; "" is the oldest admin
	Scopes  []Scope
	// DialPrefixes limits the numbers it may call ("+86138"); empty: no limit.
	DialPrefixes []string
}

// Key is a row of Keys: what may be shown of a key.
type Key struct {
	ID, Name, Account string
	Scopes            []Scope
	DialPrefixes      []string
	Created           time.Time
	LastUsed          time.Time // to the minute; zero: never
}

// NewAPIKey makes a key for the oldest admin account. No scopes given means all but
// admin: enough to run conferences of that account's. The key is kept nowhere.
func (a *Accounts) NewAPIKey(ctx context.Context, name string, scopes ...Scope) (string, error) {
	if len(scopes) == 0 {
		scopes = Organiser.Scopes()
	}
	return a.NewKey(ctx, KeySpec{Name: name, Scopes: scopes})
}

// NewKey makes a key. A key never has a scope that its account lacks.
func (a *Accounts) NewKey(ctx context.Context, s KeySpec) (string, error) {
	if n := utf8.RuneCountInString(s.Name); n < 1 || n > 64 || !utf8.ValidString(s.Name) {
		return "", errors.New("key name: want 1 to 64 characters")
	}
	if len(s.Scopes) == 0 {
		return "", errors.New("key scopes: want at least one")
	}
	q, args := `SELECT id, role FROM accounts WHERE name = ?`, []any{s.Account}
	if s.Account == "" {
		q, args = `SELECT id, role FROM accounts WHERE role = 'admin' ORDER BY created_at, id LIMIT 1`, nil
	}
	var account string
	var role Role
	if err := a.db.QueryRowContext(ctx, q, args...).Scan(&account, &role); errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("account for the key: %w", ErrUnknown)
	} else if err != nil {
		return "", fmt.Errorf("account for the key: %w", err)
	}
	for _, sc := range s.Scopes {
		if !slices.Contains(allScopes, sc) {
			return "", fmt.Errorf("scope %q: want one of %v", sc, allScopes)
		}
		if !slices.Contains(role.Scopes(), sc) {
			return "", fmt.Errorf("scope %q: role %s does not have it", sc, role)
		}
	}
	for _, p := range s.DialPrefixes {
		if len(p) < 2 || len(p) > 16 || p[0] != '+' || strings.Trim(p[1:], "0123456789") != "" {
			return "", fmt.Errorf("dial prefix %q: want + and 1 to 15 digits", p)
		}
	}
	key, hash := newSecret(KeyPrefix)
	if _, err := a.db.ExecContext(ctx, `INSERT INTO api_keys (id, key_hash, name, account_id, scopes, dial_prefixes, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, newID("key_"), hash, s.Name, account, join(s.Scopes),
		strings.Join(s.DialPrefixes, " "), time.Now().UnixNano()); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// APIKey says whose key it is. ErrUnknown if it is none. A key loses what its
// account's role has lost.
func (a *Accounts) APIKey(ctx context.Context, key string) (Principal, error) {
	if !strings.HasPrefix(key, KeyPrefix) {
		return Principal{}, ErrUnknown
	}
	p := Principal{Via: "apikey"}
	var scopes, prefixes string
	var used sql.NullInt64
	err := a.db.QueryRowContext(ctx, `SELECT k.id, k.scopes, k.dial_prefixes, k.last_used_at, a.id, a.name, a.role
		FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE k.key_hash = ?`, hashOf(key)).
		Scan(&p.ID, &scopes, &prefixes, &used, &p.Account, &p.Name, &p.Role)
	if errors.Is(err, sql.ErrNoRows) {
		return Principal{}, ErrUnknown
	} else if err != nil {
		return Principal{}, fmt.Errorf("look up key: %w", err)
	}
	for _, s := range split(scopes) {
		if slices.Contains(p.Role.Scopes(), s) {
			p.Scopes = append(p.Scopes, s)
		}
	}
	p.DialPrefixes = strings.Fields(prefixes)
	if now := time.Now(); !used.Valid || now.Sub(time.Unix(0, used.Int64)) >= time.Minute {
		if _, err := a.db.ExecContext(ctx, `UPDATE api_keys SET last_used_at = ? WHERE id = ?`, now.UnixNano(), p.ID); err != nil {
			a.log.Warn("use of key not noted", "key", p.ID, "err", err)
		}
	}
	return p, nil
}

// Keys returns all keys by age.
func (a *Accounts) Keys(ctx context.Context) ([]Key, error) {
	rows, err := a.db.QueryContext(ctx, `SELECT k.id, k.name, a.name, k.scopes, k.dial_prefixes, k.created_at, k.last_used_at
		FROM api_keys k JOIN accounts a ON a.id = k.account_id ORDER BY k.created_at, k.id`)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	defer rows.Close()
	var out []Key
	for rows.Next() {
		var k Key
		var scopes, prefixes string
		var created int64
		var used sql.NullInt64
		if err := rows.Scan(&k.ID, &k.Name, &k.Account, &scopes, &prefixes, &created, &used); err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		k.Scopes, k.DialPrefixes = split(scopes), strings.Fields(prefixes)
		k.Created = time.Unix(0, created).UTC()
		if used.Valid {
			k.LastUsed = time.Unix(0, used.Int64).UTC()
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// RevokeKey ends a key by its id; its event streams end too.
func (a *Accounts) RevokeKey(ctx context.Context, id string) error {
	ids, err := a.ids(ctx, `DELETE FROM api_keys WHERE id = ? RETURNING id`, id)
	if err != nil {
		return fmt.Errorf("revoke key: %w", err)
	}
	if len(ids) == 0 {
		return ErrUnknown
	}
	a.revoked(ids...)
	return nil
}

func join(s []Scope) string {
	parts := make([]string, len(s))
	for i, v := range s {
		parts[i] = string(v)
	}
	return strings.Join(parts, " ")
}

func split(s string) []Scope {
	var out []Scope
	for _, v := range strings.Fields(s) {
		out = append(out, Scope(v))
	}
	return out
}
