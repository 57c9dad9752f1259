//! The compiler in a process of its own: this package's program, started by a sandbox.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use agentry_sandbox::{Compiler, Grants, Limits, LoadError, Plugin, Sandbox, SandboxConfig};

#[path = "../sandbox/tests/sandbox/guest.rs"]
#[allow(dead_code, reason = "the sandbox's own tests use all of it")]
mod guest;

use guest::Guest;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Compiler {
    Compiler::Child { program: env!("CARGO_BIN_EXE_agentry").into(), arguments: vec!["compile".into()] }
}

/// A shell in the place of the program.
fn shell(script: &str) -> Compiler {
    Compiler::Child { program: "/bin/sh".into(), arguments: ["-c", script].map(OsString::from).into() }
}

fn config(dir: &Path, compiler: Compiler) -> SandboxConfig {
    let cache_dir = Some(dir.to_owned());
    SandboxConfig { cache_dir, slots: 1, compile_timeout: PATIENCE, compiler, ..SandboxConfig::default() }
}

async fn load(config: SandboxConfig, guest: &Guest) -> Result<Plugin, LoadError> {
    Sandbox::new(config).unwrap().load(guest.build(), &Grants::default()).await
}

fn files(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A guest with one function so large that no compiler is done with it soon.
fn endless() -> Guest {
    let mut core = String::from("(func (param i32) (result i32) (local i32 i32 i32 i32)\n");
    let blocks = 6_000;
    for _ in 0..blocks {
        core.push_str("(block ");
    }
    core.push_str("(br_table");
    for target in 0..blocks {
        let _ = write!(core, " {target}");
    }
    core.push_str(" (local.get 0))");
    for n in 0..blocks {
        let _ = write!(
            core,
            ") (local.set {} (i32.add (local.get {}) (i32.mul (local.get {}) (i32.const {n}))))",
            n % 4 + 1,
            (n + 1) % 4 + 1,
            (n + 2) % 4 + 1
        );
    }
    core.push_str("(local.get 1))\n");
    // Several, so that every core is busy with it.
    Guest { core: core.repeat(8), ..Guest::default() }
}

#[tokio::test]
async fn what_a_child_compiled_is_kept_in_the_cache_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    load(config(dir.path(), program()), &Guest::default()).await.unwrap();
    let files_ = files(dir.path());
    assert!(files_.len() == 1 && files_[0].ends_with(".cwasm"), "{files_:?}");
    // Nothing is compiled any more: there is no compiler.
    load(config(dir.path(), shell("exit 1")), &Guest::default()).await.unwrap();
}

#[tokio::test]
async fn without_a_cache_it_is_compiled_all_the_same() {
    let config = SandboxConfig { slots: 1, compile_timeout: PATIENCE, compiler: program(), ..SandboxConfig::default() };
    load(config, &Guest::default()).await.unwrap();
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_killed_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limited = SandboxConfig { compile_timeout: Duration::from_millis(500), ..config(dir.path(), program()) };
    let loading = tokio::spawn(async move { load(limited, &endless()).await });
    let began = Instant::now();
    while children() == 0 && began.elapsed() < PATIENCE && !loading.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await; // between two looks
    }
    assert_eq!(children(), 1, "the compiler is seen at work");
    let loaded = loading.await.unwrap();
    assert!(matches!(loaded, Err(LoadError::CompileTimeout { .. })), "{loaded:?}");
    assert_eq!(files(dir.path()), Vec::<String>::new());
    assert_eq!(children(), 0, "it is gone");
}

/// Children of this process that are compilers with less than a second: known by their limit of CPU time, since other tests have
/// compilers too.
fn children() -> usize {
    let own = std::process::id().to_string();
    let seconds = std::thread::available_parallelism().unwrap().to_string();
    let is_ours = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&own);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let with = |path: std::path::PathBuf| {
        let limits = std::fs::read_to_string(path.join("limits")).unwrap_or_default();
        is_ours(std::fs::read_to_string(path.join("stat")).unwrap_or_default())
            && limits
                .lines()
                .any(|line| line.starts_with("Max cpu time") && line.split_whitespace().nth(3) == Some(&seconds))
    };
    processes.filter(|process| with(process.path())).count()
}

#[tokio::test]
async fn a_compiler_that_wants_too_much_memory_is_refused_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = SandboxConfig { compile_memory: 64 << 20, ..config(dir.path(), program()) };
    let loaded = load(config.clone(), &endless()).await;
    assert!(matches!(loaded, Err(LoadError::CompileMemory { .. })), "{loaded:?}");
    assert!(loaded.unwrap_err().to_string().contains("compile_memory_mib = 64"));
    load(config, &Guest::default()).await.unwrap();
}

#[tokio::test]
async fn what_the_compiler_refuses_is_refused_in_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Guest { core: "(func (result i32) (i64.const 1))".to_owned(), ..Guest::default() };
    let Err(LoadError::Compile { reason }) = load(config(dir.path(), program()), &bad).await else { panic!() };
    assert!(reason.contains("type mismatch"), "{reason}");
}

#[tokio::test]
async fn a_component_beyond_a_ceiling_is_refused_by_the_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    let ceilings = Limits { table_elements: 10, ..Limits::default() };
    let guest = Guest { core: "(table 11 funcref)".to_owned(), ..Guest::default() };
    let loaded = load(SandboxConfig { ceilings, ..config(dir.path(), program()) }, &guest).await;
    assert!(matches!(loaded, Err(LoadError::Ceiling { setting: "table_elements", .. })), "{loaded:?}");
}

#[tokio::test]
async fn the_compiler_has_an_empty_environment_and_no_folder() {
    assert!(std::env::vars().next().is_some(), "there is something to inherit");
    let dir = tempfile::tempdir().unwrap();
    let script = "env >&2; pwd >&2; exit 3";
    let Err(LoadError::Compile { reason }) = load(config(dir.path(), shell(script)), &Guest::default()).await else {
        panic!()
    };
    // All but what a shell sets by itself. A refusal is told on one line.
    let of_the_shell = |line: &&str| ["PWD=/", "OLDPWD=", "SHLVL=", "_="].iter().any(|its| line.starts_with(its));
    let told: Vec<_> = reason.split("\\u{a}").filter(|line| !of_the_shell(line)).collect();
    assert_eq!(told, ["/"], "{reason}");
}

#[tokio::test]
async fn what_no_compiler_of_ours_wrote_is_never_loaded() {
    for (script, expected) in
        [("echo not compiled code", "too short"), ("head -c 4096 /dev/zero", "checksum"), ("true", "too short")]
    {
        let dir = tempfile::tempdir().unwrap();
        let error = load(config(dir.path(), shell(script)), &Guest::default()).await.unwrap_err();
        assert!(matches!(error, LoadError::Internal { .. }) && error.to_string().contains(expected), "{error}");
        assert_eq!(files(dir.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_compiler_that_dies_is_this_components_fault_and_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        load(config(dir.path(), shell("echo overflow >&2; kill -SEGV $$")), &Guest::default()).await.unwrap_err();
    assert!(matches!(error, LoadError::CompilerDied { .. }), "{error}");
    assert!(error.to_string().contains("signal: 11") && error.to_string().contains("overflow"), "{error}");
}

#[test]
fn a_compiler_whose_parent_is_gone_ends() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_agentry"))
        .arg("compile")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Process 1 never was its parent; the component never comes, and the pipe stays open.
    let order = br#"{"component_bytes":9,"memory_bytes":null,"cpu_seconds":9999,"source_lines":false,"parent":1}"#;
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(order).and_then(|()| stdin.write_all(b"\n")).unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it still waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
