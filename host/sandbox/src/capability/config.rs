//! `wasi:config`: values that the plugin was granted, by key. A key without a grant is as one that is not there.

use super::bindings::capabilities::config::store;
use crate::instance::State;

impl store::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.access.config.get(&key).cloned()))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.access.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}
