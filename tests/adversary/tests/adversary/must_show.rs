//! What must be shown to whoever asks whether the sandbox holds: the worst five together, among a thousand honest tasks.

use adversary::{Case, Stage, Table, cases, oracle};
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, plugin, task};
use serde_json::json;
use uuid::Uuid;

use crate::attacks::{ECHO, setup};

/// What all guests together may have, in MiB.
const BUDGET: u64 = 128;
/// What the daemon itself may take beside them for a thousand tasks that wait, run and are written down, in MiB.
const ALLOWANCE: u64 = 128;
/// Honest tasks.
const HONEST: usize = 1_000;

#[tokio::test]
async fn a_thousand_honest_tasks_complete_beside_five_hostile_ones() {
    let _beside = adversary::MACHINE.read().await;
    let names =
        ["loop-in-the-export", "a-million-pages", "output-of-66-kib", "returns-a-pointer-outside", "ten-million-lines"];
    let all = cases::all();
    let hostile: Vec<Case> = names.map(|name| all.iter().find(|case| case.id == name).expect("a case").clone()).into();
    let site = Site::new(Mode::Services).await;
    let setup = setup(&site, &hostile)
        .set("worker.memory_mib", BUDGET)
        .set("limits.max.memory_mib", BUDGET)
        .set("worker.slots", 4);
    plugin::install("word-count", &site.folder().join("plugins"));
    let daemon = setup.start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    crate::attacks::warm(&mut stage).await;
    stage.vigil.take();
    let watch = stage.process.watch();

    let honest: Vec<Task> =
        (0..HONEST).map(|n| Task::new("word-count", json!({"text": "a b ".repeat(n % 50)}))).collect();
    let attacks: Vec<Task> = hostile.iter().map(|case| Task::new(case.id, case.input.clone())).collect();
    // One attack after each two hundred.
    for (some, attack) in honest.chunks(HONEST / attacks.len()).zip(&attacks) {
        site.publish(std::slice::from_ref(attack)).await;
        site.publish(some).await;
    }
    let ids: Vec<Uuid> = task::ids(&honest).into_iter().chain(task::ids(&attacks)).collect();
    site.at_rest(&ids).await;
    let rise = watch.rise() >> 10;

    let mut table = Table::new("five hostile among a thousand honest tasks");
    for (case, attack) in hostile.iter().zip(&attacks) {
        let task = daemon.http().task(attack.id).await;
        let (attempts, logs) = (daemon.http().attempts(attack.id).await, daemon.http().logs(attack.id).await);
        let seen = adversary::Seen { task: Some(task), attempts, logs, ..adversary::Seen::default() };
        table.add(case, &seen, &oracle::violations(case, &seen));
    }
    let rows = site.database().await.tasks().await;
    let bad: Vec<String> =
        honest.iter().filter(|task| rows[&task.id].state != "completed").map(|task| task.id.to_string()).collect();
    table.row("honest tasks", &format!("{} of {HONEST} completed", HONEST - bad.len()), "", &bad);
    let over = (rise > BUDGET + ALLOWANCE).then(|| format!("{BUDGET} and {ALLOWANCE} MiB are the most"));
    table.row("resident memory", &format!("{BUDGET} MiB for guests"), &format!("{rise:>+5} MiB"), over.as_slice());
    let gone = (!stage.alive()).then(|| "the daemon is another".to_owned());
    table.row("the daemon", &format!("process {}", stage.process.0), "", gone.as_slice());
    let noticed = stage.vigil.take();
    table.row("/healthz and /readyz", "all the time", &format!("{:.0?}", noticed.slowest), &noticed.bad);
    let all = [ids, std::mem::take(&mut stage.ids)].concat();
    drop((stage, watch));
    table.hold();
    invariants::hold(&site, daemon, &all, Expected::default()).await;
}
