//! What can go wrong in a statement, and what that means for whoever called.

use super::{DbError, StoreAnswer, StoreRefusal};
use sqlx::error::DatabaseError;
use std::sync::Arc;

/// Why an operation did not happen, while it can still be told what to do about it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client library or the database says so.
    Sql(sqlx::Error),
    /// There is no connection to the place that is named.
    Connect(Arc<str>, sqlx::Error),
    /// The data cannot be stored, seen before the database saw it.
    Data(String),
    /// A stored row that this build cannot read, or do anything with.
    Row(String),
    /// What came back is not what must come back.
    Defect(String),
    /// The service cannot be used as it is, for a reason that does not mend itself.
    Refused(String),
    /// The schema does not fit.
    Schema(String),
    /// Somebody else is in the way, again and again.
    Busy(String),
    /// Nothing is wrong, but it is not to be written: an answer, on its way out of a transaction that is dropped.
    Refusal(StoreRefusal),
}

impl From<StoreRefusal> for Fault {
    fn from(refusal: StoreRefusal) -> Fault {
        Fault::Refusal(refusal)
    }
}

/// A refusal is an answer.
pub(super) fn answered<T>(result: Result<T, Fault>) -> Result<StoreAnswer<T>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refusal(refusal)) => Ok(Err(refusal)),
        Err(fault) => Err(fault),
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<crate::task::IllegalTransition> for Fault {
    fn from(error: crate::task::IllegalTransition) -> Fault {
        Fault::Row(error.to_string())
    }
}

/// What kind of fault a database's error code tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// This row, and only this.
    Data,
    /// Another transaction was in the way; the same call may work at once.
    Contention,
    /// It may work later.
    Unavailable,
    /// The statement was cancelled by its time-out.
    TimedOut,
    /// It cannot mend itself.
    Refused,
    /// A table is missing.
    Schema,
    /// A statement that the database does not take.
    Defect,
}

impl Fault {
    /// Whether the row's own data is the cause.
    pub fn is_about_data(&self) -> bool {
        matches!(self, Fault::Data(_) | Fault::Row(_)) || self.class() == Some(Class::Data)
    }

    /// The same, as it came from reading one stored row: a cell without a meaning is a fault of that row alone.
    pub fn of_row(self) -> Fault {
        match self {
            Fault::Defect(text) => Fault::Row(text),
            Fault::Sql(error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))) => {
                Fault::Row(error.to_string())
            }
            other => other,
        }
    }

    /// Whether the same call may work at once.
    pub fn is_contention(&self) -> bool {
        self.class() == Some(Class::Contention)
    }

    /// Whether a lock was not given in time, or only to one of those that waited for each other.
    pub fn is_lock_wait(&self) -> bool {
        match self {
            Fault::Sql(sqlx::Error::Database(error)) => matches!(error.code().as_deref(), Some("55P03" | "40P01")),
            _ => false,
        }
    }

    /// Whether the connection is gone: whether the statement was carried out is not known.
    pub fn is_connection_lost(&self) -> bool {
        use sqlx::Error as E;
        match self {
            Fault::Sql(E::Io(_) | E::Tls(_) | E::Protocol(_) | E::BeginFailed) => true,
            // The server ends the session: `admin_shutdown`, `crash_shutdown`, `idle_session_timeout`,
            // `idle_in_transaction_session_timeout` (appendix A of the Postgres manual).
            Fault::Sql(E::Database(error)) => {
                matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P05" | "25P03"))
            }
            _ => false,
        }
    }

    /// Whether the database could not do it for reasons of its own: a full disk, an I/O error, a connection that is gone.
    pub fn is_outage(&self) -> bool {
        use sqlx::Error as E;
        matches!(self, Fault::Sql(E::Io(_) | E::Protocol(_) | E::WorkerCrashed))
            || matches!(self.class(), Some(Class::Unavailable | Class::TimedOut))
    }

    /// The reason alone, for an answer about one row.
    pub fn reason(&self) -> String {
        match self {
            Fault::Sql(error) => reason_of(error),
            Fault::Connect(place, error) => format!("no connection to {place}: {}", reason_of(error)),
            Fault::Row(text) => format!("this build cannot use the stored row: {text}"),
            Fault::Data(text)
            | Fault::Defect(text)
            | Fault::Schema(text)
            | Fault::Refused(text)
            | Fault::Busy(text) => text.clone(),
            Fault::Refusal(refusal) => format!("{refusal:?}"),
        }
    }

    fn class(&self) -> Option<Class> {
        match self {
            Fault::Sql(sqlx::Error::Database(error)) | Fault::Connect(_, sqlx::Error::Database(error)) => {
                Some(classify(error.as_ref()))
            }
            _ => None,
        }
    }
}

