-- min-build: 0.1.0
-- no-transaction
-- Replies that are still to be published. Apart from the column, whose step locks the table.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_reply ON tasks (reply_due)
    WHERE reply_to IS NOT NULL AND reply_due IS NOT NULL AND state IN ('completed', 'failed', 'cancelled');
