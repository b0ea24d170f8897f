-- +goose Up
-- The prefixes of what a conference's phones may have called, separated by blanks; empty: no limit.
ALTER TABLE conferences ADD COLUMN dial_limit TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE conferences DROP COLUMN dial_limit;