impl From<Fault> for DbError {
    fn from(fault: Fault) -> DbError {
        use sqlx::Error as E;
        let reason = fault.reason();
        if let Some(class) = fault.class() {
            return match class {
                Class::Contention | Class::Unavailable => DbError::Unavailable(reason),
                Class::TimedOut => DbError::TimedOut(reason),
                Class::Refused => DbError::Refused(format!("the database refuses: {reason}")),
                Class::Schema => {
                    DbError::Schema(format!("{reason}: the schema is missing or incomplete; run `agentry migrate`"))
                }
                Class::Data | Class::Defect => DbError::Defect(reason),
            };
        }
        match fault {
            Fault::Sql(E::Configuration(_)) | Fault::Connect(_, E::Configuration(_)) => DbError::Refused(reason),
            Fault::Connect(_, E::Tls(_) | E::Io(_)) if untrusted(&reason).is_some() => {
                DbError::Refused(format!("{reason}{}", untrusted(&reason).unwrap_or_default()))
            }
            // A name that does not resolve is not told apart from one that does not resolve yet: services start in any
            // order, and their names with them.
            Fault::Connect(..)
            | Fault::Sql(
                E::Io(_)
                | E::Tls(_)
                | E::Protocol(_)
                | E::PoolTimedOut
                | E::PoolClosed
                | E::WorkerCrashed
                | E::BeginFailed,
            ) => DbError::Unavailable(reason),
            Fault::Busy(_) => DbError::Unavailable(reason),
            Fault::Schema(_) => DbError::Schema(reason),
            Fault::Refused(_) => DbError::Refused(reason),
            Fault::Sql(_) | Fault::Data(_) | Fault::Row(_) | Fault::Defect(_) | Fault::Refusal(_) => {
                DbError::Defect(reason)
            }
        }
    }
}

/// The database's own words without the client library's frame around them.
fn reason_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => format!("{}{}", error.message(), remedy(error.as_ref())),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The remedy for a certificate or a server that TLS cannot be spoken with; none of it mends itself.
fn untrusted(reason: &str) -> Option<&'static str> {
    match () {
        () if reason.contains("UnknownIssuer") || reason.contains("BadSignature") => {
            Some("; name the PEM file of the server's authority as sslrootcert in database.url")
        }
        () if reason.contains("not valid for name") || reason.contains("NotValidForName") => {
            Some("; write a name that the server's certificate is for in database.url, or issue it for this one")
        }
        () if reason.contains("CaUsedAsEndEntity") => {
            Some("; the server shows the certificate of an authority: let that authority issue another one for it")
        }
        () if reason.contains("does not support TLS") => {
            Some("; turn on ssl at the server, or write another sslmode in database.url")
        }
        () => None,
    }
}

