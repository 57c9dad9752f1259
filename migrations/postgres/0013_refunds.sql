-- min-build: 0.1.0
-- What the last run of a task spent, so that the next can return it if that run was interrupted. A daemon of an earlier build
-- adds to `used` alone: what it spends is not returned.
ALTER TABLE task_spending
    ADD COLUMN fence    bigint,                     -- the claim that spent last; null: of an earlier build
    ADD COLUMN of_run   bigint NOT NULL DEFAULT 0,  -- the part of `used` that it spent
    ADD COLUMN refunded bigint NOT NULL DEFAULT 0,  -- taken off `used` for interrupted runs so far
    ADD CONSTRAINT refunds_fit CHECK (of_run >= 0 AND refunded >= 0);
