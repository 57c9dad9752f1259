-- min-build: 0.1.0
-- What tells a dead host from one that is only late, and a guilty task from its neighbours.
ALTER TABLE tasks
    ADD COLUMN kill_at      timestamptz,                -- past this the attempt's host is wedged, whatever its lease says
    ADD COLUMN child_losses bigint NOT NULL DEFAULT 0,  -- children of the isolation lane that died of it
    ADD CONSTRAINT child_losses_is_a_count CHECK (child_losses >= 0);

-- A lease that its host (or the next owner of its data folder) has ended, as against one that has lapsed.
ALTER TABLE hosts ADD COLUMN ended boolean NOT NULL DEFAULT false;

-- Asked for while it ran, and it waits again: next to nothing is in here.
CREATE INDEX tasks_called_off ON tasks (id) WHERE cancel_requested AND state IN ('scheduled', 'pending', 'retrying');
