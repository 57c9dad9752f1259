//! Dead letters: recorded, and to be published.

use super::super::fault::Fault;
use super::super::plan::{self, Birth, content_hash};
use super::super::{BATCH_BYTES, DeadAnswer, DeadLetter, DeadRecorded, UnpublishedLetter, storable};
use super::tables::{Letter, Tables, value};
use chrono::{DateTime, Utc};

impl Tables {
    pub(super) fn record_dead(&mut self, letter: &DeadLetter, now: DateTime<Utc>) -> Result<DeadAnswer, Fault> {
        match self.try_record_dead(letter, now) {
            Ok(recorded) => Ok(DeadAnswer::Recorded(recorded)),
            Err(fault) if fault.is_about_data() => Ok(DeadAnswer::Refused(fault.reason())),
            Err(fault) => Err(fault),
        }
    }

    fn try_record_dead(&mut self, letter: &DeadLetter, now: DateTime<Utc>) -> Result<DeadRecorded, Fault> {
        let hash = content_hash(letter);
        if plan::may_be_known(letter) {
            let since = Tables::ago(now, plan::SAME_LETTER);
            let equal = |row: &Letter| row.hash == hash && row.at > since && row.letter.task_id == letter.task_id;
            if let Some((id, row)) = self.dead.iter_mut().rev().find(|(_, row)| equal(row)) {
                row.publish_at = row.publish_at.or_else(|| row.erased_at.is_none().then_some(now));
                return Ok(DeadRecorded { id: *id, repeated: true });
            }
        }
        if let Some(id) = plan::rejected_task(letter) {
            self.give_birth(&Birth::of_dead_letter(letter, id)?, now)?;
        }
        self.last_letter += 1;
        let stored = DeadLetter {
            reason: storable::text(&letter.reason).into_owned(),
            detail: storable::text(&letter.detail).into_owned(),
            queue: storable::text(&letter.queue).into_owned(),
            plugin: letter.plugin.as_deref().map(|plugin| storable::text(plugin).into_owned()),
            properties: value(Some(&storable::json(&letter.properties))),
            ..letter.clone()
        };
        let row = Letter {
            at: now,
            letter: stored,
            hash,
            redrives: 0,
            redriven_as: None,
            redriven_at: None,
            erased_at: None,
            publish_at: Some(now),
        };
        self.dead.insert(self.last_letter, row);
        Ok(DeadRecorded { id: self.last_letter, repeated: false })
    }

    pub(super) fn take_letters(
        &mut self,
        queue: &str,
        limit: u32,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Vec<UnpublishedLetter> {
        let is_due = |row: &Letter| row.letter.queue == queue && row.publish_at.is_some_and(|at| at <= now);
        let mut due: Vec<_> = self.dead.iter_mut().filter(|(_, row)| is_due(row)).collect();
        due.sort_by_key(|(id, row)| (row.publish_at, **id));
        due.truncate(limit as usize);
        due.sort_by_key(|(id, _)| **id);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (id, row) in due {
            bytes += row.letter.body.len() as u64;
            if !taken.is_empty() && bytes > BATCH_BYTES {
                break;
            }
            row.publish_at = Some(until);
            taken.push(UnpublishedLetter {
                id: *id,
                reason: row.letter.reason.clone(),
                detail: row.letter.detail.clone(),
                body: row.letter.body.to_vec(),
                properties: row.letter.properties.clone(),
            });
        }
        taken
    }

    pub(super) fn letters_published(&mut self, ids: &[i64]) {
        ids.iter().for_each(|id| {
            if let Some(row) = self.dead.get_mut(id) {
                row.publish_at = None;
            }
        });
    }

    pub(super) fn defer_letters(&mut self, ids: &[i64], until: DateTime<Utc>) {
        ids.iter().for_each(|id| {
            if let Some(row) = self.dead.get_mut(id) {
                row.publish_at = row.publish_at.map(|_| until);
            }
        });
    }
}
