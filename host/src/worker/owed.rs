//! Tasks that were interrupted here because memory was short: their next run reserves all that it may use before it begins,
//! so it cannot be interrupted for memory again. Without it a flood of small reservations could fill the budget over and
//! over, and each of them be turned away when it grows.

use crate::registry::Runner;
use crate::task::TaskId;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most tasks that are remembered; the oldest goes first.
const MOST: usize = 1_024;

/// What is remembered.
#[derive(Default)]
pub struct Owed(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    tasks: HashMap<TaskId, Entry>,
    by_age: BTreeMap<u64, TaskId>,
    entries: u64,
    /// Plugins of which a task had to be forgotten, and what they reserved then. So many of them at once say that the
    /// reservation is wrong: until it is another, all of the plugin's tasks are treated as those that are remembered.
    plugins: HashMap<Arc<str>, u64>,
}

struct Entry {
    number: u64,
    plugin: Arc<str>,
    reserve: u64,
}

impl Owed {
    /// What a run of this task reserves, in bytes: no more than its plugin's limit.
    pub fn reserves(&self, task: TaskId, runner: &dyn Runner) -> u64 {
        let (reserve, limit) = (runner.memory_reserve().min(runner.memory_limit()), runner.memory_limit());
        if self.is_owed(task, runner) { limit } else { reserve }
    }

    /// Whether a run of this task has to be given all that it may use, and to keep it.
    pub fn is_owed(&self, task: TaskId, runner: &dyn Runner) -> bool {
        let memory = self.lock();
        memory.tasks.contains_key(&task)
            || memory.plugins.get(runner.name()).is_some_and(|then| *then == runner.memory_reserve())
    }

    /// It was interrupted for memory.
    pub fn add(&self, task: TaskId, runner: &dyn Runner) {
        let mut memory = self.lock();
        memory.forget(task);
        memory.entries += 1;
        let number = memory.entries;
        let (plugin, reserve) = (runner.name().clone(), runner.memory_reserve());
        memory.tasks.insert(task, Entry { number, plugin, reserve });
        memory.by_age.insert(number, task);
        if memory.tasks.len() <= MOST {
            return;
        }
        let oldest = memory.by_age.first_key_value().map(|(_, task)| *task);
        let Some(Entry { plugin, reserve, .. }) = oldest.and_then(|task| memory.forget(task)) else { return };
        if memory.plugins.insert(plugin.clone(), reserve) != Some(reserve) {
            tracing::warn!(
                %plugin,
                reserved_mib = reserve >> 20,
                "more than {MOST} tasks wait for the memory that they were interrupted for: from now on every task of this \
                 plugin reserves all of its limits.memory_mib; set limits.memory_reserve_mib in its plugin.toml to what it \
                 usually needs"
            );
        }
    }

    /// It has ended.
    pub fn remove(&self, task: TaskId) {
        self.lock().forget(task);
    }

    /// A panic between two of its statements costs a reservation that is too small or too large.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn forget(&mut self, task: TaskId) -> Option<Entry> {
        let entry = self.tasks.remove(&task)?;
        self.by_age.remove(&entry.number);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Job;
    use crate::task::RetryPolicy;
    use crate::task::settle::Report;
    use std::path::Path;
    use std::time::Duration;

    struct Plugin(Arc<str>, u64);

    #[async_trait::async_trait]
    impl Runner for Plugin {
        fn name(&self) -> &Arc<str> {
            &self.0
        }
        fn version(&self) -> &Arc<str> {
            &self.0
        }
        fn digest(&self) -> &Arc<str> {
            &self.0
        }
        fn queue(&self) -> &str {
            "default"
        }
        fn retry(&self) -> &RetryPolicy {
            unreachable!("not asked")
        }
        fn concurrency(&self) -> Option<u32> {
            None
        }
        fn has_effects(&self) -> bool {
            true
        }
        fn timeout(&self) -> Duration {
            Duration::ZERO
        }
        fn place(&self) -> &Path {
            Path::new("/")
        }
        fn memory_reserve(&self) -> u64 {
            self.1
        }
        fn memory_limit(&self) -> u64 {
            100
        }
        async fn run(&self, _: Job) -> Report {
            unreachable!("not run")
        }
    }

    #[test]
    fn a_task_that_was_interrupted_reserves_everything_until_it_has_ended() {
        let (owed, plugin) = (Owed::default(), Plugin("p".into(), 5));
        let (one, other) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        assert_eq!(owed.reserves(one, &plugin), 5);
        owed.add(one, &plugin);
        owed.add(one, &plugin);
        assert_eq!((owed.reserves(one, &plugin), owed.reserves(other, &plugin)), (100, 5));
        owed.remove(one);
        assert_eq!(owed.reserves(one, &plugin), 5);
        assert!(owed.lock().by_age.is_empty());
    }

    #[test]
    fn a_reservation_is_never_larger_than_the_limit() {
        assert_eq!(Owed::default().reserves(uuid::Uuid::now_v7(), &Plugin("p".into(), 101)), 100);
    }

    #[test]
    fn a_plugin_of_which_too_many_are_owed_reserves_everything_until_its_reservation_is_another() {
        let (owed, plugin) = (Owed::default(), Plugin("p".into(), 5));
        let tasks: Vec<_> = (0..=MOST).map(|_| uuid::Uuid::now_v7()).collect();
        let (last, most) = tasks.split_last().unwrap();
        most.iter().for_each(|task| owed.add(*task, &plugin));
        let stranger = uuid::Uuid::now_v7();
        assert_eq!(owed.reserves(stranger, &plugin), 5);
        owed.add(*last, &plugin);
        assert_eq!(owed.lock().tasks.len(), MOST, "what is remembered is bounded");
        assert_eq!(owed.reserves(tasks[0], &plugin), 100, "who was forgotten loses nothing");
        assert_eq!(owed.reserves(stranger, &plugin), 100);
        assert_eq!(owed.reserves(stranger, &Plugin("p".into(), 6)), 6);
        assert_eq!(owed.reserves(stranger, &Plugin("q".into(), 5)), 5);
    }
}
