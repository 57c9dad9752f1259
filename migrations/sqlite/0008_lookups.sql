-- min-build: 0.1.0
-- What operators look for in large tables.
-- The letter that a redriven task was made of: it holds that task's input, and is erased with it.
CREATE INDEX dead_letters_redriven ON dead_letters (redriven_as) WHERE redriven_as IS NOT NULL;

-- What waits, page by page. A task that is first seen as a delivery never is in here.
CREATE INDEX tasks_waiting ON tasks (state, id) WHERE state IN ('scheduled', 'pending', 'retrying');
