-- min-build: 0.1.0
-- no-transaction
-- Lists, newest first, by each of their filters. Tasks are ordered by their creation, and by id where times are equal: ids alone are
-- no order of time. Every statement of this file builds one index beside running daemons.
-- The indexes tasks_waiting and tasks_failed serve older builds, and go in a later release.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_newest ON tasks (created_at, id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_plugin ON tasks (plugin_name, created_at, id);
-- Without the queue of most tasks, which are found among the newest.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_queue ON tasks (queue, created_at, id) WHERE queue <> 'default';
-- Without the states of most tasks. Those that run are found by tasks_running.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_state ON tasks (state, created_at, id)
    WHERE state IN ('scheduled', 'pending', 'retrying', 'failed', 'cancelled');
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_kind ON tasks ((failure::jsonb ->> 'kind'), created_at, id)
    WHERE failure IS NOT NULL;
-- Without the tasks of `agentry bench`, which have an index of their own below: an entry of either costs a task what a fourth of its row
-- does.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_labelled ON tasks USING gin ((labels::jsonb) jsonb_path_ops)
    WHERE labels <> '{}' AND labels !~ '^\{"agentry-bench":"[0-9a-f]{32}"\}$';
-- Runs of `agentry bench`, by their label: those that have ended are deleted by it, and the others are cancelled.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_bench ON tasks ((labels::jsonb ->> 'agentry-bench'), created_at, id)
    WHERE labels <> '{}' AND labels::jsonb ->> 'agentry-bench' IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_of_bench_open ON tasks ((labels::jsonb ->> 'agentry-bench'), created_at, id)
    WHERE labels <> '{}' AND labels::jsonb ->> 'agentry-bench' IS NOT NULL AND finished_at IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS dead_letters_of_reason ON dead_letters (reason, id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS dead_letters_of_queue ON dead_letters (queue, id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS dead_letters_waiting ON dead_letters (id)
    WHERE redriven_at IS NULL AND erased_at IS NULL;
