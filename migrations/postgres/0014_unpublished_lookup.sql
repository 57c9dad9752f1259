-- min-build: 0.1.0
-- no-transaction
-- What is still to be published. Apart from the column, whose step locks the table.
CREATE INDEX CONCURRENTLY IF NOT EXISTS dead_letters_unpublished ON dead_letters (queue, publish_at) WHERE publish_at IS NOT NULL;
