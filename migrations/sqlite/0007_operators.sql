-- min-build: 0.1.0
-- What operators do to tasks that have ended: run again, deliver again, forget. All of it is added; nothing is taken away.
-- An erased task that had completed keeps the output `null`: output and state still go together.
ALTER TABLE tasks ADD COLUMN erased_at TEXT;

-- Which tasks repeat this one: asked before it is repeated once more. Few tasks are in here.
CREATE INDEX tasks_retries ON tasks (retry_of, created_at) WHERE retry_of IS NOT NULL;

-- The id under which a letter is delivered again is written down before it is published: redriven_as without redriven_at
-- is a redrive that may have died in between.
ALTER TABLE dead_letters ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0 CHECK (redrives >= 0); -- those that were seen through
ALTER TABLE dead_letters ADD COLUMN redriven_as TEXT;
ALTER TABLE dead_letters ADD COLUMN redriven_at TEXT CHECK (redriven_at IS NULL OR redriven_as IS NOT NULL);
ALTER TABLE dead_letters ADD COLUMN erased_at TEXT;

CREATE INDEX dead_letters_task ON dead_letters (task_id) WHERE task_id IS NOT NULL;
