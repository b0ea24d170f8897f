-- +goose Up
-- When the process that has calls was last known to live: what a call ends with that it took with it.
CREATE TABLE alive (
	id INTEGER PRIMARY KEY CHECK (id = 1),
	at INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE alive;
