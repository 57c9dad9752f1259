//! Memory of all guests together: a full budget makes tasks wait, and fails none.

use e2e::invariants::{self, Expected};
use e2e::patience::holds;
use e2e::{Daemon, Mode, Setup, Site, Task, eventually, probe, task};
use serde_json::json;

e2e::in_both_modes! {
    tasks_that_each_grow_to_most_of_the_budget_all_complete_and_none_of_them_fails
    guests_that_wait_lend_their_memory_to_others
    a_flood_at_its_concurrency_limit_holds_neither_slots_nor_memory
    what_attempts_used_is_shown_and_summed
}

/// The budget, which is also the most that one task of the guest `probe` may have.
const BUDGET_MIB: u64 = 64;

/// A daemon with a small budget and the plugins that fit into it.
fn small(site: &Site, slots: u64) -> Setup {
    let plugins = site.folder().join("plugins");
    e2e::plugin::install("probe", &plugins);
    e2e::plugin::install("word-count", &plugins);
    site.setup()
        .plugins([plugins])
        .set("worker.slots", slots)
        .set("worker.memory_mib", BUDGET_MIB)
        .set("limits.default.memory_mib", BUDGET_MIB)
        .set("limits.max.memory_mib", BUDGET_MIB)
}

async fn tasks_that_each_grow_to_most_of_the_budget_all_complete_and_none_of_them_fails(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = small(&site, 12).start().await;
    let at_first = peak_mib(&daemon);
    let tasks: Vec<_> = (0..24).map(|_| probe::allocate(BUDGET_MIB * 6 / 10, 100)).collect();
    site.submit(&daemon, &tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let mut interruptions = 0;
    for id in &ids {
        let ended = daemon.http().task(*id).await;
        assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
        let events = daemon.http().events(*id).await;
        let interrupted: Vec<_> = events.iter().filter(|event| event["event"] == "interrupted").collect();
        assert!(interrupted.len() <= 1, "its second run reserves all that it may use: {events:?}");
        for event in interrupted {
            let reason = event["detail"]["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("MiB of memory") && reason.contains("worker.memory_mib = 64"), "{event}");
            interruptions += 1;
        }
    }
    assert!(interruptions > 0, "12 slots let more begin than can grow");
    assert_eq!(daemon.http().metric("agentry_memory_interruptions_total").await, f64::from(interruptions));
    all_given_back(&daemon).await;
    // Twelve at once would take 456 MiB. Beyond the budget is what the host itself takes, and what idle slots keep resident.
    let rise = peak_mib(&daemon) - at_first;
    assert!(rise <= BUDGET_MIB + 64, "resident memory rose by {rise} MiB");
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn guests_that_wait_lend_their_memory_to_others(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = small(&site, 16).start().await;
    // While they begin, each reserves its initial memory and 4 MiB: sixteen would not fit.
    let tasks: Vec<_> = (0..16).map(|_| probe::sleep(2_000)).collect();
    site.submit(&daemon, &tasks).await;
    site.running(16).await;
    let reserved = daemon.http().metric("agentry_memory_reserved_bytes").await;
    assert!(reserved <= BUDGET_MIB as f64 * 1_048_576.0, "{reserved} bytes are reserved");
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    all_given_back(&daemon).await;
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn a_flood_at_its_concurrency_limit_holds_neither_slots_nor_memory(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = small(&site, 4).set("plugins.probe.concurrency", 1).start().await;
    let flood: Vec<_> = (0..40).map(|_| probe::allocate(BUDGET_MIB * 6 / 10, 200)).collect();
    site.submit(&daemon, &flood).await;
    let others: Vec<_> = (0..5).map(|n| Task::new("word-count", json!({"text": format!("{n}")}))).collect();
    site.submit(&daemon, &others).await;
    for id in task::ids(&others) {
        assert_eq!(daemon.http().ended(id).await["state"], "completed");
    }
    let rows = site.database().await.tasks().await;
    let ended = task::ids(&flood).iter().filter(|id| rows.get(*id).is_some_and(|r| r.state == "completed")).count();
    assert!(ended < flood.len() - 5, "the flood still goes on: {ended} have ended");
    let ids: Vec<_> = task::ids(&flood).into_iter().chain(task::ids(&others)).collect();
    site.at_rest(&ids).await;
    all_given_back(&daemon).await;
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn what_attempts_used_is_shown_and_summed(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = small(&site, 4).start().await;
    let tasks = [probe::allocate(16, 0), probe::fail_until_attempt(2), probe::fail_permanent("no")];
    site.submit(&daemon, &tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let http = daemon.http();
    let attempts = |ended: &str, kind: &str| {
        format!("agentry_attempts_total{{plugin=\"probe\",ended=\"{ended}\",kind=\"{kind}\"}}")
    };
    let of = |name: &str| format!("agentry_{name}_total{{plugin=\"probe\"}}");
    assert_eq!(http.metric(&attempts("completed", "")).await, 2.0);
    assert_eq!(http.metric(&attempts("retrying", "plugin_error")).await, 1.0);
    assert_eq!(http.metric(&attempts("failed", "plugin_error")).await, 1.0);
    // What is summed is what stands in the rows.
    let mut sums = [0.0; 4];
    for id in &ids {
        for attempt in http.attempts(*id).await {
            let usage = |name: &str| attempt["usage"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {attempt}"));
            let of_one = [usage("wall_us") / 1e6, usage("cpu_us") / 1e6, usage("log_bytes"), usage("host_calls")];
            sums.iter_mut().zip(of_one).for_each(|(sum, one)| *sum += one);
        }
    }
    for (name, sum) in ["wall_seconds", "cpu_seconds", "log_bytes", "host_calls"].into_iter().zip(sums) {
        let counted = http.metric(&of(name)).await;
        assert!(sum > 0.0 && (counted - sum).abs() < 1e-6, "{name}: {counted}, and the rows say {sum}");
    }
    let shown = e2e::daemon::run(site.folder(), &["task", "show", &ids[0].to_string(), "--server", http.base()]).await;
    shown.expect(0, &[]);
    let line = shown.stdout.lines().find(|line| line.starts_with("attempt 1 completed: ")).unwrap_or_default();
    assert!(line.contains(" CPU, 17.") && line.contains(" MiB memory at most, "), "{}", shown.stdout);
    let plugin = e2e::daemon::run(site.folder(), &["plugin", "inspect", "probe", "--server", http.base()]).await;
    let reserve = plugin.stdout.lines().any(|line| line.contains("memory_reserve_mib = 6 (from derived, at most 64)"));
    assert!(reserve, "{}", plugin.stdout);
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

/// Until nothing is reserved and nobody waits: what a task had is given back before its end is recorded.
async fn all_given_back(daemon: &Daemon) {
    eventually("all memory is given back", async || {
        let reserved = daemon.http().metric("agentry_memory_reserved_bytes").await;
        let waiting = daemon.http().metric("agentry_memory_waiting").await;
        holds(reserved == 0.0 && waiting == 0.0, || format!("{reserved} bytes are reserved, {waiting} wait"))
    })
    .await;
}

/// The most that was ever resident of a daemon, in MiB.
fn peak_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") >> 10
}
