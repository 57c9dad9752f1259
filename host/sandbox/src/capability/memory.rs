//! `agentry:memory`: what an agent remembers from one task to the next.

use std::sync::Arc;

use agentry_defence::Defence;

use super::bindings::capabilities::memory::memory;
use crate::access::{Memories, Remembered, StoreError};
use crate::calls::{Calls, Over};
use crate::instance::State;

/// The capability's name in `plugin.toml`.
const NAME: &str = "memory";
/// The most entries of one answer.
const MOST: u32 = 100;

impl memory::Host for State {
    async fn remember(
        &mut self,
        memory: String,
        text: String,
        metadata: String,
    ) -> wasmtime::Result<Result<String, memory::Error>> {
        Ok(self.remember_in(&memory, &text, &metadata).await)
    }

    async fn search(
        &mut self,
        memory: String,
        query: String,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<memory::Entry>, memory::Error>> {
        Ok(self.search_in(&memory, &query, limit).await)
    }

    async fn forget(&mut self, memory: String, id: String) -> wasmtime::Result<Result<(), memory::Error>> {
        Ok(self.forget_in(&memory, &id).await)
    }
}

impl State {
    async fn remember_in(&mut self, memory: &str, text: &str, metadata: &str) -> Result<String, memory::Error> {
        let memories = self.may_remember("remember", memory)?;
        let begun = Calls::begin(&self.allowance.calls, NAME, "remember", memory);
        let answer = memories.remember(memory, text, metadata).await;
        begun.over(over(&answer, text.len() + metadata.len(), 0));
        answer.map_err(refusal)
    }

    async fn search_in(&mut self, memory: &str, query: &str, limit: u32) -> Result<Vec<memory::Entry>, memory::Error> {
        let memories = self.may_remember("search", memory)?;
        let begun = Calls::begin(&self.allowance.calls, NAME, "search", memory);
        let answer =
            memories.search(memory, query, if Defence::MemoryMatches.stands() { limit.min(MOST) } else { limit }).await;
        let size = |found: &Vec<Remembered>| found.iter().map(|e| e.text.len() + e.metadata.len()).sum();
        begun.over(over(&answer, query.len(), answer.as_ref().map_or(0, size)));
        let entry = |Remembered { id, text, metadata, score, at }| memory::Entry { id, text, metadata, score, at };
        answer.map(|found| found.into_iter().map(entry).collect()).map_err(refusal)
    }

    async fn forget_in(&mut self, memory: &str, id: &str) -> Result<(), memory::Error> {
        let memories = self.may_remember("forget", memory)?;
        let begun = Calls::begin(&self.allowance.calls, NAME, "forget", memory);
        let answer = memories.forget(memory, id).await;
        begun.over(over(&answer, id.len(), 0));
        answer.map_err(refusal)
    }

    fn may_remember(&mut self, operation: &str, memory: &str) -> Result<Arc<dyn Memories>, memory::Error> {
        let granted = self.access.memory_names.contains(memory)
            || self.access.memory_names.contains("*")
            || !Defence::MemoryGrant.stands();
        let Some(memories) = self.access.memories.clone().filter(|_| granted) else {
            let words = format!(
                "the memory {memory:?} is not granted; ask for it in plugin.toml under [capabilities]: \
                 memory = [{memory:?}]"
            );
            return Err(memory::Error::Denied(self.refused(NAME, operation, memory, words)));
        };
        if let Err(why) = self.counts.store_calls.one() {
            self.allowance.refused(NAME, operation, memory, &why);
            return Err(memory::Error::Full(why.to_string()));
        }
        Ok(memories)
    }
}

/// What the record of a call says.
pub(super) fn over<T>(answer: &Result<T, StoreError>, sent: usize, received: usize) -> Over {
    let (result, detail) = match answer {
        Ok(_) => ("ok", serde_json::Value::Null),
        Err(error) => {
            let word = match error {
                StoreError::Invalid(_) => "invalid",
                StoreError::Full(_) => "full",
                StoreError::Unavailable(_) => "unavailable",
            };
            (word, serde_json::json!({ "reason": error.to_string() }))
        }
    };
    Over { result, request_bytes: sent as u64, response_bytes: received as u64, detail }
}

fn refusal(error: StoreError) -> memory::Error {
    match error {
        StoreError::Invalid(words) => memory::Error::Invalid(words),
        StoreError::Full(words) => memory::Error::Full(words),
        StoreError::Unavailable(words) => memory::Error::Unavailable(words),
    }
}
