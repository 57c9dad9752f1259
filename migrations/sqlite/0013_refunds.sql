-- min-build: 0.1.0
-- What the last run of a task spent, so that the next can return it if that run was interrupted. A daemon of an earlier build
-- adds to `used` alone: what it spends is not returned.
ALTER TABLE task_spending ADD COLUMN fence integer;  -- the claim that spent last; null: of an earlier build
-- The part of `used` that it spent.
ALTER TABLE task_spending ADD COLUMN of_run integer NOT NULL DEFAULT 0 CHECK (of_run >= 0);
-- Taken off `used` for interrupted runs so far.
ALTER TABLE task_spending ADD COLUMN refunded integer NOT NULL DEFAULT 0 CHECK (refunded >= 0);
