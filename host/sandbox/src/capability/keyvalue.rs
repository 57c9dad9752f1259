//! `wasi:keyvalue` (store, atomics, batch): the plugin's buckets, as far as they were granted.

use std::sync::Arc;

use agentry_defence::Defence;
use wasmtime::component::Resource;

use super::bindings::capabilities::keyvalue::{atomics, batch, store};
use super::held::BUCKET_BYTES;
use super::memory::over;
use crate::access::{Buckets, StoreError};
use crate::calls::{Begun, Calls};
use crate::instance::State;

/// The capability's name in `plugin.toml`.
const NAME: &str = "keyvalue";

/// An open bucket.
#[derive(Clone)]
pub struct Bucket {
    name: String,
    buckets: Arc<dyn Buckets>,
}

/// The open bucket and the record of this call; or the guest hears why not.
macro_rules! open {
    ($state:ident, $bucket:ident, $operation:literal) => {
        match $state.bucket(&$bucket, $operation)? {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        }
    };
}

type Answer<T> = wasmtime::Result<Result<T, store::Error>>;

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        if identifier.len() > BUCKET_BYTES && Defence::HeldBytes.stands() {
            let words = format!("the bucket's name has {} bytes, and {BUCKET_BYTES} are allowed", identifier.len());
            return Ok(Err(store::Error::Other(words)));
        }
        let granted = self.access.bucket_names.contains(&identifier)
            || self.access.bucket_names.contains("*")
            || !Defence::BucketGrant.stands();
        let Some(buckets) = self.access.buckets.clone().filter(|_| granted) else {
            let words = format!(
                "the bucket {identifier:?} is not granted; ask for it in plugin.toml under [capabilities]: \
                 keyvalue = [{identifier:?}]"
            );
            // The interface has a case for it, without room for words; the log has them.
            self.refused(NAME, "open", &identifier, words);
            return Ok(Err(store::Error::AccessDenied));
        };
        Ok(Ok(self.table.push(Bucket { name: identifier, buckets })?))
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let (bucket, begun) = open!(self, bucket, "get");
        let answer = bucket.buckets.get(&bucket.name, std::slice::from_ref(&key)).await;
        let value = answer.map(|values| values.into_iter().next().flatten());
        begun.over(over(&value, key.len(), value.as_ref().map_or(0, |v| v.as_ref().map_or(0, Vec::len))));
        Ok(value.map_err(refusal))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let (bucket, begun) = open!(self, bucket, "set");
        let sent = key.len() + value.len();
        let answer = bucket.buckets.set(&bucket.name, vec![(key, value)]).await;
        begun.over(over(&answer, sent, 0));
        Ok(answer.map_err(refusal))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let (bucket, begun) = open!(self, bucket, "delete");
        let answer = bucket.buckets.delete(&bucket.name, std::slice::from_ref(&key)).await;
        begun.over(over(&answer, key.len(), 0));
        Ok(answer.map_err(refusal))
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let (bucket, begun) = open!(self, bucket, "exists");
        let answer = bucket.buckets.exists(&bucket.name, &key).await;
        begun.over(over(&answer, key.len(), 0));
        Ok(answer.map_err(refusal))
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Answer<store::KeyResponse> {
        let (bucket, begun) = open!(self, bucket, "list-keys");
        let answer = bucket.buckets.keys(&bucket.name, cursor).await;
        begun.over(over(&answer, 0, answer.as_ref().map_or(0, |(keys, _)| keys.iter().map(String::len).sum())));
        Ok(answer.map(|(keys, cursor)| store::KeyResponse { keys, cursor }).map_err(refusal))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let (bucket, begun) = open!(self, bucket, "increment");
        let answer = bucket.buckets.increment(&bucket.name, &key, delta).await;
        begun.over(over(&answer, key.len(), 0));
        Ok(answer.map_err(refusal))
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let (bucket, begun) = open!(self, bucket, "get-many");
        let sent = keys.iter().map(String::len).sum();
        let answer = bucket.buckets.get(&bucket.name, &keys).await;
        let size = |values: &Vec<Option<Vec<u8>>>| values.iter().flatten().map(Vec::len).sum();
        begun.over(over(&answer, sent, answer.as_ref().map_or(0, size)));
        let pairs = |values: Vec<Option<Vec<u8>>>| {
            keys.into_iter().zip(values).map(|(key, value)| value.map(|value| (key, value))).collect()
        };
        Ok(answer.map(pairs).map_err(refusal))
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let (bucket, begun) = open!(self, bucket, "set-many");
        let sent = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let answer = bucket.buckets.set(&bucket.name, pairs).await;
        begun.over(over(&answer, sent, 0));
        Ok(answer.map_err(refusal))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let (bucket, begun) = open!(self, bucket, "delete-many");
        let answer = bucket.buckets.delete(&bucket.name, &keys).await;
        begun.over(over(&answer, keys.iter().map(String::len).sum(), 0));
        Ok(answer.map_err(refusal))
    }
}

impl State {
    /// The bucket behind a handle, and the record of a call of it; or the limit that is used up, in words.
    fn bucket(
        &mut self,
        bucket: &Resource<Bucket>,
        operation: &str,
    ) -> wasmtime::Result<Result<(Bucket, Begun), store::Error>> {
        let bucket = self.table.get(bucket)?.clone();
        if let Err(why) = self.counts.store_calls.one() {
            self.allowance.refused(NAME, operation, &bucket.name, &why);
            return Ok(Err(store::Error::Other(why.to_string())));
        }
        let begun = Calls::begin(&self.allowance.calls, NAME, operation, &bucket.name);
        Ok(Ok((bucket, begun)))
    }
}

fn refusal(error: StoreError) -> store::Error {
    store::Error::Other(error.to_string())
}
