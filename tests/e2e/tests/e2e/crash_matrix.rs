//! The crash matrix: at every step of a task's way, and of the duties beside it, the process dies, or a call happens and its
//! answer is lost. Each cell is a site of its own over real services, and ends with the invariants and the guests' own
//! ledger. In `--full`, a call that does not happen, and one that hangs, as well.
//!
//! `AGENTRY_TEST_CELL=s6.settled` runs the cells whose name contains that.

mod redrive;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::time::Instant;

use e2e::amqp::Outgoing;
use e2e::database::TaskRow;
use e2e::invariants::{self, Ends, Expected, Kept};
use e2e::ledger::Ledger;
use e2e::{Daemon, Mode, Site, Task, eventually, plugin, probe, task};
use futures_util::StreamExt;
use serde_json::json;
use uuid::Uuid;

/// Cells that run at once; each is mostly waiting.
const AT_ONCE: usize = 4;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Abort,
    CommitThenError,
    Error,
    Hang,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Abort => "abort",
            Fault::CommitThenError => "commit-then-error",
            Fault::Error => "error",
            Fault::Hang => "hang",
        })
    }
}

/// What a cell needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// Tasks of every kind.
    Usual,
    /// Tasks whose owner is dead and whose message is gone.
    Orphans,
    /// Dead letters that an operator has redriven.
    Letters,
}

/// A point, the hit at which something happens there (so that work is in flight), the faults that make sense.
struct Point {
    name: &'static str,
    hit: u32,
    scene: Scene,
    /// First attempts begin before they are claimed; otherwise every task is claimed first.
    unclaimed: bool,
    faults: &'static [Fault],
}

const USUAL: &[Fault] = &[Fault::Abort, Fault::CommitThenError];
const FULL: &[Fault] = &[Fault::Error, Fault::Hang];
const DEATH: &[Fault] = &[Fault::Abort];

const fn point(name: &'static str, hit: u32, faults: &'static [Fault]) -> Point {
    Point { name, hit, scene: Scene::Usual, unclaimed: false, faults }
}

const fn unclaimed(name: &'static str, hit: u32, faults: &'static [Fault]) -> Point {
    Point { name, hit, scene: Scene::Usual, unclaimed: true, faults }
}

const fn letters(name: &'static str, faults: &'static [Fault]) -> Point {
    Point { name, hit: 2, scene: Scene::Letters, unclaimed: false, faults }
}

/// In the order of a task's way. A point before a call knows no lost answer: that is the point behind it.
const POINTS: &[Point] = &[
    point("s0.received", 9, DEATH),
    point("s1.decoded", 9, DEATH),
    point("s2.claim", 3, DEATH),
    point("s3.claimed", 3, USUAL),
    point("s4.entered", 6, DEATH),
    point("s4.ended", 6, USUAL),
    point("s5.settle", 3, DEATH),
    point("s6.settled", 3, USUAL),
    point("s7.acknowledge", 3, DEATH),
    point("s7.acknowledged", 3, USUAL),
    point("submit.before", 2, DEATH),
    point("submit.after", 2, USUAL),
    point("relay.take", 5, DEATH),
    point("relay.taken", 1, USUAL),
    point("relay.publish", 1, DEATH),
    point("relay.published", 1, USUAL),
    point("relay.drop", 1, DEATH),
    point("relay.dropped", 1, USUAL),
    point("wake.before", 5, DEATH),
    point("wake.after", 1, USUAL),
    point("dead.record", 1, DEATH),
    point("dead.recorded", 1, USUAL),
    point("dead.publish", 1, DEATH),
    point("dead.published", 1, USUAL),
    point("lease.renewed", 2, USUAL),
    letters("redrive.begin", DEATH),
    letters("redrive.begun", USUAL),
    letters("redrive.publish", DEATH),
    letters("redrive.published", USUAL),
    letters("redrive.end", DEATH),
    letters("redrive.ended", USUAL),
    unclaimed("s4.entered", 6, DEATH),
    unclaimed("s4.ended", 6, USUAL),
    unclaimed("s2.claim", 1, DEATH),
    unclaimed("s3.claimed", 1, USUAL),
    unclaimed("s5.record", 2, DEATH),
    unclaimed("s6.recorded", 2, USUAL),
    unclaimed("s7.acknowledge", 2, DEATH),
    Point { name: "rescue.before", hit: 4, scene: Scene::Orphans, unclaimed: false, faults: DEATH },
    Point { name: "rescue.after", hit: 1, scene: Scene::Orphans, unclaimed: false, faults: USUAL },
];

struct Cell {
    point: &'static Point,
    fault: Fault,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unclaimed = if self.point.unclaimed { " unclaimed" } else { "" };
        write!(f, "{} {}{unclaimed}", self.point.name, self.fault)
    }
}

