//! Which migrations exist, which were applied, and whether that fits this build. Pure; the databases apply them.

use super::SchemaVersion;
use super::fault::Fault;
use sha2::{Digest, Sha256};

/// The tables of the schema, in addition to [`VERSION_TABLE`]: what must be there after migrating, and what in an
/// otherwise unknown schema belongs to somebody else.
pub(super) const TABLES: [&str; 16] = [
    "tasks",
    "task_events",
    "task_attempts",
    "task_logs",
    "outbox",
    "hosts",
    "dead_letters",
    "task_calls",
    "task_call_bodies",
    "stores",
    "buckets",
    "memories",
    "spending",
    "task_spending",
    "brakes",
    "audit",
];
/// Where it is written down what was applied.
pub(super) const VERSION_TABLE: &str = "schema_version";
/// This build, as migrations name it.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Begin of a statement that makes an index.
const CREATE_INDEX: &str = "CREATE INDEX ";
/// The same of one that builds it beside running daemons.
const CONCURRENTLY: &str = "CREATE INDEX CONCURRENTLY IF NOT EXISTS ";

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    pub version: SchemaVersion,
    pub name: &'static str,
    pub sql: &'static str,
}

/// `zeros` fill the number of a file up to four digits.
macro_rules! migrations {
    ($folder:literal: $($zeros:literal $version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $folder, "/", $zeros, $version, "_", $name, ".sql")),
        }),*]
    };
}

/// Steps of the Postgres schema.
pub(super) const POSTGRES: &[Migration] = migrations!(
    "postgres": "000" 1 "tasks", "000" 2 "history", "000" 3 "outbox", "000" 4 "hosts", "000" 5 "dead_letters",
    "000" 6 "lost_hosts", "000" 7 "operators", "000" 8 "lookups", "000" 9 "capabilities", "00" 10 "lists", "00" 11 "duties",
    "00" 12 "unpublished_letters", "00" 13 "refunds", "00" 14 "unpublished_lookup",
    "00" 15 "replies", "00" 16 "replies_lookup", "00" 17 "brakes"
);
/// Steps of the SQLite schema: the same subjects under the same numbers.
pub(super) const SQLITE: &[Migration] = migrations!(
    "sqlite": "000" 1 "tasks", "000" 2 "history", "000" 3 "outbox", "000" 4 "hosts", "000" 5 "dead_letters",
    "000" 6 "lost_hosts", "000" 7 "operators", "000" 8 "lookups", "000" 9 "capabilities", "00" 10 "lists", "00" 11 "duties",
    "00" 12 "unpublished_letters", "00" 13 "refunds", "00" 14 "unpublished_lookup",
    "00" 15 "replies", "00" 16 "replies_lookup", "00" 17 "brakes"
);

