//! Components that are small, valid, and too much for a compiler.

use std::time::{Duration, Instant};

use adversary::cases::files::{leb, with_module};
use adversary::{Stage, install, patience};
use e2e::{Daemon, Mode, Site};
use serde_json::json;

use crate::attacks::{ECHO, setup};
use crate::scenes::Change;

/// By how much the daemon's resident memory may rise, in KiB: the file, read and handed on.
const RISE: u64 = 128 << 10;
/// How much longer than `compile_seconds` it may take until the plugin is broken: it is looked for, read and handed on.
const LATE: Duration = Duration::from_secs(10);

/// Twenty thousand functions: as long as the compiler is let.
pub async fn long(change: Change<'_>) -> Vec<String> {
    let code = functions(20_000, 100);
    refused(change, &code, &[("limits.max.compile_seconds", 2)], Duration::from_secs(2), "compile_seconds").await
}

/// One function that never branches: its memory grows with every instruction.
pub async fn large(change: Change<'_>) -> Vec<String> {
    let code = functions(1, 600_000); // a body is at most 7.3 MB long
    let bounds = [("limits.max.compile_memory_mib", 192), ("limits.max.compile_seconds", 60)];
    refused(change, &code, &bounds, Duration::from_secs(60), "compile_memory_mib").await
}

async fn refused(
    change: Change<'_>,
    sections: &[u8],
    bounds: &[(&str, u64)],
    within: Duration,
    says: &str,
) -> Vec<String> {
    let site = Site::new(Mode::Services).await;
    let setup = bounds.iter().fold(change(setup(&site, &[])), |setup, (name, value)| setup.set(name, *value));
    let daemon = setup.start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    crate::attacks::warm(&mut stage).await;
    stage.vigil.take();
    let (watch, began) = (stage.process.watch(), Instant::now());
    install::install(&site.folder().join("plugins"), "bomb", install::LIMITS, &with_module(sections));
    let mut wrong = Vec::new();
    let most = (within + LATE).mul_f64(patience());
    let cause = loop {
        // Others serve on meanwhile.
        let (_, honest) = stage.run(ECHO, json!(1), Duration::from_secs(10)).await;
        if honest.is_none_or(|task| task["state"] != "completed") {
            wrong.push("an honest task of another plugin does not complete".to_owned());
        }
        let cause = cause(&daemon).await;
        if cause.is_some() || began.elapsed() > most || !stage.alive() {
            break cause;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // between two looks
    };
    match cause {
        Some(cause) if cause.contains(says) => {}
        other => wrong.push(format!("{other:?} after {:.1?} does not say {says}", began.elapsed())),
    }
    if watch.rise() > RISE {
        wrong.push(format!("the daemon's memory rose by {} MiB", watch.rise() >> 10));
    }
    let noticed = stage.vigil.take();
    wrong.extend(noticed.bad.into_iter().take(1));
    if noticed.slowest > Duration::from_secs(1).mul_f64(patience()) {
        wrong.push(format!("/healthz took {:.1?}", noticed.slowest));
    }
    if !stage.alive() {
        wrong.push("the daemon is gone".to_owned());
    }
    wrong
}

/// Why the plugin is broken; `None`: it is not, or not yet.
async fn cause(daemon: &Daemon) -> Option<String> {
    let answer = daemon.http().try_get("/v1/plugins/bomb").await.ok()?;
    let listed: serde_json::Value = serde_json::from_str(&answer.text).ok()?;
    let ready = (listed["state"] == "ready").then(|| "ready".to_owned());
    ready.or_else(|| listed["cause"].as_str().map(str::to_owned))
}

/// The sections of a module with so many functions, each of so many steps of twelve bytes.
fn functions(count: usize, steps: usize) -> Vec<u8> {
    let section = |id: u8, body: Vec<u8>| [vec![id], leb(body.len()), body].concat();
    let types = section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]);
    let declared = section(3, [leb(count), vec![0; count]].concat());
    // local.get 0, i32.const N, i32.mul, local.get 0, i32.xor, local.set 0
    let step: Vec<u8> = vec![0x20, 0, 0x41, 0xe5, 0x8e, 0x26, 0x6c, 0x20, 0, 0x73, 0x21, 0];
    let body = [vec![0], step.repeat(steps), vec![0x20, 0, 0x0b]].concat();
    let body = [leb(body.len()), body].concat();
    let code = section(10, [leb(count), body.repeat(count)].concat());
    [types, declared, code].concat()
}
