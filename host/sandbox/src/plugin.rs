//! From a file to something that can be run: inspected, compiled or taken from the cache, and linked, once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agentry_defence::Defence;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use crate::cache::Unfit;
use crate::capability;
use crate::capability::bindings::PluginPre;
use crate::capability::bindings::agentry::plugin::types::{Failure, Task};
use crate::compiler::{self, Bounds, Compiler};
use crate::engine::{Inner, Sandbox};
use crate::inspect::{Outline, outline};
use crate::instance::State;
use crate::limits::{Limits, MIB};
use crate::streams::visible;

/// The capabilities that a plugin was granted, by the names of `plugin.toml`'s `[capabilities]`: `http`, `keyvalue`,
/// `config`, `llm`, `tools`, `memory`. What exactly a run may reach is said with each: see [`Access`](crate::Access).
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// The names.
    pub capabilities: BTreeSet<String>,
}

/// Why a component cannot be run here. Each text names what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts say they are")]
pub enum LoadError {
    #[error("load the component: it has {bytes} bytes, and component_mib = {}", limit / MIB)]
    TooLarge { bytes: u64, limit: u64 },
    #[error(
        "load the component: it is a core module; make a component of it (`wasm-tools component new`, or build for wasm32-wasip2)"
    )]
    CoreModule,
    #[error("load the component: it is WebAssembly text; only the binary form is loaded")]
    Text,
    #[error("load the component: it is compiled code (ELF); only portable components are loaded")]
    Precompiled,
    #[error("load the component: it does not begin like a WebAssembly file")]
    NotWasm,
    #[error("load the component: it is not whole: {reason}")]
    Truncated { reason: String },
    #[error("load the component: it is malformed: {reason}")]
    Malformed { reason: String },
    #[error("load the component: it is made of more than {limit} modules and components")]
    Parts { limit: usize },
    #[error("load the component: it imports {import}, which this host does not know")]
    UnknownImport { import: String },
    #[error("load the component: it imports {import}; this host serves {serves}")]
    ImportVersion { import: String, serves: String },
    #[error(
        "load the component: it imports {import} without a grant; ask for it in plugin.toml under [capabilities]: {line}"
    )]
    NotGranted { import: String, capability: &'static str, line: &'static str },
    #[error(
        "load the component: it does not export {wants}, so it is not a plugin; build it for the world agentry:plugin/plugin"
    )]
    NoHandler { wants: &'static str },
    #[error("load the component: it exports {export}; this host runs {serves} and older")]
    HandlerVersion { export: String, serves: &'static str },
    #[error("load the component: an import or export has another type than this host's: {reason}")]
    Mismatch { reason: String },
    #[error("load the component: it needs more than limits.max.{setting} allows: {reason}")]
    Ceiling { setting: &'static str, reason: String },
    #[error("load the component: the compiler refused it: {reason}")]
    Compile { reason: String },
    #[error("load the component: compiling took longer than compile_seconds = {}", limit.as_secs())]
    CompileTimeout { limit: Duration },
    #[error("load the component: compiling took more memory than compile_memory_mib = {}", limit / MIB)]
    CompileMemory { limit: u64 },
    #[error("load the component: the compiler died of it: {reason}")]
    CompilerDied { reason: String },
    #[error("load the component: the host failed: {reason}")]
    Internal { reason: String },
}

impl LoadError {
    /// The longest piece of a component, or of what the engine says about it, that an error repeats, in bytes.
    const WORDS_BYTES: usize = 1 << 10;

    /// The same on one line and within bounds. Names in a component are of any length and any characters, and the engine
    /// repeats them; an operator reads this in a terminal.
    fn fit_to_show(mut self) -> LoadError {
        let words = match &mut self {
            // What is served is said with the interface's name, which is the component's.
            LoadError::ImportVersion { import, serves } => {
                *serves = visible(serves, LoadError::WORDS_BYTES);
                import
            }
            LoadError::UnknownImport { import } | LoadError::NotGranted { import, .. } => import,
            LoadError::HandlerVersion { export, .. } => export,
            LoadError::Truncated { reason }
            | LoadError::Malformed { reason }
            | LoadError::Mismatch { reason }
            | LoadError::Ceiling { reason, .. }
            | LoadError::Compile { reason }
            | LoadError::CompilerDied { reason }
            | LoadError::Internal { reason } => reason,
            LoadError::TooLarge { .. }
            | LoadError::CoreModule
            | LoadError::Text
            | LoadError::Precompiled
            | LoadError::NotWasm
            | LoadError::NoHandler { .. }
            | LoadError::Parts { .. }
            | LoadError::CompileTimeout { .. }
            | LoadError::CompileMemory { .. } => return self,
        };
        *words = visible(words, LoadError::WORDS_BYTES);
        self
    }
}

/// A component's content digest, as OCI writes it: `sha256:<hex>`.
pub fn digest(component: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(7 + 64);
    text.push_str("sha256:");
    for byte in Sha256::digest(component) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A component ready to be run, any number of times at once. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) inner: Arc<Loaded>,
}

pub(crate) struct Loaded {
    pub(crate) sandbox: Arc<Inner>,
    pub(crate) pre: PluginPre<State>,
    /// Memories that one instance takes from the pool.
    pub(crate) memories: u32,
    digest: String,
    imports: Vec<String>,
    initial_memory: u64,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plugin").field(&self.inner.digest).finish()
    }
}

