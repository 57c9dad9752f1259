//! A bounded look for tasks that wait.

use super::super::fault::Fault;
use super::super::waiting::collect;
use super::super::{WaitingLook, WaitingNow};
use super::hosts;
use sqlx::{SqliteConnection, query};

statements! {
    /// As in Postgres, but that of each plugin for which tasks are parked the first one is read. The indexes are named: SQLite chooses a
    /// plan before it knows what a table holds; so is the order of the join, by CROSS. The first condition repeats that of the index, which SQLite would not infer.
    WAITING = "WITH RECURSIVE names(plugin_name) AS (
        SELECT min(plugin_name) FROM tasks INDEXED BY tasks_parked WHERE state = 'pending' AND waiting_code IS NOT NULL
        UNION ALL
        SELECT (SELECT min(t.plugin_name) FROM tasks t INDEXED BY tasks_parked WHERE t.state = 'pending'
            AND t.waiting_code IS NOT NULL AND t.plugin_name > n.plugin_name) FROM names n WHERE n.plugin_name IS NOT NULL
    ), found AS (
        SELECT id FROM (SELECT id FROM tasks INDEXED BY tasks_of_state
            WHERE state IN ('scheduled', 'pending', 'retrying', 'failed', 'cancelled') AND state = 'pending'
            ORDER BY created_at, id LIMIT ?1)
        UNION
        SELECT (SELECT t.id FROM tasks t INDEXED BY tasks_parked WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL
            AND t.plugin_name = n.plugin_name ORDER BY t.priority DESC, t.created_at, t.id LIMIT 1)
            FROM (SELECT plugin_name FROM names WHERE plugin_name IS NOT NULL LIMIT ?2) n
        UNION
        SELECT task_id FROM (SELECT task_id FROM outbox ORDER BY due_at LIMIT ?1)
    )
    SELECT t.id, t.queue, t.state, t.waiting_code, t.waiting_since, t.waiting_detail, t.run_at,
        o.task_id IS NOT NULL AS in_outbox, o.reason AS outbox_reason
    FROM found f CROSS JOIN tasks t ON t.id = f.id LEFT JOIN outbox o ON o.task_id = t.id WHERE t.state = 'pending'";
    OUTBOX = "SELECT (SELECT min(due_at) FROM outbox) AS due,
        (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?1)) AS counted";
}

pub(super) async fn waiting(connection: &mut SqliteConnection, look: WaitingLook) -> Result<WaitingNow, Fault> {
    let outbox = query(OUTBOX).bind(look.outbox).fetch_one(&mut *connection).await?;
    let found = query(WAITING).bind(look.rows).bind(look.plugins).fetch_all(&mut *connection).await?;
    collect(hosts::ping(connection).await?, &outbox, &found)
}
