-- min-build: 0.1.0
-- Tasks that are to be published. One row per task; a relay holds it under a token until due_at, and deletes it by token.
CREATE TABLE outbox (
    task_id    uuid        NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL,
    due_at     timestamptz NOT NULL,            -- not before; while it is held: until then
    token      uuid,                            -- the holder's
    reason     text,                            -- why it could not be published last time
    deferred   bigint      NOT NULL DEFAULT 0,
    CONSTRAINT reason_is_known CHECK (reason IS NULL OR reason IN ('not_published', 'unroutable')),
    CONSTRAINT deferred_is_a_count CHECK (deferred >= 0)
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX outbox_due ON outbox (due_at);
