-- +goose Up
-- Whoever was called and lost his call is called once more.
ALTER TABLE conferences ADD COLUMN rejoin INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE conferences DROP COLUMN rejoin;
