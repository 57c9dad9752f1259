-- min-build: 0.1.0
-- Unusable messages, as they came.
CREATE TABLE dead_letters (
    id           integer     NOT NULL PRIMARY KEY AUTOINCREMENT,
    at           text        NOT NULL,
    reason       text        NOT NULL,
    detail       text        NOT NULL,
    queue        text        NOT NULL,
    task_id      text,
    plugin       text,
    body         blob        NOT NULL,
    properties   text        NOT NULL,  -- JSON
    content_hash blob        NOT NULL   -- over queue, body and the properties that a redelivery keeps
) STRICT;

CREATE INDEX dead_letters_content ON dead_letters (content_hash);
CREATE INDEX dead_letters_at ON dead_letters (at);
