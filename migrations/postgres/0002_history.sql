-- min-build: 0.1.0
-- What happened to a task: append-only. No foreign keys: each would lock the task's row once more per line, and the
-- pruner deletes a task's lines in the transaction that deletes the task.
CREATE TABLE task_events (
    task_id uuid        NOT NULL,
    seq     bigint      NOT NULL,   -- from 1, without gaps
    at      timestamptz NOT NULL,
    event   text        NOT NULL,
    attempt bigint,
    fence   bigint,
    host    uuid,
    digest  text,
    detail  text,                   -- JSON
    PRIMARY KEY (task_id, seq),
    CONSTRAINT seq_starts_at_one CHECK (seq >= 1),
    CONSTRAINT event_is_known CHECK (event IN ('scheduled', 'pending', 'parked', 'running', 'taken_over', 'retrying',
        'snoozed', 'interrupted', 'completed', 'failed', 'cancelled'))
);

CREATE TABLE task_attempts (
    task_id     uuid        NOT NULL,
    fence       bigint      NOT NULL,   -- the claim: attempt numbers repeat after a snooze or a lost host
    attempt     bigint      NOT NULL,
    host        uuid        NOT NULL,
    build       text,
    version     text,
    digest      text,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    ended       text        NOT NULL,
    failure     text,                   -- JSON
    usage       text,                   -- JSON; null: nobody lived to tell
    PRIMARY KEY (task_id, fence),
    CONSTRAINT fence_is_a_claim CHECK (fence >= 1 AND attempt >= 1),
    CONSTRAINT end_is_known CHECK (ended IN ('retrying', 'snoozed', 'interrupted', 'completed', 'failed', 'cancelled',
        'host_lost'))
);

CREATE TABLE task_logs (
    task_id uuid        NOT NULL,
    seq     bigint      NOT NULL,   -- from 1 over all attempts
    at      timestamptz NOT NULL,   -- the host's clock
    attempt bigint      NOT NULL,
    stream  text        NOT NULL,
    level   text        NOT NULL,
    logger  text        NOT NULL,
    message text        NOT NULL,
    cut     boolean     NOT NULL,
    PRIMARY KEY (task_id, seq),
    CONSTRAINT seq_starts_at_one CHECK (seq >= 1)
);
