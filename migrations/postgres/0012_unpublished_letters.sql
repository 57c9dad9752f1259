-- min-build: 0.1.0
-- A dead letter is recorded and acknowledged before it is published to its dead-letter queue.
-- An earlier build publishes its letters itself, before it acknowledges them: null is right for those.
ALTER TABLE dead_letters ADD COLUMN publish_at timestamptz; -- not before; null: published
