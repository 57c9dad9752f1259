-- min-build: 0.1.0
-- What is remembered for capabilities: the calls of attempts, what plugins keep, and what was spent. No foreign keys, as in
-- the history.
CREATE TABLE task_calls (
    task_id        text    NOT NULL,
    fence          integer NOT NULL,   -- the claim
    seq            integer NOT NULL,   -- from 1 within the claim
    at             text    NOT NULL,   -- when it began, by the host's clock
    attempt        integer NOT NULL,
    capability     text    NOT NULL,
    operation      text    NOT NULL,
    target         text    NOT NULL,
    duration_us    integer NOT NULL,
    request_bytes  integer NOT NULL,
    response_bytes integer NOT NULL,
    result         text    NOT NULL,
    detail         text,               -- JSON
    PRIMARY KEY (task_id, fence, seq),
    CONSTRAINT call_belongs_to_a_claim CHECK (fence >= 1 AND attempt >= 1 AND seq >= 1),
    CONSTRAINT call_counts_fit CHECK (duration_us >= 0 AND request_bytes >= 0 AND response_bytes >= 0)
) STRICT, WITHOUT ROWID;

-- What calls sent and were answered, where the operator asked for it (`calls.bodies`). A table of its own, so that lists of
-- calls stay small; with row ids, since large rows have no place in an index.
CREATE TABLE task_call_bodies (
    task_id             text    NOT NULL,
    fence               integer NOT NULL,
    seq                 integer NOT NULL,   -- the call
    request_body_bytes  integer,            -- how long it was; null: there is none
    response_body_bytes integer,
    request_body        blob,               -- its beginning, or all of it
    response_body       blob,
    PRIMARY KEY (task_id, fence, seq),
    CONSTRAINT body_has_a_length CHECK ((request_body IS NULL) = (request_body_bytes IS NULL)
        AND (response_body IS NULL) = (response_body_bytes IS NULL)),
    CONSTRAINT body_is_no_longer_than_it_was CHECK (length(request_body) <= request_body_bytes
        AND length(response_body) <= response_body_bytes)
) STRICT;

-- How much a plugin keeps, counted with every write.
CREATE TABLE stores (
    plugin   text    NOT NULL PRIMARY KEY,
    keys     integer NOT NULL DEFAULT 0,    -- in all its buckets
    bytes    integer NOT NULL DEFAULT 0,    -- of these keys and their values
    memories integer NOT NULL DEFAULT 0,    -- entries in all its memories
    CONSTRAINT store_counts_fit CHECK (keys >= 0 AND bytes >= 0 AND memories >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE buckets (
    id         integer NOT NULL PRIMARY KEY AUTOINCREMENT,  -- in whose order keys are listed
    plugin     text    NOT NULL,
    bucket     text    NOT NULL,
    key        text    NOT NULL,
    value      blob    NOT NULL,
    updated_at text    NOT NULL,
    UNIQUE (plugin, bucket, key)
) STRICT;

CREATE INDEX buckets_listed ON buckets (plugin, bucket, id);

-- The words are made by the daemon (one for the memory, then those of the text in lower case, without accents, separated by
-- spaces), so that search means the same here
-- and in Postgres.
CREATE TABLE memories (
    number   integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    id       text    NOT NULL UNIQUE,
    plugin   text    NOT NULL,
    memory   text    NOT NULL,
    text     text    NOT NULL,
    metadata text    NOT NULL,   -- a JSON object, byte for byte
    at       text    NOT NULL,
    digest   blob    NOT NULL,   -- of text and metadata: the same is remembered once
    words    text    NOT NULL,
    UNIQUE (plugin, memory, digest),
    CONSTRAINT digest_is_sha256 CHECK (length(digest) = 32)
) STRICT;

CREATE INDEX memories_newest ON memories (plugin, memory, at DESC, number DESC);

-- The index of the words; its rows are written and deleted together with those of `memories`. What is forgotten does not
-- stay in it either.
CREATE VIRTUAL TABLE memory_words USING fts5 (words, content = 'memories', content_rowid = 'number',
    tokenize = 'unicode61 remove_diacritics 2');
INSERT INTO memory_words (memory_words, rank) VALUES ('secure-delete', 1);

-- What was used of allowances that outlast a run. A day is a day in UTC.
CREATE TABLE spending (
    plugin text    NOT NULL,
    day    text    NOT NULL,
    kind   text    NOT NULL,
    used   integer NOT NULL DEFAULT 0,
    PRIMARY KEY (plugin, day, kind),
    CONSTRAINT spending_fits CHECK (used >= 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX spending_old ON spending (day);

CREATE TABLE task_spending (
    task_id text    NOT NULL,
    kind    text    NOT NULL,
    used    integer NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, kind),
    CONSTRAINT task_spending_fits CHECK (used >= 0)
) STRICT, WITHOUT ROWID;
