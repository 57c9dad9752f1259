//! Attacks that take more than one task: each a site of its own, and what was wrong in the end.
//!
//! With a shipped daemon nothing is; `without` plays the same with a defence taken away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adversary::{Case, Stage, Table, cases, guest, patience};
use e2e::{Mode, Setup, Site, Task};
use serde_json::{Value, json};

use crate::attacks::{ECHO, setup};
use crate::bomb;
use crate::files::compiled;

/// How a daemon is set up besides: nothing, or without a defence.
pub type Change<'a> = &'a dyn Fn(Setup) -> Setup;

#[tokio::test]
async fn attacks_in_several_steps_come_to_nothing() {
    let _beside = adversary::MACHINE.read().await;
    let same: Change = &|setup| setup;
    let faulty: Change = &|setup| setup.faulty();
    let mut table = Table::new("scenes");
    table.row("a crowd that computes", "an honest task comes through", "", &crowd(same).await);
    table.row("a loop that is called off", "cancelled at once", "", &called_off(same).await);
    table.row("compiled code of another", "compiled again", "", &stolen_code(same).await);
    table.row("the host panics in a guest", "internal, of that task alone", "", &host_panics(faulty).await);
    table.row("many that grow together", "all complete, within the budget", "", &together(same).await);
    table.row("a component that takes long", "broken: compile_seconds", "", &bomb::long(same).await);
    table.row("a component that takes much", "broken: compile_memory_mib", "", &bomb::large(same).await);
    table.hold();
}

/// A place for commands that only look at settings.
pub async fn site_for_settings() -> Site {
    Site::new(Mode::Embedded).await
}

fn case(id: &str) -> Case {
    cases::all().into_iter().find(|case| case.id == id).expect("a case")
}

/// More guests that compute than there are threads: an honest one still comes through.
pub async fn crowd(change: Change<'_>) -> Vec<String> {
    let crowd = std::thread::available_parallelism().map_or(4, usize::from) * 2;
    let seconds = (3.0 * patience()).ceil() as u64;
    let spins = Case { limits: vec![("cpu_seconds", seconds), ("timeout_seconds", 60)], ..case("loop-in-the-export") };
    let site = Site::new(Mode::Services).await;
    let daemon = change(setup(&site, std::slice::from_ref(&spins)).set("worker.slots", crowd + 2)).start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    crate::attacks::warm(&mut stage).await;
    let tasks: Vec<Task> = (0..crowd).map(|_| Task::new(spins.id, spins.input.clone())).collect();
    site.publish(&tasks).await;
    site.running(crowd).await;
    stage.vigil.take();
    let began = Instant::now();
    let (_, honest) = stage.run(ECHO, json!(1), Duration::from_secs(30)).await;
    let (took, most) = (began.elapsed(), Duration::from_millis(1_500).mul_f64(patience()));
    let mut wrong = stage.vigil.take().bad;
    if honest.is_none_or(|task| task["state"] != "completed") || took > most {
        wrong.push(format!("an honest task took {took:.1?} beside {crowd} that compute, and {most:.1?} is the most"));
    }
    wrong
}

/// Guests that each stay within their limit, and together want many times the memory that there is for all.
pub async fn together(change: Change<'_>) -> Vec<String> {
    const BUDGET_MIB: u64 = 64;
    const RISE_KIB: u64 = (BUDGET_MIB + 64) << 10;
    let limits = vec![("memory_mib", 48), ("timeout_seconds", 60), ("cpu_seconds", 10)];
    let grows = Case { limits, ..Case::probe("grow-together", json!({"do": "allocate", "mib": 38, "hold_ms": 300})) };
    let site = Site::new(Mode::Services).await;
    let memory = ["worker.memory_mib", "limits.default.memory_mib", "limits.max.memory_mib"];
    let setup = memory.iter().fold(setup(&site, std::slice::from_ref(&grows)), |setup, key| setup.set(key, BUDGET_MIB));
    let daemon = change(setup.set("worker.slots", 12)).start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    crate::attacks::warm(&mut stage).await;
    let watch = stage.process.watch();
    let tasks: Vec<Task> = (0..24).map(|_| Task::new(grows.id, grows.input.clone())).collect();
    site.publish(&tasks).await;
    let mut wrong = Vec::new();
    for task in &tasks {
        let ended = stage.ended(task.id, Duration::from_secs(60)).await;
        if ended.as_ref().is_none_or(|task| task["state"] != "completed") {
            wrong.push(format!("{ended:?} instead of completed"));
        }
    }
    if watch.rise() > RISE_KIB {
        wrong.push(format!("resident memory rose by {} MiB, and {BUDGET_MIB} are for guests", watch.rise() >> 10));
    }
    wrong
}