impl Plugin {
    /// The content digest of the file: `sha256:<hex>`.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What it imports: full names with versions, sorted.
    pub fn imports(&self) -> &[String] {
        &self.inner.imports
    }

    /// The linear memory that an instance starts with, in bytes.
    pub fn initial_memory(&self) -> u64 {
        self.inner.initial_memory
    }
}

/// What the first look at a file gave.
struct Checked {
    digest: String,
    outline: Outline,
    cached: Option<Component>,
}

impl Sandbox {
    /// Checks a component against the world and the grants, compiles it or takes it from the cache, and links it. All
    /// work is done on blocking threads; compilation additionally waits for one of `compile_concurrency` places.
    ///
    /// # Errors
    /// See [`LoadError`]. With [`Compiler::Here`] the compiler is still at work after `CompileTimeout`, because it cannot be
    /// stopped: its place is taken until it ends, and its result goes to the cache, so that a later load may find it.
    pub async fn load(&self, component: Bytes, grants: &Grants) -> Result<Plugin, LoadError> {
        self.load_file(component, grants).await.map_err(LoadError::fit_to_show)
    }

    async fn load_file(&self, component: Bytes, grants: &Grants) -> Result<Plugin, LoadError> {
        let limit = self.inner.config.component_bytes;
        if component.len() as u64 > limit && Defence::ComponentSize.stands() {
            return Err(LoadError::TooLarge { bytes: component.len() as u64, limit });
        }
        let (inner, grants, file) = (self.inner.clone(), grants.clone(), component.clone());
        let checked = joined(task::spawn_blocking(move || check(&inner, &file, &grants)).await)?;
        let Checked { digest, outline, cached } = checked;
        let compiled = match cached {
            Some(compiled) => compiled,
            None => self.compile(component, digest.clone()).await?,
        };
        let inner = self.inner.clone();
        joined(task::spawn_blocking(move || link(inner, &compiled, digest, outline)).await)
    }

    async fn compile(&self, component: Bytes, digest: String) -> Result<Component, LoadError> {
        let place = self.inner.compilers.clone().acquire_owned().await;
        let inner = self.inner.clone();
        if let (Compiler::Child { program, arguments }, Some(cache)) = (&inner.config.compiler, &inner.cache) {
            let failed = |error: std::io::Error| LoadError::Internal { reason: format!("keep compiled code: {error}") };
            let draft = cache.draft().map_err(failed)?;
            let bounds = Bounds {
                timeout: inner.config.compile_timeout,
                memory_bytes: inner.config.compile_memory,
                source_lines: inner.config.source_lines,
            };
            compiler::in_child((program, arguments), &component, &draft, bounds).await?;
            let inner = inner.clone();
            let adopt = move || {
                let cache =
                    inner.cache.as_ref().ok_or_else(|| LoadError::Internal { reason: "no cache".to_owned() })?;
                cache.adopt(&inner.engine, &digest, &draft).map_err(|unfit| match unfit {
                    Unfit::Engine(error) => refused(error),
                    Unfit::Io(error) => failed(error),
                })
            };
            return joined(task::spawn_blocking(adopt).await);
        }
        let compiling = task::spawn_blocking(move || {
            // Held by the compiler and not by whoever waits for it.
            let _place = place;
            let compiled = Component::from_binary(&inner.engine, &component).map_err(refused)?;
            if let Some(cache) = &inner.cache {
                cache.store(&digest, &compiled);
            }
            Ok(compiled)
        });
        let limit = self.inner.config.compile_timeout;
        match tokio::time::timeout(limit, compiling).await {
            Ok(compiled) => joined(compiled),
            Err(_) => Err(LoadError::CompileTimeout { limit }),
        }
    }
}

