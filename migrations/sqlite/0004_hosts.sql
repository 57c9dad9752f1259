-- min-build: 0.1.0
-- One row per host process, with its lease. A running task belongs to its owner for as long as that lease lasts.
CREATE TABLE hosts (
    id              text        NOT NULL PRIMARY KEY,   -- random per start
    name            text        NOT NULL,               -- agentry/BUILD/HOST/PID
    build           text        NOT NULL,
    settings_digest text        NOT NULL,
    queues          text        NOT NULL,               -- JSON array
    plugins         text        NOT NULL,               -- JSON array of name@version
    broken_plugins  text        NOT NULL,               -- JSON array of "name: cause"
    slots           integer     NOT NULL,
    busy            integer     NOT NULL,
    started_at      text        NOT NULL,
    renewed_at      text        NOT NULL,
    lease_until     text        NOT NULL
) STRICT;
