-- min-build: 0.1.0
-- Lists, newest first, by each of their filters. Tasks are ordered by their creation, and by id where times are equal: ids alone are
-- no order of time. The indexes tasks_waiting and tasks_failed serve older builds, and go in a later release.
CREATE INDEX IF NOT EXISTS tasks_newest ON tasks (created_at, id);
CREATE INDEX IF NOT EXISTS tasks_of_plugin ON tasks (plugin_name, created_at, id);
CREATE INDEX IF NOT EXISTS tasks_of_queue ON tasks (queue, created_at, id) WHERE queue <> 'default';
CREATE INDEX IF NOT EXISTS tasks_of_state ON tasks (state, created_at, id)
    WHERE state IN ('scheduled', 'pending', 'retrying', 'failed', 'cancelled');
CREATE INDEX IF NOT EXISTS tasks_of_kind ON tasks (failure ->> '$.kind', created_at, id) WHERE failure IS NOT NULL;
-- SQLite has no index over the labels of a task: those of all labelled ones are compared.
CREATE INDEX IF NOT EXISTS tasks_labelled ON tasks (created_at, id) WHERE labels <> '{}';
-- Runs of `agentry bench`, by their label: those that have ended are deleted by it, and the others are cancelled.
CREATE INDEX IF NOT EXISTS tasks_of_bench ON tasks (labels ->> '$."agentry-bench"', created_at, id)
    WHERE labels <> '{}' AND labels ->> '$."agentry-bench"' IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_of_bench_open ON tasks (labels ->> '$."agentry-bench"', created_at, id)
    WHERE labels <> '{}' AND labels ->> '$."agentry-bench"' IS NOT NULL AND finished_at IS NULL;
