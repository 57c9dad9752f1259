-- min-build: 0.1.0
-- The reply to a task's producer: due once the task has ended, until it is published. Tasks from before this step get none.
ALTER TABLE tasks ADD COLUMN reply_due timestamptz; -- not before; null: published, or never
ALTER TABLE tasks ALTER COLUMN reply_due SET DEFAULT '1970-01-01T00:00:00Z';
