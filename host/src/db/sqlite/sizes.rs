//! How large the tables are.

use super::super::TableSize;
use super::super::fault::Fault;
use super::super::rows;
use sqlx::{SqliteConnection, query};

statements! {
    /// Counted: a file is small enough, and keeps no estimates. The index of the words counts with
    /// the memories. What is deleted leaves free pages, and no dead rows.
    SIZES = "WITH counted(name, row_count) AS (
        SELECT 'tasks', count(*) FROM tasks UNION ALL SELECT 'task_events', count(*) FROM task_events
        UNION ALL SELECT 'task_attempts', count(*) FROM task_attempts UNION ALL SELECT 'task_logs', count(*) FROM task_logs
        UNION ALL SELECT 'outbox', count(*) FROM outbox UNION ALL SELECT 'hosts', count(*) FROM hosts
        UNION ALL SELECT 'dead_letters', count(*) FROM dead_letters UNION ALL SELECT 'task_calls', count(*) FROM task_calls
        UNION ALL SELECT 'task_call_bodies', count(*) FROM task_call_bodies
        UNION ALL SELECT 'stores', count(*) FROM stores UNION ALL SELECT 'buckets', count(*) FROM buckets
        UNION ALL SELECT 'memories', count(*) FROM memories UNION ALL SELECT 'spending', count(*) FROM spending
        UNION ALL SELECT 'task_spending', count(*) FROM task_spending
        UNION ALL SELECT 'brakes', count(*) FROM brakes UNION ALL SELECT 'audit', count(*) FROM audit
    ), measured AS (
        SELECT CASE WHEN m.tbl_name LIKE 'memory\\_words\\_%' ESCAPE '\\' THEN 'memories' ELSE m.tbl_name END AS name,
            sum(d.pgsize) AS bytes FROM dbstat d JOIN sqlite_master m ON m.name = d.name WHERE d.aggregate = 1 GROUP BY 1
    )
    SELECT c.name, c.row_count, COALESCE(m.bytes, 0) AS bytes, CAST(NULL AS integer) AS dead
    FROM counted c LEFT JOIN measured m ON m.name = c.name ORDER BY bytes DESC, c.name";
}

pub(super) async fn sizes(connection: &mut SqliteConnection) -> Result<Vec<TableSize>, Fault> {
    let rows = query(SIZES).fetch_all(connection).await?;
    rows.iter().map(rows::size).collect()
}
