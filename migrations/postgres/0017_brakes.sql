-- min-build: 0.1.0
-- Brakes of operators. One that holds keeps tasks of its target from beginning. One that was released keeps its row: time under it is no time
-- in which a task waited for its plugin in vain.
CREATE TABLE brakes (
    kind        text        NOT NULL,                   -- queue, plugin, host
    target      text        NOT NULL,                   -- a queue; NAME or NAME@VERSION of a plugin; the id of a host
    actor       text        NOT NULL,                   -- who set it: the name of a token, or 'local'
    reason      text,
    set_at      timestamptz NOT NULL,
    released_at timestamptz,                            -- null: it holds
    change      bigint      NOT NULL,                   -- the number of its last change, among those of all brakes
    PRIMARY KEY (kind, target)
);

-- What operators changed. Neither secrets nor payloads.
CREATE TABLE audit (
    id     bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL,
    actor  text        NOT NULL,                        -- the name of a token, or 'local'
    action text        NOT NULL,
    target text        NOT NULL,
    count  bigint,                                      -- of what was meant; null: not known beforehand
    reason text
);
CREATE INDEX audit_at ON audit (at);

ALTER TABLE hosts ADD COLUMN brakes bigint;             -- the last change that it heeds; null: a build that heeds none