/// Where nothing can be awaited, and where there is nothing that could fail without a death, there is no cell.
fn possible(point: &Point, fault: Fault) -> bool {
    match (point.name, fault) {
        ("s1.decoded" | "s4.entered", _) => false,
        // The broker has delivered and will not again while the channel lives: only its end loses a delivery or an
        // acknowledgement, and the end of channels is tested beside `outages`.
        ("s0.received" | "s7.acknowledge", Fault::Error) => false,
        _ => true,
    }
}

/// What a cell cost.
struct Outcome {
    runs: usize,
    again: usize,
}

#[tokio::test]
async fn every_step_survives_every_fault() {
    tokio::task::LocalSet::new().run_until(matrix()).await;
}

async fn matrix() {
    let full = std::env::var_os("AGENTRY_TEST_FULL").is_some();
    let wanted = std::env::var("AGENTRY_TEST_CELL").unwrap_or_default();
    let cells: Vec<Cell> = POINTS
        .iter()
        .flat_map(|point| {
            let more = FULL.iter().filter(|fault| full && possible(point, **fault));
            point.faults.iter().chain(more).map(move |fault| Cell { point, fault: *fault })
        })
        .filter(|cell| cell.to_string().contains(&wanted))
        .collect();
    assert!(!cells.is_empty(), "no cell is called {wanted:?}");
    let began = Instant::now();
    let mut outcomes: Vec<(usize, String, Result<Outcome, String>)> =
        futures_util::stream::iter(cells.into_iter().enumerate())
            .map(async |(place, cell)| {
                let name = cell.to_string();
                let ended = tokio::task::spawn_local(run(cell)).await;
                // A panic has been printed where it happened.
                let outcome = ended.map_err(|error| error.to_string());
                (place, name, outcome)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
    outcomes.sort_by_key(|(place, ..)| *place);
    let mut table = format!("crash matrix: {} cells in {:.0?}\n", outcomes.len(), began.elapsed());
    for (_, name, outcome) in &outcomes {
        table += &match outcome {
            Ok(Outcome { runs, again }) => format!("  {name:<36} holds; {runs} runs, {again} of them once more\n"),
            Err(error) => format!("  {name:<36} BROKEN: {error}\n"),
        };
    }
    // Past the test's own capture: the table is to be seen in every run.
    let _ = std::io::stderr().write_all(table.as_bytes());
    let broken: Vec<_> = outcomes.iter().filter(|(.., outcome)| outcome.is_err()).map(|(_, name, _)| name).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

async fn run(cell: Cell) -> Outcome {
    match cell.point.scene {
        Scene::Usual => usual(cell).await,
        Scene::Orphans => orphans(cell).await,
        Scene::Letters => redrive::redrive(cell).await,
    }
}

async fn usual(cell: Cell) -> Outcome {
    let site = Site::new(Mode::Services).await;
    let ledger = Ledger::in_folder(site.folder());
    let mut daemon = setup(&site, &ledger, &cell).start().await;
    let published: Vec<Task> = (0..10)
        .map(|n| probe::echo(json!(n)))
        .chain((0..8).map(|_| probe::sleep(120)))
        .chain((0..4).map(|_| probe::fail_until_attempt(2)))
        .collect();
    let submitted: Vec<Task> = (0..6).map(|_| probe::sleep(40)).collect();
    site.publish(&published).await;
    site.amqp().publish(site.prefix(), "default", [Outgoing::json("{\"plugin\": 7}"), Outgoing::json("[")]).await;
    for task in &submitted {
        // The daemon may die under it; then it is submitted again, under the same id, as a client does.
        let _ = daemon.http().try_post("/v1/tasks", &task.body()).await;
    }
    let all: Vec<Uuid> = published.iter().chain(&submitted).map(|task| task.id).collect();
    let struck = strike(&site, &cell, &ledger, &mut daemon).await;
    for task in &submitted {
        let answer = daemon.http().post("/v1/tasks", &task.body()).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
    site.at_rest(&all).await;
    let outcome = count(&ledger, &cell, &site.database().await.tasks().await, &struck);
    let expected = Expected { dead_letters: 2, take_overs: 1, all_complete: true, ..Expected::default() };
    invariants::hold_with(&site, daemon, &all, expected, struck.kept(&ledger)).await;
    outcome
}

/// What runs when a host dies whose queue acknowledges when it claims is in no queue: only the rescuer brings it back.
async fn orphans(cell: Cell) -> Outcome {
    let site = Site::new(Mode::Services).await;
    let ledger = Ledger::in_folder(site.folder());
    let claimed = |setup: e2e::Setup| setup.set("queues.default.ack", "claimed").set("lease.ttl_seconds", 2);
    let mut first = claimed(base(&site, &ledger, "first")).start().await;
    let tasks: Vec<Task> = (0..4).map(|_| probe::sleep(2_000)).collect();
    site.publish(&tasks).await;
    let database = site.database().await;
    eventually("four tasks run", async || {
        let running = database.tasks().await.values().filter(|row| row.state == "running").count();
        if running == 4 { Ok(()) } else { Err(format!("{running} do")) }
    })
    .await;
    first.kill();
    let mut daemon = claimed(setup(&site, &ledger, &cell)).start().await;
    let struck = strike(&site, &cell, &ledger, &mut daemon).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let outcome = count(&ledger, &cell, &site.database().await.tasks().await, &struck);
    let expected = Expected { take_overs: 2, all_complete: true, ..Expected::default() };
    invariants::hold_with(&site, daemon, &ids, expected, struck.kept(&ledger)).await;
    outcome
}

fn setup(site: &Site, ledger: &Ledger, cell: &Cell) -> e2e::Setup {
    let Cell { point: Point { name, hit, unclaimed, .. }, fault } = cell;
    let rule = format!("{name}={fault}@{hit}");
    let patience = if *unclaimed { 60 } else { 0 };
    base(site, ledger, "data")
        .set("worker.claim_after_ms", patience)
        .set("lease.ttl_seconds", 3)
        .variable("AGENTRY_FAILPOINTS", rule)
}

/// A daemon with nothing but the probe: each site compiles its plugins anew, and there are many.
fn base(site: &Site, ledger: &Ledger, name: &str) -> e2e::Setup {
    let plugins = site.folder().join("plugins");
    if !plugins.exists() {
        plugin::install("probe", &plugins);
    }
    ledger.kept_by(site.setup_named(name)).plugins([plugins])
}

/// How things stood when the fault had struck.
struct Struck {
    /// What had ended by then.
    ends: Ends,
    /// How many beginnings stood in the ledger, which are those of what had ended, and more.
    before: usize,
}

impl Struck {
    fn kept<'a>(&'a self, ledger: &'a Ledger) -> Kept<'a> {
        Kept { ledger: Some(ledger), ends: Some(&self.ends) }
    }
}

/// Waits until the fault has struck, and has the daemon running again.
async fn strike(site: &Site, cell: &Cell, ledger: &Ledger, daemon: &mut Daemon) -> Struck {
    daemon.says(&format!("failpoint {}", cell.point.name)).await;
    let dies = matches!(cell.fault, Fault::Abort | Fault::Hang);
    match cell.fault {
        Fault::Abort => {
            let status = daemon.exited().await;
            assert_eq!(status.code(), None, "it was killed");
        }
        // Nobody but an operator ends a process that hangs: the others have taken its tasks over, or they come back now.
        Fault::Hang => daemon.kill(),
        Fault::CommitThenError | Fault::Error => {}
    }
    let ends = invariants::ends(&site.database().await).await.expect("the database answers");
    let before = ledger.beginnings().len();
    if dies {
        daemon.change(|setup| setup.without_variable("AGENTRY_FAILPOINTS"));
        daemon.start_again().await;
    }
    Struck { ends, before }
}

/// What completed has run. Each attempt ran once, and once more only if the process died under it; none after its end was
/// committed.
fn count(ledger: &Ledger, cell: &Cell, rows: &BTreeMap<Uuid, TaskRow>, struck: &Struck) -> Outcome {
    let runs: BTreeMap<(Uuid, u32), usize> = ledger.runs();
    // Without this, a ledger that nobody writes would explain everything.
    let begun: BTreeSet<Uuid> = runs.keys().map(|(id, _)| *id).collect();
    let unseen: Vec<_> =
        rows.iter().filter(|(id, row)| row.state == "completed" && !begun.contains(*id)).map(|(id, _)| *id).collect();
    assert!(unseen.is_empty(), "{} completed and never began, by the ledger: {unseen:?}", unseen.len());
    let total: usize = runs.values().sum();
    assert!(total >= rows.len(), "{} tasks, and {total} runs in the ledger", rows.len());
    let deaths = match (cell.fault, cell.point.scene) {
        (Fault::Abort | Fault::Hang, Scene::Usual | Scene::Letters) => 1,
        (Fault::Abort | Fault::Hang, Scene::Orphans) => 2,
        (_, Scene::Usual | Scene::Letters) => 0,
        (_, Scene::Orphans) => 1,
    };
    // The host's own failure behind a guest that ended is an attempt of its own.
    for ((id, attempt), times) in &runs {
        assert!(
            *times <= 1 + deaths,
            "{id} began attempt {attempt} {times} times, and {deaths} deaths explain no more"
        );
    }
    for (id, attempt) in ledger.beginnings().iter().skip(struck.before) {
        assert!(!struck.ends.contains_key(id), "{id} had ended, and its attempt {attempt} ran after that");
    }
    Outcome { runs: total, again: runs.values().map(|times| times - 1).sum() }
}
