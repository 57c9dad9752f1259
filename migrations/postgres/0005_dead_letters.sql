-- min-build: 0.1.0
-- Unusable messages, as they came.
CREATE TABLE dead_letters (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    reason       text        NOT NULL,
    detail       text        NOT NULL,
    queue        text        NOT NULL,
    task_id      uuid,
    plugin       text,
    body         bytea       NOT NULL,
    properties   text        NOT NULL,  -- JSON
    content_hash bytea       NOT NULL   -- over queue, body and the properties that a redelivery keeps
);

CREATE INDEX dead_letters_content ON dead_letters (content_hash);
CREATE INDEX dead_letters_at ON dead_letters (at);
