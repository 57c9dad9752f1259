//! Reading a row's cells alike from both databases.

use super::fault::Fault;
use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A row, whichever database it came from. `Ok(None)`: null.
pub(super) trait Cells {
    fn id(&self, column: &'static str) -> Result<Option<Uuid>, Fault>;
    fn time(&self, column: &'static str) -> Result<Option<DateTime<Utc>>, Fault>;
    fn text(&self, column: &'static str) -> Result<Option<String>, Fault>;
    fn int(&self, column: &'static str) -> Result<Option<i64>, Fault>;
    fn flag(&self, column: &'static str) -> Result<bool, Fault>;
    fn bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, Fault>;

    /// A count that fits.
    fn count(&self, column: &'static str) -> Result<u32, Fault> {
        let value = need(self.int(column)?, column)?;
        u32::try_from(value).map_err(|_| Fault::Defect(format!("{column} is {value}")))
    }
}

/// A cell that must not be null.
pub(super) fn need<T>(cell: Option<T>, column: &'static str) -> Result<T, Fault> {
    cell.ok_or_else(|| Fault::Defect(format!("{column} is null")))
}

/// Text that must read as something.
pub(super) fn parsed<T>(
    text: Option<String>,
    column: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Fault> {
    let text = need(text, column)?;
    parse(&text).ok_or_else(|| Fault::Defect(format!("{column} is {text:?}, which this build does not know")))
}

/// A time as SQLite stores it: text of one length, so that it sorts.
pub(super) fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

macro_rules! plain {
    () => {
        fn text(&self, column: &'static str) -> Result<Option<String>, Fault> {
            Ok(self.try_get(column)?)
        }
        fn int(&self, column: &'static str) -> Result<Option<i64>, Fault> {
            Ok(self.try_get(column)?)
        }
        fn flag(&self, column: &'static str) -> Result<bool, Fault> {
            Ok(self.try_get(column)?)
        }
        fn bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, Fault> {
            Ok(self.try_get(column)?)
        }
    };
}

impl Cells for PgRow {
    plain!();
    fn id(&self, column: &'static str) -> Result<Option<Uuid>, Fault> {
        Ok(self.try_get(column)?)
    }
    fn time(&self, column: &'static str) -> Result<Option<DateTime<Utc>>, Fault> {
        Ok(self.try_get(column)?)
    }
}

impl Cells for SqliteRow {
    plain!();
    fn id(&self, column: &'static str) -> Result<Option<Uuid>, Fault> {
        let text: Option<String> = self.try_get(column)?;
        text.map(|t| t.parse().map_err(|e| Fault::Defect(format!("{column} is {t:?}: {e}")))).transpose()
    }
    fn time(&self, column: &'static str) -> Result<Option<DateTime<Utc>>, Fault> {
        let text: Option<String> = self.try_get(column)?;
        text.map(|t| t.parse().map_err(|e| Fault::Defect(format!("{column} is {t:?}: {e}")))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_sort_as_their_times_do() {
        let times =
            ["0001-01-01T00:00:00Z", "2029-12-31T23:59:59.999999Z", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z"];
        let stamps: Vec<_> = times.iter().map(|t| stamp(t.parse().unwrap())).collect();
        assert!(stamps.is_sorted(), "{stamps:?}");
        assert!(stamps.iter().all(|s| s.len() == stamps[0].len()));
    }
}
