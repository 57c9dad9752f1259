-- min-build: 0.1.0
-- Brakes of operators. One that holds keeps tasks of its target from beginning. One that was released keeps its row: time under it is no time
-- in which a task waited for its plugin in vain.
CREATE TABLE brakes (
    kind        TEXT    NOT NULL,                       -- queue, plugin, host
    target      TEXT    NOT NULL,                       -- a queue; NAME or NAME@VERSION of a plugin; the id of a host
    actor       TEXT    NOT NULL,                       -- who set it: the name of a token, or 'local'
    reason      TEXT,
    set_at      TEXT    NOT NULL,
    released_at TEXT,                                   -- null: it holds
    change      INTEGER NOT NULL,                       -- the number of its last change, among those of all brakes
    PRIMARY KEY (kind, target)
) STRICT;

-- What operators changed. Neither secrets nor payloads.
CREATE TABLE audit (
    id     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at     TEXT    NOT NULL,
    actor  TEXT    NOT NULL,                            -- the name of a token, or 'local'
    action TEXT    NOT NULL,
    target TEXT    NOT NULL,
    count  INTEGER,                                     -- of what was meant; null: not known beforehand
    reason TEXT
) STRICT;
CREATE INDEX audit_at ON audit (at);

ALTER TABLE hosts ADD COLUMN brakes INTEGER;            -- the last change that it heeds; null: a build that heeds none
