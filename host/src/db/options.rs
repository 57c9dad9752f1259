//! How a database is connected to.

use super::DbError;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Settings of a connection to either database.
#[derive(Clone, Debug)]
pub struct DbOptions {
    /// Connections for the path of tasks, at most; others beside them have their own (SQLite: readers; there is one writer).
    pub max_connections: u32,
    /// `database.timeout_seconds`: how long one operation may take, the wait for a connection included.
    pub timeout: Duration,
    /// `database.schema`; Postgres alone has schemas.
    pub schema: SchemaName,
    /// `agentry/BUILD/HOST/PID`, as `pg_stat_activity` shows it.
    pub name: String,
}

impl Default for DbOptions {
    fn default() -> Self {
        DbOptions {
            max_connections: 8,
            timeout: Duration::from_secs(10),
            schema: SchemaName::default(),
            name: "agentry".into(),
        }
    }
}

/// A Postgres schema's name that needs no care: lower-case letters, digits and underscores, at most 63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SchemaName {
    fn default() -> Self {
        SchemaName("agentry".into())
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SchemaName {
    type Err = DbError;

    fn from_str(text: &str) -> Result<Self, DbError> {
        let bytes = text.as_bytes();
        let good = (1..=63).contains(&bytes.len())
            && (bytes[0].is_ascii_lowercase() || bytes[0] == b'_')
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
            && !text.starts_with("pg_");
        if good {
            Ok(SchemaName(text.to_owned()))
        } else {
            Err(DbError::Refused(format!(
                "database.schema is {text:?}; it must be a lower-case letter or underscore, then at most 62 lower-case \
                 letters, digits or underscores, and not begin with pg_"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_that_would_need_quoting_is_refused_by_name() {
        for bad in ["", "A", "a-b", "a b", "1a", "a\"b", "pg_x", &"a".repeat(64)] {
            let error = bad.parse::<SchemaName>().unwrap_err().to_string();
            assert!(error.contains("database.schema"), "{bad:?}: {error}");
        }
        for good in ["agentry", "_a1", &"a".repeat(63)] {
            assert_eq!(good.parse::<SchemaName>().unwrap().as_str(), good);
        }
    }
}
