-- min-build: 0.1.0
-- What happened to a task: append-only. No foreign keys, as in Postgres: the pruner deletes a task's lines in the
-- transaction that deletes the task.
CREATE TABLE task_events (
    task_id text        NOT NULL,
    seq     integer     NOT NULL,   -- from 1, without gaps
    at      text        NOT NULL,
    event   text        NOT NULL,
    attempt integer,
    fence   integer,
    host    text,
    digest  text,
    detail  text,                   -- JSON
    PRIMARY KEY (task_id, seq),
    CONSTRAINT seq_starts_at_one CHECK (seq >= 1),
    CONSTRAINT event_is_known CHECK (event IN ('scheduled', 'pending', 'parked', 'running', 'taken_over', 'retrying',
        'snoozed', 'interrupted', 'completed', 'failed', 'cancelled'))
) STRICT, WITHOUT ROWID;

CREATE TABLE task_attempts (
    task_id     text        NOT NULL,
    fence       integer     NOT NULL,   -- the claim: attempt numbers repeat after a snooze or a lost host
    attempt     integer     NOT NULL,
    host        text        NOT NULL,
    build       text,
    version     text,
    digest      text,
    started_at  text        NOT NULL,
    finished_at text        NOT NULL,
    ended       text        NOT NULL,
    failure     text,                   -- JSON
    usage       text,                   -- JSON; null: nobody lived to tell
    PRIMARY KEY (task_id, fence),
    CONSTRAINT fence_is_a_claim CHECK (fence >= 1 AND attempt >= 1),
    CONSTRAINT end_is_known CHECK (ended IN ('retrying', 'snoozed', 'interrupted', 'completed', 'failed', 'cancelled',
        'host_lost'))
) STRICT, WITHOUT ROWID;

CREATE TABLE task_logs (
    task_id text        NOT NULL,
    seq     integer     NOT NULL,   -- from 1 over all attempts
    at      text        NOT NULL,   -- the host's clock
    attempt integer     NOT NULL,
    stream  text        NOT NULL,
    level   text        NOT NULL,
    logger  text        NOT NULL,
    message text        NOT NULL,
    cut     integer     NOT NULL,
    PRIMARY KEY (task_id, seq),
    CONSTRAINT seq_starts_at_one CHECK (seq >= 1)
) STRICT, WITHOUT ROWID;
