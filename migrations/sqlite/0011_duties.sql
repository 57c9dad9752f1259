-- min-build: 0.1.0
-- What duties look for again and again, apart from what they pass over. Next to nothing is in either.
-- Which plugins are waited for that no host serves, perhaps.
CREATE INDEX IF NOT EXISTS tasks_unserved ON tasks (plugin, waiting_since)
    WHERE state = 'pending' AND waiting_code IN ('no_plugin', 'plugin_broken');
-- Running tasks that are to end.
CREATE INDEX IF NOT EXISTS tasks_cancelling ON tasks (owner) WHERE state = 'running' AND cancel_requested;
