//! Attacks through what was granted: all in one daemon, and at once.

use std::process::{Command, Stdio};
use std::time::Duration;

use adversary::outside::{self, Attack, ByHand, Judged, Told, World, world};
use adversary::{Stage, Table, oracle};
use e2e::outside::{Play, Server, llm, mcp};
use e2e::{Site, Task, daemon, variables};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::attacks::wanted;
use crate::scenes::Change;

/// By how much the daemon's memory may rise with all of them at once, in KiB: what their guests may have, and a long answer.
const RISE: u64 = 512 << 10;
/// How long an attack may take.
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn no_grant_is_overstepped() {
    let _beside = adversary::MACHINE.read().await;
    let attacks: Vec<Attack> = outside::all().into_iter().filter(|attack| wanted(attack.id)).collect();
    let mut table = Table::new("attacks through what is granted");
    for (id, wrong) in play(&attacks, &|setup| setup).await {
        table.row(id, "", "", &wrong);
    }
    for run in outside::by_hand() {
        table.row(run.limit, "in a run by hand", "", &by_hand(&run, None).await);
    }
    table.hold();
}

/// Plays attacks at once, and an honest task after them; answers what is wrong with each.
pub async fn play(attacks: &[Attack], change: Change<'_>) -> Vec<(&'static str, Vec<String>)> {
    let plugins: Vec<&str> = attacks.iter().map(|attack| attack.plugin).collect();
    let world = World::start(change, &plugins).await;
    let mut stage = Stage::new(&world.site, &world.daemon, plugins[0]);
    let watch = stage.process.watch();
    let mut ids = Vec::new();
    for attack in attacks {
        let steps = (attack.steps)(&world);
        let task = || Task::new(attack.plugin, Value::from(steps.clone())).option("max_attempts", attack.attempts);
        let tasks: Vec<Task> = (0..attack.tasks).map(|_| task()).collect();
        world.site.publish(&tasks).await;
        ids.push(tasks.iter().map(|task| task.id).collect::<Vec<_>>());
    }
    let mut played = Vec::new();
    if let Some(at) = attacks.iter().position(|attack| attack.taken_over) {
        take_over(&world, ids[at][0]).await;
    }
    for (attack, ids) in attacks.iter().zip(&ids) {
        let told = told(&stage, attack, ids).await;
        played.push((attack.id, (attack.check)(Judged::new(&world, &told)).wrong()));
    }
    let mut wrong = Vec::new();
    if watch.rise() > RISE {
        wrong.push(format!("the daemon's memory rose by {} MiB", watch.rise() >> 10));
    }
    let honest = Value::from(vec![json!({"config": "region"})]);
    let (_, honest) = stage.run(stage.echo, honest, Duration::from_secs(10)).await;
    if !stage.alive() || honest.is_none_or(|task| task["output"] != json!([{"ok": "north"}])) {
        wrong.push("the next honest task does not complete".to_owned());
    }
    wrong.extend(stage.vigil.take().bad.into_iter().take(2));
    played.push(("the next honest task", wrong));
    played
}

/// Another host takes a task over while its guest sleeps, as far as the database can tell.
async fn take_over(world: &World, id: Uuid) {
    let heard = async |path: &str| {
        e2e::eventually(&format!("{path} is heard"), async || {
            let requests = world.web.requests();
            if requests.iter().any(|request| request.target == path) { Ok(()) } else { Err(format!("{requests:?}")) }
        })
        .await;
    };
    heard("/public/began").await;
    let mut database = PgConnection::connect(&world.site.database_url()).await.expect("the test's database answers");
    let taken = sqlx::query("UPDATE agentry.tasks SET fence = fence + 1 WHERE id = $1").bind(id);
    assert_eq!(taken.execute(&mut database).await.expect("it is taken over").rows_affected(), 1);
    heard("/public/wrote").await;
}

/// What became of an attack's first task, once all of them have ended.
async fn told(stage: &Stage<'_>, attack: &Attack, ids: &[Uuid]) -> Told {
    let mut database = PgConnection::connect(&stage.site.database_url()).await.expect("the test's database answers");
    let mut count = async |query: &'static str, id: Option<Uuid>| {
        let query = sqlx::query_scalar::<_, i64>(query);
        let query = if let Some(id) = id { query.bind(id) } else { query };
        query.fetch_one(&mut database).await.expect("a number")
    };
    if attack.taken_over {
        // It is nobody's, and has no end. What it wrote is what counts.
        let recorded = count("SELECT count(*) FROM agentry.buckets WHERE bucket = 'late'", None).await;
        return Told { recorded, ..Told::default() };
    }
    let mut first = None;
    for id in ids {
        let task = stage.ended(*id, WITHIN).await;
        first = first.or(Some(task));
    }
    let Some(Some(task)) = first else { return Told::default() };
    Told {
        task,
        calls: stage.daemon.http().calls(ids[0]).await,
        recorded: count("SELECT count(*) FROM agentry.task_calls WHERE task_id = $1", Some(ids[0])).await,
    }
}

/// What is wrong when more is asked of a model than a run by hand may.
pub async fn by_hand(run: &ByHand, without: Option<&str>) -> Vec<String> {
    let steps = &run.steps;
    let site: Site = crate::scenes::site_for_settings().await;
    let (models, web) = (llm::start(|_, _| llm::says("hello")).await, Server::start(|_| Play::text(200, "here")).await);
    let folder = world::install(&site.folder().join("plugins"), "by-hand", &[(run.limit, run.most)]);
    let binary = if without.is_some() { variables::faulty_binary() } else { variables::binary() };
    let mut command = Command::new(binary);
    command.env_clear().current_dir(site.folder()).stdin(Stdio::null());
    command.envs(without.map(|name| ("AGENTRY_WITHOUT", name)));
    command.arg("run").arg(folder).args(["--input", &Value::from(steps.clone()).to_string()]);
    command.args(["--llm", &format!("openai={}", models.url("/v1"))]);
    command.args(["--allow-http", &format!("GET {}", web.url("/"))]);
    command.args(["--tool", &format!("mock={}", mcp::command(site.folder()).join(" "))]);
    command.args(["--var", "region=north"]);
    let ended = daemon::run_command(&mut command).await;
    let output: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    let last = &output[steps.len() - 1];
    if last["error"]["kind"] == "budget_exceeded" && models.requests().len() < steps.len() {
        return Vec::new();
    }
    vec![oracle::cut(&format!("{last} instead of budget_exceeded: {ended:?}"))]
}
