//! A bounded look for tasks that wait.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::waiting::collect;
use super::super::{WaitingLook, WaitingNow};
use sqlx::{Connection, PgConnection, query};

statements! {
    /// For the transaction: rows are read in the order of an index, and no further than a limit. A bitmap or a sort reads all that wait
    /// before the first is known, and looks cheap while few are expected.
    ORDERED = "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)";
    /// Three short walks along indexes: the oldest of all that wait; of each plugin for which tasks are parked the first, which a backlog of
    /// older tasks does not hide; and the first of the outbox. Then each row by its id, whatever it is by now.
    WAITING = "WITH RECURSIVE names AS (
        (SELECT plugin_name FROM tasks WHERE state = 'pending' AND waiting_code IS NOT NULL ORDER BY plugin_name LIMIT 1)
        UNION ALL
        SELECT (SELECT t.plugin_name FROM tasks t WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL
            AND t.plugin_name > n.plugin_name ORDER BY t.plugin_name LIMIT 1) FROM names n WHERE n.plugin_name IS NOT NULL
    ), found AS (
        (SELECT id FROM tasks WHERE state = 'pending' ORDER BY created_at, id LIMIT $1)
        UNION
        (SELECT p.id FROM (SELECT plugin_name FROM names WHERE plugin_name IS NOT NULL LIMIT $2) n CROSS JOIN LATERAL (
            SELECT t.id FROM tasks t WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL AND t.plugin_name = n.plugin_name
            ORDER BY t.priority DESC, t.created_at, t.id LIMIT $3) p)
        UNION
        (SELECT task_id FROM outbox ORDER BY due_at LIMIT $1)
    )
    SELECT t.*, o.task_id IS NOT NULL AS in_outbox, o.reason AS outbox_reason
    FROM found f CROSS JOIN LATERAL (
        SELECT t.id, t.queue, t.state, t.waiting_code, t.waiting_since, t.waiting_detail, t.run_at
        FROM tasks t WHERE t.id = f.id OFFSET 0) t
    LEFT JOIN LATERAL (SELECT o.task_id, o.reason FROM outbox o WHERE o.task_id = f.id OFFSET 0) o ON true";
    OUTBOX = "SELECT statement_timestamp() AS now, (SELECT min(due_at) FROM outbox) AS due,
        (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) counted) AS counted";
}

pub(super) async fn waiting(connection: &mut PgConnection, look: WaitingLook) -> Result<WaitingNow, Fault> {
    let mut tx = connection.begin().await?;
    query(ORDERED).execute(&mut *tx).await?;
    let outbox = query(OUTBOX).bind(i64::from(look.outbox)).fetch_one(&mut *tx).await?;
    let (rows, plugins, of_plugin) = (i64::from(look.rows), i64::from(look.plugins), i64::from(look.of_plugin));
    let found = query(WAITING).bind(rows).bind(plugins).bind(of_plugin).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    collect(need(outbox.time("now")?, "now")?, &outbox, &found)
}