/// The remedy for what Postgres or a pooler in front of it says, where its own words have none.
fn remedy(error: &dyn DatabaseError) -> &'static str {
    match (error.code().as_deref(), error.message()) {
        (Some("08P01"), text) if text.contains("unsupported startup parameter") => {
            "; a pooler stands in between: remove options from database.url, or name the parameter in PgBouncer's ignore_startup_parameters"
        }
        (Some("08P01"), text) if text.contains("statement pooling") => {
            "; a pooler in statement mode stands in between: use session mode (PgBouncer: pool_mode = session)"
        }
        (Some("26000" | "42P05"), text) if text.contains("prepared statement") => {
            "; a pooler in transaction mode stands in between: use session mode (PgBouncer: pool_mode = session)"
        }
        (Some("53300"), _) => {
            "; a daemon opens up to database.pool + 10 connections: raise the limit of the role, of the database or of the server \
             (max_connections), or lower database.pool"
        }
        _ => "",
    }
}

fn classify(error: &dyn DatabaseError) -> Class {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        // A pooler's own errors have this code, whatever they are about.
        let words = [
            "unsupported startup parameter",
            "no such database",
            "no such user",
            "statement pooling",
            "SSL required",
            "does not exist",
            "authentication failed",
        ];
        match &*code {
            "08P01" if words.iter().any(|words| error.message().contains(words)) => Class::Refused,
            code => of_postgres(code),
        }
    } else {
        match code.parse().unwrap_or(1) {
            // SQLite has no code of its own for it.
            1 if error.message().starts_with("no such table") => Class::Schema,
            code => of_sqlite(code),
        }
    }
}

/// SQLSTATE, appendix A of the Postgres manual.
fn of_postgres(code: &str) -> Class {
    match code {
        "40001" | "40P01" => Class::Contention,
        "42P01" | "3F000" => Class::Schema,
        "42501" | "3D000" => Class::Refused,
        "57014" => Class::TimedOut,
        // Lock time-out, read-only (a standby, or a full disk under some operators), a transaction whose process was stopped.
        "55P03" | "25006" | "25P03" => Class::Unavailable,
        // One plan for two shapes, after a migration: a new connection will do.
        "0A000" => Class::Unavailable,
        _ => match code.get(..2).unwrap_or_default() {
            "22" | "23" | "54" => Class::Data,
            "28" => Class::Refused,
            "08" | "53" | "57" | "58" => Class::Unavailable,
            _ => Class::Defect,
        },
    }
}

/// Result codes of SQLite; the low byte is the primary one.
fn of_sqlite(code: i32) -> Class {
    match code & 0xff {
        18..=20 => Class::Data,                                          // TOOBIG, CONSTRAINT, MISMATCH
        4 | 5 | 6 | 7 | 8 | 9 | 10 | 13 | 15 | 17 => Class::Unavailable, // ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR FULL PROTOCOL SCHEMA
        3 | 11 | 14 | 23 | 26 => Class::Refused,                         // PERM CORRUPT CANTOPEN AUTH NOTADB
        _ => Class::Defect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_whose_fault_it_is() {
        for (code, class) in [
            ("22021", Class::Data),
            ("23514", Class::Data),
            ("40P01", Class::Contention),
            ("57014", Class::TimedOut),
            ("57P01", Class::Unavailable),
            ("53100", Class::Unavailable),
            ("25006", Class::Unavailable),
            ("25P03", Class::Unavailable),
            ("28P01", Class::Refused),
            ("3D000", Class::Refused),
            ("42P01", Class::Schema),
            ("42601", Class::Defect),
            ("", Class::Defect),
        ] {
            assert_eq!(of_postgres(code), class, "{code}");
        }
        for (code, class) in [
            (5, Class::Unavailable),
            (13, Class::Unavailable),
            (275, Class::Data),
            (26, Class::Refused),
            (1, Class::Defect),
        ] {
            assert_eq!(of_sqlite(code), class, "{code}");
        }
    }

    #[test]
    fn only_what_may_work_later_is_transient() {
        assert!(DbError::from(Fault::Sql(sqlx::Error::PoolTimedOut)).is_transient());
        assert!(!DbError::from(Fault::Schema("x".into())).is_transient());
        assert!(!DbError::from(Fault::Defect("x".into())).is_transient());
    }
}
