//! The database under test, with a back door that understands the few statements of the suite.

use super::*;
use crate::db::conformance::{BackDoor, Subject};
use chrono::SubsecRound;

/// A fresh one.
pub(in crate::db) async fn subject() -> Subject {
    let db = MemoryDb::new(Arc::new(|| Utc::now().trunc_subsecs(6)));
    Subject { db: Box::new(db.clone()), back_door: Box::new(Door(db)) }
}

struct Door(MemoryDb);

/// `UPDATE table SET column = 'value', … [WHERE id = 'x' | WHERE column IS NOT NULL]`, as words.
struct Update<'a> {
    table: &'a str,
    set: Vec<(&'a str, &'a str)>,
    only: Option<&'a str>,
}

impl<'a> Update<'a> {
    fn parse(sql: &'a str) -> Option<Update<'a>> {
        let (table, rest) = sql.strip_prefix("UPDATE ")?.split_once(" SET ")?;
        let (set, which) = rest.split_once(" WHERE ").unwrap_or((rest, ""));
        let pair = |text: &'a str| {
            let (column, value) = text.split_once(" = ")?;
            Some((column.trim(), value.trim().trim_matches('\'')))
        };
        let set = set.split(", ").map(pair).collect::<Option<_>>()?;
        let only = pair(which).filter(|(column, _)| *column == "id").map(|(_, id)| id);
        (only.is_some() || which.is_empty() || which.ends_with(" IS NOT NULL")).then_some(Update { table, set, only })
    }

    fn concerns(&self, id: &str) -> bool {
        self.only.is_none_or(|only| only == id)
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

impl Door {
    fn update(&self, update: &Update<'_>) -> u64 {
        let mut tables = self.0.look();
        if update.table == "spending" {
            let day: chrono::NaiveDate = update.set[0].1.parse().unwrap();
            let moved = std::mem::take(&mut tables.spending);
            tables.spending = moved.into_iter().map(|((plugin, _, kind), used)| ((plugin, day, kind), used)).collect();
            return tables.spending.len() as u64;
        }
        let mut changed = 0;
        for (column, value) in &update.set {
            let at = time(value);
            changed = 0;
            match update.table {
                "tasks" => {
                    for task in tables.tasks.values_mut().filter(|task| update.concerns(&task.id.to_string())) {
                        match *column {
                            "run_at" => task.run_at = at,
                            "deadline" => task.deadline = at,
                            "started_at" => task.started_at = at,
                            "kill_at" => task.kill_at = at,
                            "waiting_since" => task.waiting_since = task.waiting_since.and(at),
                            "rescued_at" => task.rescued_at = task.rescued_at.and(at),
                            "created_at" => task.created_at = at.unwrap(),
                            "finished_at" => task.finished_at = at,
                            other => panic!("{other} cannot be set here"),
                        }
                        changed += 1;
                    }
                }
                "hosts" => {
                    for (id, host) in tables.hosts.iter_mut().filter(|(id, _)| update.concerns(&id.to_string())) {
                        assert_eq!(*column, "lease_until", "{id}");
                        host.row.lease_until = at.unwrap();
                        changed += 1;
                    }
                }
                "outbox" => {
                    assert_eq!(*column, "due_at");
                    tables.outbox.values_mut().for_each(|out| out.due_at = at.unwrap());
                }
                "dead_letters" => {
                    assert_eq!(*column, "at");
                    tables.dead.values_mut().for_each(|row| row.at = at.unwrap());
                }
                other => panic!("there is no table {other} here"),
            }
        }
        changed
    }
}

#[async_trait]
impl BackDoor for Door {
    async fn execute(&self, sql: &str) -> Result<u64, String> {
        Update::parse(sql).map(|update| self.update(&update)).ok_or_else(|| format!("not understood here: {sql}"))
    }

    async fn number(&self, sql: &str) -> i64 {
        if let Some(table) = sql.strip_prefix("SELECT count(*) FROM ") {
            return self.0.look().sizes().iter().find(|size| size.table == table).unwrap().rows;
        }
        let id = sql.strip_prefix("SELECT redrives FROM dead_letters WHERE id = ").unwrap();
        self.0.look().dead[&id.parse().unwrap()].redrives
    }

    async fn refuse(&self, name: &str) {
        self.0.look().refused.insert(name.into());
    }

    async fn empty(&self) {
        *self.0.look() = Tables::default();
    }

    fn open(&self) -> Box<dyn Db> {
        Box::new(self.0.clone())
    }
}
