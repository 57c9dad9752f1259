//! From facts about the database to findings.

use super::super::{Check, count, size, span};
use crate::db::{
    ConnectionFacts, DbError, FileFacts, HolderFacts, SchemaFacts, SchemaVersion, ServerFacts, TableFacts,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

/// Connections that a daemon opens beside `database.pool`.
const BESIDES: i64 = 10;
/// Connections below which a daemon does not start.
const LEAST: i64 = 6;
/// A difference of clocks that is not worth a word.
const SKEW: TimeDelta = TimeDelta::seconds(2);
/// The age of a transaction that holds back vacuum for longer than any operation of a daemon takes.
const OLD: TimeDelta = TimeDelta::minutes(10);
/// Dead rows of a table that are worth a word, and the part of all rows that they are then.
const DEAD: (i64, i64) = (100_000, 5);
/// Length of the log of an embedded database that is worth a word.
const LOG: u64 = 1 << 30;

/// The way there. `service`: whether a daemon could work over it.
pub(in crate::doctor) fn connection(
    server: &Result<ServerFacts, DbError>,
    service: Result<(), String>,
    place: &str,
    origin: &str,
) -> Check {
    let name = "database.connection";
    let facts = match server {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = match error {
                DbError::Refused(_) | DbError::Schema(_) => {
                    format!(
                        "correct user, password, host and name of the database in {origin}, or create what is missing"
                    )
                }
                _ => format!("start its server, or correct {origin}"),
            };
            let facts = json!({"place": place});
            return Check::failed(name, format!("{place}: {error}"), remedy).with(facts);
        }
    };
    let tls = match facts.tls {
        Some(true) => ", TLS",
        Some(false) => ", without TLS",
        None => "",
    };
    let mut check = Check::new(name, format!("{}{tls}, {place}", facts.version)).with(json!({
        "place": place, "version": facts.version, "encoding": facts.encoding, "tls": facts.tls,
        "read_only": facts.read_only, "database": facts.database, "role": facts.role,
    }));
    if facts.read_only {
        check.fail(
            format!("{place} takes no writes: it is a standby, or default_transaction_read_only is on"),
            format!("name the primary in {origin}"),
        );
    }
    if !["UTF8", "UTF-8"].contains(&facts.encoding.as_str()) {
        check.fail(
            format!("the database {} has the encoding {}", facts.database, facts.encoding),
            "create another one with `CREATE DATABASE NAME ENCODING 'UTF8' TEMPLATE template0`, and name it in database.url",
        );
    }
    if let Err(why) = service {
        // Most of these name their remedy.
        check.fail(why, format!("follow the message, or correct {origin}"));
    }
    check
}

/// The schema against this build.
pub(in crate::doctor) fn schema(
    facts: Result<SchemaFacts, DbError>,
    fits: Result<SchemaVersion, DbError>,
    migrates: bool,
) -> Check {
    let name = "database.schema";
    let shown = match &facts {
        Ok(facts) => json!({"found": facts.found, "known": facts.known}),
        Err(_) => json!({}),
    };
    let by_up = if migrates { ", or start the daemon, which does it (database.migrate is true)" } else { "" };
    let migrate = format!("run `agentry migrate`{by_up}");
    match (fits, facts) {
        (Ok(version), Ok(facts)) if version > facts.known => {
            let text =
                format!("version {version} is newer than this build, which knows {} and is supported", facts.known);
            let mut check = Check::new(name, format!("version {version}")).with(shown);
            check.warn(text, "install the build that the other hosts have");
            check
        }
        (Ok(version), _) => Check::new(name, format!("version {version}")).with(shown),
        (Err(_), Ok(SchemaFacts { found: 0, known })) => {
            let text = format!("the schema is missing; this build needs version {known}");
            Check::failed(name, text, migrate).with(shown)
        }
        (Err(error), Ok(facts)) if facts.found < facts.known => {
            Check::failed(name, error.to_string(), migrate).with(shown)
        }
        (Err(error), Ok(_)) => {
            let remedy = "install a build that knows this schema, or name another place in database.schema";
            Check::failed(name, error.to_string(), remedy).with(shown)
        }
        (Err(error), Err(_)) => {
            let remedy = "name another place in database.schema or database.url, or restore it from a backup";
            Check::failed(name, error.to_string(), remedy)
        }
    }
}

