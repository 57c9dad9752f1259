-- min-build: 0.1.0
-- What is remembered for capabilities: the calls of attempts, what plugins keep, and what was spent. No foreign keys, as in
-- the history.
CREATE TABLE task_calls (
    task_id        uuid        NOT NULL,
    fence          bigint      NOT NULL,   -- the claim
    seq            bigint      NOT NULL,   -- from 1 within the claim
    at             timestamptz NOT NULL,   -- when it began, by the host's clock
    attempt        bigint      NOT NULL,
    capability     text        NOT NULL,
    operation      text        NOT NULL,
    target         text        NOT NULL,
    duration_us    bigint      NOT NULL,
    request_bytes  bigint      NOT NULL,
    response_bytes bigint      NOT NULL,
    result         text        NOT NULL,
    detail         text,                   -- JSON
    PRIMARY KEY (task_id, fence, seq),
    CONSTRAINT call_belongs_to_a_claim CHECK (fence >= 1 AND attempt >= 1 AND seq >= 1),
    CONSTRAINT call_counts_fit CHECK (duration_us >= 0 AND request_bytes >= 0 AND response_bytes >= 0)
);

-- What calls sent and were answered, where the operator asked for it (`calls.bodies`). A table of its own, so that lists of
-- calls stay small; bytes, since a body may hold any.
CREATE TABLE task_call_bodies (
    task_id             uuid   NOT NULL,
    fence               bigint NOT NULL,
    seq                 bigint NOT NULL,   -- the call
    request_body_bytes  bigint,            -- how long it was; null: there is none
    response_body_bytes bigint,
    request_body        bytea,             -- its beginning, or all of it
    response_body       bytea,
    PRIMARY KEY (task_id, fence, seq),
    CONSTRAINT body_has_a_length CHECK ((request_body IS NULL) = (request_body_bytes IS NULL)
        AND (response_body IS NULL) = (response_body_bytes IS NULL)),
    CONSTRAINT body_is_no_longer_than_it_was CHECK (octet_length(request_body) <= request_body_bytes
        AND octet_length(response_body) <= response_body_bytes)
);

-- How much a plugin keeps, counted with every write: whoever writes locks this row first, so that limits are exact.
CREATE TABLE stores (
    plugin   text   NOT NULL PRIMARY KEY,
    keys     bigint NOT NULL DEFAULT 0,    -- in all its buckets
    bytes    bigint NOT NULL DEFAULT 0,    -- of these keys and their values
    memories bigint NOT NULL DEFAULT 0,    -- entries in all its memories
    CONSTRAINT store_counts_fit CHECK (keys >= 0 AND bytes >= 0 AND memories >= 0)
);

CREATE TABLE buckets (
    id         bigint      GENERATED ALWAYS AS IDENTITY,  -- in whose order keys are listed
    plugin     text        NOT NULL,
    bucket     text        NOT NULL,
    key        text        NOT NULL,
    value      bytea       NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (plugin, bucket, key)
);

CREATE INDEX buckets_listed ON buckets (plugin, bucket, id);

-- The words are made by the daemon (one for the memory, then those of the text in lower case, without accents, separated by
-- spaces), so that search means the same here
-- and in SQLite and under every locale of the server. The configuration is `simple` because texts are of any language: it
-- neither stems nor leaves words out.
CREATE TABLE memories (
    id       uuid        NOT NULL PRIMARY KEY,
    plugin   text        NOT NULL,
    memory   text        NOT NULL,
    text     text        NOT NULL,
    metadata text        NOT NULL,   -- a JSON object, byte for byte
    at       timestamptz NOT NULL,
    digest   bytea       NOT NULL,   -- of text and metadata: the same is remembered once
    words    text        NOT NULL,
    found_by tsvector    GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple', words)) STORED,
    UNIQUE (plugin, memory, digest),
    CONSTRAINT digest_is_sha256 CHECK (octet_length(digest) = 32)
);

CREATE INDEX memories_found ON memories USING gin (found_by);
CREATE INDEX memories_newest ON memories (plugin, memory, at DESC, id DESC);

-- What was used of allowances that outlast a run. A day is a day in UTC.
CREATE TABLE spending (
    plugin text   NOT NULL,
    day    date   NOT NULL,
    kind   text   NOT NULL,
    used   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (plugin, day, kind),
    CONSTRAINT spending_fits CHECK (used >= 0)
);

CREATE INDEX spending_old ON spending (day);

CREATE TABLE task_spending (
    task_id uuid   NOT NULL,
    kind    text   NOT NULL,
    used    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, kind),
    CONSTRAINT task_spending_fits CHECK (used >= 0)
);
