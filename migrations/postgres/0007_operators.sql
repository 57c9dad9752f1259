-- min-build: 0.1.0
-- What operators do to tasks that have ended: run again, deliver again, forget. All of it is added; nothing is taken away.
-- An erased task that had completed keeps the output `null`: output and state still go together.
ALTER TABLE tasks ADD COLUMN erased_at timestamptz;

-- Which tasks repeat this one: asked before it is repeated once more. Few tasks are in here.
CREATE INDEX tasks_retries ON tasks (retry_of, created_at) WHERE retry_of IS NOT NULL;

-- The id under which a letter is delivered again is written down before it is published: redriven_as without redriven_at
-- is a redrive that may have died in between.
ALTER TABLE dead_letters
    ADD COLUMN redrives    bigint NOT NULL DEFAULT 0,   -- those that were seen through
    ADD COLUMN redriven_as uuid,
    ADD COLUMN redriven_at timestamptz,
    ADD COLUMN erased_at   timestamptz,
    ADD CONSTRAINT redriven_says_as_what CHECK (redriven_at IS NULL OR redriven_as IS NOT NULL),
    ADD CONSTRAINT redrives_is_a_count CHECK (redrives >= 0);

CREATE INDEX dead_letters_task ON dead_letters (task_id) WHERE task_id IS NOT NULL;