/// The database's time, which was read between two times of this machine.
pub(in crate::doctor) fn clock(before: DateTime<Utc>, now: DateTime<Utc>, after: DateTime<Utc>) -> Check {
    // Between the two times every difference is possible.
    let ahead = if now < before { now - before } else { (now - after).max(TimeDelta::zero()) };
    let mut check = Check::new("database.clock", "agrees with this machine")
        .with(json!({"skew_ms": ahead.num_milliseconds(), "asked_in_ms": (after - before).num_milliseconds()}));
    if ahead.abs() > SKEW {
        let side = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
        let by = span(ahead.abs());
        check.summary = format!("{by} {side} this machine");
        check.warn(
            format!("the database's clock is {by} {side} this machine's"),
            "let a time service set both (`timedatectl`); leases and due times follow the database, times of logs and calls this machine",
        );
    }
    check
}

/// Connections that are left, against those of one more daemon.
pub(in crate::doctor) fn connections_left(facts: Option<ConnectionFacts>, pool: i64) -> Check {
    let name = "database.connections";
    let Some(facts) = facts else { return Check::skipped(name, "an embedded database has no connections to share") };
    let needed = pool + BESIDES;
    let limits = [
        (Some(facts.of_server), facts.used, "the server (max_connections)"),
        (facts.of_role, facts.used_by_role, "the user (ALTER ROLE … CONNECTION LIMIT)"),
        (facts.of_database, facts.used_by_database, "the database (ALTER DATABASE … CONNECTION LIMIT)"),
    ];
    let left = limits.into_iter().filter_map(|(limit, used, of)| Some((limit? - used, limit?, of)));
    let (left, limit, of) = left.min_by_key(|(left, ..)| *left).unwrap_or((i64::MAX, i64::MAX, ""));
    let mut check = Check::new(name, format!("{left} of {limit} left, a daemon opens up to {needed}")).with(json!({
        "used": facts.used, "used_by_role": facts.used_by_role, "used_by_database": facts.used_by_database,
        "max": facts.of_server, "max_of_role": facts.of_role, "max_of_database": facts.of_database, "left": left,
        "daemon_opens": needed,
    }));
    let remedy = format!("raise the limit of {of}, end connections that are not needed, or lower database.pool");
    let text = format!(
        "{left} of {limit} connections of {of} are left, and a daemon opens up to {needed} (database.pool and 10 more)"
    );
    if left < LEAST {
        check.fail(text, remedy);
    } else if left < needed {
        check.warn(format!("{text}; a further daemon may find none"), remedy);
    }
    check
}

/// Sizes, and dead rows that no vacuum frees.
pub(in crate::doctor) fn tables_of(tables: &[TableFacts], now: DateTime<Utc>) -> Check {
    let bytes = |table: &TableFacts| u64::try_from(table.bytes + table.index_bytes).unwrap_or_default();
    let total: u64 = tables.iter().map(bytes).sum();
    let largest = tables.iter().max_by_key(|table| bytes(table));
    let summary = largest.map_or_else(
        || "no tables".to_owned(),
        |table| format!("{} in all, {} {}", size(total), table.table, size(bytes(table))),
    );
    let listed: Vec<_> = tables
        .iter()
        .map(|t| {
            json!({
                "table": t.table, "rows": t.rows, "bytes": t.bytes, "index_bytes": t.index_bytes, "dead": t.dead,
                "vacuumed_at": t.vacuumed_at,
            })
        })
        .collect();
    let mut check = Check::new("database.tables", summary).with(json!({"bytes": total, "tables": listed}));
    for table in tables {
        let (most, part) = DEAD;
        let Some(dead) = table.dead.filter(|dead| *dead > most && *dead > table.rows / part) else { continue };
        let last = match table.vacuumed_at {
            Some(at) => format!("the last vacuum was {} ago", span(now - at)),
            None => "no vacuum is recorded".to_owned(),
        };
        check.warn(
            format!("the table {} has {dead} dead rows beside {}; {last}", table.table, table.rows.max(0)),
            format!("run `VACUUM (ANALYZE) {}`, see database.transactions for what holds vacuum back, and check that autovacuum is on", table.table),
        );
    }
    check
}

