//! Thousands of agents that wait for a slow server at the same time, as for a language model.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::daemon::{Daemon, Setup, without_settings};
use super::row::{Row, number};
use super::stage::{Stage, json as run};
use crate::process::{Guarded, Terms};

const AGENTS: u64 = 10_000;
/// How long the server takes for one answer, in milliseconds.
const ANSWER: &str = "5000";
/// After this time it is clear that the goal is not reached.
const PATIENCE: Duration = Duration::from_secs(60);
const WHAT: &str = "10,000 agents, each waits 5 s for a real HTTP server";
const GOAL: &str = "all complete within 10 s of the first start, ≤ 600 MiB resident";

/// A server that runs until it is dropped.
struct Server {
    port: u16,
    _guard: Guarded,
}

/// `reach` imports every capability, and a component is loaded only if each of its imports is granted. It calls HTTP alone.
const SETTINGS: &str = r#"
[http]
private = ["PLACE"]

[llm.providers.none]
kind = "openai"
url = "http://127.0.0.1:9/v1"

[llm.models.default]
provider = "none"
model = "none"

[tools.mock]
url = "http://127.0.0.1:9/mcp"

[plugins.reach.capabilities]
http = ["GET http://PLACE"]
llm = ["default"]
tools = { mock = ["*"] }
keyvalue = ["cache"]
memory = ["notes"]
config = ["region"]
"#;

/// Measures them once.
pub fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let server = serve(stage)?;
    let place = format!("127.0.0.1:{}", server.port);
    let database = stage.database()?;
    let settings = SETTINGS.replace("PLACE", &place);
    let setup = Setup::new(stage, &database, "one", &stage.plugins("tests/guests/reach")?)?.with(&settings);
    let daemon = setup.start()?;
    let mut command = Command::new(stage.program("agentry")?);
    without_settings(&mut command);
    command.current_dir(stage.folder.path()).envs(setup.environment());
    command.args(["bench", "--json", "--server", &daemon.address, "--plugin", "reach", "--via", "amqp"]);
    command.args(["--queue", "default", "--tasks", &AGENTS.to_string()]);
    command.args(["--input", &format!(r#"[{{"must":{{"http":{{"url":"http://{place}/"}}}}}}]"#)]);
    let result = run(&command, PATIENCE)?;
    let most = most(&place)?;
    let row = match result {
        Some(result) => {
            let seconds = number(&result, "/throughput/seconds")?;
            let resident = number(&result, "/resources/peak_resident_mib")?;
            let measured = format!("{seconds:.1} s, {resident:.0} MiB resident at most, {most} waited at once");
            let figures = json!({"seconds": seconds, "peak_resident_mib": resident, "at_once": most});
            Row::new(WHAT, GOAL, measured, seconds <= 10.0 && resident <= 600.0, figures)
        }
        None => cut(&daemon, most)?,
    };
    drop(daemon);
    stage.drop_database(&database)?;
    Ok(vec![row])
}

/// The row of a run that was cut off.
fn cut(daemon: &Daemon, most: u64) -> anyhow::Result<Row> {
    let (ended, resident, seconds) = (daemon.ended()?, daemon.resident()?, PATIENCE.as_secs());
    let measured = format!("{ended} had ended after {seconds} s, {resident:.0} MiB resident, {most} waited at once");
    let figures = json!({"ended": ended, "after_seconds": seconds, "resident_mib": resident, "at_once": most});
    Ok(Row::new(WHAT, GOAL, measured, false, figures))
}

fn serve(stage: &Stage) -> anyhow::Result<Server> {
    let log = stage.folder.path().join("slow-server");
    let output = File::create(&log).context("failed to make a file")?;
    let errors = output.try_clone().context("failed to share a file")?;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\""]).arg(stage.program("bench-tool")?);
    command.args(["slow-server", ANSWER]);
    let mut guard = Guarded::start(&command, &Terms::default(), output.into(), errors.into())?;
    let begun = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(port) = said.strip_suffix('\n').and_then(|port| port.parse().ok()) {
            return Ok(Server { port, _guard: guard });
        }
        if guard.ended().context("failed to look after the slow server")?.is_some() || begun.elapsed().as_secs() > 20 {
            bail!("the slow server did not start: {said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The most requests that waited at once.
fn most(place: &str) -> anyhow::Result<u64> {
    let mut answer = ureq::get(format!("http://{place}/most")).call().context("failed to ask the slow server")?;
    let text = answer.body_mut().read_to_string().context("failed to read the slow server's answer")?;
    text.parse().context("failed to read the slow server's count")
}
