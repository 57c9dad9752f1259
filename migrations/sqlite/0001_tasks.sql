-- min-build: 0.1.0
-- One mutable row per task. The CHECKs mirror the state machine of host/src/task/state.rs; a test holds the two together.
-- Ids are lower-case hyphenated text; times are text in UTC with six digits of a second, so that they sort and read
-- (2030-01-01T00:00:00.000000Z).
-- input and output are JSON text, byte for byte (jsonb would reorder and refuse). labels, options, failure and
-- waiting_detail are JSON text of the daemon's own making.
CREATE TABLE tasks (
    id               text        NOT NULL PRIMARY KEY,
    plugin           text        NOT NULL,              -- as asked: name or name@requirement
    plugin_name      text        NOT NULL,
    version          text,                              -- the last attempt's
    digest           text,                              -- the last attempt's
    queue            text        NOT NULL,
    state            text        NOT NULL,
    input            text,                              -- null: the message was unusable
    output           text,
    failure          text,                              -- the last one; kept until the task completes
    fingerprint      blob,                              -- over plugin, input, options; null: the message was unusable
    max_attempts     integer     NOT NULL,
    burnt            integer     NOT NULL DEFAULT 0,    -- attempts used up
    attempt          integer     NOT NULL DEFAULT 0,    -- the last attempt's number
    snoozes          integer     NOT NULL DEFAULT 0,
    host_losses      integer     NOT NULL DEFAULT 0,
    fence            integer     NOT NULL DEFAULT 0,    -- grows with every claim, never reset
    owner            text,                              -- the last claim's host
    cancel_requested integer     NOT NULL DEFAULT 0,
    priority         integer     NOT NULL DEFAULT 0,
    labels           text        NOT NULL DEFAULT '{}',
    options          text        NOT NULL DEFAULT '{}', -- canonical, so that the message can be made again
    reply_to         text,
    correlation_id   text,
    traceparent      text,
    run_at           text,
    deadline         text,
    created_at       text        NOT NULL,
    started_at       text,                              -- the last claim
    finished_at      text,
    waiting_code     text,                              -- on a pending row: what it is parked for
    waiting_detail   text,
    waiting_since    text,
    retry_of         text,
    last_seq         integer     NOT NULL DEFAULT 1,    -- the last row in task_events
    log_seq          integer     NOT NULL DEFAULT 0,    -- the last row in task_logs
    rescued_at       text,                              -- when it was last put up for a take-over

    CONSTRAINT state_is_known CHECK
        (state IN ('scheduled', 'pending', 'running', 'retrying', 'completed', 'failed', 'cancelled')),
    CONSTRAINT running_is_owned CHECK
        (state <> 'running' OR (owner IS NOT NULL AND started_at IS NOT NULL AND fence > 0 AND attempt > 0)),
    CONSTRAINT an_end_has_its_time CHECK
        ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT only_completed_has_output CHECK ((state = 'completed') = (output IS NOT NULL)),
    CONSTRAINT completed_has_no_failure CHECK (state <> 'completed' OR failure IS NULL),
    CONSTRAINT failing_says_why CHECK (state NOT IN ('failed', 'retrying') OR failure IS NOT NULL),
    CONSTRAINT later_says_when CHECK (state NOT IN ('scheduled', 'retrying') OR run_at IS NOT NULL),
    CONSTRAINT waiting_says_since_when CHECK
        ((state IN ('scheduled', 'pending', 'retrying')) = (waiting_since IS NOT NULL)),
    CONSTRAINT waiting_says_why CHECK (CASE state
        WHEN 'scheduled' THEN waiting_code IS NOT NULL AND waiting_code IN ('scheduled', 'snoozed')
        WHEN 'retrying' THEN waiting_code IS NOT NULL AND waiting_code = 'backoff'
        WHEN 'pending' THEN waiting_code IS NULL OR waiting_code IN ('not_published', 'unroutable', 'no_consumer',
            'no_plugin', 'plugin_broken', 'paused', 'queued', 'no_slot', 'held', 'isolation')
        ELSE waiting_code IS NULL END),
    CONSTRAINT counters_fit CHECK (burnt >= 0 AND attempt >= burnt AND snoozes >= 0 AND host_losses >= 0
        AND fence >= 0 AND last_seq >= 1 AND log_seq >= 0),
    CONSTRAINT options_in_range CHECK (max_attempts BETWEEN 1 AND 100 AND priority BETWEEN 0 AND 9),
    CONSTRAINT fingerprint_is_sha256 CHECK (fingerprint IS NULL OR length(fingerprint) = 32)
) STRICT;

-- Few and partial: a task on its way from running to completed is in the primary key and in one of these at a time.
CREATE INDEX tasks_running ON tasks (owner) WHERE state = 'running';
CREATE INDEX tasks_due ON tasks (run_at) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX tasks_expiring ON tasks (deadline)
    WHERE deadline IS NOT NULL AND state IN ('scheduled', 'pending', 'retrying');
CREATE INDEX tasks_parked ON tasks (plugin_name, priority DESC, created_at, id)
    WHERE state = 'pending' AND waiting_code IS NOT NULL;
CREATE INDEX tasks_completed ON tasks (finished_at) WHERE state = 'completed';
CREATE INDEX tasks_not_completed ON tasks (finished_at) WHERE state IN ('failed', 'cancelled');
CREATE INDEX tasks_failed ON tasks (id) WHERE state = 'failed';
