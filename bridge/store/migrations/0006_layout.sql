-- +goose Up
-- What the phones see: mosaic or switched.
ALTER TABLE conferences ADD COLUMN layout TEXT NOT NULL DEFAULT 'mosaic';

-- +goose Down
ALTER TABLE conferences DROP COLUMN layout;
