//! The database: the way there, the schema, the clock, the room that is left, and what holds it up.

mod judge;

pub(super) use judge::*;

use super::{Check, PATIENCE, Status, within};
use crate::config::{Services, Settings};
use crate::daemon::{self, Examined};
use crate::db::{DbError, Examiner};
use chrono::Utc;
use std::sync::Arc;

/// Checks that need the connection.
const BEHIND: [&str; 7] = [
    "database.schema",
    "database.clock",
    "database.connections",
    "database.tables",
    "database.indexes",
    "database.transactions",
    "database.file",
];

/// The database, or the reason why there is none.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    /// It may respond.
    There(Examined),
    /// It is embedded, and no daemon has made it yet.
    NotYet,
    /// Its address cannot be used.
    Unusable(String),
}

/// Connects to nothing yet.
pub(super) fn open(settings: &Settings) -> Opened {
    match daemon::examined(settings) {
        Ok(Some(examined)) => Opened::There(examined),
        Ok(None) => Opened::NotYet,
        Err(error) => Opened::Unusable(error.to_string()),
    }
}

/// Asks on a task of its own: an operation must not be dropped half-way.
pub(super) async fn ask<T, A>(examined: &Examined, question: impl FnOnce(Arc<dyn Examiner>) -> A) -> Result<T, DbError>
where
    T: Send + 'static,
    A: Future<Output = Result<T, DbError>> + Send + 'static,
{
    match within(PATIENCE, tokio::spawn(question(examined.examiner.clone()))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(DbError::Defect(error.to_string())),
        Err(late) => Err(DbError::Unavailable(late)),
    }
}

pub(super) async fn checks(settings: &Settings, opened: &Opened) -> Vec<Check> {
    let name = "database.connection";
    let behind = |reason: &str| BEHIND.map(|name| Check::skipped(name, reason));
    let examined = match opened {
        Opened::There(examined) => examined,
        Opened::NotYet => {
            let mut check = Check::new(name, "");
            let place = settings.data.dir.display();
            check.skip(
                format!("there is no embedded database in {place} yet"),
                Some("`agentry up` makes it; if one is expected, check data.dir"),
            );
            return [vec![check], behind("there is no database yet").into()].concat();
        }
        Opened::Unusable(why) => {
            let check = Check::failed(name, why.clone(), "correct database.url, database.schema or data.dir");
            return [vec![check], behind("the database cannot be connected to").into()].concat();
        }
    };
    let origin = match settings.services() {
        Services::Embedded => format!("data.dir ({})", settings.origin("data.dir")),
        Services::External { .. } => format!("database.url ({})", settings.origin("database.url")),
    };
    let (connected, schema, clock, rest) = tokio::join!(
        connected(examined, &origin),
        schema_of(settings, examined),
        clock_of(examined),
        rest(settings, examined)
    );
    let connection = match connected {
        Ok(check) => check,
        Err(check) => return [check].into_iter().chain(behind("the database does not respond")).collect(),
    };
    let fits = schema.status != Status::Failed;
    let rest = rest.into_iter().map(|check| match check.name {
        "database.tables" if !fits => Check::skipped(check.name, "the schema does not fit"),
        _ => check,
    });
    [connection, schema, clock].into_iter().chain(rest).collect()
}

/// The way there; the error is the check of one that leads nowhere.
async fn connected(examined: &Examined, origin: &str) -> Result<Check, Check> {
    let db = examined.db.clone();
    let service = within(PATIENCE, tokio::spawn(async move { db.check_service().await }));
    let (server, service) = tokio::join!(ask(examined, |e| async move { e.server().await }), service);
    let service = match service {
        Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(late) => Err(late),
    };
    let check = connection(&server, service, &examined.place, origin);
    if server.is_ok() { Ok(check) } else { Err(check) }
}

/// What the server and the tables say of themselves.
async fn rest(settings: &Settings, examined: &Examined) -> Vec<Check> {
    let (connections, tables, indexes, holders, file) = tokio::join!(
        ask(examined, |e| async move { e.connections().await }),
        ask(examined, |e| async move { e.tables().await }),
        ask(examined, |e| async move { e.invalid_indexes().await }),
        ask(examined, |e| async move { e.holders().await }),
        file_of(examined),
    );
    let pool = i64::from(settings.database.pool);
    vec![
        or_skipped("database.connections", connections, |facts| connections_left(facts, pool)),
        or_skipped("database.tables", tables, |facts| tables_of(&facts, Utc::now())),
        or_skipped("database.indexes", indexes, |facts| indexes_of(&facts, &settings.database.schema)),
        or_skipped("database.transactions", holders, |facts| holders_of(&facts)),
        file,
    ]
}

/// A question that was not answered is not a fault of what it is about.
pub(super) fn or_skipped<T>(name: &'static str, answer: Result<T, DbError>, judge: impl FnOnce(T) -> Check) -> Check {
    match answer {
        Ok(facts) => judge(facts),
        Err(error) => {
            let mut check = Check::new(name, "");
            check.skip(
                error.to_string(),
                Some("the user of database.url may lack the right to read it, or the database is busy"),
            );
            check
        }
    }
}

async fn schema_of(settings: &Settings, examined: &Examined) -> Check {
    let db = examined.db.clone();
    let fits = within(PATIENCE, tokio::spawn(async move { db.check_schema().await }));
    let (facts, fits) = tokio::join!(ask(examined, |e| async move { e.schema().await }), fits);
    match fits {
        Ok(Ok(fits)) => schema(facts, fits, settings.database.migrate),
        Ok(Err(error)) => Check::failed("database.schema", error.to_string(), "run it again"),
        Err(late) => Check::failed("database.schema", late, "see what locks the tables (pg_locks), and run it again"),
    }
}

async fn clock_of(examined: &Examined) -> Check {
    let db = examined.db.clone();
    let before = Utc::now();
    let asked = within(PATIENCE, tokio::spawn(async move { db.ping().await })).await;
    let after = Utc::now();
    match asked {
        Ok(Ok(Ok(now))) => clock(before, now, after),
        Ok(Ok(Err(error))) => Check::skipped("database.clock", error.to_string()),
        Ok(Err(error)) => Check::skipped("database.clock", error.to_string()),
        Err(late) => Check::skipped("database.clock", late),
    }
}

async fn file_of(examined: &Examined) -> Check {
    let name = "database.file";
    let (facts, damage) = tokio::join!(
        ask(examined, |e| async move { e.file().await }),
        ask(examined, |e| async move { e.damage().await })
    );
    or_skipped(name, facts, |facts| match facts {
        None => Check::skipped(name, "a server keeps the files"),
        Some(facts) => file(&facts, damage.map_err(|error| error.to_string()), &examined.place),
    })
}