/// A guest that never asks for anything is stopped all the same when its task is called off.
pub async fn called_off(change: Change<'_>) -> Vec<String> {
    let spins = case("loop-past-the-clock");
    let spins = Case { limits: vec![("cpu_seconds", 30), ("timeout_seconds", 30)], ..spins };
    let site = Site::new(Mode::Services).await;
    let daemon = change(setup(&site, std::slice::from_ref(&spins))).start().await;
    let stage = Stage::new(&site, &daemon, ECHO);
    let task = Task::new(spins.id, spins.input.clone());
    site.publish(std::slice::from_ref(&task)).await;
    site.running(1).await;
    let began = Instant::now();
    daemon.http().post(&format!("/v1/tasks/{}/cancel", task.id), &json!({})).await.expect(202);
    let most = Duration::from_secs(1).mul_f64(patience());
    let state = |task: &Value| task["state"].as_str().unwrap_or_default().to_owned();
    let ended = stage.ended(task.id, Duration::ZERO).await.map(|task| state(&task));
    match ended.as_deref() {
        Some("cancelled") if began.elapsed() <= most => Vec::new(),
        ended => vec![format!("{ended:?} after {:.1?}, and cancelled within {most:.1?} is promised", began.elapsed())],
    }
}

/// Somebody else's compiled code lies under the name of a plugin's, in a file that others may write.
pub async fn stolen_code(change: Change<'_>) -> Vec<String> {
    let site = Site::new(Mode::Services).await;
    let other = Case::new("other", guest::returns("\"stolen\""));
    let mut daemon = change(setup(&site, &[other])).start().await;
    let digest = async |name: &str| {
        let listed = daemon.http().get(&format!("/v1/plugins/{name}")).await.expect(200);
        listed["versions"][0]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned()
    };
    let (good, bad) = (digest(ECHO).await, digest("other").await);
    assert_eq!(daemon.terminate().await, Some(0), "a clean end: {}", daemon.said());
    let folder: PathBuf =
        compiled(&site.data("data")).and_then(|file| file.parent().map(PathBuf::from)).expect("a folder");
    let file = |digest: &str| {
        let entries = fs::read_dir(&folder).expect("the folder is readable").flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| path.to_string_lossy().contains(digest)).expect("compiled code")
    };
    let (good, bad) = (file(&good), file(&bad));
    fs::copy(bad, &good).expect("it takes the place");
    fs::set_permissions(&good, fs::Permissions::from_mode(0o666)).expect("its mode");
    daemon.start_again().await;
    let task = Task::new(ECHO, json!(1));
    site.publish(std::slice::from_ref(&task)).await;
    match &daemon.http().ended(task.id).await["output"] {
        Value::Number(_) => Vec::new(),
        output => vec![format!("the echo answered {output}")],
    }
}

/// The host's own code panics while a guest calls it. Only a daemon with faults on demand does.
pub async fn host_panics(change: Change<'_>) -> Vec<String> {
    let logs = case("nul-in-the-log");
    let site = Site::new(Mode::Services).await;
    let setup = setup(&site, std::slice::from_ref(&logs)).variable("AGENTRY_FAILPOINTS", "s4.entered=panic");
    let daemon = change(setup).start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    let (_, task) = stage.run(logs.id, logs.input.clone(), Duration::from_secs(10)).await;
    let failure = task.map(|task| task["failure"].clone()).unwrap_or_default();
    let mut wrong = Vec::new();
    if failure["kind"] != "internal"
        || !failure["message"].as_str().is_some_and(|text| text.contains("the sandbox panicked"))
    {
        wrong.push(format!("{failure} instead of internal, caught by the sandbox"));
    }
    let (_, honest) = stage.run(ECHO, json!(1), Duration::from_secs(10)).await;
    if !stage.alive() || honest.is_none_or(|task| task["state"] != "completed") {
        wrong.push("the next honest task does not complete".to_owned());
    }
    wrong
}
