-- +goose Up
-- Times are nanoseconds since the Unix epoch, UTC. Tokens and keys are kept as their
-- SHA-256 only: they have 256 random bits, so there is nothing to guess from it.
CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL COLLATE NOCASE UNIQUE,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'organiser', 'viewer')),
    password   TEXT NOT NULL, -- argon2id, PHC string
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_expiry ON sessions (expires_at);
CREATE INDEX sessions_of_account ON sessions (account_id);

CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY,
    key_hash      BLOB NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    account_id    TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    scopes        TEXT NOT NULL, -- separated by blanks
    dial_prefixes TEXT NOT NULL, -- separated by blanks; empty: no limit
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER
) STRICT;
CREATE INDEX api_keys_of_account ON api_keys (account_id);

-- +goose Down
DROP TABLE api_keys;
DROP TABLE sessions;
DROP TABLE accounts;