/// A panic on a blocking thread is an error of this load alone.
fn joined<T>(result: Result<Result<T, LoadError>, task::JoinError>) -> Result<T, LoadError> {
    result.unwrap_or_else(|error| Err(LoadError::Internal { reason: error.to_string() }))
}

/// Everything that can be said without compiling.
fn check(inner: &Inner, file: &[u8], grants: &Grants) -> Result<Checked, LoadError> {
    let outline = outline(file)?;
    if Defence::Imports.stands() {
        for import in &outline.imports {
            capability::check_import(import, grants)?;
        }
    }
    capability::check_exports(outline.exports.iter().map(String::as_str))?;
    check_memory(&outline, &inner.config.ceilings)?;
    let digest = digest(file);
    let cached = inner.cache.as_ref().and_then(|cache| cache.load(&inner.engine, &digest));
    Ok(Checked { digest, outline, cached })
}

fn check_memory(outline: &Outline, ceilings: &Limits) -> Result<(), LoadError> {
    if outline.initial_memory <= ceilings.memory_bytes || !Defence::InitialMemory.stands() {
        return Ok(());
    }
    let reason = format!(
        "it starts with {} MiB of memory, and the ceiling is {} MiB",
        outline.initial_memory.div_ceil(MIB),
        ceilings.memory_bytes / MIB
    );
    Err(LoadError::Ceiling { setting: "memory_mib", reason })
}

/// What an error of `Component::from_binary` means: a component that does not fit the pool, or one that is not valid.
fn refused(error: wasmtime::Error) -> LoadError {
    let reason = format!("{error:#}");
    ceiling(&reason).unwrap_or(LoadError::Compile { reason })
}

/// The ceiling that the engine's words are about.
pub(crate) fn ceiling(reason: &str) -> Option<LoadError> {
    // In the order in which one text may hold the words of another. A test holds them.
    let ceilings = [
        ("core module instances", "instances"),
        ("linear memories", "memories"),
        ("defined memories count", "memories"),
        ("minimum byte size", "memory_mib"),
        ("minimum element size", "table_elements"),
    ];
    let (_, setting) = ceilings.iter().find(|(words, _)| reason.contains(words))?;
    Some(LoadError::Ceiling { setting, reason: reason.to_owned() })
}

/// Checks the type of `handle`. The generated bindings do so with each instance, and then it would be the task's failure.
fn check_handler(pre: &InstancePre<State>) -> wasmtime::Result<()> {
    let component = pre.component();
    let handle = component
        .get_export_index(None, capability::HANDLER)
        .and_then(|handler| component.get_export(Some(&handler), "handle"));
    match handle {
        Some((ComponentItem::ComponentFunc(handle), _)) => handle
            .typecheck::<(Task<'_>,), (Result<String, Failure>,)>(&pre.instance_type())
            .map_err(|error| error.context("the export handle")),
        _ => Err(wasmtime::format_err!("the export {} has no function handle", capability::HANDLER)),
    }
}

fn link(inner: Arc<Inner>, compiled: &Component, digest: String, outline: Outline) -> Result<Plugin, LoadError> {
    let mismatch = |error: wasmtime::Error| LoadError::Mismatch { reason: format!("{error:#}") };
    let pre = inner.linker.instantiate_pre(compiled).map_err(mismatch)?;
    check_handler(&pre).map_err(mismatch)?;
    let pre = PluginPre::new(pre).map_err(mismatch)?;
    // Now rather than in the first run.
    compiled.initialize_copy_on_write_image().map_err(|error| LoadError::Internal { reason: format!("{error:#}") })?;
    let memories = compiled.resources_required().map_or(0, |resources| resources.num_memories);
    Ok(Plugin {
        inner: Arc::new(Loaded {
            pre,
            // An instance with more would be refused above; one without any still takes a place.
            memories: memories.max(1),
            digest,
            imports: outline.imports,
            initial_memory: outline.initial_memory,
            sandbox: inner,
        }),
    })
}
