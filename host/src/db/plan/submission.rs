//! A batch that is submitted: all or nothing, and of several tasks with one id the first counts.

use super::super::{NewTask, Submitted};
use crate::task::TaskId;
use std::collections::HashMap;

/// The batch, with the first task of every id, in the order of ids.
#[derive(Debug)]
pub(in crate::db) struct Submission<'a> {
    batch: &'a [NewTask],
    firsts: Vec<&'a NewTask>,
}

impl<'a> Submission<'a> {
    pub fn of(batch: &'a [NewTask]) -> Submission<'a> {
        let mut firsts: Vec<&NewTask> = batch.iter().collect();
        firsts.sort_by_key(|task| task.message.id);
        firsts.dedup_by_key(|task| task.message.id);
        Submission { batch, firsts }
    }

    /// What is to be inserted.
    pub fn firsts(&self) -> &[&'a NewTask] {
        &self.firsts
    }

    /// What became of each. `known`: the fingerprints of rows that were there before. If one is a conflict, the transaction is
    /// to be undone.
    pub fn answers(&self, known: &HashMap<TaskId, Option<Vec<u8>>>) -> Vec<Submitted> {
        let mut born: HashMap<TaskId, [u8; 32]> = HashMap::new();
        let same = |equal: bool| if equal { Submitted::Exists } else { Submitted::Conflict };
        self.batch
            .iter()
            .map(|task| {
                let (id, fingerprint) = (task.message.id, task.message.fingerprint);
                if let Some(stored) = known.get(&id) {
                    return same(stored.as_deref() == Some(&fingerprint[..]));
                }
                match born.insert(id, fingerprint) {
                    None => Submitted::Created,
                    Some(first) => {
                        born.insert(id, first);
                        same(first == fingerprint)
                    }
                }
            })
            .collect()
    }
}
