//! How large the tables are.

use super::super::TableSize;
use super::super::fault::Fault;
use super::super::rows;
use super::super::schema::TABLES;
use sqlx::{PgConnection, query};

statements! {
    /// Estimates: nothing is counted, however large a table is.
    SIZES = "SELECT c.relname::text AS name, c.reltuples::bigint AS row_count,
            pg_total_relation_size(c.oid)::bigint AS bytes, pg_stat_get_dead_tuples(c.oid)::bigint AS dead
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND c.relname::text = ANY($1) ORDER BY bytes DESC, name";
}

pub(super) async fn sizes(connection: &mut PgConnection) -> Result<Vec<TableSize>, Fault> {
    let tables: Vec<String> = TABLES.iter().map(|table| (*table).to_owned()).collect();
    let rows = query(SIZES).bind(tables).fetch_all(connection).await?;
    rows.iter().map(rows::size).collect()
}
