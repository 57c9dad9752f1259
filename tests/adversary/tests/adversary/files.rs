//! Files that are no plugins, put where plugins belong while the daemon runs: each refused by name, and what served serves on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adversary::cases::files::{self, CEILINGS, Refused};
use adversary::{Stage, Table, install, patience};
use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Site};
use serde_json::{Value, json};

use crate::attacks::{ECHO, served, setup, wanted};

/// By how much resident memory may rise while a file is refused, in KiB: the file itself, and what is made of it.
const RISE: u64 = 128 << 10;

#[tokio::test]
async fn what_is_no_plugin_is_refused_by_name_and_what_served_serves_on() {
    let _beside = adversary::MACHINE.read().await;
    let site = Site::new(Mode::Services).await;
    let plugins = site.folder().join("plugins");
    let setup = CEILINGS.iter().fold(setup(&site, &[]), |setup, (name, value)| setup.set(name, *value));
    let daemon = setup.start().await;
    let compiled = compiled(&site.data("data")).expect("the daemon keeps what it compiled");
    let mut stage = Stage::new(&site, &daemon, ECHO);
    let mut table = Table::new("files");
    let good = install::bytes(&adversary::guest::Guest::default().into());
    for refused in files::all(std::fs::read(compiled).expect("compiled code")).iter().filter(|it| wanted(it.id)) {
        let kept = format!("{}-kept", refused.id);
        install::install(&plugins, &kept, install::LIMITS, &good);
        served(&daemon, &kept).await;
        stage.vigil.take();
        let (watch, began) = (stage.process.watch(), Instant::now());
        refused.put(&plugins, refused.id, "0.1.0");
        refused.put(&plugins, &kept, "0.2.0");
        let mut wrong = Vec::new();
        for name in [refused.id, &kept] {
            wrong.extend(cause(&stage, refused, name).await);
        }
        let (took, rise) = (began.elapsed(), watch.rise());
        drop(watch);
        if rise > RISE {
            wrong.push(format!("memory rose by {} MiB", rise >> 10));
        }
        let noticed = stage.vigil.take();
        wrong.extend(noticed.bad.into_iter().take(1));
        if noticed.slowest > Duration::from_secs(1).mul_f64(patience()) {
            wrong.push(format!("/healthz took {:.1?}", noticed.slowest));
        }
        let (_, task) = stage.run(&format!("{kept}@=0.1.0"), json!(7), Duration::from_secs(10)).await;
        if task.as_ref().is_none_or(|task| task["output"] != 7) {
            wrong.push(format!("what served does not serve on: {task:?}"));
        }
        let numbers = format!("{:>5} ms {:>+5} MiB", took.as_millis(), rise >> 10);
        table.row(refused.id, "refused", &numbers, &wrong);
        if !stage.alive() {
            break;
        }
        for name in [refused.id, &kept] {
            std::fs::remove_dir_all(plugins.join(name)).expect("the folder goes");
        }
    }
    let ids = std::mem::take(&mut stage.ids);
    drop(stage);
    table.hold();
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

/// Waits until a folder's file is refused, with what must be said.
pub async fn cause(stage: &Stage<'_>, refused: &Refused, name: &str) -> Option<String> {
    let (began, within) = (Instant::now(), Duration::from_secs(10).mul_f64(patience()));
    let mut last = String::new();
    while stage.alive() && began.elapsed() < within {
        let versions = versions(stage.daemon, name).await;
        // Not what is only so for the moment, between one file and the next.
        let lasting = |cause: &&str| !["is being written", "keeps serving"].iter().any(|words| cause.contains(words));
        let causes: Vec<&str> =
            versions.iter().filter_map(|version| version["cause"].as_str()).filter(lasting).collect();
        if causes.iter().any(|cause| refused.says.iter().all(|words| cause.contains(words))) {
            let large = causes.iter().map(|cause| cause.len()).max().unwrap_or(0);
            return (large > 8 << 10).then(|| format!("a cause of {large} bytes"));
        }
        last = format!("{versions:?}");
        tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
    }
    Some(format!("{name} is not refused with {:?}: {}", refused.says, adversary::oracle::cut(&last)))
}

/// What the daemon says of the files in one folder.
async fn versions(daemon: &Daemon, folder: &str) -> Vec<Value> {
    let Ok(answer) = daemon.http().try_get("/v1/plugins").await else { return Vec::new() };
    let listed = answer.json();
    let versions = listed["plugins"].as_array().into_iter().flatten();
    let versions = versions.flat_map(|plugin| plugin["versions"].as_array().cloned().unwrap_or_default());
    let below = format!("/{folder}");
    versions.filter(|version| version["path"].as_str().is_some_and(|path| path.ends_with(&below))).collect()
}

/// Some file of compiled code below a data folder.
pub fn compiled(folder: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        if path.is_dir() { compiled(&path) } else { path.extension().is_some_and(|end| end == "cwasm").then_some(path) }
    })
}
