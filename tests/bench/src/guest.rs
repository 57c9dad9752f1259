//! The plugin `word-count` in a fresh instance per task, with the least that a host has to provide: no limits, no log, no
//! accounting.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "plugin",
        exports: { default: async },
    });
}

use bindings::agentry::plugin::{context, types};
use bindings::exports::agentry::plugin::handler::Task;
use bindings::wasi::logging::logging;
use bindings::{Plugin, PluginPre};

/// How often the engine's epoch advances. Guests are compiled with the check, as in the daemon.
const EPOCH: Duration = Duration::from_millis(10);
/// Epochs until a guest traps.
const DEADLINE: u64 = 1_000;
/// Instances at once.
const INSTANCES: u32 = 512;

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for Host {}

impl logging::Host for Host {
    fn log(&mut self, _: logging::Level, _: String, _: String) {}
}

impl context::Host for Host {
    fn remaining_ms(&mut self) -> u32 {
        u32::MAX
    }
    fn plugin_name(&mut self) -> String {
        String::new()
    }
    fn plugin_version(&mut self) -> String {
        String::new()
    }
    fn labels(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// A compiled component.
#[derive(Clone)]
pub struct Guest {
    engine: Engine,
    component: Arc<PluginPre<Host>>,
}

impl Guest {
    /// Compiles it.
    pub fn load(path: &Path) -> anyhow::Result<Guest> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(INSTANCES * 4)
            .total_memories(INSTANCES * 2)
            .total_tables(INSTANCES * 4)
            .total_stacks(INSTANCES)
            .max_memory_size(64 << 20);
        let mut config = Config::new();
        config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).map_err(|e| anyhow!("failed to make an engine: {e}"))?;
        let component =
            Component::from_file(&engine, path).map_err(|e| anyhow!("failed to compile {}: {e}", path.display()))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|e| anyhow!("failed to link WASI: {e}"))?;
        Plugin::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)
            .map_err(|e| anyhow!("failed to link the host: {e}"))?;
        let component = linker
            .instantiate_pre(&component)
            .and_then(PluginPre::new)
            .map_err(|e| anyhow!("failed to link {}: {e}", path.display()))?;
        let ticking = engine.clone();
        std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                loop {
                    std::thread::sleep(EPOCH);
                    ticking.increment_epoch();
                }
            })
            .context("failed to start a thread")?;
        Ok(Guest { engine, component: Arc::new(component) })
    }

    /// Runs one task in an instance of its own and returns its output.
    pub async fn run(&self, id: String, input: String) -> anyhow::Result<String> {
        let host = Host { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, host);
        store.set_epoch_deadline(DEADLINE);
        let fault = |e: wasmtime::Error| anyhow!("the guest failed: {e:?}");
        let plugin = self.component.instantiate_async(&mut store).await.map_err(fault)?;
        let task = Task { id, attempt: 1, max_attempts: 3, input };
        let output = plugin.agentry_plugin_handler().call_handle(&mut store, &task).await.map_err(fault)?;
        output.map_err(|failure| anyhow!("the guest returned {failure:?}"))
    }
}