impl Migration {
    /// The first line of its text: `-- min-build: X.Y.Z`, the oldest daemon that may run on the schema after it.
    pub fn min_build(&self) -> Result<&'static str, Fault> {
        self.sql
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("-- min-build: "))
            .map(str::trim)
            .ok_or_else(|| Fault::Defect(format!("migration {} does not begin with -- min-build", self.version)))
    }

    /// Whether it is applied in a transaction. The second line of one that is not is `-- no-transaction`: its statements build indexes
    /// beside running daemons.
    pub fn is_transactional(&self) -> bool {
        self.sql.lines().nth(1).map(str::trim) != Some("-- no-transaction")
    }

    /// Its text for a transaction. Builds of indexes are not concurrent in it, and an index that exists is kept: an operator may have
    /// built it before.
    pub fn in_transaction(&self) -> String {
        let plain = self.sql.replace(CONCURRENTLY, CREATE_INDEX);
        plain.replace("CREATE INDEX IF NOT EXISTS ", CREATE_INDEX).replace(CREATE_INDEX, "CREATE INDEX IF NOT EXISTS ")
    }

    /// Its statements, one by one, for a migration without a transaction.
    pub fn statements(&self) -> Vec<String> {
        let code: Vec<&str> = self.sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        code.join("\n").split(';').map(|statement| statement.trim().to_owned()).filter(|s| !s.is_empty()).collect()
    }

    /// Names of the indexes that it makes.
    pub fn indexes(&self) -> Vec<String> {
        let text = self.in_transaction();
        let after = text.split("CREATE INDEX IF NOT EXISTS ").skip(1);
        after.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// Tells whether an applied migration is the one in this build. Line ends do not count.
    pub fn checksum(&self) -> String {
        let text = self.sql.replace("\r\n", "\n");
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A row of the version table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Applied {
    pub version: SchemaVersion,
    pub name: String,
    pub checksum: String,
    pub min_build: String,
}

/// The version that was applied last; 0: none.
pub(super) fn version(applied: &[Applied]) -> SchemaVersion {
    applied.last().map_or(0, |a| a.version)
}

/// The migrations still to be applied; or why this build must keep its hands off. `applied` is in order.
pub(super) fn pending<'m>(known: &'m [Migration], applied: &[Applied], build: &str) -> Result<&'m [Migration], Fault> {
    for (row, migration) in applied.iter().zip(known) {
        if row.version != migration.version {
            return Err(Fault::Schema(format!(
                "the schema has migration {} where this build ({build}) has {}: it belongs to another program or lost a row \
                 of {VERSION_TABLE}",
                row.version, migration.version
            )));
        }
        if row.checksum != migration.checksum() {
            return Err(Fault::Schema(format!(
                "migration {} ({}) was applied with another text than this build ({build}) has; a published migration is \
                 never edited: run the build that applied it, or restore the schema",
                row.version, row.name
            )));
        }
    }
    let known_version = known.last().map_or(0, |m| m.version);
    for row in applied.iter().skip(known.len()) {
        if older(build, &row.min_build)? {
            return Err(Fault::Schema(format!(
                "the schema is at version {}, whose migration {} ({}) needs agentry {} or newer; this is agentry {build}, \
                 which knows version {known_version}: install a newer agentry",
                version(applied),
                row.version,
                row.name,
                row.min_build
            )));
        }
    }
    Ok(&known[applied.len().min(known.len())..])
}

/// What keeps this build from running on the schema as it stands.
pub(super) fn check(known: &[Migration], applied: &[Applied], build: &str) -> Result<SchemaVersion, Fault> {
    match pending(known, applied, build)?.last() {
        None => Ok(version(applied)),
        Some(last) => Err(Fault::Schema(format!(
            "the schema is at version {} and agentry {build} needs version {}: run `agentry migrate`, or let `up` do it \
             (database.migrate = true)",
            version(applied),
            last.version
        ))),
    }
}

/// Refuse a schema that holds tables of our names without saying which version they are.
pub(super) fn refuse_foreign(place: &str, found: &[String]) -> Result<(), Fault> {
    match found.iter().find(|table| TABLES.contains(&table.as_str())) {
        None => Ok(()),
        Some(table) => Err(Fault::Schema(format!(
            "{place} holds a table {table} but no {VERSION_TABLE}: it belongs to another program; name another place \
             (database.schema, database.url)"
        ))),
    }
}

/// After migrating: every table is really there.
pub(super) fn expect_tables(place: &str, found: &[String]) -> Result<(), Fault> {
    match TABLES.iter().find(|table| !found.iter().any(|f| f == *table)) {
        None => Ok(()),
        Some(table) => Err(Fault::Schema(format!(
            "{place} says it is migrated, and its table {table} is missing: restore it from a backup, or begin with an \
             empty one"
        ))),
    }
}

