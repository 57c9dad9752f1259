//! Where components are compiled: in a child process that can be stopped, whose memory is bounded, and that has nothing.
//!
//! The compiler cannot be interrupted, its memory is not bounded, and what it reads is a stranger's. So the parent starts the
//! same program again with an empty environment and one order on its standard input; the child limits itself before it reads
//! the component, and writes the compiled code to a file of the private cache that the parent opened for it. The parent only
//! maps what is whole. [`serve`] is the child's life.
//!
//! This bounds what compiling costs. It is no wall around the compiler: whoever could make it write code of their choice would
//! have it run by the parent, as in any engine.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agentry_defence::Defence;
use rustix::process::{Resource, Rlimit, getppid, nice, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use wasmtime::Engine;

use crate::cache::{self, Draft};
use crate::engine::compiler_config;
use crate::plugin::{LoadError, ceiling};
use crate::streams::truncate;

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process, on blocking threads: for tests and benchmarks. Neither its memory nor its end is in our hands.
    Here,
    /// In a child process that calls [`serve`].
    Child {
        /// The program; this process's own, so that both are of one build.
        program: PathBuf,
        /// What makes it call [`serve`].
        arguments: Vec<OsString>,
    },
}

/// Exit code of a child that looked at the component and refuses it; its reason is on standard error.
const REFUSED: i32 = 3;
/// The most of a child's standard error that is kept.
const REASON_BYTES: u64 = 8 << 10;
/// How much less urgent the compiler is than guests.
const NICE: i32 = 10;
/// How often the child looks whether its parent lives.
const LOOK: Duration = Duration::from_millis(500);

/// What the parent asks for: one line of JSON, and then the component.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    component_bytes: u64,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<u64>,
    source_lines: bool,
    parent: u32,
}

/// What bounds the compiler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) timeout: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) source_lines: bool,
}

/// Compiles in a child. What it wrote to the draft is for the cache to check.
pub(crate) async fn in_child(
    (program, arguments): (&Path, &[OsString]),
    component: &[u8],
    draft: &Draft,
    bounds: Bounds,
) -> Result<(), LoadError> {
    let failed = |error: io::Error| LoadError::Internal { reason: format!("the compiler's process: {error}") };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let order = Order {
        component_bytes: component.len() as u64,
        memory_bytes: Defence::CompileMemory.stands().then_some(bounds.memory_bytes),
        // For a child whose parent is not there any more to look at the clock.
        cpu_seconds: Defence::CompileTime
            .stands()
            .then(|| bounds.timeout.as_secs().saturating_add(1).saturating_mul(cores)),
        source_lines: bounds.source_lines,
        parent: std::process::id(),
    };
    let mut line = serde_json::to_vec(&order).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(draft.output().map_err(failed)?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let timeout = if Defence::CompileTime.stands() { bounds.timeout } else { Duration::from_secs(3_600) };
    let conversed = tokio::time::timeout(timeout, converse(&mut child, &line, component)).await;
    let Ok(conversed) = conversed else {
        child.kill().await.map_err(failed)?;
        return Err(LoadError::CompileTimeout { limit: bounds.timeout });
    };
    let (status, said) = conversed.map_err(failed)?;
    verdict(status, said, bounds)
}

/// Gives the child its work, and waits for its end.
async fn converse(child: &mut Child, order: &[u8], component: &[u8]) -> io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let give = async {
        let Some(mut stdin) = stdin else { return };
        // One that ended before it read everything is told apart by how it ended.
        if stdin.write_all(order).await.is_ok() {
            let _ = stdin.write_all(component).await;
        }
    };
    let hear = async {
        let (mut said, Some(mut stderr)) = (Vec::new(), stderr) else { return Ok(Vec::new()) };
        (&mut stderr).take(REASON_BYTES).read_to_end(&mut said).await?;
        // The rest is of no use, and must not block it.
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        io::Result::Ok(said)
    };
    let ((), said) = tokio::join!(give, hear);
    let mut said = String::from_utf8_lossy(&said?).into_owned();
    truncate(&mut said, REASON_BYTES as usize);
    Ok((child.wait().await?, said.trim().to_owned()))
}

/// What the child's end means.
fn verdict(status: ExitStatus, said: String, bounds: Bounds) -> Result<(), LoadError> {
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(REFUSED) {
        return Err(ceiling(&said).unwrap_or(LoadError::Compile { reason: said }));
    }
    // The words of the standard library and of the system for memory that is not to be had. A test holds them.
    let starved =
        ["memory allocation of", "Cannot allocate memory", "out of memory", "Resource temporarily unavailable"];
    if starved.iter().any(|words| said.contains(words)) {
        return Err(LoadError::CompileMemory { limit: bounds.memory_bytes });
    }
    if std::os::unix::process::ExitStatusExt::signal(&status) == Some(rustix::process::Signal::XCPU.as_raw()) {
        return Err(LoadError::CompileTimeout { limit: bounds.timeout });
    }
    let last = said.lines().last().unwrap_or_default();
    Err(LoadError::CompilerDied { reason: format!("{status}: {last}") })
}

/// The child's whole life: reads an order and a component from standard input, and writes the compiled code to standard
/// output. Answers with the process's exit code.
pub fn serve() -> u8 {
    match work() {
        Ok(()) => 0,
        Err(reason) => {
            let _ = io::stderr().write_all(reason.as_bytes()); // for the parent, which may be gone
            REFUSED as u8
        }
    }
}

fn work() -> Result<(), String> {
    let mut input = io::stdin().lock();
    let order: Order = serde_json::from_str(&line(&mut input)?).map_err(|error| format!("no order: {error}"))?;
    restrict(&order);
    let mut component = Vec::new();
    input.take(order.component_bytes).read_to_end(&mut component).map_err(|error| format!("no component: {error}"))?;
    if component.len() as u64 != order.component_bytes {
        return Err("the component was cut short".to_owned());
    }
    let engine = Engine::new(&compiler_config(order.source_lines)).map_err(|error| format!("{error:#}"))?;
    let code = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    let mut output = io::stdout().lock();
    cache::seal(&mut output, &code).and_then(|()| output.flush()).map_err(|error| format!("no room for it: {error}"))
}

/// The first line, byte by byte: nothing of what follows may be read before the limits hold.
fn line(input: &mut impl Read) -> Result<String, String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < 4_096 && input.read(&mut byte).is_ok_and(|read| read == 1) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(|_| "the order is no text".to_owned())
}

/// Limits this process, for good. What the system does not know (another one than Linux) it goes without: the parent's clock
/// holds everywhere.
fn restrict(order: &Order) {
    let most = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    if let Some(memory) = order.memory_bytes {
        // Data and not addresses: allocators reserve addresses by the gibibyte and touch few of them.
        let _ = setrlimit(Resource::Data, most(memory));
        let _ = setrlimit(Resource::Fsize, most(memory));
    }
    if let Some(seconds) = order.cpu_seconds {
        let _ = setrlimit(Resource::Cpu, most(seconds));
    }
    let _ = setrlimit(Resource::Core, most(0));
    let _ = nice(NICE);
    // Should the machine itself run out of memory, this process goes before its parent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let parent = order.parent;
    let _ = std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let alive = || getppid().is_some_and(|pid| pid.as_raw_nonzero().get().unsigned_abs() == parent);
        while alive() {
            std::thread::sleep(LOOK);
        }
        std::process::exit(REFUSED)
    });
}
