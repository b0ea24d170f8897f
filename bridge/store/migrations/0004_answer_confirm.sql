-- +goose Up
-- Who is called and answers must press 1 before he is in.
ALTER TABLE conferences ADD COLUMN answer_confirm INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE conferences DROP COLUMN answer_confirm;