/// Indexes that an interrupted build left.
pub(in crate::doctor) fn indexes_of(invalid: &[String], schema: &str) -> Check {
    let summary = if invalid.is_empty() { "all are valid".into() } else { format!("{} invalid", invalid.len()) };
    let mut check = Check::new("database.indexes", summary).with(json!({"invalid": invalid}));
    for index in invalid {
        check.warn(
            format!("the index {index} is invalid: its build was interrupted, and no statement uses it"),
            format!("run `REINDEX INDEX CONCURRENTLY {schema}.{index}`"),
        );
    }
    check
}

/// Transactions and slots that keep dead rows in their tables.
pub(in crate::doctor) fn holders_of(holders: &[HolderFacts]) -> Check {
    let listed: Vec<_> = holders
        .iter()
        .map(|h| json!({"kind": h.kind, "name": h.name, "detail": h.detail, "age_seconds": h.age_seconds}))
        .collect();
    let oldest = holders.iter().filter_map(|holder| holder.age_seconds).max();
    let summary = match oldest {
        Some(age) => format!("the oldest began {} ago", span(TimeDelta::seconds(age))),
        None => "none is open".to_owned(),
    };
    let mut check = Check::new("database.transactions", summary).with(json!({"oldest": listed}));
    let is_old = |holder: &&HolderFacts| holder.age_seconds.is_none_or(|age| TimeDelta::seconds(age) > OLD);
    for holder in holders.iter().filter(is_old) {
        let HolderFacts { kind, name, detail, age_seconds } = holder;
        let age = age_seconds.map(|age| format!(" for {}", span(TimeDelta::seconds(age)))).unwrap_or_default();
        let remedy = match kind.as_str() {
            "session" => format!(
                "end it, with `SELECT pg_terminate_backend({})` if it does not end by itself",
                name.trim_start_matches("process ")
            ),
            "prepared transaction" => format!("`COMMIT PREPARED '{name}'` or `ROLLBACK PREPARED '{name}'`"),
            _ => format!("let its standby connect, or `SELECT pg_drop_replication_slot('{name}')`"),
        };
        check.warn(format!("the {kind} {name} ({detail}) holds back vacuum{age}"), remedy);
    }
    check
}

/// The file of an embedded database.
pub(in crate::doctor) fn file(facts: &FileFacts, damage: Result<Vec<String>, String>, place: &str) -> Check {
    let FileFacts { bytes, free_bytes, log_bytes } = *facts;
    let checked = damage.is_ok();
    let summary = format!("{}, log {}", size(bytes), size(log_bytes));
    let mut check = Check::new("database.file", summary).with(json!({
        "file": place, "bytes": bytes, "free_bytes": free_bytes, "log_bytes": log_bytes, "checked": checked,
    }));
    match damage {
        Ok(lines) if lines.is_empty() => {}
        Ok(lines) => {
            let found = count(i64::try_from(lines.len()).unwrap_or(i64::MAX), "fault", "faults");
            check.fail(
                format!("{place} is damaged ({found}): {}", lines.join("; ")),
                "stop the daemon, keep a copy of the file, and restore it from a backup or with `sqlite3 FILE .recover`",
            );
        }
        Err(why) => check.skip(
            format!("the check of the file did not end ({why})"),
            Some("run `sqlite3 FILE 'PRAGMA quick_check'` at a quiet time"),
        ),
    }
    if log_bytes > LOG {
        check.warn(
            format!("the log beside {place} has {}", size(log_bytes)),
            "end the program that reads the file for a long time; the daemon then empties the log",
        );
    }
    check
}
