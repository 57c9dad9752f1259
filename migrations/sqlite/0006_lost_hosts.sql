-- min-build: 0.1.0
-- What tells a dead host from one that is only late, and a guilty task from its neighbours.
ALTER TABLE tasks ADD COLUMN kill_at TEXT; -- past this the attempt's host is wedged, whatever its lease says
ALTER TABLE tasks ADD COLUMN child_losses INTEGER NOT NULL DEFAULT 0 CHECK (child_losses >= 0); -- children of the isolation lane that died of it

-- A lease that its host (or the next owner of its data folder) has ended, as against one that has lapsed.
ALTER TABLE hosts ADD COLUMN ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1));

-- Asked for while it ran, and it waits again: next to nothing is in here.
CREATE INDEX tasks_called_off ON tasks (id) WHERE cancel_requested AND state IN ('scheduled', 'pending', 'retrying');