/// Release numbers alone count: a development build of a version is that version.
fn older(build: &str, than: &str) -> Result<bool, Fault> {
    let release = |text: &str| {
        semver::Version::parse(text)
            .map(|v| (v.major, v.minor, v.patch))
            .map_err(|e| Fault::Schema(format!("{text:?} is not a version of agentry: {e}")))
    };
    Ok(release(build)? < release(than)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { version: 1, name: "a", sql: "-- min-build: 0.1.0\nSELECT 1;" },
        Migration { version: 2, name: "b", sql: "-- min-build: 0.1.0\nSELECT 2;" },
    ];

    fn applied(of: &[Migration]) -> Vec<Applied> {
        of.iter()
            .map(|m| Applied {
                version: m.version,
                name: m.name.into(),
                checksum: m.checksum(),
                min_build: m.min_build().unwrap().into(),
            })
            .collect()
    }

    fn later(min_build: &str) -> Vec<Applied> {
        let mut rows = applied(KNOWN);
        let row = Applied { version: 3, name: "c".into(), checksum: String::new(), min_build: min_build.into() };
        rows.push(row);
        rows
    }

    fn refusal<T>(result: Result<T, Fault>) -> String {
        match result {
            Err(Fault::Schema(text)) => text,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("not refused"),
        }
    }

    #[test]
    fn what_was_applied_is_not_applied_again() {
        assert_eq!(pending(KNOWN, &[], "0.1.0").unwrap().len(), 2);
        assert_eq!(pending(KNOWN, &applied(&KNOWN[..1]), "0.1.0").unwrap()[0].version, 2);
        assert!(pending(KNOWN, &applied(KNOWN), "0.1.0").unwrap().is_empty());
    }

    #[test]
    fn a_newer_schema_is_refused_only_by_builds_that_it_no_longer_supports() {
        assert_eq!(check(KNOWN, &later("0.1.0"), "0.1.0").unwrap(), 3);
        assert_eq!(check(KNOWN, &later("0.2.0"), "0.2.0-dev").unwrap(), 3);
        let text = refusal(check(KNOWN, &later("0.4.0"), "0.1.0"));
        assert!(text.contains("0.4.0") && text.contains("0.1.0") && text.contains("version 3"), "{text}");
    }

    #[test]
    fn an_older_schema_is_refused_with_both_versions() {
        let text = refusal(check(KNOWN, &applied(&KNOWN[..1]), "0.1.0"));
        assert!(text.contains("version 1") && text.contains("version 2") && text.contains("agentry migrate"), "{text}");
    }

    #[test]
    fn a_migration_whose_text_changed_is_refused_by_name() {
        let mut rows = applied(KNOWN);
        rows[1].checksum = "0".into();
        let text = refusal(pending(KNOWN, &rows, "0.1.0"));
        assert!(text.contains("migration 2 (b)"), "{text}");
    }

    #[test]
    fn a_gap_in_what_was_applied_is_refused() {
        let rows = applied(&KNOWN[1..]);
        assert!(refusal(pending(KNOWN, &rows, "0.1.0")).contains("migration 2"));
    }

    #[test]
    fn every_migration_names_the_oldest_daemon_and_both_databases_have_the_same_subjects() {
        assert_eq!(POSTGRES.len(), SQLITE.len());
        assert!(POSTGRES.iter().map(|m| m.version).eq(1..=POSTGRES.len() as i64));
        for (postgres, sqlite) in POSTGRES.iter().zip(SQLITE) {
            assert_eq!((postgres.version, postgres.name), (sqlite.version, sqlite.name));
            for migration in [postgres, sqlite] {
                assert!(!older(BUILD, migration.min_build().unwrap()).unwrap());
            }
        }
    }

    #[test]
    fn migration_without_transaction_only_builds_indexes_that_may_exist() {
        let apart: Vec<&Migration> = POSTGRES.iter().filter(|m| !m.is_transactional()).collect();
        assert!(!apart.is_empty());
        for migration in apart {
            let statements = migration.statements();
            assert!(statements.iter().all(|s| s.starts_with(CONCURRENTLY) && !s.contains("--")), "{statements:#?}");
            let names: Vec<_> = statements.iter().map(|s| s[CONCURRENTLY.len()..].split(' ').next().unwrap()).collect();
            assert_eq!(migration.indexes(), names);
            assert!(!migration.in_transaction().contains("CONCURRENTLY"), "{}", migration.in_transaction());
        }
        // SQLite has neither other writers nor such builds.
        assert!(SQLITE.iter().all(Migration::is_transactional));
    }

    #[test]
    fn migration_keeps_an_index_that_was_built_before() {
        let text = POSTGRES[6].in_transaction();
        assert!(text.contains("CREATE INDEX IF NOT EXISTS tasks_retries ON"), "{text}");
        assert_eq!(POSTGRES[6].indexes(), ["tasks_retries", "dead_letters_task"]);
    }

    #[test]
    fn every_migration_in_the_folders_is_embedded() {
        for (folder, known) in [("postgres", POSTGRES), ("sqlite", SQLITE)] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
            let mut files: Vec<String> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".sql"))
                .collect();
            files.sort();
            let embedded: Vec<_> = known.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
            assert_eq!(files, embedded);
        }
    }
}
