-- +goose Up
-- Times are nanoseconds since the Unix epoch, UTC.
CREATE TABLE conferences (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    type       TEXT NOT NULL CHECK (type IN ('video', 'audio')),
    owner      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE event_seq (
    conference_id TEXT PRIMARY KEY REFERENCES conferences (id) ON DELETE CASCADE,
    seq           INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    id            TEXT PRIMARY KEY,
    conference_id TEXT NOT NULL REFERENCES conferences (id) ON DELETE CASCADE,
    number        TEXT NOT NULL,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('host', 'speaker', 'listener')),
    muted         INTEGER NOT NULL,
    video_muted   INTEGER NOT NULL,
    deaf          INTEGER NOT NULL,
    held          INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    UNIQUE (conference_id, number)
) STRICT;

-- Leg history outlives members and conferences: it is the call record.
CREATE TABLE legs (
    id            TEXT PRIMARY KEY,
    member_id     TEXT NOT NULL,
    conference_id TEXT NOT NULL,
    number        TEXT NOT NULL,
    attachment    TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    call_id       TEXT NOT NULL,
    icid          TEXT NOT NULL,
    started_at    INTEGER NOT NULL,
    connected_at  INTEGER,
    ended_at      INTEGER,
    doc           TEXT NOT NULL -- the whole leg with its timeline, JSON
) STRICT;
CREATE INDEX legs_of_member ON legs (member_id, id);
CREATE INDEX legs_live ON legs (id) WHERE ended_at IS NULL;

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    via        TEXT NOT NULL,
    remote     TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    result     TEXT NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);

-- +goose Down
DROP TABLE audit;
DROP TABLE legs;
DROP TABLE members;
DROP TABLE event_seq;
DROP TABLE conferences;
