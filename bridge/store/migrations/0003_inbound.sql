-- +goose Up
-- How a conference is called into. A conference from before has no PIN; it gets one when
-- it is loaded.
ALTER TABLE conferences ADD COLUMN pin TEXT NOT NULL DEFAULT '';
ALTER TABLE conferences ADD COLUMN alias TEXT NOT NULL DEFAULT '';
ALTER TABLE conferences ADD COLUMN join_policy TEXT NOT NULL DEFAULT 'pin';
ALTER TABLE conferences ADD COLUMN who_may_refer TEXT NOT NULL DEFAULT 'creator';
ALTER TABLE conferences ADD COLUMN ad_hoc INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX conferences_pin ON conferences (pin) WHERE pin <> '';
CREATE UNIQUE INDEX conferences_alias ON conferences (alias) WHERE alias <> '';

-- +goose Down
DROP INDEX conferences_alias;
DROP INDEX conferences_pin;
ALTER TABLE conferences DROP COLUMN ad_hoc;
ALTER TABLE conferences DROP COLUMN who_may_refer;
ALTER TABLE conferences DROP COLUMN join_policy;
ALTER TABLE conferences DROP COLUMN alias;
ALTER TABLE conferences DROP COLUMN pin;
